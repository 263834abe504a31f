//! The packets of MQTT 5 that a publishing device needs, written and read (MQTT Version 5.0, OASIS Standard).

/// Bytes that a remaining length takes at most (section 1.5.5).
const MAX_LENGTH_BYTES: usize = 4;

/// What a device says.
#[derive(Debug)]
pub enum ToNode<'a> {
    /// Section 3.1; the session is clean.
    Connect { client: &'a str, keep_alive_s: u16, credentials: Option<(&'a str, &'a str)> },
    /// Section 3.3. With an id: QoS 1; without: QoS 0.
    Publish { topic: &'a str, id: Option<u16>, payload: &'a [u8] },
    /// Section 3.8, each filter with QoS 0.
    Subscribe { id: u16, filters: &'a [String] },
    /// Section 3.12.
    Ping,
    /// Section 3.14.
    Disconnect,
}

/// What a node says, as far as a device listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromNode {
    /// Section 3.2.
    Connected { code: u8, told: Told },
    /// Section 3.4.
    Acknowledged { id: u16, code: u8, told: Told },
    /// Section 3.3; of QoS 0, since nothing else was subscribed to.
    Published { topic: String, payload: Vec<u8> },
    /// Section 3.14.
    Disconnected { code: u8, told: Told },
    /// Anything else.
    Other,
}

/// The properties that a device heeds (section 2.2.2.2).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Told {
    /// Unacknowledged publishes that the node takes.
    pub receive_maximum: Option<u16>,
    /// Largest packet that the node takes.
    pub largest_packet: Option<u32>,
    /// Why, for people.
    pub reason: Option<String>,
    /// Other nodes.
    pub reference: Option<String>,
}

impl ToNode<'_> {
    /// Appends the packet. Texts longer than 65 535 bytes are cut: ids and topics are far shorter.
    pub fn write(&self, out: &mut Vec<u8>) {
        let mut body = Vec::new();
        let kind = match self {
            Self::Connect { client, keep_alive_s, credentials } => {
                text(&mut body, "MQTT");
                let flags = 0b10 | if credentials.is_some() { 0b1100_0000 } else { 0 };
                body.extend([5, flags]);
                body.extend(keep_alive_s.to_be_bytes());
                body.push(0);
                text(&mut body, client);
                if let Some((user, password)) = credentials {
                    text(&mut body, user);
                    text(&mut body, password);
                }
                0x10
            }
            Self::Publish { topic, id, payload } => {
                text(&mut body, topic);
                body.extend(id.iter().flat_map(|id| id.to_be_bytes()));
                body.push(0);
                body.extend_from_slice(payload);
                if id.is_some() { 0x32 } else { 0x30 }
            }
            Self::Subscribe { id, filters } => {
                body.extend(id.to_be_bytes());
                body.push(0);
                for filter in *filters {
                    text(&mut body, filter);
                    body.push(0);
                }
                0x82
            }
            Self::Ping => 0xc0,
            Self::Disconnect => 0xe0,
        };
        out.push(kind);
        let mut rest = body.len();
        loop {
            let byte = (rest % 128) as u8;
            rest /= 128;
            out.push(if rest > 0 { byte | 0x80 } else { byte });
            if rest == 0 {
                break;
            }
        }
        out.append(&mut body);
    }
}

fn text(out: &mut Vec<u8>, text: &str) {
    let bytes = &text.as_bytes()[..text.len().min(usize::from(u16::MAX))];
    out.extend((bytes.len() as u16).to_be_bytes());
    out.extend_from_slice(bytes);
}

/// A packet cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a packet that cannot be read")]
pub struct Malformed;

/// Takes the first packet off `bytes`: what it is and its length. `None` while it is not whole.
pub fn read(bytes: &[u8], largest: usize) -> Result<Option<(FromNode, usize)>, Malformed> {
    let Some((&first, rest)) = bytes.split_first() else { return Ok(None) };
    let mut body = Reader(rest);
    let length = match body.varint() {
        Ok(length) => length,
        Err(Malformed) if rest.len() < MAX_LENGTH_BYTES => return Ok(None),
        Err(Malformed) => return Err(Malformed),
    };
    if length > largest {
        return Err(Malformed);
    }
    let head = bytes.len() - body.0.len();
    let Some(body) = body.0.get(..length) else { return Ok(None) };
    let mut body = Reader(body);
    let packet = match first >> 4 {
        2 => {
            let _session_present = body.byte()?;
            FromNode::Connected { code: body.byte()?, told: body.told()? }
        }
        3 => {
            let topic = body.text()?;
            if first & 0b110 != 0 {
                return Err(Malformed);
            }
            let properties = body.varint()?;
            body.take(properties)?;
            FromNode::Published { topic, payload: body.0.to_vec() }
        }
        4 => FromNode::Acknowledged { id: body.u16()?, code: body.code()?, told: body.told()? },
        14 => FromNode::Disconnected { code: body.code()?, told: body.told()? },
        _ => FromNode::Other,
    };
    Ok(Some((packet, head + length)))
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, Malformed> {
        Ok(self.take(1)?[0])
    }

    /// A reason code; left out, it is success.
    fn code(&mut self) -> Result<u8, Malformed> {
        if self.0.is_empty() { Ok(0) } else { self.byte() }
    }

    fn u16(&mut self) -> Result<u16, Malformed> {
        Ok(u16::from_be_bytes([self.byte()?, self.byte()?]))
    }

    fn u32(&mut self) -> Result<u32, Malformed> {
        Ok(u32::from(self.u16()?) << 16 | u32::from(self.u16()?))
    }

    fn varint(&mut self) -> Result<usize, Malformed> {
        let mut value = 0;
        for at in 0..MAX_LENGTH_BYTES {
            let byte = self.byte()?;
            value |= usize::from(byte & 0x7f) << (7 * at);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Malformed)
    }

    fn text(&mut self) -> Result<String, Malformed> {
        let length = self.u16()?;
        let bytes = self.take(usize::from(length))?;
        String::from_utf8(bytes.to_vec()).map_err(|_| Malformed)
    }

    fn told(&mut self) -> Result<Told, Malformed> {
        let mut told = Told::default();
        if self.0.is_empty() {
            return Ok(told);
        }
        let length = self.varint()?;
        let mut properties = Self(self.take(length)?);
        while !properties.0.is_empty() {
            match properties.varint()? {
                0x21 => told.receive_maximum = Some(properties.u16()?),
                0x27 => told.largest_packet = Some(properties.u32()?),
                0x1f => told.reason = Some(properties.text()?),
                0x1c => told.reference = Some(properties.text()?),
                0x01 | 0x17 | 0x19 | 0x24 | 0x25 | 0x28 | 0x29 | 0x2a => drop(properties.take(1)?),
                0x13 | 0x22 | 0x23 => drop(properties.take(2)?),
                0x02 | 0x11 | 0x18 => drop(properties.take(4)?),
                0x0b => drop(properties.varint()?),
                0x03 | 0x08 | 0x12 | 0x15 | 0x1a | 0x09 | 0x16 => drop(properties.text_or_bytes()?),
                0x26 => {
                    properties.text_or_bytes()?;
                    properties.text_or_bytes()?;
                }
                _ => return Err(Malformed),
            }
        }
        Ok(told)
    }

    fn text_or_bytes(&mut self) -> Result<&'a [u8], Malformed> {
        let length = self.u16()?;
        self.take(usize::from(length))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LARGEST: usize = 1 << 20;

    fn written(packet: &ToNode<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        packet.write(&mut out);
        out
    }

    #[test]
    fn packets_are_written_as_the_standard_says() {
        let connect = ToNode::Connect { client: "s", keep_alive_s: 10, credentials: Some(("u", "p")) };
        assert_eq!(
            written(&connect),
            *b"\x10\x14\0\x04MQTT\x05\xc2\0\x0a\0\0\x01s\0\x01u\0\x01p",
            "flags: user, password, clean start"
        );
        let publish = |id| ToNode::Publish { topic: "a/b", id, payload: b"1" };
        assert_eq!(written(&publish(Some(258))), *b"\x32\x09\0\x03a/b\x01\x02\x001");
        assert_eq!(written(&publish(None)), *b"\x30\x07\0\x03a/b\x001");
        let filters = ["a".to_owned(), "b".to_owned()];
        let subscribe = ToNode::Subscribe { id: 1, filters: &filters };
        assert_eq!(written(&subscribe), *b"\x82\x0b\0\x01\0\0\x01a\0\0\x01b\0");
        assert_eq!(written(&ToNode::Ping), [0xc0, 0]);
        let long = vec![b'x'; 200];
        assert_eq!(
            written(&ToNode::Publish { topic: "a", id: None, payload: &long })[..3],
            [0x30, 0xcc, 0x01]
        );
    }

    #[test]
    fn what_a_node_says_is_read_whole_or_not_yet() {
        let told = Told { reference: Some("b:1".into()), reason: Some("go".into()), ..Told::default() };
        let bytes = b"\xe0\x0d\x9d\x0b\x1c\0\x03b:1\x1f\0\x02go\xd0\0".to_vec();
        for short in 0..15 {
            assert_eq!(read(&bytes[..short], LARGEST), Ok(None), "{short}");
        }
        assert_eq!(read(&bytes, LARGEST), Ok(Some((FromNode::Disconnected { code: 0x9d, told }, 15))));
        assert_eq!(read(&bytes[15..], LARGEST), Ok(Some((FromNode::Other, 2))));
        let limits = Told { receive_maximum: Some(20), largest_packet: Some(65_536), ..Told::default() };
        let connack = b"\x20\x0d\0\0\x0a\x21\0\x14\x27\0\x01\0\0\x24\x01";
        assert_eq!(read(connack, LARGEST), Ok(Some((FromNode::Connected { code: 0, told: limits }, 15))));
        let ack = |code| FromNode::Acknowledged { id: 7, code, told: Told::default() };
        assert_eq!(read(b"\x40\x02\0\x07", LARGEST), Ok(Some((ack(0), 4))));
        assert_eq!(read(b"\x40\x03\0\x07\x99", LARGEST), Ok(Some((ack(0x99), 5))));
        let published = FromNode::Published { topic: "t".into(), payload: b"{}".to_vec() };
        assert_eq!(read(b"\x30\x06\0\x01t\0{}", LARGEST), Ok(Some((published, 8))));
    }

    #[test]
    fn nonsense_is_refused() {
        for bytes in [
            &b"\x20\x01\0"[..],
            b"\x40\x01\0",
            b"\x20\xff\xff\xff\xff\x01",
            b"\xe0\x03\x9d\x01\x7f",
            b"\xe0\x05\x9d\x03\x1c\0\x09",
            b"\x30\x05\0\x01\xff\0x",
            b"\x32\x06\0\x01t\0\x01\0",
        ] {
            assert_eq!(read(bytes, LARGEST), Err(Malformed), "{bytes:?}");
        }
        assert_eq!(read(b"\xe0\x7f", 100), Err(Malformed), "longer than what is taken");
    }
}

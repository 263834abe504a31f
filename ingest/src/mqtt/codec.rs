//! Packets of clients, read: MQTT 3.1.1 and 5.
//!
//! rumqttd's codecs read what is rare and long: CONNECT, SUBSCRIBE, UNSUBSCRIBE, a PUBLISH or DISCONNECT with
//! properties. Around them stands what they leave out. A packet's type and flags are looked at before they see it:
//! version 5's codec answers a CONNACK or UNSUBACK with a panic, and neither looks at reserved bits. Acknowledgements,
//! and a PUBLISH without properties, are read here in place: they are all of the traffic that is heavy, and the codec
//! keeps a PUBLISH's QoS and packet id to itself.
//!
//! Invariant: no bytes panic, and a packet is only ever read whole.

use bytes::BytesMut;
use rumqttd::protocol::{
    self, Connect, ConnectProperties, ConnectReturnCode, DisconnectReasonCode, LastWill, LastWillProperties,
    Packet, Protocol, PublishProperties, QoS, Subscribe, Unsubscribe, v4::V4, v5::V5,
};

/// Which MQTT a client speaks; its CONNECT says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// MQTT 3.1.1 (protocol level 4).
    V4,
    /// MQTT 5 (protocol level 5).
    V5,
}

/// What a client did that ends its connection: told to it by MQTT 5's DISCONNECT (or CONNACK), and logged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct Violation {
    /// The reason code.
    pub reason: DisconnectReasonCode,
    /// What was wrong, with the value where it helps.
    pub what: String,
}

impl Violation {
    /// A packet that does not follow the format.
    pub fn malformed(what: impl Into<String>) -> Self {
        Self { reason: DisconnectReasonCode::MalformedPacket, what: what.into() }
    }

    /// A packet that is well-formed and not allowed here.
    pub fn protocol(what: impl Into<String>) -> Self {
        Self { reason: DisconnectReasonCode::ProtocolError, what: what.into() }
    }

    /// A topic name that may not be published to.
    pub fn topic(what: impl Into<String>) -> Self {
        Self { reason: DisconnectReasonCode::TopicNameInvalid, what: what.into() }
    }
}

/// One packet's bytes: the first byte, and what follows the remaining length.
#[derive(Debug, Clone, Copy)]
pub struct Frame<'a> {
    first: u8,
    body: &'a [u8],
    whole: &'a [u8],
}

impl<'a> Frame<'a> {
    /// The first packet in `bytes`; `None` while it is not there whole. A packet longer than `limit` is refused
    /// by its header, before its body arrives.
    pub fn split(bytes: &'a [u8], limit: usize) -> Result<Option<Self>, Violation> {
        let mut length = 0;
        for index in 0..4 {
            let Some(&byte) = bytes.get(1 + index) else { return Ok(None) };
            length |= usize::from(byte & 0x7f) << (7 * index);
            if byte & 0x80 == 0 {
                let header = 2 + index;
                if header + length > limit {
                    return Err(Violation {
                        reason: DisconnectReasonCode::PacketTooLarge,
                        what: format!("packet of {} bytes; at most {limit} are taken", header + length),
                    });
                }
                return Ok(bytes.get(..header + length).map(|whole| Self {
                    first: bytes[0],
                    body: &whole[header..],
                    whole,
                }));
            }
        }
        Err(Violation::malformed("remaining length of more than four bytes"))
    }

    /// Length of the packet with its header, in bytes.
    pub fn len(&self) -> usize {
        self.whole.len()
    }

    /// The packet's type, 0 to 15.
    pub fn kind(&self) -> u8 {
        self.first >> 4
    }

    fn flags(&self) -> u8 {
        self.first & 0x0f
    }
}

/// The packet types that a client may send.
mod kind {
    pub(super) const CONNECT: u8 = 1;
    pub(super) const PUBLISH: u8 = 3;
    pub(super) const PUBACK: u8 = 4;
    pub(super) const PUBREC: u8 = 5;
    pub(super) const PUBREL: u8 = 6;
    pub(super) const PUBCOMP: u8 = 7;
    pub(super) const SUBSCRIBE: u8 = 8;
    pub(super) const UNSUBSCRIBE: u8 = 10;
    pub(super) const PINGREQ: u8 = 12;
    pub(super) const DISCONNECT: u8 = 14;
}

/// A CONNECT, read.
#[derive(Debug)]
pub struct Hello {
    /// Which MQTT follows.
    pub version: Version,
    /// Client id, keep-alive, clean session.
    pub connect: Connect,
    /// Version 5's properties.
    pub properties: Option<ConnectProperties>,
    /// What to publish when the client vanishes.
    pub will: Option<(LastWill, Option<LastWillProperties>)>,
}

/// Why a first packet is not a CONNECT that can be served.
#[derive(Debug)]
pub enum BadHello {
    /// Nothing can be said to it: it does not speak MQTT as far as can be seen.
    Silent(String),
    /// It speaks this version and did this wrong.
    Told(Version, ConnectReturnCode, String),
}

/// Reads the first packet of a connection.
pub fn read_hello(frame: &Frame<'_>) -> Result<Hello, BadHello> {
    if frame.kind() != kind::CONNECT {
        return Err(BadHello::Silent(format!("first packet of type {} instead of CONNECT", frame.kind())));
    }
    let level = match frame.body {
        [0, 4, b'M', b'Q', b'T', b'T', level, ..] | [0, 6, b'M', b'Q', b'I', b's', b'd', b'p', level, ..] => {
            *level
        }
        _ => return Err(BadHello::Silent("protocol name is not MQTT".into())),
    };
    let (version, malformed) = match level {
        4 => (Version::V4, ConnectReturnCode::RefusedProtocolVersion),
        5 => (Version::V5, ConnectReturnCode::MalformedPacket),
        6.. => {
            let what = format!("protocol level {level}; 4 (MQTT 3.1.1) and 5 are spoken");
            return Err(BadHello::Told(Version::V5, ConnectReturnCode::UnsupportedProtocolVersion, what));
        }
        _ => {
            let what = format!("protocol level {level}; 4 (MQTT 3.1.1) and 5 are spoken");
            return Err(BadHello::Told(Version::V4, ConnectReturnCode::RefusedProtocolVersion, what));
        }
    };
    // Version 3.1.1 has no return code for a malformed CONNECT: the connection is closed (MQTT-3.1.4-1).
    let bad = |what: String| match version {
        Version::V4 => BadHello::Silent(what),
        Version::V5 => BadHello::Told(version, malformed, what),
    };
    let connect_flags = frame.body.get(7).copied().unwrap_or_default();
    if frame.flags() != 0 || connect_flags & 1 != 0 {
        return Err(bad("reserved bits set in CONNECT".into()));
    }
    if version == Version::V4 && connect_flags & 0xc0 == 0x40 {
        return Err(bad("CONNECT with a password and no user name".into()));
    }
    match decode(version, frame) {
        Ok(Packet::Connect(connect, properties, will, will_properties, _login)) => {
            if connect.client_id.contains('\0') {
                return Err(bad("client id with U+0000".into()));
            }
            Ok(Hello { version, connect, properties, will: will.map(|will| (will, will_properties)) })
        }
        Ok(_) => Err(bad("CONNECT read as another packet".into())),
        Err(violation) => Err(bad(violation.what)),
    }
}

/// A packet of a client after its CONNECT.
#[derive(Debug)]
pub enum Incoming<'a> {
    /// PUBLISH.
    Publish(Publish<'a>),
    /// PUBACK, with version 5's reason code.
    PubAck(u16),
    /// PUBREC; `refused` when its reason code says that no PUBREL is wanted.
    PubRec {
        /// Packet id.
        pkid: u16,
        /// Reason code of 0x80 or above.
        refused: bool,
    },
    /// PUBREL.
    PubRel(u16),
    /// PUBCOMP.
    PubComp(u16),
    /// SUBSCRIBE, with version 5's subscription identifier.
    Subscribe(Subscribe, Option<usize>),
    /// UNSUBSCRIBE.
    Unsubscribe(Unsubscribe),
    /// PINGREQ.
    PingReq,
    /// DISCONNECT.
    Disconnect {
        /// Whether the will is published all the same.
        with_will: bool,
        /// A new session expiry interval, in seconds.
        session_expiry: Option<u32>,
    },
}

/// A PUBLISH, borrowed from the bytes that were read.
#[derive(Debug)]
pub struct Publish<'a> {
    /// Quality of service asked for.
    pub qos: QoS,
    /// Packet id; 0 for QoS 0.
    pub pkid: u16,
    /// To be retained.
    pub retain: bool,
    /// Topic name; empty only where a topic alias stands for it.
    pub topic: &'a str,
    /// The message.
    pub payload: &'a [u8],
    /// Version 5's properties, when there are any.
    pub properties: Option<Box<PublishProperties>>,
}

/// Reads a packet that is not the first.
pub fn read<'a>(version: Version, frame: &Frame<'a>) -> Result<Incoming<'a>, Violation> {
    let kind = frame.kind();
    let flags_wanted = match kind {
        kind::PUBLISH => frame.flags(),
        kind::PUBREL | kind::SUBSCRIBE | kind::UNSUBSCRIBE => 0b0010,
        _ => 0,
    };
    if frame.flags() != flags_wanted {
        return Err(Violation::malformed(format!("reserved bits of packet type {kind} are wrong")));
    }
    match kind {
        kind::PUBLISH => read_publish(version, frame).map(Incoming::Publish),
        kind::PUBACK => Ok(Incoming::PubAck(read_ack(version, frame)?.0)),
        kind::PUBREC => {
            let (pkid, reason) = read_ack(version, frame)?;
            Ok(Incoming::PubRec { pkid, refused: reason >= 0x80 })
        }
        kind::PUBREL => Ok(Incoming::PubRel(read_ack(version, frame)?.0)),
        kind::PUBCOMP => Ok(Incoming::PubComp(read_ack(version, frame)?.0)),
        kind::SUBSCRIBE => match decode(version, frame)? {
            Packet::Subscribe(subscribe, properties) if subscribe.pkid != 0 => {
                let id = properties.and_then(|properties| properties.id);
                match id {
                    Some(0) => Err(Violation::protocol("subscription identifier 0")),
                    id => Ok(Incoming::Subscribe(subscribe, id)),
                }
            }
            _ => Err(Violation::malformed("SUBSCRIBE without a packet id")),
        },
        kind::UNSUBSCRIBE => match decode(version, frame)? {
            Packet::Unsubscribe(packet, _) if packet.pkid == 0 => {
                Err(Violation::malformed("UNSUBSCRIBE without a packet id"))
            }
            Packet::Unsubscribe(packet, _) if packet.filters.is_empty() => {
                Err(Violation::protocol("UNSUBSCRIBE without a topic filter"))
            }
            Packet::Unsubscribe(packet, _) => Ok(Incoming::Unsubscribe(packet)),
            _ => Err(Violation::malformed("UNSUBSCRIBE read as another packet")),
        },
        kind::PINGREQ if frame.body.is_empty() => Ok(Incoming::PingReq),
        kind::PINGREQ => Err(Violation::malformed("PINGREQ with a body")),
        kind::DISCONNECT => read_disconnect(version, frame),
        kind::CONNECT => Err(Violation::protocol("a second CONNECT")),
        0 => Err(Violation::malformed("packet of reserved type 0")),
        15 => Err(Violation::protocol("AUTH without an authentication method")),
        other => Err(Violation::protocol(format!("packet of type {other}, which only a server sends"))),
    }
}

fn read_publish<'a>(version: Version, frame: &Frame<'a>) -> Result<Publish<'a>, Violation> {
    let flags = frame.flags();
    let (dup, retain) = (flags & 0b1000 != 0, flags & 1 != 0);
    let qos = protocol::qos((flags >> 1) & 0b11).ok_or_else(|| Violation::malformed("PUBLISH with QoS 3"))?;
    if dup && qos == QoS::AtMostOnce {
        return Err(Violation::malformed("PUBLISH with DUP and QoS 0"));
    }
    let short = || Violation::malformed("PUBLISH that ends before its payload");
    let (topic, mut rest) = split_string(frame.body).ok_or_else(short)?;
    let mut pkid = 0;
    if qos != QoS::AtMostOnce {
        let (id, after) = rest.split_first_chunk::<2>().ok_or_else(short)?;
        (pkid, rest) = (u16::from_be_bytes(*id), after);
        if pkid == 0 {
            return Err(Violation::protocol("PUBLISH with packet id 0"));
        }
    }
    let (mut properties, mut payload) = (None, rest);
    if version == Version::V5 {
        match rest {
            [] => return Err(short()),
            [0, after @ ..] => payload = after,
            _ => {
                let Packet::Publish(publish, read) = decode(version, frame)? else { return Err(short()) };
                // The codec lets the last property run on into the payload.
                payload = split_properties(rest).ok_or_else(short)?;
                if payload.len() != publish.payload.len() {
                    return Err(Violation::malformed(
                        "PUBLISH with properties of another length than it says",
                    ));
                }
                properties = read.map(Box::new);
            }
        }
    }
    let topic = std::str::from_utf8(topic).map_err(|_| Violation::malformed("topic name is not UTF-8"))?;
    Ok(Publish { qos, pkid, retain, topic, payload, properties })
}

/// The packet id and reason code (0 where it is left out) of an acknowledgement.
fn read_ack(version: Version, frame: &Frame<'_>) -> Result<(u16, u8), Violation> {
    let bad = || Violation::malformed(format!("acknowledgement of type {} is malformed", frame.kind()));
    let (pkid, reason) = match (version, frame.body) {
        (_, [high, low]) => (u16::from_be_bytes([*high, *low]), 0),
        (Version::V5, [high, low, reason]) => (u16::from_be_bytes([*high, *low]), *reason),
        // The properties say nothing that is used; the codec still checks that they are well-formed.
        (Version::V5, [high, low, reason, ..]) => {
            decode(version, frame)?;
            (u16::from_be_bytes([*high, *low]), *reason)
        }
        _ => return Err(bad()),
    };
    if pkid == 0 { Err(bad()) } else { Ok((pkid, reason)) }
}

fn read_disconnect(version: Version, frame: &Frame<'_>) -> Result<Incoming<'static>, Violation> {
    let with = |reason: u8, session_expiry| Incoming::Disconnect { with_will: reason != 0, session_expiry };
    match (version, frame.body) {
        (_, []) => Ok(with(0, None)),
        (Version::V4, _) => Err(Violation::malformed("DISCONNECT with a body")),
        // The codec wants properties after the reason code; the standard does not (MQTT 5, 3.14.2.2.1).
        (Version::V5, [reason]) => Ok(with(*reason, None)),
        (Version::V5, [reason, ..]) => match decode(version, frame)? {
            Packet::Disconnect(_, properties) => {
                Ok(with(*reason, properties.and_then(|properties| properties.session_expiry_interval)))
            }
            _ => Err(Violation::malformed("DISCONNECT read as another packet")),
        },
    }
}

/// Gives a whole packet, of a type that a client may send, to rumqttd's codec.
fn decode(version: Version, frame: &Frame<'_>) -> Result<Packet, Violation> {
    let mut bytes = BytesMut::from(frame.whole);
    let read = match version {
        Version::V4 => V4.read_mut(&mut bytes, frame.len()),
        Version::V5 => V5.read_mut(&mut bytes, frame.len()),
    };
    read.map_err(|error| match error {
        protocol::Error::EmptySubscription => Violation::protocol("SUBSCRIBE without a topic filter"),
        error => Violation::malformed(format!("packet of type {}: {error}", frame.kind())),
    })
}

fn split_string(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<2>()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))
}

/// What follows a block of properties.
fn split_properties(bytes: &[u8]) -> Option<&[u8]> {
    let mut length = 0;
    for index in 0..4 {
        let byte = *bytes.get(index)?;
        length |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return bytes.get(index + 1 + length..);
        }
    }
    None
}

/// Properties of a will, as its PUBLISH carries them.
pub fn will_properties(will: LastWillProperties) -> PublishProperties {
    PublishProperties {
        payload_format_indicator: will.payload_format_indicator,
        message_expiry_interval: will.message_expiry_interval,
        topic_alias: None,
        response_topic: will.response_topic,
        correlation_data: will.correlation_data,
        user_properties: will.user_properties,
        subscription_identifiers: Vec::new(),
        content_type: will.content_type,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn packet(first: u8, body: &[u8]) -> Vec<u8> {
        assert!(body.len() < 128);
        [&[first, body.len() as u8], body].concat()
    }

    /// Gives bytes to everything that reads packets.
    fn judge(bytes: &[u8]) {
        let Ok(Some(frame)) = Frame::split(bytes, 1 << 20) else { return };
        let _ = read_hello(&frame);
        for version in [Version::V4, Version::V5] {
            if let Ok(Incoming::Publish(publish)) = read(version, &frame) {
                assert!(publish.payload.len() < frame.len());
            }
        }
    }

    /// First byte and body of a good packet of each sort, with what properties it may have.
    fn seeds() -> Vec<(u8, Vec<u8>)> {
        let connect = |level: u8, flags: u8, rest: &[u8]| {
            [&[0, 4, b'M', b'Q', b'T', b'T', level, flags, 0, 60], rest].concat()
        };
        let will =
            [&[0, 1, b'c', 5, 0x18, 0, 0, 0, 9, 0, 1, b'w', 0, 2, b'h', b'i'][..], &[0, 1, b'u', 0, 1, b'p']];
        let connect_properties = [17, 0, 0, 0, 9, 0x21, 0, 9, 0x27, 0, 0, 9, 9, 0x22, 0, 1];
        vec![
            (0x10, connect(4, 0xc6, &[&[0, 1, b'c', 0, 1, b'w', 0, 0, 0, 1, b'u', 0, 1, b'p'][..]].concat())),
            (0x10, connect(5, 0xce, &[&[16][..], &connect_properties, &will.concat()].concat())),
            (
                0x32,
                [&[0, 1, b't', 0, 7, 15, 1, 1, 2, 0, 0, 0, 9, 0x23, 0, 1, 8, 0, 2, b'r', b't'][..], b"x"]
                    .concat(),
            ),
            (0x30, [&[0, 1, b't', 9, 9, 0, 1, 7, 0x0b, 0x81, 1, 3, 0][..], b"payload"].concat()),
            (0x82, vec![0, 1, 2, 0x0b, 5, 0, 1, b'#', 0x2e, 0, 1, b'+', 1]),
            (0xa2, vec![0, 1, 7, 0x26, 0, 1, b'k', 0, 1, b'v', 0, 1, b'#']),
            (0x40, vec![0, 1, 0x10, 4, 0x1f, 0, 1, b'r']),
            (0x50, vec![0, 1, 0x83, 7, 0x26, 0, 1, b'k', 0, 1, b'v']),
            (0x62, vec![0, 1, 0x92, 0]),
            (0x70, vec![0, 1, 0x92, 0]),
            (0xe0, vec![4, 5, 17, 0, 0, 0, 9]),
            (0xc0, vec![]),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        #[test]
        fn any_body_of_any_type_is_judged(first: u8, body in prop::collection::vec(any::<u8>(), 0..64)) {
            judge(&packet(first, &body));
        }

        #[test]
        fn changed_packets_are_judged(
            seed in prop::sample::select(seeds()),
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
            length: prop::sample::Index,
        ) {
            let (first, mut body) = seed;
            for (index, byte) in changes {
                if !body.is_empty() {
                    let at = index.index(body.len());
                    body[at] = byte;
                }
            }
            judge(&packet(first, &body));
            body.truncate(length.index(body.len() + 1));
            judge(&packet(first, &body));
        }

        #[test]
        fn any_bytes_are_judged(bytes in prop::collection::vec(any::<u8>(), 0..32)) {
            judge(&bytes);
        }
    }

    #[test]
    fn packets_of_servers_are_refused_before_the_codec_sees_them() {
        for first in [0x20, 0x90, 0xb0, 0xd0, 0xf0, 0x00, 0x10] {
            for body in [&[][..], &[0, 1], &[0, 1, 0, 0], &[0; 12]] {
                let bytes = packet(first, body);
                let frame = Frame::split(&bytes, 100).unwrap().unwrap();
                assert!(read(Version::V4, &frame).is_err() && read(Version::V5, &frame).is_err());
            }
        }
    }

    #[test]
    fn lengths_are_read_up_to_the_limit() {
        let header = |length: &[u8]| [&[0x30], length].concat();
        assert!(Frame::split(&[], 10).unwrap().is_none());
        assert!(Frame::split(&header(&[0x80]), 10).unwrap().is_none());
        assert!(Frame::split(&header(&[8]), 10).unwrap().is_none());
        let too_large = Frame::split(&header(&[9]), 10).unwrap_err();
        assert_eq!(too_large.reason, DisconnectReasonCode::PacketTooLarge);
        let malformed = Frame::split(&header(&[0xff, 0xff, 0xff, 0xff, 1]), usize::MAX).unwrap_err();
        assert_eq!(malformed.reason, DisconnectReasonCode::MalformedPacket);
    }

    #[test]
    fn a_disconnect_may_have_a_reason_and_nothing_else() {
        let bytes = packet(0xe0, &[4]);
        let frame = Frame::split(&bytes, 100).unwrap().unwrap();
        let read = read(Version::V5, &frame).unwrap();
        assert!(matches!(read, Incoming::Disconnect { with_will: true, session_expiry: None }), "{read:?}");
    }
}

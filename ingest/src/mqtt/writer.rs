//! Packets for clients, written: MQTT 3.1.1 and 5.
//!
//! rumqttd's codecs write what has reasons or properties. Their ways are walked around here: each has CONNACK codes that
//! it panics at, and version 5's counts some DISCONNECTs wrong.

use bytes::{BufMut, BytesMut};
use rumqttd::protocol::{
    self, ConnAck, ConnAckProperties, ConnectReturnCode, Disconnect, DisconnectProperties,
    DisconnectReasonCode, Packet, Protocol, PubAck, PubAckProperties, PubAckReason, PubRec, PubRecProperties,
    PubRecReason, PublishProperties, QoS, SubAck, SubscribeReasonCode, UnsubAck, UnsubAckReason, v4::V4,
    v5::V5,
};

use super::codec::Version;

/// Longest reason string that is sent, in bytes; the rest is cut off.
const MAX_REASON_BYTES: usize = 512;

/// Writes packets to one client, in its version.
#[derive(Debug, Clone, Copy)]
pub struct Writer {
    /// The version it speaks.
    pub version: Version,
    /// Whether it wants reason strings with its acknowledgements (version 5).
    pub reasons: bool,
}

impl Writer {
    /// CONNACK.
    pub fn connack(
        self,
        session_present: bool,
        code: ConnectReturnCode,
        properties: ConnAckProperties,
        out: &mut BytesMut,
    ) {
        use ConnectReturnCode as Code;
        // Each version has codes that the other's codec does not know, and panics at.
        let code = match (self.version, code) {
            (Version::V4, Code::UnsupportedProtocolVersion) => Code::RefusedProtocolVersion,
            (
                Version::V4,
                Code::Success
                | Code::RefusedProtocolVersion
                | Code::ClientIdentifierNotValid
                | Code::BadUserNamePassword
                | Code::NotAuthorized,
            ) => code,
            (Version::V4, _) => Code::ServiceUnavailable,
            (Version::V5, Code::RefusedProtocolVersion) => Code::UnsupportedProtocolVersion,
            (Version::V5, Code::ServiceUnavailable) => Code::ServerUnavailable,
            (Version::V5, code) => code,
        };
        self.write(Packet::ConnAck(ConnAck { session_present, code }, Some(properties)), out);
    }

    /// PUBACK, or PUBREC for QoS 2, that says yes.
    pub fn accepted(qos: QoS, pkid: u16, out: &mut BytesMut) {
        let first = if qos == QoS::ExactlyOnce { 0x50 } else { 0x40 };
        out.put_slice(&ack(first, pkid));
    }

    /// PUBACK or PUBREC with version 5's reason; a plain one in 3.1.1, which has no way to say it.
    pub fn refused(self, qos: QoS, pkid: u16, reason: PubAckReason, what: &str, out: &mut BytesMut) {
        if self.version == Version::V4 {
            return Self::accepted(qos, pkid, out);
        }
        let reason_string = self.reasons.then(|| shorten(what));
        let packet = if qos == QoS::ExactlyOnce {
            let properties = PubRecProperties { reason_string, user_properties: Vec::new() };
            Packet::PubRec(PubRec { pkid, reason: second_reason(reason) }, Some(properties))
        } else {
            let properties = PubAckProperties { reason_string, user_properties: Vec::new() };
            Packet::PubAck(PubAck { pkid, reason }, Some(properties))
        };
        self.write(packet, out);
    }

    /// PUBREL.
    pub fn pubrel(pkid: u16, out: &mut BytesMut) {
        out.put_slice(&ack(0x62, pkid));
    }

    /// PUBCOMP; `found` false says, in version 5, that the packet id was not in use.
    pub fn pubcomp(self, pkid: u16, found: bool, out: &mut BytesMut) {
        if found || self.version == Version::V4 {
            out.put_slice(&ack(0x70, pkid));
        } else {
            let [high, low] = pkid.to_be_bytes();
            out.put_slice(&[0x70, 3, high, low, 0x92]);
        }
    }

    /// SUBACK, a code per filter.
    pub fn suback(self, pkid: u16, mut return_codes: Vec<SubscribeReasonCode>, out: &mut BytesMut) {
        if self.version == Version::V4 {
            for code in &mut return_codes {
                if !matches!(code, SubscribeReasonCode::Success(_)) {
                    *code = SubscribeReasonCode::Failure;
                }
            }
        }
        self.write(Packet::SubAck(SubAck { pkid, return_codes }, None), out);
    }

    /// UNSUBACK; version 5 has a reason per filter.
    pub fn unsuback(self, pkid: u16, reasons: Vec<UnsubAckReason>, out: &mut BytesMut) {
        self.write(Packet::UnsubAck(UnsubAck { pkid, reasons }, None), out);
    }

    /// PINGRESP.
    pub fn pingresp(out: &mut BytesMut) {
        out.put_slice(&[0xd0, 0]);
    }

    /// DISCONNECT with a reason; nothing in 3.1.1, whose servers only close.
    pub fn disconnect(self, reason_code: DisconnectReasonCode, what: &str, out: &mut BytesMut) {
        self.disconnect_for(reason_code, what, None, out);
    }

    /// DISCONNECT because the node is going away, with where to go instead, if there is such a place.
    pub fn away(self, server_reference: Option<String>, out: &mut BytesMut) {
        let reason = match server_reference {
            Some(_) => DisconnectReasonCode::UseAnotherServer,
            None => DisconnectReasonCode::ServerShuttingDown,
        };
        self.disconnect_for(reason, "the node is going away", server_reference, out);
    }

    fn disconnect_for(
        self,
        reason_code: DisconnectReasonCode,
        what: &str,
        server_reference: Option<String>,
        out: &mut BytesMut,
    ) {
        if self.version == Version::V4 {
            return;
        }
        // The codec counts a DISCONNECT without properties one byte short, and writes one with empty properties
        // as a normal disconnection: a reason string is always there.
        let reason_string = if what.is_empty() { Some("closing".into()) } else { Some(shorten(what)) };
        let properties = DisconnectProperties {
            session_expiry_interval: None,
            reason_string,
            user_properties: Vec::new(),
            server_reference,
        };
        self.write(Packet::Disconnect(Disconnect { reason_code }, Some(properties)), out);
    }

    /// PUBLISH. Without properties it is written here; with them by the codec, whose PUBLISH can only be given a
    /// QoS by reading one from bytes.
    pub fn publish(self, message: &Outgoing<'_>, out: &mut BytesMut) {
        let first =
            0x30 | (u8::from(message.dup) << 3) | ((message.qos as u8) << 1) | u8::from(message.retain);
        if let (Version::V5, Some(properties)) = (self.version, message.properties) {
            let mut bytes = BytesMut::with_capacity(5 + message.topic.len() + message.payload.len());
            bytes.put_u8(first);
            bytes.put_u16(message.pkid);
            bytes.put_u16(message.topic.len() as u16);
            bytes.put_slice(message.topic.as_bytes());
            bytes.put_slice(message.payload);
            let publish = protocol::Publish::deserialize(bytes.freeze());
            return self.write(Packet::Publish(publish, Some(properties.clone())), out);
        }
        let id = if message.qos == QoS::AtMostOnce { 0 } else { 2 };
        let length =
            2 + message.topic.len() + id + usize::from(self.version == Version::V5) + message.payload.len();
        out.reserve(5 + length);
        out.put_u8(first);
        put_length(length, out);
        out.put_u16(message.topic.len() as u16);
        out.put_slice(message.topic.as_bytes());
        if id != 0 {
            out.put_u16(message.pkid);
        }
        if self.version == Version::V5 {
            out.put_u8(0);
        }
        out.put_slice(message.payload);
    }

    fn write(self, packet: Packet, out: &mut BytesMut) {
        let kept = out.len();
        let written = match self.version {
            Version::V4 => V4.write(packet, out),
            Version::V5 => V5.write(packet, out),
        };
        if let Err(error) = written {
            // Only a packet beyond 256 MiB gets here; half of it must not go out.
            out.truncate(kept);
            tracing::error!(%error, "an MQTT packet could not be written");
        }
    }
}

/// A PUBLISH to be written.
#[derive(Debug)]
pub struct Outgoing<'a> {
    /// Sent before.
    pub dup: bool,
    /// Quality of service of this delivery.
    pub qos: QoS,
    /// Packet id; 0 for QoS 0.
    pub pkid: u16,
    /// The retain flag as the subscriber is to see it.
    pub retain: bool,
    /// Topic name, at most 65535 bytes.
    pub topic: &'a str,
    /// The message.
    pub payload: &'a [u8],
    /// Version 5's properties; left out for a client of 3.1.1.
    pub properties: Option<&'a PublishProperties>,
}

fn ack(first: u8, pkid: u16) -> [u8; 4] {
    let [high, low] = pkid.to_be_bytes();
    [first, 2, high, low]
}

fn put_length(mut length: usize, out: &mut BytesMut) {
    loop {
        let byte = (length % 128) as u8;
        length /= 128;
        if length == 0 {
            return out.put_u8(byte);
        }
        out.put_u8(byte | 0x80);
    }
}

fn second_reason(reason: PubAckReason) -> PubRecReason {
    match reason {
        PubAckReason::Success => PubRecReason::Success,
        PubAckReason::NoMatchingSubscribers => PubRecReason::NoMatchingSubscribers,
        PubAckReason::UnspecifiedError => PubRecReason::UnspecifiedError,
        PubAckReason::ImplementationSpecificError => PubRecReason::ImplementationSpecificError,
        PubAckReason::NotAuthorized => PubRecReason::NotAuthorized,
        PubAckReason::TopicNameInvalid => PubRecReason::TopicNameInvalid,
        PubAckReason::PacketIdentifierInUse => PubRecReason::PacketIdentifierInUse,
        PubAckReason::QuotaExceeded => PubRecReason::QuotaExceeded,
        PubAckReason::PayloadFormatInvalid => PubRecReason::PayloadFormatInvalid,
    }
}

/// `what`, cut at a character to [`MAX_REASON_BYTES`], without U+0000 (which MQTT strings may not have).
fn shorten(what: &str) -> String {
    let end = (0..=MAX_REASON_BYTES.min(what.len())).rev().find(|&end| what.is_char_boundary(end));
    what[..end.unwrap_or_default()].replace('\0', "\u{fffd}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all_codes() -> Vec<ConnectReturnCode> {
        use ConnectReturnCode as Code;
        vec![
            Code::Success,
            Code::RefusedProtocolVersion,
            Code::ServiceUnavailable,
            Code::UnspecifiedError,
            Code::MalformedPacket,
            Code::ProtocolError,
            Code::UnsupportedProtocolVersion,
            Code::ClientIdentifierNotValid,
            Code::BadUserNamePassword,
            Code::NotAuthorized,
            Code::ServerUnavailable,
            Code::ServerBusy,
            Code::BadAuthenticationMethod,
            Code::TopicNameInvalid,
            Code::QuotaExceeded,
        ]
    }

    #[test]
    fn every_code_can_be_told_in_both_versions() {
        for version in [Version::V4, Version::V5] {
            for code in all_codes() {
                let mut out = BytesMut::new();
                let writer = Writer { version, reasons: true };
                writer.connack(false, code, ConnAckProperties::default(), &mut out);
                assert_eq!(out[0], 0x20, "{code:?}");
                let limit = if version == Version::V4 { 1..=5 } else { 0x80..=0xa2 };
                assert!(out[3] == 0 || limit.contains(&out[3]), "{version:?} {code:?} {}", out[3]);
            }
        }
    }

    #[test]
    fn a_disconnect_is_as_long_as_it_says() {
        let writer = Writer { version: Version::V5, reasons: true };
        let long = "ä".repeat(1000);
        for what in ["", "x", "a\0b", &long] {
            let mut out = BytesMut::new();
            writer.disconnect(DisconnectReasonCode::ProtocolError, what, &mut out);
            let read = V5.read_mut(&mut out, 4096).unwrap();
            let Packet::Disconnect(disconnect, Some(properties)) = read else { panic!("{read:?}") };
            assert_eq!(disconnect.reason_code, DisconnectReasonCode::ProtocolError);
            assert!(properties.reason_string.unwrap().len() <= MAX_REASON_BYTES);
            assert!(out.is_empty());
        }
    }

    #[test]
    fn who_is_sent_away_is_told_where_to() {
        let writer = Writer { version: Version::V5, reasons: true };
        for (reference, reason) in [
            (Some("10.0.0.1:1883 [::1]:1884".to_owned()), DisconnectReasonCode::UseAnotherServer),
            (None, DisconnectReasonCode::ServerShuttingDown),
        ] {
            let mut out = BytesMut::new();
            writer.away(reference.clone(), &mut out);
            let read = V5.read_mut(&mut out, 4096).unwrap();
            let Packet::Disconnect(disconnect, Some(properties)) = read else { panic!("{read:?}") };
            assert_eq!((disconnect.reason_code, properties.server_reference), (reason, reference));
            assert!(out.is_empty());
        }
        let mut out = BytesMut::new();
        Writer { version: Version::V4, reasons: true }.away(Some("a:1".into()), &mut out);
        assert!(out.is_empty(), "3.1.1 only closes");
    }

    #[test]
    fn publications_read_back_as_they_were_written() {
        let properties = PublishProperties {
            content_type: Some("text".into()),
            subscription_identifiers: vec![1, 300],
            ..PublishProperties::default()
        };
        for version in [Version::V4, Version::V5] {
            for (qos, pkid) in [(QoS::AtMostOnce, 0), (QoS::AtLeastOnce, 7), (QoS::ExactlyOnce, 65_535)] {
                for (properties, length) in [(None, 0), (None, 200), (Some(&properties), 20_000)] {
                    let payload = vec![b'x'; length];
                    let outgoing = Outgoing {
                        dup: pkid == 7,
                        qos,
                        pkid,
                        retain: true,
                        topic: "a/ä",
                        payload: &payload,
                        properties,
                    };
                    let mut out = BytesMut::new();
                    Writer { version, reasons: true }.publish(&outgoing, &mut out);
                    assert_eq!(out[0] & 0b1000 != 0, pkid == 7);
                    let frame = super::super::codec::Frame::split(&out, 1 << 20).unwrap().unwrap();
                    assert_eq!(frame.len(), out.len());
                    let (topic, read, got) = match super::super::codec::read(version, &frame).unwrap() {
                        super::super::codec::Incoming::Publish(read) => {
                            (read.topic, (read.qos, read.pkid, read.retain, read.payload), read.properties)
                        }
                        other => panic!("{other:?}"),
                    };
                    assert_eq!(topic, "a/ä");
                    assert_eq!(read, (qos, pkid, true, &payload[..]));
                    let expected = properties.filter(|_| version == Version::V5);
                    assert_eq!(got.as_deref(), expected);
                }
            }
        }
    }
}

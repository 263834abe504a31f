//! Messages as brokers write them for each other and for the registry: as the PUBLISH packet that a client of version 5
//! would get. So their form is that of the standard, which the store need not know.

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use rumqttd::protocol::{PublishProperties, QoS};

use super::codec::{self, Frame, Incoming, Version};
use super::mailbox::Message;
use super::writer::{Outgoing, Writer};

/// Longest letter that is read, in bytes: a packet of MQTT is no longer.
const MAX_BYTES: usize = 1 << 28;

/// Writes a message. It says how long it is still to be delivered when `expires` is wanted and known.
pub(super) fn write(message: &Message, qos: QoS, retain: bool, expires: bool, now: Instant) -> Bytes {
    let left = message.expires.filter(|_| expires).map(|expires| {
        // Rounded up: none is forgotten early.
        let left = expires.saturating_duration_since(now) + Duration::from_millis(999);
        u32::try_from(left.as_secs()).unwrap_or(u32::MAX)
    });
    let properties = left.map(|left| PublishProperties {
        message_expiry_interval: Some(left),
        ..message.properties.clone().unwrap_or_default()
    });
    let outgoing = Outgoing {
        dup: false,
        qos,
        // Nobody answers; the packet wants one all the same.
        pkid: u16::from(qos != QoS::AtMostOnce),
        retain,
        topic: &message.topic,
        payload: &message.payload,
        properties: properties.as_ref().or(message.properties.as_ref()),
    };
    let mut out = BytesMut::new();
    Writer { version: Version::V5, reasons: false }.publish(&outgoing, &mut out);
    out.freeze()
}

/// Reads a message back, and whether it is to be retained; `None` for what is no letter.
pub(super) fn read(letter: &Bytes, now: Instant) -> Option<(Message, bool)> {
    let frame = Frame::split(letter, MAX_BYTES).ok()??;
    let Ok(Incoming::Publish(publish)) = codec::read(Version::V5, &frame) else { return None };
    let mut properties = publish.properties.map(|properties| *properties);
    let expiry = properties.as_mut().and_then(|properties| properties.message_expiry_interval.take());
    let message = Message {
        topic: publish.topic.into(),
        payload: letter.slice_ref(publish.payload),
        properties,
        qos: publish.qos,
        expires: expiry.map(|seconds| now + Duration::from_secs(seconds.into())),
    };
    Some((message, publish.retain))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_letter_says_all_that_the_message_did() {
        let now = Instant::now();
        let properties = PublishProperties {
            content_type: Some("text".into()),
            user_properties: vec![("k".into(), "v".into())],
            ..PublishProperties::default()
        };
        for properties in [None, Some(properties)] {
            for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
                let message = Message {
                    topic: "a/ä".into(),
                    payload: Bytes::from_static(b"hello"),
                    properties: properties.clone(),
                    qos,
                    expires: Some(now + Duration::from_millis(1500)),
                };
                let (read, retain) = read(&write(&message, qos, true, true, now), now).unwrap();
                assert!(retain);
                assert_eq!((&read.topic, &read.payload, read.qos), (&message.topic, &message.payload, qos));
                assert_eq!(read.properties.unwrap_or_default(), properties.clone().unwrap_or_default());
                assert_eq!(read.expires, Some(now + Duration::from_secs(2)));
                let letter = write(&message, qos, false, false, now);
                assert_eq!(super::read(&letter, now).unwrap().0.expires, None);
            }
        }
    }

    proptest! {
        #[test]
        fn noise_is_no_letter_and_no_panic(bytes: Vec<u8>) {
            let _ = read(&bytes.into(), Instant::now());
        }
    }
}

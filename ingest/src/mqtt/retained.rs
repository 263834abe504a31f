//! Retained messages: the last one published with the retain flag on each topic that is not a sensor's.
//!
//! Invariant: never more than [`MAX_RETAINED`] messages of at most [`MAX_RETAINED_BYTES`]; one that does not fit is
//! refused to its publisher, and what was retained on its topic stays.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use super::filter;
use super::mailbox::Message;

/// Most topics with a retained message.
pub const MAX_RETAINED: usize = 10_000;
/// Longest retained message, in bytes.
pub const MAX_RETAINED_BYTES: usize = 4096;

/// The retained messages of this node.
#[derive(Debug, Default)]
pub struct Retained {
    messages: HashMap<Box<str>, Arc<Message>>,
}

impl Retained {
    /// Retains `message`, or forgets its topic's when it is empty. The error says why it does not fit.
    pub fn set(&mut self, message: &Arc<Message>, now: Instant) -> Result<(), String> {
        if message.payload.is_empty() {
            self.messages.remove(&message.topic);
            return Ok(());
        }
        if message.payload.len() > MAX_RETAINED_BYTES {
            let length = message.payload.len();
            return Err(format!("message of {length} bytes; at most {MAX_RETAINED_BYTES} are retained"));
        }
        if self.messages.len() >= MAX_RETAINED && !self.messages.contains_key(&message.topic) {
            self.messages.retain(|_, message| message.expires.is_none_or(|expires| expires > now));
            if self.messages.len() >= MAX_RETAINED {
                return Err(format!("{MAX_RETAINED} topics have a retained message already"));
            }
        }
        self.messages.insert(message.topic.clone(), message.clone());
        Ok(())
    }

    /// The messages on topics that `filter` matches.
    pub fn matching<'a>(&'a self, filter: &'a str) -> impl Iterator<Item = &'a Arc<Message>> {
        // Without a wildcard there is one at most, and no need to look at the others.
        let exact = (!filter.contains(['+', '#'])).then(|| self.messages.get(filter));
        let (one, all) = match exact {
            Some(found) => (found, None),
            None => (None, Some(self.messages.values())),
        };
        one.into_iter()
            .chain(all.into_iter().flatten().filter(move |message| filter::matches(filter, &message.topic)))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.messages.len()
    }
}

#[cfg(test)]
mod tests {
    use rumqttd::protocol::QoS;

    use super::*;

    fn message(topic: &str, payload: &[u8], expires: Option<Instant>) -> Arc<Message> {
        Arc::new(Message {
            topic: topic.into(),
            payload: payload.to_vec().into(),
            properties: None,
            qos: QoS::AtMostOnce,
            expires,
        })
    }

    #[test]
    fn the_last_message_of_a_topic_is_held_until_an_empty_one() {
        let now = Instant::now();
        let mut retained = Retained::default();
        for (topic, payload) in [("a/b", "1"), ("a/b", "2"), ("a/c", "3"), ("$x/b", "4")] {
            retained.set(&message(topic, payload.as_bytes(), None), now).unwrap();
        }
        let found = |retained: &Retained, filter: &str| {
            let mut found: Vec<_> =
                retained.matching(filter).map(|message| message.payload.clone()).collect();
            found.sort();
            found
        };
        assert_eq!(found(&retained, "a/+"), ["2", "3"]);
        assert_eq!(found(&retained, "#"), ["2", "3"]);
        assert_eq!(found(&retained, "a/b"), ["2"]);
        retained.set(&message("a/b", b"", None), now).unwrap();
        assert_eq!(found(&retained, "a/#"), ["3"]);
        assert!(found(&retained, "a/b").is_empty());
    }

    #[test]
    fn both_bounds_hold_exactly_and_expired_messages_make_room() {
        let now = Instant::now();
        let mut retained = Retained::default();
        assert!(retained.set(&message("big", &[0; MAX_RETAINED_BYTES], None), now).is_ok());
        assert!(retained.set(&message("big", &[0; MAX_RETAINED_BYTES + 1], None), now).is_err());
        for index in 1..MAX_RETAINED {
            let expires = (index == 7).then_some(now);
            retained.set(&message(&format!("t/{index}"), b"x", expires), now).unwrap();
        }
        assert!(retained.set(&message("one/more", b"x", None), now).is_ok());
        assert!(retained.set(&message("two/more", b"x", None), now).is_err());
        assert!(retained.set(&message("t/1", b"y", None), now).is_ok());
        assert_eq!(retained.len(), MAX_RETAINED);
    }
}

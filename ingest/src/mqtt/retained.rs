//! Retained messages: the last one published with the retain flag on each topic that is no sensor's. They stand in the
//! store's registry, on every node and its disk, as letters; here they become messages again.
//!
//! Invariant: never more than the registry takes, of at most [`MAX_RETAINED_BYTES`]; one that does not fit is refused to
//! its publisher, nobody gets it, and what was retained on its topic stays.

use std::time::{Duration, Instant};

use store::{Kept, RetainError, SampleTime, Stamp, Store, Ticket};

use super::counters::Counters;
use super::filter;
use super::letter;
use super::mailbox::Message;

/// Longest retained message, in bytes, without its topic and properties.
pub const MAX_RETAINED_BYTES: usize = 4096;

/// Whether a message is retained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retain {
    /// No.
    No,
    /// In the place of any before.
    Now,
    /// As of a moment that has passed: what was retained since then stays.
    AsOf(Stamp),
}

/// Why a message is not retained.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotRetained {
    /// It is too long.
    #[error("message of {0} bytes; at most {MAX_RETAINED_BYTES} are retained")]
    TooLong(usize),
    /// The registry does not take it.
    #[error(transparent)]
    Registry(#[from] RetainError),
}

impl NotRetained {
    /// Counts it by its cause.
    pub(super) fn count(&self, counters: &Counters) {
        match self {
            Self::Registry(RetainError::TooMany) => &counters.retained_full,
            Self::TooLong(_) | Self::Registry(RetainError::TooLong(_) | RetainError::LongTopic(_)) => {
                &counters.retained_too_long
            }
            Self::Registry(RetainError::OlderNode(_)) => &counters.retained_older_node,
        }
        .add(1);
    }
}

/// Retains `message`, or forgets its topic's when it is empty. It is kept when the ticket says so.
pub(super) fn set(
    store: &Store,
    message: &Message,
    retain: Retain,
    now: Instant,
) -> Result<Option<Ticket>, NotRetained> {
    if message.payload.len() > MAX_RETAINED_BYTES {
        return Err(NotRetained::TooLong(message.payload.len()));
    }
    let kept = (!message.payload.is_empty()).then(|| Kept {
        message: letter::write(message, message.qos, true, false, now),
        expires: message.expires.map(|expires| {
            let left = expires.saturating_duration_since(now).as_micros();
            let left = i64::try_from(left).unwrap_or(i64::MAX);
            SampleTime(SampleTime::now().0.saturating_add(left))
        }),
    });
    Ok(match retain {
        Retain::No => None,
        Retain::Now => store.retain(&message.topic, kept)?,
        Retain::AsOf(stamp) => store.retain_as_of(&message.topic, kept, stamp)?,
    })
}

/// Calls `each` with the messages on topics that `filter` matches.
pub(super) fn matching(store: &Store, filter: &str, mut each: impl FnMut(Message)) {
    let (now, time) = (Instant::now(), SampleTime::now());
    let mut open = |kept: Kept| {
        let Some((message, _)) = letter::read(&kept.message, now) else {
            return tracing::error!("a retained message cannot be read");
        };
        let left = kept.expires.map(|expires| u64::try_from(expires.0 - time.0).unwrap_or(0));
        each(Message { expires: left.map(|left| now + Duration::from_micros(left)), ..message });
    };
    // Without a wildcard there is one at most, and no need to look at the others.
    if filter.contains(['+', '#']) {
        store.each_retained(|topic| filter::matches(filter, topic), |_, kept| open(kept));
    } else if let Some(kept) = store.retained(filter) {
        open(kept);
    }
}

//! Wills: what is published for a client whose connection breaks, here and, when its node dies, elsewhere.
//!
//! Invariant: the other nodes know of a will from when its client is let in until it is published, or let go of: because
//! the client left in peace, or came back before its delay was over.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use store::{Stamp, Testament};

use super::hub::{Hub, Will};
use super::letter;
use super::retained::Retain;
use super::uplink::Uplink;

/// Wills of clients here.
#[derive(Debug, Default)]
pub(super) struct Wills {
    /// Those whose delay runs.
    pending: Vec<Pending>,
    /// Clients of which the other nodes were told, by the connection that has the will.
    told: HashMap<Arc<str>, u64>,
}

#[derive(Debug)]
struct Pending {
    due: Instant,
    client: Arc<str>,
    token: u64,
    will: Will,
}

/// How a connection with a will ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ending {
    /// Names the connection.
    pub(super) token: u64,
    /// Its session ended with it.
    pub(super) session_ends: bool,
    /// The client came to another node, then.
    pub(super) elsewhere: Option<Stamp>,
}

impl Wills {
    /// Lets go of a delayed will of a client that is back.
    pub(super) fn is_back(&mut self, client: &str) {
        self.pending.retain(|pending| *pending.client != *client);
    }

    /// Takes those that are due, or whose session is over.
    pub(super) fn due(&mut self, now: Instant, over: &[Arc<str>]) -> Vec<(Arc<str>, u64, Will)> {
        let mut due = Vec::new();
        let mut index = 0;
        while index < self.pending.len() {
            let pending = &self.pending[index];
            if pending.due <= now || over.contains(&pending.client) {
                let Pending { client, token, will, .. } = self.pending.swap_remove(index);
                due.push((client, token, will));
            } else {
                index += 1;
            }
        }
        due
    }
}

impl Hub {
    /// A client was let in, with this will or without one.
    pub(super) fn hold_will(&self, client: &Arc<str>, token: u64, will: Option<&Will>) {
        let testament = will.map(|will| Testament {
            message: letter::write(&will.message, will.message.qos, will.retain, false, Instant::now()),
            delay_s: u32::try_from(will.delay.as_secs()).unwrap_or(u32::MAX),
        });
        // With the lock held, so that of two connections of a client the newer is heard last.
        self.wills(|wills| match testament {
            Some(testament) => {
                wills.told.insert(client.clone(), token);
                if !self.store().say_will(client, Some(testament)) {
                    self.counters.wills_not_told.add(1);
                }
            }
            None if wills.told.remove(client).is_some() => drop(self.store().say_will(client, None)),
            None => {}
        });
    }

    /// A will is published, or void.
    pub(super) fn drop_will(&self, client: &Arc<str>, token: u64) {
        self.wills(|wills| {
            if wills.told.get(client) == Some(&token) {
                wills.told.remove(client);
                self.store().say_will(client, None);
            }
        });
    }

    /// Publishes a will now, or after its delay; or lets go of it, when the client is back by now.
    pub(super) fn leave_will(&self, client: &Arc<str>, will: Will, ending: Ending) {
        let Ending { token, session_ends, elsewhere } = ending;
        if will.delay.is_zero() {
            return self.publish_will(client, token, will, elsewhere);
        }
        if elsewhere.is_some() || (!session_ends && self.is_here(client)) {
            return self.drop_will(client, token);
        }
        if session_ends {
            return self.publish_will(client, token, will, None);
        }
        let due = Instant::now() + will.delay;
        self.wills(|wills| wills.pending.push(Pending { due, client: client.clone(), token, will }));
    }

    pub(super) fn publish_will(&self, client: &Arc<str>, token: u64, mut will: Will, as_of: Option<Stamp>) {
        let expiry =
            will.message.properties.as_mut().and_then(|properties| properties.message_expiry_interval.take());
        will.message.expires = expiry.map(|seconds| Instant::now() + Duration::from_secs(seconds.into()));
        let retain = if will.retain { as_of.map_or(Retain::Now, Retain::AsOf) } else { Retain::No };
        if let Err(error) = self.publish(client, will.message, retain) {
            self.counters.dropped.add(1);
            tracing::warn!(%client, %error, "a will was not published");
        }
        self.drop_will(client, token);
    }

    /// A client that was here has come to another node.
    pub(super) fn take_away(&self, client: &str, at: Stamp) {
        let told = self.wills(|wills| {
            let index = wills.pending.iter().position(|pending| *pending.client == *client)?;
            let Pending { client, token, .. } = wills.pending.swap_remove(index);
            Some((client, token))
        });
        if let Some((client, token)) = told {
            self.drop_will(&client, token);
        }
        self.send_elsewhere(client, at);
    }

    /// Publishes what clients of dead nodes have left and is due here. Whether there may be more later.
    pub(super) async fn inherit(&self) -> bool {
        let (due, more) = self.store().take_wills();
        for due in due {
            let Some((message, retain)) = letter::read(&due.message, Instant::now()) else {
                tracing::warn!(client = %due.client, "a will cannot be read");
                continue;
            };
            tracing::info!(client = %due.client, topic = %message.topic, "publishes the will of a client of a dead node");
            self.counters.wills_inherited.add(1);
            if Uplink::is_for_sensors(&message.topic) {
                let mut uplink = Uplink::new(self.store().clone());
                uplink.take(&message.topic, &message.payload);
                let batches = uplink.batches();
                if !batches.is_empty()
                    && let Err(error) = self.store().append(batches).await
                {
                    tracing::warn!(client = %due.client, %error, "a will was not taken");
                }
                continue;
            }
            let retain = if retain { Retain::AsOf(due.lost) } else { Retain::No };
            if let Err(error) = self.publish(&due.client, message, retain) {
                self.counters.dropped.add(1);
                tracing::warn!(client = %due.client, %error, "a will was not published");
            }
        }
        more
    }
}

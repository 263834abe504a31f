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

/// A node that was not at its work for so long has hung: others may have taken it for dead.
const HUNG: Duration = Duration::from_secs(1);
/// How long what happens after that counts as its consequence.
const AFTERMATH: Duration = Duration::from_secs(10);
/// How long wills wait then for others to say that they have published them.
const ASKING: Duration = Duration::from_secs(3);
/// What a client that was last heard at some moment had sent is stamped by then.
const TAKEN_WITHIN: Duration = Duration::from_millis(50);

/// Whether the node is at its work, as far as it can tell by itself.
#[derive(Debug)]
pub(super) struct Pulse {
    last: Instant,
    hung_until: Option<Instant>,
}

impl Pulse {
    pub(super) fn new(now: Instant) -> Self {
        Self { last: now, hung_until: None }
    }

    /// To be called a few times a second.
    pub(super) fn beat(&mut self, now: Instant) {
        if now.saturating_duration_since(self.last) > HUNG {
            self.hung_until = Some(now);
        }
        self.last = now;
    }

    fn has_hung(&self, now: Instant) -> bool {
        let lately = |until: Instant| now.saturating_duration_since(until) < AFTERMATH;
        now.saturating_duration_since(self.last) > HUNG || self.hung_until.is_some_and(lately)
    }
}

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
    /// The node had hung: when the client was last heard.
    heard: Option<Stamp>,
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
    /// When something was heard of it last.
    pub(super) heard: Instant,
}

impl Wills {
    /// Lets go of a delayed will of a client that is back.
    pub(super) fn is_back(&mut self, client: &str) {
        self.pending.retain(|pending| *pending.client != *client);
    }

    /// Takes those that are due, or whose session is over.
    pub(super) fn due(
        &mut self,
        now: Instant,
        over: &[Arc<str>],
    ) -> Vec<(Arc<str>, u64, Will, Option<Stamp>)> {
        let mut due = Vec::new();
        let mut index = 0;
        while index < self.pending.len() {
            let pending = &self.pending[index];
            if pending.due <= now || over.contains(&pending.client) {
                let Pending { client, token, will, heard, .. } = self.pending.swap_remove(index);
                due.push((client, token, will, heard));
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
        let Ending { token, session_ends, elsewhere, heard } = ending;
        let delayed = !will.delay.is_zero();
        if delayed && (elsewhere.is_some() || (!session_ends && self.is_here(client))) {
            return self.drop_will(client, token);
        }
        let now = Instant::now();
        let has_hung = elsewhere.is_none() && self.pulse(|pulse| pulse.has_hung(now));
        let mut wait = if delayed && !session_ends { will.delay } else { Duration::ZERO };
        let heard = has_hung.then(|| {
            wait = wait.max(ASKING);
            let ago = now.saturating_duration_since(heard).saturating_sub(TAKEN_WITHIN);
            self.store().stamp_of(ago)
        });
        if wait.is_zero() {
            return self.publish_will(client, token, will, elsewhere);
        }
        let (due, client) = (now + wait, client.clone());
        self.wills(|wills| wills.pending.push(Pending { due, client, token, will, heard }));
    }

    /// Others have published a will of a client here, since they took this node for dead.
    pub(super) fn settled(&self, client: &str) {
        let pending = self.wills(|wills| {
            let index = wills.pending.iter().position(|pending| *pending.client == *client)?;
            Some(wills.pending.swap_remove(index))
        });
        if let Some(Pending { client, token, .. }) = pending {
            self.drop_will(&client, token);
        }
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
        let pending = self.wills(|wills| {
            let index = wills.pending.iter().position(|pending| *pending.client == *client)?;
            Some(wills.pending.swap_remove(index))
        });
        match pending {
            Some(Pending { client, token, will, .. }) if will.delay.is_zero() => {
                self.publish_will(&client, token, will, Some(at));
            }
            Some(Pending { client, token, .. }) => self.drop_will(&client, token),
            None => {}
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_was_not_at_its_work_knows_for_a_while() {
        let begun = Instant::now();
        let at = |ms| begun + Duration::from_millis(ms);
        let mut pulse = Pulse::new(begun);
        pulse.beat(at(250));
        assert!(!pulse.has_hung(at(900)));
        // Whoever comes first when it goes on.
        assert!(pulse.has_hung(at(5000)));
        pulse.beat(at(5000));
        assert!(pulse.has_hung(at(5001)) && pulse.has_hung(at(14_999)));
        (5..=62).for_each(|quarter| pulse.beat(at(quarter * 250 + 5000)));
        assert!(!pulse.has_hung(at(20_500)));
    }
}

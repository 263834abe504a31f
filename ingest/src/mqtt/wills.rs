//! Wills: what is published for a client whose connection breaks, here and, when its node dies, elsewhere.
//!
//! Invariant: the other nodes know of a will from when its client is let in until it is published, or let go of: because
//! the client left in peace, or came back before its delay was over.
//!
//! Others may have taken a node that hung for dead, and have published wills of its clients. So what ends when it goes on waits
//! for them to say so, and what they have published is not published again.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use store::{Stamp, Testament};

use super::hub::{Hub, Will};
use super::letter;
use super::mailbox::Message;
use super::retained::Retain;
use super::uplink::Uplink;

/// A node that was not at its work for so long has hung: others may have taken it for dead.
const HUNG: Duration = Duration::from_secs(1);
/// How long what happens after that counts as its consequence.
const AFTERMATH: Duration = Duration::from_secs(10);
/// How long wills wait then for others to say that they have published them, at least: those that notice that their link
/// is broken open another one.
const ASKING: Duration = Duration::from_secs(3);
/// The same at most, when one of them is not dead and not linked.
const ASKING_AT_MOST: Duration = Duration::from_secs(30);
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
    /// Clients of which the other nodes were told.
    told: HashMap<Arc<str>, Told>,
}

#[derive(Debug)]
struct Told {
    /// The connection that has the will.
    token: u64,
    /// Others have published it.
    settled: bool,
}

#[derive(Debug)]
struct Pending {
    due: Instant,
    client: Arc<str>,
    token: u64,
    will: Will,
    hung: Option<Hung>,
}

/// The node had hung when a connection ended.
#[derive(Debug, Clone, Copy)]
struct Hung {
    /// When it was noticed that it has ended.
    noticed: Instant,
    /// When the client was last heard, or came to another node.
    lost: Stamp,
}

impl Hung {
    /// Whether others may still say that they have published the will.
    fn is_asking(&self, now: Instant, waits_for_nodes: bool) -> bool {
        let past = now.saturating_duration_since(self.noticed);
        past < ASKING || (waits_for_nodes && past < ASKING_AT_MOST)
    }
}

/// A will that is to be published now.
#[derive(Debug)]
pub(super) struct DueWill {
    client: Arc<str>,
    token: u64,
    will: Will,
    /// As of when it is retained; `None`: as of now.
    as_of: Option<Stamp>,
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
    pub(super) fn due(&mut self, now: Instant, over: &[Arc<str>], waits_for_nodes: bool) -> Vec<DueWill> {
        let mut due = Vec::new();
        let mut index = 0;
        while index < self.pending.len() {
            let pending = &self.pending[index];
            let is_asking = pending.hung.is_some_and(|hung| hung.is_asking(now, waits_for_nodes));
            if !is_asking && (pending.due <= now || over.contains(&pending.client)) {
                let Pending { client, token, will, hung, .. } = self.pending.swap_remove(index);
                due.push(DueWill { client, token, will, as_of: hung.map(|hung| hung.lost) });
            } else {
                index += 1;
            }
        }
        due
    }

    fn is_settled(&self, client: &str, token: u64) -> bool {
        self.told.get(client).is_some_and(|told| told.token == token && told.settled)
    }

    fn pending(&self, client: &str) -> Option<usize> {
        self.pending.iter().position(|pending| *pending.client == *client)
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
                wills.told.insert(client.clone(), Told { token, settled: false });
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
            if wills.told.get(client).is_some_and(|told| told.token == token) {
                wills.told.remove(client);
                self.store().say_will(client, None);
            }
        });
    }

    /// Publishes a will now, or after its delay; or lets go of it, when the client is back by now.
    pub(super) async fn leave_will(&self, client: &Arc<str>, will: Will, ending: Ending) {
        let Ending { token, session_ends, elsewhere, heard } = ending;
        let delayed = !will.delay.is_zero();
        if delayed && (elsewhere.is_some() || (!session_ends && self.is_here(client))) {
            return self.drop_will(client, token);
        }
        let now = Instant::now();
        let hung = self.pulse(|pulse| pulse.has_hung(now)).then(|| {
            let ago = now.saturating_duration_since(heard).saturating_sub(TAKEN_WITHIN);
            Hung { noticed: now, lost: elsewhere.unwrap_or_else(|| self.store().stamp_of(ago)) }
        });
        let delay = if delayed && !session_ends { will.delay } else { Duration::ZERO };
        if delay.is_zero() && hung.is_none() {
            return self
                .publish_will(DueWill { client: client.clone(), token, will, as_of: elsewhere })
                .await;
        }
        let pending = Pending { due: now + delay, client: client.clone(), token, will, hung };
        // One look: what others say comes before it, or finds it waiting.
        let is_settled = self.wills(|wills| {
            let is_settled = pending.hung.is_some() && wills.is_settled(client, token);
            if !is_settled {
                wills.pending.push(pending);
            }
            is_settled
        });
        tracing::info!(%client, has_hung = hung.is_some(), is_settled, "a will waits");
        if is_settled {
            self.drop_will(client, token);
        }
    }

    /// Others have published a will of a client here, since they took this node for dead.
    pub(super) fn settled(&self, client: &str) {
        let pending = self.wills(|wills| {
            let index = wills.pending(client);
            if index.is_none()
                && let Some(told) = wills.told.get_mut(client)
            {
                // Its connection may have ended, and nobody has noticed yet.
                told.settled = true;
            }
            index.map(|index| wills.pending.swap_remove(index))
        });
        tracing::info!(client, waits = pending.is_some(), "others have published a will");
        if let Some(Pending { client, token, .. }) = pending {
            self.drop_will(&client, token);
        }
    }

    /// Publishes a will that is due.
    pub(super) async fn publish_will(&self, due: DueWill) {
        let DueWill { client, token, mut will, as_of } = due;
        if Uplink::is_for_sensors(&will.message.topic) {
            self.take_will(&client, &will.message).await;
            return self.drop_will(&client, token);
        }
        let expiry =
            will.message.properties.as_mut().and_then(|properties| properties.message_expiry_interval.take());
        will.message.expires = expiry.map(|seconds| Instant::now() + Duration::from_secs(seconds.into()));
        let retain = if will.retain { as_of.map_or(Retain::Now, Retain::AsOf) } else { Retain::No };
        if let Err(error) = self.publish(&client, will.message, retain) {
            self.counters.dropped.add(1);
            tracing::warn!(%client, %error, "a will was not published");
        }
        self.drop_will(&client, token);
    }

    /// A will that is a sample.
    async fn take_will(&self, client: &str, message: &Message) {
        let mut uplink = Uplink::new(self.store().clone());
        uplink.take(&message.topic, &message.payload);
        let batches = uplink.batches();
        if !batches.is_empty()
            && let Err(error) = self.store().append(batches).await
        {
            tracing::warn!(client, %error, "a will was not taken");
        }
    }

    /// A client that was here has come to another node.
    pub(super) async fn take_away(&self, client: &str, at: Stamp) {
        let pending = self.wills(|wills| {
            let index = wills.pending(client)?;
            let pending = &mut wills.pending[index];
            if let Some(hung) = pending.hung.as_mut().filter(|_| pending.will.delay.is_zero()) {
                // Others may have published it before.
                hung.lost = hung.lost.min(at);
                return None;
            }
            Some(wills.pending.swap_remove(index))
        });
        match pending {
            Some(Pending { client, token, will, .. }) if will.delay.is_zero() => {
                self.publish_will(DueWill { client, token, will, as_of: Some(at) }).await;
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
                self.take_will(&due.client, &message).await;
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
    use bytes::Bytes;
    use rumqttd::protocol::QoS;

    use super::super::hub::Options;
    use super::super::mailbox::Mailbox;
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

    /// A hub whose node has hung just now, with a will of each of these clients; what heirs get.
    fn hung(directory: &tempfile::TempDir, clients: &[&Arc<str>]) -> (Hub, Arc<Mailbox>) {
        let config = store::Config::new(directory.path(), store::NodeName::new("a").unwrap());
        let hub = Hub::of(store::Store::open(config).unwrap());
        hub.pulse(|pulse| pulse.hung_until = Some(Instant::now()));
        for (token, client) in clients.iter().enumerate() {
            hub.hold_will(client, token as u64, Some(&will(client)));
        }
        let heir = Arc::new(Mailbox::default());
        let options = Options { qos: QoS::AtMostOnce, no_local: false, as_published: false, id: None };
        hub.subscribe(&"heir".into(), &heir, (None, "will/#"), options);
        (hub, heir)
    }

    fn will(client: &str) -> Will {
        let topic = format!("will/{client}").into();
        let (payload, qos) = (Bytes::from_static(b"gone"), QoS::AtMostOnce);
        let message = Message { topic, payload, properties: None, qos, expires: None };
        Will { message, retain: false, delay: Duration::ZERO }
    }

    fn ending(token: u64) -> Ending {
        Ending { token, session_ends: true, elsewhere: None, heard: Instant::now() }
    }

    fn topics(heir: &Mailbox) -> Vec<String> {
        std::iter::from_fn(|| heir.take()).map(|delivery| delivery.message.topic.to_string()).collect()
    }

    #[tokio::test]
    async fn after_a_hang_others_may_say_before_and_after_the_end_that_they_have_published_a_will() {
        let directory = tempfile::tempdir().unwrap();
        let clients: [Arc<str>; 4] = ["early", "late", "moved", "alone"].map(Into::into);
        let [early, late, moved, alone] = &clients;
        let begun = Instant::now();
        let (hub, heir) = hung(&directory, &[early, late, moved, alone]);
        hub.settled(early);
        for (token, client) in [early, late, alone].into_iter().enumerate() {
            let token = if Arc::ptr_eq(client, alone) { 3 } else { token as u64 };
            hub.leave_will(client, will(client), ending(token)).await;
        }
        // It came to another node, and others have published the will before.
        let at = hub.store().claim_client(moved);
        hub.leave_will(moved, will(moved), Ending { elsewhere: Some(at), ..ending(2) }).await;
        hub.take_away(moved, at).await;
        hub.settled(late);
        assert_eq!(topics(&heir), Vec::<String>::new(), "others may say something yet");
        hub.sweep(begun + ASKING).await;
        assert_eq!(topics(&heir), Vec::<String>::new());
        hub.settled(moved);
        hub.sweep(Instant::now() + ASKING).await;
        assert_eq!(topics(&heir), ["will/alone"], "nobody else did");
        assert!(clients.iter().all(|client| hub.store().nodes_with_will(client) == 0));
        // Who came again has another will.
        hub.hold_will(early, 9, Some(&will(early)));
        hub.leave_will(early, will(early), ending(9)).await;
        hub.sweep(Instant::now() + ASKING).await;
        assert_eq!(topics(&heir), ["will/early"]);
        hub.store().close().await;
    }

    #[test]
    fn wills_wait_longer_while_a_node_is_neither_linked_nor_dead() {
        let noticed = Instant::now();
        let hung = Hung { noticed, lost: Stamp { time: 1, author: 1 } };
        assert!(hung.is_asking(noticed, false) && !hung.is_asking(noticed + ASKING, false));
        assert!(hung.is_asking(noticed + ASKING, true) && !hung.is_asking(noticed + ASKING_AT_MOST, true));
    }
}

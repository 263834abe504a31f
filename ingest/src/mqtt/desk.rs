//! Where a client's packets are seen to: the session says what each asks for, and here it is done, with the uplink (for
//! samples) and the hub (for everything else). Nothing here waits.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use rumqttd::protocol::PubAckReason;
use rumqttd::protocol::{Filter, RetainForwardRule, SubscribeReasonCode, UnsubAckReason};
use store::{SensorId, Ticket};

use super::codec::{self, Frame, Violation};
use super::delivery::Taken;
use super::filter;
use super::hub::{Hub, MAX_SUBSCRIPTIONS, Options, Will};
use super::listener::Port;
use super::mailbox::{Delivery, Mailbox, Message};
use super::retained::Retain;
use super::samples::Samples;
use super::session::{Answer, Published, Session, Step, Subscribed};
use super::uplink::Uplink;
use crate::advisor::{self, TOPIC};
use crate::wire::topic;

/// Filters of one SUBSCRIBE that are looked at; the others are refused (0x97). Each may have to be held against every
/// retained message.
const MAX_FILTERS: usize = 128;

/// How a client says goodbye.
#[derive(Debug)]
pub(super) struct Leaving {
    /// Its will is published all the same.
    pub(super) with_will: bool,
    /// How long its session is to stay, when it says so now.
    pub(super) session_expiry: Option<Duration>,
}

/// Why no further packet is taken.
#[derive(Debug)]
pub(super) enum Stop {
    /// The client did what it may not.
    Violation(Violation),
    /// It left.
    Left(Leaving),
}

impl From<Violation> for Stop {
    fn from(violation: Violation) -> Self {
        Self::Violation(violation)
    }
}

/// One client, as far as it needs no socket.
pub(super) struct Desk {
    pub(super) client: Arc<str>,
    pub(super) session: Session,
    pub(super) uplink: Uplink,
    pub(super) mailbox: Arc<Mailbox>,
    pub(super) samples: Option<Box<Samples>>,
    pub(super) will: Option<Box<Will>>,
    /// What the client retained and is not known to be kept yet; the last.
    pub(super) retaining: Option<Ticket>,
    /// A subscriber that this client's messages crowd, and until when to wait for it.
    pub(super) crowded: Option<(Arc<Mailbox>, Instant)>,
    /// Whether the session outlives the connection.
    pub(super) lasting: bool,
    pub(super) port: Arc<Port>,
}

impl Desk {
    /// Sees to one packet.
    pub(super) fn take(&mut self, frame: &Frame<'_>, out: &mut BytesMut) -> Result<(), Stop> {
        let packet = codec::read(self.session.writer().version, frame)?;
        match self.session.receive(packet, out)? {
            Step::Nothing => {}
            Step::Publish(published) => self.publish(published),
            Step::Subscribe { pkid, filters, id } => {
                let mut codes = Vec::with_capacity(filters.len());
                for (index, asked) in filters.iter().enumerate() {
                    codes.push(match index {
                        0..MAX_FILTERS => self.subscribe(asked, id)?,
                        _ => SubscribeReasonCode::QuotaExceeded,
                    });
                }
                self.session.subscribed(pkid, codes, out);
            }
            Step::Unsubscribe { pkid, filters } => {
                let reasons = filters.iter().map(|text| self.unsubscribe(text)).collect();
                self.session.unsubscribed(pkid, reasons, out);
            }
            Step::Leave { with_will, session_expiry } => {
                if session_expiry.is_some_and(|seconds| seconds > 0) && !self.lasting {
                    // MQTT 5, 3.14.2.2.2: a session that was to end with the connection cannot be made to last.
                    return Err(
                        Violation::protocol("session expiry in DISCONNECT, and none in CONNECT").into()
                    );
                }
                let session_expiry = session_expiry.map(|seconds| Duration::from_secs(seconds.into()));
                return Err(Stop::Left(Leaving { with_will, session_expiry }));
            }
        }
        Ok(())
    }

    fn publish(&mut self, published: Published<'_>) {
        self.port.hub.counters.received.add(1);
        let receipt = published.receipt;
        let answer = if Uplink::is_for_sensors(&published.topic) {
            self.uplink.take(&published.topic, published.payload)
        } else if let Some(what) = topic::reserved(&published.topic) {
            Answer::Refused(PubAckReason::TopicNameInvalid, format!("bad_topic: {what}"))
        } else {
            self.pass_on(published)
        };
        if matches!(answer, Answer::Refused(..)) {
            self.port.hub.counters.refused.add(1);
        }
        self.session.answer(receipt, answer);
    }

    /// Publishes what is not a sample.
    fn pass_on(&mut self, published: Published<'_>) -> Answer {
        let mut properties = published.properties.map(|properties| *properties);
        let mut expires = None;
        if let Some(properties) = &mut properties {
            properties.topic_alias = None;
            let expiry = properties.message_expiry_interval.take();
            expires = expiry.map(|seconds| Instant::now() + Duration::from_secs(seconds.into()));
        }
        let message = Message {
            topic: (*published.topic).into(),
            payload: Bytes::copy_from_slice(published.payload),
            properties,
            qos: published.receipt.qos,
            expires,
        };
        let retain = if published.retain { Retain::Now } else { Retain::No };
        match self.port.hub.publish(&self.client, message, retain) {
            Ok(Taken { crowded, ticket }) => {
                if let Some(crowded) = crowded.filter(|crowded| !Arc::ptr_eq(crowded, &self.mailbox)) {
                    self.crowded = Some((crowded, Instant::now()));
                }
                if ticket.is_some() {
                    self.retaining = ticket;
                }
                Answer::Taken
            }
            Err(error) => Answer::Refused(PubAckReason::QuotaExceeded, error.to_string()),
        }
    }

    fn subscribe(&mut self, asked: &Filter, id: Option<usize>) -> Result<SubscribeReasonCode, Violation> {
        let Ok(parsed) = filter::parse(&asked.path) else {
            return Ok(SubscribeReasonCode::TopicFilterInvalid);
        };
        if parsed.group.is_some() && asked.nolocal {
            return Err(Violation::protocol("no-local asked of a shared subscription"));
        }
        let reaches_samples = filter::reaches_sensors(parsed.filter) || filter::reaches_rooms(parsed.filter);
        if parsed.group.is_some() && reaches_samples {
            // Each node's feed has every sample; nobody deals them out among clients.
            return Ok(SubscribeReasonCode::SharedSubscriptionsNotSupported);
        }
        let held = &mut self.session.memory().subscriptions;
        if held.len() >= MAX_SUBSCRIPTIONS && !held.contains_key(&*asked.path) {
            return Ok(SubscribeReasonCode::QuotaExceeded);
        }
        held.insert(asked.path.as_str().into(), Subscribed { qos: asked.qos, id });
        let options =
            Options { qos: asked.qos, no_local: asked.nolocal, as_published: asked.preserve_retain, id };
        let hub: &Hub = &self.port.hub;
        let known = hub.subscribe(&self.client, &self.mailbox, (parsed.group, parsed.filter), options);
        if let Some(sensor) = parsed.filter.strip_prefix(TOPIC)
            && let Ok(sensor) = SensorId::new(sensor)
        {
            // What holds now, as if it were retained.
            let message = Arc::new(advisor::message(&sensor, self.port.advisor.advice(&sensor)));
            let ids = options.id.into_iter().collect();
            self.mailbox.put(Delivery { qos: message.qos, message, retain: true, ids });
        }
        if reaches_samples {
            let store = &self.port.store;
            let samples = self.samples.get_or_insert_with(|| Box::new(Samples::new(store)));
            samples.subscribe(parsed.filter, options);
        }
        let send_retained = match asked.retain_forward_rule {
            RetainForwardRule::OnEverySubscribe => parsed.group.is_none(),
            RetainForwardRule::OnNewSubscribe => parsed.group.is_none() && !known,
            RetainForwardRule::Never => false,
        };
        if send_retained {
            hub.send_retained(&self.mailbox, parsed.filter, options);
        }
        Ok(SubscribeReasonCode::Success(asked.qos))
    }

    fn unsubscribe(&mut self, text: &str) -> UnsubAckReason {
        let Ok(parsed) = filter::parse(text) else { return UnsubAckReason::TopicFilterInvalid };
        self.session.memory().subscriptions.remove(text);
        if parsed.group.is_none()
            && let Some(samples) = &mut self.samples
            && samples.unsubscribe(parsed.filter)
        {
            self.samples = None;
        }
        if self.port.hub.unsubscribe(&self.client, (parsed.group, parsed.filter)) {
            UnsubAckReason::Success
        } else {
            UnsubAckReason::NoSubscriptionExisted
        }
    }
}

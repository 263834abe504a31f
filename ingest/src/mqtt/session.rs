//! One client's side of the protocol, as a value: packets in; steps for the connection to take, and bytes for the
//! client, out. It knows no socket, no store and no clock.
//!
//! Invariants:
//! - Answers to publications leave in the order in which these came (MQTT 5, section 4.6), and an answer that says
//!   yes to samples leaves only when they are kept: the answers of one read wait together (`Answers`) until the
//!   connection says so.
//! - A packet id of QoS 2 counts as received only when its PUBREC has left; a client that comes back earlier
//!   sends the message again, and samples sent again are the same samples.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::ops::Deref;
use std::sync::Arc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use rumqttd::protocol::{
    DisconnectReasonCode, Filter, PubAckReason, PublishProperties, QoS, SubscribeReasonCode, UnsubAckReason,
};

use super::codec::{Incoming, Publish, Version, Violation};
use super::filter;
use super::mailbox::{Delivery, Message};
use super::samples::Sample;
use super::writer::{Outgoing, Writer};

/// Publications of QoS 1 and 2 that a client may have unanswered: version 5's receive maximum. Past it a client of
/// version 5 is disconnected (0x93); one of 3.1.1, which cannot be told, is read more slowly.
pub const RECEIVE_MAXIMUM: u16 = 4096;
/// Publications of QoS 1 and 2 that are sent to a client before it answers, when it allows that many.
pub const MAX_IN_FLIGHT: usize = 128;
/// Topic aliases that a client may set.
pub const MAX_ALIASES: u16 = 32;

/// What the connection does about a packet.
#[derive(Debug)]
pub enum Step<'a> {
    /// Nothing: the session has seen to it.
    Nothing,
    /// Take or refuse the publication, then [`Session::answer`].
    Publish(Published<'a>),
    /// Subscribe, then [`Session::subscribed`].
    Subscribe {
        /// Packet id for the answer.
        pkid: u16,
        /// What is asked for.
        filters: Vec<Filter>,
        /// Subscription identifier.
        id: Option<usize>,
    },
    /// Unsubscribe, then [`Session::unsubscribed`].
    Unsubscribe {
        /// Packet id for the answer.
        pkid: u16,
        /// Filters to drop.
        filters: Vec<String>,
    },
    /// The client says goodbye.
    Leave {
        /// Whether its will is published all the same.
        with_will: bool,
        /// A new session expiry interval, in seconds.
        session_expiry: Option<u32>,
    },
}

/// A topic name: from the packet, or what its alias stands for.
#[derive(Debug)]
pub enum Topic<'a> {
    /// From the packet.
    Named(&'a str),
    /// By alias.
    Aliased(Arc<str>),
}

impl Deref for Topic<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        match self {
            Self::Named(topic) => topic,
            Self::Aliased(topic) => topic,
        }
    }
}

/// A publication that is to be taken or refused.
#[derive(Debug)]
pub struct Published<'a> {
    /// A valid topic name.
    pub topic: Topic<'a>,
    /// The message.
    pub payload: &'a [u8],
    /// To be retained.
    pub retain: bool,
    /// How it is to be answered.
    pub receipt: Receipt,
    /// Version 5's properties.
    pub properties: Option<Box<PublishProperties>>,
}

/// What an answer needs to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    /// QoS of the publication.
    pub qos: QoS,
    /// Its packet id.
    pub pkid: u16,
}

/// What became of a publication.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Taken.
    Taken,
    /// Refused whole; 3.1.1 has no way to say so, and its client gets a plain acknowledgement.
    Refused(PubAckReason, String),
}

/// What outlives a connection.
#[derive(Debug, Default)]
pub struct Memory {
    received: HashSet<u16>,
    in_flight: VecDeque<InFlight>,
    last_pkid: u16,
    /// Subscriptions by filter as the client wrote it.
    pub subscriptions: BTreeMap<Box<str>, Subscribed>,
}

/// A subscription's options.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subscribed {
    /// Highest QoS wanted.
    pub qos: QoS,
    /// Subscription identifier.
    pub id: Option<usize>,
}

#[derive(Debug)]
struct InFlight {
    pkid: u16,
    delivery: Delivery,
    /// PUBREC came and PUBREL went out.
    released: bool,
}

/// Answers to the publications of one read.
#[derive(Debug, Default)]
struct Answers {
    bytes: BytesMut,
    /// Packet ids of QoS 2 among them that are said yes to.
    second: Vec<u16>,
    count: usize,
}

/// One client's side of the protocol while it is connected.
#[derive(Debug)]
pub struct Session {
    writer: Writer,
    window: usize,
    max_packet: usize,
    aliases: HashMap<u16, Arc<str>>,
    open: Answers,
    waiting: VecDeque<Answers>,
    unanswered: usize,
    memory: Memory,
}

impl Session {
    /// A session that goes on from `memory`. `receive_maximum` and `max_packet` are the client's.
    pub fn new(writer: Writer, receive_maximum: u16, max_packet: usize, memory: Memory) -> Self {
        Self {
            writer,
            window: usize::from(receive_maximum).min(MAX_IN_FLIGHT),
            max_packet,
            aliases: HashMap::new(),
            open: Answers::default(),
            waiting: VecDeque::new(),
            unanswered: 0,
            memory,
        }
    }

    /// How packets to this client are written.
    pub fn writer(&self) -> Writer {
        self.writer
    }

    /// What outlives the connection.
    pub fn memory(&mut self) -> &mut Memory {
        &mut self.memory
    }

    /// Ends the connection's part.
    pub fn into_memory(self) -> Memory {
        self.memory
    }

    /// Sends again what the client had not answered when it was last here (MQTT 5, section 4.4).
    pub fn resume(&mut self, now: Instant, out: &mut BytesMut) {
        for sent in &self.memory.in_flight {
            if sent.released {
                Writer::pubrel(sent.pkid, out);
            } else {
                write_delivery(self.writer, &sent.delivery, sent.pkid, true, now, out);
            }
        }
    }

    /// Takes a packet.
    pub fn receive<'a>(&mut self, packet: Incoming<'a>, out: &mut BytesMut) -> Result<Step<'a>, Violation> {
        match packet {
            Incoming::Publish(publish) => return self.published(publish),
            Incoming::PubAck(pkid) | Incoming::PubComp(pkid) | Incoming::PubRec { pkid, refused: true } => {
                self.settle(pkid);
            }
            Incoming::PubRec { pkid, refused: false } => {
                if let Some(sent) = self.memory.in_flight.iter_mut().find(|sent| sent.pkid == pkid) {
                    sent.released = true;
                }
                // Also for an unknown id: the client then forgets it.
                Writer::pubrel(pkid, out);
            }
            Incoming::PubRel(pkid) => {
                let found = self.memory.received.remove(&pkid);
                self.writer.pubcomp(pkid, found, out);
            }
            Incoming::PingReq => Writer::pingresp(out),
            Incoming::Subscribe(subscribe, id) => {
                return Ok(Step::Subscribe { pkid: subscribe.pkid, filters: subscribe.filters, id });
            }
            Incoming::Unsubscribe(packet) => {
                return Ok(Step::Unsubscribe { pkid: packet.pkid, filters: packet.filters });
            }
            Incoming::Disconnect { with_will, session_expiry } => {
                return Ok(Step::Leave { with_will, session_expiry });
            }
        }
        Ok(Step::Nothing)
    }

    fn published<'a>(&mut self, publish: Publish<'a>) -> Result<Step<'a>, Violation> {
        let receipt = Receipt { qos: publish.qos, pkid: publish.pkid };
        let topic = match &publish.properties {
            None => Topic::Named(publish.topic),
            Some(properties) => self.resolve(publish.topic, properties)?,
        };
        filter::check_name(&topic).map_err(Violation::topic)?;
        if publish.qos == QoS::ExactlyOnce && self.memory.received.contains(&publish.pkid) {
            // It is here already, and said to be: say it again.
            self.answer(receipt, Answer::Taken);
            return Ok(Step::Nothing);
        }
        if publish.qos != QoS::AtMostOnce
            && self.writer.version == Version::V5
            && self.unanswered + self.memory.received.len() >= usize::from(RECEIVE_MAXIMUM)
        {
            return Err(Violation {
                reason: DisconnectReasonCode::ReceiveMaximumExceeded,
                what: format!("more than {RECEIVE_MAXIMUM} publications unanswered"),
            });
        }
        let (retain, payload, properties) = (publish.retain, publish.payload, publish.properties);
        Ok(Step::Publish(Published { topic, payload, retain, receipt, properties }))
    }

    fn resolve<'a>(
        &mut self,
        topic: &'a str,
        properties: &PublishProperties,
    ) -> Result<Topic<'a>, Violation> {
        if !properties.subscription_identifiers.is_empty() {
            return Err(Violation::protocol("PUBLISH of a client with a subscription identifier"));
        }
        if properties.response_topic.as_ref().is_some_and(|topic| topic.contains(['+', '#'])) {
            return Err(Violation::protocol("response topic with a wildcard"));
        }
        let alias = match properties.topic_alias {
            None => return Ok(Topic::Named(topic)),
            Some(alias) if (1..=MAX_ALIASES).contains(&alias) => alias,
            Some(alias) => {
                return Err(Violation {
                    reason: DisconnectReasonCode::TopicAliasInvalid,
                    what: format!("topic alias {alias}; 1 to {MAX_ALIASES} may be used"),
                });
            }
        };
        if topic.is_empty() {
            let known = self.aliases.get(&alias).cloned().map(Topic::Aliased);
            return known.ok_or_else(|| Violation::protocol(format!("topic alias {alias} was never set")));
        }
        self.aliases.insert(alias, topic.into());
        Ok(Topic::Named(topic))
    }

    /// Answers a publication; the answer leaves by [`Self::close_read`] or [`Self::kept`].
    pub fn answer(&mut self, receipt: Receipt, answer: Answer) {
        let Receipt { qos, pkid } = receipt;
        if qos == QoS::AtMostOnce {
            return;
        }
        self.unanswered += 1;
        self.open.count += 1;
        let out = &mut self.open.bytes;
        match answer {
            Answer::Refused(reason, what) if self.writer.version == Version::V5 => {
                self.writer.refused(qos, pkid, reason, &what, out);
            }
            Answer::Taken | Answer::Refused(..) => {
                Writer::accepted(qos, pkid, out);
                if qos == QoS::ExactlyOnce {
                    self.open.second.push(pkid);
                }
            }
        }
    }

    /// Ends a read. With `waits`, its answers wait until [`Self::kept`]; without, they leave now, or with those
    /// that wait already. True when a [`Self::kept`] is owed.
    pub fn close_read(&mut self, waits: bool, out: &mut BytesMut) -> bool {
        let answers = std::mem::take(&mut self.open);
        if answers.count == 0 {
            return false;
        }
        if waits {
            self.waiting.push_back(answers);
            return true;
        }
        match self.waiting.back_mut() {
            Some(last) => {
                last.bytes.extend_from_slice(&answers.bytes);
                last.second.extend(answers.second);
                last.count += answers.count;
            }
            None => self.leave(answers, out),
        }
        false
    }

    /// The samples of the oldest read that waits are kept: its answers leave.
    pub fn kept(&mut self, out: &mut BytesMut) {
        if let Some(answers) = self.waiting.pop_front() {
            self.leave(answers, out);
        }
    }

    fn leave(&mut self, answers: Answers, out: &mut BytesMut) {
        self.unanswered -= answers.count;
        self.memory.received.extend(answers.second);
        if out.is_empty() {
            *out = answers.bytes;
        } else {
            out.extend_from_slice(&answers.bytes);
        }
    }

    /// Answers a SUBSCRIBE.
    pub fn subscribed(&self, pkid: u16, codes: Vec<SubscribeReasonCode>, out: &mut BytesMut) {
        self.writer.suback(pkid, codes, out);
    }

    /// Answers an UNSUBSCRIBE.
    pub fn unsubscribed(&self, pkid: u16, reasons: Vec<UnsubAckReason>, out: &mut BytesMut) {
        self.writer.unsuback(pkid, reasons, out);
    }

    /// Whether a publication of QoS 1 or 2 may be sent now.
    pub fn window_open(&self) -> bool {
        self.memory.in_flight.len() < self.window
    }

    /// Sends a message. False when it was too large for the client or too old, and is gone. The window is open.
    pub fn send(&mut self, delivery: Delivery, now: Instant, out: &mut BytesMut) -> bool {
        let message = &delivery.message;
        if message.expires.is_some_and(|expires| expires <= now) {
            return false;
        }
        let before = out.len();
        let pkid = if delivery.qos == QoS::AtMostOnce { 0 } else { self.next_pkid() };
        write_delivery(self.writer, &delivery, pkid, false, now, out);
        if out.len() - before > self.max_packet {
            // MQTT 5, 3.1.2.11.4: the server acts as if it had been sent.
            out.truncate(before);
            return false;
        }
        if pkid != 0 {
            self.memory.in_flight.push_back(InFlight { pkid, delivery, released: false });
        }
        true
    }

    /// Sends a sample. The window is open, or its QoS is 0. False when it is too large for the client.
    pub fn send_sample(&mut self, sample: &Sample<'_>, now: Instant, out: &mut BytesMut) -> bool {
        if sample.qos == QoS::AtMostOnce && sample.ids.is_empty() {
            let outgoing = Outgoing {
                dup: false,
                qos: sample.qos,
                pkid: 0,
                retain: false,
                topic: sample.topic,
                payload: sample.payload,
                properties: None,
            };
            let before = out.len();
            self.writer.publish(&outgoing, out);
            if out.len() - before > self.max_packet {
                out.truncate(before);
                return false;
            }
            return true;
        }
        let message = Message {
            topic: sample.topic.into(),
            payload: Bytes::copy_from_slice(sample.payload),
            properties: None,
            qos: sample.qos,
            expires: None,
        };
        let ids = sample.ids.to_vec();
        self.send(Delivery { message: Arc::new(message), qos: sample.qos, retain: false, ids }, now, out)
    }

    fn settle(&mut self, pkid: u16) {
        if let Some(index) = self.memory.in_flight.iter().position(|sent| sent.pkid == pkid) {
            self.memory.in_flight.remove(index);
            if self.memory.in_flight.is_empty() {
                self.memory.in_flight = VecDeque::new();
            }
        }
    }

    /// The next packet id that is not in use; there is one, since the window is far smaller than 65 535.
    fn next_pkid(&mut self) -> u16 {
        let memory = &mut self.memory;
        loop {
            memory.last_pkid = memory.last_pkid.checked_add(1).unwrap_or(1);
            if memory.in_flight.iter().all(|sent| sent.pkid != memory.last_pkid) {
                return memory.last_pkid;
            }
        }
    }
}

fn write_delivery(
    writer: Writer,
    delivery: &Delivery,
    pkid: u16,
    dup: bool,
    now: Instant,
    out: &mut BytesMut,
) {
    let message = &delivery.message;
    let mut properties = message.properties.clone();
    if writer.version == Version::V5 && (message.expires.is_some() || !delivery.ids.is_empty()) {
        let properties = properties.get_or_insert_default();
        properties.message_expiry_interval =
            message.expires.map(|expires| expires.saturating_duration_since(now).as_secs() as u32);
        properties.subscription_identifiers.clone_from(&delivery.ids);
    }
    let outgoing = Outgoing {
        dup: dup && pkid != 0,
        qos: delivery.qos,
        pkid,
        retain: delivery.retain,
        topic: &message.topic,
        payload: &message.payload,
        properties: properties.as_ref(),
    };
    writer.publish(&outgoing, out);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::codec::{Frame, read};
    use super::*;

    fn session(version: Version) -> Session {
        Session::new(Writer { version, reasons: true }, u16::MAX, usize::MAX, Memory::default())
    }

    fn publish(qos: QoS, pkid: u16) -> Incoming<'static> {
        Incoming::Publish(Publish { qos, pkid, retain: false, topic: "t", payload: b"x", properties: None })
    }

    fn delivery(qos: QoS) -> Delivery {
        let message =
            Message { topic: "t".into(), payload: Bytes::new(), properties: None, qos, expires: None };
        Delivery { message: Arc::new(message), qos, retain: false, ids: Vec::new() }
    }

    /// Type and packet id of every packet in `out`.
    fn packets(out: &[u8]) -> Vec<(u8, u16)> {
        let (mut rest, mut found) = (out, Vec::new());
        while let Some(frame) = Frame::split(rest, usize::MAX).unwrap() {
            let at = if frame.kind() == 3 { 5 } else { 2 };
            found.push((frame.kind(), u16::from_be_bytes([rest[at], rest[at + 1]])));
            rest = &rest[frame.len()..];
        }
        found
    }

    #[test]
    fn answers_wait_for_their_samples_and_keep_their_order() {
        let (mut session, mut out) = (session(Version::V5), BytesMut::new());
        let take = |session: &mut Session, pkid, answer| {
            let mut out = BytesMut::new();
            assert!(matches!(
                session.receive(publish(QoS::AtLeastOnce, pkid), &mut out),
                Ok(Step::Publish(_))
            ));
            session.answer(Receipt { qos: QoS::AtLeastOnce, pkid }, answer);
            assert!(out.is_empty());
        };
        take(&mut session, 1, Answer::Taken);
        take(&mut session, 2, Answer::Refused(PubAckReason::QuotaExceeded, "full".into()));
        assert!(session.close_read(true, &mut out));
        // Nothing to wait for itself, and yet it may not overtake.
        take(&mut session, 3, Answer::Taken);
        assert!(!session.close_read(false, &mut out));
        take(&mut session, 4, Answer::Taken);
        assert!(session.close_read(true, &mut out));
        assert!(out.is_empty());
        session.kept(&mut out);
        assert_eq!(packets(&out), [(4, 1), (4, 2), (4, 3)]);
        session.kept(&mut out);
        assert_eq!(packets(&out), [(4, 1), (4, 2), (4, 3), (4, 4)]);
        assert_eq!(session.unanswered, 0);
    }

    #[test]
    fn a_second_publish_of_qos_2_counts_as_received_only_once_its_pubrec_left() {
        let (mut session, mut out) = (session(Version::V4), BytesMut::new());
        let receipt = Receipt { qos: QoS::ExactlyOnce, pkid: 9 };
        session.receive(publish(QoS::ExactlyOnce, 9), &mut out).unwrap();
        session.answer(receipt, Answer::Taken);
        session.close_read(true, &mut out);
        // The connection breaks before the samples are kept: sent again, it is taken again.
        let memory = session.into_memory();
        let mut session = Session::new(Writer { version: Version::V4, reasons: false }, 10, 1000, memory);
        let again = session.receive(publish(QoS::ExactlyOnce, 9), &mut out).unwrap();
        assert!(matches!(again, Step::Publish(_)));
        session.answer(receipt, Answer::Taken);
        session.close_read(true, &mut out);
        session.kept(&mut out);
        // From here on it is known.
        assert!(matches!(session.receive(publish(QoS::ExactlyOnce, 9), &mut out), Ok(Step::Nothing)));
        session.close_read(false, &mut out);
        session.receive(Incoming::PubRel(9), &mut out).unwrap();
        assert_eq!(packets(&out), [(5, 9), (5, 9), (7, 9)]);
        assert!(matches!(session.receive(publish(QoS::ExactlyOnce, 9), &mut out), Ok(Step::Publish(_))));
    }

    #[test]
    fn a_message_too_large_or_too_old_for_the_client_is_not_sent() {
        let now = Instant::now();
        let writer = Writer { version: Version::V5, reasons: true };
        let mut session = Session::new(writer, 10, 40, Memory::default());
        let mut out = BytesMut::new();
        let with = |bytes: usize, expires| Delivery {
            message: Arc::new(Message {
                topic: "t".into(),
                payload: vec![0; bytes].into(),
                properties: None,
                qos: QoS::AtLeastOnce,
                expires,
            }),
            ..delivery(QoS::AtLeastOnce)
        };
        assert!(!session.send(with(40, None), now, &mut out));
        assert!(!session.send(with(1, Some(now)), now, &mut out));
        assert!(out.is_empty() && session.memory.in_flight.is_empty());
        assert!(session.send(with(1, Some(now + std::time::Duration::from_secs(9))), now, &mut out));
        assert_eq!(out[out.len() - 6..], [2, 0, 0, 0, 9, 0]);
    }

    #[derive(Debug, Clone)]
    enum Act {
        Send(u8),
        Answer(prop::sample::Index),
        Reconnect,
    }

    fn act() -> impl Strategy<Value = Act> {
        prop_oneof![
            3 => (0..3_u8).prop_map(Act::Send),
            3 => any::<prop::sample::Index>().prop_map(Act::Answer),
            1 => Just(Act::Reconnect),
        ]
    }

    proptest! {
        /// However a client answers and reconnects: ids in flight are distinct and within the window, everything not
        /// answered is sent again, in order, and at the end nothing is left.
        #[test]
        fn in_flight_messages_survive_any_course(acts in prop::collection::vec(act(), 1..60)) {
            let now = Instant::now();
            let writer = Writer { version: Version::V4, reasons: true };
            let mut session = Session::new(writer, 5, usize::MAX, Memory::default());
            // Packet type last sent and its id, as a client sees it.
            let mut open: Vec<(u8, u16, QoS)> = Vec::new();
            let mut out = BytesMut::new();
            for act in acts {
                out.clear();
                match act {
                    Act::Send(_) if !session.window_open() => {}
                    Act::Send(qos) => {
                        let qos = rumqttd::protocol::qos(qos).unwrap();
                        prop_assert!(session.send(delivery(qos), now, &mut out));
                        if qos != QoS::AtMostOnce {
                            let (kind, id) = packets(&out)[0];
                            prop_assert!(id != 0 && open.iter().all(|sent| sent.1 != id));
                            open.push((kind, id, qos));
                        }
                    }
                    Act::Answer(_) if open.is_empty() => {}
                    Act::Answer(index) => {
                        let index = index.index(open.len());
                        let (kind, pkid, qos) = open[index];
                        let answer = match (kind, qos) {
                            (3, QoS::AtLeastOnce) => Incoming::PubAck(pkid),
                            (3, _) => Incoming::PubRec { pkid, refused: false },
                            _ => Incoming::PubComp(pkid),
                        };
                        let released = matches!(answer, Incoming::PubRec { .. });
                        session.receive(answer, &mut out).unwrap();
                        if released {
                            prop_assert_eq!(packets(&out), vec![(6, pkid)]);
                            open[index].0 = 6;
                        } else {
                            open.remove(index);
                        }
                    }
                    Act::Reconnect => {
                        let memory = session.into_memory();
                        session = Session::new(writer, 5, usize::MAX, memory);
                        session.resume(now, &mut out);
                        let expected: Vec<(u8, u16)> = open.iter().map(|sent| (sent.0, sent.1)).collect();
                        prop_assert_eq!(packets(&out), expected);
                    }
                }
                prop_assert!(session.memory.in_flight.len() == open.len() && open.len() <= 5);
            }
        }

        /// Any packets in any order: a step, or a violation, and never a panic or an answer out of turn.
        #[test]
        fn any_packets_are_seen_to(bytes in prop::collection::vec(any::<u8>(), 0..120), v5 in any::<bool>()) {
            let version = if v5 { Version::V5 } else { Version::V4 };
            let (mut session, mut out, mut rest) = (session(version), BytesMut::new(), &bytes[..]);
            while let Ok(Some(frame)) = Frame::split(rest, 1 << 20) {
                rest = &rest[frame.len()..];
                let Ok(packet) = read(version, &frame) else { break };
                if session.receive(packet, &mut out).is_err() {
                    break;
                }
            }
        }
    }
}

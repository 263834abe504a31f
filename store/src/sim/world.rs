//! The world of one run: its nodes, what is to happen next, and the loop that lets it happen.

use std::collections::{BTreeMap, VecDeque};

use super::dice::Dice;
use super::disk::{Answer, Disk, decode};
use super::history::History;
use super::network::{Cut, Link};
use super::node::{Promise, Run};
use super::plan::{MS, Plan, SECOND};
use super::said::Said;
use super::witness::{Ack, Witness};
use super::{Counts, Outcome, Rule};
use crate::model::ids::{NodeId, Origin, Partition};
use crate::replica::message::Message;
use crate::replica::state::Effect;

/// Replicas compare vectors this often.
const TICK: u64 = 2 * SECOND;
/// After the last fault, all must be equal within this time.
const HEALED_WITHIN: u64 = 60 * SECOND;
/// Time for one round of scrubs.
const SCRUBBED_WITHIN: u64 = 5 * SECOND;
/// Frames that a link takes at once.
const BATCH: usize = 4;
/// A run with more events than this hangs.
const EVENTS_AT_MOST: usize = 2_000_000;

/// What can happen.
#[derive(Debug)]
pub(super) enum Event {
    Client,
    Resend { sample: usize, tries: u8 },
    Fault,
    Housekeeping,
    Rooms,
    Retained,
    Gossip,
    Dial,
    Restart { at: usize },
    Heal { cut: u64 },
    Tick { at: usize, run: u64 },
    Joined { at: usize, run: u64 },
    Commit { at: usize, run: u64 },
    Seal { at: usize, run: u64 },
    Durable { at: usize, run: u64 },
    Deliver { at: usize, from: usize, session: u64, message: Box<Message> },
    Unlink { at: usize, peer: usize, session: u64 },
    Silence { at: usize, peer: usize, session: u64 },
    Pump { at: usize, peer: usize, session: u64 },
    Bulk { at: usize, peer: usize, session: u64 },
}

impl Event {
    /// The node that it happens at, when it waits while that node hangs.
    fn place(&self) -> Option<usize> {
        match self {
            Self::Tick { at, .. }
            | Self::Joined { at, .. }
            | Self::Commit { at, .. }
            | Self::Seal { at, .. }
            | Self::Durable { at, .. }
            | Self::Deliver { at, .. }
            | Self::Unlink { at, .. }
            | Self::Silence { at, .. }
            | Self::Pump { at, .. }
            | Self::Bulk { at, .. } => Some(*at),
            _ => None,
        }
    }
}

/// How a node is to die at its next commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Doom {
    BeforeSync,
    AfterSync,
}

/// A machine in the cluster.
#[derive(Debug)]
pub(super) struct Node {
    pub disk: Disk,
    pub backup: Option<Disk>,
    pub run: Option<Run>,
    pub doom: Option<Doom>,
    /// Its clock is ahead by this.
    pub skew: i64,
    /// It hangs until then.
    pub hangs_until: u64,
    pub links: BTreeMap<usize, Link>,
    /// What it thinks of others by their ids: up or not, and since when the truth has been another one.
    pub view: BTreeMap<NodeId, (bool, Option<u64>)>,
}

/// Large messages that wait for a link: ready, or to be read when their turn comes.
#[derive(Debug)]
pub(super) enum Bulk {
    Ready(Message),
    /// Part `place` of a snapshot that is read part by part: the broken rule.
    Later {
        partitions: Vec<Partition>,
        read: u64,
        place: usize,
    },
}

/// Messages of sessions that wait for a cut to heal.
pub(super) type Stalled = VecDeque<(u64, Box<Message>)>;

pub(super) struct World {
    pub broken: Option<Rule>,
    pub plan: Plan,
    pub dice: Dice,
    /// For rooms alone: without them a run is the same.
    pub room_dice: Dice,
    /// The same for retained messages.
    pub retained_dice: Dice,
    pub now: u64,
    pub nodes: Vec<Node>,
    /// Which node an id is, or was.
    pub ids: BTreeMap<NodeId, usize>,
    queue: BTreeMap<(u64, u64), Event>,
    scheduled: u64,
    pub cuts: Vec<Cut>,
    pub sessions: u64,
    /// When the last message of a direction arrives: messages of a stream do not overtake each other.
    pub last_arrival: BTreeMap<(usize, usize), u64>,
    pub stalled: BTreeMap<(usize, usize), Stalled>,
    pub witness: Witness,
    pub history: History,
    pub counts: Counts,
    /// Faults have ended.
    pub healing: bool,
    runs: u64,
    /// The time that clients give to the next sample of each series.
    times: Vec<i64>,
    /// Series whose `keep` was raised, or which were cleared: until a scrub their rings may differ.
    pub unlike: Vec<bool>,
    /// A node has joined parts of a snapshot that broke off: it may hold more than its vector says.
    pub broken_off: bool,
    /// What a node said to have trimmed, and of which origin: for the rule that a snapshot counts as a whole.
    trimmed: BTreeMap<(usize, NodeId, Vec<Partition>), Origin>,
    failure: Option<String>,
    traced: bool,
    story: Vec<String>,
}

impl World {
    pub(super) fn new(seed: u64, broken: Option<Rule>, traced: bool) -> Self {
        let mut dice = Dice::new(seed);
        let plan = Plan { rooms: seed % 2 == 1, retained: seed % 4 == 2, ..Plan::new(&mut dice) };
        let nodes = (0..plan.nodes).map(|_| Node {
            disk: Disk::new(NodeId(dice.word())),
            backup: None,
            run: None,
            doom: None,
            skew: dice.between(0, 4_000_000) as i64 - 2_000_000,
            hangs_until: 0,
            links: BTreeMap::new(),
            view: BTreeMap::new(),
        });
        let nodes: Vec<_> = nodes.collect();
        let ids = nodes.iter().enumerate().map(|(at, node)| (node.disk.node, at)).collect();
        let topics = plan.topics.len();
        Self {
            broken,
            plan,
            dice,
            room_dice: Dice::new(!seed),
            retained_dice: Dice::new(!seed ^ 1 << 63),
            now: 0,
            nodes,
            ids,
            queue: BTreeMap::new(),
            scheduled: 0,
            cuts: Vec::new(),
            sessions: 0,
            last_arrival: BTreeMap::new(),
            stalled: BTreeMap::new(),
            witness: Witness::default(),
            history: History::default(),
            counts: Counts::default(),
            healing: false,
            runs: 0,
            times: vec![1000; topics],
            unlike: vec![false; topics],
            broken_off: false,
            trimmed: BTreeMap::new(),
            failure: None,
            traced,
            story: Vec::new(),
        }
    }

    pub(super) fn outcome(mut self, verdict: Result<(), String>) -> Outcome {
        for at in 0..self.nodes.len() {
            self.count_run(at);
        }
        self.witness.figures(&mut self.counts);
        Outcome { counts: self.counts, verdict, story: self.story }
    }

    /// Notes a line of the story.
    pub(super) fn tell(&mut self, line: impl FnOnce() -> String) {
        if self.traced {
            let (seconds, millis) = (self.now / SECOND, self.now % SECOND / MS);
            self.story.push(format!("{seconds:3}.{millis:03} {}", line()));
        }
    }

    /// The run has failed.
    pub(super) fn fail(&mut self, what: String) {
        self.failure.get_or_insert(what);
    }

    /// Lets something happen after some time.
    pub(super) fn after(&mut self, delay: u64, event: Event) {
        self.scheduled += 1;
        self.queue.insert((self.now + delay, self.scheduled), event);
    }

    /// Lets something happen after at most this time.
    pub(super) fn within(&mut self, delay: u64, event: Event) {
        let delay = self.dice.between(1, delay);
        self.after(delay, event);
    }

    /// All of it: faults, healing, scrub, judgement.
    pub(super) fn run(&mut self) -> Result<(), String> {
        for at in 0..self.nodes.len() {
            self.start(at);
        }
        for event in [Event::Client, Event::Fault, Event::Housekeeping, Event::Gossip, Event::Dial] {
            self.within(100 * MS, event);
        }
        if self.plan.rooms {
            self.after(100 * MS, Event::Rooms);
        }
        if self.plan.retained {
            self.after(100 * MS, Event::Retained);
        }
        self.advance(self.plan.end)?;
        self.heal_all();
        let deadline = self.now + HEALED_WITHIN;
        while let Err(what) = self.converged().and_then(|()| self.is_tidy()) {
            if self.now >= deadline {
                return Err(format!("not equal {} s after healing: {what}", HEALED_WITHIN / SECOND));
            }
            self.advance(self.now + 250 * MS)?;
        }
        self.compare_disks()?;
        self.scrub_all();
        self.advance(self.now + SCRUBBED_WITHIN)?;
        self.converged()?;
        (0..self.nodes.len()).try_for_each(|at| self.compare_history(at))?;
        self.compare_rings()?;
        self.compare_rooms()?;
        self.compare_retained()?;
        let answer = self.nodes[0].run.as_ref().map(Run::answer).unwrap_or_default();
        self.witness.judge(&self.plan, &answer, &mut self.counts)
    }

    fn advance(&mut self, until: u64) -> Result<(), String> {
        let mut events = 0;
        while let Some(entry) = self.queue.first_entry().filter(|entry| entry.key().0 <= until) {
            let ((time, _), event) = entry.remove_entry();
            self.now = time;
            let hung = event.place().map(|at| self.nodes[at].hangs_until).filter(|until| *until > self.now);
            match hung {
                Some(until) => self.after(until - self.now, event),
                None => self.happen(event),
            }
            if let Some(failure) = self.failure.take() {
                return Err(failure);
            }
            events += 1;
            if events > EVENTS_AT_MOST {
                return Err("it goes on for ever without time passing".into());
            }
        }
        self.now = until;
        Ok(())
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Client => self.client(),
            Event::Resend { sample, tries } => self.resend(sample, tries),
            Event::Fault => self.fault(),
            Event::Housekeeping => self.housekeeping(),
            Event::Rooms => self.change_room(),
            Event::Retained => self.retain(),
            Event::Gossip => self.gossip(),
            Event::Dial => self.dial(),
            Event::Restart { at } => self.restart(at),
            Event::Heal { cut } => self.heal(cut),
            Event::Tick { at, run } => {
                if self.is_run(at, run) {
                    self.machine(at, |run, _, _| run.replica.tick());
                    let jitter = self.dice.between(0, TICK / 8);
                    self.after(TICK + jitter, Event::Tick { at, run });
                }
            }
            Event::Joined { at, run } => {
                if self.is_run(at, run) {
                    self.machine(at, |run, _, _| run.replica.set_joining(false));
                }
            }
            Event::Commit { at, run } => {
                if self.is_run(at, run) {
                    self.commit(at);
                }
            }
            Event::Seal { at, run } => {
                if self.is_run(at, run) {
                    self.seal(at);
                }
            }
            Event::Durable { at, run } => {
                if self.is_run(at, run) {
                    self.durable(at);
                }
            }
            Event::Deliver { at, from, session, message } => self.deliver(at, from, session, message),
            Event::Unlink { at, peer, session } => self.unlink(at, peer, session),
            Event::Silence { at, peer, session } => self.silence(at, peer, session),
            Event::Pump { at, peer, session } => self.pump(at, peer, session),
            Event::Bulk { at, peer, session } => self.bulk(at, peer, session),
        }
    }

    fn is_run(&self, at: usize, number: u64) -> bool {
        self.nodes[at].run.as_ref().is_some_and(|run| run.number == number)
    }

    /// Starts a node on the disk that it has.
    pub(super) fn start(&mut self, at: usize) {
        self.runs += 1;
        let node = self.nodes[at].disk.node;
        let start = match self.broken {
            Some(Rule::FreshOrigin) => node.0 ^ 1,
            _ => self.dice.word(),
        };
        match Run::new(self.runs, start, &self.nodes[at].disk, &self.plan, self.broken) {
            Ok(run) => self.nodes[at].run = Some(run),
            Err(what) => return self.fail(format!("node {at} does not start: {what}")),
        }
        self.nodes[at].view.clear();
        self.nodes[at].links.clear();
        if let Err(what) = self.compare_history(at) {
            return self.fail(format!("at its start {what}"));
        }
        let run = self.runs;
        self.tell(|| format!("node {at} starts as {node}/{start:x}"));
        self.within(TICK, Event::Tick { at, run });
        self.within(5 * SECOND, Event::Joined { at, run });
    }

    /// A node is gone; its disk stays.
    pub(super) fn kill(&mut self, at: usize) {
        self.count_run(at);
        self.counts.add("crashes", 1);
        let node = &mut self.nodes[at];
        if node.run.take().is_some_and(|run| run.replica.is_joining()) {
            self.broken_off = true;
            self.counts.add("snapshots broken off", 1);
        }
        let node = &mut self.nodes[at];
        (node.doom, node.hangs_until) = (None, 0);
        let links = std::mem::take(&mut node.links);
        self.tell(|| format!("node {at} is killed"));
        for (peer, link) in links {
            self.end_of_stream(peer, at, link.session);
        }
        let away = self.dice.between(50 * MS, 5 * SECOND);
        self.after(away, Event::Restart { at });
    }

    fn count_run(&mut self, at: usize) {
        let Some(run) = &self.nodes[at].run else { return };
        self.counts.add("samples that came after their clear", run.kept_out);
        let counts = run.replica.counts();
        self.counts.add("wants", counts.wants);
        self.counts.add("rewinds", counts.rewinds);
        self.counts.add("snapshots", counts.snapshots);
        self.counts.add("snapshots broken off", counts.broken_off);
        self.counts.add("snapshots put off", counts.put_off);
        self.counts.add("folds", counts.folds);
        self.counts.add("origins folded", counts.origins_folded);
        self.counts.add("folds missed", counts.folds_missed);
    }

    /// What a node's clock shows, as stamps have it.
    pub(super) fn clock(&self, at: usize) -> u64 {
        ((1 << 40) + self.now as i64 + self.nodes[at].skew) as u64
    }

    /// Lets a node's machine do something and carries out what follows.
    pub(super) fn machine(&mut self, at: usize, act: impl FnOnce(&mut Run, &mut Disk, &Plan) -> Vec<Effect>) {
        let Node { run: Some(run), disk, .. } = &mut self.nodes[at] else { return };
        let effects = act(run, disk, &self.plan);
        for frame in std::mem::take(&mut run.made) {
            match decode(&frame) {
                Ok(frame) => self.history.made(frame),
                Err(what) => self.fail(what),
            }
        }
        self.perform(at, effects);
        let Some(run) = &mut self.nodes[at].run else { return };
        self.broken_off |= run.replica.counts().broken_off > 0;
        self.nudge(at);
    }

    /// Starts a commit when there is something to commit.
    pub(super) fn nudge(&mut self, at: usize) {
        let Some(run) = &mut self.nodes[at].run else { return };
        if run.has_work() && !run.busy {
            run.busy = true;
            let run = run.number;
            self.within(5 * MS, Event::Commit { at, run });
        } else if run.is_open() && !run.sealing {
            run.sealing = true;
            let run = run.number;
            self.within(5 * MS, Event::Seal { at, run });
        }
    }

    /// A seal while the disk is busy.
    fn seal(&mut self, at: usize) {
        let Some(run) = &mut self.nodes[at].run else { return };
        run.sealing = false;
        if run.busy && run.is_open() {
            self.counts.add("seals between commits", 1);
            self.machine(at, |run, _, plan| run.seal(plan));
        }
    }

    fn perform(&mut self, at: usize, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Send(to, message) => self.send_to(at, to, message),
                Effect::Settle { frame, copies, fewer } => self.settle(at, frame, copies, fewer),
                Effect::Serve { to, origin, blocks } => {
                    let messages = Run::serve(&self.nodes[at].disk, origin, &blocks);
                    let relays = messages.iter().filter(|message| matches!(message, Message::Relay { .. }));
                    self.counts.add("relays", relays.count() as u64);
                    if let Some(Message::Trimmed { partitions, .. }) = messages.last() {
                        self.trimmed.insert((at, to, partitions.clone()), origin);
                    }
                    self.queue_bulk(at, to, messages.into_iter().map(Bulk::Ready));
                }
                Effect::Snapshot { to, partitions } => self.snapshot(at, to, partitions),
                Effect::Adopt(coverage) => {
                    self.tell(|| format!("node {at} has a snapshot whole"));
                    self.machine(at, |run, disk, _| run.adopt(coverage, disk));
                }
                Effect::Fold(fold) => {
                    if let Some(run) = &self.nodes[at].run {
                        self.history.folded(&fold, run.replica.durable());
                    }
                    self.tell(|| format!("node {at} folds {:?} into {}", fold.origins, fold.stand_in()));
                    self.machine(at, |run, _, _| run.fold(fold));
                }
                Effect::Stream(to) => self.schedule_pump(at, to),
            }
        }
    }

    fn snapshot(&mut self, at: usize, to: NodeId, partitions: Vec<Partition>) {
        let Node { run: Some(run), disk, .. } = &mut self.nodes[at] else { return };
        let Some(read) = run.replica.begin_read(to, &partitions) else {
            return self.tell(|| format!("node {at} lets {to} wait for a snapshot"));
        };
        let asked = (at, to, partitions);
        // What a link's cursor lacks is the node's own.
        let origin = self.trimmed.get(&asked).or(self.trimmed.get(&(at, to, Vec::new())));
        let partitions = asked.2;
        let messages = match (self.broken, origin) {
            (Some(Rule::SnapshotAtOnce), _) => {
                let later = Bulk::Later { partitions, read, place: 0 };
                return self.queue_bulk(at, to, std::iter::once(later));
            }
            (Some(Rule::SnapshotWhole), Some(only)) => run.survivors(&self.plan, &partitions, read, *only),
            _ => match Run::snapshot(disk, &self.plan, &partitions, read) {
                Ok(messages) => messages,
                Err(what) => return self.fail(format!("node {at} cannot read a snapshot: {what}")),
            },
        };
        self.tell(|| format!("node {at} sends {to} a snapshot of {} parts", messages.len() - 1));
        self.queue_bulk(at, to, messages.into_iter().map(Bulk::Ready));
    }

    fn settle(&mut self, at: usize, frame: u64, copies: u8, fewer: bool) {
        let Some(run) = &mut self.nodes[at].run else { return };
        let later = run.waiting.split_off(&(frame + 1));
        let settled = std::mem::replace(&mut run.waiting, later);
        for promise in settled.into_values().flatten() {
            match promise {
                Promise::Sample(number, ack) => self.witness.acknowledged(number, ack, copies),
                Promise::Clear(number, heard) => self.witness.clear_acknowledged(number, heard, copies),
                Promise::Room(number, made) => self.witness.rooms.acknowledged(number, made, copies),
                Promise::Retained(number, made) => {
                    self.witness.retained.acknowledged(number, made, copies);
                }
            }
            if fewer {
                self.counts.add("acknowledged with fewer copies", 1);
            }
        }
        self.tell(|| format!("node {at} acknowledges frame {frame} with {copies} copies"));
    }

    fn commit(&mut self, at: usize) {
        self.counts.add("commits", 1);
        self.machine(at, Run::commit);
        let slow = self.dice.chance(30);
        let time = if slow { 10 * self.plan.commit } else { self.plan.commit };
        let Some(run) = &self.nodes[at].run else { return };
        let run = run.number;
        self.within(time, Event::Durable { at, run });
    }

    fn durable(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        let Some(run) = &mut node.run else { return };
        run.busy = false;
        match node.doom.filter(|_| run.is_committing()) {
            Some(Doom::BeforeSync) => {
                self.counts.add("crashes before the sync", 1);
                self.kill(at);
            }
            Some(Doom::AfterSync) => {
                run.synced(&mut node.disk);
                self.counts.add("crashes after the sync", 1);
                self.kill(at);
            }
            None => self.machine(at, |run, disk, _| run.committed(disk)),
        }
    }

    /// A message that came over a link.
    pub(super) fn handle(&mut self, at: usize, from: NodeId, message: Message) {
        let outcome = match message {
            Message::Frame { previous, frame } => decode(&frame).map(|decoded| {
                self.taking(at, |run| run.replica.frame(from, previous, decoded, frame));
            }),
            Message::Relay { frame } => decode(&frame).map(|decoded| {
                self.taking(at, |run| run.replica.relay(from, decoded, frame));
            }),
            Message::Part { read, place, piece } => {
                let Node { run: Some(run), .. } = &mut self.nodes[at] else { return };
                if !run.replica.expects_part(from, read, place) {
                    return;
                }
                let joined = run.join_piece(&piece, &self.plan);
                self.machine(at, |run, _, _| run.replica.part(from, read, place));
                joined
            }
            Message::Scrub { partition, version, series } => {
                self.compare_scrub(at, from, partition, version, &series);
                Ok(())
            }
            Message::WantRings(series) => {
                self.send_rings(at, from, &series, true);
                Ok(())
            }
            Message::Piece(piece) => self.join_rings(at, from, &piece),
            other => {
                self.machine(at, |run, _, _| run.replica.message(from, other));
                Ok(())
            }
        };
        if let Err(what) = outcome {
            self.fail(format!("node {at}: {what}"));
        }
    }

    fn taking(
        &mut self,
        at: usize,
        offer: impl FnOnce(&mut Run) -> (Option<crate::replica::state::Taken>, Vec<Effect>),
    ) {
        let Node { run: Some(run), .. } = &mut self.nodes[at] else { return };
        let (taken, effects) = offer(run);
        if let Some(taken) = taken
            && let Err(what) = run.take(taken, &self.plan)
        {
            return self.fail(format!("node {at}: {what}"));
        }
        self.machine(at, |_, _, _| effects);
    }

    /// Sends frames of a node to a peer that is behind.
    fn pump(&mut self, at: usize, peer: usize, session: u64) {
        let Some(link) = self.nodes[at].links.get_mut(&peer).filter(|link| link.session == session) else {
            return;
        };
        link.pumping = false;
        let to = link.peer;
        for _ in 0..BATCH {
            let Node { run: Some(run), disk, .. } = &mut self.nodes[at] else { return };
            match run.stream(to, disk) {
                Ok(message) => self.send_to(at, to, message),
                Err(Some(effects)) => {
                    self.trimmed.insert((at, to, Vec::new()), run.origin);
                    return self.machine(at, |_, _, _| effects);
                }
                Err(None) => return,
            }
        }
        self.schedule_pump(at, to);
    }

    /// Sends the next large message that waits for a link.
    fn bulk(&mut self, at: usize, peer: usize, session: u64) {
        let Node { links, disk, .. } = &mut self.nodes[at];
        let Some(link) = links.get_mut(&peer).filter(|link| link.session == session) else { return };
        link.bulking = false;
        let to = link.peer;
        let message = match link.bulk.pop_front() {
            None => return,
            Some(Bulk::Ready(message)) => message,
            Some(Bulk::Later { partitions, read, place }) => {
                let Ok(mut all) = Run::snapshot(disk, &self.plan, &partitions, read) else { return };
                let Some(end) = all.pop() else { return };
                if place < all.len() {
                    link.bulk.push_front(Bulk::Later { partitions, read, place: place + 1 });
                    all.swap_remove(place)
                } else if let Message::SnapshotEnd { read, coverage, .. } = end {
                    Message::SnapshotEnd { read, parts: place as u64, coverage }
                } else {
                    end
                }
            }
        };
        self.send_to(at, to, message);
        self.queue_bulk(at, to, std::iter::empty());
    }

    /// A client sends a sample: mostly a new one, sometimes late, or one that was sent before.
    fn client(&mut self) {
        if self.healing {
            return;
        }
        // Now and then clients rest, so that vectors become equal and rings can be compared.
        let rest = self.dice.chance(20);
        let (least, most) =
            if rest { (SECOND, 3 * SECOND) } else { (self.plan.pause / 4, 2 * self.plan.pause) };
        let pause = self.dice.between(least, most);
        self.after(pause, Event::Client);
        let topic = self.dice.index(self.plan.topics.len());
        let next = self.times[topic];
        let span = 3 * self.plan.topics[topic].keep as u64;
        let (time, twin) = match self.dice.between(0, 99) {
            0..12 => (next - self.dice.between(1, span) as i64, false),
            12..17 => (next - self.dice.between(1, 3) as i64, true),
            17..25 => (next + self.dice.between(0, span) as i64, false),
            _ => (next, false),
        };
        if time < next {
            self.counts.add(if twin { "samples at one time with two values" } else { "samples late" }, 1);
        }
        self.times[topic] = next.max(time + 1);
        let value = time as f64 + if twin { 0.5 } else { 0.0 };
        let sample = self.witness.send(topic, time, value);
        self.counts.add("samples sent", 1);
        let burst = self.dice.chance(150);
        self.offer(sample, value, 0);
        if burst {
            // The same to another node at once: a client that was told nothing and is in a hurry.
            self.offer(sample, value, 0);
        }
    }

    /// A client that was not told that a sample is kept sends it again, to some node.
    fn resend(&mut self, sample: usize, tries: u8) {
        if self.healing || !self.witness.samples[sample].acks.is_empty() {
            return;
        }
        self.counts.add("samples sent again", 1);
        let value = self.witness.samples[sample].values[0];
        self.offer(sample, value, tries + 1);
    }

    fn offer(&mut self, sample: usize, value: f64, tries: u8) {
        if tries < 8 {
            let patience = self.dice.between(100 * MS, 1500 * MS);
            self.after(patience, Event::Resend { sample, tries });
        }
        let now = self.now;
        let alive = |at: &usize| self.nodes[*at].run.is_some() && self.nodes[*at].hangs_until <= now;
        let alive: Vec<_> = (0..self.nodes.len()).filter(alive).collect();
        let Some(at) = self.dice.pick(&alive) else { return };
        let (topic, time) = (self.witness.samples[sample].topic, self.witness.samples[sample].time);
        let clock = self.clock(at);
        let Some(run) = &mut self.nodes[at].run else { return };
        if self.broken == Some(Rule::AppendedAgain) {
            let held = super::disk::column(&run.rings[topic]);
            let same = held.get(&time).filter(|held| held.1.to_bits() == value.to_bits());
            if let Some((stamp, _)) = same {
                let ack = Ack::to_come(now, *stamp, run.rings[topic].cleared());
                return self.witness.acknowledged(sample, ack, 2);
            }
        }
        let heard = run.rings[topic].cleared();
        let stamp = run.append(topic, time, value, clock);
        run.waiting_open.push(Promise::Sample(sample, Ack::to_come(now, stamp, heard)));
        self.witness.taken(sample, stamp, value);
        if heard.is_some_and(|cleared| stamp <= cleared) {
            self.fail(format!("node {at} takes {value} at {time} of series {topic} behind its own clear"));
        }
        self.tell(|| format!("node {at} takes {value} at {time} of series {topic}"));
        self.nudge(at);
    }

    /// Raises the bound of a ring.
    pub(super) fn raise_keep(&mut self, at: usize, topic: usize) {
        let clock = self.clock(at);
        let more = self.dice.between(1, 6) as usize;
        let Some(run) = &mut self.nodes[at].run else { return };
        let keep = run.rings[topic].keep() + more;
        run.raise_keep(topic, keep, &self.plan, clock);
        self.unlike[topic] = true;
        self.counts.add("keep changes", 1);
        self.tell(|| format!("node {at} raises keep of series {topic} to {keep}"));
        self.nudge(at);
    }

    /// Clears the sensor of a series. Afterwards its device may measure from the beginning again.
    pub(super) fn clear(&mut self, at: usize, topic: usize) {
        let clock = self.clock(at);
        let sensor = self.plan.topics[topic].name.sensor.clone();
        let topics: Vec<_> = self.plan.of(&sensor).collect();
        let Some(run) = &mut self.nodes[at].run else { return };
        let held: usize = topics.iter().map(|topic| run.rings[*topic].len()).sum();
        let stamp = run.clear(&sensor, &self.plan, clock);
        let left: usize = topics.iter().map(|topic| run.rings[*topic].len()).sum();
        let number = self.witness.clear(topics.clone(), stamp);
        run.waiting_open.push(Promise::Clear(number, self.now));
        self.counts.add("clears", 1);
        self.counts.add("samples cleared", held as u64);
        self.tell(|| format!("node {at} clears {} with {stamp:?}", sensor.as_str()));
        if left > 0 {
            self.fail(format!("node {at} has cleared {} and still holds {left} samples", sensor.as_str()));
        }
        let again = self.dice.chance(500);
        for topic in topics {
            self.unlike[topic] = true;
            if again {
                self.times[topic] = 1000.max(self.times[topic] - 4 * self.plan.topics[topic].keep as i64);
            }
        }
        self.nudge(at);
    }

    /// What every disk would answer.
    pub(super) fn disks(&mut self) -> Vec<Answer> {
        let mut disks = Vec::new();
        for at in 0..self.nodes.len() {
            match self.nodes[at].disk.recover(&self.plan) {
                Ok(found) => {
                    let (rooms, retained) = (found.rooms, found.retained);
                    disks.push(Answer { rings: found.rings, rooms, retained });
                }
                Err(what) => {
                    self.fail(format!("the disk of node {at} cannot be read: {what}"));
                    let empty = |topic| Said::default().empty_ring(&self.plan, topic);
                    let rings = (0..self.plan.topics.len()).map(empty).collect();
                    disks.push(Answer { rings, ..Answer::default() });
                }
            }
        }
        disks
    }

    /// Whether all nodes are up, linked, idle, and say that they hold the same.
    fn converged(&self) -> Result<(), String> {
        let mut root = None;
        for (at, node) in self.nodes.iter().enumerate() {
            let run = node.run.as_ref().ok_or(format!("node {at} is down"))?;
            if !run.is_idle() || run.replica.is_joining() {
                return Err(format!("node {at} is busy"));
            }
            if node.links.len() + 1 < self.nodes.len() {
                return Err(format!("node {at} lacks links"));
            }
            if !run.replica.is_caught_up() || !run.replica.is_handed_over() {
                return Err(format!("node {at} has not caught up, or handed over"));
            }
            let (held, durable) = (run.replica.held().root(), run.replica.durable().root());
            if held != durable || *root.get_or_insert(held) != held {
                return Err(format!("the vector of node {at} differs"));
            }
            if !run.waiting.is_empty() {
                return Err(format!("node {at} has not acknowledged frames {:?}", run.waiting.keys()));
            }
        }
        Ok(())
    }

    /// Whether no vector has more closed origins than it may.
    fn is_tidy(&self) -> Result<(), String> {
        let first = self.nodes.iter().min_by_key(|node| node.disk.node);
        match first.and_then(|node| node.run.as_ref()) {
            Some(run) if !run.replica.is_tidy() => Err(format!("{} has much to fold", run.origin)),
            _ => Ok(()),
        }
    }

    /// Whether the disks would answer as memory does, where no scrub and no broken snapshot has added to memory.
    fn compare_disks(&mut self) -> Result<(), String> {
        if self.broken_off || self.counts.get("scrub merges") > 0 {
            return Ok(());
        }
        let disks = self.disks();
        for (at, disk) in disks.iter().enumerate() {
            let Some(run) = &self.nodes[at].run else { continue };
            let differs = |topic: &usize| !self.unlike[*topic] && run.rings[*topic] != disk.rings[*topic];
            if let Some(topic) = (0..disk.rings.len()).find(differs) {
                let (memory, disk) =
                    (super::disk::column(&run.rings[topic]), super::disk::column(&disk.rings[topic]));
                return Err(format!("node {at}, series {topic}: memory has {memory:?}, the disk {disk:?}"));
            }
            if run.rooms != disk.rooms {
                return Err(format!("node {at}: memory has {:?}, the disk {:?}", run.rooms, disk.rooms));
            }
            if run.retained != disk.retained {
                let (memory, disk) = (&run.retained, &disk.retained);
                return Err(format!("node {at}: memory has {memory:?}, the disk {disk:?}"));
            }
        }
        Ok(())
    }

    /// Whether all rings are equal.
    fn compare_rings(&self) -> Result<(), String> {
        let rings: Vec<_> =
            self.nodes.iter().filter_map(|node| node.run.as_ref()).map(|run| &run.rings).collect();
        for (at, others) in rings.iter().enumerate() {
            for (topic, (ours, first)) in others.iter().zip(rings[0]).enumerate() {
                if ours != first {
                    let (ours, first) = (super::disk::column(ours), super::disk::column(first));
                    return Err(format!(
                        "series {topic} differs after a scrub: node {at} has {ours:?}, node 0 {first:?}"
                    ));
                }
            }
        }
        Ok(())
    }
}

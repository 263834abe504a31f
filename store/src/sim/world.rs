//! The world of one run: its nodes, what is to happen next, and the loop that lets it happen.

use std::collections::{BTreeMap, VecDeque};

use super::dice::Dice;
use super::disk::Disk;
use super::history::History;
use super::network::{Cut, Link};
use super::node::Run;
use super::plan::{MS, Plan, SECOND};
use super::witness::Witness;
use super::{Counts, Outcome, Rule};
use crate::model::ids::{NodeId, Origin, Partition};
use crate::replica::message::Message;

mod agreement;
mod clients;
mod messages;
mod runs;

/// Replicas compare vectors this often.
const TICK: u64 = 2 * SECOND;
/// After the last fault, all must be equal within this time.
const HEALED_WITHIN: u64 = 60 * SECOND;
/// Time for one round of scrubs.
const SCRUBBED_WITHIN: u64 = 5 * SECOND;
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
}

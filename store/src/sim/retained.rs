//! Retained messages in the simulation: clients set and remove them on whichever node there is. What they were told is kept
//! must hold on every node at the end, unless something later took its place; and nothing is there that nobody sent, or
//! that somebody removed.

use bytes::Bytes;

use super::Counts;
use super::node::Promise;
use super::plan::MS;
use super::world::{Event, World};
use crate::model::time::SampleTime;
use crate::registry::TopicOperation;
use crate::registry::retained::{Kept, Retained};

/// Topics of a run.
const TOPICS: usize = 4;

/// Something that was sent, and is one operation.
#[derive(Debug)]
struct Keeping {
    operation: TopicOperation,
    /// When its node took it, and on how many disks it was when that was told.
    acked: Option<(u64, u8)>,
    /// The one disk that had it was lost.
    excused: bool,
}

impl Keeping {
    fn is_owed(&self) -> bool {
        self.acked.is_some() && !self.excused
    }
}

/// All that was retained and removed.
#[derive(Debug, Default)]
pub(super) struct Keepings(Vec<Keeping>);

/// Whether a disk has what was done, or something later.
fn is_on(operation: &TopicOperation, retained: &Retained) -> bool {
    retained.marker(&operation.topic) >= Some(operation.stamp)
}

impl Keepings {
    /// A node does something; returns the number of it.
    fn ask(&mut self, operation: TopicOperation) -> usize {
        self.0.push(Keeping { operation, acked: None, excused: false });
        self.0.len() - 1
    }

    /// It was told that it is kept.
    pub(super) fn acknowledged(&mut self, number: usize, made: u64, copies: u8) {
        self.0[number].acked = Some((made, copies));
    }

    /// Whether all that was told before `at` is on two of these disks.
    pub(super) fn are_twice(&self, at: u64, disks: &[&Retained]) -> bool {
        self.0.iter().all(|keeping| {
            let due = !keeping.excused && keeping.acked.is_some_and(|(made, _)| made <= at);
            !due || disks.iter().filter(|retained| is_on(&keeping.operation, retained)).count() >= 2
        })
    }

    /// A disk was lost: what was on that one alone is excused.
    pub(super) fn lost(&mut self, disks: &[&Retained]) {
        for keeping in &mut self.0 {
            let weak = keeping.acked.is_some_and(|(_, copies)| copies < 2);
            keeping.excused |= weak && !disks.iter().any(|retained| is_on(&keeping.operation, retained));
        }
    }

    /// Adds what was acknowledged.
    pub(super) fn figures(&self, counts: &mut Counts) {
        counts.add("retained messages", self.0.len() as u64);
        let removed = self.0.iter().filter(|keeping| keeping.operation.kept.is_none());
        counts.add("retained messages removed", removed.count() as u64);
        let owed = self.0.iter().filter(|keeping| keeping.is_owed());
        counts.add("retained messages acknowledged", owed.count() as u64);
    }

    /// What is missing, or is there and should not be.
    pub(super) fn judge(&self, retained: &Retained) -> Result<(), String> {
        for keeping in self.0.iter().filter(|keeping| keeping.is_owed()) {
            let marker = retained.marker(&keeping.operation.topic);
            // A removal that is forgotten does no harm by itself.
            let lasts =
                marker.map_or(keeping.operation.kept.is_none(), |marker| marker >= keeping.operation.stamp);
            if !lasts {
                return Err(format!("{keeping:?} was acknowledged, and {marker:?} is there"));
            }
        }
        for (topic, kept) in retained.iter() {
            let marker = retained.marker(topic);
            let mut sent = self.0.iter().map(|keeping| &keeping.operation);
            let asked = |one: &TopicOperation| {
                *one.topic == *topic && Some(one.stamp) == marker && one.kept.as_ref() == Some(kept)
            };
            if !sent.any(asked) {
                return Err(format!("topic {topic} has {kept:?}, which nobody sent"));
            }
        }
        Ok(())
    }
}

impl World {
    /// A client retains a message, or removes one, on some node.
    pub(super) fn retain(&mut self) {
        if self.healing {
            return;
        }
        let next = self.retained_dice.between(20 * MS, 700 * MS);
        self.after(next, Event::Retained);
        let at = self.retained_dice.index(self.nodes.len());
        if self.nodes[at].hangs_until > self.now {
            return;
        }
        let clock = self.clock(at);
        let topic = format!("topic/{}", self.retained_dice.index(TOPICS));
        let text = self.retained_dice.word().to_le_bytes();
        let message = (self.retained_dice.index(3) > 0).then(|| Bytes::copy_from_slice(&text));
        let Some(run) = &mut self.nodes[at].run else { return };
        let kept = message.map(|message| Kept { message, expires: None });
        let judged =
            run.change_retained(clock, |retained, asked| retained.set(&topic, kept, asked, SampleTime(0)));
        match judged {
            Ok(operations) => {
                for operation in operations {
                    self.tell(|| format!("node {at}: {operation:?}"));
                    let number = self.witness.retained.ask(operation);
                    if let Some(run) = &mut self.nodes[at].run {
                        run.waiting_open.push(Promise::Retained(number, self.now));
                    }
                }
                self.nudge(at);
            }
            Err(error) => self.fail(format!("node {at} refuses: {error}")),
        }
    }

    /// Whether all nodes hold the same.
    pub(super) fn compare_retained(&self) -> Result<(), String> {
        let runs: Vec<_> = self.nodes.iter().filter_map(|node| node.run.as_ref()).collect();
        for (at, run) in runs.iter().enumerate() {
            if run.retained != runs[0].retained {
                let (ours, first) = (&run.retained, &runs[0].retained);
                return Err(format!("retained differ: node {at} has {ours:?}, node 0 {first:?}"));
            }
        }
        Ok(())
    }
}

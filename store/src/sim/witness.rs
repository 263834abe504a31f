//! The witness: what clients were told, and what must therefore be on every node at the end. It trusts no counter of
//! the replicas.
//!
//! What may be lost honestly: a sample acknowledged with one copy, when the disk that had it is lost; a clear likewise.
//! A second disk is lost only when all that was acknowledged and taken before the first loss is on two disks again.
//!
//! What was acknowledged is not owed when a clear is newer than it. It may also be missing when its node had not heard
//! of the clear, and what was cleared had filled the ring: it was too old for that ring when it came. If only a peer
//! had not heard of it, it was on one disk, whatever was told. When that disk is lost, what another node took of the same
//! sample is left, with what that node had heard.

use std::collections::{BTreeMap, BTreeSet};

use super::Counts;
use super::disk::Answer;
use super::plan::Plan;
use super::retained::Keepings;
use super::rooms::Askings;
use crate::clock::Stamp;
use crate::ring::Ring;

/// An acknowledgement of a sample.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ack {
    /// When the node took it.
    taken: u64,
    /// On how many disks it was.
    copies: u8,
    stamp: Stamp,
    /// The newest clear that its node had heard of.
    heard: Option<Stamp>,
    /// The one disk that had it was lost.
    excused: bool,
    /// Disks have it as it was taken before alone, with an earlier stamp: an earlier clear takes that away.
    faded: bool,
    /// The one disk that had it as it was acknowledged was lost: what is left of it another node took.
    of_another: bool,
}

impl Ack {
    /// To come, for a sample that is taken now, with this stamp.
    pub(super) fn to_come(taken: u64, stamp: Stamp, heard: Option<Stamp>) -> Self {
        Self { taken, copies: 0, stamp, heard, excused: false, faded: false, of_another: false }
    }
}

/// A sample that clients sent, perhaps several times.
#[derive(Debug, Clone)]
pub(super) struct Sent {
    pub topic: usize,
    pub time: i64,
    /// Usually one; clients that differ are told apart by the stamps.
    pub values: Vec<f64>,
    /// What it was taken as, each time that a node took it.
    taken: Vec<(Stamp, f64)>,
    pub acks: Vec<Ack>,
}

/// A clear of a sensor.
#[derive(Debug)]
struct Clear {
    topics: Vec<usize>,
    stamp: Stamp,
    /// When its node made it, and most copies told.
    acked: Option<(u64, u8)>,
    excused: bool,
}

/// All that was sent.
#[derive(Debug, Default)]
pub(super) struct Witness {
    pub samples: Vec<Sent>,
    by_time: BTreeMap<(usize, i64), usize>,
    clears: Vec<Clear>,
    pub rooms: Askings,
    pub retained: Keepings,
    lost_disk_at: Option<u64>,
}

/// Whether a ring holds what was acknowledged, or newer ones took its place, which `clear` does not take away; or it was
/// cleared.
fn is_kept(plan: &Plan, ring: &Ring, sample: &Sent, ack: &Ack, clear: Option<Stamp>) -> bool {
    let time = crate::SampleTime(sample.time);
    let at = ring.position(time);
    let is_there = at < ring.len() && ring.time(at) == time;
    let stamps = ring.copy_stamps(at..ring.len());
    let lasts = |stamp: &&Stamp| Some(**stamp) > clear;
    // Whatever the bound was raised to, the newest as many as the least bound can never have been evicted.
    is_there && stamps.iter().take(1).all(|stamp| lasts(&stamp))
        || stamps.iter().filter(lasts).count() >= plan.topics[sample.topic].keep
        || ring.cleared().is_some_and(|cleared| ack.stamp <= cleared)
}

/// The stamp of the sample at a time.
fn stamp_at(ring: &Ring, time: crate::SampleTime) -> Option<Stamp> {
    let at = ring.position(time);
    let is_there = at < ring.len() && ring.time(at) == time;
    is_there.then(|| ring.copy_stamps(at..at + 1).into_iter().next()).flatten()
}

impl Clear {
    fn is_kept(&self, rings: &[Ring]) -> bool {
        self.topics.iter().all(|topic| rings[*topic].cleared() >= Some(self.stamp))
    }
}

impl Witness {
    /// A client is about to send a sample; returns its number.
    pub(super) fn send(&mut self, topic: usize, time: i64, value: f64) -> usize {
        let fresh = self.samples.len();
        let number = *self.by_time.entry((topic, time)).or_insert(fresh);
        if number == fresh {
            let (taken, acks) = (Vec::new(), Vec::new());
            self.samples.push(Sent { topic, time, values: vec![value], taken, acks });
        } else if !self.samples[number].values.contains(&value) {
            self.samples[number].values.push(value);
        }
        number
    }

    /// A node took a sample.
    pub(super) fn taken(&mut self, number: usize, stamp: Stamp, value: f64) {
        self.samples[number].taken.push((stamp, value));
    }

    /// A node acknowledged a sample with so many copies.
    pub(super) fn acknowledged(&mut self, number: usize, ack: Ack, copies: u8) {
        self.samples[number].acks.push(Ack { copies, ..ack });
    }

    /// A node clears the sensor of these series; returns the number of the clear.
    pub(super) fn clear(&mut self, topics: Vec<usize>, stamp: Stamp) -> usize {
        self.clears.push(Clear { topics, stamp, acked: None, excused: false });
        self.clears.len() - 1
    }

    /// A node acknowledged a clear that it made at `made`.
    pub(super) fn clear_acknowledged(&mut self, number: usize, made: u64, copies: u8) {
        self.clears[number].acked = Some((made, copies));
    }

    /// Whether one more disk may be lost: what was taken before the last loss is on two disks again. `disks` are the
    /// rings that each disk has.
    pub(super) fn may_lose(&self, plan: &Plan, disks: &[Answer]) -> bool {
        let Some(at) = self.lost_disk_at else { return true };
        let sample_twice = |sample: &Sent, ack: &Ack| {
            let clear = self.newest_clear(sample.topic);
            disks.iter().filter(|disk| is_kept(plan, &disk.rings[sample.topic], sample, ack, clear)).count()
                >= 2
        };
        let clear_twice = |clear: &Clear| disks.iter().filter(|disk| clear.is_kept(&disk.rings)).count() >= 2;
        let due = |ack: &&Ack| !ack.excused && ack.taken <= at;
        self.samples.iter().all(|sample| sample.acks.iter().filter(due).all(|ack| sample_twice(sample, ack)))
            && self.clears.iter().all(|clear| {
                let due = !clear.excused && clear.acked.is_some_and(|(made, _)| made <= at);
                !due || clear_twice(clear)
            })
            && self.rooms.are_twice(at, &disks.iter().map(|disk| &disk.rooms).collect::<Vec<_>>())
            && self.retained.are_twice(at, &disks.iter().map(|disk| &disk.retained).collect::<Vec<_>>())
    }

    /// A disk was lost, or set back; `disks` are the rings that each disk has now.
    pub(super) fn lost(&mut self, plan: &Plan, disks: &[Answer], now: u64) {
        self.lost_disk_at = Some(now);
        for number in 0..self.samples.len() {
            let sample = &self.samples[number];
            let clear = self.newest_clear(sample.topic);
            let somewhere = |ack: &Ack, clear| {
                disks.iter().any(|disk| is_kept(plan, &disk.rings[sample.topic], sample, ack, clear))
            };
            // Of two copies one may be a disk where it is too old for what is about to be cleared there.
            let excused = |ack: &Ack| !somewhere(ack, clear) && (ack.copies < 2 || somewhere(ack, None));
            let time = crate::SampleTime(sample.time);
            let stamps: Vec<_> =
                disks.iter().filter_map(|disk| stamp_at(&disk.rings[sample.topic], time)).collect();
            let faded = |ack: &Ack| !stamps.iter().any(|stamp| *stamp >= ack.stamp);
            let of_another = |ack: &Ack| ack.copies < 2 && !stamps.contains(&ack.stamp);
            let mark = |ack: &Ack| (excused(ack), faded(ack), of_another(ack));
            let marks: Vec<_> = sample.acks.iter().map(mark).collect();
            for (ack, (excused, faded, of_another)) in self.samples[number].acks.iter_mut().zip(marks) {
                ack.excused |= excused;
                ack.faded |= faded;
                ack.of_another |= of_another;
            }
        }
        for clear in &mut self.clears {
            let weak = clear.acked.is_some_and(|(_, copies)| copies < 2);
            clear.excused |= weak && !disks.iter().any(|disk| clear.is_kept(&disk.rings));
        }
        self.rooms.lost(&disks.iter().map(|disk| &disk.rooms).collect::<Vec<_>>());
        self.retained.lost(&disks.iter().map(|disk| &disk.retained).collect::<Vec<_>>());
    }

    /// Adds what was acknowledged, and what of it was lost honestly.
    pub(super) fn figures(&self, counts: &mut Counts) {
        let count =
            |wanted: fn(&Sent) -> bool| self.samples.iter().filter(|sample| wanted(sample)).count() as u64;
        counts.add("samples acknowledged", count(|sample| !sample.acks.is_empty()));
        counts.add("excused samples", count(|sample| sample.acks.iter().any(|ack| ack.excused)));
        let cleared = self.clears.iter().filter(|clear| clear.acked.is_some()).count();
        counts.add("clears acknowledged", cleared as u64);
        self.rooms.figures(counts);
        self.retained.figures(counts);
        counts.add("excused clears", self.clears.iter().filter(|clear| clear.excused).count() as u64);
    }

    /// What is missing at the end, or is there and should not be.
    pub(super) fn judge(&self, plan: &Plan, answer: &Answer, counts: &mut Counts) -> Result<(), String> {
        let rings = &answer.rings;
        self.judge_rings(rings)?;
        self.rooms.judge(&answer.rooms)?;
        self.retained.judge(&answer.retained)?;
        for clear in self.clears.iter().filter(|clear| clear.acked.is_some() && !clear.excused) {
            if !clear.is_kept(rings) {
                return Err(format!("{clear:?} was acknowledged and is gone"));
            }
        }
        for sample in &self.samples {
            for ack in sample.acks.iter().filter(|ack| !ack.excused) {
                let (topic, time, ring) = (sample.topic, sample.time, &rings[sample.topic]);
                let was_cleared = ack.faded && ring.cleared().is_some();
                if was_cleared || is_kept(plan, ring, sample, ack, ring.cleared()) {
                    continue;
                }
                let heard = ack.heard >= ring.cleared() && !ack.of_another;
                if heard || !self.was_too_old(plan, ring, sample) {
                    return Err(format!(
                        "sample {time} of series {topic} was acknowledged ({ack:?}) and is gone"
                    ));
                }
                counts.add("samples too old for what was cleared", 1);
            }
        }
        Ok(())
    }

    /// What is there, and was never sent, or was cleared.
    fn judge_rings(&self, rings: &[Ring]) -> Result<(), String> {
        for (topic, ring) in rings.iter().enumerate() {
            let made =
                |stamp| self.clears.iter().any(|clear| clear.stamp == stamp && clear.topics.contains(&topic));
            if ring.cleared().is_some_and(|cleared| !made(cleared)) {
                return Err(format!("series {topic} has a clear that nobody made"));
            }
            for (time, (stamp, value)) in super::disk::column(ring) {
                let sent = self.by_time.get(&(topic, time)).map(|number| &self.samples[*number]);
                if !sent.is_some_and(|sent| sent.taken.contains(&(stamp, value))) {
                    return Err(format!("series {topic} has {value} at {time}, which nobody sent"));
                }
                let clears = self.clears.iter().filter(|clear| clear.acked.is_some() && !clear.excused);
                let mut newer = clears.filter(|clear| clear.topics.contains(&topic) && stamp <= clear.stamp);
                if let Some(clear) = newer.next() {
                    return Err(format!("series {topic} has {value} at {time}, in spite of {clear:?}"));
                }
            }
        }
        Ok(())
    }

    fn newest_clear(&self, topic: usize) -> Option<Stamp> {
        self.clears.iter().filter(|clear| clear.topics.contains(&topic)).map(|clear| clear.stamp).max()
    }

    /// Whether a ring could be full of newer samples, some of which were cleared, when this one came.
    fn was_too_old(&self, plan: &Plan, ring: &Ring, sample: &Sent) -> bool {
        let topic = sample.topic;
        let newer = self.by_time.range((topic, sample.time + 1)..=(topic, i64::MAX));
        let cleared = |sent: &&Sent| sent.taken.iter().any(|(stamp, _)| Some(*stamp) <= ring.cleared());
        let cleared = newer.map(|(_, number)| &self.samples[*number]).filter(cleared).map(|sent| sent.time);
        let held =
            (ring.position(crate::SampleTime(sample.time))..ring.len()).map(|index| ring.time(index).0);
        cleared.chain(held).collect::<BTreeSet<_>>().len() >= plan.topics[topic].keep
    }
}

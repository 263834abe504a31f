//! The witness: what clients were told, and what must therefore be on every node at the end. It trusts no counter of
//! the replicas.
//!
//! What may be lost honestly: a sample acknowledged with one copy, when the disk that had it is lost. A second disk is
//! lost only when all that was acknowledged and taken before the first loss is on two disks again.

use std::collections::BTreeMap;

use super::plan::Plan;
use crate::ring::Ring;

/// A sample that clients sent, perhaps several times.
#[derive(Debug, Clone)]
pub(super) struct Sent {
    pub topic: usize,
    pub time: i64,
    /// Usually one; clients that differ are told apart by the stamps.
    pub values: Vec<f64>,
    /// Acknowledged: when the node took what was acknowledged, and most copies told.
    pub acked: Option<(u64, u8)>,
    /// It was acknowledged with one copy, and that was lost.
    excused: bool,
}

/// All that was sent.
#[derive(Debug, Default)]
pub(super) struct Witness {
    pub samples: Vec<Sent>,
    by_time: BTreeMap<(usize, i64), usize>,
    lost_disk_at: Option<u64>,
}

/// Whether a ring holds a sample, or newer ones took its place.
fn is_kept(plan: &Plan, ring: &Ring, sample: &Sent) -> bool {
    let time = crate::SampleTime(sample.time);
    let at = ring.position(time);
    let held = at < ring.len() && ring.time(at) == time;
    // Whatever the bound was raised to, the newest as many as the least bound can never have been evicted.
    held || ring.len() - at >= plan.topics[sample.topic].keep
}

impl Witness {
    /// A client is about to send a sample; returns its number.
    pub(super) fn send(&mut self, topic: usize, time: i64, value: f64) -> usize {
        let fresh = self.samples.len();
        let number = *self.by_time.entry((topic, time)).or_insert(fresh);
        if number == fresh {
            self.samples.push(Sent { topic, time, values: vec![value], acked: None, excused: false });
        } else if !self.samples[number].values.contains(&value) {
            self.samples[number].values.push(value);
        }
        number
    }

    /// A node acknowledged a sample that it took at `taken`.
    pub(super) fn acknowledged(&mut self, number: usize, taken: u64, copies: u8) {
        let sample = &mut self.samples[number];
        let before = sample.acked.unwrap_or((u64::MAX, 0));
        // The strongest promise counts, and of these the oldest.
        sample.acked = Some(match copies.min(2).cmp(&before.1) {
            std::cmp::Ordering::Greater => (taken, copies.min(2)),
            std::cmp::Ordering::Equal => (taken.min(before.0), before.1),
            std::cmp::Ordering::Less => before,
        });
        // Whoever acknowledges has it on its disk.
        sample.excused = false;
    }

    /// Whether one more disk may be lost: what was taken before the last loss is on two disks again. `disks` are the
    /// rings that each disk has.
    pub(super) fn may_lose(&self, plan: &Plan, disks: &[Vec<Ring>]) -> bool {
        let Some(at) = self.lost_disk_at else { return true };
        let mut acked = self.samples.iter().filter(|sample| !sample.excused);
        acked.all(|sample| {
            sample.acked.is_none_or(|(taken, _)| taken > at)
                || disks.iter().filter(|rings| is_kept(plan, &rings[sample.topic], sample)).count() >= 2
        })
    }

    /// A disk was lost, or set back; `disks` are the rings that each disk has now.
    pub(super) fn lost(&mut self, plan: &Plan, disks: &[Vec<Ring>], now: u64) {
        self.lost_disk_at = Some(now);
        for sample in &mut self.samples {
            let weak = sample.acked.is_some_and(|(_, copies)| copies < 2);
            let gone = || !disks.iter().any(|rings| is_kept(plan, &rings[sample.topic], sample));
            sample.excused |= weak && gone();
        }
    }

    /// Samples acknowledged, and those of them that were lost honestly.
    pub(super) fn figures(&self) -> (u64, u64) {
        let acked = self.samples.iter().filter(|sample| sample.acked.is_some()).count();
        (acked as u64, self.samples.iter().filter(|sample| sample.excused).count() as u64)
    }

    /// What is missing at the end, or was never sent.
    pub(super) fn judge(&self, plan: &Plan, rings: &[Ring]) -> Result<(), String> {
        for sample in &self.samples {
            let (topic, time) = (sample.topic, sample.time);
            if sample.acked.is_some() && !sample.excused && !is_kept(plan, &rings[topic], sample) {
                let acked = sample.acked;
                return Err(format!(
                    "sample {time} of series {topic} was acknowledged ({acked:?}) and is gone"
                ));
            }
        }
        for (topic, ring) in rings.iter().enumerate() {
            for (time, (_, value)) in super::disk::column(ring) {
                let sent = self.by_time.get(&(topic, time)).map(|number| &self.samples[*number]);
                if !sent.is_some_and(|sent| sent.values.contains(&value)) {
                    return Err(format!("series {topic} has {value} at {time}, which nobody sent"));
                }
            }
        }
        Ok(())
    }
}

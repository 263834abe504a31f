//! What a node makes durable: frames that are sealed, commits of all that is, checkpoints slice by slice.

use bytes::Bytes;

use super::super::Rule;
use super::super::disk::{Disk, Sealed, Transaction, column, decode};
use super::super::plan::Plan;
use super::{Mark, Open, Run};
use crate::replica::fold::Fold;
use crate::replica::frame::{FrameWriter, REGISTRY};
use crate::replica::message::Coverage;
use crate::replica::state::{Effect, Taken};
use crate::replica::version::VersionVector;

/// Series that one commit of a checkpoint takes.
const SLICE: usize = 2;

/// A checkpoint that is being written.
#[derive(Debug)]
pub(super) struct Checkpoint {
    /// The first commit whose frames stay.
    first: u64,
    left: Vec<usize>,
    coverage: Option<Coverage>,
}

/// A commit that is on its way to the disk.
#[derive(Debug)]
pub(super) struct Committing {
    pub(super) transaction: Transaction,
    marks: Vec<Mark>,
    adopted: Option<Coverage>,
    folded: Option<Fold>,
}

impl Run {
    /// Whether the next commit has something to do.
    pub(in crate::sim) fn has_work(&self) -> bool {
        self.committing.is_none()
            && (!self.open.is_empty()
                || !self.sealed.is_empty()
                || !self.operations.is_empty()
                || !self.taken.is_empty()
                || self.checkpoint.is_some()
                || self.adopting.is_some()
                || self.folding.is_some())
    }

    /// Whether nothing is on its way to the disk.
    pub(in crate::sim) fn is_idle(&self) -> bool {
        !self.has_work() && self.committing.is_none()
    }

    /// Whether a commit is on its way.
    pub(in crate::sim) fn is_committing(&self) -> bool {
        self.committing.is_some()
    }

    /// Begins a checkpoint, unless one is being written.
    pub(in crate::sim) fn begin_checkpoint(&mut self, disk: &mut Disk) {
        if self.checkpoint.is_some() {
            return;
        }
        let coverage = self.adopting.take();
        self.checkpoint =
            Some(Checkpoint { first: self.next_commit, left: (0..self.rings.len()).collect(), coverage });
        if self.broken == Some(Rule::ChunksOfDurable) {
            disk.series.extend(&self.series);
            disk.chunks.extend(self.rings.iter().map(column).enumerate());
        }
    }

    /// A snapshot is here whole: it counts after the checkpoint that begins now.
    pub(in crate::sim) fn adopt(&mut self, coverage: Coverage, disk: &mut Disk) -> Vec<Effect> {
        if self.broken == Some(Rule::SnapshotWhenDurable) {
            coverage.marks().for_each(|(partition, origin, last)| {
                disk.versions.advance(partition, origin, last);
            });
            return self.replica.adopted(&coverage);
        }
        self.adopting = Some(coverage);
        self.begin_checkpoint(disk);
        Vec::new()
    }

    /// Origins are folded: that counts with the next commit.
    pub(in crate::sim) fn fold(&mut self, fold: Fold) -> Vec<Effect> {
        self.folding = Some(fold);
        Vec::new()
    }

    /// Seals what is open, and what came from others.
    pub(in crate::sim) fn seal(&mut self, plan: &Plan) -> Vec<Effect> {
        let number = self.next_commit;
        self.next_commit += 1;
        let mut marks = Vec::new();
        let own = self.own_frame(number, plan, &mut marks);
        let mut effects = Vec::new();
        if let Some(frame) = &own {
            self.made.push(frame.clone());
            self.waiting.insert(number, std::mem::take(&mut self.waiting_open));
            effects = self.replica.sealed(number);
        }
        let taken = std::mem::take(&mut self.taken);
        marks.extend(taken.iter().flat_map(Taken::marks));
        let logged = taken.into_iter().filter(|taken| !taken.bytes.is_empty());
        let taken = logged.map(|taken| (taken.frame.is_some(), taken.bytes)).collect();
        self.marks.extend(marks);
        self.sealed.push(Sealed { number, own, taken });
        effects
    }

    /// Seals, and starts a commit of all that is sealed.
    pub(in crate::sim) fn commit(&mut self, disk: &mut Disk, plan: &Plan) -> Vec<Effect> {
        if self.checkpoint.is_none() && self.adopting.is_some() {
            self.begin_checkpoint(disk);
        }
        let effects = self.seal(plan);
        let (sealed, marks) = (std::mem::take(&mut self.sealed), std::mem::take(&mut self.marks));
        let mut transaction = Transaction { sealed, ..Transaction::default() };
        let adopted = self.slice(disk, plan, &marks, &mut transaction);
        if let Some(fold) = &self.folding {
            transaction.versions.get_or_insert_with(|| (self.versions(&marks), 0));
            if self.broken != Some(Rule::FoldedInLog) {
                transaction.folded.clone_from(&fold.origins);
            }
        }
        let folded = self.folding.take();
        self.committing = Some(Committing { transaction, marks, adopted, folded });
        effects
    }

    /// The frame of what is open, if anything is.
    fn own_frame(&mut self, number: u64, plan: &Plan, marks: &mut Vec<Mark>) -> Option<Bytes> {
        let (open, operations) = (std::mem::take(&mut self.open), std::mem::take(&mut self.operations));
        if open.is_empty() && operations.is_empty() {
            return None;
        }
        let mut frame = FrameWriter::new(self.origin, number);
        if !operations.is_empty() {
            let block = self.replica.next_block(REGISTRY);
            marks.push((REGISTRY, self.origin, block));
            frame.registry(block, &operations);
        }
        for partition in plan.partitions() {
            let (mut names, mut runs) = (Vec::new(), Vec::new());
            let here = open.iter().filter(|(topic, _)| plan.topics[**topic].partition == partition);
            for (topic, Open { ended, run }) in here {
                if !self.named.contains(topic) {
                    names.push(plan.topics[*topic].name.clone());
                    // A clear asks for the names again, with samples that are newer than it.
                    if !run.is_empty() {
                        self.named.insert(*topic);
                    }
                }
                self.next_stamps.insert(*topic, run.next_stamp());
                runs.extend_from_slice(ended);
                run.finish(plan.topics[*topic].id, &mut runs);
            }
            if !runs.is_empty() {
                let block = self.replica.next_block(partition);
                marks.push((partition, self.origin, block));
                frame.samples(partition, block, &names, &runs);
            }
        }
        Some(frame.finish().into())
    }

    /// Adds a slice of the checkpoint to a transaction; returns what it makes count.
    fn slice(
        &mut self,
        disk: &mut Disk,
        plan: &Plan,
        marks: &[Mark],
        transaction: &mut Transaction,
    ) -> Option<Coverage> {
        let checkpoint = self.checkpoint.as_mut()?;
        if self.broken == Some(Rule::VersionsBehindLog) {
            disk.versions = self.replica.held().clone();
        }
        for topic in checkpoint.left.drain(..SLICE.min(checkpoint.left.len())) {
            transaction.chunks.push((topic, column(&self.rings[topic])));
            // What a clear took from a ring goes with the clear.
            transaction.said.extend(self.said.of(plan, &plan.topics[topic].name.sensor));
        }
        transaction.series.clone_from(&self.series);
        if !checkpoint.left.is_empty() {
            return None;
        }
        let Checkpoint { first, coverage, .. } = self.checkpoint.take()?;
        transaction.said.clone_from(&self.said);
        transaction.rooms = Some(self.rooms.clone());
        transaction.retained = Some(self.retained.clone());
        let mut versions = self.versions(marks);
        for (partition, origin, last) in coverage.iter().flat_map(Coverage::marks) {
            versions.advance(partition, origin, last);
        }
        transaction.versions = Some((versions, first));
        coverage
    }

    /// What is durable with the commit that begins.
    fn versions(&self, marks: &[Mark]) -> VersionVector {
        let mut versions = self.replica.durable().clone();
        self.folding.iter().for_each(|fold| drop(versions.fold(fold)));
        for (partition, origin, last) in marks.iter().copied() {
            versions.advance(partition, origin, last);
        }
        versions
    }

    /// The commit is on the disk.
    pub(in crate::sim) fn committed(&mut self, disk: &mut Disk) -> Vec<Effect> {
        let Some(committing) = self.committing.take() else { return Vec::new() };
        let Committing { transaction, marks, adopted, folded } = committing;
        let own = transaction.sealed.iter().rev().find(|sealed| sealed.own.is_some());
        let own = own.map(|sealed| sealed.number);
        if let Some((_, first)) = transaction.versions.as_ref() {
            let own = disk.log.range(..(*first, 0)).filter(|((_, index), _)| *index == 0);
            let mine =
                own.filter(|(_, (_, record))| decode(record).is_ok_and(|frame| frame.origin == self.origin));
            // Frames of this very commit may be trimmed with it.
            let fresh =
                transaction.sealed.iter().filter(|sealed| sealed.number < *first && sealed.own.is_some());
            let gone = mine.map(|(key, _)| key.0).chain(fresh.map(|sealed| sealed.number)).max();
            self.floor = gone.unwrap_or(0).max(self.floor);
        }
        disk.apply(transaction);
        if self.broken == Some(Rule::ChunksDeletedByDurable) {
            for (topic, column) in &mut disk.chunks {
                if let Some(first) = self.rings[*topic].first() {
                    column.retain(|time, _| *time >= first.0);
                }
            }
        }
        let mut effects = self.replica.committed(own, marks);
        if let Some(fold) = folded {
            effects.extend(self.replica.folded(&fold));
        }
        if let Some(coverage) = adopted {
            effects.extend(self.replica.adopted(&coverage));
        }
        effects
    }

    /// The transaction as the disk would have it, when the node is killed right after the sync.
    pub(in crate::sim) fn synced(&mut self, disk: &mut Disk) {
        if let Some(committing) = self.committing.take() {
            disk.apply(committing.transaction);
        }
    }
}

//! Sealing: what has gathered becomes a frame, is offered to the peers, and waits for the log.
//!
//! The committer seals when a commit begins. While it is busy, the sealer does, so that neither peers nor viewers on
//! other nodes wait for the disk of this one. Invariants: frames are sealed one at a time and wait in the order of their
//! numbers; what had gathered before [`Shared::seal_last`] is in what that returns.
//!
//! Bound: what is sealed counts as waiting in the group until a commit takes it.

use std::sync::Arc;

use bytes::Bytes;

use crate::disk::commit::Shared;
use crate::disk::tables::{LogKey, OWN, place};
use crate::error::Failed;
use crate::group::{Gathered, Logged, Wake};
use crate::model::ids::{Origin, Partition};
use crate::replica::frame::{FrameWriter, Name, REGISTRY};
use crate::replica::state::Replica;
use crate::series::{OpenRun, Series};

/// The last block that is held of an origin in a partition.
pub(crate) type Mark = (Partition, Origin, u64);

/// What waits for a commit: a frame, and what came from others before it was sealed.
#[derive(Debug)]
pub(crate) struct Sealed {
    /// Its number, and that of the frame, which is `None` when there was nothing to put into one.
    pub number: u64,
    pub frame: Option<Bytes>,
    pub taken: Vec<Logged>,
    /// What is held with it.
    pub marks: Vec<Mark>,
    /// Bytes that it gives back to the group.
    pub bytes: usize,
}

impl Sealed {
    /// What the log gets.
    pub(crate) fn records(&self) -> impl Iterator<Item = (LogKey, &[u8])> {
        let own = self.frame.iter().map(|frame| ((self.number, OWN), &frame[..]));
        let taken = self.taken.iter().filter(|taken| !taken.bytes.is_empty()).zip(1..);
        own.chain(taken.map(|(taken, index)| ((self.number, place(index, taken.whole)), &taken.bytes[..])))
    }
}

/// Seals between commits.
pub(crate) struct Sealer(pub Arc<Shared>);

impl Sealer {
    /// Runs until the group closes or fails.
    pub(crate) fn run(self) {
        let shared = self.0;
        let between = || {
            while shared.group.wait_between() == Wake::Work {
                shared.seal();
            }
        };
        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(between)).is_err() {
            tracing::error!("a frame could not be written; nothing more is acknowledged, restart the node");
            shared.fail(&Failed("a frame could not be written".into()));
        }
    }
}

impl Shared {
    /// Seals what has gathered.
    fn seal(&self) {
        let mut sealed = self.sealed.lock();
        sealed.push(self.write(self.group.gather()));
    }

    /// Seals what has gathered, and takes all that waits for a commit.
    pub(crate) fn seal_last(&self) -> Vec<Sealed> {
        let mut sealed = self.sealed.lock();
        sealed.push(self.write(self.group.gather_last()));
        std::mem::take(&mut sealed)
    }

    /// Writes a frame and offers it to the peers.
    fn write(&self, gathered: Gathered) -> Sealed {
        let Gathered { ticket, mut dirty, operations, mut taken } = gathered;
        let number = ticket.frame();
        let mut marks = Vec::new();
        let mut bytes = taken.iter().map(|taken| taken.bytes.len()).sum();
        let mut frame = None;
        if !dirty.is_empty() || !operations.is_empty() {
            let mut writer = FrameWriter::new(self.origin, number);
            let mut replica = self.replica.lock();
            let mut mark = |replica: &mut Replica, partition| {
                let number = replica.next_block(partition);
                marks.push((partition, self.origin, number));
                number
            };
            if !operations.is_empty() {
                writer.registry(mark(&mut replica, REGISTRY), &operations);
            }
            dirty.sort_by_key(Series::partition);
            for block in dirty.chunk_by(|a, b| a.partition() == b.partition()) {
                let (mut names, mut runs) = (Vec::new(), Vec::new());
                for series in block {
                    let mut state = series.lock();
                    if !state.named {
                        // A clear asks for the names again, with samples that are newer than it.
                        state.named = state.open.as_ref().is_none_or(|open| !open.writer.is_empty());
                        let (sensor, attribute) = (series.sensor().clone(), series.attribute().clone());
                        names.push(Name { sensor, attribute, kind: state.kind });
                    }
                    if let Some(OpenRun { finished, writer, bytes: freed, .. }) = state.open.take() {
                        state.next_stamp = writer.next_stamp();
                        drop(state);
                        bytes += freed;
                        runs.extend_from_slice(&finished);
                        writer.finish(series.id(), &mut runs);
                    }
                }
                let partition = block[0].partition();
                writer.samples(partition, mark(&mut replica, partition), &names, &runs);
            }
            let written = Bytes::from(writer.finish());
            self.tail.push(number, written.clone());
            self.waiting.push(ticket);
            let effects = replica.sealed(number);
            self.group.offer(!effects.is_empty());
            self.deliver(effects);
            frame = Some(written);
        }
        marks.extend(taken.iter_mut().flat_map(|taken| std::mem::take(&mut taken.marks)));
        Sealed { number, frame, taken, marks, bytes }
    }
}

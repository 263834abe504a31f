//! The checkpointer: turns what the log holds into chunks, and trims the log.
//!
//! It reads rings, not the log: when frame `f` is open, the rings hold every sample of the frames before `f`, and
//! samples of `f` at most. Chunks made from them ride in the transaction that commits `f` or a later frame, so no
//! sample is in a chunk before it is durable, and none is deleted because of one that is not. Samples that were
//! evicted between two checkpoints are never written twice. When all dirty series are done, the frames before the
//! first `f` are no longer needed.
//!
//! Work comes in slices of [`SLICE_BYTES`], so that no commit waits for more than one.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;

use super::chunks::{self, CHUNK_SAMPLES, Span};
use super::commit::{Ended, Errand, Shared};
use super::tables::{chunk_key, room_key, series_key, topic_key};
use crate::codec::{put_text, seal};
use crate::memory::Memory;
use crate::model::ids::SensorId;
use crate::registry::{AttributeDescription, Description, SensorOperation};
use crate::replica::fold::Fold;
use crate::replica::message::Coverage;
use crate::series::{Sensor, Series};

/// Chunk bytes that ride in one commit.
const SLICE_BYTES: usize = 256 << 10;
/// Log frames trimmed in one commit.
const SLICE_FRAMES: usize = 256;

/// Why there is a checkpoint.
#[derive(Debug)]
pub(crate) enum Job {
    /// The log is over its budget.
    OverBudget,
    /// A snapshot was joined into the rings: it counts when they are on disk.
    Adopt(Coverage),
    /// Origins are folded: that counts when it is on disk.
    Fold(Fold),
}

pub(crate) struct Checkpointer {
    pub memory: Arc<Memory>,
    pub shared: Arc<Shared>,
    pub jobs: Receiver<Job>,
}

impl Checkpointer {
    /// Runs until the committer ends.
    pub(crate) fn run(self) {
        while let Some(job) = self.next_job() {
            let before = self.shared.log.lock().bytes;
            let coverage = match job {
                Job::OverBudget => Coverage::default(),
                Job::Adopt(coverage) => coverage,
                Job::Fold(fold) => {
                    if self.fold(&fold).is_err() {
                        return;
                    }
                    continue;
                }
            };
            if self.checkpoint(coverage.clone()).is_err() {
                return;
            }
            if coverage != Coverage::default() {
                self.shared.replicate(|replica| replica.adopted(&coverage));
            }
            let after = self.shared.log.lock().bytes;
            tracing::debug!(before, after, "checkpoint done, log trimmed");
        }
    }

    /// The next job. What was committed during the last one may have filled the log again: then everybody waits for a
    /// checkpoint, and no commit comes that would ask for one.
    fn next_job(&self) -> Option<Job> {
        if let Ok(job) = self.jobs.try_recv() {
            return Some(job);
        }
        self.shared.trimming.store(false, Ordering::Relaxed);
        let full = self.shared.log.lock().bytes >= self.shared.log_budget;
        if full && !self.shared.trimming.swap(true, Ordering::Relaxed) {
            return Some(Job::OverBudget);
        }
        self.jobs.recv().ok()
    }

    fn checkpoint(&self, coverage: Coverage) -> Result<(), Ended> {
        let open = self.shared.group.frame();
        let mut errand = Errand::default();
        for series in self.memory.all() {
            write_out(&series, &mut errand);
            // What a clear took from a ring goes with the clear, which may have come in a piece that no log has.
            let sensor = series.sensor_entry();
            if sensor.unsaved.load(Ordering::Relaxed) {
                save(sensor, &self.memory.of(&sensor.id), &mut errand);
            }
            if errand.bytes() >= SLICE_BYTES {
                self.send(std::mem::take(&mut errand))?;
            }
        }
        for (sensor, series) in self.memory.everything() {
            save(&sensor, &series, &mut errand);
        }
        while let Some((key, record)) = self.next_lasting() {
            match record {
                Some(record) => errand.descriptors.push((key, record)),
                None => errand.descriptors_gone.push(key),
            }
            if errand.bytes() >= SLICE_BYTES {
                self.send(std::mem::take(&mut errand))?;
            }
        }
        let old: Vec<_> = {
            let log = self.shared.log.lock();
            log.frames.iter().map(|frame| frame.0).take_while(|key| key.0 < open).collect()
        };
        errand.versions = Some(coverage);
        self.send(errand)?;
        for slice in old.chunks(SLICE_FRAMES) {
            self.send(Errand { trim: slice.to_vec(), ..Errand::default() })?;
        }
        Ok(())
    }

    /// A room or topic of which the disk lacks something, by its key.
    fn next_lasting(&self) -> Option<(String, Option<Vec<u8>>)> {
        if let Some((room, record)) = self.memory.rooms.write().next_unsaved() {
            return Some((room_key(&room), record));
        }
        let (topic, record) = self.memory.retained.write().next_unsaved()?;
        Some((topic_key(topic), record))
    }

    fn fold(&self, fold: &Fold) -> Result<(), Ended> {
        let versions = Some(Coverage::default());
        self.send(Errand { versions, fold: Some(fold.clone()), ..Errand::default() })?;
        tracing::info!(
            origins = fold.origins.len(),
            "origins of past starts are counted as one from here on"
        );
        self.shared.replicate(|replica| replica.folded(fold));
        Ok(())
    }

    /// Hands an errand over and waits until it is committed.
    fn send(&self, errand: Errand) -> Result<(), Ended> {
        // Blocks of a peer are in rings a moment before they are in the group, under this lock: what was read above is in
        // the group now, so the chunks are committed with its frame or behind it, never ahead.
        drop(self.shared.replica.lock());
        self.shared.send(errand)
    }
}

/// Adds to `errand` what is said of a sensor, if the disk lacks that.
fn save(sensor: &Sensor, series: &[Series], errand: &mut Errand) {
    if sensor.unsaved.swap(false, Ordering::Relaxed)
        && let Some(record) = descriptor(sensor, series)
    {
        errand.descriptors.push((sensor.id.as_str().to_owned(), record));
    }
}

/// Adds to `errand` what the disk lacks of `series`.
fn write_out(series: &Series, errand: &mut Errand) {
    let mut state = series.lock();
    let partition = series.partition();
    if !std::mem::replace(&mut state.recorded, true) {
        errand.series.push((series_key(series.id()), series_record(series, state.kind.name())));
    }
    // A ring without samples was cleared, or was never written.
    let oldest = state.ring.first();
    let gone =
        state.chunks.iter().take_while(|span| oldest.is_none_or(|oldest| span.last < oldest.0)).count();
    for span in state.chunks.drain(..gone) {
        errand.chunks_gone.push(chunk_key(partition, series.id(), span.first));
    }
    let Some(dirty) = state.dirty_from.take() else { return };
    // Rewrite from the chunk that the oldest new sample falls into, and the last one while it is not full.
    let kept = state.chunks.iter().take_while(|span| span.last < dirty).count();
    let partly = kept > 0 && kept == state.chunks.len() && state.chunks[kept - 1].count < CHUNK_SAMPLES;
    let kept = kept - usize::from(partly);
    let mut from = dirty;
    for span in state.chunks.drain(kept..) {
        from = from.min(span.first);
        errand.chunks_gone.push(chunk_key(partition, series.id(), span.first));
    }
    let start = state.ring.position(crate::SampleTime(from));
    let end = state.ring.len();
    let (samples, stamps) = (state.ring.copy(start..end), state.ring.copy_stamps(start..end));
    let mut spans = Vec::new();
    for at in (0..samples.times.len()).step_by(CHUNK_SAMPLES) {
        let upto = (at + CHUNK_SAMPLES).min(samples.times.len());
        spans.push(Span { first: samples.times[at].0, last: samples.times[upto - 1].0, count: upto - at });
    }
    state.chunks.extend(&spans);
    drop(state);
    let mut at = 0;
    for span in spans {
        let slice = samples.slice(at..at + span.count);
        let record = chunks::encode(&slice, &stamps[at..at + span.count]);
        errand.chunks.push((chunk_key(partition, series.id(), span.first), record));
        at += span.count;
    }
}

pub(crate) fn series_record(series: &Series, kind: &str) -> Vec<u8> {
    let mut record = Vec::new();
    put_text(&mut record, series.sensor().as_str());
    put_text(&mut record, series.attribute().as_str());
    put_text(&mut record, kind);
    seal(&mut record);
    record
}

/// The operations that make the sensor's descriptor, one for each stamp, its clear first; `None` when there are none.
pub(crate) fn descriptor(sensor: &Sensor, series: &[Series]) -> Option<Vec<u8>> {
    let mut by_stamp: HashMap<_, Description> = HashMap::new();
    let cleared = *sensor.cleared.lock();
    if let Some(cleared) = cleared {
        // What sets nothing clears.
        by_stamp.insert(cleared, Description::default());
    }
    let name = sensor.name.lock().clone();
    if name.val.is_some() {
        by_stamp.entry(name.marker).or_default().name = name.val;
    }
    for series in series {
        let state = series.lock();
        let mut set = |stamp, field: AttributeDescription| {
            by_stamp.entry(stamp).or_default().attributes.push((series.attribute().clone(), field));
        };
        let kind = Some(state.kind);
        if let Some(unit) = state.unit.val.clone() {
            set(state.unit.marker, AttributeDescription { kind, unit: Some(unit), ..Default::default() });
        }
        if let Some(rate_hz) = state.rate_hz.val {
            set(
                state.rate_hz.marker,
                AttributeDescription { kind, rate_hz: Some(rate_hz), ..Default::default() },
            );
        }
        if let Some(channels) = state.channels.val.clone() {
            set(
                state.channels.marker,
                AttributeDescription { kind, channels: Some(channels), ..Default::default() },
            );
        }
        for (stamp, keep) in state.keeps.iter() {
            set(stamp, AttributeDescription { kind, keep: Some(keep), ..Default::default() });
        }
        if let Some(stamp) =
            state.described.filter(|described| Some(*described) > cleared && cleared.is_some())
        {
            // That it was named since says that it is there.
            set(stamp, AttributeDescription { kind, ..Default::default() });
        }
    }
    if by_stamp.is_empty() {
        return None;
    }
    let mut operations: Vec<_> = by_stamp.into_iter().collect();
    operations.sort_by_key(|operation| operation.0);
    let mut record = Vec::new();
    for (stamp, description) in operations {
        SensorOperation { sensor: SensorId::clone(&sensor.id), stamp, description }.encode(&mut record);
    }
    seal(&mut record);
    Some(record)
}

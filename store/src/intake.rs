//! Blocks of other nodes on their way into the rings: the same road as local samples, but for the judging, which was
//! done where they came in.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::clock::{Clock, machine_time};
use crate::codec::Malformed;
use crate::config::Config;
use crate::conflict::{conform, named, reconcile};
use crate::describe;
use crate::disk::chunks;
use crate::disk::recover::{descriptor_operations, series_names};
use crate::feed::publish;
use crate::group::Group;
use crate::memory::Memory;
use crate::model::ids::{NodeId, Origin, SeriesId};
use crate::model::time::SampleTime;
use crate::model::value::Shape;
use crate::registry::Operation;
use crate::replica::frame::{Block, Body, Frame, REGISTRY, Run};
use crate::replica::message::Piece;
use crate::ring::{Samples, Stamps};
use crate::series::Series;

/// A peer's clock that is further ahead is not followed; its samples are kept all the same.
const FOLLOWED: Duration = Duration::from_millis(500);
/// Fractions of an NTP64 second.
const SECOND: f64 = 4_294_967_296.0;

/// Where blocks go.
pub(crate) struct Intake<'a> {
    pub memory: &'a Memory,
    pub config: &'a Config,
    pub clock: &'a Clock,
    pub group: &'a Group,
}

impl Intake<'_> {
    /// Joins blocks of `origin`. Returns how far its clock is ahead, when that is too far to follow.
    pub(crate) fn join(&self, origin: Origin, blocks: Vec<Block>) -> Option<Duration> {
        let mut newest = 0;
        for block in blocks {
            match block.body {
                Body::Registry(operations) => {
                    for operation in operations {
                        newest = operation.stamp().time.max(newest);
                        self.operate(operation);
                    }
                }
                Body::Samples { names, runs } => {
                    for name in names {
                        let known = self.memory.find(name.sensor.as_str(), name.attribute.as_str()).is_some();
                        let shape = if name.kind.is_text() { Shape::Text } else { Shape::Numbers(1) };
                        let series = self.memory.restore(&name.sensor, &name.attribute, name.kind, shape);
                        named(self.config, &series, name.kind, &runs);
                        if !known {
                            self.memory.feed.described(&name.sensor);
                        }
                    }
                    for Run { series, stamp, samples } in runs {
                        newest = (stamp.time + samples.times.len() as u64).max(newest);
                        // An origin names a series before its first run, and its blocks come in order.
                        let Some(series) = self.memory.by_id(series) else { continue };
                        self.samples(&series, samples, &Stamps::From(stamp), Some(origin.node));
                    }
                }
            }
        }
        self.follow(newest)
    }

    /// A clear that comes in a piece is in no log here. It goes there before samples that are taken behind it: without
    /// it a recovery would fill the ring with what was cleared, and let go of them.
    fn log_clear(&self, operation: &Operation) {
        if let Operation::Sensor(said) = operation
            && said.clears()
            && self.memory.sensor(&said.sensor).cleared.lock().is_none_or(|cleared| cleared < said.stamp)
        {
            self.group.operate([operation.clone()]);
        }
    }

    /// Joins records of a peer's tables.
    pub(crate) fn piece(&self, piece: &Piece) -> Result<(), Malformed> {
        for record in &piece.series {
            let (sensor, attribute, kind) = series_names(record)?;
            let shape = if kind.is_text() { Shape::Text } else { Shape::Numbers(1) };
            let series = self.memory.restore(&sensor, &attribute, kind, shape);
            reconcile(self.config, &mut series.lock(), kind);
        }
        for record in &piece.descriptors {
            for operation in descriptor_operations(record)? {
                self.log_clear(&operation);
                self.operate(operation);
            }
        }
        // What is said of sensors comes before any sample: a ring that has not heard of a clear, or of a raised `keep`,
        // would let go of what it should hold.
        let frames =
            piece.frames.iter().map(|record| Frame::decode(record)).collect::<Result<Vec<_>, _>>()?;
        let says = |frame: &Frame| frame.blocks.iter().all(|block| block.partition == REGISTRY);
        let (said, measured): (Vec<_>, Vec<_>) = frames.into_iter().partition(says);
        for frame in said {
            for block in &frame.blocks {
                if let Body::Registry(operations) = &block.body {
                    operations.iter().for_each(|operation| self.log_clear(operation));
                }
            }
            self.join(frame.origin, frame.blocks);
        }
        for (id, record) in &piece.chunks {
            let (samples, stamps) = chunks::decode(record)?;
            if let Some(series) = self.memory.by_id(SeriesId(id.to_be_bytes())) {
                if let Stamps::Each(stamps) = &stamps {
                    self.follow(stamps.iter().map(|stamp| stamp.time).max().unwrap_or(0));
                }
                self.samples(&series, samples, &stamps, None);
            }
        }
        for frame in measured {
            self.join(frame.origin, frame.blocks);
        }
        Ok(())
    }

    fn operate(&self, operation: Operation) {
        if let Some(news) = describe::operate(self.memory, self.config, operation, self.clock.author()) {
            self.memory.feed.tell(&news);
        }
    }

    /// Joins samples of one series and tells its followers.
    pub(crate) fn samples(&self, series: &Series, samples: Samples, stamps: &Stamps, taker: Option<NodeId>) {
        if let Some(taker) = taker {
            series.sensor_entry().taker.store(taker.0, Ordering::Relaxed);
        }
        let now = SampleTime::now();
        let mut guard = series.lock();
        let state = &mut *guard;
        let samples = conform(state.kind, samples);
        let gone = state.is_gone();
        let mut changed = Vec::new();
        let joined = state.ring.join(&samples, stamps, &mut changed);
        if joined.cleared < samples.times.len() {
            state.soil(&samples);
            if let Some(oldest) = samples.times.iter().min() {
                state.arrivals.note(now, oldest.0);
            }
        }
        publish(state, series, &samples, &changed);
        let back = gone && !state.is_gone();
        drop(guard);
        self.memory.hold(series);
        if back {
            self.memory.feed.described(series.sensor());
        }
    }

    fn follow(&self, newest: u64) -> Option<Duration> {
        let ahead = (newest as f64 - machine_time() as f64) / SECOND;
        if ahead <= FOLLOWED.as_secs_f64() {
            self.clock.raise(newest);
            return None;
        }
        Some(Duration::from_secs_f64(ahead))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handle::Store;
    use crate::model::ids::{Attribute, NodeName, SensorId};
    use crate::model::value::Values;
    use crate::registry::SensorOperation;
    use crate::{Batch, Query, Times};

    async fn append(store: &Store, times: std::ops::Range<i64>) {
        let (sensor, attribute) = (SensorId::new("s").unwrap(), Attribute::new("a").unwrap());
        let series = store.series(&sensor, &attribute, Shape::Numbers(1)).unwrap();
        let values = Values::Numbers { channels: 1, flat: times.clone().map(|time| time as f64).collect() };
        let batch = Batch { series, times: Times::At(times.map(SampleTime).collect()), values };
        store.append(vec![batch]).await.unwrap().ticket.kept().await.unwrap();
    }

    /// What a power loss leaves: the file as it is when the last append was acknowledged.
    fn lost_power(store: Store, directory: &std::path::Path) -> Store {
        let after = directory.join("after");
        std::fs::create_dir(&after).unwrap();
        for entry in std::fs::read_dir(directory.join("before")).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), after.join(entry.file_name())).unwrap();
        }
        drop(store);
        Store::open(Config::new(&after, NodeName::new("a").unwrap())).unwrap()
    }

    /// A seed in fifty thousand found it: the clear was in memory alone, and recovery filled the ring with what it had
    /// cleared.
    #[tokio::test]
    async fn what_is_taken_behind_a_clear_that_a_peer_told_outlives_a_power_loss() {
        let directory = tempfile::tempdir().unwrap();
        let config = Config::new(directory.path().join("before"), NodeName::new("a").unwrap());
        let keep = config.keep as i64;
        let store = Store::open(config).unwrap();
        append(&store, 10_000..10_000 + keep).await;
        let stamp = crate::clock::Stamp { time: store.intake().clock.stamp().time + 1, author: 7 };
        let mut record = Vec::new();
        SensorOperation::clear(SensorId::new("s").unwrap(), stamp).encode(&mut record);
        crate::codec::seal(&mut record);
        let piece = Piece {
            series: Vec::new(),
            descriptors: vec![record.into()],
            chunks: Vec::new(),
            frames: Vec::new(),
            answer: false,
        };
        store.intake().piece(&piece).unwrap();
        append(&store, 5..8).await;
        let store = lost_power(store, directory.path());
        let held = store.find("s", "a").unwrap().read(&Query::newest(usize::MAX));
        assert_eq!(held.times, [5, 6, 7].map(SampleTime));
    }
}

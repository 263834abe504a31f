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

    /// Joins records of a peer's tables.
    pub(crate) fn piece(&self, piece: &Piece) -> Result<(), Malformed> {
        for record in &piece.series {
            let (sensor, attribute, kind) = series_names(record)?;
            let shape = if kind.is_text() { Shape::Text } else { Shape::Numbers(1) };
            let series = self.memory.restore(&sensor, &attribute, kind, shape);
            reconcile(self.config, &mut series.lock(), kind);
        }
        for record in &piece.descriptors {
            descriptor_operations(record)?.into_iter().for_each(|operation| self.operate(operation));
        }
        // What is said of sensors comes before any sample: a ring that has not heard of a clear, or of a raised `keep`,
        // would let go of what it should hold.
        let frames =
            piece.frames.iter().map(|record| Frame::decode(record)).collect::<Result<Vec<_>, _>>()?;
        let says = |frame: &Frame| frame.blocks.iter().all(|block| block.partition == REGISTRY);
        let (said, measured): (Vec<_>, Vec<_>) = frames.into_iter().partition(says);
        for frame in said {
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

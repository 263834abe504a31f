//! Operations of the registry, held against what is known and applied.

use std::sync::atomic::Ordering;

use crate::clock::Stamp;
use crate::config::{Config, MAX_KEEP, MAX_KEEP_TEXTS};
use crate::error::Refusal;
use crate::feed::Event;
use crate::memory::Memory;
use crate::model::ids::{Attribute, SensorId};
use crate::model::kind::Kind;
use crate::model::value::Shape;
use crate::registry::{AttributeDescription, Description, Operation, SensorOperation, void, write};
use crate::series::{Arrivals, Sensor, Series, keep_of, shape_of};

/// Keeps of a description what is not yet set: a different kind is refused, `keep` only grows. `None` when nothing
/// is new.
pub(crate) fn what_is_new(
    memory: &Memory,
    sensor: &SensorId,
    description: &Description,
) -> Result<Option<Description>, Refusal> {
    let known = memory.known(sensor.as_str());
    let named = known.as_ref().is_some_and(|(entry, _)| entry.name.lock().val.is_some());
    let mut new = Description { name: description.name.clone().filter(|_| !named), attributes: Vec::new() };
    for (attribute, asked) in &description.attributes {
        let mut fresh = asked.clone();
        let found = memory.find(sensor.as_str(), attribute.as_str());
        match found.filter(|series| !series.is_gone()) {
            None => {
                let text = asked.kind.is_some_and(crate::Kind::is_text);
                check_keep(sensor, attribute, asked.keep, text)?;
            }
            Some(series) => {
                let state = series.lock();
                if let Some(kind) = asked.kind.filter(|kind| *kind != state.kind) {
                    let (sensor, attribute) = (sensor.clone(), attribute.clone());
                    return Err(Refusal::KindConflict { sensor, attribute, held: state.kind, asked: kind });
                }
                check_keep(sensor, attribute, asked.keep, state.kind.is_text())?;
                fresh.kind = None;
                fresh.unit = fresh.unit.filter(|_| state.unit.val.is_none());
                fresh.rate_hz = fresh.rate_hz.filter(|_| state.rate_hz.val.is_none());
                fresh.channels = fresh.channels.filter(|_| state.channels.val.is_none());
                fresh.keep = fresh.keep.filter(|keep| *keep > state.keeps.greatest());
                if fresh == AttributeDescription::default() {
                    continue;
                }
            }
        }
        new.attributes.push((attribute.clone(), fresh));
    }
    Ok(Some(new).filter(|new| new.name.is_some() || !new.attributes.is_empty()))
}

fn check_keep(
    sensor: &SensorId,
    attribute: &Attribute,
    keep: Option<usize>,
    text: bool,
) -> Result<(), Refusal> {
    let most = if text { MAX_KEEP_TEXTS } else { MAX_KEEP };
    match keep {
        Some(keep) if !(1..=most).contains(&keep) => {
            Err(Refusal::BadKeep { sensor: sensor.clone(), attribute: attribute.clone(), keep, most })
        }
        _ => Ok(()),
    }
}

/// Applies an operation of the registry, of this node or of another. `author` is this run of the node. Returns whom to
/// tell.
pub(crate) fn operate(memory: &Memory, config: &Config, operation: Operation, author: u32) -> Option<Event> {
    match operation {
        Operation::Sensor(operation) => {
            apply(memory, config, &operation, author);
            Some(Event::Sensor(operation.sensor))
        }
        Operation::Room(operation) => {
            let (room, mut moved) = (operation.room.clone(), Vec::new());
            let is_there = memory.rooms.write().apply_noting(operation, &mut moved);
            memory.moved(&moved);
            is_there.then_some(Event::Room(room))
        }
        Operation::Topic(operation) => {
            // Who subscribes looks; nobody is told.
            memory.retained.write().apply(operation);
            None
        }
    }
}

/// Applies an operation on a sensor: the memory limit was asked where it was made. What is not newer than the sensor's
/// clear is void.
pub(crate) fn apply(memory: &Memory, config: &Config, operation: &SensorOperation, author: u32) {
    let SensorOperation { sensor, stamp, description } = operation;
    let entry = memory.sensor(sensor);
    {
        let mut cleared = entry.cleared.lock();
        if cleared.is_some_and(|cleared| *stamp <= cleared) {
            return;
        }
        if operation.clears() {
            *cleared = Some(*stamp);
        }
    }
    entry.unsaved.store(true, Ordering::Relaxed);
    if operation.clears() {
        clear(memory, config, &entry, *stamp, author);
        return;
    }
    if let Some(name) = &description.name {
        write(&mut entry.name.lock(), name.clone(), *stamp);
    }
    for (attribute, asked) in &description.attributes {
        let series = memory.describe_series(sensor, attribute, asked);
        let mut state = series.lock();
        if state.is_gone() {
            let kind = asked.kind.or(Kind::parse(attribute.as_str())).unwrap_or(Kind::Number);
            state.restart(config, kind, shape_of(kind, asked));
        }
        state.described = state.described.max(Some(*stamp));
        if let Some(unit) = &asked.unit {
            write(&mut state.unit, unit.clone(), *stamp);
        }
        if let Some(rate_hz) = asked.rate_hz {
            write(&mut state.rate_hz, rate_hz, *stamp);
        }
        if let Some(channels) = &asked.channels {
            write(&mut state.channels, channels.clone(), *stamp);
        }
        if let Some(keep) = asked.keep {
            state.keeps.declare(keep, *stamp);
        }
        let keep = keep_of(config, state.kind, state.keeps.greatest(), state.rate_hz.val);
        if keep != state.ring.keep() {
            state.ring.set_keep(keep);
        }
    }
}

/// A time of stamps above all that the sensor holds, said or measured.
pub(crate) fn behind_all(entry: &Sensor, series: &[Series]) -> u64 {
    let cleared = entry.cleared.lock().map_or(0, |cleared| cleared.time);
    let mut highest = cleared.max(entry.name.lock().marker.time);
    for series in series {
        let state = series.lock();
        let said = [state.unit.marker, state.rate_hz.marker, state.channels.marker];
        let said = said.into_iter().chain(state.described).map(|stamp| stamp.time);
        let open = state.open.as_ref().map_or(0, |open| open.writer.next_stamp());
        let held = [highest, state.ring.highest_stamp(), open, state.next_stamp];
        highest = held.into_iter().chain(said).max().unwrap_or(highest);
    }
    highest
}

/// Lets go of what is not newer than `stamp`, which the sensor has as its clear already, so that a series made
/// meanwhile has it too.
pub(crate) fn clear(memory: &Memory, config: &Config, entry: &Sensor, stamp: Stamp, author: u32) {
    void(&mut entry.name.lock(), stamp);
    for series in memory.of(&entry.id) {
        let mut guard = series.lock();
        let state = &mut *guard;
        let held = state.ring.copy_stamps(0..state.ring.len());
        let own = held.iter().filter(|held| held.author == author && **held <= stamp).count();
        let oldest = state.ring.clear(stamp);
        state.stamp_behind(stamp, series.id());
        entry.counters.cleared(own);
        // Chunks that hold what went are written anew, or removed when nothing is left.
        state.dirty_from = state.dirty_from.into_iter().chain(oldest.map(|time| time.0)).min();
        void(&mut state.unit, stamp);
        void(&mut state.rate_hz, stamp);
        void(&mut state.channels, stamp);
        state.keeps.clear(stamp);
        // Its next block names it again: it may come back as another kind.
        state.named = false;
        if state.is_gone() {
            state.arrivals = Arrivals::default();
            state.restart(
                config,
                state.kind,
                if state.kind.is_text() { Shape::Text } else { Shape::Numbers(1) },
            );
            drop(guard);
            memory.release(&series);
        } else {
            let keep = keep_of(config, state.kind, state.keeps.greatest(), state.rate_hz.val);
            state.ring.set_keep(keep);
        }
    }
}

//! Descriptions of sensors, held against what is known and applied.

use std::sync::atomic::Ordering;

use crate::config::{Config, MAX_KEEP, MAX_KEEP_TEXTS};
use crate::error::Refusal;
use crate::memory::Memory;
use crate::model::ids::{Attribute, SensorId};
use crate::registry::{AttributeDescription, Description, Operation, write};
use crate::series::keep_of;

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
        match memory.find(sensor.as_str(), attribute.as_str()) {
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
                fresh.keep = fresh.keep.filter(|keep| *keep > state.declared_keep);
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

/// Applies an operation, of this node or of another: the memory limit was asked where it was made.
pub(crate) fn apply(memory: &Memory, config: &Config, operation: &Operation) {
    let Operation { sensor, stamp, description } = operation;
    let entry = memory.sensor(sensor);
    entry.unsaved.store(true, Ordering::Relaxed);
    if let Some(name) = &description.name {
        write(&mut entry.name.lock(), name.clone(), *stamp);
    }
    for (attribute, asked) in &description.attributes {
        let series = memory.describe_series(sensor, attribute, asked);
        let mut state = series.lock();
        if let Some(unit) = &asked.unit {
            write(&mut state.unit, unit.clone(), *stamp);
        }
        if let Some(rate_hz) = asked.rate_hz {
            write(&mut state.rate_hz, rate_hz, *stamp);
        }
        if let Some(channels) = &asked.channels {
            write(&mut state.channels, channels.clone(), *stamp);
        }
        state.declared_keep = asked.keep.unwrap_or(0).max(state.declared_keep);
        let keep = keep_of(config, state.kind, state.declared_keep, state.rate_hz.val);
        if keep != state.ring.keep() {
            state.ring.set_keep(keep);
        }
    }
}

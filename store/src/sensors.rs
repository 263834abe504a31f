//! What is said of sensors, as the other crates ask for it: devices describe themselves, operators edit what they said,
//! and clear. What was asked of an operator is kept when its ticket says so, like a sample.
//!
//! A device sets what nobody has set yet; an operator sets it anew, stamped above what it replaces, so that whoever sees
//! a name can change it. `keep` grows in either way: rings of unequal bounds take the larger one, on all nodes.

use std::sync::atomic::Ordering;

use crate::describe;
use crate::error::Refusal;
use crate::group::Ticket;
use crate::handle::Store;
use crate::model::ids::{Attribute, SensorId};
use crate::registry::{Description, SensorOperation};
use crate::series::keep_of;

/// Longest name of a sensor or channel, or unit, in characters.
pub const MAX_LABEL_CHARS: usize = 200;

/// Why a sensor is not edited. Nothing has changed then.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum EditError {
    /// As a device would be refused.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Fewer samples would be kept than were asked for before.
    #[error(
        "{sensor}/{attribute} keeps {held} samples, as was declared; {asked} are fewer, and keep only grows"
    )]
    KeepFalls {
        /// Whose.
        sensor: SensorId,
        /// Which.
        attribute: Attribute,
        /// What was declared.
        held: usize,
        /// What was asked for.
        asked: usize,
    },
}

impl Store {
    /// Sets what `description` says and nobody said before; `keep` is raised. Durable with the next frame.
    pub fn describe(&self, sensor: &SensorId, description: &Description) -> Result<(), Refusal> {
        match describe::what_is_new(self.memory(), sensor, description)? {
            Some(new) => self.say_of(sensor, new, 0).map(drop),
            None => Ok(()),
        }
    }

    /// Sets what `description` says, whatever was said before; makes the sensor where there is none. One that says
    /// nothing is kept as it is: there is nothing to wait for.
    pub fn edit(&self, sensor: &SensorId, description: Description) -> Result<Option<Ticket>, EditError> {
        let memory = self.memory();
        // As a device: kinds that differ, and bounds.
        describe::what_is_new(memory, sensor, &description)?;
        for (attribute, asked) in &description.attributes {
            let found = memory.find(sensor.as_str(), attribute.as_str()).filter(|series| !series.is_gone());
            let held = found.map_or(0, |series| series.lock().keeps.greatest());
            if let Some(asked) = asked.keep.filter(|asked| *asked < held) {
                let (sensor, attribute) = (sensor.clone(), attribute.clone());
                return Err(EditError::KeepFalls { sensor, attribute, held, asked });
            }
        }
        if description == Description::default() {
            return Ok(None);
        }
        let named = memory.sensor(sensor).name.lock().marker;
        let said = memory.of(sensor).into_iter().filter_map(|series| series.lock().described);
        let above = said.chain([named]).map(|stamp| stamp.time).max().unwrap_or(0);
        Ok(Some(self.say_of(sensor, description, above)?))
    }

    /// Says something of a sensor, stamped behind `above`.
    fn say_of(&self, sensor: &SensorId, description: Description, above: u64) -> Result<Ticket, Refusal> {
        let memory = self.memory();
        // The memory is asked for before anything changes.
        for (attribute, asked) in &description.attributes {
            let found = memory.find_or_make(sensor, attribute, None, asked)?;
            if asked.keep.is_some() || asked.rate_hz.is_some() {
                let state = found.series.lock();
                let declared = asked.keep.unwrap_or(0).max(state.keeps.greatest());
                let rate_hz = asked.rate_hz.or(state.rate_hz.val);
                let keep = keep_of(self.config(), state.kind, declared, rate_hz);
                let shape = state.ring.shape();
                drop(state);
                memory.reserve(&found.series, keep, shape)?;
            }
        }
        let mut stamp = self.clock().stamp();
        // What is replaced, or was cleared, may be of a clock far ahead, which is not followed.
        let cleared = memory.sensor(sensor).cleared.lock().map_or(0, |cleared| cleared.time);
        stamp.time = stamp.time.max(cleared.max(above).saturating_add(1));
        let operation = SensorOperation { sensor: sensor.clone(), stamp, description };
        describe::apply(memory, self.config(), &operation, stamp.author);
        let ticket = self.shared().group.operate([operation.into()]);
        memory.feed.described(sensor);
        Ok(ticket)
    }

    /// Clears a sensor: its samples and what is said of it are gone, here at once and everywhere else when the clear
    /// comes there. The ticket says when that is durable. It comes back, empty, when it sends or is described again.
    /// `None` when there is no such sensor.
    pub fn clear(&self, sensor: &SensorId) -> Option<Ticket> {
        let memory = self.memory();
        let (entry, series) = memory.known(sensor.as_str())?;
        self.clock().raise(describe::behind_all(&entry, &series));
        let stamp = self.clock().stamp();
        let ticket = {
            // The operation is on its way to the log before any sample goes, so no checkpoint removes a chunk because
            // of a clear that a crash then takes back; and a checkpoint that trims the operation has read the clear.
            let mut cleared = entry.cleared.lock();
            *cleared = (*cleared).max(Some(stamp));
            entry.unsaved.store(true, Ordering::Relaxed);
            self.shared().group.operate([SensorOperation::clear(sensor.clone(), stamp).into()])
        };
        describe::clear(memory, self.config(), &entry, stamp, stamp.author);
        memory.feed.described(sensor);
        Some(ticket)
    }
}

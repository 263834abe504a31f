//! Retained messages, as the other crates ask for them. Any node sets and removes any; what was asked is kept when its
//! ticket says so, like a sample.

use crate::clock::Stamp;
use crate::group::Ticket;
use crate::handle::Store;
use crate::model::time::SampleTime;
use crate::registry::request::Asked;
use crate::registry::retained::{Kept, RetainError, Retained, TopicOperation};

impl Store {
    /// Gives a topic another retained message, or none. `None` is given back when there is nothing to wait for.
    pub fn retain(&self, topic: &str, kept: Option<Kept>) -> Result<Option<Ticket>, RetainError> {
        self.change_retained(|retained, asked, now| retained.set(topic, kept, asked, now))
    }

    /// The same as of a moment that has passed: what was retained later stays.
    pub fn retain_as_of(
        &self,
        topic: &str,
        kept: Option<Kept>,
        stamp: Stamp,
    ) -> Result<Option<Ticket>, RetainError> {
        self.change_retained(|retained, asked, now| retained.set_as_of(topic, kept, stamp, asked, now))
    }

    /// The retained message of a topic.
    pub fn retained(&self, topic: &str) -> Option<Kept> {
        let now = SampleTime::now();
        self.memory().retained.read().get(topic).filter(|kept| is_due(kept, now)).cloned()
    }

    /// Calls `each` with every retained message whose topic is `wanted`.
    pub fn each_retained(&self, wanted: impl Fn(&str) -> bool, mut each: impl FnMut(&str, Kept)) {
        let now = SampleTime::now();
        let retained = self.memory().retained.read();
        let found = retained.iter().filter(|(topic, kept)| is_due(kept, now) && wanted(topic));
        found.for_each(|(topic, kept)| each(topic, kept.clone()));
    }

    /// How many topics have a retained message.
    pub fn retained_count(&self) -> usize {
        self.memory().retained.read().count()
    }

    /// Judges and carries out under one lock, as with rooms.
    fn change_retained(
        &self,
        judge: impl FnOnce(&Retained, Asked, SampleTime) -> Result<Vec<TopicOperation>, RetainError>,
    ) -> Result<Option<Ticket>, RetainError> {
        if let Some(older) = self.older().lock().first() {
            return Err(RetainError::OlderNode(older.to_string()));
        }
        let mut retained = self.memory().retained.write();
        let asked = Asked { origin: self.node().origin, stamp: self.stamp() };
        let operations = judge(&retained, asked, SampleTime::now())?;
        if operations.is_empty() {
            return Ok(None);
        }
        for operation in &operations {
            retained.apply(operation.clone());
        }
        Ok(Some(self.shared().group.operate(operations.into_iter().map(Into::into))))
    }
}

/// Whether it is not to be forgotten yet.
fn is_due(kept: &Kept, now: SampleTime) -> bool {
    kept.expires.is_none_or(|expires| expires > now)
}

//! A device's publications on their way to the store: the topic says whose samples the payload states, the intake
//! judges them and gathers them until the end of the read, so that a hundred small messages become one append.

use rumqttd::protocol::PubAckReason;
use store::{Batch, SampleTime, Store};

use super::session::Answer;
use crate::error::{self, Refused};
use crate::intake::Intake;
use crate::wire::rows::Rows;
use crate::wire::topic::{self, Target};

/// Row buffers no larger than this are kept from one message to the next, in bytes.
const KEEP_BYTES: usize = 1024;

/// One connection's way into the store.
pub(super) struct Uplink {
    intake: Intake,
    rows: Rows,
}

impl Uplink {
    pub(super) fn new(store: Store) -> Self {
        Self { intake: Intake::new(store), rows: Rows::default() }
    }

    /// Whether publications to `topic` are samples.
    pub(super) fn is_for_sensors(topic: &str) -> bool {
        topic.starts_with(topic::PREFIX)
    }

    /// Takes a publication into the batches, or refuses it whole.
    pub(super) fn take(&mut self, topic: &str, payload: &[u8]) -> Answer {
        let taken = self.read(topic, payload);
        if self.rows.bytes() > KEEP_BYTES {
            self.rows = Rows::default();
        }
        match taken {
            Ok(()) => Answer::Taken,
            Err(refused) => {
                Answer::Refused(reason(&refused), format!("{}: {}", refused.code, refused.message))
            }
        }
    }

    /// What is to be appended; the next batches are new ones.
    pub(super) fn batches(&mut self) -> Vec<Batch> {
        self.intake.batches()
    }

    fn read(&mut self, topic: &str, payload: &[u8]) -> Result<(), Refused> {
        self.rows.clear();
        let target = Target::of(topic);
        let read = match target {
            Some(Target::Series(..)) => topic::read_series(payload, &mut self.rows).map_err(Refused::from),
            Some(Target::Sensor(_)) => {
                topic::read_sensor(payload, SampleTime::now().millis(), &mut self.rows).map_err(Refused::from)
            }
            None => Err(Refused::new(
                "bad_topic",
                format!("{topic:?} is neither sensors/{{sensor}} nor sensors/{{sensor}}/{{attribute}}"),
            )),
        };
        let sensor = target.map_or("", Target::sensor);
        match read {
            Ok(()) => self.intake.take(&self.rows, sensor, target.and_then(Target::attribute)),
            Err(refused) => {
                self.intake.refused(sensor, &refused, self.rows.len());
                Err(refused)
            }
        }
    }
}

/// What version 5 is told.
fn reason(refused: &Refused) -> PubAckReason {
    match error::find(refused.code).map(|row| row.mqtt) {
        Some(0x99) => PubAckReason::PayloadFormatInvalid,
        Some(0x90) => PubAckReason::TopicNameInvalid,
        Some(0x87) => PubAckReason::NotAuthorized,
        Some(0x97) => PubAckReason::QuotaExceeded,
        _ => PubAckReason::ImplementationSpecificError,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_of_the_table_has_a_reason_that_an_acknowledgement_can_carry() {
        for row in error::TABLE.iter().filter(|row| matches!(row.mqtt, 0x87 | 0x90 | 0x97 | 0x99)) {
            let told = reason(&Refused::new(row.code, ""));
            assert_ne!(told, PubAckReason::ImplementationSpecificError, "{}", row.code);
        }
        assert_eq!(reason(&Refused::new("too_many_series", "")), PubAckReason::QuotaExceeded);
    }
}

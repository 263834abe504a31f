//! Descriptors of sensors, as operations of `crdts` registers.
//!
//! Each field is a `LWWReg` marked with a stamp, so that what two nodes set at once settles alike everywhere; `keep`
//! is joined by max (it may only be raised), and is therefore the same whatever order the operations come in. An
//! operation that sets nothing clears the sensor: what is older than it, said or measured, is void.

use crate::clock::Stamp;
use crate::codec::{Malformed, Reader, put_optional_text, put_text, put_varint};
use crate::config::MAX_KEEP;
use crate::model::ids::{Attribute, SensorId};
use crate::model::kind::Kind;
use crate::model::value::MAX_CHANNELS;

/// What a device, or an operator, says of an attribute. Missing fields say nothing.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct AttributeDescription {
    /// What it measures.
    pub kind: Option<Kind>,
    /// Unit, where the kind fixes none.
    pub unit: Option<String>,
    /// Samples a second.
    pub rate_hz: Option<f64>,
    /// Samples to keep.
    pub keep: Option<usize>,
    /// Names of the channels, where they are not the kind's.
    pub channels: Option<Vec<String>>,
}

/// What a device says of a sensor.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Description {
    /// For people.
    pub name: Option<String>,
    /// What it measures.
    pub attributes: Vec<(Attribute, AttributeDescription)>,
}

/// A change of a descriptor. One that sets nothing was never
/// written but to clear: so the record is the same in every version of the format.
#[derive(Debug, Clone, PartialEq)]
pub struct SensorOperation {
    /// Whose.
    pub sensor: SensorId,
    /// When it was written.
    pub stamp: Stamp,
    /// What is set.
    pub description: Description,
}

/// What was declared of `keep` since the last clear: the greatest holds. A clear may come after what is newer than it,
/// so whatever would be the greatest once older declarations are void is held too; stamps rise, and values fall.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Keeps(Vec<(Stamp, usize)>);

impl Keeps {
    /// The one that holds; 0 for none.
    pub fn greatest(&self) -> usize {
        self.0.first().map_or(0, |held| held.1)
    }

    /// Joins a declaration.
    pub fn declare(&mut self, keep: usize, stamp: Stamp) {
        if self.0.iter().any(|held| held.0 >= stamp && held.1 >= keep) {
            return;
        }
        self.0.retain(|held| held.0 > stamp || held.1 > keep);
        let at = self.0.partition_point(|held| held.0 < stamp);
        self.0.insert(at, (stamp, keep));
    }

    /// Voids what is not newer than `stamp`.
    pub fn clear(&mut self, stamp: Stamp) {
        self.0.retain(|held| held.0 > stamp);
    }

    /// The declarations that are held.
    pub fn iter(&self) -> impl Iterator<Item = (Stamp, usize)> + '_ {
        self.0.iter().copied()
    }
}

impl SensorOperation {
    /// The operation that clears `sensor`.
    pub fn clear(sensor: SensorId, stamp: Stamp) -> Self {
        Self { sensor, stamp, description: Description::default() }
    }

    /// Whether it clears its sensor.
    pub fn clears(&self) -> bool {
        self.description == Description::default()
    }

    /// Appends the operation: sensor, stamp, name, attributes with the fields that are set.
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_text(out, self.sensor.as_str());
        out.extend_from_slice(&self.stamp.time.to_le_bytes());
        out.extend_from_slice(&self.stamp.author.to_le_bytes());
        put_optional_text(out, self.description.name.as_deref());
        put_varint(out, self.description.attributes.len() as u64);
        for (attribute, description) in &self.description.attributes {
            put_text(out, attribute.as_str());
            put_optional_text(out, description.kind.map(Kind::name));
            put_optional_text(out, description.unit.as_deref());
            out.extend_from_slice(&description.rate_hz.unwrap_or(f64::NAN).to_le_bytes());
            put_varint(out, description.keep.unwrap_or(0) as u64);
            let channels = description.channels.as_deref().unwrap_or_default();
            put_varint(out, channels.len() as u64);
            channels.iter().for_each(|channel| put_text(out, channel));
        }
    }

    /// Reads an operation back.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let sensor = SensorId::new(reader.text("a sensor")?).map_err(|_| reader.malformed("a sensor id"))?;
        let time = reader.word("a stamp")?;
        let stamp = Stamp { time, author: u32::from_le_bytes(reader.array("a stamp's author")?) };
        let name = reader.optional_text("a name")?.map(str::to_owned);
        let count = reader.count(13, "an attribute count")?;
        let attributes = (0..count).map(|_| decode_attribute(reader)).collect::<Result<_, _>>()?;
        Ok(Self { sensor, stamp, description: Description { name, attributes } })
    }
}

fn decode_attribute(reader: &mut Reader<'_>) -> Result<(Attribute, AttributeDescription), Malformed> {
    let attribute =
        Attribute::new(reader.text("an attribute")?).map_err(|_| reader.malformed("an attribute id"))?;
    let kind = match reader.optional_text("a kind")? {
        Some(name) => Some(Kind::parse(name).ok_or(reader.malformed("a known kind"))?),
        None => None,
    };
    let unit = reader.optional_text("a unit")?.map(str::to_owned);
    let rate_hz = Some(reader.float("a rate")?).filter(|rate| rate.is_finite());
    let keep = match reader.varint("a keep")? {
        0 => None,
        keep => Some(usize::try_from(keep).unwrap_or(MAX_KEEP).min(MAX_KEEP)),
    };
    let count = reader.count(1, "a channel count")?;
    if count > MAX_CHANNELS {
        return Err(reader.malformed("at most 16 channels"));
    }
    let channels: Vec<String> =
        (0..count).map(|_| reader.text("a channel").map(str::to_owned)).collect::<Result<_, _>>()?;
    let channels = Some(channels).filter(|channels| !channels.is_empty());
    Ok((attribute, AttributeDescription { kind, unit, rate_hz, keep, channels }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_operation_comes_back() {
        let skin = AttributeDescription { unit: Some("Cel".into()), keep: Some(5000), ..Default::default() };
        let ecg = AttributeDescription {
            kind: Some(Kind::Ecg),
            rate_hz: Some(360.0),
            channels: Some(vec!["mlii".into(), "v5".into()]),
            ..Default::default()
        };
        let operation = SensorOperation {
            sensor: SensorId::new("strap-7").unwrap(),
            stamp: Stamp { time: 5, author: 6 },
            description: Description {
                name: Some("Chest strap".into()),
                attributes: vec![
                    (Attribute::new("skin").unwrap(), skin),
                    (Attribute::new("ecg").unwrap(), ecg),
                ],
            },
        };
        let mut bytes = Vec::new();
        operation.encode(&mut bytes);
        assert_eq!(SensorOperation::decode(&mut Reader(&bytes)), Ok(operation));
        for cut in 0..bytes.len() {
            assert!(SensorOperation::decode(&mut Reader(&bytes[..cut])).is_err());
        }
    }

    #[test]
    fn a_clear_comes_back_and_is_nothing_that_was_written_before() {
        let clear = SensorOperation::clear(SensorId::new("strap-7").unwrap(), Stamp { time: 5, author: 6 });
        let mut bytes = Vec::new();
        clear.encode(&mut bytes);
        let back = SensorOperation::decode(&mut Reader(&bytes)).unwrap();
        assert!(back == clear && back.clears());
        let named = Description { name: Some(String::new()), attributes: Vec::new() };
        assert!(!SensorOperation { description: named, ..clear }.clears());
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Whatever order declarations and clears come in, the greatest that is newer than all clears holds.
        #[test]
        fn keeps_do_not_depend_on_order(
            declared in prop::collection::vec((1..9u64, 1..6usize), 0..9),
            clears in prop::collection::vec(0..9u64, 0..3),
            order in any::<u64>(),
        ) {
            let at = |time| Stamp { time, author: 1 };
            let last = clears.iter().copied().max();
            let valid = declared.iter().filter(|one| last.is_none_or(|last| one.0 > last));
            let expected = valid.map(|one| one.1).max().unwrap_or(0);
            let mut events: Vec<_> = declared.iter().map(|(time, keep)| (*time, Some(*keep))).collect();
            events.extend(clears.iter().map(|time| (*time, None)));
            let places = events.len().max(1) as u64;
            events.rotate_left((order % places) as usize);
            if order % 2 == 0 {
                events.reverse();
            }
            let (mut keeps, mut cleared) = (Keeps::default(), None);
            for (time, keep) in events {
                match keep {
                    Some(keep) if cleared.is_none_or(|cleared| at(time) > cleared) => keeps.declare(keep, at(time)),
                    Some(_) => {}
                    None => {
                        cleared = cleared.max(Some(at(time)));
                        keeps.clear(at(time));
                    }
                }
            }
            prop_assert_eq!(keeps.greatest(), expected);
            prop_assert!(keeps.iter().collect::<Vec<_>>().is_sorted_by(|a, b| a.0 < b.0 && a.1 > b.1));
        }
    }
}

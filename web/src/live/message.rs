//! What a viewer may say, read and held against the bounds; a `Watch` exists only within them.

use std::collections::{HashMap, HashSet};

use serde::Deserialize;
use serde_json::Value;
use store::{Attribute, Level, MAX_KEEP, MAX_NAME_CHARS, PersonId, RoomId, SampleTime, SensorId};

/// Most series in one `watch`. Beyond: `error` `too_many_series`.
pub const MAX_SERIES_PER_WATCH: usize = 10_000;
/// Most rooms in one `watch`. Beyond: `error` `too_many_rooms`.
pub const MAX_ROOMS_PER_WATCH: usize = 100;
/// Longest part of a bad value that an error repeats, in characters.
const SHOWN_CHARS: usize = 160;

/// A message of a viewer.
#[derive(Debug, PartialEq)]
pub enum Message {
    /// Follow series until `unwatch`.
    Watch(Watch),
    /// End the watch of this number.
    Unwatch(u64),
    /// Be in a room.
    Enter(Enter),
    /// Be in it no longer.
    Leave(RoomId),
    /// Send something to somebody in a room.
    Signal {
        /// Where both are.
        room: RoomId,
        /// To whom.
        to: PersonId,
        /// What.
        data: Value,
    },
    /// How the viewer's battery is.
    Battery {
        /// From 0 to 1.
        level: f64,
        /// Whether it is plugged in.
        charging: bool,
    },
}

/// Who enters which room.
#[derive(Debug, PartialEq, Eq)]
pub struct Enter {
    /// Where.
    pub room: RoomId,
    /// Who, the same on every node.
    pub id: PersonId,
    /// For people; the id, unless said.
    pub name: String,
    /// Whether they take part in the room's call.
    pub call: bool,
}

/// What to follow.
#[derive(Debug, PartialEq)]
pub struct Watch {
    /// The viewer's number for it.
    pub id: u64,
    /// Series, in the order said, each once.
    pub series: Vec<Wish>,
    /// Rooms whose sensors' series are followed, whichever these come to be.
    pub rooms: Vec<RoomId>,
    /// The newest time that the viewer holds of series, by `sensor/attribute`: of those that come with the rooms.
    pub since: HashMap<String, SampleTime>,
    /// Newest samples of each series to begin with, where it has no `since`.
    pub backfill: usize,
    /// How closely the viewer looks.
    pub attention: Level,
    /// Whether the nodes' figures and the event log are wanted, beside the news that everybody gets.
    pub cluster: bool,
}

/// One series of a watch.
#[derive(Debug, Clone, PartialEq)]
pub struct Wish {
    /// Which.
    pub key: (SensorId, Attribute),
    /// The newest time that the viewer holds.
    pub since: Option<SampleTime>,
}

/// Why a message is refused: the code and message of the `error` that answers it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Refused {
    /// Snake case.
    pub code: &'static str,
    /// What was wrong, with the value.
    pub message: String,
    /// The `id` of the message, where it could be read.
    pub id: Option<u64>,
}

/// The fields are as lenient as JSON; what they mean is checked by `Watch::new`.
#[derive(Deserialize)]
struct RawWatch {
    id: u64,
    #[serde(default)]
    rooms: Vec<String>,
    #[serde(default)]
    series: Vec<String>,
    attention: Option<String>,
    #[serde(default)]
    since: HashMap<String, f64>,
    #[serde(default)]
    backfill: usize,
    #[serde(default)]
    cluster: bool,
}

impl Message {
    /// Reads a text message.
    pub fn parse(text: &str) -> Result<Self, Refused> {
        let refused = |code, message| Refused { code, message, id: None };
        let mut object: Value =
            serde_json::from_str(text).map_err(|error| refused("bad_json", error.to_string()))?;
        // Only its field `data` is taken out of it.
        let Some(kind) = object["type"].as_str().map(str::to_owned) else {
            let message = "expected an object with \"type\" as a text".to_owned();
            return Err(refused("bad_message", message));
        };
        let id = object["id"].as_u64();
        let refused = |code, message| Refused { code, message, id };
        match kind.as_str() {
            "watch" => match RawWatch::deserialize(&object) {
                Ok(raw) => Watch::new(&raw).map(Self::Watch),
                Err(error) => Err(refused("bad_message", format!("watch: {}", shown(&error.to_string())))),
            },
            "unwatch" => id.map(Self::Unwatch).ok_or_else(|| {
                refused("bad_message", "unwatch: expected \"id\" as a whole number".to_owned())
            }),
            "enter" => RawEnter::deserialize(&object)
                .map_err(|error| refused("bad_message", format!("enter: {}", shown(&error.to_string()))))
                .and_then(|raw| Enter::new(raw).map(Self::Enter)),
            "leave" => Ok(Self::Leave(room_of(object["room"].as_str().unwrap_or_default())?)),
            "signal" => {
                let room = room_of(object["room"].as_str().unwrap_or_default())?;
                let to = person_of(object["to"].as_str().unwrap_or_default())?;
                Ok(Self::Signal { room, to, data: object["data"].take() })
            }
            "battery" => match object["level"].as_f64().filter(|level| (0.0..=1.0).contains(level)) {
                Some(level) => {
                    Ok(Self::Battery { level, charging: object["charging"].as_bool().unwrap_or(false) })
                }
                None => Err(refused("bad_message", "battery: expected \"level\" from 0 to 1".to_owned())),
            },
            other => Err(refused(
                "unknown_type",
                format!(
                    "there is no message of type {:?}; expected watch, unwatch, enter, leave, signal or battery",
                    shown(other)
                ),
            )),
        }
    }
}

impl Watch {
    fn new(raw: &RawWatch) -> Result<Self, Refused> {
        let id = raw.id;
        let refused = |code, message| Refused { code, message, id: Some(id) };
        if raw.rooms.len() > MAX_ROOMS_PER_WATCH {
            let message = format!("{} rooms; expected at most {MAX_ROOMS_PER_WATCH}", raw.rooms.len());
            return Err(refused("too_many_rooms", message));
        }
        let mut rooms = raw
            .rooms
            .iter()
            .map(|room| room_of(room).map_err(|error| Refused { id: Some(id), ..error }))
            .collect::<Result<Vec<_>, _>>()?;
        rooms.sort_unstable();
        rooms.dedup();
        let said = raw.attention.as_deref().unwrap_or(Level::Medium.name());
        let attention = Level::parse(said).ok_or_else(|| {
            let names = Level::ALL.map(Level::name).join(", ");
            refused("bad_attention", format!("attention {:?}; expected {names}", shown(said)))
        })?;
        if raw.series.len() > MAX_SERIES_PER_WATCH {
            let message = format!("{} series; expected at most {MAX_SERIES_PER_WATCH}", raw.series.len());
            return Err(refused("too_many_series", message));
        }
        if raw.backfill > MAX_KEEP {
            return Err(refused(
                "bad_backfill",
                format!("backfill {}; expected 0 to {MAX_KEEP}", raw.backfill),
            ));
        }
        // Series that are not watched by name may be named here: a client says what it holds.
        let mut since = HashMap::with_capacity(raw.since.len());
        for (name, ts) in &raw.since {
            let time = SampleTime::from_millis(*ts).ok_or_else(|| {
                refused(
                    "bad_since",
                    format!("since of {:?} is {ts}; expected milliseconds since 1970", shown(name)),
                )
            })?;
            since.insert(name.clone(), time);
        }
        let mut named = HashSet::with_capacity(raw.series.len());
        let mut series = Vec::with_capacity(raw.series.len());
        for name in &raw.series {
            let key = series_of(name).map_err(|message| refused("bad_series", message))?;
            if named.insert(name.as_str()) {
                series.push(Wish { key, since: since.get(name).copied() });
            }
        }
        Ok(Self { id, series, rooms, since, backfill: raw.backfill, attention, cluster: raw.cluster })
    }
}

#[derive(Deserialize)]
struct RawEnter {
    room: String,
    id: String,
    name: Option<String>,
    #[serde(default)]
    call: bool,
}

impl Enter {
    fn new(raw: RawEnter) -> Result<Self, Refused> {
        let (room, id) = (room_of(&raw.room)?, person_of(&raw.id)?);
        let name = raw.name.unwrap_or_else(|| id.as_str().to_owned());
        let chars = name.chars().count();
        if chars == 0 || chars > MAX_NAME_CHARS || name.chars().any(char::is_control) {
            let message =
                format!("name {:?}; expected 1 to {MAX_NAME_CHARS} characters to print", shown(&name));
            return Err(Refused { code: "bad_name", message, id: None });
        }
        Ok(Self { room, id, name, call: raw.call })
    }
}

fn room_of(id: &str) -> Result<RoomId, Refused> {
    RoomId::new(id).map_err(|error| Refused { code: "bad_room", message: error.to_string(), id: None })
}

fn person_of(id: &str) -> Result<PersonId, Refused> {
    PersonId::new(id).map_err(|error| Refused { code: "bad_person", message: error.to_string(), id: None })
}

/// `sensor/attribute`, in two.
fn series_of(name: &str) -> Result<(SensorId, Attribute), String> {
    let (sensor, attribute) = name
        .split_once('/')
        .ok_or_else(|| format!("series {:?} has no `/`; expected sensor/attribute", shown(name)))?;
    let sensor = SensorId::new(sensor).map_err(|error| error.to_string())?;
    let attribute = Attribute::new(attribute).map_err(|error| error.to_string())?;
    Ok((sensor, attribute))
}

fn shown(text: &str) -> String {
    text.chars().take(SHOWN_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(text: &str) -> (&'static str, Option<u64>) {
        let refused = Message::parse(text).unwrap_err();
        assert!(!refused.message.is_empty() && refused.message.len() < 1000, "{refused}");
        (refused.code, refused.id)
    }

    #[test]
    fn a_watch_is_read_with_its_defaults() {
        let text = r#"{"type":"watch","id":1,"series":["strap-7/ecg","a/b","a/b"],"attention":"high",
                       "since":{"a/b":1763661600000.5}}"#;
        let Ok(Message::Watch(watch)) = Message::parse(text) else { panic!("a watch") };
        assert_eq!((watch.id, watch.backfill, watch.series.len(), watch.cluster), (1, 0, 2, false));
        assert_eq!(watch.series[0].since, None);
        assert_eq!(watch.series[1].since, Some(SampleTime(1_763_661_600_000_500)));
        assert_eq!(watch.attention, Level::High);
        assert_eq!(Message::parse(r#"{"type":"unwatch","id":7}"#), Ok(Message::Unwatch(7)));
        let Ok(Message::Enter(enter)) = Message::parse(r#"{"type":"enter","room":"r1","id":"ana"}"#) else {
            panic!("an enter")
        };
        assert_eq!((enter.id.as_str(), enter.name.as_str(), enter.call), ("ana", "ana", false));
        let long = "n".repeat(MAX_NAME_CHARS + 1);
        let text = format!(r#"{{"type":"enter","room":"r1","id":"ana","name":"{long}"}}"#);
        assert_eq!(code(&text), ("bad_name", None));
        let signal = Message::parse(r#"{"type":"signal","room":"r1","to":"ben","data":{"a":[1]}}"#);
        let Ok(Message::Signal { data, .. }) = signal else { panic!("a signal") };
        assert_eq!(data, serde_json::json!({"a": [1]}));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, expected) in [
            ("not json", ("bad_json", None)),
            ("[]", ("bad_message", None)),
            ("{}", ("bad_message", None)),
            (r#"{"type":7}"#, ("bad_message", None)),
            (r#"{"type":"dance","id":3}"#, ("unknown_type", Some(3))),
            (r#"{"type":"unwatch"}"#, ("bad_message", None)),
            (r#"{"type":"watch","series":["a/b"]}"#, ("bad_message", None)),
            (r#"{"type":"watch","id":-1}"#, ("bad_message", None)),
            (r#"{"type":"watch","id":3,"series":"a/b"}"#, ("bad_message", Some(3))),
            (r#"{"type":"watch","id":3,"series":["ab"]}"#, ("bad_series", Some(3))),
            (r#"{"type":"watch","id":3,"series":["a/b/c"]}"#, ("bad_series", Some(3))),
            (r#"{"type":"watch","id":3,"series":["/b"]}"#, ("bad_series", Some(3))),
            (r#"{"type":"watch","id":3,"attention":"wild"}"#, ("bad_attention", Some(3))),
            (r#"{"type":"watch","id":3,"backfill":-1}"#, ("bad_message", Some(3))),
            (r#"{"type":"watch","id":3,"backfill":100001}"#, ("bad_backfill", Some(3))),
            (r#"{"type":"watch","id":3,"series":["a/b"],"since":{"a/b":1e300}}"#, ("bad_since", Some(3))),
            (r#"{"type":"watch","id":3,"since":{"a/b":"1"}}"#, ("bad_message", Some(3))),
            (r#"{"type":"watch","id":3,"rooms":["r 1"]}"#, ("bad_room", Some(3))),
            (r#"{"type":"watch","id":3,"rooms":"r1"}"#, ("bad_message", Some(3))),
            (r#"{"type":"enter","room":"r 1","id":"ana"}"#, ("bad_room", None)),
            (r#"{"type":"enter","room":"r1","id":""}"#, ("bad_person", None)),
            (r#"{"type":"enter","room":"r1"}"#, ("bad_message", None)),
            (r#"{"type":"enter","room":"r1","id":"ana","name":""}"#, ("bad_name", None)),
            (r#"{"type":"leave"}"#, ("bad_room", None)),
            (r#"{"type":"signal","room":"r1","data":1}"#, ("bad_person", None)),
            (r#"{"type":"battery","level":7}"#, ("bad_message", None)),
        ] {
            assert_eq!(code(text), expected, "{text}");
        }
        let many: Vec<String> = (0..=MAX_SERIES_PER_WATCH).map(|index| format!("\"s{index}/a\"")).collect();
        let text = format!(r#"{{"type":"watch","id":3,"series":[{}]}}"#, many.join(","));
        assert_eq!(code(&text), ("too_many_series", Some(3)));
        let many = vec!["\"r1\""; MAX_ROOMS_PER_WATCH + 1].join(",");
        assert_eq!(
            code(&format!(r#"{{"type":"watch","id":3,"rooms":[{many}]}}"#)),
            ("too_many_rooms", Some(3))
        );
    }
}

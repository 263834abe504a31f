//! Identifiers: what a client may call things, and what the store calls them.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Longest id a client may use, in bytes.
pub const MAX_ID_BYTES: usize = 128;
/// Partitions of a cluster, fixed when it is born.
pub const PARTITIONS: u16 = 1024;

/// Why a text is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{what} {shown:?} {problem}; expected 1 to 128 of A-Z a-z 0-9 _ . : - starting with a letter or digit"
)]
pub struct IdError {
    what: &'static str,
    shown: String,
    problem: &'static str,
}

/// True for `^[A-Za-z0-9][A-Za-z0-9_.:-]{0,127}$`.
pub fn is_id(text: &str) -> bool {
    check(text).is_ok()
}

fn check(text: &str) -> Result<(), &'static str> {
    let bytes = text.as_bytes();
    match bytes {
        [] => Err("is empty"),
        _ if bytes.len() > MAX_ID_BYTES => Err("is longer than 128 bytes"),
        [first, ..] if !first.is_ascii_alphanumeric() => Err("starts with neither a letter nor a digit"),
        _ if bytes.iter().all(|b| b.is_ascii_alphanumeric() || b"_.:-".contains(b)) => Ok(()),
        _ => Err("has a character that an id may not have"),
    }
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Takes `text` when it matches the pattern of ids.
            pub fn new(text: &str) -> Result<Self, IdError> {
                match check(text) {
                    Ok(()) => Ok(Self(text.into())),
                    Err(problem) => Err(IdError {
                        what: $what,
                        shown: text.chars().take(MAX_ID_BYTES + 1).collect(),
                        problem,
                    }),
                }
            }

            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Self::new(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

text_id!(
    /// A thing that measures, by the name its owner gave it (`strap-7`).
    SensorId,
    "sensor"
);
text_id!(
    /// One thing that a sensor measures (`ecg`).
    Attribute,
    "attribute"
);
text_id!(
    /// A room: sensors and people under one name and join code.
    RoomId,
    "room"
);
text_id!(
    /// A person in rooms, by an id that stays the same on whichever node they are.
    PersonId,
    "person"
);
text_id!(
    /// A node, by the name its operator gave it; unique in a cluster.
    NodeName,
    "node name"
);

/// The first 128 bits of BLAKE3 over sensor and attribute, with a zero byte between.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SeriesId(pub [u8; 16]);

impl SeriesId {
    /// The id of the series of `attribute` of `sensor`.
    pub fn of(sensor: &SensorId, attribute: &Attribute) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(sensor.as_str().as_bytes());
        hasher.update(&[0]);
        hasher.update(attribute.as_str().as_bytes());
        let mut id = [0; 16];
        id.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        Self(id)
    }
}

impl fmt::Debug for SeriesId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// One of [`PARTITIONS`]: the unit of placement and replication.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Partition(pub u16);

impl Partition {
    /// The partition of everything that `sensor` measures: a pinned hash (BLAKE3), the same in every release.
    pub fn of(sensor: &SensorId) -> Self {
        let hash = blake3::hash(sensor.as_str().as_bytes());
        let bytes = hash.as_bytes();
        Self(u16::from_le_bytes([bytes[0], bytes[1]]) % PARTITIONS)
    }
}

/// A node's disk: drawn once when the data directory is made.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct NodeId(pub u64);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The author of blocks: a node in one of its runs. `start` is random and drawn anew at each start, so that a
/// block number is never used twice, even after a restored backup.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Origin {
    /// Whose disk.
    pub node: NodeId,
    /// Which run of it.
    pub start: u64,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{:016x}", self.node, self.start)
    }
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_follow_the_pattern_of_the_contract() {
        for good in ["a", "7", "strap-7", "a_b.c:d-e", &"x".repeat(128)] {
            assert!(SensorId::new(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", ".a", "a/b", "a b", "ä", "aä", "a\0", &"x".repeat(129)] {
            assert!(SensorId::new(bad).is_err(), "{bad}");
        }
        let error = SensorId::new("a/b").unwrap_err().to_string();
        assert!(error.contains("sensor \"a/b\""), "{error}");
    }

    #[test]
    fn hashes_are_pinned() {
        let (sensor, attribute) = (SensorId::new("strap-7").unwrap(), Attribute::new("ecg").unwrap());
        assert_eq!(format!("{:?}", SeriesId::of(&sensor, &attribute)), "fc04e2771d847b39cdb1f237c4f63eb8");
        assert_eq!(Partition::of(&sensor), Partition(1005));
    }
}

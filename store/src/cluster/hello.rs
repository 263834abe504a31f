//! What two nodes tell each other when a link opens, and whether they can be of one cluster.
//!
//! No I/O: [`agree`] judges two hellos, and a [`Refusal`] says to both sides, in the same words, what was wrong, with
//! both values and what to do. The form of these messages is the same in every version of the protocol; what a later
//! version wants to know beyond it, it asks after the link is open.

use std::fmt;
use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use super::secret::PROOF_BYTES;
use crate::model::ids::{IdError, NodeId, NodeName};

/// The versions of the protocol on links that this program speaks: least and most.
pub const VERSIONS: (u16, u16) = (1, 2);
/// From this version on a node tells what passes in tables ([`crate::replica::message::Message::News`]).
pub const NEWS: u16 = 2;
/// The version from which on nodes know rooms. Blocks cannot be held back from an older node, since their numbers have no
/// gaps: none is made while one is linked, and none is linked where there are any.
pub const KNOW_ROOMS: u16 = 2;
/// From this version on a node speaks of folds ([`crate::replica::fold`]).
pub const FOLDS: u16 = 2;
/// Longest text of a hello (an address, a zone), in bytes; a node that says more is refused.
pub const MAX_TEXT_BYTES: usize = 512;
/// Longest reason of a refusal that is passed on, in characters; the rest is cut off.
pub const MAX_REASON_CHARS: usize = 600;

/// What a node says of itself when a link opens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// The protocol versions that it speaks: least and most ([`VERSIONS`]; a test may say otherwise).
    pub versions: (u16, u16),
    /// Its disk.
    pub node: NodeId,
    /// Its run: with `node`, the origin of its blocks.
    pub start: u64,
    /// Its operator's name for it.
    pub name: NodeName,
    /// Partitions that its data directory was made with.
    pub partitions: u16,
    /// Nodes that keep a partition, as it was told.
    pub replicas: u16,
    /// Where peers reach it, `HOST:PORT`.
    pub peer: String,
    /// What browsers are told, as a URL.
    pub http: String,
    /// What MQTT devices are told, as a URL; `None` when it takes none.
    pub mqtt: Option<String>,
    /// Its availability zone.
    pub zone: Option<String>,
}

/// Why a link was not opened, as a program may ask it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The cluster secrets differ.
    Secret,
    /// The numbers of partitions differ.
    Partitions,
    /// The numbers of replicas differ.
    Replicas,
    /// There is no version of the protocol that both speak.
    Version,
    /// A live node has the name already.
    NameTaken,
    /// The node called itself.
    Oneself,
    /// Another link to the same node is kept instead ([`super::link::keep`]).
    Doubled,
    /// Something else, perhaps known to a later version only.
    Other,
}

impl Cause {
    const ALL: [(Self, u8); 8] = [
        (Self::Other, 0),
        (Self::Secret, 1),
        (Self::Partitions, 2),
        (Self::Replicas, 3),
        (Self::Version, 4),
        (Self::NameTaken, 5),
        (Self::Oneself, 6),
        (Self::Doubled, 7),
    ];

    fn code(self) -> u8 {
        Self::ALL.iter().find(|(cause, _)| *cause == self).map_or(0, |(_, code)| *code)
    }

    fn of(code: u8) -> Self {
        Self::ALL.iter().find(|(_, known)| *known == code).map_or(Self::Other, |(cause, _)| *cause)
    }
}

/// Why a link was not opened: said by one side, known to both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// For programs.
    pub cause: Cause,
    /// For people: what was wrong, with both values, and what to do.
    pub reason: String,
}

impl Refusal {
    /// A refusal in the caller's own words.
    pub fn new(cause: Cause, reason: impl Into<String>) -> Self {
        Self { cause, reason: reason.into() }
    }

    /// `theirs` has the name of a live node, which is at `address`.
    pub fn name_taken(theirs: &Hello, holder: NodeId, address: &str) -> Self {
        let (name, node) = (&theirs.name, theirs.node);
        Self::new(
            Cause::NameTaken,
            format!(
                "the name {name} belongs to the live node {holder} at {address}, so node {node} at {} cannot have it: \
                 start that one with another --name, or stop the one that has it",
                theirs.peer
            ),
        )
    }

    /// `theirs` would not understand what `mine` holds.
    pub fn older(mine: &Hello, theirs: &Hello) -> Self {
        Self::new(
            Cause::Version,
            format!(
                "node {} holds rooms or retained messages, which node {} does not know (it speaks versions {} to {} on links, they need {KNOW_ROOMS}): \
                 upgrade node {}",
                mine.name, theirs.name, theirs.versions.0, theirs.versions.1, theirs.name
            ),
        )
    }

    pub(super) fn secret() -> Self {
        Self::new(
            Cause::Secret,
            "the cluster secrets of the two nodes differ: start both with the same --cluster-secret, or both without one",
        )
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

/// Whether the two can be of one cluster: the version of the protocol to speak, which is the highest that both know.
pub fn agree(mine: &Hello, theirs: &Hello) -> Result<u16, Refusal> {
    let (me, they) = (&mine.name, &theirs.name);
    if (mine.node, mine.start) == (theirs.node, theirs.start) {
        return Err(Refusal::new(
            Cause::Oneself,
            format!("node {me} called itself: leave its own address out of its --join"),
        ));
    }
    if mine.partitions != theirs.partitions {
        return Err(Refusal::new(
            Cause::Partitions,
            format!(
                "node {me} has {} partitions, node {they} has {}: they belong to different clusters; \
                 a data directory stays with its cluster, so start one of the two with another --data or --join",
                mine.partitions, theirs.partitions
            ),
        ));
    }
    if mine.replicas != theirs.replicas {
        return Err(Refusal::new(
            Cause::Replicas,
            format!(
                "node {me} has --replicas {}, node {they} has --replicas {}: \
                 start all nodes of a cluster with the same --replicas",
                mine.replicas, theirs.replicas
            ),
        ));
    }
    let versions = |(least, most): (u16, u16)| -> RangeInclusive<u16> { least..=most };
    let common = mine.versions.1.min(theirs.versions.1);
    if versions(mine.versions).contains(&common) && versions(theirs.versions).contains(&common) {
        return Ok(common);
    }
    Err(Refusal::new(
        Cause::Version,
        format!(
            "node {me} speaks versions {} to {} on links, node {they} speaks {} to {}: \
             upgrade the older one through a release that speaks a version of both",
            mine.versions.0, mine.versions.1, theirs.versions.0, theirs.versions.1
        ),
    ))
}

/// The messages that open a link. Their form never changes: nodes of all versions must be able to refuse each other.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Opening {
    /// Of the cluster secret, over the exporter of the connection.
    Proof([u8; PROOF_BYTES]),
    /// Who I am.
    Hello(Said),
    /// I take you.
    Admitted,
    /// I do not take you, and close.
    Refused { cause: u8, reason: String },
}

/// A [`Hello`] on the wire.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Said {
    versions: (u16, u16),
    node: u64,
    start: u64,
    name: String,
    partitions: u16,
    replicas: u16,
    peer: String,
    http: String,
    mqtt: Option<String>,
    zone: Option<String>,
}

/// Why a hello makes no sense.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadHello {
    #[error(transparent)]
    Name(#[from] IdError),
    #[error("{0} of {1} bytes is longer than {MAX_TEXT_BYTES}")]
    Long(&'static str, usize),
    #[error("{0} has a control character")]
    Control(&'static str),
}

impl From<&Hello> for Said {
    fn from(hello: &Hello) -> Self {
        Self {
            versions: hello.versions,
            node: hello.node.0,
            start: hello.start,
            name: hello.name.as_str().to_owned(),
            partitions: hello.partitions,
            replicas: hello.replicas,
            peer: hello.peer.clone(),
            http: hello.http.clone(),
            mqtt: hello.mqtt.clone(),
            zone: hello.zone.clone(),
        }
    }
}

impl TryFrom<Said> for Hello {
    type Error = BadHello;

    fn try_from(said: Said) -> Result<Self, BadHello> {
        for (what, text) in [
            ("peer", Some(&said.peer)),
            ("http", Some(&said.http)),
            ("mqtt", said.mqtt.as_ref()),
            ("zone", said.zone.as_ref()),
        ] {
            let text = text.map_or("", String::as_str);
            if text.len() > MAX_TEXT_BYTES {
                return Err(BadHello::Long(what, text.len()));
            }
            if text.chars().any(char::is_control) {
                return Err(BadHello::Control(what));
            }
        }
        Ok(Self {
            versions: said.versions,
            node: NodeId(said.node),
            start: said.start,
            name: NodeName::new(&said.name)?,
            partitions: said.partitions,
            replicas: said.replicas,
            peer: said.peer,
            http: said.http,
            mqtt: said.mqtt,
            zone: said.zone,
        })
    }
}

impl From<&Refusal> for Opening {
    fn from(refusal: &Refusal) -> Self {
        Self::Refused {
            cause: refusal.cause.code(),
            reason: refusal.reason.chars().take(MAX_REASON_CHARS).collect(),
        }
    }
}

/// The refusal that a peer sent. It may come from anybody, and is shown to people: nothing but plain text of it is kept.
pub(super) fn heard(cause: u8, reason: &str) -> Refusal {
    let plain = reason.chars().take(MAX_REASON_CHARS).map(|c| if c.is_control() { ' ' } else { c });
    Refusal { cause: Cause::of(cause), reason: plain.collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello(name: &str, node: u64) -> Hello {
        Hello {
            versions: (1, 2),
            node: NodeId(node),
            start: 7,
            name: NodeName::new(name).unwrap(),
            partitions: 1024,
            replicas: 3,
            peer: format!("{name}:4400"),
            http: format!("http://{name}"),
            mqtt: None,
            zone: Some("z".into()),
        }
    }

    #[test]
    fn the_highest_common_version_is_spoken() {
        let a = hello("a", 1);
        for (theirs, common) in
            [((1, 1), Some(1)), ((1, 9), Some(2)), ((2, 3), Some(2)), ((3, 4), None), ((0, 0), None)]
        {
            let b = Hello { versions: theirs, ..hello("b", 2) };
            assert_eq!(agree(&a, &b).ok(), common, "{theirs:?}");
            assert_eq!(agree(&b, &a).ok(), common, "{theirs:?}");
        }
        let reason = agree(&a, &Hello { versions: (3, 4), ..hello("b", 2) }).unwrap_err().reason;
        assert!(
            reason.contains("1 to 2") && reason.contains("3 to 4") && reason.contains("node b"),
            "{reason}"
        );
        let swapped = Hello { versions: (9, 2), ..hello("b", 2) };
        assert_eq!(
            agree(&a, &swapped).unwrap_err().cause,
            Cause::Version,
            "an empty range has no common version"
        );
    }

    #[test]
    fn another_cluster_is_refused_with_both_values() {
        let a = hello("a", 1);
        let other = agree(&a, &Hello { partitions: 512, ..hello("b", 2) }).unwrap_err();
        assert_eq!(other.cause, Cause::Partitions);
        assert!(other.reason.contains("1024") && other.reason.contains("512"), "{other}");
        let other = agree(&a, &Hello { replicas: 5, ..hello("b", 2) }).unwrap_err();
        assert_eq!(other.cause, Cause::Replicas);
        assert!(other.reason.contains("--replicas 3") && other.reason.contains("--replicas 5"), "{other}");
        assert_eq!(agree(&a, &a).unwrap_err().cause, Cause::Oneself);
        assert_eq!(
            agree(&a, &Hello { start: 8, ..a.clone() }),
            Ok(2),
            "a later run of the same node is not itself"
        );
    }

    #[test]
    fn a_hello_survives_the_wire_and_nonsense_does_not() {
        let a = Hello { mqtt: Some("mqtt://a".into()), ..hello("a", 1) };
        let bytes = postcard::to_stdvec(&Opening::Hello((&a).into())).unwrap();
        let Opening::Hello(said) = postcard::from_bytes(&bytes).unwrap() else { panic!("another message") };
        assert_eq!(Hello::try_from(said).unwrap(), a);
        let with = |change: fn(&mut Said)| {
            let mut said = Said::from(&a);
            change(&mut said);
            Hello::try_from(said).unwrap_err()
        };
        assert!(matches!(with(|said| said.name = "a b".into()), BadHello::Name(_)));
        assert_eq!(with(|said| said.zone = Some("z".repeat(513))), BadHello::Long("zone", 513));
        assert_eq!(with(|said| said.http = "http://a\r\nx".into()), BadHello::Control("http"));
    }

    #[test]
    fn causes_survive_the_wire_and_unknown_ones_are_other() {
        for (cause, code) in Cause::ALL {
            assert_eq!((Cause::of(code), cause.code()), (cause, code));
        }
        assert_eq!(Cause::of(200), Cause::Other);
        let heard = heard(5, &format!("a\x1b[2J\n{}", "x".repeat(5000)));
        assert_eq!(heard.cause, Cause::NameTaken);
        assert!(heard.reason.starts_with("a [2J x"), "{heard}");
        assert_eq!(heard.reason.chars().count(), MAX_REASON_CHARS);
    }
}

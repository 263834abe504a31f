//! The messages of the device protocol over WebSocket, in both directions: JSON text frames, or the same objects in CBOR
//! with the subprotocol [`CBOR`].
//!
//! Devices write [`ToNode`] and read [`FromNode`]. The node reads what devices write with [`super::read`], which makes
//! no object of every sample.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize};

/// Where devices connect.
pub const PATH: &str = "/api/v1/ingest/ws";
/// The subprotocol of CBOR frames.
pub const CBOR: &str = "sensorium.cbor";

/// What a node says to a device.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum FromNode {
    /// The answer to a good `hello`.
    Welcome {
        /// The node's name.
        node: String,
        /// Addresses of all nodes, this one first.
        nodes: Vec<String>,
        /// What it takes.
        limits: Limits,
    },
    /// Nodes came or went since the welcome.
    Nodes {
        /// Addresses of all nodes, this one first.
        nodes: Vec<String>,
    },
    /// Every frame up to `seq` is kept, or was refused by an earlier error.
    Ack {
        /// The last such frame.
        seq: u64,
        /// On how many nodes, at the least.
        copies: u8,
    },
    /// A frame was refused whole, or could not be read (then without `seq`).
    Error {
        /// Which frame.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        seq: Option<u64>,
        /// One of the table of codes.
        code: String,
        /// What was wrong, with the value.
        message: String,
    },
    /// How closely the device is watched, and so how long it should batch.
    Advice {
        /// `none`, `low`, `medium` or `high`.
        attention: String,
        /// Batch for so long.
        window_ms: u64,
        /// Or until there are so many.
        max_samples: u64,
        /// Stop sending for now.
        paused: bool,
    },
    /// Something the device's owner should know.
    Notice {
        /// One of the table of codes.
        code: String,
        /// For people.
        message: String,
    },
    /// This node is going away: connect to another one.
    Reconnect {
        /// Wait so long first.
        delay_ms: u64,
        /// Where to.
        nodes: Vec<String>,
    },
    /// A command for the device.
    Command {
        /// To be repeated in the reply.
        id: String,
        /// What to do.
        name: String,
        /// How.
        #[serde(default)]
        params: serde_json::Value,
    },
}

/// What a node takes in one frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// A larger frame closes the connection (1009).
    pub max_frame_bytes: usize,
    /// A frame of more samples is refused.
    pub max_samples_per_frame: usize,
}

/// What a device says to a node.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ToNode<'a> {
    /// The first message.
    Hello(Hello),
    /// Measurements.
    Samples(Samples<'a>),
    /// The answer to a command.
    Reply {
        /// The command's.
        id: String,
        /// What came of it.
        result: serde_json::Value,
    },
}

/// Who the device is, and what it measures.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Hello {
    /// Its id.
    pub sensor: String,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What it measures.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, Attribute>,
    /// Its token, where it is not in the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
}

/// What is said of an attribute.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Attribute {
    /// Kind, by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Unit, where the kind fixes none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// Samples a second.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "number")]
    pub rate_hz: Option<f64>,
    /// Samples to keep.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep: Option<u64>,
    /// Names of the channels, where they are not the kind's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channels: Option<Vec<String>>,
}

/// A frame of measurements: either `samples`, or `attribute`, `ts`, `interval_ms` and `values`.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Samples<'a> {
    /// Its number on the connection, from 1.
    pub seq: u64,
    /// Whose, where it is not the one of `hello`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sensor: Option<&'a str>,
    /// Of all `values`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attribute: Option<&'a str>,
    /// Of the first of `values`, in milliseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ts: Option<f64>,
    /// Between `values`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval_ms: Option<f64>,
    /// Evenly spaced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub values: Option<&'a [Value]>,
    /// Each with its attribute and time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub samples: Option<&'a [Sample<'a>]>,
}

/// One measurement.
#[derive(Debug, Clone, Serialize)]
pub struct Sample<'a> {
    /// Whose, where it is not the frame's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sensor: Option<&'a str>,
    /// Of what.
    pub attribute: &'a str,
    /// When, in milliseconds since 1970; left out, the node gives a time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ts: Option<f64>,
    /// What.
    pub value: &'a Value,
}

/// A measured value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Value {
    /// One channel.
    Number(f64),
    /// Several; `None` where one is missing.
    Numbers(Vec<Option<f64>>),
    /// A text.
    Text(String),
}

/// A number however it is written: CBOR tells `250` from `250.0`, and devices write both.
fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
    struct Number;
    impl Visitor<'_> for Number {
        type Value = Option<f64>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a number")
        }
        fn visit_f64<E>(self, number: f64) -> Result<Option<f64>, E> {
            Ok(Some(number))
        }
        fn visit_u64<E>(self, number: u64) -> Result<Option<f64>, E> {
            Ok(Some(number as f64))
        }
        fn visit_i64<E>(self, number: i64) -> Result<Option<f64>, E> {
            Ok(Some(number as f64))
        }
        fn visit_none<E>(self) -> Result<Option<f64>, E> {
            Ok(None)
        }
        fn visit_unit<E>(self) -> Result<Option<f64>, E> {
            Ok(None)
        }
    }
    deserializer.deserialize_any(Number)
}

/// Writes a message as CBOR.
pub fn to_cbor(message: &impl Serialize) -> Vec<u8> {
    cbor4ii::serde::to_vec(Vec::new(), message)
        .expect("a vector takes all bytes, and no message has a map of unknown length")
}

/// Reads a message from CBOR; the error says what did not fit.
pub fn from_cbor<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, String> {
    cbor4ii::serde::from_slice(bytes).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_those_of_the_contract() {
        let error = FromNode::Error { seq: Some(3), code: "seq_gap".into(), message: "m".into() };
        let text = serde_json::to_string(&error).unwrap();
        assert_eq!(text, r#"{"type":"error","seq":3,"code":"seq_gap","message":"m"}"#);
        assert_eq!(serde_json::from_str::<FromNode>(&text).unwrap(), error);
        assert_eq!(from_cbor::<FromNode>(&to_cbor(&error)).unwrap(), error);

        let hello = Hello { sensor: "strap-7".into(), ..Hello::default() };
        let text = serde_json::to_string(&ToNode::Hello(hello)).unwrap();
        assert_eq!(text, r#"{"type":"hello","sensor":"strap-7"}"#);

        let values = [Value::Number(0.11), Value::Numbers(vec![Some(1.0), None]), Value::Text("x".into())];
        let samples = Samples {
            seq: 2,
            attribute: Some("ecg"),
            ts: Some(5.0),
            values: Some(&values),
            ..Samples::default()
        };
        let text = serde_json::to_string(&ToNode::Samples(samples)).unwrap();
        assert_eq!(
            text,
            r#"{"type":"samples","seq":2,"attribute":"ecg","ts":5.0,"values":[0.11,[1.0,null],"x"]}"#
        );
    }
}

//! Sensors as the API and the live socket describe them.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Path, State as Extract};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde::{Serialize, Serializer};
use serde_json::json;
use serde_json::value::RawValue;
use store::{AttributeView, OwnedValue, Page, SampleTime, SensorId, SensorView, ValueRef};

use super::query::Query;
use crate::State;
use crate::encode::{push_ts, push_value};
use crate::error::ApiError;

/// Sensors in an answer that asks for no number.
const DEFAULT_LIMIT: usize = 100;
/// Most sensors in one answer; more come by `next`.
const MAX_LIMIT: usize = 1000;

/// A sensor as JSON.
#[derive(Debug, Serialize)]
pub(crate) struct Described<'a> {
    /// What kind of message it is, on the live socket.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    message: Option<&'static str>,
    sensor: &'a str,
    name: Option<&'a str>,
    online: bool,
    node: &'a str,
    last_ts: Option<Ts>,
    attributes: BTreeMap<&'a str, Attribute<'a>>,
    /// It was cleared, and nothing came since: only said on the live socket.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    gone: bool,
}

#[derive(Debug, Serialize)]
struct Attribute<'a> {
    kind: &'static str,
    unit: &'a str,
    channels: &'a [String],
    units: &'a [String],
    rate_hz: Option<f64>,
    keep: usize,
    held: usize,
    last: Option<Last<'a>>,
}

#[derive(Debug, Serialize)]
struct Last<'a> {
    ts: Ts,
    value: Value<'a>,
}

/// A time as `ts`, exact to the microsecond.
#[derive(Debug)]
struct Ts(SampleTime);

#[derive(Debug)]
struct Value<'a>(&'a OwnedValue);

/// Writes JSON that `write` makes, as it is.
fn raw<S: Serializer>(serializer: S, write: impl FnOnce(&mut String)) -> Result<S::Ok, S::Error> {
    let mut text = String::new();
    write(&mut text);
    RawValue::from_string(text).map_err(serde::ser::Error::custom)?.serialize(serializer)
}

impl Serialize for Ts {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        raw(serializer, |out| push_ts(out, self.0))
    }
}

impl Serialize for Value<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        raw(serializer, |out| match self.0 {
            OwnedValue::Numbers(numbers) => push_value(out, ValueRef::Numbers(numbers)),
            OwnedValue::Text(text) => push_value(out, ValueRef::Text(text)),
        })
    }
}

impl<'a> Described<'a> {
    /// A sensor of which there is nothing any more.
    pub(crate) fn gone(sensor: &'a SensorId) -> Self {
        Self {
            message: None,
            sensor: sensor.as_str(),
            name: None,
            online: false,
            node: "",
            last_ts: None,
            attributes: BTreeMap::new(),
            gone: true,
        }
    }

    /// The sensor as a message of the live socket.
    pub(crate) fn message(mut self) -> String {
        self.message = Some("sensor");
        serde_json::to_string(&self).expect("a sensor has only text keys and finite numbers")
    }
}

impl<'a> From<&'a SensorView> for Described<'a> {
    fn from(view: &'a SensorView) -> Self {
        Self {
            message: None,
            sensor: view.sensor.as_str(),
            name: view.name.as_deref(),
            online: view.online,
            node: view.node.as_str(),
            last_ts: view.last.map(Ts),
            attributes: view.attributes.iter().map(|(name, view)| (name.as_str(), view.into())).collect(),
            gone: false,
        }
    }
}

impl<'a> From<&'a AttributeView> for Attribute<'a> {
    fn from(view: &'a AttributeView) -> Self {
        Self {
            kind: view.kind.name(),
            unit: &view.unit,
            channels: &view.channels,
            units: &view.units,
            rate_hz: view.rate_hz,
            keep: view.keep,
            held: view.held,
            last: view.last.as_ref().map(|(time, value)| Last { ts: Ts(*time), value: Value(value) }),
        }
    }
}

#[derive(Serialize)]
struct List<'a> {
    sensors: Vec<Described<'a>>,
    next: Option<String>,
}

/// `GET sensors?room=&q=&limit=&cursor=`.
pub(super) async fn list(Extract(state): Extract<State>, uri: Uri) -> Result<Response, ApiError> {
    let query = Query::of(&uri)?;
    let owned = |text: Option<&str>| text.filter(|text| !text.is_empty()).map(str::to_owned);
    let page = Page {
        q: owned(query.text("q")?),
        after: owned(query.text("cursor")?),
        limit: query.number("limit", 1..=MAX_LIMIT)?.unwrap_or(DEFAULT_LIMIT),
    };
    let (views, next) = match query.text("room")?.filter(|room| !room.is_empty()) {
        Some(room) => state.store().sensors_of(room, &page).ok_or_else(|| ApiError::unknown_room(room))?,
        None => state.store().sensors(&page),
    };
    let sensors: Vec<Described<'_>> = views.iter().map(Described::from).collect();
    Ok(Json(List { sensors, next }).into_response())
}

/// `GET sensors/{sensor}`.
pub(super) async fn one(
    Extract(state): Extract<State>,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    let view = state.store().sensor(&id).ok_or_else(|| ApiError::unknown_sensor(&id))?;
    Ok(Json(Described::from(&view)).into_response())
}

/// `DELETE sensors/{sensor}`: answered when the clear is kept as samples are, on this node and on peers.
pub(super) async fn clear(
    Extract(state): Extract<State>,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    let sensor = SensorId::new(&id).ok();
    let cleared = sensor.and_then(|sensor| state.store().clear(&sensor));
    let ticket = cleared.ok_or_else(|| ApiError::unknown_sensor(&id))?;
    ticket.kept().await.map_err(|failed| ApiError::store_failed(&failed))?;
    Ok(StatusCode::NO_CONTENT)
}

/// `GET sensors/{sensor}/ledger`.
pub(super) async fn ledger(
    Extract(state): Extract<State>,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    let ledger = state.store().ledger(&id).ok_or_else(|| ApiError::unknown_sensor(&id))?;
    Ok(Json(json!({
        "received": ledger.received,
        "stored": ledger.stored,
        "duplicate": ledger.duplicate,
        "late": ledger.late,
        "replaced": ledger.replaced,
        "cleared": ledger.cleared,
        "evicted": ledger.evicted,
        // One node alone has no other side to merge with.
        "merged": 0,
        "refused": ledger.refused,
    }))
    .into_response())
}

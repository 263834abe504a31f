//! Rooms: who is in one.

use axum::Json;
use axum::extract::{Path, State as Extract};
use axum::http::StatusCode;
use serde_json::{Value, json};
use store::RoomId;

use crate::State;
use crate::error::ApiError;
use crate::rooms;

/// `GET rooms/{room}/presence`.
pub(super) async fn presence(
    Extract(state): Extract<State>,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let room = RoomId::new(&id).ok().filter(|room| rooms::exists(state.store(), room));
    let room = room.ok_or_else(|| {
        let shown: String = id.chars().take(160).collect();
        ApiError::new(StatusCode::NOT_FOUND, "unknown_room", format!("there is no room {shown:?}"))
    })?;
    let people: Vec<_> = state.store().people(&room).iter().map(rooms::person).collect();
    let sensors = state.store().room(room.as_str()).map(|room| room.sensors).unwrap_or_default();
    let devices = sensors.iter().flat_map(|sensor| {
        let nodes = state.store().device_nodes(sensor).into_iter();
        nodes.map(|node| json!({ "sensor": sensor.as_str(), "node": node.as_str() }))
    });
    let devices: Vec<_> = devices.collect();
    Ok(Json(json!({ "people": people, "devices": devices })))
}

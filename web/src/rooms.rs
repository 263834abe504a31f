//! Rooms, as the API, the live socket and the pages speak of them; and the one way to open one by its code.

use std::net::IpAddr;
use std::time::Instant;

use axum::http::StatusCode;
use serde_json::{Value, json};
use store::{JoinCode, Present, RoomView};

use crate::State;
use crate::error::{ApiError, shown};
use crate::guesses::Guess;

/// A room: `{"room","name","join_code","temporary","sensors","members"}`. Its code is `null` while another room that drew
/// the same one has it.
pub(crate) fn described(view: &RoomView) -> Value {
    let sensors: Vec<_> = view.sensors.iter().map(store::SensorId::as_str).collect();
    let member = |member: &store::MemberView| {
        let (id, role) = (member.member.as_str(), member.role.name());
        json!({ "id": id, "name": member.name, "role": role })
    };
    let members: Vec<_> = view.members.iter().map(member).collect();
    json!({
        "room": view.room.as_str(),
        "name": view.name,
        "join_code": view.join_code.map(|code| code.to_string()),
        "temporary": view.temporary,
        "sensors": sensors,
        "members": members,
    })
}

/// Somebody who is in a room: `{"id","name","node","since","call"}`, `since` in milliseconds since 1970.
pub(crate) fn person(person: &Present) -> Value {
    json!({
        "id": person.id.as_str(),
        "name": person.name,
        "node": person.node.as_str(),
        "since": person.since.millis().floor() as i64,
        "call": person.call,
    })
}

/// The room that a code opens for who asks from `from`: 404, or 429 for who guesses.
pub(crate) fn opened(state: &State, from: IpAddr, code: &str) -> Result<RoomView, ApiError> {
    let store = state.store();
    let find = || {
        let room = store.room_by_code(JoinCode::parse(code)?)?;
        store.room(room.as_str())
    };
    match state.guesses().guess(from, Instant::now(), find) {
        Guess::Right(room) => Ok(room),
        Guess::Wrong => {
            let message = format!("no room has the join code {:?}", shown(code));
            Err(ApiError::new(StatusCode::NOT_FOUND, "unknown_join_code", message))
        }
        Guess::Refused(wait) => {
            let message = "too many wrong join codes came from your address; wait before the next one";
            Err(ApiError::new(StatusCode::TOO_MANY_REQUESTS, "too_many_wrong_codes", message)
                .retry_after(wait))
        }
    }
}

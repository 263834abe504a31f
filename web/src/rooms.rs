//! Rooms, as the API and the live socket speak of them; and the one place that says which rooms there are.

use serde_json::{Value, json};
use store::{Present, RoomId, Store};

/// Whether people may enter such a room. The API makes no rooms yet: one is wherever people enter it. Once it does, this
/// is to be `store.room(room.as_str()).is_some()`.
pub(crate) fn exists(_: &Store, _: &RoomId) -> bool {
    true
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

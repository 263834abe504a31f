//! Rooms: made, changed, opened by their code, and who is in them. What changes something answers when it is kept: on
//! the disks of as many nodes as an acknowledged sample.

use axum::extract::{DefaultBodyLimit, Path, State as Extract};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use store::{MemberWish, NewRoom, PersonId, Role, RoomId, SensorId, Ticket};

use super::body::{Body, MAX_BODY_BYTES};
use crate::State;
use crate::error::{ApiError, shown};
use crate::rooms;
use crate::server::Peer;

pub(super) fn router() -> Router<State> {
    Router::new()
        .route("/api/v1/rooms", get(list).post(create))
        .route("/api/v1/rooms/{room}", get(one).patch(rename).delete(delete))
        .route("/api/v1/rooms/{room}/join-code", post(renew))
        .route("/api/v1/rooms/{room}/sensors/{sensor}", put(add_sensor).delete(remove_sensor))
        .route("/api/v1/rooms/{room}/members/{id}", put(put_member).delete(remove_member))
        .route("/api/v1/rooms/{room}/presence", get(presence))
        .route("/api/v1/join/{code}", get(join))
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
}

/// What `POST rooms` asks for.
#[derive(Debug, Deserialize)]
struct Wish {
    name: String,
    #[serde(default)]
    temporary: bool,
    #[serde(default)]
    sensors: Vec<String>,
}

/// What `PATCH rooms/{room}` asks for.
#[derive(Debug, Deserialize)]
struct Rename {
    name: String,
}

/// What `PUT rooms/{room}/members/{id}` says; what is missing stays as it is.
#[derive(Debug, Deserialize)]
struct Member {
    name: Option<String>,
    role: Option<String>,
}

/// The room of a path. What is no id is no room.
fn room_of(id: &str) -> Result<RoomId, ApiError> {
    RoomId::new(id).map_err(|_| ApiError::unknown_room(id))
}

fn sensor_of(id: &str) -> Result<SensorId, ApiError> {
    SensorId::new(id).map_err(|error| ApiError::bad_id(&error))
}

fn person_of(id: &str) -> Result<PersonId, ApiError> {
    PersonId::new(id).map_err(|error| ApiError::bad_id(&error))
}

async fn kept(ticket: Ticket) -> Result<(), ApiError> {
    ticket.kept().await.map(drop).map_err(|failed| ApiError::store_failed(&failed))
}

/// A room as it is now.
fn now(state: &State, room: &RoomId) -> Result<Json<Value>, ApiError> {
    let view = state.store().room(room.as_str()).ok_or_else(|| ApiError::unknown_room(room.as_str()))?;
    Ok(Json(rooms::described(&view)))
}

/// `GET rooms`.
async fn list(Extract(state): Extract<State>) -> Json<Value> {
    let all: Vec<_> = state.store().rooms().iter().map(rooms::described).collect();
    Json(json!({ "rooms": all }))
}

/// `POST rooms`.
async fn create(Extract(state): Extract<State>, Body(wish): Body<Wish>) -> Result<Response, ApiError> {
    let Wish { name, temporary, sensors } = wish;
    let sensors = sensors.iter().map(|id| sensor_of(id)).collect::<Result<_, _>>()?;
    let (view, ticket) = state.store().create_room(NewRoom { name, temporary, sensors })?;
    kept(ticket).await?;
    Ok((StatusCode::CREATED, Json(rooms::described(&view))).into_response())
}

/// `GET rooms/{room}`.
async fn one(Extract(state): Extract<State>, Path(id): Path<String>) -> Result<Json<Value>, ApiError> {
    now(&state, &room_of(&id)?)
}

/// `PATCH rooms/{room}`.
async fn rename(
    Extract(state): Extract<State>,
    Path(id): Path<String>,
    Body(Rename { name }): Body<Rename>,
) -> Result<Json<Value>, ApiError> {
    let room = room_of(&id)?;
    kept(state.store().rename_room(&room, name)?).await?;
    now(&state, &room)
}

/// `DELETE rooms/{room}`.
async fn delete(Extract(state): Extract<State>, Path(id): Path<String>) -> Result<StatusCode, ApiError> {
    kept(state.store().delete_room(&room_of(&id)?)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST rooms/{room}/join-code`.
async fn renew(Extract(state): Extract<State>, Path(id): Path<String>) -> Result<Json<Value>, ApiError> {
    let room = room_of(&id)?;
    let (_, ticket) = state.store().renew_join_code(&room)?;
    kept(ticket).await?;
    now(&state, &room)
}

/// `PUT rooms/{room}/sensors/{sensor}`.
async fn add_sensor(
    Extract(state): Extract<State>,
    Path((id, sensor)): Path<(String, String)>,
) -> Result<StatusCode, ApiError> {
    kept(state.store().add_sensor(&room_of(&id)?, &sensor_of(&sensor)?)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `DELETE rooms/{room}/sensors/{sensor}`.
async fn remove_sensor(
    Extract(state): Extract<State>,
    Path((id, sensor)): Path<(String, String)>,
) -> Result<StatusCode, ApiError> {
    kept(state.store().remove_sensor(&room_of(&id)?, &sensor_of(&sensor)?)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `PUT rooms/{room}/members/{id}`.
async fn put_member(
    Extract(state): Extract<State>,
    Path((id, member)): Path<(String, String)>,
    Body(Member { name, role }): Body<Member>,
) -> Result<StatusCode, ApiError> {
    let role = role.map(|role| Role::parse(&role).ok_or_else(|| bad_role(&role))).transpose()?;
    let wish = MemberWish { name, role };
    kept(state.store().put_member(&room_of(&id)?, &person_of(&member)?, wish)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn bad_role(role: &str) -> ApiError {
    let message = format!("role {:?}; expected {}", shown(role), Role::ALL.map(Role::name).join(", "));
    ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "bad_role", message)
}

/// `DELETE rooms/{room}/members/{id}`.
async fn remove_member(
    Extract(state): Extract<State>,
    Path((id, member)): Path<(String, String)>,
) -> Result<StatusCode, ApiError> {
    kept(state.store().remove_member(&room_of(&id)?, &person_of(&member)?)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `GET join/{code}`.
async fn join(
    Extract(state): Extract<State>,
    Peer(from): Peer,
    Path(code): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let room = rooms::opened(&state, from, &code)?;
    Ok(Json(json!({ "room": room.room.as_str(), "name": room.name })))
}

/// `GET rooms/{room}/presence`.
async fn presence(Extract(state): Extract<State>, Path(id): Path<String>) -> Result<Json<Value>, ApiError> {
    let store = state.store();
    let view = store.room(&id).ok_or_else(|| ApiError::unknown_room(&id))?;
    let people: Vec<_> = store.people(&view.room).iter().map(rooms::person).collect();
    let devices = view.sensors.iter().flat_map(|sensor| {
        let nodes = store.device_nodes(sensor).into_iter();
        nodes.map(|node| json!({ "sensor": sensor.as_str(), "node": node.as_str() }))
    });
    let devices: Vec<_> = devices.collect();
    Ok(Json(json!({ "people": people, "devices": devices })))
}

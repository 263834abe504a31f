//! Pages, rendered on the server and brought to life by the scripts in `web/ui/js`. A page works without any other
//! host: nothing is loaded from the network, and there is no inline code.

mod cluster;
mod first_run;
mod join;
mod layout;
mod lobby;
mod missing;
mod room;
mod sense;
mod sensor;

use axum::Router;
use axum::extract::{Path, State as Shared};
use axum::http::StatusCode;
use axum::http::header::RETRY_AFTER;
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::server::Peer;
use crate::{State, assets, rooms};

/// The routes of pages and assets.
pub fn router() -> Router<State> {
    Router::new()
        .route("/", get(lobby))
        .route("/sensors/{sensor}", get(sensor))
        .route("/rooms/{room}", get(room))
        .route("/join/{code}", get(join))
        .route("/cluster", get(cluster))
        .route("/sense", get(sense))
        .route("/assets/{*path}", get(assets::serve))
        .route("/favicon.ico", get(assets::favicon))
}

/// The answer to a path that no page has: a page that says so, with 404.
pub fn not_found(state: &State, path: &str) -> Response {
    missing::page(state, &missing::What::Path(path)).into_response()
}

/// `GET /`: the lobby, or how to stream the first sensor while there is none.
async fn lobby(Shared(state): Shared<State>) -> Response {
    let (first, _) = state.store().sensors(&store::Page { q: None, after: None, limit: lobby::PLAIN_LINKS });
    if first.is_empty() {
        first_run::page(&state).into_response()
    } else {
        let mut rooms = state.store().rooms();
        rooms.truncate(lobby::PLAIN_LINKS);
        lobby::page(&state, &first, &rooms).into_response()
    }
}

/// `GET /sensors/{sensor}`: its attributes live, or 404.
async fn sensor(Shared(state): Shared<State>, Path(id): Path<String>) -> Response {
    match state.store().sensor(&id) {
        Some(view) => sensor::page(&state, &view).into_response(),
        None => missing::page(&state, &missing::What::Sensor(&id)).into_response(),
    }
}

/// `GET /rooms/{room}`: people and sensors, or 404.
async fn room(Shared(state): Shared<State>, Path(id): Path<String>) -> Response {
    match state.store().room(&id) {
        Some(view) => room::page(&state, &view).into_response(),
        None => missing::page(&state, &missing::What::Room(&id)).into_response(),
    }
}

/// `GET /join/{code}`: the way into the room that it opens, or 404; 429 for who guesses.
async fn join(Shared(state): Shared<State>, Peer(from): Peer, Path(code): Path<String>) -> Response {
    match rooms::opened(&state, from, &code) {
        Ok(view) => join::page(&state, &view).into_response(),
        Err(error) if error.status() == StatusCode::TOO_MANY_REQUESTS => {
            let wait = error.into_response().headers().get(RETRY_AFTER).cloned();
            let mut response = missing::too_many_codes(&state).into_response();
            response.headers_mut().extend(wait.map(|wait| (RETRY_AFTER, wait)));
            response
        }
        Err(_) => missing::page(&state, &missing::What::Code(&code)).into_response(),
    }
}

/// `GET /cluster`: the nodes.
async fn cluster(Shared(state): Shared<State>) -> Response {
    cluster::page(&state).into_response()
}

/// `GET /sense`: this browser as a sensor.
async fn sense(Shared(state): Shared<State>) -> Response {
    sense::page(&state).into_response()
}

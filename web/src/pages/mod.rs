//! Pages, rendered on the server and brought to life by the scripts in `web/ui/js`. A page works without any other
//! host: nothing is loaded from the network, and there is no inline code.

mod cluster;
mod first_run;
mod layout;
mod lobby;
mod missing;
mod sensor;

use axum::Router;
use axum::extract::{Path, State as Shared};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::{State, assets};

/// The routes of pages and assets.
pub fn router() -> Router<State> {
    Router::new()
        .route("/", get(lobby))
        .route("/sensors/{sensor}", get(sensor))
        .route("/cluster", get(cluster))
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
        lobby::page(&state, &first).into_response()
    }
}

/// `GET /sensors/{sensor}`: its attributes live, or 404.
async fn sensor(Shared(state): Shared<State>, Path(id): Path<String>) -> Response {
    match state.store().sensor(&id) {
        Some(view) => sensor::page(&state, &view).into_response(),
        None => missing::page(&state, &missing::What::Sensor(&id)).into_response(),
    }
}

/// `GET /cluster`: the nodes.
async fn cluster(Shared(state): Shared<State>) -> Response {
    cluster::page(&state).into_response()
}

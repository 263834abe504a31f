//! The HTTP API under `/api/v1`. Handlers read the store and never wait for its disk; those
//! that change something wait until it is kept.

mod body;
pub(crate) mod cluster;
mod edit;
pub(crate) mod query;
mod rooms;
mod samples;
pub(crate) mod sensors;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::get;

use self::body::MAX_BODY_BYTES;
use crate::State;

/// The routes of the API, with their full paths.
pub fn router() -> Router<State> {
    Router::new()
        .merge(rooms::router())
        .route("/api/v1/node", get(cluster::node))
        .route("/api/v1/cluster", get(cluster::cluster))
        .route("/api/v1/sensors", get(sensors::list))
        .route(
            "/api/v1/sensors/{sensor}",
            get(sensors::one)
                .patch(edit::edit)
                .delete(sensors::clear)
                .layer(DefaultBodyLimit::max(MAX_BODY_BYTES)),
        )
        .route("/api/v1/sensors/{sensor}/ledger", get(sensors::ledger))
        .route("/api/v1/sensors/{sensor}/{attribute}/samples", get(samples::samples))
}

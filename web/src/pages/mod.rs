//! Pages, rendered on the server.

use axum::Router;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use crate::State;

/// The routes of pages and assets.
pub fn router() -> Router<State> {
    Router::new()
}

/// The answer to a path that no page has.
pub fn not_found(_state: &State, path: &str) -> Response {
    (StatusCode::NOT_FOUND, format!("There is no page at {path}.\n")).into_response()
}

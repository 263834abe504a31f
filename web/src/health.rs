//! `GET /health/live` and `GET /health/ready`: for whoever supervises the process or spreads load over nodes.

use axum::Json;
use axum::extract::State as Extract;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::State;
use crate::error::ApiError;

/// 200 while the process works.
pub async fn live() -> Response {
    Json(json!({ "live": true })).into_response()
}

/// 200 when storage is open and the node takes samples, else 503 with the reasons. A node alone has nobody to join and
/// nobody to catch up with, and says that it is `alone`.
pub async fn ready(Extract(state): Extract<State>) -> Response {
    let failed = state.store().failed().map(|failed| failed.to_string());
    let stopping = state.stop().is_cancelled().then(|| "the node is stopping".to_owned());
    let reasons: Vec<String> = failed.into_iter().chain(stopping).collect();
    if reasons.is_empty() {
        Json(json!({ "ready": true, "alone": true })).into_response()
    } else {
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "not_ready", reasons.join("; ")).into_response()
    }
}

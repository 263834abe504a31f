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

/// 200 when storage is open and the node has joined its cluster and caught up, else 503 with the reasons. A node that was
/// told of others, none of whom answers, is ready all the same, and says that it is `alone`.
pub async fn ready(Extract(state): Extract<State>) -> Response {
    let failed = state.store().failed().map(|failed| failed.to_string());
    let stopping = state.stop().is_cancelled().then(|| "the node is stopping".to_owned());
    let readiness = state.nodes().readiness();
    let reasons: Vec<String> = failed.into_iter().chain(stopping).chain(readiness.reasons).collect();
    if !reasons.is_empty() {
        return ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "not_ready", reasons.join("; "))
            .into_response();
    }
    let mut body = json!({ "ready": true });
    if readiness.alone {
        body["alone"] = true.into();
    }
    Json(body).into_response()
}

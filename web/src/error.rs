//! Errors of the HTTP API. Every body is `{"error":{"code","message"}}`; the message says what was wrong, with the
//! value, and never what the node knows beyond that.

use std::fmt;
use std::time::Duration;

use axum::Json;
use axum::body::to_bytes;
use axum::extract::Request;
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde_json::json;
use store::{IdError, RoomError};

/// Longest text of a framework's own rejection that is taken over as a message, in bytes; a longer one is left out.
const MAX_REJECTION_BYTES: usize = 4096;
/// Longest part of a client's value that a message repeats, in characters.
const MAX_SHOWN_CHARS: usize = 160;
/// How long an answer may take to begin. Beyond it: 503 `too_slow`.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// An error as the client sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiError {
    status: StatusCode,
    code: &'static str,
    message: String,
    /// When it may be asked again, where the status says that it may; in seconds.
    retry_after: u64,
}

impl ApiError {
    /// An error with its status, code and message.
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), retry_after: 1 }
    }

    /// A refusal of the framework itself, in our form.
    pub(crate) fn of_framework(status: StatusCode, message: &str) -> Self {
        Self::new(status, code_of(status), message)
    }

    /// 503: what was taken cannot be kept.
    pub fn store_failed(failed: &store::Failed) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "store_failed", failed.to_string())
    }

    /// The same error, with when it may be asked again, rounded up.
    #[must_use]
    pub fn retry_after(self, wait: Duration) -> Self {
        Self { retry_after: wait.as_millis().div_ceil(1000).max(1) as u64, ..self }
    }

    /// 400: a body is JSON, but lacks a field or has one of another form.
    pub fn malformed(message: impl fmt::Display) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "malformed", shown(&message.to_string()))
    }

    /// 422: what should be an id is none.
    pub fn bad_id(error: &IdError) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "bad_id", error.to_string())
    }

    /// 404: there is no such room.
    pub fn unknown_room(room: &str) -> Self {
        let message = format!("there is no room {:?}", shown(room));
        Self::new(StatusCode::NOT_FOUND, "unknown_room", message)
    }

    /// 400: `parameter` of the query has a value that it may not have.
    pub fn bad_query(parameter: &str, value: &str, expected: &str) -> Self {
        let message = format!("{parameter}={} is not allowed; expected {expected}", shown(value));
        Self::new(StatusCode::BAD_REQUEST, "bad_query", message)
    }

    /// 404: nobody has sent anything under this name.
    pub fn unknown_sensor(sensor: &str) -> Self {
        let message = format!("there is no sensor {:?}", shown(sensor));
        Self::new(StatusCode::NOT_FOUND, "unknown_sensor", message)
    }

    /// 404: the sensor is there, but does not measure this.
    pub fn unknown_attribute(sensor: &str, attribute: &str) -> Self {
        let message = format!("sensor {:?} has no attribute {:?}", shown(sensor), shown(attribute));
        Self::new(StatusCode::NOT_FOUND, "unknown_attribute", message)
    }

    /// 404: no such path.
    pub fn unknown_path(path: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "unknown_path", format!("there is nothing at {}", shown(path)))
    }

    /// The status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The snake-case code.
    pub fn code(&self) -> &'static str {
        self.code
    }
}

/// The beginning of a client's value, so that an answer is no larger than it must be.
pub(crate) fn shown(value: &str) -> String {
    match value.char_indices().nth(MAX_SHOWN_CHARS) {
        Some((end, _)) => format!("{}…", &value[..end]),
        None => value.to_owned(),
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

impl std::error::Error for ApiError {}

impl From<RoomError> for ApiError {
    fn from(error: RoomError) -> Self {
        let status = match error {
            RoomError::Unknown(_) => StatusCode::NOT_FOUND,
            RoomError::OlderNode(_) => StatusCode::SERVICE_UNAVAILABLE,
            RoomError::NameBlank(_)
            | RoomError::NameTooLong { .. }
            | RoomError::NameControl { .. }
            | RoomError::TooManyRooms(_)
            | RoomError::TooManySensors { .. }
            | RoomError::TooManyMembers { .. }
            | RoomError::TooManyPeople { .. } => StatusCode::UNPROCESSABLE_ENTITY,
        };
        Self::new(status, error.code(), shown(&error.to_string()))
    }
}

/// The body of an error.
pub fn body(code: &str, message: &str) -> serde_json::Value {
    json!({ "error": { "code": code, "message": message } })
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(body(self.code, &self.message))).into_response();
        if matches!(self.status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) {
            response.headers_mut().insert(header::RETRY_AFTER, self.retry_after.into());
        }
        response
    }
}

/// True for paths whose errors are JSON, the others being pages.
pub fn is_api(path: &str) -> bool {
    path == "/api" || path.starts_with("/api/") || path.starts_with("/health/") || path == "/metrics"
}

/// Middleware: every error of an API path has the contract's body, also those that axum's own extractors and method
/// routing answer with plain text; an answer that does not begin in time becomes 503.
pub async fn uniform(request: Request, next: Next) -> Response {
    if !is_api(request.uri().path()) {
        return next.run(request).await;
    }
    let described = format!("{} {}", request.method(), request.uri().path());
    let Ok(response) = tokio::time::timeout(ANSWER_WITHIN, next.run(request)).await else {
        tracing::warn!(request = described, "no answer within {} s", ANSWER_WITHIN.as_secs());
        let message = format!("no answer within {} s", ANSWER_WITHIN.as_secs());
        return ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "too_slow", message).into_response();
    };
    let status = response.status();
    let is_json = response.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind == "application/json");
    if is_json || !(status.is_client_error() || status.is_server_error()) {
        return response;
    }
    let (mut parts, rejection) = response.into_parts();
    let text = to_bytes(rejection, MAX_REJECTION_BYTES).await.unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let message = match text.trim() {
        "" => format!("{described}: {}", status.canonical_reason().unwrap_or("failed").to_lowercase()),
        text => format!("{described}: {text}"),
    };
    parts.headers.remove(header::CONTENT_TYPE);
    parts.headers.remove(header::CONTENT_LENGTH);
    let mut response = ApiError::of_framework(status, &message).into_response();
    for (name, value) in &parts.headers {
        response.headers_mut().insert(name, value.clone());
    }
    response
}

/// The code of an error that says no more than its status.
fn code_of(status: StatusCode) -> &'static str {
    match status {
        StatusCode::UNAUTHORIZED => "unauthorized",
        StatusCode::FORBIDDEN => "forbidden",
        StatusCode::NOT_FOUND => "unknown_path",
        StatusCode::METHOD_NOT_ALLOWED => "method_not_allowed",
        StatusCode::PAYLOAD_TOO_LARGE => "too_large",
        StatusCode::UNSUPPORTED_MEDIA_TYPE => "unsupported_media_type",
        StatusCode::UPGRADE_REQUIRED => "upgrade_required",
        StatusCode::UNPROCESSABLE_ENTITY => "refused",
        status if status.is_client_error() => "malformed",
        _ => "internal",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_of_a_room_says_whether_to_ask_again() {
        let room = store::RoomId::new("r1").unwrap();
        for (error, status) in [
            (RoomError::Unknown("r1".into()), 404),
            (RoomError::NameTooLong { what: "room", chars: 101 }, 422),
            (RoomError::TooManyRooms(store::MAX_ROOMS), 422),
            (RoomError::TooManyMembers { room }, 422),
            (RoomError::OlderNode("b".into()), 503),
        ] {
            let (code, answer) = (error.code(), ApiError::from(error));
            assert_eq!((answer.status().as_u16(), answer.code()), (status, code));
            assert_eq!(answer.into_response().headers().contains_key(header::RETRY_AFTER), status == 503);
        }
        let limited = ApiError::new(StatusCode::TOO_MANY_REQUESTS, "slow_down", "");
        let response = limited.retry_after(Duration::from_millis(1001)).into_response();
        assert_eq!(response.headers()[header::RETRY_AFTER], "2");
    }

    #[test]
    fn a_message_repeats_no_more_than_the_beginning_of_a_value() {
        let error = ApiError::bad_query("limit", &"é".repeat(10_000), "1 to 100000");
        assert_eq!(error.code(), "bad_query");
        assert!(error.to_string().len() < 2 * MAX_SHOWN_CHARS + 100, "{error}");
    }
}

//! Bodies of requests: JSON, whatever unknown fields it has beside those that are read.
//!
//! Bound: [`MAX_BODY_BYTES`]; a longer one is answered 413 `too_large`.

use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, StatusCode, header};
use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde_json::error::Category;

use crate::error::{ApiError, shown};

/// Longest body of a request: a room with all its sensors fits several times.
pub(super) const MAX_BODY_BYTES: usize = 1 << 20;

/// A body that was JSON of this form; none at all reads as `{}`.
#[derive(Debug)]
pub(super) struct Body<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        check_type(request.headers())?;
        let bytes = Bytes::from_request(request, state).await;
        let bytes = bytes.map_err(|error| ApiError::of_framework(error.status(), &error.body_text()))?;
        let bytes = if bytes.is_empty() { Bytes::from_static(b"{}") } else { bytes };
        serde_json::from_slice(&bytes).map(Self).map_err(|error| match error.classify() {
            Category::Data => ApiError::malformed(error),
            Category::Io | Category::Syntax | Category::Eof => {
                ApiError::new(StatusCode::BAD_REQUEST, "bad_json", error.to_string())
            }
        })
    }
}

/// A body that says nothing of its type is taken for JSON.
fn check_type(headers: &HeaderMap) -> Result<(), ApiError> {
    let Some(said) = headers.get(header::CONTENT_TYPE) else { return Ok(()) };
    let said = String::from_utf8_lossy(said.as_bytes());
    let media = said.split(';').next().unwrap_or_default().trim();
    if media.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    let message = format!("a body of type {:?}; expected application/json", shown(&said));
    Err(ApiError::of_framework(StatusCode::UNSUPPORTED_MEDIA_TYPE, &message))
}

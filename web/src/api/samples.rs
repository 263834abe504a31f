//! `GET sensors/{sensor}/{attribute}/samples`: the samples of a series in the format that `Accept` asks for.

use std::convert::Infallible;

use axum::body::Body;
use axum::extract::{Path, State as Extract};
use axum::http::{HeaderMap, Uri, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use store::{MAX_KEEP, Query as Wanted, Samples, Shape};

use super::query::Query;
use crate::State;
use crate::encode::{Table, csv, json, senml};
use crate::error::ApiError;

/// Samples in an answer that asks for no number.
const DEFAULT_LIMIT: usize = 100;
/// Most samples in an answer: a whole ring.
const MAX_LIMIT: usize = MAX_KEEP;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Json,
    Csv,
    SenMl,
}

impl Format {
    fn of_type(media: &str) -> Option<Self> {
        match media {
            "application/json" | "application/*" | "*/*" => Some(Self::Json),
            "text/csv" => Some(Self::Csv),
            "application/senml+json" => Some(Self::SenMl),
            _ => None,
        }
    }

    /// The format with the highest quality in `Accept` (RFC 9110, section 12.5.1), the first of equals; JSON where
    /// none of ours is named.
    fn accepted(headers: &HeaderMap) -> Self {
        let mut best = (0.0, Self::Json);
        let lines = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
        for range in lines.flat_map(|line| line.split(',')) {
            let mut parts = range.split(';').map(|part| part.trim().to_ascii_lowercase());
            let Some(format) = parts.next().as_deref().and_then(Self::of_type) else { continue };
            let quality = parts.find_map(|part| part.strip_prefix("q=").map(|q| q.parse().unwrap_or(0.0)));
            let quality: f32 = quality.unwrap_or(1.0);
            if quality > best.0 {
                best = (quality, format);
            }
        }
        best.1
    }
}

/// `GET sensors/{sensor}/{attribute}/samples?limit=&from=&to=&points=`.
pub(super) async fn samples(
    Extract(state): Extract<State>,
    Path((sensor, attribute)): Path<(String, String)>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let query = Query::of(&uri)?;
    let wanted = Wanted {
        from: query.time("from")?,
        to: query.time("to")?,
        limit: query.number("limit", 1..=MAX_LIMIT)?.unwrap_or(DEFAULT_LIMIT),
        points: query.number("points", 2..=MAX_LIMIT)?,
    };
    let store = state.store();
    let Some(series) = store.find(&sensor, &attribute) else {
        return Err(match store.sensor(&sensor) {
            Some(_) => ApiError::unknown_attribute(&sensor, &attribute),
            None => ApiError::unknown_sensor(&sensor),
        });
    };
    let Samples { times, values } = series.read(&wanted);
    let mut view = series.view();
    // A wider sample may have come in between.
    let width = match values.shape() {
        Shape::Numbers(channels) => channels,
        Shape::Text => 0,
    };
    view.channels.truncate(width);
    view.units.truncate(width);
    let table = Table {
        sensor,
        attribute,
        kind: view.kind.name(),
        unit: view.unit,
        channels: view.channels,
        units: view.units,
        times,
        values,
    };
    Ok(match Format::accepted(&headers) {
        Format::Json => streamed("application/json", json(table)),
        Format::Csv => streamed("text/csv; charset=utf-8; header=present", csv(table)),
        Format::SenMl => streamed("application/senml+json", senml(table)),
    })
}

/// A body whose chunks are made as the client reads them.
fn streamed(media: &'static str, chunks: impl Iterator<Item = Bytes> + Send + 'static) -> Response {
    let body = Body::from_stream(stream::iter(chunks.map(Ok::<_, Infallible>)));
    ([(header::CONTENT_TYPE, media), (header::VARY, "accept"), (header::CACHE_CONTROL, "no-store")], body)
        .into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_is_the_best_that_was_asked_for() {
        for (accept, format) in [
            ("text/csv", Format::Csv),
            ("application/senml+json", Format::SenMl),
            ("application/json", Format::Json),
            ("text/html,application/xhtml+xml,*/*;q=0.8", Format::Json),
            ("text/csv;q=0.5, application/senml+json;q=0.9", Format::SenMl),
            ("text/csv;q=0, */*;q=0.1", Format::Json),
            ("TEXT/CSV; charset=utf-8", Format::Csv),
            ("image/png", Format::Json),
            ("", Format::Json),
        ] {
            let headers = HeaderMap::from_iter([(header::ACCEPT, accept.parse().unwrap())]);
            assert_eq!(Format::accepted(&headers), format, "{accept}");
        }
        assert_eq!(Format::accepted(&HeaderMap::new()), Format::Json);
    }
}

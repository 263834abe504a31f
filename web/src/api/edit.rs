//! `PATCH sensors/{sensor}`: what an operator says of a sensor, in the place of what its device said. Answered when that
//! is kept.
//!
//! Bounds: [`MAX_ATTRIBUTES`] of a request; one more is answered 422 `too_many_attributes`.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Path, State as Extract};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use store::{Attribute, AttributeDescription, Description, EditError, MAX_LABEL_CHARS, Refusal, SensorId};

use super::body::Body;
use super::sensors::Described;
use crate::State;
use crate::error::{ApiError, shown};

/// Attributes that one request speaks of.
const MAX_ATTRIBUTES: usize = 256;

/// What is asked for; what is missing stays as it is.
#[derive(Debug, Deserialize)]
pub(super) struct Wish {
    name: Option<String>,
    #[serde(default)]
    attributes: BTreeMap<String, AttributeWish>,
}

#[derive(Debug, Deserialize)]
struct AttributeWish {
    keep: Option<u64>,
    unit: Option<String>,
}

fn refused(code: &'static str, message: impl Into<String>) -> ApiError {
    ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, code, message)
}

/// A name or unit: `code` says which.
fn label(code: &'static str, text: String) -> Result<String, ApiError> {
    let chars = text.chars().count();
    if chars > MAX_LABEL_CHARS || text.chars().any(char::is_control) {
        let what =
            format!("{:?} of {chars} characters; expected at most {MAX_LABEL_CHARS}, to print", shown(&text));
        return Err(refused(code, what));
    }
    Ok(text)
}

fn description(wish: Wish) -> Result<Description, ApiError> {
    let Wish { name, attributes } = wish;
    if name.is_none() && attributes.is_empty() {
        return Err(ApiError::malformed("nothing to change; expected name or attributes"));
    }
    if attributes.len() > MAX_ATTRIBUTES {
        let what = format!("{} attributes; expected at most {MAX_ATTRIBUTES}", attributes.len());
        return Err(refused("too_many_attributes", what));
    }
    if name.as_ref().is_some_and(|name| name.trim().is_empty()) {
        return Err(refused("bad_name", "the name of a sensor is blank"));
    }
    let name = name.map(|name| label("bad_name", name)).transpose()?;
    let attribute = |(attribute, wish): (String, AttributeWish)| {
        let attribute = Attribute::new(&attribute).map_err(|error| ApiError::bad_id(&error))?;
        let keep = wish.keep.map(|keep| usize::try_from(keep).unwrap_or(usize::MAX));
        let unit = wish.unit.map(|unit| label("bad_unit", unit)).transpose()?;
        Ok((attribute, AttributeDescription { keep, unit, ..AttributeDescription::default() }))
    };
    let attributes = attributes.into_iter().map(attribute).collect::<Result<_, ApiError>>()?;
    Ok(Description { name, attributes })
}

impl From<EditError> for ApiError {
    fn from(error: EditError) -> Self {
        let (status, code) = match &error {
            EditError::KeepFalls { .. } | EditError::Refused(Refusal::BadKeep { .. }) => {
                (StatusCode::UNPROCESSABLE_ENTITY, "bad_keep")
            }
            EditError::Refused(Refusal::TooManySeries { .. }) => {
                (StatusCode::SERVICE_UNAVAILABLE, "too_many_series")
            }
            EditError::Refused(_) => (StatusCode::CONFLICT, "kind_conflict"),
        };
        Self::new(status, code, shown(&error.to_string()))
    }
}

/// `PATCH sensors/{sensor}`.
pub(super) async fn edit(
    Extract(state): Extract<State>,
    Path(id): Path<String>,
    Body(wish): Body<Wish>,
) -> Result<Response, ApiError> {
    let sensor = SensorId::new(&id).map_err(|error| ApiError::bad_id(&error))?;
    if let Some(ticket) = state.store().edit(&sensor, description(wish)?)? {
        ticket.kept().await.map_err(|failed| ApiError::store_failed(&failed))?;
    }
    // It may be gone again by now.
    let view = state.store().sensor(&id).ok_or_else(|| ApiError::unknown_sensor(&id))?;
    Ok(Json(Described::from(&view)).into_response())
}

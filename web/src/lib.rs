//! What browsers see of Sensorium: pages, the HTTP API and the live socket. It knows the store and nothing of devices:
//! what devices speak is merged in as a router by the program (`src/bin/sensorium`).
//!
//! | module | holds |
//! |---|---|
//! | [`state`] | what every handler shares: the store, the node's addresses, counters, the stop signal |
//! | `api` | what stands under `/api/v1`; `health` and [`metrics`] stand beside it |
//! | [`error`] | errors of the API: one shape, whoever raised them |
//! | [`guard`] | what a page of a foreign origin may not do; security headers |
//! | `nodes` | where a browser may go when its node dies, and whose origins are ours |
//! | [`server`] | the HTTP listener and what a connection may cost |
//! | [`encode`] | samples as JSON, CSV and `SenML`, streamed |
//! | [`live`] | the live socket and its frames |
//! | [`rate`] | samples a second |
//! | `rooms` | rooms and people in them as answers and messages have them; opening one by its code |
//! | [`guesses`] | wrong join codes, by address |
//! | [`pages`] | pages, rendered on the server |
//! | `assets` | the embedded files of the pages |

mod api;
mod assets;
pub mod encode;
pub mod error;
pub mod guard;
pub mod guesses;
mod health;
pub mod live;
pub mod metrics;
mod nodes;
pub mod pages;
pub mod rate;
mod rooms;
pub mod server;
pub mod state;

use axum::Router;
use axum::extract::{Request, State as Extract};
use axum::http::StatusCode;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use error::ApiError;

pub use state::{Addresses, Devices, NoDevices, Setup, State};

/// The routes of a node without those of devices.
pub fn router(state: State) -> Router {
    app(state, Router::new())
}

/// The routes of a node: those of viewers, merged with `devices`, behind the same guards.
pub fn app(state: State, devices: Router) -> Router {
    Router::new()
        .merge(pages::router())
        .merge(api::router())
        .route(nodes::LIVE, get(live::socket::upgrade))
        .route("/health/live", get(health::live))
        .route("/health/ready", get(health::ready))
        .route("/metrics", get(metrics::get))
        .fallback(unknown_path)
        .with_state(state.clone())
        .merge(devices)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(from_fn_with_state(state, guard::foreign_origin))
        .layer(from_fn(error::uniform))
        .layer(from_fn(guard::security_headers))
}

/// What answers a path that nothing has: an error of the API, or a page.
async fn unknown_path(Extract(state): Extract<State>, request: Request) -> Response {
    let path = request.uri().path();
    if error::is_api(path) {
        ApiError::unknown_path(path).into_response()
    } else {
        pages::not_found(&state, path)
    }
}

/// What answers a path that is there, but not with this method.
async fn method_not_allowed(request: Request) -> Response {
    let message = format!("{} does not take {}", request.uri().path(), request.method());
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message).into_response()
}

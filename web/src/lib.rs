//! What browsers see of Sensorium: pages, the HTTP API and the live socket. It knows the store and nothing of devices:
//! what devices speak is merged in as a router by the program (`src/bin/sensorium`).
//!
//! | module | holds |
//! |---|---|
//! | [`state`] | what every handler shares: the store, the node's addresses, counters, the stop signal |
//! | [`encode`] | samples as JSON, CSV and `SenML`, streamed |
//! | [`live`] | the live socket and its frames |
//! | [`pages`] | pages, rendered on the server, and the embedded assets |

pub mod encode;
pub mod live;
pub mod pages;
pub mod state;

use axum::Router;

pub use state::{Addresses, Setup, State};

/// The routes of a node without those of devices.
pub fn router(state: State) -> Router {
    app(state, Router::new())
}

/// The routes of a node: those of viewers, merged with `devices`, behind the same guards.
pub fn app(state: State, devices: Router) -> Router {
    Router::new().merge(pages::router()).with_state(state).merge(devices)
}

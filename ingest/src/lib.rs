//! What devices speak: WebSocket with JSON and CBOR, and MQTT.
//!
//! A frame's way: `ws` moves its bytes to `wire::read`, which makes rows of it; `session` says whether it is the
//! frame's turn; `intake` judges the rows (`validate`) and finds their series; the store takes the batches, and when its
//! ticket is kept the session acknowledges. MQTT goes the same way from `mqtt` on. What the device hears without having asked
//! is `advice` on how long to batch, from the node's `advisor`.
//!
//! What must not know what: `wire` knows neither store nor socket, and is all that a device needs (feature `server`
//! off); `session` knows no socket, no store and no clock; only `ws` and `mqtt` move bytes; only `nodes` knows the cluster.

#[cfg(feature = "server")]
pub mod advice;
#[cfg(feature = "server")]
pub mod advisor;
#[cfg(feature = "server")]
pub mod error;
#[cfg(feature = "server")]
pub mod intake;
#[cfg(feature = "server")]
pub mod limits;
#[cfg(feature = "server")]
pub mod mqtt;
#[cfg(feature = "server")]
mod nodes;
#[cfg(feature = "server")]
pub mod session;
#[cfg(feature = "server")]
pub mod validate;
pub mod wire;
#[cfg(feature = "server")]
pub mod ws;

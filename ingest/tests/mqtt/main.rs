//! The MQTT port with a real store behind it and real clients in front of it.
#![expect(clippy::unwrap_used, reason = "a test's helpers may panic as the test does")]

mod clients;
mod cluster;
mod hostile;
mod mosquitto;
mod node;
mod ordinary;
mod raw;
mod rooms;
mod sessions;

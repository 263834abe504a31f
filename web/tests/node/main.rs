//! A node as its users meet it: the API without a socket, the live socket, and the program as a process.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod api;
mod cluster;
mod common;
mod company;
mod devices;
mod edit;
mod live;
mod process;
mod program;
mod rooms;
mod watch_room;

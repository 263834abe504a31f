//! Driving the program over its sockets: a node as a child process, and clients that cost as little as they can, so
//! that the node is what is measured.

pub mod device;
pub mod frames;
pub mod http;
pub mod measures;
pub mod mqtt;
pub mod node;
pub mod report;
pub mod viewer;

/// What went wrong, in words: it is printed and ends the measurement.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

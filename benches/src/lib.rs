//! What the load runs and benches of Sensorium share. None of it is part of the program.
//!
//! `figures` are what a measurement gives and how runs of it are summed up; `process` reads what a process uses;
//! `samples` are what everything is fed with; `load` drives the program over its sockets; `cluster` drives three of them,
//! beside three nodes of something else.

pub mod cluster;
pub mod figures;
pub mod load;
pub mod process;
pub mod samples;

//! What the load runs and benches of Sensorium share. None of it is part of the program.
//!
//! `figures` are what a measurement gives and how runs of it are summed up; `process` reads what a process uses;
//! `samples` are what everything is fed with; `load` drives the program over its sockets.

pub mod figures;
pub mod load;
pub mod process;
pub mod samples;

//! The cluster: who is in it, the links between its nodes, and what is told about it.

pub mod placement;
pub mod view;

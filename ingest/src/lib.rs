//! What devices speak.

pub mod wire;

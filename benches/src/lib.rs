//! Benches and load runs.

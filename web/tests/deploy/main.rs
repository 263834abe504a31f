//! What the project is deployed with, held against the program: a file in `deploy/`, and `fly.toml`, names only options,
//! ports, paths, stages and metrics that exist, agrees with itself and with the others, and has no secret in it.
//!
//! Each file is read by a real parser into types that know every key which is used, so that a misspelt one is an error
//! and not a setting without effect.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::struct_field_names, reason = "fields have the names of the files' keys")]

mod compose;
mod docker;
mod fly;
mod kubernetes;
mod linters;
mod node;
mod program;
mod readme;

use std::path::{Path, PathBuf};

/// The top level of the repository.
pub(crate) fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The text of a file, by its path from the top level.
pub(crate) fn text(path: &str) -> String {
    std::fs::read_to_string(top().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The documents of a YAML file. Keys that stand twice are an error; merge keys are resolved.
pub(crate) fn yaml(path: &str) -> Vec<serde_json::Value> {
    serde_saphyr::from_multiple(&text(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// A value as `T`, which names every key that may stand in it.
pub(crate) fn typed<T: serde::de::DeserializeOwned>(value: &serde_json::Value) -> T {
    serde_json::from_value(value.clone()).unwrap_or_else(|error| panic!("{error} in {value:#}"))
}

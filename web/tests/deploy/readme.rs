//! `deploy/README.md`: what it tells to watch and to type exists.

use crate::program::{Running, options};
use crate::{text, top};

/// The words of `text` that begin with `prefix` and go on with what a name may have.
fn words<'a>(text: &'a str, prefix: &str) -> Vec<&'a str> {
    let starts = text.match_indices(prefix).map(|(at, _)| &text[at..]);
    let end = |rest: &str| rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
    starts.map(|rest| &rest[..end(rest)]).collect()
}

#[test]
fn every_metric_to_watch_is_there() {
    let node = Running::start();
    let (_, metrics) = node.get("/metrics");
    let readme = text("deploy/README.md");
    let named = words(&readme, "sensorium_");
    assert!(named.len() >= 5, "{named:?}");
    for name in named {
        assert!(metrics.contains(&format!("# TYPE {name} ")), "{name} is not among the metrics:\n{metrics}");
    }
}

#[test]
fn every_file_and_variable_that_is_named_is_there() {
    let readme = text("deploy/README.md");
    let options = options();
    for variable in words(&readme, "SENSORIUM_").into_iter().filter(|name| !name.ends_with('_')) {
        assert!(options.values().any(|known| known == variable), "{variable}");
    }
    for name in ["deploy/compose.yaml", "deploy/kubernetes.yaml", "deploy/Dockerfile", "fly.toml"] {
        assert!(readme.contains(name) && top().join(name).exists(), "{name}");
    }
    let image = concat!("sensorium:", env!("CARGO_PKG_VERSION"));
    assert!(readme.contains(image), "the README names another image than {image}");
}

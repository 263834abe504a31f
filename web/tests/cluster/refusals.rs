//! Nodes that cannot be of one cluster tell each other why, and the one that came to join does not run on.

use std::time::Duration;

use firmware_sim::demo::cluster::Cluster;
use firmware_sim::demo::process::{Node, Spec};

use crate::common::{GUARD, alone, plan};

/// How long a node that is refused may take to notice.
const REFUSED_WITHIN: Duration = Duration::from_secs(20);

/// Starts `name` with `options` beside a running node `a` with `own` options: both must say `reason`.
async fn is_refused(own: &[&str], name: &str, options: &[&str], reason: &str) {
    let _machine = alone().await;
    let cluster = Cluster::start(&plan(1, own)).await.unwrap();
    let resident = &cluster.nodes()[0];
    let any = "127.0.0.1:0".to_owned();
    let mut intruder = Node::new(Spec {
        name: name.to_owned(),
        directory: cluster.directory().join("intruder"),
        http: any.clone(),
        mqtt: any.clone(),
        peer: any,
        join: vec![resident.spec().peer.clone()],
        options: options.iter().map(ToString::to_string).collect(),
        ..resident.spec().clone()
    });
    let ended = intruder.run_to_end(REFUSED_WITHIN).await;
    let (status, log) = ended.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(status.code(), Some(1), "{log}");
    let last = log.lines().last().unwrap_or_default();
    assert!(last.contains(reason), "the last thing it says is why: {log}");
    let both = cluster.eventually("the resident says why", GUARD, async || {
        let log = resident.log();
        if log.contains(reason) { Ok(()) } else { Err(log) }
    });
    both.await.unwrap();
    cluster.ready(0).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn another_secret_is_refused() {
    let secret = |text: &'static str| ["--cluster-secret", text];
    is_refused(&secret("one-secret-of-many"), "b", &secret("another-secret"), "secret").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_number_of_replicas_is_refused() {
    is_refused(&[], "b", &["--replicas", "2"], "--replicas").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_lives_already_is_refused() {
    is_refused(&[], "a", &[], "the name a").await;
}

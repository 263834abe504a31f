//! `deploy/compose.yaml`. Its keys: the Compose Specification, <https://github.com/compose-spec/compose-spec>.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::Value;

use crate::docker::is_health_check;
use crate::node::{Node, bytes, host_port, may_stop_in, seconds};
use crate::{docker, top, typed, yaml};

pub(crate) const PATH: &str = "deploy/compose.yaml";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Compose {
    name: String,
    services: BTreeMap<String, Service>,
    volumes: BTreeMap<String, Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Service {
    image: String,
    build: Build,
    restart: String,
    stop_grace_period: String,
    read_only: bool,
    cap_drop: Vec<String>,
    security_opt: Vec<String>,
    ulimits: BTreeMap<String, u32>,
    mem_limit: String,
    healthcheck: HealthCheck,
    environment: BTreeMap<String, String>,
    ports: Vec<String>,
    volumes: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Build {
    context: String,
    dockerfile: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HealthCheck {
    test: Vec<String>,
    interval: String,
    timeout: String,
    start_period: String,
    retries: u32,
}

fn compose() -> Compose {
    let documents = yaml(PATH);
    let [document] = &documents[..] else { panic!("one document") };
    let mut document = document.clone();
    // What begins with x- is the file's own, to be merged in below.
    document.as_object_mut().unwrap().retain(|key, _| !key.starts_with("x-"));
    typed(&document)
}

impl Service {
    fn node(&self) -> Node {
        let mut environment = docker::environment();
        for (name, value) in &self.environment {
            // `${NAME:?message}`: taken from whoever starts it, who is told what is missing.
            let given = value.strip_prefix(&format!("${{{name}:?")).and_then(|rest| rest.strip_suffix('}'));
            assert!(given.is_none_or(|message| message.contains("set it")), "{name}: {value}");
            let value = if given.is_some() { None } else { Some(value.clone()) };
            environment.insert(name.clone(), value);
        }
        Node::new(&environment, &[])
    }

    /// Where a port of the container is published on the host.
    fn published(&self, inside: u16) -> u16 {
        let found = self.ports.iter().find_map(|port| port.strip_suffix(&format!(":{inside}")));
        let found = found.unwrap_or_else(|| panic!("{inside} is not published: {:?}", self.ports));
        let (host, port) = host_port(found);
        assert_eq!(host, "127.0.0.1", "open to the network without authentication");
        port
    }
}

#[test]
fn three_nodes_would_start_and_join_each_other() {
    let compose = compose();
    assert_eq!((compose.name.as_str(), compose.services.len()), ("sensorium", 3));
    let mut published = BTreeSet::new();
    for (name, service) in &compose.services {
        let node = service.node();
        let [volume] = &service.volumes[..] else { panic!("{name}: one volume") };
        let (source, target) = volume.split_once(':').unwrap();
        assert!(
            source == name && compose.volumes.contains_key(source),
            "{volume} is not a volume of its own"
        );
        node.holds(target);
        assert_eq!(node.get("name"), name);
        assert_eq!(node.get("public-peer"), format!("{name}:{}", node.port("peer")));
        let joined: BTreeSet<String> = node.get("join").split(',').map(str::to_owned).collect();
        let others = compose.services.keys().filter(|other| *other != name);
        assert_eq!(joined, others.map(|other| format!("{other}:{}", node.port("peer"))).collect());

        let (http, mqtt) = (service.published(node.port("http")), service.published(node.port("mqtt")));
        assert_eq!(service.ports.len(), 2, "{name}: peers need no port on the host");
        assert!(published.insert(http) && published.insert(mqtt), "{name}: a port is published twice");
        assert_eq!(node.get("public-http"), format!("http://127.0.0.1:{http}"));
        assert_eq!(node.get("public-mqtt"), format!("mqtt://127.0.0.1:{mqtt}"));
        assert!(bytes(node.get("memory-limit")) * 2 <= bytes(&service.mem_limit), "{name}: too much memory");
    }
    assert_eq!(compose.volumes.len(), 3);
}

#[test]
fn they_stop_in_time_come_back_and_may_do_little_else() {
    for (name, service) in compose().services {
        may_stop_in(seconds(&service.stop_grace_period));
        assert_eq!(service.restart, "unless-stopped", "{name}");
        assert!(service.read_only && service.cap_drop == ["ALL"], "{name}");
        assert_eq!(service.security_opt, ["no-new-privileges:true"]);
        assert!(service.ulimits["nofile"] >= 65_536);
        let directory = top().join("deploy").join(&service.build.context).canonicalize().unwrap();
        assert_eq!(directory, top().canonicalize().unwrap());
        assert_eq!(service.build.dockerfile, docker::PATH);
        assert_eq!(service.image, concat!("sensorium:", env!("CARGO_PKG_VERSION")), "{name}");
        let check = &service.healthcheck;
        assert!(check.retries > 0 && seconds(&check.start_period) >= 10);
        assert!(seconds(&check.timeout) < seconds(&check.interval));
    }
}

#[test]
fn health_checks_fail_until_a_node_answers() {
    let compose = compose();
    let checks: BTreeSet<&[String]> = compose.services.values().map(|s| &s.healthcheck.test[..]).collect();
    assert_eq!(checks.len(), 1);
    for check in checks {
        assert_eq!(check[0], "CMD", "there is no shell in the image");
        is_health_check(&check[1..]);
    }
}

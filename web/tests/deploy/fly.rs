//! `fly.toml`. Its keys: <https://fly.io/docs/reference/configuration/>.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::node::{Node, host_port, may_stop_in, seconds};
use crate::program::Running;
use crate::{docker, text, top};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fly {
    app: String,
    primary_region: String,
    kill_signal: String,
    kill_timeout: String,
    build: Build,
    deploy: Deploy,
    env: BTreeMap<String, String>,
    mounts: Vec<Mount>,
    http_service: HttpService,
    services: Vec<Service>,
    metrics: Vec<Metrics>,
    vm: Vec<Machine>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Build {
    dockerfile: String,
    ignorefile: String,
    build_target: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Deploy {
    strategy: String,
    max_unavailable: u32,
    wait_timeout: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Mount {
    source: String,
    destination: String,
    initial_size: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HttpService {
    internal_port: u16,
    force_https: bool,
    auto_stop_machines: String,
    auto_start_machines: bool,
    min_machines_running: u32,
    concurrency: Concurrency,
    checks: Vec<HttpCheck>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Concurrency {
    r#type: String,
    soft_limit: u32,
    hard_limit: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HttpCheck {
    method: String,
    path: String,
    grace_period: String,
    interval: String,
    timeout: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Service {
    protocol: String,
    internal_port: u16,
    auto_stop_machines: String,
    auto_start_machines: bool,
    min_machines_running: u32,
    concurrency: Concurrency,
    ports: Vec<Port>,
    tcp_checks: Vec<TcpCheck>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Port {
    port: u16,
    #[serde(default)]
    handlers: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TcpCheck {
    grace_period: String,
    interval: String,
    timeout: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Metrics {
    port: u16,
    path: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Machine {
    size: String,
    memory: String,
}

fn fly() -> Fly {
    toml::from_str(&text("fly.toml")).unwrap_or_else(|error| panic!("fly.toml: {error}"))
}

/// The node of a machine: the image's environment, the file's over it, and the secret that Fly adds.
fn node(fly: &Fly) -> Node {
    let mut environment = docker::environment();
    environment.extend(fly.env.iter().map(|(name, value)| (name.clone(), Some(value.clone()))));
    let literal = environment.insert("SENSORIUM_CLUSTER_SECRET".into(), None);
    assert_eq!(literal, None, "the secret belongs into `fly secrets set`");
    Node::new(&environment, &[])
}

#[test]
fn the_node_would_start_and_its_ports_are_those_of_the_services() {
    let fly = fly();
    let node = node(&fly);
    let [mount] = &fly.mounts[..] else { panic!("one volume") };
    assert!(!mount.source.is_empty() && mount.initial_size.ends_with("gb"));
    node.holds(&mount.destination);
    assert_eq!(fly.http_service.internal_port, node.port("http"));
    let [mqtt] = &fly.services[..] else {
        panic!("one service beside HTTP: peers meet on the private network")
    };
    assert_eq!((mqtt.internal_port, mqtt.protocol.as_str()), (node.port("mqtt"), "tcp"));
    let ports: Vec<_> = mqtt.ports.iter().map(|port| (port.port, port.handlers.join(","))).collect();
    assert_eq!(ports, [(8883, "tls".to_owned()), (1883, String::new())]);

    // The name that is in /etc/hosts for the machine's address on the private network.
    assert_eq!(host_port(node.get("peer")).0, "fly-local-6pn");
    assert_eq!(node.get("public-http"), format!("https://{}.fly.dev", fly.app));
    assert_eq!(node.get("public-mqtt"), format!("mqtts://{}.fly.dev:8883", fly.app));
    // Where the others are follows from the environment of every machine; said here, it could contradict the app's name.
    assert!(!fly.env.contains_key("SENSORIUM_DISCOVER") && !fly.env.contains_key("SENSORIUM_JOIN"));
    let [machine] = &fly.vm[..] else { panic!("one kind of machine") };
    assert!(machine.size.starts_with("shared-cpu") && machine.memory.ends_with("gb"));
}

#[test]
fn machines_stay_and_stop_in_time_one_by_one() {
    let fly = fly();
    assert_eq!(fly.kill_signal, "SIGTERM");
    may_stop_in(seconds(&fly.kill_timeout));
    assert_eq!((fly.deploy.strategy.as_str(), fly.deploy.max_unavailable), ("rolling", 1));
    assert!(seconds(&fly.deploy.wait_timeout) >= 300 && fly.primary_region.len() == 3);
    assert!(fly.http_service.force_https);
    let http = &fly.http_service;
    let mut services = vec![(&http.auto_stop_machines, http.auto_start_machines, http.min_machines_running)];
    let rest = fly.services.iter();
    services.extend(rest.map(|s| (&s.auto_stop_machines, s.auto_start_machines, s.min_machines_running)));
    for (stop, start, least) in services {
        assert_eq!((stop.as_str(), start, least), ("off", false, 3));
    }
    for concurrency in [&http.concurrency, &fly.services[0].concurrency] {
        assert_eq!(concurrency.r#type, "connections");
        assert_eq!((concurrency.soft_limit, concurrency.hard_limit), (1000, 2500));
    }
}

#[test]
fn checks_ask_what_the_program_answers() {
    let fly = fly();
    let node = Running::start();
    let [check] = &fly.http_service.checks[..] else { panic!("one check") };
    assert_eq!((check.method.as_str(), check.path.as_str()), ("GET", "/health/ready"));
    assert_eq!(node.get(&check.path).0, 200);
    let tcp = &fly.services[0].tcp_checks[0];
    let times = [
        (&check.grace_period, &check.interval, &check.timeout),
        (&tcp.grace_period, &tcp.interval, &tcp.timeout),
    ];
    for (grace, interval, timeout) in times {
        assert!(seconds(grace) >= 10 && seconds(timeout) < seconds(interval));
    }
    let [metrics] = &fly.metrics[..] else { panic!("one source of metrics") };
    assert_eq!(metrics.port, fly.http_service.internal_port);
    assert_eq!(node.get(&metrics.path).0, 200);
}

#[test]
fn it_is_built_from_files_and_a_stage_that_exist() {
    let build = fly().build;
    assert_eq!(build.dockerfile, docker::PATH);
    assert!(top().join(&build.ignorefile).exists(), "{}", build.ignorefile);
    assert!(docker::has_stage(&build.build_target), "{}", build.build_target);
}

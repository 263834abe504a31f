//! `deploy/kubernetes.yaml`. Its keys: <https://kubernetes.io/docs/reference/kubernetes-api/>.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::kubernetes::schema::{Budget, Container, Service, StatefulSet};
use crate::node::{Node, bytes, host_port, may_stop_in};
use crate::program::Running;
use crate::{docker, typed, yaml};

mod schema;

pub(crate) const PATH: &str = "deploy/kubernetes.yaml";

/// The objects of the file, each read as what it says it is.
struct Objects {
    services: BTreeMap<String, Service>,
    budget: Budget,
    set: StatefulSet,
}

/// What each document says it is, and the rest of it.
fn documents() -> Vec<(String, Value)> {
    let split = |mut document: Value| {
        let object = document.as_object_mut().unwrap();
        let mut said = |key| object.remove(key).unwrap().as_str().unwrap().to_owned();
        (format!("{} {}", said("apiVersion"), said("kind")), document)
    };
    yaml(PATH).into_iter().map(split).collect()
}

fn objects() -> Objects {
    let (mut services, mut budgets, mut sets) = (BTreeMap::new(), Vec::new(), Vec::new());
    for (kind, object) in documents() {
        match kind.as_str() {
            "v1 Service" => {
                let service: Service = typed(&object);
                services.insert(service.metadata.name.clone(), service);
            }
            "policy/v1 PodDisruptionBudget" => budgets.push(typed(&object)),
            "apps/v1 StatefulSet" => sets.push(typed(&object)),
            // Above all no Secret: it would have to hold one.
            _ => panic!("{kind} is not expected here"),
        }
    }
    assert_eq!((services.len(), budgets.len(), sets.len()), (2, 1, 1));
    Objects { services, budget: budgets.remove(0), set: sets.remove(0) }
}

fn container(set: &StatefulSet) -> &Container {
    let [container] = &set.spec.template.spec.containers[..] else { panic!("one container") };
    container
}

/// The node of the first pod, with what Kubernetes puts in for the pod's name and namespace.
fn node(container: &Container) -> Node {
    let mut environment = docker::environment();
    let mut args = container.args.clone();
    for variable in &container.env {
        match (&variable.value, &variable.value_from) {
            (Some(value), None) => {
                environment.insert(variable.name.clone(), Some(value.clone()));
            }
            (None, Some(from)) if from.get("secretKeyRef").is_some() => {
                assert_eq!(*from, json!({"secretKeyRef": {"name": "sensorium", "key": "cluster-secret"}}));
                environment.insert(variable.name.clone(), None);
            }
            (None, Some(from)) => {
                let value = match from["fieldRef"]["fieldPath"].as_str() {
                    Some("metadata.name") => "sensorium-0",
                    Some("metadata.namespace") => "default",
                    _ => panic!("{from}"),
                };
                for arg in &mut args {
                    *arg = arg.replace(&format!("$({})", variable.name), value);
                }
            }
            _ => panic!("{} has either a value or a source", variable.name),
        }
    }
    assert!(!args.iter().any(|arg| arg.contains("$(")), "a variable that is not there: {args:?}");
    Node::new(&environment, &args.iter().map(String::as_str).collect::<Vec<_>>())
}

#[test]
fn the_node_would_start_under_its_pods_name_with_its_data_on_a_volume() {
    let Objects { set, .. } = objects();
    let container = container(&set);
    let node = node(container);
    let [mount] = &container.volume_mounts[..] else { panic!("one volume") };
    let [claim] = &set.spec.volume_claim_templates[..] else { panic!("one claim") };
    assert_eq!(claim.metadata.name, mount.name);
    assert_eq!(claim.spec.access_modes, ["ReadWriteOnce"]);
    assert!(bytes(&claim.spec.resources["requests"]["storage"]) >= 1 << 30);
    node.holds(&mount.mount_path);
    assert_eq!(node.get("name"), "sensorium-0");
    assert_eq!(container.name, set.metadata.name);
    assert_eq!(container.image, concat!("sensorium:", env!("CARGO_PKG_VERSION")));
    assert_eq!(container.image_pull_policy, "IfNotPresent");
    assert!(container.resources.requests.contains_key("cpu"));
    assert!(bytes(&container.resources.requests["memory"]) <= bytes(&container.resources.limits["memory"]));
    assert!(bytes(node.get("memory-limit")) * 2 <= bytes(&container.resources.limits["memory"]));
}

#[test]
fn services_find_the_pods_and_the_pods_each_other() {
    let Objects { services, budget, set } = objects();
    let labels = &set.spec.template.metadata.labels;
    assert_eq!(set.spec.selector.match_labels, *labels);
    assert_eq!(budget.spec.selector.match_labels, *labels);
    assert_eq!(budget.spec.max_unavailable, 1);
    assert_eq!(set.spec.replicas, 3);
    for metadata in [&set.metadata, &budget.metadata] {
        assert_eq!((metadata.name.as_str(), &metadata.labels), ("sensorium", labels));
    }

    let container = container(&set);
    let node = node(container);
    let port = |name: &str| {
        let port = container.ports.iter().find(|port| port.name == name);
        port.unwrap_or_else(|| panic!("the container has no port {name}"))
    };
    for (name, protocol, option) in [
        ("http", "TCP", "http"),
        ("mqtt", "TCP", "mqtt"),
        ("peer-tcp", "TCP", "peer"),
        ("peer-udp", "UDP", "peer"),
    ] {
        assert_eq!((port(name).container_port, port(name).protocol.as_str()), (node.port(option), protocol));
    }
    for service in services.values() {
        assert_eq!((&service.spec.selector, &service.metadata.labels), (labels, labels));
        for offered in &service.spec.ports {
            assert_eq!(port(&offered.target_port).protocol, offered.protocol, "{}", offered.name);
        }
    }
    let offers = |service: &Service| -> Vec<(String, u16)> {
        service.spec.ports.iter().map(|port| (port.target_port.clone(), port.port)).collect()
    };

    let peers = &services[&set.spec.service_name];
    assert_eq!(peers.spec.cluster_ip.as_deref(), Some("None"));
    assert_eq!(peers.spec.publish_not_ready_addresses, Some(true), "none would ever be ready");
    assert_eq!(offers(peers), [("peer-tcp".to_owned(), 4400), ("peer-udp".to_owned(), 4400)]);
    let found = node.get("discover").strip_prefix("dns:").expect("found by DNS");
    let domain = format!("{}.default.svc.cluster.local", peers.metadata.name);
    assert_eq!(host_port(found), (domain.as_str(), 4400));
    assert_eq!(host_port(node.get("public-peer")), (format!("sensorium-0.{domain}").as_str(), 4400));

    let clients = &services["sensorium"];
    assert_eq!(clients.spec.session_affinity.as_deref(), Some("None"), "nothing is sticky");
    assert_eq!((clients.spec.r#type.as_deref(), &clients.spec.cluster_ip), (Some("ClusterIP"), &None));
    assert_eq!(offers(clients), [("http".to_owned(), 80), ("mqtt".to_owned(), 1883)]);
    assert_eq!(node.get("public-http"), format!("http://{}", clients.metadata.name));
    assert_eq!(node.get("public-mqtt"), format!("mqtt://{}:1883", clients.metadata.name));
}

#[test]
fn probes_ask_what_the_program_answers() {
    let Objects { set, .. } = objects();
    let container = container(&set);
    let running = Running::start();
    for (probe, path) in [
        (&container.startup_probe, "/health/live"),
        (&container.liveness_probe, "/health/live"),
        (&container.readiness_probe, "/health/ready"),
    ] {
        assert_eq!((probe.http_get.path.as_str(), probe.http_get.port.as_str()), (path, "http"));
        assert_eq!(running.get(path).0, 200);
        assert!(probe.period_seconds > 0 && probe.failure_threshold > 1);
        assert!(probe.timeout_seconds.is_none_or(|timeout| timeout <= probe.period_seconds));
    }
    let patience = container.startup_probe.period_seconds * container.startup_probe.failure_threshold;
    assert!(patience >= 120, "a large data file is not opened in {patience} s");

    let scrape = &set.spec.template.metadata.annotations;
    assert_eq!(scrape["prometheus.io/port"], node(container).port("http").to_string());
    assert_eq!(running.get(&scrape["prometheus.io/path"]).0, 200);
}

#[test]
fn pods_stop_in_time_stand_apart_and_may_do_little_else() {
    let Objects { set, .. } = objects();
    let spec = &set.spec.template.spec;
    may_stop_in(spec.termination_grace_period_seconds);
    assert!(spec.termination_grace_period_seconds >= 15);
    assert_eq!(set.spec.update_strategy, json!({"type": "RollingUpdate"}));
    assert_eq!(set.spec.pod_management_policy, "Parallel");
    assert!(set.spec.min_ready_seconds > 0);
    assert!(!spec.automount_service_account_token && !spec.enable_service_links);

    let pod = &spec.security_context;
    // The user of the image; the group that the volume is given.
    let user = docker::user();
    assert!(pod.run_as_non_root && user == format!("{}:{}", pod.run_as_user, pod.run_as_group));
    assert_eq!(pod.fs_group, pod.run_as_group);
    assert_eq!(pod.fs_group_change_policy, "OnRootMismatch");
    assert_eq!(pod.seccomp_profile, json!({"type": "RuntimeDefault"}));
    let own = &container(&set).security_context;
    assert!(!own.allow_privilege_escalation && own.read_only_root_filesystem);
    assert_eq!(own.capabilities, json!({"drop": ["ALL"]}));

    let labels = json!({"matchLabels": set.spec.selector.match_labels});
    let [spread] = &spec.topology_spread_constraints[..] else { panic!("one constraint") };
    assert_eq!((spread.max_skew, spread.topology_key.as_str()), (1, "topology.kubernetes.io/zone"));
    assert_eq!((spread.when_unsatisfiable.as_str(), &spread.label_selector), ("ScheduleAnyway", &labels));
    let apart = &spec.affinity["podAntiAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"][0];
    let expected = json!({"topologyKey": "kubernetes.io/hostname", "labelSelector": labels});
    assert_eq!(apart["podAffinityTerm"], expected);
    assert_eq!(spec.affinity.as_object().map(serde_json::Map::len), Some(1));
}

#[test]
#[should_panic(expected = "terminationGracePeriod")]
fn a_misspelt_key_is_found() {
    let (_, mut set) = documents().into_iter().find(|(kind, _)| kind.ends_with("StatefulSet")).unwrap();
    set["spec"]["template"]["spec"]["terminationGracePeriod"] = json!(30);
    typed::<StatefulSet>(&set);
}

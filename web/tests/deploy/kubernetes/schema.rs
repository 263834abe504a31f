//! The objects of Kubernetes as far as they are used here. A key that is not named is an error: Kubernetes would leave it
//! out with a warning at most.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

type Labels = BTreeMap<String, String>;

macro_rules! object {
    ($($name:ident { $($field:ident: $kind:ty),* $(,)? })*) => {$(
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields, rename_all = "camelCase")]
        pub(crate) struct $name { $(pub(crate) $field: $kind),* }
    )*};
}

/// What every object begins with.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Metadata {
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) labels: Labels,
}

/// Kubernetes writes some abbreviations in capitals.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct ServiceSpec {
    pub(crate) r#type: Option<String>,
    #[serde(rename = "clusterIP")]
    pub(crate) cluster_ip: Option<String>,
    pub(crate) publish_not_ready_addresses: Option<bool>,
    pub(crate) session_affinity: Option<String>,
    pub(crate) selector: Labels,
    pub(crate) ports: Vec<ServicePort>,
}

object! {
    Service { metadata: Metadata, spec: ServiceSpec }
    ServicePort { name: String, protocol: String, port: u16, target_port: String }
    Selector { match_labels: Labels }

    Budget { metadata: Metadata, spec: BudgetSpec }
    BudgetSpec { max_unavailable: u32, selector: Selector }

    StatefulSet { metadata: Metadata, spec: StatefulSetSpec }
    StatefulSetSpec {
        replicas: u32, service_name: String, pod_management_policy: String, update_strategy: Value,
        min_ready_seconds: u32, selector: Selector, template: Template, volume_claim_templates: Vec<Claim>,
    }
    Template { metadata: TemplateMetadata, spec: PodSpec }
    TemplateMetadata { labels: Labels, annotations: Labels }
    PodSpec {
        automount_service_account_token: bool, enable_service_links: bool, termination_grace_period_seconds: u64,
        security_context: PodSecurity, topology_spread_constraints: Vec<Spread>, affinity: Value,
        containers: Vec<Container>,
    }
    PodSecurity {
        run_as_non_root: bool, run_as_user: u32, run_as_group: u32, fs_group: u32, fs_group_change_policy: String,
        seccomp_profile: Value,
    }
    Spread { max_skew: u32, topology_key: String, when_unsatisfiable: String, label_selector: Value }
    Container {
        name: String, image: String, image_pull_policy: String, args: Vec<String>, env: Vec<Variable>,
        ports: Vec<ContainerPort>, startup_probe: Probe, liveness_probe: Probe, readiness_probe: Probe,
        resources: Resources, security_context: Security, volume_mounts: Vec<Mount>,
    }
    Variable { name: String, value: Option<String>, value_from: Option<Value> }
    ContainerPort { name: String, protocol: String, container_port: u16 }
    Probe { http_get: HttpGet, period_seconds: u32, timeout_seconds: Option<u32>, failure_threshold: u32 }
    HttpGet { path: String, port: String }
    Resources { requests: Labels, limits: Labels }
    Security { allow_privilege_escalation: bool, read_only_root_filesystem: bool, capabilities: Value }
    Mount { name: String, mount_path: String }
    Claim { metadata: Metadata, spec: ClaimSpec }
    ClaimSpec { access_modes: Vec<String>, resources: BTreeMap<String, Labels> }
}

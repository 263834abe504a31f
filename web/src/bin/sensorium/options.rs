//! Every option of a node, once: on the command line, in the environment and, by the same name, in a TOML file.
//! Nothing has a default here: an option is said, or not.

use std::net::ToSocketAddrs;
use std::num::NonZeroU16;
use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;
use serde::Deserialize;
use store::NodeName;

use crate::cluster::{Discover, HostPort, Secret};
use crate::units::{Keep, Size, Span};

macro_rules! layered {
    ($name:ident { $($field:ident),* $(,)? } lists { $($list:ident),* $(,)? }) => {
        impl $name {
            /// What is said here, and where nothing is said, what `below` says.
            pub(crate) fn over(self, below: Self) -> Self {
                Self {
                    config: self.config,
                    $($field: self.$field.or(below.$field),)*
                    $($list: if self.$list.is_empty() { below.$list } else { self.$list },)*
                }
            }
        }
    };
}

/// The options of `serve` and `check`.
#[derive(Debug, Clone, Default, PartialEq, Args, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(crate) struct Options {
    /// File with the same names in TOML: `keep = 5000`, `http = "127.0.0.1:4000"`.
    #[arg(long, env = "SENSORIUM_CONFIG", value_name = "FILE")]
    #[serde(skip)]
    pub(crate) config: Option<PathBuf>,

    /// Name of the node, unique in its cluster [default: the host's name].
    #[arg(long, env = "SENSORIUM_NAME", value_parser = node_name, help_heading = "Node")]
    #[serde(deserialize_with = "named")]
    pub(crate) name: Option<NodeName>,
    /// Directory of the data; made when missing [default: ./data].
    #[arg(long, env = "SENSORIUM_DATA", value_name = "DIR", help_heading = "Node")]
    pub(crate) data: Option<PathBuf>,
    /// Samples kept of a series that declares nothing [default: 1000].
    #[arg(long, env = "SENSORIUM_KEEP", value_name = "N", help_heading = "Node")]
    pub(crate) keep: Option<Keep>,
    /// Most memory for samples, as in 512MiB; at the limit new series are refused [default: half of the machine].
    #[arg(long, env = "SENSORIUM_MEMORY_LIMIT", value_name = "SIZE", help_heading = "Node")]
    pub(crate) memory_limit: Option<Size>,
    /// Milliseconds that a commit waits for company; more spares SD cards, and delays acknowledgements [default: 0].
    #[arg(long, env = "SENSORIUM_COMMIT_WINDOW", value_name = "MS", help_heading = "Node")]
    pub(crate) commit_window: Option<u16>,

    /// Pages, API and devices over WebSocket; port 0 is any free port [default: 127.0.0.1:4000].
    #[arg(long, env = "SENSORIUM_HTTP", value_name = "ADDR", help_heading = "Addresses")]
    pub(crate) http: Option<Listen>,
    /// Devices over MQTT [default: 127.0.0.1:1883].
    #[arg(long, env = "SENSORIUM_MQTT", value_name = "ADDR", help_heading = "Addresses")]
    pub(crate) mqtt: Option<Listen>,
    /// No MQTT.
    #[arg(long, env = "SENSORIUM_NO_MQTT", value_name = "BOOL", help_heading = "Addresses",
          num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) no_mqtt: Option<bool>,
    /// Other nodes [default: 127.0.0.1:4400].
    #[arg(long, env = "SENSORIUM_PEER", value_name = "ADDR", help_heading = "Addresses")]
    pub(crate) peer: Option<Listen>,
    /// What browsers and devices are told [default: from the bound address].
    #[arg(long, env = "SENSORIUM_PUBLIC_HTTP", value_name = "URL", help_heading = "Addresses")]
    pub(crate) public_http: Option<String>,
    /// What devices are told [default: from the bound address].
    #[arg(long, env = "SENSORIUM_PUBLIC_MQTT", value_name = "URL", help_heading = "Addresses")]
    pub(crate) public_mqtt: Option<String>,
    /// What other nodes are told [default: the bound address].
    #[arg(long, env = "SENSORIUM_PUBLIC_PEER", value_name = "HOST:PORT", help_heading = "Addresses")]
    pub(crate) public_peer: Option<HostPort>,

    /// Listen beyond this machine without authentication, knowingly.
    #[arg(long, env = "SENSORIUM_INSECURE_OPEN", value_name = "BOOL", help_heading = "Access",
          num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) insecure_open: Option<bool>,
    /// Another origin (`https://example.org`) whose pages may open sockets here; repeatable.
    #[arg(
        long,
        env = "SENSORIUM_ALLOW_ORIGIN",
        value_name = "URL",
        value_delimiter = ',',
        help_heading = "Access"
    )]
    pub(crate) allow_origin: Vec<String>,
    /// Turns authentication on (not in this version).
    #[arg(
        long,
        env = "SENSORIUM_AUTH_SECRET",
        value_name = "TEXT",
        hide_env_values = true,
        help_heading = "Access"
    )]
    pub(crate) auth_secret: Option<String>,
    /// Certificate chain for HTTP and MQTT (not in this version).
    #[arg(long, env = "SENSORIUM_TLS_CERT", value_name = "FILE", help_heading = "Access")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// Its key (not in this version).
    #[arg(long, env = "SENSORIUM_TLS_KEY", value_name = "FILE", help_heading = "Access")]
    pub(crate) tls_key: Option<PathBuf>,
    /// A certificate made at start (not in this version).
    #[arg(long, env = "SENSORIUM_TLS_SELF_SIGNED", value_name = "BOOL", help_heading = "Access",
          num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) tls_self_signed: Option<bool>,

    /// Another node's --peer address, to join its cluster; repeatable.
    #[arg(
        long,
        env = "SENSORIUM_JOIN",
        value_name = "HOST:PORT",
        value_delimiter = ',',
        help_heading = "Cluster"
    )]
    pub(crate) join: Vec<HostPort>,
    /// How to find other nodes: dns:NAME:PORT, mdns or none [default: none; on Fly.io and Kubernetes its own DNS name].
    #[arg(long, env = "SENSORIUM_DISCOVER", value_name = "HOW", help_heading = "Cluster")]
    pub(crate) discover: Option<Discover>,
    /// Shared by the nodes of a cluster; required as soon as peers are off loopback.
    #[arg(
        long,
        env = "SENSORIUM_CLUSTER_SECRET",
        value_name = "TEXT",
        hide_env_values = true,
        help_heading = "Cluster"
    )]
    pub(crate) cluster_secret: Option<Secret>,
    /// Nodes that keep each sensor [default: 3].
    #[arg(long, env = "SENSORIUM_REPLICAS", value_name = "N", help_heading = "Cluster")]
    pub(crate) replicas: Option<NonZeroU16>,
    /// Copies before a sample is acknowledged, while enough nodes live [default: 2].
    #[arg(long, env = "SENSORIUM_ACK_COPIES", value_name = "N", help_heading = "Cluster")]
    pub(crate) ack_copies: Option<NonZeroU16>,
    /// Copies without which nothing is acknowledged [default: 1].
    #[arg(long, env = "SENSORIUM_MIN_COPIES", value_name = "N", help_heading = "Cluster")]
    pub(crate) min_copies: Option<NonZeroU16>,
    /// How long a node may be down before others take its place [default: 10m].
    #[arg(long, env = "SENSORIUM_REPLACE_AFTER", value_name = "SPAN", help_heading = "Cluster")]
    pub(crate) replace_after: Option<Span>,
    /// Where the node stands, so that copies are spread over zones.
    #[arg(long, env = "SENSORIUM_ZONE", value_name = "NAME", help_heading = "Cluster")]
    pub(crate) zone: Option<String>,
}

layered! {
    Options {
        name, data, keep, memory_limit, commit_window, http, mqtt, no_mqtt, peer, public_http, public_mqtt, public_peer,
        insecure_open, auth_secret, tls_cert, tls_key, tls_self_signed, discover, cluster_secret, replicas, ack_copies,
        min_copies, replace_after, zone,
    } lists { allow_origin, join }
}

impl Options {
    /// These options over those of the file that they name. The error names file, key and what was expected.
    pub(crate) fn with_file(self) -> Result<Self, Vec<String>> {
        let Some(path) = self.config.clone() else { return Ok(self) };
        let named = |what: String| vec![format!("--config {}: {what}", path.display())];
        let text = std::fs::read_to_string(&path).map_err(|error| named(error.to_string()))?;
        let below = toml::from_str(&text).map_err(|error| named(error.to_string().trim_end().to_owned()))?;
        Ok(self.over(below))
    }
}

/// An address to listen on: `127.0.0.1:4000`, `[::]:4000`, `localhost:4000`. Names are looked up when it is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Listen(pub(crate) std::net::SocketAddr);

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected =
            |why: &str| format!("{text:?} is not an address to listen on ({why}); expected HOST:PORT");
        let mut found = text.to_socket_addrs().map_err(|error| expected(&error.to_string()))?;
        found.next().map(Self).ok_or_else(|| expected("the name has no address"))
    }
}

impl TryFrom<String> for Listen {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

fn node_name(text: &str) -> Result<NodeName, String> {
    NodeName::new(text).map_err(|error| error.to_string())
}

fn named<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<NodeName>, D::Error> {
    let text = String::deserialize(deserializer)?;
    node_name(&text).map(Some).map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_the_names_of_the_command_line_and_no_others() {
        let said: Options = toml::from_str(
            r#"
            name = "lab-1"
            http = "127.0.0.1:0"
            no-mqtt = true
            memory-limit = "512MiB"
            commit-window = 20
            keep = 5000
            replace-after = "5m"
            allow-origin = ["https://a.example", "https://b.example"]
            "#,
        )
        .unwrap();
        assert_eq!(said.name, Some(NodeName::new("lab-1").unwrap()));
        assert_eq!((said.no_mqtt, said.keep, said.commit_window), (Some(true), Some(Keep(5000)), Some(20)));
        assert_eq!(said.memory_limit, Some(Size(512 << 20)));
        assert_eq!(said.allow_origin.len(), 2);
        for (wrong, named) in [
            ("nmae = 'a'", "nmae"),
            ("config = 'b'", "config"),
            ("no_mqtt = true", "no_mqtt"),
            ("keep = 0", "expected 1 to"),
            ("memory-limit = 'much'", "much"),
            ("name = 'a/b'", "a/b"),
            ("replicas = 0", "nonzero"),
            ("http = 4000", "http"),
            ("join = ['nowhere']", "HOST:PORT"),
            ("discover = 'consul'", "dns:NAME:PORT"),
        ] {
            let error = toml::from_str::<Options>(wrong).unwrap_err().to_string();
            assert!(error.contains(named), "{wrong}: {error}");
        }
    }

    #[test]
    fn what_is_said_above_wins() {
        let above = Options { keep: Some(Keep(7)), join: vec!["a:1".parse().unwrap()], ..Options::default() };
        let below = Options {
            keep: Some(Keep(8)),
            zone: Some("z".into()),
            join: vec!["b:1".parse().unwrap()],
            allow_origin: vec!["https://c".into()],
            ..Options::default()
        };
        let both = above.over(below);
        assert_eq!((both.keep, both.zone.as_deref()), (Some(Keep(7)), Some("z")));
        assert_eq!(both.join, ["a:1".parse().unwrap()]);
        assert_eq!(both.allow_origin, ["https://c"]);
    }
}

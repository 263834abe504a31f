//! What a node is told of its cluster: whom to join, how to find others, what they share, how many copies there are to
//! be. A `ClusterSettings` exists only once it makes sense as a whole; the secret in it prints as nothing.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;

use crate::options::Options;
use crate::units::Span;

const REPLICAS: u16 = 3;
const ACK_COPIES: u16 = 2;
const MIN_COPIES: u16 = 1;
const REPLACE_AFTER: Duration = Duration::from_secs(600);

/// What concerns the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ClusterSettings {
    /// Seeds: `HOST:PORT` each, as they were said.
    pub(crate) join: Vec<String>,
    pub(crate) discover: Discover,
    /// Present as soon as peers are off loopback.
    pub(crate) secret: Option<Secret>,
    /// At least 1; `min_copies <= ack_copies <= replicas`.
    pub(crate) replicas: u16,
    pub(crate) ack_copies: u16,
    pub(crate) min_copies: u16,
    pub(crate) replace_after: Duration,
    pub(crate) zone: Option<String>,
    /// `HOST:PORT` that peers are told; `None` is the bound address.
    pub(crate) public_peer: Option<String>,
}

impl ClusterSettings {
    /// Fills in defaults; `peer` is where the node listens for others. Reasons why it cannot be go to `wrong`.
    pub(crate) fn resolve(
        options: &Options,
        peer: SocketAddr,
        around: &Surroundings,
        wrong: &mut Vec<String>,
    ) -> Self {
        let copies = |said: Option<std::num::NonZeroU16>| said.map(u16::from);
        let replicas = copies(options.replicas).unwrap_or(REPLICAS);
        let ack_copies = copies(options.ack_copies).unwrap_or(ACK_COPIES.min(replicas));
        let min_copies = copies(options.min_copies).unwrap_or(MIN_COPIES);
        if ack_copies > replicas {
            wrong.push(format!("--ack-copies {ack_copies} is more than --replicas {replicas}"));
        }
        if min_copies > ack_copies {
            wrong.push(format!("--min-copies {min_copies} is more than --ack-copies {ack_copies}"));
        }
        let public_peer = options.public_peer.clone().or_else(|| around.public_peer(peer));
        let settings = Self {
            join: options.join.iter().map(ToString::to_string).collect(),
            discover: options.discover.clone().unwrap_or_else(|| around.discover(peer)),
            secret: options.cluster_secret.clone(),
            replicas,
            ack_copies,
            min_copies,
            replace_after: options.replace_after.map_or(REPLACE_AFTER, |Span(span)| span),
            zone: options.zone.clone(),
            public_peer: public_peer.as_ref().map(ToString::to_string),
        };
        match &settings.secret {
            Some(secret) if secret.expose().is_empty() => wrong.push("--cluster-secret is empty".to_owned()),
            Some(_) => {}
            None => {
                let reach = settings.beyond_loopback(options, peer, public_peer.as_ref());
                wrong.extend(reach.into_iter().map(|what| {
                    format!("{what} reaches beyond this machine: it needs --cluster-secret, the same on every node")
                }));
            }
        }
        settings
    }

    /// Whether the node was told where others may be.
    pub(crate) fn expects_peers(&self) -> bool {
        !self.join.is_empty() || self.discover != Discover::None
    }

    /// The options that let this node speak with nodes of other machines.
    fn beyond_loopback(
        &self,
        options: &Options,
        peer: SocketAddr,
        public_peer: Option<&HostPort>,
    ) -> Vec<String> {
        let mut beyond = Vec::new();
        if !peer.ip().is_loopback() {
            beyond.push(format!("--peer {peer}"));
        }
        beyond.extend(
            public_peer.filter(|place| !place.is_loopback()).map(|place| format!("--public-peer {place}")),
        );
        let seeds = options.join.iter().filter(|place| !place.is_loopback());
        beyond.extend(seeds.map(|place| format!("--join {place}")));
        if !self.discover.is_loopback() {
            beyond.push(format!("--discover {}", self.discover));
        }
        beyond
    }
}

/// How other nodes are found, beside those that are named.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) enum Discover {
    /// Not at all.
    None,
    /// Every address of a name, asked for again and again.
    Dns { name: String, port: u16 },
    /// Nodes that announce themselves on the local network.
    Mdns,
}

impl Discover {
    /// What discovery is told.
    pub(crate) fn to_source(&self) -> store::cluster::discover::Discover {
        use store::cluster::discover::Discover as Source;
        match self {
            Self::None => Source::None,
            Self::Dns { name, port } => Source::Dns { name: name.clone(), port: *port },
            Self::Mdns => Source::Mdns,
        }
    }

    /// Whether it finds only nodes of this machine.
    fn is_loopback(&self) -> bool {
        match self {
            Self::None => true,
            Self::Dns { name, .. } => is_loopback(name),
            Self::Mdns => false,
        }
    }
}

impl FromStr for Discover {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "none" => return Ok(Self::None),
            "mdns" => return Ok(Self::Mdns),
            _ => {}
        }
        let expected = || format!("{text:?} is no way to find nodes; expected dns:NAME:PORT, mdns or none");
        let place = text.strip_prefix("dns:").ok_or_else(expected)?;
        let HostPort { host, port } = place.parse().map_err(|_| expected())?;
        Ok(Self::Dns { name: host, port })
    }
}

impl TryFrom<String> for Discover {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl fmt::Display for Discover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Dns { name, port } => write!(f, "dns:{name}:{port}"),
            Self::Mdns => f.write_str("mdns"),
        }
    }
}

/// Another node's address as people say it: a name or an IP address, and a port. Names are looked up when they are used.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct HostPort {
    /// Without brackets.
    host: String,
    /// Not 0.
    port: u16,
}

impl HostPort {
    fn is_loopback(&self) -> bool {
        is_loopback(&self.host)
    }
}

impl FromStr for HostPort {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || format!("{text:?} is not the address of a node; expected HOST:PORT");
        let (host, port) = text.rsplit_once(':').ok_or_else(expected)?;
        let port = port.parse().ok().filter(|port| *port > 0).ok_or_else(expected)?;
        let host = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            Some(address) if address.parse::<Ipv6Addr>().is_ok() => address,
            Some(_) => return Err(expected()),
            None => host,
        };
        let is_name = |host: &str| {
            !host.is_empty()
                && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
        };
        if host.parse::<IpAddr>().is_err() && !is_name(host) {
            return Err(expected());
        }
        if host.contains(':') && !text.starts_with('[') {
            return Err(format!("{text:?} is not the address of a node; write IPv6 as [{host}]:{port}"));
        }
        Ok(Self { host: host.to_owned(), port })
    }
}

impl TryFrom<String> for HostPort {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

/// Whether a host is this machine by its address, or as localhost.
fn is_loopback(host: &str) -> bool {
    match host.parse::<IpAddr>() {
        Ok(address) => address.is_loopback(),
        Err(_) => host == "localhost" || host.ends_with(".localhost"),
    }
}

/// What nobody but the cluster's nodes may know. It prints as nothing, so that no log and no message can hold it.
#[derive(Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Secret(String);

impl Secret {
    /// The text itself.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl FromStr for Secret {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// What the platform that a node runs on tells of itself. It gives defaults where nothing is said, and only to nodes that
/// listen beyond loopback: the others cannot be reached from where the platform's names lead.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Surroundings {
    /// The name behind which all nodes stand: `<app>.internal` on Fly.io, the headless service on Kubernetes.
    peers: Option<String>,
    /// This machine's address on the platform's private network.
    private: Option<IpAddr>,
}

impl Surroundings {
    /// Of this process.
    pub(crate) fn read() -> Self {
        let hosts = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
        Self::of(|name| std::env::var(name).ok().filter(|value| !value.is_empty()), &hosts)
    }

    /// Fly.io names the app in the environment. Kubernetes writes a pod's full name, which ends in that of the
    /// StatefulSet's service, into `/etc/hosts`.
    fn of(env: impl Fn(&str) -> Option<String>, hosts: &str) -> Self {
        if let Some(app) = env("FLY_APP_NAME") {
            let private = env("FLY_PRIVATE_IP").and_then(|address| address.parse().ok());
            return Self { peers: Some(format!("{app}.internal")), private };
        }
        if env("KUBERNETES_SERVICE_HOST").is_none() {
            return Self::default();
        }
        hosts
            .lines()
            .find_map(|line| {
                let mut words = line.split_whitespace();
                let private = words.next()?.parse().ok()?;
                let service = words.find_map(|name| {
                    let (_, service) = name.split_once('.')?;
                    // pod.service.namespace.svc.domain
                    (service.split('.').nth(2)? == "svc").then(|| service.to_owned())
                })?;
                Some(Self { peers: Some(service), private: Some(private) })
            })
            .unwrap_or_default()
    }

    fn discover(&self, peer: SocketAddr) -> Discover {
        match &self.peers {
            Some(name) if !peer.ip().is_loopback() => Discover::Dns { name: name.clone(), port: peer.port() },
            _ => Discover::None,
        }
    }

    fn public_peer(&self, peer: SocketAddr) -> Option<HostPort> {
        let private = self.private.filter(|_| peer.ip().is_unspecified() && peer.port() > 0)?;
        Some(HostPort { host: private.to_string(), port: peer.port() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(options: &Options, peer: &str) -> Result<ClusterSettings, String> {
        let mut wrong = Vec::new();
        let around = Surroundings::default();
        let settings = ClusterSettings::resolve(options, peer.parse().unwrap(), &around, &mut wrong);
        if wrong.is_empty() { Ok(settings) } else { Err(wrong.join("\n")) }
    }

    fn copies(replicas: u16, ack: u16, min: u16) -> Options {
        let said = std::num::NonZeroU16::new;
        Options {
            replicas: said(replicas),
            ack_copies: said(ack),
            min_copies: said(min),
            ..Options::default()
        }
    }

    #[test]
    fn copies_stand_in_order() {
        let of = |options: &Options| {
            resolve(options, "127.0.0.1:4400").map(|s| (s.replicas, s.ack_copies, s.min_copies))
        };
        // 0 is: not said.
        assert_eq!(of(&copies(0, 0, 0)), Ok((3, 2, 1)));
        assert_eq!(of(&copies(1, 0, 0)), Ok((1, 1, 1)), "the default of one follows that of the other");
        assert_eq!(of(&copies(5, 3, 2)), Ok((5, 3, 2)));
        assert_eq!(of(&copies(2, 3, 1)), Err("--ack-copies 3 is more than --replicas 2".into()));
        assert_eq!(of(&copies(3, 0, 3)), Err("--min-copies 3 is more than --ack-copies 2".into()));
    }

    #[test]
    fn addresses_of_nodes_are_names_or_numbers_with_a_port() {
        for (text, loopback) in [
            ("127.0.0.1:4400", true),
            ("[::1]:4400", true),
            ("localhost:1", true),
            ("n1.localhost:1", true),
            ("10.0.0.1:4400", false),
            ("node-1.sensors.internal:4400", false),
            ("[fdaa::3]:4400", false),
            ("localhost.example:1", false),
        ] {
            let place: HostPort = text.parse().unwrap();
            assert_eq!((place.to_string().as_str(), place.is_loopback()), (text, loopback));
        }
        for wrong in
            ["", "a", "a:", ":1", "a:0", "a:65536", "a b:1", "http://a:1", "[a]:1", "::1:4400", "a:1:2"]
        {
            assert!(wrong.parse::<HostPort>().is_err(), "{wrong}");
        }
        for how in ["none", "mdns", "dns:app.internal:4400"] {
            assert_eq!(how.parse::<Discover>().unwrap().to_string(), how);
        }
        for wrong in ["", "dns", "dns:", "dns:a", "dns:a:0", "dns::1", "consul"] {
            assert!(wrong.parse::<Discover>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn beyond_loopback_a_secret_is_needed_and_the_option_is_named() {
        let named = |options: &Options, peer: &str| resolve(options, peer).err().unwrap_or_default();
        let join = |text: &str| Options { join: vec![text.parse().unwrap()], ..Options::default() };
        let public = Options { public_peer: Some("n1.example:4400".parse().unwrap()), ..Options::default() };
        let discover = |how: &str| Options { discover: Some(how.parse().unwrap()), ..Options::default() };
        for (options, peer, option) in [
            (Options::default(), "0.0.0.0:4400", "--peer 0.0.0.0:4400"),
            (join("10.0.0.1:4400"), "127.0.0.1:0", "--join 10.0.0.1:4400"),
            (public, "127.0.0.1:0", "--public-peer n1.example:4400"),
            (discover("mdns"), "127.0.0.1:0", "--discover mdns"),
            (discover("dns:a.internal:1"), "127.0.0.1:0", "--discover dns:a.internal:1"),
        ] {
            let reasons = named(&options, peer);
            assert!(reasons.starts_with(option) && reasons.contains("--cluster-secret"), "{reasons}");
            let secret = Some(Secret("very secret".into()));
            let settings = resolve(&Options { cluster_secret: secret, ..options }, peer).unwrap();
            assert!(!format!("{settings:?}").contains("very secret"));
        }
        for options in
            [join("127.0.0.1:4400"), join("localhost:1"), discover("none"), discover("dns:localhost:1")]
        {
            assert!(resolve(&options, "127.0.0.1:0").is_ok(), "{options:?}");
        }
        let empty = Options { cluster_secret: Some(Secret(String::new())), ..Options::default() };
        assert_eq!(named(&empty, "0.0.0.0:1"), "--cluster-secret is empty");
    }

    #[test]
    fn a_platform_gives_defaults_to_nodes_that_it_can_reach() {
        let env = |pairs: &'static [(&str, &str)]| {
            |name: &str| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        };
        let fly = Surroundings::of(env(&[("FLY_APP_NAME", "lab"), ("FLY_PRIVATE_IP", "fdaa::3")]), "");
        let wide = "[::]:4400".parse().unwrap();
        assert_eq!(fly.discover(wide).to_string(), "dns:lab.internal:4400");
        assert_eq!(fly.public_peer(wide).unwrap().to_string(), "[fdaa::3]:4400");
        let narrow = "127.0.0.1:4400".parse().unwrap();
        assert_eq!((fly.discover(narrow), fly.public_peer(narrow)), (Discover::None, None));

        let hosts = "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n\
                     10.1.2.3\tsensorium-0.sensorium-peers.default.svc.cluster.local\tsensorium-0\n";
        let inside: &[(&str, &str)] = &[("KUBERNETES_SERVICE_HOST", "10.96.0.1")];
        let pod = Surroundings::of(env(inside), hosts);
        assert_eq!(pod.discover(wide).to_string(), "dns:sensorium-peers.default.svc.cluster.local:4400");
        assert_eq!(pod.public_peer(wide).unwrap().to_string(), "10.1.2.3:4400");
        assert_eq!(Surroundings::of(env(inside), "127.0.0.1 localhost\n"), Surroundings::default());
        assert_eq!(Surroundings::of(env(&[]), hosts), Surroundings::default());
    }
}

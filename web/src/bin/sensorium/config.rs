//! The settings of a node: its options with defaults, held against what this version can do. A `Settings` exists only
//! once everything in it can be honoured; whoever asks for more is told all of it at once.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use store::NodeName;
use store::cluster::mesh;
use web::Addresses;

use crate::cluster::{ClusterSettings, Surroundings};
use crate::options::{Listen, Options};
use crate::units::{Keep, Size};

const HTTP: SocketAddr = loopback(4000);
const MQTT: SocketAddr = loopback(1883);
const PEER: SocketAddr = loopback(4400);
const DATA: &str = "./data";

const fn loopback(port: u16) -> SocketAddr {
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), port)
}

/// What a node is started with.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Settings {
    pub(crate) name: NodeName,
    pub(crate) data: PathBuf,
    pub(crate) http: SocketAddr,
    /// `None` with `--no-mqtt`.
    pub(crate) mqtt: Option<SocketAddr>,
    pub(crate) peer: SocketAddr,
    pub(crate) public_http: Option<String>,
    pub(crate) public_mqtt: Option<String>,
    pub(crate) allow_origins: Vec<String>,
    pub(crate) keep: usize,
    /// Bytes; `None` is half of the machine.
    pub(crate) memory_limit: Option<u64>,
    pub(crate) commit_window: Duration,
    pub(crate) cluster: ClusterSettings,
}

impl Settings {
    /// Fills in defaults. The error is every reason why a node cannot run with these options.
    pub(crate) fn resolve(options: Options) -> Result<Self, Vec<String>> {
        let mut wrong = unsupported(&options);
        let listen = |said: Option<Listen>, default| said.map_or(default, |listen| listen.0);
        let (http, peer) = (listen(options.http, HTTP), listen(options.peer, PEER));
        let mqtt = (options.no_mqtt != Some(true)).then(|| listen(options.mqtt, MQTT));

        let open = [("--http", Some(http)), ("--mqtt", mqtt)];
        for (option, address) in open {
            if let Some(address) = address.filter(|address| !address.ip().is_loopback())
                && options.insecure_open != Some(true)
            {
                wrong.push(format!(
                    "{option} {address} would let anyone on the network read and write: without authentication a \
                     node listens on this machine alone; say --insecure-open to have it open all the same"
                ));
            }
        }
        let cluster = ClusterSettings::resolve(&options, peer, &Surroundings::read(), &mut wrong);

        let mut url = |option: &str, said: Option<String>, schemes: &[&str]| {
            said.map(|text| match base_url(&text, schemes) {
                Ok(url) => url,
                Err(why) => {
                    wrong.push(format!("{option} {text:?}: {why}"));
                    text
                }
            })
        };
        let public_http = url("--public-http", options.public_http, &["http", "https"]);
        let public_mqtt = url("--public-mqtt", options.public_mqtt, &["mqtt", "mqtts"]);
        let allow_origins = options
            .allow_origin
            .into_iter()
            .filter_map(|origin| url("--allow-origin", Some(origin), &["http", "https"]))
            .collect();

        let settings = Self {
            name: options.name.unwrap_or_else(host_name),
            data: options.data.unwrap_or_else(|| DATA.into()),
            http,
            mqtt,
            peer,
            public_http,
            public_mqtt,
            allow_origins,
            keep: options.keep.map_or(store::DEFAULT_KEEP, |Keep(keep)| keep),
            memory_limit: options.memory_limit.map(|Size(bytes)| bytes),
            commit_window: Duration::from_millis(options.commit_window.unwrap_or(0).into()),
            cluster,
        };
        if wrong.is_empty() { Ok(settings) } else { Err(wrong) }
    }

    /// What clients are told, from the addresses that were bound.
    pub(crate) fn addresses(
        &self,
        http: SocketAddr,
        mqtt: Option<SocketAddr>,
        peer: SocketAddr,
    ) -> Addresses {
        Addresses {
            http: self.public_http.clone().unwrap_or_else(|| format!("http://{}", Self::reachable(http))),
            mqtt: mqtt.map(|mqtt| {
                self.public_mqtt.clone().unwrap_or_else(|| format!("mqtt://{}", Self::reachable(mqtt)))
            }),
            peer: self.cluster.public_peer.clone().unwrap_or_else(|| Self::reachable(peer)),
        }
    }

    /// A bound address as others can use it: "all addresses" is no address, so the host's name stands for it.
    fn reachable(bound: SocketAddr) -> String {
        if bound.ip().is_unspecified() {
            format!("{}:{}", host_name(), bound.port())
        } else {
            bound.to_string()
        }
    }

    /// Whether only this machine can reach the node.
    pub(crate) fn is_loopback(&self) -> bool {
        self.http.ip().is_loopback()
    }

    /// What the store is opened with.
    pub(crate) fn store(&self) -> store::Config {
        let mut config = store::Config::new(self.data.clone(), self.name.clone());
        config.keep = self.keep;
        config.memory_limit = self.memory_limit.unwrap_or(config.memory_limit);
        config.commit_window = self.commit_window;
        let copies = |copies: u16| u8::try_from(copies).unwrap_or(u8::MAX);
        config.copies = store::Policy {
            ack_copies: copies(self.cluster.ack_copies),
            min_copies: copies(self.cluster.min_copies),
        };
        config.expects_peers = self.cluster.expects_peers();
        config
    }

    /// What the cluster is started with; `peer` is what peers are told.
    pub(crate) fn mesh(&self, peer: &str) -> mesh::Setup {
        mesh::Setup {
            peer: peer.to_owned(),
            versions: mesh::PROTOCOL,
            secret: self.cluster.secret.as_ref().map(|secret| secret.expose().to_owned()),
            replicas: self.cluster.replicas,
            zone: self.cluster.zone.clone(),
            expects_peers: self.cluster.expects_peers(),
        }
    }
}

/// What this version does not have: asking for it must not pass for having it.
fn unsupported(options: &Options) -> Vec<String> {
    let open = "this version has no authentication";
    let plain = "this version has no TLS; put a proxy that has it in front";
    [
        options.auth_secret.as_ref().map(|_| format!("--auth-secret: {open}")),
        options.tls_cert.as_ref().map(|file| format!("--tls-cert {}: {plain}", file.display())),
        options.tls_key.as_ref().map(|file| format!("--tls-key {}: {plain}", file.display())),
        (options.tls_self_signed == Some(true)).then(|| format!("--tls-self-signed: {plain}")),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// `scheme://host[:port]` without a slash at the end.
fn base_url(text: &str, schemes: &[&str]) -> Result<String, String> {
    let expected = || format!("expected {}://HOST[:PORT]", schemes.join(":// or "));
    let (scheme, rest) = text.split_once("://").ok_or_else(expected)?;
    let authority = rest.trim_end_matches('/');
    let plain = !authority.is_empty() && !authority.contains(['/', '?', '#', '@', ' ', '"', '\'', '\\']);
    if schemes.contains(&scheme) && plain { Ok(format!("{scheme}://{authority}")) } else { Err(expected()) }
}

/// The host's name as a node name: what an id may not have becomes `-`.
fn host_name() -> NodeName {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let id: String = name
        .trim_start_matches(|c: char| !c.is_ascii_alphanumeric())
        .chars()
        .take(128)
        .map(|c| if c.is_ascii_alphanumeric() || "_.:-".contains(c) { c } else { '-' })
        .collect();
    NodeName::new(&id).unwrap_or_else(|_| NodeName::new("sensorium").expect("matches the pattern of ids"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reasons(options: Options) -> String {
        Settings::resolve(options)
            .map_or_else(|reasons| reasons.join("\n"), |settings| format!("{settings:?}"))
    }

    #[test]
    fn the_defaults_are_those_of_the_contract() {
        let settings = Settings::resolve(Options::default()).unwrap();
        assert_eq!(settings.data, PathBuf::from("./data"));
        assert_eq!(settings.http.to_string(), "127.0.0.1:4000");
        assert_eq!(settings.mqtt.unwrap().to_string(), "127.0.0.1:1883");
        assert_eq!(settings.peer.to_string(), "127.0.0.1:4400");
        assert_eq!(
            (settings.keep, settings.memory_limit, settings.commit_window),
            (1000, None, Duration::ZERO)
        );
        let ClusterSettings { replicas, ack_copies, min_copies, replace_after, .. } = settings.cluster;
        assert_eq!((replicas, ack_copies, min_copies, replace_after), (3, 2, 1, Duration::from_secs(600)));
    }

    #[test]
    fn what_cannot_be_honoured_is_refused_by_name_and_all_at_once() {
        let wrong = reasons(Options {
            join: vec!["a:4400".parse().unwrap()],
            auth_secret: Some("very secret".into()),
            tls_self_signed: Some(true),
            min_copies: std::num::NonZeroU16::new(4),
            ..Options::default()
        });
        for named in ["--join a:4400", "--auth-secret", "--tls-self-signed", "--min-copies 4"] {
            assert!(wrong.contains(named), "{named}: {wrong}");
        }
        assert!(!wrong.contains("very secret"));
    }

    #[test]
    fn beyond_loopback_only_knowingly() {
        let wide = || Some("0.0.0.0:0".parse().unwrap());
        assert!(reasons(Options { http: wide(), ..Options::default() }).contains("--http 0.0.0.0:0"));
        assert!(reasons(Options { mqtt: wide(), ..Options::default() }).contains("--mqtt 0.0.0.0:0"));
        assert!(reasons(Options { peer: wide(), ..Options::default() }).contains("--cluster-secret"));
        let open = Options { http: wide(), mqtt: wide(), insecure_open: Some(true), ..Options::default() };
        let settings = Settings::resolve(open).unwrap();
        let told =
            settings.addresses("0.0.0.0:4000".parse().unwrap(), None, "127.0.0.1:4400".parse().unwrap());
        assert!(!told.http.contains("0.0.0.0"), "{told:?}");
        let unused = Options { mqtt: wide(), no_mqtt: Some(true), ..Options::default() };
        assert_eq!(Settings::resolve(unused).unwrap().mqtt, None);
    }

    #[test]
    fn urls_are_bases() {
        let with = |url: &str| {
            let options = Options { public_http: Some(url.into()), ..Options::default() };
            Settings::resolve(options).map(|settings| settings.public_http.unwrap())
        };
        assert_eq!(with("https://lab.example/"), Ok("https://lab.example".to_owned()));
        for wrong in ["lab.example", "ftp://lab.example", "http://", "http://a/b", "http://a@b"] {
            assert!(with(wrong).unwrap_err()[0].contains("--public-http"), "{wrong}");
        }
    }
}

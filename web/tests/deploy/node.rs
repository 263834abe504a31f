//! A node as a deployment starts it: its settings, whether they came by environment or by option, and what must hold of
//! them wherever they stand.

use std::collections::BTreeMap;

use crate::program;

/// Settings that must not stand in a file.
const SECRETS: [&str; 2] = ["cluster-secret", "auth-secret"];
/// Longest that a node takes to stop, in seconds, by the contract.
const STOPS_WITHIN: u64 = 10;

/// The settings of one node, by option name; a secret is `None`, as it comes from elsewhere.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    settings: BTreeMap<String, Option<String>>,
}

impl Node {
    /// Settings out of an environment, with `args` over it. Anything that is no option of the program is an error.
    pub(crate) fn new(environment: &BTreeMap<String, Option<String>>, args: &[&str]) -> Self {
        let options = program::options();
        let mut settings = BTreeMap::new();
        for (variable, value) in environment.iter().filter(|(name, _)| name.starts_with("SENSORIUM_")) {
            let option = options.iter().find(|(_, known)| *known == variable);
            let (option, _) = option.unwrap_or_else(|| panic!("{variable} is no variable of the program"));
            settings.insert(option.clone(), value.clone());
        }
        for arg in args.iter().filter(|arg| **arg != "serve") {
            let said = arg.strip_prefix("--").and_then(|said| said.split_once('='));
            let (option, value) = said.unwrap_or_else(|| panic!("{arg} is not --option=value"));
            assert!(options.contains_key(option), "--{option} is no option of the program");
            settings.insert(option.to_owned(), Some(value.to_owned()));
        }
        for secret in SECRETS {
            assert!(!matches!(settings.get(secret), Some(Some(_))), "{secret} stands in a file");
        }
        Self { settings }
    }

    /// A setting that is there.
    pub(crate) fn get(&self, option: &str) -> &str {
        let said = self.settings.get(option).and_then(Option::as_deref);
        said.unwrap_or_else(|| panic!("--{option} is not set in {:?}", self.settings))
    }

    /// The port of an address to listen on.
    pub(crate) fn port(&self, option: &str) -> u16 {
        host_port(self.get(option)).1
    }

    /// What holds of every node in a container: it listens beyond itself on the ports of the contract, has what that
    /// needs, keeps its data on the volume mounted at `volume`, and would start with these settings.
    pub(crate) fn holds(&self, volume: &str) {
        for (option, port) in [("http", 4000), ("mqtt", 1883), ("peer", 4400)] {
            let (host, found) = host_port(self.get(option));
            assert_eq!(found, port, "--{option}");
            assert!(
                !["127.0.0.1", "localhost", "::1"].contains(&host),
                "--{option} {host} is for itself alone"
            );
        }
        assert_eq!(self.get("data"), volume, "the data is not on the volume");
        assert_eq!(self.settings.get("cluster-secret"), Some(&None), "peers beyond loopback need the secret");

        let data = tempfile::tempdir().unwrap();
        let mut settings: BTreeMap<String, String> = self
            .settings
            .iter()
            .map(|(name, value)| (name.clone(), value.clone().unwrap_or_default()))
            .collect();
        settings.insert("cluster-secret".into(), "f".repeat(64));
        settings.insert("data".into(), data.path().display().to_string());
        for listener in ["http", "mqtt", "peer"] {
            settings.insert(listener.into(), "127.0.0.1:0".into());
        }
        // Names that lead somewhere on any machine; whether anyone answers there is nothing to ask of a file.
        for seeds in ["join", "discover"] {
            if let Some(said) = settings.get_mut(seeds) {
                let here = |address: &str| match address.strip_prefix("dns:") {
                    Some(address) => format!("dns:localhost:{}", host_port(address).1),
                    None => format!("localhost:{}", host_port(address).1),
                };
                *said = said.split(',').map(here).collect::<Vec<_>>().join(",");
            }
        }
        assert_eq!(program::check(&settings), "", "{settings:?}");
    }
}

/// `host:port`, `[v6]:port`; a port of 0 is none.
pub(crate) fn host_port(address: &str) -> (&str, u16) {
    let (host, port) = address.rsplit_once(':').unwrap_or_else(|| panic!("{address} has no port"));
    assert!(!host.is_empty(), "{address} has no host");
    match port.parse() {
        Ok(port) if port != 0 => (host.trim_matches(['[', ']']), port),
        _ => panic!("{address} has no port"),
    }
}

/// Seconds of a span as these files write them: `15s`, `10m`.
pub(crate) fn seconds(span: &str) -> u64 {
    let (number, unit) = span.split_at(span.len() - 1);
    number.parse::<u64>().unwrap()
        * match unit {
            "s" => 1,
            "m" => 60,
            _ => panic!("{span}"),
        }
}

/// Bytes of a size: `512MiB`, `1Gi`, `1g`.
pub(crate) fn bytes(size: &str) -> u64 {
    let end = size.find(|c: char| !c.is_ascii_digit()).unwrap();
    let power = match &size[end..] {
        "MiB" | "Mi" | "m" => 20,
        "GiB" | "Gi" | "g" => 30,
        unit => panic!("{unit} in {size}"),
    };
    size[..end].parse::<u64>().unwrap() << power
}

/// A node is given the time that it takes to stop, and some more.
pub(crate) fn may_stop_in(given: u64) {
    assert!(given > STOPS_WITHIN, "{given} s are given to stop; a node may take {STOPS_WITHIN}");
}

#[test]
#[should_panic(expected = "SENSORIUM_DATUM is no variable of the program")]
fn an_unknown_variable_is_found() {
    Node::new(&BTreeMap::from([("SENSORIUM_DATUM".into(), Some("/data".into()))]), &[]);
}

#[test]
#[should_panic(expected = "cluster-secret stands in a file")]
fn a_secret_in_a_file_is_found() {
    Node::new(&BTreeMap::new(), &["--cluster-secret=open sesame"]);
}

#[test]
#[should_panic(expected = "--public-http")]
fn a_value_that_the_program_refuses_is_found() {
    let mut args = vec!["--http=0.0.0.0:4000", "--mqtt=0.0.0.0:1883", "--peer=0.0.0.0:4400", "--data=/data"];
    args.extend(["--insecure-open=true", "--public-http=nonsense"]);
    Node::new(&BTreeMap::from([("SENSORIUM_CLUSTER_SECRET".into(), None)]), &args).holds("/data");
}

//! A network of the test's own: a bridge, a namespace for each node, and rules between the nodes that hold back what they
//! send to each other. Devices and viewers on this machine reach all of them whatever the rules say.
//!
//! It needs root, `ip` and `nft`. Where it cannot be had the test says so and passes, with `REQUIRE_ALL=1` it fails
//! (unless `NO_NAMESPACES=1` says that the machine itself does not allow them).

use std::io::Write;
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// Ports of every node, each in its own namespace.
pub(crate) const HTTP: u16 = 4000;
pub(crate) const MQTT: u16 = 1883;
pub(crate) const PEER: u16 = 4400;

/// Removed when it is dropped.
pub(crate) struct Space {
    /// In all names, and the second byte of all addresses.
    tag: u8,
    nodes: usize,
}

/// Spaces that this process has made: what is removed lingers for a moment, so that each has names of its own.
static MADE: AtomicU32 = AtomicU32::new(0);
/// Spaces of one process at most; other processes that run at the same time use other names.
const EACH: u32 = 8;

impl Space {
    /// For so many nodes; `None` where the machine does not allow it.
    pub(crate) fn make(nodes: usize) -> Option<Self> {
        let tag = 64 + (std::process::id() * EACH + MADE.fetch_add(1, Relaxed)) % 128;
        let space = Self { tag: tag as u8, nodes };
        if let Err(why) = space.try_rules() {
            let says = |name| std::env::var(name).is_ok_and(|value| value == "1");
            let required = says("REQUIRE_ALL") && !says("NO_NAMESPACES");
            assert!(!required, "REQUIRE_ALL=1, but there are no network namespaces: {why}");
            eprintln!("\n*** SKIPPED: there are no network namespaces here: {why} ***\n");
            return None;
        }
        space.connect();
        Some(space)
    }

    /// Makes the namespaces, and looks whether they take rules.
    fn try_rules(&self) -> Result<(), String> {
        for node in 0..self.nodes {
            run("ip", &["netns", "add", &self.name(node)])?;
        }
        run("ip", &["netns", "exec", &self.name(0), "nft", "list", "ruleset"])
    }

    fn connect(&self) {
        let bridge = self.bridge();
        let ip = |words: &str| run("ip", &words.split(' ').collect::<Vec<_>>()).unwrap();
        ip(&format!("link add {bridge} type bridge"));
        ip(&format!("addr add {}/24 dev {bridge}", self.address(253)));
        ip(&format!("link set {bridge} up"));
        for node in 0..self.nodes {
            let (space, here) = (self.name(node), format!("{bridge}-{node}"));
            ip(&format!("link add {here} type veth peer name eth0 netns {space}"));
            ip(&format!("link set {here} master {bridge} up"));
            ip(&format!("-n {space} link set lo up"));
            ip(&format!("-n {space} addr add {}/24 dev eth0", self.address(node)));
            ip(&format!("-n {space} link set eth0 up"));
        }
    }

    /// The command that runs something as node number `node`.
    pub(crate) fn within(&self, node: usize) -> Vec<String> {
        ["ip", "netns", "exec", &self.name(node)].map(str::to_owned).to_vec()
    }

    pub(crate) fn address(&self, node: usize) -> Ipv4Addr {
        Ipv4Addr::new(10, self.tag, 0, node as u8 + 1)
    }

    /// What node `to` does with a packet of node `from`, for all pairs; `None`: it takes it.
    pub(crate) fn rule(&self, verdict: impl Fn(usize, usize) -> Option<&'static str>) {
        for to in 0..self.nodes {
            let rules: String = (0..self.nodes)
                .filter(|from| *from != to)
                .filter_map(|from| Some(format!("ip saddr {} {}\n", self.address(from), verdict(from, to)?)))
                .collect();
            let table = format!(
                "table inet between\ndelete table inet between\ntable inet between {{\n\
                 chain arrives {{\ntype filter hook input priority 0\n{rules}}}\n}}\n"
            );
            let within = self.within(to);
            let mut command = Command::new(&within[0]);
            command.args(&within[1..]).args(["nft", "-f", "-"]).stdin(Stdio::piped());
            let mut child = command.spawn().unwrap();
            child.stdin.take().unwrap().write_all(table.as_bytes()).unwrap();
            assert!(child.wait().unwrap().success(), "{table}");
        }
    }

    /// Every packet arrives again.
    pub(crate) fn heal(&self) {
        self.rule(|_, _| None);
    }

    fn bridge(&self) -> String {
        format!("sns{}", self.tag)
    }

    fn name(&self, node: usize) -> String {
        format!("sns{}-{node}", self.tag)
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        for node in 0..self.nodes {
            // A namespace lives on as long as connections in it end, and its cable with it. What was never made cannot be
            // removed.
            run("ip", &["link", "del", &format!("{}-{node}", self.bridge())]).ok();
            run("ip", &["netns", "del", &self.name(node)]).ok();
        }
        run("ip", &["link", "del", &self.bridge()]).ok();
    }
}

fn run(program: &str, words: &[&str]) -> Result<(), String> {
    let output = Command::new(program).args(words).output().map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{program} {}: {}", words.join(" "), String::from_utf8_lossy(&output.stderr).trim()))
}

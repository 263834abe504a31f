//! `sensorium check`: would a node start with these settings? Every reason why not, at once; and, with `--verbose`, what
//! was found of everything that they name.

use std::io::Write as _;
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::Duration;

use store::Store;
use store::cluster::discover::browse;

use crate::cluster::{ClusterSettings, Discover};
use crate::config::Settings;
use crate::options::Options;
use crate::wiring::explain;

/// Least free space to start with, in bytes: the log's budget twice, and room for chunks.
const LEAST_FREE: u64 = 256 << 20;
/// How long another node may take to accept a connection.
const CONNECT_WITHIN: Duration = Duration::from_secs(2);
/// How long nodes that announce themselves on the local network are listened for.
const BROWSE_WITHIN: Duration = Duration::from_secs(2);
/// Addresses of other nodes that are tried; of those beyond it only the number is told.
const MAX_TRIED: usize = 32;
/// The data file inside of the data directory.
const FILE: &str = "sensorium.redb";

/// What was found: in order, or a reason not to start.
type Finding = Result<String, String>;

/// Checks, and lists what was found with `verbose`.
pub(crate) fn run(options: Options, verbose: bool) -> Result<(), Vec<String>> {
    let settings = Settings::resolve(options.with_file()?)?;
    let mut findings = vec![data(&settings), space(&settings.data)];
    let addresses =
        [("--http", Some(settings.http)), ("--mqtt", settings.mqtt), ("--peer", Some(settings.peer))];
    findings.extend(
        addresses.iter().filter_map(|(option, address)| address.map(|address| listen(option, address))),
    );
    findings.push(hear(settings.peer));
    let mut out = std::io::stdout().lock();
    let mut lines = Vec::new();
    if verbose {
        lines.extend(describe(&settings));
        lines.push(secret(&settings.cluster));
        // Only told: whom nobody answers for may start later, and a node starts without them.
        lines.extend(peers(&settings.cluster));
    }
    let mut reasons = Vec::new();
    for finding in findings {
        match finding {
            Ok(found) if verbose => lines.push(format!("ok    {found}")),
            Ok(_) => {}
            Err(reason) => reasons.push(reason),
        }
    }
    if reasons.is_empty() {
        lines.push(format!("node {} would start", settings.name));
    }
    for line in lines {
        writeln!(out, "{line}").map_err(|error| vec![format!("standard output: {error}")])?;
    }
    if reasons.is_empty() { Ok(()) } else { Err(reasons) }
}

/// Every setting with its value; secrets only by whether they are set.
fn describe(settings: &Settings) -> Vec<String> {
    let or_none = |value: &Option<String>| value.clone().unwrap_or_else(|| "none".to_owned());
    let config = settings.store();
    let cluster = &settings.cluster;
    let mqtt = settings.mqtt.map(|mqtt| mqtt.to_string());
    [
        ("name", settings.name.to_string()),
        ("data", settings.data.display().to_string()),
        ("http", settings.http.to_string()),
        ("mqtt", or_none(&mqtt)),
        ("peer", settings.peer.to_string()),
        ("public-http", or_none(&settings.public_http)),
        ("public-mqtt", or_none(&settings.public_mqtt)),
        ("public-peer", or_none(&cluster.public_peer)),
        ("allow-origin", settings.allow_origins.join(", ")),
        ("keep", config.keep.to_string()),
        ("memory-limit", format!("{} MiB", config.memory_limit >> 20)),
        ("commit-window", format!("{} ms", config.commit_window.as_millis())),
        ("join", if cluster.join.is_empty() { "none".to_owned() } else { cluster.join.join(", ") }),
        ("discover", cluster.discover.to_string()),
        ("replicas", cluster.replicas.to_string()),
        ("ack-copies", cluster.ack_copies.to_string()),
        ("min-copies", cluster.min_copies.to_string()),
        ("replace-after", format!("{} s", cluster.replace_after.as_secs())),
        ("zone", or_none(&cluster.zone)),
        ("cluster-secret", if cluster.secret.is_some() { "set" } else { "none" }.to_owned()),
    ]
    .into_iter()
    .map(|(name, value)| format!("      {name:<15} {value}"))
    .collect()
}

/// The data directory: can be made or written, is not in use, and holds what this version reads.
fn data(settings: &Settings) -> Finding {
    let directory = &settings.data;
    let named = |error: std::io::Error| format!("--data {}: {error}", directory.display());
    if !directory.exists() {
        let parent = existing_parent(directory);
        return match writable(&parent) {
            Ok(()) => Ok(format!("data: {} will be made", directory.display())),
            Err(error) => Err(format!(
                "--data {}: cannot be made: {} is not writable: {error}",
                directory.display(),
                parent.display()
            )),
        };
    }
    writable(directory).map_err(named)?;
    if !directory.join(FILE).exists() {
        return Ok(format!("data: {} is empty and writable", directory.display()));
    }
    // The only way to know that all of it can be read is to read all of it, as a start does.
    match Store::open(settings.store()) {
        Ok(store) => {
            let stats = store.stats();
            Ok(format!(
                "data: {} holds {} samples of {} sensors in {} MiB",
                directory.display(),
                stats.samples,
                stats.sensors,
                stats.disk_bytes.div_ceil(1 << 20)
            ))
        }
        Err(error) => Err(explain(&error, directory)),
    }
}

/// Writes a file beside the data and removes it again.
fn writable(directory: &Path) -> std::io::Result<()> {
    let probe = directory.join(format!(".sensorium-check-{}", std::process::id()));
    std::fs::OpenOptions::new().write(true).create_new(true).open(&probe)?;
    std::fs::remove_file(&probe)
}

fn existing_parent(directory: &Path) -> PathBuf {
    let absolute = std::path::absolute(directory).unwrap_or_else(|_| directory.to_owned());
    absolute.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/")).to_owned()
}

fn space(directory: &Path) -> Finding {
    let parent = existing_parent(directory);
    let found =
        rustix::fs::statvfs(&parent).map_err(|error| format!("--data {}: {error}", parent.display()))?;
    let free = found.f_bavail.saturating_mul(found.f_frsize);
    if free >= LEAST_FREE {
        Ok(format!("space: {} MiB are free", free >> 20))
    } else {
        let needed = LEAST_FREE >> 20;
        Err(format!(
            "--data {}: {} MiB are free; at least {needed} are needed",
            directory.display(),
            free >> 20
        ))
    }
}

fn listen(option: &str, address: SocketAddr) -> Finding {
    match TcpListener::bind(address) {
        Ok(_) => Ok(format!("{option} {address} is free")),
        Err(error) => Err(format!("{option} {address}: cannot listen: {error}")),
    }
}

/// Peers send datagrams to the same address.
fn hear(peer: SocketAddr) -> Finding {
    match UdpSocket::bind(peer) {
        Ok(_) => Ok(format!("--peer {peer} is free for datagrams as well")),
        Err(error) => Err(format!("--peer {peer}: cannot listen for datagrams: {error}")),
    }
}

/// Whether there is a cluster secret. One that is missing where it is needed is a reason not to start, found before.
fn secret(cluster: &ClusterSettings) -> String {
    let found = match cluster.secret {
        Some(_) => "set; only nodes with the same one are let in",
        None => "none; needed as soon as --peer, --public-peer or a seed is beyond this machine",
    };
    format!("ok    cluster secret: {found}")
}

/// What peers the node would try, and what stands at each of their addresses. Takes no longer than
/// [`CONNECT_WITHIN`] and [`BROWSE_WITHIN`], and the look-up of the names.
fn peers(cluster: &ClusterSettings) -> Vec<String> {
    let mut named: Vec<(String, String)> =
        cluster.join.iter().map(|place| (format!("--join {place}"), place.clone())).collect();
    match &cluster.discover {
        Discover::None if named.is_empty() => {
            return vec![
                "ok    peers: none are named; the node begins a cluster, or others join it".to_owned(),
            ];
        }
        Discover::None => {}
        Discover::Dns { name, port } => {
            named.push((format!("--discover {}", cluster.discover), format!("{name}:{port}")));
        }
        Discover::Mdns => named.push(("--discover mdns".to_owned(), String::new())),
    }
    let mut lines = Vec::new();
    let mut found: Vec<SocketAddr> = Vec::new();
    for (option, place) in named {
        if place.is_empty() {
            match browse(BROWSE_WITHIN) {
                Ok(addresses) if addresses.is_empty() => {
                    lines.push(format!("note  {option}: nobody announces itself now"));
                }
                Ok(addresses) => {
                    let listed: Vec<String> = addresses.iter().map(ToString::to_string).collect();
                    lines.push(format!("ok    {option} finds {}", listed.join(", ")));
                    found.extend(addresses);
                }
                Err(error) => {
                    lines.push(format!("note  {option}: nobody can be looked for now: {error}"));
                }
            }
            continue;
        }
        match place.to_socket_addrs() {
            Ok(addresses) => {
                let addresses: Vec<SocketAddr> = addresses.collect();
                let listed: Vec<String> = addresses.iter().map(ToString::to_string).collect();
                lines.push(format!("ok    {option} leads to {}", listed.join(", ")));
                found.extend(addresses);
            }
            Err(error) => lines.push(format!("note  {option} leads nowhere now: {error}")),
        }
    }
    found.sort_unstable();
    found.dedup();
    let skipped = found.len().saturating_sub(MAX_TRIED);
    found.truncate(MAX_TRIED);
    lines.extend(std::thread::scope(|scope| {
        let tries: Vec<_> = found.iter().map(|address| scope.spawn(move || knock(*address))).collect();
        tries.into_iter().filter_map(|knocked| knocked.join().ok()).collect::<Vec<_>>()
    }));
    if skipped > 0 {
        lines.push(format!("note  {skipped} further addresses were not tried"));
    }
    lines
}

/// Whether something listens at a peer's address. Who it is shows when a node with the same secret joins it.
fn knock(address: SocketAddr) -> String {
    match TcpStream::connect_timeout(&address, CONNECT_WITHIN) {
        Ok(_) => format!("ok    peer {address} accepts connections"),
        Err(error) => format!("note  peer {address} does not answer: {error}"),
    }
}

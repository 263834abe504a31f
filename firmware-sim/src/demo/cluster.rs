//! Several nodes that know of each other, in a directory that goes away with them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Deserialize;
use tempfile::TempDir;
use tokio::time::{MissedTickBehavior, interval};

use super::http::{self, HttpError};
use super::ports;
use super::process::{Node, ProcessError, Ready, Spec};

/// Most nodes: they are named with letters.
pub const MAX_NODES: usize = 26;
/// Ports that a node takes: HTTP, MQTT, peers.
const PORTS: usize = 3;
/// Starts with other ports, when somebody else took one meanwhile.
const STARTS: usize = 3;
/// How long a node may take until it is ready and all know it.
const JOIN_WITHIN: Duration = Duration::from_secs(60);
/// How often a node is asked whether it is ready.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What kind of cluster.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The program.
    pub program: PathBuf,
    /// How many nodes, named `a`, `b`, ….
    pub nodes: usize,
    /// Options of each.
    pub options: Vec<String>,
}

/// The nodes are not what they should be.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// A process.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// An answer.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// A directory for the nodes.
    #[error("a temporary directory for the nodes: {0}")]
    Directory(#[source] std::io::Error),
    /// Ports for the nodes.
    #[error("{0} free ports on {1}: there are not so many")]
    Ports(usize, IpAddr),
    /// Something that was waited for does not come about.
    #[error("{what} not within {within:?}: {last}\n{logs}")]
    Slow {
        /// What was waited for.
        what: String,
        /// How long.
        within: Duration,
        /// What was found instead.
        last: String,
        /// The ends of the logs.
        logs: String,
    },
}

/// A node as another one sees it, in `GET cluster`.
#[derive(Debug, Clone, Deserialize)]
pub struct Member {
    /// Its name.
    pub node: String,
    /// `alive`, `suspect`, `down` or `left`.
    pub state: String,
}

#[derive(Deserialize)]
struct Members {
    nodes: Vec<Member>,
}

/// Nodes as processes.
#[derive(Debug)]
pub struct Cluster {
    nodes: Vec<Node>,
    directory: TempDir,
}

impl Cluster {
    /// Starts all nodes at once, and waits until each is ready and sees all others alive.
    pub async fn start(plan: &Plan) -> Result<Self, ClusterError> {
        let mut starts = 1;
        loop {
            match Self::try_start(plan).await {
                // Between looking for a free port and binding it somebody else may take it.
                Err(ClusterError::Process(ProcessError::Ended { log, .. }))
                    if starts < STARTS && log.contains("cannot listen") =>
                {
                    starts += 1;
                }
                started => return started,
            }
        }
    }

    async fn try_start(plan: &Plan) -> Result<Self, ClusterError> {
        let directory = TempDir::with_prefix("sensorium-").map_err(ClusterError::Directory)?;
        let local = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let count = PORTS * plan.nodes;
        let ports = ports::free(local, count).ok_or(ClusterError::Ports(count, local))?;
        let at = |port: &u16| SocketAddr::new(local, *port).to_string();
        let own: Vec<&[u16]> = ports.chunks_exact(PORTS).collect();
        let specs = own.iter().enumerate().map(|(index, ports)| Spec {
            program: plan.program.clone(),
            name: name(index),
            directory: directory.path().to_owned(),
            http: at(&ports[0]),
            mqtt: at(&ports[1]),
            peer: at(&ports[2]),
            join: own
                .iter()
                .enumerate()
                .filter(|(other, _)| *other != index)
                .map(|(_, ports)| at(&ports[2]))
                .collect(),
            options: plan.options.clone(),
            within: Vec::new(),
        });
        let nodes = specs.map(Node::new).collect();
        Self::of(nodes, directory).await
    }

    /// Starts these nodes, which use `directory`, and waits until each is ready and sees all others alive.
    pub async fn of(nodes: Vec<Node>, directory: TempDir) -> Result<Self, ClusterError> {
        let mut cluster = Self { nodes, directory };
        futures_util::future::try_join_all(cluster.nodes.iter_mut().map(Node::start)).await?;
        for index in 0..cluster.nodes.len() {
            cluster.ready(index).await?;
        }
        cluster.all_alive().await?;
        Ok(cluster)
    }

    /// The nodes.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// One of them.
    pub fn node_mut(&mut self, index: usize) -> &mut Node {
        &mut self.nodes[index]
    }

    /// One more, which need not run yet.
    pub fn add(&mut self, node: Node) -> usize {
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    /// Where data and logs are.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Where each running node listens.
    pub fn running(&self) -> impl Iterator<Item = &Ready> {
        self.nodes.iter().filter_map(|node| node.ready().ok())
    }

    /// Where devices and viewers connect over WebSocket.
    pub fn urls(&self) -> Vec<String> {
        self.running().map(|ready| format!("ws://{}", ready.http)).collect()
    }

    /// Where devices connect over MQTT.
    pub fn brokers(&self) -> Vec<String> {
        self.running().filter_map(|ready| ready.mqtt).map(|mqtt| mqtt.to_string()).collect()
    }

    /// Which node a device or viewer that connected to `address` is on.
    pub fn node_at(&self, address: &str) -> Option<usize> {
        let host = address.split_once("://").map_or(address, |(_, rest)| rest);
        let host = host.split('/').next().unwrap_or(host);
        self.nodes.iter().position(|node| node.spec().http == host || node.spec().mqtt == host)
    }

    /// Waits until the node says that it is ready; how long that took.
    pub async fn ready(&self, index: usize) -> Result<Duration, ClusterError> {
        let http = self.nodes[index].ready()?.http;
        self.eventually(&format!("node {} is ready", self.nodes[index].name()), JOIN_WITHIN, async || {
            match http::get(http, "/health/ready").await {
                Ok((200, _)) => Ok(()),
                Ok((status, body)) => Err(format!("{status} {}", String::from_utf8_lossy(&body))),
                Err(error) => Err(error.to_string()),
            }
        })
        .await
    }

    /// Waits until each running node sees as many alive as there are running; how long that took.
    pub async fn all_alive(&self) -> Result<Duration, ClusterError> {
        let running: Vec<SocketAddr> = self.running().map(|ready| ready.http).collect();
        self.eventually("each node sees all others alive", JOIN_WITHIN, async || {
            for http in &running {
                let members = members(*http).await.map_err(|error| error.to_string())?;
                let alive = members.iter().filter(|member| member.state == "alive").count();
                if alive != running.len() {
                    return Err(format!("{http} sees {members:?}"));
                }
            }
            Ok(())
        })
        .await
    }

    /// Asks again and again until `ask` is content; how long that took.
    pub async fn eventually(
        &self,
        what: &str,
        within: Duration,
        mut ask: impl AsyncFnMut() -> Result<(), String>,
    ) -> Result<Duration, ClusterError> {
        let began = Instant::now();
        let mut looks = interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            let Err(last) = ask().await else { return Ok(began.elapsed()) };
            if began.elapsed() > within {
                return Err(ClusterError::Slow { what: what.to_owned(), within, last, logs: self.logs() });
            }
        }
    }

    /// The ends of all logs.
    pub fn logs(&self) -> String {
        let ends = self.nodes.iter().map(|node| format!("--- {}\n{}", node.name(), node.log_end()));
        ends.collect::<Vec<_>>().join("\n")
    }
}

/// The cluster as the node at `http` sees it.
pub async fn members(http: SocketAddr) -> Result<Vec<Member>, HttpError> {
    Ok(http::json::<Members>(http, "/api/v1/cluster").await?.nodes)
}

/// `a`, `b`, ….
pub fn name(index: usize) -> String {
    char::from(b'a' + (index % MAX_NODES) as u8).to_string()
}

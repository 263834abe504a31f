//! What the comparison is run with.

use std::path::PathBuf;

/// Programs, directory, and how much of everything.
#[derive(Debug, Clone, clap::Args)]
pub struct Settings {
    /// The release program
    #[arg(long, default_value = "target/release/sensorium")]
    pub sensorium: PathBuf,
    /// The other program (Debian: nats-server)
    #[arg(long, default_value = "nats-server")]
    pub nats_server: PathBuf,
    /// Where data directories are made, and removed again; figures are those of this disk
    #[arg(long, default_value = "target/cluster")]
    pub dir: PathBuf,
    /// Nodes killed, one after the other
    #[arg(long, default_value_t = 20)]
    pub kills: usize,
    /// Nodes stopped for ten seconds and continued, one after the other
    #[arg(long, default_value_t = 3)]
    pub hangs: usize,
    /// Seconds of each run of throughput, latency and links
    #[arg(long, default_value_t = 10)]
    pub seconds: u64,
    /// Runs of these
    #[arg(long, default_value_t = 3)]
    pub runs: usize,
    /// Seconds that an idle cluster is looked at
    #[arg(long, default_value_t = 30)]
    pub idle_seconds: u64,
    /// Samples that a node with an empty disk takes over
    #[arg(long, default_value_t = 10_000_000)]
    pub catchup: u64,
    /// WebSocket connections that send, over all nodes
    #[arg(long, default_value_t = 9)]
    pub connections: usize,
    /// Frames of a WebSocket connection that are not acknowledged, at most
    #[arg(long, default_value_t = 64)]
    pub window: usize,
    /// Clients that publish single messages, over all nodes
    #[arg(long, default_value_t = 63)]
    pub clients: usize,
    /// Messages of such a client that are not acknowledged, at most
    #[arg(long, default_value_t = 200)]
    pub client_window: usize,
}

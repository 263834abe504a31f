//! What a store needs to be told.

use std::path::PathBuf;
use std::time::Duration;

use crate::model::ids::NodeName;
pub use crate::replica::state::Policy;

/// Samples kept of a series that declares nothing.
pub const DEFAULT_KEEP: usize = 1000;
/// Most samples a series may keep.
pub const MAX_KEEP: usize = 100_000;
/// Most samples a series of texts may keep.
pub const MAX_KEEP_TEXTS: usize = 1000;

/// Settings of one store; [`Config::new`] gives the defaults.
#[derive(Debug, Clone)]
pub struct Config {
    /// Directory of the data file; made when missing.
    pub data: PathBuf,
    /// This node's name.
    pub name: NodeName,
    /// Samples kept of a series that declares nothing (or one minute at its rate, whichever is more).
    pub keep: usize,
    /// Most bytes that all rings together may take; at the limit new series are refused.
    pub memory_limit: u64,
    /// How long a commit waits for company. Zero: no longer than pacing asks for.
    pub commit_window: Duration,
    /// Copies that make an acknowledgement, and below how many there is none.
    pub copies: Policy,
    /// Other nodes are expected: until they are met, nothing is acknowledged with fewer copies than asked for.
    pub expects_peers: bool,
    /// Log size that starts a checkpoint, in bytes.
    pub log_budget: u64,
}

impl Config {
    /// The defaults: 1000 samples a series, half of the machine's memory, no commit window, 64 MiB of log.
    pub fn new(data: impl Into<PathBuf>, name: NodeName) -> Self {
        Self {
            data: data.into(),
            name,
            keep: DEFAULT_KEEP,
            memory_limit: half_of_memory(),
            commit_window: Duration::ZERO,
            copies: Policy { ack_copies: 2, min_copies: 1 },
            expects_peers: false,
            log_budget: 64 << 20,
        }
    }
}

/// Half of this machine's memory in bytes, or 1 GiB where it cannot be read.
fn half_of_memory() -> u64 {
    std::fs::read_to_string("/proc/meminfo")
        .ok()
        .and_then(|text| text.lines().find_map(|line| line.strip_prefix("MemTotal:").map(str::to_owned)))
        .and_then(|rest| rest.trim().trim_end_matches(" kB").trim().parse::<u64>().ok())
        .map_or(1 << 30, |kib| kib * 1024 / 2)
}

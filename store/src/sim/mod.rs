//! The simulation: 3 to 7 replicas on virtual time, with every fault that a seed can think of.
//!
//! Real are the replication machine, frames, rings, rooms, retained messages, version vectors and registry operations; modelled are disks
//! (`disk`), the store around the machine (`node`, `said`), network, membership and clients (`world`), and the judge
//! (`witness`). A seed repeats a run exactly. A node that starts must hold what its vector
//! counts (`history`). At the end of each run, when all is healed, equal vectors must answer alike and everything that was acknowledged must be on every node.
//!
//! It knows no file, no clock and no thread.

mod dice;
mod disk;
mod faults;
mod history;
mod network;
mod node;
mod plan;
mod retained;
mod rooms;
mod said;
mod scrub;
mod witness;
mod world;

use std::collections::BTreeMap;

use world::World;

/// A rule of the design that a run can break on purpose, to show that the simulation would notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// A run of a node draws a new origin; broken: it takes the one that the node had before.
    FreshOrigin,
    /// What is sent again is appended again; broken: it is acknowledged because memory has it.
    AppendedAgain,
    /// Chunks hold what is durable; broken: they are written before the frames.
    ChunksOfDurable,
    /// Versions are written with what they stand for; broken: before.
    VersionsBehindLog,
    /// Chunks are deleted by what is durable; broken: by what memory holds.
    ChunksDeletedByDurable,
    /// A block is taken when all before it are held; broken: over a gap.
    NoGaps,
    /// A snapshot counts when all of it is durable; broken: when it has come.
    SnapshotWhenDurable,
    /// A snapshot counts as a whole; broken: an origin's survivors are sent, and it alone advances.
    SnapshotWhole,
    /// A snapshot is read in one transaction; broken: part by part.
    SnapshotAtOnce,
    /// A clear lasts; broken: it empties the rings, and is forgotten.
    ClearLasts,
    /// A clear's stamp is above all that its node holds; broken: it is what the node's clock shows.
    ClearAboveAll,
    /// A room that was deleted stays deleted; broken: it is forgotten, and comes back with what comes late.
    DeletionLasts,
    /// A retained message that was removed stays away; broken: the removal is forgotten, and it comes back.
    RemovalLasts,
    /// A node folds what it holds alike; broken: whatever it holds.
    FoldedAlike,
    /// Blocks of folded origins that the log still has count no more; broken: they do.
    FoldedInLog,
}

/// What there was, by kind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts(BTreeMap<&'static str, u64>);

impl Counts {
    /// Everything that must happen in a good number of runs.
    pub const KINDS: [&'static str; 49] = [
        "samples sent",
        "samples sent again",
        "samples late",
        "samples at one time with two values",
        "samples acknowledged",
        "acknowledged with fewer copies",
        "commits",
        "seals between commits",
        "checkpoints",
        "crashes before the sync",
        "crashes after the sync",
        "crashes",
        "restarts",
        "restarts of all",
        "hangs",
        "disks lost",
        "disk losses put off",
        "backups restored",
        "excused samples",
        "partitions",
        "one-way cuts",
        "links broken",
        "wrong suspicions",
        "messages lost",
        "messages doubled",
        "messages overtaken",
        "wants",
        "rewinds",
        "relays",
        "snapshots",
        "snapshots broken off",
        "snapshots put off",
        "folds",
        "origins folded",
        "folds missed",
        "keep changes",
        "clears",
        "clears acknowledged",
        "samples cleared",
        "samples that came after their clear",
        "room changes",
        "room changes acknowledged",
        "rooms deleted",
        "retained messages",
        "retained messages removed",
        "retained messages acknowledged",
        "rings compared",
        "rooms compared",
        "scrub merges",
    ];

    pub(crate) fn add(&mut self, kind: &'static str, count: u64) {
        *self.0.entry(kind).or_insert(0) += count;
    }

    /// How often there was this.
    pub fn get(&self, kind: &str) -> u64 {
        self.0.get(kind).copied().unwrap_or(0)
    }

    /// Adds up.
    pub fn join(&mut self, other: &Self) {
        other.0.iter().for_each(|(kind, count)| self.add(kind, *count));
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        self.0.iter().map(|(kind, count)| (*kind, *count))
    }
}

/// How a run went.
#[derive(Debug)]
pub struct Outcome {
    /// What there was.
    pub counts: Counts,
    /// What went wrong, if anything did.
    pub verdict: Result<(), String>,
    /// What happened, line by line, where it was asked for.
    pub story: Vec<String>,
}

/// Runs one seed.
pub fn run(seed: u64, broken: Option<Rule>, traced: bool) -> Outcome {
    let mut world = World::new(seed, broken, traced);
    let verdict = world.run();
    world.outcome(verdict)
}

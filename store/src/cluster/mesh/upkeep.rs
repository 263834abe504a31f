//! What the mesh does all the time, whatever comes and goes: it answers peers from the disk, compares with them, and looks
//! after readiness, lag and figures.
//!
//! Bounds: [`READERS`] answers from the disk at a time.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use redb::ReadableDatabase;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

use super::{ALONE_AFTER, Inner};
use crate::cluster::scrub;
use crate::cluster::view::{Happening, Readiness};
use crate::disk::export::{self, ExportError};
use crate::replica::state::{Effect, Replica};

/// How often version vectors and rings are compared with each peer.
const COMPARE_EVERY: Duration = Duration::from_secs(5);
/// How often lag and readiness are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Answers from the disk at a time.
pub(super) const READERS: usize = 2;

impl Inner {
    /// Answers from the disk.
    pub(super) async fn serve(self: Arc<Self>, mut work: mpsc::Receiver<Effect>) {
        loop {
            let effect = tokio::select! {
                () = self.stop.cancelled() => return,
                effect = work.recv() => match effect {
                    Some(effect) => effect,
                    None => return,
                },
            };
            let Ok(place) = self.readers.clone().acquire_owned().await else { return };
            let (inner, Some(database)) = (self.clone(), self.store.database()) else { return };
            tokio::task::spawn_blocking(move || {
                let _place = place;
                inner.answer(&database, effect);
            });
        }
    }

    fn answer(&self, database: &redb::Database, effect: Effect) {
        self.store.shared().settle();
        let post = &self.store.shared().post;
        let outcome = match effect {
            Effect::Serve { to, origin, blocks } => {
                let Some(outbox) = post.outbox(to) else { return };
                let relayed = export::serve(database, origin, &blocks, |message| {
                    outbox.bulk.blocking_send(message).is_ok()
                });
                relayed.map(|relayed| self.nodes.count(|figures| figures.relayed += relayed))
            }
            Effect::Snapshot { to, partitions } => {
                let Some(outbox) = post.outbox(to) else { return };
                // One lock over both: whether it may be read is said of the moment that is read.
                let mut replica = self.store.shared().replica.lock();
                let Some(read) = replica.begin_read(to, &partitions) else {
                    tracing::info!(%to, "it waits for a snapshot until the one that is joined here counts");
                    return;
                };
                let transaction = database.begin_read();
                drop(replica);
                tracing::info!(%to, partitions = partitions.len(), "sending a snapshot");
                self.nodes.count(|figures| figures.snapshots_served += 1);
                transaction.map_err(ExportError::from).and_then(|transaction| {
                    export::snapshot(&transaction, &partitions, read, |message| {
                        outbox.bulk.blocking_send(message).is_ok()
                    })
                })
            }
            Effect::Send(..)
            | Effect::Settle { .. }
            | Effect::Adopt(_)
            | Effect::Fold(_)
            | Effect::Stream(_) => Ok(()),
        };
        if let Err(error) = outcome {
            tracing::warn!("a peer's request was not answered: {error}");
        }
    }

    /// Compares vectors and rings with the peers.
    pub(super) async fn compare(self: Arc<Self>) {
        let mut ticks = interval(COMPARE_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut round = scrub::Round::default();
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            self.store.shared().replicate(Replica::tick);
            let linked = self.store.shared().post.linked();
            if !linked.is_empty()
                && let Some(hashes) = round.next(&self.store)
            {
                linked.into_iter().for_each(|node| self.send(node, hashes.clone()));
            }
        }
    }

    /// Looks after readiness, lag and figures.
    pub(super) async fn look(self: Arc<Self>, expects: bool) {
        let mut ticks = interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (started, mut ready, mut settled) = (Instant::now(), false, false);
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let shared = self.store.shared();
            let met = self.met.load(Relaxed);
            let late = started.elapsed() >= ALONE_AFTER;
            if !settled && (met || !expects || late) {
                settled = true;
                shared.replicate(|replica| replica.set_joining(false));
            }
            if !ready {
                let readiness = self.readiness(expects, met, late);
                ready = readiness.reasons.is_empty();
                if ready && met {
                    let name = self.linker.hello().name.as_str();
                    self.nodes.event(name, Happening::CaughtUp(started.elapsed()));
                }
                self.nodes.set_readiness(readiness);
            }
            self.lags();
            let counts = shared.replica.lock().counts();
            self.nodes.count(|figures| {
                figures.frames_full = shared.post.full.load(Relaxed);
                figures.frames_fewer = shared.post.fewer.load(Relaxed);
                figures.wants = counts.wants + counts.rewinds;
                figures.snapshots_taken = counts.snapshots;
            });
        }
    }

    pub(super) fn readiness(&self, expects: bool, met: bool, late: bool) -> Readiness {
        let mut reasons = Vec::new();
        if expects && !met && !late {
            reasons.push("no other node has answered yet".to_owned());
        }
        let linked = !self.store.shared().post.linked().is_empty();
        if met && !linked && !late {
            reasons.push("no link to another node is open yet".to_owned());
        }
        if !self.store.shared().replica.lock().is_caught_up() {
            reasons.push("it is still catching up with the other nodes".to_owned());
        }
        Readiness { reasons, alone: expects && !met }
    }

    fn lags(&self) {
        let shared = self.store.shared();
        for node in shared.post.linked() {
            let Some((acked, sealed)) = shared.replica.lock().behind(node) else { continue };
            let lag =
                if acked >= sealed { Duration::ZERO } else { shared.tail.age(acked).unwrap_or_default() };
            let name = self.peers.lock().get(&node).map(|known| known.name.clone());
            if let Some(name) = name {
                self.nodes.update(&name, |view| view.lag = Some(lag));
            }
        }
    }
}

//! Stopping in order: no new clients, the old ones told to move, everything taken flushed; all within ten seconds.

use std::io;
use std::time::Duration;

use store::cluster::mesh::Cluster;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;
use web::State;

/// How long clients have to finish and leave. Beyond it they are cut off: what was not acknowledged they send again.
const LEAVE_WITHIN: Duration = Duration::from_secs(3);
/// How long the store has to flush. With [`LEAVE_WITHIN`] and the cluster's hand-over it is less than the ten seconds of
/// the contract.
pub(crate) const FLUSH_WITHIN: Duration = Duration::from_secs(3);

/// `SIGTERM` and Ctrl-C.
#[derive(Debug)]
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// From here on the signals do not end the process by themselves.
    pub(crate) fn listen() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// The next signal. Cancel-safe.
    pub(crate) async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Stops a node. The error names what remains undone; a second signal ends the wait at once.
pub(crate) async fn stop(
    state: &State,
    cluster: &Cluster,
    draining: &[TaskTracker],
    signals: &mut Signals,
) -> Result<(), String> {
    state.stop().cancel();
    let orderly = async {
        let all_left = async {
            for connections in draining {
                connections.close();
                connections.wait().await;
            }
        };
        if timeout(LEAVE_WITHIN, all_left).await.is_err() {
            let left: usize = draining.iter().map(TaskTracker::len).sum();
            tracing::warn!("{left} connections did not end in {} s and are cut off", LEAVE_WITHIN.as_secs());
        }
        let handed_over = cluster.leave().await;
        if timeout(FLUSH_WITHIN, state.store().close()).await.is_err() {
            return Err(format!(
                "samples were not flushed within {} s: what was not acknowledged may be lost",
                FLUSH_WITHIN.as_secs()
            ));
        }
        state.store().failed().map_or(handed_over, |failed| Err(failed.to_string()))
    };
    tokio::select! {
        outcome = orderly => {
            if outcome.is_ok() {
                tracing::info!("stopped; everything is on disk");
            }
            outcome
        }
        () = signals.next() => {
            Err("stopped by a second signal: what was not acknowledged may be lost".to_owned())
        }
    }
}

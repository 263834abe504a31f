//! Where other nodes may be: seeds and names are looked up again and again, since what stands behind them changes.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::lookup_host;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::cluster::{ClusterSettings, Discover};

/// How often names are looked up.
const LOOK_UP_EVERY: Duration = Duration::from_secs(2);
/// Addresses that wait to be tried.
const FOUND: usize = 64;

/// Sends every address behind the seeds and the discovered name, until the node stops.
pub(crate) fn find(settings: &ClusterSettings, stop: &CancellationToken) -> mpsc::Receiver<SocketAddr> {
    let (found, addresses) = mpsc::channel(FOUND);
    let mut places = settings.join.clone();
    if let Discover::Dns { .. } = &settings.discover {
        places.push(settings.discover.to_string().trim_start_matches("dns:").to_owned());
    }
    let stop = stop.clone();
    tokio::spawn(async move {
        let mut ticks = interval(LOOK_UP_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            for place in &places {
                match lookup_host(place).await {
                    Ok(addresses) => {
                        for address in addresses {
                            if found.send(address).await.is_err() {
                                return;
                            }
                        }
                    }
                    Err(error) => tracing::debug!("{place} cannot be looked up: {error}"),
                }
            }
        }
    });
    addresses
}

//! Discovery: addresses at which other nodes may be. It never says who is a member; `member` calls what it yields.
//!
//! Every source yields all that it knows again and again, often at first and then every [`ASK_EVERY`], so a call that
//! was lost is made up for, and nodes that come, go or move are found. A name that does not resolve is said once and
//! asked for again; nothing here is ever fatal.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddr, SocketAddrV6};
use std::sync::Arc;
use std::time::Duration;

use mdns_sd::{ResolvedService, ScopedIp, ServiceDaemon, ServiceEvent, ServiceInfo};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

/// How often names are looked up, and addresses yielded again.
pub const ASK_EVERY: Duration = Duration::from_secs(3);
/// The same for the first few times: nodes that are started together find each other soon.
pub const ASK_FIRST: [Duration; 4] =
    [Duration::from_millis(250), Duration::from_millis(500), Duration::from_secs(1), Duration::from_secs(2)];
/// Most addresses of one name that are tried, and most nodes found on the local network; the rest is left out.
pub const MAX_ADDRESSES: usize = 256;
/// What nodes announce themselves as on the local network (RFC 6763).
pub const SERVICE: &str = "_sensorium._udp.local.";

/// How other nodes are found, beside those that are named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Discover {
    /// Not at all.
    None,
    /// Every address of a name, IPv4 and IPv6.
    Dns {
        /// The name, such as that of an app on Fly.io or of a headless service on Kubernetes.
        name: String,
        /// Where nodes take peers, the same for all of them.
        port: u16,
    },
    /// Nodes that announce themselves on the local network (RFC 6762), as this one then does.
    Mdns,
}

/// How a node announces itself on the local network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announced {
    /// What no other node calls itself, 63 bytes at most; nobody reads it.
    pub instance: String,
    /// Where peers reach it. The unspecified address stands for all that the machine has.
    pub address: SocketAddr,
}

/// Discovery at work; it ends when this is dropped.
#[derive(Debug)]
pub struct Discovery {
    _sources: JoinSet<()>,
}

impl Discovery {
    /// Looks for nodes at `seeds` (`HOST:PORT` each; names are looked up anew each time) and as `discover` says.
    /// `found` is called with every address, again and again, and must not block.
    pub fn start(
        seeds: impl IntoIterator<Item = String>,
        discover: Discover,
        me: Announced,
        found: impl Fn(SocketAddr) + Send + Sync + 'static,
    ) -> Self {
        let found: Found = Arc::new(found);
        let mut sources = JoinSet::new();
        for seed in seeds {
            sources.spawn(ask_dns(seed, Arc::clone(&found)));
        }
        match discover {
            Discover::None => {}
            Discover::Dns { name, port } => drop(sources.spawn(ask_dns(place(&name, port), found))),
            Discover::Mdns => drop(sources.spawn(listen(me, found))),
        }
        Self { _sources: sources }
    }
}

type Found = Arc<dyn Fn(SocketAddr) + Send + Sync>;

/// `HOST:PORT`, with the brackets that IPv6 needs.
fn place(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// When to ask next.
struct Pace(usize);

impl Pace {
    fn next(&mut self) -> Instant {
        Instant::now() + self.wait()
    }

    fn wait(&mut self) -> Duration {
        let wait = ASK_FIRST.get(self.0).copied().unwrap_or(ASK_EVERY);
        self.0 += 1;
        wait
    }
}

/// Yields all addresses of `place`.
async fn ask_dns(place: String, found: Found) {
    let mut pace = Pace(0);
    let mut resolved = None;
    loop {
        let next = pace.next();
        // The resolver gives up by itself; while it is asking it is not asked again.
        match tokio::net::lookup_host(&place).await {
            Ok(addresses) => {
                if resolved.replace(true) == Some(false) {
                    tracing::info!(place, "the address of other nodes can be resolved now");
                }
                addresses.take(MAX_ADDRESSES).for_each(|address| found(address));
            }
            Err(error) => {
                if resolved.replace(false) != Some(false) {
                    tracing::warn!(place, %error, "the address of other nodes cannot be resolved; asking again");
                }
            }
        }
        sleep_until(next).await;
    }
}

/// Announces this node on the local network and yields the others there.
async fn listen(me: Announced, found: Found) {
    let mut pace = Pace(0);
    let mut said = false;
    loop {
        let next = pace.next();
        match Mdns::start(&me) {
            Ok(mdns) => return mdns.run(&found).await,
            Err(error) if !said => {
                said = true;
                tracing::warn!(%error, "nodes on the local network cannot be found; trying again");
            }
            Err(_) => {}
        }
        sleep_until(next).await;
    }
}

/// The responder, a thread of its own. Dropped, it takes back the announcement and ends.
struct Mdns {
    daemon: ServiceDaemon,
    fullname: String,
    events: mdns_sd::Receiver<ServiceEvent>,
}

impl Mdns {
    fn start(me: &Announced) -> Result<Self, mdns_sd::Error> {
        let host = format!("{}.local.", me.instance);
        let (ip, port) = (me.address.ip(), me.address.port());
        let mut service = if ip.is_unspecified() {
            ServiceInfo::new(SERVICE, &me.instance, &host, "", port, None)?.enable_addr_auto()
        } else {
            ServiceInfo::new(SERVICE, &me.instance, &host, ip, port, None)?
        };
        // The instance is unique as it is: there is no conflict to probe for, and no need to wait for it.
        service.set_requires_probe(false);
        let daemon = ServiceDaemon::new()?;
        let fullname = service.get_fullname().to_owned();
        // From here on dropping ends the thread, on errors too.
        let events = daemon.browse(SERVICE).inspect_err(|_| drop(daemon.shutdown()))?;
        let mdns = Self { daemon, fullname, events };
        mdns.daemon.register(service)?;
        Ok(mdns)
    }

    async fn run(self, found: &Found) {
        let mut nodes: BTreeMap<String, Vec<SocketAddr>> = BTreeMap::new();
        let mut pace = Pace(0);
        let mut next = pace.next();
        loop {
            // Both are cancel safe.
            tokio::select! {
                event = self.events.recv_async() => match event {
                    Ok(ServiceEvent::ServiceResolved(service)) if service.fullname != self.fullname => {
                        let addresses = addresses(&service);
                        addresses.iter().for_each(|address| found(*address));
                        if nodes.len() < MAX_ADDRESSES || nodes.contains_key(&service.fullname) {
                            nodes.insert(service.fullname.clone(), addresses);
                        }
                    }
                    Ok(ServiceEvent::ServiceRemoved(_, fullname)) => drop(nodes.remove(&fullname)),
                    Ok(_) => {}
                    Err(_) => return tracing::error!("nodes on the local network are no longer looked for"),
                },
                () = sleep_until(next) => {
                    nodes.values().flatten().for_each(|address| found(*address));
                    next = pace.next();
                }
            }
        }
    }
}

impl Drop for Mdns {
    fn drop(&mut self) {
        // Both are only asked for; the thread does them when it gets to it. An error says that it is gone already.
        self.daemon.unregister(&self.fullname).ok();
        self.daemon.shutdown().ok();
    }
}

/// Looks on the local network for nodes that announce themselves, for as long as this; blocks meanwhile. Announces
/// nothing.
pub fn browse(within: Duration) -> Result<BTreeSet<SocketAddr>, mdns_sd::Error> {
    let until = std::time::Instant::now() + within;
    let daemon = ServiceDaemon::new()?;
    let mut found = BTreeSet::new();
    let events = daemon.browse(SERVICE).inspect_err(|_| drop(daemon.shutdown()))?;
    while let Ok(event) = events.recv_deadline(until) {
        if let ServiceEvent::ServiceResolved(service) = event {
            let room = MAX_ADDRESSES - found.len();
            found.extend(addresses(&service).into_iter().take(room));
        }
    }
    // It is only asked for; the thread ends when it gets to it. An error says that it is gone already.
    daemon.shutdown().ok();
    Ok(found)
}

fn addresses(service: &ResolvedService) -> Vec<SocketAddr> {
    let address = |ip: &ScopedIp| match ip {
        // Without its interface an address of the local link leads nowhere.
        ScopedIp::V6(v6) if v6.addr().is_unicast_link_local() => {
            SocketAddr::V6(SocketAddrV6::new(*v6.addr(), service.port, 0, v6.scope_id().index))
        }
        ip => SocketAddr::new(ip.to_ip_addr(), service.port),
    };
    service.addresses.iter().map(address).take(MAX_ADDRESSES).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_of_all_kinds_can_be_looked_up() {
        assert_eq!(place("a.internal", 1), "a.internal:1");
        assert_eq!(place("10.0.0.1", 1), "10.0.0.1:1");
        assert_eq!(place("fdaa::3", 1), "[fdaa::3]:1");
    }

    #[test]
    fn asking_slows_down_to_a_steady_pace() {
        let mut pace = Pace(0);
        let waits: Vec<_> = (0..6).map(|_| pace.wait()).collect();
        assert!(waits.is_sorted(), "{waits:?}");
        assert_eq!((waits[0], waits[5]), (ASK_FIRST[0], ASK_EVERY));
    }
}

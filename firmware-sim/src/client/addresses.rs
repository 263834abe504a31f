//! The nodes that a client knows, and which of them it turns to next.
//!
//! Every client goes round in an order of its own: when a node dies, those that were on it spread over the others.

use ingest::wire::message::PATH;
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};

/// Where viewers connect.
const LIVE: &str = "/api/v1/live";
/// Nodes remembered; further ones that a node tells of are not.
const MAX_NODES: usize = 64;

/// An address that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{address}`: {why}")]
pub struct BadAddress {
    address: String,
    why: &'static str,
}

/// What an address is for, which is how it is written.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Purpose {
    /// Devices over WebSocket: `ws://` or `http://`.
    Devices,
    /// Viewers: `ws://` or `http://`.
    Live,
    /// MQTT: `host:port` or `mqtt://host:port`.
    Mqtt,
}

impl Purpose {
    fn read(self, address: &str) -> Result<String, BadAddress> {
        match self {
            Self::Devices => endpoint(address, PATH),
            Self::Live => endpoint(address, LIVE),
            Self::Mqtt => broker(address),
        }
    }
}

/// Addresses in the order in which they are tried; never empty.
#[derive(Debug)]
pub(crate) struct Addresses {
    purpose: Purpose,
    all: Vec<String>,
    at: usize,
    random: StdRng,
}

impl Addresses {
    /// Begins with number `first`, counted round; the others follow in an order drawn from `random`.
    pub(crate) fn new(
        purpose: Purpose,
        given: &[String],
        first: usize,
        mut random: StdRng,
    ) -> Result<Self, BadAddress> {
        let mut all: Vec<_> = given.iter().map(|address| purpose.read(address)).collect::<Result<_, _>>()?;
        if all.is_empty() {
            return Err(BadAddress { address: String::new(), why: "no address given" });
        }
        let begin = first % all.len();
        all.swap(0, begin);
        all[1..].shuffle(&mut random);
        Ok(Self { purpose, all, at: 0, random })
    }

    /// The one to connect to.
    pub(crate) fn current(&self) -> &str {
        &self.all[self.at]
    }

    /// Turns to the next.
    pub(crate) fn advance(&mut self) {
        self.at = (self.at + 1) % self.all.len();
    }

    /// Adds those that a node told of. What is no address is left out: a node's mistake costs no connection.
    pub(crate) fn learn(&mut self, nodes: &[String]) {
        for address in self.readable(nodes) {
            if self.all.len() < MAX_NODES && !self.all.contains(&address) {
                let place = self.random.random_range(0..=self.all.len());
                self.all.insert(place, address);
                self.at += usize::from(place <= self.at);
            }
        }
    }

    /// Turns to one of `nodes` that is not the current one, else to the next known.
    pub(crate) fn move_to(&mut self, nodes: &[String]) {
        self.learn(nodes);
        let mut others = self.readable(nodes);
        others.retain(|address| address != self.current() && self.all.contains(address));
        let wanted = others.choose(&mut self.random);
        match wanted.and_then(|wanted| self.all.iter().position(|known| known == wanted)) {
            Some(at) => self.at = at,
            None => self.advance(),
        }
    }

    fn readable(&self, nodes: &[String]) -> Vec<String> {
        nodes.iter().filter_map(|node| self.purpose.read(node).ok()).collect()
    }
}

fn endpoint(url: &str, own_path: &str) -> Result<String, BadAddress> {
    let bad = |why| Err(BadAddress { address: url.to_owned(), why });
    let rest = match url.split_once("://") {
        Some(("ws" | "http", rest)) => rest,
        Some(("wss" | "https", _)) => return bad("the simulator speaks no TLS; use ws://"),
        Some(_) => return bad("not a ws:// address"),
        None => url,
    };
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    if host.is_empty() || host.contains(char::is_whitespace) {
        return bad("no host in it");
    }
    Ok(format!("ws://{host}{}", if path.len() > 1 { path } else { own_path }))
}

fn broker(address: &str) -> Result<String, BadAddress> {
    let bad = |why| Err(BadAddress { address: address.to_owned(), why });
    let rest = match address.split_once("://") {
        Some(("mqtt", rest)) => rest,
        Some(_) => return bad("the simulator speaks no TLS; use mqtt://"),
        None => address,
    };
    match rest.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => Ok(rest.to_owned()),
        _ => bad("not of the form host:port"),
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    fn texts(all: &[&str]) -> Vec<String> {
        all.iter().map(ToString::to_string).collect()
    }

    fn addresses(all: &[&str], first: usize, seed: u64) -> Addresses {
        Addresses::new(Purpose::Devices, &texts(all), first, StdRng::seed_from_u64(seed)).unwrap()
    }

    fn round(addresses: &mut Addresses) -> Vec<String> {
        let mut seen = Vec::new();
        for _ in 0..addresses.all.len() {
            seen.push(addresses.current().to_owned());
            addresses.advance();
        }
        seen
    }

    #[test]
    fn addresses_are_completed_or_refused() {
        let endpoint = |url| endpoint(url, PATH);
        assert_eq!(endpoint("ws://h:1").unwrap(), format!("ws://h:1{PATH}"));
        assert_eq!(endpoint("http://h:1/").unwrap(), format!("ws://h:1{PATH}"));
        assert_eq!(endpoint("h:1").unwrap(), format!("ws://h:1{PATH}"));
        assert_eq!(endpoint("ws://h:1/x?token=t").unwrap(), "ws://h:1/x?token=t");
        assert!(endpoint("wss://h").is_err() && endpoint("ws://").is_err() && endpoint("ftp://h").is_err());
        assert_eq!(broker("mqtt://h:1").unwrap(), "h:1");
        assert!(broker("h").is_err() && broker(":1").is_err() && broker("h:99999").is_err());
        assert!(broker("mqtts://h:1").is_err());
        assert!(Addresses::new(Purpose::Mqtt, &[], 3, StdRng::seed_from_u64(1)).is_err());
    }

    #[test]
    fn a_client_goes_round_all_it_knows_and_learns_more() {
        let mut known = addresses(&["a:1", "b:1"], 3, 1);
        assert!(known.current().starts_with("ws://b:1"));
        known.learn(&texts(&["ws://a:1", "ws://c:1", "nonsense://", "http://d:1"]));
        assert!(known.current().starts_with("ws://b:1"), "learning moves nobody");
        let mut seen = round(&mut known);
        assert_eq!(seen[0], round(&mut known)[0], "round the end");
        seen.sort();
        assert_eq!(seen, ["a:1", "b:1", "c:1", "d:1"].map(|host| format!("ws://{host}{PATH}")));
        known.move_to(&texts(&["ws://b:1", "ws://e:1"]));
        assert!(known.current().starts_with("ws://e:1"), "not the one that sends us away");
        known.move_to(&[]);
        assert!(!known.current().starts_with("ws://e:1"));
    }

    #[test]
    fn those_that_leave_a_node_spread_over_the_others() {
        let next = |seed| {
            let mut known = addresses(&["a:1", "b:1", "c:1"], 0, seed);
            known.advance();
            known.current().to_owned()
        };
        let told = |seed| {
            let mut known = addresses(&["a:1"], 0, seed);
            known.move_to(&texts(&["a:1", "b:1", "c:1"]));
            known.current().to_owned()
        };
        for goes in [&next as &dyn Fn(u64) -> String, &told] {
            let to_b = (0..100).filter(|seed| goes(*seed).starts_with("ws://b")).count();
            let to_c = (0..100).filter(|seed| goes(*seed).starts_with("ws://c")).count();
            assert!(to_b > 25 && to_c > 25 && to_b + to_c == 100, "{to_b} {to_c}");
        }
    }
}

//! The nodes that a device knows, and which of them it turns to next.

use ingest::wire::message::PATH;

/// Nodes remembered; further ones that a node tells of are not.
const MAX_NODES: usize = 64;

/// An address that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{address}`: {why}")]
pub struct BadAddress {
    address: String,
    why: &'static str,
}

/// Addresses in the order in which they are tried; never empty.
#[derive(Debug)]
pub struct Addresses {
    all: Vec<String>,
    at: usize,
}

impl Addresses {
    /// From `ws://` or `http://` addresses.
    pub fn websocket(urls: &[String], first: usize) -> Result<Self, BadAddress> {
        Self::new(urls.iter().map(|url| endpoint(url)).collect::<Result<_, _>>()?, first)
    }

    /// From `host:port` or `mqtt://host:port`.
    pub fn mqtt(addresses: &[String], first: usize) -> Result<Self, BadAddress> {
        Self::new(addresses.iter().map(|address| broker(address)).collect::<Result<_, _>>()?, first)
    }

    fn new(all: Vec<String>, first: usize) -> Result<Self, BadAddress> {
        if all.is_empty() {
            return Err(BadAddress { address: String::new(), why: "no address given" });
        }
        let at = first % all.len();
        Ok(Self { all, at })
    }

    /// The one to connect to.
    pub fn current(&self) -> &str {
        &self.all[self.at]
    }

    /// Turns to the next.
    pub fn advance(&mut self) {
        self.at = (self.at + 1) % self.all.len();
    }

    /// Adds those that a node told of. What is no address is left out: a node's mistake costs no connection.
    pub fn learn(&mut self, nodes: &[String]) {
        for url in nodes.iter().filter_map(|node| endpoint(node).ok()) {
            if self.all.len() < MAX_NODES && !self.all.contains(&url) {
                self.all.push(url);
            }
        }
    }

    /// Turns to the first of `nodes` that is not the current one, else to the next known.
    pub fn move_to(&mut self, nodes: &[String]) {
        self.learn(nodes);
        let wanted = nodes.iter().filter_map(|node| endpoint(node).ok()).find(|url| url != self.current());
        match wanted.and_then(|url| self.all.iter().position(|known| *known == url)) {
            Some(at) => self.at = at,
            None => self.advance(),
        }
    }
}

fn endpoint(url: &str) -> Result<String, BadAddress> {
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
    Ok(format!("ws://{host}{}", if path.len() > 1 { path } else { PATH }))
}

fn broker(address: &str) -> Result<String, BadAddress> {
    let bad = |why| Err(BadAddress { address: address.to_owned(), why });
    let rest = address.strip_prefix("mqtt://").unwrap_or(address);
    match rest.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => Ok(rest.to_owned()),
        _ => bad("not of the form host:port"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(all: &[&str]) -> Vec<String> {
        all.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn addresses_are_completed_or_refused() {
        assert_eq!(endpoint("ws://h:1").unwrap(), format!("ws://h:1{PATH}"));
        assert_eq!(endpoint("http://h:1/").unwrap(), format!("ws://h:1{PATH}"));
        assert_eq!(endpoint("h:1").unwrap(), format!("ws://h:1{PATH}"));
        assert_eq!(endpoint("ws://h:1/x?token=t").unwrap(), "ws://h:1/x?token=t");
        assert!(endpoint("wss://h").is_err() && endpoint("ws://").is_err() && endpoint("ftp://h").is_err());
        assert_eq!(broker("mqtt://h:1").unwrap(), "h:1");
        assert!(broker("h").is_err() && broker(":1").is_err() && broker("h:99999").is_err());
        assert!(Addresses::mqtt(&[], 3).is_err());
    }

    #[test]
    fn the_device_goes_round_and_learns() {
        let mut addresses = Addresses::websocket(&texts(&["a:1", "b:1"]), 3).unwrap();
        assert!(addresses.current().starts_with("ws://b:1"));
        addresses.learn(&texts(&["ws://a:1", "ws://c:1", "nonsense://"]));
        addresses.advance();
        assert!(addresses.current().starts_with("ws://c:1"), "what was learned comes last");
        addresses.advance();
        assert!(addresses.current().starts_with("ws://a:1"), "round the end");
        addresses.move_to(&texts(&["ws://a:1", "ws://c:1"]));
        assert!(addresses.current().starts_with("ws://c:1"), "not the one that sends us away");
        addresses.move_to(&[]);
        assert!(addresses.current().starts_with("ws://a:1"));
    }
}

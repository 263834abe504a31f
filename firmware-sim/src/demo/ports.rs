//! Ports that a node keeps over its restarts.
//!
//! They lie below the range from which systems draw the ports of outgoing connections: while a node is dead none of its
//! ports is given to somebody else, and no client that knocks on it ends up connected to itself.

use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};

use rand::Rng;

/// Where to look: above what services are given, below what systems draw from (RFC 6335; Linux draws from 32768 on).
const RANGE: std::ops::Range<u16> = 10_000..32_000;
/// How many are tried before there is said to be none.
const TRIES: usize = 1000;

/// `count` different ports of `address` that are free for TCP and UDP; `None` when there are not so many.
pub fn free(address: IpAddr, count: usize) -> Option<Vec<u16>> {
    let mut random = rand::rng();
    let mut held = Vec::with_capacity(count);
    for _ in 0..TRIES {
        if held.len() == count {
            break;
        }
        let at = SocketAddr::new(address, random.random_range(RANGE));
        // Bound until all are found, so that they differ.
        if let (Ok(tcp), Ok(udp)) = (TcpListener::bind(at), UdpSocket::bind(at)) {
            held.push((at.port(), tcp, udp));
        }
    }
    (held.len() == count).then(|| held.into_iter().map(|(port, ..)| port).collect())
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn they_differ_and_can_be_bound() {
        let mut ports = free(Ipv4Addr::LOCALHOST.into(), 20).unwrap();
        assert!(ports.iter().all(|port| RANGE.contains(port)));
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 20);
    }
}

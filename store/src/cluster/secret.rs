//! The cluster secret, as keys: one for datagrams, one for links.
//!
//! A secret is turned into keys once and then forgotten; neither it nor a key is ever printed. The derivation is
//! BLAKE3's `derive_key`, which is fast: who overhears datagrams can try guesses, so a secret should be random
//! (`openssl rand -hex 32`), not a word.

use std::fmt;

use ring::hmac;

/// Bytes of a key.
pub const KEY_BYTES: usize = 32;
/// Bytes of a proof that a link's end knows the secret.
pub const PROOF_BYTES: usize = 32;

/// Derivation contexts: hard-coded and never used for anything else. A change of one parts old nodes from new ones.
const DATAGRAMS: &str = "sensorium 2026-11 cluster secret: datagrams";
const LINKS: &str = "sensorium 2026-11 cluster secret: links";
/// What takes the secret's place in a cluster that has none. Everybody knows it: it keeps nobody out.
const NO_SECRET: &str = "no secret: every peer is on loopback";

/// Which end of a link proves itself. The two proofs differ, so that neither can be sent back to its author.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The one that connected.
    Dialler,
    /// The one that listened.
    Listener,
}

/// The keys of one cluster.
#[derive(Clone)]
pub struct Keys {
    datagrams: [u8; KEY_BYTES],
    links: hmac::Key,
}

impl Keys {
    /// The keys of `secret`, or with `None` those that every node without a secret has: then the same code runs and
    /// protects nothing, which is allowed only while every peer is on loopback (the caller sees to it).
    pub fn new(secret: Option<&str>) -> Self {
        // A secret that spells `NO_SECRET` must not open a cluster without one: the first byte tells them apart.
        let material = match secret {
            Some(secret) => [b"+", secret.as_bytes()].concat(),
            None => [b"-", NO_SECRET.as_bytes()].concat(),
        };
        Self {
            datagrams: blake3::derive_key(DATAGRAMS, &material),
            links: hmac::Key::new(hmac::HMAC_SHA256, &blake3::derive_key(LINKS, &material)),
        }
    }

    /// The key that seals datagrams.
    pub(super) fn datagrams(&self) -> &[u8; KEY_BYTES] {
        &self.datagrams
    }

    /// Proof that `end` of the connection that exported `exported` knows the secret.
    pub(super) fn prove(&self, end: End, exported: &[u8]) -> [u8; PROOF_BYTES] {
        let mut proof = [0; PROOF_BYTES];
        proof.copy_from_slice(hmac::sign(&self.links, &statement(end, exported)).as_ref());
        proof
    }

    /// Whether `proof` is that of `end`; in constant time.
    pub(super) fn proves(&self, end: End, exported: &[u8], proof: &[u8]) -> bool {
        hmac::verify(&self.links, &statement(end, exported), proof).is_ok()
    }
}

fn statement(end: End, exported: &[u8]) -> Vec<u8> {
    let label: &[u8] = match end {
        End::Dialler => b"dialler ",
        End::Listener => b"listener ",
    };
    [label, exported].concat()
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys(hidden)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_secret_and_every_use_has_its_own_key() {
        let (one, two, none) = (Keys::new(Some("one")), Keys::new(Some("two")), Keys::new(None));
        assert_eq!(one.datagrams(), Keys::new(Some("one")).datagrams());
        assert_ne!(one.datagrams(), two.datagrams());
        assert_ne!(Keys::new(Some(NO_SECRET)).datagrams(), none.datagrams());
        assert_ne!(one.datagrams(), &blake3::derive_key(LINKS, b"+one"));
    }

    #[test]
    fn a_proof_holds_for_one_end_of_one_connection() {
        let keys = Keys::new(Some("one"));
        let proof = keys.prove(End::Dialler, b"this connection");
        assert!(keys.proves(End::Dialler, b"this connection", &proof));
        assert!(!keys.proves(End::Listener, b"this connection", &proof), "sent back to its author");
        assert!(!keys.proves(End::Dialler, b"another connection", &proof), "passed on by someone between");
        assert!(!Keys::new(Some("two")).proves(End::Dialler, b"this connection", &proof));
        assert!(!keys.proves(End::Dialler, b"this connection", &proof[..31]));
    }

    #[test]
    fn nothing_of_it_is_printed() {
        assert_eq!(format!("{:?}", Keys::new(Some("hunter2"))), "Keys(hidden)");
    }
}

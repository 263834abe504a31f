//! Datagrams between nodes, sealed: who does not know the cluster secret can neither read, nor make, nor repeat one.
//!
//! ```text
//! sender's start, random u64 | counter u32 | payload, encrypted | tag, 16 bytes        (ChaCha20-Poly1305, RFC 8439)
//! ```
//!
//! Start and counter are the nonce: no nonce is used twice, for a sender draws a start anew when it begins and when the
//! counter is used up. A receiver takes each counter once: within [`WINDOW`] of the highest one seen in any order,
//! older ones never. Values only; the socket is elsewhere (`member`).

use std::collections::HashMap;

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

use super::secret::Keys;

/// Longest datagram. With the headers of UDP and IPv6 it fits into 1280 bytes, which every IPv6 network carries whole,
/// tunnels included.
pub const MAX_DATAGRAM_BYTES: usize = 1232;
/// What sealing adds: start, counter, tag.
pub const SEAL_BYTES: usize = START_BYTES + COUNTER_BYTES + TAG_BYTES;
/// Longest payload. Longer ones are not sealed.
pub const MAX_PAYLOAD_BYTES: usize = MAX_DATAGRAM_BYTES - SEAL_BYTES;
/// Datagrams of one sender that may overtake each other. What comes later than that is taken for a repetition.
pub const WINDOW: u32 = u128::BITS;
/// Starts of senders that are remembered. When full, the one silent for longest is forgotten; only then could its
/// datagrams be repeated, and to get there takes as many genuine restarts.
pub const MAX_SENDERS: usize = 1024;

const START_BYTES: usize = 8;
const COUNTER_BYTES: usize = 4;
const TAG_BYTES: usize = 16;
/// Sealed along: datagrams of another layout do not open.
const LAYOUT: &[u8] = b"sensorium datagram 1";

/// Why a datagram was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Shorter than a seal.
    #[error("too short")]
    Short,
    /// Longer than [`MAX_DATAGRAM_BYTES`].
    #[error("longer than {MAX_DATAGRAM_BYTES} bytes")]
    Long,
    /// Not sealed with this cluster's secret, or changed on its way.
    #[error("not sealed with this cluster's secret")]
    Seal,
    /// Taken before, or too old to tell.
    #[error("repeated")]
    Repeated,
}

/// How many datagrams were taken, and how many refused by cause.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Taken {
    /// Opened.
    pub opened: u64,
    /// [`Refused::Short`].
    pub short: u64,
    /// [`Refused::Long`].
    pub long: u64,
    /// [`Refused::Seal`].
    pub seal: u64,
    /// [`Refused::Repeated`].
    pub repeated: u64,
}

fn key(keys: &Keys) -> LessSafeKey {
    let key = UnboundKey::new(&CHACHA20_POLY1305, keys.datagrams()).expect("32 bytes, as the cipher wants");
    LessSafeKey::new(key)
}

/// Seals what one sender sends.
pub struct Sealer {
    key: LessSafeKey,
    start: u64,
    counter: u32,
}

impl Sealer {
    /// A sender with a start of its own.
    pub fn new(keys: &Keys) -> Self {
        Self { key: key(keys), start: rand::random(), counter: 0 }
    }

    /// The datagram that carries `payload`; `None` when it is longer than [`MAX_PAYLOAD_BYTES`].
    pub fn seal(&mut self, payload: &[u8]) -> Option<Vec<u8>> {
        if payload.len() > MAX_PAYLOAD_BYTES {
            return None;
        }
        let nonce = nonce(self.start, self.counter);
        let mut datagram = Vec::with_capacity(payload.len() + SEAL_BYTES);
        datagram.extend_from_slice(&nonce);
        datagram.extend_from_slice(payload);
        let nonce = Nonce::assume_unique_for_key(nonce);
        let body = &mut datagram[NONCE_LEN..];
        let tag = self.key.seal_in_place_separate_tag(nonce, Aad::from(LAYOUT), body).ok()?;
        datagram.extend_from_slice(tag.as_ref());
        match self.counter.checked_add(1) {
            Some(next) => self.counter = next,
            None => (self.start, self.counter) = (rand::random(), 0),
        }
        Some(datagram)
    }
}

fn nonce(start: u64, counter: u32) -> [u8; NONCE_LEN] {
    let mut nonce = [0; NONCE_LEN];
    nonce[..START_BYTES].copy_from_slice(&start.to_be_bytes());
    nonce[START_BYTES..].copy_from_slice(&counter.to_be_bytes());
    nonce
}

/// Opens what all senders send, each datagram once.
pub struct Opener {
    key: LessSafeKey,
    senders: HashMap<u64, Window>,
    taken: Taken,
}

impl Opener {
    /// A receiver that has heard nobody yet.
    pub fn new(keys: &Keys) -> Self {
        Self { key: key(keys), senders: HashMap::new(), taken: Taken::default() }
    }

    /// How many datagrams it took and refused.
    pub fn taken(&self) -> Taken {
        self.taken
    }

    /// The payload of `datagram`, which is decrypted where it stands.
    pub fn open<'a>(&mut self, datagram: &'a mut [u8]) -> Result<&'a [u8], Refused> {
        let opened = self.try_open(datagram);
        *match opened {
            Ok(_) => &mut self.taken.opened,
            Err(Refused::Short) => &mut self.taken.short,
            Err(Refused::Long) => &mut self.taken.long,
            Err(Refused::Seal) => &mut self.taken.seal,
            Err(Refused::Repeated) => &mut self.taken.repeated,
        } += 1;
        opened
    }

    fn try_open<'a>(&mut self, datagram: &'a mut [u8]) -> Result<&'a [u8], Refused> {
        if datagram.len() > MAX_DATAGRAM_BYTES {
            return Err(Refused::Long);
        }
        let (nonce, sealed) = datagram.split_first_chunk_mut::<NONCE_LEN>().ok_or(Refused::Short)?;
        if sealed.len() < TAG_BYTES {
            return Err(Refused::Short);
        }
        let (start, counter) = nonce.split_at(START_BYTES);
        let start = u64::from_be_bytes(start.try_into().expect("split at 8"));
        let counter = u32::from_be_bytes(counter.try_into().expect("12 less 8 is 4"));
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let payload = self.key.open_in_place(nonce, Aad::from(LAYOUT), sealed).map_err(|_| Refused::Seal)?;
        // Only genuine datagrams get here, so strangers cannot crowd anybody out of what is remembered.
        if !self.window(start).take(counter) {
            return Err(Refused::Repeated);
        }
        Ok(payload)
    }

    fn window(&mut self, start: u64) -> &mut Window {
        let now = self.taken.opened;
        if self.senders.len() >= MAX_SENDERS
            && !self.senders.contains_key(&start)
            && let Some(oldest) = self.senders.iter().min_by_key(|(_, window)| window.heard).map(|(&s, _)| s)
        {
            self.senders.remove(&oldest);
        }
        let window = self.senders.entry(start).or_default();
        window.heard = now;
        window
    }
}

/// Which counters of one sender were taken.
#[derive(Default)]
struct Window {
    /// The highest one.
    highest: u32,
    /// Bit i: `highest - i` was taken.
    taken: u128,
    /// How many datagrams had been opened when the sender was last heard.
    heard: u64,
}

impl Window {
    /// Whether `counter` is new; from now on it is not.
    fn take(&mut self, counter: u32) -> bool {
        if counter > self.highest || self.taken == 0 {
            let ahead = counter - self.highest;
            self.taken = self.taken.checked_shl(ahead).unwrap_or(0) | 1;
            self.highest = counter;
            return true;
        }
        let behind = self.highest - counter;
        let bit = 1_u128.checked_shl(behind).unwrap_or(0);
        let new = bit != 0 && self.taken & bit == 0;
        self.taken |= bit;
        new
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pair() -> (Sealer, Opener) {
        let keys = Keys::new(Some("one"));
        (Sealer::new(&keys), Opener::new(&keys))
    }

    #[test]
    fn a_payload_crosses_once() {
        let (mut sealer, mut opener) = pair();
        for payload in [&b""[..], b"ping", &[7; MAX_PAYLOAD_BYTES]] {
            let datagram = sealer.seal(payload).unwrap();
            assert_eq!(datagram.len(), payload.len() + SEAL_BYTES);
            assert!(
                payload.len() < 4 || !datagram.windows(4).any(|part| part == &payload[..4]),
                "in the clear"
            );
            assert_eq!(opener.open(&mut datagram.clone()), Ok(payload));
            assert_eq!(opener.open(&mut datagram.clone()), Err(Refused::Repeated));
        }
        assert_eq!(sealer.seal(&[0; MAX_PAYLOAD_BYTES + 1]), None);
        assert_eq!(opener.taken(), Taken { opened: 3, repeated: 3, ..Taken::default() });
    }

    #[test]
    fn every_changed_bit_and_every_cut_is_noticed() {
        let (mut sealer, mut opener) = pair();
        let datagram = sealer.seal(b"ping").unwrap();
        for bit in 0..datagram.len() * 8 {
            let mut changed = datagram.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(opener.open(&mut changed), Err(Refused::Seal), "bit {bit}");
        }
        for len in 0..datagram.len() {
            let refused = if len < SEAL_BYTES { Refused::Short } else { Refused::Seal };
            assert_eq!(opener.open(&mut datagram[..len].to_vec()), Err(refused), "{len} bytes");
        }
        assert_eq!(opener.open(&mut [0; MAX_DATAGRAM_BYTES + 1]), Err(Refused::Long));
        let taken = opener.taken();
        assert_eq!((taken.short, taken.long, taken.seal), (28, 1, 32 * 8 + 4));
        assert!(opener.senders.is_empty(), "strangers are not remembered");
        assert_eq!(opener.open(&mut datagram.clone()), Ok(&b"ping"[..]), "the genuine one still counts");
    }

    #[test]
    fn another_secret_does_not_open_it() {
        let (mut sealer, _) = pair();
        let datagram = sealer.seal(b"ping").unwrap();
        for other in [Some("two"), None] {
            let mut opener = Opener::new(&Keys::new(other));
            assert_eq!(opener.open(&mut datagram.clone()), Err(Refused::Seal));
        }
    }

    #[test]
    fn a_used_up_counter_begins_a_new_start() {
        let (mut sealer, mut opener) = pair();
        sealer.counter = u32::MAX;
        let start = sealer.start;
        let (mut last, mut next) = (sealer.seal(b"last").unwrap(), sealer.seal(b"next").unwrap());
        assert_ne!(sealer.start, start);
        assert_eq!(opener.open(&mut last), Ok(&b"last"[..]));
        assert_eq!(opener.open(&mut next), Ok(&b"next"[..]));
    }

    #[test]
    fn the_sender_silent_for_longest_is_forgotten() {
        let keys = Keys::new(None);
        let mut opener = Opener::new(&keys);
        let firsts: Vec<_> = (0..=MAX_SENDERS).map(|_| Sealer::new(&keys).seal(b"ping").unwrap()).collect();
        for first in &firsts {
            assert!(opener.open(&mut first.clone()).is_ok());
        }
        assert_eq!(opener.senders.len(), MAX_SENDERS);
        assert_eq!(opener.open(&mut firsts[MAX_SENDERS].clone()), Err(Refused::Repeated));
        assert!(opener.open(&mut firsts[0].clone()).is_ok());
    }

    proptest! {
        /// Against a plain set: in any order with any gaps and repetitions, a counter is taken once; and always when it
        /// is within the window and new.
        #[test]
        fn the_window_takes_each_counter_once(counters in prop::collection::vec(0_u32..400, 1..400)) {
            let mut window = Window::default();
            let (mut taken, mut highest) = (std::collections::HashSet::new(), 0);
            for counter in counters {
                let expected = !taken.contains(&counter) && counter + WINDOW > highest;
                prop_assert_eq!(window.take(counter), expected, "{} after {}", counter, highest);
                if expected {
                    taken.insert(counter);
                }
                highest = highest.max(counter);
            }
        }
    }
}

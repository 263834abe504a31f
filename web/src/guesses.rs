//! Who guesses join codes. A code is 40 random bits; who could try millions would find one, so wrong ones are counted by
//! address, and an address that has used up its allowance is not answered, whether its next code is right or wrong.
//!
//! Invariant: of one address, at most [`AT_ONCE`] wrong codes are answered, and one more each [`ONE_EVERY`]. Right codes
//! cost nothing, and other addresses are not concerned.
//!
//! Bound: [`MAX_ADDRESSES`] are remembered. For one more, those with their whole allowance are forgotten, or else the
//! one that has most of it: who has so many addresses has their allowances anyway.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Wrong codes that an address may try at once: people mistype.
pub const AT_ONCE: u32 = 20;
/// How often an address may try one more.
pub const ONE_EVERY: Duration = Duration::from_secs(3);
/// Addresses whose wrong codes are remembered.
pub const MAX_ADDRESSES: usize = 4096;
/// Leading bits of an IPv6 address that count: what is given to one customer.
const IPV6_BITS: u32 = 64;

/// Wrong codes, by address.
#[derive(Debug, Default)]
pub struct Guesses(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    /// When an address has its whole allowance again (the generic cell rate algorithm).
    whole: HashMap<IpAddr, Instant>,
    figures: Figures,
}

/// Counts since the node started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Figures {
    /// Codes that opened no room.
    pub wrong: u64,
    /// Codes that were not looked at.
    pub refused: u64,
}

/// What became of a guess.
#[derive(Debug, PartialEq, Eq)]
pub enum Guess<T> {
    /// It opens this.
    Right(T),
    /// It opens nothing.
    Wrong,
    /// It was not looked at. After so long the next one is.
    Refused(Duration),
}

impl Guesses {
    /// Lets `from` guess, with `find` to say whether it is right, unless it has guessed wrong too often. One at a time,
    /// so that what is guessed at once counts as well.
    pub fn guess<T>(&self, from: IpAddr, now: Instant, find: impl FnOnce() -> Option<T>) -> Guess<T> {
        let from = counted(from);
        let mut table = self.0.lock();
        let whole = table.whole.get(&from).copied().filter(|whole| *whole > now);
        let next = whole.unwrap_or(now) + ONE_EVERY;
        let most = now + ONE_EVERY * AT_ONCE;
        if next > most {
            table.figures.refused += 1;
            return Guess::Refused(next - most);
        }
        if let Some(found) = find() {
            return Guess::Right(found);
        }
        table.figures.wrong += 1;
        if whole.is_none() {
            table.make_room(now);
        }
        table.whole.insert(from, next);
        Guess::Wrong
    }

    /// The counts now.
    pub fn figures(&self) -> Figures {
        self.0.lock().figures
    }
}

impl Table {
    fn make_room(&mut self, now: Instant) {
        if self.whole.len() < MAX_ADDRESSES {
            return;
        }
        self.whole.retain(|_, whole| *whole > now);
        if self.whole.len() >= MAX_ADDRESSES
            && let Some(soonest) = self.whole.iter().min_by_key(|(_, whole)| **whole).map(|(from, _)| *from)
        {
            self.whole.remove(&soonest);
        }
    }
}

/// The address that counts.
fn counted(from: IpAddr) -> IpAddr {
    match from.to_canonical() {
        IpAddr::V6(address) => {
            IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << (128 - IPV6_BITS))))
        }
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(number: u32) -> IpAddr {
        IpAddr::V4(number.into())
    }

    fn wrong(guesses: &Guesses, from: IpAddr, now: Instant) -> bool {
        guesses.guess(from, now, || None::<()>) == Guess::Wrong
    }

    #[test]
    fn who_guesses_is_refused_until_time_has_passed_and_nobody_else_is() {
        let (guesses, now) = (Guesses::default(), Instant::now());
        let answered = (0..1000).filter(|_| wrong(&guesses, address(1), now)).count();
        assert_eq!(answered as u32, AT_ONCE);
        assert_eq!(
            guesses.figures(),
            Figures { wrong: u64::from(AT_ONCE), refused: 1000 - u64::from(AT_ONCE) }
        );
        let right = |from, now| guesses.guess(from, now, || Some(7));
        assert_eq!(right(address(1), now), Guess::Refused(ONE_EVERY), "a right one too");
        assert_eq!(right(address(2), now), Guess::Right(7));
        let later = now + ONE_EVERY;
        assert_eq!(right(address(1), later), Guess::Right(7));
        assert!(wrong(&guesses, address(1), later) && !wrong(&guesses, address(1), later));
        let answered = (0..1000).filter(|_| wrong(&guesses, address(1), now + ONE_EVERY * 1000)).count();
        assert_eq!(answered as u32, AT_ONCE, "nothing is saved up");
    }

    #[test]
    fn right_codes_cost_nothing() {
        let (guesses, now) = (Guesses::default(), Instant::now());
        for _ in 0..1000 {
            assert_eq!(guesses.guess(address(1), now, || Some(7)), Guess::Right(7));
        }
    }

    #[test]
    fn a_customer_has_one_allowance_whatever_address_they_take() {
        let (guesses, now) = (Guesses::default(), Instant::now());
        let tries =
            (0..1000).filter(|host| wrong(&guesses, format!("2001:db8:1:2::{host:x}").parse().unwrap(), now));
        assert_eq!(tries.count() as u32, AT_ONCE);
        assert!(wrong(&guesses, "2001:db8:1:3::1".parse().unwrap(), now));
        let mapped = (0..1000)
            .filter(|n| wrong(&guesses, ["10.0.0.1", "::ffff:10.0.0.1"][n % 2].parse().unwrap(), now));
        assert_eq!(mapped.count() as u32, AT_ONCE);
    }

    #[test]
    fn the_table_is_bounded_and_forgets_who_has_guessed_least() {
        let (guesses, now) = (Guesses::default(), Instant::now());
        while wrong(&guesses, address(0), now) {}
        for number in 1..3 * MAX_ADDRESSES as u32 {
            assert!(wrong(&guesses, address(number), now));
        }
        assert_eq!(guesses.0.lock().whole.len(), MAX_ADDRESSES);
        assert!(!wrong(&guesses, address(0), now), "who guessed most is remembered");
        assert!(wrong(&guesses, address(9), now + ONE_EVERY * AT_ONCE));
        assert_eq!(guesses.0.lock().whole.len(), 1, "who has recovered is not");
    }
}

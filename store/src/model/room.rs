//! Words of rooms: how their ids are drawn, the codes that open them, and what people may be in them.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::model::ids::RoomId;

/// Characters of a join code, by value: none that could be taken for another.
const CODE_LETTERS: &[u8; 32] = b"ABCDEFGHJKLMNPQRSTUVWXYZ23456789";
/// Characters of a room's id, by value.
const ID_LETTERS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
/// Length of a join code.
const CODE_CHARS: usize = 8;
/// Length of a room's id.
const ID_CHARS: usize = 16;

/// The id of a new room: 80 random bits, so that no two nodes draw the same, as 16 lower-case letters and digits.
pub(crate) fn drawn(random: [u8; 10]) -> RoomId {
    named(random.iter().fold(0, |number, byte| number << 8 | u128::from(*byte)))
}

/// The room of a number below 2^80.
pub(crate) fn of_number(number: u128) -> Option<RoomId> {
    (number >> 80 == 0).then(|| named(number))
}

/// The number of a room; `None` for an id that no node draws.
pub(crate) fn number(room: &RoomId) -> Option<u128> {
    unspell(room.as_str().as_bytes(), ID_CHARS, ID_LETTERS)
}

fn named(number: u128) -> RoomId {
    RoomId::new(&spell(number, ID_CHARS, ID_LETTERS)).expect("16 letters and digits are an id")
}

/// What lets people into a room: 8 of `A-HJ-NP-Z2-9`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct JoinCode([u8; 5]);

impl JoinCode {
    /// The code of these random bits.
    pub fn of(random: [u8; 5]) -> Self {
        Self(random)
    }

    /// Reads a code, in letters of either case; `None` for what no code can be.
    pub fn parse(text: &str) -> Option<Self> {
        let value = unspell(text.to_ascii_uppercase().as_bytes(), CODE_CHARS, CODE_LETTERS)?;
        let mut bytes = [0; 5];
        bytes.copy_from_slice(&value.to_be_bytes()[11..]);
        Some(Self(bytes))
    }
}

impl fmt::Display for JoinCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = self.0.iter().fold(0, |number, byte| number << 8 | u128::from(*byte));
        f.write_str(&spell(number, CODE_CHARS, CODE_LETTERS))
    }
}

impl fmt::Debug for JoinCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn spell(number: u128, chars: usize, letters: &[u8; 32]) -> String {
    let letter = |place: usize| char::from(letters[(number >> (5 * place)) as usize % letters.len()]);
    (0..chars).rev().map(letter).collect()
}

fn unspell(text: &[u8], chars: usize, letters: &[u8; 32]) -> Option<u128> {
    let digit = |letter: &u8| letters.iter().position(|one| one == letter);
    let fits = text.len() == chars;
    text.iter().try_fold(0, |number, letter| Some(number << 5 | digit(letter)? as u128)).filter(|_| fits)
}

/// What somebody is in a room. What each may do is for those to say who ask.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Role {
    /// Sees it.
    #[default]
    Member,
    /// Runs it.
    Admin,
    /// It is theirs.
    Owner,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Owner, Self::Admin, Self::Member];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Admin => "admin",
            Self::Member => "member",
        }
    }

    /// The role of this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.name() == name)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn ids_and_codes_come_back(id: [u8; 10], code: [u8; 5]) {
            let (id, code) = (drawn(id), JoinCode::of(code));
            let number = number(&id).unwrap();
            prop_assert_eq!(of_number(number), Some(id));
            let text = code.to_string();
            prop_assert_eq!(JoinCode::parse(&text), Some(code));
            prop_assert_eq!(JoinCode::parse(&text.to_lowercase()), Some(code));
            let allowed = |c| matches!(c, 'A'..='H' | 'J'..='N' | 'P'..='Z' | '2'..='9');
            prop_assert!(text.len() == 8 && text.chars().all(allowed), "{}", text);
        }

        #[test]
        fn noise_never_panics(text: String) {
            let _ = (JoinCode::parse(&text), RoomId::new(&text).map(|room| number(&room)));
        }
    }

    #[test]
    fn what_is_almost_a_code_is_none() {
        for text in ["", "ABCDEFG", "ABCDEFGHJ", "ABCDEFGI", "ABCDEFGO", "ABCDEFG0", "ABCDEFG1", "ABCDEFGÄ"]
        {
            assert_eq!(JoinCode::parse(text), None, "{text}");
        }
        assert_eq!(of_number(u128::MAX), None);
    }
}

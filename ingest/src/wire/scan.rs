//! A scanner over JSON text for payloads that come by the hundred thousand: it goes from token to token in place, and
//! makes nothing that is not asked for. What it takes is JSON (RFC 8259) and nothing else.
//!
//! Invariant: no input panics, and nesting is bounded by [`MAX_DEPTH`].

use std::borrow::Cow;

/// Deepest nesting of a value that is skipped.
const MAX_DEPTH: usize = 32;
/// Digits that fit a `u64` whatever they are, and an `f64` exactly.
const EXACT_DIGITS: usize = 15;

/// Why a text is not the JSON that was expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unexpected {
    /// Where, in bytes.
    pub at: usize,
    /// What should have stood there.
    pub expected: &'static str,
}

/// A place in a JSON text.
#[derive(Debug, Clone)]
pub struct Scanner<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Scanner<'a> {
    /// At the start of `text`.
    pub fn new(text: &'a [u8]) -> Self {
        Self { text, at: 0 }
    }

    /// The error of something else standing here.
    pub fn unexpected<T>(&self, expected: &'static str) -> Result<T, Unexpected> {
        Err(Unexpected { at: self.at, expected })
    }

    /// The next byte that is not white space; 0 at the end.
    pub fn peek(&mut self) -> u8 {
        while let Some(&byte) = self.text.get(self.at) {
            if !matches!(byte, b' ' | b'\t' | b'\n' | b'\r') {
                return byte;
            }
            self.at += 1;
        }
        0
    }

    /// Steps over `byte`, if it comes next.
    pub fn eat(&mut self, byte: u8) -> bool {
        let found = self.peek() == byte;
        self.at += usize::from(found);
        found
    }

    /// Nothing but white space may follow.
    pub fn end(&mut self) -> Result<(), Unexpected> {
        self.peek();
        if self.at == self.text.len() { Ok(()) } else { self.unexpected("the end") }
    }

    /// Calls `item` at each item of an array.
    pub fn array<E: From<Unexpected>>(
        &mut self,
        mut item: impl FnMut(&mut Self) -> Result<(), E>,
    ) -> Result<(), E> {
        if !self.eat(b'[') {
            return Ok(self.unexpected("[")?);
        }
        if self.eat(b']') {
            return Ok(());
        }
        loop {
            item(self)?;
            if self.eat(b']') {
                return Ok(());
            }
            if !self.eat(b',') {
                return Ok(self.unexpected(", or ]")?);
            }
        }
    }

    /// Calls `member` at each value of an object, with its name.
    pub fn object<E: From<Unexpected>>(
        &mut self,
        mut member: impl FnMut(&mut Self, &str) -> Result<(), E>,
    ) -> Result<(), E> {
        if !self.eat(b'{') {
            return Ok(self.unexpected("{")?);
        }
        if self.eat(b'}') {
            return Ok(());
        }
        loop {
            let name = self.string()?;
            if !self.eat(b':') {
                return Ok(self.unexpected(":")?);
            }
            member(self, &name)?;
            if self.eat(b'}') {
                return Ok(());
            }
            if !self.eat(b',') {
                return Ok(self.unexpected(", or }")?);
            }
        }
    }

    /// A string; borrowed unless it has escapes.
    pub fn string(&mut self) -> Result<Cow<'a, str>, Unexpected> {
        if self.peek() != b'"' {
            return self.unexpected("a string");
        }
        let start = self.at;
        let mut plain = true;
        let mut end = start + 1;
        loop {
            match self.text.get(end) {
                None | Some(0..0x20) => return self.unexpected("a string with its end"),
                Some(b'"') => break,
                Some(b'\\') => {
                    plain = false;
                    end += 2;
                }
                Some(_) => end += 1,
            }
        }
        let Some(quoted) = self.text.get(start..=end) else {
            return self.unexpected("a string with its end");
        };
        let read = if plain {
            std::str::from_utf8(&quoted[1..quoted.len() - 1]).ok().map(Cow::Borrowed)
        } else {
            serde_json::from_slice::<String>(quoted).ok().map(Cow::Owned)
        };
        match read {
            Some(read) => {
                self.at = end + 1;
                Ok(read)
            }
            None => self.unexpected("a string of valid UTF-8 and escapes"),
        }
    }

    /// A number. One beyond the range of `f64` is infinite.
    pub fn number(&mut self) -> Result<f64, Unexpected> {
        self.peek();
        let start = self.at;
        let negative = self.text.get(start) == Some(&b'-');
        let mut at = start + usize::from(negative);
        let (mut digits, mut whole) = (0, 0_u64);
        while let Some(digit @ b'0'..=b'9') = self.text.get(at) {
            whole = whole.wrapping_mul(10).wrapping_add(u64::from(digit - b'0'));
            digits += 1;
            at += 1;
        }
        let first = start + usize::from(negative);
        if digits == 0 || (digits > 1 && self.text[first] == b'0') {
            return self.unexpected("a number");
        }
        if !matches!(self.text.get(at), Some(b'.' | b'e' | b'E')) && digits <= EXACT_DIGITS {
            self.at = at;
            let whole = whole as f64;
            return Ok(if negative { -whole } else { whole });
        }
        if self.text.get(at) == Some(&b'.') {
            let fraction = at + 1;
            at = self.digits(fraction);
            if at == fraction {
                return self.unexpected("a number with digits after its point");
            }
        }
        if matches!(self.text.get(at), Some(b'e' | b'E')) {
            let sign = usize::from(matches!(self.text.get(at + 1), Some(b'+' | b'-')));
            let exponent = at + 1 + sign;
            at = self.digits(exponent);
            if at == exponent {
                return self.unexpected("a number with digits in its exponent");
            }
        }
        let read = std::str::from_utf8(&self.text[start..at]).ok().and_then(|text| text.parse().ok());
        match read {
            Some(number) => {
                self.at = at;
                Ok(number)
            }
            None => self.unexpected("a number"),
        }
    }

    fn digits(&self, mut at: usize) -> usize {
        while self.text.get(at).is_some_and(u8::is_ascii_digit) {
            at += 1;
        }
        at
    }

    /// Steps over `word` (`null`, `true`, `false`), if it comes next.
    pub fn word(&mut self, word: &'static str) -> bool {
        self.peek();
        let found = self.text[self.at..].starts_with(word.as_bytes());
        self.at += if found { word.len() } else { 0 };
        found
    }

    /// Steps over any value.
    pub fn skip(&mut self) -> Result<(), Unexpected> {
        self.skip_within(MAX_DEPTH)
    }

    fn skip_within(&mut self, depth: usize) -> Result<(), Unexpected> {
        let Some(depth) = depth.checked_sub(1) else { return self.unexpected("less nesting") };
        match self.peek() {
            b'{' => self.object(|scanner, _| scanner.skip_within(depth)),
            b'[' => self.array(|scanner| scanner.skip_within(depth)),
            b'"' => self.string().map(drop),
            b't' if self.word("true") => Ok(()),
            b'f' if self.word("false") => Ok(()),
            b'n' if self.word("null") => Ok(()),
            _ => self.number().map(drop),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn whole(text: &str) -> Result<(), Unexpected> {
        let mut scanner = Scanner::new(text.as_bytes());
        scanner.skip()?;
        scanner.end()
    }

    proptest! {
        /// What it takes is what serde_json takes.
        #[test]
        fn it_agrees_with_serde_json_on_anything_like_json(
            text in r#"[\[\]{}:,0-9eE+.\-" a"ntrue\\u]{0,24}"#,
        ) {
            let expected = serde_json::from_str::<serde_json::Value>(&text);
            // serde_json refuses numbers beyond f64; here they are infinite, and refused as values.
            if !expected.as_ref().is_err_and(|error| error.to_string().contains("out of range")) {
                prop_assert_eq!(whole(&text).is_ok(), expected.is_ok(), "{}", text);
            }
        }

        #[test]
        fn numbers_read_to_the_last_bit(number in prop::num::f64::NORMAL | prop::num::f64::SUBNORMAL | prop::num::f64::ZERO) {
            for text in [format!("{number}"), format!("{number:e}"), serde_json::to_string(&number).unwrap()] {
                let read = Scanner::new(text.as_bytes()).number().unwrap();
                prop_assert_eq!(read.to_bits(), number.to_bits(), "{}", text);
            }
        }

        #[test]
        fn any_bytes_are_judged(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let mut scanner = Scanner::new(&bytes);
            let _ = scanner.skip();
            let _ = scanner.end();
        }
    }

    #[test]
    fn nesting_is_bounded() {
        assert!(whole(&format!("{}1{}", "[".repeat(31), "]".repeat(31))).is_ok());
        assert!(whole(&format!("{}1{}", "[".repeat(32), "]".repeat(32))).is_err());
        assert!(whole(&"[".repeat(100_000)).is_err());
    }
}

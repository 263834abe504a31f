//! Bytes of the disk and peer formats: little-endian words, LEB128 varints, zigzag for signed ones.
//!
//! Reading never panics and never allocates more than the input could fill.

/// Input that is not what we wrote: where, and what was expected there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected}, {left} bytes before the end")]
pub struct Malformed {
    /// What should have stood there.
    pub expected: &'static str,
    /// Bytes that were left.
    pub left: usize,
}

/// Appends a varint.
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a signed varint.
pub fn put_zigzag(out: &mut Vec<u8>, value: i64) {
    put_varint(out, ((value << 1) ^ (value >> 63)) as u64);
}

/// Appends a text behind its length.
pub fn put_text(out: &mut Vec<u8>, text: &str) {
    put_varint(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

/// Appends a presence byte and, when there is one, the text.
pub fn put_optional_text(out: &mut Vec<u8>, text: Option<&str>) {
    out.push(u8::from(text.is_some()));
    if let Some(text) = text {
        put_text(out, text);
    }
}

/// Reads from the front of a slice.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    /// The error that says what should stand here.
    pub fn malformed(&self, expected: &'static str) -> Malformed {
        Malformed { expected, left: self.0.len() }
    }

    /// True when nothing is left.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next `length` bytes.
    pub fn bytes(&mut self, length: usize, expected: &'static str) -> Result<&'a [u8], Malformed> {
        let (head, rest) = self.0.split_at_checked(length).ok_or(self.malformed(expected))?;
        self.0 = rest;
        Ok(head)
    }

    /// The next `N` bytes.
    pub fn array<const N: usize>(&mut self, expected: &'static str) -> Result<[u8; N], Malformed> {
        let (head, rest) = self.0.split_first_chunk::<N>().ok_or(self.malformed(expected))?;
        self.0 = rest;
        Ok(*head)
    }

    /// One byte.
    pub fn byte(&mut self, expected: &'static str) -> Result<u8, Malformed> {
        self.array::<1>(expected).map(|[byte]| byte)
    }

    /// Eight bytes as a word.
    pub fn word(&mut self, expected: &'static str) -> Result<u64, Malformed> {
        self.array(expected).map(u64::from_le_bytes)
    }

    /// Eight bytes as a float.
    pub fn float(&mut self, expected: &'static str) -> Result<f64, Malformed> {
        self.array(expected).map(f64::from_le_bytes)
    }

    /// A varint of at most ten bytes.
    pub fn varint(&mut self, expected: &'static str) -> Result<u64, Malformed> {
        let mut value = 0u64;
        for shift in (0..70).step_by(7) {
            let byte = self.byte(expected)?;
            if shift == 63 && byte > 1 {
                break;
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(self.malformed(expected))
    }

    /// A signed varint.
    pub fn zigzag(&mut self, expected: &'static str) -> Result<i64, Malformed> {
        let value = self.varint(expected)?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    /// A count of things that take at least `each` bytes, so that no count makes a reader allocate beyond its input.
    pub fn count(&mut self, each: usize, expected: &'static str) -> Result<usize, Malformed> {
        let count = self.varint(expected)?;
        match usize::try_from(count) {
            Ok(count) if count.checked_mul(each).is_some_and(|bytes| bytes <= self.0.len()) => Ok(count),
            _ => Err(self.malformed(expected)),
        }
    }

    /// A text behind its length.
    pub fn text(&mut self, expected: &'static str) -> Result<&'a str, Malformed> {
        let length = self.count(1, expected)?;
        let bytes = self.bytes(length, expected)?;
        std::str::from_utf8(bytes).map_err(|_| self.malformed(expected))
    }

    /// A text that may be missing.
    pub fn optional_text(&mut self, expected: &'static str) -> Result<Option<&'a str>, Malformed> {
        match self.byte(expected)? {
            0 => Ok(None),
            1 => self.text(expected).map(Some),
            _ => Err(self.malformed(expected)),
        }
    }
}

/// Eight bytes of BLAKE3: what records are sealed with.
pub fn checksum(bytes: &[u8]) -> [u8; 8] {
    let hash = blake3::hash(bytes);
    let mut sum = [0; 8];
    sum.copy_from_slice(&hash.as_bytes()[..8]);
    sum
}

/// Appends the checksum of all that `out` holds.
pub fn seal(out: &mut Vec<u8>) {
    let sum = checksum(out);
    out.extend_from_slice(&sum);
}

/// The content of a sealed record, when its checksum fits.
pub fn unseal(record: &[u8]) -> Result<&[u8], Malformed> {
    match record.split_last_chunk::<8>() {
        Some((content, sum)) if checksum(content) == *sum => Ok(content),
        _ => Err(Malformed { expected: "a record whose checksum fits", left: record.len() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn numbers_come_back(unsigned: u64, signed: i64, text: String) {
            let mut out = Vec::new();
            put_varint(&mut out, unsigned);
            put_zigzag(&mut out, signed);
            put_text(&mut out, &text);
            seal(&mut out);
            let mut reader = Reader(unseal(&out).unwrap());
            prop_assert_eq!(reader.varint("u"), Ok(unsigned));
            prop_assert_eq!(reader.zigzag("s"), Ok(signed));
            prop_assert_eq!(reader.text("t"), Ok(text.as_str()));
            prop_assert!(reader.is_empty());
        }

        #[test]
        fn noise_is_an_error_or_a_value_but_never_a_panic(bytes: Vec<u8>) {
            let mut reader = Reader(&bytes);
            let _ = (reader.varint("u"), reader.text("t"), reader.count(8, "n"), reader.optional_text("o"));
            prop_assert!(unseal(&bytes).is_err());
        }
    }

    #[test]
    fn a_count_beyond_the_input_is_refused() {
        let mut out = Vec::new();
        put_varint(&mut out, u64::MAX);
        assert!(Reader(&out).count(1, "things").is_err());
    }
}

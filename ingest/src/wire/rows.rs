//! Samples as a payload states them, before anyone has judged them: rows over shared buffers, so that reading one
//! message after another makes nothing new.

use std::fmt;

use super::scan::Unexpected;

/// Why a payload is not what its topic takes. None of it is taken then.
#[derive(Debug, Clone, PartialEq)]
pub enum Fault {
    /// Not the JSON that was expected.
    NotJson(Unexpected),
    /// Not a JSON frame.
    Unreadable(String),
    /// Not a CBOR frame.
    NotCbor(String),
    /// JSON where CBOR was agreed on, or the other way round.
    WrongFormat(&'static str),
    /// A value that is neither number, text, `null` in an array, nor an array of numbers.
    NotAValue(String),
    /// A number beyond the range of a 64-bit float.
    TooLarge,
    /// A `ts` or `interval_ms` that is no number.
    NotATime(String),
    /// Names or fields that make no sample.
    Malformed(String),
    /// A SenML name that names no attribute.
    BadName(String),
}

impl From<Unexpected> for Fault {
    fn from(unexpected: Unexpected) -> Self {
        Self::NotJson(unexpected)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotJson(Unexpected { at, expected }) => write!(f, "byte {at}: expected {expected}"),
            Self::TooLarge => f.write_str("a number is beyond the range of 64-bit floats"),
            Self::WrongFormat(what) => f.write_str(what),
            Self::Unreadable(what)
            | Self::NotCbor(what)
            | Self::NotAValue(what)
            | Self::NotATime(what)
            | Self::Malformed(what)
            | Self::BadName(what) => f.write_str(what),
        }
    }
}

/// A sample as stated.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Stated<'a> {
    /// Whose; left out, the topic says it.
    pub sensor: Option<&'a str>,
    /// Which attribute; left out, the topic says it.
    pub attribute: Option<&'a str>,
    /// Milliseconds since 1970; left out, the node gives a time.
    pub ts: Option<f64>,
    /// The value.
    pub value: StatedValue<'a>,
}

/// A value as stated.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum StatedValue<'a> {
    /// A number per channel; NaN where it is `null`. Not empty.
    Numbers(&'a [f64]),
    /// A text.
    Text(&'a str),
}

/// Rows, and the buffers that they point into.
#[derive(Debug, Default)]
pub struct Rows {
    list: Vec<Row>,
    numbers: Vec<f64>,
    texts: String,
}

/// A range of one of the buffers.
type Span = (u32, u32);

#[derive(Debug, Clone, Copy)]
struct Row {
    sensor: Option<Span>,
    attribute: Option<Span>,
    ts: Option<f64>,
    value: Cell,
}

#[derive(Debug, Clone, Copy)]
enum Cell {
    Numbers(Span),
    Text(Span),
}

/// Names that rows to come are filed under.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Names {
    sensor: Option<Span>,
    attribute: Option<Span>,
}

impl Rows {
    /// How many samples.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// True when there is none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Forgets the rows and keeps the buffers.
    pub fn clear(&mut self) {
        self.list.clear();
        self.numbers.clear();
        self.texts.clear();
    }

    /// Bytes that the buffers take.
    pub fn bytes(&self) -> usize {
        self.list.capacity() * size_of::<Row>() + self.numbers.capacity() * 8 + self.texts.capacity()
    }

    /// The samples, in the order of the payload.
    pub fn iter(&self) -> impl Iterator<Item = Stated<'_>> {
        let text = |(start, end): Span| &self.texts[start as usize..end as usize];
        self.list.iter().map(move |row| Stated {
            sensor: row.sensor.map(text),
            attribute: row.attribute.map(text),
            ts: row.ts,
            value: match row.value {
                Cell::Numbers((start, end)) => {
                    StatedValue::Numbers(&self.numbers[start as usize..end as usize])
                }
                Cell::Text(span) => StatedValue::Text(text(span)),
            },
        })
    }

    /// Puts names down for rows to come.
    pub(super) fn names(&mut self, sensor: Option<&str>, attribute: Option<&str>) -> Names {
        Names { sensor: sensor.map(|name| self.text(name)), attribute: attribute.map(|name| self.text(name)) }
    }

    pub(super) fn push_number(&mut self, names: Names, ts: Option<f64>, number: f64) {
        let start = self.numbers.len() as u32;
        self.numbers.push(number);
        self.push(names, ts, Cell::Numbers((start, start + 1)));
    }

    /// A row of the numbers that were added since `start`.
    pub(super) fn push_numbers(&mut self, names: Names, ts: Option<f64>, start: usize) {
        let cell = Cell::Numbers((start as u32, self.numbers.len() as u32));
        self.push(names, ts, cell);
    }

    pub(super) fn push_text(&mut self, names: Names, ts: Option<f64>, text: &str) {
        let cell = Cell::Text(self.text(text));
        self.push(names, ts, cell);
    }

    /// Numbers of a row in the making.
    pub(super) fn numbers(&mut self) -> &mut Vec<f64> {
        &mut self.numbers
    }

    /// Gives the rows from `first` on their times, once these are known.
    pub(super) fn set_times(&mut self, first: usize, ts: Option<f64>, interval_ms: f64) {
        for (index, row) in self.list[first..].iter_mut().enumerate() {
            row.ts = ts.map(|ts| ts + index as f64 * interval_ms);
        }
    }

    fn push(&mut self, names: Names, ts: Option<f64>, value: Cell) {
        self.list.push(Row { sensor: names.sensor, attribute: names.attribute, ts, value });
    }

    /// Spans are 32 bits wide: payloads are far smaller than 4 GiB.
    fn text(&mut self, text: &str) -> Span {
        let start = self.texts.len();
        self.texts.push_str(text);
        (start as u32, self.texts.len() as u32)
    }
}

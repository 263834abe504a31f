//! What was measured: 1 to 16 numbers, or a text.

/// Most channels a value may have.
pub const MAX_CHANNELS: usize = 16;
/// Longest text value, in bytes.
pub const MAX_TEXT_BYTES: usize = 4096;

/// Values of many samples of one series, in columns. A missing channel (`null`) is NaN; no other NaN and no
/// infinity gets this far.
#[derive(Debug, Clone, PartialEq)]
pub enum Values {
    /// `flat` holds sample after sample, `channels` numbers each.
    Numbers {
        /// Numbers per sample, 1..=16.
        channels: usize,
        /// Length: samples × channels.
        flat: Vec<f64>,
    },
    /// One text per sample, each at most [`MAX_TEXT_BYTES`].
    Texts(Vec<Box<str>>),
}

impl Values {
    /// How many samples.
    pub fn len(&self) -> usize {
        match self {
            Self::Numbers { channels, flat } => flat.len() / channels,
            Self::Texts(texts) => texts.len(),
        }
    }

    /// True when there is no sample.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The shape that a series must have to take these.
    pub fn shape(&self) -> Shape {
        match self {
            Self::Numbers { channels, .. } => Shape::Numbers(*channels),
            Self::Texts(_) => Shape::Text,
        }
    }

    /// The value of sample `index`.
    pub fn get(&self, index: usize) -> ValueRef<'_> {
        match self {
            Self::Numbers { channels, flat } => {
                ValueRef::Numbers(&flat[index * channels..(index + 1) * channels])
            }
            Self::Texts(texts) => ValueRef::Text(&texts[index]),
        }
    }
}

/// One value, borrowed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ValueRef<'a> {
    /// A number per channel; NaN where the channel is missing.
    Numbers(&'a [f64]),
    /// A text.
    Text(&'a str),
}

/// Whether a series holds numbers, and how many a sample, or texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// This many numbers a sample.
    Numbers(usize),
    /// A text a sample.
    Text,
}

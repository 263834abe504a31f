//! Kinds of attributes: what their channels are called and which unit each has (SenML symbols, RFC 8428 section
//! 12.1, where there is one).

use super::value::{MAX_CHANNELS, Shape};

/// A channel's name and unit; the unit is empty where the kind fixes none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Channel {
    /// Short name, as in CSV headers.
    pub name: &'static str,
    /// Unit symbol.
    pub unit: &'static str,
}

macro_rules! kinds {
    ($($variant:ident $name:literal $text:literal $open:literal [$($channel:literal $unit:literal),*];)*) => {
        /// What an attribute measures.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[expect(missing_docs, reason = "each kind's name says it; the table below is the documentation")]
        pub enum Kind { $($variant),* }

        impl Kind {
            /// All kinds, in the order of the design's table.
            pub const ALL: &'static [Kind] = &[$(Kind::$variant),*];

            /// The name in descriptors and JSON.
            pub fn name(self) -> &'static str {
                match self { $(Kind::$variant => $name),* }
            }

            /// The channels that the kind itself names; empty for texts.
            pub fn named_channels(self) -> &'static [Channel] {
                match self { $(Kind::$variant => &[$(Channel { name: $channel, unit: $unit }),*]),* }
            }

            /// Whether samples are texts.
            pub fn is_text(self) -> bool {
                match self { $(Kind::$variant => $text),* }
            }

            /// Whether a value may have more channels than are named (several leads of an ECG, a plain array).
            pub fn is_open(self) -> bool {
                match self { $(Kind::$variant => $open),* }
            }
        }
    };
}

kinds! {
    Number "number" false true ["value" ""];
    Text "text" true false [];
    Ecg "ecg" false true ["ecg" "mV"];
    Heartrate "heartrate" false false ["rate" "beat/min"];
    Hrv "hrv" false false ["rmssd" "ms", "sdnn" "ms"];
    Spo2 "spo2" false false ["value" "%"];
    Respiration "respiration" false false ["rate" "1/min"];
    Imu "imu" false false [
        "ax" "m/s2", "ay" "m/s2", "az" "m/s2", "gx" "rad/s", "gy" "rad/s", "gz" "rad/s", "mx" "uT", "my" "uT", "mz" "uT"
    ];
    Quaternion "quaternion" false false ["w" "1", "x" "1", "y" "1", "z" "1"];
    Euler "euler" false false ["roll" "rad", "pitch" "rad", "yaw" "rad"];
    Geolocation "geolocation" false false [
        "lat" "deg", "lon" "deg", "accuracy" "m", "alt" "m", "speed" "m/s", "heading" "deg"
    ];
    Temperature "temperature" false false ["value" "Cel"];
    Humidity "humidity" false false ["value" "%RH"];
    Pressure "pressure" false false ["value" "hPa"];
    Illuminance "illuminance" false false ["value" "lx"];
    Sound "sound" false false ["value" "dB"];
    AirQuality "air_quality" false false ["eco2" "ppm", "tvoc" "ppb"];
    Battery "battery" false false ["level" "%EL", "charging" "", "voltage" "V"];
    Power "power" false false ["active" "W", "voltage" "V", "current" "A"];
    Button "button" true false [];
    Event "event" true false [];
}

impl Kind {
    /// The kind called `name`.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.name() == name)
    }

    /// The kind of a series that was never declared: the kind that the attribute is named after when the value
    /// fits it, else `number` or `text`.
    pub fn infer(attribute: &str, shape: Shape) -> Self {
        match (Self::parse(attribute), shape) {
            (Some(kind), _) if kind.takes(shape) => kind,
            (_, Shape::Text) => Self::Text,
            (_, Shape::Numbers(_)) => Self::Number,
        }
    }

    /// Whether a value of `shape` may stand in a series of this kind. Fewer channels than named are fine.
    pub fn takes(self, shape: Shape) -> bool {
        match shape {
            Shape::Text => self.is_text(),
            Shape::Numbers(channels) => !self.is_text() && (1..=self.max_channels()).contains(&channels),
        }
    }

    /// Most channels of a value; 0 for texts.
    pub fn max_channels(self) -> usize {
        if self.is_open() { MAX_CHANNELS } else { self.named_channels().len() }
    }

    /// The names of `count` channels; beyond those named by the kind they are counted: `ecg`, `ecg_2`, `ecg_3`.
    pub fn channel_names(self, count: usize) -> Vec<String> {
        let named = self.named_channels();
        (0..count)
            .map(|index| match named.get(index) {
                Some(channel) => channel.name.to_owned(),
                None => format!("{}_{}", named.first().map_or("value", |first| first.name), index + 1),
            })
            .collect()
    }

    /// The unit of the first channel, empty where the kind fixes none.
    pub fn unit(self) -> &'static str {
        self.named_channels().first().map_or("", |first| first.unit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_parse_back() {
        for kind in Kind::ALL {
            assert_eq!(Kind::parse(kind.name()), Some(*kind));
            assert_eq!(kind.is_text(), kind.named_channels().is_empty());
        }
        assert_eq!(Kind::parse("nonsense"), None);
    }

    #[test]
    fn an_undeclared_attribute_takes_the_kind_of_its_name_when_the_value_fits() {
        assert_eq!(Kind::infer("imu", Shape::Numbers(9)), Kind::Imu);
        assert_eq!(Kind::infer("imu", Shape::Numbers(10)), Kind::Number);
        assert_eq!(Kind::infer("imu", Shape::Text), Kind::Text);
        assert_eq!(Kind::infer("button", Shape::Text), Kind::Button);
        assert_eq!(Kind::infer("skin", Shape::Numbers(1)), Kind::Number);
        assert_eq!(Kind::Ecg.channel_names(3), ["ecg", "ecg_2", "ecg_3"]);
    }
}

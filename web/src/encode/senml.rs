//! Samples as a `SenML` pack in JSON (RFC 8428): a record for each channel, named `sensor/attribute/channel`, without
//! `/channel` where there is only one. A missing channel has no record.
//!
//! Times are absolute seconds. `SenML` takes times below 2^28 s (July 1978) for relative ones (section 4.5.3); samples
//! older than that cannot be said in it, and other formats should be asked for.

use std::fmt::Write as _;

use bytes::Bytes;
use store::{SampleTime, ValueRef};

use super::{Table, chunks, push_number, push_text};

/// The table as a `SenML` pack.
pub fn senml(table: Table) -> impl Iterator<Item = Bytes> {
    let single = table.channels.len() <= 1;
    // What stands before the time in the records of each channel.
    let names: Vec<String> = (0..table.channels.len().max(1))
        .map(|index| {
            let mut name = format!("{}/{}", table.sensor, table.attribute);
            if !single {
                name.push('/');
                name.push_str(&table.channels[index]);
            }
            let mut start = String::from("{\"n\":");
            push_text(&mut start, &name);
            if let Some(unit) = table.units.get(index).filter(|unit| !unit.is_empty()) {
                start.push_str(",\"u\":");
                push_text(&mut start, unit);
            }
            start.push_str(",\"t\":");
            start
        })
        .collect();
    let mut first = true;
    chunks(table.times.len(), "[".to_owned(), "]", move |out, row| {
        let mut record = |channel: usize, field: &str, write: &dyn Fn(&mut String)| {
            out.push_str(if std::mem::take(&mut first) { "" } else { "," });
            out.push_str(names.get(channel).map_or("{\"t\":", String::as_str));
            push_seconds(out, table.times[row]);
            out.push_str(field);
            write(out);
            out.push('}');
        };
        match table.values.get(row) {
            ValueRef::Numbers(numbers) => {
                for (channel, number) in numbers.iter().enumerate().filter(|(_, number)| !number.is_nan()) {
                    record(channel, ",\"v\":", &|out| push_number(out, *number));
                }
            }
            ValueRef::Text(text) => record(0, ",\"vs\":", &|out| push_text(out, text)),
        }
    })
}

/// Seconds with up to six decimals, exact to the microsecond.
fn push_seconds(out: &mut String, time: SampleTime) {
    let (sign, micros) = (if time.0 < 0 { "-" } else { "" }, time.0.unsigned_abs());
    write!(out, "{sign}{}", micros / 1_000_000).expect("writing to a String cannot fail");
    if micros % 1_000_000 != 0 {
        write!(out, ".{:06}", micros % 1_000_000).expect("writing to a String cannot fail");
        out.truncate(out.trim_end_matches('0').len());
    }
}

#[cfg(test)]
mod tests {
    use store::Values;

    use super::*;

    fn text(channels: &[(&str, &str)], values: Values) -> String {
        let table = Table {
            sensor: "imu-1".into(),
            attribute: "imu".into(),
            kind: "imu",
            unit: String::new(),
            channels: channels.iter().map(|(name, _)| (*name).to_owned()).collect(),
            units: channels.iter().map(|(_, unit)| (*unit).to_owned()).collect(),
            times: (0..values.len() as i64).map(|i| SampleTime(1_763_661_600_000_000 + i * 2_500)).collect(),
            values,
        };
        String::from_utf8(senml(table).collect::<Vec<_>>().concat()).unwrap()
    }

    #[test]
    fn each_channel_has_a_record_and_a_missing_one_none() {
        let values = Values::Numbers { channels: 2, flat: vec![0.1, f64::NAN, 1.0, -4.0] };
        assert_eq!(
            text(&[("ax", "m/s2"), ("x", "")], values),
            concat!(
                r#"[{"n":"imu-1/imu/ax","u":"m/s2","t":1763661600,"v":0.1},"#,
                r#"{"n":"imu-1/imu/ax","u":"m/s2","t":1763661600.0025,"v":1},"#,
                r#"{"n":"imu-1/imu/x","t":1763661600.0025,"v":-4}]"#
            )
        );
    }

    #[test]
    fn one_channel_and_texts_are_named_by_the_series_alone() {
        let values = Values::Numbers { channels: 1, flat: vec![36.6] };
        let one = text(&[("value", "Cel")], values);
        assert_eq!(one, r#"[{"n":"imu-1/imu","u":"Cel","t":1763661600,"v":36.6}]"#);
        let pressed = text(&[], Values::Texts(vec!["pressed".into()]));
        assert_eq!(pressed, r#"[{"n":"imu-1/imu","t":1763661600,"vs":"pressed"}]"#);
        assert_eq!(text(&[], Values::Texts(Vec::new())), "[]");
    }
}

//! Samples as CSV (RFC 4180): a header `ts` and a column for each channel, then a line for each sample; a missing
//! channel is an empty field. Lines end in a line feed alone, as the recordings that `firmware-sim replay` reads do.

use bytes::Bytes;
use store::ValueRef;

use super::{Table, chunks, push_number, push_ts};

/// The table as CSV.
pub fn csv(table: Table) -> impl Iterator<Item = Bytes> {
    let mut head = String::from("ts");
    if table.channels.is_empty() {
        head.push_str(",value");
    }
    for channel in &table.channels {
        head.push(',');
        push_field(&mut head, channel);
    }
    head.push('\n');
    chunks(table.times.len(), head, "", move |out, index| {
        push_ts(out, table.times[index]);
        match table.values.get(index) {
            ValueRef::Numbers(numbers) => {
                for number in numbers {
                    out.push(',');
                    if !number.is_nan() {
                        push_number(out, *number);
                    }
                }
            }
            ValueRef::Text(text) => {
                out.push(',');
                push_field(out, text);
            }
        }
        out.push('\n');
    })
}

/// A field, quoted when it must be. An empty text is quoted too: an empty field means a missing value.
fn push_field(out: &mut String, text: &str) {
    if text.is_empty() || text.contains([',', '"', '\n', '\r']) || text.trim() != text {
        out.push('"');
        for (index, part) in text.split('"').enumerate() {
            out.push_str(if index == 0 { "" } else { "\"\"" });
            out.push_str(part);
        }
        out.push('"');
    } else {
        out.push_str(text);
    }
}

#[cfg(test)]
mod tests {
    use store::{SampleTime, Values};

    use super::*;

    fn table(channels: &[&str], values: Values) -> Table {
        Table {
            sensor: "s".into(),
            attribute: "a".into(),
            kind: "number",
            unit: String::new(),
            channels: channels.iter().map(|&name| name.to_owned()).collect(),
            units: vec![String::new(); channels.len()],
            times: (0..values.len() as i64).map(|index| SampleTime(index * 2_500)).collect(),
            values,
        }
    }

    fn text(table: Table) -> String {
        String::from_utf8(csv(table).collect::<Vec<_>>().concat()).unwrap()
    }

    #[test]
    fn a_missing_channel_is_an_empty_field() {
        let values = Values::Numbers { channels: 2, flat: vec![0.1, f64::NAN, f64::NAN, -4.0] };
        assert_eq!(text(table(&["ax", "ay"], values)), "ts,ax,ay\n0,0.1,\n2.5,,-4\n");
    }

    #[test]
    fn texts_are_quoted_where_they_must_be() {
        let values = Values::Texts(vec!["on".into(), "a,\"b\"\nc".into(), "".into(), " x".into()]);
        assert_eq!(text(table(&[], values)), "ts,value\n0,on\n2.5,\"a,\"\"b\"\"\nc\"\n5,\"\"\n7.5,\" x\"\n");
    }
}

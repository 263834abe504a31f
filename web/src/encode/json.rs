//! Samples as the contract's JSON answer.

use bytes::Bytes;

use super::{Table, chunks, push_json, push_text, push_ts, push_value};

/// `{"sensor","attribute","kind","unit","channels":[…],"units":[…],"samples":[{"ts","value"},…]}`.
pub fn json(table: Table) -> impl Iterator<Item = Bytes> {
    let mut head = String::with_capacity(1024);
    for (key, text) in [
        ("{\"sensor\":", table.sensor.as_str()),
        (",\"attribute\":", &table.attribute),
        (",\"kind\":", table.kind),
        (",\"unit\":", &table.unit),
    ] {
        head.push_str(key);
        push_text(&mut head, text);
    }
    head.push_str(",\"channels\":");
    push_json(&mut head, &table.channels);
    head.push_str(",\"units\":");
    push_json(&mut head, &table.units);
    head.push_str(",\"samples\":[");
    chunks(table.times.len(), head, "]}", move |out, index| {
        out.push_str(if index == 0 { "{\"ts\":" } else { ",{\"ts\":" });
        push_ts(out, table.times[index]);
        out.push_str(",\"value\":");
        push_value(out, table.values.get(index));
        out.push('}');
    })
}

#[cfg(test)]
mod tests {
    use store::{SampleTime, Values};

    use super::*;

    #[test]
    fn the_answer_is_one_json_document() {
        let table = Table {
            sensor: "imu-1".into(),
            attribute: "imu".into(),
            kind: "imu",
            unit: "m/s2".into(),
            channels: vec!["ax".into(), "ay".into()],
            units: vec!["m/s2".into(), "m/s2".into()],
            times: vec![SampleTime(2_778), SampleTime(1_000_000)],
            values: Values::Numbers { channels: 2, flat: vec![0.1, f64::NAN, 3.0, -4.5] },
        };
        let text = String::from_utf8(json(table).collect::<Vec<_>>().concat()).unwrap();
        assert_eq!(
            text,
            r#"{"sensor":"imu-1","attribute":"imu","kind":"imu","unit":"m/s2","channels":["ax","ay"],"units":["m/s2","m/s2"],"samples":[{"ts":2.778,"value":[0.1,null]},{"ts":1000,"value":[3,-4.5]}]}"#
        );
    }
}

//! Whether what was read may be taken: samples as stated, and descriptions.

use store::{
    Attribute, AttributeDescription, Description, Kind, MAX_CHANNELS, MAX_LABEL_CHARS, MAX_TEXT_BYTES,
    SampleTime, SensorId,
};

use crate::error::Refused;
use crate::limits::{MAX_AHEAD_US, MAX_ATTRIBUTES, MAX_SAMPLES};
use crate::wire::message;
use crate::wire::rows::{Rows, StatedValue};

/// Judges all samples of a frame or payload.
pub fn samples(rows: &Rows, now: SampleTime) -> Result<(), Refused> {
    if rows.is_empty() {
        return Err(Refused::new("no_samples", "there are no samples in it"));
    }
    if rows.len() > MAX_SAMPLES {
        let what = format!("{} samples at once; at most {MAX_SAMPLES} are taken", rows.len());
        return Err(Refused::new("too_many_samples", what));
    }
    for stated in rows.iter() {
        if let Some(ts) = stated.ts {
            match SampleTime::from_millis(ts) {
                None => return Err(Refused::new("bad_time", format!("ts {ts} is beyond all times"))),
                Some(time) if time.0 > now.0 + MAX_AHEAD_US => {
                    let what = format!("ts {time} is more than 60 s ahead of this node's clock, {now}");
                    return Err(Refused::new("time_in_future", what));
                }
                Some(_) => {}
            }
        }
        match stated.value {
            StatedValue::Numbers(numbers) if numbers.len() > MAX_CHANNELS => {
                let what =
                    format!("a value has {} channels; at most {MAX_CHANNELS} are taken", numbers.len());
                return Err(Refused::new("too_many_channels", what));
            }
            StatedValue::Numbers(numbers) if numbers.iter().all(|number| number.is_nan()) => {
                return Err(Refused::new("value_not_a_number", "every channel of a value is null"));
            }
            StatedValue::Text(text) if text.len() > MAX_TEXT_BYTES => {
                let what = format!("a text has {} bytes; at most {MAX_TEXT_BYTES} are taken", text.len());
                return Err(Refused::new("text_too_long", what));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Reads a `hello` as a sensor and its description.
pub fn hello(hello: &message::Hello) -> Result<(SensorId, Description), Refused> {
    let sensor = SensorId::new(&hello.sensor)?;
    if hello.attributes.len() > MAX_ATTRIBUTES {
        let what = format!("{} attributes; at most {MAX_ATTRIBUTES} are taken", hello.attributes.len());
        return Err(Refused::new("malformed", what));
    }
    let name = hello.name.as_deref().map(short).transpose()?;
    let attributes = hello.attributes.iter().map(|(name, asked)| attribute(name, asked));
    Ok((sensor, Description { name, attributes: attributes.collect::<Result<_, _>>()? }))
}

fn attribute(name: &str, asked: &message::Attribute) -> Result<(Attribute, AttributeDescription), Refused> {
    let attribute = Attribute::new(name)?;
    let kind = match &asked.kind {
        None => None,
        Some(kind) => match Kind::parse(kind) {
            Some(kind) => Some(kind),
            None => {
                let known: Vec<_> = Kind::ALL.iter().map(|kind| kind.name()).collect();
                let what =
                    format!("{name} is described as of kind {kind:?}; expected one of {}", known.join(", "));
                return Err(Refused::new("unknown_kind", what));
            }
        },
    };
    if let Some(rate) = asked.rate_hz.filter(|rate| !rate.is_finite() || *rate <= 0.0) {
        return Err(Refused::new("malformed", format!("rate_hz of {name} is {rate}; expected more than 0")));
    }
    let channels = match &asked.channels {
        None => None,
        Some(channels) if channels.is_empty() || channels.len() > MAX_CHANNELS => {
            let what = format!("{name} names {} channels; expected 1 to {MAX_CHANNELS}", channels.len());
            return Err(Refused::new("too_many_channels", what));
        }
        Some(channels) => Some(channels.iter().map(|channel| short(channel)).collect::<Result<_, _>>()?),
    };
    let description = AttributeDescription {
        kind,
        unit: asked.unit.as_deref().map(short).transpose()?,
        rate_hz: asked.rate_hz,
        keep: asked.keep.map(|keep| usize::try_from(keep).unwrap_or(usize::MAX)),
        channels,
    };
    Ok((attribute, description))
}

fn short(text: &str) -> Result<String, Refused> {
    match text.chars().count() {
        count if count > MAX_LABEL_CHARS => {
            let what = format!("a name or unit has {count} characters; at most {MAX_LABEL_CHARS} are taken");
            Err(Refused::new("text_too_long", what))
        }
        _ => Ok(text.to_owned()),
    }
}

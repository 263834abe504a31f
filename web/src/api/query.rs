//! The query of a request, read by name. A value that may not be is 400 `bad_query`, naming parameter, value and what
//! was expected. Parameters that nobody asks for are left alone.

use std::ops::RangeInclusive;

use axum::extract::Query as Pairs;
use axum::http::Uri;
use store::SampleTime;

use crate::error::ApiError;

/// The parameters of a query, decoded.
#[derive(Debug)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    /// Reads the query of `uri`.
    pub(crate) fn of(uri: &Uri) -> Result<Self, ApiError> {
        let Pairs(pairs) = Pairs::<Vec<(String, String)>>::try_from_uri(uri).map_err(|_| {
            ApiError::bad_query("query", uri.query().unwrap_or_default(), "name=value, joined by &")
        })?;
        Ok(Self(pairs))
    }

    /// The value of `name`; given twice, it is not clear which is meant.
    pub(crate) fn text(&self, name: &str) -> Result<Option<&str>, ApiError> {
        let mut values = self.0.iter().filter(|(given, _)| given == name).map(|(_, value)| value.as_str());
        let first = values.next();
        match values.next() {
            Some(second) => Err(ApiError::bad_query(name, second, "the parameter once")),
            None => Ok(first),
        }
    }

    /// A whole number within `range`.
    pub(crate) fn number(&self, name: &str, range: RangeInclusive<usize>) -> Result<Option<usize>, ApiError> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        match text.parse() {
            Ok(number) if range.contains(&number) => Ok(Some(number)),
            _ => {
                let expected = format!("a whole number from {} to {}", range.start(), range.end());
                Err(ApiError::bad_query(name, text, &expected))
            }
        }
    }

    /// A time in milliseconds.
    pub(crate) fn time(&self, name: &str) -> Result<Option<SampleTime>, ApiError> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        let time = text.parse().ok().and_then(SampleTime::from_millis);
        let expected = "milliseconds since 1970, as in 1763661600000 or 1763661600000.25";
        time.map(Some).ok_or_else(|| ApiError::bad_query(name, text, expected))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(text: &str) -> Query {
        Query::of(&format!("/x?{text}").parse().unwrap()).unwrap()
    }

    #[test]
    fn values_are_read_or_named() {
        let read = query("limit=7&from=1763661600000.25&q=a%20b&from_=1");
        assert_eq!(read.number("limit", 1..=10), Ok(Some(7)));
        assert_eq!(read.time("from"), Ok(Some(SampleTime(1_763_661_600_000_250))));
        assert_eq!(read.text("q"), Ok(Some("a b")));
        assert_eq!(read.time("to"), Ok(None));
        for (text, named) in [
            ("limit=0", "limit=0"),
            ("limit=11", "limit=11"),
            ("limit=-1", "limit=-1"),
            ("limit=", "limit="),
            ("limit=1e1", "limit=1e1"),
            ("limit=1&limit=2", "limit=2"),
        ] {
            let error = query(text).number("limit", 1..=10).unwrap_err();
            assert!(error.code() == "bad_query" && error.to_string().contains(named), "{error}");
        }
        for text in ["from=yesterday", "from=NaN", "from=inf", "from=1e300"] {
            let error = query(text).time("from").unwrap_err();
            assert!(error.to_string().contains(text), "{error}");
        }
    }
}

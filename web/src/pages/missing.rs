//! The page for what is not there: it says what was looked for and where to go on.

use axum::http::StatusCode;
use maud::html;

use super::layout::Page;
use crate::State;

/// What was looked for.
pub(super) enum What<'a> {
    /// A path that no page has.
    Path(&'a str),
    /// A sensor by its id.
    Sensor(&'a str),
}

/// The page, with status 404.
pub(super) fn page(state: &State, what: &What<'_>) -> Page {
    let body = html! {
        section.message {
            p.eyebrow { "404" }
            @match what {
                What::Path(path) => {
                    h1 { "There is no page here" }
                    p { "Nothing is at " code { (path) } ". Perhaps the address was mistyped." }
                }
                What::Sensor(id) => {
                    h1 { "This sensor is not known" }
                    p {
                        "No node has heard of " code { (id) } ". A sensor appears by itself as soon as it sends its \
                         first sample; check that the device uses this id and reaches this node."
                    }
                }
            }
            p { a.button href="/" { "See all sensors" } }
        }
    };
    let title = match what {
        What::Path(_) => "Not found",
        What::Sensor(_) => "Unknown sensor",
    };
    Page::new(state, title, None, body).with_status(StatusCode::NOT_FOUND)
}

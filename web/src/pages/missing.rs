//! The pages for what is not there: they say what was looked for and where to go on.

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
    /// A room by its id.
    Room(&'a str),
    /// The room that a join code opens.
    Code(&'a str),
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
                What::Room(id) => {
                    h1 { "This room is not known" }
                    p {
                        "No node has a room " code { (id) } ". It may have been deleted; a temporary room goes when \
                         nobody has been in it for ten minutes."
                    }
                }
                What::Code(code) => {
                    h1 { "This code opens no room" }
                    p {
                        "No room has the join code " code { (code) } ". It is eight letters and digits; perhaps it was \
                         mistyped, or was replaced by a new one. Ask whoever gave it to you."
                    }
                }
            }
            p { a.button href="/" { "To the lobby" } }
        }
    };
    let title = match what {
        What::Path(_) => "Not found",
        What::Sensor(_) => "Unknown sensor",
        What::Room(_) => "Unknown room",
        What::Code(_) => "Unknown code",
    };
    Page::new(state, title, None, body).with_status(StatusCode::NOT_FOUND)
}

/// The page for who has tried too many codes, with status 429.
pub(super) fn too_many_codes(state: &State) -> Page {
    let body = html! {
        section.message {
            p.eyebrow { "429" }
            h1 { "Too many wrong codes" }
            p { "From your address came more join codes that open nothing than people mistype. Wait a minute, then try again." }
        }
    };
    Page::new(state, "Too many wrong codes", None, body).with_status(StatusCode::TOO_MANY_REQUESTS)
}

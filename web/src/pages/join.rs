//! What a join code opens: say a name, and in. `join.js` keeps the name in the browser, for every room after this one.

use maud::html;
use store::{MAX_NAME_CHARS, RoomView};

use super::layout::Page;
use crate::State;

/// The page.
pub(super) fn page(state: &State, view: &RoomView) -> Page {
    let body = html! {
        section.message {
            p.eyebrow { "You are invited" }
            h1 { "Join " (view.name) }
            form.toolbar data-role="join" data-room=(view.room) action={ "/rooms/" (view.room) } {
                label.field.grow {
                    span { "Your name, as others in the room see it" }
                    input type="text" data-role="my-name" required maxlength=(MAX_NAME_CHARS) autocomplete="name" autofocus;
                }
                button.button type="submit" { "Join" }
            }
        }
    };
    Page::new(state, format!("Join {}", view.name), Some("join.js"), body)
}

//! A room: who is in it, what its sensors measure, and how others get in. The server renders the frame; `room.js` enters
//! it under the name that this browser goes by, and keeps people and sensors live.

use maud::html;
use store::{MAX_NAME_CHARS, RoomView};

use super::layout::{Page, line};
use crate::State;

/// The page.
pub(super) fn page(state: &State, view: &RoomView) -> Page {
    let id = view.room.as_str();
    let body = html! {
        nav.crumbs aria-label="Breadcrumb" { a href="/" { "Sensors" } span aria-hidden="true" { "/" } span { "Room" } }
        div.page-head data-role="room" data-room=(id) {
            h1 data-role="name" { (view.name) }
            @if view.temporary { span.pill data-state="unknown" { "Temporary" } }
            p.summary data-role="summary" role="status" { "Loading…" }
        }
        p.notice data-role="notice" role="status" hidden {}
        form.toolbar data-role="me" {
            label.field.grow {
                span { "Your name" }
                input type="text" data-role="my-name" required maxlength=(MAX_NAME_CHARS) autocomplete="name";
            }
            button.button type="submit" data-role="enter" { "Enter" }
        }
        section aria-label="People" {
            h2 { "People" }
            ul.people data-role="people" aria-live="polite" {}
        }
        section.invite aria-label="Join code" data-role="invite" hidden[view.join_code.is_none()] {
            h2 { "Let others in" }
            p.hint {
                "Whoever opens this link gets in; on the page of any node, the code is "
                strong data-role="code" { (view.join_code.map(|code| code.to_string()).unwrap_or_default()) }
                "."
            }
            (line(&view.join_code.map(|code| format!("{}/join/{code}", state.addresses().http)).unwrap_or_default()))
        }
        section aria-label="Sensors" {
            h2 { "Sensors" }
            ul.cards data-role="sensors" aria-label="Sensors" {}
        }
        noscript {
            p { "People and live values need JavaScript. These sensors are in the room:" }
            ul { @for sensor in &view.sensors { li { a href={ "/sensors/" (sensor) } { (sensor) } } } }
        }
    };
    Page::new(state, &view.name, Some("room.js"), body)
}

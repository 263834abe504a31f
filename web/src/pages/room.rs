//! A room: who is in it, what its sensors measure, and how others get in. The server renders the frame; `room.js` enters
//! it under the name that this browser goes by, makes a tile for each attribute of the room's sensors, and keeps people and
//! tiles live.

use maud::{Markup, html};
use store::{MAX_NAME_CHARS, RoomView};

use super::layout::{Page, line, windows};
use crate::State;

/// How large tiles may be, and how people say it.
const SIZES: [(&str, &str); 3] = [("small", "S"), ("medium", "M"), ("large", "L")];

/// The page.
pub(super) fn page(state: &State, view: &RoomView) -> Page {
    let id = view.room.as_str();
    let body = html! {
        nav.crumbs aria-label="Breadcrumb" { a href="/" { "Lobby" } span aria-hidden="true" { "/" } span { "Room" } }
        div.page-head data-role="room" data-room=(id) {
            h1 data-role="name" { (view.name) }
            @if view.temporary {
                span.pill data-state="unknown" title="It goes when nobody has been in it for ten minutes" { "Temporary" }
            }
            p.summary data-role="summary" role="status" { "Loading…" }
            span.grow {}
            div.actions {
                button type="button" data-role="open-share" { "Share" }
                button type="button" data-role="open-edit" { "Sensors…" }
                a.quiet href={ "/sense?room=" (id) } title="Put what this device measures into the room" { "Use this device" }
            }
        }
        p.notice data-role="notice" role="status" hidden {}
        (people())
        div.tools.sticky data-role="tools" {
            button.play type="button" data-role="play" data-state="live" { "Live" }
            (windows())
            span.note.grow data-role="at" {}
            div.windows role="group" aria-label="Tile size" {
                @for (size, label) in SIZES {
                    button type="button" data-size=(size) aria-pressed="false" title={ "Tiles: " (size) } { (label) }
                }
            }
        }
        ul.grid data-role="tiles" data-size="medium" aria-label="What the sensors measure" {}
        p.empty data-role="empty" hidden {
            "No sensor is in this room yet. "
            button type="button" data-role="open-edit" { "Add sensors" }
        }
        p.keys {
            "Keys: " kbd { "space" } " pause or go live · on a chart " kbd { "←" } kbd { "→" } " look back, "
            kbd { "+" } kbd { "−" } " change the window, " kbd { "," } kbd { "." } " move the cursor, "
            kbd { "Home" } " oldest, " kbd { "End" } " live."
        }
        (share(state, view))
        (edit(view))
        (limits())
        noscript {
            p { "People and live values need JavaScript. These sensors are in the room:" }
            ul { @for sensor in &view.sensors { li { a href={ "/sensors/" (sensor) } { (sensor) } } } }
        }
    };
    Page::new(state, &view.name, Some("room.js"), body)
}

/// Who is here and in the call, and under which name this browser's user is.
fn people() -> Markup {
    html! {
        section.company aria-label="People" {
            ul.people data-role="people" aria-live="polite" aria-label="Who is here" {}
            div.company-tools {
                button type="button" data-role="call" hidden aria-pressed="false" { "Join the call" }
                button.quiet type="button" data-role="rename" hidden { "Change name" }
            }
            form.toolbar data-role="me" hidden {
                label.field.grow {
                    span { "Your name, as others in the room see it" }
                    input type="text" data-role="my-name" required maxlength=(MAX_NAME_CHARS) autocomplete="name";
                }
                button.button type="submit" data-role="enter" { "Enter" }
            }
        }
    }
}

/// How others get in: link, code and picture of the link.
fn share(state: &State, view: &RoomView) -> Markup {
    let code = view.join_code.map(|code| code.to_string()).unwrap_or_default();
    html! {
        dialog.dialog data-role="share" aria-labelledby="share-title" {
            (dialog_head("share-title", "Let others in"))
            div data-role="invite" hidden[view.join_code.is_none()] {
                p.hint { "Whoever opens this link, or points a camera at it, gets in." }
                div.qr data-role="qr" role="img" aria-label="QR code of the link" {}
                (line(&format!("{}/join/{code}", state.addresses().http)))
                p.hint data-role="near" hidden {
                    "This address leads to your own machine only. Open the page by an address that others reach, and the \
                     link will hold that one."
                }
                p { "Or with the code, in the lobby of any node: " strong.code data-role="code" { (code) } }
            }
            button type="button" data-role="renew" { "Make a new code" }
            p.hint data-role="share-note" role="status" { "A new code voids the old one." }
        }
    }
}

/// The room's name and sensors.
fn edit(view: &RoomView) -> Markup {
    html! {
        dialog.dialog data-role="edit" aria-labelledby="edit-title" {
            (dialog_head("edit-title", "Sensors and name"))
            h3 { "In this room" }
            ul.picks data-role="members" aria-label="Sensors in this room" {}
            label.field {
                span { "Add a sensor: search by name, id or attribute" }
                input type="search" data-role="find" autocomplete="off" spellcheck="false";
            }
            ul.picks data-role="found" aria-label="Sensors to add" {}
            p.hint data-role="edit-note" role="status" {}
            form.toolbar data-role="rename-room" {
                label.field.grow {
                    span { "Name of the room" }
                    input type="text" data-role="room-name" required maxlength=(MAX_NAME_CHARS) value=(view.name) autocomplete="off";
                }
                button type="submit" { "Rename" }
            }
        }
    }
}

/// Between which values a tile's series is as it should be.
fn limits() -> Markup {
    html! {
        dialog.dialog data-role="limits" aria-labelledby="limits-title" {
            (dialog_head("limits-title", "Limits"))
            form data-role="limits-form" {
                p.hint { "Beyond these the tile says so. They are kept in this browser." }
                div.toolbar {
                    label.field { span { "Lowest" } input type="number" step="any" data-role="low"; }
                    label.field { span { "Highest" } input type="number" step="any" data-role="high"; }
                }
                button.button type="submit" { "Keep" }
            }
        }
    }
}

/// Title and a way out.
fn dialog_head(id: &str, title: &str) -> Markup {
    html! {
        div.dialog-head {
            h2 #(id) { (title) }
            form method="dialog" { button.quiet type="submit" aria-label="Close" { "✕" } }
        }
    }
}

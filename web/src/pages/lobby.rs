//! The lobby: rooms, and every sensor with its attributes, live. The server renders the frame and, for browsers without
//! scripts, plain links; `lobby.js` fills in rooms and cards and keeps them live.

use maud::{Markup, html};
use store::{MAX_NAME_CHARS, RoomView, SensorView};

use super::layout::Page;
use crate::State;

/// Sensors, and rooms, that are linked for browsers without scripts.
pub(super) const PLAIN_LINKS: usize = 200;

/// In which order sensors stand: how the script calls it, and how people do. Favourites stand before all others.
const ORDERS: [(&str, &str); 5] = [
    ("name", "Name"),
    ("recent", "Activity"),
    ("state", "State"),
    ("kind", "Kind"),
    ("battery", "Battery, the lowest first"),
];

/// The page; `first` are the first sensors by id, `rooms` the first rooms.
pub(super) fn page(state: &State, first: &[SensorView], rooms: &[RoomView]) -> Page {
    let body = html! {
        (gather())
        div.page-head {
            h1 { "Sensors" }
            p.summary data-role="summary" role="status" { "Loading…" }
        }
        div.toolbar role="search" {
            label.field.grow {
                span { "Search sensors and rooms" }
                input type="search" data-role="search" placeholder="Name, id or attribute" autocomplete="off"
                    spellcheck="false" aria-keyshortcuts="/" title="Press / to search";
            }
            label.field {
                span { "Kind" }
                select data-role="kind" { option value="" { "All kinds" } }
            }
            label.field {
                span { "Sort by" }
                select data-role="sort" { @for (value, label) in ORDERS { option value=(value) { (label) } } }
            }
        }
        p.notice data-role="notice" role="status" hidden {}
        ul.cards data-role="sensors" aria-label="Sensors" {}
        noscript { (plain(first, rooms)) }
    };
    Page::new(state, "Lobby", Some("lobby.js"), body)
}

/// The rooms, and the ways into one.
fn gather() -> Markup {
    html! {
        section.gather aria-label="Rooms" {
            div.page-head {
                h2 { "Rooms" }
                p.summary data-role="rooms-note" {}
            }
            ul.rooms data-role="rooms" aria-label="Rooms" {}
            div.gates {
                form.gate data-role="make-room" {
                    label.field.grow {
                        span { "New room" }
                        input type="text" data-role="room-name" placeholder="Name" required maxlength=(MAX_NAME_CHARS) autocomplete="off";
                    }
                    label.tick title="It goes when nobody has been in it for ten minutes" {
                        input type="checkbox" data-role="temporary";
                        span { "Temporary" }
                    }
                    button type="submit" { "Make" }
                    p.hint data-role="said" role="status" {}
                }
                form.gate data-role="join-room" {
                    label.field.grow {
                        span { "Join by code" }
                        input.code type="text" data-role="join-code" placeholder="8 letters and digits" required autocomplete="off"
                            autocapitalize="characters" spellcheck="false" maxlength="16";
                    }
                    button type="submit" { "Join" }
                    p.hint data-role="said" role="status" {}
                }
            }
        }
    }
}

fn plain(first: &[SensorView], rooms: &[RoomView]) -> Markup {
    html! {
        p { "Live values need JavaScript. These rooms and sensors are known:" }
        ul { @for room in rooms { li { a href={ "/rooms/" (room.room) } { (room.name) } } } }
        ul {
            @for view in first {
                li { a href={ "/sensors/" (view.sensor) } { (view.name.as_deref().unwrap_or(view.sensor.as_str())) } }
            }
        }
    }
}

//! The lobby: every sensor with its attributes, live. The server renders the frame and, for browsers without scripts,
//! plain links; `lobby.js` fills in the cards and keeps them live.

use maud::{Markup, html};
use store::{RoomView, SensorView};

use super::layout::Page;
use crate::State;

/// Sensors that are linked for browsers without scripts.
pub(super) const PLAIN_LINKS: usize = 200;

/// The page; `first` are the first sensors by id, `rooms` the first rooms.
pub(super) fn page(state: &State, first: &[SensorView], rooms: &[RoomView]) -> Page {
    let body = html! {
        @if !rooms.is_empty() {
            nav.rooms aria-label="Rooms" {
                h2 { "Rooms" }
                ul { @for room in rooms { li { a.quiet href={ "/rooms/" (room.room) } { (room.name) } } } }
            }
        }
        div.page-head {
            h1 { "Sensors" }
            p.summary data-role="summary" role="status" { "Loading…" }
        }
        div.toolbar role="search" {
            label.field.grow {
                span { "Search" }
                input type="search" data-role="search" placeholder="Name, id or attribute" autocomplete="off"
                    spellcheck="false" aria-keyshortcuts="/" title="Press / to search";
            }
            label.field {
                span { "Kind" }
                select data-role="kind" { option value="" { "All kinds" } }
            }
            label.field {
                span { "Sort by" }
                select data-role="sort" {
                    option value="name" { "Name" }
                    option value="recent" { "Newest sample" }
                    option value="state" { "State" }
                }
            }
        }
        p.notice data-role="notice" role="status" hidden {}
        ul.cards data-role="sensors" aria-label="Sensors" {}
        noscript { (plain(first)) }
    };
    Page::new(state, "Sensors", Some("lobby.js"), body)
}

fn plain(first: &[SensorView]) -> Markup {
    html! {
        p { "Live values need JavaScript. These sensors are known:" }
        ul {
            @for view in first {
                li { a href={ "/sensors/" (view.sensor) } { (view.name.as_deref().unwrap_or(view.sensor.as_str())) } }
            }
        }
    }
}

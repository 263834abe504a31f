//! This browser as a sensor: what it may measure is chosen one by one. `sense.js` lists what this browser can, asks its user
//! through the browser, and sends it over the WebSocket protocol that every device speaks.

use maud::html;
use store::MAX_NAME_CHARS;

use super::layout::Page;
use crate::State;

/// The page.
pub(super) fn page(state: &State) -> Page {
    let body = html! {
        div.page-head {
            h1 { "Use this device as a sensor" }
            span.pill data-role="outlet" data-state="offline" role="status" { "Nothing is sent" }
        }
        p.lead {
            "Choose what it may measure. Nothing is measured before that, your browser asks you once more where it matters, \
             and it ends when you say so or leave this page."
        }
        div.toolbar {
            label.field.grow {
                span { "What it is called" }
                input type="text" data-role="device-name" maxlength=(MAX_NAME_CHARS) autocomplete="off";
            }
            label.field.grow {
                span { "Put it into a room" }
                select data-role="room" { option value="" { "No room" } }
            }
        }
        ul.panel.sources data-role="sources" aria-label="What may be measured" {}
        div.actions.sense-actions {
            button type="button" data-role="stop" hidden { "Stop everything" }
            a.quiet data-role="watch" href="/" { "Open its page" }
            p.hint data-role="counts" {}
        }
        p.notice-line data-role="note" role="status" {}
        div.pad-row {
            div.pad data-role="pad" { span { "Pointer pad" } }
            button.press type="button" data-role="press" { "Button" }
        }
        noscript { p { "Measuring needs JavaScript." } }
    };
    Page::new(state, "This device as a sensor", Some("sense.js"), body)
}

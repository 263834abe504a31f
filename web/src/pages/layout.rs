//! What every page has around its content. No inline script or style: the security policy (`crate::guard`) forbids them.

use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use maud::{DOCTYPE, Markup, html};
use serde_json::json;

use crate::{State, nodes};

/// A page before it is sent.
pub(super) struct Page {
    /// 200, or 404 with a page that says so.
    status: StatusCode,
    /// The browser's title, without the product's name.
    title: String,
    /// The module that makes it live, below `/assets/js/pages/`.
    script: Option<&'static str>,
    /// What stands in `<main>`.
    body: Markup,
    chrome: Chrome,
}

/// What the surroundings need to know of the cluster.
struct Chrome {
    node: String,
    /// JSON: name and address of each node that the page may be on, this one first.
    nodes: String,
}

impl Page {
    /// A page of the node behind `state`.
    pub(super) fn new(
        state: &State,
        title: impl Into<String>,
        script: Option<&'static str>,
        body: Markup,
    ) -> Self {
        let told: Vec<_> = nodes::open(state.nodes())
            .into_iter()
            .map(|node| json!({ "node": node.name.as_str(), "http": node.http }))
            .collect();
        let chrome = Chrome { node: state.store().node().name.to_string(), nodes: json!(told).to_string() };
        Self { status: StatusCode::OK, title: title.into(), script, body, chrome }
    }

    /// The same page, sent with this status.
    pub(super) fn with_status(self, status: StatusCode) -> Self {
        Self { status, ..self }
    }
}

impl IntoResponse for Page {
    fn into_response(self) -> Response {
        let Self { status, title, script, body, chrome } = self;
        let current = |scripts: &[&str]| script.filter(|script| scripts.contains(script)).map(|_| "page");
        let markup = html! {
            (DOCTYPE)
            html lang="en" data-theme="auto" {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    meta name="color-scheme" content="light dark";
                    title { (title) " · Sensorium" }
                    link rel="icon" href="/assets/icon.svg" type="image/svg+xml";
                    link rel="stylesheet" href="/assets/css/app.css";
                    script src="/assets/js/theme.js" {}
                    @if let Some(script) = script {
                        script type="module" src={ "/assets/js/pages/" (script) } {}
                    }
                }
                body data-nodes=(chrome.nodes) {
                    a.skip href="#main" { "Skip to content" }
                    header.bar {
                        a.brand href="/" {
                            img src="/assets/icon.svg" width="26" height="26" alt="";
                            span { "Sensorium" }
                        }
                        nav.bar-nav aria-label="Main" {
                            a.quiet.wide href="/" aria-current=[current(&["lobby.js", "first-run.js"])] { "Lobby" }
                            a.quiet href="/sense" aria-current=[current(&["sense.js"])] { "Sense" }
                            a.quiet href="/cluster" aria-current=[current(&["cluster.js"])] { "Cluster" }
                        }
                        div.bar-end {
                            @if script.is_some() {
                                span.pill data-role="link" data-state="connecting" role="status" title="This page's connection" {
                                    "Connecting…"
                                }
                            }
                            button.quiet type="button" data-role="theme" hidden { "Theme: auto" }
                        }
                    }
                    main #main tabindex="-1" { (body) }
                    footer.foot {
                        span { "Node " strong data-role="node" { (chrome.node) } }
                        a href="/api/v1/node" { "About this node" }
                        a href="/metrics" { "Metrics" }
                    }
                }
            }
        };
        let head = [(CONTENT_TYPE, "text/html; charset=utf-8"), (CACHE_CONTROL, "no-store")];
        (status, head, markup.into_string()).into_response()
    }
}

/// A line to copy; the button is for `copy.js` to show.
pub(super) fn line(command: &str) -> Markup {
    html! {
        div.line {
            pre tabindex="0" { code { (command) } }
            button type="button" data-role="copy" hidden { "Copy" }
        }
    }
}

/// Choices of the charts' window: milliseconds (as in `charts/view.js`) and how people say it.
const WINDOWS: [(u32, &str); 7] = [
    (5_000, "5 s"),
    (10_000, "10 s"),
    (30_000, "30 s"),
    (60_000, "1 min"),
    (300_000, "5 min"),
    (900_000, "15 min"),
    (3_600_000, "1 h"),
];

/// The choice of the charts' window.
pub(super) fn windows() -> Markup {
    html! {
        div.windows role="group" aria-label="Time window" {
            @for (ms, label) in WINDOWS {
                button type="button" data-window=(ms) aria-pressed="false" { (label) }
            }
        }
    }
}

//! A sensor: for each attribute its value, unit, age and state, and a live chart, event list or map. The server renders
//! every part from what the store knows; `sensor.js` keeps it live, and asks for this page again when an attribute is new.

use maud::{Markup, html};
use store::{Attribute, AttributeView, Kind, OwnedValue, SensorView};

use super::layout::{Page, windows};
use crate::State;

/// The page.
pub(super) fn page(state: &State, view: &SensorView) -> Page {
    let id = view.sensor.as_str();
    let name = view.name.as_deref().unwrap_or(id);
    let body = html! {
        nav.crumbs aria-label="Breadcrumb" { a href="/" { "Lobby" } span aria-hidden="true" { "/" } span { (id) } }
        div.page-head data-role="sensor" data-sensor=(id) data-online=(view.online) {
            h1 { (name) }
            span.pill data-role="sensor-state" data-state=(if view.online { "live" } else { "offline" }) {
                (if view.online { "Connected" } else { "Not connected" })
            }
            @if name != id { p.summary { code { (id) } } }
        }
        p.notice data-role="notice" role="status" hidden {}
        div.attributes data-role="attributes" {
            @for (attribute, held) in &view.attributes { (card(id, attribute, held)) }
        }
        @if view.attributes.is_empty() {
            p.empty data-role="empty" {
                "This sensor has said hello but measured nothing yet. Its attributes appear here with their first sample."
            }
        }
        section.ledger aria-label="What became of its samples" {
            h2 { "What became of its samples" }
            ul.facts data-role="ledger" { li.hint { "Loading…" } }
        }
        p.keys {
            "Keys: " kbd { "space" } " pause or go live · on a chart " kbd { "←" } kbd { "→" } " look back, "
            kbd { "+" } kbd { "−" } " change the window, " kbd { "Home" } " oldest, " kbd { "End" } " live."
        }
    };
    Page::new(state, name, Some("sensor.js"), body)
}

/// A number per channel with name and unit; a group of channels of one unit shares a chart.
struct Group<'a> {
    unit: &'a str,
    channels: Vec<usize>,
}

fn groups(view: &AttributeView) -> Vec<Group<'_>> {
    let mut groups: Vec<Group<'_>> = Vec::new();
    for index in 0..view.channels.len() {
        let unit = unit_of(view, index);
        match groups.iter_mut().find(|group| group.unit == unit) {
            Some(group) => group.channels.push(index),
            None => groups.push(Group { unit, channels: vec![index] }),
        }
    }
    groups
}

fn unit_of(view: &AttributeView, channel: usize) -> &str {
    view.units.get(channel).map_or(view.unit.as_str(), String::as_str)
}

fn card(sensor: &str, attribute: &Attribute, view: &AttributeView) -> Markup {
    let last = view.last.as_ref();
    html! {
        @let groups = groups(view);
        article.attribute data-role="attribute" data-charts=(groups.len()) data-attribute=(attribute) data-kind=(view.kind.name())
            data-channels=(view.channels.join(",")) data-rate=[view.rate_hz] data-held=(view.held)
            data-last=[last.map(|(time, _)| time.0 as f64 / 1000.0)] {
            header.attribute-head {
                h2 { (attribute) }
                p.kind { (about(attribute, view)) }
                span.age data-role="age" {}
                span.pill data-role="state" data-state="unknown" { "…" }
            }
            @if view.kind.is_text() {
                (events(last.map(|(_, value)| value)))
            } @else {
                (readings(attribute, view))
                (tools(sensor, attribute))
                @if view.kind == Kind::Geolocation { (map()) }
                @else if view.kind == Kind::Ecg { (ecg(attribute, view)) }
                @else {
                    @for group in &groups { (chart(attribute, group, false, view)) }
                }
            }
        }
    }
}

/// Kind and rate, as far as the name does not say them.
fn about(attribute: &Attribute, view: &AttributeView) -> String {
    let kind = Some(view.kind.name()).filter(|kind| *kind != attribute.as_str()).map(str::to_owned);
    let rate = view.rate_hz.map(|rate| format!("{rate} Hz"));
    [kind, rate].into_iter().flatten().collect::<Vec<_>>().join(" · ")
}

/// The last value of each channel, large, and what it was in the window.
fn readings(attribute: &Attribute, view: &AttributeView) -> Markup {
    let last = match &view.last {
        Some((_, OwnedValue::Numbers(numbers))) => numbers.as_slice(),
        _ => &[],
    };
    html! {
        div.readings data-count=(view.channels.len()) {
            @for (index, name) in view.channels.iter().enumerate() {
                div.reading data-role="reading" data-channel=(index) data-unit=(unit_of(view, index)) {
                    @if view.channels.len() > 1 {
                        button.legend type="button" data-role="legend" data-line=(index % 6 + 1) aria-pressed="true"
                            title={ "Show or hide " (name) } { i.swatch {} (name) }
                    } @else {
                        span.legend data-line="1" { (if name == "value" { attribute.as_str() } else { name }) }
                    }
                    p.big {
                        span.number data-role="value" {
                            @match last.get(index) {
                                Some(value) if !value.is_nan() => (value),
                                _ => "–",
                            }
                        }
                        " " span.unit data-role="unit" { (unit_of(view, index)) }
                    }
                    p.stats data-role="stats" {}
                }
            }
        }
    }
}

/// Window, pause and downloads.
fn tools(sensor: &str, attribute: &Attribute) -> Markup {
    html! {
        div.tools {
            button.play type="button" data-role="play" data-state="live" { "Live" }
            (windows())
            span.grow {}
            span.note data-role="note" {}
            span.note data-role="latency" title="From when the device measured to when this page had it: half of the samples came faster" {}
            button.quiet type="button" data-role="png" title="What the charts show now, as a picture" { "PNG" }
            a.quiet href={ "/api/v1/sensors/" (sensor) "/" (attribute) "/samples?limit=100000" } data-role="csv"
                download={ (sensor) "_" (attribute) ".csv" } { "CSV" }
        }
    }
}

fn chart(attribute: &Attribute, group: &Group<'_>, paper: bool, view: &AttributeView) -> Markup {
    let channels: Vec<_> = group.channels.iter().map(ToString::to_string).collect();
    let label = if view.channels.len() > group.channels.len() {
        let names: Vec<_> = group.channels.iter().map(|index| view.channels[*index].as_str()).collect();
        format!("{attribute} {}", names.join(", "))
    } else {
        attribute.to_string()
    };
    html! {
        div.chart data-role="chart" data-channels=(channels.join(",")) data-paper=(paper) data-lanes=(if paper { channels.len() } else { 1 })
            tabindex="0" role="group" aria-label={ "Chart of " (label) } aria-keyshortcuts="Space ArrowLeft ArrowRight + - Home End" {
            @if !group.unit.is_empty() {
                span.axis-unit aria-hidden="true" data-unit=(group.unit) data-role="axis-unit" { (group.unit) }
            }
            canvas aria-hidden="true" {}
            p.sr-only data-role="words" aria-live="polite" {}
            button.chart-empty type="button" data-role="jump" hidden {}
        }
    }
}

/// Paper at 25 mm/s and 10 mm/mV, a lane per lead.
fn ecg(attribute: &Attribute, view: &AttributeView) -> Markup {
    let all = Group { unit: unit_of(view, 0), channels: (0..view.channels.len()).collect() };
    html! {
        (chart(attribute, &all, true, view))
        p.disclaimer { span data-role="paper" { "25 mm/s · 10 mm/mV · " } strong { "Not for diagnosis" } }
    }
}

/// The trail in metres, and the coordinates as text.
fn map() -> Markup {
    html! {
        div.map data-role="map" {
            canvas aria-hidden="true" {}
            p.words data-role="words" aria-live="polite" { "No position yet." }
        }
    }
}

/// Texts, the newest first.
fn events(last: Option<&OwnedValue>) -> Markup {
    html! {
        ol.events data-role="events" aria-live="polite" aria-label="Newest first" {
            @if let Some(OwnedValue::Text(text)) = last { li { (text) } }
        }
    }
}

//! What a node shows before its first sensor: how to stream one, with lines to copy that hold this node's own
//! addresses. `first-run.js` turns the page into the lobby as soon as a sensor appears.

use maud::{Markup, html};

use super::layout::{Page, line};
use crate::State;
use crate::nodes::socket_base;

/// The sensor that the lines make.
const SENSOR: &str = "my-first";

/// The page.
pub(super) fn page(state: &State) -> Page {
    let http = &state.addresses().http;
    let socket = socket_base(http);
    let body = html! {
        section.welcome {
            p.eyebrow { "This node is ready" }
            h1 { "Stream your first sensor" }
            p.lead {
                "Run any of these in a terminal. No registration is needed: a sensor appears by itself, and this page \
                 turns into the live view as soon as the first sample arrives."
            }
            ol.ways {
                (way(1, "A whole house of simulated sensors", "From this project's folder: wearables, rooms and machines with plausible signals.",
                    &format!("cargo run --release -p firmware-sim -- run --sensors 10 --url {socket}")))
                @if let Some((host, port)) = state.addresses().mqtt.as_deref().and_then(host_and_port) {
                    (way(2, "One value over MQTT", "Any MQTT 3.1.1 or 5 client will do; this one is in the package mosquitto-clients.",
                        &format!("mosquitto_pub -h {host} -p {port} -q 1 -t sensors/{SENSOR}/temperature -m 21.5")))
                }
                (way(3, "A stream over WebSocket", "Lines of JSON; the node answers each with an acknowledgement once it is kept on disk.",
                    &format!("printf '%s\\n' '{{\"type\":\"hello\",\"sensor\":\"{SENSOR}\"}}' '{{\"type\":\"samples\",\"seq\":1,\"samples\":[{{\"attribute\":\"temperature\",\"value\":21.5}}]}}' | websocat --no-close {socket}/api/v1/ingest/ws")))
            }
            h2 { "Then read it back" }
            (line(&format!("curl '{http}/api/v1/sensors/{SENSOR}/temperature/samples?limit=10'")))
            p.waiting role="status" data-role="waiting" { "Waiting for the first sample…" }
        }
    };
    Page::new(state, "Welcome", Some("first-run.js"), body)
}

/// One way to stream, with its line.
fn way(number: u8, title: &str, hint: &str, command: &str) -> Markup {
    html! {
        li value=(number) {
            h2 { (title) }
            p.hint { (hint) }
            (line(command))
        }
    }
}

/// Host and port of an address such as `mqtt://127.0.0.1:1883` or `mqtts://[::1]:8883`.
fn host_and_port(url: &str) -> Option<(&str, &str)> {
    let (_, rest) = url.split_once("://")?;
    let (host, port) = rest.trim_end_matches('/').rsplit_once(':')?;
    Some((host.trim_start_matches('[').trim_end_matches(']'), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mqtt_address_is_told_in_parts() {
        assert_eq!(host_and_port("mqtt://127.0.0.1:1883"), Some(("127.0.0.1", "1883")));
        assert_eq!(host_and_port("mqtts://[::1]:8883/"), Some(("::1", "8883")));
        assert_eq!(host_and_port("nonsense"), None);
    }
}

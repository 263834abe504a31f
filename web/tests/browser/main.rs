//! The pages in a real browser, against the real program: what a person would see, click and type.
//!
//! Pictures of every page are left in `target/screenshots`.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod chromium;
mod cluster;
mod lobby;
mod node;
mod pair;
mod rooms;
mod sense;
mod tiles;
mod trio;

use chromium::Chromium;
use node::{Device, Node, now_ms};
use serde_json::{Value, json};
use store::{SampleTime, Values};

/// Samples of one frame of the test's ECG, and their distance.
const FRAME: usize = 25;
const INTERVAL_MS: u64 = 4;

/// A browser, a data directory and a node on it; or `return` where there is no browser.
macro_rules! stage {
    ($browser:ident, $node:ident, $data:ident) => {
        let Some($browser) = Chromium::start().await else { return };
        let $data = tempfile::tempdir().unwrap();
        let $node = Node::start($data.path()).await;
    };
}

#[tokio::test]
async fn the_first_run_page_becomes_the_lobby_when_a_sensor_streams() {
    stage!(browser, node, data);
    browser.page.goto(&node.page("/")).await.unwrap();
    browser.until("document.querySelector('h1').textContent === 'Stream your first sensor'").await;
    browser.until("document.querySelector('[data-role=link]').textContent === 'Live'").await;
    let lines = browser
        .run("return [...document.querySelectorAll('pre')].map((pre) => pre.textContent).join('\\n')")
        .await;
    let lines = lines.as_str().unwrap();
    for part in [
        format!("curl 'http://{}/api/v1/sensors/my-first/temperature/samples?limit=10'", node.http),
        format!("ws://{}/api/v1/ingest/ws", node.http),
        "mosquitto_pub -h 127.0.0.1 -p ".to_owned(),
        "firmware-sim -- run".to_owned(),
    ] {
        assert!(lines.contains(&part), "{part} is not in {lines}");
    }
    browser.picture("first-run").await;
    browser.run("document.querySelector('[data-role=copy]').click()").await;
    browser
        .until("['Copied', 'Selected'].includes(document.querySelector('[data-role=copy]').textContent)")
        .await;

    let mut device = Device::connect(&node, json!({ "type": "hello", "sensor": "my-first" })).await;
    device.measure("temperature", json!(21.5)).await;
    browser
        .until("document.querySelector('[data-sensor=my-first] [data-role=value]').textContent === '21.5'")
        .await;
    browser.assert_no_errors(&[]).await;
}

#[tokio::test]
async fn the_lobby_is_live_and_is_searched_by_keyboard() {
    stage!(browser, node, data);
    let mut strap = Device::connect(&node, strap_hello()).await;
    let mut room =
        Device::connect(&node, json!({ "type": "hello", "sensor": "room-1", "name": "Kitchen" })).await;
    strap.send(ecg(now_ms() - 2000, 0, 500)).await;
    strap.measure("heartrate", json!(72)).await;
    room.measure("temperature", json!(20.25)).await;
    room.measure("door", json!("closed")).await;

    browser.page.goto(&node.page("/")).await.unwrap();
    let value = |sensor: &str, attribute: &str| {
        format!(
            "document.querySelector('[data-sensor={sensor}] [data-attribute={attribute}] [data-role=value]').textContent"
        )
    };
    browser.until(&format!("{} === '20.25'", value("room-1", "temperature"))).await;
    browser.until(&format!("{} === '72'", value("strap-7", "heartrate"))).await;
    browser.until(&format!("{} === 'closed'", value("room-1", "door"))).await;
    room.measure("temperature", json!(20.5)).await;
    browser.until(&format!("{} === '20.50'", value("room-1", "temperature"))).await;
    let row = "document.querySelector('[data-sensor=room-1] [data-attribute=temperature]')";
    browser.until(&format!("{row}.querySelector('[data-role=unit]').textContent === '°C'")).await;
    browser
        .until(&format!(
            "/^(now|\\d+ (s|min) ago)$/.test({row}.querySelector('[data-role=age]').textContent)"
        ))
        .await;
    // Both send until the page has said that both are live.
    let live = "document.querySelector('[data-sensor=room-1] [data-role=state]').textContent === 'Live' &&
         document.querySelector('[data-role=summary]').textContent.startsWith('2 sensors: 2 live')";
    let stream = async {
        loop {
            strap.measure("heartrate", json!(72)).await;
            room.measure("temperature", json!(20.5)).await;
        }
    };
    tokio::select! {
        () = browser.until(live) => {}
        () = stream => {}
    }
    // Nothing comes any more: the same card says so by itself.
    browser
        .until("document.querySelector('[data-sensor=room-1] [data-role=state]').textContent === 'Stale'")
        .await;

    // A sensor that appears later needs no reload.
    let mut late = Device::connect(&node, json!({ "type": "hello", "sensor": "late-1" })).await;
    late.measure("humidity", json!(40)).await;
    browser.until(&format!("{} === '40'", value("late-1", "humidity"))).await;

    let body = browser.page.find(fantoccini::Locator::Css("body")).await.unwrap();
    body.send_keys("/").await.unwrap();
    let focused = browser.page.active_element().await.unwrap();
    focused.send_keys("kitch").await.unwrap();
    let names = "[...document.querySelectorAll('.card')].map((card) => card.dataset.sensor).join()";
    browser.until(&format!("{names} === 'room-1'")).await;
    focused.send_keys("en nothing").await.unwrap();
    browser
        .until("document.querySelector('[data-role=notice]').textContent.includes('No sensor matches')")
        .await;
    focused.send_keys("\u{e00c}").await.unwrap();
    browser
        .until(&format!(
            "{names} === 'strap-7,room-1,late-1'.split(',').sort().join() || {names}.split(',').length === 3"
        ))
        .await;
    browser.run("const kind = document.querySelector('[data-role=kind]'); kind.value = 'ecg'; kind.dispatchEvent(new Event('change'))").await;
    browser.until(&format!("{names} === 'strap-7'")).await;
    browser.assert_no_errors(&[]).await;
}

/// The chart holds each sample once, with its exact time and value, through the death and return of the node.
#[tokio::test]
async fn the_chart_misses_and_doubles_nothing_when_the_node_is_killed() {
    stage!(browser, node, data);
    let mut node = node;
    let first = now_ms() - 20_000;
    let mut device = Device::connect(&node, strap_hello()).await;
    device.send(ecg(first, 0, 10)).await;
    browser.page.goto(&node.page("/sensors/strap-7")).await.unwrap();
    let link = "document.querySelector('[data-role=link]').textContent";
    browser.until(&format!("{link} === 'Live'")).await;
    let mut sent = 10;
    for _ in 0..40 {
        device.send(ecg(first, sent, FRAME)).await;
        sent += FRAME;
    }
    browser.until(&format!("sensorium.series('strap-7/ecg').length === {sent}")).await;
    assert_held(&browser, first, sent).await;

    node.kill();
    browser.until(&format!("{link} === 'Reconnecting to node test-node…'")).await;
    browser.picture("sensor-reconnecting").await;
    node = Node::start_at(data.path(), &node.http).await;
    // The page may be back before or after the device: what it missed comes either way.
    let mut device = Device::connect(&node, strap_hello()).await;
    device.send(ecg(first, sent - FRAME, FRAME)).await;
    for _ in 0..10 {
        device.send(ecg(first, sent, FRAME)).await;
        sent += FRAME;
    }
    browser.until(&format!("{link} === 'Live'")).await;
    for _ in 0..10 {
        device.send(ecg(first, sent, FRAME)).await;
        sent += FRAME;
    }
    browser.until(&format!("sensorium.series('strap-7/ecg').length === {sent}")).await;
    assert_held(&browser, first, sent).await;
    browser
        .assert_no_errors(&[
            "WebSocket",
            "ERR_CONNECTION_REFUSED",
            "ERR_CONNECTION_RESET",
            "ERR_EMPTY_RESPONSE",
        ])
        .await;
}

#[tokio::test]
async fn a_chart_is_paused_moved_and_zoomed_by_keyboard() {
    stage!(browser, node, data);
    let mut device = Device::connect(&node, strap_hello()).await;
    device.send(ecg(now_ms() - 12_000, 0, 3000)).await;
    browser.page.goto(&node.page("/sensors/strap-7")).await.unwrap();
    browser.until("sensorium.series('strap-7/ecg').length === 3000").await;
    let play = "document.querySelector('[data-attribute=ecg] [data-role=play]').textContent";
    let view = "sensorium.cards.get('ecg').view";
    let chart =
        browser.page.find(fantoccini::Locator::Css("[data-attribute=ecg] [data-role=chart]")).await.unwrap();
    chart.send_keys(" ").await.unwrap();
    browser.until(&format!("{play} === 'Paused'")).await;
    let before = browser.run(&format!("return {view}.right")).await.as_f64().unwrap();
    chart.send_keys("\u{e012}").await.unwrap();
    browser.until(&format!("{view}.right === {before} - {view}.windowMs / 10")).await;
    chart.send_keys("-").await.unwrap();
    browser.until(&format!("{view}.windowMs === 30000")).await;
    browser.until("document.querySelector('[data-attribute=ecg] [data-window=\"30000\"]').getAttribute('aria-pressed') === 'true'").await;
    chart.send_keys("+").await.unwrap();
    chart.send_keys("\u{e010}").await.unwrap();
    browser.until(&format!("{play} === 'Live' && {view}.windowMs === 10000")).await;
    // The mouse drags the past into view: from what it showed when the button went down.
    browser
        .run(&format!(
            "addEventListener('pointerdown', () => {{ window.pressed = {view}.right; }}, {{ capture: true }})"
        ))
        .await;
    let place = browser.run("const box = document.querySelector('[data-attribute=ecg] canvas').getBoundingClientRect(); return [box.x + 200, box.y + 50]").await;
    let (x, y) = (place[0].as_f64().unwrap(), place[1].as_f64().unwrap());
    for (kind, x) in [
        ("mousePressed", x),
        ("mouseMoved", x + 100.0),
        ("mouseMoved", x + 300.0),
        ("mouseReleased", x + 300.0),
    ] {
        let event = json!({ "type": kind, "x": x, "y": y, "button": "left", "buttons": 1, "clickCount": 1 });
        browser.devtools("Input.dispatchMouseEvent", event).await;
    }
    browser.until(&format!("{play} === 'Paused' && {view}.right < window.pressed - 1500")).await;
    browser.run("document.querySelector('[data-attribute=ecg] [data-role=play]').click()").await;
    browser.until(&format!("{play} === 'Live'")).await;
    // Anywhere on the page, space pauses all charts.
    browser.page.find(fantoccini::Locator::Css("body")).await.unwrap().send_keys(" ").await.unwrap();
    browser.until(&format!("{play} === 'Paused'")).await;
    // What the chart shows is also there in words.
    let words = "document.querySelector('[data-attribute=ecg] [data-role=words]').textContent";
    browser
        .until(&format!("/^ecg is (Live|Delayed|Stale), (live|paused), window .+\\. ecg /.test({words})"))
        .await;
    browser.assert_no_errors(&[]).await;
}

/// What lies before the samples that the page began with is fetched, thinned, when someone looks there.
#[tokio::test]
async fn a_long_window_is_filled_from_the_ring() {
    const SAMPLES: usize = 30_000;
    stage!(browser, node, data);
    let first = now_ms() - SAMPLES as u64 * INTERVAL_MS;
    let mut device = Device::connect(&node, strap_hello()).await;
    for from in (0..SAMPLES).step_by(5000) {
        device.send(ecg(first, from, 5000)).await;
    }
    browser.page.goto(&node.page("/sensors/strap-7")).await.unwrap();
    browser.until("sensorium.series('strap-7/ecg').length === 20000").await;
    browser.run("document.querySelector('[data-attribute=ecg] [data-window=\"300000\"]').click()").await;
    let history = "sensorium.cards.get('ecg').history";
    browser.until(&format!("{history}.length > 500 && {history}.length <= 2000")).await;
    // It begins where the ring does, and ends where the samples of the page begin.
    browser.until(&format!("{history}.oldest - {first} < 1000")).await;
    browser.until(&format!("sensorium.series('strap-7/ecg').oldest - {history}.newest < 1000")).await;
    // Thinned by extremes: the peaks of the beats are all there.
    browser.until(&format!("Math.max(...{history}.columns[0].subarray(0, {history}.length)) > 1")).await;
    browser.assert_no_errors(&[]).await;
}

#[tokio::test]
async fn an_attribute_that_is_new_gets_a_card_and_texts_are_listed() {
    stage!(browser, node, data);
    let mut device = Device::connect(&node, strap_hello()).await;
    device.measure("heartrate", json!(70)).await;
    browser.page.goto(&node.page("/sensors/strap-7")).await.unwrap();
    browser
        .until("document.querySelector('[data-attribute=heartrate] [data-role=value]').textContent === '70'")
        .await;
    device.measure("button", json!("<b>pressed</b>")).await;
    browser
        .until("document.querySelector('[data-attribute=button] li').textContent.endsWith('<b>pressed</b>')")
        .await;
    browser.run(
        "URL.createObjectURL = (blob) => { blob.text().then((text) => { window.saved = text; }); return '#saved'; };
         document.querySelector('[data-attribute=heartrate] [data-role=csv]').click()",
    ).await;
    browser.until("/^ts,\\w+\\r?\\n\\d+(\\.\\d+)?,70\\r?\\n$/.test(window.saved)").await;
    // The chart as a picture: its first bytes are those of a PNG.
    browser.run(
        "URL.createObjectURL = (blob) => { blob.arrayBuffer().then((bytes) => { window.png = [...new Uint8Array(bytes).subarray(0, 8)]; }); return '#saved'; };
         document.querySelector('[data-attribute=heartrate] [data-role=png]').click()",
    ).await;
    browser.until("window.png?.join() === '137,80,78,71,13,10,26,10'").await;
    // What became of the samples, in words.
    let ledger = "document.querySelector('[data-role=ledger]').textContent";
    browser.until(&format!("{ledger}.startsWith('2 samples were received; 2 of them stored.')")).await;
    let again = json!({ "attribute": "heartrate", "ts": now_ms() - 60_000, "interval_ms": 1000, "values": [64, 65, 66] });
    device.send(again.clone()).await;
    device.send(again).await;
    browser.until(&format!("{ledger}.includes('3 were sent again and already there')")).await;
    // What comes from a minute ago is shaded, and the chart says why; however long that takes, an hour has it. A page that
    // has just turned to its node again cannot tell what is late, so it comes until the page has seen it.
    browser.click("[data-attribute=heartrate] [data-window=\"3600000\"]").await;
    let first = now_ms() - 60_000;
    let late = async {
        for round in 0_u64.. {
            let values = [round % 100, round % 100 + 1, round % 100 + 2];
            let frame =
                json!({ "attribute": "heartrate", "ts": first, "interval_ms": 1000, "values": values });
            device.send(frame).await;
        }
    };
    let filled = "sensorium.series('strap-7/heartrate').filled";
    let shaded = format!(
        "document.querySelector('[data-attribute=heartrate] [data-role=note]').textContent === 'Shaded: came afterwards.' &&
         {filled}.length === 1 && {filled}[0].to - {filled}[0].from === 2000"
    );
    tokio::select! {
        () = browser.until(&shaded) => {}
        () = late => {}
    }
    // Of what comes as it is measured the page says how long it took. Another connection: the one before was cut short.
    let mut device = Device::connect(&node, strap_hello()).await;
    let fresh = async {
        for beat in 0_u64.. {
            device.measure("heartrate", json!(60 + beat % 40)).await;
        }
    };
    let told = "/^\\d+ ms from the device$/.test(document.querySelector('[data-attribute=heartrate] [data-role=latency]').textContent)";
    tokio::select! {
        () = browser.until(told) => {}
        () = fresh => {}
    }
    let mut device = Device::connect(&node, strap_hello()).await;
    device.measure("geolocation", json!([52.5, 13.25, 5, null, 1.5, 90])).await;
    browser.until("document.querySelector('[data-attribute=geolocation] .words').textContent.includes('Latitude 52.500000°, longitude 13.250000°')").await;
    browser.assert_no_errors(&[]).await;
}

#[tokio::test]
async fn pages_drop_what_was_cleared_and_draw_what_comes_afterwards() {
    stage!(browser, node, data);
    let mut device = Device::connect(&node, strap_hello()).await;
    let mut other = Device::connect(&node, json!({ "type": "hello", "sensor": "room-1" })).await;
    other.measure("temperature", json!(20.5)).await;
    let clear = "fetch('/api/v1/sensors/strap-7', { method: 'DELETE' }).then((answer) => { window.cleared = answer.status; })";
    let names = "[...document.querySelectorAll('.card')].map((card) => card.dataset.sensor).sort().join()";
    let attributes = "[...document.querySelectorAll('[data-role=attribute]')].map((card) => card.dataset.attribute).join()";
    let value = "document.querySelector('[data-attribute=heartrate] [data-role=value]').textContent";

    device.measure("heartrate", json!(70)).await;
    browser.page.goto(&node.page("/")).await.unwrap();
    browser.until(&format!("{names} === 'room-1,strap-7' && {value} === '70'")).await;
    browser.run(clear).await;
    browser.until(&format!("window.cleared === 204 && {names} === 'room-1'")).await;
    device.measure("heartrate", json!(71)).await;
    browser.until(&format!("{names} === 'room-1,strap-7' && {value} === '71'")).await;

    browser.page.goto(&node.page("/sensors/strap-7")).await.unwrap();
    browser.until(&format!("{attributes}.includes('heartrate') && {value} === '71'")).await;
    let link = "document.querySelector('[data-role=link]').textContent";
    browser.until(&format!("{link} === 'Live'")).await;
    browser.run(clear).await;
    let notice = "document.querySelector('[data-role=notice]')";
    browser
        .until(&format!(
            "window.cleared === 204 && {attributes} === '' && {notice}.textContent.startsWith('This sensor was cleared.')"
        ))
        .await;
    device.measure("heartrate", json!(72)).await;
    browser.until(&format!("{attributes} === 'heartrate' && {value} === '72' && {notice}.hidden")).await;
    browser.until("window.sensorium.series('strap-7/heartrate').length === 1").await;
    browser.assert_no_errors(&["404 (Not Found)"]).await;
}

#[tokio::test]
async fn what_is_not_there_has_a_page_that_says_so() {
    stage!(browser, node, data);
    for (path, title) in
        [("/nonsense", "There is no page here"), ("/sensors/ghost-1", "This sensor is not known")]
    {
        browser.page.goto(&node.page(path)).await.unwrap();
        browser.until(&format!("document.querySelector('h1').textContent === '{title}'")).await;
        let status = browser.run("return performance.getEntriesByType('navigation')[0].responseStatus").await;
        assert_eq!(status, 404, "{path}");
    }
    browser.picture("not-found").await;
    browser.assert_no_errors(&["404 (Not Found)"]).await;
}

#[tokio::test]
async fn a_thousand_sensors_cost_only_those_in_sight() {
    const SENSORS: usize = 1000;
    stage!(browser, node, data);
    let mut gateway = Device::connect(&node, json!({ "type": "hello", "sensor": "probe-0000" })).await;
    let samples = |value: f64| {
        let samples: Vec<_> = (0..SENSORS)
            .map(|i| json!({ "sensor": format!("probe-{i:04}"), "attribute": "temperature", "ts": now_ms(), "value": value }))
            .collect();
        json!({ "samples": samples })
    };
    gateway.send(samples(20.5)).await;
    browser.page.goto(&node.page("/")).await.unwrap();
    browser.until(&format!("sensorium.cards.size === {SENSORS}")).await;
    browser
        .until("document.querySelector('[data-sensor=probe-0000] [data-role=value]').textContent === '20.5'")
        .await;
    let watched = browser.run("return sensorium.live.watches.size").await.as_u64().unwrap();
    assert!((1..100).contains(&watched), "{watched} sensors are watched");
    let cards = browser.run("return document.querySelectorAll('.card').length").await.as_u64().unwrap();
    assert!((1..100).contains(&cards), "{cards} cards are there");
    browser.run("scrollTo(0, document.documentElement.scrollHeight)").await;
    gateway.send(samples(21.5)).await;
    browser
        .until("document.querySelector('[data-sensor=probe-0999] [data-role=value]').textContent === '21.5'")
        .await;
    // Those who cannot see where they are in the list are told.
    let last = "document.querySelector('[data-sensor=probe-0999]')";
    browser
        .until(&format!("{last}.ariaPosInSet === '{SENSORS}' && {last}.ariaSetSize === '{SENSORS}'"))
        .await;
    // Those left behind are let go.
    browser
        .until("sensorium.live.watches.size < 100 && !document.querySelector('[data-sensor=probe-0000]')")
        .await;
    if chromium::is_long_run() {
        let slowest = browser.run_async(FRAME_TIMES).await.as_f64().unwrap();
        assert!(slowest < 250.0, "a frame took {slowest} ms while scrolling");
    }
    browser.assert_no_errors(&[]).await;
}

/// Scrolls through the whole lobby and tells the 95th percentile of the frame times.
const FRAME_TIMES: &str = "
    const done = arguments[arguments.length - 1];
    const times = [];
    let last = performance.now();
    const step = (now) => {
      times.push(now - last);
      last = now;
      scrollBy(0, -400);
      if (times.length < 90) requestAnimationFrame(step);
      else done(times.sort((a, b) => a - b)[Math.floor(times.length * 0.95)]);
    };
    requestAnimationFrame(step);";

#[tokio::test]
async fn pages_are_legible_in_dark_and_light_and_on_a_phone() {
    stage!(browser, node, data);
    let mut device = Device::connect(&node, strap_hello()).await;
    device.send(ecg(now_ms() - 12_000, 0, 3000)).await;
    for step in 0..60 {
        let ts = now_ms() - 60_000 + step * 1000;
        let walk = step as f64;
        device
            .send(json!({ "samples": [
                { "attribute": "heartrate", "ts": ts, "value": 70 + step % 7 },
                { "attribute": "imu", "ts": ts, "value": [0.1, 9.8, (walk / 5.0).sin(), 0.01, 0, 0, 20, 0, 40] },
                { "attribute": "geolocation", "ts": ts, "value": [52.5 + walk * 1e-5, 13.4 + (walk / 9.0).sin() * 2e-4, 6, 34, 1.4, 80] },
                { "attribute": "battery", "ts": ts, "value": [87, 0, 3.9] },
                { "attribute": "button", "ts": ts, "value": "pressed" },
            ] }))
            .await;
    }
    browser.page.goto(&node.page("/cluster")).await.unwrap();
    let lab = json!({ "name": "Lab with a name that is long", "sensors": ["strap-7"] });
    let room = rooms::call(&browser, "POST", "rooms", lab).await;
    let room = format!("/rooms/{}", room["room"].as_str().unwrap());
    browser.run("localStorage.setItem('sensorium.name', 'Ana')").await;
    for (page, path, ready) in [
        (
            "room",
            &*room,
            "sensorium.series('strap-7/ecg').length > 500 && document.querySelector('[data-person]')",
        ),
        ("sense", "/sense", "document.querySelector('[data-source=pointer]')"),
        ("lobby", "/", "document.querySelector('[data-attribute=imu] [data-role=value]').textContent !== ''"),
        ("sensor", "/sensors/strap-7", "sensorium.series('strap-7/ecg').length === 3000"),
        ("alone", "/cluster", "document.querySelector('[data-node] .badge:not([hidden])')"),
        ("missing", "/nonsense", "document.querySelector('h1')"),
    ] {
        assert_legible(&browser, page, &node.page(path), ready).await;
    }
    browser.assert_no_errors(&["404 (Not Found)"]).await;
}

/// The page fits and has enough contrast, wide and on a phone, light and dark; keeps a picture of each.
async fn assert_legible(browser: &Chromium, page: &str, url: &str, ready: &str) {
    browser.page.goto(url).await.unwrap();
    for (device_name, width, height) in [("wide", 1440, 900), ("phone", 390, 844), ("small", 360, 740)] {
        browser.resize(width, height).await;
        for theme in ["light", "dark"] {
            browser.until(ready).await;
            browser
                .until(&format!(
                    "document.documentElement.dataset.theme === '{theme}' || document.querySelector('[data-role=theme]').click()"
                ))
                .await;
            browser.until("document.querySelector('[data-role=link]')?.textContent !== 'Connecting…'").await;
            browser.run_async(NEXT_FRAMES).await;
            let overflow = browser.run("return document.documentElement.scrollWidth - innerWidth").await;
            assert!(overflow.as_i64() <= Some(0), "{page} on a {device_name} is {overflow} px too wide");
            let faint = browser.run(include_str!("faint.js")).await;
            assert_eq!(faint, json!([]), "{page} {device_name} {theme}");
            browser.picture(&format!("{page}-{device_name}-{theme}")).await;
        }
    }
}

/// Lets charts draw.
const NEXT_FRAMES: &str = "
    const done = arguments[arguments.length - 1];
    let left = 8;
    const step = () => (left-- ? requestAnimationFrame(step) : done(true));
    step();";

/// The parts of the page, each against a plain model of itself; and what the longest chart costs.
#[tokio::test]
async fn the_parts_of_the_page_do_what_they_say() {
    stage!(browser, node, data);
    browser.page.goto(&node.page("/nonsense")).await.unwrap();
    let result = browser.run_async(include_str!("units.js")).await;
    assert_eq!(result["failures"], json!([]));
    println!("an hour of two leads at 360 Hz: {} (milliseconds a drawing)", result["hour"]);
    // Generous on purpose: going through all samples each time would take far longer than this.
    assert!(!chromium::is_long_run() || result["hour"]["next"].as_f64() < Some(60.0), "{}", result["hour"]);
}

/// Everything that pages may ever load, as it is sent, compressed.
#[tokio::test]
async fn all_assets_are_small() {
    const MOST: u64 = 80_000;
    stage!(browser, node, data);
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("ui");
    let mut paths = Vec::new();
    let mut folders = vec![folder.clone()];
    while let Some(one) = folders.pop() {
        for entry in std::fs::read_dir(one).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() {
                folders.push(entry);
            } else {
                paths.push(format!("/assets/{}", entry.strip_prefix(&folder).unwrap().display()));
            }
        }
    }
    assert!(paths.len() > 20, "{paths:?}");
    browser.page.goto(&node.page("/nonsense")).await.unwrap();
    let script = format!(
        "const done = arguments[arguments.length - 1];
         const size = async (path) => {{
           const {{ body, ok }} = await fetch(path);
           if (!ok) throw new Error(path);
           const packed = body.pipeThrough(new CompressionStream('gzip'));
           return (await new Response(packed).arrayBuffer()).byteLength;
         }};
         Promise.all({}.map(size)).then((sizes) => done(sizes.reduce((a, b) => a + b)), (error) => done(error.message));",
        json!(paths)
    );
    let size = browser.run_async(&script).await;
    println!("{} files, compressed one by one: {size} bytes", paths.len());
    assert!(size.as_u64().is_some_and(|size| size <= MOST), "{size}");
}

/// The page's decoder reads what the node's encoder writes, and refuses what is broken.
#[tokio::test]
async fn the_page_decodes_the_binary_frames_of_the_node() {
    stage!(browser, node, data);
    let base = 1_763_661_600_000_123_i64;
    let times: Vec<_> = [0, 4000, 9001].map(|after| SampleTime(base + after)).into();
    let values = Values::Numbers { channels: 2, flat: vec![0.5, -1.25, f64::NAN, 3.0, 1e9, 0.1] };
    let frames = web::live::frame::binary(7, &times, &values);
    browser.page.goto(&node.page("/nonsense")).await.unwrap();
    let decode = |bytes: &[u8]| {
        format!(
            "const done = arguments[arguments.length - 1];
             import('/assets/js/wire.js').then(({{ decode }}) => {{
               const {{ ref, channels, times, flat }} = decode(new Uint8Array({bytes:?}).buffer);
               done({{ ref, channels, times: [...times], flat: [...flat].map((v) => (Number.isNaN(v) ? null : v)) }});
             }}).catch((error) => done(error.message));"
        )
    };
    let decoded = browser.run_async(&decode(&frames[0])).await;
    assert_eq!(
        decoded,
        json!({ "ref": 7, "channels": 2, "times": [1_763_661_600_000.123, 1_763_661_600_004.123, 1_763_661_600_009.124],
                "flat": [0.5, -1.25, null, 3, 1_000_000_000, f64::from(0.1_f32)] })
    );
    let cut = &frames[0][..frames[0].len() - 1];
    let mut newer = frames[0].to_vec();
    newer[0] = 2;
    let mut wide = frames[0].to_vec();
    wide[1] = 17;
    for (bytes, reason) in [
        (cut, "a frame of 60 bytes came with 59"),
        (&newer[..], "frame layout 2 is not known; reload the page"),
        (&wide[..], "a frame cannot have 17 channels"),
        (&frames[0][..5], "a frame of 5 bytes has no header"),
    ] {
        assert_eq!(browser.run_async(&decode(bytes)).await, json!(reason));
    }
}

fn strap_hello() -> Value {
    json!({ "type": "hello", "sensor": "strap-7", "name": "Chest strap", "attributes": {
        "ecg": { "kind": "ecg", "rate_hz": 250, "keep": 40000 },
        "heartrate": { "kind": "heartrate", "rate_hz": 1 },
    } })
}

/// Sample `index` of the test's ECG: a beat a second, in steps that a 32-bit float holds exactly.
fn beat(index: usize) -> f64 {
    let phase = (index % 250) as f64 / 250.0;
    let wave = |at: f64, width: f64, height: f64| height * (-((phase - at) / width).powi(2)).exp();
    let mv = wave(0.2, 0.03, 0.12) - wave(0.36, 0.008, 0.15) + wave(0.385, 0.011, 1.1)
        - wave(0.41, 0.009, 0.25)
        + wave(0.62, 0.05, 0.3);
    (mv * 1024.0).round() / 1024.0
}

/// A frame of `count` samples from number `from` on; number 0 was measured at `first`.
fn ecg(first: u64, from: usize, count: usize) -> Value {
    let values: Vec<_> = (from..from + count).map(beat).collect();
    json!({ "attribute": "ecg", "ts": first + from as u64 * INTERVAL_MS, "interval_ms": INTERVAL_MS, "values": values })
}

/// The page holds samples 0..count, each once, with time and value.
async fn assert_held(browser: &Chromium, first: u64, count: usize) {
    let held = browser
        .run(
            "const { times, columns, length } = sensorium.series('strap-7/ecg');
             return [[...times.subarray(0, length)], [...columns[0].subarray(0, length)]];",
        )
        .await;
    let times: Vec<f64> = serde_json::from_value(held[0].clone()).unwrap();
    let values: Vec<f64> = serde_json::from_value(held[1].clone()).unwrap();
    let due: Vec<f64> = (0..count).map(|i| (first + i as u64 * INTERVAL_MS) as f64).collect();
    assert_eq!(times, due);
    assert_eq!(values, (0..count).map(beat).collect::<Vec<_>>());
}

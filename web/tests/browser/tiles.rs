//! The tiles of a room: what each kind shows, one window and one cursor for all, limits, the room's sensors, its invitation
//! and its call; by mouse and by keyboard.

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::chromium::Chromium;
use crate::node::{Device, Node, now_ms};
use crate::rooms::{call, say_name};

/// The tile of a series.
fn tile(series: &str) -> String {
    let (sensor, attribute) = series.split_once('/').expect("sensor/attribute");
    format!("document.querySelector('[data-role=tile][data-sensor={sensor}][data-attribute={attribute}]')")
}

fn said(series: &str, role: &str) -> String {
    format!("{}?.querySelector('[data-role={role}]')?.textContent", tile(series))
}

/// A node with two sensors in a room, and a third beside it; the browser is in the room as Ana.
struct Scene {
    browser: Chromium,
    node: Node,
    strap: Device,
    hall: Device,
    room: String,
    /// When the first sample of each second was measured.
    first: u64,
    _data: tempfile::TempDir,
}

/// Seconds of samples that a scene begins with.
const SECONDS: u64 = 20;

impl Scene {
    async fn begin() -> Option<Self> {
        let browser = Chromium::start().await?;
        let data = tempfile::tempdir().unwrap();
        let node = Node::start(data.path()).await;
        let hello = json!({ "type": "hello", "sensor": "strap-7", "name": "Chest strap", "attributes": {
            "ecg": { "kind": "ecg", "rate_hz": 250, "keep": 40000 }, "heartrate": { "kind": "heartrate", "rate_hz": 1 } } });
        let mut strap = Device::connect(&node, hello).await;
        let mut hall =
            Device::connect(&node, json!({ "type": "hello", "sensor": "hall-1", "name": "Hall" })).await;
        let first = now_ms() - SECONDS * 1000;
        for second in 0..SECONDS {
            let ts = first + second * 1000;
            let beat: Vec<f64> = (0..250).map(|i| if i == 100 { 1.25 } else { 0.0 }).collect();
            strap.send(json!({ "attribute": "ecg", "ts": ts, "interval_ms": 4, "values": beat })).await;
            let at =
                |attribute: &str, value: Value| json!({ "attribute": attribute, "ts": ts, "value": value });
            let samples = [
                at("heartrate", json!(60 + second)),
                at("imu", json!([0.5, 9.75, second, 0, 0, 0, 20, 0, 40])),
                at("battery", json!([87, 0, 3.9])),
                at("button", json!(format!("press {second}"))),
            ];
            strap.send(json!({ "samples": samples })).await;
            let samples = [
                at("temperature", json!(20.0 + second as f64 / 4.0)),
                at("geolocation", json!([52.5 + second as f64 * 1e-5, 13.4, 6])),
            ];
            hall.send(json!({ "samples": samples })).await;
        }
        let mut other =
            Device::connect(&node, json!({ "type": "hello", "sensor": "yard-2", "name": "Yard" })).await;
        other.measure("humidity", json!(40)).await;
        browser.page.goto(&node.page("/cluster")).await.unwrap();
        let made =
            call(&browser, "POST", "rooms", json!({ "name": "Lab", "sensors": ["strap-7", "hall-1"] })).await;
        let room = made["room"].as_str().unwrap().to_owned();
        browser.run("localStorage.setItem('sensorium.name', 'Ana')").await;
        browser.page.goto(&node.page(&format!("/rooms/{room}"))).await.unwrap();
        browser.until("document.querySelectorAll('[data-role=tile]').length === 7").await;
        Some(Self { browser, node, strap, hall, room, first, _data: data })
    }
}

#[tokio::test]
async fn each_kind_has_a_tile_that_fits_it() {
    let Some(scene) = Scene::begin().await else { return };
    let Scene { browser, mut strap, mut hall, .. } = scene;
    // In an order that stays: by sensor, and what is looked at first stands first.
    let order = browser
        .run("return [...document.querySelectorAll('[data-role=tile]')].map((tile) => tile.dataset.kind)")
        .await;
    assert_eq!(order, json!(["ecg", "heartrate", "imu", "battery", "button", "geolocation", "temperature"]));

    browser
        .until(&format!(
            "{} === '79' || {}",
            said("strap-7/heartrate", "value"),
            said("strap-7/heartrate", "value")
        ))
        .await;
    strap.measure("heartrate", json!(81)).await;
    browser.until(&format!("{} === '81'", said("strap-7/heartrate", "value"))).await;
    // The last quarter of a minute against the first one of it: there was none yet, so nothing is said of a trend.
    browser.until(&format!("{} === ''", said("strap-7/heartrate", "trend"))).await;
    // An ECG sweeps over paper while it is live, and says how to read it.
    let ecg = tile("strap-7/ecg");
    browser
        .until(&format!(
            "!{ecg}.querySelector('.sweep').hidden && {ecg}.querySelector('canvas:not(.sweep)').hidden"
        ))
        .await;
    browser
        .until(&format!(
            "/^25 mm.s · 10 mm.mV · Not for diagnosis/.test({ecg}.querySelector('.tile-foot').textContent)"
        ))
        .await;
    // The nine axes of a motion sensor stand in bands of one unit each.
    browser.until(&format!("{}.querySelector('[data-lanes=\"3\"]')", tile("strap-7/imu"))).await;
    browser
        .until(&format!(
            "[...{}.querySelectorAll('.tile-row')].map((row) => row.querySelector('.unit').textContent).join() === 'm/s²,rad/s,µT'",
            tile("strap-7/imu")
        ))
        .await;
    browser.until(&format!("{}.querySelector('meter').value === 87", tile("strap-7/battery"))).await;
    browser.until(&format!("{}.includes('Not charging · 3.9 V')", said("strap-7/battery", "stats"))).await;
    browser.until(&format!("{} === 'press 19'", said("strap-7/button", "value"))).await;
    browser.until(&format!("{}?.includes('Latitude')", said("hall-1/geolocation", "value"))).await;
    // However long ago that was by now, an hour has it.
    browser.click("[data-window=\"3600000\"]").await;
    browser
        .until(&format!(
            "{}.includes('Latitude 52.500190°, longitude 13.400000°, trail of 21 m over 19 s')",
            said("hall-1/geolocation", "value")
        ))
        .await;
    browser.until(&format!("{ecg}.querySelector('.sweep').hidden")).await;

    // Beyond its limits a tile says so, and no longer when it is back.
    hall.measure("temperature", json!(27.5)).await;
    browser.until(&format!("{} === 'Above 27 °C'", said("hall-1/temperature", "alert"))).await;
    hall.measure("temperature", json!(21)).await;
    browser.until(&format!("{} === ''", said("hall-1/temperature", "alert"))).await;
    // Other limits, by keyboard alone; they are kept.
    browser
        .run(&format!("{}.querySelector('[data-role=limits-of]').focus()", tile("hall-1/temperature")))
        .await;
    browser.type_keys("\u{e007}").await;
    browser.until("document.querySelector('[data-role=limits]').open && document.querySelector('#limits-title').textContent === 'Limits of temperature in °C'").await;
    browser.run("document.querySelector('[data-role=low]').focus()").await;
    browser.type_keys("\u{e009}a\u{e000}").await;
    browser.type_keys("22\u{e007}").await;
    browser.until("!document.querySelector('[data-role=limits]').open").await;
    browser.until(&format!("{} === 'Below 22 °C'", said("hall-1/temperature", "alert"))).await;
    browser.page.refresh().await.unwrap();
    browser.until(&format!("{} === 'Below 22 °C'", said("hall-1/temperature", "alert"))).await;

    // A new attribute gets its tile; a tile out of sight watches nothing.
    hall.measure("pressure", json!(1013.25)).await;
    browser.until(&format!("{} === '1013.3'", said("hall-1/pressure", "value"))).await;
    browser.resize(390, 500).await;
    browser.run("scrollTo(0, 0)").await;
    browser.until("[...sensorium.tiles.values()].filter((tile) => tile.isOpen).length < 5").await;
    browser.until("sensorium.live.watches.size < 5").await;
    browser.assert_no_errors(&[]).await;
}

#[tokio::test]
async fn one_window_and_one_cursor_for_all_charts() {
    let Some(scene) = Scene::begin().await else { return };
    let Scene { browser, first, .. } = scene;
    browser.until("sensorium.series('hall-1/temperature')?.length === 20 && sensorium.series('strap-7/heartrate').length === 20").await;
    // Paused, and moved so that the tenth second is in the middle of a window of ten seconds.
    browser.click("[data-window=\"10000\"]").await;
    browser.page.find(fantoccini::Locator::Css("body")).await.unwrap().send_keys(" ").await.unwrap();
    browser.until("document.querySelector('[data-role=play]').textContent === 'Paused'").await;
    browser.run(&format!("sensorium.view.show({first} + 15000)")).await;
    // An ECG that stands still is no sweep: it has the same window as the others.
    browser.until(&format!("{}.querySelector('.sweep').hidden", tile("strap-7/ecg"))).await;

    // By mouse: over the middle of one chart, every tile shows the values of second 10.
    let place = browser
        .run(&format!(
            "const chart = {}.querySelector('.chart'); chart.scrollIntoView({{ block: 'center' }});
             const box = chart.getBoundingClientRect(); return [box.left + (48 + box.width) / 2, box.top + 30];",
            tile("strap-7/heartrate")
        ))
        .await;
    let moved = json!({ "type": "mouseMoved", "x": place[0], "y": place[1] });
    browser.devtools("Input.dispatchMouseEvent", moved).await;
    browser.until(&format!("{} === '70'", said("strap-7/heartrate", "value"))).await;
    browser.until(&format!("{} === '22.50'", said("hall-1/temperature", "value"))).await;
    let az = format!("{}.querySelector('[data-channel=\"2\"]').textContent", tile("strap-7/imu"));
    browser.until(&format!("{az} === '10'")).await;
    let lines = "[...document.querySelectorAll('.cursor')].filter((line) => !line.hidden).length";
    browser
        .until(&format!("{lines} === 4 && document.querySelector('[data-role=at]').textContent !== ''"))
        .await;
    // Away from it: the last values again.
    browser.devtools("Input.dispatchMouseEvent", json!({ "type": "mouseMoved", "x": 2, "y": 2 })).await;
    browser.until(&format!("{} === '79' && {lines} === 0", said("strap-7/heartrate", "value"))).await;

    // By keyboard: the cursor begins in the middle, and goes back a second.
    browser.run(&format!("{}.querySelector('.chart').focus()", tile("hall-1/temperature"))).await;
    browser.type_keys("<").await;
    browser.until(&format!("{} === '69' && {lines} === 4", said("strap-7/heartrate", "value"))).await;
    browser.type_keys("\u{e00c}").await;
    browser.until(&format!("{lines} === 0")).await;
    // The window of one is that of all, and is kept with the size of the tiles.
    browser.type_keys("-").await;
    browser.until("sensorium.view.windowMs === 30000").await;
    browser.type_keys("\u{e010}").await;
    browser.until("document.querySelector('[data-role=play]').textContent === 'Live'").await;
    browser.click("[data-window=\"60000\"]").await;
    browser.click("[data-size=small]").await;
    browser.page.refresh().await.unwrap();
    browser.until("document.querySelector('[data-window=\"60000\"]').getAttribute('aria-pressed') === 'true' && document.querySelector('[data-role=tiles]').dataset.size === 'small'").await;
    browser.assert_no_errors(&[]).await;
}

#[tokio::test]
async fn sensors_come_and_go_and_people_are_invited_and_called() {
    let Some(scene) = Scene::begin().await else { return };
    let Scene { browser, node, room, .. } = scene;
    let summary = "document.querySelector('[data-role=summary]').textContent";
    browser.until(&format!("{summary} === '2 sensors, 1 person'")).await;
    // A sensor is found and added by keyboard, and removed by mouse.
    browser.run("document.querySelector('[data-role=open-edit]').focus()").await;
    browser.type_keys("\u{e007}").await;
    browser.until("document.querySelector('[data-role=edit]').open").await;
    browser.run("document.querySelector('[data-role=find]').focus()").await;
    browser.type_keys("yard").await;
    browser.until("[...document.querySelectorAll('[data-role=found] [data-pick]')].map((one) => one.dataset.pick).join() === 'yard-2'").await;
    browser.type_keys("\u{e004}\u{e007}").await;
    browser
        .until(&format!(
            "{} === '40' && {summary} === '3 sensors, 1 person'",
            said("yard-2/humidity", "value")
        ))
        .await;
    browser
        .until("document.querySelector('[data-role=edit-note]').textContent === 'Yard is in this room now.'")
        .await;
    browser.picture("room-sensors").await;
    browser.click("[data-role=members] [data-pick=hall-1] button").await;
    browser.until(&format!("!{} && {summary} === '2 sensors, 1 person'", tile("hall-1/temperature"))).await;
    browser.type_keys("\u{e00c}").await;
    browser.until("!document.querySelector('dialog[open]')").await;

    // The invitation: what a camera reads is the link, and a new code makes the old one void.
    browser.click("[data-role=open-share]").await;
    browser.picture("room-share").await;
    let link = "document.querySelector('[data-role=invite] pre').textContent";
    let old = browser.run(&format!("return {link}")).await;
    assert_eq!(old, json!(read_code(&browser).await));
    browser.click("[data-role=renew]").await;
    browser.until(&format!("{link} !== {old}")).await;
    let new = browser.run(&format!("return {link}")).await;
    assert_eq!(new, json!(read_code(&browser).await));
    browser.type_keys("\u{e00c}").await;
    let opened = |link: &Value| {
        let code = link.as_str().unwrap().rsplit('/').next().unwrap().to_owned();
        let browser = &browser;
        async move { call(browser, "GET", &format!("join/{code}"), Value::Null).await }
    };
    assert_eq!(opened(&old).await["error"]["code"], "unknown_join_code");
    assert_eq!(opened(&new).await["room"], json!(room));

    // The call: who joins it is in its roster, for everybody in the room, until they leave it.
    let (mut ben, _) =
        tokio_tungstenite::connect_async(format!("ws://{}/api/v1/live", node.http)).await.unwrap();
    let enter = |call: bool| {
        Message::text(
            json!({ "type": "enter", "room": room, "id": "ben", "name": "Ben", "call": call }).to_string(),
        )
    };
    ben.send(enter(true)).await.unwrap();
    let calling = "[...document.querySelectorAll('[data-person][data-call=true] .who')].map((one) => one.textContent).join()";
    browser
        .until(&format!("{calling} === 'Ben' && {summary} === '2 sensors, 2 people, 1 in the call'"))
        .await;
    browser.click("[data-role=call]").await;
    browser.until(&format!("{calling} === 'Ana (you),Ben'")).await;
    heard_calling(&mut ben, true).await;
    // Another name, and still in the call.
    browser.click("[data-role=rename]").await;
    say_name(&browser, "me", "Zoë").await;
    browser.until(&format!("{calling} === 'Ben,Zoë (you)'")).await;
    browser.click("[data-role=call]").await;
    browser.until(&format!("{calling} === 'Ben'")).await;
    heard_calling(&mut ben, false).await;
    ben.send(enter(false)).await.unwrap();
    browser.until(&format!("{calling} === '' && {summary} === '2 sensors, 2 people'")).await;
    browser.assert_no_errors(&["404"]).await;
}

/// Waits until somebody other than Ben is told of with this `call`.
async fn heard_calling<S>(viewer: &mut S, call: bool)
where
    S: futures_util::Stream<Item = tokio_tungstenite::tungstenite::Result<Message>> + Unpin,
{
    loop {
        let message = viewer.next().await.expect("the node keeps the connection").unwrap();
        let Ok(text) = message.into_text() else { continue };
        let Ok(message) = serde_json::from_str::<Value>(&text) else { continue };
        let joined = message["joined"].as_array().cloned().unwrap_or_default();
        if joined.iter().any(|one| one["id"] != "ben" && one["call"] == json!(call)) {
            return;
        }
    }
}

/// What a camera reads from the QR code that the page shows.
async fn read_code(browser: &Chromium) -> String {
    let shown = browser
        .run(
            "const svg = document.querySelector('[data-role=qr] svg');
             return [svg.viewBox.baseVal.width, svg.querySelector('path').getAttribute('d')];",
        )
        .await;
    let side = shown[0].as_u64().unwrap() as usize;
    let mut dark = vec![vec![false; side]; side];
    for module in shown[1].as_str().unwrap().split('M').filter(|module| !module.is_empty()) {
        let (column, rest) = module.split_once(' ').unwrap();
        let row = rest.strip_suffix("h1v1h-1z").expect("a square of one");
        dark[row.parse::<usize>().unwrap()][column.parse::<usize>().unwrap()] = true;
    }
    read_modules(&dark)
}

/// What a QR reader makes of these modules, quiet zone included.
fn read_modules(dark: &[Vec<bool>]) -> String {
    const PIXELS: usize = 4;
    let side = dark.len() * PIXELS;
    let mut picture = rqrr::PreparedImage::prepare_from_greyscale(side, side, |x, y| {
        if dark[y / PIXELS][x / PIXELS] { 0 } else { 255 }
    });
    let grids = picture.detect_grids();
    assert_eq!(grids.len(), 1, "one code is seen");
    grids[0].decode().expect("it is read").1
}

/// A reader reads what the page's encoder writes, of every length that it takes; what is longer it refuses.
#[tokio::test]
async fn qr_codes_are_read_by_a_reader() {
    let Some(browser) = Chromium::start().await else { return };
    let data = tempfile::tempdir().unwrap();
    let node = Node::start(data.path()).await;
    browser.page.goto(&node.page("/nonsense")).await.unwrap();
    let script = "const done = arguments[arguments.length - 1];
         import('/assets/js/qr.js').then(({ encode }) => {
           const text = (length) => Array.from({ length }, (_, i) => 'http://node-7.example:4000/join/Ü'[i] ?? String(i % 10)).join('');
           const texts = Array.from({ length: 212 }, (_, i) => text(i + 1));
           done([...texts, text(400)].map((text) => [text, encode(text)]));
         });";
    let drawn: Vec<(String, Option<Vec<Vec<bool>>>)> =
        serde_json::from_value(browser.run_async(script).await).unwrap();
    let (too_long, drawn) = drawn.split_last().unwrap();
    assert_eq!(too_long.1, None);
    for (text, modules) in drawn {
        let modules = modules.as_ref().expect("it is not too long");
        let side = modules.len() + 8;
        let inside = |at: usize| at.checked_sub(4).filter(|at| *at < modules.len());
        let dark: Vec<Vec<bool>> = (0..side)
            .map(|row| {
                (0..side)
                    .map(
                        |column| matches!((inside(row), inside(column)), (Some(r), Some(c)) if modules[r][c]),
                    )
                    .collect()
            })
            .collect();
        assert_eq!(&read_modules(&dark), text);
    }
}

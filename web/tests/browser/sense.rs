//! This browser as a sensor: what is chosen is measured and kept, with its own values; what was stopped is not; and what a
//! node missed while it was dead is sent again.

use serde_json::{Value, json};

use crate::chromium::Chromium;
use crate::node::Node;
use crate::rooms::call;

/// Chooses a source, as its label does.
async fn choose(browser: &Chromium, source: &str) {
    browser.click(&format!("[data-source={source}]")).await;
}

/// The newest samples that the node keeps of a series of this browser.
async fn kept(browser: &Chromium, attribute: &str) -> Vec<Value> {
    let sensor = browser.run("return sensorium.sensor").await;
    let path = format!("sensors/{}/{attribute}/samples", sensor.as_str().unwrap());
    call(browser, "GET", &path, Value::Null).await["samples"].as_array().cloned().unwrap_or_default()
}

/// Waits until everything that was measured is kept.
async fn until_kept(browser: &Chromium) {
    browser.until("sensorium.outlet.open === 0 && sensorium.outlet.counts.acknowledged > 0").await;
}

async fn move_to(browser: &Chromium, x: f64, y: f64) {
    let place = browser
        .run(&format!(
            "const pad = document.querySelector('[data-role=pad]'); pad.scrollIntoView({{ block: 'center' }});
             const box = pad.getBoundingClientRect(); return [box.left + box.width * {x}, box.top + box.height * {y}];"
        ))
        .await;
    let event = json!({ "type": "mouseMoved", "x": place[0], "y": place[1] });
    browser.devtools("Input.dispatchMouseEvent", event).await;
}

#[tokio::test]
async fn what_is_chosen_is_measured_and_nothing_else() {
    let Some(browser) = Chromium::start().await else { return };
    let data = tempfile::tempdir().unwrap();
    let mut node = Node::start(data.path()).await;
    browser.page.goto(&node.page("/cluster")).await.unwrap();
    let made = call(&browser, "POST", "rooms", json!({ "name": "Lab" })).await;
    let room = made["room"].as_str().unwrap();
    browser.page.goto(&node.page(&format!("/sense?room={room}"))).await.unwrap();
    browser.until(&format!("document.querySelector('[data-role=room]').value === '{room}'")).await;
    let state = "document.querySelector('[data-role=outlet]').textContent";
    browser.until(&format!("{state} === 'Nothing is sent'")).await;

    // The pointer, by mouse: where it is on the pad.
    choose(&browser, "pointer").await;
    browser.until(&format!("{state} === 'Sending'")).await;
    move_to(&browser, 0.25, 0.75).await;
    browser
        .until("document.querySelector('[data-role=said]').textContent === '25 % across, 75 % down'")
        .await;
    until_kept(&browser).await;
    let pointer = kept(&browser, "pointer").await;
    let last: Vec<f64> = serde_json::from_value(pointer.last().unwrap()["value"].clone()).unwrap();
    assert!((last[0] - 0.25).abs() < 0.01 && (last[1] - 0.75).abs() < 0.01 && last[2] == 0.0, "{last:?}");
    let in_room = call(&browser, "GET", &format!("rooms/{room}"), Value::Null).await;
    assert_eq!(in_room["sensors"], json!([browser.run("return sensorium.sensor").await]));

    // The button, by keyboard.
    choose(&browser, "button").await;
    browser.run("document.querySelector('[data-role=press]').focus()").await;
    browser.type_keys(" ").await;
    browser.until("document.querySelectorAll('[data-role=said]')[1].textContent === 'released'").await;
    until_kept(&browser).await;
    let texts: Vec<_> = kept(&browser, "button").await.into_iter().map(|one| one["value"].clone()).collect();
    assert_eq!(texts, ["pressed", "released"]);

    // How the device is held, and where it is, as the browser's emulated sensors tell.
    let held = json!({ "alpha": 90, "beta": 45, "gamma": -30 });
    browser.devtools("DeviceOrientation.setDeviceOrientationOverride", held).await;
    choose(&browser, "orientation").await;
    browser.until("document.querySelectorAll('[data-role=said]')[3].textContent === '-30°, 45°, 90°'").await;
    browser.devtools("Browser.grantPermissions", json!({ "permissions": ["geolocation"] })).await;
    let place = json!({ "latitude": 52.5, "longitude": 13.25, "accuracy": 12 });
    browser.devtools("Emulation.setGeolocationOverride", place).await;
    choose(&browser, "position").await;
    browser.until("document.querySelectorAll('[data-role=said]')[4].textContent === '52.50000°, 13.25000° within 12 m'").await;
    until_kept(&browser).await;
    let held: Vec<f64> =
        serde_json::from_value(kept(&browser, "orientation").await.last().unwrap()["value"].clone()).unwrap();
    for (radians, degrees) in held.iter().zip([-30.0_f64, 45.0, 90.0]) {
        assert!((radians.to_degrees() - degrees).abs() < 0.1, "{held:?}");
    }
    assert_eq!(
        kept(&browser, "position").await.last().unwrap()["value"].as_array().unwrap()[..3],
        [json!(52.5), json!(13.25), json!(12)]
    );
    browser.picture("sense").await;

    // The node dies; what is measured meanwhile waits, and is kept once it is back.
    node.kill();
    browser.until(&format!("{state} === 'Connecting…'")).await;
    move_to(&browser, 0.5, 0.5).await;
    browser.until("document.querySelector('[data-role=said]').textContent === '50 % across, 50 % down' && sensorium.outlet.open > 0").await;
    let node = Node::start_at(data.path(), &node.http).await;
    until_kept(&browser).await;
    let last: Vec<f64> =
        serde_json::from_value(kept(&browser, "pointer").await.last().unwrap()["value"].clone()).unwrap();
    assert!((last[0] - 0.5).abs() < 0.01 && (last[1] - 0.5).abs() < 0.01, "{last:?}");

    // Stopped is stopped.
    browser.click("[data-role=stop]").await;
    browser
        .until(&format!("{state} === 'Nothing is sent' && !document.querySelector('[data-source]:checked')"))
        .await;
    let count = kept(&browser, "pointer").await.len();
    move_to(&browser, 0.9, 0.1).await;
    move_to(&browser, 0.1, 0.9).await;
    browser.until("sensorium.outlet.open === 0 && sensorium.outlet.socket === null").await;
    assert_eq!(kept(&browser, "pointer").await.len(), count);
    let _ = node;
    browser.assert_no_errors(&["ERR_"]).await;
}

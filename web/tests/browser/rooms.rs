//! Rooms in the browser: a code is opened, a name said, and one is in; others come and go, and so does the room.

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::chromium::Chromium;
use crate::node::{Device, Node};

/// Who the page shows, in its order.
pub const PEOPLE: &str =
    "[...document.querySelectorAll('[data-person]')].map((one) => one.firstChild.textContent).join()";

/// Calls the API from within the page: the answer's body.
pub async fn call(browser: &Chromium, method: &str, path: &str, body: Value) -> Value {
    let body = if body.is_null() { "undefined".to_owned() } else { json!(body.to_string()).to_string() };
    let script = format!(
        "const done = arguments[arguments.length - 1];
         const headers = {{ 'content-type': 'application/json' }};
         fetch('/api/v1/{path}', {{ method: '{method}', headers, body: {body} }})
           .then((answer) => answer.json().catch(() => null)).then(done);"
    );
    browser.run_async(&script).await
}

/// Fills in the name and sends the form.
pub async fn say_name(browser: &Chromium, form: &str, name: &str) {
    let field = fantoccini::Locator::Css("[data-role=my-name]");
    let field = browser.page.wait().for_element(field).await.unwrap();
    field.clear().await.unwrap();
    field.send_keys(name).await.unwrap();
    browser.run(&format!("document.querySelector('[data-role={form}] [type=submit]').click()")).await;
}

#[tokio::test]
async fn a_code_a_name_and_in() {
    let Some(browser) = Chromium::start().await else { return };
    let data = tempfile::tempdir().unwrap();
    let node = Node::start(data.path()).await;
    let mut device = Device::connect(&node, json!({"type": "hello", "sensor": "s1"})).await;
    device.measure("temperature", json!(20.5)).await;
    browser.page.goto(&node.page("/cluster")).await.unwrap();
    let made = call(&browser, "POST", "rooms", json!({"name": "Lab <1>", "sensors": ["s1"]})).await;
    let (room, code) = (made["room"].as_str().unwrap(), made["join_code"].as_str().unwrap());

    browser.page.goto(&node.page(&format!("/join/{}", code.to_lowercase()))).await.unwrap();
    browser.until("document.querySelector('h1').textContent === 'Join Lab <1>'").await;
    browser.picture("join").await;
    say_name(&browser, "join", "  Ana ").await;
    browser.until(&format!("location.pathname === '/rooms/{room}'")).await;
    browser.until(&format!("{PEOPLE} === 'Ana (you)'")).await;
    browser
        .until("document.querySelector('[data-sensor=s1] [data-role=value]').textContent === '20.5'")
        .await;
    browser.until("document.querySelector('[data-role=summary]').textContent === '1 sensor, 1 person'").await;
    let presence = call(&browser, "GET", &format!("rooms/{room}/presence"), Value::Null).await;
    let me = presence["people"][0].clone();
    assert_eq!(
        (&me["name"], &presence["devices"]),
        (&json!("Ana"), &json!([{"sensor": "s1", "node": "test-node"}]))
    );

    // Somebody else comes, and she is called otherwise. Her page is opened again: it is still her.
    let (mut ben, _) =
        tokio_tungstenite::connect_async(format!("ws://{}/api/v1/live", node.http)).await.unwrap();
    let enter = json!({"type": "enter", "room": room, "id": "ben", "name": "Ben"});
    ben.send(Message::text(enter.to_string())).await.unwrap();
    browser.until(&format!("{PEOPLE} === 'Ana (you),Ben'")).await;
    browser.click("[data-role=rename]").await;
    say_name(&browser, "me", "Zoë").await;
    browser.until(&format!("{PEOPLE} === 'Ben,Zoë (you)'")).await;
    browser.page.refresh().await.unwrap();
    browser.until(&format!("{PEOPLE} === 'Ben,Zoë (you)'")).await;
    let presence = call(&browser, "GET", &format!("rooms/{room}/presence"), Value::Null).await;
    let people = presence["people"].as_array().unwrap();
    assert!(people.len() == 2 && people.iter().any(|one| one["id"] == me["id"]), "{presence}");
    ben.close(None).await.unwrap();
    while ben.next().await.is_some() {}
    browser.until(&format!("{PEOPLE} === 'Zoë (you)'")).await;

    // The room changes under her, and goes.
    let mut second = Device::connect(&node, json!({"type": "hello", "sensor": "s2"})).await;
    second.measure("humidity", json!(40)).await;
    call(&browser, "PUT", &format!("rooms/{room}/sensors/s2"), Value::Null).await;
    browser.until("document.querySelector('[data-sensor=s2] [data-role=value]').textContent === '40'").await;
    call(&browser, "DELETE", &format!("rooms/{room}/sensors/s1"), Value::Null).await;
    browser.until("!document.querySelector('[data-sensor=s1]')").await;
    let renewed = call(&browser, "POST", &format!("rooms/{room}/join-code"), Value::Null).await;
    let code = renewed["join_code"].as_str().unwrap();
    browser.until(&format!("document.querySelector('[data-role=code]').textContent === '{code}'")).await;
    let link = format!("http://{}/join/{code}", node.http);
    browser
        .until(&format!("document.querySelector('[data-role=invite] pre').textContent === '{link}'"))
        .await;
    call(&browser, "PATCH", &format!("rooms/{room}"), json!({"name": "Hall"})).await;
    browser.until("document.querySelector('h1').textContent === 'Hall'").await;
    browser.assert_no_errors(&[]).await;
    call(&browser, "DELETE", &format!("rooms/{room}"), Value::Null).await;
    browser
        .until("document.querySelector('[data-role=notice]').textContent === 'This room was deleted.'")
        .await;
    browser.until(&format!("{PEOPLE} === ''")).await;
    // The list of its sensors is asked for once more, in vain.
    browser.assert_no_errors(&["404"]).await;
}

#[tokio::test]
async fn what_is_no_room_and_no_code_has_a_page_that_says_so() {
    let Some(browser) = Chromium::start().await else { return };
    let data = tempfile::tempdir().unwrap();
    let node = Node::start(data.path()).await;
    for (path, heading) in [
        ("/rooms/nowhere", "This room is not known"),
        ("/rooms/no%20id", "This room is not known"),
        ("/join/ABCDEFGH", "This code opens no room"),
        ("/join/%3Cb%3E", "This code opens no room"),
    ] {
        browser.page.goto(&node.page(path)).await.unwrap();
        browser.until(&format!("document.querySelector('h1').textContent === '{heading}'")).await;
        let status = browser.run("return performance.getEntriesByType('navigation')[0].responseStatus").await;
        assert_eq!(status, 404, "{path}");
    }
    browser.picture("unknown-code").await;
    browser
        .run_async(&format!(
            "const done = arguments[arguments.length - 1];
             const tries = Array.from({{ length: {} }}, () => fetch('/api/v1/join/ABCDEFGH'));
             Promise.all(tries).then(() => done(true));",
            2 * web::guesses::AT_ONCE
        ))
        .await;
    browser.page.goto(&node.page("/join/ABCDEFGH")).await.unwrap();
    browser.until("document.querySelector('h1').textContent === 'Too many wrong codes'").await;
    browser.assert_no_errors(&["404", "429"]).await;
}

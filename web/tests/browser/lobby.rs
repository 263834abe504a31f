//! The lobby: rooms are found, made and joined by their code; sensors are sorted, and favourites stand first.

use serde_json::{Value, json};

use crate::chromium::Chromium;
use crate::node::{Device, Node};
use crate::rooms::call;

/// The sensors in the order in which they are read.
const ORDER: &str = "[...document.querySelectorAll('.card')].map((card) => card.dataset.sensor).join()";
/// The rooms in theirs.
const ROOMS: &str =
    "[...document.querySelectorAll('[data-role=rooms] a')].map((link) => link.textContent).join()";

#[tokio::test]
async fn sensors_are_sorted_and_favourites_stand_first() {
    let Some(browser) = Chromium::start().await else { return };
    let data = tempfile::tempdir().unwrap();
    let node = Node::start(data.path()).await;
    let mut devices = Vec::new();
    for (sensor, attribute, value) in [
        ("a-1", "temperature", json!(20)),
        ("b-2", "battery", json!([80, 0, 3.9])),
        ("c-3", "battery", json!([15, 0, 3.4])),
    ] {
        let mut device = Device::connect(&node, json!({ "type": "hello", "sensor": sensor })).await;
        device.measure(attribute, value).await;
        devices.push(device);
    }
    browser.page.goto(&node.page("/")).await.unwrap();
    browser.until(&format!("{ORDER} === 'a-1,b-2,c-3'")).await;
    for (order, expected) in [
        ("battery", "c-3,b-2,a-1"),
        ("kind", "b-2,c-3,a-1"),
        ("recent", "c-3,b-2,a-1"),
        ("name", "a-1,b-2,c-3"),
    ] {
        browser
            .run(&format!(
                "const sort = document.querySelector('[data-role=sort]'); sort.value = '{order}'; sort.dispatchEvent(new Event('change'))"
            ))
            .await;
        browser.until(&format!("{ORDER} === '{expected}'")).await;
    }
    // By mouse, and again by keyboard; it is kept, and the focus is where it was.
    browser.click("[data-sensor=b-2] .star").await;
    browser.until(&format!("{ORDER} === 'b-2,a-1,c-3'")).await;
    browser.page.refresh().await.unwrap();
    browser.until(&format!("{ORDER} === 'b-2,a-1,c-3'")).await;
    browser.run("document.querySelector('[data-sensor=c-3] .star').focus()").await;
    browser.type_keys(" ").await;
    browser.until(&format!("{ORDER} === 'b-2,c-3,a-1'")).await;
    browser.type_keys(" ").await;
    browser.until(&format!("{ORDER} === 'b-2,a-1,c-3'")).await;
    browser.until("document.activeElement.matches('[data-sensor=c-3] .star[aria-pressed=false]')").await;
    browser.assert_no_errors(&[]).await;
}

#[tokio::test]
async fn rooms_are_made_found_and_joined_by_their_code() {
    let Some(browser) = Chromium::start().await else { return };
    let data = tempfile::tempdir().unwrap();
    let node = Node::start(data.path()).await;
    let mut device = Device::connect(&node, json!({ "type": "hello", "sensor": "s1" })).await;
    device.measure("temperature", json!(20.5)).await;
    browser.page.goto(&node.page("/")).await.unwrap();
    browser
        .until("document.querySelector('[data-role=rooms-note]').textContent.startsWith('None yet.')")
        .await;

    // Made by keyboard: its page opens, and says what to do next.
    browser.run("document.querySelector('[data-role=make-room] input').focus()").await;
    browser.type_keys("Gym\u{e007}").await;
    browser
        .until(
            "location.pathname.startsWith('/rooms/') && document.querySelector('h1').textContent === 'Gym'",
        )
        .await;
    browser.until("document.querySelector('[data-role=empty]').checkVisibility()").await;
    browser.click("[data-role=empty] button").await;
    browser.click("[data-role=found] [data-pick=s1] button").await;
    browser
        .until("document.querySelector('[data-role=tile][data-sensor=s1] [data-role=value]')?.textContent === '20.5'")
        .await;

    // Others appear by themselves, are found by the search, and a favourite stands first.
    browser.page.goto(&node.page("/")).await.unwrap();
    browser.until(&format!("{ROOMS} === 'Gym'")).await;
    let attic = call(&browser, "POST", "rooms", json!({ "name": "Attic", "temporary": true })).await;
    browser.until(&format!("{ROOMS} === 'Attic,Gym'")).await;
    browser
        .until("document.querySelector('[data-role=rooms] li').textContent.includes('0 sensors · temporary')")
        .await;
    browser.run("document.querySelectorAll('[data-role=rooms] .star')[1].focus()").await;
    browser.type_keys(" ").await;
    browser
        .until(&format!(
            "{ROOMS} === 'Gym,Attic' && document.activeElement.closest('li').textContent.startsWith('Gym')"
        ))
        .await;
    browser.run("document.querySelector('[data-role=search]').focus()").await;
    browser.type_keys("att").await;
    browser.until(&format!("{ROOMS} === 'Attic'")).await;
    browser.type_keys("\u{e00c}").await;
    browser.until(&format!("{ROOMS} === 'Gym,Attic'")).await;

    // A code that opens nothing is said to; the right one, however it is written, leads to the room's door.
    browser.run("document.querySelector('[data-role=join-code]').focus()").await;
    browser.type_keys("abcd-efgh\u{e007}").await;
    browser
        .until("document.querySelector('[data-role=join-room] [data-role=said]').textContent.startsWith('This code opens no room')")
        .await;
    let code = attic["join_code"].as_str().unwrap().to_lowercase();
    browser.run("document.querySelector('[data-role=join-code]').select()").await;
    browser.type_keys(&format!("{} {}\u{e007}", &code[..4], &code[4..])).await;
    browser.until("document.querySelector('h1').textContent === 'Join Attic'").await;
    let gone =
        call(&browser, "DELETE", &format!("rooms/{}", attic["room"].as_str().unwrap()), Value::Null).await;
    assert_eq!(gone, Value::Null);
    browser.page.goto(&node.page("/")).await.unwrap();
    browser.until(&format!("{ROOMS} === 'Gym'")).await;
    browser.assert_no_errors(&["404"]).await;
}

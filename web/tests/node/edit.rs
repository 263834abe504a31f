//! What an operator says of a sensor over the HTTP API.

use serde_json::{Value, json};
use store::{AttributeDescription, Description};

use crate::common::{Node, attribute, connect, hear, numbers, say, sensor};

/// 2025-11-21T10:00:00Z in microseconds.
const START: i64 = 1_763_719_200_000_000;
const STRAP: &str = "/api/v1/sensors/strap-7";

fn described(name: &str, keep: usize, unit: &str) -> Description {
    let asked = AttributeDescription {
        keep: Some(keep),
        unit: Some(unit.to_owned()),
        ..AttributeDescription::default()
    };
    Description { name: Some(name.to_owned()), attributes: vec![(attribute("skin"), asked)] }
}

#[tokio::test]
async fn an_operator_says_it_anew_and_the_device_does_not_take_it_back() {
    let node = Node::open();
    let device = described("Strap", 50, "K");
    node.store().describe(&sensor("strap-7"), &device).unwrap();
    let mut viewer = connect(&format!("ws://{}/api/v1/live", node.serve().await)).await;
    say(&mut viewer, json!({"type": "watch", "id": 1, "series": ["strap-7/skin"]})).await;
    let wish =
        json!({"name": "Chest strap", "attributes": {"skin": {"keep": 200, "unit": "Cel"}}, "else": 1});
    let answer = node.send("PATCH", STRAP, wish).await;
    let now = answer.json();
    assert_eq!(
        (answer.status.as_u16(), &now["sensor"], &now["name"]),
        (200, &json!("strap-7"), &json!("Chest strap"))
    );
    assert_eq!(
        (&now["attributes"]["skin"]["keep"], &now["attributes"]["skin"]["unit"]),
        (&json!(200), &json!("Cel"))
    );
    assert_eq!(node.get(STRAP).await.json(), now);
    // A viewer is told.
    loop {
        let told = hear(&mut viewer).await.json();
        if told["type"] == "sensor" && told["name"] == "Chest strap" {
            break;
        }
    }
    // The device says hello again.
    node.store().describe(&sensor("strap-7"), &device).unwrap();
    assert_eq!(node.get(STRAP).await.json(), now);
    // One field alone; and once more, which changes nothing.
    for _ in 0..2 {
        let answer = node.send("PATCH", STRAP, json!({"attributes": {"skin": {"unit": "K"}}})).await.json();
        let skin = &answer["attributes"]["skin"];
        assert_eq!(
            (&answer["name"], &skin["unit"], &skin["keep"]),
            (&json!("Chest strap"), &json!("K"), &json!(200))
        );
    }
    // As many are kept from now on.
    for at in 0..300 {
        node.append("strap-7/skin", [START + at], numbers(1, vec![1.0])).await;
    }
    let held = node.get(&format!("{STRAP}/skin/samples?limit=1000")).await.json();
    assert_eq!(held["samples"].as_array().unwrap().len(), 200);
}

#[tokio::test]
async fn a_sensor_is_made_where_there_is_none_and_comes_back_where_it_was_deleted() {
    let node = Node::open();
    let answer = node.send("PATCH", STRAP, json!({"name": "Chest strap"})).await.json();
    assert_eq!((&answer["name"], &answer["attributes"]), (&json!("Chest strap"), &json!({})));
    let answer =
        node.send("PATCH", STRAP, json!({"attributes": {"ecg": {}, "skin": {"keep": 5}}})).await.json();
    let kinds = ["ecg", "skin"].map(|attribute| answer["attributes"][attribute]["kind"].clone());
    assert_eq!(kinds, [json!("ecg"), json!("number")]);
    assert_eq!(answer["attributes"]["skin"]["keep"], 5);
    assert_eq!(node.send("DELETE", STRAP, Value::Null).await.status, 204);
    assert_eq!(node.get(STRAP).await.error(), (404, "unknown_sensor".into()));
    let answer = node.send("PATCH", STRAP, json!({"name": "Another"})).await.json();
    assert_eq!((&answer["name"], &answer["attributes"]), (&json!("Another"), &json!({})));
}

#[tokio::test]
async fn what_may_not_be_said_is_refused_by_name_and_changes_nothing() {
    let node = Node::open();
    node.store().describe(&sensor("strap-7"), &described("Strap", 50, "K")).unwrap();
    let before = node.get(STRAP).await.json();
    let (long, most) = ("n".repeat(201), "n".repeat(200));
    let many: serde_json::Map<_, _> = (0..257).map(|n| (format!("a{n}"), json!({"keep": 1}))).collect();
    let skin = |wish: Value| json!({"name": "Other", "attributes": {"skin": wish}});
    for (wish, status, code) in [
        (json!({}), 400, "malformed"),
        (json!([]), 400, "malformed"),
        (json!({"attributes": {}}), 400, "malformed"),
        (json!({"name": 7}), 400, "malformed"),
        (json!({"name": "Other", "attributes": []}), 400, "malformed"),
        (skin(json!({"keep": "all"})), 400, "malformed"),
        (skin(json!({"keep": -1})), 400, "malformed"),
        (skin(json!({"keep": 1.5})), 400, "malformed"),
        (json!({"name": ""}), 422, "bad_name"),
        (json!({"name": " "}), 422, "bad_name"),
        (json!({"name": "a\u{7}"}), 422, "bad_name"),
        (json!({"name": long}), 422, "bad_name"),
        (skin(json!({"unit": long})), 422, "bad_unit"),
        (skin(json!({"unit": "a\n"})), 422, "bad_unit"),
        (skin(json!({"keep": 0})), 422, "bad_keep"),
        (skin(json!({"keep": 100_001})), 422, "bad_keep"),
        (skin(json!({"keep": u64::MAX})), 422, "bad_keep"),
        (skin(json!({"keep": 49})), 422, "bad_keep"),
        (json!({"name": "Other", "attributes": {"no id": {"keep": 1}}}), 422, "bad_id"),
        (json!({"name": "Other", "attributes": many}), 422, "too_many_attributes"),
    ] {
        let answer = node.send("PATCH", STRAP, wish.clone()).await;
        assert_eq!(answer.error(), (status, code.to_owned()), "{wish}");
        assert!(answer.text.len() < 700, "{}", answer.text);
    }
    let bad = node.send("PATCH", "/api/v1/sensors/no%20id", json!({"name": "a"})).await;
    assert_eq!(bad.error(), (422, "bad_id".into()));
    assert_eq!(node.get(STRAP).await.json(), before, "nothing has happened");
    assert_eq!(node.get("/api/v1/sensors").await.json()["sensors"].as_array().unwrap().len(), 1);
    assert_eq!(node.send("PATCH", STRAP, json!({"name": most})).await.json()["name"], most);
}

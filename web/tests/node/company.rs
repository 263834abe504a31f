//! People in rooms and what they look at, over real connections to one node.

use axum::http::StatusCode;
use serde_json::{Value, json};
use store::{Level, SensorId};

use crate::common::{Node, Socket, connect, hear, say};

/// The next message of one of these types.
async fn hear_of(socket: &mut Socket, types: &[&str]) -> Value {
    loop {
        let message = hear(socket).await.json();
        if types.contains(&message["type"].as_str().unwrap()) {
            return message;
        }
    }
}

fn names(people: &Value) -> Vec<&str> {
    people.as_array().unwrap().iter().map(|person| person["name"].as_str().unwrap()).collect()
}

/// Reads news of the room until these are in it.
async fn until_there(socket: &mut Socket, there: &mut Vec<String>, expected: &[&str]) {
    while *there != expected {
        let news = hear_of(socket, &["presence"]).await;
        for left in news["left"].as_array().unwrap() {
            there.retain(|id| Some(id.as_str()) != left["id"].as_str());
        }
        for joined in news["joined"].as_array().unwrap() {
            let id = joined["id"].as_str().unwrap().to_owned();
            there.retain(|held| *held != id);
            there.push(id);
        }
        there.sort();
    }
}

#[tokio::test]
async fn people_see_who_comes_and_goes_and_reach_each_other() {
    let node = Node::open();
    let url = format!("ws://{}/api/v1/live", node.serve().await);
    let mut rooms = Vec::new();
    for number in 1..=17 {
        rooms.push(node.room(&format!("Room {number}"), &[]).await);
    }
    let (r1, r2) = (&rooms[0], &rooms[1]);
    let (mut ana, mut ben) = (connect(&url).await, connect(&url).await);
    say(&mut ana, json!({"type": "enter", "room": r1, "id": "ana", "name": "Ana"})).await;
    let news = hear_of(&mut ana, &["presence"]).await;
    assert_eq!((&news["room"], names(&news["joined"]), &news["left"]), (&json!(r1), vec!["Ana"], &json!([])));
    let since = news["joined"][0]["since"].as_i64().unwrap();
    say(&mut ben, json!({"type": "enter", "room": r1, "id": "ben", "call": true})).await;
    let (mut seen_by_ana, mut seen_by_ben) = (vec!["ana".to_owned()], Vec::new());
    until_there(&mut ana, &mut seen_by_ana, &["ana", "ben"]).await;
    until_there(&mut ben, &mut seen_by_ben, &["ana", "ben"]).await;

    let answer = node.get(&format!("/api/v1/rooms/{r1}/presence")).await.json();
    assert_eq!(
        answer["people"][0],
        json!({"id": "ana", "name": "Ana", "node": "a", "since": since, "call": false})
    );
    assert_eq!((&answer["people"][1]["call"], &answer["devices"]), (&json!(true), &json!([])));
    let refused = node.get("/api/v1/rooms/r%201/presence").await;
    assert_eq!(refused.status, StatusCode::NOT_FOUND);
    assert_eq!(refused.error().1, "unknown_room");

    say(&mut ana, json!({"type": "signal", "room": r1, "to": "ben", "data": {"offer": [1, null]}})).await;
    let signal = hear_of(&mut ben, &["signal"]).await;
    assert_eq!(signal, json!({"type": "signal", "room": r1, "from": "ana", "data": {"offer": [1, null]}}));
    for (message, code) in [
        (json!({"type": "signal", "room": r1, "to": "eve", "data": 1}), "not_present"),
        (json!({"type": "signal", "room": r2, "to": "ben", "data": 1}), "not_present"),
        (json!({"type": "signal", "room": r1, "to": "ben", "data": "x".repeat(40_000)}), "signal_too_large"),
        (json!({"type": "leave", "room": r2}), "not_present"),
        (json!({"type": "enter", "room": r1, "id": "ana", "name": "n".repeat(101)}), "bad_name"),
    ] {
        say(&mut ana, message).await;
        assert_eq!(hear_of(&mut ana, &["error"]).await["code"], code);
    }
    // She joins the call, which is news; he leaves, and says nothing to her any more.
    say(&mut ana, json!({"type": "enter", "room": r1, "id": "ana", "name": "Ana", "call": true})).await;
    let news = hear_of(&mut ben, &["presence"]).await;
    assert_eq!(
        (&news["joined"][0]["call"], news["joined"][0]["since"].as_i64()),
        (&json!(true), Some(since))
    );
    say(&mut ben, json!({"type": "leave", "room": r1})).await;
    until_there(&mut ana, &mut seen_by_ana, &["ana"]).await;
    say(&mut ben, json!({"type": "signal", "room": r1, "to": "ana", "data": 1})).await;
    assert_eq!(hear_of(&mut ben, &["error"]).await["code"], "not_present");
    // A connection that breaks leaves every room.
    say(&mut ben, json!({"type": "enter", "room": r1, "id": "ben"})).await;
    until_there(&mut ana, &mut seen_by_ana, &["ana", "ben"]).await;
    drop(ben);
    until_there(&mut ana, &mut seen_by_ana, &["ana"]).await;
    // One room too many.
    for room in &rooms[1..] {
        say(&mut ana, json!({"type": "enter", "room": room, "id": "ana"})).await;
    }
    assert_eq!(hear_of(&mut ana, &["error"]).await["code"], "too_many_rooms");
}

#[tokio::test]
async fn a_room_that_is_deleted_has_nobody_in_it_and_those_who_were_are_told() {
    let node = Node::open();
    let url = format!("ws://{}/api/v1/live", node.serve().await);
    let room = node.room("Lab", &[]).await;
    let (mut ana, mut ben) = (connect(&url).await, connect(&url).await);
    for (socket, id) in [(&mut ana, "ana"), (&mut ben, "ben")] {
        say(socket, json!({"type": "enter", "room": room, "id": id})).await;
    }
    until_there(&mut ana, &mut Vec::new(), &["ana", "ben"]).await;
    node.send("PATCH", &format!("/api/v1/rooms/{room}"), json!({"name": "Hall"})).await;
    let news = hear_of(&mut ana, &["room"]).await;
    let now = node.get(&format!("/api/v1/rooms/{room}")).await.json();
    assert_eq!(
        (&news["name"], &news["join_code"], &news["gone"]),
        (&json!("Hall"), &now["join_code"], &Value::Null)
    );

    node.send("DELETE", &format!("/api/v1/rooms/{room}"), Value::Null).await;
    let left = hear_of(&mut ana, &["presence", "room"]).await;
    assert_eq!(left["type"], "presence", "first that all have left");
    assert_eq!((names(&left["left"]), &left["joined"]), (vec!["ana", "ben"], &json!([])));
    let gone = hear_of(&mut ana, &["room"]).await;
    assert_eq!(gone, json!({"type": "room", "room": room, "gone": true}));
    // It is as if they had never entered it.
    say(&mut ana, json!({"type": "signal", "room": room, "to": "ben", "data": 1})).await;
    assert_eq!(hear_of(&mut ana, &["error"]).await["code"], "not_present");
    say(&mut ana, json!({"type": "enter", "room": room, "id": "ana"})).await;
    assert_eq!(hear_of(&mut ana, &["error"]).await["code"], "unknown_room");
    assert!(node.store().people(&store::RoomId::new(&room).unwrap()).is_empty());
    hear_of(&mut ben, &["presence"]).await;
}

#[tokio::test]
async fn everybody_is_told_of_rooms_and_who_has_nothing_to_do_with_one_a_little_later() {
    let node = Node::open();
    let mut viewer = connect(&format!("ws://{}/api/v1/live", node.serve().await)).await;
    let room = node.room("Lab", &["s"]).await;
    let told = hear_of(&mut viewer, &["room"]).await;
    let mut now = node.get(&format!("/api/v1/rooms/{room}")).await.json();
    now["type"] = json!("room");
    assert_eq!(told, now);
    let lab = store::RoomId::new(&room).unwrap();
    for number in 0..100 {
        node.store().rename_room(&lab, format!("Lab {number}")).unwrap();
    }
    let mut messages = 0;
    while hear_of(&mut viewer, &["room"]).await["name"] != "Lab 99" {
        messages += 1;
    }
    assert!(messages <= 2, "{messages}: a hundred changes at once are not a hundred messages");
    node.store().delete_room(&lab).unwrap();
    assert_eq!(hear_of(&mut viewer, &["room"]).await["gone"], true);
}

#[tokio::test]
async fn what_a_viewer_looks_at_counts_as_long_as_it_does_and_for_less_when_its_battery_is_low() {
    let node = Node::open();
    let mut viewer = connect(&format!("ws://{}/api/v1/live", node.serve().await)).await;
    let sensor = SensorId::new("strap-7").unwrap();
    let mut attention = node.store().subscribe(1);
    attention.follow_attention(true);
    for (message, level) in [
        (
            json!({"type": "watch", "id": 1, "series": ["strap-7/ecg", "strap-7/skin"], "attention": "high"}),
            Level::High,
        ),
        (json!({"type": "battery", "level": 0.1}), Level::Low),
        (json!({"type": "battery", "level": 0.2}), Level::Medium),
        (json!({"type": "battery", "level": 0.2, "charging": true}), Level::High),
        (json!({"type": "watch", "id": 1, "series": ["strap-7/ecg"], "attention": "low"}), Level::Low),
        (json!({"type": "watch", "id": 2, "series": ["strap-7/ecg"]}), Level::Medium),
        (json!({"type": "unwatch", "id": 2}), Level::Low),
    ] {
        say(&mut viewer, message.clone()).await;
        while node.store().attention(&sensor) != level {
            tokio::time::timeout(crate::common::GUARD, attention.next())
                .await
                .unwrap_or_else(|_| panic!("no {level} after {message}"));
        }
    }
    drop(viewer);
    while node.store().attention(&sensor) != Level::None {
        tokio::time::timeout(crate::common::GUARD, attention.next())
            .await
            .expect("it looks away when it is gone");
    }
}

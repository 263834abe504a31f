//! Rooms over the HTTP API: made, changed, opened by their code; and what is refused.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::Request;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;
use web::guesses::AT_ONCE;

use crate::common::{Node, numbers};

/// 2025-11-21T10:00:00Z in microseconds.
const START: i64 = 1_763_719_200_000_000;

fn code_of(room: &Value) -> String {
    room["join_code"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_room_is_made_changed_opened_and_deleted() {
    let node = Node::open();
    assert_eq!(node.get("/api/v1/rooms").await.json(), json!({"rooms": []}));
    let made =
        node.send("POST", "/api/v1/rooms", json!({"name": "Lab", "sensors": ["s2", "s1", "s2"]})).await;
    assert_eq!(made.status, 201);
    let room = made.json();
    let (id, code) = (room["room"].as_str().unwrap(), code_of(&room));
    assert_eq!(
        room,
        json!({"room": id, "name": "Lab", "join_code": code, "temporary": false, "sensors": ["s1", "s2"], "members": []})
    );
    let allowed = |c| matches!(c, 'A'..='H' | 'J'..='N' | 'P'..='Z' | '2'..='9');
    assert!(code.len() == 8 && code.chars().all(allowed), "{code}");
    let path = format!("/api/v1/rooms/{id}");
    assert_eq!(node.get(&path).await.json(), room);
    assert_eq!(node.get("/api/v1/rooms").await.json(), json!({"rooms": [room]}));

    let renamed = node.send("PATCH", &path, json!({"name": "Great lab"})).await;
    assert_eq!((renamed.status.as_u16(), &renamed.json()["name"]), (200, &json!("Great lab")));
    let change = async |method: &str, below: &str, body: Value| {
        let answer = node.send(method, &format!("{path}/{below}"), body).await;
        assert_eq!((answer.status.as_u16(), answer.text.as_str()), (204, ""), "{method} {below}");
    };
    for _ in 0..2 {
        // What is asked for again changes nothing.
        change("PUT", "sensors/s3", Value::Null).await;
        change("DELETE", "sensors/s1", Value::Null).await;
        change("PUT", "members/ana", json!({"name": "Ana", "role": "owner"})).await;
        change("PUT", "members/ben", Value::Null).await;
        change("PUT", "members/eve", json!({"name": "Eve", "else": 1})).await;
        change("DELETE", "members/eve", Value::Null).await;
    }
    change("PUT", "members/ana", json!({"role": "admin"})).await;
    let now = node.get(&path).await.json();
    assert_eq!(now["sensors"], json!(["s2", "s3"]));
    assert_eq!(
        now["members"],
        json!([{"id": "ana", "name": "Ana", "role": "admin"}, {"id": "ben", "name": "ben", "role": "member"}])
    );

    let join = async |code: &str| node.get(&format!("/api/v1/join/{code}")).await;
    assert_eq!(join(&code).await.json(), json!({"room": id, "name": "Great lab"}));
    assert_eq!(join(&code.to_lowercase()).await.status, 200);
    let renewed = node.send("POST", &format!("{path}/join-code"), Value::Null).await;
    assert_eq!((renewed.status.as_u16(), &renewed.json()["room"]), (200, &json!(id)));
    let new = code_of(&renewed.json());
    assert_ne!(new, code);
    assert_eq!(join(&code).await.error(), (404, "unknown_join_code".into()), "the old one is void");
    assert_eq!(join(&new).await.json()["room"], id);

    let temporary =
        node.send("POST", "/api/v1/rooms", json!({"name": "For now", "temporary": true})).await.json();
    assert_eq!((&temporary["temporary"], &temporary["sensors"]), (&json!(true), &json!([])));
    assert!(node.get("/metrics").await.text.contains("\nsensorium_rooms 2\n"));
    assert_eq!(node.send("DELETE", &path, Value::Null).await.status, 204);
    assert_eq!(node.send("DELETE", &path, Value::Null).await.error(), (404, "unknown_room".into()));
    assert_eq!(node.get(&path).await.error(), (404, "unknown_room".into()));
    assert_eq!(join(&new).await.error(), (404, "unknown_join_code".into()));
    assert_eq!(node.get("/api/v1/rooms").await.json()["rooms"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn what_may_not_be_asked_of_rooms_is_refused_by_name_and_changes_nothing() {
    let node = Node::open();
    let room = node.send("POST", "/api/v1/rooms", json!({"name": "n".repeat(100)})).await.json();
    let id = room["room"].as_str().unwrap();
    let long = "n".repeat(101);
    let sensors: Vec<_> = (0..1001).map(|n| format!("s{n}")).collect();
    let at = |below: &str| format!("/api/v1/rooms/{id}{below}");
    let none = |below: &str| format!("/api/v1/rooms/none{below}");
    for (method, path, body, status, code) in [
        ("POST", "/api/v1/rooms".to_owned(), json!({}), 400, "malformed"),
        ("POST", "/api/v1/rooms".into(), json!({"name": 7}), 400, "malformed"),
        ("POST", "/api/v1/rooms".into(), json!({"name": "a", "sensors": "s"}), 400, "malformed"),
        ("POST", "/api/v1/rooms".into(), json!([]), 400, "malformed"),
        ("POST", "/api/v1/rooms".into(), json!({"name": ""}), 422, "bad_name"),
        ("POST", "/api/v1/rooms".into(), json!({"name": "  "}), 422, "bad_name"),
        ("POST", "/api/v1/rooms".into(), json!({"name": "a\u{7}"}), 422, "bad_name"),
        ("POST", "/api/v1/rooms".into(), json!({"name": long}), 422, "bad_name"),
        ("POST", "/api/v1/rooms".into(), json!({"name": "a", "sensors": ["no id"]}), 422, "bad_id"),
        ("POST", "/api/v1/rooms".into(), json!({"name": "a", "sensors": sensors}), 422, "too_many_sensors"),
        ("PATCH", at(""), json!({}), 400, "malformed"),
        ("PATCH", at(""), json!({"name": long}), 422, "bad_name"),
        ("PATCH", none(""), json!({"name": "a"}), 404, "unknown_room"),
        ("PATCH", "/api/v1/rooms/no%20id".into(), json!({"name": "a"}), 404, "unknown_room"),
        ("DELETE", none(""), Value::Null, 404, "unknown_room"),
        ("POST", none("/join-code"), Value::Null, 404, "unknown_room"),
        ("GET", none("/presence"), Value::Null, 404, "unknown_room"),
        ("PUT", none("/sensors/s"), Value::Null, 404, "unknown_room"),
        ("DELETE", none("/sensors/s"), Value::Null, 404, "unknown_room"),
        ("PUT", at("/sensors/no%20id"), Value::Null, 422, "bad_id"),
        ("DELETE", at("/sensors/no%20id"), Value::Null, 422, "bad_id"),
        ("PUT", none("/members/ana"), Value::Null, 404, "unknown_room"),
        ("DELETE", none("/members/ana"), Value::Null, 404, "unknown_room"),
        ("PUT", at("/members/no%20id"), Value::Null, 422, "bad_id"),
        ("PUT", at("/members/ana"), json!({"role": "king"}), 422, "bad_role"),
        ("PUT", at("/members/ana"), json!({"role": 1}), 400, "malformed"),
        ("PUT", at("/members/ana"), json!({"name": long}), 422, "bad_name"),
        ("GET", "/api/v1/join/ABCDEFGH".into(), Value::Null, 404, "unknown_join_code"),
        ("GET", "/api/v1/join/no-code".into(), Value::Null, 404, "unknown_join_code"),
        ("GET", "/api/v1/sensors?room=none".into(), Value::Null, 404, "unknown_room"),
        ("POST", at(""), json!({"name": "a"}), 405, "method_not_allowed"),
        ("PUT", "/api/v1/rooms".into(), json!({"name": "a"}), 405, "method_not_allowed"),
        ("GET", at("/nothing"), Value::Null, 404, "unknown_path"),
    ] {
        let answer = node.send(method, &path, body.clone()).await;
        assert_eq!(answer.error(), (status, code.to_owned()), "{method} {path} {body}");
        assert!(answer.text.len() < 700, "{}", answer.text);
    }
    let raw = async |body: String, kind: &str| {
        let request =
            Request::post("/api/v1/rooms").header("content-type", kind).body(Body::from(body)).unwrap();
        node.call(request).await.error()
    };
    assert_eq!(raw("{\"name\":".into(), "application/json").await, (400, "bad_json".into()));
    assert_eq!(raw("{\"name\":\"a\"}".into(), "text/plain").await, (415, "unsupported_media_type".into()));
    assert_eq!(raw("x".repeat(2 << 20), "application/json").await, (413, "too_large".into()));
    assert_eq!(node.get(&at("")).await.json(), room, "nothing has happened");
    assert_eq!(node.get("/api/v1/rooms").await.json()["rooms"].as_array().unwrap().len(), 1);

    // A thousand members are possible, one more is not.
    for number in 0..1000 {
        let member = store::PersonId::new(&format!("p{number}")).unwrap();
        let room = store::RoomId::new(id).unwrap();
        node.store().put_member(&room, &member, store::MemberWish::default()).unwrap();
    }
    let full = node.send("PUT", &at("/members/ana"), Value::Null).await;
    assert_eq!(full.error(), (422, "too_many_members".into()));
}

#[tokio::test]
async fn the_sensors_of_a_room_are_listed_in_pages() {
    let node = Node::open();
    for index in 0..7 {
        node.append(&format!("s{index}/temperature"), [START + index], numbers(1, vec![20.5])).await;
    }
    let wish = json!({"name": "Lab", "sensors": ["s1", "s3", "s5", "not-yet"]});
    let room = node.send("POST", "/api/v1/rooms", wish).await.json()["room"].as_str().unwrap().to_owned();
    let ids = async |query: &str| {
        let page = node.get(&format!("/api/v1/sensors?room={room}&{query}")).await.json();
        let ids: Vec<_> =
            page["sensors"].as_array().unwrap().iter().map(|one| one["sensor"].clone()).collect();
        (ids, page["next"].clone())
    };
    assert_eq!(ids("").await, (vec![json!("s1"), json!("s3"), json!("s5")], Value::Null));
    assert_eq!(ids("limit=2").await, (vec![json!("s1"), json!("s3")], json!("s3")));
    assert_eq!(ids("limit=2&cursor=s3").await, (vec![json!("s5")], Value::Null));
    assert_eq!(ids("q=S3").await, (vec![json!("s3")], Value::Null));
    let all = node.get(&format!("/api/v1/sensors?room={room}")).await.json();
    assert_eq!(all["sensors"][1], node.get("/api/v1/sensors/s3").await.json());
    let _device = node.store().device(&crate::common::sensor("s3"));
    let presence = node.get(&format!("/api/v1/rooms/{room}/presence")).await.json();
    assert_eq!(presence, json!({"people": [], "devices": [{"sensor": "s3", "node": "a"}]}));
}

/// Tries codes from an address, one request behind the other on one connection: the status of each.
async fn try_codes(from: IpAddr, node: SocketAddr, codes: impl Iterator<Item = String>) -> Vec<u16> {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(from, 0)).unwrap();
    let mut stream = socket.connect(node).await.unwrap();
    let mut statuses = Vec::new();
    for code in codes {
        let request = format!("GET /api/v1/join/{code} HTTP/1.1\r\nhost: {node}\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let (mut answer, mut part) = (String::new(), [0; 4096]);
        // The body is an object of two levels, or of one.
        while !(answer.ends_with("}}") || answer.ends_with("\"}")) {
            let read = stream.read(&mut part).await.unwrap();
            assert!(read > 0, "{answer}");
            answer.push_str(std::str::from_utf8(&part[..read]).unwrap());
        }
        let status: u16 = answer.split(' ').nth(1).unwrap().parse().unwrap();
        assert_eq!(status == 429, answer.contains("too_many_wrong_codes"), "{answer}");
        assert!(status != 429 || answer.to_lowercase().contains("retry-after: "), "{answer}");
        statuses.push(status);
    }
    statuses
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_wrong_codes_from_one_address_are_refused_and_a_right_one_from_another_is_not() {
    let node = Node::open();
    let address = node.serve().await;
    let room = node.send("POST", "/api/v1/rooms", json!({"name": "Lab"})).await.json();
    let code = code_of(&room);
    let wrong = |n: u32| format!("AAAA{:04}", 2222 + n % 7777).replace(['0', '1'], "Z");
    let (guesser, other): (IpAddr, IpAddr) = ("127.0.0.2".parse().unwrap(), "127.0.0.3".parse().unwrap());
    let began = Instant::now();
    let statuses = try_codes(guesser, address, (0..1000).map(wrong)).await;
    let took = began.elapsed();
    let answered = statuses.iter().filter(|status| **status == 404).count();
    let refused = statuses.iter().filter(|status| **status == 429).count();
    println!("1000 wrong codes in {took:?}: {answered} answered, {refused} refused");
    // A few more for a machine that takes its time.
    let more = took.as_secs() / web::guesses::ONE_EVERY.as_secs() + 1;
    assert!(answered >= AT_ONCE as usize && answered as u64 <= u64::from(AT_ONCE) + more, "{answered}");
    assert_eq!(answered + refused, 1000);
    assert!(took < Duration::from_secs(30), "refusing is cheap: {took:?}");
    assert_eq!(try_codes(guesser, address, std::iter::once(code.clone())).await, [429], "a right one too");
    assert_eq!(try_codes(other, address, [wrong(1), code].into_iter()).await, [404, 200]);
    let metrics = node.get("/metrics").await.text;
    let count = |fate: &str| {
        let name = format!("sensorium_join_codes_total{{fate=\"{fate}\"}} ");
        metrics.lines().find_map(|line| line.strip_prefix(&name)?.parse::<usize>().ok()).unwrap()
    };
    assert_eq!((count("wrong"), count("refused")), (answered + 1, refused + 1));
}

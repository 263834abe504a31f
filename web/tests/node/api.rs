//! The HTTP API, called without a socket.

use axum::body::Body;
use axum::http::Request;
use serde_json::{Value, json};
use store::{AttributeDescription, Description, Kind, Values};

use crate::common::{Node, attribute, numbers, sensor};

/// 2025-11-21T10:00:00Z in microseconds.
const START: i64 = 1_763_719_200_000_000;

#[tokio::test]
async fn a_node_and_its_cluster_of_one() {
    let node = Node::open();
    let about = node.get("/api/v1/node").await.json();
    assert_eq!((about["node"].as_str(), about["http"].as_str()), (Some("a"), Some("http://127.0.0.1:4000")));
    assert_eq!(
        (about["mqtt"].as_str(), about["peer"].as_str()),
        (Some("mqtt://127.0.0.1:1883"), Some("127.0.0.1:4400"))
    );
    assert_eq!(about["id"].as_str().unwrap().len(), 16);
    assert!(about["uptime_s"].as_f64().unwrap() >= 0.0 && about["version"].is_string());

    node.append("strap-7/ecg", [START], numbers(1, vec![0.5])).await;
    let cluster = node.get("/api/v1/cluster").await.json();
    assert_eq!((&cluster["partitions"], &cluster["replicas"]), (&json!(1024), &json!(3)));
    let members = cluster["nodes"].as_array().unwrap();
    assert_eq!((members.len(), &members[0]["id"], &members[0]["state"]), (1, &about["id"], &json!("alive")));
    assert_eq!(members[0]["sensors"], 1);
    for figure in ["devices", "viewers", "samples_per_second", "memory_bytes", "disk_bytes", "lag_ms"] {
        assert!(members[0][figure].is_number(), "{figure}: {cluster}");
    }
}

#[tokio::test]
async fn sensors_are_listed_in_pages_and_found_by_id_or_name() {
    let node = Node::open();
    for index in 0..7 {
        node.append(&format!("s{index}/temperature"), [START + index], numbers(1, vec![20.5])).await;
    }
    let description = Description { name: Some("Greenhouse NORTH".into()), attributes: Vec::new() };
    node.store().describe(&sensor("s3"), &description).unwrap();

    let (mut seen, mut cursor) = (Vec::new(), String::new());
    for _ in 0..4 {
        let page = node.get(&format!("/api/v1/sensors?limit=2&cursor={cursor}")).await.json();
        let ids =
            page["sensors"].as_array().unwrap().iter().map(|one| one["sensor"].as_str().unwrap().to_owned());
        seen.extend(ids);
        match page["next"].as_str() {
            Some(next) => next.clone_into(&mut cursor),
            None => break,
        }
    }
    assert_eq!(seen, ["s0", "s1", "s2", "s3", "s4", "s5", "s6"]);

    let found = node.get("/api/v1/sensors?q=north").await.json();
    assert_eq!(found["sensors"].as_array().unwrap().len(), 1);
    assert_eq!(found["next"], Value::Null);
    let one = node.get("/api/v1/sensors/s3").await.json();
    assert_eq!(one, found["sensors"][0]);
    assert_eq!(one["name"], "Greenhouse NORTH");
    assert_eq!((&one["online"], &one["node"]), (&json!(false), &json!("a")));
    assert_eq!(one["last_ts"].as_f64(), Some((START + 3) as f64 / 1000.0));
    assert_eq!(
        one["attributes"]["temperature"],
        json!({"kind": "temperature", "unit": "Cel", "channels": ["value"], "units": ["Cel"], "rate_hz": null,
               "keep": 1000, "held": 1, "last": {"ts": (START + 3) as f64 / 1000.0, "value": 20.5}})
    );
    let _online = node.store().device(&sensor("s3"));
    assert_eq!(node.get("/api/v1/sensors/s3").await.json()["online"], true);
}

#[tokio::test]
async fn samples_come_in_three_formats_to_the_last_digit() {
    let node = Node::open();
    let flat = vec![0.1 + 0.2, -9.806_65, f64::NAN, 1e-7];
    node.append("imu-1/acc", [START, START + 2_778], numbers(2, flat)).await;
    let path = "/api/v1/sensors/imu-1/acc/samples";

    let answer = node.get(path).await;
    assert_eq!(answer.headers["content-type"], "application/json");
    assert!(
        answer.text.contains(r#"{"ts":1763719200000,"value":[0.30000000000000004,-9.80665]}"#),
        "{}",
        answer.text
    );
    assert!(answer.text.contains(r#"{"ts":1763719200002.778,"value":[null,1e-7]}"#), "{}", answer.text);
    let body = answer.json();
    assert_eq!(
        (&body["sensor"], &body["attribute"], &body["kind"]),
        (&json!("imu-1"), &json!("acc"), &json!("number"))
    );
    assert_eq!(body["channels"], json!(["value", "value_2"]));

    let csv = node.get_as(path, "text/csv").await;
    assert!(csv.headers["content-type"].to_str().unwrap().starts_with("text/csv"));
    assert_eq!(
        csv.text,
        "ts,value,value_2\n1763719200000,0.30000000000000004,-9.80665\n1763719200002.778,,1e-7\n"
    );

    let senml = node.get_as(path, "application/senml+json").await;
    assert_eq!(senml.headers["content-type"], "application/senml+json");
    assert_eq!(
        senml.text,
        concat!(
            r#"[{"n":"imu-1/acc/value","t":1763719200,"v":0.30000000000000004},"#,
            r#"{"n":"imu-1/acc/value_2","t":1763719200,"v":-9.80665},"#,
            r#"{"n":"imu-1/acc/value_2","t":1763719200.002778,"v":1e-7}]"#
        )
    );

    node.append("door/button", [START], Values::Texts(vec!["opened, \"wide\"".into()])).await;
    let csv = node.get_as("/api/v1/sensors/door/button/samples", "text/csv").await;
    assert_eq!(csv.text, "ts,value\n1763719200000,\"opened, \"\"wide\"\"\"\n");
    let json = node.get("/api/v1/sensors/door/button/samples").await.json();
    assert_eq!((&json["channels"], &json["samples"][0]["value"]), (&json!([]), &json!("opened, \"wide\"")));
}

#[tokio::test]
async fn a_whole_ring_of_the_largest_size_is_read_back() {
    let node = Node::open();
    let wanted = AttributeDescription {
        kind: Some(Kind::Ecg),
        keep: Some(store::MAX_KEEP),
        ..AttributeDescription::default()
    };
    let description = Description { name: None, attributes: vec![(attribute("ecg"), wanted)] };
    node.store().describe(&sensor("big"), &description).unwrap();
    let value = |index: i64| (index as f64).sin();
    for chunk in 0..10 {
        let range = chunk * 10_000..(chunk + 1) * 10_000;
        let flat = range.clone().map(value).collect();
        node.append("big/ecg", range.map(|index| START + index * 2_778), numbers(1, flat)).await;
    }
    let body = node.get("/api/v1/sensors/big/ecg/samples?limit=100000").await.json();
    let samples = body["samples"].as_array().unwrap();
    assert_eq!(samples.len(), 100_000);
    for (index, sample) in (0..).zip(samples) {
        assert_eq!(sample["ts"].as_f64(), Some((START + index * 2_778) as f64 / 1000.0));
        assert_eq!(sample["value"].as_f64().map(f64::to_bits), Some(value(index).to_bits()));
    }
    let thinned = node.get("/api/v1/sensors/big/ecg/samples?limit=100000&points=200").await.json();
    let count = thinned["samples"].as_array().unwrap().len();
    assert!((2..=200).contains(&count), "{count}");
}

#[tokio::test]
async fn spans_are_half_open_and_the_newest_come() {
    let node = Node::open();
    let values = numbers(1, (0..1000).map(f64::from).collect());
    node.append("s/a", (0..1000).map(|index| START + index * 1000), values).await;
    let read = async |query: String| -> Vec<f64> {
        let body = node.get(&format!("/api/v1/sensors/s/a/samples?{query}")).await.json();
        body["samples"].as_array().unwrap().iter().map(|sample| sample["value"].as_f64().unwrap()).collect()
    };
    let ms = START / 1000;
    assert_eq!(read(String::new()).await, (900..1000).map(f64::from).collect::<Vec<_>>());
    assert_eq!(read(format!("from={}&to={}", ms + 10, ms + 13)).await, [10.0, 11.0, 12.0]);
    assert_eq!(read(format!("from={}.001&to={}", ms + 10, ms + 12)).await, [11.0]);
    assert_eq!(read(format!("to={}&limit=2", ms + 5)).await, [3.0, 4.0]);
    assert_eq!(read(format!("from={}", ms + 5000)).await, [0.0; 0]);
}

#[tokio::test]
async fn what_may_not_be_asked_is_refused_by_name() {
    let node = Node::open();
    node.append("s/a", [START], numbers(1, vec![1.0])).await;
    for query in [
        "limit=0",
        "limit=100001",
        "limit=many",
        "points=1",
        "points=x",
        "from=now",
        "to=NaN",
        "limit=1&limit=2",
    ] {
        let answer = node.get(&format!("/api/v1/sensors/s/a/samples?{query}")).await;
        assert_eq!(answer.error(), (400, "bad_query".into()), "{query}");
        let named = query.rsplit('&').next().unwrap();
        assert!(answer.text.contains(named), "{query}: {}", answer.text);
    }
    assert_eq!(node.get("/api/v1/sensors?limit=1001").await.error(), (400, "bad_query".into()));
    for (path, code) in [
        ("/api/v1/sensors/nobody", "unknown_sensor"),
        ("/api/v1/sensors/nobody/ledger", "unknown_sensor"),
        ("/api/v1/sensors/nobody/a/samples", "unknown_sensor"),
        ("/api/v1/sensors/s/nothing/samples", "unknown_attribute"),
        ("/api/v1/sensors?room=r1", "unknown_room"),
        ("/api/v1/rooms/r1", "unknown_room"),
        ("/api/v1", "unknown_path"),
        ("/api/", "unknown_path"),
        ("/health/nonsense", "unknown_path"),
    ] {
        assert_eq!(node.get(path).await.error(), (404, code.into()), "{path}");
    }
    // The framework's own refusals have the same shape.
    let post = Request::post("/api/v1/node").body(Body::empty()).unwrap();
    assert_eq!(node.call(post).await.error(), (405, "method_not_allowed".into()));
    assert_eq!(node.get("/api/v1/live").await.error(), (400, "malformed".into()));
    assert_eq!(node.get("/api/v1/sensors/%ff").await.error().0, 400);
}

#[tokio::test]
async fn the_ledger_accounts_for_every_sample() {
    let node = Node::open();
    node.append("s/a", [START, START + 1], numbers(1, vec![1.0, 2.0])).await;
    node.append("s/a", [START, START + 1], numbers(1, vec![1.0, 3.0])).await;
    node.store().refused(Some(&sensor("s")), "time_in_future", 4);
    let ledger = node.get("/api/v1/sensors/s/ledger").await.json();
    assert_eq!(
        ledger,
        json!({"received": 8, "stored": 2, "duplicate": 1, "late": 0, "replaced": 1, "cleared": 0, "evicted": 0,
               "merged": 0, "refused": {"time_in_future": 4}})
    );
}

#[tokio::test]
async fn a_cleared_sensor_is_gone_and_comes_back_empty() {
    let node = Node::open();
    let delete = async |path: &str, origin: Option<&str>| {
        let mut request = Request::delete(path).header("host", "127.0.0.1:4000");
        if let Some(origin) = origin {
            request = request.header("origin", origin);
        }
        node.call(request.body(Body::empty()).unwrap()).await
    };
    node.append("s/a", [START, START + 1000], numbers(1, vec![1.0, 2.0])).await;
    node.append("s/b", [START], Values::Texts(vec!["on".into()])).await;
    node.append("t/a", [START], numbers(1, vec![1.0])).await;
    for (path, code) in [
        ("/api/v1/sensors/nobody", "unknown_sensor"),
        ("/api/v1/sensors/no%20id", "unknown_sensor"),
        ("/api/v1/sensors/s/a", "unknown_path"),
    ] {
        assert_eq!(delete(path, None).await.error(), (404, code.to_owned()), "{path}");
    }
    assert_eq!(delete("/api/v1/sensors", None).await.error(), (405, "method_not_allowed".into()));
    let foreign = delete("/api/v1/sensors/s", Some("https://evil.example")).await;
    assert_eq!(foreign.error(), (403, "foreign_origin".into()));
    assert_eq!(node.get("/api/v1/sensors/s").await.status, 200, "nothing has happened yet");

    let answer = delete("/api/v1/sensors/s", None).await;
    assert_eq!((answer.status.as_u16(), answer.text.as_str()), (204, ""));
    for path in ["sensors/s", "sensors/s/ledger", "sensors/s/a/samples", "sensors/s/b/samples"] {
        let answer = node.get(&format!("/api/v1/{path}")).await;
        assert_eq!(answer.error(), (404, "unknown_sensor".into()), "{path}");
    }
    assert_eq!(delete("/api/v1/sensors/s", None).await.error(), (404, "unknown_sensor".into()));
    let listed = node.get("/api/v1/sensors").await.json();
    assert_eq!(
        (listed["sensors"].as_array().unwrap().len(), &listed["sensors"][0]["sensor"]),
        (1, &json!("t"))
    );
    assert_eq!(node.get("/sensors/s").await.status, 404, "the page says so too");

    // It sends again, what is older than all that was cleared as well.
    node.append("s/a", [START - 1000], numbers(1, vec![3.0])).await;
    let samples = node.get("/api/v1/sensors/s/a/samples").await.json();
    assert_eq!(samples["samples"], json!([{"ts": START / 1000 - 1, "value": 3}]));
    let sensor = node.get("/api/v1/sensors/s").await.json();
    assert_eq!(sensor["attributes"].as_object().unwrap().keys().collect::<Vec<_>>(), ["a"]);
    assert_eq!(sensor["attributes"]["a"]["held"], 1);
    assert_eq!(sensor.get("gone"), None);
    let ledger = node.get("/api/v1/sensors/s/ledger").await.json();
    assert_eq!(
        (&ledger["received"], &ledger["stored"], &ledger["cleared"]),
        (&json!(4), &json!(1), &json!(3))
    );
}

#[tokio::test]
async fn health_and_metrics() {
    let node = Node::open();
    node.append("s/a", [START], numbers(1, vec![1.0])).await;
    assert_eq!(node.get("/health/live").await.status, 200);
    assert_eq!(node.get("/health/ready").await.json(), json!({"ready": true}));
    let metrics = node.get("/metrics").await;
    assert!(metrics.headers["content-type"].to_str().unwrap().starts_with("text/plain; version=0.0.4"));
    assert!(metrics.text.contains("\nsensorium_samples_received_total 1\n"), "{}", metrics.text);
    for line in metrics.text.lines().filter(|line| !line.starts_with('#')) {
        let (name, value) = line.rsplit_once(' ').unwrap();
        assert!(name.starts_with("sensorium_") && value.parse::<f64>().is_ok(), "{line}");
        let base = name.split('{').next().unwrap().trim_end_matches("_sum").trim_end_matches("_count");
        assert!(metrics.text.contains(&format!("# TYPE {base} ")), "{line}");
    }

    node.state.stop().cancel();
    assert_eq!(node.get("/health/live").await.status, 200);
    let stopping = node.get("/health/ready").await;
    assert_eq!(stopping.error(), (503, "not_ready".into()));
    assert!(stopping.headers.contains_key("retry-after"));
}

#[tokio::test]
async fn a_page_of_a_foreign_origin_changes_nothing() {
    let allowed = Node::open_as(|setup| setup.allow_origins = vec!["https://app.example".into()]);
    let wide = Node::open_as(|setup| setup.loopback = false);
    let local = Node::open();
    let post = async |node: &Node, host: &str, origin: Option<&str>| {
        let mut request = Request::post("/api/v1/node").header("host", host);
        if let Some(origin) = origin {
            request = request.header("origin", origin);
        }
        node.call(request.body(Body::empty()).unwrap()).await.error().1
    };
    let through = "method_not_allowed";
    for (node, host, origin, expected) in [
        (&local, "127.0.0.1:4000", None, through),
        (&local, "127.0.0.1:4000", Some("http://127.0.0.1:4000"), through),
        (&local, "localhost:4000", Some("http://localhost:4000"), through),
        (&local, "localhost:4000", Some("http://127.0.0.1:4000"), through),
        (&local, "127.0.0.1:4000", Some("http://127.0.0.1:9000"), "foreign_origin"),
        (&local, "127.0.0.1:4000", Some("https://evil.example"), "foreign_origin"),
        (&local, "127.0.0.1:4000", Some("null"), "foreign_origin"),
        (&local, "127.0.0.1:4000", Some("http://127.0.0.1:4000.evil.example"), "foreign_origin"),
        // An attacker's name that leads to this machine.
        (&local, "evil.example:4000", Some("http://evil.example:4000"), "foreign_origin"),
        (&wide, "lab.example:4000", Some("http://lab.example:4000"), through),
        (&wide, "lab.example:4000", Some("http://evil.example:4000"), "foreign_origin"),
        (&allowed, "127.0.0.1:4000", Some("https://app.example"), through),
        (&allowed, "127.0.0.1:4000", Some("https://app.example.evil.example"), "foreign_origin"),
    ] {
        assert_eq!(post(node, host, origin).await, expected, "{host} {origin:?}");
    }
    // Reading is for everyone: browsers keep the answer from foreign pages themselves.
    let read =
        Request::get("/api/v1/node").header("origin", "https://evil.example").body(Body::empty()).unwrap();
    assert_eq!(local.call(read).await.status, 200);
}

#[tokio::test]
async fn every_answer_has_the_headers_that_protect_a_page() {
    let node = Node::open();
    for path in ["/", "/nowhere", "/api/v1/node"] {
        let headers = node.get(path).await.headers;
        let policy = headers["content-security-policy"].to_str().unwrap();
        assert!(
            policy.contains("default-src 'self'") && policy.contains("connect-src 'self' ws:"),
            "{policy}"
        );
        assert_eq!(headers["x-content-type-options"], "nosniff");
    }
    assert_eq!(node.get("/nowhere").await.status, 404);
}

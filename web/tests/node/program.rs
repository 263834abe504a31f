//! The program: what it prints, how it ends, what it refuses, and what it finds again.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use store::{Attribute, Batch, NodeName, SampleTime, SensorId, Shape, Store, Times, Values};

use crate::process::{ANY_PORTS, Running, run, sensorium};

fn directory() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

#[test]
fn it_says_once_where_it_serves_and_stops_in_order() {
    let data = directory();
    let node = Running::start(&data.path().join("made/by/it"));
    let words: Vec<&str> = node.ready.trim_end().split(' ').collect();
    let keys: Vec<&str> = words[1..].iter().map(|pair| pair.split_once('=').unwrap().0).collect();
    assert_eq!((words[0], &keys[..]), ("ready", &["node", "http", "mqtt", "peer"][..]));
    for key in ["http", "mqtt", "peer"] {
        assert_ne!(node.told(key).parse::<std::net::SocketAddr>().unwrap().port(), 0, "{key}");
    }
    let about = node.json("/api/v1/node");
    assert_eq!(about["node"], node.told("node"));
    assert_eq!(about["http"], format!("http://{}", node.told("http")));
    assert_eq!(about["mqtt"], format!("mqtt://{}", node.told("mqtt")));
    assert_eq!(about["peer"], node.told("peer"));
    assert_eq!(node.get("/health/ready").0, 200);

    // A stranger on the peers' address is cut off.
    let mut peer = std::net::TcpStream::connect(node.told("peer")).unwrap();
    peer.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    assert!(peer.read_to_end(&mut Vec::new()).is_ok_and(|read| read < 64), "no more than TLS's own alert");

    let dashboard = format!("the dashboard is at http://{}", node.told("http"));
    let began = Instant::now();
    node.signal(Signal::TERM);
    let (status, rest, log) = node.ended();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(began.elapsed() < Duration::from_secs(10));
    assert_eq!(rest, "", "the ready line is the only one");
    assert!(log.contains(&dashboard), "{log}");
}

#[test]
fn ctrl_c_is_a_stop_as_well_and_an_idle_connection_does_not_hold_it_up() {
    let data = directory();
    let node = Running::start(data.path());
    let _idle = std::net::TcpStream::connect(node.http()).unwrap();
    let began = Instant::now();
    node.signal(Signal::INT);
    let (status, _, log) = node.ended();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(began.elapsed() < Duration::from_secs(10));
}

#[test]
fn option_over_environment_over_file_over_default() {
    let dir = directory();
    let file = dir.path().join("sensorium.toml");
    let data = dir.path().join("data");
    std::fs::write(&file, "name = 'from-file'\nkeep = 7\nzone = 'z-file'\nno-mqtt = true\n").unwrap();
    let check = |env: &[(&str, &str)], args: &[&str]| {
        let mut command =
            sensorium(&["check", "--verbose", "--http", "127.0.0.1:0", "--peer", "127.0.0.1:0"]);
        command.args(["--data", data.to_str().unwrap()]).args(args).envs(env.iter().copied());
        let (code, out, err) = run(command);
        assert_eq!(code, 0, "{err}");
        move |name: &str| {
            let line = out.lines().find(|line| line.trim_start().starts_with(&format!("{name} ")));
            line.unwrap_or_else(|| panic!("{name} in {out}")).split_whitespace().nth(1).unwrap().to_owned()
        }
    };
    let file_option = ["--config", file.to_str().unwrap()];
    let from_file = check(&[], &file_option);
    assert_eq!((from_file("name"), from_file("keep")), ("from-file".into(), "7".into()));
    assert_eq!((from_file("zone"), from_file("mqtt")), ("z-file".into(), "none".into()));
    assert_eq!(from_file("replicas"), "3");

    let env = [("SENSORIUM_NAME", "from-env"), ("SENSORIUM_KEEP", "8")];
    let from_env = check(&env, &file_option);
    assert_eq!(
        (from_env("name"), from_env("keep"), from_env("zone")),
        ("from-env".into(), "8".into(), "z-file".into())
    );

    let said = check(&env, &[&file_option[..], &["--name", "from-option"]].concat());
    assert_eq!(
        (said("name"), said("keep"), said("zone")),
        ("from-option".into(), "8".into(), "z-file".into())
    );

    // The file may be named by the environment; a running node obeys it as well.
    let mut command = sensorium(&["--http", "127.0.0.1:0", "--peer", "127.0.0.1:0"]);
    command.args(["--data", data.to_str().unwrap()]).env("SENSORIUM_CONFIG", &file);
    let node = Running::spawn(command);
    assert_eq!((node.told("node"), node.told("mqtt")), ("from-file", "none"));
    assert_eq!(node.json("/api/v1/node")["mqtt"], serde_json::Value::Null);
}

#[test]
fn what_cannot_be_run_is_refused_with_the_reason() {
    let dir = directory();
    let data = dir.path().join("data");
    let file = dir.path().join("bad.toml");
    std::fs::write(&file, "nmae = 'a'\n").unwrap();
    let start = |args: &[&str]| {
        let mut command = sensorium(&[]);
        if !["token", "status"].contains(&args[0]) {
            command.args(["--data", data.to_str().unwrap()]);
        }
        let (code, out, err) = run({
            command.args(args);
            command
        });
        assert_eq!(out, "", "{args:?}");
        (code, err)
    };
    for (args, named) in [
        (&["--http", "0.0.0.0:0"][..], "--insecure-open"),
        (&["--mqtt", "0.0.0.0:0"], "--insecure-open"),
        (&["--peer", "0.0.0.0:0"], "--cluster-secret"),
        (&["--join", "10.0.0.1:4400"], "--cluster-secret"),
        (&["--discover", "mdns"], "--cluster-secret"),
        (&["--public-peer", "lab.example:4400"], "--cluster-secret"),
        (&["--cluster-secret", ""], "--cluster-secret is empty"),
        (&["--ack-copies", "4"], "--ack-copies 4 is more than --replicas 3"),
        (&["--auth-secret", "x"], "--auth-secret"),
        (&["--tls-self-signed"], "--tls-self-signed"),
        (&["--tls-cert", "c.pem", "--tls-key", "k.pem"], "--tls-key k.pem"),
        (&["--min-copies", "3"], "--min-copies 3 is more than --ack-copies 2"),
        (&["--config", file.to_str().unwrap()], "nmae"),
        (&["--config", "/nonexistent/sensorium.toml"], "/nonexistent/sensorium.toml"),
        (&["--public-http", "lab.example"], "--public-http"),
        (&["token", "device"], "--auth-secret"),
        (&["status", "--http", "http://127.0.0.1:1"], "127.0.0.1:1"),
        (&["status", "--http", "ftp://x"], "ftp://x"),
    ] {
        let (code, err) = start(args);
        assert_eq!(code, 1, "{args:?}: {err}");
        assert!(err.contains(named), "{args:?}: {err}");
    }
    assert!(!data.exists(), "nothing was made");
    for args in [
        &["--nonsense"][..],
        &["--keep", "0"],
        &["--keep", "100001"],
        &["--name", "a/b"],
        &["--http", "nowhere"],
        &["--memory-limit", "much"],
        &["--replace-after", "10 years"],
        &["--replicas", "0"],
        &["--join", "nowhere"],
        &["--join", "::1:4400"],
        &["--discover", "consul"],
        &["--public-peer", "http://a:1"],
        &["token", "king"],
        &["dance"],
    ] {
        let mut command = sensorium(args);
        command.current_dir(dir.path());
        let (code, out, err) = run(command);
        assert_eq!((code, out.as_str()), (2, ""), "{args:?}: {err}");
    }
    for args in [&["--help"][..], &["--version"], &["serve", "--help"]] {
        let (code, out, _) = run(sensorium(args));
        assert!(code == 0 && out.contains("sensorium"), "{args:?}");
    }
}

#[test]
fn a_second_start_on_the_same_data_says_so() {
    let data = directory();
    let node = Running::start(data.path());
    for command in [&[][..], &["check"]] {
        let mut second = sensorium(command);
        second.args(ANY_PORTS).arg("--data").arg(data.path());
        let (code, out, err) = run(second);
        assert_eq!((code, out.as_str()), (1, ""));
        assert!(err.contains(data.path().to_str().unwrap()) && err.contains("in use"), "{err}");
    }
    assert_eq!(node.get("/health/ready").0, 200, "the first does not notice");
    // Killed, it lets go of the directory.
    node.kill();
    drop(Running::start(data.path()));
}

#[test]
fn a_taken_address_is_named() {
    let data = directory();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for option in ["--http", "--mqtt", "--peer"] {
        let others = ["--http", "--mqtt", "--peer"].into_iter().filter(|other| *other != option);
        let rest: Vec<&str> = others.flat_map(|other| [other, "127.0.0.1:0"]).collect();
        for command in ["serve", "check"] {
            let mut start = sensorium(&[command, option, &address]);
            start.args(&rest).arg("--data").arg(data.path());
            let (code, _, err) = run(start);
            assert_eq!(code, 1, "{err}");
            assert!(err.contains(&format!("{option} {address}")), "{err}");
        }
    }
}

#[test]
fn peers_need_their_address_for_datagrams_too() {
    let data = directory();
    let taken = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for command in ["serve", "check"] {
        let mut start = sensorium(&[command, "--http", "127.0.0.1:0", "--mqtt", "127.0.0.1:0"]);
        start.args(["--peer", &address, "--data"]).arg(data.path());
        let (code, _, err) = run(start);
        assert_eq!(code, 1, "{err}");
        assert!(err.contains(&format!("--peer {address}")) && err.contains("datagrams"), "{err}");
    }
}

#[test]
fn check_says_what_it_found_and_makes_nothing() {
    let dir = directory();
    let data = dir.path().join("data");
    let check = |data: &std::path::Path| {
        let mut command = sensorium(&["check", "--verbose"]);
        command.args(ANY_PORTS).arg("--data").arg(data);
        run(command)
    };
    let (code, out, _) = check(&data);
    assert!(code == 0 && out.contains("will be made") && out.contains("would start"), "{out}");
    assert!(out.contains("cluster secret: none; needed as soon as --peer"), "{out}");
    assert!(!data.exists());
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let (code, out, err) = check(&file.join("below"));
    assert!(code == 1 && !out.contains("would start") && err.contains("below"), "{out}{err}");
    drop(Running::start(&data));
    let (code, out, _) = check(&data);
    assert!(code == 0 && out.contains("holds 0 samples of 0 sensors"), "{out}");
}

#[test]
fn check_tells_what_peers_it_would_try_and_no_secret() {
    let dir = directory();
    let there = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let here = listener.local_addr().unwrap();
    let check = |more: &[&str]| {
        let mut command = sensorium(&["check", "--verbose", "--cluster-secret", "very secret"]);
        command.args(ANY_PORTS).arg("--data").arg(dir.path().join("data")).args(more);
        let (code, out, err) = run(command);
        assert_eq!(code, 0, "peers that are away do not keep a node from starting: {err}");
        assert!(!out.contains("very secret") && !err.contains("very secret"), "{out}{err}");
        assert!(out.contains("ok    cluster secret: set"), "{out}");
        out
    };
    let out = check(&["--join", &here.to_string(), "--join", &there.to_string()]);
    assert!(out.contains(&format!("ok    peer {here} accepts connections")), "{out}");
    assert!(out.contains(&format!("note  peer {there} does not answer")), "{out}");
    let out = check(&["--discover", &format!("dns:localhost:{}", here.port())]);
    assert!(out.contains(&format!("--discover dns:localhost:{} leads to ", here.port())), "{out}");
    assert!(out.contains(&format!("ok    peer {here} accepts connections")), "{out}");
    // A name that cannot be: its label is longer than DNS allows.
    let out = check(&["--join", &format!("{}:1", "x".repeat(64))]);
    assert!(out.contains("leads nowhere now"), "{out}");
    assert!(check(&[]).contains("peers: none are named"));
    // Whether anybody is there is the machine's affair; that it was looked for is told.
    let out = check(&["--discover", "mdns"]);
    assert!(out.contains("--discover mdns finds ") || out.contains("--discover mdns: nobody "), "{out}");
}

#[test]
fn a_damaged_file_is_named_and_left_alone() {
    let data = directory();
    drop(Running::start(data.path()));
    let file = std::fs::read_dir(data.path()).unwrap().next().unwrap().unwrap().path();
    let damaged = vec![0xa5; 65_536];
    std::fs::write(&file, &damaged).unwrap();
    for command in ["serve", "check"] {
        let mut start = sensorium(&[command]);
        start.args(ANY_PORTS).arg("--data").arg(data.path());
        let (code, out, err) = run(start);
        assert_eq!((code, out.as_str()), (1, ""), "{err}");
        assert!(err.contains(file.to_str().unwrap()), "{err}");
        assert!(!err.contains("panicked"), "{err}");
    }
    assert_eq!(std::fs::read(&file).unwrap(), damaged);
}

#[test]
fn status_shows_the_node_as_a_table_and_as_json() {
    let data = directory();
    let node = Running::start(data.path());
    let url = format!("http://{}", node.http());
    let (code, table, _) = run(sensorium(&["status", "--http", &url]));
    assert_eq!(code, 0);
    let rows: Vec<&str> = table.lines().collect();
    assert!(rows[0].starts_with("NODE") && rows[1].starts_with(node.told("node")), "{table}");
    assert!(rows[1].contains("alive") && rows[2].starts_with("1 node: 1 alive"), "{table}");
    let (code, json, _) = run(sensorium(&["status", "--json", "--http", &url]));
    let cluster: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((code, &cluster["nodes"][0]["state"]), (0, &"alive".into()));
}

#[test]
fn it_serves_what_was_kept_before() {
    let data = directory();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let config = store::Config::new(data.path(), NodeName::new("before").unwrap());
        let store = Store::open(config).unwrap();
        let (sensor, attribute) = (SensorId::new("strap-7").unwrap(), Attribute::new("ecg").unwrap());
        let series = store.series(&sensor, &attribute, Shape::Numbers(1)).unwrap();
        let times = Times::At(vec![SampleTime(1_763_719_200_002_778)]);
        let values = Values::Numbers { channels: 1, flat: vec![-0.145] };
        let appended = store.append(vec![Batch { series, times, values }]).await.unwrap();
        appended.ticket.kept().await.unwrap();
        store.close().await;
    });
    let mut command = sensorium(&ANY_PORTS);
    command.args(["--name", "after"]).arg("--data").arg(data.path());
    let node = Running::spawn(command);
    let listed = node.json("/api/v1/sensors");
    assert_eq!(listed["sensors"][0]["sensor"], "strap-7");
    assert_eq!(listed["sensors"][0]["last_ts"], 1_763_719_200_002.778);
    assert_eq!(listed["sensors"][0]["attributes"]["ecg"]["last"]["value"], -0.145);
}

//! Mosquitto's command-line clients, in both versions. They are looked for; without them these tests say so and, when
//! `REQUIRE_ALL=1`, fail.

use std::io::Write;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use tokio::runtime::Runtime;

use crate::node::{NEVER, Node, node};

/// A node, on a runtime of its own: these tests wait for processes.
fn with_node(test: impl FnOnce(&Node)) {
    let found = Command::new("mosquitto_pub").arg("--version").stdout(Stdio::null()).status().is_ok();
    if !found {
        let required = std::env::var("REQUIRE_ALL").is_ok_and(|value| value == "1");
        assert!(!required, "mosquitto_pub is not installed (mosquitto-clients), and REQUIRE_ALL=1");
        eprintln!("SKIPPED: mosquitto_pub is not installed (mosquitto-clients)");
        return;
    }
    let runtime = Runtime::new().unwrap();
    let node = runtime.block_on(node());
    test(&node);
    runtime.block_on(node.empty());
}

fn command(node: &Node, program: &str, version: &str) -> Command {
    let mut command = Command::new(program);
    command.args(["-h", "127.0.0.1", "-p", &node.address.port().to_string(), "-V", version]);
    command
}

/// A subscriber, subscribed. It ends by itself after 20 s, and writes out what it got when it ends.
fn subscriber(node: &Node, version: &str, arguments: &[&str]) -> Child {
    let before = node.hub.sizes().1;
    let child = command(node, "mosquitto_sub", version)
        .args(["-W", "20", "-v"])
        .args(arguments)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let begun = Instant::now();
    while node.hub.sizes().1 == before {
        assert!(begun.elapsed() < NEVER, "it does not subscribe");
        std::thread::yield_now();
    }
    child
}

/// What a subscriber has got, at its end.
fn messages(child: Child) -> Vec<String> {
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "not all came");
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn mosquitto_publishes_lines_and_subscribes_to_them() {
    with_node(|node| {
        for version in ["mqttv311", "mqttv5"] {
            for qos in ["0", "1", "2"] {
                let sensor = format!("{version}-{qos}");
                let filter = format!("sensors/{sensor}/#");
                let subscriber = subscriber(node, version, &["-t", &filter, "-q", qos, "-C", "100"]);
                let mut publisher = command(node, "mosquitto_pub", version)
                    .args(["-t", &format!("sensors/{sensor}/a"), "-q", qos, "-l"])
                    .stdin(Stdio::piped())
                    .spawn()
                    .unwrap();
                let mut stdin = publisher.stdin.take().unwrap();
                for index in 0..100 {
                    writeln!(stdin, "{{\"ts\":{index},\"value\":{}}}", f64::from(index) / 3.0).unwrap();
                }
                drop(stdin);
                assert!(publisher.wait().unwrap().success(), "{sensor}");
                let wanted: Vec<String> = (0..100)
                    .map(|index| {
                        format!("sensors/{sensor}/a {{\"ts\":{index},\"value\":{}}}", f64::from(index) / 3.0)
                    })
                    .collect();
                assert_eq!(messages(subscriber), wanted, "{sensor}");
                assert_eq!(node.count(&sensor, "a"), 100);
            }
        }
    });
}

#[test]
fn mosquitto_is_told_why_a_payload_is_refused() {
    with_node(|node| {
        let publish = |version: &str| {
            command(node, "mosquitto_pub", version)
                .args(["-t", "sensors/s/a", "-q", "1", "-m", "not json", "-d"])
                .output()
                .unwrap()
        };
        let refused = publish("mqttv5");
        let said = String::from_utf8([refused.stdout, refused.stderr].concat()).unwrap();
        assert!(said.contains("RC:153"), "{said}");
        // Version 3.1.1 has no way to be told: it is acknowledged, dropped and counted.
        assert!(publish("mqttv311").status.success());
        assert_eq!(node.store.stats().ledger.refused.values().sum::<u64>(), 2);
        assert_eq!(node.count("s", "a"), 0);
    });
}

#[test]
fn mosquitto_gets_a_will_and_a_retained_message() {
    with_node(|node| {
        let retained = command(node, "mosquitto_pub", "mqttv311")
            .args(["-t", "notes/door", "-r", "-q", "1", "-m", "open"])
            .status()
            .unwrap();
        assert!(retained.success());
        let will =
            ["--will-topic", "notes/will", "--will-payload", "gone", "--will-qos", "1", "-t", "nothing"];
        let mut dying = subscriber(node, "mqttv5", &will);
        let heir = subscriber(node, "mqttv311", &["-t", "notes/#", "-q", "1", "-C", "2"]);
        dying.kill().unwrap();
        dying.wait().unwrap();
        assert_eq!(messages(heir), ["notes/door open", "notes/will gone"]);
    });
}

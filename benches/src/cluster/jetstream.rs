//! Three `nats-server` processes with a JetStream stream of three replicas on disk, 1000 messages a subject.
//!
//! By default it does not sync what it acknowledges; a timer does, later. Version 2.9 has no setting for that
//! (`sync_interval: always` came with 2.10), so the variant that syncs has its directories under ext4's attribute `S`
//! (`chattr +S`): every write there is on disk before it returns, the log that its replicas vote with included.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

use super::contender::{Contender, Held, Line, NODES, View};
use super::member::{Member, free_addresses};
use super::nats::{Event, Nats};
use super::settings::Settings;
use crate::load::Error;
use crate::load::frames::{Encoding, Frames};
use crate::load::http::Client;

/// How long servers may take to agree on leaders and catch up.
const READY_WITHIN: Duration = Duration::from_secs(120);
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How long an answer of its API may take.
const ANSWERS_WITHIN: Duration = Duration::from_secs(2);
/// How long a replica may take until it serves its copy.
const SERVES_WITHIN: Duration = Duration::from_secs(30);
/// How often a copy is tried: now and then a replica that is current serves nothing by itself until all start again.
const READ_ATTEMPTS: usize = 3;
/// How often a publisher sends again what is not acknowledged: at once more than clients do by themselves.
const RESEND_AFTER: Duration = Duration::from_millis(250);
/// Subjects that a publisher's messages take in turn, so that 1000 a subject keep as much as our rings do.
const SUBJECTS: u64 = 100;
const PER_SUBJECT: u64 = 1000;
/// Requests for single messages that are on their way.
const READING: u64 = 2000;
const STREAM: &str = "SENSORS";
/// Where the consumer delivers to.
const DELIVER: &str = "viewers.all";
const WATCHED: u64 = 2;

/// A cluster, and the directory of its data.
pub struct JetStream {
    members: Vec<Member>,
    clients: [SocketAddr; NODES],
    monitors: [SocketAddr; NODES],
    synced: bool,
    configuration: String,
    runtime: Runtime,
    _dir: TempDir,
}

/// Tells connections apart.
fn inbox() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Where a message goes.
pub fn subject(publisher: usize, number: u64) -> String {
    format!("s.{publisher}.{}", number % SUBJECTS)
}

/// A message: who, which, and the same samples that ours would have.
pub fn payload(publisher: usize, number: u64, samples: &str) -> Vec<u8> {
    format!(r#"{{"p":{publisher},"n":{number},"values":{samples}"#).into_bytes()
}

/// The samples as JSON, with the brace that ends the message.
pub fn block(samples: usize) -> String {
    let frame = Frames::new(Encoding::Json, "value", samples, 1000).frame(1, store::SampleTime(0));
    let text = frame.into_text().map(|text| text.to_string()).unwrap_or_default();
    text.split_once(r#""values":"#).map(|(_, block)| block.to_owned()).unwrap_or_default()
}

/// Who and which, out of a message.
fn told(payload: &[u8]) -> Option<(usize, u64)> {
    let text = std::str::from_utf8(payload).ok()?;
    let number = |key: &str| {
        let rest = text.split_once(key)?.1;
        rest[..rest.find(|c: char| !c.is_ascii_digit())?].parse::<u64>().ok()
    };
    Some((number(r#""p":"#)? as usize, number(r#""n":"#)?))
}

impl JetStream {
    /// Starts three servers as they are by default.
    pub fn start(settings: &Settings) -> Result<Self, Error> {
        Self::start_as(settings, false)
    }

    /// Starts three servers that have every write on disk before it returns.
    pub fn start_synced(settings: &Settings) -> Result<Self, Error> {
        Self::start_as(settings, true)
    }

    fn start_as(settings: &Settings, synced: bool) -> Result<Self, Error> {
        std::fs::create_dir_all(&settings.dir)?;
        let dir = TempDir::with_prefix_in("nats-", &settings.dir)?;
        let [clients, monitors, routes] = free_addresses()?;
        let mut members = Vec::new();
        let mut configuration = String::new();
        for at in 0..NODES {
            let name = ["n1", "n2", "n3"][at];
            let data = dir.path().join(name);
            std::fs::create_dir_all(&data)?;
            let others: Vec<String> = routes.iter().map(|route| format!("nats://{route}")).collect();
            configuration = format!(
                "server_name: {name}\nlisten: \"{}\"\nhttp: \"{}\"\njetstream {{ store_dir: {:?} }}\n\
                 cluster {{ name: bench, listen: \"{}\", routes: [{}] }}\n",
                clients[at],
                monitors[at],
                data.display().to_string(),
                routes[at],
                others.join(", ")
            );
            let file = dir.path().join(format!("{name}.conf"));
            std::fs::write(&file, &configuration)?;
            let args: Vec<OsString> = vec!["-c".into(), file.into()];
            members.push(Member::new(name, data, settings.nats_server.clone(), args, clients[at]));
        }
        if synced {
            for member in &members {
                let done = Command::new("chattr").arg("+S").arg(&member.data).status()?;
                if !done.success() {
                    return Err("the file system has no attribute for synchronous writes".into());
                }
            }
        }
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let mut cluster = Self { members, clients, monitors, synced, configuration, runtime, _dir: dir };
        cluster.members.iter_mut().try_for_each(Member::start)?;
        cluster.create()?;
        cluster.ready()?;
        Ok(cluster)
    }

    fn stream() -> Value {
        json!({"name": STREAM, "subjects": ["s.>"], "retention": "limits", "storage": "file", "num_replicas": NODES,
               "max_msgs_per_subject": PER_SUBJECT, "discard": "old", "allow_direct": true})
    }

    /// Creates the stream, as soon as the servers have a leader for such things.
    fn create(&self) -> Result<(), Error> {
        let began = Instant::now();
        loop {
            match self.api(&format!("STREAM.CREATE.{STREAM}"), &Self::stream()) {
                Ok(_) => return Ok(()),
                Err(error) if began.elapsed() > READY_WITHIN => return Err(error),
                Err(_) => std::thread::sleep(LOOK_EVERY),
            }
        }
    }

    /// Asks the API on whichever server answers.
    fn api(&self, call: &str, body: &Value) -> Result<Value, Error> {
        let mut last = Error::from("no server runs");
        for server in self.clients {
            let answer = self.runtime.block_on(async {
                let mut nats = Nats::connect(server, &inbox()).await?;
                nats.api(call, body, ANSWERS_WITHIN).await
            });
            match answer {
                Ok(answer) => return Ok(answer),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// What the stream says of its leader and its replicas.
    fn info(&self) -> Result<Value, Error> {
        self.api(&format!("STREAM.INFO.{STREAM}"), &Value::Null)
    }

    fn leader(&self) -> Result<usize, Error> {
        let info = self.info()?;
        let leader = info["cluster"]["leader"].as_str().unwrap_or_default();
        let found = self.members.iter().position(|member| member.name == leader);
        found.ok_or_else(|| "the stream has no leader".into())
    }

    /// What this server's own copy of the stream holds: messages, first and last number.
    pub fn state(&self, at: usize) -> Result<State, Error> {
        let answer = Client::connect(self.monitors[at])?.get("/jsz?accs=true&streams=true")?;
        let answer: Value = serde_json::from_slice(&answer)?;
        let streams = answer["account_details"][0]["stream_detail"].as_array();
        let stream = streams.and_then(|streams| streams.iter().find(|stream| stream["name"] == STREAM));
        let state = &stream.ok_or("the server has no copy of the stream")?["state"];
        let number = |key: &str| state[key].as_u64().ok_or_else(|| format!("no {key}"));
        Ok(State { messages: number("messages")?, first: number("first_seq")?, last: number("last_seq")? })
    }

    /// Whether all servers have the same of the stream, and its leader says that they are current; else why not.
    fn is_ready(&self) -> Result<(), Error> {
        let info = self.info()?;
        let replicas = info["cluster"]["replicas"].as_array().ok_or("no replicas")?;
        if replicas.len() != NODES - 1 || replicas.iter().any(|replica| replica["current"] != true) {
            return Err(format!("replicas {replicas:?}").into());
        }
        self.leader().map(drop)
    }

    /// Reads every message of the copy of this server. A request for one goes to any replica, so the others are killed
    /// meanwhile, and started again.
    fn read(&mut self, at: usize, publishers: usize) -> Result<Held, Error> {
        let state = self.state(at)?;
        let name = self.members[at].name.clone();
        let others = || (0..NODES).filter(|other| *other != at);
        for other in others() {
            self.members[other].kill()?;
        }
        let began = Instant::now();
        let read = loop {
            match self.runtime.block_on(read_all(self.clients[at], state, publishers)) {
                // Until it has noticed that the others are gone, it asks them.
                Err(_) if began.elapsed() < SERVES_WITHIN => std::thread::sleep(LOOK_EVERY),
                read => break read,
            }
        };
        for other in others() {
            self.members[other].start()?;
        }
        self.ready()?;
        let numbers = read.map_err(|error| format!("the copy of {name} cannot be read: {error}"))?;
        Ok(Held { node: name, numbers })
    }
}

/// A copy of the stream.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct State {
    /// Messages that it holds.
    pub messages: u64,
    /// The first of its own numbers.
    pub first: u64,
    /// The last.
    pub last: u64,
}

/// Asks for every message by its number in the stream ("direct get", which the replica itself answers).
async fn read_all(server: SocketAddr, state: State, publishers: usize) -> Result<Vec<Vec<u64>>, Error> {
    let mut nats = Nats::connect(server, &inbox()).await?;
    let (mut asked, mut answered) = (state.first, state.first);
    let mut numbers = vec![Vec::new(); publishers];
    let (mut found, mut unserved) = (0, false);
    while answered <= state.last {
        while asked <= state.last && asked - answered < READING {
            let (reply, body) = (nats.reply(asked), format!(r#"{{"seq":{asked}}}"#));
            nats.publish(&format!("$JS.API.DIRECT.GET.{STREAM}"), &reply, body.as_bytes());
            asked += 1;
        }
        nats.flush().await?;
        let each = |event: Event<'_>| {
            let Event::Message { status, payload, .. } = event else { return };
            answered += 1;
            unserved |= status == Some(503);
            if let Some((publisher, number)) = told(payload).filter(|_| status.is_none()) {
                found += 1;
                numbers[publisher].push(number);
            }
        };
        tokio::time::timeout(ANSWERS_WITHIN, nats.receive(each)).await.map_err(|_| "it is silent")??;
        if unserved {
            return Err("it does not serve its copy".into());
        }
    }
    if found != state.messages {
        return Err(format!("it says that it holds {} messages, and gave {found}", state.messages).into());
    }
    numbers.iter_mut().for_each(|numbers| numbers.sort_unstable());
    Ok(numbers)
}

impl Contender for JetStream {
    type Line = Publisher;
    type View = Subscriber;

    fn name(&self) -> &'static str {
        if self.synced { "JetStream, synced" } else { "JetStream" }
    }

    fn configuration(&self) -> String {
        let version = Command::new("nats-server").arg("--version").output();
        let version = version.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
        let sync = if self.synced {
            "each write synced (`chattr +S` on store_dir; 2.9 has no `sync_interval`)"
        } else {
            "defaults: synced by a timer, not before it acknowledges"
        };
        let file = self.configuration.trim_end().replace('\n', "\n  ");
        format!(
            "{}; {sync}; as the third of three:\n  {file}\n  stream {}",
            version.unwrap_or_default(),
            Self::stream()
        )
    }

    fn members(&mut self) -> &mut [Member] {
        &mut self.members
    }

    fn addresses(&self) -> [SocketAddr; NODES] {
        self.clients
    }

    fn ready(&mut self) -> Result<Duration, Error> {
        let began = Instant::now();
        while let Err(reason) = self.is_ready() {
            if began.elapsed() > READY_WITHIN {
                let words: Vec<String> = self.members.iter().map(Member::last_words).collect();
                return Err(format!("the servers are not ready: {reason}; {}", words.join("\n---\n")).into());
            }
            std::thread::sleep(LOOK_EVERY);
        }
        Ok(began.elapsed())
    }

    fn victim(&mut self, _round: usize) -> Result<usize, Error> {
        self.leader()
    }

    fn copies(&mut self, publishers: usize) -> Vec<Result<Held, Error>> {
        let read = |at| {
            let mut read = self.read(at, publishers);
            for _ in 1..READ_ATTEMPTS {
                if read.is_err() {
                    read = self.read(at, publishers);
                }
            }
            read
        };
        (0..NODES).map(read).collect()
    }
}

/// A connection that publishes into the stream.
pub struct Publisher {
    nats: Nats,
    from: usize,
    block: String,
    inbox: usize,
}

impl Line for Publisher {
    const RESEND: Option<Duration> = Some(RESEND_AFTER);

    async fn open(address: SocketAddr, publisher: usize, samples: usize) -> Result<Self, Error> {
        let nats = Nats::connect(address, &inbox()).await?;
        let inbox = nats.reply(0).len() - 1;
        Ok(Self { nats, from: publisher, block: block(samples), inbox })
    }

    async fn put(&mut self, number: u64) -> Result<(), Error> {
        let (subject, reply) = (subject(self.from, number), self.nats.reply(number));
        let message = payload(self.from, number, &self.block);
        // Named, so that the stream knows it when it is sent again.
        self.nats.publish_once(&subject, &reply, &format!("{}-{number}", self.from), &message);
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), Error> {
        self.nats.flush().await
    }

    async fn kept(&mut self) -> Result<Vec<u64>, Error> {
        let (mut kept, inbox) = (Vec::new(), self.inbox);
        self.nats
            .receive(|event| {
                if let Event::Message { subject, status: None, payload } = event
                    && is_kept(payload)
                    && let Some(number) = subject.get(inbox..).and_then(|number| number.parse().ok())
                {
                    kept.push(number);
                }
            })
            .await?;
        Ok(kept)
    }

    fn fewest_copies(&self) -> Option<u8> {
        None
    }
}

/// Whether an answer says that the stream has it: `{"stream":"SENSORS","seq":7}`, and not `{"error":…}`.
pub fn is_kept(payload: &[u8]) -> bool {
    payload.starts_with(br#"{"stream":"#)
}

/// A connection that watches: either everything as it is published, whatever becomes of it, or what a durable consumer
/// of the stream delivers.
pub struct Subscriber {
    nats: Nats,
}

impl View for Subscriber {
    const WAYS: &'static [&'static str] = &["plain subscription", "durable consumer"];

    async fn open(
        address: SocketAddr,
        way: usize,
        _samples: usize,
        since: &[Option<u64>],
    ) -> Result<Self, Error> {
        let mut nats = Nats::connect(address, &inbox()).await?;
        nats.subscribe(["s.>", DELIVER][way], WATCHED);
        nats.flush().await?;
        if way == 1 && since.iter().all(Option::is_none) {
            let consumer = json!({"stream_name": STREAM, "config": {"durable_name": "viewer", "deliver_subject": DELIVER,
                "ack_policy": "none", "deliver_policy": "new", "replay_policy": "instant"}});
            nats.api(&format!("CONSUMER.DURABLE.CREATE.{STREAM}.viewer"), &consumer, ANSWERS_WITHIN).await?;
        }
        Ok(Self { nats })
    }

    async fn next(&mut self) -> Result<Vec<(usize, u64)>, Error> {
        let mut messages = Vec::new();
        self.nats
            .receive(|event| {
                if let Event::Message { payload, .. } = event {
                    messages.extend(told(payload));
                }
            })
            .await?;
        Ok(messages)
    }

    async fn nudge(&mut self) -> Result<(), Error> {
        self.nats.ping();
        self.nats.flush().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_say_who_and_which() {
        for (publisher, number, samples) in [(0, 0, 1), (12, 98_765, 10)] {
            let bytes = payload(publisher, number, &block(samples));
            assert_eq!(told(&bytes), Some((publisher, number)));
            let value: Value = serde_json::from_slice(&bytes).unwrap();
            assert_eq!(value["values"].as_array().unwrap().len(), samples);
        }
        assert_eq!(told(b"{}"), None);
        assert!(is_kept(br#"{"stream":"SENSORS","seq":7}"#) && !is_kept(br#"{"error":{"code":503}}"#));
    }
}

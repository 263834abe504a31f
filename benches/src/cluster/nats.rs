//! A client of NATS: as much of its protocol as it takes to publish, subscribe and ask
//! (<https://docs.nats.io/reference/reference-protocols/nats-protocol>). JetStream is requests in JSON over that.
//!
//! Written here rather than taken from `async-nats`, which would bring dozens of crates that nothing else needs, and
//! whose own reconnecting and buffering would stand between the measurement and the server.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::load::Error;

/// How long the server may take to greet.
const GREETS_WITHIN: Duration = Duration::from_secs(2);
/// Most bytes of a message that is not whole: far above the server's own bound of 1 MiB.
const MAX_INPUT: usize = 16 << 20;
/// Subscription of the answers to requests.
const ANSWERS: u64 = 1;
const CONNECT: &[u8] = b"CONNECT {\"verbose\":false,\"pedantic\":false,\"lang\":\"rust\",\"version\":\"0\",\
    \"protocol\":1,\"headers\":true,\"no_responders\":true}\r\nPING\r\n";

/// What the server sends.
#[derive(Debug, PartialEq)]
pub enum Event<'a> {
    /// A message of a subscription.
    Message {
        /// Where it was published.
        subject: &'a str,
        /// A status that its headers begin with: 503 no responders, 404 not found.
        status: Option<u16>,
        /// What it says.
        payload: &'a [u8],
    },
    /// The answer to a ping.
    Pong,
}

/// A connection that was greeted.
pub struct Nats {
    stream: TcpStream,
    out: Vec<u8>,
    input: Vec<u8>,
    inbox: String,
    asked: u64,
}

impl Nats {
    /// Connects. `inbox` is where answers come to; no other connection may have the same.
    pub async fn connect(server: SocketAddr, inbox: &str) -> Result<Self, Error> {
        let stream = TcpStream::connect(server).await?;
        stream.set_nodelay(true)?;
        let inbox = format!("_INBOX.{inbox}");
        let mut nats = Self { stream, out: CONNECT.to_vec(), input: Vec::new(), inbox, asked: 0 };
        nats.flush().await?;
        let greeted = async {
            let mut greeted = false;
            while !greeted {
                nats.receive(|event| greeted |= event == Event::Pong).await?;
            }
            Ok::<_, Error>(())
        };
        timeout(GREETS_WITHIN, greeted).await.map_err(|_| "the server does not greet")??;
        nats.subscribe(&format!("{}.*", nats.inbox), ANSWERS);
        nats.flush().await?;
        Ok(nats)
    }

    /// Where answer number `number` comes to.
    pub fn reply(&self, number: u64) -> String {
        format!("{}.{number}", self.inbox)
    }

    /// Writes a subscription into the buffer.
    pub fn subscribe(&mut self, subject: &str, id: u64) {
        self.out.extend(format!("SUB {subject} {id}\r\n").as_bytes());
    }

    /// Writes a ping into the buffer.
    pub fn ping(&mut self) {
        self.out.extend(b"PING\r\n");
    }

    /// Writes a message into the buffer.
    pub fn publish(&mut self, subject: &str, reply: &str, payload: &[u8]) {
        self.out.extend(format!("PUB {subject} {reply} {}\r\n", payload.len()).as_bytes());
        self.out.extend(payload);
        self.out.extend(b"\r\n");
    }

    /// The same with an id by which the stream knows a message that it has already.
    pub fn publish_once(&mut self, subject: &str, reply: &str, id: &str, payload: &[u8]) {
        let headers = format!("NATS/1.0\r\nNats-Msg-Id: {id}\r\n\r\n");
        let (length, total) = (headers.len(), headers.len() + payload.len());
        self.out.extend(format!("HPUB {subject} {reply} {length} {total}\r\n{headers}").as_bytes());
        self.out.extend(payload);
        self.out.extend(b"\r\n");
    }

    /// Sends the buffer.
    pub async fn flush(&mut self) -> Result<(), Error> {
        self.stream.write_all(&self.out).await?;
        self.out.clear();
        Ok(())
    }

    /// Waits for bytes, and hands out every event that is whole. Cancel-safe: what was read is kept.
    pub async fn receive(&mut self, mut each: impl FnMut(Event<'_>)) -> Result<(), Error> {
        if self.stream.read_buf(&mut self.input).await? == 0 {
            return Err("the server closed the connection".into());
        }
        let mut at = 0;
        while let Some(end) = parse(&self.input[at..], &mut self.out, &mut each)? {
            at += end;
        }
        self.input.drain(..at);
        if self.input.len() > MAX_INPUT {
            return Err("a message without an end".into());
        }
        Ok(())
    }

    /// Asks, and waits for the answer: its status, where it has one, and its payload.
    pub async fn request(
        &mut self,
        subject: &str,
        payload: &[u8],
        within: Duration,
    ) -> Result<(Option<u16>, Vec<u8>), Error> {
        self.asked += 1;
        // Apart from the numbers of messages that are published on the same connection.
        let reply = self.reply(u64::MAX - self.asked);
        self.publish(subject, &reply, payload);
        let asking = async {
            loop {
                self.flush().await?;
                let mut answer = None;
                self.receive(|event| match event {
                    Event::Message { subject, status, payload } if subject == reply => {
                        answer = Some((status, payload.to_vec()));
                    }
                    _ => {}
                })
                .await?;
                if let Some(answer) = answer {
                    return Ok(answer);
                }
            }
        };
        timeout(within, asking).await.map_err(|_| format!("{subject}: no answer"))?
    }

    /// Asks JetStream. An error that it answers is one here.
    pub async fn api(&mut self, call: &str, body: &Value, within: Duration) -> Result<Value, Error> {
        let payload = if body.is_null() { Vec::new() } else { serde_json::to_vec(body)? };
        let (status, answer) = self.request(&format!("$JS.API.{call}"), &payload, within).await?;
        if let Some(status) = status {
            return Err(format!("{call}: status {status}").into());
        }
        let answer: Value = serde_json::from_slice(&answer)?;
        match answer.get("error") {
            Some(error) => Err(format!("{call}: {error}").into()),
            None => Ok(answer),
        }
    }
}

/// Reads one operation off the front of `bytes`; pings are answered into `out`. Returns where it ends, `None` when it is
/// not whole yet.
fn parse(bytes: &[u8], out: &mut Vec<u8>, each: &mut impl FnMut(Event<'_>)) -> Result<Option<usize>, Error> {
    let Some(line) = bytes.windows(2).position(|pair| pair == b"\r\n") else { return Ok(None) };
    let (text, body) = (std::str::from_utf8(&bytes[..line])?, line + 2);
    let (operation, rest) = text.split_once(' ').unwrap_or((text, ""));
    let words: Vec<&str> = rest.split_whitespace().collect();
    let length = |word: Option<&&str>| -> Result<usize, Error> {
        Ok(word.ok_or_else(|| format!("{text} is cut short"))?.parse()?)
    };
    let (headers, total) = match operation {
        "MSG" => (0, length(words.last())?),
        "HMSG" => (length(words.iter().rev().nth(1))?, length(words.last())?),
        "PING" => {
            out.extend(b"PONG\r\n");
            return Ok(Some(body));
        }
        "PONG" => {
            each(Event::Pong);
            return Ok(Some(body));
        }
        "INFO" | "+OK" => return Ok(Some(body)),
        _ => return Err(format!("the server said {text}").into()),
    };
    let Some(content) = bytes.get(body..body + total) else { return Ok(None) };
    if bytes.len() < body + total + 2 {
        return Ok(None);
    }
    let (head, payload) = content.split_at_checked(headers).ok_or("headers longer than their message")?;
    // `NATS/1.0 503`, or `NATS/1.0` and header lines.
    let first = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let status = std::str::from_utf8(first)?.split_whitespace().nth(1).and_then(|word| word.parse().ok());
    each(Event::Message { subject: words.first().copied().unwrap_or_default(), status, payload });
    Ok(Some(body + total + 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> (Vec<String>, Vec<u8>, usize) {
        let (mut events, mut out, mut at) = (Vec::new(), Vec::new(), 0);
        let mut each = |event: Event<'_>| events.push(format!("{event:?}"));
        while let Some(end) = parse(&bytes[at..], &mut out, &mut each).unwrap() {
            at += end;
        }
        (events, out, at)
    }

    #[test]
    fn operations_are_read_when_they_are_whole() {
        let bytes = b"INFO {\"a\":1}\r\nPONG\r\nMSG s.1 7 5\r\nhe\r\no\r\nPING\r\nHMSG r 1 reply.to 16 16\r\nNATS/1.0 503\r\n\r\n\r\n\
                      HMSG r 1 18 20\r\nNATS/1.0\r\nA: 1\r\n\r\nok\r\n";
        let (events, out, at) = read(bytes);
        assert_eq!(at, bytes.len());
        assert_eq!(out, b"PONG\r\n");
        assert_eq!(events.len(), 4, "{events:?}");
        assert!(events[1].contains("s.1") && events[1].contains("[104, 101, 13, 10, 111]"), "{}", events[1]);
        assert!(events[2].contains("Some(503)") && events[3].contains("[111, 107]"), "{events:?}");
        for cut in 0..bytes.len() {
            let (before, _, at) = read(&bytes[..cut]);
            let (after, _, rest) = read(&bytes[at..]);
            assert_eq!(([before, after].concat(), at + rest), (events.clone(), bytes.len()), "cut at {cut}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_an_error() {
        for bytes in [
            &b"-ERR 'Unknown Protocol Operation'\r\n"[..],
            b"MSG a\r\n",
            b"HMSG a 1 9 3\r\nabc\r\n",
            b"\xFF\r\n",
        ] {
            assert!(parse(bytes, &mut Vec::new(), &mut |_| {}).is_err(), "{bytes:?}");
        }
    }
}

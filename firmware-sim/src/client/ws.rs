//! One WebSocket connection: `hello`, then frames numbered from 1, until the window is empty for good or the node is lost.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use ingest::wire::message::{CBOR, FromNode, Hello, Limits, ToNode, from_cbor, to_cbor};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async_with_config};

use super::{ACK_WITHIN, Advice, CONNECT_WITHIN, End, GOODBYE, Heard, Shared, until};

/// Read buffer; what a node says is short.
const READ_BUFFER: usize = 8 * 1024;
/// Longest message taken from a node.
const MAX_MESSAGE: usize = 1024 * 1024;

/// The one refusal that says nothing of the frame, but that the node cannot keep data now.
const CANNOT_KEEP: &str = "store_failed";

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

struct Connection {
    socket: Socket,
    cbor: bool,
    limits: Limits,
    seq: u64,
}

/// Connects to `url`, and stays until the end.
pub async fn connect(url: &str, cbor: bool, shared: &mut Shared) -> End {
    let mut connection = match timeout(CONNECT_WITHIN, open(url, cbor)).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => return again(format!("cannot connect: {error}")),
        Err(_) => return again("cannot connect: no answer".to_owned()),
    };
    match timeout(CONNECT_WITHIN, connection.greet(shared)).await {
        Ok(Ok(())) => {}
        Ok(Err(end)) => return end,
        Err(_) => return again("no welcome".to_owned()),
    }
    shared.connected(url);
    let end = connection.work(shared).await;
    if end.is_orderly() {
        // The other side may be gone: what cannot be said in time is left unsaid.
        let _ = timeout(GOODBYE, connection.socket.close(None)).await;
    }
    end
}

fn again(why: String) -> End {
    End::Again { why, delay: None }
}

async fn open(url: &str, cbor: bool) -> Result<Connection, Error> {
    let mut request = url.into_client_request()?;
    if cbor {
        request.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static(CBOR));
    }
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        .max_message_size(Some(MAX_MESSAGE))
        .max_frame_size(Some(MAX_MESSAGE));
    let (socket, _) = connect_async_with_config(request, Some(config), true).await?;
    let limits = Limits { max_frame_bytes: usize::MAX, max_samples_per_frame: usize::MAX };
    Ok(Connection { socket, cbor, limits, seq: 0 })
}

impl Connection {
    /// Says hello and waits for the welcome.
    async fn greet(&mut self, shared: &mut Shared) -> Result<(), End> {
        let hello = ToNode::Hello(Hello {
            sensor: shared.device.sensor.clone(),
            name: shared.device.name.clone(),
            attributes: shared.device.attributes.clone(),
            token: shared.token.clone(),
        });
        self.say(self.write(&hello)).await?;
        loop {
            match self.hear().await? {
                Some(FromNode::Welcome { nodes, limits, .. }) => {
                    self.limits = limits;
                    shared.addresses.learn(&nodes);
                    return Ok(());
                }
                Some(FromNode::Reconnect { delay_ms, nodes }) => return Err(moved(shared, delay_ms, &nodes)),
                Some(FromNode::Error { code, message, .. }) => {
                    shared.window.complaint(&format!("hello: {code}: {message}"));
                    // Every node would say the same of this hello, unless it only cannot keep it now.
                    return Err(if code == CANNOT_KEEP { again(code) } else { End::GaveUp });
                }
                _ => {}
            }
        }
    }

    async fn work(&mut self, shared: &mut Shared) -> End {
        let mut heard = Heard::now();
        loop {
            while let Some(batch) = shared.to_send() {
                let number = self.seq + 1;
                let (frame, bytes) = if self.cbor {
                    let bytes = batch.to_cbor(number);
                    let length = bytes.len();
                    (Message::binary(bytes), length)
                } else {
                    let text = batch.to_json(number);
                    let length = text.len();
                    (Message::text(text), length)
                };
                if bytes > self.limits.max_frame_bytes || batch.len() > self.limits.max_samples_per_frame {
                    shared.window.unfit("frame_too_large");
                    continue;
                }
                if let Err(end) = self.say(frame).await {
                    return end;
                }
                self.seq = number;
                shared.window.sent(number);
            }
            if shared.closed && shared.window.is_empty() {
                return End::Done;
            }
            let room = shared.window.has_room() && !shared.closed;
            let stalled = shared.window.owed_since().map(|since| since + ACK_WITHIN);
            // All branches are cancel safe: streams keep what they have read, channels and timers take nothing.
            tokio::select! {
                message = self.hear() => {
                    heard = Heard::now();
                    match message {
                        Ok(Some(message)) => if let Some(end) = self.obey(message, shared).await { return end },
                        Ok(None) => {}
                        Err(end) => return end,
                    }
                }
                batch = shared.batches.recv(), if room => match batch {
                    Some(batch) => shared.window.take(batch),
                    None => shared.closed = true,
                },
                () = tokio::time::sleep_until(heard.patience()) => {
                    if std::mem::replace(&mut heard.asked, true) {
                        return again("the node is silent".to_owned());
                    }
                    if let Err(end) = self.say(Message::Ping(Vec::new().into())).await {
                        return end;
                    }
                }
                () = until(shared.window.deadline()) => return End::GaveUp,
                () = until(stalled) => return again("no acknowledgement".to_owned()),
            }
        }
    }

    async fn obey(&mut self, message: FromNode, shared: &mut Shared) -> Option<End> {
        match message {
            FromNode::Ack { seq, copies } => {
                shared.window.acked_up_to(seq);
                shared.window.copies(copies);
            }
            // Nothing is wrong with the frame: it is sent again, to another node.
            FromNode::Error { code, .. } if code == CANNOT_KEEP => return Some(again(code)),
            // We count without gaps, so the node has missed a frame that it could not read: start anew.
            FromNode::Error { code, .. } if code == "seq_gap" => return Some(again(code)),
            FromNode::Error { seq: Some(seq), code, message } => {
                shared.window.refused(seq, &format!("{code}: {message}"));
            }
            FromNode::Error { seq: None, code, message } => {
                shared.window.complaint(&format!("{code}: {message}"));
            }
            FromNode::Notice { code, message } => {
                shared.window.complaint(&format!("notice: {code}: {message}"));
            }
            FromNode::Reconnect { delay_ms, nodes } => return Some(moved(shared, delay_ms, &nodes)),
            FromNode::Command { id, name, params } => {
                let result = serde_json::json!({ "name": name, "params": params });
                return self.say(self.write(&ToNode::Reply { id, result })).await.err();
            }
            FromNode::Advice { window_ms, max_samples, paused, .. } => {
                shared.advised(Advice::new(window_ms, max_samples, paused));
            }
            FromNode::Welcome { nodes, .. } | FromNode::Nodes { nodes } => shared.addresses.learn(&nodes),
        }
        None
    }

    fn write(&self, message: &ToNode<'_>) -> Message {
        if self.cbor {
            Message::binary(to_cbor(message))
        } else {
            Message::text(
                serde_json::to_string(message).expect("numbers, texts and lists of them are always written"),
            )
        }
    }

    async fn say(&mut self, message: Message) -> Result<(), End> {
        match timeout(ACK_WITHIN, self.socket.send(message)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(again(format!("connection lost: {error}"))),
            Err(_) => Err(again("the node reads nothing".to_owned())),
        }
    }

    /// The next message; `None` for what is not addressed to us. Cancel safe.
    async fn hear(&mut self) -> Result<Option<FromNode>, End> {
        let message = match self.socket.next().await {
            Some(Ok(message)) => message,
            Some(Err(error)) => return Err(again(format!("connection lost: {error}"))),
            None => return Err(again("connection closed".to_owned())),
        };
        let read = match &message {
            Message::Text(text) => serde_json::from_str(text.as_str()).map_err(|error| error.to_string()),
            Message::Binary(bytes) => from_cbor(bytes),
            Message::Close(Some(frame)) => {
                return Err(again(format!("closed: {} {}", u16::from(frame.code), frame.reason)));
            }
            _ => return Ok(None),
        };
        // An addition to the protocol that we do not know is not for us.
        Ok(read.ok())
    }
}

fn moved(shared: &mut Shared, delay_ms: u64, nodes: &[String]) -> End {
    shared.addresses.move_to(nodes);
    End::Again { why: "told to reconnect".to_owned(), delay: Some(Duration::from_millis(delay_ms)) }
}

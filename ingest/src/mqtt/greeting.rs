//! The first exchange: CONNECT, judged and answered. Whoever is turned away costs no more than its socket.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rumqttd::protocol::{
    ConnAckProperties, ConnectProperties, ConnectReturnCode, LastWill, LastWillProperties,
};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::codec::{self, BadHello, Hello, Version};
use super::desk::Desk;
use super::filter;
use super::hub::{Kept, MAX_AWAY_TIME, Previous, Takeover, Will};
use super::listener::Port;
use super::mailbox::{Mailbox, Message};
use super::session::{MAX_ALIASES, Memory, RECEIVE_MAXIMUM, Session};
use super::transport::{ReadError, Transport};
use super::uplink::Uplink;
use super::writer::Writer;
use crate::wire::topic::reserved;

/// Longest CONNECT: before it, a client may be anybody.
const MAX_HELLO_BYTES: usize = 128 * 1024;
/// Longest client id, in bytes.
const MAX_CLIENT_ID_BYTES: usize = 1024;
/// How long a connection whose client id was claimed by another has to hand its session over.
const TAKEOVER: Duration = Duration::from_secs(5);

/// A client that was let in.
pub(super) struct Greeted {
    pub(super) desk: Desk,
    pub(super) token: u64,
    pub(super) takeover: oneshot::Receiver<Takeover>,
    pub(super) keep_alive: Option<Duration>,
    pub(super) expiry: Duration,
}

/// Reads CONNECT and answers it. `None` when the client is turned away; what it is told waits in `transport`.
pub(super) async fn greet(transport: &mut Transport, port: &Arc<Port>) -> Option<Box<Greeted>> {
    let first = transport.first(MAX_HELLO_BYTES, |frame| codec::read_hello(&frame));
    let Ok(first) = timeout(port.settings.handshake, first).await else {
        return turn_away(port, "silent before CONNECT");
    };
    let hello = match first {
        Ok(Some(Ok(hello))) => hello,
        Ok(Some(Err(BadHello::Told(version, code, what)))) => {
            return refuse(transport, port, version, code, &what);
        }
        Ok(Some(Err(BadHello::Silent(what)))) => return turn_away(port, &what),
        Ok(None) | Err(ReadError::Io | ReadError::Taker(_)) => return None,
        Err(ReadError::Violation(violation)) => return turn_away(port, &violation.what),
    };
    match judge(&hello) {
        Ok(will) => Some(Box::new(admit(transport, port, hello, will).await)),
        Err((code, what)) => refuse(transport, port, hello.version, code, &what),
    }
}

fn turn_away<T>(port: &Port, what: &str) -> Option<T> {
    port.hub.counters.violations.add(1);
    tracing::info!(what, "not an MQTT client");
    None
}

fn refuse<T>(
    transport: &mut Transport,
    port: &Port,
    version: Version,
    code: ConnectReturnCode,
    what: &str,
) -> Option<T> {
    let properties = ConnAckProperties { reason_string: Some(what.into()), ..ConnAckProperties::default() };
    Writer { version, reasons: true }.connack(false, code, properties, &mut transport.out);
    turn_away(port, what)
}

/// Whether the client may come in; its will, if it has one.
fn judge(hello: &Hello) -> Result<Option<Box<Will>>, (ConnectReturnCode, String)> {
    let v5 = hello.version == Version::V5;
    // A version 3.1.1 client can be told of an identifier; for everything else its connection is closed, with the
    // code that comes nearest.
    let code = |code| if v5 { code } else { ConnectReturnCode::ServiceUnavailable };
    let id = &hello.connect.client_id;
    if id.len() > MAX_CLIENT_ID_BYTES {
        let what = format!("client id of {} bytes; at most {MAX_CLIENT_ID_BYTES} are taken", id.len());
        return Err((ConnectReturnCode::ClientIdentifierNotValid, what));
    }
    if id.is_empty() && !v5 && !hello.connect.clean_session {
        let what = "an empty client id wants a clean session".into();
        return Err((ConnectReturnCode::ClientIdentifierNotValid, what));
    }
    if let Some(properties) = &hello.properties {
        if properties.receive_maximum == Some(0) || properties.max_packet_size == Some(0) {
            let what = "receive maximum or maximum packet size of 0".into();
            return Err((ConnectReturnCode::ProtocolError, what));
        }
        if properties.authentication_method.is_some() {
            let what = "no authentication method is known".into();
            return Err((ConnectReturnCode::BadAuthenticationMethod, what));
        }
    }
    match &hello.will {
        None => Ok(None),
        Some((will, properties)) => read_will(will, properties.as_ref())
            .map(|will| Some(Box::new(will)))
            .map_err(|what| (code(ConnectReturnCode::TopicNameInvalid), what)),
    }
}

fn read_will(will: &LastWill, properties: Option<&LastWillProperties>) -> Result<Will, String> {
    let topic = std::str::from_utf8(&will.topic).map_err(|_| "will topic is not UTF-8".to_owned())?;
    filter::check_name(topic).map_err(|what| format!("will: {what}"))?;
    reserved(topic).map_or(Ok(()), |what| Err(format!("will: {what}")))?;
    let delay = properties.and_then(|properties| properties.delay_interval).unwrap_or_default();
    let message = Message {
        topic: topic.into(),
        payload: Bytes::copy_from_slice(&will.message),
        properties: properties.cloned().map(codec::will_properties),
        qos: will.qos,
        expires: None,
    };
    Ok(Will { message, retain: will.retain, delay: Duration::from_secs(delay.into()) })
}

async fn admit(
    transport: &mut Transport,
    port: &Arc<Port>,
    hello: Hello,
    will: Option<Box<Will>>,
) -> Greeted {
    let Hello { version, connect, properties, .. } = hello;
    let asked = properties.unwrap_or_else(no_properties);
    let mut told = ConnAckProperties::default();
    let client: Arc<str> = if connect.client_id.is_empty() {
        let assigned = format!("auto-{:016x}-{}", port.store.node().origin.start, port.hub.draw());
        told.assigned_client_identifier = Some(assigned.clone());
        assigned.into()
    } else {
        connect.client_id.as_str().into()
    };
    let asked_expiry = match version {
        Version::V4 if connect.clean_session => Duration::ZERO,
        Version::V4 => MAX_AWAY_TIME,
        Version::V5 => Duration::from_secs(asked.session_expiry_interval.unwrap_or_default().into()),
    };
    let expiry = asked_expiry.min(MAX_AWAY_TIME);
    if expiry < asked_expiry {
        told.session_expiry_interval = Some(expiry.as_secs() as u32);
    }
    let claim = port.hub.claim(&client);
    port.hub.hold_will(&client, claim.token, will.as_deref());
    let previous = match claim.previous {
        Previous::None => None,
        Previous::Away(kept) => Some(*kept),
        Previous::Held(kept) => timeout(TAKEOVER, kept).await.ok().and_then(Result::ok),
    };
    let kept = previous.and_then(|kept| {
        if connect.clean_session || kept.mailbox.is_broken() {
            port.hub.forget(&client, &kept);
            None
        } else {
            Some(kept)
        }
    });
    let session_present = kept.is_some();
    let Kept { memory, mailbox, samples } = kept.unwrap_or_else(|| Kept {
        memory: Memory::default(),
        mailbox: Arc::new(Mailbox::default()),
        samples: None,
    });
    let writer = Writer { version, reasons: asked.request_problem_info != Some(0) };
    told.receive_max = Some(RECEIVE_MAXIMUM);
    told.topic_alias_max = Some(MAX_ALIASES);
    told.max_packet_size = Some(port.settings.max_packet as u32);
    writer.connack(session_present, ConnectReturnCode::Success, told, &mut transport.out);
    let session = Session::new(
        writer,
        asked.receive_maximum.unwrap_or(u16::MAX),
        asked.max_packet_size.map_or(usize::MAX, |bytes| bytes as usize),
        memory,
    );
    let keep_alive = Duration::from_secs(connect.keep_alive.into()) * 3 / 2;
    let desk = Desk {
        client,
        session,
        uplink: Uplink::new(port.store.clone()),
        mailbox,
        samples,
        will,
        retaining: None,
        crowded: None,
        lasting: !expiry.is_zero(),
        port: port.clone(),
    };
    Greeted {
        desk,
        token: claim.token,
        takeover: claim.takeover,
        keep_alive: (!keep_alive.is_zero()).then_some(keep_alive),
        expiry,
    }
}

fn no_properties() -> ConnectProperties {
    ConnectProperties {
        session_expiry_interval: None,
        receive_maximum: None,
        max_packet_size: None,
        topic_alias_max: None,
        request_response_info: None,
        request_problem_info: None,
        user_properties: Vec::new(),
        authentication_method: None,
        authentication_data: None,
    }
}

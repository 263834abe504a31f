//! One viewer's connection, from its upgrade to its end.
//!
//! A sample is written as soon as the store hands it out: no timer and no batching beyond what waits already. A viewer
//! that reads slowly makes its own queue overflow and is told (`lag`); one that reads nothing is closed by the
//! listener. Ingest never waits for either.
//!
//! News of the cluster (a node came, went, or changed its state) ride with the beats: so the page knows where else it may
//! go, and however often the cluster changes, a viewer is told four times a second at most. Who watches the cluster
//! (`{"type":"watch","id":1,"cluster":true}`) gets the figures each second, and the event log whenever it grew.
//!
//! Every viewer is told of every room (`room`): at once of those that it watches or is in, of others with the beats. Of
//! people who come and go, and of a room that changes often, too, it is told at once and then with the beats (`pace`).

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use axum::extract::State as Extract;
use axum::extract::ws::{CloseFrame, Message as Frame, WebSocket, WebSocketUpgrade, close_code};
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use futures_util::SinkExt;
use serde_json::json;
use store::{Event, RoomId, SampleTime, Samples, SensorId, Series, SeriesId, Values};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::company::{self, Company};
use super::frame;
use super::gaze::Gazes;
use super::hub::{MAX_VIEWERS, Seat};
use super::message::{Message, Refused, Watch};
use super::pace::Pace;
use super::watches::{Followed, Opening, Turned, Watches};
use crate::api::cluster::Cluster;
use crate::api::query::Query;
use crate::api::sensors::Described;
use crate::encode::push_ts;
use crate::error::ApiError;
use crate::{State, nodes, rooms};

/// How often a viewer hears that the node lives.
const BEAT_EVERY: Duration = Duration::from_millis(250);
/// Longest message of a viewer; a longer one ends the connection.
const MAX_MESSAGE_BYTES: usize = 1 << 20;
/// Events written before the socket is flushed and other work is looked at.
const BURST: usize = 256;
/// Buffers of a connection.
const READ_BUFFER: usize = 4 * 1024;
const WRITE_BUFFER: usize = 16 * 1024;
/// How long a viewer has to take its farewell.
const FAREWELL: Duration = Duration::from_secs(1);
/// How long a viewer should wait before it goes to another node, at most; drawn anew for each.
const MAX_RECONNECT_DELAY_MS: u64 = 200;
/// Beats from one telling of the nodes' figures to the next.
const FIGURES_EVERY: u32 = 4;

/// How samples are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Json,
    Binary,
}

/// `GET /api/v1/live?format=json|binary`.
pub(crate) async fn upgrade(
    Extract(state): Extract<State>,
    uri: Uri,
    upgrade: WebSocketUpgrade,
) -> Result<Response, ApiError> {
    let query = Query::of(&uri)?;
    let format = match query.text("format")? {
        None | Some("json") => Format::Json,
        Some("binary") => Format::Binary,
        Some(other) => return Err(ApiError::bad_query("format", other, "json or binary")),
    };
    let seat = state.hub().enter().ok_or_else(|| {
        let message = format!("this node has {MAX_VIEWERS} viewers already");
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "too_many_viewers", message)
    })?;
    Ok(upgrade
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(WRITE_BUFFER)
        .max_message_size(MAX_MESSAGE_BYTES)
        .max_frame_size(MAX_MESSAGE_BYTES)
        .on_upgrade(move |socket| async move {
            let watches = Watches::new(state.store().clone());
            let gazes = Gazes::new(state.store().clone());
            let mut news = state.nodes().changed();
            news.mark_changed();
            let viewer = Viewer {
                state,
                socket,
                format,
                watches,
                gazes,
                company: Company::default(),
                opening: VecDeque::new(),
                rooms: Pace::default(),
                people: Pace::default(),
                news,
                cluster: HashSet::new(),
                beats: 0,
                seat,
            };
            viewer.run().await;
        }))
}

struct Viewer {
    state: State,
    socket: WebSocket,
    format: Format,
    watches: Watches,
    gazes: Gazes,
    company: Company,
    /// Series that are still to be followed.
    opening: VecDeque<Opening>,
    /// When it is told of rooms, and of the people in them.
    rooms: Pace,
    people: Pace,
    /// Says when there is news of the cluster.
    news: watch::Receiver<u64>,
    /// Watches that want its figures and events.
    cluster: HashSet<u64>,
    beats: u32,
    seat: Seat,
}

/// Why a connection ends.
enum End {
    /// The viewer left, or cannot be written to.
    Gone,
    /// It sent what is no WebSocket message, or one that is too long.
    Unreadable,
}

impl From<axum::Error> for End {
    fn from(_: axum::Error) -> Self {
        Self::Gone
    }
}

impl Viewer {
    async fn run(mut self) {
        let stop = self.state.stop().clone();
        // Dropped in the middle of a write, what was written stays in the socket's buffer and goes first.
        let end = tokio::select! {
            end = self.serve() => end,
            () = stop.cancelled() => None,
        };
        let farewell = async {
            match end {
                Some(End::Gone) => Ok(()),
                Some(End::Unreadable) => {
                    let reason = format!("expected text messages of at most {MAX_MESSAGE_BYTES} bytes");
                    self.close(close_code::SIZE, reason).await
                }
                None => {
                    let delay = rand::random_range(0..=MAX_RECONNECT_DELAY_MS);
                    let nodes = nodes::elsewhere(self.state.nodes());
                    let reconnect = json!({ "type": "reconnect", "delay_ms": delay, "nodes": nodes });
                    self.socket.feed(Frame::text(reconnect.to_string())).await?;
                    self.close(close_code::AWAY, "the node is stopping".to_owned()).await
                }
            }
        };
        if !matches!(timeout(FAREWELL, farewell).await, Ok(Ok(()))) {
            tracing::debug!("a viewer left before it was told to");
        }
    }

    async fn close(&mut self, code: u16, reason: String) -> Result<(), axum::Error> {
        self.socket.send(Frame::Close(Some(CloseFrame { code, reason: reason.into() }))).await
    }

    /// Until the viewer leaves. Every branch of the `select!` is cancel-safe.
    async fn serve(&mut self) -> Option<End> {
        let mut beat = interval(BEAT_EVERY);
        beat.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            let done = tokio::select! {
                _ = beat.tick() => self.beat().await,
                said = self.socket.recv() => match said {
                    Some(Ok(frame)) => self.hear(frame).await,
                    Some(Err(_)) => Err(End::Unreadable),
                    None => Err(End::Gone),
                },
                event = self.watches.next() => self.tell_burst(event).await,
                () = std::future::ready(()), if !self.opening.is_empty() => self.open_next().await,
            };
            if let Err(end) = done {
                return Some(end);
            }
        }
    }

    async fn beat(&mut self) -> Result<(), End> {
        let mut text = String::from(r#"{"type":"beat","ts":"#);
        push_ts(&mut text, SampleTime::now());
        text.push('}');
        self.socket.feed(Frame::text(text)).await?;
        self.beats = self.beats.wrapping_add(1);
        let (news, watched) = (self.news.has_changed().unwrap_or(false), !self.cluster.is_empty());
        if news || (watched && self.beats.is_multiple_of(FIGURES_EVERY)) {
            self.news.mark_unchanged();
            let cluster = Cluster::of(&self.state, news && watched);
            self.socket.feed(Frame::text(cluster.message())).await?;
        }
        for room in self.rooms.beat() {
            self.tell_room(&room).await?;
        }
        for room in self.people.beat() {
            self.tell_people(&room).await?;
        }
        Ok(self.socket.flush().await?)
    }

    async fn hear(&mut self, frame: Frame) -> Result<(), End> {
        let message = match frame {
            Frame::Text(text) => Message::parse(&text),
            Frame::Binary(_) => {
                let message = "a binary message; expected JSON text".to_owned();
                Err(Refused { code: "bad_message", message, id: None })
            }
            Frame::Ping(_) | Frame::Pong(_) => return Ok(()),
            Frame::Close(_) => return Err(End::Gone),
        };
        let heard = message.and_then(|message| match message {
            Message::Unwatch(id) => {
                self.unwatch(id);
                Ok(())
            }
            Message::Watch(watch) => self.watch(watch),
            Message::Enter(enter) => {
                self.company.enter(self.state.store(), self.watches.subscription(), &enter)
            }
            Message::Leave(room) => self.company.leave(self.watches.subscription(), &room),
            Message::Signal { room, to, data } => self.company.signal(self.state.store(), &room, &to, &data),
            Message::Battery { level, charging } => {
                self.gazes.battery(level, charging);
                Ok(())
            }
        });
        if let Err(refused) = heard {
            self.refuse(refused).await?;
            self.socket.flush().await?;
        }
        Ok(())
    }

    async fn refuse(&mut self, Refused { code, message, id }: Refused) -> Result<(), End> {
        let mut error = json!({ "type": "error", "code": code, "message": message });
        if let Some(id) = id {
            error["id"] = id.into();
        }
        Ok(self.socket.feed(Frame::text(error.to_string())).await?)
    }

    fn watch(&mut self, watch: Watch) -> Result<(), Refused> {
        let (id, attention, cluster) = (watch.id, watch.attention, watch.cluster);
        let named: Vec<SensorId> = watch.series.iter().map(|wish| wish.key.0.clone()).collect();
        self.opening.retain(|opening| opening.watch() != id);
        self.cluster.remove(&id);
        match self.watches.begin(watch) {
            Ok(openings) => self.opening.extend(openings),
            Err(refused) => {
                self.gazes.end(id);
                return Err(refused);
            }
        }
        if cluster {
            // With the next beat it gets all that there is to know.
            self.cluster.insert(id);
            self.news.mark_changed();
        }
        self.gazes.begin(id, named, self.watches.sensors(id), attention);
        Ok(())
    }

    fn unwatch(&mut self, id: u64) {
        self.opening.retain(|opening| opening.watch() != id);
        self.watches.end(id);
        self.gazes.end(id);
        self.cluster.remove(&id);
    }

    /// What a room or a sensor turned into, carried out.
    async fn turn(&mut self, turned: Turned) -> Result<(), End> {
        self.opening.extend(turned.openings);
        for id in turned.watches {
            self.gazes.turn(id, self.watches.sensors(id));
        }
        match turned.refused {
            Some(refused) => self.refuse(refused).await,
            None => Ok(()),
        }
    }

    /// Begins with one of the series that are to be followed.
    async fn open_next(&mut self) -> Result<(), End> {
        let Some(opening) = self.opening.pop_front() else { return Ok(()) };
        let Some(opened) = self.watches.open(&opening) else { return Ok(()) };
        if let Some(series) = &opened.series {
            self.send(opened.id, series, &opened.samples).await?;
        }
        for event in opened.then {
            self.tell(event).await?;
        }
        Ok(self.socket.flush().await?)
    }

    /// Tells an event and those that wait behind it, then flushes.
    async fn tell_burst(&mut self, event: Event) -> Result<(), End> {
        self.tell(event).await?;
        for _ in 1..BURST {
            let Some(event) = self.watches.try_next() else { break };
            self.tell(event).await?;
        }
        Ok(self.socket.flush().await?)
    }

    async fn tell(&mut self, event: Event) -> Result<(), End> {
        match event {
            Event::Samples(change) => {
                if let Some(followed) = self.watches.live(&change) {
                    let frames = frames(self.format, followed, &change.series, &change.times, &change.values);
                    self.write(frames, change.times.len()).await?;
                }
            }
            Event::Lagged { skipped } => {
                self.seat.skipped(skipped);
                let lag = json!({ "type": "lag", "skipped": skipped });
                self.socket.feed(Frame::text(lag.to_string())).await?;
            }
            Event::Sensor(id) => {
                let view = self.state.store().sensor(id.as_str());
                let described = view.as_ref().map_or_else(|| Described::gone(&id), Described::from);
                self.socket.feed(Frame::text(described.message())).await?;
                let turned = self.watches.sensor_changed(&id);
                self.turn(turned).await?;
            }
            Event::Room(room) => {
                let turned = self.watches.room_changed(&room);
                self.turn(turned).await?;
                let concerned = self.company.is_in(&room) || self.watches.has_room(&room);
                let gone = !self.state.store().has_room(&room);
                if concerned && (gone || self.rooms.is_now(&room)) {
                    self.tell_room(&room).await?;
                } else if !concerned {
                    self.rooms.later(room);
                }
            }
            Event::Presence(room) => {
                if self.people.is_now(&room) {
                    self.tell_people(&room).await?;
                }
            }
            Event::Signal(signal) => self.socket.feed(Frame::text(company::signal(&signal))).await?,
            // It is for devices.
            Event::Attention(_) => {}
        }
        Ok(())
    }

    /// Tells how a room is now; of one that is gone first that nobody is in it any more.
    async fn tell_room(&mut self, room: &RoomId) -> Result<(), End> {
        let mut told = match self.state.store().room(room.as_str()) {
            Some(view) => rooms::described(&view),
            None => {
                if let Some(left) = self.company.gone(self.watches.subscription(), room) {
                    self.socket.feed(Frame::text(left)).await?;
                }
                json!({ "room": room.as_str(), "gone": true })
            }
        };
        told["type"] = "room".into();
        Ok(self.socket.feed(Frame::text(told.to_string())).await?)
    }

    /// Tells who came to a room and who left.
    async fn tell_people(&mut self, room: &RoomId) -> Result<(), End> {
        match self.company.news(self.state.store(), room) {
            Some(news) => Ok(self.socket.feed(Frame::text(news)).await?),
            None => Ok(()),
        }
    }

    async fn send(&mut self, id: SeriesId, series: &Series, samples: &Samples) -> Result<(), End> {
        let Some(followed) = self.watches.followed(id) else { return Ok(()) };
        let frames = frames(self.format, followed, series, &samples.times, &samples.values);
        self.write(frames, samples.times.len()).await
    }

    async fn write(&mut self, frames: Vec<Frame>, samples: usize) -> Result<(), End> {
        for frame in frames {
            self.socket.feed(frame).await?;
        }
        self.seat.sent(samples);
        Ok(())
    }
}

/// Samples of a series as messages, with what a binary frame needs said before it.
fn frames(
    format: Format,
    followed: &mut Followed,
    series: &Series,
    times: &[SampleTime],
    values: &Values,
) -> Vec<Frame> {
    let Values::Numbers { channels, .. } = values else {
        return frame::json(&followed.name, times, values).map(Frame::text).collect();
    };
    if format == Format::Json {
        return frame::json(&followed.name, times, values).map(Frame::text).collect();
    }
    let mut messages = Vec::new();
    if !times.is_empty() && followed.announced != Some(*channels) {
        followed.announced = Some(*channels);
        let mut view = series.view();
        view.channels.truncate(*channels);
        let named = json!({
            "type": "series",
            "ref": followed.reference,
            "series": followed.name,
            "kind": view.kind.name(),
            "unit": view.unit,
            "channels": view.channels,
        });
        messages.push(Frame::text(named.to_string()));
    }
    messages.extend(frame::binary(followed.reference, times, values).into_iter().map(Frame::Binary));
    messages
}

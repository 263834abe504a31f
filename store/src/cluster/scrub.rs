//! The scrub: replicas whose version vectors are equal compare hashes of their rings, a few series at a time. Where
//! these differ each joins the other's ring, which is always safe. It is counted, and is a defect unless a change of
//! `keep` or a clear explains it. Behind the series come the rooms and the topics with retained messages, in the
//! registry's partition.
//!
//! Bounds: [`SERIES`] series in a message, or [`LASTING`] rooms and topics; rings travel in pieces of about [`PIECE_BYTES`].

use bytes::Bytes;

use crate::disk::checkpoint::{descriptor, series_record};
use crate::disk::chunks::{self, CHUNK_SAMPLES};
use crate::disk::recover::{descriptor_operations, series_names};
use crate::disk::tables::series_key;
use crate::handle::Store;
use crate::model::ids::{Partition, SeriesId};
use crate::model::room::{number, of_number};
use crate::registry::Operation;
use crate::registry::retained::{self, Retained, is_number};
use crate::registry::rooms::Rooms;
use crate::replica::frame::REGISTRY;
use crate::replica::message::{Message, Piece};
use crate::replica::state::Replica;
use crate::series::{Series, State};

/// Series compared at a time.
const SERIES: usize = 64;
/// Rooms, or topics, compared at a time.
const LASTING: usize = 1024;
/// Size from which a piece of rings is sent.
const PIECE_BYTES: usize = 1 << 20;

/// What a comparison found.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// Series that were compared.
    pub compared: u64,
    /// The rings that differ, to be answered with the peer's.
    pub pieces: Vec<Message>,
    /// Series that are not known here.
    pub unknown: Vec<u128>,
}

/// Goes through all series by partition, a few at a time.
#[derive(Debug, Default)]
pub(crate) struct Round {
    after: Option<(Partition, SeriesId)>,
}

impl Round {
    /// Hashes of the next few series, or rooms; `None` at the end of a round, or while samples are on their way.
    pub(crate) fn next(&mut self, store: &Store) -> Option<Message> {
        let key = |series: &Series| (series.partition(), series.id());
        let mut series = store.memory().all();
        series.retain(|series| self.after.is_none_or(|after| key(series) > after));
        let Some(partition) = series.iter().map(Series::partition).min() else {
            return self.lasting(store);
        };
        series.retain(|series| series.partition() == partition);
        series.sort_unstable_by_key(Series::id);
        series.truncate(SERIES);
        self.after = series.last().map(key);
        let replica = store.shared().replica.lock();
        let version = replica.held().hash(partition);
        if version != replica.durable().hash(partition) || replica.is_joining() {
            return None;
        }
        let hashed =
            series.iter().filter_map(|series| Some((series_key(series.id()), hash(&series.lock())?)));
        let series: Vec<_> = hashed.collect();
        drop(replica);
        (!series.is_empty()).then_some(Message::Scrub { partition, version, series })
    }

    fn lasting(&mut self, store: &Store) -> Option<Message> {
        let after = self.after.take().filter(|after| after.0 == REGISTRY);
        let after = after.map(|after| u128::from_be_bytes(after.1.0));
        let replica = store.shared().replica.lock();
        let version = settled(store, &replica)?;
        let mut series = Vec::new();
        // Numbers of topics stand behind those of rooms.
        if !after.is_some_and(is_number) {
            let hashes = store.memory().rooms.read().hashes(after.and_then(of_number).as_ref(), LASTING);
            series.extend(hashes.into_iter().filter_map(|(room, hash)| Some((number(&room)?, hash))));
        }
        let left = LASTING - series.len().min(LASTING);
        series.extend(store.memory().retained.read().hashes(after.filter(|after| is_number(*after)), left));
        let last = series.last().map(|last| SeriesId(last.0.to_be_bytes()))?;
        self.after = Some((REGISTRY, last));
        Some(Message::Scrub { partition: REGISTRY, version, series })
    }
}

/// The version of the registry, when all that is held of it is durable.
fn settled(store: &Store, replica: &Replica) -> Option<u64> {
    let version = replica.held().hash(REGISTRY);
    let operates = store.shared().group.operates();
    (version == replica.durable().hash(REGISTRY) && !operates).then_some(version)
}

/// A hash of what readers get from the ring, and of what it keeps out; `None` while samples of it wait for a frame.
fn hash(state: &State) -> Option<u64> {
    if state.open.is_some() {
        return None;
    }
    let mut hasher = blake3::Hasher::new();
    let held = state.ring.len();
    let samples = state.ring.copy(0..held);
    hasher.update(&(state.ring.keep() as u64).to_le_bytes());
    if let Some(cleared) = state.ring.cleared() {
        // Who has not heard of a clear is to hear of it, though no sample tells the two apart yet.
        hasher.update(&cleared.time.to_le_bytes());
        hasher.update(&cleared.author.to_le_bytes());
    }
    samples.times.iter().for_each(|time| {
        hasher.update(&time.0.to_le_bytes());
    });
    match &samples.values {
        crate::Values::Numbers { flat, .. } => flat.iter().for_each(|number| {
            // All that is missing is equal, whatever its bits.
            let bits = if number.is_nan() { f64::NAN.to_bits() } else { number.to_bits() };
            hasher.update(&bits.to_le_bytes());
        }),
        crate::Values::Texts(texts) => texts.iter().for_each(|text| {
            hasher.update(&(text.len() as u64).to_le_bytes());
            hasher.update(text.as_bytes());
        }),
    }
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    Some(u64::from_le_bytes(bytes))
}

/// Holds a peer's hashes against the rings here, if the partition stands at the same version.
pub(crate) fn compare(store: &Store, partition: Partition, version: u64, theirs: &[(u128, u64)]) -> Found {
    if partition == REGISTRY {
        return compare_lasting(store, version, theirs);
    }
    let mut found = Found::default();
    let mut differ = Vec::new();
    {
        let replica = store.shared().replica.lock();
        let durable = replica.durable().hash(partition);
        // While a snapshot is joined, rings hold more than the vector says.
        if replica.held().hash(partition) != version || durable != version || replica.is_joining() {
            return found;
        }
        for (id, theirs) in theirs {
            let Some(series) = store.memory().by_id(SeriesId(id.to_be_bytes())) else {
                found.unknown.push(*id);
                continue;
            };
            let Some(ours) = hash(&series.lock()) else { continue };
            found.compared += 1;
            if ours != *theirs {
                differ.push(*id);
            }
        }
    }
    if !differ.is_empty() {
        tracing::warn!(
            partition = partition.0,
            series = differ.len(),
            "rings differ at equal versions; they are joined"
        );
    }
    found.pieces = rings(store, &differ, true);
    found
}

fn compare_lasting(store: &Store, version: u64, theirs: &[(u128, u64)]) -> Found {
    let mut found = Found::default();
    let replica = store.shared().replica.lock();
    if settled(store, &replica) != Some(version) {
        return found;
    }
    let (rooms, retained) = (store.memory().rooms.read(), store.memory().retained.read());
    for (id, theirs) in theirs {
        let ours = if is_number(*id) {
            retained.hash(*id)
        } else {
            of_number(*id).and_then(|room| rooms.hash(&room))
        };
        match ours {
            Some(ours) if ours == *theirs => {}
            Some(_) => found.pieces.extend(lasting_piece(&rooms, &retained, *id, true)),
            None => found.unknown.push(*id),
        }
        found.compared += 1;
    }
    if !found.pieces.is_empty() {
        tracing::warn!(
            count = found.pieces.len(),
            "rooms or topics differ at equal versions; they are joined"
        );
    }
    found
}

/// A room or a topic.
fn lasting_piece(rooms: &Rooms, retained: &Retained, id: u128, answer: bool) -> Option<Message> {
    let record = if is_number(id) { retained.record(id) } else { rooms.record(&of_number(id)?) };
    let descriptors = vec![record?.into()];
    Some(Message::Piece(Piece { descriptors, answer, ..Piece::default() }))
}

/// The rings of some series, or some rooms and topics. With `answer` the peer sends its own back.
pub(crate) fn rings(store: &Store, series: &[u128], answer: bool) -> Vec<Message> {
    let mut pieces = Vec::new();
    {
        let (rooms, retained) = (store.memory().rooms.read(), store.memory().retained.read());
        // Numbers of rooms and topics are below 2^81, where no series is found but by a chance of 2^-47.
        pieces.extend(series.iter().filter_map(|id| lasting_piece(&rooms, &retained, *id, answer)));
    }
    for series in series.iter().filter_map(|id| store.memory().by_id(SeriesId(id.to_be_bytes()))) {
        // Rings of unequal `keep` do not become equal: what is said of the sensor goes with them.
        let all = store.memory().of(series.sensor());
        let said = descriptor(series.sensor_entry(), &all).map(Bytes::from);
        let state = series.lock();
        let names = Bytes::from(series_record(&series, state.kind.name()));
        let (held, mut at) = (state.ring.len(), 0);
        loop {
            let mut piece = Piece { series: vec![names.clone()], ..Piece::default() };
            piece.descriptors.extend(said.clone());
            let mut bytes = 0;
            while at < held && bytes < PIECE_BYTES {
                let range = at..(at + CHUNK_SAMPLES).min(held);
                at = range.end;
                let record = chunks::encode(&state.ring.copy(range.clone()), &state.ring.copy_stamps(range));
                bytes += record.len();
                piece.chunks.push((series_key(series.id()), Bytes::from(record)));
            }
            piece.answer = answer && at == held;
            pieces.push(Message::Piece(piece));
            if at == held {
                break;
            }
        }
    }
    pieces
}

/// The series, rooms and topics that a piece names.
pub(crate) fn series_of(piece: &Piece) -> Vec<u128> {
    let names = piece.series.iter().filter_map(|record| series_names(record).ok());
    let series = names.map(|(sensor, attribute, _)| series_key(SeriesId::of(&sensor, &attribute)));
    let said = piece.descriptors.iter().filter_map(|record| descriptor_operations(record).ok()).flatten();
    let lasting = said.filter_map(|operation| match operation {
        Operation::Room(operation) => number(&operation.room),
        Operation::Topic(operation) => Some(retained::number(&operation.topic)),
        Operation::Sensor(_) => None,
    });
    series.chain(lasting).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{put_text, seal};
    use crate::config::Config;
    use crate::model::ids::{Attribute, NodeName, SensorId};
    use crate::{Batch, SampleTime, Shape, Times, Values};

    fn open(dir: &tempfile::TempDir) -> Store {
        Store::open(Config::new(dir.path(), NodeName::new("a").unwrap())).unwrap()
    }

    /// Appends samples at these times to the one series that there is, and waits until no frame is open.
    async fn append(store: &Store, times: std::ops::Range<i64>) {
        let (sensor, attribute) = (SensorId::new("s").unwrap(), Attribute::new("a").unwrap());
        let series = store.series(&sensor, &attribute, Shape::Numbers(1)).unwrap();
        let flat = times.clone().map(|time| time as f64).collect();
        let times = Times::At(times.map(SampleTime).collect());
        let batch = Batch { series, times, values: Values::Numbers { channels: 1, flat } };
        store.append(vec![batch]).await.unwrap().ticket.kept().await.unwrap();
    }

    fn ours(store: &Store) -> u64 {
        hash(&store.memory().all()[0].lock()).unwrap()
    }

    /// Gives one store the rings of another, as links do.
    fn send(from: &Store, to: &Store) {
        let id = series_key(from.memory().all()[0].id());
        for message in rings(from, &[id], false) {
            let Message::Piece(piece) = message else { panic!("{message:?}") };
            to.intake().piece(&piece).unwrap();
        }
    }

    #[tokio::test]
    async fn who_missed_a_clear_gets_it_from_the_scrub_and_brings_nothing_back() {
        let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let (a, b) = (open(&dirs[0]), open(&dirs[1]));
        append(&a, 0..700).await;
        send(&a, &b);
        assert_eq!(ours(&a), ours(&b));
        a.clear(&SensorId::new("s").unwrap()).unwrap().kept().await.unwrap();
        assert_ne!(ours(&a), ours(&b));
        // The one that lacks it speaks first.
        send(&b, &a);
        assert!(a.sensor("s").is_none() && b.sensor("s").is_some());
        send(&a, &b);
        assert!(b.sensor("s").is_none());
        assert_eq!(ours(&a), ours(&b));
        append(&b, 10..20).await;
        send(&b, &a);
        assert_eq!(ours(&a), ours(&b));
        assert_eq!(a.stats().samples, 10);
        // Two rings without samples differ too, when one has not heard of a clear.
        a.clear(&SensorId::new("s").unwrap()).unwrap().kept().await.unwrap();
        b.memory().all()[0].lock().replace_ring(1000, Shape::Numbers(1));
        assert_ne!(ours(&a), ours(&b));
        send(&a, &b);
        assert_eq!(ours(&a), ours(&b));
    }

    #[test]
    fn a_piece_names_its_series() {
        let mut record = Vec::new();
        ["s", "a", "number"].iter().for_each(|text| put_text(&mut record, text));
        seal(&mut record);
        let piece = Piece { series: vec![record.into(), Bytes::from_static(b"noise")], ..Piece::default() };
        let id = SeriesId::of(&SensorId::new("s").unwrap(), &Attribute::new("a").unwrap());
        assert_eq!(series_of(&piece), [series_key(id)]);
    }
}

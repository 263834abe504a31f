//! The store's handle: what the other crates call.

use std::collections::{BTreeMap, HashMap};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{channel, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use redb::{Database, StorageBackend};

use crate::clock::{Clock, Stamp};
use crate::config::Config;
use crate::conflict::conform;
use crate::disk::backend::Traffic;
use crate::disk::checkpoint::Checkpointer;
use crate::disk::commit::{CommitFigures, Committer, Shared};
use crate::disk::journal::Journal;
use crate::disk::recover;
use crate::disk::tables::FILE;
use crate::error::{AppendError, CLOSED, Failed, OpenError, Refusal};
use crate::exchange::Exchange;
use crate::feed::{Subscription, publish};
use crate::group::{GROUP_BYTES, Group, Ticket, Waiting};
use crate::here::Here;
use crate::intake::Intake;
use crate::ledger::{Counters, Ledger};
use crate::memory::{Found, Memory};
use crate::model::ids::{Attribute, NodeId, NodeName, Origin, SensorId};
use crate::model::time::SampleTime;
use crate::model::value::{Shape, Values};
use crate::post::Post;
use crate::registry::AttributeDescription;
use crate::replica::frame::RunWriter;
use crate::replica::state::Replica;
use crate::ring::{Joined, Ring, Samples, Stamps};
use crate::seal::Sealer;
use crate::series::{AttributeView, OpenRun, Sensor, Series};
use crate::tail::Tail;

/// Who this node is.
#[derive(Debug, Clone)]
pub struct Node {
    /// Its operator's name for it.
    pub name: NodeName,
    /// Its disk.
    pub id: NodeId,
    /// This run of it.
    pub origin: Origin,
}

/// When the samples of a batch were measured.
#[derive(Debug, Clone, PartialEq)]
pub enum Times {
    /// By the device, one each, in any order.
    At(Vec<SampleTime>),
    /// The device has no clock: the node gives strictly increasing times.
    Assigned,
}

/// Samples of one series, to append.
#[derive(Debug, Clone)]
pub struct Batch {
    /// Whose, from [`Store::series`].
    pub series: Series,
    /// When.
    pub times: Times,
    /// What.
    pub values: Values,
}

/// An append that was taken: in memory and on its way to the disk.
#[derive(Debug, Clone)]
pub struct Appended {
    /// To wait for durability with.
    pub ticket: Ticket,
    /// What became of the samples.
    pub outcome: Joined,
}

/// Everything that a node keeps. Cheap to clone; the last one closes the store.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    node: Node,
    config: Config,
    clock: Clock,
    memory: Arc<Memory>,
    shared: Arc<Shared>,
    passing: Mutex<Here>,
    exchange: Exchange,
    /// `None` once the store is closed.
    database: Mutex<Option<Arc<Database>>>,
    /// Other nodes that took samples.
    names: RwLock<HashMap<NodeId, NodeName>>,
    /// Nodes that are linked and do not know rooms.
    older: Mutex<Vec<NodeName>>,
    counters: Counters,
    traffic: Arc<Traffic>,
    started: Instant,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// Which sensors to list.
#[derive(Debug, Clone, Default)]
pub struct Page {
    /// Only those whose id or name contains this, whatever the case.
    pub q: Option<String>,
    /// Only those behind this id.
    pub after: Option<String>,
    /// At most so many.
    pub limit: usize,
}

impl Page {
    /// Whether it asks for a sensor of this id and name.
    pub(crate) fn wants(&self, id: &str, name: Option<&str>) -> bool {
        let Some(needle) = self.q.as_ref().map(|q| q.to_lowercase()) else { return true };
        [Some(id), name].into_iter().flatten().any(|text| text.to_lowercase().contains(&needle))
    }
}

/// What there is to say of a sensor.
#[derive(Debug, Clone, PartialEq)]
pub struct SensorView {
    /// Its id.
    pub sensor: SensorId,
    /// For people.
    pub name: Option<String>,
    /// Whether a device that speaks for it is connected.
    pub online: bool,
    /// The node that took its samples last.
    pub node: NodeName,
    /// Time of its newest sample.
    pub last: Option<SampleTime>,
    /// What it measures.
    pub attributes: BTreeMap<Attribute, AttributeView>,
}

/// Figures of a node, since it started unless said otherwise.
#[derive(Debug, Clone, Default)]
pub struct Stats {
    /// Sensors known.
    pub sensors: usize,
    /// Series known.
    pub series: usize,
    /// Samples held.
    pub samples: u64,
    /// Bytes that the rings take.
    pub memory_bytes: u64,
    /// Bytes promised to rings out of the limit.
    pub reserved_bytes: u64,
    /// What the data file takes of the disk. Its length is up to twice that: redb grows a file by doubling it, and
    /// what it has not written yet takes no place.
    pub disk_bytes: u64,
    /// Samples by fate.
    pub ledger: Ledger,
    /// Transactions.
    pub commits: u64,
    /// Transactions that held samples.
    pub frames: u64,
    /// Time spent in transactions.
    pub commit_time: Duration,
    /// Bytes written to the data file.
    pub written_bytes: u64,
    /// Syncs of the data file.
    pub syncs: u64,
    /// Bytes of frames in the log.
    pub log_bytes: u64,
    /// Bytes of samples that no commit has taken yet.
    pub pending_bytes: u64,
    /// The last durable frame.
    pub durable_frame: u64,
    /// Age of this run.
    pub uptime: Duration,
}

impl Store {
    /// Opens, or makes, the store in `config.data`, and rebuilds the rings. Blocks on the disk.
    pub fn open(config: Config) -> Result<Self, OpenError> {
        let traffic = Arc::<Traffic>::default();
        let (database, journal) = recover::open(&config, &traffic)?;
        Self::start(config, database, journal, traffic)
    }

    /// Like [`Self::open`], with data file and journal on any storage: for tests that lose power.
    pub fn open_on(
        config: Config,
        file: impl StorageBackend,
        journal: impl StorageBackend,
    ) -> Result<Self, OpenError> {
        let traffic = Arc::<Traffic>::default();
        let path = Path::new("storage");
        let database = recover::open_on(path, file, &traffic)?;
        let journal = recover::journal_on(path, journal, &traffic)?;
        Self::start(config, database, journal, traffic)
    }

    fn start(
        config: Config,
        database: Database,
        mut journal: Journal,
        traffic: Arc<Traffic>,
    ) -> Result<Self, OpenError> {
        let path = config.data.join(FILE);
        let memory = Arc::new(Memory::new(&config));
        let began = Instant::now();
        let recovered = recover::load(&database, &mut journal, &path, &config, &memory)?;
        let origin = Origin { node: recovered.node, start: rand::random() };
        let clock = Clock::new(origin);
        clock.raise(recovered.stamp);
        tracing::info!(
            samples = recovered.samples, log_bytes = recovered.log.bytes, took = ?began.elapsed(), "store recovered"
        );
        let (errand_in, errands) = sync_channel(1);
        let replica = Replica::new(origin, config.copies, recovered.versions, config.expects_peers);
        let shared = Arc::new(Shared {
            origin,
            first: recovered.commit + 1,
            group: Group::new(config.commit_window, recovered.commit + 1),
            waiting: Waiting::default(),
            sealed: Mutex::default(),
            log: Mutex::new(recovered.log),
            owed: AtomicBool::new(false),
            errands: errand_in,
            trimming: AtomicBool::new(false),
            tail: Tail::default(),
            replica: Mutex::new(replica),
            post: Post::default(),
            figures: CommitFigures::default(),
            log_budget: config.log_budget,
        });
        let (job_in, jobs) = channel();
        shared.post.set_checkpointer(Some(job_in.clone()));
        let database = Arc::new(database);
        let sealer = Sealer(shared.clone());
        let committer = Committer {
            database: database.clone(),
            shared: shared.clone(),
            errands,
            journal,
            owed: Vec::new(),
            jobs: job_in,
        };
        let checkpointer = Checkpointer { memory: memory.clone(), shared: shared.clone(), jobs };
        let spawn = |name: &str, run: Box<dyn FnOnce() + Send>| {
            let spawned = std::thread::Builder::new().name(name.into()).spawn(run);
            spawned.map_err(|source| OpenError::Io { path: path.clone(), source })
        };
        let threads = vec![
            spawn("commit", Box::new(|| committer.run()))?,
            spawn("seal", Box::new(|| sealer.run()))?,
            spawn("checkpoint", Box::new(|| checkpointer.run()))?,
        ];
        let node = Node { name: config.name.clone(), id: recovered.node, origin };
        Ok(Self(Arc::new(Inner {
            node,
            config,
            clock,
            memory,
            shared,
            passing: Mutex::new(Here::new(recovered.node)),
            exchange: Exchange::default(),
            database: Mutex::new(Some(database)),
            names: RwLock::default(),
            older: Mutex::default(),
            counters: Counters::default(),
            traffic,
            started: Instant::now(),
            threads: Mutex::new(threads),
        })))
    }

    /// Who this node is.
    pub fn node(&self) -> &Node {
        &self.0.node
    }

    /// The series, made when it is new: of the kind that its name and first value imply. Refused when values of
    /// `shape` do not belong into it, or when there is no memory for it.
    pub fn series(&self, sensor: &SensorId, attribute: &Attribute, shape: Shape) -> Result<Series, Refusal> {
        let description = AttributeDescription::default();
        let Found { series, new } =
            self.0.memory.find_or_make(sensor, attribute, Some(shape), &description)?;
        if new {
            self.0.memory.feed.described(sensor);
        } else {
            self.admit(&series, shape)?;
        }
        Ok(series)
    }

    fn admit(&self, series: &Series, shape: Shape) -> Result<(), Refusal> {
        let state = series.lock();
        series.check(state.kind, shape)?;
        let (keep, held) = (state.ring.keep(), state.ring.shape());
        let wider = matches!((shape, held), (Shape::Numbers(wide), Shape::Numbers(held)) if wide > held);
        // What is gone was given back.
        let back = state.is_gone();
        drop(state);
        if wider || back {
            self.0.memory.reserve(series, keep, if wider { shape } else { held })
        } else {
            Ok(())
        }
    }

    /// The series, when there is one.
    pub fn find(&self, sensor: &str, attribute: &str) -> Option<Series> {
        self.0.memory.find(sensor, attribute).filter(|series| !series.is_gone())
    }

    /// Appends batches: all or, when one is refused, none. In memory and in the feed when it returns; durable when
    /// the ticket says so. Waits while too much is on its way to the disk. Dropped before it returns, nothing was
    /// appended.
    pub async fn append(&self, batches: Vec<Batch>) -> Result<Appended, AppendError> {
        self.0.shared.group.room().await?;
        for batch in &batches {
            if let Times::At(times) = &batch.times
                && times.len() != batch.values.len()
            {
                return Err(AppendError::Uneven { times: times.len(), values: batch.values.len() });
            }
            self.admit(&batch.series, batch.values.shape())?;
        }
        let mut outcome = Joined::default();
        let mut last: Option<Ticket> = None;
        for batch in batches {
            let (ticket, joined) = self.join(batch);
            outcome.add(joined);
            if last.as_ref().is_none_or(|last| last.frame() < ticket.frame()) {
                last = Some(ticket);
            }
        }
        match last {
            Some(ticket) => Ok(Appended { ticket, outcome }),
            None => Err(AppendError::Empty),
        }
    }

    /// One critical section: the run of the open frame, the ring, the followers.
    fn join(&self, Batch { series, times, values }: Batch) -> (Ticket, Joined) {
        let now = SampleTime::now();
        let shared = &self.0.shared;
        let mut guard = series.lock();
        let state = &mut *guard;
        let times = match times {
            Times::At(times) => times,
            Times::Assigned => {
                let newest = state.ring.last().map_or(i64::MIN, |last| last.0.saturating_add(1));
                (0..values.len() as i64).map(|index| SampleTime(now.0.max(newest) + index)).collect()
            }
        };
        let samples = Samples { times, values };
        let width = match samples.values.shape() {
            Shape::Numbers(channels) => channels,
            Shape::Text => 0,
        };
        let (next_stamp, back) = (state.next_stamp, state.is_gone());
        let clock = &self.0.clock;
        let fresh = |from: u64| RunWriter::new(clock.stamp().time.max(from), width);
        let open = state.open.get_or_insert_with(|| OpenRun {
            ticket: shared.group.enlist(&series),
            finished: Vec::new(),
            writer: fresh(next_stamp),
            bytes: 0,
        });
        if open.writer.channels() != width {
            let next = fresh(open.writer.next_stamp());
            std::mem::replace(&mut open.writer, next).finish(series.id(), &mut open.finished);
        }
        let first = Stamp { time: open.writer.next_stamp(), author: crate::clock::author(shared.origin) };
        let mut bytes = 0;
        for (index, time) in samples.times.iter().enumerate() {
            bytes += open.writer.push(*time, samples.values.get(index));
        }
        open.bytes += bytes;
        let ticket = open.ticket.clone();
        let samples = conform(state.kind, samples);
        let mut changed = Vec::new();
        let joined = state.ring.join(&samples, &Stamps::From(first), &mut changed);
        state.soil(&samples);
        if let Some(oldest) = samples.times.iter().min() {
            state.arrivals.note(now, oldest.0);
        }
        publish(state, &series, &samples, &changed);
        // Under the lock: a commit gives back what it takes from the run.
        shared.group.grow(bytes);
        drop(guard);
        if back {
            self.0.memory.hold(&series);
            self.0.memory.feed.described(series.sensor());
        }
        series.sensor_entry().counters.joined(joined);
        series.sensor_entry().taker.store(0, Ordering::Relaxed);
        self.0.counters.joined(joined);
        (ticket, joined)
    }

    /// Counts samples that were refused before they came here.
    pub fn refused(&self, sensor: Option<&SensorId>, code: &'static str, samples: u64) {
        self.0.counters.refused(code, samples);
        if let Some((entry, _)) = sensor.and_then(|sensor| self.0.memory.known(sensor.as_str())) {
            entry.counters.refused(code, samples);
        }
    }

    /// Sensors by id, and the cursor of the page behind them.
    pub fn sensors(&self, page: &Page) -> (Vec<SensorView>, Option<String>) {
        let wanted = |sensor: &Sensor| page.wants(sensor.id.as_str(), sensor.name.lock().val.as_deref());
        let mut found = self.0.memory.page(page.after.as_deref(), page.limit.saturating_add(1), wanted);
        let more = found.len() > page.limit;
        found.truncate(page.limit);
        let next = found.last().filter(|_| more).map(|(sensor, _)| sensor.id.as_str().to_owned());
        (found.iter().map(|(sensor, series)| self.view(sensor, series)).collect(), next)
    }

    /// One sensor.
    pub fn sensor(&self, sensor: &str) -> Option<SensorView> {
        self.0.memory.known(sensor).map(|(entry, series)| self.view(&entry, &series))
    }

    fn view(&self, sensor: &Sensor, series: &[Series]) -> SensorView {
        let attributes: BTreeMap<_, _> =
            series.iter().map(|series| (series.attribute().clone(), series.view())).collect();
        SensorView {
            sensor: sensor.id.clone(),
            name: sensor.name.lock().val.clone(),
            online: self.is_online(&sensor.id),
            node: self.taker(sensor),
            last: attributes.values().filter_map(|view| view.last.as_ref().map(|last| last.0)).max(),
            attributes,
        }
    }

    fn taker(&self, sensor: &Sensor) -> NodeName {
        self.called(NodeId(sensor.taker.load(Ordering::Relaxed)))
    }

    /// What a node is called; this one, when it is not known.
    pub(crate) fn called(&self, node: NodeId) -> NodeName {
        self.0.names.read().get(&node).unwrap_or(&self.0.node.name).clone()
    }

    /// Says what a node is called, so that sensors can be said to be on it.
    pub(crate) fn call(&self, node: NodeId, name: &NodeName) {
        self.0.names.write().insert(node, name.clone());
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.0.shared
    }

    /// What passes; [`Store::here`] locks it.
    pub(crate) fn exchange(&self) -> &Exchange {
        &self.0.exchange
    }

    pub(crate) fn passing(&self) -> &Mutex<Here> {
        &self.0.passing
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.0.clock
    }

    pub(crate) fn config(&self) -> &Config {
        &self.0.config
    }

    /// A stamp newer than all before.
    pub(crate) fn stamp(&self) -> Stamp {
        self.0.clock.stamp()
    }

    /// Nodes that are linked and do not know rooms.
    pub(crate) fn older(&self) -> &Mutex<Vec<NodeName>> {
        &self.0.older
    }

    pub(crate) fn memory(&self) -> &Memory {
        &self.0.memory
    }

    /// The data file, for reading; `None` once the store is closed.
    pub(crate) fn database(&self) -> Option<Arc<Database>> {
        self.0.database.lock().clone()
    }

    /// Where blocks of other nodes go.
    pub(crate) fn intake(&self) -> Intake<'_> {
        Intake {
            memory: &self.0.memory,
            config: &self.0.config,
            clock: &self.0.clock,
            group: &self.0.shared.group,
        }
    }

    /// What became of the samples of a sensor.
    pub fn ledger(&self, sensor: &str) -> Option<Ledger> {
        self.0.memory.known(sensor).map(|(entry, _)| entry.counters.read())
    }

    /// Figures.
    pub fn stats(&self) -> Stats {
        let inner = &self.0;
        let (sensors, series) = inner.memory.counts();
        let (mut samples, mut memory_bytes) = (0, 0);
        inner.memory.each_series(
            || (),
            |series| {
                let ring: &Ring = &series.lock().ring;
                samples += ring.len() as u64;
                memory_bytes += ring.bytes() as u64;
            },
        );
        let figures = &inner.shared.figures;
        let path = inner.config.data.join(FILE);
        Stats {
            sensors,
            series,
            samples,
            memory_bytes,
            reserved_bytes: inner.memory.reserved(),
            disk_bytes: std::fs::metadata(path).map_or(0, |metadata| metadata.blocks() * 512),
            ledger: inner.counters.read(),
            commits: figures.commits.load(Ordering::Relaxed),
            frames: figures.frames.load(Ordering::Relaxed),
            commit_time: Duration::from_nanos(figures.nanos.load(Ordering::Relaxed)),
            written_bytes: inner.traffic.written.load(Ordering::Relaxed),
            syncs: inner.traffic.syncs.load(Ordering::Relaxed),
            log_bytes: inner.shared.log.lock().bytes,
            pending_bytes: inner.shared.group.bytes() as u64,
            durable_frame: figures.durable_frame.load(Ordering::Relaxed),
            uptime: inner.started.elapsed(),
        }
    }

    /// How full the way to the disk is: 1 when appending waits.
    pub fn pressure(&self) -> f64 {
        let shared = &self.0.shared;
        let pending = shared.group.bytes() as f64 / GROUP_BYTES as f64;
        // At its budget the log is trimmed, at twice that appending waits.
        let log = shared.log.lock().bytes as f64 / shared.log_budget.max(1) as f64 - 1.0;
        pending.max(log).clamp(0.0, 1.0)
    }

    /// A reader of the feed whose queue holds at most `capacity` samples.
    pub fn subscribe(&self, capacity: usize) -> Subscription {
        Subscription::new(self.0.memory.clone(), capacity)
    }

    /// Why the store has stopped by itself, if it has; asked after [`Self::close`], whether the last flush failed.
    pub fn failed(&self) -> Option<Failed> {
        self.0.shared.group.failed().filter(|failed| &*failed.0 != CLOSED)
    }

    /// Commits what waits, and ends. Appending afterwards fails.
    pub async fn close(&self) {
        let store = self.clone();
        // A panic of a thread was reported where it happened.
        let _ = tokio::task::spawn_blocking(move || store.0.stop()).await;
    }
}

impl Inner {
    fn stop(&self) {
        self.shared.group.close();
        self.shared.post.set_checkpointer(None);
        self.database.lock().take();
        for thread in self.threads.lock().drain(..) {
            let _ = thread.join();
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.stop();
    }
}

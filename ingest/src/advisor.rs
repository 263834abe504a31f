//! The advisor of a node: follows how closely sensors are watched anywhere, and tells the devices that are connected
//! here how long to batch.
//!
//! A WebSocket speaks for one or more sensors through its [`Ear`], and is advised by the closest watched of them. Over
//! MQTT the advice for each sensor is published on `advice/{sensor}`, on every node.
//!
//! Bounds: it holds what is watched, or was lately, and the ears of open connections.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rumqttd::protocol::QoS;
use store::{Event, Level, SensorId, Store, Subscription};
use tokio::sync::Notify;
use tokio::time::{MissedTickBehavior, interval, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::advice::{Advice, Easing, Strain};
use crate::mqtt::{Hub, Message};

/// Where advice is published, before the sensor.
pub const TOPIC: &str = "advice/";
/// How often the node's load is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// The advisor of a node.
pub struct Advisor {
    store: Store,
    hub: Arc<Hub>,
    watched: Mutex<Watched>,
}

#[derive(Default)]
struct Watched {
    /// Sensors that are watched, or were lately.
    levels: HashMap<SensorId, Easing>,
    /// When to look at which again.
    due: BTreeSet<(Instant, SensorId)>,
    /// Who speaks for a sensor here.
    ears: HashMap<SensorId, Vec<Weak<Notify>>>,
    strain: Strain,
}

impl Advisor {
    /// Advises until `stop`: WebSockets by their ears, MQTT clients through `hub`.
    pub fn start(store: Store, hub: Arc<Hub>, stop: CancellationToken) -> Arc<Self> {
        let mut attention = store.subscribe(1);
        attention.follow_attention(true);
        let advisor = Arc::new(Self { store, hub, watched: Mutex::default() });
        tokio::spawn(advisor.clone().run(attention, stop));
        advisor
    }

    async fn run(self: Arc<Self>, mut attention: Subscription, stop: CancellationToken) {
        let mut looks = interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let due = self.watched.lock().due.first().map(|(due, _)| *due);
            let due = async {
                match due {
                    Some(due) => sleep_until(due.into()).await,
                    None => std::future::pending().await,
                }
            };
            // All branches are cancel-safe.
            tokio::select! {
                () = stop.cancelled() => return,
                event = attention.next() => {
                    if let Event::Attention(sensor) = event {
                        self.look_at(&sensor);
                    }
                }
                () = due => self.ease(Instant::now()),
                tick = looks.tick() => self.look_at_load(tick.elapsed()),
            }
        }
    }

    /// What a device of this sensor is advised now.
    pub fn advice(&self, sensor: &SensorId) -> Advice {
        self.look_at(sensor);
        let watched = self.watched.lock();
        Advice::new(watched.level(sensor), &watched.strain)
    }

    /// A connection's ear, which hears of nothing yet.
    pub fn ear(self: &Arc<Self>) -> Ear {
        Ear { advisor: self.clone(), bell: Arc::new(Notify::new()), sensors: Vec::new() }
    }

    /// Looks at how closely a sensor is watched, and tells its devices when that is news to them.
    fn look_at(&self, sensor: &SensorId) {
        let now = Instant::now();
        let mut watched = self.watched.lock();
        // Asked with the lock held, so that of two looks the later has the later answer.
        let level = self.store.attention(sensor);
        if watched.look(sensor, level, now) {
            let advice = Advice::new(watched.level(sensor), &watched.strain);
            watched.ring(sensor);
            drop(watched);
            self.publish(sensor, advice);
        }
    }

    /// Looks again at what is due.
    fn ease(&self, now: Instant) {
        loop {
            let sensor = match self.watched.lock().due.first() {
                Some((due, sensor)) if *due <= now => sensor.clone(),
                _ => return,
            };
            self.look_at(&sensor);
        }
    }

    fn look_at_load(&self, delay: Duration) {
        let mut watched = self.watched.lock();
        if !watched.strain.look(self.store.pressure(), delay) {
            return;
        }
        let (factor, paused) = (watched.strain.factor(), watched.strain.is_full());
        tracing::info!(factor, paused, "devices are advised by the node's load");
        watched.ears.values().flatten().filter_map(Weak::upgrade).for_each(|bell| bell.notify_one());
        drop(watched);
        for sensor in self.store.devices_here() {
            let advice = self.advice(&sensor);
            self.publish(&sensor, advice);
        }
    }

    fn publish(&self, sensor: &SensorId, advice: Advice) {
        self.hub.publish_here(message(sensor, advice));
    }
}

/// The advice for a sensor, as MQTT clients get it.
pub(crate) fn message(sensor: &SensorId, advice: Advice) -> Message {
    Message {
        topic: format!("{TOPIC}{sensor}").into(),
        // An object of a name, numbers and a truth value: it can always be written.
        payload: serde_json::to_vec(&advice).unwrap_or_default().into(),
        properties: None,
        qos: QoS::AtMostOnce,
        expires: None,
    }
}

impl Watched {
    fn level(&self, sensor: &SensorId) -> Level {
        self.levels.get(sensor).map(Easing::level).unwrap_or_default()
    }

    fn look(&mut self, sensor: &SensorId, level: Level, now: Instant) -> bool {
        let mut easing = self.levels.get(sensor).copied().unwrap_or_default();
        if let Some(due) = easing.due() {
            self.due.remove(&(due, sensor.clone()));
        }
        let changed = easing.look(level, now);
        if let Some(due) = easing.due() {
            self.due.insert((due, sensor.clone()));
        }
        if easing == Easing::default() {
            self.levels.remove(sensor);
        } else {
            self.levels.insert(sensor.clone(), easing);
        }
        changed
    }

    fn ring(&self, sensor: &SensorId) {
        let ears = self.ears.get(sensor).into_iter().flatten();
        ears.filter_map(Weak::upgrade).for_each(|bell| bell.notify_one());
    }
}

/// Through which a connection hears of the sensors that it speaks for.
pub struct Ear {
    advisor: Arc<Advisor>,
    bell: Arc<Notify>,
    sensors: Vec<SensorId>,
}

impl Ear {
    /// Listens for one more sensor; each is to be named once.
    pub fn listen(&mut self, sensor: &SensorId) {
        let bell = Arc::downgrade(&self.bell);
        self.advisor.watched.lock().ears.entry(sensor.clone()).or_default().push(bell);
        self.sensors.push(sensor.clone());
        self.bell.notify_one();
    }

    /// Waits until the advice may be another one. Cancel-safe.
    pub async fn rung(&self) {
        self.bell.notified().await;
    }

    /// What the connection is advised now: by the closest watched of its sensors.
    pub fn advice(&self) -> Option<Advice> {
        let advice = self.sensors.iter().map(|sensor| self.advisor.advice(sensor));
        advice.max_by_key(|advice| advice.attention)
    }
}

impl Drop for Ear {
    fn drop(&mut self) {
        let own = Arc::as_ptr(&self.bell);
        let mut watched = self.advisor.watched.lock();
        for sensor in &self.sensors {
            if let Some(ears) = watched.ears.get_mut(sensor) {
                ears.retain(|bell| bell.as_ptr() != own);
                if ears.is_empty() {
                    watched.ears.remove(sensor);
                }
            }
        }
    }
}

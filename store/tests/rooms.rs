//! Rooms on one store: kept over restarts, told to those who follow, and what ten thousand of them cost.
#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use std::path::Path;
use std::time::{Duration, Instant};

use store::{
    Attribute, AttributeDescription, Batch, Config, Description, Event, JoinCode, MemberWish, NewRoom,
    NodeName, PersonId, Role, RoomError, RoomId, RoomView, SampleTime, SensorId, Shape, Store, Ticket, Times,
    Values,
};
use tokio::time::timeout;

/// A guard, not an expectation.
const WITHIN: Duration = Duration::from_secs(20);
/// So small that a few hundred samples fill it.
const LOG: u64 = 16 << 10;

fn open(data: &Path, log_budget: u64) -> Store {
    let mut config = Config::new(data, NodeName::new("a").unwrap());
    config.log_budget = log_budget;
    Store::open(config).unwrap()
}

fn sensor(number: usize) -> SensorId {
    SensorId::new(&format!("sensor-{number}")).unwrap()
}

fn person(number: usize) -> PersonId {
    PersonId::new(&format!("person-{number}")).unwrap()
}

fn named(name: &str) -> NewRoom {
    NewRoom { name: name.into(), ..NewRoom::default() }
}

async fn kept(ticket: Ticket) {
    timeout(WITHIN, ticket.kept()).await.expect("kept").unwrap();
}

/// Two rooms that were changed, and one that was deleted.
async fn some_rooms(store: &Store) -> RoomId {
    let wish = NewRoom { name: "Lab".into(), temporary: true, sensors: vec![sensor(1), sensor(2)] };
    let (lab, ticket) = store.create_room(wish).unwrap();
    assert_eq!((lab.name.as_str(), lab.temporary, lab.sensors.len()), ("Lab", true, 2));
    kept(ticket).await;
    let (hall, _) = store.create_room(named("Hall")).unwrap();
    let ana = MemberWish { name: Some("Ana".into()), role: Some(Role::Owner) };
    store.put_member(&hall.room, &person(1), ana).unwrap();
    store.put_member(&hall.room, &person(2), MemberWish::default()).unwrap();
    store.remove_member(&hall.room, &person(2)).unwrap();
    store.rename_room(&hall.room, "Great hall".into()).unwrap();
    store.add_sensor(&hall.room, &sensor(3)).unwrap();
    store.remove_sensor(&lab.room, &sensor(1)).unwrap();
    let (code, _) = store.renew_join_code(&hall.room).unwrap();
    assert_ne!(Some(code), hall.join_code);
    let (gone, _) = store.create_room(named("Gone")).unwrap();
    kept(store.delete_room(&gone.room).unwrap()).await;
    gone.room
}

fn check(store: &Store, held: &[RoomView], gone: &RoomId) {
    assert_eq!(store.rooms(), held);
    for view in held {
        assert_eq!(store.room(view.room.as_str()).as_ref(), Some(view));
        assert_eq!(store.room_by_code(view.join_code.unwrap()).as_ref(), Some(&view.room));
    }
    assert_eq!(store.room(gone.as_str()), None);
    let error = store.rename_room(gone, "Back".into()).unwrap_err();
    assert_eq!(error, RoomError::Unknown(gone.to_string()));
}

async fn fill(store: &Store, from: i64) {
    let series = store.series(&sensor(1), &Attribute::new("value").unwrap(), Shape::Numbers(1)).unwrap();
    for first in (from..from + 10_000).step_by(250) {
        let times = (first..first + 250).map(SampleTime).collect();
        let values = Values::Numbers { channels: 1, flat: vec![1.0; 250] };
        let batch = Batch { series: series.clone(), times: Times::At(times), values };
        kept(store.append(vec![batch]).await.unwrap().ticket).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rooms_come_back_from_the_log_and_from_a_checkpoint() {
    let data = tempfile::tempdir().unwrap();
    let store = open(data.path(), LOG);
    let gone = some_rooms(&store).await;
    let held = store.rooms();
    assert_eq!(held.len(), 2);
    store.close().await;
    let store = open(data.path(), LOG);
    check(&store, &held, &gone);
    // From here on nothing of it is in the log.
    fill(&store, 0).await;
    let began = Instant::now();
    while store.stats().log_bytes > 3 * LOG {
        assert!(began.elapsed() < WITHIN, "the log was not trimmed");
        tokio::task::yield_now().await;
    }
    store.close().await;
    let store = open(data.path(), LOG);
    check(&store, &held, &gone);
    // What changes now is on top of what the checkpoint has.
    let hall = &held.iter().find(|view| view.name == "Great hall").unwrap().room;
    store.remove_sensor(hall, &sensor(3)).unwrap();
    kept(store.add_sensor(hall, &sensor(4)).unwrap()).await;
    let held = store.rooms();
    store.close().await;
    let store = open(data.path(), LOG);
    check(&store, &held, &gone);
    assert!(store.is_in_room(hall.as_str(), &sensor(4)) && !store.is_in_room(hall.as_str(), &sensor(3)));
    store.close().await;
}

#[tokio::test]
async fn whoever_follows_the_catalogue_is_told_to_look_at_what_changed_once_however_often_it_did() {
    let data = tempfile::tempdir().unwrap();
    let store = open(data.path(), 64 << 20);
    let mut feed = store.subscribe(10);
    feed.follow_catalog(true);
    let (room, _) = store.create_room(named("Lab")).unwrap();
    let room = room.room;
    let changes: [&dyn Fn(); 2] = [&|| (), &|| {
        store.add_sensor(&room, &sensor(1)).unwrap();
        store.rename_room(&room, "Hall".into()).unwrap();
        store.delete_room(&room).unwrap();
    }];
    for change in changes {
        change();
        let told = timeout(WITHIN, feed.next()).await.expect("told");
        assert!(matches!(&told, Event::Room(id) if *id == room), "{told:?}");
        assert!(feed.try_next().is_none(), "it has looked");
    }
    assert!(store.rename_room(&room, "Late".into()).is_err());
    assert!(feed.try_next().is_none(), "nothing changed");
    // However much changes while it does not read, it misses nothing.
    let mut changed: Vec<_> = (0..3000).map(|_| store.create_room(named("Lab")).unwrap().0.room).collect();
    let told = std::iter::from_fn(|| feed.try_next()).map(|event| match event {
        Event::Room(room) => room,
        other => panic!("{other:?}"),
    });
    let mut told: Vec<_> = told.collect();
    told.sort_unstable();
    changed.sort_unstable();
    assert_eq!(told, changed);
    store.close().await;
    assert!(store.create_room(named("Late")).unwrap().1.kept().await.is_err(), "it is closed");
}

/// Bytes of memory that this process takes.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/statm").unwrap();
    status.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

/// Prints what `ARCHITECTURE.md` says of the registry at this size.
#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_rooms_and_a_hundred_thousand_descriptors_are_found_at_once() {
    const ROOMS: usize = 10_000;
    const SENSORS: usize = 100_000;
    let data = tempfile::tempdir().unwrap();
    let store = open(data.path(), 64 << 20);
    let before = resident();
    let mut last = None;
    for number in 0..ROOMS {
        let sensors = (0..10).map(|n| sensor(number * 10 + n)).collect();
        let wish = NewRoom { name: format!("Room {number}"), temporary: false, sensors };
        let (view, ticket) = store.create_room(wish).unwrap();
        last = Some(ticket);
        for n in 0..5 {
            let who = MemberWish { name: Some(format!("Person {n}")), role: Some(Role::Member) };
            last = Some(store.put_member(&view.room, &person(n), who).unwrap());
        }
    }
    kept(last.unwrap()).await;
    let rooms_take = resident() - before;
    let log = store.stats().log_bytes;
    let before = resident();
    for number in 0..SENSORS {
        let unit = AttributeDescription { unit: Some("Cel".into()), ..AttributeDescription::default() };
        let attributes = vec![(Attribute::new("temperature").unwrap(), unit)];
        let description = Description { name: Some(format!("Sensor {number}")), attributes };
        store.describe(&sensor(number), &description).unwrap();
    }
    let sensors_take = resident() - before;
    let rooms = store.rooms();
    assert_eq!(rooms.len(), ROOMS);
    let codes: Vec<JoinCode> = rooms.iter().map(|view| view.join_code.unwrap()).collect();
    let each = |what: &mut dyn FnMut(usize)| {
        let began = Instant::now();
        (0..ROOMS).for_each(what);
        began.elapsed() / ROOMS as u32
    };
    let by_code = each(&mut |n| assert_eq!(store.room_by_code(codes[n]).as_ref(), Some(&rooms[n].room)));
    let by_id = each(&mut |n| assert!(store.room(rooms[n].room.as_str()).is_some()));
    let in_room = each(&mut |n| assert!(store.is_in_room(rooms[n].room.as_str(), &rooms[n].sensors[0])));
    let by_sensor = each(&mut |n| assert!(store.sensor(sensor(n * 10).as_str()).is_some()));
    let began = Instant::now();
    let one = rooms[ROOMS / 2].room.clone();
    let changes = 200;
    let written = (store.stats().log_bytes, store.stats().written_bytes);
    for n in 0..changes {
        kept(store.add_sensor(&one, &sensor(n)).unwrap()).await;
    }
    let change = began.elapsed() / changes as u32;
    let now = (store.stats().log_bytes - written.0, store.stats().written_bytes - written.1);
    store.close().await;
    let began = Instant::now();
    let store = open(data.path(), 64 << 20);
    assert_eq!(store.rooms().len(), ROOMS);
    println!(
        "{ROOMS} rooms of 10 sensors and 5 members: {} bytes of memory each, {} bytes of log each\n\
         {SENSORS} descriptors: {} bytes of memory each\n\
         found by code in {by_code:?}, all of it by id in {by_id:?}, whether a sensor is in it in {in_room:?}, a sensor in {by_sensor:?}\n\
         a change alone: {} bytes of log, {} bytes written, kept in {change:?}\n\
         started from the log in {:?}",
        rooms_take / ROOMS,
        log / ROOMS as u64,
        sensors_take / SENSORS,
        now.0 / changes as u64,
        now.1 / changes as u64,
        began.elapsed(),
    );
    // Unoptimised, and on busy cores.
    for found in [by_code, in_room, by_sensor] {
        assert!(found < Duration::from_micros(50), "{found:?}");
    }
    store.close().await;
}

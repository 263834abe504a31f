//! What Sensorium keeps and how it is replicated. It knows no protocol of devices or browsers.
//!
//! A sample's way: [`Store::append`] (`handle`) joins it into its ring (`ring`, in `series`, in `memory`), encodes it
//! into the run that the next frame takes, and tells the followers (`feed`), all under the lock of its series. The
//! group (`group`) gathers the series that have something for the next frame; the committer (`disk::commit`) seals
//! the frame (`replica::frame`), commits it, and settles the tickets. The checkpointer (`disk::checkpoint`) turns the
//! log into chunks (`disk::chunks`); at start `disk::recover` reads both back.
//!
//! What passes and is on no disk (who is in a room, how closely sensors are watched, which have a device) stands in tables
//! that each node owns (`passing`, at work in `here`); `presence`, `attention` and `device` put it there.
//!
//! What must not know what: `model`, `ring`, `registry`, `passing` and `replica` do no I/O, take no locks and read no clock;
//! only `disk` knows redb; only `disk::commit` opens a write transaction.

mod attention;
mod clock;
pub mod cluster;
mod codec;
mod config;
mod conflict;
mod describe;
mod device;
mod disk;
mod error;
mod exchange;
mod feed;
mod group;
mod handle;
mod here;
mod intake;
mod ledger;
mod memory;
pub mod model;
mod pace;
mod passing;
mod post;
mod presence;
mod read;
mod registry;
mod replica;
mod retained;
pub mod ring;
mod rooms;
mod seal;
mod sensors;
mod series;
#[cfg(feature = "sim")]
pub mod sim;
mod tail;
mod wills;

pub use attention::{Gaze, Level};
pub use clock::Stamp;
pub use config::{Config, DEFAULT_KEEP, MAX_KEEP, MAX_KEEP_TEXTS, Policy};
pub use device::DeviceGuard;
pub use error::{AppendError, Failed, OpenError, Refusal};
pub use exchange::{ExchangeFigures, Heard, POSTED, POSTED_BYTES, Posted};
pub use feed::in_rooms::RoomFilter;
pub use feed::{Backfill, Change, Event, Filter, Subscription};
pub use group::{Copies, Ticket};
pub use handle::{Appended, Batch, Node, Page, SensorView, Stats, Store, Times};
pub use ledger::Ledger;
pub use model::ids::{
    Attribute, IdError, NodeId, NodeName, Origin, PARTITIONS, Partition, PersonId, RoomId, SensorId, SeriesId,
};
pub use model::kind::Kind;
pub use model::room::{JoinCode, Role};
pub use model::time::SampleTime;
pub use model::value::{MAX_CHANNELS, MAX_TEXT_BYTES, Shape, ValueRef, Values};
pub use passing::FILTERS;
pub use presence::{Crowded, NotSent, Present, SIGNAL_BYTES, Signal, Stay};
pub use read::Query;
pub use registry::request::{
    MAX_NAME_CHARS, MAX_ROOM_MEMBERS, MAX_ROOM_SENSORS, MAX_ROOMS, MemberWish, NewRoom, RoomError,
};
pub use registry::retained::{Kept, MAX_MESSAGE_BYTES, MAX_RETAINED, MAX_TOPIC_BYTES, RetainError};
pub use registry::rooms::{MemberView, RoomView};
pub use registry::{AttributeDescription, Description};
pub use ring::{Joined as Outcome, Samples};
pub use sensors::{EditError, MAX_LABEL_CHARS};
pub use series::{AttributeView, OwnedValue, Series};
pub use wills::{Due, Testament, WILL_BYTES};

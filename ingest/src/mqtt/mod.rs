//! MQTT 3.1.1 and 5 on one port: devices publish their samples, subscribers get everybody's, and everything else is
//! ordinary MQTT between clients.
//!
//! A connection's way: `listener` takes it, `greeting` reads CONNECT, `connection` moves its bytes (`transport`) to its
//! `desk`, where `codec` and `session` (which answers by `writer`) say what each packet asks for. Publications to `sensors/…` go to the `uplink`
//! and from there, a whole read at a time, into the store; all others to the `hub`, which knows sessions, subscriptions
//! (`filter`) and `mailbox`es (`delivery`). `retained` messages stand in the store's registry; messages for the clients of other nodes
//! (`relays`), and `wills` of these, go through its exchange, each as a `letter`. Samples for subscribers come from the
//! store's feed (`samples`).
//!
//! What must not know what: `codec`, `writer`, `filter`, `letter`, `session` and `mailbox` know no socket, no store and no clock; only `connection` waits.

mod codec;
mod connection;
mod counters;
mod delivery;
mod desk;
mod filter;
mod greeting;
mod hub;
mod letter;
mod listener;
mod mailbox;
mod relays;
mod retained;
mod samples;
mod session;
mod transport;
mod uplink;
mod wills;
mod writer;

pub use counters::{Counter, Counters};
pub use hub::Hub;
pub use listener::{Settings, serve};
pub use mailbox::Message;

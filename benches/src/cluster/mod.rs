//! Clusters side by side: ours and NATS JetStream, the nearest thing that users could pick instead. Both are started as
//! three processes on this machine, driven by the same clients, killed and stopped in the same way, and looked at copy
//! by copy.
//!
//! `contender` is what the measurements (`failover`, `throughput`, `latency`, `links`, `catchup`, `idle`) know of a
//! cluster; `ours` and `jetstream` are the two. `publisher` and `viewer` drive a connection of either and move to
//! another node when theirs is silent. `table` prints what came of it.

pub mod catchup;
pub mod contender;
pub mod failover;
pub mod idle;
pub mod jetstream;
pub mod latency;
pub mod links;
pub mod member;
pub mod namespace;
pub mod nats;
pub mod ours;
pub mod publisher;
pub mod settings;
pub mod sockets;
pub mod table;
pub mod throughput;
pub mod viewer;

//! The cluster: who is in it, the links between its nodes, and what is told about it.
//!
//! `secret` turns the cluster secret into keys, `datagram` seals with one of them. `link` opens connections (`hello`:
//! who may; `tls`: how). `discover` yields addresses to try; `member` says who lives there (`swim` runs it; `identity`:
//! who a member is to it; `heard`: who spoke last when; `changes`: what is told). `placement` says which nodes keep a
//! partition. `mesh` holds it together: it links all members, and `peer` drives each link; `scrub` compares rings. `view` is what people see of it all.
//! `expiry` does what only one node may do: it deletes temporary rooms that are empty.

mod changes;
pub mod datagram;
pub mod discover;
pub mod expiry;
mod heard;
pub mod hello;
mod identity;
pub mod link;
pub mod member;
pub mod mesh;
mod peer;
pub mod placement;
mod scrub;
pub mod secret;
mod swim;
mod tls;
pub mod view;

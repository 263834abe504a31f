//! Wire formats: what stands in the messages of devices. No socket, no store, no clock; a device needs no more than this.

pub mod message;
pub mod read;
pub mod rows;
pub mod scan;
pub mod senml;
pub mod topic;

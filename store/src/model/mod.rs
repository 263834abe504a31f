//! The words of the domain: ids, times, values, kinds, rooms. No I/O, no locks.

pub mod ids;
pub mod kind;
pub mod room;
pub mod time;
pub mod value;

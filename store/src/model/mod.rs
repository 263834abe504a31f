//! The words of the domain: ids, times, values, kinds. No I/O, no locks.

pub mod ids;
pub mod kind;
pub mod time;
pub mod value;

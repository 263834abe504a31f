//! The live socket, `GET /api/v1/live`: viewers say what they watch and get every sample of it, once.

pub mod frame;
pub mod hub;
pub mod message;
pub(crate) mod socket;
mod watches;

//! The live socket, `GET /api/v1/live`: viewers say what they watch and get every sample of it, once.

mod company;
pub mod frame;
mod gaze;
pub mod hub;
pub mod message;
mod pace;
pub(crate) mod socket;
mod watches;

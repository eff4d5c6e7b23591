//! BGP-4 (RFC 4271) for a node that announces virtual IPs: a speaker, not a transit router.
//!
//! [`wire`] turns bytes into messages and back; [`fsm`] is the table of RFC 4271 §8; [`session`]
//! drives it for one neighbour over up to two connections; [`rib`] holds what the neighbour was
//! told and brings it to the latest wanted state by difference; [`import`] keeps the few routes
//! we take. Nothing here knows a socket or a clock: see [`crate::speaker`].

pub mod config;
mod connection;
pub mod fsm;
pub mod import;
pub mod rib;
pub mod session;
pub mod wire;

//! What nodes share: flows, on demand.
//!
//! When a router moves an established connection to another node, that node asks its peers whose
//! it is, and goes on with the owner's mapping (`forward::adopt` has the why). In: questions of
//! our workers, datagrams of peers. Out: questions and answers as datagrams, orders to our workers.
//! The wire format is in docs/cluster.md.
//!
//! [`Exchange`] is the protocol, without socket and clock; [`spawn`] runs it on a UDP socket and
//! the workers' rings. Datagrams are authenticated (HMAC-SHA-256 with a shared key); whatever
//! comes in, nothing here panics, and every queue and table is bounded.
//!
//! Only TCP: a client that sends UDP repeats nothing by itself, so the datagram that asks would be
//! lost, and a new flow to the same backend (Maglev chooses alike on all nodes) serves as well.

mod driver;
mod exchange;
mod stats;
#[cfg(test)]
mod tests;
pub mod wire;

pub use driver::{bind, spawn};
pub use exchange::{Exchange, ExchangeConfig, MAX_PEERS};
pub use stats::{ClusterStats, PeerStats};

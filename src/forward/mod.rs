//! The packet path: parse → flow → service → schedule → rewrite → next hop → verdict.
//!
//! Takes bytes and `now`, returns verdicts. Knows no socket, no clock, no DPDK, and never
//! allocates, logs or blocks. The worker alone sends, frees and counts.
//!
//! [`Tables`] are compiled by `control` from a [`tables::TablesSpec`]; each worker has one
//! [`Engine`] and gives it bursts of frames. What goes where:
//!
//! | frame | verdict |
//! |---|---|
//! | TCP or UDP of a flow, or that begins one | `Transmit`, or `Wait` for a neighbour |
//! | fragment of one, before the first | `Await` it |
//! | to a VIP or LIP, but nothing that can be translated | `Drop` |
//! | ICMP echo to a VIP | answered: `Transmit` on the port it came from |
//! | ICMP error about a packet of a flow | translated: `Transmit` |
//! | too big for its way out, and not to be fragmented | answered by an ICMP error: `Transmit` |
//! | other IP to one of our MACs: our own addresses, routing protocols | `Kernel` |
//! | group or broadcast MAC: ARP, ND, OSPF | `Kernel` |
//! | 802.1Q or 802.1ad tagged | `Kernel`: its VLAN interfaces; the packet path is untagged |
//! | unicast to a MAC that is not the port's | `Drop(NotForUs)` |
//!
//! Fragments of TCP and UDP to a VIP or LIP are translated one by one, those that follow as the first.
//! IPv4 options, IPv6 extension headers and other fragments are not followed: to a VIP or LIP they are
//! dropped under their own reason, to anything else they are the kernel's.

mod adopt;
mod budget;
mod build;
mod burst;
mod compiled;
mod create;
mod datagrams;
mod engine;
mod fib;
mod flows;
mod foreign;
mod fragments;
mod hash;
mod icmp;
mod index;
mod maglev;
mod map;
mod other;
mod owner;
mod pool;
mod schedule;
pub mod slots;
#[doc(hidden)]
pub mod stages;
pub mod stats;
pub mod steering;
pub mod tables;
mod tcp;
#[cfg(test)]
mod tests;
mod time;
mod too_big;
mod tuple;
mod unusual;
mod verdict;
mod view;
mod wheel;

pub use adopt::{FlowKey, FlowMapping, FlowPhase, SharingLimits};
pub(crate) use budget::Budget;
pub use build::{Anew, BuildError, MAX_BACKENDS_OF_SERVICE, MAX_PORTS, MAX_SLOTS, Tables};
pub use engine::{Engine, EngineConfig, Origin, unresolved};
pub use stats::{Usage, WorkerStats};
pub use steering::Steering;
pub use time::Now;
pub use verdict::{DropReason, Verdict};
pub use view::FlowView;

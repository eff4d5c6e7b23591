//! Dunlin: an anycast layer-4 load balancer that is also a router.
//!
//! Rooms and the one-way dependencies between them are described in docs/architecture.md. In short:
//! [`packet`] and [`forward`] are the packet path and know no socket, clock or DPDK; [`port`] is
//! where frames come from and go to; [`worker`] is the loop; [`control`] owns the node's state and
//! is the only room that knows both forwarding and routing; [`cluster`] shares flows with other
//! nodes.

pub mod api;
pub mod appliance;
pub mod cli;
pub mod cluster;
pub mod config;
pub mod control;
pub mod forward;
pub mod health;
#[cfg(feature = "dpdk")]
pub mod node;
pub mod packet;
pub mod port;
pub mod worker;

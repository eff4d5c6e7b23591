//! Control interfaces, and the netlink mirror of what the kernel knows about them.
//!
//! A control interface is the kernel network interface that mirrors a port (what KNI was): the
//! kernel's TCP, ARP/ND, ICMP and our own routing sockets use the NIC through it. It is a DPDK
//! virtual device which the main package opens; this crate knows no DPDK.
//!
//! - [`control`] decides the kind of device, makes its device string and sets up the kernel side.
//! - [`mirror`] follows the kernel's links, addresses, neighbours and routes of these interfaces,
//!   has neighbours resolved, and installs our routes.
//!
//! Netlink sockets belong to the network namespace of the thread that opens them, so call
//! [`control::Configurator::open`] and [`mirror::Mirror::spawn`] on a thread of the right one.
//!
//! Everything that arrives is taken for possibly malformed: it is counted and skipped, and what may
//! have been missed is dumped again. Nothing here panics on it.

pub mod control;
mod error;
pub mod mirror;
mod netlink;
mod raw;
mod wire;

pub use error::Error;

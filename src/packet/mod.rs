//! Checked reading of bytes: Ethernet, VLAN, IPv4, IPv6, TCP, UDP, ICMP, checksums.
//!
//! Lengths are checked once, by [`parse()`]; readers do not fail afterwards. Nothing on the packet
//! path allocates, knows a socket or reads a clock. [`build`] is the exception: it makes frames,
//! for probes, tests and benches, and allocates them.

pub mod build;
pub mod checksum;
mod fragment;
mod frame;
mod parse;

pub use fragment::Fragment;
pub use frame::{Checksum, Frame, RxMeta, TxOffload};
pub use parse::*;

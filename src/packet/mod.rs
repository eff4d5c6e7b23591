//! Checked views over bytes: Ethernet, VLAN, IPv4, IPv6, TCP, UDP, ICMP, checksums.
//!
//! Lengths are checked once, when a view is made; accessors do not fail afterwards. Nothing here
//! allocates, knows a socket or reads a clock.

mod frame;

pub use frame::{Checksum, Frame, RxMeta, TxOffload};

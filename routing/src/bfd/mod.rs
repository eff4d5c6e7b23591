//! Bidirectional Forwarding Detection: RFC 5880, 5881 (single hop), 5883 (multihop), 7419.
//!
//! [`packet`] is the codec, [`auth`] its authentication sections, [`session`] the state machine of
//! one peer, [`engine`] many sessions behind one set of sockets. All four are sans-IO: bytes and
//! `now` in, packets and events out. [`driver`] owns the sockets and the operating-system thread
//! they are served from.
//!
//! Call order for [`session::Session`] and [`engine::Engine`]: after every `handle_*` call, drain
//! `poll_transmit` and `poll_event`, then sleep until `next_timeout` or the next packet.
//!
//! Nothing here allocates per packet received, blocks, reads a clock or logs; only the driver does.

pub mod auth;
pub mod driver;
pub mod engine;
pub mod packet;
mod rng;
mod sched;
pub mod session;
mod sockets;
mod status;

use std::time::Duration;

pub use auth::{AuthConfig, AuthType};
pub use driver::{BfdError, BfdHandle, PeerEvent, States};
pub use engine::{ConfigError, EngineCounters, Key, SessionConfig};
pub use packet::{Diagnostic, State};
pub use session::Cause;
pub use status::{BfdStatus, SessionStatus};

/// A point in time: the distance from an epoch of the caller's choosing.
pub type Instant = Duration;

/// UDP destination port of single-hop sessions (RFC 5881 §4).
pub const SINGLE_HOP_PORT: u16 = 3784;
/// UDP destination port of multihop sessions (RFC 5883 §5).
pub const MULTIHOP_PORT: u16 = 4784;

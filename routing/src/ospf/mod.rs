//! OSPFv2 (RFC 2328) and OSPFv3 (RFC 5340) for a node that announces virtual IPs and never carries transit traffic.
//!
//! [`lsa`], [`packet`] and [`auth`] are the codecs, for OSPFv2 and OSPFv3 alike; [`interface`] and
//! [`neighbor`] the state machines as pure functions; [`lsdb`] the database; [`instance`] puts them
//! together: one router in one area. All sans-IO: packets, links and `now` in, packets and events
//! out. [`driver`] owns the sockets and the task.
//!
//! The router is a leaf: it originates and floods, but computes no routes and is never an area
//! border router. Its router-LSA carries the maximum metric on every link that could be transited
//! (RFC 6987) and the H-bit (RFC 8770).

pub mod auth;
pub mod config;
pub mod driver;
pub mod instance;
pub mod interface;
pub mod lsa;
pub mod lsdb;
pub mod neighbor;
pub mod packet;
pub mod status;

pub use config::{AreaKind, Config, ConfigError, InterfaceConfig, NetworkKind};
pub use driver::{BfdTimers, OspfError, OspfHandle};
pub use status::{InstanceStatus, InterfaceStatus, LsaStatus, NeighborStatus};

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// A point in time: the distance from an epoch of the caller's choosing.
pub type Instant = Duration;

/// Protocol version; the value is the version field of the packet header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Version {
    V2 = 2,
    V3 = 3,
}

//! What the packet path knows of the world: one immutable value, replaced whole.
//!
//! `control` builds the next [`Tables`] and publishes it; each worker picks it up between bursts
//! and acknowledges its epoch. Ids are slots that `control` hands out and keeps stable: a slot is
//! not reused while a worker still has a flow that names it, so flow records may store ids.

use std::net::IpAddr;

/// Index of a port, dense from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortId(pub u16);

/// Index of a worker, dense from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkerId(pub u16);

/// Slot of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceId(pub u32);

/// Slot of a backend: one address and port behind one service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BackendId(pub u32);

/// Slot of a local address (LIP).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LipId(pub u16);

/// Slot of a next hop: a port and a neighbour on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NextHopId(pub u32);

/// Layer-4 protocol of a service.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum Protocol {
    Tcp = 6,
    Udp = 17,
}

/// Ethernet address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Mac(pub [u8; 6]);

/// How a service picks a backend for a new flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scheduler {
    /// Maglev consistent hashing (NSDI'16 §3.4): nodes agree without talking.
    Maglev,
    /// Weighted round robin, per worker.
    RoundRobin,
}

/// Idle times after which a flow is removed, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Timeouts {
    /// TCP before the handshake is complete.
    pub syn_ms: u32,
    /// TCP established.
    pub established_ms: u32,
    /// TCP after the first FIN, and after RST.
    pub closing_ms: u32,
    /// UDP.
    pub udp_ms: u32,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { syn_ms: 10_000, established_ms: 900_000, closing_ms: 10_000, udp_ms: 60_000 }
    }
}

/// A service as `control` describes it to the table builder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceSpec {
    pub id: ServiceId,
    pub vip: IpAddr,
    pub protocol: Protocol,
    pub port: u16,
    pub scheduler: Scheduler,
    pub timeouts: Timeouts,
    /// Every backend of the service, healthy or not, in configuration order.
    pub backends: Vec<BackendSpec>,
    /// No longer configured: existing flows go on until they end, no new ones.
    pub removed: bool,
}

/// A backend as `control` describes it to the table builder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendSpec {
    pub id: BackendId,
    pub address: IpAddr,
    pub port: u16,
    /// Relative share of new flows, 0..=1000. 0: existing flows go on, no new ones.
    pub weight: u32,
    /// Takes new flows: checks pass, not draining, not removed. Existing flows go on either way.
    pub usable: bool,
}

/// A local address: the source of what goes to the backends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LipSpec {
    pub id: LipId,
    pub address: IpAddr,
}

/// A port as the packet path needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortSpec {
    pub id: PortId,
    pub mac: Mac,
    /// Largest IP packet, bytes.
    pub mtu: u16,
    pub up: bool,
    /// The port completes these checksums on transmit.
    pub tx_ipv4_checksum: bool,
    pub tx_l4_checksum: bool,
}

/// A route: destination prefix and the next hops it may take, with weights.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteSpec {
    pub prefix: ipnet::IpNet,
    /// Empty: unreachable (blackhole, prohibit). `NextHopId`s index [`TablesSpec::next_hops`].
    pub next_hops: Vec<(NextHopId, u16)>,
}

/// A neighbour, or the on-link scope of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NextHopSpec {
    pub id: NextHopId,
    pub port: PortId,
    /// The gateway. `None`: on-link, the destination itself is the neighbour; it is looked up in
    /// [`TablesSpec::neighbours`].
    pub gateway: Option<IpAddr>,
}

/// A resolved (or not yet resolved) neighbour on a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NeighbourSpec {
    pub port: PortId,
    pub address: IpAddr,
    pub mac: Mac,
}

/// Everything the table builder takes. Plain data; `control` derives it from its state.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TablesSpec {
    pub epoch: u64,
    pub workers: u16,
    pub ports: Vec<PortSpec>,
    pub services: Vec<ServiceSpec>,
    pub lips: Vec<LipSpec>,
    pub routes: Vec<RouteSpec>,
    pub next_hops: Vec<NextHopSpec>,
    pub neighbours: Vec<NeighbourSpec>,
}

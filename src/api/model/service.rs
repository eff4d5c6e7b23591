//! Services, backends and flows.

use crate::forward::tables::{Protocol, Scheduler};
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, SocketAddr};

/// `tcp` or `udp`.
pub const fn protocol_name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    }
}

/// Connections and traffic. `in` is client to backend, `out` is backend to client; bytes are those
/// of IP packets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// Flows alive now.
    pub connections_active: u64,
    /// Flows ever opened.
    pub connections_total: u64,
    pub packets_in: u64,
    pub packets_out: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
}

/// One entry of `GET /v1/services`: one VIP and port of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceInfo {
    pub name: String,
    pub vip: IpAddr,
    pub protocol: Protocol,
    pub port: u16,
    pub scheduler: Scheduler,
    pub backends_healthy: u64,
    pub backends_total: u64,
    /// Fewer healthy backends than this, and the VIP is withdrawn.
    pub min_healthy: u32,
    /// The VIP stays announced below `min_healthy` (`on_no_backend = "keep"`).
    pub keep_announced: bool,
    /// The VIP is announced to at least one peer.
    pub announced: bool,
    pub draining: bool,
    #[serde(flatten)]
    pub traffic: Traffic,
}

word_enum! {
    /// Whether a backend takes new flows, and if not, why.
    BackendState {
        /// Its check passes, or it has none.
        Healthy => "healthy",
        /// Its check fails.
        Unhealthy => "unhealthy",
        /// Not checked often enough yet to tell.
        Unknown => "unknown",
        /// An operator drains it: no new flows.
        Draining => "draining",
        /// No longer configured; flows that are left go on until they end.
        Removed => "removed",
    }
}

/// One entry of `GET /v1/backends`: one backend of one service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendInfo {
    pub service: String,
    /// Port 0: the port that the client asked for.
    pub address: SocketAddr,
    /// Relative share of new flows. 0: none.
    pub weight: u32,
    pub state: BackendState,
    /// How long it has been in this state.
    pub state_age_s: u64,
    /// What the last check said, or who drains it. Empty: nothing to say.
    pub reason: String,
    /// Duration of the last check that succeeded.
    pub check_latency_us: Option<u64>,
    #[serde(flatten)]
    pub traffic: Traffic,
}

word_enum! {
    /// State of a flow; each word is also the name of the timeout that applies.
    FlowState {
        /// TCP before the handshake is complete.
        Syn => "syn",
        /// TCP established.
        Established => "established",
        /// TCP after the first FIN, or after RST.
        Closing => "closing",
        /// UDP.
        Udp => "udp",
    }
}

/// One flow, both directions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowInfo {
    pub protocol: Protocol,
    pub client: SocketAddr,
    pub vip: SocketAddr,
    /// Local address and port: the source that the backend sees.
    pub lip: SocketAddr,
    pub backend: SocketAddr,
    pub state: FlowState,
    /// Since the last packet in either direction.
    pub idle_ms: u64,
    pub worker: u16,
    pub service: String,
    /// The other node that owns it: replies go there, and this node only carries on the client's
    /// side. `None`: it is ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<IpAddr>,
}

/// `GET /v1/flows`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowList {
    pub flows: Vec<FlowInfo>,
    /// Flows that match the filter, listed or not.
    pub matched: u64,
    /// Flows on this node.
    pub total: u64,
}

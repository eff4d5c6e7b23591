//! OSPF as its operator sees it.

use super::RefusedPrefix;
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr};

word_enum! {
    /// RFC 2328 §10.1.
    OspfNeighborState {
        Down => "down",
        Attempt => "attempt",
        Init => "init",
        TwoWay => "2-way",
        ExStart => "ex-start",
        Exchange => "exchange",
        Loading => "loading",
        Full => "full",
    }
}

word_enum! {
    /// RFC 2328 §9.1.
    OspfInterfaceState {
        Down => "down",
        Loopback => "loopback",
        Waiting => "waiting",
        PointToPoint => "point-to-point",
        DrOther => "dr-other",
        Backup => "backup",
        Dr => "dr",
    }
}

/// One entry of `GET /v1/ospf`: one version, in its area.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OspfInfo {
    /// 2 (IPv4) or 3 (IPv6).
    pub version: u8,
    pub router_id: Ipv4Addr,
    pub area: Ipv4Addr,
    /// `normal`, `stub` or `nssa`.
    pub area_type: String,
    pub interfaces: Vec<OspfInterfaceInfo>,
    pub neighbors: Vec<OspfNeighborInfo>,
    /// The link-state database, by type of LSA.
    pub database: Vec<OspfLsaCount>,
    pub packets: OspfPackets,
    pub packets_sent: u64,
    /// Wanted, but OSPF cannot carry them.
    pub refused: Vec<RefusedPrefix>,
}

/// One configured interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OspfInterfaceInfo {
    pub name: String,
    /// `point-to-point` or `broadcast`.
    pub network: String,
    pub state: OspfInterfaceState,
    pub cost: u16,
    /// OSPFv2: its address; OSPFv3: its router id. `None`: there is none.
    pub designated: Option<Ipv4Addr>,
    pub backup: Option<Ipv4Addr>,
    pub packets: OspfPackets,
    #[serde(default)]
    pub packets_sent: u64,
}

/// One neighbour on one interface. `GET /v1/ospf/{neighbor}` lists those with that router id or
/// address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OspfNeighborInfo {
    pub version: u8,
    pub interface: String,
    pub router_id: Ipv4Addr,
    pub address: IpAddr,
    pub state: OspfNeighborState,
    pub state_age_s: u64,
    pub priority: u8,
    /// If it stays silent, it counts as dead then.
    pub dead_in_ms: u64,
    /// LSAs it has not acknowledged.
    pub unacknowledged: u64,
    /// LSAs it still owes us.
    pub requested: u64,
    /// The designated routers it believes in.
    pub designated: Option<Ipv4Addr>,
    pub backup: Option<Ipv4Addr>,
}

/// LSAs of one type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OspfLsaCount {
    /// `router`, `external`, … or the number.
    pub kind: String,
    pub count: u64,
    /// Originated here.
    pub own: u64,
}

/// Packets received, and of these the dropped ones by reason.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OspfPackets {
    pub received: u64,
    pub dropped_auth: u64,
    pub dropped_malformed: u64,
    /// Intervals, mask or area type differ from ours.
    pub dropped_hello_mismatch: u64,
    pub dropped_area: u64,
    pub dropped_duplicate_router_id: u64,
    pub dropped_mtu: u64,
    pub dropped_other: u64,
}

impl OspfPackets {
    pub const fn drops(self) -> [(&'static str, u64); 7] {
        [
            ("auth", self.dropped_auth),
            ("malformed", self.dropped_malformed),
            ("hello-mismatch", self.dropped_hello_mismatch),
            ("area", self.dropped_area),
            ("duplicate-router-id", self.dropped_duplicate_router_id),
            ("mtu", self.dropped_mtu),
            ("other", self.dropped_other),
        ]
    }
}

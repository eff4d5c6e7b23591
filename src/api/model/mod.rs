//! Every body of the API, as types. Field names carry the unit: `_s` seconds, `_ms` milliseconds,
//! `_us` microseconds, `_bytes`; counters count since the node started and never fall. Ages
//! (`…_age_s`) are given rather than points in time, so that clocks need not agree.
//!
//! The JSON is the contract with programs: fields are added, never renamed or removed, and clients
//! ignore fields that they do not know.

/// An enum whose variants are fixed words, the same in JSON, in filters and on the terminal.
macro_rules! word_enum {
    ($(#[$meta:meta])* $name:ident { $($(#[$vmeta:meta])* $variant:ident => $word:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord,
                 serde::Serialize, serde::Deserialize)]
        pub enum $name { $($(#[$vmeta])* #[serde(rename = $word)] $variant,)+ }

        impl $name {
            /// All of them, in the order of their discriminants.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The word, as JSON and the terminal have it.
            pub const fn word(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.word())
            }
        }

        impl std::str::FromStr for $name {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                Self::ALL
                    .iter()
                    .copied()
                    .find(|value| value.word() == text)
                    .ok_or_else(|| format!("expected one of: {}", [$($word,)+].join(", ")))
            }
        }
    };
}

mod cluster;
mod dataplane;
mod filter;
mod ospf;
mod routing;
mod service;
mod status;

pub use cluster::{ClusterDatagrams, ClusterInfo, ClusterPeerInfo, SharedFlows};
pub use dataplane::{
    BuffersInfo, ControlInfo, ControlInterface, DropInfo, FlowMemoryInfo, FlowMemoryKind, IdleKind,
    InterruptsInfo, PortInfo, PortStats, SteeringInfo, SteeringMode, WorkerInfo,
};
pub use filter::{AddressFilter, BackendSelector, FLOW_LIMIT, FLOW_LIMIT_MAX, FlowFilter, Scope};
pub use ospf::{
    OspfInfo, OspfInterfaceInfo, OspfInterfaceState, OspfLsaCount, OspfNeighborInfo,
    OspfNeighborState, OspfPackets,
};
pub use routing::{
    AnnounceInfo, AnnouncePeer, BfdDrops, BfdInfo, BfdLastDown, BfdSessionInfo, BfdState,
    BgpCapability, BgpErrorInfo, BgpInfo, BgpMessages, BgpNeighborInfo, BgpSecurity, BgpState,
    BgpTransport, BgpUpdateErrors, Direction, KernelTcpDrops, RefusedPrefix,
};
pub use service::{
    BackendInfo, BackendState, FlowInfo, FlowList, FlowState, ServiceInfo, Traffic, protocol_name,
};
pub use status::{
    BgpSummary, ConfigInfo, DrainInfo, DrainPhase, DrainRequest, DrainResult, ErrorBody, Health,
    HealthState, ReloadResult, Status, VipStatus,
};

//! Dunlin's speaker: BGP-4, BFD, OSPFv2 and OSPFv3, for a node that announces virtual IPs.
//!
//! Every protocol core is sans-IO: bytes and `now` in (`handle_*`), outputs out (`poll_*`). The
//! tokio drivers around them are thin. The owner of the node's state publishes the latest set of
//! wanted [`Announcement`]s; each protocol reconciles its peers with it by difference.

pub mod bfd;
pub mod bgp;
pub mod ospf;
mod sockopt;
pub mod speaker;

use ipnet::IpNet;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// One prefix to announce, with its attributes in every protocol.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize)]
pub struct Announcement {
    pub bgp: BgpAttributes,
    /// `None`: not announced by OSPF.
    pub ospf: Option<OspfAttributes>,
}

/// BGP path attributes of an announcement, beyond the mandatory ones.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, serde::Serialize)]
pub struct BgpAttributes {
    /// Standard communities (RFC 1997), `(as, value)`.
    pub communities: Vec<(u16, u16)>,
    /// Large communities (RFC 8092).
    pub large_communities: Vec<(u32, u32, u32)>,
    /// Extended communities (RFC 4360), as they travel.
    pub extended_communities: Vec<[u8; 8]>,
    /// Link bandwidth in bytes per second (draft-ietf-idr-link-bandwidth).
    pub link_bandwidth: Option<f32_bits::F32>,
    pub med: Option<u32>,
    /// Sent on iBGP only; 100 if `None`.
    pub local_preference: Option<u32>,
    /// Own AS prepended this many extra times.
    pub prepend: u8,
    /// `None`: next hop self.
    pub next_hop: Option<IpAddr>,
}

/// OSPF attributes of an announcement.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct OspfAttributes {
    pub cost: u32,
    pub kind: OspfKind,
}

/// How OSPF carries a prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub enum OspfKind {
    /// Stub link in the router-LSA (v3: intra-area-prefix-LSA).
    Stub,
    External1,
    External2,
}

/// The latest wanted state: everything that should be announced now.
pub type Wanted = BTreeMap<IpNet, Announcement>;

/// A float that is plain data (equality by bits), so that attributes can be compared.
pub mod f32_bits {
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
    pub struct F32(u32);
    impl From<f32> for F32 {
        fn from(v: f32) -> Self {
            Self(v.to_bits())
        }
    }
    impl F32 {
        pub fn get(self) -> f32 {
            f32::from_bits(self.0)
        }
    }
}

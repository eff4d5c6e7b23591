//! The data of an instance: interfaces, neighbours, counters, and the way out for packets.

use super::{
    ALL_D_ROUTERS, ALL_D_ROUTERS_V6, ALL_SPF_ROUTERS, ALL_SPF_ROUTERS_V6, DropReason, Link,
};
use crate::ospf::auth::Auth;
use crate::ospf::config::{AreaKind, Config, InterfaceConfig, NetworkKind};
use crate::ospf::interface::State as InterfaceState;
use crate::ospf::lsa::LsaHeader;
use crate::ospf::lsdb::DbKey;
use crate::ospf::neighbor::State as NeighborState;
use crate::ospf::packet::{Body, DatabaseDescription, Header, Hello, Packet, header_len, options};
use crate::ospf::{Instant, Version};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

/// A packet to send, ready but for the IP header. IP TTL or hop limit 1, precedence internetwork
/// control.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transmit {
    /// Index of the interface.
    pub interface: u32,
    pub destination: IpAddr,
    pub bytes: Vec<u8>,
}

/// Something an operator or another protocol wants to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    Interface {
        interface: String,
        old: InterfaceState,
        new: InterfaceState,
    },
    Neighbor {
        interface: String,
        router_id: Ipv4Addr,
        address: IpAddr,
        old: NeighborState,
        new: NeighborState,
        /// The event of the neighbour machine.
        cause: crate::ospf::neighbor::Event,
    },
    /// LSAs that could not be originated, and why.
    Refused(String),
}

/// Packets in, by fate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    pub received: u64,
    pub sent: u64,
    pub dropped_auth: u64,
    pub dropped_malformed: u64,
    pub dropped_hello_mismatch: u64,
    pub dropped_area: u64,
    pub dropped_duplicate_router_id: u64,
    pub dropped_mtu: u64,
    pub dropped_other: u64,
}

impl Counters {
    pub(super) fn count(&mut self, result: &Result<(), DropReason>) {
        self.received += 1;
        let Err(reason) = result else { return };
        let counter = match reason {
            DropReason::Auth(_) => &mut self.dropped_auth,
            DropReason::Malformed(_) => &mut self.dropped_malformed,
            DropReason::Hello(_) => &mut self.dropped_hello_mismatch,
            DropReason::Area | DropReason::InstanceId => &mut self.dropped_area,
            DropReason::DuplicateRouterId => &mut self.dropped_duplicate_router_id,
            DropReason::Mtu => &mut self.dropped_mtu,
            DropReason::Interface
            | DropReason::Own
            | DropReason::Destination
            | DropReason::Source
            | DropReason::Neighbor => &mut self.dropped_other,
        };
        *counter += 1;
    }
}

/// What every part needs: identity, time, and the way out.
#[derive(Debug)]
pub struct Core {
    pub version: Version,
    pub router_id: u32,
    pub area_id: u32,
    pub area_kind: AreaKind,
    pub now: Instant,
    pub out: VecDeque<Transmit>,
    pub events: VecDeque<Event>,
    pub counters: Counters,
    unix_seconds: u64,
    sent: u64,
    /// SplitMix64.
    random: u64,
}

impl Core {
    pub(super) fn new(config: &Config, seed: u64, unix_seconds: u64) -> Self {
        Self {
            version: config.version,
            router_id: config.router_id.into(),
            area_id: config.area.into(),
            area_kind: config.area_kind,
            now: Duration::ZERO,
            out: VecDeque::new(),
            events: VecDeque::new(),
            counters: Counters::default(),
            unix_seconds,
            sent: 0,
            random: seed,
        }
    }

    /// For DD sequence numbers and the spread of timers: need not be unpredictable.
    pub(super) fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.random ^ (self.random >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z ^ (z >> 31)
    }

    /// To the routers that must hear it: all of them, or the designated ones (§8.1, §13.3).
    pub(super) fn send_group(&mut self, interface: &Interface, body: Body) {
        let hello = matches!(body, Body::Hello(_));
        let all = hello
            || interface.config.network == NetworkKind::PointToPoint
            || interface.is_designated();
        let destination: IpAddr = match (self.version, all) {
            (Version::V2, true) => ALL_SPF_ROUTERS.into(),
            (Version::V2, false) => ALL_D_ROUTERS.into(),
            (Version::V3, true) => ALL_SPF_ROUTERS_V6.into(),
            (Version::V3, false) => ALL_D_ROUTERS_V6.into(),
        };
        self.send(interface, destination, body);
    }

    /// To one neighbour. §8.1: on point-to-point links to the group all the same.
    pub(super) fn send_neighbor(&mut self, interface: &Interface, to: IpAddr, body: Body) {
        match interface.config.network {
            NetworkKind::PointToPoint => self.send_group(interface, body),
            NetworkKind::Broadcast => self.send(interface, to, body),
        }
    }

    fn send(&mut self, interface: &Interface, destination: IpAddr, body: Body) {
        if interface.config.passive {
            return;
        }
        let header = Header {
            router_id: self.router_id,
            area_id: self.area_id,
            instance_id: interface.config.instance_id,
        };
        let mut bytes = Packet { header, body }.encode(self.version);
        self.sent += 1;
        self.counters.sent += 1;
        let seconds = self.unix_seconds + self.now.as_secs();
        let sequence = match self.version {
            Version::V2 => seconds,
            // Strictly rising, also over a restart a second later.
            Version::V3 => seconds << 24 | self.sent & 0x00ff_ffff,
        };
        let source = interface.link.link_local.unwrap_or(Ipv6Addr::UNSPECIFIED);
        let ends = (source, v6(destination));
        interface.config.auth.sign(self.version, &mut bytes, sequence, ends);
        self.out.push_back(Transmit { interface: interface.link.index, destination, bytes });
    }

    /// The Hello of an interface (§9.5).
    pub(super) fn hello(&self, interface: &Interface) -> Hello {
        let config = &interface.config;
        Hello {
            mask: interface.link.v4.map_or(0, |net| net.netmask().into()),
            interface_id: interface.link.index,
            options: self.options(&config.auth),
            priority: config.priority,
            hello_interval: config.hello_interval,
            dead_interval: config.dead_interval,
            designated: interface.designated,
            backup: interface.backup,
            neighbors: interface
                .neighbors
                .values()
                .filter(|n| n.state >= NeighborState::Init)
                .map(|n| n.router_id)
                .collect(),
        }
    }

    /// Options of Hello and Database Description packets, without the O-bit, which only the latter
    /// carry (RFC 5250 §4.1).
    pub(super) fn options(&self, auth: &Auth) -> u32 {
        let own = match self.version {
            Version::V2 => 0,
            // The R-bit stays clear: never transit.
            Version::V3 => options::V6,
        };
        own | self.area_kind.options() | auth.options(self.version)
    }

    /// Bytes that fit into the body of a packet on this interface.
    pub(super) fn room(&self, interface: &Interface) -> usize {
        let ip = match self.version {
            Version::V2 => 20,
            Version::V3 => 40,
        };
        let taken = ip + header_len(self.version) + interface.config.auth.overhead(self.version);
        (interface.link.mtu.min(65_535) as usize).max(576).saturating_sub(taken)
    }
}

/// The address, if it is one of OSPFv3.
pub(super) fn v6(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V6(v6) => v6,
        IpAddr::V4(_) => Ipv6Addr::UNSPECIFIED,
    }
}

/// An interface on which OSPF runs.
#[derive(Debug)]
pub struct Interface {
    pub config: InterfaceConfig,
    pub link: Link,
    pub state: InterfaceState,
    /// Address (OSPFv2) or router ID (OSPFv3); 0: none.
    pub designated: u32,
    pub backup: u32,
    pub neighbors: BTreeMap<u32, Neighbor>,
    pub counters: Counters,
    pub(super) hello_at: Option<Instant>,
    pub(super) wait_until: Option<Instant>,
    /// To be flooded out of this interface with the next update.
    pub(super) floods: BTreeSet<DbKey>,
    /// Delayed acknowledgments.
    pub(super) acks: Vec<LsaHeader>,
    pub(super) ack_at: Option<Instant>,
}

impl Interface {
    pub(super) fn new(config: InterfaceConfig, link: Link) -> Self {
        Self {
            config,
            link,
            state: InterfaceState::Down,
            designated: 0,
            backup: 0,
            neighbors: BTreeMap::new(),
            counters: Counters::default(),
            hello_at: None,
            wait_until: None,
            floods: BTreeSet::new(),
            acks: Vec::new(),
            ack_at: None,
        }
    }

    pub(super) fn next_timeout(&self) -> Option<Instant> {
        let own = [self.hello_at, self.wait_until, self.ack_at];
        let neighbors = self.neighbors.values().flat_map(Neighbor::timers);
        own.into_iter().chain(neighbors).flatten().min()
    }

    pub(super) fn is_designated(&self) -> bool {
        matches!(self.state, InterfaceState::Dr | InterfaceState::Backup)
    }

    pub(super) fn own_address(&self, version: Version) -> Option<IpAddr> {
        match version {
            Version::V2 => self.link.v4.map(|net| net.addr().into()),
            Version::V3 => self.link.link_local.map(IpAddr::from),
        }
    }

    pub(super) fn retransmit_interval(&self) -> Duration {
        Duration::from_secs(self.config.retransmit_interval.into())
    }
}

/// A neighbour.
#[derive(Debug)]
pub struct Neighbor {
    pub router_id: u32,
    pub address: IpAddr,
    /// OSPFv3: the neighbour's name for its interface.
    pub interface_id: u32,
    pub priority: u8,
    /// From its Database Description, before that from its Hello.
    pub options: u32,
    pub designated: u32,
    pub backup: u32,
    pub state: NeighborState,
    /// Of the last change of state.
    pub since: Instant,
    pub(in crate::ospf) inactive_at: Instant,
    /// This router is master of the exchange.
    pub(super) master: bool,
    pub(super) dd_sequence: u32,
    /// Flags, options and sequence number of the last one accepted.
    pub(super) last_dd: Option<(u8, u32, u32)>,
    pub(super) sent_dd: Option<DatabaseDescription>,
    pub(super) dd_at: Option<Instant>,
    /// The Database summary list.
    pub(super) summary: VecDeque<DbKey>,
    /// The Link state request list.
    pub(in crate::ospf) requests: BTreeMap<DbKey, LsaHeader>,
    /// Those of `requests` that the last request asked for.
    pub(super) asked: BTreeSet<DbKey>,
    pub(super) request_at: Option<Instant>,
    /// The Link state retransmission list: when each is due again.
    pub(in crate::ospf) retransmit: BTreeMap<DbKey, Instant>,
    pub(super) retransmit_at: Option<Instant>,
    /// It restarts gracefully, and this router helps until then (see [`super::grace`]).
    pub(in crate::ospf) helping_until: Option<Instant>,
    /// Last cryptographic sequence number, by packet type.
    pub(super) auth_sequence: [u64; 6],
}

impl Neighbor {
    pub(super) fn new(router_id: u32, address: IpAddr, now: Instant, dead: Duration) -> Self {
        Self {
            router_id,
            address,
            interface_id: 0,
            priority: 0,
            options: 0,
            designated: 0,
            backup: 0,
            state: NeighborState::Down,
            since: now,
            inactive_at: now + dead,
            master: false,
            dd_sequence: 0,
            last_dd: None,
            sent_dd: None,
            dd_at: None,
            summary: VecDeque::new(),
            requests: BTreeMap::new(),
            asked: BTreeSet::new(),
            request_at: None,
            retransmit: BTreeMap::new(),
            retransmit_at: None,
            helping_until: None,
            auth_sequence: [0; 6],
        }
    }

    fn timers(&self) -> [Option<Instant>; 5] {
        let exchange = [self.dd_at, self.request_at, self.retransmit_at];
        let [dd, request, retransmit] = exchange;
        [Some(self.inactive_at), dd, request, retransmit, self.helping_until]
    }

    /// Whether this router's LSAs show the adjacency.
    pub(super) fn is_announced(&self) -> bool {
        self.state == NeighborState::Full || self.helping_until.is_some()
    }

    /// How it is named as designated router: by address (OSPFv2) or router ID (OSPFv3).
    pub(super) fn name(&self) -> u32 {
        match self.address {
            IpAddr::V4(v4) => v4.into(),
            IpAddr::V6(_) => self.router_id,
        }
    }

    pub(super) fn clear_lists(&mut self) {
        self.summary.clear();
        self.requests.clear();
        self.asked.clear();
        self.request_at = None;
        self.retransmit.clear();
        self.retransmit_at = None;
        self.dd_at = None;
        self.sent_dd = None;
        self.last_dd = None;
    }

    pub(super) fn forget_retransmission(&mut self, key: &DbKey) {
        self.retransmit.remove(key);
        if self.retransmit.is_empty() {
            self.retransmit_at = None;
        }
    }
}

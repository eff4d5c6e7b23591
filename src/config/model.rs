//! The configuration as types that cannot be wrong. Made only by parsing (see [`super`]).

use super::secret::Secret;
use crate::forward::steering::Wish;
use crate::forward::tables::{Mac, Protocol, Scheduler, Timeouts};
use crate::health::CheckSpec;
use ipnet::IpNet;
use routing::OspfAttributes;
use routing::bfd::AuthType;
use routing::bgp::config::AoAlgorithm;
use routing::bgp::config::PrefixMatch;
use routing::bgp::wire::{Families, Role};
use routing::ospf::auth::Algorithm;
use routing::ospf::{AreaKind, NetworkKind};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// A whole, valid configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    pub node: Node,
    pub dataplane: Dataplane,
    pub ports: Vec<Port>,
    pub routes: Vec<StaticRoute>,
    /// Local addresses (LIPs), both families, expanded from the configured prefixes.
    pub local_addresses: Vec<IpAddr>,
    /// The prefixes as configured; these are announced.
    pub local_prefixes: Vec<IpNet>,
    /// How the appliance is reached; other installations ignore it.
    pub management: Option<Management>,
    pub announce: Announce,
    /// `None`: flows are not shared with other nodes.
    pub cluster: Option<Cluster>,
    pub bfd: BfdProfile,
    pub bgp: Option<Bgp>,
    /// OSPFv2: carries the IPv4 prefixes.
    pub ospf: Option<Ospf>,
    /// OSPFv3: carries the IPv6 prefixes.
    pub ospf3: Option<Ospf>,
    pub services: Vec<Service>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    pub name: String,
    /// BGP identifier and OSPF router id. Default: the first IPv4 address of the first port.
    pub router_id: Ipv4Addr,
    /// Unix socket of the API. Default `/run/dunlin/api.sock`.
    pub api_socket: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PollMode {
    /// Spin, large bursts.
    Throughput,
    /// Spin, transmit at once.
    Latency,
    /// Spin while there is work, sleep when idle; wake up by receive interrupts where that was tried.
    Adaptive,
    /// The same, with receive interrupts wherever the driver has them.
    Interrupt,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dataplane {
    /// CPU core of each worker. At least one.
    pub workers: Vec<u16>,
    pub poll: PollMode,
    /// Longest sleep of an idle worker (adaptive).
    pub max_sleep: Duration,
    /// Flow table capacity of each worker.
    pub max_flows: u32,
    /// DPDK memory, MiB. With `hugepages = false` it is ordinary memory.
    pub memory_mib: u32,
    pub hugepages: bool,
    /// Distinguishes several DPDK processes on one host.
    pub file_prefix: String,
    /// Packet buffers per pool. `None`: the usual number, or more if the queues need more.
    pub mbufs: Option<u32>,
    /// How replies are to reach their worker.
    pub steering: Wish,
    /// A worker that has not beaten for so long is stalled.
    pub stall_after: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Device {
    /// PCI address, e.g. `0000:03:00.0`.
    Pci(String),
    /// The NIC with this MAC address, wherever it is plugged in. `dunlin machine` finds it.
    Mac(Mac),
    /// DPDK virtual device: driver and arguments, e.g. `net_af_packet,iface=eth1`.
    Vdev(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ControlKind {
    /// virtio-user where `/dev/vhost-net` opens, else TAP.
    Auto,
    VhostNet,
    Tap,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// Name of the port and of its control interface in the kernel (at most 15 bytes).
    pub name: String,
    pub device: Device,
    pub control: ControlKind,
    /// Set on the control interface. Empty: whoever manages the host's network does.
    pub addresses: Vec<IpNet>,
    pub mtu: u16,
    /// Default: the device's own.
    pub mac: Option<Mac>,
}

/// A NIC of the kernel's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NicName {
    /// Name of its interface, e.g. `eno1`.
    Name(String),
    Mac(Mac),
}

/// How the appliance itself is reached: a NIC that stays with the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Management {
    pub interface: NicName,
    /// Ask for an address, besides the configured ones.
    pub dhcp: bool,
    pub addresses: Vec<IpNet>,
    /// At most one of each family, each in the network of an address.
    pub gateways: Vec<IpAddr>,
    pub dns: Vec<IpAddr>,
    /// Lines of `authorized_keys` for root.
    pub ssh_keys: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StaticRoute {
    pub prefix: IpNet,
    pub via: Vec<IpAddr>,
}

/// The other nodes, and how flows are shared with them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    /// Where we listen, and what peers know us by.
    pub address: SocketAddr,
    /// Sorted; at least one, none twice, and not ourselves.
    pub peers: Vec<SocketAddr>,
    /// 16 to 128 bytes.
    pub key: Secret,
    /// Flows that each worker may ask for per second.
    pub questions_per_second: u32,
    /// Flows of other nodes that each worker may hold.
    pub max_adopted: u32,
    /// On stop, how long flows may go on after the withdrawal.
    pub drain_flows: Duration,
}

/// How prefixes are announced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announce {
    /// How long a drain waits between lowering the preference and the withdrawal.
    pub drain_wait: Duration,
    /// For every prefix, unless its service says otherwise.
    pub defaults: Attributes,
}

/// Attributes of an announcement; what is `None` is said elsewhere, or nowhere.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Attributes {
    /// RFC 1997, sorted.
    pub communities: Option<Vec<(u16, u16)>>,
    /// RFC 8092, sorted.
    pub large_communities: Option<Vec<(u32, u32, u32)>>,
    /// RFC 4360, as they travel, sorted.
    pub extended_communities: Option<Vec<[u8; 8]>>,
    /// Bits per second.
    pub link_bandwidth: Option<u64>,
    pub med: Option<u32>,
    pub local_preference: Option<u32>,
    pub prepend: Option<u8>,
    /// At most one of each family.
    pub next_hop: Option<Vec<IpAddr>>,
    pub ospf: Option<OspfAttributes>,
}

impl Attributes {
    /// These, and `other` for what these do not say.
    pub fn or(&self, other: &Self) -> Self {
        let (ours, theirs) = (self.clone(), other.clone());
        Self {
            communities: ours.communities.or(theirs.communities),
            large_communities: ours.large_communities.or(theirs.large_communities),
            extended_communities: ours.extended_communities.or(theirs.extended_communities),
            link_bandwidth: ours.link_bandwidth.or(theirs.link_bandwidth),
            med: ours.med.or(theirs.med),
            local_preference: ours.local_preference.or(theirs.local_preference),
            prepend: ours.prepend.or(theirs.prepend),
            next_hop: ours.next_hop.or(theirs.next_hop),
            ospf: ours.ospf.or(theirs.ospf),
        }
    }

    /// The first key for which both say something, and not the same.
    pub fn contradiction(&self, other: &Self) -> Option<&'static str> {
        fn differ<T: PartialEq>(a: Option<&T>, b: Option<&T>) -> bool {
            a.zip(b).is_some_and(|(a, b)| a != b)
        }
        let (a, b) = (self, other);
        let keys = [
            ("communities", differ(a.communities.as_ref(), b.communities.as_ref())),
            (
                "large-communities",
                differ(a.large_communities.as_ref(), b.large_communities.as_ref()),
            ),
            (
                "extended-communities",
                differ(a.extended_communities.as_ref(), b.extended_communities.as_ref()),
            ),
            ("link-bandwidth", differ(a.link_bandwidth.as_ref(), b.link_bandwidth.as_ref())),
            ("med", differ(a.med.as_ref(), b.med.as_ref())),
            ("local-preference", differ(a.local_preference.as_ref(), b.local_preference.as_ref())),
            ("prepend", differ(a.prepend.as_ref(), b.prepend.as_ref())),
            ("next-hop", differ(a.next_hop.as_ref(), b.next_hop.as_ref())),
            ("ospf", differ(a.ospf.as_ref(), b.ospf.as_ref())),
        ];
        keys.into_iter().find(|(_, differs)| *differs).map(|(key, _)| key)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BfdProfile {
    pub min_tx: Duration,
    pub min_rx: Duration,
    pub multiplier: u8,
}

/// What one neighbor has instead of the profile.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NeighborBfd {
    pub min_tx: Option<Duration>,
    pub min_rx: Option<Duration>,
    pub multiplier: Option<u8>,
    pub auth: Option<BfdAuth>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BfdAuth {
    pub kind: AuthType,
    pub key_id: u8,
    /// 1..=20 bytes.
    pub key: Secret,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bgp {
    pub asn: u32,
    /// TCP port to listen on; `None`: do not listen.
    pub listen_port: Option<u16>,
    pub neighbors: Vec<Neighbor>,
    pub ranges: Vec<ListenRange>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RemoteAs {
    Exact(u32),
    External,
    Internal,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Import {
    Nothing,
    DefaultRoute,
    Prefixes(Vec<PrefixMatch>),
}

/// Which router a neighbor is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Peer {
    Address(IpAddr),
    /// `fe80::1%wan0`
    LinkLocal {
        address: Ipv6Addr,
        interface: String,
    },
    /// The router at the other end of this port, whatever its link-local address.
    Unnumbered(String),
}

impl Peer {
    /// `::` if it is unnumbered.
    pub fn address(&self) -> IpAddr {
        match self {
            Self::Address(address) => *address,
            Self::LinkLocal { address, .. } => (*address).into(),
            Self::Unnumbered(_) => Ipv6Addr::UNSPECIFIED.into(),
        }
    }

    pub fn interface(&self) -> Option<&String> {
        match self {
            Self::Address(_) => None,
            Self::LinkLocal { interface, .. } | Self::Unnumbered(interface) => Some(interface),
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => write!(f, "{address}"),
            Self::LinkLocal { address, interface } => write!(f, "{address}%{interface}"),
            Self::Unnumbered(interface) => f.write_str(interface),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Neighbor {
    pub peer: Peer,
    pub port: u16,
    pub passive: bool,
    pub source: Option<IpAddr>,
    pub connect_retry: Duration,
    /// `None`: the neighbor is not followed by BFD.
    pub bfd: Option<NeighborBfd>,
    /// Administratively down, with the message the peer is told (RFC 9003).
    pub shutdown: Option<String>,
    pub session: Session,
}

/// Neighbors that dial in from a prefix, not configured one by one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenRange {
    pub prefix: IpNet,
    /// At most so many sessions at once.
    pub max_peers: u32,
    /// `None`: they are not followed by BFD.
    pub bfd: Option<NeighborBfd>,
    pub session: Session,
}

/// What holds for a session, whoever it is with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    pub remote_as: RemoteAs,
    pub description: String,
    /// TCP-MD5 (RFC 2385) key, 1..=80 bytes.
    pub password: Option<Secret>,
    /// TCP-AO (RFC 5925) keys, the preferred one first. Empty: none; not together with a password.
    pub ao: Vec<AoKey>,
    pub hold_time: Duration,
    /// GTSM (RFC 5082).
    pub ttl_security: bool,
    /// eBGP multihop: TTL to send with.
    pub multihop: Option<u8>,
    pub families: Families,
    /// IPv4 routes with an IPv6 next hop (RFC 8950).
    pub extended_next_hop: bool,
    pub next_hop_v4: Option<Ipv4Addr>,
    pub next_hop_v6: Option<Ipv6Addr>,
    /// Our role toward the neighbor (RFC 9234).
    pub role: Option<Role>,
    pub role_strict: bool,
    pub import: Import,
    /// Accepted prefixes beyond these end the session.
    pub max_prefixes: u32,
    /// Seconds for which the peer is to keep our routes when the session breaks (RFC 4724).
    pub graceful_restart: Option<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AoKey {
    pub send_id: u8,
    pub receive_id: u8,
    pub algorithm: AoAlgorithm,
    pub key: Secret,
}

/// OSPF of one version: this router in one area.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ospf {
    pub area: Ipv4Addr,
    pub area_kind: AreaKind,
    /// Follow every neighbour by BFD, with the profile.
    pub bfd: bool,
    pub interfaces: Vec<OspfInterface>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OspfInterface {
    /// Name of a port.
    pub name: String,
    pub network: NetworkKind,
    pub cost: u16,
    /// Seconds.
    pub hello_interval: u16,
    /// Seconds.
    pub dead_interval: u32,
    /// Seconds.
    pub retransmit_interval: u16,
    /// Seconds.
    pub transmit_delay: u16,
    pub priority: u8,
    pub mtu_ignore: bool,
    pub passive: bool,
    /// OSPFv3 only.
    pub instance_id: u8,
    pub auth: OspfAuth,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OspfAuth {
    Null,
    /// 1..=8 bytes; OSPFv2 only.
    Simple(Secret),
    /// At least one. The first signs, each is accepted.
    Keys(Vec<OspfKey>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OspfKey {
    pub algorithm: Algorithm,
    pub id: u16,
    pub key: Secret,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnNoBackend {
    /// Withdraw the VIP while fewer than the minimum of backends are healthy.
    Withdraw,
    /// Announce it anyway.
    Keep,
}

/// One configured service: one or more VIP addresses × one protocol × one or more ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    pub name: String,
    pub vips: Vec<IpAddr>,
    pub protocol: Protocol,
    pub ports: Vec<u16>,
    pub scheduler: Scheduler,
    pub timeouts: Timeouts,
    pub on_no_backend: OnNoBackend,
    pub min_healthy: u32,
    pub check: Option<CheckSpec>,
    /// Where it differs from [`Announce::defaults`].
    pub announce: Attributes,
    pub backends: Vec<Backend>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backend {
    pub address: IpAddr,
    /// `None`: the port the client asked for.
    pub port: Option<u16>,
    pub weight: u32,
}

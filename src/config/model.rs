//! The configuration as types that cannot be wrong. Made only by parsing (see [`super`]).

use super::secret::Secret;
use crate::forward::tables::{Mac, Protocol, Scheduler, Timeouts};
use crate::health::CheckSpec;
use ipnet::IpNet;
use std::net::{IpAddr, Ipv4Addr};
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
    pub bgp: Option<Bgp>,
    pub bfd: BfdProfile,
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
    /// Spin while there is work, sleep when idle.
    Adaptive,
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
    /// mbufs per pool.
    pub mbufs: u32,
    /// A worker that has not beaten for so long is stalled.
    pub stall_after: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Device {
    /// PCI address, e.g. `0000:03:00.0`.
    Pci(String),
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

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StaticRoute {
    pub prefix: IpNet,
    pub via: Vec<IpAddr>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BfdProfile {
    pub min_tx: Duration,
    pub min_rx: Duration,
    pub multiplier: u8,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bgp {
    pub asn: u32,
    /// Communities etc. set on every announcement, standard communities as `ASN:VALUE`.
    pub communities: Vec<(u16, u16)>,
    /// TCP port to listen on; `None`: do not listen.
    pub listen_port: Option<u16>,
    pub neighbors: Vec<Neighbor>,
    /// How long a drain waits between GRACEFUL_SHUTDOWN and the withdrawal.
    pub drain_wait: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RemoteAs {
    Exact(u32),
    External,
    Internal,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Import {
    Nothing,
    DefaultRoute,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Neighbor {
    pub address: IpAddr,
    pub remote_as: RemoteAs,
    pub description: String,
    pub port: u16,
    pub passive: bool,
    pub source: Option<IpAddr>,
    /// TCP-MD5 (RFC 2385) key, 1..=80 bytes.
    pub password: Option<Secret>,
    pub hold_time: Duration,
    pub connect_retry: Duration,
    /// GTSM (RFC 5082) or eBGP multihop: TTL to send with / to demand.
    pub ttl_security: bool,
    pub multihop: Option<u8>,
    pub bfd: bool,
    pub import: Import,
    /// Administratively down, with the message the peer is told (RFC 9003).
    pub shutdown: Option<String>,
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
    pub backends: Vec<Backend>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backend {
    pub address: IpAddr,
    /// `None`: the port the client asked for.
    pub port: Option<u16>,
    pub weight: u32,
}

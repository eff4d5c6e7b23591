//! What the speaker does: sessions and announcements.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

word_enum! {
    /// RFC 4271 §8.2.2.
    BgpState {
        Idle => "idle",
        Connect => "connect",
        Active => "active",
        OpenSent => "open-sent",
        OpenConfirm => "open-confirm",
        Established => "established",
    }
}

word_enum! {
    /// Who said it.
    Direction {
        Sent => "sent",
        Received => "received",
        /// Neither: a timer, the transport, BFD.
        Local => "local",
    }
}

/// `GET /v1/bgp`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BgpInfo {
    pub local_as: u32,
    pub router_id: Ipv4Addr,
    /// `None`: does not listen.
    pub listen_port: Option<u16>,
    pub neighbors: Vec<BgpNeighborInfo>,
    /// Connections refused because nobody is configured at their address.
    pub unknown_peers: u64,
    pub kernel: KernelTcpDrops,
}

/// What the kernel drops without telling the session, of all TCP in the network namespace
/// (`TcpExt` in `/proc/net/netstat`). A wrong key or TTL shows nowhere else.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelTcpDrops {
    /// `TCPMD5Failure`: the signature is wrong.
    pub md5_failure: u64,
    /// `TCPMD5NotFound`: a signature was expected, none came.
    pub md5_not_found: u64,
    /// `TCPMD5Unexpected`: a signature came, none was expected.
    pub md5_unexpected: u64,
    /// `TCPMinTTLDrop`: GTSM (RFC 5082) refused the TTL.
    pub min_ttl_drop: u64,
    /// `TCPAOBad`: the TCP-AO signature is wrong.
    #[serde(default)]
    pub ao_bad: u64,
    /// `TCPAOKeyNotFound`: signed with a TCP-AO key ID that is not known.
    #[serde(default)]
    pub ao_key_not_found: u64,
    /// `TCPAORequired`: a TCP-AO signature was expected, none came.
    #[serde(default)]
    pub ao_required: u64,
}

/// One session. `GET /v1/bgp/{neighbor}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BgpNeighborInfo {
    /// Address, `fe80::1%wan0`, or the interface of an unnumbered one. Unique.
    pub name: String,
    /// `::` if it is unnumbered.
    pub address: IpAddr,
    /// Of a link-local or unnumbered neighbour.
    pub interface: Option<String>,
    /// The listen-range it dialled in from; `None`: it is configured itself.
    pub range: Option<IpNet>,
    pub description: String,
    pub local_as: u32,
    /// As configured: a number, `external` or `internal`.
    pub remote_as_configured: String,
    /// From the peer's OPEN, or as configured; `None`: not known yet.
    pub remote_as: Option<u32>,
    pub remote_router_id: Option<Ipv4Addr>,
    pub state: BgpState,
    /// How long it has been in this state.
    pub state_age_s: u64,
    /// Administratively down; the message the peer was told (RFC 9003), which may be empty.
    pub shutdown: Option<String>,
    /// `None`: no connection.
    pub transport: Option<BgpTransport>,
    /// The peer is asked to keep our routes for so many seconds when the session breaks
    /// (RFC 4724); `None`: they go with it.
    #[serde(default)]
    pub graceful_restart_s: Option<u16>,
    pub hold_time_configured_s: u16,
    /// Negotiated; `None` unless established. 0: no keepalives (RFC 4271 §4.4).
    pub hold_time_s: Option<u16>,
    pub keepalive_s: Option<u16>,
    /// Negotiated, e.g. `ipv4-unicast`.
    pub families: Vec<String>,
    pub capabilities: Vec<BgpCapability>,
    /// RFC 9234; `None`: not configured, or not stated.
    pub role: Option<String>,
    pub remote_role: Option<String>,
    pub messages_in: BgpMessages,
    pub messages_out: BgpMessages,
    /// In Adj-RIB-Out.
    pub prefixes_announced: u64,
    /// What is wanted has been handed to the kernel for this peer.
    pub in_sync: bool,
    /// Wanted, but not to be said to this peer.
    pub unannounceable: Vec<RefusedPrefix>,
    /// Received prefixes that the import policy let through; the others are not kept.
    pub prefixes_accepted: u64,
    /// More accepted ones end the session.
    pub max_prefixes: u32,
    /// UPDATEs that were wrong without ending the session (RFC 7606).
    pub update_errors: BgpUpdateErrors,
    /// Why the session is not up, or was not.
    pub last_error: Option<BgpErrorInfo>,
    /// Why the last session that was up ended.
    pub last_down: Option<BgpErrorInfo>,
    /// Times the session came up.
    pub established_count: u64,
    /// Until the next attempt to connect; `None`: none is scheduled.
    pub retry_in_ms: Option<u64>,
    pub security: BgpSecurity,
    /// State of the BFD session; `None`: the neighbour does not use BFD.
    pub bfd: Option<BfdState>,
}

/// A prefix that cannot be announced, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedPrefix {
    pub prefix: String,
    pub reason: String,
}

/// Since the node started.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BgpUpdateErrors {
    pub treated_as_withdraw: u64,
    pub attributes_discarded: u64,
    /// The last one, in words.
    pub last: Option<String>,
}

/// The TCP connection of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BgpTransport {
    pub local: SocketAddr,
    pub remote: SocketAddr,
    /// The peer connected to us.
    pub passive: bool,
}

/// A capability (RFC 5492), and who offered it. It is in use if both did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BgpCapability {
    pub name: String,
    pub local: bool,
    pub remote: bool,
}

/// Messages by type.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BgpMessages {
    pub open: u64,
    pub update: u64,
    pub notification: u64,
    pub keepalive: u64,
    pub route_refresh: u64,
}

impl BgpMessages {
    pub const fn total(self) -> u64 {
        self.open + self.update + self.notification + self.keepalive + self.route_refresh
    }

    /// Type and count, in the order of their codes (RFC 4271 §4.1, RFC 2918).
    pub const fn by_type(self) -> [(&'static str, u64); 5] {
        [
            ("open", self.open),
            ("update", self.update),
            ("notification", self.notification),
            ("keepalive", self.keepalive),
            ("route-refresh", self.route_refresh),
        ]
    }
}

/// Why the session last went down or did not come up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BgpErrorInfo {
    pub age_s: u64,
    pub direction: Direction,
    /// NOTIFICATION error code and subcode (RFC 4271 §4.5), where there was one.
    pub code: Option<(u8, u8)>,
    /// In words, with the peer's shutdown message (RFC 9003) where it sent one.
    pub text: String,
}

/// How the session is protected.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BgpSecurity {
    /// TCP-MD5 (RFC 2385).
    pub md5: bool,
    /// TCP-AO (RFC 5925).
    #[serde(default)]
    pub ao: bool,
    /// GTSM (RFC 5082): packets with a TTL below 255 are refused.
    pub gtsm: bool,
    /// eBGP multihop: the TTL that we send.
    pub multihop: Option<u8>,
}

word_enum! {
    /// RFC 5880 §4.1.
    BfdState {
        AdminDown => "admin-down",
        Down => "down",
        Init => "init",
        Up => "up",
    }
}

/// `GET /v1/bfd`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BfdInfo {
    /// Scheduling class of the thread, in words.
    pub scheduling: String,
    pub sessions: Vec<BfdSessionInfo>,
    /// Packets that reached no session.
    pub dropped: BfdDrops,
}

/// Received packets that belong to no session, by reason.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BfdDrops {
    /// TTL is not 255 (RFC 5881 §5).
    pub ttl: u64,
    pub malformed: u64,
    pub unknown_discriminator: u64,
    pub unknown_peer: u64,
    /// Single hop where multihop is configured, or the reverse; or another port.
    pub wrong_hops: u64,
}

impl BfdDrops {
    pub const fn by_reason(self) -> [(&'static str, u64); 5] {
        [
            ("ttl", self.ttl),
            ("malformed", self.malformed),
            ("unknown-discriminator", self.unknown_discriminator),
            ("unknown-peer", self.unknown_peer),
            ("wrong-hops", self.wrong_hops),
        ]
    }
}

/// One session. `GET /v1/bfd/{peer}` lists those with that peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BfdSessionInfo {
    pub peer: IpAddr,
    /// `None`: the kernel's choice.
    pub local: Option<IpAddr>,
    pub interface: Option<String>,
    /// RFC 5883.
    pub multihop: bool,
    pub state: BfdState,
    /// `None`: not up.
    pub up_for_s: Option<u64>,
    /// Why the session last changed state (RFC 5880 §4.1), in words; empty: no diagnostic.
    pub diagnostic: String,
    pub remote_state: BfdState,
    pub remote_diagnostic: String,
    pub local_discriminator: u32,
    /// 0: not known.
    pub remote_discriminator: u32,
    /// As configured.
    pub min_tx_us: u32,
    pub min_rx_us: u32,
    pub multiplier: u8,
    /// As the peer says.
    pub remote_min_tx_us: u32,
    pub remote_min_rx_us: u32,
    pub remote_multiplier: u8,
    /// Negotiated interval between packets that we send.
    pub tx_interval_us: u32,
    /// Negotiated interval between packets that the peer sends.
    pub rx_interval_us: u32,
    /// Without a packet for so long, the session goes down. 0: not known yet.
    pub detection_time_us: u64,
    /// A change of timers is not yet confirmed by the peer.
    pub polling: bool,
    /// `keyed-sha1` or `meticulous-keyed-sha1`; `None`: none.
    pub authentication: Option<String>,
    pub packets_in: u64,
    pub packets_out: u64,
    /// Received and refused: authentication.
    pub dropped_auth: u64,
    /// Received while the session was administratively down.
    pub dropped_admin_down: u64,
    /// Packets that the kernel refused to send.
    pub send_errors: u64,
    /// Times the session came up.
    pub up_count: u64,
    /// Times it fell because the path failed.
    pub failure_count: u64,
    pub last_down: Option<BfdLastDown>,
    /// Why the session cannot send or receive, if so.
    pub error: Option<String>,
    /// Who relies on it: `bgp`, `ospf`.
    pub users: Vec<String>,
}

/// The last fall from up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BfdLastDown {
    pub age_s: u64,
    /// In words.
    pub cause: String,
    pub diagnostic: String,
    pub remote_diagnostic: String,
    /// The path failed: sessions over it were torn down. Else it was stopped on purpose.
    pub failure: bool,
}

/// One entry of `GET /v1/announce`: a prefix, whether it is announced, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnnounceInfo {
    pub prefix: IpNet,
    /// Services on it; empty for local addresses.
    pub services: Vec<String>,
    /// Should be announced now.
    pub wanted: bool,
    /// Every reason for `wanted` being what it is, one sentence each.
    pub reasons: Vec<String>,
    /// Attributes beyond the mandatory ones, as words: `community 65000:100`, `med 10`.
    pub attributes: Vec<String>,
    pub peers: Vec<AnnouncePeer>,
}

/// Whether a prefix went to a peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnnouncePeer {
    /// As the protocol names it; OSPF: the router id.
    pub name: String,
    pub address: IpAddr,
    /// `bgp`, `ospf` or `ospf3`.
    pub protocol: String,
    /// The peer has it from us now.
    pub sent: bool,
    /// The next hop it was told; `None`: not sent, or OSPF.
    pub next_hop: Option<IpAddr>,
    /// Why not, or empty.
    pub reason: String,
}

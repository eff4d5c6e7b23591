//! What the operator says about us and our neighbours.

use super::wire::{Families, Role};
use ipnet::IpNet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

/// TCP port of BGP.
pub const BGP_PORT: u16 = 179;

/// Who we are, to every neighbour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LocalConfig {
    pub asn: u32,
    /// BGP identifier.
    pub router_id: Ipv4Addr,
}

/// The AS a neighbour may be in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RemoteAs {
    Exact(u32),
    /// Any but our own.
    External,
    /// Our own.
    Internal,
}

impl RemoteAs {
    pub fn accepts(self, remote: u32, local: u32) -> bool {
        match self {
            Self::Exact(asn) => remote == asn,
            Self::External => remote != local,
            Self::Internal => remote == local,
        }
    }
}

/// Prefixes within `prefix` whose length is in `min_len..=max_len`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PrefixMatch {
    pub prefix: IpNet,
    pub min_len: u8,
    pub max_len: u8,
}

impl PrefixMatch {
    /// That prefix alone.
    pub fn exact(prefix: IpNet) -> Self {
        Self { prefix, min_len: prefix.prefix_len(), max_len: prefix.prefix_len() }
    }

    pub fn matches(&self, prefix: &IpNet) -> bool {
        (self.min_len..=self.max_len).contains(&prefix.prefix_len()) && self.prefix.contains(prefix)
    }
}

/// What is taken of a neighbour's routes. Everything else is read, checked and dropped, never
/// stored. Nothing is the default, as RFC 8212 asks.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Import {
    #[default]
    Nothing,
    /// `0.0.0.0/0` and `::/0`.
    DefaultRoute,
    Prefixes(Vec<PrefixMatch>),
}

impl Import {
    pub fn accepts(&self, prefix: &IpNet) -> bool {
        match self {
            Self::Nothing => false,
            Self::DefaultRoute => prefix.prefix_len() == 0,
            Self::Prefixes(list) => list.iter().any(|m| m.matches(prefix)),
        }
    }
}

/// A TCP-MD5 or TCP-AO key (RFC 2385, RFC 5925). Never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(Vec<u8>);

impl Password {
    /// `None`: empty, or longer than the kernel's 80 octets.
    pub fn new(key: impl Into<Vec<u8>>) -> Option<Self> {
        let key = key.into();
        (1..=80).contains(&key.len()).then_some(Self(key))
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(…)")
    }
}

/// How TCP-AO signs (RFC 5926), with 96 bits of the result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AoAlgorithm {
    HmacSha1,
    Aes128Cmac,
}

/// A TCP-AO master key (RFC 5925 §3.1). Both sides hold it with their IDs the other way round.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AoKey {
    /// KeyID of the segments we send.
    pub send_id: u8,
    /// KeyID of the segments we receive.
    pub receive_id: u8,
    pub algorithm: AoAlgorithm,
    pub secret: Password,
}

/// One neighbour.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NeighborConfig {
    /// `::` stands for an unnumbered neighbour: the router at the other end of `interface`,
    /// found by its router advertisements.
    pub address: IpAddr,
    /// The interface of a link-local address or unnumbered neighbour.
    pub interface: Option<String>,
    /// The port we dial.
    pub port: u16,
    pub remote_as: RemoteAs,
    pub description: String,
    /// Never dial, only accept.
    pub passive: bool,
    /// The address we dial from.
    pub source: Option<IpAddr>,
    /// TCP-MD5 (RFC 2385).
    pub password: Option<Password>,
    /// TCP-AO (RFC 5925), not together with TCP-MD5; empty: none. The first signs the connections
    /// we open, each is accepted.
    pub ao: Vec<AoKey>,
    /// Offered; the lower of both sides' counts. Zero (no keepalives) or at least 3 s; anything
    /// else is raised to 3 s.
    pub hold_time: Duration,
    /// Longest wait between attempts to connect.
    pub connect_retry: Duration,
    /// GTSM (RFC 5082): send with TTL 255 and demand that the peer is at most `multihop` (else 1)
    /// hops away.
    pub ttl_security: bool,
    /// Hops to an eBGP peer that is not directly connected.
    pub multihop: Option<u8>,
    pub import: Import,
    /// More accepted prefixes than this end the session (RFC 4486, Cease/1).
    pub max_prefixes: u32,
    /// Administratively down, with the message the peer is told (RFC 9003).
    pub shutdown: Option<String>,
    pub families: Families,
    /// Offer IPv4 routes with an IPv6 next hop (RFC 8950).
    pub extended_next_hop: bool,
    /// Next hops instead of this side's own addresses.
    pub next_hop_v4: Option<Ipv4Addr>,
    pub next_hop_v6: Option<Ipv6Addr>,
    /// Our role toward the neighbour (RFC 9234).
    pub role: Option<Role>,
    /// Refuse a neighbour that does not state its role (RFC 9234 §4.2, strict mode).
    pub role_strict: bool,
    /// Seconds for which the neighbour is to keep our routes when the session breaks (RFC 4724),
    /// 1 to 4095. `None`: our routes go with the session.
    pub graceful_restart: Option<u16>,
}

impl NeighborConfig {
    /// The router at the other end of `interface`, whatever its link-local address; IPv4 routes
    /// travel with an IPv6 next hop (RFC 8950).
    pub fn unnumbered(interface: impl Into<String>, remote_as: RemoteAs) -> Self {
        Self {
            interface: Some(interface.into()),
            extended_next_hop: true,
            ..Self::new(Ipv6Addr::UNSPECIFIED.into(), remote_as)
        }
    }

    /// A neighbour with the usual values: active and passive, both families, hold time 90 s.
    pub fn new(address: IpAddr, remote_as: RemoteAs) -> Self {
        Self {
            address,
            interface: None,
            port: BGP_PORT,
            remote_as,
            description: String::new(),
            passive: false,
            source: None,
            password: None,
            ao: Vec::new(),
            hold_time: Duration::from_secs(90),
            connect_retry: Duration::from_secs(30),
            ttl_security: false,
            multihop: None,
            import: Import::Nothing,
            max_prefixes: 1000,
            shutdown: None,
            families: Families::BOTH,
            extended_next_hop: false,
            next_hop_v4: None,
            next_hop_v6: None,
            role: None,
            role_strict: false,
            graceful_restart: None,
        }
    }

    /// Whether the neighbour may be in another AS than ours.
    pub fn is_external(&self, local_asn: u32) -> bool {
        match self.remote_as {
            RemoteAs::Exact(asn) => asn != local_asn,
            RemoteAs::External => true,
            RemoteAs::Internal => false,
        }
    }

    /// The hold time as it is offered, in seconds (RFC 4271 §4.2: never 1 or 2).
    pub fn offered_hold_time(&self) -> u16 {
        match u16::try_from(self.hold_time.as_secs()).unwrap_or(u16::MAX) {
            0 if self.hold_time.is_zero() => 0,
            seconds => seconds.max(3),
        }
    }
}

//! OPEN and its capabilities (RFC 4271 §4.2 and §6.2, RFC 5492, RFC 9072).

use super::notification::{code, open as subcode};
use super::{AS_TRANS, Families, Family, Notification, Reader};
use std::net::Ipv4Addr;

const PARAMETER_CAPABILITIES: u8 = 2;
/// Optional parameter type and length that announce the extended form (RFC 9072).
const EXTENDED: u8 = 255;

mod capability {
    pub const MULTIPROTOCOL: u8 = 1;
    pub const ROUTE_REFRESH: u8 = 2;
    pub const EXTENDED_NEXT_HOP: u8 = 5;
    pub const EXTENDED_MESSAGE: u8 = 6;
    pub const ROLE: u8 = 9;
    pub const GRACEFUL_RESTART: u8 = 64;
    pub const FOUR_OCTET_AS: u8 = 65;
    pub const ENHANCED_ROUTE_REFRESH: u8 = 70;
}

/// OPEN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Open {
    /// The real AS number: from the four-octet capability if there is one.
    pub asn: u32,
    /// Seconds; 0 or at least 3.
    pub hold_time: u16,
    /// BGP identifier, not zero.
    pub router_id: Ipv4Addr,
    pub capabilities: Capabilities,
}

/// What one side says it can do.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Capabilities {
    /// RFC 4760; IPv4 unicast alone if the peer names no family at all.
    pub families: Families,
    /// RFC 6793.
    pub four_octet_as: bool,
    /// RFC 2918.
    pub route_refresh: bool,
    /// RFC 7313.
    pub enhanced_route_refresh: bool,
    /// RFC 8654.
    pub extended_message: bool,
    /// RFC 8950, for IPv4 unicast with an IPv6 next hop.
    pub extended_next_hop: bool,
    /// RFC 4724.
    pub graceful_restart: Option<GracefulRestart>,
    /// RFC 9234.
    pub role: Option<Role>,
    /// Codes we do not know, in the order they came.
    pub unknown: Vec<u8>,
}

/// Graceful restart, as far as it concerns us (RFC 4724 §3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct GracefulRestart {
    pub restarting: bool,
    /// Seconds, 12 bits.
    pub restart_time: u16,
    /// Families for which forwarding state is claimed to survive.
    pub preserved: Families,
}

/// The local side's part in the relation with the peer (RFC 9234 §4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    Provider,
    RouteServer,
    RouteServerClient,
    Customer,
    Peer,
}

impl Role {
    fn from_wire(byte: u8) -> Option<Self> {
        Some(match byte {
            0 => Self::Provider,
            1 => Self::RouteServer,
            2 => Self::RouteServerClient,
            3 => Self::Customer,
            4 => Self::Peer,
            _ => return None,
        })
    }

    fn wire(self) -> u8 {
        match self {
            Self::Provider => 0,
            Self::RouteServer => 1,
            Self::RouteServerClient => 2,
            Self::Customer => 3,
            Self::Peer => 4,
        }
    }

    /// Whether the peer's role is the counterpart of ours (RFC 9234 §4.2, table 2).
    pub fn accepts(self, remote: Self) -> bool {
        matches!(
            (self, remote),
            (Self::Provider, Self::Customer)
                | (Self::Customer, Self::Provider)
                | (Self::RouteServer, Self::RouteServerClient)
                | (Self::RouteServerClient, Self::RouteServer)
                | (Self::Peer, Self::Peer)
        )
    }
}

impl Open {
    /// Decodes and checks all that needs no knowledge of the configured peer (RFC 4271 §6.2).
    pub(super) fn decode(body: &[u8]) -> Result<Self, Notification> {
        let malformed = || Notification::new(code::OPEN, subcode::MALFORMED);
        let mut r = Reader(body);
        let version = r.u8().ok_or_else(malformed)?;
        if version != 4 {
            return Err(Notification::with_data(code::OPEN, subcode::VERSION, vec![0, 4]));
        }
        let short_as = r.u16().ok_or_else(malformed)?;
        let hold_time = r.u16().ok_or_else(malformed)?;
        let router_id = Ipv4Addr::from(r.u32().ok_or_else(malformed)?);
        let (parameters, wide) = parameters(r).ok_or_else(malformed)?;
        let mut capabilities = Capabilities::default();
        let mut asn = u32::from(short_as);
        let mut named_family = false;
        let mut p = Reader(parameters);
        while !p.is_empty() {
            let kind = p.u8().ok_or_else(malformed)?;
            let len = if wide { p.u16().map(usize::from) } else { p.u8().map(usize::from) };
            let value = len.and_then(|n| p.take(n)).ok_or_else(malformed)?;
            if kind != PARAMETER_CAPABILITIES {
                return Err(Notification::new(code::OPEN, subcode::UNSUPPORTED_PARAMETER));
            }
            let mut c = Reader(value);
            while !c.is_empty() {
                let kind = c.u8().ok_or_else(malformed)?;
                let len = c.u8().ok_or_else(malformed)?;
                let value = c.take(usize::from(len)).ok_or_else(malformed)?;
                named_family |= kind == capability::MULTIPROTOCOL;
                capabilities.read(kind, value, &mut asn).ok_or_else(malformed)?;
            }
        }
        if !named_family {
            capabilities.families.ipv4 = true;
        }
        // RFC 7607: AS 0 is nobody's.
        if asn == 0 || short_as == 0 {
            return Err(Notification::new(code::OPEN, subcode::BAD_PEER_AS));
        }
        if matches!(hold_time, 1 | 2) {
            return Err(Notification::new(code::OPEN, subcode::HOLD_TIME));
        }
        // RFC 6286 §2.2: the identifier need not be a host address, only not zero.
        if router_id.is_unspecified() {
            return Err(Notification::new(code::OPEN, subcode::BAD_IDENTIFIER));
        }
        Ok(Self { asn, hold_time, router_id, capabilities })
    }

    pub(super) fn encode_body(&self, out: &mut Vec<u8>) {
        let short_as = u16::try_from(self.asn).unwrap_or(AS_TRANS);
        out.push(4);
        out.extend_from_slice(&short_as.to_be_bytes());
        out.extend_from_slice(&self.hold_time.to_be_bytes());
        out.extend_from_slice(&self.router_id.octets());
        let mut capabilities = Vec::new();
        self.capabilities.write(self.asn, &mut capabilities);
        // All we can offer together is under 64 octets, so the short form always does.
        if capabilities.is_empty() {
            out.push(0);
        } else {
            out.push(capabilities.len() as u8 + 2);
            out.extend_from_slice(&[PARAMETER_CAPABILITIES, capabilities.len() as u8]);
            out.extend_from_slice(&capabilities);
        }
    }
}

/// The optional parameters, and whether their lengths have two octets (RFC 9072 §2).
fn parameters(mut r: Reader<'_>) -> Option<(&[u8], bool)> {
    let len = r.u8()?;
    let mut ahead = r;
    if len == EXTENDED && ahead.u8() == Some(EXTENDED) {
        let len = ahead.u16()?;
        return (ahead.rest().len() == usize::from(len)).then(|| (ahead.rest(), true));
    }
    (r.rest().len() == usize::from(len)).then(|| (r.rest(), false))
}

impl Capabilities {
    /// `None`: the capability is one we know, but not of a shape its RFC allows.
    fn read(&mut self, kind: u8, value: &[u8], asn: &mut u32) -> Option<()> {
        let mut r = Reader(value);
        match kind {
            capability::MULTIPROTOCOL => {
                let [hi, lo, _, safi] = *value else {
                    return None;
                };
                if let Some(family) = Family::from_wire(u16::from_be_bytes([hi, lo]), safi) {
                    self.families.insert(family);
                }
            }
            capability::ROUTE_REFRESH => self.route_refresh = flag(value)?,
            capability::ENHANCED_ROUTE_REFRESH => self.enhanced_route_refresh = flag(value)?,
            capability::EXTENDED_MESSAGE => self.extended_message = flag(value)?,
            capability::EXTENDED_NEXT_HOP => {
                while !r.is_empty() {
                    let (afi, safi, next_hop) = (r.u16()?, r.u16()?, r.u16()?);
                    self.extended_next_hop |= (afi, safi, next_hop) == (1, 1, 2);
                }
            }
            capability::ROLE => {
                let [role] = *value else { return None };
                self.role = self.role.or(Role::from_wire(role));
            }
            capability::GRACEFUL_RESTART => {
                let head = r.u16()?;
                let mut restart = GracefulRestart {
                    restarting: head & 0x8000 != 0,
                    restart_time: head & 0x0fff,
                    preserved: Families::default(),
                };
                while !r.is_empty() {
                    let (afi, safi, flags) = (r.u16()?, r.u8()?, r.u8()?);
                    if let Some(family) = Family::from_wire(afi, safi)
                        && flags & 0x80 != 0
                    {
                        restart.preserved.insert(family);
                    }
                }
                self.graceful_restart = Some(restart);
            }
            capability::FOUR_OCTET_AS => {
                *asn = u32::from_be_bytes(value.try_into().ok()?);
                self.four_octet_as = true;
            }
            _ => self.unknown.push(kind),
        }
        Some(())
    }

    fn write(&self, asn: u32, out: &mut Vec<u8>) {
        let mut put = |kind: u8, value: &[u8]| {
            out.extend_from_slice(&[kind, value.len() as u8]);
            out.extend_from_slice(value);
        };
        for family in self.families.iter() {
            let [hi, lo] = family.afi().to_be_bytes();
            put(capability::MULTIPROTOCOL, &[hi, lo, 0, Family::SAFI_UNICAST]);
        }
        if self.route_refresh {
            put(capability::ROUTE_REFRESH, &[]);
        }
        if self.extended_next_hop {
            put(capability::EXTENDED_NEXT_HOP, &[0, 1, 0, 1, 0, 2]);
        }
        if self.extended_message {
            put(capability::EXTENDED_MESSAGE, &[]);
        }
        if let Some(role) = self.role {
            put(capability::ROLE, &[role.wire()]);
        }
        if let Some(restart) = self.graceful_restart {
            let head =
                (restart.restart_time & 0x0fff) | if restart.restarting { 0x8000 } else { 0 };
            let mut value = head.to_be_bytes().to_vec();
            for family in restart.preserved.iter() {
                value.extend_from_slice(&family.afi().to_be_bytes());
                value.extend_from_slice(&[Family::SAFI_UNICAST, 0x80]);
            }
            put(capability::GRACEFUL_RESTART, &value);
        }
        if self.four_octet_as {
            put(capability::FOUR_OCTET_AS, &asn.to_be_bytes());
        }
        if self.enhanced_route_refresh {
            put(capability::ENHANCED_ROUTE_REFRESH, &[]);
        }
    }
}

/// A capability that is only there or not.
fn flag(value: &[u8]) -> Option<bool> {
    value.is_empty().then_some(true)
}

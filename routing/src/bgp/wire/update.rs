//! UPDATE: routes announced and withdrawn (RFC 4271 §4.3, RFC 4760), packed and unpacked.

use super::attribute::{OPTIONAL, Parsed, kind, put};
use super::message::message;
use super::notification::{code, update as subcode};
use super::{
    Attributes, DecodeContext, Family, HEADER_LEN, MessageKind, NextHop, Notification, Reader, nlri,
};
use ipnet::IpNet;
use std::iter::Peekable;
use std::net::IpAddr;

/// Prefixes announced with one next hop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reach {
    pub next_hop: NextHop,
    pub prefixes: Vec<IpNet>,
}

/// A decoded UPDATE. Errors that RFC 7606 treats as a withdrawal have become one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Update {
    pub withdrawn: Vec<IpNet>,
    /// At most one of the classic field's and one of MP_REACH_NLRI's.
    pub reach: Vec<Reach>,
    /// Of `reach`; default if nothing is announced.
    pub attributes: Attributes,
    /// The family whose first table is complete (RFC 4724 §2).
    pub end_of_rib: Option<Family>,
    /// Why announced routes were taken as withdrawn.
    pub treated_as_withdraw: Option<&'static str>,
    /// Attributes discarded.
    pub discarded: u32,
}

impl Update {
    pub(super) fn decode(body: &[u8], ctx: DecodeContext) -> Result<Self, Notification> {
        // RFC 4271 §6.3, RFC 7606 §3 a, b: without these lengths nothing can be located.
        let malformed = || Notification::new(code::UPDATE, subcode::MALFORMED_ATTRIBUTES);
        let bad_network = || Notification::new(code::UPDATE, subcode::INVALID_NETWORK);
        let mut r = Reader(body);
        let withdrawn = r.u16().and_then(|n| r.take(n.into())).ok_or_else(malformed)?;
        let list = r.u16().and_then(|n| r.take(n.into())).ok_or_else(malformed)?;
        let classic = r.rest();

        let mut update = Self {
            withdrawn: nlri::decode(withdrawn, Family::Ipv4Unicast).ok_or_else(bad_network)?,
            ..Self::default()
        };
        let announced = nlri::decode(classic, Family::Ipv4Unicast).ok_or_else(bad_network)?;
        if !ctx.families.ipv4 {
            update.withdrawn.clear();
        }
        let parsed = Parsed::read(list, ctx.four_octet_as, ctx.internal)?;
        let mut unreach_family = None;
        if let Some(value) = parsed.mp_unreach {
            unreach_family = update.read_unreach(value, ctx)?;
        }
        if let Some(value) = parsed.mp_reach {
            update.read_mp_reach(value, ctx)?;
        }
        update.end_of_rib = match (parsed.count, unreach_family) {
            (0, _) if withdrawn.is_empty() && classic.is_empty() => Some(Family::Ipv4Unicast),
            (1, Some((family, true))) if withdrawn.is_empty() && classic.is_empty() => Some(family),
            _ => None,
        };
        let mut fault = parsed.withdraw;
        if !(announced.is_empty() && update.reach.is_empty()) {
            // RFC 7606 §3 d.
            if !parsed.has_origin {
                fault.get_or_insert("ORIGIN missing");
            }
            if !parsed.has_as_path {
                fault.get_or_insert("AS_PATH missing");
            }
        }
        if !announced.is_empty() && ctx.families.ipv4 {
            if parsed.next_hop.is_none() {
                fault.get_or_insert("NEXT_HOP missing");
            }
            let address = IpAddr::from(parsed.next_hop.unwrap_or_default());
            let next_hop = NextHop { address, link_local: None };
            update.reach.push(Reach { next_hop, prefixes: announced });
        }
        update.discarded = parsed.discarded;
        if fault.is_some() && !update.reach.is_empty() {
            update.treated_as_withdraw = fault;
            for reach in update.reach.drain(..) {
                update.withdrawn.extend(reach.prefixes);
            }
        } else if !update.reach.is_empty() {
            update.attributes = parsed.attributes;
        }
        Ok(update)
    }

    /// MP_REACH_NLRI (RFC 4760 §3). A family we did not negotiate is passed over.
    fn read_mp_reach(&mut self, value: &[u8], ctx: DecodeContext) -> Result<(), Notification> {
        // RFC 7606 §7.11: the prefixes cannot be trusted, so nothing less than a reset will do.
        let malformed = || Notification::new(code::UPDATE, subcode::OPTIONAL_ATTRIBUTE);
        let mut r = Reader(value);
        let afi = r.u16().ok_or_else(malformed)?;
        let safi = r.u8().ok_or_else(malformed)?;
        let next_hop = r.u8().and_then(|n| r.take(n.into())).ok_or_else(malformed)?;
        let _reserved = r.u8().ok_or_else(malformed)?;
        let Some(family) = Family::from_wire(afi, safi).filter(|f| ctx.families.contains(*f))
        else {
            return Ok(());
        };
        let allowed = match family {
            Family::Ipv4Unicast if ctx.extended_next_hop => matches!(next_hop.len(), 4 | 16 | 32),
            Family::Ipv4Unicast => next_hop.len() == 4,
            Family::Ipv6Unicast => matches!(next_hop.len(), 16 | 32),
        };
        let next_hop = NextHop::decode(next_hop).filter(|_| allowed).ok_or_else(malformed)?;
        let prefixes = nlri::decode(r.rest(), family).ok_or_else(malformed)?;
        if !prefixes.is_empty() {
            self.reach.push(Reach { next_hop, prefixes });
        }
        Ok(())
    }

    /// MP_UNREACH_NLRI (RFC 4760 §4): its family if negotiated, and whether it names no prefix.
    fn read_unreach(
        &mut self,
        value: &[u8],
        ctx: DecodeContext,
    ) -> Result<Option<(Family, bool)>, Notification> {
        let malformed = || Notification::new(code::UPDATE, subcode::OPTIONAL_ATTRIBUTE);
        let mut r = Reader(value);
        let afi = r.u16().ok_or_else(malformed)?;
        let safi = r.u8().ok_or_else(malformed)?;
        let Some(family) = Family::from_wire(afi, safi).filter(|f| ctx.families.contains(*f))
        else {
            return Ok(None);
        };
        let prefixes = nlri::decode(r.rest(), family).ok_or_else(malformed)?;
        let empty = prefixes.is_empty();
        self.withdrawn.extend(prefixes);
        Ok(Some((family, empty)))
    }
}

/// One attribute set, encoded once; prefixes are packed behind it. Equal templates announce the
/// same thing, so it also serves as the Adj-RIB-Out's memory of what the peer was told.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AnnounceTemplate {
    family: Family,
    next_hop: NextHop,
    attributes: Vec<u8>,
}

impl AnnounceTemplate {
    /// An IPv4 prefix with an IPv6 next hop is for peers that negotiated RFC 8950.
    pub fn new(
        family: Family,
        attributes: &Attributes,
        next_hop: NextHop,
        four_octet_as: bool,
    ) -> Self {
        let classic = match (family, next_hop.address) {
            (Family::Ipv4Unicast, IpAddr::V4(a)) => Some(a.octets()),
            _ => None,
        };
        let mut encoded = Vec::new();
        attributes.encode(classic, four_octet_as, &mut encoded);
        Self { family, next_hop, attributes: encoded }
    }

    pub fn family(&self) -> Family {
        self.family
    }

    pub fn next_hop(&self) -> NextHop {
        self.next_hop
    }

    /// Octets of an UPDATE with this attribute set and no prefix.
    pub fn overhead(&self) -> usize {
        let mp = if self.is_classic() { 0 } else { 4 + self.mp_head().len() };
        HEADER_LEN + 4 + mp + self.attributes.len()
    }

    /// Appends one UPDATE of at most `max` octets with as many prefixes as fit, taken from
    /// `prefixes`; all are of the template's family. Appends nothing if not one fits.
    pub fn encode<'p>(
        &self,
        prefixes: &mut Peekable<impl Iterator<Item = &'p IpNet>>,
        max: usize,
        out: &mut Vec<u8>,
    ) -> usize {
        let (packed, count) = pack(prefixes, max.saturating_sub(self.overhead()));
        if count == 0 {
            return 0;
        }
        message(MessageKind::Update, out, |out| {
            out.extend_from_slice(&[0, 0]);
            if self.is_classic() {
                out.extend_from_slice(&(self.attributes.len() as u16).to_be_bytes());
                out.extend_from_slice(&self.attributes);
                out.extend_from_slice(&packed);
            } else {
                let head = self.mp_head();
                let mp = 4 + head.len() + packed.len();
                out.extend_from_slice(&((mp + self.attributes.len()) as u16).to_be_bytes());
                // RFC 7606 §5.1: MP_REACH_NLRI goes first.
                out.extend_from_slice(&[OPTIONAL | 0x10, kind::MP_REACH]);
                out.extend_from_slice(&((head.len() + packed.len()) as u16).to_be_bytes());
                out.extend_from_slice(&head);
                out.extend_from_slice(&packed);
                out.extend_from_slice(&self.attributes);
            }
        });
        count
    }

    /// RFC 4271's own fields rather than MP_REACH_NLRI.
    fn is_classic(&self) -> bool {
        self.family == Family::Ipv4Unicast && self.next_hop.address.is_ipv4()
    }

    /// MP_REACH_NLRI up to its prefixes.
    fn mp_head(&self) -> Vec<u8> {
        let mut head = self.family.afi().to_be_bytes().to_vec();
        head.extend_from_slice(&[Family::SAFI_UNICAST, 0]);
        self.next_hop.encode(&mut head);
        head[3] = (head.len() - 4) as u8;
        head.push(0);
        head
    }
}

/// Appends one UPDATE of at most `max` octets that withdraws as many prefixes as fit, taken from
/// `prefixes`; all are of `family`. Returns how many.
pub fn encode_withdrawal<'p>(
    family: Family,
    prefixes: &mut Peekable<impl Iterator<Item = &'p IpNet>>,
    max: usize,
    out: &mut Vec<u8>,
) -> usize {
    let overhead = HEADER_LEN + 4 + if family == Family::Ipv4Unicast { 0 } else { 7 };
    let (packed, count) = pack(prefixes, max.saturating_sub(overhead));
    if count > 0 {
        withdrawal(family, &packed, out);
    }
    count
}

/// Appends the End-of-RIB marker (RFC 4724 §2).
pub fn encode_end_of_rib(family: Family, out: &mut Vec<u8>) {
    withdrawal(family, &[], out);
}

/// Octets a prefix takes in an UPDATE.
pub fn encoded_prefix_len(prefix: &IpNet) -> usize {
    nlri::encoded_len(prefix)
}

fn withdrawal(family: Family, packed: &[u8], out: &mut Vec<u8>) {
    message(MessageKind::Update, out, |out| match family {
        Family::Ipv4Unicast => {
            out.extend_from_slice(&(packed.len() as u16).to_be_bytes());
            out.extend_from_slice(packed);
            out.extend_from_slice(&[0, 0]);
        }
        Family::Ipv6Unicast => {
            let mut value = family.afi().to_be_bytes().to_vec();
            value.push(Family::SAFI_UNICAST);
            value.extend_from_slice(packed);
            let mut list = Vec::new();
            put(&mut list, OPTIONAL, kind::MP_UNREACH, &value);
            out.extend_from_slice(&[0, 0]);
            out.extend_from_slice(&(list.len() as u16).to_be_bytes());
            out.extend_from_slice(&list);
        }
    });
}

/// Takes prefixes while they fit into `room` octets.
fn pack<'p>(
    prefixes: &mut Peekable<impl Iterator<Item = &'p IpNet>>,
    room: usize,
) -> (Vec<u8>, usize) {
    let mut packed = Vec::new();
    let mut count = 0;
    while let Some(prefix) = prefixes.next_if(|p| packed.len() + nlri::encoded_len(p) <= room) {
        nlri::encode(prefix, &mut packed);
        count += 1;
    }
    (packed, count)
}

//! Path attributes (RFC 4271 §4.3, §5) and the treatment of malformed ones (RFC 7606).

use super::notification::{code, update as subcode};
use super::{AsPath, Notification, Reader};
use std::net::{IpAddr, Ipv6Addr};

pub(super) mod kind {
    pub const ORIGIN: u8 = 1;
    pub const AS_PATH: u8 = 2;
    pub const NEXT_HOP: u8 = 3;
    pub const MED: u8 = 4;
    pub const LOCAL_PREF: u8 = 5;
    pub const ATOMIC_AGGREGATE: u8 = 6;
    pub const AGGREGATOR: u8 = 7;
    pub const COMMUNITIES: u8 = 8;
    pub const ORIGINATOR_ID: u8 = 9;
    pub const CLUSTER_LIST: u8 = 10;
    pub const MP_REACH: u8 = 14;
    pub const MP_UNREACH: u8 = 15;
    pub const EXTENDED_COMMUNITIES: u8 = 16;
    pub const AS4_PATH: u8 = 17;
    pub const AS4_AGGREGATOR: u8 = 18;
    pub const LARGE_COMMUNITIES: u8 = 32;
    pub const ONLY_TO_CUSTOMER: u8 = 35;
}

pub(super) const OPTIONAL: u8 = 0x80;
pub(super) const TRANSITIVE: u8 = 0x40;
const EXTENDED_LENGTH: u8 = 0x10;

/// ORIGIN (RFC 4271 §5.1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Origin {
    #[default]
    Igp,
    Egp,
    Incomplete,
}

/// Where to send packets: an address and, beside a global IPv6 one, a link-local (RFC 2545 §3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NextHop {
    pub address: IpAddr,
    pub link_local: Option<Ipv6Addr>,
}

impl NextHop {
    pub(super) fn decode(value: &[u8]) -> Option<Self> {
        let mut r = Reader(value);
        let address = match value.len() {
            4 => IpAddr::from(r.array::<4>()?),
            16 | 32 => IpAddr::from(r.array::<16>()?),
            _ => return None,
        };
        Some(Self { address, link_local: r.array::<16>().map(Ipv6Addr::from) })
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        match self.address {
            IpAddr::V4(a) => out.extend_from_slice(&a.octets()),
            IpAddr::V6(a) => {
                out.extend_from_slice(&a.octets());
                if let Some(link_local) = self.link_local {
                    out.extend_from_slice(&link_local.octets());
                }
            }
        }
    }
}

/// Path attributes, next hop and prefixes aside. What a router would pass on but we never use
/// (AGGREGATOR, route reflection) is checked when decoded and then dropped.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Attributes {
    pub origin: Origin,
    pub as_path: AsPath,
    pub med: Option<u32>,
    pub local_preference: Option<u32>,
    pub communities: Vec<(u16, u16)>,
    pub extended_communities: Vec<[u8; 8]>,
    pub large_communities: Vec<(u32, u32, u32)>,
    /// RFC 9234 §5.
    pub only_to_customer: Option<u32>,
}

impl Attributes {
    /// Writes the attributes in order of their type. `next_hop`: the classic attribute's value,
    /// for IPv4 routes that travel outside MP_REACH_NLRI.
    pub(super) fn encode(&self, next_hop: Option<[u8; 4]>, four_octet_as: bool, out: &mut Vec<u8>) {
        let optional = OPTIONAL | TRANSITIVE;
        put(out, TRANSITIVE, kind::ORIGIN, &[self.origin as u8]);
        put(out, TRANSITIVE, kind::AS_PATH, &self.as_path.encode(four_octet_as));
        if let Some(next_hop) = next_hop {
            put(out, TRANSITIVE, kind::NEXT_HOP, &next_hop);
        }
        if let Some(med) = self.med {
            put(out, OPTIONAL, kind::MED, &med.to_be_bytes());
        }
        if let Some(preference) = self.local_preference {
            put(out, TRANSITIVE, kind::LOCAL_PREF, &preference.to_be_bytes());
        }
        if !self.communities.is_empty() {
            let value: Vec<u8> = self
                .communities
                .iter()
                .flat_map(|&(asn, v)| (u32::from(asn) << 16 | u32::from(v)).to_be_bytes())
                .collect();
            put(out, optional, kind::COMMUNITIES, &value);
        }
        if !self.extended_communities.is_empty() {
            put(
                out,
                optional,
                kind::EXTENDED_COMMUNITIES,
                self.extended_communities.as_flattened(),
            );
        }
        if !four_octet_as && self.as_path.needs_four_octets() {
            put(out, optional, kind::AS4_PATH, &self.as_path.encode(true));
        }
        if !self.large_communities.is_empty() {
            let value: Vec<u8> = self
                .large_communities
                .iter()
                .flat_map(|&(a, b, c)| [a, b, c])
                .flat_map(u32::to_be_bytes)
                .collect();
            put(out, optional, kind::LARGE_COMMUNITIES, &value);
        }
        if let Some(asn) = self.only_to_customer {
            put(out, optional, kind::ONLY_TO_CUSTOMER, &asn.to_be_bytes());
        }
    }

    /// One of the three community attributes: what is wrong with it, if anything
    /// (RFC 7606 §7.8, §7.14; RFC 8092 §6).
    fn read_communities(&mut self, kind: u8, value: &[u8]) -> Option<&'static str> {
        match kind {
            kind::COMMUNITIES => match chunks::<4>(value) {
                Some(all) => {
                    self.communities = all
                        .iter()
                        .map(|&[a, b, c, d]| {
                            (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]))
                        })
                        .collect();
                    None
                }
                None => Some("malformed COMMUNITIES"),
            },
            kind::EXTENDED_COMMUNITIES => match chunks::<8>(value) {
                Some(all) => {
                    self.extended_communities = all.to_vec();
                    None
                }
                None => Some("malformed EXTENDED COMMUNITIES"),
            },
            kind::LARGE_COMMUNITIES => match chunks::<4>(value) {
                Some(all) if all.len() % 3 == 0 => {
                    self.large_communities = all
                        .chunks_exact(3)
                        .map(|c| {
                            let [a, b, c] = [0, 1, 2].map(|i| u32::from_be_bytes(c[i]));
                            (a, b, c)
                        })
                        .collect();
                    None
                }
                _ => Some("malformed LARGE COMMUNITIES"),
            },
            _ => None,
        }
    }
}

/// Appends one attribute.
pub(super) fn put(out: &mut Vec<u8>, flags: u8, kind: u8, value: &[u8]) {
    if let Ok(len) = u8::try_from(value.len()) {
        out.extend_from_slice(&[flags, kind, len]);
    } else {
        out.extend_from_slice(&[flags | EXTENDED_LENGTH, kind]);
        out.extend_from_slice(&(value.len() as u16).to_be_bytes());
    }
    out.extend_from_slice(value);
}

/// What was read of the attribute list of one UPDATE.
#[derive(Debug, Default)]
pub(super) struct Parsed<'a> {
    pub attributes: Attributes,
    pub has_origin: bool,
    pub has_as_path: bool,
    pub next_hop: Option<[u8; 4]>,
    pub mp_reach: Option<&'a [u8]>,
    pub mp_unreach: Option<&'a [u8]>,
    /// Attributes seen, of any kind.
    pub count: usize,
    /// First error whose treatment is to withdraw the routes (RFC 7606 §2).
    pub withdraw: Option<&'static str>,
    /// Attributes dropped as malformed or out of place (RFC 7606 §2, attribute discard).
    pub discarded: u32,
    as4_path: Option<AsPath>,
}

impl<'a> Parsed<'a> {
    /// # Errors
    /// The NOTIFICATION for the few errors that still end the session.
    pub fn read(list: &'a [u8], four_octet_as: bool, internal: bool) -> Result<Self, Notification> {
        let mut parsed = Self::default();
        let mut seen = [0u64; 4];
        let mut r = Reader(list);
        while !r.is_empty() {
            let whole = r.rest();
            let Some((flags, kind, value)) = next(&mut r) else {
                // RFC 7606 §4: the list's own length still says where the prefixes begin.
                parsed.withdraw.get_or_insert("attribute runs past the attribute list");
                break;
            };
            let whole = &whole[..whole.len() - r.rest().len()];
            let (word, bit) = (usize::from(kind >> 6), 1u64 << (kind & 63));
            if seen[word] & bit != 0 {
                // RFC 7606 §3 g.
                if matches!(kind, kind::MP_REACH | kind::MP_UNREACH) {
                    return Err(Notification::new(code::UPDATE, subcode::MALFORMED_ATTRIBUTES));
                }
                parsed.discarded += 1;
                continue;
            }
            seen[word] |= bit;
            parsed.count += 1;
            parsed.attribute(flags, kind, value, whole, four_octet_as, internal)?;
        }
        if let Some(as4) = parsed.as4_path.take() {
            let path = std::mem::take(&mut parsed.attributes.as_path);
            parsed.attributes.as_path = path.merged_with(as4);
        }
        Ok(parsed)
    }

    fn attribute(
        &mut self,
        flags: u8,
        kind: u8,
        value: &'a [u8],
        whole: &[u8],
        four_octet_as: bool,
        internal: bool,
    ) -> Result<(), Notification> {
        if let Some(expected) = expected_flags(kind) {
            if flags & (OPTIONAL | TRANSITIVE) != expected {
                // RFC 7606 §3 c.
                self.withdraw.get_or_insert("attribute flags in conflict with the attribute");
            }
        } else if flags & OPTIONAL == 0 {
            // RFC 4271 §6.3, not relaxed by RFC 7606.
            let code = code::UPDATE;
            return Err(Notification::with_data(code, subcode::UNRECOGNIZED_WELL_KNOWN, whole));
        }
        let attributes = &mut self.attributes;
        let fault = match kind {
            kind::ORIGIN => match value {
                [origin @ 0..=2] => {
                    self.has_origin = true;
                    attributes.origin =
                        [Origin::Igp, Origin::Egp, Origin::Incomplete][usize::from(*origin)];
                    None
                }
                _ => Some("malformed ORIGIN"),
            },
            kind::AS_PATH => match AsPath::decode(value, four_octet_as, internal) {
                Some(path) => {
                    self.has_as_path = true;
                    attributes.as_path = path;
                    None
                }
                None => Some("malformed AS_PATH"),
            },
            kind::NEXT_HOP => {
                self.next_hop = value.try_into().ok();
                self.next_hop.is_none().then_some("malformed NEXT_HOP")
            }
            kind::MED => {
                attributes.med = four(value);
                attributes.med.is_none().then_some("malformed MULTI_EXIT_DISC")
            }
            kind::LOCAL_PREF if internal => {
                attributes.local_preference = four(value);
                attributes.local_preference.is_none().then_some("malformed LOCAL_PREF")
            }
            // RFC 7606 §7.5, §7.9, §7.10: not to be heard from outside.
            kind::LOCAL_PREF | kind::ORIGINATOR_ID | kind::CLUSTER_LIST if !internal => {
                self.discarded += 1;
                None
            }
            kind::ORIGINATOR_ID => (value.len() != 4).then_some("malformed ORIGINATOR_ID"),
            kind::CLUSTER_LIST => (value.is_empty() || !value.len().is_multiple_of(4))
                .then_some("malformed CLUSTER_LIST"),
            kind::COMMUNITIES | kind::EXTENDED_COMMUNITIES | kind::LARGE_COMMUNITIES => {
                attributes.read_communities(kind, value)
            }
            kind::ONLY_TO_CUSTOMER => {
                attributes.only_to_customer = four(value);
                attributes.only_to_customer.is_none().then_some("malformed ONLY_TO_CUSTOMER")
            }
            kind::MP_REACH => {
                self.mp_reach = Some(value);
                None
            }
            kind::MP_UNREACH => {
                self.mp_unreach = Some(value);
                None
            }
            // RFC 7606 §7.6, §7.7; RFC 6793 §6: malformed, these are discarded. Ours to check
            // only so that the fault is counted.
            kind::ATOMIC_AGGREGATE => {
                self.discarded += u32::from(!value.is_empty());
                None
            }
            kind::AGGREGATOR => {
                self.discarded += u32::from(value.len() != if four_octet_as { 8 } else { 6 });
                None
            }
            kind::AS4_AGGREGATOR => {
                self.discarded += u32::from(four_octet_as || value.len() != 8);
                None
            }
            kind::AS4_PATH => {
                // RFC 6793 §4.1: not to be heard from a four-octet speaker.
                self.as4_path = AsPath::decode(value, true, false).filter(|_| !four_octet_as);
                self.discarded += u32::from(self.as4_path.is_none());
                None
            }
            _ => None,
        };
        if let Some(fault) = fault {
            self.withdraw.get_or_insert(fault);
        }
        Ok(())
    }
}

/// Flags, type and value of the next attribute; `None` if it runs past the list.
fn next<'a>(r: &mut Reader<'a>) -> Option<(u8, u8, &'a [u8])> {
    let (flags, kind) = (r.u8()?, r.u8()?);
    let len = if flags & EXTENDED_LENGTH == 0 { usize::from(r.u8()?) } else { r.u16()?.into() };
    Some((flags, kind, r.take(len)?))
}

/// The optional and transitive bits of attributes we know; `None` for others.
fn expected_flags(kind: u8) -> Option<u8> {
    Some(match kind {
        kind::ORIGIN
        | kind::AS_PATH
        | kind::NEXT_HOP
        | kind::LOCAL_PREF
        | kind::ATOMIC_AGGREGATE => TRANSITIVE,
        kind::MED
        | kind::ORIGINATOR_ID
        | kind::CLUSTER_LIST
        | kind::MP_REACH
        | kind::MP_UNREACH => OPTIONAL,
        kind::AGGREGATOR
        | kind::COMMUNITIES
        | kind::EXTENDED_COMMUNITIES
        | kind::AS4_PATH
        | kind::AS4_AGGREGATOR
        | kind::LARGE_COMMUNITIES
        | kind::ONLY_TO_CUSTOMER => OPTIONAL | TRANSITIVE,
        _ => return None,
    })
}

fn four(value: &[u8]) -> Option<u32> {
    value.try_into().ok().map(u32::from_be_bytes)
}

/// `None` unless `value` is one or more whole chunks (RFC 7606 §7.8, §7.14; RFC 8092 §6).
fn chunks<const N: usize>(value: &[u8]) -> Option<&[[u8; N]]> {
    let (all, rest) = value.as_chunks::<N>();
    (!all.is_empty() && rest.is_empty()).then_some(all)
}

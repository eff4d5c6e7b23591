//! From rtnetlink bytes to the few facts the mirror needs.
//!
//! In: datagrams as the kernel sends them (host byte order; addresses in network order). Out:
//! [`Message`]s. What is unknown is passed over; what is malformed is counted by the caller's
//! counter and passed over. Reads are bounds-checked, so no input can panic.
//!
//! This reads a dozen attributes instead of decoding whole messages with `netlink-packet-route`,
//! whose decoder gives up the message at the first attribute it cannot parse: a new kernel must not
//! be able to hide a link or a route from us. The tests use that crate as an independent encoder.

use ipnet::IpNet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub(crate) const NLMSG_ERROR: u16 = 2;
pub(crate) const NLMSG_DONE: u16 = 3;
pub(crate) const NLM_F_DUMP_INTR: u16 = 0x10;

// linux/rtnetlink.h
const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_NEWNEIGH: u16 = 28;
const RTM_DELNEIGH: u16 = 29;
const RTM_NEWNEXTHOP: u16 = 104;
const RTM_DELNEXTHOP: u16 = 105;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFF_UP: u32 = 1;
const IFF_LOWER_UP: u32 = 1 << 16;

const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_FLAGS: u16 = 8;
const IFA_F_OPTIMISTIC: u32 = 0x04;
const IFA_F_DADFAILED: u32 = 0x08;
const IFA_F_TENTATIVE: u32 = 0x40;

const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;

const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RTA_MULTIPATH: u16 = 9;
const RTA_TABLE: u16 = 15;
const RTA_VIA: u16 = 18;
const RTA_ENCAP: u16 = 22;
const RTA_NH_ID: u16 = 30;

pub(crate) const RTNH_F_DEAD: u32 = 1;
pub(crate) const RTNH_F_LINKDOWN: u32 = 16;
/// `rtm_flags`: an exception cached from another route, not a route.
pub(crate) const RTM_F_CLONED: u32 = 0x200;

const AF_UNSPEC: u8 = 0;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// What the kernel said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Message {
    Link(LinkInfo),
    LinkGone {
        ifindex: u32,
    },
    Address(AddressInfo),
    Neighbour(NeighbourInfo),
    Route(RawRoute),
    /// A route was removed. Which one does not matter: see `mirror::view`.
    RouteGone {
        table: u32,
    },
    /// Something that changes routes without naming them: a next-hop object.
    NextHopObject,
    /// Nothing for us.
    Other,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LinkInfo {
    pub ifindex: u32,
    pub name: String,
    /// `None`: not an Ethernet address.
    pub mac: Option<[u8; 6]>,
    pub mtu: u32,
    pub up: bool,
    pub carrier: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AddressInfo {
    pub gone: bool,
    pub ifindex: u32,
    pub net: IpNet,
    /// Duplicate address detection is done (or optimistic) and did not fail.
    pub usable: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NeighbourInfo {
    pub gone: bool,
    pub ifindex: u32,
    pub address: IpAddr,
    pub mac: Option<[u8; 6]>,
    /// `NUD_*` bits.
    pub state: u16,
}

/// A route as the kernel lists it, before any choice between routes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RawRoute {
    pub prefix: IpNet,
    pub table: u32,
    pub protocol: u8,
    pub scope: u8,
    /// `RTN_*`.
    pub kind: u8,
    pub flags: u32,
    pub metric: u32,
    pub tos: u8,
    pub source_length: u8,
    pub next_hops: Vec<RawNextHop>,
    /// Lightweight tunnel, which the packet path does not do.
    pub encap: bool,
    /// Next-hop object. With `nexthop_compat_mode` 1, the default, the next hops are listed as well.
    pub next_hop_id: Option<u32>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RawNextHop {
    pub via: Option<IpAddr>,
    pub ifindex: u32,
    /// 1 to 256.
    pub weight: u16,
    /// `RTNH_F_*`.
    pub flags: u32,
}

/// Header of one netlink message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub kind: u16,
    pub flags: u16,
    pub sequence: u32,
}

/// The bytes do not hold what their lengths promise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed;

/// The messages of a datagram. Ends after the first malformed one.
pub(crate) fn messages(
    datagram: &[u8],
) -> impl Iterator<Item = Result<(Header, &[u8]), Malformed>> {
    const HEADER: usize = 16;
    let mut rest = datagram;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let bytes = std::mem::take(&mut rest);
        let one = || {
            let length = u32_at(bytes, 0)? as usize;
            let header = Header {
                kind: u16_at(bytes, 4)?,
                flags: u16_at(bytes, 6)?,
                sequence: u32_at(bytes, 8)?,
            };
            let payload = bytes.get(HEADER..length)?;
            Some((header, payload, bytes.get(align(length)..).unwrap_or_default()))
        };
        let Some((header, payload, after)) = one() else {
            return Some(Err(Malformed));
        };
        rest = after;
        Some(Ok((header, payload)))
    })
}

/// Decode the payload of one message. Malformed optional attributes are counted in `malformed`
/// and left out; a message that makes no sense without them is an error, not yet counted.
pub(crate) fn decode(kind: u16, payload: &[u8], malformed: &mut u64) -> Result<Message, Malformed> {
    match kind {
        RTM_NEWLINK | RTM_DELLINK => link(kind == RTM_DELLINK, payload, malformed),
        RTM_NEWADDR | RTM_DELADDR => address(kind == RTM_DELADDR, payload, malformed),
        RTM_NEWNEIGH | RTM_DELNEIGH => neighbour(kind == RTM_DELNEIGH, payload, malformed),
        RTM_NEWROUTE | RTM_DELROUTE => route(kind == RTM_DELROUTE, payload, malformed),
        RTM_NEWNEXTHOP | RTM_DELNEXTHOP => Ok(Message::NextHopObject),
        _ => Ok(Message::Other),
    }
}

/// What an NLMSG_ERROR or NLMSG_DONE says: the errno (0: done), and the kernel's words if any.
pub(crate) fn outcome(header: Header, payload: &[u8]) -> Result<(i32, String), Malformed> {
    const NLM_F_ACK_TLVS: u16 = 0x200;
    const NLMSGERR_ATTR_MSG: u16 = 1;
    // An empty NLMSG_DONE is a success.
    let code = if payload.is_empty() { 0 } else { u32_at(payload, 0).ok_or(Malformed)? as i32 };
    let mut words = String::new();
    if header.kind == NLMSG_ERROR && header.flags & NLM_F_ACK_TLVS != 0 {
        // With NETLINK_CAP_ACK only the 16 byte header of the request comes back before the TLVs.
        for (kind, value) in attributes(payload.get(20..).unwrap_or_default()).flatten() {
            if kind == NLMSGERR_ATTR_MSG {
                words = text(value);
            }
        }
    }
    Ok((code.checked_neg().unwrap_or(libc::EIO), words))
}

fn link(gone: bool, payload: &[u8], malformed: &mut u64) -> Result<Message, Malformed> {
    const HEADER: usize = 16;
    let family = u8_at(payload, 0).ok_or(Malformed)?;
    let ifindex = u32_at(payload, 4).ok_or(Malformed)?;
    let flags = u32_at(payload, 8).ok_or(Malformed)?;
    // A bridge says that a port left it with a RTM_DELLINK of its own family.
    if family != AF_UNSPEC {
        return Ok(Message::Other);
    }
    if gone {
        return Ok(Message::LinkGone { ifindex });
    }
    let mut info = LinkInfo {
        ifindex,
        name: String::new(),
        mac: None,
        mtu: 0,
        up: flags & IFF_UP != 0,
        carrier: flags & IFF_LOWER_UP != 0,
    };
    for attribute in attributes(payload.get(HEADER..).ok_or(Malformed)?) {
        match attribute {
            Ok((IFLA_IFNAME, value)) => info.name = text(value),
            Ok((IFLA_ADDRESS, value)) => info.mac = value.try_into().ok(),
            Ok((IFLA_MTU, value)) => keep(&mut info.mtu, u32_at(value, 0), malformed),
            Ok(_) => {}
            Err(Malformed) => *malformed += 1,
        }
    }
    if info.name.is_empty() {
        return Err(Malformed);
    }
    Ok(Message::Link(info))
}

fn address(gone: bool, payload: &[u8], malformed: &mut u64) -> Result<Message, Malformed> {
    const HEADER: usize = 8;
    let family = u8_at(payload, 0).ok_or(Malformed)?;
    let length = u8_at(payload, 1).ok_or(Malformed)?;
    let mut flags = u32::from(u8_at(payload, 2).ok_or(Malformed)?);
    let ifindex = u32_at(payload, 4).ok_or(Malformed)?;
    if family != AF_INET && family != AF_INET6 {
        return Ok(Message::Other);
    }
    let (mut local, mut peer) = (None, None);
    for attribute in attributes(payload.get(HEADER..).ok_or(Malformed)?) {
        match attribute {
            Ok((IFA_LOCAL, value)) => keep(&mut local, ip(family, value).map(Some), malformed),
            Ok((IFA_ADDRESS, value)) => keep(&mut peer, ip(family, value).map(Some), malformed),
            Ok((IFA_FLAGS, value)) => keep(&mut flags, u32_at(value, 0), malformed),
            Ok(_) => {}
            Err(Malformed) => *malformed += 1,
        }
    }
    // IFA_ADDRESS is ours on a broadcast link, the other end's on a point-to-point one.
    let ours = local.or(peer).ok_or(Malformed)?;
    let tentative = flags & IFA_F_TENTATIVE != 0 && flags & IFA_F_OPTIMISTIC == 0;
    Ok(Message::Address(AddressInfo {
        gone,
        ifindex,
        net: IpNet::new(ours, length).map_err(|_| Malformed)?,
        usable: !tentative && flags & IFA_F_DADFAILED == 0,
    }))
}

fn neighbour(gone: bool, payload: &[u8], malformed: &mut u64) -> Result<Message, Malformed> {
    const HEADER: usize = 12;
    let family = u8_at(payload, 0).ok_or(Malformed)?;
    let ifindex = u32_at(payload, 4).ok_or(Malformed)?;
    let state = u16_at(payload, 8).ok_or(Malformed)?;
    // AF_BRIDGE: forwarding table entries.
    if family != AF_INET && family != AF_INET6 {
        return Ok(Message::Other);
    }
    let (mut address, mut mac) = (None, None);
    for attribute in attributes(payload.get(HEADER..).ok_or(Malformed)?) {
        match attribute {
            Ok((NDA_DST, value)) => keep(&mut address, ip(family, value).map(Some), malformed),
            Ok((NDA_LLADDR, value)) => mac = value.try_into().ok(),
            Ok(_) => {}
            Err(Malformed) => *malformed += 1,
        }
    }
    let address = address.ok_or(Malformed)?;
    Ok(Message::Neighbour(NeighbourInfo { gone, ifindex, address, mac, state }))
}

fn route(gone: bool, payload: &[u8], malformed: &mut u64) -> Result<Message, Malformed> {
    const HEADER: usize = 12;
    let &[family, length, source_length, tos, table, protocol, scope, kind, ..] = payload else {
        return Err(Malformed);
    };
    let flags = u32_at(payload, 8).ok_or(Malformed)?;
    let any: IpAddr = match family {
        AF_INET => Ipv4Addr::UNSPECIFIED.into(),
        AF_INET6 => Ipv6Addr::UNSPECIFIED.into(),
        _ => return Ok(Message::Other),
    };
    let mut destination = any;
    let mut table = u32::from(table);
    let mut metric = 0;
    let mut single = RawNextHop { via: None, ifindex: 0, weight: 1, flags: flags & 0xff };
    let mut next_hops = Vec::new();
    let mut encap = false;
    let mut next_hop_id = None;
    for attribute in attributes(payload.get(HEADER..).ok_or(Malformed)?) {
        let Ok((kind, value)) = attribute else {
            *malformed += 1;
            continue;
        };
        match kind {
            // A route whose destination or next hop we cannot read is worse than none.
            RTA_DST => destination = ip(family, value).ok_or(Malformed)?,
            RTA_OIF => single.ifindex = u32_at(value, 0).ok_or(Malformed)?,
            RTA_GATEWAY => single.via = Some(ip(family, value).ok_or(Malformed)?),
            RTA_VIA => single.via = Some(via(value).ok_or(Malformed)?),
            RTA_MULTIPATH => next_hops = multipath(family, value, &mut encap)?,
            RTA_PRIORITY => metric = u32_at(value, 0).ok_or(Malformed)?,
            RTA_TABLE => keep(&mut table, u32_at(value, 0), malformed),
            RTA_NH_ID => next_hop_id = u32_at(value, 0),
            RTA_ENCAP => encap = true,
            _ => {}
        }
    }
    if gone {
        return Ok(Message::RouteGone { table });
    }
    if next_hops.is_empty() && (single.ifindex != 0 || single.via.is_some()) {
        next_hops.push(single);
    }
    Ok(Message::Route(RawRoute {
        prefix: IpNet::new(destination, length).map_err(|_| Malformed)?,
        table,
        protocol,
        scope,
        kind,
        flags,
        metric,
        tos,
        source_length,
        next_hops,
        encap,
        next_hop_id,
    }))
}

/// RTA_MULTIPATH: `struct rtnexthop` (length, flags, weight - 1, interface) and attributes, each.
fn multipath(family: u8, value: &[u8], encap: &mut bool) -> Result<Vec<RawNextHop>, Malformed> {
    const HEADER: usize = 8;
    let mut next_hops = Vec::new();
    let mut rest = value;
    while !rest.is_empty() {
        let length = usize::from(u16_at(rest, 0).ok_or(Malformed)?);
        let inner = rest.get(HEADER..length).ok_or(Malformed)?;
        let mut hop = RawNextHop {
            via: None,
            ifindex: u32_at(rest, 4).ok_or(Malformed)?,
            weight: u16::from(u8_at(rest, 3).ok_or(Malformed)?) + 1,
            flags: u32::from(u8_at(rest, 2).ok_or(Malformed)?),
        };
        for attribute in attributes(inner) {
            match attribute? {
                (RTA_GATEWAY, value) => hop.via = Some(ip(family, value).ok_or(Malformed)?),
                (RTA_VIA, value) => hop.via = Some(via(value).ok_or(Malformed)?),
                (RTA_ENCAP, _) => *encap = true,
                _ => {}
            }
        }
        next_hops.push(hop);
        rest = rest.get(align(length)..).unwrap_or_default();
    }
    Ok(next_hops)
}

/// RTA_VIA, a gateway of another family (RFC 8950): `struct rtvia`.
fn via(value: &[u8]) -> Option<IpAddr> {
    ip(u8::try_from(u16_at(value, 0)?).ok()?, value.get(2..)?)
}

/// Kind (without the nested and byte-order bits) and value of each attribute. Ends after the first
/// one whose length is wrong: where the next begins is then unknown.
fn attributes(bytes: &[u8]) -> impl Iterator<Item = Result<(u16, &[u8]), Malformed>> {
    const NLA_TYPE_MASK: u16 = 0x3fff;
    let mut rest = bytes;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let bytes = std::mem::take(&mut rest);
        let one = || {
            let length = usize::from(u16_at(bytes, 0)?);
            Some((u16_at(bytes, 2)? & NLA_TYPE_MASK, bytes.get(4..length)?, length))
        };
        let Some((kind, value, length)) = one() else {
            return Some(Err(Malformed));
        };
        rest = bytes.get(align(length)..).unwrap_or_default();
        Some(Ok((kind, value)))
    })
}

fn keep<T>(slot: &mut T, value: Option<T>, malformed: &mut u64) {
    match value {
        Some(value) => *slot = value,
        None => *malformed += 1,
    }
}

fn ip(family: u8, value: &[u8]) -> Option<IpAddr> {
    match family {
        AF_INET => <[u8; 4]>::try_from(value).ok().map(IpAddr::from),
        AF_INET6 => <[u8; 16]>::try_from(value).ok().map(IpAddr::from),
        _ => None,
    }
}

/// A C string; what is not UTF-8 is replaced, which no name we look for contains.
fn text(value: &[u8]) -> String {
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end]).into_owned()
}

fn align(length: usize) -> usize {
    length.saturating_add(3) & !3
}

fn u8_at(bytes: &[u8], at: usize) -> Option<u8> {
    bytes.get(at).copied()
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests;

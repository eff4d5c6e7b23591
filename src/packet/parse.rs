//! The border: what kind of frame this is, decided once.
//!
//! Takes the bytes of a frame and its whole length; says whether the packet path can translate it
//! ([`Kind::Transport`]: every header it touches is at a fixed offset and whole), must look at it
//! more closely, or must leave it to others. Lengths are checked here and nowhere else. Fields of
//! a [`Kind::Transport`] frame are then read at the offsets of [`offset`].

use super::checksum;
use std::net::IpAddr;

pub const ETHERTYPE_IPV4: u16 = 0x0800;
pub const ETHERTYPE_IPV6: u16 = 0x86dd;
pub const ETHERTYPE_ARP: u16 = 0x0806;
/// 802.1Q and 802.1ad tags.
pub const ETHERTYPE_VLAN: [u16; 2] = [0x8100, 0x88a8];

pub const PROTOCOL_ICMP: u8 = 1;
pub const PROTOCOL_TCP: u8 = 6;
pub const PROTOCOL_UDP: u8 = 17;
pub const PROTOCOL_ICMPV6: u8 = 58;

pub const TCP_FIN: u8 = 0x01;
pub const TCP_SYN: u8 = 0x02;
pub const TCP_RST: u8 = 0x04;
pub const TCP_ACK: u8 = 0x10;

/// Where fields lie in an untagged frame without IPv4 options or IPv6 extension headers, bytes
/// from the start of the frame.
pub mod offset {
    pub const IP: usize = 14;
    pub const V4_LENGTH: usize = IP + 2;
    pub const V4_IDENTIFICATION: usize = IP + 4;
    pub const V4_TTL: usize = IP + 8;
    pub const V4_PROTOCOL: usize = IP + 9;
    pub const V4_CHECKSUM: usize = IP + 10;
    pub const V4_SOURCE: usize = IP + 12;
    pub const V4_DESTINATION: usize = IP + 16;
    pub const V4_L4: usize = IP + 20;
    pub const V6_LENGTH: usize = IP + 4;
    pub const V6_NEXT_HEADER: usize = IP + 6;
    pub const V6_HOP_LIMIT: usize = IP + 7;
    pub const V6_SOURCE: usize = IP + 8;
    pub const V6_DESTINATION: usize = IP + 24;
    pub const V6_L4: usize = IP + 40;
    /// From the start of the TCP header.
    pub const TCP_FLAGS: usize = 13;
    pub const TCP_CHECKSUM: usize = 16;
    pub const UDP_CHECKSUM: usize = 6;
}

/// Family and protocol of a frame that can be translated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Transport {
    Udp4 = 0,
    Tcp4 = 1,
    Udp6 = 2,
    Tcp6 = 3,
}

/// What a well-formed frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// TCP or UDP over IP without fragmentation, options or extension headers; the whole TCP or
    /// UDP header (without TCP options) is in the data.
    Transport(Transport),
    /// ICMP or ICMPv6, unfragmented; at least 8 bytes of it are in the data.
    Icmp { v6: bool },
    /// IP that the packet path cannot translate; what happens depends on the destination.
    OtherIp { v6: bool, why: Other },
    /// ARP, tagged frames (see [`crate::forward`]) and every other EtherType.
    NotIp,
}

/// Why an IP packet is [`Kind::OtherIp`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Other {
    Fragment,
    /// IPv4 options or an IPv6 extension header other than Fragment.
    Header,
    /// Neither TCP, UDP nor ICMP.
    Protocol,
}

/// Why a frame is not well-formed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Malformed {
    /// Shorter than its headers say.
    Truncated,
    /// A field has a value that no valid packet has.
    Header,
    /// IPv4 header checksum.
    IpChecksum,
    /// UDP over IPv6 without a checksum (RFC 8200 §8.1).
    L4Checksum,
}

/// [`parse()`] for what nearly every frame is: TCP or UDP over an IP header of the usual length, at
/// least [`COMMON`] bytes. `None`: anything else, malformed frames too; ask [`parse()`]. All bytes
/// are behind one check of the length.
#[inline(always)]
pub fn common(data: &[u8], total_len: usize, verify_ipv4: bool) -> Option<Transport> {
    let head = data.first_chunk::<COMMON>()?;
    // EtherType, version and header length (RFC 791 §3.1) in one question. Numbers are compared as
    // they lie in the packet: what is constant is swapped instead.
    let [ipv4, ipv4_mask] = [[8, 0, 0x45, 0], [0xff, 0xff, 0xff, 0]].map(u32::from_ne_bytes);
    if u32::from_ne_bytes(word(head, 12)) & ipv4_mask == ipv4 {
        common_v4(head, total_len, verify_ipv4)
    } else if u16::from_ne_bytes(word(head, 12)) == ETHERTYPE_IPV6.to_be() {
        common_v6(data, total_len)
    } else {
        None
    }
}

/// Ethernet, IPv4 and TCP headers; less than the shortest Ethernet frame.
pub const COMMON: usize = 54;

#[inline(always)]
fn common_v4(head: &[u8; COMMON], total_len: usize, verify: bool) -> Option<Transport> {
    let ip = head[offset::IP..].first_chunk::<20>()?;
    let total = usize::from(be16(head, offset::V4_LENGTH));
    // More fragments, or a fragment offset.
    let fragment = u16::from_ne_bytes(word(head, offset::IP + 6)) & 0x3fff_u16.to_be() != 0;
    if fragment || total + offset::IP > total_len {
        return None;
    }
    if verify && !checksum::ipv4_header_good(ip) {
        return None;
    }
    let (transport, l4_needs) = match ip[9] {
        PROTOCOL_UDP => (Transport::Udp4, udp_needs(be16(head, offset::V4_L4 + 4))?),
        PROTOCOL_TCP => (Transport::Tcp4, tcp_needs(head[offset::V4_L4 + 12])?),
        _ => return None,
    };
    (20 + l4_needs <= total).then_some(transport)
}

#[inline(always)]
fn common_v6(data: &[u8], total_len: usize) -> Option<Transport> {
    let head = data.first_chunk::<62>()?;
    let l4_len = usize::from(be16(head, offset::V6_LENGTH));
    if head[offset::IP] >> 4 != 6 || l4_len + offset::V6_L4 > total_len {
        return None;
    }
    let (transport, l4_needs) = match head[offset::V6_NEXT_HEADER] {
        // RFC 8200 §8.1: never without a checksum.
        PROTOCOL_UDP if be16(head, offset::V6_L4 + 6) != 0 => {
            (Transport::Udp6, udp_needs(be16(head, offset::V6_L4 + 4))?)
        }
        PROTOCOL_TCP => {
            let head = data.first_chunk::<74>()?;
            (Transport::Tcp6, tcp_needs(head[offset::V6_L4 + 12])?)
        }
        _ => return None,
    };
    (l4_needs <= l4_len).then_some(transport)
}

/// Bytes that UDP's length field claims, if it is not too small.
#[inline(always)]
fn udp_needs(length: u16) -> Option<usize> {
    (length >= 8).then_some(usize::from(length))
}

/// Bytes of the TCP header, by the byte that holds its data offset, if that is not too small.
#[inline(always)]
fn tcp_needs(data_offset: u8) -> Option<usize> {
    (data_offset >= 0x50).then_some(usize::from(data_offset >> 4) * 4)
}

#[inline(always)]
fn be16<const N: usize>(bytes: &[u8; N], at: usize) -> u16 {
    u16::from_be_bytes(word(bytes, at))
}

/// `K` bytes at a constant offset, in one load.
#[inline(always)]
fn word<const K: usize, const N: usize>(bytes: &[u8; N], at: usize) -> [u8; K] {
    let mut word = [0; K];
    word.copy_from_slice(&bytes[at..at + K]);
    word
}

/// Classify a frame. `data` is its first contiguous part, `total_len` its whole length without
/// FCS. `verify_ipv4`: check the IPv4 header checksum, because the port did not.
#[inline(always)]
pub fn parse(data: &[u8], total_len: usize, verify_ipv4: bool) -> Result<Kind, Malformed> {
    let Some((ethernet, ip)) = data.split_first_chunk::<14>() else {
        return Err(Malformed::Truncated);
    };
    let ip_room = total_len.saturating_sub(offset::IP);
    match u16::from_be_bytes([ethernet[12], ethernet[13]]) {
        ETHERTYPE_IPV4 => parse_ipv4(ip, ip_room, verify_ipv4),
        ETHERTYPE_IPV6 => parse_ipv6(ip, ip_room),
        _ => Ok(Kind::NotIp),
    }
}

#[inline(always)]
fn parse_ipv4(ip: &[u8], room: usize, verify: bool) -> Result<Kind, Malformed> {
    let Some((header, payload)) = ip.split_first_chunk::<20>() else {
        return Err(Malformed::Truncated);
    };
    // RFC 791 §3.1: version 4, header length 5 words: anything else is rare or wrong.
    if header[0] != 0x45 {
        return parse_ipv4_unusual(ip, room, verify);
    }
    let total = usize::from(u16::from_be_bytes([header[2], header[3]]));
    if total > room {
        return Err(Malformed::Truncated);
    }
    if verify && !checksum::ipv4_header_good(header) {
        return Err(Malformed::IpChecksum);
    }
    let Some(l4_len) = total.checked_sub(20) else {
        return Err(Malformed::Header);
    };
    // More fragments, or a fragment offset.
    if u16::from_be_bytes([header[6], header[7]]) & 0x3fff != 0 {
        return Ok(other_v4(Other::Fragment));
    }
    match header[9] {
        PROTOCOL_UDP => udp(payload, l4_len).map(|_| Kind::Transport(Transport::Udp4)),
        PROTOCOL_TCP => tcp(payload, l4_len).map(|()| Kind::Transport(Transport::Tcp4)),
        PROTOCOL_ICMP => icmp(payload, l4_len, false),
        _ => Ok(other_v4(Other::Protocol)),
    }
}

#[cold]
fn parse_ipv4_unusual(ip: &[u8], room: usize, verify: bool) -> Result<Kind, Malformed> {
    let Some(fixed) = ip.first_chunk::<20>() else {
        return Err(Malformed::Truncated);
    };
    let header_len = usize::from(fixed[0] & 0x0f) * 4;
    if fixed[0] >> 4 != 4 || header_len < 20 {
        return Err(Malformed::Header);
    }
    let total = usize::from(u16::from_be_bytes([fixed[2], fixed[3]]));
    if total < header_len {
        return Err(Malformed::Header);
    }
    let Some(header) = ip.get(..header_len) else {
        return Err(Malformed::Truncated);
    };
    if total > room {
        return Err(Malformed::Truncated);
    }
    if verify && checksum::checksum(header) != 0 {
        return Err(Malformed::IpChecksum);
    }
    Ok(other_v4(Other::Header))
}

const fn other_v4(why: Other) -> Kind {
    Kind::OtherIp { v6: false, why }
}

#[inline(always)]
fn parse_ipv6(ip: &[u8], room: usize) -> Result<Kind, Malformed> {
    let Some((header, payload)) = ip.split_first_chunk::<40>() else {
        return Err(Malformed::Truncated);
    };
    if header[0] >> 4 != 6 {
        return Err(Malformed::Header);
    }
    let l4_len = usize::from(u16::from_be_bytes([header[4], header[5]]));
    if l4_len + 40 > room {
        return Err(Malformed::Truncated);
    }
    match header[6] {
        PROTOCOL_UDP => match udp(payload, l4_len)? {
            0 => Err(Malformed::L4Checksum),
            _ => Ok(Kind::Transport(Transport::Udp6)),
        },
        PROTOCOL_TCP => tcp(payload, l4_len).map(|()| Kind::Transport(Transport::Tcp6)),
        PROTOCOL_ICMPV6 => icmp(payload, l4_len, true),
        next => Ok(other_v6(next)),
    }
}

/// RFC 8200 §4: the first extension header decides; no chain is followed.
#[cold]
const fn other_v6(next_header: u8) -> Kind {
    let why = match next_header {
        44 => Other::Fragment,
        // Hop-by-hop, routing, ESP, AH, no next header, destination options, mobility, HIP, shim6.
        0 | 43 | 50 | 51 | 59 | 60 | 135 | 139 | 140 => Other::Header,
        _ => Other::Protocol,
    };
    Kind::OtherIp { v6: true, why }
}

/// The destination address of a frame that was parsed as IP of this family.
pub fn destination(data: &[u8], v6: bool) -> Option<IpAddr> {
    if v6 {
        let address = data.get(offset::V6_DESTINATION..)?.first_chunk::<16>()?;
        Some(IpAddr::from(*address))
    } else {
        let address = data.get(offset::V4_DESTINATION..)?.first_chunk::<4>()?;
        Some(IpAddr::from(*address))
    }
}

/// RFC 768. Returns the checksum field. The length may be less than the IP payload
/// (RFC 9868), never more.
#[inline(always)]
fn udp(l4: &[u8], l4_len: usize) -> Result<u16, Malformed> {
    let Some(header) = l4.first_chunk::<8>() else {
        return Err(Malformed::Truncated);
    };
    if udp_needs(be16(header, 4)).is_none_or(|needed| needed > l4_len) {
        return Err(Malformed::Header);
    }
    Ok(u16::from_ne_bytes([header[6], header[7]]))
}

/// RFC 9293 §3.1.
#[inline(always)]
fn tcp(l4: &[u8], l4_len: usize) -> Result<(), Malformed> {
    let Some(header) = l4.first_chunk::<20>() else {
        return Err(Malformed::Truncated);
    };
    if tcp_needs(header[12]).is_none_or(|needed| needed > l4_len) {
        return Err(Malformed::Header);
    }
    Ok(())
}

fn icmp(l4: &[u8], l4_len: usize, v6: bool) -> Result<Kind, Malformed> {
    if l4_len < 8 {
        return Err(Malformed::Header);
    }
    if l4.len() < 8 {
        return Err(Malformed::Truncated);
    }
    Ok(Kind::Icmp { v6 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::build;
    use proptest::prelude::*;
    use std::net::SocketAddr;

    /// UDP or TCP (bit 0) over IPv4 or IPv6 (bit 1).
    fn valid(kind: u8) -> Vec<u8> {
        let net = if kind & 2 == 0 { "192.0.2." } else { "[2001:db8::" };
        let end = |n| format!("{net}{n}{}:80", if kind & 2 == 0 { "" } else { "]" });
        let [from, to]: [SocketAddr; 2] = [1, 2].map(|n| end(n).parse().unwrap());
        let link = build::Link { source: [2; 6], destination: [4; 6] };
        let mut frame = if kind & 1 == 0 {
            build::udp(link, from, to, b"payload")
        } else {
            build::tcp(link, from, to, TCP_ACK, b"payload")
        };
        frame.resize(frame.len().max(60), 0);
        frame
    }

    proptest! {
        /// The short way and the long way agree about everything that is long enough for both.
        #[test]
        fn common_is_parse(
            kind in 0u8..4,
            changes in prop::collection::vec((0usize..80, any::<u8>()), 0..3),
            cut in 0usize..30,
            verify: bool,
        ) {
            let mut frame = valid(kind);
            for (at, value) in changes {
                if let Some(byte) = frame.get_mut(at) {
                    *byte = value;
                }
            }
            frame.truncate(frame.len() - cut.saturating_sub(8));
            let long = match parse(&frame, frame.len(), verify) {
                Ok(Kind::Transport(transport)) => Some(transport),
                _ => None,
            };
            let expected = long.filter(|_| frame.len() >= COMMON);
            prop_assert_eq!(common(&frame, frame.len(), verify), expected);
        }
    }
}

//! Frames made from a description, with every checksum right: what probes send and what tests and
//! benches feed in. Not on the packet path: this allocates.

use super::checksum::{self, fold, pseudo_header};
use super::fragment::Fragment;
use super::parse::{
    ETHERTYPE_IPV4, ETHERTYPE_IPV6, PROTOCOL_ICMP, PROTOCOL_ICMPV6, PROTOCOL_TCP, PROTOCOL_UDP,
};
use std::net::{IpAddr, SocketAddr};

/// Ethernet addresses of a frame to build.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    pub source: [u8; 6],
    pub destination: [u8; 6],
}

/// A UDP frame. Source and destination must be of one family; of mixed ones, IPv6 with a mapped
/// address is made.
pub fn udp(link: Link, source: SocketAddr, destination: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let mut l4 = Vec::with_capacity(8 + payload.len());
    l4.extend(source.port().to_be_bytes());
    l4.extend(destination.port().to_be_bytes());
    l4.extend((8 + payload.len() as u16).to_be_bytes());
    l4.extend([0; 2]);
    l4.extend(payload);
    ip(link, source.ip(), destination.ip(), PROTOCOL_UDP, l4)
}

/// A TCP segment with this flags byte, sequence number 1000 and acknowledgement number 2000.
pub fn tcp(
    link: Link,
    source: SocketAddr,
    destination: SocketAddr,
    flags: u8,
    payload: &[u8],
) -> Vec<u8> {
    let mut l4 = Vec::with_capacity(20 + payload.len());
    l4.extend(source.port().to_be_bytes());
    l4.extend(destination.port().to_be_bytes());
    l4.extend(1000u32.to_be_bytes());
    l4.extend(2000u32.to_be_bytes());
    l4.extend([0x50, flags]);
    l4.extend(8192u16.to_be_bytes());
    l4.extend([0; 4]);
    l4.extend(payload);
    ip(link, source.ip(), destination.ip(), PROTOCOL_TCP, l4)
}

/// An ICMP or ICMPv6 message, by the family of the addresses. `message` begins with type and code;
/// its checksum field is overwritten.
pub fn icmp(link: Link, source: IpAddr, destination: IpAddr, message: &[u8]) -> Vec<u8> {
    let protocol =
        if source.is_ipv4() && destination.is_ipv4() { PROTOCOL_ICMP } else { PROTOCOL_ICMPV6 };
    ip(link, source, destination, protocol, message.to_vec())
}

/// An IP packet of any protocol, TTL or hop limit 64, in an Ethernet frame. The checksums of TCP,
/// UDP, ICMP and ICMPv6 are filled in where `l4` is long enough to have one.
pub fn ip(
    link: Link,
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    mut l4: Vec<u8>,
) -> Vec<u8> {
    let mut frame = Vec::with_capacity(54 + l4.len());
    frame.extend(link.destination);
    frame.extend(link.source);
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let (source, destination) = (source.octets(), destination.octets());
            let pseudo = pseudo_header(&source, &destination, protocol, l4.len() as u32);
            fill_checksum(&mut l4, protocol, pseudo);
            let mut header = [0; 20];
            header[0] = 0x45;
            header[2..4].copy_from_slice(&(20 + l4.len() as u16).to_be_bytes());
            header[6] = 0x40; // do not fragment
            header[8] = 64;
            header[9] = protocol;
            header[12..16].copy_from_slice(&source);
            header[16..20].copy_from_slice(&destination);
            let value = checksum::checksum(&header);
            header[10..12].copy_from_slice(&value.to_ne_bytes());
            frame.extend(ETHERTYPE_IPV4.to_be_bytes());
            frame.extend(header);
        }
        (source, destination) => {
            let (source, destination) = (v6(source), v6(destination));
            let pseudo = pseudo_header(&source, &destination, protocol, l4.len() as u32);
            fill_checksum(&mut l4, protocol, pseudo);
            frame.extend(ETHERTYPE_IPV6.to_be_bytes());
            frame.extend([0x60, 0, 0, 0]);
            frame.extend((l4.len() as u16).to_be_bytes());
            frame.extend([protocol, 64]);
            frame.extend(source);
            frame.extend(destination);
        }
    }
    frame.extend(l4);
    frame
}

/// The fragments of an untagged IP frame without options or extension headers, in order, each with
/// at most so many bytes of its payload (rounded down to a multiple of 8, at least 8). IPv4 keeps 16
/// bits of the identification and loses "do not fragment".
pub fn fragments(frame: &[u8], identification: u32, payload: usize) -> Vec<Vec<u8>> {
    let v6 = frame.get(12..14) == Some(&ETHERTYPE_IPV6.to_be_bytes());
    let (head, l4) = frame.split_at(frame.len().min(if v6 { 54 } else { 34 }));
    let step = (payload & !7).max(8);
    let last = l4.len().saturating_sub(1) / step;
    let one = |(number, part): (usize, &[u8])| {
        let (at, more) = ((number * step) as u16, u16::from(number < last));
        let mut frame = head.to_vec();
        if v6 {
            let protocol = std::mem::replace(&mut frame[20], 44);
            frame.extend([protocol, 0]);
            frame.extend((at | more).to_be_bytes());
            frame.extend(identification.to_be_bytes());
            frame[18..20].copy_from_slice(&(8 + part.len() as u16).to_be_bytes());
        } else {
            frame[16..18].copy_from_slice(&(20 + part.len() as u16).to_be_bytes());
            frame[18..20].copy_from_slice(&(identification as u16).to_be_bytes());
            frame[20..22].copy_from_slice(&(at >> 3 | more << 13).to_be_bytes());
            frame[24..26].fill(0);
            let value = checksum::checksum(&frame[14..34]);
            frame[24..26].copy_from_slice(&value.to_ne_bytes());
        }
        frame.extend(part);
        frame
    };
    l4.chunks(step).enumerate().map(one).collect()
}

/// The packet that these frames, fragments of one datagram in any order, were cut from: identification
/// 0 and "do not fragment" as [`ip()`] makes them. `None`: something is missing, or there twice, or of
/// another datagram, or an IPv4 header's checksum is wrong. For tests.
pub fn reassemble(fragments: &[Vec<u8>]) -> Option<Vec<u8>> {
    let mut parts = Vec::new();
    for frame in fragments {
        let v6 = frame.get(12..14)? == ETHERTYPE_IPV6.to_be_bytes();
        if !v6 && checksum::checksum(frame.get(14..34)?) != 0 {
            return None;
        }
        let fragment = Fragment::read(frame, v6).ok()?;
        let start = if v6 { 62 } else { 34 };
        let payload = frame.get(start..start + usize::from(fragment.length))?;
        parts.push((fragment, v6, frame, payload));
    }
    parts.sort_by_key(|(fragment, ..)| fragment.offset);
    let &(head, v6, frame, _) = parts.first()?;
    let named = |frame: &[u8]| frame.get(if v6 { 22..54 } else { 26..34 }).map(<[u8]>::to_vec);
    let mut l4 = Vec::new();
    for (fragment, other_v6, other, payload) in &parts {
        let same = (fragment.identification, fragment.protocol, *other_v6)
            == (head.identification, head.protocol, v6);
        let in_place = usize::from(fragment.offset) == l4.len() && frame[..14] == other[..14];
        if !same || !in_place || named(other) != named(frame) {
            return None;
        }
        l4.extend_from_slice(payload);
    }
    let ends = |(fragment, ..): &(Fragment, bool, &Vec<u8>, &[u8])| !fragment.more;
    if parts.iter().position(ends) != Some(parts.len() - 1) {
        return None;
    }
    let mut whole = frame[..if v6 { 54 } else { 34 }].to_vec();
    if v6 {
        whole[18..20].copy_from_slice(&(l4.len() as u16).to_be_bytes());
        whole[20] = head.protocol;
    } else {
        whole[16..18].copy_from_slice(&(20 + l4.len() as u16).to_be_bytes());
        whole[18..22].copy_from_slice(&[0, 0, 0x40, 0]);
        whole[24..26].fill(0);
        let value = checksum::checksum(&whole[14..34]);
        whole[24..26].copy_from_slice(&value.to_ne_bytes());
    }
    whole.extend(l4);
    Some(whole)
}

fn v6(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

fn fill_checksum(l4: &mut [u8], protocol: u8, pseudo: u64) {
    let (at, pseudo) = match protocol {
        PROTOCOL_TCP => (16, pseudo),
        PROTOCOL_UDP => (6, pseudo),
        PROTOCOL_ICMPV6 => (2, pseudo),
        PROTOCOL_ICMP => (2, 0),
        _ => return,
    };
    if l4.len() < at + 2 {
        return;
    }
    l4[at..at + 2].fill(0);
    let mut value = !fold(pseudo + checksum::sum(l4));
    if protocol == PROTOCOL_UDP && value == 0 {
        value = 0xffff;
    }
    l4[at..at + 2].copy_from_slice(&value.to_ne_bytes());
}

/// Whether every checksum of an untagged frame without options is right; a UDP checksum of 0 on
/// IPv4 counts as right. `false` for what is not IP or too short. For tests and probes.
pub fn checksums_good(frame: &[u8]) -> bool {
    let Some((ethernet, ip)) = frame.split_first_chunk::<14>() else {
        return false;
    };
    let (protocol, pseudo, l4) = match (u16::from_be_bytes([ethernet[12], ethernet[13]]), ip) {
        (ETHERTYPE_IPV4, ip) if ip.len() >= 20 => {
            let total = usize::from(u16::from_be_bytes([ip[2], ip[3]]));
            let (Some(l4), 0) = (ip.get(20..total), checksum::checksum(&ip[..20])) else {
                return false;
            };
            let pseudo = pseudo_header(&ip[12..16], &ip[16..20], ip[9], l4.len() as u32);
            (ip[9], pseudo, l4)
        }
        (ETHERTYPE_IPV6, ip) if ip.len() >= 40 => {
            let length = usize::from(u16::from_be_bytes([ip[4], ip[5]]));
            let Some(l4) = ip.get(40..40 + length) else {
                return false;
            };
            let pseudo = pseudo_header(&ip[8..24], &ip[24..40], ip[6], l4.len() as u32);
            (ip[6], pseudo, l4)
        }
        _ => return false,
    };
    if protocol == PROTOCOL_UDP && ip[0] >> 4 == 4 && l4.get(6..8) == Some(&[0, 0]) {
        return true;
    }
    let pseudo = if protocol == PROTOCOL_ICMP { 0 } else { pseudo };
    fold(pseudo + checksum::sum(l4)) == 0xffff
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_cut_up_is_put_together() {
        let link = Link { source: [2; 6], destination: [4; 6] };
        for (a, b) in [("10.0.0.1:9", "192.0.2.7:53"), ("[2001:db8::1]:9", "[2001:db8::2]:53")] {
            let whole = udp(link, a.parse().unwrap(), b.parse().unwrap(), &[7; 3000]);
            let mut parts = fragments(&whole, 77, 1001);
            assert_eq!(parts.len(), 4);
            parts.rotate_left(1);
            assert_eq!(reassemble(&parts), Some(whole.clone()));
            assert_eq!(reassemble(&parts[1..]), None, "one is missing");
            let mut twice = parts.clone();
            twice.push(parts[0].clone());
            assert_eq!(reassemble(&twice), None);
            let mut mixed = parts.clone();
            mixed[1] = fragments(&whole, 78, 1000)[2].clone();
            assert_eq!(reassemble(&mixed), None);
            assert_eq!(reassemble(&[]), None);
        }
    }

    #[test]
    fn what_is_built_is_right() {
        let link = Link { source: [2; 6], destination: [4; 6] };
        for (a, b) in [("10.0.0.1", "192.0.2.7"), ("2001:db8::1", "2001:db8::2")] {
            let (a, b): (IpAddr, IpAddr) = (a.parse().unwrap(), b.parse().unwrap());
            let (sa, sb) = (SocketAddr::new(a, 1234), SocketAddr::new(b, 53));
            for frame in [
                udp(link, sa, sb, b"odd"),
                tcp(link, sa, sb, 2, b"payload"),
                icmp(link, a, b, &[8, 0, 0, 0, 1, 2, 3, 4, 5]),
            ] {
                assert!(checksums_good(&frame));
                for at in 14..frame.len() {
                    let mut bad = frame.clone();
                    bad[at] ^= 0x10;
                    let hop_limit_or_class = a.is_ipv6() && (at < 18 || at == 21);
                    assert!(hop_limit_or_class || !checksums_good(&bad), "byte {at}");
                }
            }
        }
    }
}

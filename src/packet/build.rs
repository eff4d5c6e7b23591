//! Frames made from a description, with every checksum right: what probes send and what tests and
//! benches feed in. Not on the packet path: this allocates.

use super::checksum::{self, fold, pseudo_header};
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

//! Fragments of IPv4 and IPv6 packets: what their headers say.
//!
//! Takes a frame that [`super::parse()`] called a fragment; says which part of which datagram it
//! is, or that no valid fragment looks like this. Follows no chain: of IPv6, only a Fragment header
//! right behind the IPv6 header is read.

use super::parse::{Malformed, offset};

/// Most bytes of an IPv4 packet, and of what follows an IPv6 header (RFC 791 §3.1, RFC 8200 §4.5).
const LONGEST: usize = 65_535;
const V4_HEADER: usize = 20;

/// One fragment, apart from its addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fragment {
    /// Of the whole datagram: protocol, or next header behind the Fragment header.
    pub protocol: u8,
    /// Host order; 16 bits of IPv4.
    pub identification: u32,
    /// Where in the datagram's payload it begins, bytes.
    pub offset: u16,
    /// Bytes of the datagram's payload in it. At least 1.
    pub length: u16,
    /// More follow.
    pub more: bool,
}

impl Fragment {
    /// Length of the Fragment header between the IP header and the payload, bytes: IPv4 has none.
    pub const fn header_len(v6: bool) -> usize {
        if v6 { 8 } else { 0 }
    }

    /// Read from a frame that was parsed as [`super::Other::Fragment`] of this family. Fragments
    /// that are empty, not the last and no multiple of 8 bytes long, or reach beyond the longest
    /// datagram are refused.
    pub fn read(data: &[u8], v6: bool) -> Result<Self, Malformed> {
        let fragment = if v6 { Self::read_v6(data)? } else { Self::read_v4(data)? };
        let end = usize::from(fragment.offset) + usize::from(fragment.length);
        let longest = if v6 { LONGEST } else { LONGEST - V4_HEADER };
        let uneven = fragment.more && !fragment.length.is_multiple_of(8);
        if fragment.length == 0 || uneven || end > longest {
            return Err(Malformed::Header);
        }
        Ok(fragment)
    }

    /// Where its payload ends in the datagram's, bytes.
    pub const fn end(&self) -> u32 {
        self.offset as u32 + self.length as u32
    }

    /// RFC 791 §3.1. Without options, so parsed.
    fn read_v4(data: &[u8]) -> Result<Self, Malformed> {
        let header = data.get(offset::IP..).and_then(<[u8]>::first_chunk::<V4_HEADER>);
        let header = header.ok_or(Malformed::Truncated)?;
        let [_, _, l0, l1, i0, i1, f0, f1, _, protocol, ..] = *header;
        let total = u16::from_be_bytes([l0, l1]);
        let flags = u16::from_be_bytes([f0, f1]);
        Ok(Self {
            protocol,
            identification: u16::from_be_bytes([i0, i1]).into(),
            offset: (flags & 0x1fff) << 3,
            length: total.checked_sub(V4_HEADER as u16).ok_or(Malformed::Header)?,
            more: flags & 0x2000 != 0,
        })
    }

    /// RFC 8200 §4.5.
    fn read_v6(data: &[u8]) -> Result<Self, Malformed> {
        let length = data.get(offset::V6_LENGTH..).and_then(<[u8]>::first_chunk::<2>);
        let length = u16::from_be_bytes(*length.ok_or(Malformed::Truncated)?);
        let length = length.checked_sub(Self::header_len(true) as u16).ok_or(Malformed::Header)?;
        let header = data.get(offset::V6_L4..).and_then(<[u8]>::first_chunk::<8>);
        let [protocol, _, f0, f1, i0, i1, i2, i3] = *header.ok_or(Malformed::Truncated)?;
        let flags = u16::from_be_bytes([f0, f1]);
        Ok(Self {
            protocol,
            identification: u32::from_be_bytes([i0, i1, i2, i3]),
            offset: flags & 0xfff8,
            length,
            more: flags & 1 != 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{Kind, Other, build, parse};
    use std::net::SocketAddr;

    fn datagram(v6: bool, payload: usize) -> Vec<u8> {
        let ends = if v6 {
            ["[2001:db8::1]:9", "[2001:db8::2]:53"]
        } else {
            ["192.0.2.1:9", "192.0.2.2:53"]
        };
        let [from, to]: [SocketAddr; 2] = ends.map(|end| end.parse().unwrap());
        let link = build::Link { source: [2; 6], destination: [4; 6] };
        build::udp(link, from, to, &vec![7; payload])
    }

    #[test]
    fn what_is_cut_up_is_read() {
        for v6 in [false, true] {
            let whole = datagram(v6, 3000);
            let fragments = build::fragments(&whole, 0x1234, 1480);
            assert_eq!(fragments.len(), 3);
            let read: Vec<Fragment> = fragments
                .iter()
                .map(|frame| {
                    let kind = parse(frame, frame.len(), true);
                    assert_eq!(kind, Ok(Kind::OtherIp { v6, why: Other::Fragment }));
                    Fragment::read(frame, v6).unwrap()
                })
                .collect();
            let expected = [(0, 1480, true), (1480, 1480, true), (2960, 48, false)];
            for (fragment, (offset, length, more)) in read.iter().zip(expected) {
                let protocol = crate::packet::PROTOCOL_UDP;
                let identification = 0x1234;
                assert_eq!(*fragment, Fragment { protocol, identification, offset, length, more });
            }
        }
    }

    #[test]
    fn what_no_datagram_is_made_of_is_refused() {
        // Flags and offset, payload length, refused. IPv6 has its bits elsewhere.
        let cases: &[(bool, u16, usize, bool)] = &[
            (true, 0, 8, false),
            (true, 0, 9, true),
            (false, 8, 9, false),
            (true, 8, 0, true),
            (false, 8, 0, true),
            (false, 65_512, 3, false),
            (false, 65_512, 24, true),
        ];
        for v6 in [false, true] {
            for &(more, at, length, refused) in cases {
                let mut frame = datagram(v6, 100);
                let payload = frame.split_off(if v6 { 54 } else { 34 });
                let flags = if v6 { at | u16::from(more) } else { at >> 3 | u16::from(more) << 13 };
                if v6 {
                    frame[20] = 44;
                    frame[18..20].copy_from_slice(&(8 + length as u16).to_be_bytes());
                    frame.extend([17, 0]);
                    frame.extend(flags.to_be_bytes());
                    frame.extend([0; 4]);
                } else {
                    frame[16..18].copy_from_slice(&(20 + length as u16).to_be_bytes());
                    frame[20..22].copy_from_slice(&flags.to_be_bytes());
                }
                frame.extend(&payload[..length]);
                let read = Fragment::read(&frame, v6);
                assert_eq!(read.is_err(), refused, "v6 {v6}, more {more}, at {at}: {read:?}");
                for len in 0..frame.len() - length {
                    assert_eq!(Fragment::read(&frame[..len], v6), Err(Malformed::Truncated));
                }
            }
        }
    }
}

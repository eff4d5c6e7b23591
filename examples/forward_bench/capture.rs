//! The traffic: one packet per flow, from a client of its own to one VIP.

use anyhow::{Context, Result};
use pcap_file::pcap::{PcapPacket, PcapWriter};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::ops::Range;
use std::path::Path;
use std::time::Duration;

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Family {
    V4,
    V6,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Proto {
    Udp,
    Tcp,
}

/// Where the packets go: what a service for this traffic is configured with.
pub const VIP_V4: [u8; 4] = [192, 0, 2, 1];
pub const VIP_V6: [u8; 16] = [0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
pub const PORT: u16 = 80;
pub const PORT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
pub const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];

/// Shortest frame without its check sequence, bytes.
const MIN_FRAME: usize = 60;
/// Source ports one client address uses, from 1024 on.
const PORTS_PER_CLIENT: u32 = 60_000;

pub const SYN: u8 = 0x02;
pub const ACK: u8 = 0x10;

/// Write a frame of each of these flows. TCP: every sixteenth is a SYN, sent again, the others are
/// ACKs.
pub fn write(path: &Path, flows: Range<u32>, family: Family, proto: Proto) -> Result<()> {
    let file = File::create(path).with_context(|| path.display().to_string())?;
    let mut writer = PcapWriter::new(BufWriter::new(file))?;
    for flow in flows {
        let flags = if flow % 16 == 0 { SYN } else { ACK };
        let frame = frame(flow, family, proto, flags);
        writer.write_packet(&PcapPacket::new(Duration::ZERO, frame.len() as u32, &frame))?;
    }
    writer.into_writer().flush()?;
    Ok(())
}

/// A client's packet of one flow, with right checksums. `flags`: of TCP.
pub fn frame(flow: u32, family: Family, proto: Proto, flags: u8) -> Vec<u8> {
    let client = flow / PORTS_PER_CLIENT;
    let source_port = (1024 + flow % PORTS_PER_CLIENT) as u16;
    let mut l4 = source_port.to_be_bytes().to_vec();
    l4.extend(PORT.to_be_bytes());
    let checksum_at = match proto {
        Proto::Udp => {
            l4.extend(8u16.to_be_bytes());
            l4.extend([0, 0]);
            6
        }
        Proto::Tcp => {
            // Sequence and acknowledgement numbers, data offset 5, flags, window.
            l4.extend([0; 8]);
            l4.extend([0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
            16
        }
    };
    let number = match proto {
        Proto::Udp => 17,
        Proto::Tcp => 6,
    };
    let (ethertype, mut ip, addresses) = match family {
        Family::V4 => (0x0800u16, ipv4(client, number, l4.len()), 12..20),
        Family::V6 => (0x86ddu16, ipv6(client, number, l4.len()), 8..40),
    };
    let mut pseudo = ip[addresses].to_vec();
    pseudo.extend([0, number]);
    pseudo.extend((l4.len() as u16).to_be_bytes());
    pseudo.extend(&l4);
    let checksum = match (checksum(&pseudo), proto) {
        // RFC 768: 0 would mean "none".
        (0, Proto::Udp) => 0xffff,
        (sum, _) => sum,
    };
    l4[checksum_at..checksum_at + 2].copy_from_slice(&checksum.to_be_bytes());

    let mut frame = [PORT_MAC, CLIENT_MAC].concat();
    frame.extend(ethertype.to_be_bytes());
    frame.append(&mut ip);
    frame.append(&mut l4);
    frame.resize(frame.len().max(MIN_FRAME), 0);
    frame
}

fn ipv4(client: u32, protocol: u8, payload: usize) -> Vec<u8> {
    let mut header = vec![0x45, 0];
    header.extend((20 + payload as u16).to_be_bytes());
    header.extend([0, 0, 0x40, 0, 64, protocol, 0, 0]);
    header.extend((0x0a00_0001 + client).to_be_bytes());
    header.extend(VIP_V4);
    let sum = checksum(&header);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    header
}

fn ipv6(client: u32, protocol: u8, payload: usize) -> Vec<u8> {
    let mut header = vec![0x60, 0, 0, 0];
    header.extend((payload as u16).to_be_bytes());
    header.extend([protocol, 64]);
    header.extend([0x20, 1, 0x0d, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0]);
    header.extend((1 + client).to_be_bytes());
    header.extend(VIP_V6);
    header
}

/// RFC 1071.
fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = bytes
        .chunks(2)
        .map(|c| u32::from(u16::from_be_bytes([c[0], c.get(1).copied().unwrap_or(0)])))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

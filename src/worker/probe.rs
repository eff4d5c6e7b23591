//! The synthetic packet: an echo request to a VIP, sent through the packet path like any other.
//!
//! A worker whose loop turns but whose tables or engine are broken would otherwise look alive. The
//! packet path answers echo requests to VIPs itself, so the answer proves parse, table lookup and
//! rewrite. With no VIP configured, an ARP frame must be sent to the kernel.

use crate::forward::tables::{Mac, PortId};
use crate::forward::{Engine, Now, Tables, Verdict};
use crate::packet::Frame;
use std::net::IpAddr;

const ECHO_REQUEST_V4: u8 = 8;
const ECHO_REPLY_V4: u8 = 0;
const ECHO_REQUEST_V6: u8 = 128;
const ECHO_REPLY_V6: u8 = 129;
const ETHERNET: usize = 14;

/// Send one through; true if what comes back is right.
pub fn comes_back(engine: &mut Engine, tables: &Tables, now: Now) -> bool {
    let port = PortId(0);
    let Some(mac) = tables.mac(port) else { return false };
    match tables.some_vip() {
        None => {
            let mut frame = arp(mac);
            matches!(engine.forward(tables, now, port, &mut frame), Verdict::Kernel)
        }
        Some(vip) => {
            let mut frame = echo_request(mac, vip);
            let verdict = engine.forward(tables, now, port, &mut frame);
            matches!(verdict, Verdict::Transmit { .. }) && frame.is_echo_reply(vip)
        }
    }
}

/// A frame on the stack.
#[derive(Debug)]
struct Probe {
    bytes: [u8; 64],
    len: usize,
}

impl Frame for Probe {
    fn data(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    fn data_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.len]
    }
}

impl Probe {
    fn is_echo_reply(&self, vip: IpAddr) -> bool {
        match vip {
            IpAddr::V4(_) => self.bytes[ETHERNET + 20] == ECHO_REPLY_V4,
            IpAddr::V6(_) => self.bytes[ETHERNET + 40] == ECHO_REPLY_V6,
        }
    }
}

fn ethernet(mac: Mac, ethertype: u16, len: usize) -> Probe {
    let mut bytes = [0; 64];
    bytes[..6].copy_from_slice(&mac.0);
    bytes[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
    bytes[12..14].copy_from_slice(&ethertype.to_be_bytes());
    Probe { bytes, len }
}

fn arp(mac: Mac) -> Probe {
    ethernet(mac, 0x0806, 60)
}

/// Source addresses are from the documentation ranges of RFC 5737 and RFC 3849.
fn echo_request(mac: Mac, vip: IpAddr) -> Probe {
    match vip {
        IpAddr::V4(vip) => {
            let mut probe = ethernet(mac, 0x0800, ETHERNET + 28);
            let ip = &mut probe.bytes[ETHERNET..ETHERNET + 20];
            ip[0] = 0x45;
            ip[3] = 28;
            ip[8] = 64;
            ip[9] = 1;
            ip[12..16].copy_from_slice(&[203, 0, 113, 254]);
            ip[16..20].copy_from_slice(&vip.octets());
            let sum = internet_checksum(ip);
            ip[10..12].copy_from_slice(&sum);
            let icmp = &mut probe.bytes[ETHERNET + 20..ETHERNET + 28];
            icmp[0] = ECHO_REQUEST_V4;
            let sum = internet_checksum(icmp);
            icmp[2..4].copy_from_slice(&sum);
            probe
        }
        IpAddr::V6(vip) => {
            let mut probe = ethernet(mac, 0x86dd, ETHERNET + 48);
            let source = [0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xfe];
            let mut pseudo = [0; 48];
            pseudo[..16].copy_from_slice(&source);
            pseudo[16..32].copy_from_slice(&vip.octets());
            pseudo[35] = 8;
            pseudo[39] = 58;
            pseudo[40] = ECHO_REQUEST_V6;
            let sum = internet_checksum(&pseudo);
            let ip = &mut probe.bytes[ETHERNET..];
            ip[0] = 0x60;
            ip[5] = 8;
            ip[6] = 58;
            ip[7] = 64;
            ip[8..24].copy_from_slice(&source);
            ip[24..40].copy_from_slice(&vip.octets());
            ip[40] = ECHO_REQUEST_V6;
            ip[42..44].copy_from_slice(&sum);
            probe
        }
    }
}

/// RFC 1071, over an even number of bytes.
fn internet_checksum(bytes: &[u8]) -> [u8; 2] {
    let sum: u32 = bytes.chunks_exact(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]]))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    (!(folded + (folded >> 16)) as u16).to_be_bytes()
}

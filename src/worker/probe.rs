//! The synthetic packet: an echo request to a VIP, sent through the packet path like any other.
//!
//! A worker whose loop turns but whose tables or engine are broken would otherwise look alive. The
//! packet path answers echo requests to VIPs itself, so the answer proves parse, table lookup and
//! rewrite. With no VIP configured, an ARP frame must be sent to the kernel.

use crate::forward::tables::{Mac, PortId};
use crate::forward::{Engine, Now, Tables, Verdict, WorkerStats};
use crate::packet::Frame;
use crate::packet::checksum::checksum;
use std::net::IpAddr;

const ECHO_REQUEST_V4: u8 = 8;
const ECHO_REPLY_V4: u8 = 0;
const ECHO_REQUEST_V6: u8 = 128;
const ECHO_REPLY_V6: u8 = 129;
const ETHERNET: usize = 14;

/// Send one through; true if what comes back is right.
pub fn comes_back(engine: &mut Engine, tables: &Tables, now: Now, stats: &WorkerStats) -> bool {
    let port = PortId(0);
    let Some(mac) = tables.mac(port) else { return false };
    let vip = tables.some_vip();
    let mut frame = vip.map_or_else(|| arp(mac), |vip| echo_request(mac, vip));
    let verdict = engine.forward(tables, now, port, &mut frame);
    match (verdict, vip) {
        (Verdict::Kernel, None) => true,
        (Verdict::Transmit { .. }, Some(vip)) => frame.is_echo_reply(vip),
        (Verdict::Drop(_), _) => {
            // The engine counted the drop; the books must balance.
            stats.received.add(1, frame.len as u64);
            false
        }
        _ => false,
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
            let sum = checksum(ip).to_ne_bytes();
            ip[10..12].copy_from_slice(&sum);
            let icmp = &mut probe.bytes[ETHERNET + 20..ETHERNET + 28];
            icmp[0] = ECHO_REQUEST_V4;
            let sum = checksum(icmp).to_ne_bytes();
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
            let sum = checksum(&pseudo).to_ne_bytes();
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

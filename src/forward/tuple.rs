//! The addresses and ports of a packet, and what a flow makes of them.

use super::build::{Address, Tables};
use super::flows::{Direction, Record};
use super::hash::Seed;
use crate::packet::{Transport, offset};
use std::net::IpAddr;

/// Addresses (native reading of the bytes; IPv4 in the low 32 bits) and ports (likewise).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Tuple {
    pub source: u128,
    pub destination: u128,
    pub source_port: u16,
    pub destination_port: u16,
}

impl Tuple {
    /// Read from a frame that was parsed as [`crate::packet::Kind::Transport`]; `N` bytes reach
    /// beyond the ports.
    #[inline(always)]
    pub fn read<const V6: bool, const N: usize>(frame: &[u8; N]) -> Self {
        let l4 = l4_offset(V6);
        let (source, destination) = if V6 {
            (
                u128::from_ne_bytes(get(frame, offset::V6_SOURCE)),
                u128::from_ne_bytes(get(frame, offset::V6_DESTINATION)),
            )
        } else {
            (
                u32::from_ne_bytes(get(frame, offset::V4_SOURCE)).into(),
                u32::from_ne_bytes(get(frame, offset::V4_DESTINATION)).into(),
            )
        };
        Self {
            source,
            destination,
            source_port: u16::from_ne_bytes(get(frame, l4)),
            destination_port: u16::from_ne_bytes(get(frame, l4 + 2)),
        }
    }

    /// Write where [`Tuple::read`] read.
    #[inline(always)]
    pub fn write<const V6: bool, const N: usize>(&self, frame: &mut [u8; N]) {
        let l4 = l4_offset(V6);
        if V6 {
            put(frame, offset::V6_SOURCE, self.source.to_ne_bytes());
            put(
                frame,
                offset::V6_DESTINATION,
                self.destination.to_ne_bytes(),
            );
        } else {
            put(frame, offset::V4_SOURCE, (self.source as u32).to_ne_bytes());
            put(
                frame,
                offset::V4_DESTINATION,
                (self.destination as u32).to_ne_bytes(),
            );
        }
        put(frame, l4, self.source_port.to_ne_bytes());
        put(frame, l4 + 2, self.destination_port.to_ne_bytes());
    }

    #[inline(always)]
    pub fn hash(&self, v6: bool, seed: &Seed, protocol: u8) -> u64 {
        let ports = u32::from(self.source_port) << 16 | u32::from(self.destination_port);
        if v6 {
            let halves = |a: u128| [a as u64, (a >> 64) as u64];
            seed.v6(
                halves(self.source),
                halves(self.destination),
                ports,
                protocol,
            )
        } else {
            let addresses = self.source as u64 | (self.destination as u64) << 32;
            seed.v4(addresses, ports, protocol)
        }
    }

    #[inline(always)]
    pub const fn reversed(self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
            source_port: self.destination_port,
            destination_port: self.source_port,
        }
    }

    pub fn destination_ip(&self, v6: bool) -> IpAddr {
        to_address(self.destination, v6).ip(v6)
    }
}

/// A flow's two sides, each as the request has it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sides {
    /// Client to VIP.
    outside: Tuple,
    /// LIP to backend.
    inside: Tuple,
}

impl Sides {
    /// `None`: a slot that the flow names is empty in these tables.
    #[inline(always)]
    pub fn of(tables: &Tables, record: &Record, v6: bool) -> Option<Self> {
        let service = tables.service(record.service)?;
        let backend = tables.backend(record.backend)?;
        let lip = tables.lip(record.lip)?;
        if service.port == 0 || backend.port == 0 || !lip.present {
            return None;
        }
        Some(Self {
            outside: Tuple {
                source: from_address(&record.client, v6),
                destination: from_address(&service.vip.0, v6),
                source_port: record.client_port,
                destination_port: service.port,
            },
            inside: Tuple {
                source: from_address(&lip.address.0, v6),
                destination: from_address(&backend.address.0, v6),
                source_port: record.local_port,
                destination_port: backend.port,
            },
        })
    }

    /// The tuple that a packet of this direction arrives with, and the one it leaves with.
    #[inline(always)]
    pub const fn of_direction(&self, direction: Direction) -> (Tuple, Tuple) {
        match direction {
            Direction::Request => (self.outside, self.inside),
            Direction::Reply => (self.inside.reversed(), self.outside.reversed()),
        }
    }
}

#[inline(always)]
pub(super) fn from_address(address: &[u8; 16], v6: bool) -> u128 {
    if v6 {
        u128::from_ne_bytes(*address)
    } else {
        u32::from_ne_bytes(get(address, 12)).into()
    }
}

#[inline(always)]
pub(super) fn to_address(address: u128, v6: bool) -> Address {
    if v6 {
        return Address(address.to_ne_bytes());
    }
    let mut bytes = [0; 16];
    put(&mut bytes, 12, (address as u32).to_ne_bytes());
    Address(bytes)
}

/// Where TCP or UDP begins, without options or extension headers.
#[inline(always)]
pub(super) const fn l4_offset(v6: bool) -> usize {
    if v6 { offset::V6_L4 } else { offset::V4_L4 }
}

#[inline(always)]
pub(super) const fn is_v6(transport: Transport) -> bool {
    matches!(transport, Transport::Udp6 | Transport::Tcp6)
}

#[inline(always)]
pub(super) const fn is_tcp(transport: Transport) -> bool {
    matches!(transport, Transport::Tcp4 | Transport::Tcp6)
}

#[inline(always)]
pub(super) const fn transport(v6: bool, tcp: bool) -> Transport {
    match (v6, tcp) {
        (false, false) => Transport::Udp4,
        (false, true) => Transport::Tcp4,
        (true, false) => Transport::Udp6,
        (true, true) => Transport::Tcp6,
    }
}

/// `K` bytes at a constant offset: checked by the compiler, not at run time.
#[inline(always)]
pub(super) fn get<const K: usize, const N: usize>(bytes: &[u8; N], at: usize) -> [u8; K] {
    let mut out = [0; K];
    out.copy_from_slice(&bytes[at..at + K]);
    out
}

/// As [`get`], writing.
#[inline(always)]
pub(super) fn put<const K: usize, const N: usize>(bytes: &mut [u8; N], at: usize, value: [u8; K]) {
    bytes[at..at + K].copy_from_slice(&value);
}

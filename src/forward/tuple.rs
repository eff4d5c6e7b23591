//! The addresses and ports of a packet, and what a flow makes of them.
//!
//! The family is a type: an address is the number its bytes make when loaded natively, `u32` for
//! IPv4 and `u128` for IPv6. Ports are loaded likewise.

use super::build::{Address, Tables};
use super::flows::{Direction, Record};
use super::hash::Seed;
use super::steering::RssInput;
use crate::packet::checksum::Delta;
use crate::packet::{PROTOCOL_TCP, PROTOCOL_UDP, Transport, offset};
use std::net::IpAddr;

/// An address of one family, and where things lie in its packets (without options or extension
/// headers; bytes from the start of the frame).
pub(super) trait Family: Copy + Eq {
    const V6: bool;
    const TTL: usize;
    const LENGTH: usize;
    /// What [`Family::LENGTH`] does not count of the IP packet.
    const LENGTH_WITHOUT: u32;
    /// Protocol or next header.
    const PROTOCOL: usize;
    const SOURCE: usize;
    const DESTINATION: usize;
    const L4: usize;

    /// Client, VIP, LIP and backend of a flow. `None`: a slot that the flow names is empty in these
    /// tables.
    fn ends(tables: &Tables, record: &Record) -> Option<[Self; 4]>;
    /// As [`Record::addresses`] has them.
    fn pack(ends: [Self; 4]) -> [u8; 16];
    fn from_address(address: &Address) -> Self;
    fn to_address(self) -> Address;
    fn read<const N: usize>(frame: &[u8; N], at: usize) -> Self;
    fn write<const N: usize>(self, frame: &mut [u8; N], at: usize);
    /// `ports`: source and destination.
    fn hash(seed: &Seed, source: Self, destination: Self, ports: u32, protocol: u8) -> u64;

    fn ip(self) -> IpAddr {
        self.to_address().ip(Self::V6)
    }
}

impl Family for u32 {
    const V6: bool = false;
    const TTL: usize = offset::V4_TTL;
    const LENGTH: usize = offset::V4_LENGTH;
    const LENGTH_WITHOUT: u32 = 0;
    const PROTOCOL: usize = offset::V4_PROTOCOL;
    const SOURCE: usize = offset::V4_SOURCE;
    const DESTINATION: usize = offset::V4_DESTINATION;
    const L4: usize = offset::V4_L4;

    #[inline(always)]
    fn ends(_tables: &Tables, record: &Record) -> Option<[Self; 4]> {
        let packed = &record.addresses;
        Some([0, 4, 8, 12].map(|at| Self::from_ne_bytes(get(packed, at))))
    }

    fn pack(ends: [Self; 4]) -> [u8; 16] {
        let mut packed = [0; 16];
        packed.copy_from_slice(ends.map(Self::to_ne_bytes).as_flattened());
        packed
    }

    #[inline(always)]
    fn from_address(address: &Address) -> Self {
        Self::from_ne_bytes(get(&address.0, 12))
    }

    fn to_address(self) -> Address {
        let mut bytes = [0; 16];
        put(&mut bytes, 12, self.to_ne_bytes());
        Address(bytes)
    }

    #[inline(always)]
    fn read<const N: usize>(frame: &[u8; N], at: usize) -> Self {
        Self::from_ne_bytes(get(frame, at))
    }

    #[inline(always)]
    fn write<const N: usize>(self, frame: &mut [u8; N], at: usize) {
        put(frame, at, self.to_ne_bytes());
    }

    #[inline(always)]
    fn hash(seed: &Seed, source: Self, destination: Self, ports: u32, protocol: u8) -> u64 {
        let addresses = u64::from(source) | u64::from(destination) << 32;
        seed.v4(addresses, ports, protocol)
    }
}

impl Family for u128 {
    const V6: bool = true;
    const TTL: usize = offset::V6_HOP_LIMIT;
    const LENGTH: usize = offset::V6_LENGTH;
    const LENGTH_WITHOUT: u32 = 40;
    const PROTOCOL: usize = offset::V6_NEXT_HEADER;
    const SOURCE: usize = offset::V6_SOURCE;
    const DESTINATION: usize = offset::V6_DESTINATION;
    const L4: usize = offset::V6_L4;

    #[inline(always)]
    fn ends(tables: &Tables, record: &Record) -> Option<[Self; 4]> {
        let service = tables.service(record.service)?;
        let backend = tables.backend(record.backend)?;
        let lip = tables.lip(record.lip)?;
        if service.port == 0 || backend.port == 0 || !lip.present {
            return None;
        }
        Some([
            Self::from_ne_bytes(record.addresses),
            Self::from_address(&service.vip),
            Self::from_address(&lip.address),
            Self::from_address(&backend.address),
        ])
    }

    fn pack([client, ..]: [Self; 4]) -> [u8; 16] {
        client.to_ne_bytes()
    }

    #[inline(always)]
    fn from_address(address: &Address) -> Self {
        Self::from_ne_bytes(address.0)
    }

    fn to_address(self) -> Address {
        Address(self.to_ne_bytes())
    }

    #[inline(always)]
    fn read<const N: usize>(frame: &[u8; N], at: usize) -> Self {
        Self::from_ne_bytes(get(frame, at))
    }

    #[inline(always)]
    fn write<const N: usize>(self, frame: &mut [u8; N], at: usize) {
        put(frame, at, self.to_ne_bytes());
    }

    #[inline(always)]
    fn hash(seed: &Seed, source: Self, destination: Self, ports: u32, protocol: u8) -> u64 {
        let halves = |a: Self| [a as u64, (a >> 64) as u64];
        seed.v6(halves(source), halves(destination), ports, protocol)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Tuple<A> {
    pub source: A,
    pub destination: A,
    pub source_port: u16,
    pub destination_port: u16,
}

impl<A: Family> Tuple<A> {
    /// Read from a frame that was parsed as [`crate::packet::Kind::Transport`]; `N` bytes reach
    /// beyond the ports.
    #[inline(always)]
    pub fn read<const N: usize>(frame: &[u8; N]) -> Self {
        Self {
            source: A::read(frame, A::SOURCE),
            destination: A::read(frame, A::DESTINATION),
            source_port: u16::from_ne_bytes(get(frame, A::L4)),
            destination_port: u16::from_ne_bytes(get(frame, A::L4 + 2)),
        }
    }

    /// Write where [`Tuple::read`] read.
    #[inline(always)]
    pub fn write<const N: usize>(&self, frame: &mut [u8; N]) {
        self.source.write(frame, A::SOURCE);
        self.destination.write(frame, A::DESTINATION);
        put(frame, A::L4, self.source_port.to_ne_bytes());
        put(frame, A::L4 + 2, self.destination_port.to_ne_bytes());
    }

    #[inline(always)]
    pub fn hash(&self, seed: &Seed, protocol: u8) -> u64 {
        let ports = u32::from(self.source_port) << 16 | u32::from(self.destination_port);
        A::hash(seed, self.source, self.destination, ports, protocol)
    }

    /// As RSS sees such a packet.
    pub fn rss_input(&self, transport: Transport) -> RssInput {
        RssInput {
            transport,
            source: self.source.ip(),
            destination: self.destination.ip(),
            source_port: u16::from_be_bytes(self.source_port.to_ne_bytes()),
            destination_port: u16::from_be_bytes(self.destination_port.to_ne_bytes()),
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
}

/// What replacing one tuple by the other does to a checksum over its addresses, and to one over its
/// ports.
pub(super) fn deltas<A: Family>(from: &Tuple<A>, to: &Tuple<A>) -> (Delta, Delta) {
    let addresses = |tuple: &Tuple<A>| [tuple.source, tuple.destination].map(|a| a.to_address().0);
    let ports =
        |tuple: &Tuple<A>| [tuple.source_port, tuple.destination_port].map(u16::to_ne_bytes);
    // What surrounds an IPv4 address in the 16 bytes is zero in both.
    (
        Delta::NONE.replace(addresses(from).as_flattened(), addresses(to).as_flattened()),
        Delta::NONE.replace(ports(from).as_flattened(), ports(to).as_flattened()),
    )
}

/// The tuple that a packet of this flow and direction arrives with, and the one it leaves with.
/// `None`: a slot that the flow names is empty in these tables.
#[inline(always)]
pub(super) fn sides<A: Family>(
    tables: &Tables,
    record: &Record,
    direction: Direction,
) -> Option<(Tuple<A>, Tuple<A>)> {
    let [client, vip, lip, backend] = A::ends(tables, record)?;
    let outside = Tuple {
        source: client,
        destination: vip,
        source_port: record.client_port,
        destination_port: record.vip_port,
    };
    let inside = Tuple {
        source: lip,
        destination: backend,
        source_port: record.local_port,
        destination_port: record.backend_port,
    };
    Some(match direction {
        Direction::Request => (outside, inside),
        Direction::Reply => (inside.reversed(), outside.reversed()),
    })
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
pub(super) const fn protocol_number(transport: Transport) -> u8 {
    if is_tcp(transport) { PROTOCOL_TCP } else { PROTOCOL_UDP }
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

//! The addresses and ports of a packet, and what a flow makes of them.
//!
//! The family is a type: an address is the number its bytes make when loaded natively, `u32` for
//! IPv4 and `u128` for IPv6. Ports are loaded likewise.

use super::build::{Address, Tables};
use super::flows::{Direction, Record};
use super::foreign::ForeignLips;
use super::hash::Seed;
use super::steering::RssInput;
use crate::packet::checksum::Delta;
use crate::packet::{PROTOCOL_TCP, PROTOCOL_UDP, Transport, offset};
use std::net::IpAddr;

/// An address of one family, and where things lie in its packets (without options or extension
/// headers; bytes from the start of the frame).
pub(super) trait Family: Copy + Eq {
    /// Two addresses as they lie in a packet, source before destination.
    type Pair: Copy + std::fmt::Debug;

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
    fn ends(tables: &Tables, foreign: &ForeignLips, record: &Record) -> Option<[Self; 4]>;
    /// What a packet of this flow and direction arrives with, and what it leaves with. `None`: as
    /// [`Family::ends`].
    fn wires(
        tables: &Tables,
        foreign: &ForeignLips,
        record: &Record,
        direction: Direction,
    ) -> Option<(Wire<Self>, Wire<Self>)>;
    /// As [`Record::addresses`] has them.
    fn pack(ends: [Self; 4]) -> [u64; 2];
    fn pair(source: Self, destination: Self) -> Self::Pair;
    fn same(one: &Self::Pair, other: &Self::Pair) -> bool;
    fn read_pair<const N: usize>(frame: &[u8; N]) -> Self::Pair;
    fn write_pair<const N: usize>(pair: Self::Pair, frame: &mut [u8; N]);
    fn from_address(address: &Address) -> Self;
    fn to_address(self) -> Address;
    fn read<const N: usize>(frame: &[u8; N], at: usize) -> Self;
    fn write<const N: usize>(self, frame: &mut [u8; N], at: usize);
    /// `ports`: as in [`Wire`].
    fn hash(seed: &Seed, addresses: Self::Pair, ports: u32, protocol: u8) -> u64;

    fn ip(self) -> IpAddr {
        self.to_address().ip(Self::V6)
    }
}

impl Family for u32 {
    type Pair = u64;

    const V6: bool = false;
    const TTL: usize = offset::V4_TTL;
    const LENGTH: usize = offset::V4_LENGTH;
    const LENGTH_WITHOUT: u32 = 0;
    const PROTOCOL: usize = offset::V4_PROTOCOL;
    const SOURCE: usize = offset::V4_SOURCE;
    const DESTINATION: usize = offset::V4_DESTINATION;
    const L4: usize = offset::V4_L4;

    fn ends(_: &Tables, _: &ForeignLips, record: &Record) -> Option<[Self; 4]> {
        let [outside, inside] = record.addresses.map(u64::to_ne_bytes);
        let at = |side, at| Self::from_ne_bytes(get(side, at));
        Some([at(&outside, 0), at(&outside, 4), at(&inside, 4), at(&inside, 0)])
    }

    #[inline(always)]
    fn wires(
        _: &Tables,
        _: &ForeignLips,
        record: &Record,
        direction: Direction,
    ) -> Option<(Wire<Self>, Wire<Self>)> {
        let (here, there) = (direction as usize, direction as usize ^ 1);
        let arrives = Wire { addresses: record.addresses[here], ports: record.ports[here] };
        // The other side's packets arrive with what this side's leave with, the other way round.
        let leaves = Wire {
            addresses: record.addresses[there].rotate_left(32),
            ports: record.ports[there].rotate_left(16),
        };
        Some((arrives, leaves))
    }

    fn pack([client, vip, lip, backend]: [Self; 4]) -> [u64; 2] {
        [Self::pair(client, vip), Self::pair(backend, lip)]
    }

    #[inline(always)]
    fn pair(source: Self, destination: Self) -> u64 {
        let [a, b, c, d] = source.to_ne_bytes();
        let [e, f, g, h] = destination.to_ne_bytes();
        u64::from_ne_bytes([a, b, c, d, e, f, g, h])
    }

    #[inline(always)]
    fn same(one: &u64, other: &u64) -> bool {
        one == other
    }

    #[inline(always)]
    fn read_pair<const N: usize>(frame: &[u8; N]) -> u64 {
        u64::from_ne_bytes(get(frame, Self::SOURCE))
    }

    #[inline(always)]
    fn write_pair<const N: usize>(pair: u64, frame: &mut [u8; N]) {
        put(frame, Self::SOURCE, pair.to_ne_bytes());
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
    fn hash(seed: &Seed, addresses: u64, ports: u32, protocol: u8) -> u64 {
        seed.v4(addresses, ports, protocol)
    }
}

impl Family for u128 {
    type Pair = [u128; 2];

    const V6: bool = true;
    const TTL: usize = offset::V6_HOP_LIMIT;
    const LENGTH: usize = offset::V6_LENGTH;
    const LENGTH_WITHOUT: u32 = 40;
    const PROTOCOL: usize = offset::V6_NEXT_HEADER;
    const SOURCE: usize = offset::V6_SOURCE;
    const DESTINATION: usize = offset::V6_DESTINATION;
    const L4: usize = offset::V6_L4;

    #[inline(always)]
    fn ends(tables: &Tables, foreign: &ForeignLips, record: &Record) -> Option<[Self; 4]> {
        let service = tables.service(record.service)?;
        let backend = tables.backend(record.backend)?;
        if service.port == 0 || backend.port == 0 {
            return None;
        }
        let lip = match tables.lip(record.lip) {
            Some(lip) if lip.present => &lip.address,
            Some(_) => return None,
            None => foreign.get(record.lip)?,
        };
        Some([
            client(record),
            Self::from_address(&service.vip),
            Self::from_address(lip),
            Self::from_address(&backend.address),
        ])
    }

    #[inline(always)]
    fn wires(
        tables: &Tables,
        foreign: &ForeignLips,
        record: &Record,
        direction: Direction,
    ) -> Option<(Wire<Self>, Wire<Self>)> {
        let [client, vip, lip, backend] = Self::ends(tables, foreign, record)?;
        let [outside, inside] = record.ports;
        let wire = |addresses, ports: u32| Wire { addresses, ports };
        Some(match direction {
            Direction::Request => {
                (wire([client, vip], outside), wire([lip, backend], inside.rotate_left(16)))
            }
            Direction::Reply => {
                (wire([backend, lip], inside), wire([vip, client], outside.rotate_left(16)))
            }
        })
    }

    fn pack([client, ..]: [Self; 4]) -> [u64; 2] {
        let bytes = client.to_ne_bytes();
        [0, 8].map(|at| u64::from_ne_bytes(get(&bytes, at)))
    }

    #[inline(always)]
    fn pair(source: Self, destination: Self) -> [Self; 2] {
        [source, destination]
    }

    /// Half by half, in registers. As arrays they would be put into memory in halves and loaded
    /// whole, for which the CPU has to wait.
    #[inline(always)]
    fn same(one: &[Self; 2], other: &[Self; 2]) -> bool {
        let [source, destination] = [one[0] ^ other[0], one[1] ^ other[1]];
        let different = source | destination;
        (different as u64 | (different >> 64) as u64) == 0
    }

    #[inline(always)]
    fn read_pair<const N: usize>(frame: &[u8; N]) -> [Self; 2] {
        [Self::read(frame, Self::SOURCE), Self::read(frame, Self::DESTINATION)]
    }

    #[inline(always)]
    fn write_pair<const N: usize>([source, destination]: [Self; 2], frame: &mut [u8; N]) {
        source.write(frame, Self::SOURCE);
        destination.write(frame, Self::DESTINATION);
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
    fn hash(seed: &Seed, [source, destination]: [Self; 2], ports: u32, protocol: u8) -> u64 {
        let halves = |a: Self| [a as u64, (a >> 64) as u64];
        seed.v6(halves(source), halves(destination), ports, protocol)
    }
}

/// The client's address of an IPv6 flow.
#[inline(always)]
fn client(record: &Record) -> u128 {
    let [first, second] = record.addresses.map(u64::to_ne_bytes);
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&first);
    bytes[8..].copy_from_slice(&second);
    u128::from_ne_bytes(bytes)
}

/// Addresses and ports as they lie in a packet, in as few numbers as possible: what packets of known
/// flows are compared with and rewritten to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wire<A: Family> {
    pub addresses: A::Pair,
    /// The four bytes of both ports, loaded natively.
    pub ports: u32,
}

impl<A: Family> PartialEq for Wire<A> {
    #[inline(always)]
    fn eq(&self, other: &Self) -> bool {
        self.ports == other.ports && A::same(&self.addresses, &other.addresses)
    }
}

impl<A: Family> Wire<A> {
    /// As [`Tuple::read`].
    #[inline(always)]
    pub fn read<const N: usize>(frame: &[u8; N]) -> Self {
        Self { addresses: A::read_pair(frame), ports: u32::from_ne_bytes(get(frame, A::L4)) }
    }

    #[inline(always)]
    pub fn write<const N: usize>(&self, frame: &mut [u8; N]) {
        A::write_pair(self.addresses, frame);
        put(frame, A::L4, self.ports.to_ne_bytes());
    }

    #[inline(always)]
    pub fn hash(&self, seed: &Seed, protocol: u8) -> u64 {
        A::hash(seed, self.addresses, self.ports, protocol)
    }
}

/// Both ports as a [`Wire`] has them. Each in network order, as loaded.
#[inline(always)]
pub(super) const fn ports(source: u16, destination: u16) -> u32 {
    let [a, b] = source.to_ne_bytes();
    let [c, d] = destination.to_ne_bytes();
    u32::from_ne_bytes([a, b, c, d])
}

/// The inverse of [`ports`].
pub(super) const fn split_ports(ports: u32) -> [u16; 2] {
    let [a, b, c, d] = ports.to_ne_bytes();
    [u16::from_ne_bytes([a, b]), u16::from_ne_bytes([c, d])]
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

    pub fn wire(&self) -> Wire<A> {
        Wire {
            addresses: A::pair(self.source, self.destination),
            ports: ports(self.source_port, self.destination_port),
        }
    }

    pub fn hash(&self, seed: &Seed, protocol: u8) -> u64 {
        self.wire().hash(seed, protocol)
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

/// The tuple that a packet of this flow and direction leaves with. `None`: a slot that the flow
/// names is empty in these tables.
pub(super) fn leaves<A: Family>(
    tables: &Tables,
    foreign: &ForeignLips,
    record: &Record,
    direction: Direction,
) -> Option<Tuple<A>> {
    let [client, vip, lip, backend] = A::ends(tables, foreign, record)?;
    let [[client_port, vip_port], [backend_port, local_port]] = record.ports.map(split_ports);
    Some(match direction {
        Direction::Request => Tuple {
            source: lip,
            destination: backend,
            source_port: local_port,
            destination_port: backend_port,
        },
        Direction::Reply => Tuple {
            source: vip,
            destination: client,
            source_port: vip_port,
            destination_port: client_port,
        },
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

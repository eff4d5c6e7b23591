//! [`Tables`] as workers read them: immutable, shared by `Arc`. [`super::build`] compiles them.

use super::fib::{Adjacency, Fib, Hop};
use super::map::Map;
use super::schedule::Schedule;
use super::tables::{
    BackendId, LipId, Mac, NextHopId, PortId, Protocol, ServiceId, ServiceSpec, Timeouts,
};
use super::time::ticks_of_ms;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

/// An address of either family in 16 bytes; IPv4 in the last four. Which it is, is known besides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct Address(pub [u8; 16]);

impl Address {
    pub fn of(address: IpAddr) -> Self {
        let mut bytes = [0; 16];
        match address {
            IpAddr::V4(v4) => bytes[12..].copy_from_slice(&v4.octets()),
            IpAddr::V6(v6) => bytes = v6.octets(),
        }
        Self(bytes)
    }

    pub fn ip(self, v6: bool) -> IpAddr {
        let [.., a, b, c, d] = self.0;
        if v6 { IpAddr::V6(Ipv6Addr::from(self.0)) } else { IpAddr::V4(Ipv4Addr::new(a, b, c, d)) }
    }
}

/// What translation needs of a service. Ports in network order, as loaded.
#[derive(Debug, Clone, Copy, Default)]
#[repr(align(32))]
pub(super) struct ServiceSlot {
    pub vip: Address,
    pub port: u16,
}

/// What translation needs of a backend.
#[derive(Debug, Clone, Copy, Default)]
#[repr(align(32))]
pub(super) struct BackendSlot {
    pub address: Address,
    pub port: u16,
    pub takes_new_flows: bool,
}

/// What translation needs of a local address.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct LipSlot {
    pub address: Address,
    pub present: bool,
}

/// Timeouts in ticks.
#[derive(Debug, Clone, Copy)]
pub(super) struct TimeoutTicks {
    pub syn: u32,
    pub established: u32,
    pub closing: u32,
    pub udp: u32,
}

impl From<Timeouts> for TimeoutTicks {
    fn from(timeouts: Timeouts) -> Self {
        Self {
            syn: ticks_of_ms(timeouts.syn_ms),
            established: ticks_of_ms(timeouts.established_ms),
            closing: ticks_of_ms(timeouts.closing_ms),
            udp: ticks_of_ms(timeouts.udp_ms),
        }
    }
}

/// What only new flows and timers need of a service.
#[derive(Debug)]
pub(super) struct ServiceCold {
    /// What the rest was compiled from.
    pub spec: ServiceSpec,
    pub timeouts: TimeoutTicks,
    pub schedule: Schedule,
    /// Address and port (network order) of each backend, in this order.
    pub backends: Box<[(Address, u16, BackendId)]>,
}

/// What a build had to compile anew; the rest is shared with the tables before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Anew {
    pub services: u32,
    /// Of these services, Maglev tables.
    pub maglev_tables: u32,
    /// Routes, next hops and neighbours.
    pub fib: bool,
}

/// Whose address a destination is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Local {
    /// `live`: some service of it is not removed.
    Vip {
        live: bool,
    },
    Lip(LipId),
}

/// Everything that forwarding depends on besides its own flows. See [`TablesSpec`].
#[derive(Debug)]
pub struct Tables {
    pub(super) epoch: u64,
    pub(super) routing: u32,
    pub(super) some_vip: Option<IpAddr>,
    pub(super) services: Vec<ServiceSlot>,
    pub(super) services_cold: Vec<Option<Arc<ServiceCold>>>,
    pub(super) backends: Vec<BackendSlot>,
    pub(super) lips: Vec<LipSlot>,
    pub(super) lips_v4: Vec<LipId>,
    pub(super) lips_v6: Vec<LipId>,
    /// MAC of each port as the low 48 bits of the first 8 bytes of a frame, read little-endian.
    pub(super) port_macs: Vec<Option<u64>>,
    pub(super) locals: Map<Local>,
    pub(super) exact: Map<ServiceId>,
    pub(super) fib: Arc<Fib>,
    pub(super) anew: Anew,
}

impl Tables {
    /// Of the spec these were built from.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// What of them is not shared with the tables before.
    pub fn anew(&self) -> Anew {
        self.anew
    }

    /// A VIP in service, if there is one: the worker's synthetic packet is sent to it.
    pub fn some_vip(&self) -> Option<IpAddr> {
        self.some_vip
    }

    /// The port's own address.
    pub fn mac(&self, port: PortId) -> Option<Mac> {
        let [a, b, c, d, e, f, ..] = self.port_mac(port)?.to_le_bytes();
        Some(Mac([a, b, c, d, e, f]))
    }

    /// Changes whenever routes, next hops, neighbours or ports do.
    #[inline(always)]
    pub(super) fn routing(&self) -> u32 {
        self.routing
    }

    /// Slots never used give a zero address, which no packet of a flow has.
    #[inline(always)]
    pub(super) fn service(&self, id: ServiceId) -> Option<&ServiceSlot> {
        self.services.get(id.0 as usize)
    }

    #[inline(always)]
    pub(super) fn backend(&self, id: BackendId) -> Option<&BackendSlot> {
        self.backends.get(id.0 as usize)
    }

    #[inline(always)]
    pub(super) fn lip(&self, id: LipId) -> Option<&LipSlot> {
        self.lips.get(usize::from(id.0))
    }

    #[inline(always)]
    pub(super) fn adjacency(&self, number: u32) -> Option<&Adjacency> {
        self.fib.adjacency(number)
    }

    /// By number.
    #[inline(always)]
    pub(super) fn adjacencies(&self) -> &[Adjacency] {
        self.fib.adjacencies()
    }

    #[inline(always)]
    pub(super) fn port_mac(&self, port: PortId) -> Option<u64> {
        *self.port_macs.get(usize::from(port.0))?
    }

    pub(super) fn resolve(&self, destination: IpAddr, hash: u32) -> Hop {
        self.fib.resolve(destination, hash)
    }

    /// The port that packets to this destination leave by (one of them, if there are several).
    pub(super) fn way(&self, destination: IpAddr) -> Option<PortId> {
        match self.fib.resolve(destination, 0) {
            Hop::Adjacency(number) => Some(self.fib.adjacency(number)?.port),
            Hop::Wait(next_hop) => Some(self.fib.neighbour(next_hop, destination)?.0),
            Hop::NoRoute => None,
        }
    }

    pub(super) fn neighbour(
        &self,
        next_hop: NextHopId,
        destination: IpAddr,
    ) -> Option<(PortId, IpAddr)> {
        self.fib.neighbour(next_hop, destination)
    }

    pub(super) fn local(&self, address: Address, v6: bool) -> Option<Local> {
        self.locals.get(address, u32::from(v6))
    }

    /// The service that takes new flows to this VIP, port (network order) and protocol.
    pub(super) fn find_service(
        &self,
        vip: Address,
        v6: bool,
        protocol: Protocol,
        port: u16,
    ) -> Option<ServiceId> {
        self.exact.get(vip, tail(v6, protocol, port))
    }

    pub(super) fn schedule(&self, id: ServiceId) -> Option<&Schedule> {
        Some(&self.cold(id)?.schedule)
    }

    /// The backend of a service with this address and port (network order), whether or not it takes
    /// new flows.
    pub(super) fn find_backend(
        &self,
        service: ServiceId,
        address: Address,
        port: u16,
    ) -> Option<BackendId> {
        let backends = &self.cold(service)?.backends;
        let at = backends.binary_search_by_key(&(address, port), |&(a, p, _)| (a, p)).ok()?;
        Some(backends[at].2)
    }

    /// Of the service, or the defaults if its slot is empty.
    pub(super) fn timeouts(&self, id: ServiceId) -> TimeoutTicks {
        self.cold(id).map_or_else(|| Timeouts::default().into(), |cold| cold.timeouts)
    }

    /// Local addresses of a family, in order of slot.
    pub(super) fn lips_of(&self, v6: bool) -> &[LipId] {
        if v6 { &self.lips_v6 } else { &self.lips_v4 }
    }

    pub(super) fn backend_slots(&self) -> usize {
        self.backends.len()
    }

    pub(super) fn service_slots(&self) -> usize {
        self.services.len()
    }

    pub(super) fn cold(&self, id: ServiceId) -> Option<&Arc<ServiceCold>> {
        self.services_cold.get(id.0 as usize)?.as_ref()
    }
}

/// Family, protocol and port in one number.
pub(super) fn tail(v6: bool, protocol: Protocol, port: u16) -> u32 {
    u32::from(v6) << 31 | u32::from(protocol as u8) << 16 | u32::from(port)
}

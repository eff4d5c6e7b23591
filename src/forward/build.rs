//! [`Tables`]: what workers read, compiled from a [`TablesSpec`]. Immutable; shared by `Arc`.
//!
//! Refuses what cannot be right, with the slot that is wrong. Reuses what did not change: Maglev
//! tables and the FIB of the previous tables.

use super::fib::{Adjacency, Fib, Hop, Source};
use super::foreign::MAX_OWN_LIP;
use super::map::Map;
use super::schedule::{Schedule, takes_new_flows};
use super::tables::{
    BackendId, BackendSpec, LipId, Mac, NextHopId, PortId, Protocol, ServiceId, ServiceSpec,
    TablesSpec, Timeouts,
};
use super::time::ticks_of_ms;
use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

/// Most slots of services and of backends, each.
pub const MAX_SLOTS: u32 = 1 << 20;
/// Most backends of one service.
pub const MAX_BACKENDS_OF_SERVICE: usize = 10_000;
/// Most ports.
pub const MAX_PORTS: u16 = 1024;

/// Why tables were refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    #[error("{0} {1} appears twice")]
    Duplicate(&'static str, u32),
    #[error("{0} {1} is named but not described")]
    Unknown(&'static str, u32),
    #[error("{0} {1}: the number is too large")]
    SlotTooLarge(&'static str, u32),
    #[error("too many {0}")]
    TooMany(&'static str),
    #[error("service {service}: backend {backend} is not of the VIP's address family")]
    MixedFamilies { service: u32, backend: u32 },
    #[error("service {service}: {what}")]
    Service { service: u32, what: &'static str },
    #[error("{0} is both a VIP and a local address, or a local address twice")]
    AddressConflict(IpAddr),
}

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
struct ServiceCold {
    timeouts: TimeoutTicks,
    schedule: Schedule,
    /// Address and port (network order) of each backend, in this order.
    backends: Box<[(Address, u16, BackendId)]>,
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
    epoch: u64,
    routing: u32,
    some_vip: Option<IpAddr>,
    services: Vec<ServiceSlot>,
    services_cold: Vec<Option<ServiceCold>>,
    backends: Vec<BackendSlot>,
    lips: Vec<LipSlot>,
    lips_v4: Vec<LipId>,
    lips_v6: Vec<LipId>,
    /// MAC of each port as the low 48 bits of the first 8 bytes of a frame, read little-endian.
    port_macs: Vec<Option<u64>>,
    locals: Map<Local>,
    exact: Map<ServiceId>,
    fib: Arc<Fib>,
}

impl Tables {
    /// Compile `spec`. What did not change is shared with `previous`.
    pub fn build(spec: &TablesSpec, previous: Option<&Tables>) -> Result<Tables, BuildError> {
        let mut tables = Tables {
            epoch: spec.epoch,
            routing: spec.epoch as u32,
            some_vip: spec.services.iter().find(|s| !s.removed).map(|s| s.vip),
            services: Vec::new(),
            services_cold: Vec::new(),
            backends: Vec::new(),
            lips: Vec::new(),
            lips_v4: Vec::new(),
            lips_v6: Vec::new(),
            port_macs: Vec::new(),
            locals: Map::with_capacity(spec.services.len() + spec.lips.len()),
            exact: Map::with_capacity(spec.services.len()),
            fib: Arc::default(),
        };
        tables.add_ports(spec)?;
        let mut backends = HashSet::new();
        for service in &spec.services {
            tables.add_service(service, previous, &mut backends)?;
        }
        tables.add_lips(spec)?;
        tables.add_routing(spec, previous)?;
        Ok(tables)
    }

    /// Of the spec these were built from.
    pub fn epoch(&self) -> u64 {
        self.epoch
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

    fn cold(&self, id: ServiceId) -> Option<&ServiceCold> {
        self.services_cold.get(id.0 as usize)?.as_ref()
    }

    fn add_ports(&mut self, spec: &TablesSpec) -> Result<(), BuildError> {
        for port in &spec.ports {
            if port.id.0 >= MAX_PORTS {
                return Err(BuildError::SlotTooLarge("port", port.id.0.into()));
            }
            let mut mac = [0; 8];
            mac[..6].copy_from_slice(&port.mac.0);
            let mac = u64::from_le_bytes(mac);
            let slot = slot(&mut self.port_macs, usize::from(port.id.0));
            if slot.replace(mac).is_some() {
                return Err(BuildError::Duplicate("port", port.id.0.into()));
            }
        }
        Ok(())
    }

    fn add_service(
        &mut self,
        spec: &ServiceSpec,
        previous: Option<&Tables>,
        seen: &mut HashSet<BackendId>,
    ) -> Result<(), BuildError> {
        let service = spec.id.0;
        if service >= MAX_SLOTS {
            return Err(BuildError::SlotTooLarge("service", service));
        }
        check_service(spec)?;
        let (vip, v6) = (Address::of(spec.vip), spec.vip.is_ipv6());
        for backend in &spec.backends {
            self.add_backend(spec, backend, seen)?;
        }
        let schedule = Schedule::build(spec, previous.and_then(|tables| tables.schedule(spec.id)));
        let cold = ServiceCold {
            timeouts: spec.timeouts.into(),
            schedule,
            backends: endpoints(&spec.backends),
        };
        if slot(&mut self.services_cold, service as usize).replace(cold).is_some() {
            return Err(BuildError::Duplicate("service", service));
        }
        let port = u16::from_ne_bytes(spec.port.to_be_bytes());
        *slot(&mut self.services, service as usize) = ServiceSlot { vip, port };
        let live =
            !spec.removed || self.locals.get(vip, u32::from(v6)) == Some(Local::Vip { live: true });
        self.locals.insert(vip, u32::from(v6), Local::Vip { live });
        if !spec.removed {
            let key = tail(v6, spec.protocol, port);
            if self.exact.get(vip, key).is_some() {
                return Err(BuildError::Service {
                    service,
                    what: "another service has the same VIP, protocol and port",
                });
            }
            self.exact.insert(vip, key, spec.id);
        }
        Ok(())
    }

    fn add_backend(
        &mut self,
        service: &ServiceSpec,
        spec: &BackendSpec,
        seen: &mut HashSet<BackendId>,
    ) -> Result<(), BuildError> {
        if spec.id.0 >= MAX_SLOTS {
            return Err(BuildError::SlotTooLarge("backend", spec.id.0));
        }
        if !seen.insert(spec.id) {
            return Err(BuildError::Duplicate("backend", spec.id.0));
        }
        if spec.address.is_ipv6() != service.vip.is_ipv6() {
            return Err(BuildError::MixedFamilies { service: service.id.0, backend: spec.id.0 });
        }
        *slot(&mut self.backends, spec.id.0 as usize) = BackendSlot {
            address: Address::of(spec.address),
            port: u16::from_ne_bytes(spec.port.to_be_bytes()),
            takes_new_flows: takes_new_flows(spec) && !service.removed,
        };
        Ok(())
    }

    fn add_lips(&mut self, spec: &TablesSpec) -> Result<(), BuildError> {
        for lip in &spec.lips {
            let (address, v6) = (Address::of(lip.address), lip.address.is_ipv6());
            if !is_host(lip.address) || self.locals.get(address, u32::from(v6)).is_some() {
                return Err(BuildError::AddressConflict(lip.address));
            }
            if lip.id.0 >= MAX_OWN_LIP {
                return Err(BuildError::SlotTooLarge("local address", lip.id.0.into()));
            }
            let slot = slot(&mut self.lips, usize::from(lip.id.0));
            if slot.present {
                return Err(BuildError::Duplicate("local address", lip.id.0.into()));
            }
            *slot = LipSlot { address, present: true };
            self.locals.insert(address, u32::from(v6), Local::Lip(lip.id));
            if v6 {
                self.lips_v6.push(lip.id);
            } else {
                self.lips_v4.push(lip.id);
            }
        }
        self.lips_v4.sort_unstable();
        self.lips_v6.sort_unstable();
        Ok(())
    }

    fn add_routing(
        &mut self,
        spec: &TablesSpec,
        previous: Option<&Tables>,
    ) -> Result<(), BuildError> {
        if let Some(previous) = previous {
            let old = previous.fib.source();
            if old.ports == spec.ports
                && old.neighbours == spec.neighbours
                && old.next_hops == spec.next_hops
                && old.routes == spec.routes
            {
                self.fib = Arc::clone(&previous.fib);
                self.routing = previous.routing;
                return Ok(());
            }
        }
        self.fib = Arc::new(Fib::build(Source {
            ports: spec.ports.clone(),
            routes: spec.routes.clone(),
            next_hops: spec.next_hops.clone(),
            neighbours: spec.neighbours.clone(),
        })?);
        Ok(())
    }
}

/// Sorted; of several with the same address and port (all but one removed), the one in use.
fn endpoints(backends: &[BackendSpec]) -> Box<[(Address, u16, BackendId)]> {
    let endpoint = |backend: &BackendSpec| {
        (Address::of(backend.address), u16::from_ne_bytes(backend.port.to_be_bytes()))
    };
    let mut sorted: Vec<&BackendSpec> = backends.iter().collect();
    sorted.sort_by_key(|backend| (endpoint(backend), !takes_new_flows(backend)));
    sorted.dedup_by_key(|backend| endpoint(backend));
    let found = sorted.into_iter().map(|backend| {
        let (address, port) = endpoint(backend);
        (address, port, backend.id)
    });
    found.collect()
}

fn check_service(spec: &ServiceSpec) -> Result<(), BuildError> {
    let service = spec.id.0;
    let wrong = |what| Err(BuildError::Service { service, what });
    if !is_host(spec.vip) {
        return wrong("the VIP is not a unicast address");
    }
    if spec.port == 0 {
        return wrong("port 0");
    }
    if spec.backends.len() > MAX_BACKENDS_OF_SERVICE {
        return wrong("more than 10000 backends");
    }
    let mut addresses = HashSet::with_capacity(spec.backends.len());
    for backend in &spec.backends {
        if !is_host(backend.address) || backend.port == 0 {
            return wrong("a backend is not a unicast address and a port");
        }
        if backend.weight > 1000 {
            return wrong("a backend's weight is above 1000");
        }
        let takes = takes_new_flows(backend) && !spec.removed;
        if takes && !addresses.insert(SocketAddr::new(backend.address, backend.port)) {
            return wrong("two backends that take flows have the same address and port");
        }
    }
    Ok(())
}

/// Whether a packet may come from, or be for, one host with this address.
pub(super) fn is_host(address: IpAddr) -> bool {
    let special = match address {
        IpAddr::V4(v4) => v4.is_broadcast() || v4.octets()[0] >= 240 || v4.octets()[0] == 0,
        IpAddr::V6(_) => false,
    };
    !(special || address.is_unspecified() || address.is_multicast() || address.is_loopback())
}

/// Family, protocol and port in one number.
fn tail(v6: bool, protocol: Protocol, port: u16) -> u32 {
    u32::from(v6) << 31 | u32::from(protocol as u8) << 16 | u32::from(port)
}

/// The element at `at`, after making the vector long enough.
fn slot<T: Default>(slots: &mut Vec<T>, at: usize) -> &mut T {
    if slots.len() <= at {
        slots.resize_with(at + 1, T::default);
    }
    &mut slots[at]
}

//! Compiles [`Tables`] from a [`TablesSpec`].
//!
//! Refuses what cannot be right, with the slot that is wrong. Reuses what did not change: the compiled
//! services, Maglev tables and the FIB of the previous tables.

use super::fib::{Fib, Source};
use super::foreign::MAX_OWN_LIP;
use super::map::Map;
use super::schedule::{Schedule, takes_new_flows};
use super::tables::{BackendId, BackendSpec, ServiceSpec, TablesSpec};
use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::compiled::tail;
pub(super) use super::compiled::{
    Address, BackendSlot, LipSlot, Local, ServiceCold, ServiceSlot, TimeoutTicks,
};
pub use super::compiled::{Anew, Tables};

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
            anew: Anew::default(),
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
        let cold = self.compiled(spec, previous)?;
        let (vip, v6) = (Address::of(spec.vip), spec.vip.is_ipv6());
        for backend in &spec.backends {
            self.add_backend(spec, backend, seen)?;
        }
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

    /// As it was before, if nothing about it has changed: then it was right, too.
    fn compiled(
        &mut self,
        spec: &ServiceSpec,
        previous: Option<&Tables>,
    ) -> Result<Arc<ServiceCold>, BuildError> {
        let before = previous.and_then(|tables| tables.cold(spec.id));
        if let Some(same) = before.filter(|cold| cold.spec == *spec) {
            return Ok(Arc::clone(same));
        }
        check_service(spec)?;
        let before = before.map(|cold| &cold.schedule);
        let schedule = Schedule::build(spec, before);
        self.anew.services += 1;
        self.anew.maglev_tables += u32::from(schedule.has_new_table(before));
        Ok(Arc::new(ServiceCold {
            spec: spec.clone(),
            timeouts: spec.timeouts.into(),
            schedule,
            backends: endpoints(&spec.backends),
        }))
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
        self.anew.fib = true;
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

/// The element at `at`, after making the vector long enough.
fn slot<T: Default>(slots: &mut Vec<T>, at: usize) -> &mut T {
    if slots.len() <= at {
        slots.resize_with(at + 1, T::default);
    }
    &mut slots[at]
}

#[cfg(test)]
mod tests;

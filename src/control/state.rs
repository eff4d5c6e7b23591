//! The node's state: what is configured, what is observed, and what follows from both.
//!
//! One owner applies [`Event`]s and then asks for what follows: [`State::tables_spec`] for the
//! workers and [`State::decisions`] for the routers. Nothing here does input or output or reads a
//! clock, so every rule can be tested by events alone.

use super::announce::{self, Decision, Drain, NodeView, Path, ServiceView, VipView};
use super::kernel::KernelView;
use super::lips::Lips;
use super::slots::Slots;
use crate::config::model::{self, Config};
use crate::forward::tables::{
    BackendId, BackendSpec, LipSpec, PortId, PortSpec, Protocol, ServiceId, ServiceSpec,
};
use crate::health::{HealthEvent, Target};
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// Most service slots (VIP × protocol × port).
pub const MAX_SERVICES: u32 = 16_384;
/// Most backend slots (backends summed over services).
pub const MAX_BACKENDS: u32 = 65_536;

/// What clients ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceKey {
    pub vip: IpAddr,
    pub protocol: Protocol,
    pub port: u16,
}

type BackendKey = (ServiceKey, SocketAddr);

/// Something that happened.
#[derive(Debug, Clone)]
pub enum Event {
    Config(Arc<Config>),
    Health(HealthEvent),
    Kernel(KernelView),
    /// A worker took the tables of this epoch.
    WorkerEpoch {
        worker: u16,
        epoch: u64,
    },
    WorkerStalled {
        worker: u16,
        stalled: bool,
    },
    /// Link of a port, as its device reports it.
    Link {
        port: u16,
        up: bool,
    },
    DrainNode(Drain),
    DrainService {
        name: String,
        drain: Drain,
    },
    DrainBackend {
        address: SocketAddr,
        drain: bool,
    },
}

/// A backend behind one service.
#[derive(Debug, Clone)]
pub struct BackendState {
    pub id: BackendId,
    pub address: SocketAddr,
    pub weight: u32,
    pub target: Option<Target>,
    /// Epoch of the first tables without it; set when it left the configuration.
    pub removed: Option<u64>,
}

/// A service: one VIP, protocol and port.
#[derive(Debug, Clone)]
pub struct ServiceState {
    pub id: ServiceId,
    pub key: ServiceKey,
    /// What was configured. Of a removed service, what was last.
    pub config: Arc<model::Service>,
    pub backends: Vec<BackendState>,
    /// Epoch of the first tables that hold it; 0 until they are built.
    pub since_epoch: u64,
    /// A next hop toward a usable backend has resolved since a port that leads there came up.
    pub path_proven: bool,
    pub removed: Option<u64>,
}

/// What a worker last said of itself.
#[derive(Debug, Clone, Copy, Default)]
pub struct WorkerView {
    pub epoch: u64,
    pub stalled: bool,
}

/// The one state.
#[derive(Debug)]
pub struct State {
    pub(super) config: Arc<Config>,
    pub(crate) ports: Vec<PortSpec>,
    pub(super) kernel: KernelView,
    pub(crate) services: BTreeMap<ServiceKey, ServiceState>,
    pub(super) health: HashMap<Target, Health>,
    /// What should be probed now.
    pub(super) targets: HashSet<Target>,
    pub(crate) workers: Vec<WorkerView>,
    pub(super) drain: Drain,
    pub(super) drained_services: BTreeMap<String, Drain>,
    pub(super) drained_backends: BTreeSet<SocketAddr>,
    /// Epoch of the tables published last.
    pub(super) epoch: u64,
    service_slots: Slots<ServiceKey>,
    backend_slots: Slots<BackendKey>,
    pub(crate) lips: Lips,
}

/// Last known health of a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    pub healthy: bool,
    pub reason: String,
}

impl State {
    /// `ports`: as the devices described themselves, in the order of the configuration.
    pub fn new(config: Arc<Config>, ports: Vec<PortSpec>, workers: u16) -> Self {
        let mut state = Self {
            config: Arc::clone(&config),
            ports,
            kernel: KernelView::default(),
            services: BTreeMap::new(),
            health: HashMap::new(),
            targets: HashSet::new(),
            workers: vec![WorkerView::default(); usize::from(workers)],
            drain: Drain::No,
            drained_services: BTreeMap::new(),
            drained_backends: BTreeSet::new(),
            epoch: 0,
            service_slots: Slots::new(MAX_SERVICES),
            backend_slots: Slots::new(MAX_BACKENDS),
            lips: Lips::new(workers),
        };
        state.apply(Event::Config(config));
        state
    }

    /// The configuration in force.
    pub fn config(&self) -> &Arc<Config> {
        &self.config
    }

    /// Epoch of the tables published last.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Take note of what happened. What follows is asked for separately, so that a batch of events
    /// costs one rebuild.
    pub fn apply(&mut self, event: Event) {
        match event {
            Event::Config(config) => self.configure(config),
            Event::Health(HealthEvent { target, healthy, reason }) => {
                // A result may arrive after its target left the configuration.
                if self.targets.contains(&target) {
                    self.health.insert(target, Health { healthy, reason });
                }
            }
            Event::Kernel(view) => self.kernel = view,
            Event::WorkerEpoch { worker, epoch } => {
                if let Some(view) = self.workers.get_mut(usize::from(worker)) {
                    view.epoch = view.epoch.max(epoch);
                }
            }
            Event::WorkerStalled { worker, stalled } => {
                if let Some(view) = self.workers.get_mut(usize::from(worker)) {
                    view.stalled = stalled;
                }
            }
            Event::Link { port, up } => {
                if let Some(spec) = self.ports.get_mut(usize::from(port)) {
                    spec.up = up;
                }
            }
            Event::DrainNode(drain) => self.drain = drain,
            Event::DrainService { name, drain: Drain::No } => {
                self.drained_services.remove(&name);
            }
            Event::DrainService { name, drain } => {
                self.drained_services.insert(name, drain);
            }
            Event::DrainBackend { address, drain: true } => {
                self.drained_backends.insert(address);
            }
            Event::DrainBackend { address, drain: false } => {
                self.drained_backends.remove(&address);
            }
        }
    }

    /// Services as the packet path needs them, in slot order of their keys.
    pub(super) fn service_specs(&self) -> Vec<ServiceSpec> {
        self.services.values().map(|service| self.service_spec(service)).collect()
    }

    /// Local addresses with their numbers.
    pub(super) fn lip_specs(&mut self) -> Vec<LipSpec> {
        self.lips.number(&self.config.local_addresses)
    }

    /// The decision about every VIP and local prefix.
    pub fn decisions(&self) -> BTreeMap<IpNet, Decision> {
        let node = NodeView {
            drain: self.drain,
            oldest_epoch: self.workers.iter().map(|w| w.epoch).min().unwrap_or(0),
            stalled_workers: (0u16..)
                .zip(&self.workers)
                .filter_map(|(worker, view)| view.stalled.then_some(worker))
                .collect(),
            attributes: self.config.announce.defaults.clone(),
            ospf_v4: self.config.ospf.is_some(),
            ospf_v6: self.config.ospf3.is_some(),
        };
        announce::decide(&node, &self.vip_views(), &self.config.local_prefixes)
    }

    /// What should be probed now.
    pub fn targets(&self) -> &HashSet<Target> {
        &self.targets
    }

    /// Neighbours that traffic needs: gateways, and backends on our own links.
    pub fn neighbours_in_use(&self) -> BTreeSet<(PortId, IpAddr)> {
        let mut used: BTreeSet<_> = self.kernel.gateways().collect();
        for service in self.services.values() {
            for backend in &service.backends {
                used.extend(self.kernel.neighbours_toward(backend.address.ip()));
            }
        }
        used
    }

    /// Let go of removed services and backends that no flow names any more. `active` counts a
    /// backend's flows over all workers. Returns whether anything went.
    pub fn reap(&mut self, active: impl Fn(BackendId) -> u64) -> bool {
        let oldest = self.workers.iter().map(|w| w.epoch).min().unwrap_or(0);
        let gone =
            |removed: Option<u64>| removed.is_some_and(|epoch| epoch != 0 && epoch <= oldest);
        let mut any = false;
        for service in self.services.values_mut() {
            let key = service.key;
            let slots = &mut self.backend_slots;
            service.backends.retain(|backend| {
                let keep = !(gone(backend.removed) && active(backend.id) == 0);
                if !keep {
                    slots.release(&(key, backend.address));
                    any = true;
                }
                keep
            });
        }
        let slots = &mut self.service_slots;
        self.services.retain(|key, service| {
            let keep = !(gone(service.removed) && service.backends.is_empty());
            if !keep {
                slots.release(key);
                any = true;
            }
            keep
        });
        any
    }

    /// Note that tables of `epoch`, built from the state as it is now, are being published.
    pub(super) fn published(&mut self, epoch: u64) {
        self.epoch = epoch;
        for service in self.services.values_mut() {
            if service.removed.is_none() && service.since_epoch == 0 {
                service.since_epoch = epoch;
            }
            if service.removed == Some(0) {
                service.removed = Some(epoch);
            }
            for backend in &mut service.backends {
                if backend.removed == Some(0) {
                    backend.removed = Some(epoch);
                }
            }
        }
    }

    /// The backend takes new flows.
    pub(super) fn usable(&self, backend: &BackendState) -> bool {
        backend.removed.is_none()
            && backend.weight > 0
            && !self.drained_backends.contains(&backend.address)
            && backend
                .target
                .as_ref()
                .is_none_or(|target| self.health.get(target).is_some_and(|h| h.healthy))
    }

    fn configure(&mut self, config: Arc<Config>) {
        let mut wanted: BTreeMap<ServiceKey, Arc<model::Service>> = BTreeMap::new();
        for service in &config.services {
            let shared = Arc::new(service.clone());
            for &vip in &service.vips {
                for &port in &service.ports {
                    let key = ServiceKey { vip, protocol: service.protocol, port };
                    wanted.insert(key, Arc::clone(&shared));
                }
            }
        }
        for (key, service) in &mut self.services {
            if !wanted.contains_key(key) && service.removed.is_none() {
                service.removed = Some(0);
                service.since_epoch = 0;
                service.path_proven = false;
                for backend in &mut service.backends {
                    backend.removed.get_or_insert(0);
                }
            }
        }
        for (key, service) in wanted {
            self.configure_service(key, service);
        }
        let names: HashSet<&str> = config.services.iter().map(|s| s.name.as_str()).collect();
        self.drained_services.retain(|name, _| names.contains(name.as_str()));
        self.config = config;
        self.targets = self
            .services
            .values()
            .flat_map(|service| &service.backends)
            .filter(|backend| backend.removed.is_none())
            .filter_map(|backend| backend.target.clone())
            .collect();
        let targets = &self.targets;
        self.health.retain(|target, _| targets.contains(target));
    }

    fn configure_service(&mut self, key: ServiceKey, config: Arc<model::Service>) {
        let Some(slot) = self.service_slots.take(&key) else {
            tracing::error!(vip = %key.vip, port = key.port, "no service slot left; service ignored");
            return;
        };
        let service = self.services.entry(key).or_insert_with(|| ServiceState {
            id: ServiceId(slot),
            key,
            config: Arc::clone(&config),
            backends: Vec::new(),
            since_epoch: 0,
            path_proven: false,
            removed: None,
        });
        service.removed = None;
        service.config = Arc::clone(&config);
        let mut before = std::mem::take(&mut service.backends);
        for backend in config.backends.iter().filter(|b| b.address.is_ipv4() == key.vip.is_ipv4()) {
            let address = SocketAddr::new(backend.address, backend.port.unwrap_or(key.port));
            let Some(slot) = self.backend_slots.take(&(key, address)) else {
                tracing::error!(%address, "no backend slot left; backend ignored");
                continue;
            };
            let target = config.check.as_ref().map(|check| Target {
                address,
                check: check.clone(),
                source: None,
            });
            before.retain(|old| old.address != address);
            service.backends.push(BackendState {
                id: BackendId(slot),
                address,
                weight: backend.weight,
                target,
                removed: None,
            });
        }
        for mut gone in before {
            gone.removed.get_or_insert(0);
            service.backends.push(gone);
        }
    }

    fn service_spec(&self, service: &ServiceState) -> ServiceSpec {
        ServiceSpec {
            id: service.id,
            vip: service.key.vip,
            protocol: service.key.protocol,
            port: service.key.port,
            scheduler: service.config.scheduler,
            timeouts: service.config.timeouts,
            removed: service.removed.is_some(),
            backends: service
                .backends
                .iter()
                .map(|backend| BackendSpec {
                    id: backend.id,
                    address: backend.address.ip(),
                    port: backend.address.port(),
                    weight: backend.weight,
                    usable: self.usable(backend),
                })
                .collect(),
        }
    }

    fn vip_views(&self) -> Vec<VipView> {
        let mut vips: BTreeMap<IpNet, VipView> = BTreeMap::new();
        for service in self.services.values().filter(|s| s.removed.is_none()) {
            let prefix = IpNet::from(service.key.vip);
            let view = vips.entry(prefix).or_insert_with(|| VipView {
                prefix,
                has_local_address: self
                    .config
                    .local_addresses
                    .iter()
                    .any(|lip| lip.is_ipv4() == service.key.vip.is_ipv4()),
                attributes: model::Attributes::default(),
                services: Vec::new(),
            });
            view.attributes = view.attributes.or(&service.config.announce);
            view.services.push(self.service_view(service));
        }
        vips.into_values().collect()
    }

    fn service_view(&self, service: &ServiceState) -> ServiceView {
        let configured = service.backends.iter().filter(|b| b.removed.is_none());
        let path = match self.best_path(service) {
            // Without a check, neighbour discovery is the only one there is.
            Some(Path::Unresolved) if service.path_proven && service.config.check.is_some() => {
                Path::Proven
            }
            path => path.unwrap_or(Path::Down),
        };
        ServiceView {
            name: service.config.name.clone(),
            on_no_backend: service.config.on_no_backend,
            min_healthy: service.config.min_healthy,
            backends: configured.clone().count() as u32,
            usable: configured.filter(|b| self.usable(b)).count() as u32,
            path,
            since_epoch: service.since_epoch,
            drain: self.drained_services.get(&service.config.name).copied().unwrap_or_default(),
        }
    }
}

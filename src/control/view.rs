//! The state as the API tells it: pure functions from the owner's state and the workers' counters.

use super::announce::{Decision, Drain, GRACEFUL_SHUTDOWN};
use super::owner::{DrainScope, Owner};
use super::state::{BackendState, ServiceState};
use crate::api::model::{
    AnnounceInfo, BackendInfo, BackendState as BackendWord, DrainInfo, DrainPhase, DropInfo,
    FlowMemoryInfo, FlowMemoryKind, Health, HealthState, IdleKind, ServiceInfo, Traffic, VipStatus,
    WorkerInfo,
};
use crate::config::model::OnNoBackend;
use crate::config::{show_bit_rate, show_extended_community};
use crate::forward::{DropReason, Usage, WorkerStats};
use crate::health::{Target, TargetStatus};
use crate::worker::{FlowMemory, Place, Rest, Shared};
use ipnet::IpNet;
use routing::OspfKind;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

/// The workers, as readers see them.
pub type Workers = [Arc<Shared>];

/// What the checker knows of each target.
pub type Checks = HashMap<Target, TargetStatus>;

/// One entry per service, VIP and port.
pub fn services(owner: &Owner, workers: &Workers) -> Vec<ServiceInfo> {
    let state = owner.state();
    state
        .services
        .values()
        .filter(|service| service.removed.is_none())
        .map(|service| {
            let configured = || service.backends.iter().filter(|b| b.removed.is_none());
            let name = &service.config.name;
            ServiceInfo {
                name: name.clone(),
                vip: service.key.vip,
                protocol: service.key.protocol,
                port: service.key.port,
                scheduler: service.config.scheduler,
                backends_healthy: configured().filter(|b| state.usable(b)).count() as u64,
                backends_total: configured().count() as u64,
                min_healthy: service.config.min_healthy,
                keep_announced: service.config.on_no_backend == OnNoBackend::Keep,
                announced: owner
                    .decisions()
                    .get(&IpNet::from(service.key.vip))
                    .is_some_and(|decision| decision.announcement.is_some()),
                draining: owner.drains().contains_key(&DrainScope::Node)
                    || owner.drains().contains_key(&DrainScope::Service(name.clone())),
                traffic: traffic(workers, |stats| stats.service(service.id)),
            }
        })
        .collect()
}

/// One entry per service and backend; removed ones while flows are left on them.
pub fn backends(
    owner: &Owner,
    workers: &Workers,
    checks: &Checks,
    now: Instant,
) -> Vec<BackendInfo> {
    let mut infos: Vec<BackendInfo> = Vec::new();
    for service in owner.state().services.values() {
        for backend in &service.backends {
            infos.push(backend_info(owner, service, backend, workers, checks, now));
        }
    }
    infos
}

fn backend_info(
    owner: &Owner,
    service: &ServiceState,
    backend: &BackendState,
    workers: &Workers,
    checks: &Checks,
    now: Instant,
) -> BackendInfo {
    let check = backend.target.as_ref().and_then(|target| checks.get(target));
    let health = backend.target.as_ref().and_then(|target| owner.state().health.get(target));
    let (state, age, reason) = if backend.removed.is_some() {
        (BackendWord::Removed, None, "no longer configured; flows are left".to_owned())
    } else if let Some(drain) = owner.drains().get(&DrainScope::Backend(backend.address)) {
        let age = now.saturating_duration_since(drain.since);
        (BackendWord::Draining, Some(age), drain.reason.clone())
    } else if backend.target.is_none() {
        (BackendWord::Healthy, None, "not checked".to_owned())
    } else {
        let word = match health {
            None => BackendWord::Unknown,
            Some(health) if health.healthy => BackendWord::Healthy,
            Some(_) => BackendWord::Unhealthy,
        };
        let reason = health.map(|h| h.reason.clone()).unwrap_or_default();
        (word, check.map(|c| c.since.elapsed().unwrap_or_default()), reason)
    };
    BackendInfo {
        service: service.config.name.clone(),
        address: backend.address,
        weight: backend.weight,
        state,
        state_age_s: age.map_or(0, |age| age.as_secs()),
        reason,
        check_latency_us: check.and_then(|c| c.latency).map(|l| l.as_micros() as u64),
        traffic: traffic(workers, |stats| stats.backend(backend.id)),
    }
}

/// Every prefix that is or could be announced. Which peers it went to is the speaker's to add.
pub fn announce(owner: &Owner) -> Vec<AnnounceInfo> {
    let mut services = services_by_prefix(owner);
    owner
        .decisions()
        .iter()
        .map(|(prefix, decision)| AnnounceInfo {
            prefix: *prefix,
            services: services.remove(prefix).unwrap_or_default(),
            wanted: decision.announcement.is_some(),
            reasons: decision.reasons.iter().map(ToString::to_string).collect(),
            attributes: attributes(decision),
            peers: Vec::new(),
        })
        .collect()
}

/// Names of the services on each VIP. In one pass: there may be ten thousand of both.
fn services_by_prefix(owner: &Owner) -> HashMap<IpNet, Vec<String>> {
    let mut names: HashMap<IpNet, Vec<String>> = HashMap::new();
    for service in owner.state().services.values().filter(|s| s.removed.is_none()) {
        let on_vip = names.entry(service.key.vip.into()).or_default();
        // Services of one VIP follow each other, and so do the ports of one of them.
        if on_vip.last() != Some(&service.config.name) {
            on_vip.push(service.config.name.clone());
        }
    }
    names
}

fn attributes(decision: &Decision) -> Vec<String> {
    let Some(announcement) = &decision.announcement else { return Vec::new() };
    let bgp = &announcement.bgp;
    let mut words: Vec<String> = Vec::new();
    words.extend(bgp.communities.iter().map(|community| match *community {
        GRACEFUL_SHUTDOWN => "community GRACEFUL_SHUTDOWN (65535:0)".to_owned(),
        (asn, value) => format!("community {asn}:{value}"),
    }));
    words.extend(bgp.large_communities.iter().map(|(a, b, c)| format!("large {a}:{b}:{c}")));
    words.extend(
        bgp.extended_communities
            .iter()
            .map(|octets| format!("extended {}", show_extended_community(*octets))),
    );
    // Bytes again become bits, as configured.
    words.extend(bgp.link_bandwidth.map(|bytes| {
        format!("link-bandwidth {}", show_bit_rate((f64::from(bytes.get()) * 8.0) as u64))
    }));
    words.extend(bgp.med.map(|med| format!("med {med}")));
    words.extend(bgp.local_preference.map(|preference| format!("local-preference {preference}")));
    words.extend((bgp.prepend > 0).then(|| format!("prepend {}", bgp.prepend)));
    words.extend(bgp.next_hop.map(|next_hop| format!("next-hop {next_hop}")));
    words.extend(announcement.ospf.as_ref().map(|ospf| {
        let kind = match ospf.kind {
            OspfKind::Stub => "stub",
            OspfKind::External1 => "external-1",
            OspfKind::External2 => "external-2",
        };
        format!("ospf {kind} cost {}", ospf.cost)
    }));
    words
}

/// Whether each prefix is announced, and the first reason why not.
pub fn vips(owner: &Owner) -> Vec<VipStatus> {
    owner
        .decisions()
        .iter()
        .map(|(prefix, decision)| {
            let announced = decision.announcement.is_some();
            let first = decision.reasons.first().filter(|_| !announced);
            VipStatus {
                prefix: *prefix,
                announced,
                reason: first.map(ToString::to_string).unwrap_or_default(),
            }
        })
        .collect()
}

/// The workers. `busy` is each one's share of busy time over the last second, 0..=100.
pub fn workers(owner: &Owner, workers: &Workers, now_ns: u64, busy: &[f64]) -> Vec<WorkerInfo> {
    let config = owner.state().config();
    (0u16..)
        .zip(workers)
        .map(|(id, worker)| {
            let stats = &worker.stats;
            let view = owner.state().workers.get(usize::from(id)).copied().unwrap_or_default();
            let beat = worker.beat_ns.load(Ordering::Acquire);
            let place = worker.place.get();
            let (rest, idle_reason) = worker.rest();
            let per_backend = stats.local_ports_v4.get() + stats.local_ports_v6.get();
            WorkerInfo {
                id,
                core: worker.core,
                numa_node: place.and_then(|place| place.node),
                flow_memory: place.map(flow_memory),
                idle: Some(match rest {
                    Rest::Spins => IdleKind::Spin,
                    Rest::Sleeps => IdleKind::Sleep,
                    Rest::WakesUp => IdleKind::Interrupt,
                }),
                idle_reason,
                hint: place.and_then(Place::hint).unwrap_or_default(),
                beat_age_ms: now_ns.saturating_sub(beat) / 1_000_000,
                stalled: view.stalled,
                epoch: worker.epoch.load(Ordering::Acquire),
                busy_percent: busy.get(usize::from(id)).copied().unwrap_or(0.0),
                flows: stats.flows.get(),
                max_flows: u64::from(config.dataplane.max_flows),
                local_ports_used: per_backend * stats.local_ports_fullest_permille.get() / 1000,
                local_ports_total: per_backend,
                rx_packets: stats.received.packets.get() + stats.from_kernel.packets.get(),
                tx_packets: stats.transmitted.packets.get(),
                kernel_packets: stats.to_kernel.packets.get(),
                handover_packets: stats.handed_over.packets.get(),
                misdirected_packets: stats.misdirected.get(),
                too_big_answers: stats.too_big_answers.get(),
                fragment_packets: stats.fragments.get(),
                forgotten_datagrams: stats.datagrams_evicted.get(),
                dropped_packets: stats.dropped(),
            }
        })
        .collect()
}

fn flow_memory(place: &Place) -> FlowMemoryInfo {
    let (kind, numa_node, reason) = match &place.flows {
        FlowMemory::Hugepages { node } => (FlowMemoryKind::Hugepages, *node, String::new()),
        FlowMemory::Ordinary { why } => (FlowMemoryKind::Ordinary, None, why.clone()),
    };
    FlowMemoryInfo { kind, numa_node, reason }
}

/// Every reason, counted or not.
pub fn drops(workers: &Workers) -> Vec<DropInfo> {
    DropReason::ALL
        .iter()
        .map(|&reason| {
            let per_worker: Vec<u64> = workers.iter().map(|w| w.stats.drops(reason)).collect();
            DropInfo {
                reason: reason.name().to_owned(),
                description: reason.describe().trim().to_owned(),
                count: per_worker.iter().sum(),
                per_worker,
            }
        })
        .collect()
}

/// A drain of the node under way or done.
pub fn drain(owner: &Owner, workers: &Workers, now: Instant) -> Option<DrainInfo> {
    let drain = owner.drains().get(&DrainScope::Node)?;
    Some(DrainInfo {
        age_s: now.saturating_duration_since(drain.since).as_secs(),
        phase: match drain.phase {
            Drain::Withdrawn => DrainPhase::Withdrawn,
            Drain::No | Drain::Lowered => DrainPhase::Lowered,
        },
        reason: drain.reason.clone(),
        flows_left: own_flows(workers),
    })
}

/// Flows on this node.
pub fn flows(workers: &Workers) -> u64 {
    workers.iter().map(|w| w.stats.flows.get()).sum()
}

/// Flows that need this node: those that it only carries on for another node left out.
pub fn own_flows(workers: &Workers) -> u64 {
    let adopted: u64 = workers.iter().map(|w| w.stats.sharing.adopted.get()).sum();
    flows(workers).saturating_sub(adopted)
}

/// The node in one word; `others`: reasons from outside the owner's state (sessions, reload).
pub fn health(owner: &Owner, mut others: Vec<String>) -> Health {
    let mut reasons = Vec::new();
    for (id, worker) in owner.state().workers.iter().enumerate() {
        if worker.stalled {
            reasons.push(format!("worker {id} is stalled"));
        }
    }
    for vip in vips(owner).into_iter().filter(|vip| !vip.announced) {
        reasons.push(format!("{} is not announced: {}", vip.prefix, vip.reason));
    }
    reasons.append(&mut others);
    for (service, addresses) in unhealthy(owner) {
        reasons.push(format!("service {service}: unhealthy: {}", addresses.join(", ")));
    }
    let state = if owner.drains().contains_key(&DrainScope::Node) {
        HealthState::Draining
    } else if reasons.is_empty() {
        HealthState::Ok
    } else {
        HealthState::Degraded
    };
    Health { state, reasons }
}

fn unhealthy(owner: &Owner) -> Vec<(String, Vec<String>)> {
    let state = owner.state();
    let sick = |backend: &&BackendState| {
        backend.removed.is_none()
            && backend
                .target
                .as_ref()
                .is_some_and(|target| state.health.get(target).is_none_or(|h| !h.healthy))
    };
    let mut found: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for service in state.services.values().filter(|s| s.removed.is_none()) {
        for backend in service.backends.iter().filter(sick) {
            found.entry(&service.config.name).or_default().insert(backend.address.to_string());
        }
    }
    found
        .into_iter()
        .map(|(name, addresses)| (name.to_owned(), addresses.into_iter().collect()))
        .collect()
}

/// Backends that a selector of the API may mean.
pub fn backend_addresses(owner: &Owner) -> Vec<SocketAddr> {
    let mut addresses: Vec<SocketAddr> = owner
        .state()
        .services
        .values()
        .flat_map(|service| &service.backends)
        .filter(|backend| backend.removed.is_none())
        .map(|backend| backend.address)
        .collect();
    addresses.sort();
    addresses.dedup();
    addresses
}

fn traffic<'a>(
    workers: &'a Workers,
    usage: impl Fn(&'a WorkerStats) -> Option<&'a Usage>,
) -> Traffic {
    let mut sum = Traffic::default();
    for usage in workers.iter().filter_map(|worker| usage(&worker.stats)) {
        sum.connections_active += usage.active.get();
        sum.connections_total += usage.total.get();
        sum.packets_in += usage.requests().packets.get();
        sum.packets_out += usage.replies().packets.get();
        sum.bytes_in += usage.requests().bytes.get();
        sum.bytes_out += usage.replies().bytes.get();
    }
    sum
}

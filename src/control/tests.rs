//! The state by events alone: what the workers get and what the routers hear.

use super::announce::Drain;
use super::kernel::{Hop, KernelView};
use super::state::{Event, State};
use crate::config::model::{
    Announce, Attributes, Backend, BfdProfile, Config, Dataplane, Node, OnNoBackend, PollMode,
    Service,
};
use crate::forward::tables::{
    BackendId, Mac, PortId, PortSpec, Protocol, Scheduler, TablesSpec, Timeouts,
};
use crate::health::{CheckSpec, HealthEvent, Probe, Target};
use ipnet::IpNet;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

const VIP: &str = "192.0.2.10/32";

fn check() -> CheckSpec {
    CheckSpec {
        probe: Probe::Tcp,
        interval: Duration::from_secs(1),
        timeout: Duration::from_millis(500),
        rise: 1,
        fall: 1,
        port: None,
    }
}

fn service(backends: &[&str]) -> Service {
    Service {
        name: "web".into(),
        vips: vec!["192.0.2.10".parse().unwrap()],
        protocol: Protocol::Tcp,
        ports: vec![80],
        scheduler: Scheduler::Maglev,
        timeouts: Timeouts::default(),
        on_no_backend: OnNoBackend::Withdraw,
        min_healthy: 1,
        check: Some(check()),
        announce: Attributes::default(),
        backends: backends
            .iter()
            .map(|a| Backend { address: a.parse().unwrap(), port: None, weight: 1 })
            .collect(),
    }
}

fn config(services: Vec<Service>) -> Arc<Config> {
    Arc::new(Config {
        cluster: None,
        node: Node {
            name: "n1".into(),
            router_id: "10.1.1.2".parse().unwrap(),
            api_socket: "/run/dunlin/api.sock".into(),
        },
        dataplane: Dataplane {
            workers: vec![0, 1],
            poll: PollMode::Adaptive,
            max_sleep: Duration::from_micros(200),
            max_flows: 1024,
            memory_mib: 64,
            hugepages: false,
            file_prefix: "t".into(),
            mbufs: Some(1024),
            steering: crate::forward::steering::Wish::default(),
            stall_after: Duration::from_millis(500),
        },
        ports: vec![],
        routes: vec![],
        local_addresses: vec!["10.9.1.1".parse().unwrap()],
        local_prefixes: vec!["10.9.1.0/29".parse().unwrap()],
        management: None,
        announce: Announce { drain_wait: Duration::from_secs(5), defaults: Attributes::default() },
        ospf: None,
        ospf3: None,
        bgp: None,
        bfd: BfdProfile {
            min_tx: Duration::from_millis(300),
            min_rx: Duration::from_millis(300),
            multiplier: 3,
        },
        services,
    })
}

fn kernel() -> KernelView {
    let gateway = "10.1.1.1".parse().unwrap();
    KernelView {
        up: vec![PortId(0)],
        routes: BTreeMap::from([(
            "0.0.0.0/0".parse().unwrap(),
            vec![Hop { port: PortId(0), gateway: Some(gateway), weight: 1 }],
        )]),
        neighbours: BTreeMap::from([((PortId(0), gateway), Mac([2; 6]))]),
    }
}

/// A node and the tables it published last.
struct Bench {
    state: State,
    spec: TablesSpec,
}

impl Bench {
    fn new(services: Vec<Service>) -> Self {
        let port = PortSpec {
            id: PortId(0),
            mac: Mac([2, 0, 0, 0, 0, 1]),
            mtu: 1500,
            up: true,
            tx_ipv4_checksum: false,
            tx_l4_checksum: false,
        };
        let state = State::new(config(services), vec![port], 2);
        let mut bench = Self { state, spec: TablesSpec::default() };
        bench.apply(Event::Kernel(kernel()));
        bench
    }

    /// Apply, publish what follows, let both workers take it.
    fn apply(&mut self, event: Event) {
        self.apply_without_ack(event);
        for worker in 0..2 {
            self.state.apply(Event::WorkerEpoch { worker, epoch: self.spec.epoch });
        }
    }

    fn apply_without_ack(&mut self, event: Event) {
        self.state.apply(event);
        self.state.prove_paths();
        if let Some(next) = self.state.next_tables(&self.spec) {
            self.spec = next;
        }
    }

    fn health(&mut self, backend: &str, healthy: bool) {
        let address = format!("{backend}:80").parse().unwrap();
        let target = Target { address, check: check(), source: None };
        self.apply(Event::Health(HealthEvent { target, healthy, reason: "test".into() }));
    }

    fn announced(&self) -> bool {
        let prefix: IpNet = VIP.parse().unwrap();
        self.state.decisions().get(&prefix).is_some_and(|d| d.announcement.is_some())
    }

    fn usable(&self) -> usize {
        self.spec.services.iter().flat_map(|s| &s.backends).filter(|b| b.usable).count()
    }
}

#[test]
fn announced_only_while_a_backend_is_known_healthy() {
    let mut bench = Bench::new(vec![service(&["10.2.0.11", "10.2.0.12"])]);
    assert!(!bench.announced(), "health not known yet");
    bench.health("10.2.0.11", true);
    assert!(bench.announced());
    assert!(!bench.state.is_settled(), "the other may be healthy too");
    assert_eq!(bench.usable(), 1);
    bench.health("10.2.0.12", true);
    bench.health("10.2.0.11", false);
    assert!(bench.announced(), "the other still serves");
    assert!(bench.state.is_settled());
    bench.health("10.2.0.12", false);
    assert!(!bench.announced());
    bench.health("10.2.0.12", true);
    assert!(bench.announced());
}

#[test]
fn announced_only_after_every_worker_took_the_tables() {
    let mut bench = Bench::new(vec![]);
    bench.apply_without_ack(Event::Config(config(vec![service(&["10.2.0.11"])])));
    let target = bench.state.targets().iter().next().unwrap().clone();
    bench.apply_without_ack(Event::Health(HealthEvent {
        target,
        healthy: true,
        reason: String::new(),
    }));
    assert!(!bench.announced());
    let epoch = bench.spec.epoch;
    bench.state.apply(Event::WorkerEpoch { worker: 0, epoch });
    assert!(!bench.announced(), "worker 1 still uses old tables");
    assert!(!bench.state.is_settled());
    bench.state.apply(Event::WorkerEpoch { worker: 1, epoch });
    assert!(bench.announced());
}

#[test]
fn withdrawn_on_stall_and_on_link_down_but_not_on_a_forgotten_neighbour() {
    let mut bench = Bench::new(vec![service(&["10.2.0.11"])]);
    bench.health("10.2.0.11", true);
    assert!(bench.announced());
    bench.apply(Event::WorkerStalled { worker: 1, stalled: true });
    assert!(!bench.announced());
    bench.apply(Event::WorkerStalled { worker: 1, stalled: false });
    assert!(bench.announced());
    let flushed = || Event::Kernel(KernelView { neighbours: BTreeMap::new(), ..kernel() });
    bench.apply(flushed());
    assert!(bench.announced(), "the gateway will resolve again, or the checks will fail");
    bench.health("10.2.0.11", false);
    assert!(!bench.announced(), "the checks decide");
    bench.health("10.2.0.11", true);
    assert!(bench.announced());
    bench.apply(Event::Kernel(KernelView { up: vec![], ..kernel() }));
    assert!(!bench.announced(), "the control interface is down");
    bench.apply(flushed());
    assert!(!bench.announced(), "up again, but nothing has answered on it yet");
    bench.apply(Event::Kernel(kernel()));
    assert!(bench.announced());
    bench.apply(Event::Kernel(KernelView { routes: BTreeMap::new(), ..kernel() }));
    assert!(!bench.announced(), "no route");
    bench.apply(Event::Kernel(kernel()));
    bench.apply(Event::Link { port: 0, up: false });
    assert!(!bench.spec.ports[0].up);
    assert!(!bench.announced(), "the cable is out");
}

#[test]
fn without_a_check_a_next_hop_that_stops_resolving_is_believed() {
    let unchecked = Service { check: None, ..service(&["10.2.0.11"]) };
    let mut bench = Bench::new(vec![unchecked]);
    assert!(bench.announced());
    bench.apply(Event::Kernel(KernelView { neighbours: BTreeMap::new(), ..kernel() }));
    assert!(!bench.announced());
}

#[test]
fn an_unresolved_next_hop_holds_back_the_first_announcement_of_each_service() {
    let mut bench = Bench::new(vec![service(&["10.2.0.11"])]);
    bench.apply(Event::Kernel(KernelView { neighbours: BTreeMap::new(), ..kernel() }));
    bench.health("10.2.0.11", true);
    assert!(!bench.announced());
    bench.apply(Event::Kernel(kernel()));
    assert!(bench.announced());
    bench.apply(Event::Config(config(vec![])));
    bench.apply(Event::Kernel(KernelView { neighbours: BTreeMap::new(), ..kernel() }));
    bench.apply(Event::Config(config(vec![service(&["10.2.0.11"])])));
    bench.health("10.2.0.11", true);
    assert!(!bench.announced(), "it returns as a new one");
}

#[test]
fn the_same_state_publishes_no_new_tables() {
    let mut bench = Bench::new(vec![service(&["10.2.0.11"])]);
    bench.health("10.2.0.11", true);
    let epoch = bench.spec.epoch;
    bench.health("10.2.0.11", true);
    bench.apply(Event::Kernel(kernel()));
    assert_eq!(bench.spec.epoch, epoch);
}

#[test]
fn a_removed_backend_keeps_its_slot_until_its_flows_end() {
    let mut bench = Bench::new(vec![service(&["10.2.0.11", "10.2.0.12"])]);
    bench.health("10.2.0.11", true);
    bench.health("10.2.0.12", true);
    let id = bench.spec.services[0].backends[1].id;
    bench.apply(Event::Config(config(vec![service(&["10.2.0.11"])])));
    assert_eq!(bench.spec.services[0].backends.len(), 2, "still named by flows");
    assert_eq!(bench.usable(), 1);
    assert!(!bench.state.reap(|backend| u64::from(backend == id)), "a flow is left");
    assert!(bench.state.reap(|_| 0));
    bench.apply(Event::Link { port: 0, up: true });
    assert_eq!(bench.spec.services[0].backends.len(), 1);
}

#[test]
fn a_removed_service_goes_only_after_the_workers_know() {
    let mut bench = Bench::new(vec![service(&["10.2.0.11"])]);
    bench.health("10.2.0.11", true);
    bench.apply_without_ack(Event::Config(config(vec![])));
    assert!(!bench.state.reap(|_| 0), "a worker may still make flows to it");
    assert!(bench.spec.services[0].removed);
    assert!(!bench.announced());
    let epoch = bench.spec.epoch;
    for worker in 0..2 {
        bench.state.apply(Event::WorkerEpoch { worker, epoch });
    }
    assert!(bench.state.reap(|_| 0));
    bench.apply(Event::Link { port: 0, up: true });
    assert!(bench.spec.services.is_empty());
}

#[test]
fn a_service_that_returns_keeps_its_slots() {
    let mut bench = Bench::new(vec![service(&["10.2.0.11"])]);
    bench.health("10.2.0.11", true);
    let (service_id, backend_id): (_, BackendId) =
        (bench.spec.services[0].id, bench.spec.services[0].backends[0].id);
    bench.apply(Event::Config(config(vec![])));
    bench.apply(Event::Config(config(vec![service(&["10.2.0.11"])])));
    let back = &bench.spec.services[0];
    assert_eq!((back.id, back.backends[0].id), (service_id, backend_id));
    assert!(!back.removed);
    assert!(!bench.announced(), "its health is not known again yet");
    bench.health("10.2.0.11", true);
    assert!(bench.announced());
}

#[test]
fn drains() {
    let mut bench = Bench::new(vec![service(&["10.2.0.11"])]);
    bench.health("10.2.0.11", true);
    bench.apply(Event::DrainNode(Drain::Lowered));
    assert!(bench.announced());
    assert_eq!(bench.usable(), 1, "still serves");
    bench.apply(Event::DrainNode(Drain::Withdrawn));
    assert!(!bench.announced());
    bench.apply(Event::DrainNode(Drain::No));
    assert!(bench.announced());
    bench.apply(Event::DrainService { name: "web".into(), drain: Drain::Withdrawn });
    assert!(!bench.announced());
    bench.apply(Event::DrainService { name: "web".into(), drain: Drain::No });
    let address = "10.2.0.11:80".parse().unwrap();
    bench.apply(Event::DrainBackend { address, drain: true });
    assert_eq!(bench.usable(), 0);
    assert!(!bench.announced());
}

#[test]
fn health_of_a_target_that_left_is_forgotten() {
    let mut bench = Bench::new(vec![service(&["10.2.0.11"])]);
    bench.apply(Event::Config(config(vec![])));
    bench.health("10.2.0.11", true);
    bench.apply(Event::Config(config(vec![service(&["10.2.0.11"])])));
    assert!(!bench.announced(), "an old result must not count");
}

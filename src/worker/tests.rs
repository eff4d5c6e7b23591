//! The real loop over ports made of memory: what comes out where, and that no frame is lost
//! unaccounted.

mod control;
mod nic;
mod rest;

use super::*;
use crate::forward::tables::{
    BackendId, BackendSpec, LipId, LipSpec, Mac, NeighbourSpec, NextHopId, NextHopSpec, PortSpec,
    Protocol, RouteSpec, Scheduler, ServiceId, ServiceSpec, TablesSpec, Timeouts,
};
use crate::forward::{EngineConfig, Steering};
use crate::packet::build::{self, Link};
use crate::port::memory::{MemoryFrame, MemoryQueue, pair};
use std::net::{IpAddr, SocketAddr};
use std::sync::mpsc::{SyncSender, sync_channel};
use tokio::sync::mpsc;

const NODE: [u8; 6] = [2, 0, 0, 0, 0, 1];
const ROUTER: [u8; 6] = [2, 0, 0, 0, 0, 9];
const INBOUND: Link = Link { source: ROUTER, destination: NODE };
const SYN: u8 = 0x02;
const SYN_ACK: u8 = 0x12;

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn spec(epoch: u64, workers: u16, resolved: bool) -> TablesSpec {
    let port = PortId(0);
    let gateway: IpAddr = "10.1.1.1".parse().unwrap();
    TablesSpec {
        epoch,
        workers,
        ports: vec![PortSpec {
            id: port,
            mac: Mac(NODE),
            mtu: 1500,
            up: true,
            tx_ipv4_checksum: false,
            tx_l4_checksum: false,
        }],
        services: vec![ServiceSpec {
            id: ServiceId(0),
            vip: "192.0.2.10".parse().unwrap(),
            protocol: Protocol::Tcp,
            port: 80,
            scheduler: Scheduler::Maglev,
            timeouts: Timeouts::default(),
            backends: (0..3)
                .map(|n| BackendSpec {
                    id: BackendId(n),
                    address: IpAddr::from([10, 2, 0, 11 + n as u8]),
                    port: 80,
                    weight: 1,
                    usable: true,
                })
                .collect(),
            removed: false,
        }],
        lips: vec![LipSpec { id: LipId(0), address: "10.9.1.1".parse().unwrap() }],
        routes: vec![RouteSpec {
            prefix: "0.0.0.0/0".parse().unwrap(),
            next_hops: vec![(NextHopId(0), 1)],
        }],
        next_hops: vec![NextHopSpec { id: NextHopId(0), port, gateway: Some(gateway) }],
        neighbours: if resolved {
            vec![NeighbourSpec { port, address: gateway, mac: Mac(ROUTER) }]
        } else {
            Vec::new()
        },
    }
}

/// Workers that share one port, and the far ends of its wires.
struct Bench {
    workers: Vec<Worker<MemoryQueue>>,
    wires: Vec<MemoryQueue>,
    kernel: MemoryQueue,
    published: Arc<Published>,
    commands: Vec<SyncSender<Command>>,
    wanted: mpsc::Receiver<Neighbour>,
    now: Now,
}

impl Bench {
    /// `queues`: of the port; the workers beyond transmit through others.
    fn new(workers: u16, queues: u16, spec: &TablesSpec) -> Self {
        Self::steered(workers, queues, spec, &Steering::default())
    }

    /// Every port of the spec has so many queues. Their wires follow one another, port by port.
    fn steered(workers: u16, queues: u16, spec: &TablesSpec, steering: &Steering) -> Self {
        let tables = Arc::new(Tables::build(spec, None).unwrap());
        let published = Arc::new(Published::new(tables));
        let (kernel, control) = pair(256);
        let mut control = Some(control);
        let ends = || (0..queues).map(|_| pair(256)).unzip();
        let (far, near): (Vec<Vec<_>>, Vec<Vec<_>>) = spec.ports.iter().map(|_| ends()).unzip();
        let (wanted_neighbours, wanted) = mpsc::channel(64);
        let (mut all, mut senders) = (Vec::new(), Vec::new());
        for (id, rings) in (0..workers).zip(Rings::mesh(workers)) {
            let stats = Arc::new(WorkerStats::new(16, 16));
            let ports = near.iter().enumerate().map(|(index, wires)| PortQueues {
                wire: wires.get(usize::from(id)).cloned(),
                wire_deputy: WorkerId(id % queues),
                control: control.take_if(|_| id == 0 && index == 0),
                control_owner: WorkerId(0),
            });
            let ports = ports.collect();
            let (sender, commands) = sync_channel(4);
            senders.push(sender);
            all.push(Worker::new(WorkerParts {
                id: WorkerId(id),
                engine: Engine::new(
                    EngineConfig {
                        worker: WorkerId(id),
                        workers,
                        max_flows: 1024,
                        seed: 7,
                        steering: steering.clone(),
                    },
                    Arc::clone(&stats),
                ),
                ports,
                rings,
                published: Arc::clone(&published),
                shared: Arc::new(Shared::new(id, stats)),
                commands,
                wanted_neighbours: wanted_neighbours.clone(),
                sharing: None,
                poll: PollMode::Latency,
                max_sleep: Duration::ZERO,
            }));
        }
        let now = Now(1_000_000_000);
        let wires = far.into_iter().flatten().collect();
        Self { workers: all, wires, kernel, published, commands: senders, wanted, now }
    }

    fn publish(&self, spec: &TablesSpec) {
        let tables = Tables::build(spec, Some(&self.published.load())).unwrap();
        self.published.publish(Arc::new(tables));
    }

    /// Enough turns of all workers for a frame to cross them twice. Accounts after every turn.
    fn settle(&mut self) {
        for _ in 0..4 {
            for worker in &mut self.workers {
                worker.turn(self.now);
                assert_accounts(&worker.shared.stats);
            }
        }
    }

    /// Everything that was transmitted.
    fn sent(&self) -> Vec<Vec<u8>> {
        self.wires.iter().flat_map(|wire| std::iter::from_fn(|| wire.receive())).collect()
    }

    fn sum(&self, number: impl Fn(&WorkerStats) -> u64) -> u64 {
        self.workers.iter().map(|worker| number(&worker.shared.stats)).sum()
    }
}

/// Every frame is somewhere.
fn assert_accounts(stats: &WorkerStats) {
    let taken = stats.received.packets.get()
        + stats.received_by_handover.packets.get()
        + stats.from_kernel.packets.get();
    let given = stats.transmitted.packets.get()
        + stats.to_kernel.packets.get()
        + stats.handed_over.packets.get()
        + stats.dropped()
        + stats.parked.get();
    assert_eq!(taken, given, "received, and accounted for");
}

/// Source and destination of an untagged IPv4 TCP frame without options.
fn tuple(frame: &[u8]) -> (SocketAddr, SocketAddr) {
    let ip = |at: usize| IpAddr::from(<[u8; 4]>::try_from(&frame[at..at + 4]).unwrap());
    let port = |at: usize| u16::from_be_bytes([frame[at], frame[at + 1]]);
    (SocketAddr::new(ip(26), port(34)), SocketAddr::new(ip(30), port(36)))
}

fn client(n: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::from([198, 51, 100, (n % 250) as u8 + 1]), 10_000 + n)
}

const VIP: &str = "192.0.2.10:80";

/// Requests arrive on whichever queue the kernel of a veth chose, replies on another; each reaches
/// its owner, and the client hears from the VIP.
#[test]
fn connections_cross_workers_in_both_directions() {
    for (workers, queues) in [(1, 1), (2, 2), (3, 3), (3, 1), (4, 2)] {
        let mut bench = Bench::new(workers, queues, &spec(1, workers, true));
        let count = 60;
        for n in 0..count {
            let queue = usize::from(n % queues);
            assert!(bench.wires[queue].send(build::tcp(
                INBOUND,
                client(n),
                address(VIP),
                SYN,
                b""
            )));
        }
        bench.settle();
        let requests = bench.sent();
        assert_eq!(requests.len(), usize::from(count), "{workers} workers, {queues} queues");
        for (n, request) in requests.iter().enumerate() {
            assert!(build::checksums_good(request));
            let (lip, backend) = tuple(request);
            assert_eq!(lip.ip(), "10.9.1.1".parse::<IpAddr>().unwrap());
            let queue = (n * 7 + 1) % usize::from(queues);
            assert!(bench.wires[queue].send(build::tcp(INBOUND, backend, lip, SYN_ACK, b"")));
        }
        bench.settle();
        let mut clients: Vec<SocketAddr> = bench
            .sent()
            .iter()
            .map(|reply| {
                assert!(build::checksums_good(reply));
                let (source, destination) = tuple(reply);
                assert_eq!(source, address(VIP));
                destination
            })
            .collect();
        clients.sort();
        clients.dedup();
        assert_eq!(clients.len(), usize::from(count), "every client, once");
        assert_eq!(bench.sum(|s| s.flows.get()), u64::from(count), "no flow on two workers");
        assert_eq!(bench.sum(WorkerStats::dropped), 0);
        let crossed = bench.sum(|s| s.handed_over.packets.get());
        assert_eq!(crossed > 0, workers > 1, "{workers} workers: {crossed} handed over");
    }
}

#[test]
fn no_local_port_is_given_twice() {
    let mut bench = Bench::new(3, 3, &spec(1, 3, true));
    let mut seen = std::collections::HashSet::new();
    for n in 0..200 {
        bench.wires[usize::from(n % 3)].send(build::tcp(
            INBOUND,
            client(n),
            address(VIP),
            SYN,
            b"",
        ));
        bench.settle();
        for request in bench.sent() {
            assert!(seen.insert(tuple(&request)), "LIP:port toward a backend given twice");
        }
    }
    assert_eq!(seen.len(), 200);
}

#[test]
fn the_kernel_gets_what_is_its_own_and_speaks_for_itself() {
    let mut bench = Bench::new(2, 2, &spec(1, 2, true));
    let mut arp = vec![0xff; 6];
    arp.extend(ROUTER);
    arp.extend([0x08, 0x06]);
    arp.resize(60, 0);
    // Worker 1 has no control interface: it hands over to worker 0.
    bench.wires[1].send(arp.clone());
    bench.settle();
    assert_eq!(bench.kernel.receive(), Some(arp.clone()));
    bench.kernel.send(arp.clone());
    bench.settle();
    assert_eq!(bench.wires[0].receive(), Some(arp));
    assert_eq!(bench.sum(|s| s.from_kernel.packets.get()), 1);
}

#[test]
fn a_frame_waits_for_its_neighbour_and_then_leaves() {
    let mut bench = Bench::new(1, 1, &spec(1, 1, false));
    bench.wires[0].send(build::tcp(INBOUND, client(1), address(VIP), SYN, b""));
    bench.settle();
    assert!(bench.sent().is_empty());
    assert_eq!(bench.sum(|s| s.parked.get()), 1);
    let wanted = bench.wanted.try_recv().unwrap();
    assert_eq!(wanted, (PortId(0), "10.1.1.1".parse().unwrap()));
    bench.publish(&spec(2, 1, true));
    bench.settle();
    assert_eq!(bench.sent().len(), 1);
    assert_eq!(bench.sum(|s| s.parked.get()), 0);
    assert_eq!(bench.workers[0].shared.epoch.load(Ordering::Acquire), 2, "acknowledged");
}

#[test]
fn patience_with_a_silent_neighbour_ends() {
    let mut bench = Bench::new(1, 1, &spec(1, 1, false));
    for n in 0..20 {
        bench.wires[0].send(build::tcp(INBOUND, client(n), address(VIP), SYN, b""));
    }
    bench.settle();
    assert_eq!(bench.sum(|s| s.parked.get()), parked::PER_NEIGHBOUR as u64);
    bench.now = Now(bench.now.0 + parked::PATIENCE_NS);
    bench.settle();
    assert_eq!(bench.sum(|s| s.parked.get()), 0);
    assert_eq!(bench.sum(|s| s.drops(DropReason::Unresolved)), 20);
}

#[test]
fn a_full_wire_is_a_counted_drop() {
    let mut bench = Bench::new(1, 1, &spec(1, 1, true));
    // 256 fit the wire; nobody takes them from its far end.
    for n in 0..300 {
        bench.wires[0].send(build::tcp(INBOUND, client(n), address(VIP), SYN, b""));
        bench.settle();
    }
    assert_eq!(bench.sum(|s| s.transmitted.packets.get()), 256);
    assert_eq!(bench.sum(|s| s.drops(DropReason::TxFull)), 44);
}

#[test]
fn the_synthetic_packet_comes_back() {
    let mut bench = Bench::new(1, 1, &spec(1, 1, true));
    let shared = Arc::clone(&bench.workers[0].shared);
    shared.probe_asked.store(5, Ordering::Release);
    bench.settle();
    assert_eq!(shared.probe_answered.load(Ordering::Acquire), 5);
    let mut without_vip = spec(2, 1, true);
    without_vip.services.clear();
    bench.publish(&without_vip);
    shared.probe_asked.store(6, Ordering::Release);
    bench.settle();
    assert_eq!(shared.probe_answered.load(Ordering::Acquire), 6);
    let mut without_port = spec(3, 1, true);
    without_port.ports.clear();
    without_port.routes.clear();
    without_port.next_hops.clear();
    without_port.neighbours.clear();
    bench.publish(&without_port);
    shared.probe_asked.store(7, Ordering::Release);
    bench.settle();
    assert_eq!(shared.probe_answered.load(Ordering::Acquire), 6, "broken tables are noticed");
}

#[test]
fn flows_are_listed_between_bursts() {
    let mut bench = Bench::new(1, 1, &spec(1, 1, true));
    for n in 0..10 {
        bench.wires[0].send(build::tcp(INBOUND, client(n), address(VIP), SYN, b""));
    }
    bench.settle();
    let (reply, mut answer) = tokio::sync::oneshot::channel();
    let filter = Box::new(|flow: &FlowView| flow.client.port() >= 10_004);
    bench.commands[0].send(Command::Flows { filter, limit: 4, reply }).unwrap();
    let page = (0..100)
        .find_map(|_| {
            bench.settle();
            answer.try_recv().ok()
        })
        .expect("an answer");
    assert_eq!((page.flows.len(), page.matched), (4, 6));
}

/// Whole bursts to one port, bursts of which some frames go elsewhere, and single frames: each
/// flow's frames leave in the order in which they came.
#[test]
fn bursts_and_single_frames_leave_in_order() {
    let mut bench = Bench::new(1, 1, &spec(1, 1, true));
    let mut arp = vec![0xff; 6];
    arp.extend(ROUTER);
    arp.extend([0x08, 0x06]);
    arp.resize(60, 0);
    let mut expected = Vec::new();
    let mut to_kernel = 0;
    // Sizes around the one from which bursts are sent at once; odd rounds have an ARP inside.
    for (round, size) in [1, 7, 8, 9, 40, 3, 64, 8, 20].into_iter().enumerate() {
        for n in 0..size {
            if round % 2 == 1 && n == size / 2 {
                assert!(bench.wires[0].send(arp.clone()));
                to_kernel += 1;
                continue;
            }
            let text = format!("{round}/{n}");
            let flags = if expected.len() < 10 { SYN } else { 0x10 };
            let client = client((expected.len() % 10) as u16);
            let frame = build::tcp(INBOUND, client, address(VIP), flags, text.as_bytes());
            assert!(bench.wires[0].send(frame));
            expected.push(text);
        }
        bench.settle();
    }
    let sent: Vec<String> = bench
        .sent()
        .iter()
        .map(|frame| String::from_utf8_lossy(&frame[54..]).trim_end_matches('\0').to_owned())
        .collect();
    assert_eq!(sent, expected);
    assert_eq!(bench.sum(|s| s.to_kernel.packets.get()), to_kernel);
    assert_eq!(bench.sum(WorkerStats::dropped), 0);
}

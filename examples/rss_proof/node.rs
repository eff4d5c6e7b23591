//! The node of the proof: the node's own workers and tables, turned by one thread.

use crate::wire::{MARK, Observed, Wire, lock};
use anyhow::{Context, Result};
use dunlin::config::model::PollMode;
use dunlin::forward::steering::{Steering, owner_of_lip};
use dunlin::forward::tables::{
    BackendId, BackendSpec, LipId, LipSpec, Mac, NeighbourSpec, NextHopId, NextHopSpec, PortId,
    PortSpec, Protocol, RouteSpec, Scheduler, ServiceId, ServiceSpec, TablesSpec, Timeouts,
    WorkerId,
};
use dunlin::forward::{Engine, EngineConfig, Now, Tables, WorkerStats};
use dunlin::packet::build::{self, Link};
use dunlin::port::dpdk::{DpdkPort, Mbuf, Mempool};
use dunlin::worker::{
    Command, Neighbour, PortQueues, Published, Rings, Shared, Worker, WorkerParts,
};
use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Who turns packets around; nobody is asked for this address.
const GATEWAY: Mac = Mac([2, 0, 0, 0, 0, 0xfe]);
const CLIENTS: Link = Link { source: [2, 0, 0, 0, 0, 0xc1], destination: [2, 0, 0, 0, 0, 0xc0] };
const BACKENDS: u32 = 16;
const SERVICE_PORT: u16 = 80;
const SYN: u8 = 2;

pub struct Node {
    workers: Vec<Worker<Wire>>,
    stats: Vec<Arc<WorkerStats>>,
    requests: Vec<Arc<Mutex<VecDeque<Mbuf>>>>,
    pool: Mempool,
    /// Kept, as is the next: a worker must not find them closed.
    commands: Vec<SyncSender<Command>>,
    _wanted: tokio::sync::mpsc::Receiver<Neighbour>,
}

impl Node {
    pub fn new(
        ports: &[DpdkPort],
        workers: u16,
        flows: u32,
        steering: Steering,
        pool: &Mempool,
        seen: &Arc<Mutex<Observed>>,
    ) -> Result<Self> {
        let tables = Arc::new(Tables::build(&spec(ports, workers), None)?);
        let published = Arc::new(Published::new(tables));
        let (wanted_neighbours, wanted) = tokio::sync::mpsc::channel(64);
        let mut node = Self {
            workers: Vec::new(),
            stats: Vec::new(),
            requests: Vec::new(),
            pool: pool.clone(),
            commands: Vec::new(),
            _wanted: wanted,
        };
        for (id, rings) in (0..workers).zip(Rings::mesh(workers)) {
            let stats = Arc::new(WorkerStats::new(4, 4 * BACKENDS as usize));
            let requests = Arc::new(Mutex::new(VecDeque::new()));
            let (commands_sender, commands) = std::sync::mpsc::sync_channel(1);
            let engine = EngineConfig {
                worker: WorkerId(id),
                workers,
                max_flows: flows.max(1024),
                seed: rand::random(),
                steering: steering.clone(),
            };
            let mut queues = Vec::new();
            for (index, port) in ports.iter().enumerate() {
                let count = port.info().queues.max(1);
                let own = (id < count).then(|| port.queue(id)).transpose()?;
                queues.push(PortQueues {
                    wire: own.map(|queue| Wire::Device(queue, index, Arc::clone(seen))),
                    wire_deputy: WorkerId(id % count),
                    control: Some(Wire::Kernel),
                    control_owner: WorkerId(id),
                });
            }
            queues.push(PortQueues {
                wire: Some(Wire::Clients(Arc::clone(&requests))),
                wire_deputy: WorkerId(id),
                control: Some(Wire::Kernel),
                control_owner: WorkerId(id),
            });
            node.workers.push(Worker::new(WorkerParts {
                id: WorkerId(id),
                engine: Engine::new(engine, Arc::clone(&stats)),
                ports: queues,
                rings,
                published: Arc::clone(&published),
                shared: Arc::new(Shared::new(id, Arc::clone(&stats))),
                commands,
                wanted_neighbours: wanted_neighbours.clone(),
                sharing: None,
                poll: PollMode::Throughput,
                max_sleep: Duration::ZERO,
            }));
            node.stats.push(stats);
            node.requests.push(requests);
            node.commands.push(commands_sender);
        }
        Ok(node)
    }

    /// The request of a connection arrives at one worker, the same whenever it is sent again.
    pub fn request(&self, flow: u32) -> Result<()> {
        let [client, vip] = ends(flow);
        let payload = [MARK.as_slice(), &flow.to_be_bytes()].concat();
        let frame = if is_tcp(flow) {
            build::tcp(CLIENTS, client, vip, SYN, &payload)
        } else {
            build::udp(CLIENTS, client, vip, &payload)
        };
        let frame = self.pool.alloc_from(&frame).context("no packet buffer is free")?;
        let worker = flow as usize / 4 % self.requests.len();
        lock(&self.requests[worker]).push_back(frame);
        Ok(())
    }

    pub fn turn(&mut self, now: Now) {
        for worker in &mut self.workers {
            worker.turn(now);
        }
    }

    pub fn handed_over(&self) -> u64 {
        self.stats.iter().map(|stats| stats.handed_over.packets.get()).sum()
    }

    pub fn dropped(&self) -> u64 {
        self.stats.iter().map(|stats| stats.dropped()).sum()
    }
}

/// LIPs of one family: two for each worker.
pub const fn lips_per_family(workers: u16) -> u16 {
    2 * workers
}

/// Every LIP with the queue of the worker that owns it when there are flow rules.
pub fn lips(workers: u16) -> impl Iterator<Item = (IpAddr, u16)> {
    lip_specs(workers).into_iter().map(move |lip| (lip.address, owner_of_lip(lip.id, workers).0))
}

fn lip_specs(workers: u16) -> Vec<LipSpec> {
    let count = lips_per_family(workers);
    let lip = |id: u16| {
        let host = u32::from(id % count) + 1;
        let address = if id < count { v4(9, host) } else { v6(9, host) };
        LipSpec { id: LipId(id), address }
    };
    (0..2 * count).map(lip).collect()
}

const fn is_tcp(flow: u32) -> bool {
    flow & 1 == 1
}

/// Client and VIP of a connection. All four kinds take turns; clients are spread over a /8.
fn ends(flow: u32) -> [SocketAddr; 2] {
    let scattered = flow.wrapping_mul(0x9e37_79b1);
    let port = 1024 + (scattered >> 8) as u16 % 60_000;
    let (client, vip) = if flow & 2 == 0 {
        (Ipv4Addr::from(0x1700_0000 | scattered >> 8).into(), vip(false))
    } else {
        let host = u128::from(scattered) << 32 | u128::from(flow);
        (Ipv6Addr::from(0xfd00_0023 << 96 | host).into(), vip(true))
    };
    [SocketAddr::new(client, port), SocketAddr::new(vip, SERVICE_PORT)]
}

fn vip(is_v6: bool) -> IpAddr {
    if is_v6 { v6(5, 1) } else { v4(5, 1) }
}

fn v4(net: u8, host: u32) -> IpAddr {
    let [.., high, low] = host.to_be_bytes();
    [10, net, high, low].into()
}

fn v6(net: u16, host: u32) -> IpAddr {
    [0xfd00, net, 0, 0, 0, 0, 0, host as u16].into()
}

/// Services over all backends; every backend behind one of the ports, clients behind one more.
fn spec(ports: &[DpdkPort], workers: u16) -> TablesSpec {
    let clients = PortId(ports.len() as u16);
    let described = |id: PortId, mac: Mac| PortSpec {
        id,
        mac,
        mtu: 1500,
        up: true,
        tx_ipv4_checksum: false,
        tx_l4_checksum: false,
    };
    let mut specs: Vec<PortSpec> =
        (0..).zip(ports).map(|(id, port)| described(PortId(id), port.info().mac)).collect();
    specs.push(described(clients, Mac(CLIENTS.destination)));
    let address = |is_v6: bool, host: u32| if is_v6 { v6(2, host) } else { v4(2, host) };
    let kinds = [
        (false, Protocol::Udp),
        (false, Protocol::Tcp),
        (true, Protocol::Udp),
        (true, Protocol::Tcp),
    ];
    let services = (0u32..).zip(kinds).map(|(slot, (is_v6, protocol))| ServiceSpec {
        id: ServiceId(slot),
        vip: vip(is_v6),
        protocol,
        port: SERVICE_PORT,
        scheduler: Scheduler::Maglev,
        timeouts: Timeouts::default(),
        backends: (0..BACKENDS)
            .map(|n| BackendSpec {
                id: BackendId(slot * BACKENDS + n),
                address: address(is_v6, n + 1),
                port: 8080 + n as u16,
                weight: 1,
                usable: true,
            })
            .collect(),
        removed: false,
    });
    // One next hop per port and family, by way of a gateway on it.
    let all = specs.len() as u32;
    let gateway = |is_v6: bool, port: u32| if is_v6 { v6(1, port + 1) } else { v4(1, port + 1) };
    let hops = [false, true].into_iter().flat_map(|is_v6| (0..all).map(move |port| (is_v6, port)));
    let hop = |is_v6: bool, port: u32| vec![(NextHopId(u32::from(is_v6) * all + port), 1)];
    let mut routes: Vec<RouteSpec> = Vec::new();
    for is_v6 in [false, true] {
        let everything = if is_v6 { Ipv6Addr::UNSPECIFIED.into() } else { IpAddr::from([0; 4]) };
        routes.extend(
            ipnet::IpNet::new(everything, 0)
                .map(|prefix| RouteSpec { prefix, next_hops: hop(is_v6, all - 1) }),
        );
        routes.extend((0..BACKENDS).map(|n| RouteSpec {
            prefix: address(is_v6, n + 1).into(),
            next_hops: hop(is_v6, n % (all - 1)),
        }));
    }
    TablesSpec {
        epoch: 1,
        workers,
        ports: specs,
        services: services.collect(),
        lips: lip_specs(workers),
        routes,
        next_hops: hops
            .clone()
            .map(|(is_v6, port)| NextHopSpec {
                id: NextHopId(u32::from(is_v6) * all + port),
                port: PortId(port as u16),
                gateway: Some(gateway(is_v6, port)),
            })
            .collect(),
        neighbours: hops
            .map(|(is_v6, port)| NeighbourSpec {
                port: PortId(port as u16),
                address: gateway(is_v6, port),
                mac: GATEWAY,
            })
            .collect(),
    }
}

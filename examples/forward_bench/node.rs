//! The node that is measured: workers with their engines and tables, as `dunlind` makes them, on
//! one port without a control interface.

use crate::capture::{self, ACK, Family, PORT, PORT_MAC, Proto, SYN, VIP_V4, VIP_V6};
use crate::mirror::swap;
use anyhow::{Context, Result, ensure};
use dunlin::config::model::PollMode;
use dunlin::control::state::{MAX_BACKENDS, MAX_SERVICES};
use dunlin::forward::slots::{Arena, Ordinary};
use dunlin::forward::tables::{
    BackendId, BackendSpec, LipId, LipSpec, Mac, NeighbourSpec, NextHopId, NextHopSpec, PortId,
    PortSpec, Protocol, RouteSpec, Scheduler, ServiceId, ServiceSpec, TablesSpec, Timeouts,
    WorkerId,
};
use dunlin::forward::{Engine, EngineConfig, Now, Steering, Tables, Verdict, WorkerStats};
use dunlin::port::Queue;
use dunlin::worker::{
    Command, Neighbour, PortQueues, Published, Rings, Shared, Worker, WorkerParts,
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::Duration;

pub const BACKEND_PORT: u16 = 8080;
pub const BACKENDS: u32 = 8;
const LIPS: u16 = 8;
const NEIGHBOUR_MAC: [u8; 6] = [2, 0, 0, 0, 0, 3];

/// What outlives the workers: tables to publish, counters to read.
#[derive(Debug, Clone)]
pub struct Handle {
    /// By worker.
    pub shared: Vec<Arc<Shared>>,
    pub published: Arc<Published>,
    pub spec: TablesSpec,
}

/// A worker and the far ends of its channels, which it must not find closed.
pub struct Node<Q: Queue> {
    pub worker: Worker<Q>,
    _commands: SyncSender<Command>,
    _wanted: tokio::sync::mpsc::Receiver<Neighbour>,
}

impl Handle {
    /// One worker.
    pub fn new(family: Family, timeouts: Timeouts) -> Result<Self> {
        Self::with(family, timeouts, BACKENDS, 1)
    }

    /// So many backends behind each service, and workers.
    pub fn with(family: Family, timeouts: Timeouts, backends: u32, workers: u16) -> Result<Self> {
        let spec = TablesSpec { workers, ..spec(family, timeouts, backends) };
        let shared = |core| {
            let stats = WorkerStats::new(MAX_SERVICES as usize, MAX_BACKENDS as usize);
            Arc::new(Shared::new(core, Arc::new(stats)))
        };
        Ok(Self {
            shared: (0..workers).map(shared).collect(),
            published: Arc::new(Published::new(Arc::new(Tables::build(&spec, None)?))),
            spec,
        })
    }

    /// A worker's. Its port has RSS, so that requests belong to whoever receives them.
    pub fn engine(&self, worker: u16, max_flows: u32) -> Engine {
        self.engine_in(&Ordinary, worker, max_flows)
    }

    /// The same, with its flows in this memory.
    pub fn engine_in(&self, arena: &impl Arena, worker: u16, max_flows: u32) -> Engine {
        let config = EngineConfig {
            worker: WorkerId(worker),
            workers: self.spec.workers,
            max_flows,
            seed: 0x6475_6e6c_696e,
            steering: Steering::software(vec![true]),
        };
        Engine::new_in(arena, config, Arc::clone(&self.shared[usize::from(worker)].stats))
    }

    /// The only worker.
    pub fn node<Q: Queue>(&self, engine: Engine, queue: Q) -> Result<Node<Q>> {
        let rings = Rings::mesh(1).pop().context("a mesh of no workers")?;
        Ok(self.worker(0, engine, queue, rings))
    }

    pub fn worker<Q: Queue>(
        &self,
        id: u16,
        engine: Engine,
        queue: Q,
        rings: Rings<Q::Frame>,
    ) -> Node<Q> {
        let (commands_sender, commands) = std::sync::mpsc::sync_channel(1);
        let (wanted_neighbours, wanted) = tokio::sync::mpsc::channel(64);
        let worker = Worker::new(WorkerParts {
            id: WorkerId(id),
            engine,
            ports: vec![PortQueues {
                wire: Some(queue),
                wire_deputy: WorkerId(id),
                control: None,
                control_owner: WorkerId(0),
            }],
            rings,
            published: Arc::clone(&self.published),
            shared: Arc::clone(&self.shared[usize::from(id)]),
            commands,
            wanted_neighbours,
            sharing: None,
            poll: PollMode::Throughput,
            max_sleep: Duration::ZERO,
        });
        Node { worker, _commands: commands_sender, _wanted: wanted }
    }

    /// Publish the next tables, in which one backend's weight differs.
    pub fn change(&mut self) -> Result<()> {
        self.spec.epoch += 1;
        self.spec.services[0].backends[0].weight = 1 + (self.spec.epoch % 2) as u32;
        let tables = Tables::build(&self.spec, Some(&self.published.load()))?;
        self.published.publish(Arc::new(tables));
        Ok(())
    }
}

/// Take every flow of the capture through its beginning: the first packet, the backend's answer,
/// and for TCP the client's ACK.
pub fn establish(
    engine: &mut Engine,
    tables: &Tables,
    now: Now,
    (family, proto): (Family, Proto),
    flows: std::ops::Range<u32>,
) -> Result<()> {
    let flags_at = if family == Family::V4 { 47 } else { 67 };
    let mut forward = |frame: &mut Vec<u8>| {
        let verdict = engine.forward(tables, now, PortId(0), frame);
        ensure!(matches!(verdict, Verdict::Transmit { .. }), "not forwarded: {verdict:?}");
        Ok(())
    };
    for flow in flows {
        let mut frame = capture::frame(flow, family, proto, SYN);
        forward(&mut frame)?;
        swap(&mut frame);
        if proto == Proto::Tcp {
            frame[flags_at] = SYN | ACK;
        }
        forward(&mut frame)?;
        if proto == Proto::Tcp {
            forward(&mut capture::frame(flow, family, proto, ACK))?;
        }
    }
    Ok(())
}

/// So many backends, 8 LIPs, one neighbour; a service for UDP and one for TCP.
fn spec(family: Family, timeouts: Timeouts, backends: u32) -> TablesSpec {
    let port = PortId(0);
    let v4 = family == Family::V4;
    let address = |net: u8, host: u32| match family {
        Family::V4 => IpAddr::from([10, net, 0, host as u8]),
        Family::V6 => IpAddr::from([0x2001, 0xdb8, u16::from(net), 0, 0, 0, 0, host as u16]),
    };
    let vip = if v4 { IpAddr::from(Ipv4Addr::from(VIP_V4)) } else { Ipv6Addr::from(VIP_V6).into() };
    let gateway = address(101, 1);
    let service = |slot: u32, protocol| ServiceSpec {
        id: ServiceId(slot),
        vip,
        protocol,
        port: PORT,
        scheduler: Scheduler::Maglev,
        timeouts,
        backends: (0..backends)
            .map(|n| BackendSpec {
                id: BackendId(slot * backends + n),
                address: address(102, 11 + n),
                port: BACKEND_PORT,
                weight: 1,
                usable: true,
            })
            .collect(),
        removed: false,
    };
    TablesSpec {
        epoch: 1,
        workers: 1,
        ports: vec![PortSpec {
            id: port,
            mac: Mac(PORT_MAC),
            mtu: 1500,
            up: true,
            tx_ipv4_checksum: false,
            tx_l4_checksum: false,
        }],
        services: vec![service(0, Protocol::Udp), service(1, Protocol::Tcp)],
        lips: (0..LIPS)
            .map(|n| LipSpec { id: LipId(n), address: address(103, 1 + u32::from(n)) })
            .collect(),
        routes: vec![RouteSpec {
            prefix: ipnet::IpNet::new(
                if v4 { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() },
                0,
            )
            .unwrap_or_default(),
            next_hops: vec![(NextHopId(0), 1)],
        }],
        next_hops: vec![NextHopSpec { id: NextHopId(0), port, gateway: Some(gateway) }],
        neighbours: vec![NeighbourSpec { port, address: gateway, mac: Mac(NEIGHBOUR_MAC) }],
    }
}

//! What the tests, benches and fuzz targets of the packet path share: named set-ups of tables, an
//! engine with its clock, and a small language for frames.

#![allow(dead_code, reason = "each user takes a part")]

pub mod frames;
pub mod fuzz;

use arrayvec::ArrayVec;
use dunlin::forward::steering::Steering;
use dunlin::forward::tables::{
    BackendId, BackendSpec, LipId, LipSpec, Mac, NeighbourSpec, NextHopId, NextHopSpec, PortId,
    PortSpec, Protocol, RouteSpec, Scheduler, ServiceId, ServiceSpec, TablesSpec, Timeouts,
    WorkerId,
};
use dunlin::forward::{Engine, EngineConfig, Now, Origin, Tables, Verdict, WorkerStats};
use dunlin::packet::Frame;
use dunlin::port::BURST;
use std::net::IpAddr;
use std::sync::Arc;

/// Toward the clients' router.
pub const OUTER: PortId = PortId(0);
/// Toward the backends.
pub const INNER: PortId = PortId(1);

pub const OUTER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x10];
pub const INNER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x11];
pub const ROUTER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x01];

/// MAC of the backend with this last byte of its address.
pub const fn backend_mac(last: u8) -> [u8; 6] {
    [2, 0, 0, 0, 1, last]
}

pub fn ip(address: &str) -> IpAddr {
    address.parse().expect("an address")
}

/// The tables that most cases use:
///
/// - port 0 toward clients (default routes via 10.0.0.1 and 2001:db8:a::1), port 1 toward backends
///   (on-link 10.2.0.0/24 and 2001:db8:2::/64), both MTU 1500;
/// - LIPs 10.1.0.1 and 2001:db8:1::1;
/// - VIPs 192.0.2.1 and 2001:db8::1, each with tcp/80 (two backends, round robin) and udp/53 (one
///   backend, Maglev); on 192.0.2.1 also tcp/81 without a usable backend and udp/54 whose backend
///   is no resolved neighbour.
pub fn plain() -> TablesSpec {
    let port = |id: PortId, mac| PortSpec {
        id,
        mac: Mac(mac),
        mtu: 1500,
        up: true,
        tx_ipv4_checksum: false,
        tx_l4_checksum: false,
    };
    let lip = |id, address| LipSpec { id: LipId(id), address: ip(address) };
    let hop = |id, port, gateway: Option<&str>| NextHopSpec {
        id: NextHopId(id),
        port,
        gateway: gateway.map(ip),
    };
    let route = |prefix: &str, hop| RouteSpec {
        prefix: prefix.parse().expect("a prefix"),
        next_hops: vec![(NextHopId(hop), 1)],
    };
    let neighbour =
        |port, address, mac| NeighbourSpec { port, address: ip(address), mac: Mac(mac) };
    TablesSpec {
        epoch: 1,
        workers: 1,
        ports: vec![port(OUTER, OUTER_MAC), port(INNER, INNER_MAC)],
        services: services(),
        lips: vec![lip(0, "10.1.0.1"), lip(1, "2001:db8:1::1")],
        routes: vec![
            route("0.0.0.0/0", 0),
            route("::/0", 1),
            route("10.2.0.0/24", 2),
            route("2001:db8:2::/64", 2),
        ],
        next_hops: vec![
            hop(0, OUTER, Some("10.0.0.1")),
            hop(1, OUTER, Some("2001:db8:a::1")),
            hop(2, INNER, None),
        ],
        neighbours: vec![
            neighbour(OUTER, "10.0.0.1", ROUTER_MAC),
            neighbour(OUTER, "2001:db8:a::1", ROUTER_MAC),
            neighbour(INNER, "10.2.0.11", backend_mac(11)),
            neighbour(INNER, "10.2.0.12", backend_mac(12)),
            neighbour(INNER, "10.2.0.13", backend_mac(13)),
            neighbour(INNER, "2001:db8:2::11", backend_mac(11)),
            neighbour(INNER, "2001:db8:2::12", backend_mac(12)),
            neighbour(INNER, "2001:db8:2::13", backend_mac(13)),
        ],
    }
}

fn services() -> Vec<ServiceSpec> {
    use Protocol::{Tcp, Udp};
    use Scheduler::{Maglev, RoundRobin};
    let backend = |id, address: &str, port| BackendSpec {
        id: BackendId(id),
        address: ip(address),
        port,
        weight: 1,
        usable: true,
    };
    let service = |id, vip: &str, protocol, port, scheduler, backends| ServiceSpec {
        id: ServiceId(id),
        vip: ip(vip),
        protocol,
        port,
        scheduler,
        timeouts: Timeouts::default(),
        backends,
        removed: false,
    };
    let (v4, v6) = ("192.0.2.1", "2001:db8::1");
    let mut dead = backend(6, "10.2.0.11", 8081);
    dead.usable = false;
    vec![
        service(
            0,
            v4,
            Tcp,
            80,
            RoundRobin,
            vec![backend(0, "10.2.0.11", 8080), backend(1, "10.2.0.12", 8080)],
        ),
        service(1, v4, Udp, 53, Maglev, vec![backend(2, "10.2.0.13", 5353)]),
        service(
            2,
            v6,
            Tcp,
            80,
            RoundRobin,
            vec![backend(3, "2001:db8:2::11", 8080), backend(4, "2001:db8:2::12", 8080)],
        ),
        service(3, v6, Udp, 53, Maglev, vec![backend(5, "2001:db8:2::13", 5353)]),
        service(4, v4, Tcp, 81, Maglev, vec![dead]),
        service(5, v4, Udp, 54, Maglev, vec![backend(7, "10.2.0.99", 5354)]),
    ]
}

/// An engine with the tables in force, its counters and its clock.
#[derive(Debug)]
pub struct Bench {
    pub spec: TablesSpec,
    pub tables: Tables,
    pub engine: Engine,
    pub stats: Arc<WorkerStats>,
    pub now: Now,
    /// Most flows.
    pub capacity: u32,
}

impl Bench {
    /// One worker alone.
    pub fn new(spec: TablesSpec, max_flows: u32) -> Self {
        Self::worker(spec, max_flows, 0, 1, Steering::default())
    }

    /// One of several workers.
    pub fn worker(
        spec: TablesSpec,
        max_flows: u32,
        worker: u16,
        workers: u16,
        steering: Steering,
    ) -> Self {
        let stats = Arc::new(WorkerStats::new(64, 64));
        let config =
            EngineConfig { worker: WorkerId(worker), workers, max_flows, seed: 0x5eed, steering };
        Self {
            tables: Tables::build(&spec, None).expect("valid tables"),
            engine: Engine::new(config, Arc::clone(&stats)),
            spec,
            stats,
            now: Now(1_000_000_000_000),
            capacity: max_flows,
        }
    }

    pub fn forward<F: Frame>(&mut self, port: PortId, frame: &mut F) -> Verdict {
        self.engine.forward(&self.tables, self.now, port, frame)
    }

    pub fn burst<F: Frame>(
        &mut self,
        port: PortId,
        origin: Origin,
        frames: &mut [F],
    ) -> ArrayVec<Verdict, BURST> {
        let mut verdicts = ArrayVec::new();
        self.engine.forward_burst(&self.tables, self.now, port, origin, frames, &mut verdicts);
        verdicts
    }

    /// Publish changed tables.
    pub fn change(&mut self, change: impl FnOnce(&mut TablesSpec)) {
        change(&mut self.spec);
        self.spec.epoch += 1;
        self.tables = Tables::build(&self.spec, Some(&self.tables)).expect("valid tables");
        self.engine.set_tables(&self.tables);
    }

    /// Let time pass, and the timers with it, until nothing more is due.
    pub fn pass(&mut self, milliseconds: u64) {
        self.now.0 += milliseconds * 1_000_000;
        for _ in 0..1 << 12 {
            self.engine.tick(&self.tables, self.now);
        }
    }
}

/// As many first frames of flows: `udp4`, `tcp4` (SYN), `udp6` or `tcp6`. 60 bytes, or 74 and 62
/// for IPv6.
pub fn first_frames(kind: &str, count: usize) -> Vec<Vec<u8>> {
    use dunlin::packet::build::{Link, tcp, udp};
    let link = Link { source: ROUTER_MAC, destination: OUTER_MAC };
    let v6 = kind.ends_with('6');
    let vip = ip(if v6 { "2001:db8::1" } else { "192.0.2.1" });
    let frame = |n: usize| {
        let [_, a, b, c] = ((n >> 14) as u32).to_be_bytes();
        let client = if v6 {
            std::net::Ipv6Addr::new(0x2001, 0xdb8, 0xc, 0, 0, 0, u16::from(a), (n >> 14) as u16)
                .into()
        } else {
            IpAddr::from([100, 64 | a, b, c])
        };
        let client = (client, 16_384 + (n & 0x3fff) as u16).into();
        let mut frame = if kind.starts_with("tcp") {
            tcp(link, client, (vip, 80).into(), 0x02, &[])
        } else {
            udp(link, client, (vip, 53).into(), &[])
        };
        frame.resize(frame.len().max(60), 0);
        frame
    };
    (0..count).map(frame).collect()
}

/// An engine with so many established flows, and the next request of each. There are enough LIPs
/// and backends that ports do not run out.
pub fn established(kind: &str, flows: usize) -> (Bench, Vec<Vec<u8>>) {
    let mut spec = plain();
    for n in 0..32u8 {
        spec.lips.push(LipSpec {
            id: LipId(2 + u16::from(n)),
            address: if kind.ends_with('6') {
                format!("2001:db8:1::1:{n:x}").parse().expect("an address")
            } else {
                IpAddr::from([10, 1, 1, n])
            },
        });
    }
    let mut bench = Bench::new(spec, flows as u32);
    let mut frames = first_frames(kind, flows);
    for chunk in frames.chunks_mut(BURST) {
        let mut requests = chunk.to_vec();
        bench.burst(OUTER, Origin::Port, &mut requests);
        let mut replies: Vec<Vec<u8>> = requests.iter().map(|frame| answer(frame)).collect();
        let verdicts = bench.burst(INNER, Origin::Port, &mut replies);
        let sent = |verdict: &Verdict| *verdict == Verdict::Transmit { port: OUTER };
        assert!(verdicts.iter().all(sent), "{verdicts:?}");
        if kind.starts_with("tcp") {
            let flags = if kind.ends_with('6') { 67 } else { 47 };
            for frame in chunk.iter_mut() {
                frame[flags] = 0x10; // the checksum is not looked at
            }
            bench.burst(OUTER, Origin::Port, &mut chunk.to_vec());
        }
    }
    assert_eq!(bench.engine.flow_count() as usize, flows);
    (bench, frames)
}

/// The backend's first answer to a frame that was sent to it: addresses and ports turned; SYN-ACK
/// for TCP. Checksums are right for turned addresses, but not for the TCP flags.
pub fn answer(frame: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    let (addresses, size, l4) =
        if frame[12..14] == [0x86, 0xdd] { (22, 16, 54) } else { (26, 4, 34) };
    let mut swap = |at: usize, size: usize| {
        let (first, second) = frame[at..at + 2 * size].split_at_mut(size);
        first.swap_with_slice(second);
    };
    swap(0, 6);
    swap(addresses, size);
    swap(l4, 2);
    let tcp = (size == 4 && frame[23] == 6) || (size == 16 && frame[20] == 6);
    if tcp {
        frame[l4 + 13] = 0x12;
    }
    frame
}

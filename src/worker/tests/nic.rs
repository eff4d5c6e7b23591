//! The real loop behind NICs that really steer: their receive side is a model with a hash of its
//! own (the bit by bit reference), a redirection table, and flow rules.

mod fragments;

use super::*;
use crate::forward::steering::tests::reference_hash;
use crate::forward::steering::{Hashed, Mode, PortOffer, RssOffer, Wish, choose, owner_of_lip};
use ipnet::IpNet;
use std::collections::{HashMap, HashSet};

/// A receive side.
struct Nic {
    /// What it does; it may say something else.
    rss: RssOffer,
    /// Destination, and where it goes.
    rules: HashMap<IpAddr, u16>,
}

impl Nic {
    /// A NIC of this key, which spreads evenly over so many queues.
    fn new(key: u64, queues: u16) -> Self {
        let mut state = key;
        let key = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888);
            (state >> 33) as u8
        });
        let rss = RssOffer {
            key: key.take(40).collect(),
            hashed: [Hashed::Ports; 4],
            reta: (0..128).map(|entry| entry % queues).collect(),
        };
        Self { rss, rules: HashMap::new() }
    }

    fn offer(&self, queues: u16, flow_rules: bool) -> PortOffer {
        PortOffer {
            name: "nic".to_owned(),
            queues,
            spreads: true,
            rss: Ok(self.rss.clone()),
            flow_rules: if flow_rules { Ok(()) } else { Err("none".to_owned()) },
        }
    }

    /// The queue of a frame: TCP and UDP by addresses and ports, other IP and fragments by addresses.
    fn queue(&self, frame: &[u8]) -> u16 {
        let v6 = frame[12] == 0x86;
        let (addresses, l4, protocol) =
            if v6 { (22..54, 54, frame[20]) } else { (26..34, 34, frame[23]) };
        let (_, to) = tuple(frame);
        if let Some(&queue) = self.rules.get(&to.ip()) {
            return queue;
        }
        let mut input = frame[addresses].to_vec();
        let fragment = !v6 && (u16::from(frame[20]) << 8 | u16::from(frame[21])) & 0x3fff != 0;
        if !fragment && (protocol == 6 || protocol == 17) {
            input.extend(&frame[l4..l4 + 4]);
        }
        self.rss.reta[reference_hash(&self.rss.key, &input) as usize % self.rss.reta.len()]
    }
}

/// Numbers that look random, the same every time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((self.0 >> 32) as u32) % sides
    }
}

const LIPS: u16 = 4;
const KINDS: [(bool, Protocol); 4] =
    [(false, Protocol::Udp), (false, Protocol::Tcp), (true, Protocol::Udp), (true, Protocol::Tcp)];

fn host(v6: bool, net: u8, host: u16) -> IpAddr {
    if v6 {
        [0xfd00, u16::from(net), 0, 0, 0, 0, 0, host].into()
    } else {
        [10, net, (host >> 8) as u8, host as u8].into()
    }
}

/// Services of every kind. Clients are behind port 0, backends behind port `way(backend)`.
fn spec(epoch: u64, workers: u16, ports: u16, way: impl Fn(u16) -> u16) -> TablesSpec {
    let port = |id| PortSpec {
        id: PortId(id),
        mac: Mac(NODE),
        mtu: 1500,
        up: true,
        tx_ipv4_checksum: false,
        tx_l4_checksum: false,
    };
    let services = (0u32..).zip(KINDS).map(|(slot, (v6, protocol))| ServiceSpec {
        id: ServiceId(slot),
        vip: host(v6, 5, 1),
        protocol,
        port: 80,
        scheduler: Scheduler::Maglev,
        timeouts: Timeouts::default(),
        backends: (0..3u16)
            .map(|n| BackendSpec {
                id: BackendId(slot * 3 + u32::from(n)),
                address: host(v6, 2, n + 1),
                port: 8080,
                weight: 1,
                usable: true,
            })
            .collect(),
        removed: false,
    });
    let hop = |v6: bool, port: u16| NextHopId(u32::from(port) * 2 + u32::from(v6));
    let both = [false, true];
    let route = |v6, prefix: IpNet, port| RouteSpec { prefix, next_hops: vec![(hop(v6, port), 1)] };
    let mut routes = vec![
        route(false, "0.0.0.0/0".parse().unwrap(), 0),
        route(true, "::/0".parse().unwrap(), 0),
    ];
    for v6 in both {
        routes.extend((0..3).map(|n| route(v6, host(v6, 2, n + 1).into(), way(n))));
    }
    let all = || both.into_iter().flat_map(move |v6| (0..ports).map(move |port| (v6, port)));
    TablesSpec {
        epoch,
        workers,
        ports: (0..ports).map(port).collect(),
        services: services.collect(),
        lips: (0..2 * LIPS)
            .map(|n| LipSpec { id: LipId(n), address: host(n >= LIPS, 9, n + 1) })
            .collect(),
        routes,
        next_hops: all()
            .map(|(v6, port)| NextHopSpec {
                id: hop(v6, port),
                port: PortId(port),
                gateway: Some(host(v6, 1, port + 1)),
            })
            .collect(),
        neighbours: all()
            .map(|(v6, port)| NeighbourSpec {
                port: PortId(port),
                address: host(v6, 1, port + 1),
                mac: Mac(ROUTER),
            })
            .collect(),
    }
}

/// A connection as its client knows it, and what became of it.
struct Flow {
    client: SocketAddr,
    vip: SocketAddr,
    tcp: bool,
    /// As the backend got it: from the LIP to the backend, by which port, and the frame itself.
    inside: Option<(SocketAddr, SocketAddr, u16, Vec<u8>)>,
}

/// Random traffic through workers behind NICs.
struct Traffic {
    bench: Bench,
    nics: Vec<Nic>,
    workers: u16,
    flows: Vec<Flow>,
    /// Every LIP:port with its backend and protocol: given once.
    given: HashSet<(SocketAddr, SocketAddr, bool)>,
    dice: Dice,
}

impl Traffic {
    fn new(wish: Wish, workers: u16, nics: Vec<Nic>, flow_rules: bool, seed: u64) -> Self {
        let offers: Vec<PortOffer> =
            nics.iter().map(|nic| nic.offer(workers, flow_rules)).collect();
        Self::with_offers(wish, workers, nics, &offers, seed)
    }

    fn with_offers(
        wish: Wish,
        workers: u16,
        mut nics: Vec<Nic>,
        offers: &[PortOffer],
        seed: u64,
    ) -> Self {
        let lips = usize::from(LIPS);
        let choice = choose(wish, offers, workers, [lips, lips]);
        let ports = nics.len() as u16;
        let spec = spec(1, workers, ports, |backend| backend % ports);
        for (nic, port) in nics.iter_mut().zip(&choice.ports) {
            if port.mode == Mode::FlowRules {
                let rule = |lip: &LipSpec| (lip.address, owner_of_lip(lip.id, workers).0);
                nic.rules = spec.lips.iter().map(rule).collect();
            }
        }
        let bench = Bench::steered(workers, workers, &spec, &choice.steering);
        let (flows, given) = (Vec::new(), HashSet::new());
        Self { bench, nics, workers, flows, given, dice: Dice(seed | 1) }
    }

    fn deliver(&mut self, port: u16, frame: Vec<u8>) {
        let queue = self.nics[usize::from(port)].queue(&frame);
        let wire = usize::from(port * self.workers + queue);
        assert!(self.bench.wires[wire].send(frame));
    }

    /// Turn the workers and take what they sent, with the port it left by.
    fn settle(&mut self) -> Vec<(u16, Vec<u8>)> {
        self.bench.settle();
        let mut sent = Vec::new();
        for (wire, n) in self.bench.wires.iter().zip(0u16..) {
            let port = n / self.workers;
            sent.extend(std::iter::from_fn(|| wire.receive()).map(|frame| (port, frame)));
        }
        sent
    }

    /// One more connection begins, or an old one says more. It leaves toward a backend, with the
    /// same LIP:port as before, or one that nobody has.
    fn request(&mut self, new: bool) {
        let at = if new || self.flows.is_empty() {
            let (v6, protocol) = KINDS[self.dice.roll(4) as usize];
            let client = SocketAddr::new(
                host(v6, 100, self.dice.roll(1 << 16) as u16),
                1024 + self.dice.roll(60_000) as u16,
            );
            let vip = SocketAddr::new(host(v6, 5, 1), 80);
            let tcp = protocol == Protocol::Tcp;
            let same = |flow: &Flow| (flow.client, flow.tcp) == (client, tcp);
            if let Some(known) = self.flows.iter().position(same) {
                known
            } else {
                self.flows.push(Flow { client, vip, tcp, inside: None });
                self.flows.len() - 1
            }
        } else {
            self.dice.roll(self.flows.len() as u32) as usize
        };
        let flow = &self.flows[at];
        let frame = if flow.tcp {
            let flags = if flow.inside.is_some() { ACK } else { SYN };
            build::tcp(INBOUND, flow.client, flow.vip, flags, b"request")
        } else {
            build::udp(INBOUND, flow.client, flow.vip, b"request")
        };
        self.deliver(0, frame);
        let sent = self.settle();
        let [(port, frame)] = &sent[..] else { panic!("one request in, {} out", sent.len()) };
        assert!(build::checksums_good(frame));
        let (lip, backend) = tuple(frame);
        let flow = &mut self.flows[at];
        if let Some((lip_before, backend_before, way, _)) = &mut flow.inside {
            assert_eq!((lip, backend), (*lip_before, *backend_before));
            *way = *port;
        } else {
            assert!(self.given.insert((lip, backend, flow.tcp)), "{lip} given twice");
            flow.inside = Some((lip, backend, *port, frame.clone()));
        }
    }

    /// A backend answers, and the right client hears from the VIP.
    fn reply(&mut self) {
        let at = self.dice.roll(self.flows.len() as u32) as usize;
        let flow = &self.flows[at];
        let Some((lip, backend, way, _)) = flow.inside.clone() else { return };
        let frame = if flow.tcp {
            build::tcp(INBOUND, backend, lip, SYN_ACK, b"reply")
        } else {
            build::udp(INBOUND, backend, lip, b"reply")
        };
        self.deliver(way, frame);
        let sent = self.settle();
        let [(0, frame)] = &sent[..] else { panic!("one reply in, {} out", sent.len()) };
        let flow = &self.flows[at];
        assert_eq!(tuple(frame), (flow.vip, flow.client));
        assert!(build::checksums_good(frame));
    }

    fn run(&mut self, steps: u32) {
        self.request(true);
        for _ in 0..steps {
            match self.dice.roll(4) {
                0 | 1 => self.request(true),
                2 => self.request(false),
                _ => self.reply(),
            }
        }
        let created = self.bench.sum(|stats| stats.flows_created.get());
        assert_eq!(created, self.flows.len() as u64, "no flow at two workers");
        assert_eq!(self.bench.sum(WorkerStats::dropped), 0);
    }

    fn handed_over(&self) -> u64 {
        self.bench.sum(|stats| stats.handed_over.packets.get())
    }

    fn misdirected(&self) -> u64 {
        self.bench.sum(|stats| stats.misdirected.get())
    }
}

const ACK: u8 = 0x10;

/// Source and destination of an untagged TCP or UDP frame without options or extension headers.
fn tuple(frame: &[u8]) -> (SocketAddr, SocketAddr) {
    if frame[12] == 0x08 {
        return super::tuple(frame);
    }
    let ip = |at: usize| IpAddr::from(<[u8; 16]>::try_from(&frame[at..at + 16]).unwrap());
    let port = |at: usize| u16::from_be_bytes([frame[at], frame[at + 1]]);
    (SocketAddr::new(ip(22), port(54)), SocketAddr::new(ip(38), port(56)))
}

#[test]
fn nothing_is_handed_over_where_the_nic_steers() {
    for workers in 2..=4 {
        for (wish, flow_rules) in [(Wish::Rss, false), (Wish::FlowRules, true)] {
            let nics = vec![Nic::new(u64::from(workers) * 77, workers)];
            let mut traffic = Traffic::new(wish, workers, nics, flow_rules, 5);
            traffic.run(300);
            assert_eq!(traffic.handed_over(), 0, "{wish:?}, {workers} workers");
            assert_eq!(traffic.misdirected(), 0);
            let busy = |worker: &Worker<MemoryQueue>| worker.shared.stats.flows.get() > 0;
            assert!(traffic.bench.workers.iter().all(busy), "every worker has its share");
        }
    }
}

/// The same traffic without the NIC's help: all is right, and much is handed over.
#[test]
fn in_software_replies_are_handed_over() {
    for workers in 2..=4 {
        let mut traffic =
            Traffic::new(Wish::Software, workers, vec![Nic::new(9, workers)], true, 5);
        traffic.run(300);
        assert!(traffic.handed_over() > 20, "{}", traffic.handed_over());
        assert_eq!(traffic.misdirected(), 0, "nothing was promised");
    }
}

/// Two kinds of NIC: a flow's local port fits the one that its backend is behind. When the routes
/// change later, replies come in by the other: handed over, and none is lost.
#[test]
fn every_port_is_steered_by_its_own_hash() {
    let workers = 3;
    let mut traffic =
        Traffic::new(Wish::Auto, workers, vec![Nic::new(1, 3), Nic::new(2, 3)], false, 11);
    traffic.run(300);
    assert_eq!(traffic.handed_over(), 0);
    traffic.bench.publish(&spec(2, workers, 2, |backend| (backend + 1) % 2));
    traffic.settle();
    for flow in 0..traffic.flows.len() {
        let (_, backend, way, _) = traffic.flows[flow].inside.as_mut().unwrap();
        *way = match backend.ip() {
            IpAddr::V4(v4) => u16::from(v4.octets()[3]) % 2,
            IpAddr::V6(v6) => v6.segments()[7] % 2,
        };
    }
    for _ in 0..200 {
        traffic.reply();
    }
    assert!(traffic.handed_over() > 20, "{}", traffic.handed_over());
    assert_eq!(traffic.misdirected(), 0, "neither NIC promised anything");
    assert_eq!(traffic.bench.sum(WorkerStats::dropped), 0);
}

/// A driver that tells another key than the NIC uses: slower, and counted, but right.
#[test]
fn a_nic_that_does_not_what_it_says_costs_no_packet() {
    let workers = 4;
    let said = Nic::new(1, workers).offer(workers, false);
    let mut traffic =
        Traffic::with_offers(Wish::Rss, workers, vec![Nic::new(2, workers)], &[said], 3);
    traffic.run(400);
    assert!(traffic.misdirected() > 20, "{}", traffic.misdirected());
    assert_eq!(traffic.handed_over(), traffic.misdirected());
}

/// Errors about a flow's packets come from routers: their hash is another one.
#[test]
fn icmp_errors_find_the_worker_of_their_flow() {
    let workers = 4;
    for wish in [Wish::Rss, Wish::FlowRules, Wish::Software] {
        let mut traffic =
            Traffic::new(wish, workers, vec![Nic::new(4, workers)], wish == Wish::FlowRules, 21);
        traffic.run(100);
        let before = traffic.handed_over();
        let mut sent = 0;
        for at in 0..traffic.flows.len() {
            let flow = &traffic.flows[at];
            let Some((lip, _, _, frame)) = &flow.inside else { continue };
            let v6 = lip.is_ipv6();
            let router = host(v6, 77, at as u16 + 1);
            let mut message = if v6 { vec![1, 3] } else { vec![3, 1] };
            message.extend([0; 6]);
            message.extend(&frame[14..14 + if v6 { 48 } else { 28 }]);
            let (to, client) = (lip.ip(), flow.client);
            traffic.deliver(0, build::icmp(INBOUND, router, to, &message));
            let out = traffic.settle();
            let [(0, error)] = &out[..] else { panic!("{wish:?}: one error, {} out", out.len()) };
            let destination = if v6 { &error[38..54] } else { &error[30..34] };
            match client.ip() {
                IpAddr::V4(v4) => assert_eq!(destination, v4.octets()),
                IpAddr::V6(v6) => assert_eq!(destination, v6.octets()),
            }
            sent += 1;
        }
        assert_eq!(traffic.bench.sum(|stats| stats.icmp_errors.get()), sent);
        let handed_over = traffic.handed_over() - before;
        assert_eq!(handed_over > 0, wish != Wish::FlowRules, "{wish:?}: {handed_over}");
        assert_eq!(traffic.misdirected(), 0, "they were not expected here");
    }
}

/// All local ports toward one backend: every one is used before any is missing, none twice, and
/// what is short is counted.
#[test]
fn the_last_local_port_is_given_once() {
    let workers = 2;
    let nic = Nic::new(8, workers);
    let steering = choose(Wish::Rss, &[nic.offer(workers, false)], workers, [1, 0]).steering;
    let mut tables = spec(1, workers, 1, |_| 0);
    tables.lips.truncate(1);
    tables.services.truncate(1);
    tables.services[0].backends.truncate(1);
    let tables = Tables::build(&tables, None).unwrap();
    let stats = Arc::new(WorkerStats::new(16, 16));
    let mut engine = Engine::new(
        EngineConfig { worker: WorkerId(1), workers, max_flows: 1 << 16, seed: 3, steering },
        Arc::clone(&stats),
    );
    let capacity = stats_after(&mut engine, &tables, &stats);
    let vip = SocketAddr::new(host(false, 5, 1), 80);
    let mut given = HashSet::new();
    for n in 0..u32::MAX {
        let client =
            SocketAddr::new(host(false, 100, (n / 50_000) as u16), 1024 + (n % 50_000) as u16);
        let mut frame = build::udp(INBOUND, client, vip, b"");
        match engine.forward(&tables, Now(1_000_000_000), PortId(0), &mut frame) {
            Verdict::Transmit { .. } => {
                let (lip, backend) = tuple(&frame);
                let reply = build::udp(INBOUND, backend, lip, b"");
                assert_eq!(nic.queue(&reply), 1, "{lip} does not come back");
                assert!(given.insert(lip), "{lip} given twice");
            }
            Verdict::Drop(DropReason::PoolExhausted) => {
                if stats.drops(DropReason::PoolExhausted) > 1024 {
                    break; // it looked everywhere
                }
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(given.len() as u64, capacity);
}

/// The capacity shown to operators.
fn stats_after(engine: &mut Engine, tables: &Tables, stats: &WorkerStats) -> u64 {
    engine.set_tables(tables);
    stats.local_ports_v4.get()
}

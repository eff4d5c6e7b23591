//! Any sequence of packets, time and table changes leaves the flows of an engine consistent.

use super::tables::{
    BackendId, BackendSpec, LipId, LipSpec, Mac, NeighbourSpec, NextHopId, NextHopSpec, PortId,
    PortSpec, Protocol, RouteSpec, Scheduler, ServiceId, ServiceSpec, TablesSpec, Timeouts,
    WorkerId,
};
use super::{
    DropReason, Engine, EngineConfig, FlowKey, FlowMapping, FlowPhase, Now, Origin, SharingLimits,
    Steering, Tables, Verdict, WorkerStats, stats,
};
use crate::packet::build::{Link, checksums_good, tcp, udp};
use crate::port::BURST;
use arrayvec::ArrayVec;
use proptest::prelude::*;
use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const ROUTER: [u8; 6] = [2, 0, 0, 0, 0, 2];
const LINK: Link = Link { source: ROUTER, destination: MAC };
const PORT: PortId = PortId(0);
/// So that a worker has few local ports, ports collide, and pools run out.
const WORKERS: u16 = 12_000;
const MAX_FLOWS: u32 = 24;
const MAX_ADOPTED: u32 = 6;

fn vip(v6: bool) -> IpAddr {
    if v6 { "2001:db8::1".parse().unwrap() } else { [192, 0, 2, 1].into() }
}

fn client(v6: bool, n: u8) -> SocketAddr {
    let ip: IpAddr =
        if v6 { format!("2001:db8:c::{n:x}").parse().unwrap() } else { [198, 51, 100, n].into() };
    SocketAddr::new(ip, 40_000 + u16::from(n))
}

/// One port, one router; VIPs of both families with tcp/80 and udp/53, two backends each; both
/// services of a family share their backends' addresses.
fn spec() -> TablesSpec {
    let service = |id: u32, v6: bool, protocol, port| ServiceSpec {
        id: ServiceId(id),
        vip: vip(v6),
        protocol,
        port,
        scheduler: if id.is_multiple_of(2) { Scheduler::RoundRobin } else { Scheduler::Maglev },
        timeouts: Timeouts {
            syn_ms: 3_000,
            established_ms: 90_000,
            closing_ms: 2_000,
            udp_ms: 5_000,
        },
        backends: (0..2)
            .map(|n| BackendSpec {
                id: BackendId(2 * id + n),
                address: if v6 {
                    format!("2001:db8:2::{n}:1").parse().unwrap()
                } else {
                    [10, 2, 0, 1 + n as u8].into()
                },
                port: 8080,
                weight: 1,
                usable: true,
            })
            .collect(),
        removed: false,
    };
    let lip = |id, address: &str| LipSpec { id: LipId(id), address: address.parse().unwrap() };
    let gateways = ["10.0.0.1", "2001:db8:a::1"].map(|text| text.parse::<IpAddr>().unwrap());
    TablesSpec {
        epoch: 1,
        workers: WORKERS,
        ports: vec![PortSpec {
            id: PORT,
            mac: Mac(MAC),
            mtu: 1500,
            up: true,
            tx_ipv4_checksum: false,
            tx_l4_checksum: false,
        }],
        services: vec![
            service(0, false, Protocol::Tcp, 80),
            service(1, false, Protocol::Udp, 53),
            service(2, true, Protocol::Tcp, 80),
            service(3, true, Protocol::Udp, 53),
            service(4, false, Protocol::Tcp, 81),
        ],
        lips: vec![lip(0, "10.1.0.1"), lip(1, "2001:db8:1::1")],
        routes: ["0.0.0.0/0", "::/0"]
            .iter()
            .zip(0..)
            .map(|(prefix, n)| RouteSpec {
                prefix: prefix.parse().unwrap(),
                next_hops: vec![(NextHopId(n), 1)],
            })
            .collect(),
        next_hops: gateways
            .iter()
            .zip(0..)
            .map(|(&gateway, n)| NextHopSpec {
                id: NextHopId(n),
                port: PORT,
                gateway: Some(gateway),
            })
            .collect(),
        neighbours: gateways
            .iter()
            .map(|&address| NeighbourSpec { port: PORT, address, mac: Mac(ROUTER) })
            .collect(),
    }
}

#[derive(Debug, Clone)]
enum Step {
    /// A packet of this client to service `port` of its VIP.
    Request {
        v6: bool,
        client: u8,
        tcp: bool,
        other_port: bool,
        flags: u8,
    },
    /// The backend answers one of the packets it got.
    Reply {
        which: usize,
        flags: u8,
    },
    Pass {
        ms: u64,
    },
    Usable {
        service: usize,
        backend: usize,
    },
    Removed {
        service: usize,
    },
    /// The router's MAC is lost or found.
    Neighbour,
    /// The owner, another node, answers questions: about all flows alike.
    Answer {
        local_port: u16,
        backend: u8,
        has_it: bool,
    },
    /// A peer asks for this client's flow.
    Find {
        v6: bool,
        client: u8,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let flags = prop_oneof![
        4 => Just(0x02u8),
        3 => Just(0x10u8),
        2 => Just(0x12u8),
        2 => Just(0x11u8),
        1 => Just(0x14u8),
        1 => any::<u8>(),
    ];
    let reply_flags =
        prop_oneof![4 => Just(0x12u8), 3 => Just(0x10u8), 1 => Just(0x11u8), 1 => Just(0x04u8)];
    prop_oneof![
        12 => (any::<bool>(), 1u8..12, any::<bool>(), any::<bool>(), flags).prop_map(
            |(v6, client, tcp, other_port, flags)| Step::Request { v6, client, tcp, other_port, flags }
        ),
        8 => (any::<usize>(), reply_flags).prop_map(|(which, flags)| Step::Reply { which, flags }),
        3 => (0u64..4_000).prop_map(|ms| Step::Pass { ms }),
        1 => (0u64..200_000).prop_map(|ms| Step::Pass { ms }),
        1 => (0usize..5, 0usize..2).prop_map(|(service, backend)| Step::Usable { service, backend }),
        1 => (0usize..5).prop_map(|service| Step::Removed { service }),
        1 => Just(Step::Neighbour),
        6 => (0u16..3, 0u8..3, prop::bool::weighted(0.8)).prop_map(
            |(local_port, backend, has_it)| Step::Answer { local_port, backend, has_it }
        ),
        2 => (any::<bool>(), 1u8..12).prop_map(|(v6, client)| Step::Find { v6, client }),
    ]
}

/// The tuple of a TCP or UDP frame: protocol, source, destination.
type Seen = (bool, SocketAddr, SocketAddr);

fn read(frame: &[u8]) -> Seen {
    let v6 = frame[12..14] == [0x86, 0xdd];
    let (l4, tcp) = if v6 { (54, frame[20] == 6) } else { (34, frame[23] == 6) };
    let address = |at: usize| -> IpAddr {
        if v6 {
            IpAddr::from(<[u8; 16]>::try_from(&frame[22 + 16 * at..38 + 16 * at]).unwrap())
        } else {
            IpAddr::from(<[u8; 4]>::try_from(&frame[26 + 4 * at..30 + 4 * at]).unwrap())
        }
    };
    let port = |at: usize| u16::from_be_bytes([frame[l4 + at], frame[l4 + at + 1]]);
    (tcp, SocketAddr::new(address(0), port(0)), SocketAddr::new(address(1), port(2)))
}

fn build(tcp_: bool, from: SocketAddr, to: SocketAddr, flags: u8) -> Vec<u8> {
    if tcp_ { tcp(LINK, from, to, flags, b"x") } else { udp(LINK, from, to, b"x") }
}

/// The engine, and what a plain map says must happen.
struct World {
    spec: TablesSpec,
    tables: Tables,
    engine: Engine,
    stats: Arc<WorkerStats>,
    now: Now,
    /// Client side to backend side, of every flow as last seen.
    model: HashMap<Seen, Seen>,
    /// What the backends received.
    inside: Vec<Seen>,
    frames: u64,
    forwarded: u64,
}

impl World {
    fn new() -> Self {
        let stats = Arc::new(WorkerStats::new(8, 16));
        let config = EngineConfig {
            worker: WorkerId(5),
            workers: WORKERS,
            max_flows: MAX_FLOWS,
            seed: 99,
            steering: Steering::Software { rss: vec![true] },
        };
        let spec = spec();
        let mut engine = Engine::new(config, Arc::clone(&stats));
        let limits = SharingLimits { questions_per_second: 100, max_adopted: MAX_ADOPTED };
        engine.share_flows(limits);
        let mut world = Self {
            tables: Tables::build(&spec, None).unwrap(),
            spec,
            engine,
            stats,
            now: Now(7_000_000_000_000),
            model: HashMap::new(),
            inside: Vec::new(),
            frames: 0,
            forwarded: 0,
        };
        // The timers begin now.
        world.engine.tick(&world.tables, world.now);
        world
    }

    /// Forward one frame; if it left, what it became.
    fn forward(&mut self, frame: &[u8]) -> Option<Seen> {
        let mut frames = [frame.to_vec()];
        let mut verdicts = ArrayVec::<Verdict, BURST>::new();
        self.engine.forward_burst(
            &self.tables,
            self.now,
            PORT,
            Origin::Handover,
            &mut frames,
            &mut verdicts,
        );
        self.frames += 1;
        match verdicts[0] {
            Verdict::Transmit { .. } | Verdict::Wait { .. } => {
                self.forwarded += 1;
                assert!(checksums_good(&frames[0]), "{:02x?}", frames[0]);
                Some(read(&frames[0]))
            }
            Verdict::Drop(_) => None,
            // A reply to the owner of an adopted flow that has ended is none of our business.
            Verdict::Kernel if read(&frames[0]).2.port() < 6000 => {
                self.frames -= 1;
                None
            }
            other => panic!("{other:?}"),
        }
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Request { v6, client: n, tcp, other_port, flags } => {
                let port = match (tcp, other_port && !v6) {
                    (true, false) => 80,
                    (true, true) => 81,
                    (false, _) => 53,
                };
                let from = client(v6, n);
                let to = SocketAddr::new(vip(v6), port);
                let outside = (tcp, from, to);
                if let Some(inside) = self.forward(&build(tcp, from, to, flags)) {
                    self.model.insert(outside, inside);
                    self.inside.push(inside);
                }
            }
            Step::Reply { which, flags } => {
                let Some(at) = which.checked_rem(self.inside.len()) else {
                    return;
                };
                let (tcp, lip, backend) = self.inside[at];
                let sent = self.forward(&build(tcp, backend, lip, flags));
                if let Some((_, vip, client)) = sent {
                    // Whoever it was translated for must be who holds that LIP:port.
                    let expected = self.model.get(&(tcp, client, vip));
                    assert_eq!(expected, Some(&(tcp, lip, backend)), "reply to a stranger");
                }
            }
            Step::Pass { ms } => {
                self.now.0 += ms * 1_000_000;
                for _ in 0..20 {
                    self.engine.tick(&self.tables, self.now);
                }
            }
            Step::Usable { service, backend } => self.change(|spec| {
                let usable = &mut spec.services[service].backends[backend].usable;
                *usable = !*usable;
            }),
            Step::Removed { service } => self.change(|spec| {
                let removed = &mut spec.services[service].removed;
                *removed = !*removed;
            }),
            Step::Answer { local_port, backend, has_it } => {
                while let Some(key) = self.engine.next_question() {
                    if has_it {
                        self.answer(key, local_port, backend);
                    }
                }
            }
            Step::Find { v6, client: n } => {
                let (client, vip) = (client(v6, n), SocketAddr::new(vip(v6), 80));
                let found = self.engine.find_flow(&self.tables, self.now, &FlowKey { client, vip });
                if let Some(found) = found {
                    let inside = self.model.get(&(true, client, vip));
                    assert_eq!(inside, Some(&(true, found.lip, found.backend)));
                    assert_eq!(self.spec.lips[usize::from(v6)].address, found.lip.ip());
                }
            }
            Step::Neighbour => self.change(|spec| {
                if spec.neighbours.pop().is_none() {
                    spec.neighbours = self::spec().neighbours;
                }
            }),
        }
    }

    /// Another node has this flow, on one of a few ports and of the backends, one of them unknown.
    fn answer(&mut self, key: FlowKey, local_port: u16, backend: u8) {
        let v6 = key.vip.is_ipv6();
        let lip = if v6 { "2001:db8:9::7" } else { "10.9.0.7" };
        let lip = SocketAddr::new(lip.parse().unwrap(), 5000 + local_port);
        let backends = &self.spec.services[if v6 { 2 } else { 0 }].backends;
        let backend = match backends.get(usize::from(backend)) {
            Some(backend) => SocketAddr::new(backend.address, 8080),
            None => SocketAddr::new(lip.ip(), 9),
        };
        let mapping = FlowMapping { key, lip, backend, phase: FlowPhase::Established, idle_ms: 5 };
        if self.engine.adopt(&self.tables, self.now, 3, &mapping) {
            let inside = (true, lip, backend);
            self.model.retain(|_, other| *other != inside);
            self.model.insert((true, key.client, key.vip), inside);
            self.inside.push(inside);
        }
    }

    fn change(&mut self, change: impl FnOnce(&mut TablesSpec)) {
        change(&mut self.spec);
        self.spec.epoch += 1;
        self.tables = Tables::build(&self.spec, Some(&self.tables)).unwrap();
        self.engine.set_tables(&self.tables);
    }

    fn check(&self) {
        self.engine.flows.check();
        let stats = &self.stats;
        assert_eq!(self.frames, self.forwarded + stats.dropped(), "frames");
        let flows = u64::from(self.engine.flow_count());
        assert_eq!(stats.flows.get(), flows);
        let sharing = &stats.sharing;
        let own = flows - sharing.adopted.get();
        assert_eq!(u64::from(self.engine.pool.in_use()), own, "LIP:port leaked");
        assert!(sharing.adopted.get() <= MAX_ADOPTED.into());
        assert_eq!(self.engine.adoption.lips.flows(), sharing.adopted.get(), "foreign LIPs");
        assert_eq!(
            stats.flows_created.get() + sharing.adoptions.get(),
            flows
                + sharing.unconfirmed.get()
                + stats.flows_expired.get()
                + stats.flows_evicted.get()
                + stats.flows_replaced.get(),
            "flows"
        );
        let sum = |number: &dyn Fn(&stats::Usage) -> u64| -> (u64, u64) {
            let services = (0..8).filter_map(|id| stats.service(ServiceId(id)));
            let backends = (0..16).filter_map(|id| stats.backend(BackendId(id)));
            (services.map(number).sum(), backends.map(number).sum())
        };
        assert_eq!(sum(&|usage| usage.active.get()), (flows, flows), "active");
        let created = stats.flows_created.get();
        assert_eq!(sum(&|usage| usage.total.get()), (created, created));
        let forwarded = self.forwarded;
        let packets =
            |usage: &stats::Usage| usage.requests().packets.get() + usage.replies().packets.get();
        assert_eq!(sum(&packets), (forwarded, forwarded), "packets");
        self.check_views();
    }

    /// No LIP:port is in use twice toward one backend, no client tuple has two flows, and every
    /// flow is the one the model saw last.
    fn check_views(&self) {
        let mut views = Vec::new();
        let mut cursor = Some(0);
        while let Some(at) = cursor {
            cursor = self.engine.scan_flows(&self.tables, self.now, at, 3, &mut views);
        }
        assert_eq!(views.len() as u32, self.engine.flow_count());
        let mut outside = HashSet::new();
        let mut inside = HashSet::new();
        for view in &views {
            let tcp = view.protocol == Protocol::Tcp;
            match view.owner {
                None => assert_eq!(view.lip.port() % WORKERS, 5, "another worker's port"),
                owner => assert_eq!(owner, Some(3)),
            }
            assert!(outside.insert((tcp, view.client, view.vip)), "{view:?}");
            assert!(inside.insert((tcp, view.lip, view.backend)), "{view:?}");
            assert_eq!(
                self.model.get(&(tcp, view.client, view.vip)),
                Some(&(tcp, view.lip, view.backend)),
                "{view:?}"
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_sequence_leaves_the_flows_consistent(steps in prop::collection::vec(step(), 1..120)) {
        let mut world = World::new();
        for step in &steps {
            world.step(step);
            world.check();
        }
        // Everything ends, and nothing is left behind.
        world.step(&Step::Pass { ms: 200_000 });
        world.check();
        prop_assert_eq!(world.engine.flow_count(), 0);
    }

    /// A burst gives what its frames give one by one.
    #[test]
    fn bursts_are_like_single_frames(
        packets in prop::collection::vec((any::<bool>(), 1u8..6, any::<bool>(), any::<u8>()), 1..64),
    ) {
        let frame = |&(v6, n, tcp, flags): &(bool, u8, bool, u8)| {
            let port = if tcp { 80 } else { 53 };
            build(tcp, client(v6, n), SocketAddr::new(vip(v6), port), flags)
        };
        let frames: Vec<Vec<u8>> = packets.iter().map(frame).collect();
        let mut one = World::new();
        let mut all = World::new();
        let mut burst = frames.clone();
        let mut verdicts = ArrayVec::<Verdict, BURST>::new();
        all.engine.forward_burst(
            &all.tables, all.now, PORT, Origin::Handover, &mut burst, &mut verdicts,
        );
        for ((frame, verdict), result) in frames.iter().zip(&verdicts).zip(&burst) {
            let mut single = [frame.clone()];
            let mut single_verdict = ArrayVec::<Verdict, BURST>::new();
            one.engine.forward_burst(
                &one.tables, one.now, PORT, Origin::Handover, &mut single, &mut single_verdict,
            );
            prop_assert_eq!(single_verdict[0], *verdict);
            prop_assert_eq!(&single[0], result);
        }
        all.engine.flows.check();
    }
}

/// 64 bytes of record, 8 of hashes, and an index at its design load: with both directions,
/// everything.
#[test]
fn a_flow_costs_less_than_128_bytes() {
    for flows in [1 << 16, 100_000, 1 << 20] {
        let stats = Arc::new(WorkerStats::new(1, 1));
        let config = EngineConfig {
            worker: WorkerId(0),
            workers: 1,
            max_flows: flows,
            seed: 1,
            steering: Steering::default(),
        };
        let each = Engine::new(config, stats).flow_memory() as f64 / f64::from(flows);
        assert!(each <= 128.0, "{flows} flows: {each} bytes each");
    }
}

/// Segments of an established connection that began elsewhere.
mod adoption {
    use super::*;

    const ACK: u8 = 0x10;
    const SYN: u8 = 0x02;
    const RST: u8 = 0x04;

    fn key(v6: bool, n: u8) -> FlowKey {
        FlowKey { client: client(v6, n), vip: SocketAddr::new(vip(v6), 80) }
    }

    fn mapping(v6: bool, n: u8, local_port: u16) -> FlowMapping {
        let (lip, backend) = if v6 {
            ("[2001:db8:9::7]", "[2001:db8:2::1:1]:8080")
        } else {
            ("10.9.0.7", "10.2.0.2:8080")
        };
        FlowMapping {
            key: key(v6, n),
            lip: format!("{lip}:{local_port}").parse().unwrap(),
            backend: backend.parse().unwrap(),
            phase: FlowPhase::Established,
            idle_ms: 0,
        }
    }

    fn segment(world: &mut World, v6: bool, n: u8, flags: u8) -> Option<Seen> {
        let FlowKey { client, vip } = key(v6, n);
        world.forward(&build(true, client, vip, flags))
    }

    fn adopt(world: &mut World, mapping: FlowMapping) -> bool {
        world.engine.adopt(&world.tables, world.now, 3, &mapping)
    }

    fn pass(world: &mut World, ms: u64) {
        world.step(&Step::Pass { ms });
    }

    fn questions(world: &mut World) -> Vec<FlowKey> {
        std::iter::from_fn(|| world.engine.next_question()).collect()
    }

    #[test]
    fn a_flow_is_asked_for_once_and_goes_on_with_its_owners_lip() {
        for v6 in [false, true] {
            let mut world = World::new();
            for _ in 0..3 {
                assert_eq!(segment(&mut world, v6, 1, ACK), None);
            }
            assert_eq!(world.stats.drops(DropReason::AskedPeers), 3);
            assert_eq!(questions(&mut world), [key(v6, 1)]);
            let mapping = mapping(v6, 1, 5000);
            assert!(adopt(&mut world, mapping));
            let inside = (true, mapping.lip, mapping.backend);
            assert_eq!(segment(&mut world, v6, 1, ACK), Some(inside));
            // Tables change under it: nothing of it is ours but the names of service and backend.
            world.step(&Step::Neighbour);
            world.step(&Step::Neighbour);
            world.change(|spec| spec.lips.clear());
            assert_eq!(segment(&mut world, v6, 1, ACK), Some(inside));
            let mut views = Vec::new();
            world.engine.scan_flows(&world.tables, world.now, 0, 100, &mut views);
            assert_eq!((views[0].owner, views[0].lip), (Some(3), mapping.lip));
            assert_eq!(world.engine.pool.in_use(), 0);
            assert_eq!(world.engine.find_flow(&world.tables, world.now, &key(v6, 1)), None);
        }
    }

    #[test]
    fn an_unknown_flow_is_asked_for_again_only_after_a_while() {
        let mut world = World::new();
        segment(&mut world, false, 1, ACK);
        assert_eq!(questions(&mut world).len(), 1);
        pass(&mut world, 900);
        segment(&mut world, false, 1, ACK);
        assert_eq!(questions(&mut world).len(), 0);
        pass(&mut world, 200);
        segment(&mut world, false, 1, ACK);
        assert_eq!(questions(&mut world).len(), 1);
    }

    #[test]
    fn what_is_not_the_middle_of_a_connection_is_not_asked_for() {
        let mut world = World::new();
        for flags in [SYN | ACK, SYN | RST] {
            assert_eq!(segment(&mut world, false, 1, flags), None);
        }
        assert_eq!(world.stats.drops(DropReason::NotSyn), 2);
        // From one of our own addresses.
        let from = SocketAddr::new(vip(false), 1);
        world.forward(&build(true, from, key(false, 1).vip, ACK));
        assert_eq!(world.stats.drops(DropReason::BadSource), 1);
        assert_eq!(questions(&mut world), []);
    }

    #[test]
    fn a_flood_costs_a_bounded_number_of_questions() {
        let mut world = World::new();
        let vip = key(false, 1).vip;
        let mut asked = 0;
        for second in 0..3u64 {
            for n in 0..5_000u32 {
                let from = SocketAddr::from(([198, 18, second as u8, 1], n as u16));
                world.forward(&build(true, from, vip, ACK));
                if n % 64 == 0 {
                    asked += questions(&mut world).len();
                }
            }
            asked += questions(&mut world).len();
            pass(&mut world, 1_000);
        }
        // A hundred at once, and a hundred each second.
        assert!((250..=310).contains(&asked), "{asked}");
        assert_eq!(world.stats.sharing.asked.get(), asked as u64);
        assert_eq!(world.stats.sharing.not_asked.get(), 15_000 - asked as u64);
        assert_eq!(world.engine.flow_count(), 0);
    }

    #[test]
    fn a_lease_is_renewed_by_the_owner_or_ends() {
        for v6 in [false, true] {
            let mut world = World::new();
            let mapping = mapping(v6, 1, 5000);
            assert!(adopt(&mut world, mapping));
            for _ in 0..5 {
                pass(&mut world, 29_000);
                assert_eq!(questions(&mut world), []);
                assert!(segment(&mut world, v6, 1, ACK).is_some());
                pass(&mut world, 1_500);
                assert_eq!(questions(&mut world), [key(v6, 1)]);
                assert!(segment(&mut world, v6, 1, ACK).is_some(), "while the owner is asked");
                assert!(adopt(&mut world, mapping));
            }
            assert_eq!(world.stats.sharing.adoptions.get(), 1);
            pass(&mut world, 31_000);
            assert!(segment(&mut world, v6, 1, ACK).is_some());
            pass(&mut world, 3_000);
            assert_eq!(world.stats.sharing.unconfirmed.get(), 1);
            assert_eq!(world.engine.flow_count(), 0);
            world.check();
        }
    }

    #[test]
    fn an_idle_or_closed_one_expires_like_any_other() {
        let mut world = World::new();
        assert!(adopt(&mut world, mapping(false, 1, 5000)));
        assert!(segment(&mut world, false, 1, RST).is_some());
        pass(&mut world, 2_500);
        assert_eq!((world.engine.flow_count(), world.stats.flows_expired.get()), (0, 1));
        world.check();
    }

    #[test]
    fn a_syn_makes_the_owner_confirm_and_kills_nothing() {
        let mut world = World::new();
        let mapping = mapping(false, 1, 5000);
        assert!(adopt(&mut world, mapping));
        let inside = Some((true, mapping.lip, mapping.backend));
        assert_eq!(segment(&mut world, false, 1, SYN), inside);
        assert_eq!(segment(&mut world, false, 1, SYN), inside);
        assert_eq!(questions(&mut world), [mapping.key]);
        assert!(adopt(&mut world, mapping));
        pass(&mut world, 3_000);
        assert_eq!(segment(&mut world, false, 1, SYN), inside);
        assert_eq!(questions(&mut world).len(), 1);
        // The owner has it no more: the next SYN begins a flow of our own.
        pass(&mut world, 3_000);
        let own = segment(&mut world, false, 1, SYN).unwrap();
        assert_eq!(own.1.ip().to_string(), "10.1.0.1");
        world.model.insert((true, mapping.key.client, mapping.key.vip), own);
        world.check_views();
    }

    #[test]
    fn the_latest_word_of_the_owner_counts() {
        let mut world = World::new();
        assert!(adopt(&mut world, mapping(false, 1, 5000)));
        assert!(adopt(&mut world, mapping(false, 1, 5001)), "the same client, another port");
        assert!(adopt(&mut world, mapping(false, 2, 5001)), "another client has the port now");
        assert_eq!(segment(&mut world, false, 1, ACK), None);
        assert_eq!(segment(&mut world, false, 2, ACK).unwrap().1.port(), 5001);
        assert_eq!((world.engine.flow_count(), world.stats.flows_replaced.get()), (1, 2));
    }

    #[test]
    fn what_does_not_fit_here_is_refused() {
        let good = mapping(false, 1, 5000);
        let socket = |text: &str| text.parse::<SocketAddr>().unwrap();
        let cases = [
            ("our own LIP", FlowMapping { lip: socket("10.1.0.1:5000"), ..good }),
            ("a VIP as LIP", FlowMapping { lip: socket("192.0.2.1:5000"), ..good }),
            ("no host as LIP", FlowMapping { lip: socket("224.0.0.1:5000"), ..good }),
            ("an unknown backend", FlowMapping { backend: socket("10.2.0.9:8080"), ..good }),
            ("another port of it", FlowMapping { backend: socket("10.2.0.2:8081"), ..good }),
            ("mixed families", FlowMapping { lip: mapping(true, 1, 5000).lip, ..good }),
        ];
        let mut world = World::new();
        for (name, mapping) in cases {
            assert!(!adopt(&mut world, mapping), "{name}");
        }
        let mut unknown = good;
        unknown.key.vip.set_port(82);
        assert!(!adopt(&mut world, unknown), "no such service");
        assert_eq!(world.stats.sharing.refused.get(), 7);
        // A flow of our own stays.
        let own = segment(&mut world, false, 1, SYN);
        assert!(!adopt(&mut world, good));
        assert_eq!(segment(&mut world, false, 1, ACK), own);
        for n in 2..2 + MAX_ADOPTED as u8 {
            assert!(adopt(&mut world, mapping(false, n, 6000 + u16::from(n))));
        }
        assert!(!adopt(&mut world, mapping(false, 11, 7000)), "too many");
    }

    /// Its handshake may have ended at the node that asks.
    #[test]
    fn a_half_open_flow_that_is_asked_for_is_open() {
        let mut world = World::new();
        let (tcp, lip, backend) = segment(&mut world, true, 1, SYN).unwrap();
        let find =
            |world: &mut World| world.engine.find_flow(&world.tables, world.now, &key(true, 1));
        assert_eq!(find(&mut world), None, "the backend has not answered");
        world.forward(&build(tcp, backend, lip, SYN | ACK)).unwrap();
        let found = find(&mut world).unwrap();
        assert_eq!((found.lip, found.backend, found.phase), (lip, backend, FlowPhase::Established));
        pass(&mut world, 60_000);
        assert_eq!(world.engine.flow_count(), 1, "it does not expire like a half-open one");
        assert_eq!(world.stats.flows_half_open.get(), 0);
    }
}

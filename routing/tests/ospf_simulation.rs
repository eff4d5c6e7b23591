//! Three to five OSPF routers on point-to-point links and broadcast segments, over a virtual clock
//! and links that lose, delay, reorder and double packets: hundreds of seeded runs for OSPFv2 and
//! OSPFv3. When the links are good again, every database is the same and holds exactly what is
//! announced. A failing run prints its seed; `DUNLIN_SEED=n` replays it alone,
//! `DUNLIN_RUNS=n` runs more seeds.

use routing::ospf::auth::{Algorithm, Auth, Key};
use routing::ospf::instance::{Instance, Link, Transmit};
use routing::ospf::lsa::{MAX_AGE, v2, v3};
use routing::ospf::{AreaKind, Config, InterfaceConfig, NetworkKind, Version, neighbor};
use routing::{Announcement, OspfAttributes, OspfKind, Wanted};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

/// SplitMix64.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// A link and the routers on it. The interface index is the segment's number plus 1 everywhere.
struct Segment {
    network: NetworkKind,
    members: Vec<usize>,
}

/// A packet on its way: to whom, interface, source, destination.
type Flying = (usize, u32, IpAddr, IpAddr, Vec<u8>);

struct World {
    version: Version,
    now: Duration,
    routers: Vec<Instance>,
    wanted: Vec<Wanted>,
    segments: Vec<Segment>,
    auth: Auth,
    loss_percent: u64,
    double_percent: u64,
    jitter_us: u64,
    /// By arrival and a running number.
    flying: BTreeMap<(Duration, u64), Flying>,
    sent: u64,
    rng: Rng,
}

const SECOND: Duration = Duration::from_secs(1);

fn address(version: Version, segment: usize, router: usize) -> IpAddr {
    match version {
        Version::V2 => Ipv4Addr::new(10, 0, segment as u8, router as u8 + 1).into(),
        Version::V3 => {
            Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, segment as u16, router as u16 + 1).into()
        }
    }
}

fn name(segment: usize) -> String {
    format!("eth{segment}")
}

impl World {
    fn new(seed: u64, version: Version) -> Self {
        let mut rng = Rng(seed);
        let count = 3 + rng.below(3) as usize;
        let mut segments = Vec::new();
        if rng.chance(50) {
            // Everyone on one wire, and perhaps a second.
            segments
                .push(Segment { network: NetworkKind::Broadcast, members: (0..count).collect() });
            if rng.chance(50) {
                segments.push(Segment {
                    network: NetworkKind::PointToPoint,
                    members: vec![0, count - 1],
                });
            }
        } else {
            // A chain, perhaps a ring: LSAs travel over several hops.
            for n in 0..count - 1 {
                let network =
                    if rng.chance(30) { NetworkKind::Broadcast } else { NetworkKind::PointToPoint };
                segments.push(Segment { network, members: vec![n, n + 1] });
            }
            if rng.chance(50) {
                segments.push(Segment {
                    network: NetworkKind::PointToPoint,
                    members: vec![0, count - 1],
                });
            }
        }
        let auth = if rng.chance(50) {
            let algorithm = match version {
                Version::V2 => Algorithm::Md5,
                Version::V3 => Algorithm::HmacSha256,
            };
            Auth::Crypto(vec![Key { id: 1, algorithm, secret: b"tern".to_vec() }])
        } else {
            Auth::None
        };
        let mut world = Self {
            version,
            now: Duration::ZERO,
            routers: Vec::new(),
            wanted: vec![Wanted::new(); count],
            segments,
            auth,
            loss_percent: 0,
            double_percent: 0,
            jitter_us: 0,
            flying: BTreeMap::new(),
            sent: 0,
            rng,
        };
        for router in 0..count {
            let instance = world.boot(router);
            world.routers.push(instance);
        }
        world.drain();
        world
    }

    /// A router that has just started and remembers nothing.
    fn boot(&mut self, router: usize) -> Instance {
        let on: Vec<usize> = (0..self.segments.len())
            .filter(|n| self.segments[*n].members.contains(&router))
            .collect();
        let interfaces = on.iter().map(|n| InterfaceConfig {
            network: self.segments[*n].network,
            // The first two on a wire compete, the others look on.
            priority: u8::from(
                self.segments[*n].members.iter().position(|m| *m == router) < Some(2),
            ),
            hello_interval: 2,
            dead_interval: 8,
            retransmit_interval: 2,
            auth: self.auth.clone(),
            ..InterfaceConfig::new(&name(*n))
        });
        let config = Config {
            version: self.version,
            router_id: Ipv4Addr::new(1, 1, 1, router as u8 + 1),
            area: Ipv4Addr::UNSPECIFIED,
            area_kind: AreaKind::Normal,
            interfaces: interfaces.collect(),
        };
        config.check().unwrap();
        let mut instance = Instance::new(&config, self.rng.next(), 1_000_000);
        for n in on {
            instance.set_link(&name(n), Some(self.link(n, router, true)), self.now);
        }
        instance.set_wanted(&self.wanted[router], self.now);
        instance
    }

    fn link(&self, segment: usize, router: usize, up: bool) -> Link {
        let own = address(self.version, segment, router);
        let (v4, link_local) = match own {
            IpAddr::V4(v4) => (Some(ipnet::Ipv4Net::new(v4, 24).unwrap()), None),
            IpAddr::V6(v6) => (None, Some(v6)),
        };
        let global = Ipv6Addr::new(0xfd00, 0, 0, segment as u16, 0, 0, 0, router as u16 + 1);
        let v6 = vec![ipnet::Ipv6Net::new(global, 64).unwrap()];
        Link { index: segment as u32 + 1, up, mtu: 1500, v4, link_local, v6 }
    }

    fn drain(&mut self) {
        for from in 0..self.routers.len() {
            while let Some(transmit) = self.routers[from].poll_transmit() {
                self.carry(from, &transmit);
            }
            while self.routers[from].poll_event().is_some() {}
        }
    }

    fn carry(&mut self, from: usize, transmit: &Transmit) {
        let n = transmit.interface as usize - 1;
        assert!(transmit.bytes.len() <= 1480, "fits the MTU");
        for to in self.segments[n].members.clone() {
            let own = address(self.version, n, to);
            let multicast = transmit.destination.is_multicast();
            if to == from || (!multicast && transmit.destination != own) {
                continue;
            }
            for _ in 0..=u64::from(self.rng.chance(self.double_percent)) {
                if self.rng.chance(self.loss_percent) {
                    continue;
                }
                let delay = Duration::from_micros(100 + self.rng.below(self.jitter_us + 1));
                self.sent += 1;
                let source = address(self.version, n, from);
                let packet =
                    (to, transmit.interface, source, transmit.destination, transmit.bytes.clone());
                self.flying.insert((self.now + delay, self.sent), packet);
            }
        }
    }

    fn run(&mut self, end: Duration) {
        loop {
            let arrival = self.flying.keys().next().map(|(at, _)| *at);
            let timers = self.routers.iter().filter_map(Instance::next_timeout).min();
            let Some(next) = arrival.into_iter().chain(timers).min() else { break };
            let next = next.max(self.now);
            if next > end {
                break;
            }
            self.now = next;
            if arrival.is_some_and(|at| at <= next) {
                let (_, packet) = self.flying.pop_first().unwrap();
                let (to, index, source, destination, bytes) = packet;
                // Refusals (an old sequence number, a stranger) are part of the play.
                let _ =
                    self.routers[to].handle_packet(index, source, destination, &bytes, self.now);
            } else {
                for router in &mut self.routers {
                    if router.next_timeout().is_some_and(|at| at <= next) {
                        router.handle_timeout(next);
                    }
                }
            }
            self.drain();
        }
        self.now = end;
    }

    fn announce(&mut self, router: usize, number: u8, there: bool) {
        let prefix = match self.version {
            Version::V2 => format!("192.0.2.{number}/32"),
            Version::V3 => format!("2001:db8::{number}/128"),
        };
        let prefix = prefix.parse().unwrap();
        if there {
            let kind = if number.is_multiple_of(2) { OspfKind::Stub } else { OspfKind::External2 };
            let ospf = Some(OspfAttributes { cost: 5 + u32::from(number), kind });
            self.wanted[router].insert(prefix, Announcement { ospf, ..Announcement::default() });
        } else {
            self.wanted[router].remove(&prefix);
        }
        let wanted = self.wanted[router].clone();
        self.routers[router].set_wanted(&wanted, self.now);
        self.drain();
    }

    /// Every database is the same, and holds the announced externals and no others.
    fn check(&self) {
        let content = |router: &Instance| -> BTreeMap<_, _> {
            let alive = router
                .database()
                .iter()
                .filter(|(key, entry)| key.link == 0 && entry.header(self.now).age < MAX_AGE);
            alive
                .map(|(key, e)| (key.lsa, (e.lsa().header.sequence, e.lsa().body().to_vec())))
                .collect()
        };
        let first = content(&self.routers[0]);
        for router in &self.routers[1..] {
            let other = content(router);
            let keys: BTreeSet<_> = first.keys().chain(other.keys()).collect();
            for key in keys {
                assert_eq!(first.get(key), other.get(key), "databases differ in {key:?}");
            }
        }
        let (router_kind, external) = match self.version {
            Version::V2 => (v2::ROUTER, v2::EXTERNAL),
            Version::V3 => (v3::ROUTER, v3::EXTERNAL),
        };
        let count = |kind| first.keys().filter(|key| key.kind == kind).count();
        assert_eq!(count(router_kind), self.routers.len(), "a router-LSA of each");
        let wanted: usize = self
            .wanted
            .iter()
            .flat_map(Wanted::values)
            .filter(|a| a.ospf.as_ref().is_some_and(|o| o.kind == OspfKind::External2))
            .count();
        assert_eq!(count(external), wanted, "externals");
        for (n, segment) in self.segments.iter().enumerate() {
            for member in &segment.members {
                let status = self.routers[*member].status(self.now);
                let interface = status.interfaces.iter().find(|i| i.name == name(n)).unwrap();
                let full = |s: neighbor::State| s == neighbor::State::Full;
                let adjacent = interface.neighbors.iter().filter(|s| full(s.state)).count();
                assert_eq!(interface.neighbors.len(), segment.members.len() - 1);
                let least = if segment.network == NetworkKind::Broadcast {
                    2.min(segment.members.len() - 1)
                } else {
                    1
                };
                assert!(adjacent >= least, "{member} on {n}: {:?}", interface.neighbors);
            }
        }
    }
}

fn seeds(count: u64, play: impl Fn(u64) + std::panic::RefUnwindSafe) {
    let number = |name| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let count = number("DUNLIN_RUNS").unwrap_or(count);
    let range = number("DUNLIN_SEED").map_or(0..count, |seed| seed..seed + 1);
    for seed in range {
        let outcome = std::panic::catch_unwind(|| play(seed));
        assert!(outcome.is_ok(), "failed with DUNLIN_SEED={seed}");
    }
}

/// Trouble, then good links: everyone agrees.
fn play(seed: u64, version: Version) {
    let mut world = World::new(seed, version);
    world.loss_percent = world.rng.below(40);
    world.double_percent = world.rng.below(20);
    world.jitter_us = world.rng.below(200_000);
    let count = world.routers.len();
    for _ in 0..25 {
        let pause = Duration::from_millis(world.rng.below(8_000));
        world.run(world.now + pause);
        let router = world.rng.below(count as u64) as usize;
        match world.rng.below(10) {
            0..=3 => {
                // Prefixes belong to one router each, so that they can be counted.
                let number = (router * 20) as u8 + world.rng.below(20) as u8;
                world.announce(router, number, true);
            }
            4..=6 => {
                let number = (router * 20) as u8 + world.rng.below(20) as u8;
                world.announce(router, number, false);
            }
            7 => {
                // A crash: nothing is said, nothing remembered.
                let instance = world.boot(router);
                world.routers[router] = instance;
                world.drain();
            }
            _ => {
                let n = world.rng.below(world.segments.len() as u64) as usize;
                if world.segments[n].members.contains(&router) {
                    let up = world.rng.chance(50);
                    let link = world.link(n, router, up);
                    let now = world.now;
                    world.routers[router].set_link(&name(n), Some(link), now);
                    world.drain();
                }
            }
        }
    }
    (world.loss_percent, world.double_percent, world.jitter_us) = (0, 0, 0);
    for n in 0..world.segments.len() {
        for member in world.segments[n].members.clone() {
            let link = world.link(n, member, true);
            let now = world.now;
            world.routers[member].set_link(&name(n), Some(link), now);
        }
    }
    world.drain();
    world.run(world.now + 60 * SECOND);
    world.check();
    // An hour and a half later the same still holds: refreshed, nothing aged out.
    if seed.is_multiple_of(10) {
        world.run(world.now + 5_400 * SECOND);
        world.check();
    }
    // One router says goodbye in good order: nothing of it is left.
    let now = world.now;
    let leaving = world.rng.below(count as u64) as usize;
    let id = u32::from(Ipv4Addr::new(1, 1, 1, leaving as u8 + 1));
    world.routers[leaving].shutdown(now);
    world.drain();
    world.run(now + 3 * SECOND);
    assert!(world.routers[leaving].is_withdrawn());
    for (n, router) in world.routers.iter().enumerate() {
        let left: Vec<_> =
            router.database().iter().filter(|(key, _)| key.lsa.router == id).collect();
        assert!(left.is_empty(), "router {n} keeps {left:?}");
    }
}

#[test]
fn v2_routers_agree_once_the_links_are_good() {
    seeds(400, |seed| play(seed, Version::V2));
}

#[test]
fn v3_routers_agree_once_the_links_are_good() {
    seeds(400, |seed| play(seed, Version::V3));
}

//! Two BGP sessions over a virtual clock and simulated TCP: connections that take their time,
//! break, stall and cross each other (simultaneous opens), while the wanted announcements change
//! on both sides. Thousands of seeded runs; each must end Established on exactly one connection,
//! stay so, and leave in each side's Adj-RIB-In exactly what the other wants announced. A failing
//! run prints its seed; `DUNLIN_SEED=n` replays it alone.

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use routing::bgp::config::{Import, LocalConfig, NeighborConfig, PrefixMatch, RemoteAs};
use routing::bgp::fsm::State;
use routing::bgp::session::{ConnId, Endpoints, Output, Session};
use routing::{Announcement, Wanted};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

const CHAOS: Duration = Duration::from_secs(60);
/// Until this long after the last disturbance all must be well.
const PATIENCE: Duration = Duration::from_secs(90);
/// And stay so.
const CALM: Duration = Duration::from_secs(200);

/// SplitMix64.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// What reaches a side, in the order it was sent within a connection.
#[derive(Debug)]
enum Arrival {
    Connected,
    Refused,
    Accept,
    Bytes(Vec<u8>),
    Closed,
}

/// A connection: index 0 is the dialler's end.
#[derive(Debug)]
struct Pipe {
    sides: [usize; 2],
    ids: [Option<ConnId>; 2],
    /// Bytes on their way to each end, at most `WINDOW`.
    in_flight: [usize; 2],
    /// Nothing overtakes: the last arrival planned at each end.
    last: [Instant; 2],
}

#[derive(Debug)]
enum Happening {
    Arrival {
        pipe: usize,
        end: usize,
        what: Arrival,
    },
    Reset,
    Stall,
    Change(usize),
    /// The process dies and is started again; it knows nothing of what it announced.
    Crash(usize),
    /// It has found out what it wants.
    Settled(usize),
}

struct Side {
    config: NeighborConfig,
    local: LocalConfig,
    session: Session,
    wanted: Wanted,
    address: SocketAddr,
}

struct World {
    rng: Rng,
    now: Instant,
    sides: [Side; 2],
    pipes: Vec<Pipe>,
    queue: BTreeMap<(Instant, u64), Happening>,
    sequence: u64,
    max_delay_ms: u64,
    window: usize,
    stalled_until: Instant,
    log: Vec<String>,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = Rng(seed);
        let now = Instant::now();
        let internal = rng.chance(30);
        let passive = rng.below(3);
        let ids = match rng.below(3) {
            0 => [1, 2],
            1 => [2, 1],
            // RFC 6286: neighbours in different ASes may share an identifier.
            _ => [7, if internal { 8 } else { 7 }],
        };
        let hold = [3, 9, 90, 0][rng.below(4) as usize];
        let extended_next_hop = rng.chance(30);
        let asn = [65001, if internal { 65001 } else { 4_200_000_000 }];
        let sides = [0, 1].map(|n| {
            let other = 1 - n;
            let mut config = NeighborConfig::new(address(other).ip(), RemoteAs::Exact(asn[other]));
            config.passive = passive == n as u64;
            config.hold_time = Duration::from_secs(hold);
            config.connect_retry = Duration::from_secs(1 + rng.below(20));
            config.extended_next_hop = extended_next_hop;
            config.import = Import::Prefixes(
                ["0.0.0.0/0", "::/0"]
                    .map(|p| PrefixMatch { max_len: 128, ..PrefixMatch::exact(p.parse().unwrap()) })
                    .into(),
            );
            let local = LocalConfig { asn: asn[n], router_id: Ipv4Addr::from(ids[n]) };
            config.graceful_restart = rng.chance(50).then(|| 1 + rng.below(120) as u16);
            let wanted = wanted(&mut rng);
            let first = Arc::new(wanted.clone());
            let session = Session::new(config.clone(), local, first, rng.next(), now);
            Side { config, local, session, wanted, address: address(n) }
        });
        let mut world = Self {
            max_delay_ms: [0, 2, 50, 200][rng.below(4) as usize],
            window: [40, 1000, 100_000][rng.below(3) as usize],
            rng,
            now,
            sides,
            pipes: Vec::new(),
            queue: BTreeMap::new(),
            sequence: 0,
            stalled_until: now,
            log: Vec::new(),
        };
        for _ in 0..world.rng.below(8) {
            let at = world.now + Duration::from_millis(world.rng.below(CHAOS.as_millis() as u64));
            let what = match world.rng.below(7) {
                0 | 1 => Happening::Reset,
                2 => Happening::Stall,
                n @ (3 | 4) => Happening::Change(n as usize - 3),
                n => Happening::Crash(n as usize - 5),
            };
            world.plan(at, what);
        }
        for side in [0, 1] {
            let at = world.now + Duration::from_millis(world.rng.below(5000));
            world.plan(at, Happening::Settled(side));
        }
        world
    }

    fn plan(&mut self, at: Instant, what: Happening) {
        self.sequence += 1;
        self.queue.insert((at, self.sequence), what);
    }

    fn send(&mut self, pipe: usize, end: usize, what: Arrival) {
        let delay = Duration::from_millis(self.rng.below(self.max_delay_ms + 1));
        let start = self.now.max(self.stalled_until);
        let at = (start + delay).max(self.pipes[pipe].last[end]);
        self.pipes[pipe].last[end] = at;
        self.plan(at, Happening::Arrival { pipe, end, what });
    }

    /// Runs until `end`, or until `done`.
    fn run(&mut self, end: Instant, done: impl Fn(&Self) -> bool) -> bool {
        for _ in 0..2_000_000 {
            self.settle();
            if done(self) {
                return true;
            }
            let event = self.queue.first_key_value().map(|((at, _), _)| *at);
            let timer = self.sides.iter().filter_map(|s| s.session.poll_timeout()).min();
            let Some(next) = event.into_iter().chain(timer).min().filter(|t| *t <= end) else {
                self.now = end;
                return false;
            };
            self.now = self.now.max(next);
            if event == Some(next) {
                let (_, what) = self.queue.pop_first().unwrap();
                self.happen(what);
            } else {
                for side in &mut self.sides {
                    side.session.handle_timeout(self.now);
                }
            }
        }
        panic!("the clock stands still");
    }

    fn happen(&mut self, what: Happening) {
        match what {
            Happening::Arrival { pipe, end, what } => self.arrive(pipe, end, what),
            Happening::Reset => {
                for pipe in 0..self.pipes.len() {
                    for end in [0, 1] {
                        if self.pipes[pipe].ids[end].is_some() {
                            self.send(pipe, end, Arrival::Closed);
                        }
                    }
                }
            }
            Happening::Stall => {
                let ms = self.rng.below(20_000);
                let until = self.now + Duration::from_millis(ms);
                self.stalled_until = self.stalled_until.max(until);
            }
            Happening::Change(side) => {
                let wanted = wanted(&mut self.rng);
                self.sides[side].wanted = wanted.clone();
                self.sides[side].session.handle_wanted(Arc::new(wanted), self.now);
            }
            Happening::Crash(side) => self.crash(side),
            Happening::Settled(side) => {
                let Side { session, wanted, .. } = &mut self.sides[side];
                session.handle_wanted(Arc::new(wanted.clone()), self.now);
                session.handle_settled(self.now);
            }
        }
    }

    fn crash(&mut self, side: usize) {
        for pipe in 0..self.pipes.len() {
            for end in [0, 1] {
                let mine = self.pipes[pipe].sides[end] == side;
                if mine && self.pipes[pipe].ids[end].take().is_some() {
                    self.send(pipe, 1 - end, Arrival::Closed);
                }
            }
        }
        let Side { config, local, .. } = &self.sides[side];
        let (config, local, seed) = (config.clone(), *local, self.rng.next());
        self.sides[side].session = Session::new(config, local, Arc::default(), seed, self.now);
        self.log.push(format!("{:?} side {side}: crash", self.now));
        let at = self.now + Duration::from_millis(self.rng.below(5000));
        self.plan(at, Happening::Settled(side));
    }

    fn arrive(&mut self, pipe: usize, end: usize, what: Arrival) {
        let side = self.pipes[pipe].sides[end];
        let session = &mut self.sides[side].session;
        let Some(id) = self.pipes[pipe].ids[end] else {
            if matches!(what, Arrival::Accept) {
                let endpoints = self.endpoints(side);
                let id = self.sides[side].session.handle_accepted(endpoints, self.now);
                self.pipes[pipe].ids[end] = id;
                if id.is_none() {
                    self.send(pipe, 1 - end, Arrival::Closed);
                }
            } else if matches!(what, Arrival::Bytes(_)) {
                // RST: nobody here.
                self.send(pipe, 1 - end, Arrival::Closed);
            }
            return;
        };
        match what {
            Arrival::Connected => {
                let endpoints = self.endpoints(side);
                self.sides[side].session.handle_dialled(id, endpoints, self.now);
            }
            Arrival::Refused => {
                self.pipes[pipe].ids[end] = None;
                session.handle_closed(id, "connection refused", self.now);
            }
            Arrival::Bytes(bytes) => {
                self.pipes[pipe].in_flight[end] -= bytes.len();
                session.handle_input(id, &bytes, self.now);
            }
            Arrival::Closed => {
                self.pipes[pipe].ids[end] = None;
                session.handle_closed(id, "connection reset", self.now);
            }
            Arrival::Accept => {}
        }
    }

    /// Does what the sessions ask for.
    fn settle(&mut self) {
        for side in [0, 1] {
            while let Some(output) = self.sides[side].session.poll_output() {
                match output {
                    Output::Dial(id) => self.dial(side, id),
                    Output::Close { id, last } => self.close(side, id, last),
                    Output::StateChanged { from, to, reason } => self
                        .log
                        .push(format!("{:?} side {side}: {from:?} -> {to:?}: {reason}", self.now)),
                    Output::RoutesChanged => {}
                }
            }
        }
        for pipe in 0..self.pipes.len() {
            for end in [0, 1] {
                self.transmit(pipe, end);
            }
        }
    }

    fn dial(&mut self, side: usize, id: ConnId) {
        let pipe = self.pipes.len();
        self.pipes.push(Pipe {
            sides: [side, 1 - side],
            ids: [Some(id), None],
            in_flight: [0; 2],
            last: [self.now; 2],
        });
        // During the chaos a SYN may be lost, or the other side not be there yet.
        let chaos = self.queue.values().any(|h| !matches!(h, Happening::Arrival { .. }));
        match self.rng.below(10) {
            0 if chaos => {}
            1 if chaos => self.send(pipe, 0, Arrival::Refused),
            _ => {
                self.send(pipe, 0, Arrival::Connected);
                let connected = self.pipes[pipe].last[0];
                self.pipes[pipe].last[1] = connected;
                self.send(pipe, 1, Arrival::Accept);
            }
        }
    }

    fn close(&mut self, side: usize, id: ConnId, last: Vec<u8>) {
        let found = self.pipes.iter().enumerate().find_map(|(n, p)| {
            let end = (0..2).find(|&e| p.sides[e] == side && p.ids[e] == Some(id))?;
            Some((n, end))
        });
        let (pipe, end) = found.expect("only what is open is closed");
        self.pipes[pipe].ids[end] = None;
        self.pipes[pipe].in_flight[1 - end] += last.len();
        self.send(pipe, 1 - end, Arrival::Bytes(last));
        self.send(pipe, 1 - end, Arrival::Closed);
    }

    fn transmit(&mut self, pipe: usize, end: usize) {
        let p = &self.pipes[pipe];
        let Some(id) = p.ids[end] else { return };
        let side = p.sides[end];
        loop {
            let room = self.window.saturating_sub(self.pipes[pipe].in_flight[1 - end]);
            let bytes = self.sides[side].session.poll_transmit(id);
            let n = bytes.len().min(room).min(1 + self.rng.below(3000) as usize);
            if n == 0 {
                return;
            }
            let bytes = bytes[..n].to_vec();
            self.sides[side].session.handle_transmitted(id, n, self.now);
            self.pipes[pipe].in_flight[1 - end] += n;
            self.send(pipe, 1 - end, Arrival::Bytes(bytes));
        }
    }

    fn endpoints(&self, side: usize) -> Endpoints {
        Endpoints {
            local: self.sides[side].address,
            remote: self.sides[1 - side].address,
            v4: None,
            v6: Some(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, side as u16 + 1)),
            link_local: None,
            interface: 1,
        }
    }

    fn converged(&self) -> bool {
        self.disagreement().is_none()
    }

    /// Why the run is not where it should be.
    fn disagreement(&self) -> Option<String> {
        for (side, other) in [(0, 1), (1, 0)] {
            let (session, peer) = (&self.sides[side].session, &self.sides[other].session);
            if session.state() != State::Established {
                return Some(format!("side {side} is {:?}", session.state()));
            }
            let wanted: BTreeMap<IpNet, u32> =
                self.sides[side].wanted.iter().map(|(p, a)| (*p, a.bgp.med.unwrap_or(0))).collect();
            let heard: BTreeMap<IpNet, u32> =
                peer.routes().iter().map(|(p, r)| (*p, r.med)).collect();
            if wanted != heard {
                return Some(format!("side {other} heard {heard:?}, wanted were {wanted:?}"));
            }
            let rib = session.adj_rib_out()?;
            if !rib.is_settled() || rib.told_count() != wanted.len() {
                return Some(format!("side {side} has more to say"));
            }
        }
        let open = self.pipes.iter().filter(|p| p.ids.iter().any(Option::is_some)).count();
        (open != 1).then(|| format!("{open} connections"))
    }
}

fn address(side: usize) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, side as u8 + 1)), 179)
}

/// Up to a few hundred prefixes of both families, with attributes that change.
fn wanted(rng: &mut Rng) -> Wanted {
    let count = [0, 3, 300][rng.below(3) as usize];
    let mut wanted = Wanted::new();
    for _ in 0..count {
        let n = rng.below(400) as u16;
        let prefix = if rng.chance(50) {
            IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::from(0x0a00_0000 + u32::from(n)), 32))
        } else {
            IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::new(0x2001, 0xdb8, n, 0, 0, 0, 0, 0), 48))
        };
        let mut announcement = Announcement::default();
        announcement.bgp.med = rng.chance(50).then(|| rng.below(3) as u32);
        announcement.bgp.communities = vec![(65535, 0); rng.below(2) as usize];
        wanted.insert(prefix, announcement);
    }
    wanted
}

fn run(seed: u64) {
    let mut world = World::new(seed);
    let start = world.now;
    let end_of_chaos = start + CHAOS;
    world.run(end_of_chaos, |_| false);
    let quiet = world.now.max(world.stalled_until) + Duration::from_secs(1);
    world.run(quiet, |_| false);
    let well = world.run(quiet + PATIENCE, World::converged);
    let fail = |world: &World, what: &str| {
        let log: Vec<&str> = world.log.iter().rev().take(30).rev().map(String::as_str).collect();
        panic!(
            "DUNLIN_SEED={seed}: {what}: {:?}\n{}\n{:#?}",
            world.disagreement(),
            log.join("\n"),
            world.pipes.iter().filter(|p| p.ids.iter().any(Option::is_some)).collect::<Vec<_>>(),
        );
    };
    if !well {
        fail(&world, "did not converge");
    }
    let counts = world.sides.each_ref().map(|s| s.session.established_count());
    let end = world.now + CALM;
    world.run(end, |_| false);
    let after = world.sides.each_ref().map(|s| s.session.established_count());
    if counts != after || !world.converged() {
        fail(&world, "did not stay well");
    }
}

#[test]
fn two_speakers_agree_whatever_the_network_does() {
    if let Ok(seed) = std::env::var("DUNLIN_SEED") {
        run(seed.parse().expect("DUNLIN_SEED is a number"));
        return;
    }
    for seed in 0..3000 {
        run(seed);
    }
}

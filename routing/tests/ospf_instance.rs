//! The rules of OSPF one by one, on two routers and one wire.

mod ospf_pair;

use ospf_pair::{Pair, address, link, router_id};
use routing::ospf::auth::Auth;
use routing::ospf::instance::{DropReason, Event, HelloMismatch, Link};
use routing::ospf::lsa::{INITIAL_SEQUENCE, Lsa, LsaKey, MAX_SEQUENCE, v2};
use routing::ospf::lsdb::DbKey;
use routing::ospf::packet::{Body, Header, Hello, Packet};
use routing::ospf::{AreaKind, InterfaceConfig, NetworkKind, Version, neighbor};
use routing::{Announcement, OspfAttributes, OspfKind, Wanted};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

fn pair(version: Version) -> Pair {
    let mut pair = Pair::new(version, NetworkKind::PointToPoint, AreaKind::Normal, &Auth::None);
    pair.run(20 * SECOND);
    assert!(pair.is_full());
    pair
}

fn interface() -> InterfaceConfig {
    InterfaceConfig {
        priority: 1,
        hello_interval: 1,
        dead_interval: 4,
        ..InterfaceConfig::new("eth0")
    }
}

fn give(pair: &mut Pair, to: usize, body: Body) -> Result<(), DropReason> {
    let header = Header { router_id: router_id(1 - to).into(), area_id: 0, instance_id: 0 };
    give_from(pair, to, header, body)
}

fn give_from(pair: &mut Pair, to: usize, header: Header, body: Body) -> Result<(), DropReason> {
    let mut bytes = Packet { header, body }.encode(pair.version);
    let unspecified = std::net::Ipv6Addr::UNSPECIFIED;
    Auth::None.sign(pair.version, &mut bytes, 0, (unspecified, unspecified));
    let (source, destination) = (address(pair.version, 1 - to), address(pair.version, to));
    let result = pair.sides[to].handle_packet(1, source, destination, &bytes, pair.now);
    pair.deliver();
    result
}

fn router_lsa(side: usize) -> DbKey {
    let id = u32::from(router_id(side));
    DbKey { link: 0, lsa: LsaKey { kind: v2::ROUTER, id, router: id } }
}

fn sequence(pair: &Pair, at: usize, key: &DbKey) -> Option<i32> {
    pair.sides[at].database().get(key).map(|entry| entry.lsa().header.sequence)
}

fn vip(prefix: &str, kind: OspfKind, cost: u32) -> Wanted {
    let ospf = Some(OspfAttributes { cost, kind });
    Wanted::from([(prefix.parse().unwrap(), Announcement { ospf, ..Announcement::default() })])
}

#[test]
fn packets_are_counted_where_they_leave() {
    for version in [Version::V2, Version::V3] {
        let mut pair = pair(version);
        // A second wire that nobody hears.
        let second = InterfaceConfig { name: "eth1".to_owned(), ..interface() };
        let now = pair.now;
        pair.sides[0].set_interfaces(&[interface(), second], now);
        let cable = Link { index: 2, ..link(version, 0) };
        pair.sides[0].set_link("eth1", Some(cable), now);
        pair.run(now + 15 * SECOND);
        let status = pair.sides[0].status(pair.now);
        let sent: Vec<u64> = status.interfaces.iter().map(|i| i.counters.sent).collect();
        for (index, count) in [(1, sent[0]), (2, sent[1])] {
            let seen = pair.sent.iter().filter(|(from, t)| *from == 0 && t.interface == index);
            assert_eq!(seen.count() as u64, count, "{version:?} {index}");
            assert!(count > 0, "{version:?} {index}");
        }
        assert_eq!(sent.iter().sum::<u64>(), status.counters.sent, "{version:?}");
    }
}

#[test]
fn withdrawal_leaves_in_the_same_instant() {
    for version in [Version::V2, Version::V3] {
        let mut pair = pair(version);
        pair.sent.clear();
        let before = pair.sides[1].database().len();
        let now = pair.now;
        pair.sides[0].set_wanted(&Wanted::new(), now);
        pair.deliver();
        let updates = pair.sent.iter().filter(|(from, t)| *from == 0 && t.bytes[1] == 4).count();
        assert_eq!(updates, 1, "all of it in one packet");
        pair.run(now + SECOND);
        assert!(pair.sides[1].database().len() < before);
    }
}

#[test]
fn many_prefixes_are_packed_by_the_mtu_and_all_arrive() {
    let mut pair = pair(Version::V2);
    let mut wanted = Wanted::new();
    for n in 0..10_000u32 {
        let prefix = format!("10.{}.{}.{}/32", 100 + n / 65536, n / 256 % 256, n % 256);
        wanted.extend(vip(&prefix, OspfKind::External2, 1));
    }
    pair.sent.clear();
    let now = pair.now;
    pair.sides[0].set_wanted(&wanted, now);
    pair.deliver();
    assert!(pair.sent.iter().all(|(_, transmit)| transmit.bytes.len() <= 1480));
    pair.run(now + 2 * SECOND);
    let externals = |pair: &Pair, side: usize| {
        let db = pair.sides[side].database();
        db.iter()
            .filter(|(key, _)| {
                key.lsa.kind == v2::EXTERNAL && key.lsa.router == u32::from(router_id(0))
            })
            .count()
    };
    assert_eq!(externals(&pair, 1), 10_000);
    let now = pair.now;
    pair.sides[0].set_wanted(&Wanted::new(), now);
    pair.deliver();
    pair.run(now + 2 * SECOND);
    assert_eq!((externals(&pair, 0), externals(&pair, 1)), (0, 0));
}

/// RFC 2328 §12.1.6, §13.4: a former life left the last sequence number but one.
#[test]
fn sequence_numbers_wrap_by_way_of_a_flush() {
    let mut pair = pair(Version::V2);
    let key = router_lsa(0);
    let old = Lsa::build(Version::V2, 2, key.lsa, MAX_SEQUENCE - 1, &[0, 0, 0, 0]).unwrap();
    give(&mut pair, 0, Body::Update(vec![old])).unwrap();
    assert_eq!(sequence(&pair, 0, &key), Some(MAX_SEQUENCE), "reissued over the old one");
    pair.run(pair.now + 3 * SECOND);
    assert_eq!(sequence(&pair, 1, &key), Some(MAX_SEQUENCE));
    let now = pair.now;
    pair.sides[0].set_wanted(&vip("192.0.2.77/32", OspfKind::Stub, 3), now);
    pair.deliver();
    pair.run(now + 10 * SECOND);
    for side in [0, 1] {
        let seen = sequence(&pair, side, &key).unwrap();
        assert!(seen < INITIAL_SEQUENCE + 5, "{seen:#x} on side {side}");
    }
    let body = pair.sides[1].database().get(&key).unwrap().lsa().body().to_vec();
    assert!(body.windows(4).any(|w| w == [192, 0, 2, 77]));
    assert!(pair.is_full());
}

#[test]
fn lsa_of_a_former_life_that_is_no_longer_wanted_is_flushed() {
    let mut pair = pair(Version::V2);
    let own = u32::from(router_id(0));
    let key = DbKey { link: 0, lsa: LsaKey { kind: v2::EXTERNAL, id: 0xcb00_7101, router: own } };
    let body = [255, 255, 255, 255, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0];
    let old = Lsa::build(Version::V2, 2, key.lsa, 5, &body).unwrap();
    give(&mut pair, 0, Body::Update(vec![old])).unwrap();
    pair.run(pair.now + 5 * SECOND);
    assert_eq!((sequence(&pair, 0, &key), sequence(&pair, 1, &key)), (None, None));
}

#[test]
fn spoilt_or_misplaced_lsas_are_not_installed() {
    let mut pair = pair(Version::V2);
    let other = u32::from(router_id(1));
    let lsa = |kind, id| Lsa::build(Version::V2, 2, LsaKey { kind, id, router: other }, 1, &[1]);
    let cases = [("unknown type", lsa(6, 1)), ("Type 7 outside an NSSA", lsa(v2::NSSA, 1))];
    let before = pair.sides[0].database().len();
    for (what, lsa) in cases {
        give(&mut pair, 0, Body::Update(vec![lsa.unwrap()])).unwrap();
        assert_eq!(pair.sides[0].database().len(), before, "{what}");
    }
    let mut bytes = Vec::new();
    lsa(v2::EXTERNAL, 9).unwrap().write(1, &mut bytes);
    *bytes.last_mut().unwrap() ^= 1;
    let (spoilt, _) = Lsa::parse(Version::V2, &bytes).unwrap();
    give(&mut pair, 0, Body::Update(vec![spoilt])).unwrap();
    assert_eq!(pair.sides[0].database().len(), before, "checksum");
    give(&mut pair, 0, Body::Update(vec![lsa(v2::EXTERNAL, 9).unwrap()])).unwrap();
    assert_eq!(pair.sides[0].database().len(), before + 1, "a good one is");
}

#[test]
fn hellos_that_disagree_make_no_neighbour() {
    let good = Hello {
        mask: 0xffff_ff00,
        interface_id: 0,
        options: 2,
        priority: 1,
        hello_interval: 1,
        dead_interval: 4,
        designated: 0,
        backup: 0,
        neighbors: vec![],
    };
    type Spoil = fn(&mut Hello);
    let cases: &[(Spoil, HelloMismatch)] = &[
        (|h| h.mask = 0xffff_0000, HelloMismatch::Mask),
        (|h| h.hello_interval = 2, HelloMismatch::HelloInterval),
        (|h| h.dead_interval = 5, HelloMismatch::DeadInterval),
        (|h| h.options = 0, HelloMismatch::AreaType),
        (|h| h.options = 0x0a, HelloMismatch::AreaType),
    ];
    let new = || Pair::new(Version::V2, NetworkKind::Broadcast, AreaKind::Normal, &Auth::None);
    for (spoil, mismatch) in cases {
        let mut hello = good.clone();
        spoil(&mut hello);
        let result = give(&mut new(), 0, Body::Hello(hello));
        assert_eq!(result, Err(DropReason::Hello(*mismatch)));
    }
    let mut pair = new();
    let header = |router_id: u32, area_id| Header { router_id, area_id, instance_id: 0 };
    let hello = || Body::Hello(good.clone());
    let own = u32::from(router_id(0));
    let result = give_from(&mut pair, 0, header(own, 0), hello());
    assert_eq!(result, Err(DropReason::DuplicateRouterId));
    let result = give_from(&mut pair, 0, header(9, 1), hello());
    assert_eq!(result, Err(DropReason::Area));
    let result = give_from(&mut pair, 0, header(9, 0), Body::Ack(vec![]));
    assert_eq!(result, Err(DropReason::Neighbor), "a stranger");
    assert_eq!(give_from(&mut pair, 0, header(9, 0), hello()), Ok(()));
}

#[test]
fn larger_mtu_of_the_peer_stops_the_exchange_unless_ignored() {
    for ignore in [false, true] {
        let mut pair =
            Pair::new(Version::V2, NetworkKind::PointToPoint, AreaKind::Normal, &Auth::None);
        let config = InterfaceConfig { mtu_ignore: ignore, ..interface() };
        let now = pair.now;
        pair.sides[0].set_interfaces(&[config], now);
        let jumbo = Link { mtu: 9000, ..link(Version::V2, 1) };
        pair.sides[1].set_link("eth0", Some(jumbo), now);
        pair.deliver();
        pair.run(20 * SECOND);
        assert_eq!(pair.is_full(), ignore);
        let dropped = pair.sides[0].status(pair.now).counters.dropped_mtu;
        assert_eq!(dropped == 0, ignore, "{dropped}");
    }
}

#[test]
fn failed_path_drops_the_neighbour_at_once_and_silence_after_the_dead_interval() {
    let mut pair = pair(Version::V2);
    let now = pair.now;
    pair.sides[0].handle_path_failure(address(Version::V2, 1), now);
    let down = |event: &Event| {
        matches!(
            event,
            Event::Neighbor { new: neighbor::State::Down, old: neighbor::State::Full, .. }
        )
    };
    let events: Vec<Event> = std::iter::from_fn(|| pair.sides[0].poll_event()).collect();
    assert!(events.iter().any(down), "{events:?}");
    pair.deliver();
    pair.run(now + 20 * SECOND);
    assert!(pair.is_full(), "back by itself");
    // Side 1 falls silent: side 0 runs alone.
    let last = pair.now;
    let mut dropped_at = None;
    while dropped_at.is_none() {
        let next = pair.sides[0].next_timeout().unwrap();
        assert!(next < last + 10 * SECOND, "never noticed");
        pair.sides[0].handle_timeout(next);
        while pair.sides[0].poll_transmit().is_some() {}
        while let Some(event) = pair.sides[0].poll_event() {
            dropped_at = dropped_at.or(down(&event).then_some(next));
        }
    }
    let silence = dropped_at.unwrap().saturating_sub(last);
    assert!(silence > 3 * SECOND && silence <= 4 * SECOND, "{silence:?}");
}

#[test]
fn change_of_cost_is_announced_without_disturbing_the_adjacency() {
    let mut pair = pair(Version::V2);
    let since = |pair: &Pair| {
        let status = pair.sides[0].status(pair.now);
        let age = Duration::from_millis(status.interfaces[0].neighbors[0].since_ms);
        pair.now.saturating_sub(age)
    };
    let before = since(&pair);
    let now = pair.now;
    pair.sides[0].set_interfaces(&[InterfaceConfig { cost: 77, ..interface() }], now);
    pair.deliver();
    pair.run(now + 2 * SECOND);
    assert_eq!(since(&pair), before);
    let body = pair.sides[1].database().get(&router_lsa(0)).unwrap().lsa().body().to_vec();
    // The stub link of the subnet: 10.0.0.0/24, type 3, metric 77.
    let stub = [10, 0, 0, 0, 255, 255, 255, 0, 3, 0, 0, 77];
    assert!(body.windows(12).any(|window| window == stub));
}

#[test]
fn what_cannot_be_announced_is_refused_by_name() {
    let mut pair = Pair::new(Version::V2, NetworkKind::PointToPoint, AreaKind::Stub, &Auth::None);
    let now = pair.now;
    let mut wanted = vip("192.0.2.1/32", OspfKind::External1, 1);
    wanted.extend(vip("192.0.2.2/32", OspfKind::Stub, 65_536));
    wanted.extend(vip("192.0.2.3/32", OspfKind::Stub, 65_535));
    pair.sides[0].set_wanted(&wanted, now);
    let refused: Vec<String> =
        pair.sides[0].refused().map(|(prefix, why)| format!("{prefix}: {why}")).collect();
    assert_eq!(
        refused,
        [
            "192.0.2.1/32: a stub area takes no external routes",
            "192.0.2.2/32: a stub link's cost is at most 65535",
        ]
    );
}

/// RFC 3623 §3: whom side 0 announces as neighbour while side 1 restarts, and what ends it.
#[test]
fn neighbour_that_restarts_gracefully_stays_announced_until_grace_ends() {
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum End {
        Period,
        Done,
        Topology,
    }
    for version in [Version::V2, Version::V3] {
        for end in [End::Period, End::Done, End::Topology] {
            let mut pair = pair(version);
            let other = u32::from(router_id(1));
            let (kind, id) = match version {
                Version::V2 => (v2::OPAQUE_LINK, 3 << 24),
                Version::V3 => (routing::ospf::lsa::v3::GRACE, 1),
            };
            // TLVs: reason (1 byte, padded) 1, grace period 30 s.
            let body = [0, 2, 0, 1, 1, 0, 0, 0, 0, 1, 0, 4, 0, 0, 0, 30];
            let grace = |age, sequence| {
                let key = LsaKey { kind, id, router: other };
                let mut lsa = Lsa::build(version, 0, key, sequence, &body).unwrap();
                lsa.header.age = age;
                Body::Update(vec![lsa])
            };
            let tell = |pair: &mut Pair, body| {
                let header = Header { router_id: other, area_id: 0, instance_id: 0 };
                let mut bytes = Packet { header, body }.encode(version);
                let to = address(version, 0);
                let v6 = |a: std::net::IpAddr| match a {
                    std::net::IpAddr::V6(v6) => v6,
                    std::net::IpAddr::V4(_) => std::net::Ipv6Addr::UNSPECIFIED,
                };
                let source = address(version, 1);
                Auth::None.sign(version, &mut bytes, 0, (v6(source), v6(to)));
                let now = pair.now;
                pair.sides[0].handle_packet(1, source, to, &bytes, now).unwrap();
            };
            // From here on side 1 is silent: nothing is delivered to or from it.
            let alone = |pair: &mut Pair, until: Duration| {
                while let Some(next) = pair.sides[0].next_timeout().filter(|at| *at <= until) {
                    pair.sides[0].handle_timeout(next);
                    while pair.sides[0].poll_transmit().is_some() {}
                    while pair.sides[0].poll_event().is_some() {}
                }
                pair.now = until;
            };
            let announced = |pair: &Pair| {
                let own = u32::from(router_id(0));
                let (kind, id) = match version {
                    Version::V2 => (v2::ROUTER, own),
                    Version::V3 => (routing::ospf::lsa::v3::ROUTER, 0),
                };
                let key = DbKey { link: 0, lsa: LsaKey { kind, id, router: own } };
                let entry = pair.sides[0].database().get(&key).unwrap();
                entry.lsa().body().windows(4).any(|w| w == other.to_be_bytes())
            };
            let start = pair.now;
            tell(&mut pair, grace(0, 1));
            alone(&mut pair, start + 20 * SECOND);
            assert!(announced(&pair), "{version:?} {end:?}: dead interval, but in grace");
            match end {
                End::Period => {
                    alone(&mut pair, start + 29 * SECOND);
                    assert!(announced(&pair));
                    alone(&mut pair, start + 33 * SECOND);
                }
                End::Done => {
                    tell(&mut pair, grace(3600, 2));
                    alone(&mut pair, start + 60 * SECOND);
                }
                End::Topology => {
                    let now = pair.now;
                    pair.sides[0].set_wanted(&Wanted::new(), now);
                    alone(&mut pair, start + 60 * SECOND);
                }
            }
            assert!(!announced(&pair), "{version:?} {end:?}");
        }
    }
}

//! Segments of an established connection that began elsewhere.

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
    world.adopt(&mapping)
}

fn pass(world: &mut World, ms: u64) {
    world.step(&Step::Pass { ms });
}

fn questions(world: &mut World) -> Vec<FlowKey> {
    std::iter::from_fn(|| world.question()).collect()
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
        assert_eq!(world.find(&key(v6, 1)), None);
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
    let find = |world: &mut World| world.find(&key(true, 1));
    assert_eq!(find(&mut world), None, "the backend has not answered");
    world.forward(&build(tcp, backend, lip, SYN | ACK)).unwrap();
    let found = find(&mut world).unwrap();
    assert_eq!((found.lip, found.backend, found.phase), (lip, backend, FlowPhase::Established));
    pass(&mut world, 60_000);
    assert_eq!(world.engine.flow_count(), 1, "it does not expire like a half-open one");
    assert_eq!(world.stats.flows_half_open.get(), 0);
}

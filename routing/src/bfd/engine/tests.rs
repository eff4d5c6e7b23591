//! Demultiplexing, sharing and reconciliation.

use super::*;
use crate::bfd::packet::{Control, Diagnostic, State};
use std::time::Duration;

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn config(peer: &str) -> SessionConfig {
    SessionConfig {
        peer: peer.parse().unwrap(),
        local: None,
        interface: None,
        multihop: false,
        min_tx: ms(50),
        min_rx: ms(50),
        multiplier: 3,
        auth: None,
    }
}

fn meta(src: &str) -> Meta {
    Meta { src: src.parse().unwrap(), dst: None, interface: 2, ttl: Some(255), port: 3784 }
}

fn packet(state: State, yours: u32) -> [u8; 24] {
    Control {
        diagnostic: Diagnostic::None,
        state,
        poll: false,
        is_final: false,
        control_plane_independent: false,
        demand: false,
        detect_multiplier: 3,
        my_discriminator: 99,
        your_discriminator: yours,
        desired_min_tx_us: 1_000_000,
        required_min_rx_us: 50_000,
        required_min_echo_rx_us: 0,
    }
    .encode(0)
}

fn engine(wanted: Vec<SessionConfig>) -> Engine {
    let mut engine = Engine::new(5);
    engine.set_sessions("bgp", wanted, ms(0)).unwrap();
    engine
}

fn only(engine: &Engine) -> u32 {
    let ids: Vec<u32> = engine.sessions().map(|(id, _)| id).collect();
    assert_eq!(ids.len(), 1);
    ids[0]
}

#[test]
fn ttl_is_checked_before_anything_else_and_only_on_single_hop() {
    let mut multihop = config("192.0.2.1");
    multihop.multihop = true;
    let mut engine = engine(vec![config("192.0.2.1"), multihop]);
    for ttl in [None, Some(254), Some(1)] {
        let result = engine.handle_packet(b"", &Meta { ttl, ..meta("192.0.2.1") }, ms(1));
        assert_eq!(result, Err(DropReason::Ttl));
    }
    let far = Meta { ttl: Some(61), port: 4784, ..meta("192.0.2.1") };
    assert_eq!(engine.handle_packet(&packet(State::Down, 0), &far, ms(1)), Ok(()));
    let other = Meta { port: 53, ..far };
    assert_eq!(engine.handle_packet(b"", &other, ms(1)), Err(DropReason::Port));
    assert_eq!(engine.counters().dropped_ttl, 3);
}

#[test]
fn what_a_check_refuses_would_be_refused_and_nothing_is_changed() {
    let mut engine = engine(vec![config("192.0.2.1")]);
    let keyed = SessionConfig {
        auth: Some(AuthConfig { kind: AuthType::KeyedSha1, key_id: 1, secret: b"k".to_vec() }),
        ..config("192.0.2.1")
    };
    let cases = [
        (vec![config("192.0.2.2")], true),
        (vec![SessionConfig { multiplier: 0, ..config("192.0.2.2") }], false),
        (vec![config("192.0.2.2"), keyed], false),
        (vec![config("192.0.2.2"); MAX_SESSIONS + 1], false),
    ];
    for (wanted, fine) in cases {
        assert_eq!(engine.check_sessions("ospf", &wanted).is_ok(), fine, "{:?}", wanted.last());
        only(&engine);
        assert_eq!(engine.set_sessions("ospf", wanted, ms(1)).is_ok(), fine);
        engine.set_sessions("ospf", Vec::new(), ms(2)).unwrap();
        engine.handle_timeout(ms(10_000));
        engine.handle_timeout(ms(20_000));
        only(&engine);
    }
}

#[test]
fn multihop_port_does_not_get_round_the_ttl_check() {
    let mut engine = engine(vec![config("192.0.2.1")]);
    let id = only(&engine);
    let far = Meta { ttl: Some(61), port: 4784, ..meta("198.51.100.9") };
    let result = engine.handle_packet(&packet(State::Init, id), &far, ms(1));
    assert_eq!(result, Err(DropReason::WrongHops));
}

#[test]
fn your_discriminator_wins_over_the_source_address() {
    let mut engine = engine(vec![config("192.0.2.1"), config("192.0.2.2")]);
    let (id, _) = engine.sessions().find(|(_, e)| e.key.peer.to_string() == "192.0.2.2").unwrap();
    engine.handle_packet(&packet(State::Init, id), &meta("192.0.2.1"), ms(1)).unwrap();
    assert_eq!(engine.session(id).unwrap().session.state(), State::Up);
    let result = engine.handle_packet(&packet(State::Init, id ^ 1), &meta("192.0.2.1"), ms(1));
    assert_eq!(result, Err(DropReason::UnknownDiscriminator));
}

#[test]
fn strangers_are_counted_and_leave_nothing() {
    let mut engine = engine(vec![config("192.0.2.1")]);
    for n in 0..1000 {
        let result = engine.handle_packet(&packet(State::Down, 0), &meta("203.0.113.5"), ms(n));
        assert_eq!(result, Err(DropReason::UnknownPeer));
    }
    assert_eq!(engine.counters().dropped_unknown_peer, 1000);
    assert_eq!(engine.sessions().count(), 1);
    assert_eq!(engine.poll_transmit(), None);
}

#[test]
fn interface_and_local_address_decide_between_sessions_with_one_peer() {
    let on = |name: &str| SessionConfig { interface: Some(name.into()), ..config("fe80::1") };
    let mut engine = engine(vec![on("eth0"), on("eth1")]);
    let ids: Vec<(u32, String)> =
        engine.sessions().map(|(id, e)| (id, e.key.interface.clone().unwrap())).collect();
    let unresolved = engine.handle_packet(&packet(State::Down, 0), &meta("fe80::1"), ms(1));
    assert_eq!(unresolved, Err(DropReason::UnknownPeer));
    for (id, name) in &ids {
        engine.set_interface(*id, Some(if name == "eth0" { 2 } else { 3 }));
    }
    let from = Meta { interface: 3, ..meta("fe80::1") };
    engine.handle_packet(&packet(State::Down, 0), &from, ms(1)).unwrap();
    for (id, name) in &ids {
        let state = engine.session(*id).unwrap().session.state();
        assert_eq!(state, if name == "eth1" { State::Init } else { State::Down });
    }
}

#[test]
fn clients_share_a_session_and_the_faster_timers_count() {
    let mut engine = engine(vec![config("192.0.2.1")]);
    let id = only(&engine);
    let slower = SessionConfig { min_tx: ms(300), min_rx: ms(20), ..config("192.0.2.1") };
    engine.set_sessions("ospf", vec![slower], ms(1)).unwrap();
    assert_eq!(only(&engine), id);
    let entry = engine.session(id).unwrap();
    assert_eq!(entry.clients, ["bgp", "ospf"]);
    let timers = entry.session.timers();
    assert_eq!((timers.min_tx_us, timers.min_rx_us), (50_000, 20_000));
    engine.set_sessions("bgp", vec![], ms(2)).unwrap();
    let entry = engine.session(id).unwrap();
    assert_eq!(entry.session.state(), State::Down);
    assert_eq!(entry.session.timers().min_tx_us, 300_000);
}

#[test]
fn session_that_nobody_wants_says_admin_down_and_goes() {
    let mut engine = engine(vec![config("192.0.2.1")]);
    let id = only(&engine);
    engine.handle_packet(&packet(State::Init, id), &meta("192.0.2.1"), ms(1)).unwrap();
    engine.handle_packet(&packet(State::Up, id), &meta("192.0.2.1"), ms(2)).unwrap();
    while engine.poll_transmit().is_some() {}
    engine.set_sessions("bgp", vec![], ms(3)).unwrap();
    let mut said = Vec::new();
    while let Some(at) = engine.next_timeout() {
        engine.handle_timeout(at);
        while let Some((from, transmit)) = engine.poll_transmit() {
            assert_eq!(from, id);
            said.push(Packet::parse(transmit.bytes()).unwrap().control.state);
        }
    }
    assert_eq!(said, [State::AdminDown; 3]);
    assert_eq!(engine.sessions().count(), 0);
    assert!(engine.by_peer.is_empty() && engine.by_key.is_empty() && engine.timers.is_empty());
    let events: Vec<Event> = std::iter::from_fn(|| engine.poll_event()).map(|(_, e)| e).collect();
    assert!(events.iter().all(|event| !event.is_failure()));
}

#[test]
fn session_wanted_again_while_it_departs_comes_back() {
    let mut engine = engine(vec![config("192.0.2.1")]);
    let id = only(&engine);
    engine.handle_packet(&packet(State::Init, id), &meta("192.0.2.1"), ms(1)).unwrap();
    engine.handle_packet(&packet(State::Up, id), &meta("192.0.2.1"), ms(2)).unwrap();
    engine.set_sessions("bgp", vec![], ms(3)).unwrap();
    engine.set_sessions("bgp", vec![config("192.0.2.1")], ms(4)).unwrap();
    assert_eq!(only(&engine), id);
    assert_eq!(engine.session(id).unwrap().session.state(), State::Down);
}

#[test]
fn admin_down_holds_for_sessions_to_come() {
    let mut engine = engine(vec![]);
    engine.set_admin_down(true, ms(0));
    engine.set_sessions("bgp", vec![config("192.0.2.1")], ms(1)).unwrap();
    let id = only(&engine);
    assert_eq!(engine.session(id).unwrap().session.state(), State::AdminDown);
    engine.set_admin_down(false, ms(2));
    assert_eq!(engine.session(id).unwrap().session.state(), State::Down);
}

#[test]
fn what_cannot_be_a_session_is_refused_and_changes_nothing() {
    type Spoil = fn(&mut SessionConfig);
    let cases: &[(&str, Spoil)] = &[
        ("multiplier 0", |c| c.multiplier = 0),
        ("interval 0", |c| c.min_tx = ms(0)),
        ("interval too long", |c| c.min_rx = ms(61_000)),
        ("multicast peer", |c| c.peer = "224.0.0.5".parse().unwrap()),
        ("unspecified peer", |c| c.peer = "::".parse().unwrap()),
        ("other family", |c| c.local = Some("::1".parse().unwrap())),
        ("link-local without interface", |c| {
            c.peer = "fe80::1".parse().unwrap();
        }),
        ("link-local multihop", |c| {
            c.peer = "fe80::1".parse().unwrap();
            c.interface = Some("eth0".into());
            c.multihop = true;
        }),
        ("long key", |c| {
            c.auth = Some(AuthConfig { kind: AuthType::KeyedSha1, key_id: 1, secret: vec![0; 21] });
        }),
    ];
    let mut engine = engine(vec![config("192.0.2.1")]);
    for (what, spoil) in cases {
        let mut wrong = config("192.0.2.9");
        spoil(&mut wrong);
        assert!(engine.set_sessions("bgp", vec![wrong], ms(1)).is_err(), "{what}");
        only(&engine);
    }
    let many = (0..=MAX_SESSIONS as u32)
        .map(|n| SessionConfig {
            peer: IpAddr::from(std::net::Ipv4Addr::from(0x0a00_0001 + n)),
            ..config("10.0.0.1")
        })
        .collect();
    assert_eq!(engine.set_sessions("bgp", many, ms(1)), Err(ConfigError::TooMany));
    let mut keyed = config("192.0.2.1");
    keyed.auth = Some(AuthConfig { kind: AuthType::KeyedSha1, key_id: 1, secret: vec![1] });
    let result = engine.set_sessions("ospf", vec![keyed], ms(1));
    assert!(matches!(result, Err(ConfigError::Conflict { .. })));
    assert_eq!(engine.session(only(&engine)).unwrap().clients, ["bgp"]);
}

#[test]
fn wish_that_leaves_the_ends_open_is_met_by_a_session_that_names_them() {
    let exact = SessionConfig {
        local: Some("192.0.2.9".parse().unwrap()),
        interface: Some("eth0".into()),
        min_tx: ms(300),
        ..config("192.0.2.1")
    };
    let mut engine = engine(vec![exact.clone()]);
    let id = only(&engine);
    engine.set_sessions("ospf", vec![config("192.0.2.1"), config("192.0.2.2")], ms(1)).unwrap();
    let peers: Vec<(u32, String)> =
        engine.sessions().map(|(id, e)| (id, e.key.peer.to_string())).collect();
    assert_eq!(peers.len(), 2, "{peers:?}");
    let entry = engine.session(id).unwrap();
    assert_eq!(entry.clients, ["bgp", "ospf"]);
    assert_eq!(entry.session.timers().min_tx_us, 50_000);
    // Other ends: another session.
    let elsewhere = SessionConfig { interface: Some("eth1".into()), ..exact };
    engine.set_sessions("third", vec![elsewhere], ms(2)).unwrap();
    assert_eq!(engine.sessions().count(), 3);
}

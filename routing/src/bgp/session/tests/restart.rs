//! Graceful restart as the one that restarts (RFC 4724 §4.1).

use super::*;
use crate::Wanted;
use crate::bgp::wire::{GracefulRestart, encode_end_of_rib};

fn with_restart() -> NeighborConfig {
    NeighborConfig { graceful_restart: Some(60), passive: true, ..config() }
}

fn said(bench: &Bench) -> Option<GracefulRestart> {
    bench.session.our_capabilities().graceful_restart
}

fn vip() -> Arc<Wanted> {
    Arc::new([("192.0.2.1/32".parse().unwrap(), Announcement::default())].into())
}

/// Which of both families' End-of-RIB is to be sent, and whether after all UPDATEs.
fn ends(bench: &mut Bench, id: ConnId) -> usize {
    let bytes = bench.session.poll_transmit(id).to_vec();
    bench.session.handle_transmitted(id, bytes.len(), bench.now);
    let mut both = Vec::new();
    for family in Family::ALL {
        encode_end_of_rib(family, &mut both);
    }
    if bytes.ends_with(&both) { Family::ALL.len() } else { 0 }
}

fn connected(config: NeighborConfig) -> (Bench, ConnId) {
    let (mut bench, id) = Bench::established(config);
    bench.read(id);
    (bench, id)
}

#[test]
fn only_who_is_asked_to_claims_to_survive() {
    let plain = said(&Bench::new(config())).expect("End-of-RIB is spoken all the same");
    assert_eq!((plain.restarting, plain.restart_time), (false, 0));
    assert_eq!(plain.preserved, Families::default());

    let mut bench = Bench::new(with_restart());
    let restarting = said(&bench).unwrap();
    assert_eq!((restarting.restarting, restarting.restart_time), (true, 60));
    assert_eq!(restarting.preserved, Families::BOTH);
    bench.session.handle_settled(bench.now);
    assert_eq!(said(&bench), Some(GracefulRestart { restarting: false, ..restarting }));
}

#[test]
fn the_end_of_the_table_waits_until_all_is_known() {
    let (mut bench, id) = connected(with_restart());
    assert_eq!(ends(&mut bench, id), 0, "nothing is known yet");
    bench.session.handle_wanted(vip(), bench.now);
    assert!(!bench.session.poll_transmit(id).is_empty(), "announcements do not wait");
    assert_eq!(ends(&mut bench, id), 0);
    bench.session.handle_settled(bench.now);
    assert_eq!(ends(&mut bench, id), 2);
    assert!(bench.session.adj_rib_out().unwrap().is_settled());
}

#[test]
fn the_end_of_the_table_does_not_wait_longer_than_the_restart_time() {
    let (mut bench, id) = connected(with_restart());
    for _ in 0..59 {
        bench.wait(1);
        bench.keepalive(id);
        assert_eq!(ends(&mut bench, id), 0);
    }
    bench.wait(2);
    assert_eq!(ends(&mut bench, id), 2);
    assert!(!said(&bench).unwrap().restarting);
}

#[test]
fn a_session_that_breaks_later_comes_back_as_no_restart() {
    let (mut bench, id) = connected(with_restart());
    bench.session.handle_settled(bench.now);
    bench.read(id);
    bench.session.handle_closed(id, "reset", bench.now);
    bench.follow();
    bench.wait(2);
    let id = bench.accepted().unwrap();
    bench.open(id, &peer_open());
    bench.keepalive(id);
    assert!(!said(&bench).unwrap().restarting, "we went on forwarding");
    assert_eq!(ends(&mut bench, id), 2);
}

#[test]
fn without_it_nothing_waits() {
    let (mut bench, id) = Bench::established(config());
    assert_eq!(ends(&mut bench, id), 2);
}

/// What the peer asks for again is marked at its end even while the first table has none.
#[test]
fn a_refresh_is_answered_all_the_same() {
    let (mut bench, id) = connected(with_restart());
    bench.session.handle_wanted(vip(), bench.now);
    bench.read(id);
    let mut refresh = Vec::new();
    RouteRefresh::encode(Family::Ipv4Unicast, RouteRefresh::REQUEST, &mut refresh);
    bench.hear(id, &refresh);
    assert!(bench.read(id).iter().any(|message| matches!(message, Message::Update(_))));
}

//! Routes taken from the neighbour: their limit, and how long they outlive a session.

use super::*;

/// 0.0.0.0/0 from the peer, in so many octets.
fn default_route() -> Vec<u8> {
    let list = [0x40, 1, 1, 0, 0x40, 2, 6, 2, 1, 0, 0, 0xfd, 0xe8, 0x40, 3, 4, 10, 0, 0, 2];
    let mut update = vec![0xff; 16];
    update.extend([0, 24 + list.len() as u8, 2, 0, 0, 0, list.len() as u8]);
    update.extend(list);
    update.push(0);
    update
}

#[test]
fn too_many_prefixes_end_the_session() {
    let import = Import::DefaultRoute;
    let (mut bench, id) =
        Bench::established(NeighborConfig { import, max_prefixes: 0, ..config() });
    bench.hear(id, &default_route());
    assert_eq!(bench.notified, [(id, (6, 1))]);
}

/// RFC 4724 §4.2, the receiving speaker.
#[test]
fn routes_of_a_peer_that_restarts_gracefully_are_kept_for_a_while() {
    let mut open = peer_open();
    open.capabilities.graceful_restart = Some(crate::bgp::wire::GracefulRestart {
        restarting: false,
        restart_time: 60,
        preserved: Families { ipv4: true, ipv6: false },
    });
    let config = NeighborConfig { import: Import::DefaultRoute, passive: true, ..config() };
    let start = || {
        let mut bench = Bench::new(config.clone());
        let id = bench.accepted().unwrap();
        bench.open(id, &open);
        bench.keepalive(id);
        bench.hear(id, &default_route());
        assert_eq!(bench.session.routes().len(), 1);
        (bench, id)
    };
    let again = |bench: &mut Bench, open: &Open| {
        bench.wait(2);
        let id = bench.accepted().unwrap();
        bench.open(id, open);
        bench.keepalive(id);
        assert_eq!(bench.session.state(), State::Established);
        id
    };
    let mut end = Vec::new();
    crate::bgp::wire::encode_end_of_rib(Family::Ipv4Unicast, &mut end);

    let (mut bench, id) = start();
    bench.session.handle_closed(id, "reset", bench.now);
    assert_eq!(bench.session.routes().len(), 1, "kept");
    let id = again(&mut bench, &open);
    assert_eq!(bench.session.routes().len(), 1, "until it has spoken");
    bench.hear(id, &default_route());
    bench.hear(id, &end);
    assert_eq!(bench.session.routes().len(), 1, "announced again");

    bench.session.handle_closed(id, "reset", bench.now);
    let id = again(&mut bench, &open);
    bench.hear(id, &end);
    assert!(bench.session.routes().is_empty(), "not announced again");

    let (mut bench, id) = start();
    bench.session.handle_closed(id, "reset", bench.now);
    again(&mut bench, &peer_open());
    assert!(bench.session.routes().is_empty(), "it says it stopped forwarding");

    let (mut bench, id) = start();
    bench.session.handle_closed(id, "reset", bench.now);
    bench.wait(61);
    assert!(bench.session.routes().is_empty(), "it did not come back in time");

    let (mut bench, _) = start();
    bench.session.handle_bfd_down(bench.now);
    assert!(bench.session.routes().is_empty(), "BFD says it does not forward");

    let (mut bench, id) = start();
    let mut bye = Vec::new();
    Notification::new(6, 2).encode(&mut bye);
    bench.hear(id, &bye);
    assert!(bench.session.routes().is_empty(), "it said goodbye");

    let (mut bench, id) = start();
    bench.session.handle_closed(id, "reset", bench.now);
    bench.session.handle_stop(Notification::new(6, 3), bench.now);
    assert!(bench.session.routes().is_empty(), "it is not wanted any more");
}

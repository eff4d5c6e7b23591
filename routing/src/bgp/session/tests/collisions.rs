//! Two connections at once (RFC 4271 §6.8).

use super::*;

/// RFC 4271 §6.8: of two connections the one dialled by the higher identifier stays.
#[test]
fn collisions_end_with_the_connection_of_the_higher_identifier() {
    for (theirs, ours_stays) in [(2, false), (0, true)] {
        for accepted_first in [false, true] {
            let mut bench = Bench::new(config());
            let open = Open { router_id: Ipv4Addr::new(10, 0, 0, theirs), ..peer_open() };
            let accepted = bench.accepted().expect("a second connection is taken");
            let dialled = bench.dialled();
            let (first, second) =
                if accepted_first { (accepted, dialled) } else { (dialled, accepted) };
            bench.open(first, &open);
            assert_eq!(bench.notified, [], "one OPEN decides nothing");
            bench.open(second, &open);
            let (stays, goes) = if ours_stays { (dialled, accepted) } else { (accepted, dialled) };
            let what = format!("peer .{theirs}, accepted first: {accepted_first}");
            assert_eq!(bench.notified, [(goes, (6, 7))], "{what}");
            bench.keepalive(stays);
            assert_eq!(bench.session.state(), State::Established, "{what}");
            assert!(bench.session.last_error().is_none(), "{what}: not an error");
            assert_eq!(bench.dials.len(), 1, "{what}: no more dials");
        }
    }
}

#[test]
fn an_established_session_is_not_disturbed_by_another_connection() {
    let (mut bench, id) = Bench::established(config());
    let intruder = bench.accepted().unwrap();
    bench.open(intruder, &peer_open());
    assert_eq!(bench.notified, [(intruder, (6, 7))]);
    bench.keepalive(id);
    assert_eq!(bench.session.state(), State::Established);
    let second = bench.accepted().unwrap();
    let third = bench.accepted().expect("the peer gave up on the second");
    assert!(bench.closed.contains(&second));
    bench.session.handle_closed(third, "reset", bench.now);
    assert_eq!(bench.session.state(), State::Established);
}

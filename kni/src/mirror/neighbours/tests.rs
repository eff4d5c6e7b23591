use super::*;
use crate::wire::{LinkInfo, Message, NeighbourInfo};

const INTERVAL: Duration = Duration::from_millis(500);

fn key(last: u8) -> NeighbourKey {
    (4, [192, 0, 2, last].into())
}

/// Interface 4 works, 5 has no carrier. On 4: .1 reachable, .2 stale, .3 permanent.
fn view(now: Instant) -> View {
    let mut view = View::new(["port0".to_owned(), "port1".to_owned()]);
    for (ifindex, name, carrier) in [(4, "port0", true), (5, "port1", false)] {
        let name = name.to_owned();
        let info = LinkInfo { ifindex, name, mac: None, mtu: 1500, up: true, carrier };
        view.apply(Message::Link(info), now);
    }
    for (last, state) in [(1, 0x02), (2, 0x04), (3, 0x80)] {
        let (ifindex, address) = key(last);
        let mac = Some([2; 6]);
        let info = NeighbourInfo { gone: false, ifindex, address, mac, state };
        view.apply(Message::Neighbour(info), now);
    }
    view
}

#[test]
fn one_request_per_neighbour_and_interval() {
    let start = Instant::now();
    let mut limiter = Limiter::new(INTERVAL, 10);
    assert!(limiter.allow(key(1), start));
    assert!(!limiter.allow(key(1), start + INTERVAL / 2));
    assert!(limiter.allow(key(2), start + INTERVAL / 2), "each has its own");
    assert!(limiter.allow(key(1), start + INTERVAL));
    assert!(!limiter.allow(key(1), start + INTERVAL), "counted from the last one allowed");
}

#[test]
fn memory_is_bounded_and_comes_back() {
    let start = Instant::now();
    let mut limiter = Limiter::new(INTERVAL, 3);
    assert!((1..=3).all(|last| limiter.allow(key(last), start)));
    assert!(!limiter.allow(key(4), start), "full");
    assert!(!limiter.allow(key(1), start), "and no way around the limit");
    assert_eq!(limiter.last.len(), 3);
    assert!(limiter.allow(key(4), start + INTERVAL), "the old ones have expired");
    assert_eq!(limiter.last.len(), 1);
}

#[test]
fn a_clock_that_seems_to_go_back_is_survived() {
    let start = Instant::now();
    let mut limiter = Limiter::new(INTERVAL, 3);
    assert!(limiter.allow(key(1), start + INTERVAL));
    assert!(!limiter.allow(key(1), start));
}

#[test]
fn only_what_can_help_is_resolved() {
    let view = view(Instant::now());
    assert!(!wants_resolving(&view, key(1)), "reachable");
    assert!(wants_resolving(&view, key(2)), "stale");
    assert!(!wants_resolving(&view, key(3)), "permanent: the kernel would forget that it is");
    assert!(wants_resolving(&view, key(4)), "missing");
    assert!(!wants_resolving(&view, (5, [192, 0, 2, 4].into())), "no carrier");
    assert!(!wants_resolving(&view, (6, [192, 0, 2, 4].into())), "not ours");
    for address in ["224.0.0.5", "0.0.0.0", "ff02::1", "::", "127.0.0.1"] {
        assert!(!wants_resolving(&view, (4, address.parse().expect("address"))), "{address}");
    }
}

#[test]
fn the_missing_and_the_long_stale_are_due() {
    let start = Instant::now();
    let view = view(start);
    let in_use: BTreeSet<_> = (1..=4).map(key).collect();
    let stale_after = Duration::from_secs(3);
    let mut limiter = Limiter::new(INTERVAL, 10);
    let mut at = |ms| {
        let now = start + Duration::from_millis(ms);
        due(&view, &in_use, stale_after, &mut limiter, now)
    };
    assert_eq!(at(0), [key(4)]);
    assert_eq!(at(100), [], "limited");
    assert_eq!(at(2999), [key(4)]);
    assert_eq!(at(3000), [key(2)], "stale for long enough");
    assert_eq!(at(3500), [key(2), key(4)]);
}

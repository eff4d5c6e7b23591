use super::*;
use proptest::prelude::*;
use std::time::Duration;

const A: [u8; 6] = [2, 0, 0, 0, 0, 1];
const B: [u8; 6] = [2, 0, 0, 0, 0, 2];
const NUD_INCOMPLETE: u16 = 0x01;
const NUD_FAILED: u16 = 0x20;

fn view() -> View {
    View::new(["port0".to_owned(), "port1".to_owned()])
}

fn link(ifindex: u32, name: &str) -> Message {
    Message::Link(LinkInfo {
        ifindex,
        name: name.into(),
        mac: Some(A),
        mtu: 1500,
        up: true,
        carrier: true,
    })
}

fn address(ifindex: u32, net: &str, gone: bool, usable: bool) -> Message {
    let net = net.parse().expect("prefix");
    Message::Address(AddressInfo { gone, ifindex, net, usable })
}

fn neighbour(ifindex: u32, last: u8, mac: [u8; 6], state: u16, gone: bool) -> Message {
    let address = [192, 0, 2, last].into();
    Message::Neighbour(NeighbourInfo { gone, ifindex, address, mac: Some(mac), state })
}

fn route(table: u32, flags: u32) -> Message {
    Message::Route(RawRoute {
        prefix: "203.0.113.0/24".parse().expect("prefix"),
        table,
        protocol: 4,
        scope: 0,
        kind: 1,
        flags,
        metric: 0,
        tos: 0,
        source_length: 0,
        next_hops: Vec::new(),
        encap: false,
        next_hop_id: None,
    })
}

fn key(ifindex: u32, last: u8) -> NeighbourKey {
    (ifindex, [192, 0, 2, last].into())
}

#[test]
fn an_interface_of_ours_that_appears_is_read_anew_and_others_are_ignored() {
    let (mut view, now) = (view(), Instant::now());
    assert_eq!(view.apply(link(3, "eth0"), now), Effect::default());
    assert_eq!(view.apply(address(3, "192.0.2.9/24", false, true), now), Effect::default());
    assert_eq!(
        view.apply(link(4, "port0"), now),
        Effect { changed: true, resync: true, routes: true }
    );
    assert_eq!(view.apply(link(4, "port0"), now), Effect::default());
    assert_eq!(view.links.keys().copied().collect::<Vec<_>>(), [4]);
}

#[test]
fn a_recreated_interface_takes_nothing_over() {
    let (mut view, now) = (view(), Instant::now());
    view.apply(link(4, "port0"), now);
    view.apply(address(4, "192.0.2.1/24", false, true), now);
    view.apply(neighbour(4, 2, A, NUD_REACHABLE, false), now);
    // The new one is heard of before the old one's end, and that end must not hurt it.
    assert!(view.apply(link(9, "port0"), now).resync);
    assert!(view.addresses.is_empty() && view.neighbours.is_empty());
    view.apply(address(9, "192.0.2.1/24", false, true), now);
    assert_eq!(view.apply(Message::LinkGone { ifindex: 4 }, now), Effect::default());
    assert_eq!((view.links.len(), view.addresses.len()), (1, 1));
    // Renamed away: no longer ours.
    assert!(view.apply(link(9, "other"), now).changed);
    assert!(view.links.is_empty() && view.addresses.is_empty());
}

#[test]
fn losing_carrier_asks_for_routes_and_another_mtu_does_not() {
    let (mut view, now) = (view(), Instant::now());
    view.apply(link(4, "port0"), now);
    let Message::Link(mut info) = link(4, "port0") else { panic!() };
    info.mtu = 9000;
    let effect = view.apply(Message::Link(info.clone()), now);
    assert_eq!(effect, Effect { changed: true, resync: false, routes: false });
    info.carrier = false;
    let effect = view.apply(Message::Link(info), now);
    assert_eq!(effect, Effect { changed: true, resync: false, routes: true });
}

#[test]
fn an_address_counts_once_it_is_usable() {
    let (mut view, now) = (view(), Instant::now());
    view.apply(link(4, "port0"), now);
    let net = "2001:db8::1/64";
    assert!(!view.apply(address(4, net, false, false), now).changed);
    assert!(view.apply(address(4, net, false, true), now).changed);
    assert!(!view.apply(address(4, net, false, true), now).changed);
    // Removing an address removes IPv4 routes without an event.
    let effect = view.apply(address(4, net, true, true), now);
    assert_eq!(effect, Effect { changed: true, resync: false, routes: true });
}

#[test]
fn a_neighbour_matters_when_its_mac_or_usability_changes() {
    let (mut view, start) = (view(), Instant::now());
    let later = |seconds| start + Duration::from_secs(seconds);
    view.apply(link(4, "port0"), start);
    let mut step = |at, mac, state, gone| view.apply(neighbour(4, 2, mac, state, gone), at).changed;
    assert!(!step(later(0), A, NUD_INCOMPLETE, false), "not usable yet");
    assert!(step(later(1), A, NUD_REACHABLE, false), "usable");
    assert!(!step(later(2), A, NUD_STALE, false), "only its state");
    assert!(!step(later(3), A, NUD_STALE, false), "nothing");
    assert!(step(later(4), B, NUD_STALE, false), "another MAC");
    assert!(step(later(5), B, NUD_FAILED, false), "unusable");
    assert!(!step(later(6), B, NUD_FAILED, true), "was not there");
    view.apply(neighbour(4, 2, A, NUD_STALE, false), later(7));
    view.apply(neighbour(4, 2, A, NUD_STALE, false), later(9));
    assert_eq!(view.neighbours[&key(4, 2)].since, later(7), "stale since the first time");
    let multicast = Message::Neighbour(NeighbourInfo {
        gone: false,
        ifindex: 4,
        address: [224, 0, 0, 5].into(),
        mac: Some(A),
        state: NUD_NOARP,
    });
    assert!(!view.apply(multicast, start).changed);
}

#[test]
fn only_the_main_table_asks_for_routes() {
    let (mut view, now) = (view(), Instant::now());
    assert!(view.apply(route(RT_TABLE_MAIN, 0), now).routes);
    assert!(!view.apply(route(255, 0), now).routes);
    assert!(view.apply(Message::RouteGone { table: RT_TABLE_MAIN }, now).routes);
    assert!(!view.apply(Message::RouteGone { table: 255 }, now).routes);
    assert!(view.apply(Message::NextHopObject, now).routes);
    // Cached exceptions and other tables are not routes of ours.
    let dump = vec![route(255, 0), route(RT_TABLE_MAIN, crate::wire::RTM_F_CLONED)];
    assert!(!view.replace_routes(dump));
    assert!(view.replace_routes(vec![route(RT_TABLE_MAIN, 0)]));
    assert!(!view.replace_routes(vec![route(RT_TABLE_MAIN, 0)]));
}

#[test]
fn a_resync_forgets_what_is_gone_and_keeps_how_long_a_neighbour_was_stale() {
    let (mut view, start) = (view(), Instant::now());
    let later = start + Duration::from_secs(60);
    view.apply(link(4, "port0"), start);
    view.apply(link(5, "port1"), start);
    view.apply(neighbour(4, 2, A, NUD_STALE, false), start);
    view.apply(neighbour(4, 3, A, NUD_STALE, false), start);
    let dump = || {
        vec![
            link(4, "port0"),
            link(1, "lo"),
            address(4, "192.0.2.1/24", false, true),
            address(1, "127.0.0.1/8", false, true),
            neighbour(4, 2, A, NUD_STALE, false),
            route(RT_TABLE_MAIN, 0),
        ]
    };
    assert!(view.replace(dump(), later));
    assert_eq!((view.links.len(), view.addresses.len(), view.routes.len()), (1, 1, 1));
    assert_eq!(view.neighbours.len(), 1);
    assert_eq!(view.neighbours[&key(4, 2)].since, start);
    assert!(!view.replace(dump(), later), "nothing changed since");
    // A state alone is not a change.
    let mut other = dump();
    other[4] = neighbour(4, 2, A, NUD_REACHABLE, false);
    assert!(!view.replace(other, later));
}

fn any_message() -> impl Strategy<Value = Message> {
    let names = prop::sample::select(vec!["port0", "port1", "eth0"]);
    let nets = prop::sample::select(vec!["192.0.2.1/24", "2001:db8::1/64"]);
    let states = prop::sample::select(vec![NUD_STALE, NUD_REACHABLE, NUD_FAILED]);
    prop_oneof![
        (1u32..5, names).prop_map(|(index, name)| link(index, name)),
        (1u32..5).prop_map(|ifindex| Message::LinkGone { ifindex }),
        (1u32..5, nets, any::<bool>(), any::<bool>())
            .prop_map(|(index, net, gone, usable)| address(index, net, gone, usable)),
        (1u32..5, 0u8..3, states, any::<bool>())
            .prop_map(|(index, last, state, gone)| neighbour(index, last, A, state, gone)),
    ]
}

proptest! {
    /// Whatever happens, in whatever order: every name is held by one interface at most, nothing
    /// belongs to an interface that is not ours, and a resync gives the same as a fresh start.
    #[test]
    fn the_view_stays_consistent(
        events in proptest::collection::vec(any_message(), 0..60),
        dump in proptest::collection::vec(any_message(), 0..20),
    ) {
        let (mut view, now) = (view(), Instant::now());
        for event in events {
            let before = view.clone();
            let effect = view.apply(event, now);
            let differs = before.links != view.links || before.addresses != view.addresses
                || before.neighbours.len() != view.neighbours.len();
            prop_assert!(!differs || effect.changed, "a change unnoticed");
            let mut names: Vec<_> = view.links.values().map(|link| &link.name).collect();
            names.sort();
            names.dedup();
            prop_assert_eq!(names.len(), view.links.len());
            prop_assert!(view.addresses.iter().all(|(index, _)| view.links.contains_key(index)));
            prop_assert!(view.neighbours.keys().all(|(index, _)| view.links.contains_key(index)));
        }
        let mut fresh = self::view();
        fresh.replace(dump.clone(), now);
        view.replace(dump, now);
        prop_assert_eq!(&view.links, &fresh.links);
        prop_assert_eq!(&view.addresses, &fresh.addresses);
        prop_assert_eq!(
            view.neighbours.keys().collect::<Vec<_>>(),
            fresh.neighbours.keys().collect::<Vec<_>>()
        );
    }
}

use super::*;
use crate::wire::{self, Message};
use proptest::prelude::*;
use rtnetlink::packet_core::NetlinkMessage;
use rtnetlink::packet_route::RouteNetlinkMessage;
use std::collections::BTreeSet;

const LEARNED: RouteSource = RouteSource::Learned;
const STATIC: RouteSource = RouteSource::Static;

/// Interface 1 is up, 2 is up, 3 is down.
fn links() -> BTreeMap<u32, Link> {
    let link = |up| Link { name: String::new(), mac: [2; 6], mtu: 1500, up, carrier: up };
    BTreeMap::from([(1, link(true)), (2, link(true)), (3, link(false))])
}

fn net(text: &str) -> IpNet {
    text.parse().expect("prefix")
}

fn via(gateway: &str, ifindex: Option<u32>, weight: u16) -> InstalledNextHop {
    InstalledNextHop { via: Some(gateway.parse().expect("address")), ifindex, weight }
}

fn actual(source: RouteSource, prefix: &str, metric: u32, hops: &[(&str, u32, u16)]) -> RawRoute {
    RawRoute {
        prefix: net(prefix),
        table: 254,
        protocol: source.protocol(),
        scope: 0,
        kind: RTN_UNICAST,
        flags: 0,
        metric,
        tos: 0,
        source_length: 0,
        next_hops: hops
            .iter()
            .map(|(gateway, ifindex, weight)| RawNextHop {
                via: Some(gateway.parse().expect("address")),
                ifindex: *ifindex,
                weight: *weight,
                flags: 0,
            })
            .collect(),
        encap: false,
        next_hop_id: None,
    }
}

fn put(
    source: RouteSource,
    prefix: &str,
    next_hops: Vec<InstalledNextHop>,
    replace: bool,
) -> Operation {
    Operation::Put { key: (source, net(prefix)), next_hops, replace }
}

fn delete(source: RouteSource, prefix: &str, metric: u32) -> Operation {
    Operation::Delete { key: (source, net(prefix)), metric }
}

#[test]
fn the_difference_is_what_must_be_done() {
    struct Case {
        what: &'static str,
        actual: Vec<RawRoute>,
        wanted: Vec<(RouteSource, &'static str, Vec<InstalledNextHop>)>,
        expected: Vec<Operation>,
    }
    let p = "203.0.113.0/24";
    let (a, b) = ("192.0.2.1", "192.0.2.2");
    let foreign = RawRoute { protocol: 12, ..actual(LEARNED, p, 32, &[(a, 1, 1)]) };
    let cases = [
        Case {
            what: "nothing of ours, nothing wanted; the others' routes are not our business",
            actual: vec![foreign.clone()],
            wanted: vec![],
            expected: vec![],
        },
        Case {
            what: "missing: added",
            actual: vec![foreign],
            wanted: vec![(LEARNED, p, vec![via(a, None, 1)])],
            expected: vec![put(LEARNED, p, vec![via(a, None, 1)], false)],
        },
        Case {
            what: "present, the kernel having found the interface",
            actual: vec![actual(LEARNED, p, 237, &[(a, 1, 1)])],
            wanted: vec![(LEARNED, p, vec![via(a, None, 1)])],
            expected: vec![],
        },
        Case {
            what: "the weight of a single next hop means nothing",
            actual: vec![actual(LEARNED, p, 237, &[(a, 1, 1)])],
            wanted: vec![(LEARNED, p, vec![via(a, Some(1), 7)])],
            expected: vec![],
        },
        Case {
            what: "multipath in another order",
            actual: vec![actual(LEARNED, p, 237, &[(b, 2, 3), (a, 1, 1)])],
            wanted: vec![(LEARNED, p, vec![via(a, Some(1), 1), via(b, None, 3)])],
            expected: vec![],
        },
        Case {
            what: "another weight: replaced",
            actual: vec![actual(LEARNED, p, 237, &[(a, 1, 1), (b, 2, 1)])],
            wanted: vec![(LEARNED, p, vec![via(a, None, 1), via(b, None, 3)])],
            expected: vec![put(LEARNED, p, vec![via(a, None, 1), via(b, None, 3)], true)],
        },
        Case {
            what: "not wanted, or by another metric (an older version): removed",
            actual: vec![
                actual(LEARNED, p, 20, &[(a, 1, 1)]),
                actual(STATIC, p, 236, &[(a, 1, 1)]),
            ],
            wanted: vec![(LEARNED, p, vec![via(a, None, 1)])],
            expected: vec![
                delete(LEARNED, p, 20),
                delete(STATIC, p, 236),
                put(LEARNED, p, vec![via(a, None, 1)], false),
            ],
        },
        Case {
            what: "of another kind: removed first",
            actual: vec![RawRoute { kind: 6, ..actual(LEARNED, p, 237, &[]) }],
            wanted: vec![(LEARNED, p, vec![via(a, None, 1)])],
            expected: vec![delete(LEARNED, p, 237), put(LEARNED, p, vec![via(a, None, 1)], false)],
        },
        Case {
            what: "a next hop by an interface that is down waits, with the rest installed",
            actual: vec![],
            wanted: vec![(LEARNED, p, vec![via(a, Some(1), 5), via(b, Some(3), 5)])],
            expected: vec![put(LEARNED, p, vec![via(a, Some(1), 1)], false)],
        },
        Case {
            what: "all of them do",
            actual: vec![],
            wanted: vec![(LEARNED, p, vec![via(b, Some(3), 1)])],
            expected: vec![],
        },
        Case {
            what: "neither gateway nor interface: nothing to install",
            actual: vec![],
            wanted: vec![(
                LEARNED,
                p,
                vec![InstalledNextHop { via: None, ifindex: None, weight: 1 }],
            )],
            expected: vec![],
        },
        Case {
            what: "IPv6 next hops listed as routes of their own are one",
            actual: vec![
                actual(LEARNED, "2001:db8::/32", 237, &[("fe80::1", 1, 1)]),
                actual(LEARNED, "2001:db8::/32", 237, &[("fe80::2", 2, 1)]),
            ],
            wanted: vec![(
                LEARNED,
                "2001:db8::/32",
                vec![via("fe80::1", Some(1), 1), via("fe80::2", Some(2), 1)],
            )],
            expected: vec![],
        },
    ];
    for case in cases {
        let wanted = case
            .wanted
            .into_iter()
            .map(|(source, prefix, next_hops)| ((source, net(prefix)), next_hops))
            .collect();
        assert_eq!(plan(&case.actual, &wanted, &links()), case.expected, "{}", case.what);
    }
}

/// What the kernel would list after this operation, by way of the bytes that it is sent.
fn installed(operation: &Operation) -> RawRoute {
    let mut message = NetlinkMessage::from(RouteNetlinkMessage::NewRoute(message(operation)));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    let (header, payload) = wire::messages(&bytes).next().expect("one").expect("good");
    let mut malformed = 0;
    match wire::decode(header.kind, payload, &mut malformed) {
        Ok(Message::Route(route)) if malformed == 0 => route,
        other => panic!("{other:?}"),
    }
}

#[test]
fn messages_say_what_the_operation_is() {
    let hops = vec![via("192.0.2.1", Some(1), 3), via("fe80::1", Some(2), 256)];
    let route = installed(&put(LEARNED, "203.0.113.0/24", hops, false));
    assert_eq!((route.protocol, route.metric, route.kind, route.table), (237, 237, 1, 254));
    let listed: Vec<_> =
        route.next_hops.iter().map(|hop| (hop.via, hop.ifindex, hop.weight)).collect();
    assert_eq!(
        listed,
        [
            (Some("192.0.2.1".parse().expect("address")), 1, 3),
            // RFC 8950: the gateway of an IPv4 route may be IPv6.
            (Some("fe80::1".parse().expect("address")), 2, 256),
        ]
    );
    let on_link = InstalledNextHop { via: None, ifindex: Some(1), weight: 1 };
    let route = installed(&put(STATIC, "203.0.113.0/24", vec![on_link], false));
    assert_eq!((route.protocol, route.scope, route.next_hops[0].ifindex), (236, 253, 1));
    let route = installed(&delete(STATIC, "2001:db8::/32", 9));
    assert_eq!((route.metric, route.prefix, route.scope), (9, net("2001:db8::/32"), 255));
}

#[test]
fn a_refused_route_is_tried_again_after_a_second_and_logged_once() {
    let start = Instant::now();
    let at = |ms| start + Duration::from_millis(ms);
    let mut attempts = Attempts::default();
    let operation = put(LEARNED, "203.0.113.0/24", vec![via("192.0.2.1", None, 1)], false);
    assert_eq!(attempts.wait(&operation, at(0)), None);
    assert!(attempts.note(&operation, true, at(0)), "worth a log line");
    assert_eq!(attempts.wait(&operation, at(999)), Some((at(1000), true)));
    assert_eq!(attempts.wait(&operation, at(1000)), None);
    assert!(!attempts.note(&operation, true, at(1000)), "not again");
    // Another wish for the prefix does not wait.
    let other = put(LEARNED, "203.0.113.0/24", vec![via("192.0.2.2", None, 1)], false);
    assert_eq!(attempts.wait(&other, at(1001)), None);
    assert!(!attempts.note(&other, false, at(1001)));
    // Done, but if the kernel does not keep it, it is not done over and over.
    assert_eq!(attempts.wait(&other, at(1100)), Some((at(1201), false)));
    attempts.forget(&[], at(1100));
    assert!(attempts.wait(&other, at(1100)).is_some(), "still of use");
    attempts.forget(&[], at(2000));
    assert!(attempts.tried.is_empty(), "forgotten");
}

fn any_hop() -> impl Strategy<Value = InstalledNextHop> {
    (1u8..4, proptest::option::of(1u32..3), 0u16..400).prop_map(|(last, ifindex, weight)| {
        InstalledNextHop { via: Some([192, 0, 2, last].into()), ifindex, weight }
    })
}

fn any_wanted() -> impl Strategy<Value = WantedRoutes> {
    let source = prop::sample::select(vec![LEARNED, STATIC]);
    let prefix = (0u8..4).prop_map(|third| net(&format!("10.0.{third}.0/24")));
    proptest::collection::btree_map(
        (source, prefix),
        proptest::collection::vec(any_hop(), 0..4),
        0..8,
    )
}

proptest! {
    /// From any set of routes to any other: after the operations nothing is left to do, and what
    /// is there is what was wanted, no more.
    #[test]
    fn performing_the_difference_reaches_what_is_wanted(
        rounds in proptest::collection::vec(any_wanted(), 1..5),
    ) {
        let mut kernel: BTreeMap<Key, RawRoute> = BTreeMap::new();
        for wanted in rounds {
            let list = |kernel: &BTreeMap<Key, RawRoute>| -> Vec<RawRoute> {
                kernel.values().cloned().collect()
            };
            for operation in plan(&list(&kernel), &wanted, &links()) {
                match &operation {
                    Operation::Delete { key, .. } => prop_assert!(kernel.remove(key).is_some()),
                    Operation::Put { key, replace, .. } => {
                        prop_assert_eq!(kernel.contains_key(key), *replace);
                        kernel.insert(*key, installed(&operation));
                    }
                }
            }
            // The kernel resolves the interface of a gateway.
            for hop in kernel.values_mut().flat_map(|route| &mut route.next_hops) {
                hop.ifindex = if hop.ifindex == 0 { 1 } else { hop.ifindex };
            }
            prop_assert_eq!(plan(&list(&kernel), &wanted, &links()), []);
            let expected: BTreeSet<_> = wanted
                .iter()
                .filter(|(_, next_hops)| !next_hops.is_empty())
                .map(|(key, _)| *key)
                .collect();
            prop_assert_eq!(kernel.keys().copied().collect::<BTreeSet<_>>(), expected);
        }
    }
}

use super::*;
use crate::wire::RawNextHop;

/// Interface 1 works, 2 works, 3 has no carrier, 4 is down; 9 is not ours.
fn links() -> BTreeMap<u32, Link> {
    let link = |up, carrier| Link { name: String::new(), mac: [2; 6], mtu: 1500, up, carrier };
    BTreeMap::from([
        (1, link(true, true)),
        (2, link(true, true)),
        (3, link(true, false)),
        (4, link(false, false)),
    ])
}

fn hop(ifindex: u32) -> RawNextHop {
    RawNextHop { via: None, ifindex, weight: 1, flags: 0 }
}

fn via(gateway: &str, ifindex: u32, flags: u32) -> RawNextHop {
    RawNextHop { via: Some(gateway.parse().expect("address")), ifindex, weight: 1, flags }
}

fn raw(prefix: &str, metric: u32, next_hops: Vec<RawNextHop>) -> RawRoute {
    RawRoute {
        prefix: prefix.parse().expect("prefix"),
        table: 254,
        protocol: 4,
        scope: 0,
        kind: RTN_UNICAST,
        flags: 0,
        metric,
        tos: 0,
        source_length: 0,
        next_hops,
        encap: false,
        next_hop_id: None,
    }
}

/// `metric kind via@interface...` of each selected route.
fn shown(selection: &Selection) -> Vec<String> {
    selection
        .routes
        .iter()
        .map(|route| {
            let hops = route.next_hops.iter().map(|hop| {
                let via = hop.via.map_or("link".to_owned(), |via| via.to_string());
                format!(" {via}@{}", hop.ifindex)
            });
            format!("{} {:?}{}", route.metric, route.kind, hops.collect::<String>())
        })
        .collect()
}

#[test]
fn the_best_route_of_a_prefix_is_chosen_as_the_kernel_does() {
    struct Case {
        what: &'static str,
        raw: Vec<RawRoute>,
        expected: &'static [&'static str],
    }
    let p4 = "203.0.113.0/24";
    let p6 = "2001:db8::/32";
    let cases = [
        Case {
            what: "the lowest metric wins, whatever the order",
            raw: vec![
                raw(p4, 20, vec![hop(1)]),
                raw(p4, 10, vec![hop(2)]),
                raw(p4, 30, vec![hop(1)]),
            ],
            expected: &["10 Unicast link@2"],
        },
        Case {
            what: "of equal IPv4 routes the first is used",
            raw: vec![
                raw(p4, 10, vec![via("192.0.2.1", 1, 0)]),
                raw(p4, 10, vec![via("192.0.2.2", 2, 0)]),
            ],
            expected: &["10 Unicast 192.0.2.1@1"],
        },
        Case {
            what: "equal IPv6 routes by gateways are one multipath route",
            raw: vec![
                raw(p6, 10, vec![via("fe80::1", 1, 0)]),
                raw(p6, 10, vec![via("fe80::2", 2, 0)]),
            ],
            expected: &["10 Unicast fe80::1@1 fe80::2@2"],
        },
        Case {
            what: "equal IPv6 routes on link are not",
            raw: vec![raw(p6, 256, vec![hop(1)]), raw(p6, 256, vec![hop(2)])],
            expected: &["256 Unicast link@1"],
        },
        Case {
            what: "a route by somebody else's interface does not hide ours",
            raw: vec![raw("0.0.0.0/0", 0, vec![hop(9)]), raw("0.0.0.0/0", 20, vec![hop(1)])],
            expected: &["20 Unicast link@1"],
        },
        Case {
            what: "next hops that cannot be used are left out",
            raw: vec![raw(
                p4,
                10,
                vec![
                    via("192.0.2.1", 1, 0),
                    via("192.0.2.2", 2, RTNH_F_DEAD),
                    via("192.0.2.3", 2, RTNH_F_LINKDOWN),
                    via("192.0.2.4", 3, 0),
                    via("192.0.2.5", 4, 0),
                    via("192.0.2.6", 9, 0),
                ],
            )],
            expected: &["10 Unicast 192.0.2.1@1"],
        },
        Case {
            what: "without carrier the worse route takes over",
            raw: vec![raw(p4, 10, vec![hop(3)]), raw(p4, 20, vec![hop(1)])],
            expected: &["20 Unicast link@1"],
        },
        Case {
            what: "an unreachable route competes by metric",
            raw: vec![
                RawRoute { kind: RTN_UNREACHABLE, ..raw(p4, 10, vec![]) },
                raw(p4, 20, vec![hop(1)]),
            ],
            expected: &["10 Unreachable"],
        },
        Case {
            what: "the other kinds",
            raw: vec![
                RawRoute { kind: RTN_BLACKHOLE, ..raw("10.0.0.0/8", 0, vec![]) },
                RawRoute { kind: RTN_PROHIBIT, ..raw("10.1.0.0/16", 0, vec![]) },
                RawRoute { kind: RTN_THROW, ..raw("10.2.0.0/16", 0, vec![]) },
                RawRoute { kind: RTN_LOCAL, ..raw("10.3.0.0/16", 0, vec![hop(1)]) },
                RawRoute { kind: 5, ..raw("10.4.0.0/16", 0, vec![hop(1)]) },
            ],
            expected: &["0 Blackhole", "0 Prohibit", "0 Unreachable", "0 Local link@1"],
        },
        Case {
            what: "link-local and multicast destinations are not routed",
            raw: vec![
                raw("fe80::/64", 256, vec![hop(1)]),
                raw("ff00::/8", 256, vec![hop(1)]),
                raw("169.254.0.0/16", 0, vec![hop(1)]),
                raw("224.0.0.0/4", 0, vec![hop(1)]),
            ],
            expected: &[],
        },
        Case {
            what: "a next-hop object without content is said to be one",
            raw: vec![RawRoute { next_hop_id: Some(1), ..raw(p4, 0, vec![]) }],
            expected: &["0 Unresolved"],
        },
        Case {
            what: "a next-hop object with content is like any other, also if it is not ours",
            raw: vec![
                RawRoute { next_hop_id: Some(1), ..raw(p4, 0, vec![hop(1)]) },
                RawRoute { next_hop_id: Some(2), ..raw("10.0.0.0/8", 0, vec![hop(9)]) },
            ],
            expected: &["0 Unicast link@1"],
        },
    ];
    for case in cases {
        assert_eq!(shown(&select(&case.raw, &links())), case.expected, "{}", case.what);
    }
}

#[test]
fn what_the_packet_path_has_no_notion_of_is_counted() {
    let plain = raw("203.0.113.0/24", 0, vec![hop(1)]);
    let selection = select(
        &[
            RawRoute { tos: 0x10, ..plain.clone() },
            RawRoute { source_length: 64, ..plain.clone() },
            RawRoute { encap: true, ..plain },
            RawRoute { next_hop_id: Some(1), ..raw("10.0.0.0/8", 0, vec![]) },
        ],
        &links(),
    );
    assert_eq!((selection.skipped, selection.unresolved), (3, 1));
    assert_eq!(selection.routes.len(), 1);
}

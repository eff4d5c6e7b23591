//! What is taken of a neighbour's routes, and which of them are best.

use super::*;
use crate::bgp::config::PrefixMatch;
use crate::bgp::wire::{AsPath, Reach, Segment};

fn context() -> ImportContext {
    ImportContext {
        local_asn: 65001,
        remote_asn: 65000,
        internal: false,
        role: None,
        interface: Some(3),
    }
}

fn prefix(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn update(prefixes: &[&str], next_hop: &str, path: &[u32]) -> Update {
    Update {
        reach: vec![Reach {
            next_hop: NextHop { address: next_hop.parse().unwrap(), link_local: None },
            prefixes: prefixes.iter().map(|p| prefix(p)).collect(),
        }],
        attributes: Attributes {
            as_path: AsPath(vec![Segment::Sequence(path.to_vec())]),
            ..Attributes::default()
        },
        ..Update::default()
    }
}

fn taken(updates: &[Update], policy: &Import, ctx: &ImportContext) -> Vec<String> {
    let mut rib = AdjRibIn::default();
    for update in updates {
        rib.handle_update(update, policy, 100, ctx);
    }
    rib.routes().keys().map(IpNet::to_string).collect()
}

#[test]
fn policy_decides_what_is_kept() {
    let all = ["0.0.0.0/0", "10.0.0.0/8", "10.1.0.0/16", "10.1.2.0/24"];
    let sent = [update(&all, "10.0.0.2", &[65000])];
    let within =
        PrefixMatch { min_len: 9, max_len: 16, ..PrefixMatch::exact(prefix("10.0.0.0/8")) };
    let exact = PrefixMatch::exact(prefix("10.1.2.0/24"));
    let cases = [
        (Import::Nothing, vec![]),
        (Import::DefaultRoute, vec!["0.0.0.0/0"]),
        (Import::Prefixes(vec![within]), vec!["10.1.0.0/16"]),
        (Import::Prefixes(vec![within, exact]), vec!["10.1.0.0/16", "10.1.2.0/24"]),
    ];
    for (policy, expected) in cases {
        assert_eq!(taken(&sent, &policy, &context()), expected, "{policy:?}");
    }
}

#[test]
fn unusable_routes_replace_usable_ones_by_nothing() {
    let good = update(&["0.0.0.0/0"], "10.0.0.2", &[65000]);
    let leak = |asn| {
        let mut update = good.clone();
        update.attributes.only_to_customer = Some(asn);
        update
    };
    let role = |role| ImportContext { role: Some(role), ..context() };
    let cases = [
        ("well", good.clone(), context(), true),
        (
            "our own AS in the path",
            update(&["0.0.0.0/0"], "10.0.0.2", &[65000, 65001]),
            context(),
            false,
        ),
        ("another's AS first", update(&["0.0.0.0/0"], "10.0.0.2", &[64999]), context(), false),
        (
            "which a route server may",
            update(&["0.0.0.0/0"], "10.0.0.2", &[64999]),
            role(Role::RouteServerClient),
            true,
        ),
        ("next hop 0.0.0.0", update(&["0.0.0.0/0"], "0.0.0.0", &[65000]), context(), false),
        ("next hop multicast", update(&["0.0.0.0/0"], "224.0.0.5", &[65000]), context(), false),
        ("next hop loopback", update(&["0.0.0.0/0"], "127.0.0.1", &[65000]), context(), false),
        ("OTC from a customer", leak(65000), role(Role::Provider), false),
        ("OTC of another from a peer", leak(64999), role(Role::Peer), false),
        ("OTC of the peer itself", leak(65000), role(Role::Peer), true),
        ("OTC from a provider", leak(64999), role(Role::Customer), true),
    ];
    for (what, second, ctx, kept) in cases {
        // The first route stands until the second replaces it.
        let mut rib = AdjRibIn::default();
        rib.handle_update(&good, &Import::DefaultRoute, 10, &context());
        rib.handle_update(&second, &Import::DefaultRoute, 10, &ctx);
        assert_eq!(rib.routes().len(), usize::from(kept), "{what}");
    }
}

#[test]
fn link_local_next_hops_belong_to_the_interface() {
    let sent = update(&["::/0"], "fe80::2", &[65000]);
    let mut rib = AdjRibIn::default();
    rib.handle_update(&sent, &Import::DefaultRoute, 10, &context());
    assert_eq!(rib.routes()[&prefix("::/0")].next_hop.interface, Some(3));
    let lost = ImportContext { interface: None, ..context() };
    assert_eq!(taken(&[sent], &Import::DefaultRoute, &lost), [""; 0]);
}

#[test]
fn more_than_agreed_is_reported_and_not_kept() {
    let policy = Import::Prefixes(vec![PrefixMatch {
        max_len: 32,
        ..PrefixMatch::exact(prefix("0.0.0.0/0"))
    }]);
    let mut rib = AdjRibIn::default();
    let first = update(&["10.0.0.0/8", "11.0.0.0/8"], "10.0.0.2", &[65000]);
    assert!(!rib.handle_update(&first, &policy, 2, &context()).too_many);
    assert!(!rib.handle_update(&first, &policy, 2, &context()).changed, "again is no change");
    let more = update(&["12.0.0.0/8"], "10.0.0.2", &[65000]);
    assert!(rib.handle_update(&more, &policy, 2, &context()).too_many);
    assert_eq!(rib.routes().len(), 2);
}

#[test]
fn the_best_routes_are_chosen_and_equals_kept() {
    let route = |n: u8, change: fn(&mut Route)| {
        let mut route = Route {
            next_hop: ImportedNextHop { address: IpAddr::from([10, 0, 0, n]), interface: None },
            local_preference: 100,
            as_path_hops: 2,
            origin: Origin::Igp,
            med: 10,
            neighbor_asn: Some(65000),
            external: true,
        };
        change(&mut route);
        BTreeMap::from([(prefix("0.0.0.0/0"), route)])
    };
    type Case = (&'static str, fn(&mut Route), &'static [u8]);
    let cases: [Case; 8] = [
        ("equal", |_| {}, &[1, 2]),
        ("preferred", |r| r.local_preference = 200, &[2]),
        ("shorter", |r| r.as_path_hops = 1, &[2]),
        ("longer", |r| r.as_path_hops = 3, &[1]),
        ("of worse origin", |r| r.origin = Origin::Incomplete, &[1]),
        ("of lower MED", |r| r.med = 5, &[2]),
        (
            "of lower MED, from another AS",
            |r| {
                r.med = 5;
                r.neighbor_asn = Some(64999);
            },
            &[1, 2],
        ),
        ("internal", |r| r.external = false, &[1]),
    ];
    for (what, change, expected) in cases {
        let neighbors = [route(1, |_| {}), route(2, change)];
        let selected = select(neighbors.iter());
        let hops = &selected[&prefix("0.0.0.0/0")];
        let expected: Vec<IpAddr> = expected.iter().map(|n| IpAddr::from([10, 0, 0, *n])).collect();
        let hops: Vec<IpAddr> = hops.iter().map(|h| h.address).collect();
        assert_eq!(hops, expected, "the second is {what}");
    }
}

//! Routes: those of the kernel, and ours in it.

use crate::support::{
    Snapshots, gateways, in_namespace, index, ip, ip_output, net, route, spawn, until, via, vias,
};
use kni::mirror::{InstalledNextHop, RouteKind, RouteSource};
use std::collections::BTreeMap;

#[test]
#[ignore = "needs root: cargo xtask test kni"]
fn routes_of_both_families_are_followed() {
    struct Case {
        family: &'static str,
        prefix: &'static str,
        gateways: [&'static str; 2],
    }
    let cases = [
        Case { family: "", prefix: "203.0.113.0/24", gateways: ["192.0.2.2", "198.51.100.2"] },
        Case {
            family: "-6 ",
            prefix: "2001:db8:ffff::/48",
            gateways: ["2001:db8:a::2", "2001:db8:b::2"],
        },
    ];
    in_namespace(async |lab| {
        let (handle, mut snapshots) = spawn();
        until(&mut snapshots, "links", |s| s.links.len() == 2).await;
        for Case { family, prefix, gateways: [a, b] } in cases {
            let expect = async |snapshots: &mut Snapshots, what: &str, list: &[(&str, u16)]| {
                let mut list = vias(list);
                list.sort();
                until(snapshots, what, |s| gateways(s, prefix) == list).await
            };
            ip(&format!("{family}route add {prefix} via {a} metric 50"));
            expect(&mut snapshots, "one gateway", &[(a, 1)]).await;
            ip(&format!(
                "{family}route replace {prefix} metric 50 nexthop via {a} weight 3 nexthop via {b}"
            ));
            expect(&mut snapshots, "two gateways with weights", &[(a, 3), (b, 1)]).await;
            // A better metric wins, a worse one waits.
            ip(&format!("{family}route add {prefix} via {b} metric 40"));
            expect(&mut snapshots, "better metric", &[(b, 1)]).await;
            ip(&format!("{family}route del {prefix} metric 40"));
            expect(&mut snapshots, "worse metric again", &[(a, 3), (b, 1)]).await;
            // Without carrier the next hop is of no use, although the route is still there.
            lab.peer.ip("link set pb down");
            expect(&mut snapshots, "one leg has no carrier", &[(a, 3)]).await;
            lab.peer.ip("link set pb up");
            expect(&mut snapshots, "both legs", &[(a, 3), (b, 1)]).await;
            ip(&format!("{family}route del {prefix} metric 50"));
            expect(&mut snapshots, "no route", &[]).await;
            ip(&format!("{family}route add unreachable {prefix} metric 60"));
            let found = until(&mut snapshots, "unreachable", |s| route(s, prefix).is_some()).await;
            let found = route(&found, prefix).expect("route");
            assert_eq!((found.kind, found.metric), (RouteKind::Unreachable, 60));
            ip(&format!("{family}route del unreachable {prefix} metric 60"));
            expect(&mut snapshots, "no route", &[]).await;
        }
        handle.shutdown().await.expect("shutdown");
    });
}

#[test]
#[ignore = "needs root: cargo xtask test kni"]
fn appended_ipv6_gateways_are_one_route_and_are_removed_one_by_one() {
    in_namespace(async |_| {
        let (handle, mut snapshots) = spawn();
        until(&mut snapshots, "links", |s| s.links.len() == 2).await;
        let prefix = "2001:db8:eeee::/48";
        let (a, b) = ("2001:db8:a::2", "2001:db8:b::2");
        ip(&format!("-6 route add {prefix} via {a} metric 50"));
        ip(&format!("-6 route append {prefix} via {b} metric 50"));
        until(&mut snapshots, "both", |s| gateways(s, prefix) == vias(&[(a, 1), (b, 1)])).await;
        ip(&format!("-6 route del {prefix} via {a} metric 50"));
        until(&mut snapshots, "one left", |s| gateways(s, prefix) == vias(&[(b, 1)])).await;
        handle.shutdown().await.expect("shutdown");
    });
}

#[test]
#[ignore = "needs root: cargo xtask test kni"]
fn an_ipv4_route_may_have_an_ipv6_gateway_and_next_hop_objects_are_seen_through() {
    in_namespace(async |_| {
        let (handle, mut snapshots) = spawn();
        until(&mut snapshots, "links", |s| s.links.len() == 2).await;
        ip("route add 203.0.113.0/24 via inet6 fe80::2 dev ka");
        until(&mut snapshots, "RFC 8950", |s| {
            gateways(s, "203.0.113.0/24") == vias(&[("fe80::2", 1)])
        })
        .await;
        ip("nexthop add id 1 via 192.0.2.2 dev ka");
        ip("nexthop add id 2 via 198.51.100.2 dev kb");
        ip("nexthop add id 10 group 1/2,2");
        ip("route add 203.0.114.0/24 nhid 10");
        until(&mut snapshots, "group", |s| {
            gateways(s, "203.0.114.0/24") == vias(&[("192.0.2.2", 1), ("198.51.100.2", 2)])
        })
        .await;
        ip("nexthop replace id 10 group 2");
        until(&mut snapshots, "group changed", |s| {
            gateways(s, "203.0.114.0/24") == vias(&[("198.51.100.2", 1)])
        })
        .await;
        // The kernel can be told not to show what is in them: reported, not guessed.
        std::fs::write("/proc/sys/net/ipv4/nexthop_compat_mode", "0").expect("sysctl");
        ip("route add 203.0.115.0/24 nhid 1");
        let snapshot =
            until(&mut snapshots, "listed", |s| route(s, "203.0.115.0/24").is_some()).await;
        let hidden = route(&snapshot, "203.0.115.0/24").expect("route");
        assert_eq!((hidden.kind, hidden.next_hops.len()), (RouteKind::Unresolved, 0));
        assert!(handle.counters().routes_unresolved > 0);
        handle.shutdown().await.expect("shutdown");
    });
}

#[test]
#[ignore = "needs root: cargo xtask test kni"]
fn our_routes_are_installed_changed_and_removed_by_difference() {
    in_namespace(async |_| {
        let (handle, mut snapshots) = spawn();
        let first = until(&mut snapshots, "links", |s| s.links.len() == 2).await;
        let ka = index(&first, "ka").expect("ka");
        let (v4, v6) = ("203.0.113.0/24", "2001:db8:ffff::/48");
        let two = |weight| {
            BTreeMap::from([
                (net(v4), vec![via("192.0.2.2", weight), via("198.51.100.2", 1)]),
                (net(v6), vec![via("2001:db8:a::2", weight), via("2001:db8:b::2", 1)]),
            ])
        };
        handle.install_routes(RouteSource::Learned, two(1));
        for (prefix, gateway) in [(v4, "192.0.2.2"), (v6, "2001:db8:a::2")] {
            let s = until(&mut snapshots, "ECMP", |s| gateways(s, prefix).len() == 2).await;
            let found = route(&s, prefix).expect("route");
            assert_eq!((found.protocol, found.metric), (237, 237));
            assert!(gateways(&s, prefix).contains(&(gateway.to_owned(), 1)));
        }
        handle.install_routes(RouteSource::Learned, two(4));
        for prefix in [v4, v6] {
            until(&mut snapshots, "other weights", |s| {
                gateways(s, prefix).iter().map(|(_, weight)| *weight).max() == Some(4)
            })
            .await;
        }
        // Several to one and back, in place, in both families.
        handle.install_routes(
            RouteSource::Learned,
            BTreeMap::from([
                (net(v4), vec![via("198.51.100.2", 1)]),
                (net(v6), vec![via("2001:db8:b::2", 1)]),
            ]),
        );
        for (prefix, gateway) in [(v4, "198.51.100.2"), (v6, "2001:db8:b::2")] {
            until(&mut snapshots, "one", |s| gateways(s, prefix) == vias(&[(gateway, 1)])).await;
        }
        handle.install_routes(RouteSource::Learned, two(2));
        for prefix in [v4, v6] {
            until(&mut snapshots, "two", |s| gateways(s, prefix).len() == 2).await;
        }
        // Another source wins by metric; gone, the first is back.
        let only = InstalledNextHop { via: None, ifindex: Some(ka), weight: 1 };
        handle.install_routes(RouteSource::Static, BTreeMap::from([(net(v4), vec![only])]));
        until(&mut snapshots, "static", |s| gateways(s, v4) == vias(&[("on-link", 1)])).await;
        handle.install_routes(RouteSource::Static, BTreeMap::new());
        until(&mut snapshots, "learnt", |s| gateways(s, v4).len() == 2).await;

        // What the kernel loses is installed again: IPv4 routes go with the link, silently.
        let single = BTreeMap::from([(net(v4), vec![via("192.0.2.2", 1)])]);
        handle.install_routes(RouteSource::Learned, single);
        until(&mut snapshots, "single", |s| gateways(s, v4) == vias(&[("192.0.2.2", 1)])).await;
        until(&mut snapshots, "IPv6 one removed", |s| route(s, v6).is_none()).await;
        ip("link set ka down");
        until(&mut snapshots, "lost", |s| route(s, v4).is_none()).await;
        ip("link set ka up");
        until(&mut snapshots, "again", |s| gateways(s, v4) == vias(&[("192.0.2.2", 1)])).await;

        // One that cannot be installed is counted, does not harm the others, and is installed when
        // it can.
        handle.install_routes(
            RouteSource::Learned,
            BTreeMap::from([
                (net(v4), vec![via("192.0.2.2", 1)]),
                (net("203.0.114.0/24"), vec![via("10.99.0.1", 1)]),
                (net("203.0.115.0/24"), vec![via("192.0.2.2", 1)]),
            ]),
        );
        until(&mut snapshots, "the others", |s| route(s, "203.0.115.0/24").is_some()).await;
        assert_eq!(handle.counters().install_failed, 1);
        ip("addr add 10.99.0.2/24 dev kb");
        until(&mut snapshots, "possible now", |s| route(s, "203.0.114.0/24").is_some()).await;

        handle.shutdown().await.expect("shutdown");
        assert_eq!(ip_output("route show proto 237"), "");
        assert_eq!(ip_output("-6 route show proto 237"), "");
    });
}

#[test]
#[ignore = "needs root: cargo xtask test kni"]
fn routes_of_a_crashed_process_are_removed_and_foreign_ones_stay() {
    in_namespace(async |_| {
        // As a crash leaves them.
        ip("route add 203.0.113.0/24 proto 237 metric 237 via 192.0.2.2");
        ip("-6 route add 2001:db8:ffff::/48 proto 236 metric 236 via 2001:db8:a::2");
        ip("route add blackhole 203.0.114.0/24 proto 237 metric 9");
        ip("route add 203.0.115.0/24 proto bird metric 32 via 192.0.2.2");
        ip("route add 203.0.116.0/24 proto bird metric 237 via 192.0.2.2");
        let (handle, mut snapshots) = spawn();
        until(&mut snapshots, "only the foreign routes", |s| {
            s.generation > 0
                && s.routes.iter().all(|route| ![236, 237].contains(&route.protocol))
                && route(s, "203.0.115.0/24").is_some()
        })
        .await;
        assert_eq!(ip_output("route show proto 237"), "");
        assert_eq!(ip_output("-6 route show proto 236"), "");
        // A foreign route with our metric is in the way: it is left alone, and that is counted.
        let prefix = "203.0.116.0/24";
        handle.install_routes(
            RouteSource::Learned,
            BTreeMap::from([
                (net(prefix), vec![via("198.51.100.2", 1)]),
                (net("203.0.117.0/24"), vec![via("198.51.100.2", 1)]),
            ]),
        );
        let s = until(&mut snapshots, "ours", |s| route(s, "203.0.117.0/24").is_some()).await;
        assert_eq!(gateways(&s, prefix), vias(&[("192.0.2.2", 1)]));
        assert_eq!(handle.counters().install_failed, 1);
        // Dropping the last handle cleans up as shutdown does.
        drop(handle);
        while snapshots.changed().await.is_ok() {}
        assert_eq!(ip_output("route show proto 237"), "");
        assert!(ip_output("route show proto bird").contains("203.0.116.0/24"));
    });
}

//! The mirror and the control interface against a real kernel.
//!
//! Each test makes two network namespaces, each on a thread of its own, joined by veth pairs: ours
//! (`ka`, `kb`) and the neighbour's (`pa`, `pb`). They have no name and vanish with their threads.

mod support;

use ipnet::IpNet;
use kni::control::Configurator;
use kni::mirror::{
    InstalledNextHop, Mirror, MirrorConfig, MirrorHandle, NeighbourState, NextHop, Route,
    RouteKind, RouteSource, Snapshot,
};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use support::{in_namespace, ip, ip_batch, ip_output};
use tokio::sync::watch;

type Snapshots = watch::Receiver<Arc<Snapshot>>;

fn spawn() -> (MirrorHandle, Snapshots) {
    Mirror::spawn(MirrorConfig::new(vec!["ka".into(), "kb".into()])).expect("mirror")
}

/// The first snapshot that is as expected.
async fn until(
    snapshots: &mut Snapshots,
    what: &str,
    expected: impl Fn(&Snapshot) -> bool,
) -> Arc<Snapshot> {
    let found = tokio::time::timeout(
        Duration::from_secs(10),
        snapshots.wait_for(|snapshot| expected(snapshot)),
    )
    .await
    .map(|found| found.expect("the mirror runs").clone());
    found.unwrap_or_else(|_| panic!("never: {what}\nlast: {:#?}", snapshots.borrow().clone()))
}

fn net(text: &str) -> IpNet {
    text.parse().expect("prefix")
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("address")
}

fn index(snapshot: &Snapshot, name: &str) -> Option<u32> {
    snapshot
        .links
        .iter()
        .find(|(_, link)| link.name == name)
        .map(|(index, _)| *index)
}

fn route<'a>(snapshot: &'a Snapshot, prefix: &str) -> Option<&'a Route> {
    snapshot
        .routes
        .iter()
        .find(|route| route.prefix == net(prefix))
}

fn gateways(snapshot: &Snapshot, prefix: &str) -> Vec<(String, u16)> {
    let hops = route(snapshot, prefix)
        .map(|route| route.next_hops.as_slice())
        .unwrap_or_default();
    let text = |hop: &NextHop| hop.via.map_or("on-link".into(), |via| via.to_string());
    let mut gateways: Vec<_> = hops.iter().map(|hop| (text(hop), hop.weight)).collect();
    gateways.sort();
    gateways
}

fn vias(list: &[(&str, u16)]) -> Vec<(String, u16)> {
    list.iter()
        .map(|(via, weight)| ((*via).to_owned(), *weight))
        .collect()
}

fn via(gateway: &str, weight: u16) -> InstalledNextHop {
    InstalledNextHop {
        via: Some(address(gateway)),
        ifindex: None,
        weight,
    }
}

#[test]
#[ignore = "needs root: cargo xtask test kni"]
fn links_and_addresses_are_followed() {
    in_namespace(async |lab| {
        let (handle, mut snapshots) = spawn();
        let first = until(&mut snapshots, "both links with carrier", |s| {
            s.links.len() == 2 && s.links.values().all(|link| link.up && link.carrier)
        })
        .await;
        let ka = index(&first, "ka").expect("ka");
        assert_eq!(first.links[&ka].mtu, 1500);
        assert!(
            first.addresses.contains(&(ka, net("192.0.2.1/24"))),
            "{first:?}"
        );
        assert!(
            first.addresses.contains(&(ka, net("2001:db8:a::1/64"))),
            "{first:?}"
        );

        ip("addr add 198.51.100.9/32 dev ka");
        ip("link set ka mtu 1400 address 02:00:00:00:00:aa");
        until(&mut snapshots, "another address, MTU and MAC", |s| {
            s.addresses.contains(&(ka, net("198.51.100.9/32")))
                && s.links[&ka].mtu == 1400
                && s.links[&ka].mac == [2, 0, 0, 0, 0, 0xaa]
        })
        .await;
        ip("addr del 198.51.100.9/32 dev ka");
        until(&mut snapshots, "the address gone", |s| {
            !s.addresses.contains(&(ka, net("198.51.100.9/32")))
        })
        .await;

        lab.peer.ip("link set pa down");
        until(&mut snapshots, "no carrier, no routes by it", |s| {
            s.links[&ka].up && !s.links[&ka].carrier && route(s, "192.0.2.0/24").is_none()
        })
        .await;
        lab.peer.ip("link set pa up");
        until(&mut snapshots, "carrier and routes", |s| {
            s.links[&ka].carrier && route(s, "192.0.2.0/24").is_some()
        })
        .await;
        ip("link set ka down");
        until(&mut snapshots, "down", |s| {
            !s.links[&ka].up && route(s, "192.0.2.0/24").is_none()
        })
        .await;
        ip("link set ka up");
        until(&mut snapshots, "up", |s| {
            s.links[&ka].carrier && route(s, "192.0.2.0/24").is_some()
        })
        .await;
        handle.shutdown().await.expect("shutdown");
    });
}

#[test]
#[ignore = "needs root: cargo xtask test kni"]
fn neighbours_are_resolved_and_unresolved_ones_are_not_listed() {
    in_namespace(async |lab| {
        let (handle, mut snapshots) = spawn();
        let first = until(&mut snapshots, "links", |s| s.links.len() == 2).await;
        let ka = index(&first, "ka").expect("ka");
        let pa_mac = lab.peer.mac("pa");
        for text in ["192.0.2.2", "2001:db8:a::2"] {
            let key = (ka, address(text));
            // An IPv6 solicitation of the neighbour may have been first.
            handle.resolve(ka, address(text));
            let snapshot = until(&mut snapshots, "resolved", |s| {
                s.neighbours.contains_key(&key)
            })
            .await;
            assert_eq!(snapshot.neighbours[&key].mac, pa_mac, "{text}");
        }
        let v4 = (ka, address("192.0.2.2"));
        assert_eq!(
            snapshots.borrow().neighbours[&v4].state,
            NeighbourState::Reachable
        );

        // Nobody has this one: it is tried and never listed. The others stay.
        handle.resolve(ka, address("192.0.2.77"));
        ip("neigh replace 192.0.2.50 lladdr 02:00:00:00:00:50 nud permanent dev ka");
        let permanent = (ka, address("192.0.2.50"));
        let snapshot = until(&mut snapshots, "permanent", |s| {
            s.neighbours.contains_key(&permanent)
        })
        .await;
        assert_eq!(
            snapshot.neighbours[&permanent].state,
            NeighbourState::Permanent
        );
        assert!(
            !snapshot
                .neighbours
                .contains_key(&(ka, address("192.0.2.77")))
        );
        assert!(
            ip_output("neigh show 192.0.2.77").contains("192.0.2.77"),
            "the kernel tried"
        );

        // A permanent neighbour survives being asked for.
        handle.resolve(ka, address("192.0.2.50"));
        ip("neigh del 192.0.2.2 dev ka");
        until(&mut snapshots, "deleted", |s| {
            !s.neighbours.contains_key(&v4)
        })
        .await;
        assert!(snapshots.borrow().neighbours.contains_key(&permanent));
        handle.shutdown().await.expect("shutdown");
    });
}

#[test]
#[ignore = "needs root: cargo xtask test kni"]
fn neighbours_in_use_are_kept_fresh() {
    in_namespace(async |lab| {
        let mut config = MirrorConfig::new(vec!["ka".into()]);
        config.stale_after = Duration::from_millis(100);
        let (handle, mut snapshots) = Mirror::spawn(config).expect("mirror");
        let first = until(&mut snapshots, "links", |s| s.links.len() == 1).await;
        let ka = index(&first, "ka").expect("ka");
        let key = (ka, address("192.0.2.2"));
        handle.keep_fresh(BTreeSet::from([key]));
        // Missing: resolved without being asked for.
        until(&mut snapshots, "resolved", |s| {
            s.neighbours.contains_key(&key)
        })
        .await;
        // Stale, with an address that is no longer right: the probe finds the right one, which
        // only happens if someone uses the neighbour.
        std::fs::write("/proc/sys/net/ipv4/neigh/ka/delay_first_probe_time", "1").expect("sysctl");
        ip("neigh replace 192.0.2.2 lladdr 02:00:00:00:00:99 nud stale dev ka");
        until(&mut snapshots, "wrong", |s| {
            s.neighbours
                .get(&key)
                .is_some_and(|n| n.mac == [2, 0, 0, 0, 0, 0x99])
        })
        .await;
        let pa_mac = lab.peer.mac("pa");
        until(&mut snapshots, "right again", |s| {
            s.neighbours.get(&key).is_some_and(|n| n.mac == pa_mac)
        })
        .await;
        handle.shutdown().await.expect("shutdown");
    });
}

#[test]
#[ignore = "needs root: cargo xtask test kni"]
fn routes_of_both_families_are_followed() {
    struct Case {
        family: &'static str,
        prefix: &'static str,
        gateways: [&'static str; 2],
    }
    let cases = [
        Case {
            family: "",
            prefix: "203.0.113.0/24",
            gateways: ["192.0.2.2", "198.51.100.2"],
        },
        Case {
            family: "-6 ",
            prefix: "2001:db8:ffff::/48",
            gateways: ["2001:db8:a::2", "2001:db8:b::2"],
        },
    ];
    in_namespace(async |lab| {
        let (handle, mut snapshots) = spawn();
        until(&mut snapshots, "links", |s| s.links.len() == 2).await;
        for Case {
            family,
            prefix,
            gateways: [a, b],
        } in cases
        {
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
            expect(
                &mut snapshots,
                "two gateways with weights",
                &[(a, 3), (b, 1)],
            )
            .await;
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
            let found = until(&mut snapshots, "unreachable", |s| {
                route(s, prefix).is_some()
            })
            .await;
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
        until(&mut snapshots, "both", |s| {
            gateways(s, prefix) == vias(&[(a, 1), (b, 1)])
        })
        .await;
        ip(&format!("-6 route del {prefix} via {a} metric 50"));
        until(&mut snapshots, "one left", |s| {
            gateways(s, prefix) == vias(&[(b, 1)])
        })
        .await;
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
        let snapshot = until(&mut snapshots, "listed", |s| {
            route(s, "203.0.115.0/24").is_some()
        })
        .await;
        let hidden = route(&snapshot, "203.0.115.0/24").expect("route");
        assert_eq!(
            (hidden.kind, hidden.next_hops.len()),
            (RouteKind::Unresolved, 0)
        );
        assert!(handle.counters().routes_unresolved > 0);
        handle.shutdown().await.expect("shutdown");
    });
}

#[test]
#[ignore = "needs root: cargo xtask test kni"]
fn a_recreated_interface_is_followed_by_name() {
    in_namespace(async |lab| {
        let (handle, mut snapshots) = spawn();
        let first = until(&mut snapshots, "links", |s| s.links.len() == 2).await;
        let before = index(&first, "ka").expect("ka");
        ip("link del ka");
        let gone = until(&mut snapshots, "gone", |s| index(s, "ka").is_none()).await;
        assert!(
            gone.addresses.iter().all(|(index, _)| *index != before),
            "{gone:?}"
        );
        assert!(
            gone.neighbours.keys().all(|(index, _)| *index != before),
            "{gone:?}"
        );
        lab.connect("ka", "pa", "192.0.2", "2001:db8:a:");
        let again = until(&mut snapshots, "back with its address and route", |s| {
            index(s, "ka").is_some_and(|ka| {
                s.addresses.contains(&(ka, net("192.0.2.1/24")))
                    && route(s, "192.0.2.0/24").is_some_and(|r| r.next_hops[0].ifindex == ka)
            })
        })
        .await;
        assert_ne!(index(&again, "ka"), Some(before));
        // Renamed away, it is no longer ours.
        ip("link set ka down");
        ip("link set ka name kx");
        until(&mut snapshots, "renamed", |s| index(s, "ka").is_none()).await;
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
                (
                    net(v4),
                    vec![via("192.0.2.2", weight), via("198.51.100.2", 1)],
                ),
                (
                    net(v6),
                    vec![via("2001:db8:a::2", weight), via("2001:db8:b::2", 1)],
                ),
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
        // Another source wins by metric; gone, the first is back.
        let only = InstalledNextHop {
            via: None,
            ifindex: Some(ka),
            weight: 1,
        };
        handle.install_routes(RouteSource::Static, BTreeMap::from([(net(v4), vec![only])]));
        until(&mut snapshots, "static", |s| {
            gateways(s, v4) == vias(&[("on-link", 1)])
        })
        .await;
        handle.install_routes(RouteSource::Static, BTreeMap::new());
        until(&mut snapshots, "learnt", |s| gateways(s, v4).len() == 2).await;

        // What the kernel loses is installed again: IPv4 routes go with the link, silently.
        let single = BTreeMap::from([(net(v4), vec![via("192.0.2.2", 1)])]);
        handle.install_routes(RouteSource::Learned, single);
        until(&mut snapshots, "single", |s| {
            gateways(s, v4) == vias(&[("192.0.2.2", 1)])
        })
        .await;
        until(&mut snapshots, "IPv6 one removed", |s| {
            route(s, v6).is_none()
        })
        .await;
        ip("link set ka down");
        until(&mut snapshots, "lost", |s| route(s, v4).is_none()).await;
        ip("link set ka up");
        until(&mut snapshots, "again", |s| {
            gateways(s, v4) == vias(&[("192.0.2.2", 1)])
        })
        .await;

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
        until(&mut snapshots, "the others", |s| {
            route(s, "203.0.115.0/24").is_some()
        })
        .await;
        assert_eq!(handle.counters().install_failed, 1);
        ip("addr add 10.99.0.2/24 dev kb");
        until(&mut snapshots, "possible now", |s| {
            route(s, "203.0.114.0/24").is_some()
        })
        .await;

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
                && s.routes
                    .iter()
                    .all(|route| ![236, 237].contains(&route.protocol))
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
        let s = until(&mut snapshots, "ours", |s| {
            route(s, "203.0.117.0/24").is_some()
        })
        .await;
        assert_eq!(gateways(&s, prefix), vias(&[("192.0.2.2", 1)]));
        assert_eq!(handle.counters().install_failed, 1);
        // Dropping the last handle cleans up as shutdown does.
        drop(handle);
        while snapshots.changed().await.is_ok() {}
        assert_eq!(ip_output("route show proto 237"), "");
        assert!(ip_output("route show proto bird").contains("203.0.116.0/24"));
    });
}

#[test]
#[ignore = "needs root: cargo xtask test kni"]
fn an_overrun_is_noticed_and_repaired() {
    in_namespace(async |_| {
        let mut config = MirrorConfig::new(vec!["ka".into()]);
        // The least the kernel allows: a burst cannot fit.
        config.receive_buffer = 1;
        let (handle, mut snapshots) = Mirror::spawn(config).expect("mirror");
        until(&mut snapshots, "links", |s| s.links.len() == 1).await;
        // This thread is the runtime: the mirror cannot read while the burst arrives.
        let batch: Vec<_> = (1..=200)
            .map(|i| format!("addr add 10.1.{i}.1/24 dev ka"))
            .collect();
        ip_batch(&batch.join("\n"));
        until(&mut snapshots, "every address", |s| {
            s.addresses
                .iter()
                .filter(|(_, net)| net.addr().to_string().starts_with("10.1."))
                .count()
                == 200
        })
        .await;
        let counters = handle.counters();
        assert!(
            counters.overruns > 0 && counters.resyncs > 1,
            "{counters:?}"
        );
        handle.shutdown().await.expect("shutdown");
    });
}

#[test]
#[ignore = "needs root: cargo xtask test kni"]
fn a_burst_is_published_as_few_snapshots() {
    in_namespace(async |_| {
        let (handle, mut snapshots) = spawn();
        until(&mut snapshots, "links", |s| s.links.len() == 2).await;
        let before = handle.counters().published;
        let batch: Vec<_> = (1..=200)
            .map(|i| format!("route add 10.2.{i}.0/24 via 192.0.2.2"))
            .collect();
        ip_batch(&batch.join("\n"));
        until(&mut snapshots, "every route", |s| {
            s.routes
                .iter()
                .filter(|r| r.prefix.addr().to_string().starts_with("10.2."))
                .count()
                == 200
        })
        .await;
        let published = handle.counters().published - before;
        assert!(published <= 5, "{published} snapshots for one burst");
        handle.shutdown().await.expect("shutdown");
    });
}

#[test]
#[ignore = "needs root: cargo xtask test kni"]
fn a_control_interface_is_configured_and_changed() {
    in_namespace(async |lab| {
        let mut configurator = Configurator::open().expect("netlink");
        let mac = [0x02, 0xd0, 0x11, 0, 0, 1];
        let addresses = [net("10.3.0.1/24"), net("2001:db8:3::1/64")];
        // An address of somebody else's, and an interface that appears only later.
        ip("link del ka");
        let later = async {
            tokio::task::yield_now().await;
            lab.connect("ka", "pa", "192.0.2", "2001:db8:a:");
        };
        let (configured, ()) =
            tokio::join!(configurator.configure("ka", mac, 1400, &addresses), later);
        let ifindex = configured.expect("configured");
        let shown = ip_output("addr show dev ka");
        for part in [
            "mtu 1400",
            "02:d0:11:00:00:01",
            "10.3.0.1/24",
            "2001:db8:3::1/64",
            "UP",
        ] {
            assert!(shown.contains(part), "{part} in:\n{shown}");
        }
        assert!(!shown.contains("tentative"), "usable at once:\n{shown}");
        assert!(
            shown.contains("fe80::d0:11ff:fe00:1/64"),
            "link-local of the new MAC:\n{shown}"
        );
        let setting = |name: &str| {
            let path = format!("/proc/sys/net/{name}");
            std::fs::read_to_string(&path)
                .expect("sysctl")
                .trim()
                .to_owned()
        };
        assert_eq!(setting("ipv6/conf/ka/keep_addr_on_down"), "1");
        assert_eq!(setting("ipv4/conf/ka/rp_filter"), "2");
        assert_eq!(setting("ipv6/conf/ka/accept_ra"), "0");

        // Other addresses: ours go, the others' stay.
        let other = [net("10.3.0.2/24"), net("2001:db8:3::1/64")];
        assert_eq!(
            configurator
                .configure("ka", mac, 1400, &other)
                .await
                .expect("again"),
            ifindex
        );
        let shown = ip_output("addr show dev ka");
        for part in [
            "10.3.0.2/24",
            "2001:db8:3::1/64",
            "192.0.2.1/24",
            "fe80::d0:11ff:fe00:1/64",
        ] {
            assert!(shown.contains(part), "{part} in:\n{shown}");
        }
        assert!(!shown.contains("10.3.0.1/24"), "{shown}");
        // IPv6 addresses outlive the link.
        ip("link set ka down");
        ip("link set ka up");
        assert!(ip_output("addr show dev ka").contains("2001:db8:3::1/64"));
    });
}

//! Links, addresses and neighbours; and how the mirror keeps up.

use crate::support::{
    address, in_namespace, index, ip, ip_batch, ip_output, net, route, spawn, until,
};
use kni::mirror::{Mirror, MirrorConfig, NeighbourState};
use std::collections::BTreeSet;
use std::time::Duration;

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
        assert!(first.addresses.contains(&(ka, net("192.0.2.1/24"))), "{first:?}");
        assert!(first.addresses.contains(&(ka, net("2001:db8:a::1/64"))), "{first:?}");

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
        until(&mut snapshots, "down", |s| !s.links[&ka].up && route(s, "192.0.2.0/24").is_none())
            .await;
        ip("link set ka up");
        until(&mut snapshots, "up", |s| s.links[&ka].carrier && route(s, "192.0.2.0/24").is_some())
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
            let snapshot =
                until(&mut snapshots, "resolved", |s| s.neighbours.contains_key(&key)).await;
            assert_eq!(snapshot.neighbours[&key].mac, pa_mac, "{text}");
        }
        let v4 = (ka, address("192.0.2.2"));
        assert_eq!(snapshots.borrow().neighbours[&v4].state, NeighbourState::Reachable);

        // Nobody has this one: it is tried and never listed. The others stay.
        handle.resolve(ka, address("192.0.2.77"));
        ip("neigh replace 192.0.2.50 lladdr 02:00:00:00:00:50 nud permanent dev ka");
        let permanent = (ka, address("192.0.2.50"));
        let snapshot =
            until(&mut snapshots, "permanent", |s| s.neighbours.contains_key(&permanent)).await;
        assert_eq!(snapshot.neighbours[&permanent].state, NeighbourState::Permanent);
        assert!(!snapshot.neighbours.contains_key(&(ka, address("192.0.2.77"))));
        assert!(ip_output("neigh show 192.0.2.77").contains("192.0.2.77"), "the kernel tried");

        // A permanent neighbour survives being asked for.
        handle.resolve(ka, address("192.0.2.50"));
        ip("neigh del 192.0.2.2 dev ka");
        until(&mut snapshots, "deleted", |s| !s.neighbours.contains_key(&v4)).await;
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
        until(&mut snapshots, "resolved", |s| s.neighbours.contains_key(&key)).await;
        // Stale, with an address that is no longer right: the probe finds the right one, which
        // only happens if someone uses the neighbour.
        std::fs::write("/proc/sys/net/ipv4/neigh/ka/delay_first_probe_time", "1").expect("sysctl");
        ip("neigh replace 192.0.2.2 lladdr 02:00:00:00:00:99 nud stale dev ka");
        until(&mut snapshots, "wrong", |s| {
            s.neighbours.get(&key).is_some_and(|n| n.mac == [2, 0, 0, 0, 0, 0x99])
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
fn a_recreated_interface_is_followed_by_name() {
    in_namespace(async |lab| {
        let (handle, mut snapshots) = spawn();
        let first = until(&mut snapshots, "links", |s| s.links.len() == 2).await;
        let before = index(&first, "ka").expect("ka");
        ip("link del ka");
        let gone = until(&mut snapshots, "gone", |s| index(s, "ka").is_none()).await;
        assert!(gone.addresses.iter().all(|(index, _)| *index != before), "{gone:?}");
        assert!(gone.neighbours.keys().all(|(index, _)| *index != before), "{gone:?}");
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
fn an_overrun_is_noticed_and_repaired() {
    in_namespace(async |_| {
        let mut config = MirrorConfig::new(vec!["ka".into()]);
        // The least the kernel allows: a burst cannot fit.
        config.receive_buffer = 1;
        let (handle, mut snapshots) = Mirror::spawn(config).expect("mirror");
        until(&mut snapshots, "links", |s| s.links.len() == 1).await;
        // This thread is the runtime: the mirror cannot read while the burst arrives.
        let batch: Vec<_> = (1..=200).map(|i| format!("addr add 10.1.{i}.1/24 dev ka")).collect();
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
        assert!(counters.overruns > 0 && counters.resyncs > 1, "{counters:?}");
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
        let batch: Vec<_> =
            (1..=200).map(|i| format!("route add 10.2.{i}.0/24 via 192.0.2.2")).collect();
        ip_batch(&batch.join("\n"));
        until(&mut snapshots, "every route", |s| {
            s.routes.iter().filter(|r| r.prefix.addr().to_string().starts_with("10.2.")).count()
                == 200
        })
        .await;
        let published = handle.counters().published - before;
        assert!(published <= 20, "{published} snapshots for one burst");
        handle.shutdown().await.expect("shutdown");
    });
}

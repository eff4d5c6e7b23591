//! The way to the backends changes under a node's feet.

use super::service::lossless;
use super::teller::short;
use super::{PATIENCE, Story};
use crate::fabric::Fabric;
use crate::wait::{wait_for, wait_until};
use anyhow::{Context, Result, ensure};
use std::time::{Duration, Instant};

impl Story {
    /// Neighbour entries vanish, the router's MAC changes, and the backends move behind another
    /// next hop: traffic follows. On node 1, which must be the only one.
    pub fn paths_change(&mut self) -> Result<()> {
        ensure!(self.fabric.nodes.len() == 1, "one node, so that all requests take it");
        let node = self.fabric.nodes[0].netns().clone();
        let tor = self.fabric.tor.clone();
        self.teller.step("Neighbours are forgotten under load");
        let load = self.load(200)?;
        let since = Instant::now();
        for n in 1..=5 {
            node.ip("neigh flush dev dn0")?;
            wait_until("load", PATIENCE, || load.so_far().len() >= n * 100)?;
        }
        let report = load.stop();
        lossless(&report)?;
        for prefix in Fabric::vip_prefixes() {
            let changes = self.fabric.fib.changes(prefix, since);
            ensure!(changes.is_empty(), "{prefix} was withdrawn: {changes:?}");
        }
        let slow =
            report.requests.iter().filter(|r| r.latency > Duration::from_millis(900)).count();
        // A lost SYN is repeated after a second; with 200 requests a second, one a flush and family
        // is 5 ms without a neighbour.
        ensure!(slow <= 10, "{slow} of {} requests had to repeat their SYN", report.len());
        self.teller.check(&format!(
            "5 flushes, {} requests, none lost, {slow} repeated a SYN, the slowest took {}",
            report.len(),
            short(report.latency(1.0))
        ));

        // Each of the router's interfaces answers for its own addresses only.
        tor.sysctl("net.ipv4.conf.all.arp_ignore", "1")?;
        self.teller.step("The backends move behind another next hop");
        tor.ip("link add link n1 name n1b type macvlan mode bridge\n\
             link set n1b up\n\
             addr add 10.1.1.9/24 dev n1b\n\
             addr add fd00:1:1::9/64 dev n1b nodad")?;
        let load = self.load(200)?;
        wait_until("load", PATIENCE, || load.so_far().ok() >= 100)?;
        node.ip("route add 10.2.0.0/24 via 10.1.1.9 dev dn0\n\
             route add fd00:2::/64 via fd00:1:1::9 dev dn0")?;
        wait_for("traffic over the new next hop", PATIENCE, || {
            let link = tor.ip_json(&["-s", "link", "show", "dev", "n1b"])?;
            let packets = link[0]["stats64"]["rx"]["packets"].as_u64().context("rx")?;
            ensure!(packets >= 400, "{packets} packets");
            Ok(())
        })?;
        lossless(&load.stop())?;
        self.teller.check("traffic follows the kernel's route, nothing lost");
        node.ip("route del 10.2.0.0/24\nroute del fd00:2::/64")?;
        tor.ip("link del n1b")?;

        self.teller.step("The router's MAC changes");
        let load = self.load(200)?;
        wait_until("load", PATIENCE, || load.so_far().ok() >= 100)?;
        // As routers do, it tells its neighbours. Otherwise the node's kernel would believe the old
        // address until it has to confirm it, after half a minute (RFC 4861 §7.3).
        tor.sysctl("net.ipv4.conf.n1.arp_notify", "1")?;
        tor.sysctl("net.ipv6.conf.n1.ndisc_notify", "1")?;
        let changed = Instant::now();
        tor.ip("link set n1 address 02:00:00:00:99:01")?;
        for target in self.fabric.targets() {
            wait_until("requests", PATIENCE, || {
                load.so_far().to(target).after(changed).ok() >= 100
            })?;
        }
        let report = load.stop();
        let lost: Vec<_> = report.requests.iter().filter(|r| r.outcome.is_err()).collect();
        let last = lost.iter().map(|r| r.started).max();
        let after = last.map_or(Duration::ZERO, |at| at.saturating_duration_since(changed));
        ensure!(after <= Duration::from_secs(5), "healed only after {}", short(after));
        let lost = lost.len();
        self.teller.check(&format!("healed within {}, {lost} requests lost", short(after)));
        Ok(())
    }
}

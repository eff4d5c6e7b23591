//! Steps 1 to 3: hosts, announcement, traffic.

use super::teller::short;
use super::{PATIENCE, Story};
use crate::fabric::{Fabric, VIP4, VIP6, backend_addresses, node_addresses};
use crate::http::{self, Load, Report};
use crate::wait::{wait_for, wait_until};
use anyhow::{Context, Result, ensure};
use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// From the start of the nodes until the router forwards to all of them.
#[derive(Debug, Clone, Copy)]
pub struct Announced {
    pub after: Duration,
}

/// Who served how much.
#[derive(Debug, Clone)]
pub struct Spread {
    pub requests: usize,
    pub by_backend: BTreeMap<String, usize>,
    /// Connections that each node forwarded, in order.
    pub by_node: Vec<u64>,
}

impl Story {
    /// 1: the hosts stand, and the router forwards between them.
    pub(super) fn laid_out(&mut self) -> Result<()> {
        let fabric = &self.fabric;
        for n in 1..=fabric.options.backends {
            for address in backend_addresses(n) {
                let target = SocketAddr::new(address, 80);
                let answer = fabric.client.enter(|| http::get(target, "/", PATIENCE).outcome)?;
                ensure!(
                    answer == Ok(format!("b{n}")),
                    "backend {target} answers the client directly with {answer:?}"
                );
            }
        }
        let (nodes, backends) = (fabric.nodes.len(), fabric.backends.len());
        let prefix = fabric.lab.prefix().to_owned();
        self.teller
            .note("client ── tor (FRR: zebra, bgpd, bfdd) ─┬─ node1, node2 (Dunlin on DPDK)");
        self.teller.note("                                        └─ b1, b2, b3 (nginx)");
        self.teller.check(&format!(
            "{nodes} nodes, {backends} backends, a router and a client in namespaces {prefix}-*"
        ));
        Ok(())
    }

    /// 2: the nodes start and announce the VIPs.
    pub fn announce(&mut self) -> Result<Announced> {
        self.teller.step("Start the nodes: BGP to the router announces the VIPs");
        let start = Instant::now();
        for node in &mut self.fabric.nodes {
            node.start()?;
            self.teller.note(&format!("{} is up", node.name()));
        }
        let all = self.all_nodes();
        for n in &all {
            for address in node_addresses(*n) {
                self.fabric.router.wait_established(address, PATIENCE)?;
            }
        }
        self.teller.check("the router says Established: IPv4 and IPv6 sessions of every node");
        let at = self.fabric.wait_vips(&all, PATIENCE)?;
        for prefix in Fabric::vip_prefixes() {
            let hops = self.fabric.fib.next_hops(prefix);
            self.teller.check(&format!("the router's kernel: {prefix} via {}", list(hops.keys())));
        }
        let after = at.saturating_duration_since(start);
        self.teller.note(&format!("{} after the first node was started", short(after)));
        self.wait_bfd(&all)?;
        self.wait_backends_healthy()?;
        Ok(Announced { after })
    }

    /// 3: requests through both VIPs reach all nodes and all backends.
    pub fn spread(&mut self) -> Result<Spread> {
        const REQUESTS: usize = 600;
        self.teller.step("HTTP through both VIPs, each request on a new connection");
        let before = self.connections()?;
        // A connection with the address and port of one whose end a node did not see (the router
        // had moved it away) is the same flow to that node.
        let left: u64 = self.counted("connections_active")?.iter().sum();
        let load = self.load(300)?;
        wait_until("requests", PATIENCE, || load.so_far().len() >= REQUESTS)?;
        let report = load.stop();
        lossless(&report)?;
        for target in self.fabric.targets() {
            let shares = report.to(target).by_backend();
            let total: usize = shares.values().sum();
            ensure!(
                shares.len() == self.fabric.backends.len()
                    && shares.values().all(|count| count * 10 >= total),
                "{target}: not spread over all backends: {shares:?}"
            );
            let (p50, p99) = (report.to(target).latency(0.5), report.to(target).latency(0.99));
            self.teller.check(&format!(
                "{target}: {total} requests, none lost: {}; median {}, 99 % {}",
                counts(&shares),
                short_us(p50),
                short_us(p99)
            ));
        }
        let sent = report.len() as u64;
        // A backend may hold a connection of a node that died, from the local address and port that a
        // node takes again: it ends both (RFC 9293 §3.10.7.4), and the client's next SYN, a second
        // later, is a flow anew.
        let second = Duration::from_millis(900);
        let anew = report.requests.iter().filter(|r| r.latency > second).count() as u64;
        let by_node = wait_for("the nodes' counters", PATIENCE, || {
            let now = self.connections()?;
            let by_node: Vec<u64> = now.iter().zip(&before).map(|(n, b)| n - b).collect();
            let sum: u64 = by_node.iter().sum();
            ensure!(
                sum <= sent + anew && sum + left >= sent,
                "{by_node:?} connections for {sent} requests, {anew} of which repeated their SYN, \
                 {left} flows left from before"
            );
            Ok(by_node)
        })?;
        ensure!(
            by_node.iter().all(|count| count * 4 * by_node.len() as u64 >= sent),
            "not spread over the nodes: {by_node:?}"
        );
        let named = (1..).zip(&by_node).map(|(n, count)| format!("node{n} {count}"));
        self.teller.check(&format!("each connection went through one node: {}", list(named)));
        Ok(Spread { requests: report.len(), by_backend: report.by_backend(), by_node })
    }

    /// Numbers of all nodes.
    pub(super) fn all_nodes(&self) -> Vec<u8> {
        (1..=self.fabric.options.nodes).collect()
    }

    /// All nodes but one.
    pub(super) fn nodes_but(&self, n: u8) -> Vec<u8> {
        let mut all = self.all_nodes();
        all.retain(|other| *other != n);
        all
    }

    /// A steady load on both VIPs.
    pub(super) fn load(&self, rate: u32) -> Result<http::RunningLoad> {
        let load = Load { targets: self.fabric.targets(), rate, timeout: Duration::from_secs(3) };
        load.start(&self.fabric.client)
    }

    /// Every node holds every backend healthy.
    pub(super) fn wait_backends_healthy(&self) -> Result<()> {
        for node in &self.fabric.nodes {
            wait_for(&format!("healthy backends on {}", node.name()), PATIENCE, || {
                let backends = node.backends()?;
                let ill: Vec<_> = backends.iter().filter(|b| !b.healthy()).collect();
                let web = backends.iter().filter(|b| b.service == "web").count();
                ensure!(
                    ill.is_empty() && web == self.fabric.backends.len() * 2,
                    "{ill:?} of {}",
                    backends.len()
                );
                Ok(())
            })?;
        }
        Ok(())
    }

    /// The router sees BFD up with these nodes.
    pub(super) fn wait_bfd(&self, nodes: &[u8]) -> Result<()> {
        for n in nodes {
            for address in node_addresses(*n) {
                wait_for(&format!("BFD with {address}"), PATIENCE, || {
                    self.fabric.router.bfd_is_up(address)
                })?;
            }
        }
        Ok(())
    }

    /// Connections opened so far, by node, over both VIPs.
    pub(super) fn connections(&self) -> Result<Vec<u64>> {
        self.counted("connections_total")
    }

    /// A counter of the services on both VIPs, by node.
    fn counted(&self, counter: &str) -> Result<Vec<u64>> {
        let nodes = self.fabric.nodes.iter();
        nodes
            .map(|node| {
                let services = node.ask(&["services"])?;
                let services = services.as_array().context("services: not a list")?;
                let vips = [VIP4.to_string(), VIP6.to_string()];
                let mine =
                    services.iter().filter(|s| vips.iter().any(|vip| s["vip"] == vip.as_str()));
                mine.map(|s| s[counter].as_u64().context("no such counter")).sum()
            })
            .collect()
    }
}

/// Nothing was lost.
pub(super) fn lossless(report: &Report) -> Result<()> {
    let lost = report.len() - report.ok();
    ensure!(lost == 0, "{lost} of {} requests lost: {:?}", report.len(), report.failures());
    Ok(())
}

pub(super) fn list(items: impl IntoIterator<Item = impl Display>) -> String {
    let items: Vec<String> = items.into_iter().map(|i| i.to_string()).collect();
    items.join(", ")
}

fn counts(shares: &BTreeMap<String, usize>) -> String {
    list(shares.iter().map(|(name, count)| format!("{name} {count}")))
}

fn short_us(latency: Duration) -> String {
    format!("{:.1} ms", latency.as_secs_f64() * 1000.0)
}

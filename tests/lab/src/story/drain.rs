//! An operator takes a node out of service, and stops it.

use super::reload::By;
use super::teller::short;
use super::{PATIENCE, Story};
use crate::fabric::{Fabric, VIP4, node_addresses};
use crate::http::{Download, Report};
use crate::wait::{wait_for, wait_until};
use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// Between the lowered preference and the withdrawal, in these steps: long enough to look at.
const DRAIN_WAIT: Duration = Duration::from_millis(1500);

/// A request answered after so long had been under way when the router moved it.
const UNDER_WAY: Duration = Duration::from_millis(100);

/// What a planned move of all traffic cost.
#[derive(Debug, Clone, Copy)]
pub struct Move {
    /// From the operator's word until the router used the other node alone.
    pub moved_after: Duration,
    /// Requests that were under way when the router moved them, and broke.
    pub broken: usize,
    pub requests: usize,
    /// Long downloads that stood still while the node was drained.
    pub halted: usize,
    /// Of the long downloads: how many broke, of how many.
    pub downloads: (usize, usize),
}

impl Story {
    /// `dunlin drain` of node `n` under load; then back.
    pub fn node_drains(&mut self, n: u8) -> Result<Move> {
        self.longer_drain_wait()?;
        self.teller.step(&format!("Drain node{n} under load"));
        let load = self.load(200)?;
        let mut downloads = Vec::new();
        for _ in 0..3 {
            downloads.extend(self.downloads(700_000)?);
        }
        let start = Instant::now();
        self.fabric.nodes[usize::from(n) - 1].show(&["drain", "--reason", "test"])?;
        self.lowered_then_withdrawn(n, start)?;
        let out = self.fabric.wait_out(n, PATIENCE)?;
        let moved_after = out.saturating_duration_since(start);
        self.teller
            .check(&format!("the router moved to the other node {} later", short(moved_after)));
        self.never_without_a_node(start)?;
        let received: Vec<u64> = downloads.iter().map(Download::received).collect();
        wait_until("load", PATIENCE, || load.so_far().after(out).len() >= 600)?;
        let halted = downloads.iter().zip(&received).filter(|(d, r)| d.received() == **r).count();
        let status = self.fabric.nodes[usize::from(n) - 1].get("/v1/status")?;
        ensure!(status["drain"]["phase"] == "withdrawn", "{}", status["drain"]);
        ensure!(status["health"]["state"] == "draining", "{}", status["health"]);

        let again = Instant::now();
        self.fabric.nodes[usize::from(n) - 1].show(&["undrain"])?;
        let back = self.fabric.wait_vips(&self.all_nodes(), PATIENCE)?;
        self.teller.check(&format!(
            "undrained: both nodes again {} later",
            short(back.saturating_duration_since(again))
        ));
        wait_until("load", PATIENCE, || load.so_far().after(back).len() >= 200)?;
        let report = load.stop();
        let broken = self.only_under_way(&report, start)?;
        let downloads = ended(downloads);
        self.teller.check(&format!(
            "{} requests, {broken} broke: they were under way when the router moved them",
            report.len()
        ));
        self.teller.note(&format!(
            "of {} long downloads {halted} stood still while the router sent them to the node that \
             has not their flows, and {} broke",
            downloads.1, downloads.0
        ));
        Ok(Move { moved_after, broken, halted, requests: report.len(), downloads })
    }

    /// SIGTERM of node `n` under load: the same, then goodbye.
    pub fn node_stops(&mut self, n: u8) -> Result<Move> {
        self.longer_drain_wait()?;
        self.teller.step(&format!("SIGTERM to node{n} under load"));
        self.fabric.router.frr()?.configure(&["router bgp 65000", "bgp log-neighbor-changes"])?;
        let load = self.load(200)?;
        wait_until("load", PATIENCE, || load.so_far().ok() >= 100)?;
        let start = Instant::now();
        self.fabric.nodes[usize::from(n) - 1].process()?.signal(Signal::SIGTERM)?;
        self.lowered_then_withdrawn(n, start)?;
        let out = self.fabric.wait_out(n, PATIENCE)?;
        let moved_after = out.saturating_duration_since(start);
        self.never_without_a_node(start)?;
        let process = self.fabric.nodes[usize::from(n) - 1].process()?;
        wait_until("its end", PATIENCE, || process.ended().is_some())?;
        let status = process.ended().context("it runs")?;
        ensure!(status.code() == Some(0), "ended with {status}: {}", process.log_tail(10));
        self.teller.check(&format!("it ended with code 0 after {}", short(start.elapsed())));
        self.said_goodbye(n)?;
        self.left_nothing(n)?;
        wait_until("load", PATIENCE, || load.so_far().after(out).len() >= 200)?;
        let report = load.stop();
        let broken = self.only_under_way(&report, start)?;
        self.teller.check(&format!("{} requests, {broken} broke", report.len()));
        Ok(Move { moved_after, broken, halted: 0, requests: report.len(), downloads: (0, 0) })
    }

    fn longer_drain_wait(&mut self) -> Result<()> {
        let wanted = format!("drain-wait = \"{}ms\"", DRAIN_WAIT.as_millis());
        self.change(By::Command, |_, t| t.replace("drain-wait = \"300ms\"", &wanted))
    }

    /// The router hears GRACEFUL_SHUTDOWN first, and the withdrawal not before the wait is over.
    fn lowered_then_withdrawn(&mut self, n: u8, start: Instant) -> Result<()> {
        let lowered = wait_for("GRACEFUL_SHUTDOWN at the router", PATIENCE, || {
            let path = self.path_of(n)?.context("withdrawn without a warning")?;
            let said = path["community"]["list"].to_string();
            ensure!(said.contains("gracefulShutdown"), "communities {said}");
            Ok(Instant::now())
        })?;
        let gone = wait_for("the withdrawal", PATIENCE, || {
            ensure!(self.path_of(n)?.is_none(), "still there");
            Ok(Instant::now())
        })?;
        let (lowered, gone) = (lowered - start, gone - start);
        ensure!(gone >= DRAIN_WAIT, "withdrawn already after {}", short(gone));
        self.teller.check(&format!(
            "FRR: GRACEFUL_SHUTDOWN within {}, withdrawn after {} (drain-wait {})",
            short(lowered),
            short(gone),
            short(DRAIN_WAIT)
        ));
        Ok(())
    }

    /// What the router heard from node `n` about the IPv4 VIP.
    fn path_of(&self, n: u8) -> Result<Option<serde_json::Value>> {
        let route =
            self.fabric.router.frr()?.json(&format!("show bgp ipv4 unicast {VIP4}/32 json"))?;
        let paths = route["paths"].as_array().cloned().unwrap_or_default();
        let peer = node_addresses(n)[0].to_string();
        Ok(paths.into_iter().find(|p| p["peer"]["peerId"] == peer.as_str()))
    }

    /// At no time since `since` was the router without a next hop.
    fn never_without_a_node(&self, since: Instant) -> Result<()> {
        for prefix in Fabric::vip_prefixes() {
            let changes = self.fabric.fib.changes(prefix, since);
            ensure!(changes.iter().all(|c| !c.next_hops.is_empty()), "a gap: {changes:?}");
        }
        Ok(())
    }

    /// Every lost request was under way at a moment when the router changed its routes; how many.
    ///
    /// Until nodes share their flows, a connection that the router moves breaks. New ones must not.
    fn only_under_way(&self, report: &Report, since: Instant) -> Result<usize> {
        let mut moves = BTreeSet::new();
        for prefix in Fabric::vip_prefixes() {
            moves.extend(self.fabric.fib.changes(prefix, since).iter().map(|c| c.at));
        }
        let lost: Vec<_> = report.requests.iter().filter(|r| r.outcome.is_err()).collect();
        for request in &lost {
            let under_way = request.started..request.started + UNDER_WAY;
            ensure!(
                moves.iter().any(|at| under_way.contains(at)),
                "lost without a move: {request:?}; moves at {moves:?}"
            );
        }
        ensure!(lost.len() * 100 <= report.len(), "{} of {} lost", lost.len(), report.len());
        Ok(lost.len())
    }

    /// The router heard Cease / Administrative Shutdown on both sessions.
    ///
    /// By its log: `show bgp neighbors` tells the last event only, which is the end of BFD.
    fn said_goodbye(&mut self, n: u8) -> Result<()> {
        let log = self.fabric.router.frr()?.dir().join("bgpd.daemon.log");
        for address in node_addresses(n) {
            let line = wait_for("the router's log", PATIENCE, || {
                let text = std::fs::read_to_string(&log)?;
                let mut lines = text.lines().filter(|l| l.contains("NOTIFICATION: received"));
                let mine = lines.find(|l| {
                    l.contains(&format!("{address} "))
                        && l.contains("6/2")
                        && l.contains("Cease/Administrative Shutdown")
                });
                mine.map(str::to_owned).context("no Cease/Administrative Shutdown")
            })?;
            self.teller.check(&format!("FRR logged: {line}"));
        }
        Ok(())
    }

    /// Control interface, routes and socket went with the node.
    fn left_nothing(&mut self, n: u8) -> Result<()> {
        let node = &self.fabric.nodes[usize::from(n) - 1];
        let links = node.netns().ip_json(&["link", "show"])?.to_string();
        ensure!(!links.contains("\"dn0\""), "the control interface is still there: {links}");
        for family in ["-4", "-6"] {
            let routes = node.netns().ip_json(&[family, "route", "show"])?.to_string();
            ensure!(!routes.contains("default"), "routes are left: {routes}");
        }
        ensure!(!node.socket().exists(), "the API's socket is left");
        self.teller.check("control interface, routes and socket are gone");
        Ok(())
    }
}

/// How many downloads broke, of how many.
fn ended(downloads: Vec<Download>) -> (usize, usize) {
    let all = downloads.len();
    let broken = downloads.into_iter().filter_map(|d| d.join().err()).count();
    (broken, all)
}

//! Nodes that share flows: a router moves connections, and none breaks.

use super::service::lossless;
use super::teller::short;
use super::{PATIENCE, Story};
use crate::fabric::node_addresses;
use crate::http::{Download, RunningLoad};
use crate::nginx::DOWNLOAD;
use crate::wait::{wait_for, wait_until};
use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use std::collections::BTreeSet;
use std::time::Instant;

/// Bytes per second of a download: it takes more than 12 s.
const SLOW: u32 = 330_000;
const LOAD: u32 = 200;

impl Story {
    /// Node `n` is drained under load, and then stopped: nothing is lost.
    pub fn drained_flows_go_on(&mut self, n: u8) -> Result<()> {
        self.teller.step(&format!("Drain node{n} under load; the nodes share flows"));
        let downloads = self.downloads_through_all_nodes()?;
        let load = self.load(LOAD)?;
        let start = Instant::now();
        let said = self.fabric.nodes[usize::from(n) - 1].show(&["drain", "--reason", "test"])?;
        ensure!(said.contains("flows left on this node"), "{said}");
        self.teller.note(said.trim_end());
        let out = self.fabric.wait_out(n, PATIENCE)?;
        let moved = short(out.saturating_duration_since(start));
        self.teller.check(&format!("the router moved to the other node {moved} later"));
        self.all_go_on(&downloads)?;
        self.carried_on(n)?;
        wait_until("load", PATIENCE, || load.so_far().after(out).len() >= 600)?;
        self.all_complete(downloads)?;
        let node = &self.fabric.nodes[usize::from(n) - 1];
        wait_for("no flows left", PATIENCE, || {
            let status = node.get("/v1/status")?;
            ensure!(status["drain"]["flows_left"] == 0, "{}", status["drain"]);
            Ok(())
        })?;
        self.teller.check("`dunlin status`: no flows left, safe to stop");

        let stopped = Instant::now();
        self.stop_cleanly(n)?;
        self.teller.check(&format!("SIGTERM: it ended after {}", short(stopped.elapsed())));
        self.none_lost(load, Instant::now())
    }

    /// Node `n` is told to stop while downloads go on: it waits for them.
    pub fn stopping_waits_for_flows(&mut self, n: u8) -> Result<()> {
        self.teller.step(&format!("SIGTERM to node{n} under load; the nodes share flows"));
        let downloads = self.downloads_through_all_nodes()?;
        let load = self.load(LOAD)?;
        let start = Instant::now();
        self.fabric.nodes[usize::from(n) - 1].process()?.signal(Signal::SIGTERM)?;
        let out = self.fabric.wait_out(n, PATIENCE)?;
        self.all_go_on(&downloads)?;
        self.carried_on(n)?;
        self.all_complete(downloads)?;
        let process = self.fabric.nodes[usize::from(n) - 1].process()?;
        wait_until("its end", 2 * PATIENCE, || process.ended().is_some())?;
        let status = process.ended().context("it runs")?;
        ensure!(status.code() == Some(0), "ended with {status}: {}", process.log_tail(10));
        self.teller.check(&format!("it ended with code 0 after {}", short(start.elapsed())));
        self.none_lost(load, out)
    }

    /// Node `n`, which was stopped, joins under load: nothing is lost.
    pub fn a_node_joins_and_carries_on(&mut self, n: u8) -> Result<()> {
        self.teller.step(&format!("node{n} joins under load; the nodes share flows"));
        let load = self.load(LOAD)?;
        let mut downloads = Vec::new();
        for _ in 0..6 {
            downloads.extend(self.downloads(SLOW)?);
        }
        self.fabric.nodes[usize::from(n) - 1].start()?;
        let back = self.fabric.wait_vips(&self.all_nodes(), PATIENCE)?;
        self.teller.check("the router uses both nodes");
        self.all_go_on(&downloads)?;
        // The new node carries on what the others began.
        let other = self.nodes_but(n)[0];
        self.carried_on(other)?;
        self.all_complete(downloads)?;
        self.none_lost(load, back)
    }

    /// So many that every node has some of each family. Before there is any other load.
    fn downloads_through_all_nodes(&mut self) -> Result<Vec<Download>> {
        const MOST: usize = 64;
        let mut downloads = Vec::new();
        loop {
            for _ in 0..4 {
                downloads.extend(self.downloads(SLOW)?);
            }
            let mut all = true;
            for node in &self.fabric.nodes {
                let flows = node.ask(&["flows", "--state", "established"])?;
                let flows = flows["flows"].as_array().context("flows")?;
                let vips = flows.iter().filter_map(|flow| flow["vip"].as_str());
                let families: BTreeSet<bool> = vips.map(|vip| vip.starts_with('[')).collect();
                all &= families.len() == 2;
            }
            if all {
                break;
            }
            ensure!(downloads.len() < MOST, "the router sends all downloads to the same nodes");
        }
        let seconds = DOWNLOAD as f64 / f64::from(SLOW);
        self.teller.note(&format!("{} downloads of {seconds:.0} s under way", downloads.len()));
        Ok(downloads)
    }

    /// Every download gets further.
    fn all_go_on(&mut self, downloads: &[Download]) -> Result<()> {
        let before: Vec<u64> = downloads.iter().map(Download::received).collect();
        let start = Instant::now();
        wait_until("all downloads to go on", PATIENCE, || {
            downloads.iter().zip(&before).all(|(download, before)| {
                let now = download.received();
                now > *before || now == DOWNLOAD as u64
            })
        })?;
        self.teller.check(&format!("all downloads went on within {}", short(start.elapsed())));
        Ok(())
    }

    /// Some other node shows flows that it carries on for node `n`.
    fn carried_on(&mut self, n: u8) -> Result<()> {
        let owner = node_addresses(n)[0].to_string();
        let others = self.nodes_but(n);
        let shown = wait_for("flows of another node", PATIENCE, || {
            let mut shown = 0;
            for other in &others {
                let flows = self.fabric.nodes[usize::from(*other) - 1].ask(&["flows"])?;
                let flows = flows["flows"].as_array().context("flows")?.clone();
                shown += flows.iter().filter(|flow| flow["owner"] == owner.as_str()).count();
            }
            ensure!(shown > 0, "no flow of {owner}");
            Ok(shown)
        })?;
        self.teller.check(&format!("`dunlin flows`: {shown} flows of node{n} are carried on"));
        Ok(())
    }

    /// Each to its last byte, which [`Download`] compares.
    fn all_complete(&mut self, downloads: Vec<Download>) -> Result<()> {
        let count = downloads.len();
        for download in downloads {
            let done = download.join()?;
            ensure!(done.bytes == DOWNLOAD, "{done:?}");
        }
        self.teller.check(&format!("{count} downloads complete, every byte right"));
        Ok(())
    }

    fn none_lost(&mut self, load: RunningLoad, since: Instant) -> Result<()> {
        wait_until("load", PATIENCE, || load.so_far().after(since).len() >= 200)?;
        let report = load.stop();
        lossless(&report)?;
        let (p99, worst) = (report.latency(0.99), report.latency(1.0));
        self.teller.check(&format!(
            "{} requests, none lost; 99 % within {}, all within {}",
            report.len(),
            short(p99),
            short(worst)
        ));
        Ok(())
    }

    fn stop_cleanly(&mut self, n: u8) -> Result<()> {
        let process = self.fabric.nodes[usize::from(n) - 1].process()?;
        process.signal(Signal::SIGTERM)?;
        wait_until("its end", PATIENCE, || process.ended().is_some())?;
        let status = process.ended().context("it runs")?;
        ensure!(status.code() == Some(0), "ended with {status}: {}", process.log_tail(10));
        Ok(())
    }
}

//! What dies or hangs beyond the demo: whole processes, wires, the router itself. And how long
//! after a decision the router follows.

use super::service::lossless;
use super::teller::short;
use super::{PATIENCE, Story};
use crate::fabric::{Fabric, node_addresses};
use crate::fib::Prefix;
use crate::node::Dunlind;
use crate::wait::{wait_for, wait_until};
use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use std::time::{Duration, Instant, SystemTime};

/// Requests to see after a change.
const ENOUGH: usize = 200;

/// What a withdrawal may take from the node's decision to the router's kernel, besides what the router
/// itself adds.
const NODE: Duration = Duration::from_millis(50);

impl Story {
    /// All backends turn ill; from the decision in each node's log to the router's kernel.
    pub fn withdrawal_times(&mut self) -> Result<Vec<Duration>> {
        self.teller.step("From a node's decision to the router's kernel");
        let start = Instant::now();
        for backend in &self.fabric.backends {
            backend.set_ill(true)?;
        }
        self.fabric.wait_vips(&[], PATIENCE)?;
        let mut took = Vec::new();
        let allowed = NODE + self.fabric.router.share();
        for n in self.all_nodes() {
            for prefix in Fabric::vip_prefixes() {
                let decided = decided(&mut self.fabric.nodes[usize::from(n) - 1], prefix)?;
                let hop = Fabric::next_hop(n, prefix);
                let changes = self.fabric.fib.changes(prefix, start);
                let gone = changes.iter().find(|c| !c.next_hops.contains_key(&hop));
                let gone = gone.context("no change in the router's kernel")?.at;
                let after = gone.saturating_duration_since(decided);
                self.teller.check(&format!("node{n}: {prefix} gone {} later", short(after)));
                ensure!(after <= allowed, "{prefix} of node{n}: only after {}", short(after));
                took.push(after);
            }
        }
        for backend in &self.fabric.backends {
            backend.set_ill(false)?;
        }
        self.fabric.wait_vips(&self.all_nodes(), PATIENCE)?;
        Ok(took)
    }

    /// SIGSTOP of the whole node, and SIGCONT.
    pub fn node_hangs(&mut self, n: u8) -> Result<Duration> {
        self.teller.step(&format!("SIGSTOP of node{n} under load"));
        let load = self.load(200)?;
        wait_until("load", PATIENCE, || load.so_far().ok() >= ENOUGH)?;
        let sessions = self.sessions_came_up()?;
        let stopped = Instant::now();
        self.fabric.nodes[usize::from(n) - 1].process()?.signal(Signal::SIGSTOP)?;
        let out = self.fabric.wait_out(n, PATIENCE)?;
        let after = out.saturating_duration_since(stopped);
        ensure!(
            after <= self.fabric.options.bfd * 6,
            "the router switched only after {}",
            short(after)
        );
        wait_until("load afterwards", PATIENCE, || load.so_far().after(out).len() >= ENOUGH)?;
        lossless(&load.stop().after(out))?;
        self.teller
            .check(&format!("the router left it {} later, nothing lost since", short(after)));
        let going = Instant::now();
        self.fabric.nodes[usize::from(n) - 1].process()?.signal(Signal::SIGCONT)?;
        let back = self.fabric.wait_vips(&self.all_nodes(), PATIENCE)?;
        self.teller.check(&format!(
            "SIGCONT: back by itself {} later",
            short(back.saturating_duration_since(going))
        ));
        self.wait_bfd(&[n])?;
        self.wait_backends_healthy()?;
        ensure!(self.sessions_came_up()? != sessions, "the sessions never went down");
        Ok(after)
    }

    /// Tell the router's zebra to write whole routes into the kernel, before the nodes start.
    ///
    /// It otherwise shares next-hop groups between routes. The kernel drops the member of a group
    /// whose link went down, zebra 8.4 does not notice, uses the group again once BGP is back, and
    /// one of the nodes gets nothing any more although all routes are there.
    pub fn plain_routes(&mut self) -> Result<()> {
        self.fabric.router.frr()?.configure(&["no zebra nexthop kernel enable"])
    }

    /// The cable of node `n` is pulled at the router's end, or at the node's; and plugged in again.
    pub fn link_fails(&mut self, n: u8, at_the_router: bool) -> Result<Duration> {
        let end = if at_the_router { "the router's end" } else { "the node's end" };
        self.teller.step(&format!("The link of node{n} goes down at {end}"));
        // As on a router with a configured interface: addresses survive the cable.
        self.fabric.tor.sysctl("net.ipv6.conf.all.keep_addr_on_down", "1")?;
        let node = self.fabric.nodes[usize::from(n) - 1].netns().clone();
        let (host, link) = if at_the_router {
            (self.fabric.tor.clone(), format!("n{n}"))
        } else {
            (node, "eth0".to_owned())
        };
        let load = self.load(200)?;
        wait_until("load", PATIENCE, || load.so_far().ok() >= ENOUGH)?;
        let cut = Instant::now();
        host.ip(&format!("link set {link} down"))?;
        let out = self.fabric.wait_out(n, PATIENCE)?;
        let after = out.saturating_duration_since(cut);
        self.fabric.wait_vips(&self.nodes_but(n), PATIENCE)?;
        self.teller.check(&format!("the router uses the other node {} later", short(after)));
        wait_until("load afterwards", PATIENCE, || load.so_far().after(out).len() >= ENOUGH)?;
        lossless(&load.stop().after(out))?;
        // AF_PACKET tells no carrier: the node learns from its sessions.
        wait_for("the node sees its sessions down", PATIENCE, || {
            let bgp = self.fabric.nodes[usize::from(n) - 1].get("/v1/bgp")?;
            let neighbors = bgp["neighbors"].as_array().context("neighbors")?;
            ensure!(neighbors.iter().all(|p| p["state"] != "established"), "{bgp}");
            Ok(())
        })?;
        self.teller.check("the node knows: no session is established, status is degraded");
        let status = self.fabric.nodes[usize::from(n) - 1].get("/v1/status")?;
        ensure!(status["health"]["state"] == "degraded", "{}", status["health"]);
        let plugged = Instant::now();
        host.ip(&format!("link set {link} up"))?;
        let back = self.fabric.wait_vips(&self.all_nodes(), PATIENCE)?;
        self.teller.check(&format!(
            "plugged in: both nodes again {} later, without anybody's help",
            short(back.saturating_duration_since(plugged))
        ));
        self.wait_bfd(&[n])?;
        self.wait_backends_healthy()?;
        self.spread().map(drop)?;
        Ok(after)
    }

    /// bgpd of the router is killed and started again.
    pub fn router_restarts(&mut self) -> Result<Duration> {
        self.teller.step("The router's bgpd is killed and starts again");
        let tor = self.fabric.tor.clone();
        let before = self.fabric.fib.table();
        let start = Instant::now();
        self.fabric.router.frr_mut()?.restart(&tor, "bgpd")?;
        let started = Instant::now();
        for n in self.all_nodes() {
            for address in node_addresses(n) {
                self.fabric.router.wait_established(address, PATIENCE)?;
            }
        }
        let back = self.fabric.wait_vips(&self.all_nodes(), PATIENCE)?;
        self.fabric.fib.wait_table(PATIENCE, |table| *table == before)?;
        let after = back.saturating_duration_since(start);
        self.teller.check(&format!(
            "every route is back {} after the kill ({} after bgpd ran)",
            short(after),
            short(back.saturating_duration_since(started))
        ));
        self.wait_bfd(&self.all_nodes())?;
        self.spread().map(drop)?;
        Ok(after)
    }
}

/// When the node last logged that it withdraws `prefix`.
pub fn decided(node: &mut Dunlind, prefix: Prefix) -> Result<Instant> {
    let log = std::fs::read_to_string(node.process()?.log())?;
    let line = log.lines().rev().find(|line| {
        line.contains(&format!("prefix={prefix} ")) && line.contains("announced=false")
    });
    line.and_then(logged_at).with_context(|| format!("no withdrawal of {prefix} in the log"))
}

/// When the node wrote this line of its log.
pub(super) fn logged_at(line: &str) -> Option<Instant> {
    // 2026-11-23T07:54:24.123456Z
    let time = line.split_whitespace().next()?.split_once('T')?.1.strip_suffix('Z')?;
    let mut parts = time.splitn(3, ':');
    let hours: u64 = parts.next()?.parse().ok()?;
    let minutes: u64 = parts.next()?.parse().ok()?;
    let seconds: f64 = parts.next()?.parse().ok()?;
    const DAY: u64 = 24 * 60 * 60;
    let at = Duration::from_secs(hours * 3600 + minutes * 60) + Duration::from_secs_f64(seconds);
    let (now, wall) = (Instant::now(), SystemTime::now());
    let now_of_day = wall.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    let now_of_day = Duration::new(now_of_day.as_secs() % DAY, now_of_day.subsec_nanos());
    // The log line may be from before midnight.
    let ago = (now_of_day + Duration::from_secs(DAY)).checked_sub(at)?;
    let ago = ago.checked_sub(Duration::from_secs(DAY)).unwrap_or(ago);
    now.checked_sub(ago)
}

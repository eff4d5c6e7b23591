//! Steps 4 to 8: what fails, and how little of it a client sees.

use super::service::{list, lossless};
use super::teller::short;
use super::{PATIENCE, Story};
use crate::fabric::{Fabric, PORT, backend_addresses, is_local_address};
use crate::http::Report;
use crate::sniff::Sniffer;
use crate::wait::{wait_for, wait_until};
use anyhow::{Context, Result, ensure};
use std::time::{Duration, Instant};

/// Requests per second while something fails.
const RATE: u32 = 200;

/// Requests to see before and after, so that "none" means something.
const ENOUGH: usize = 200;

/// New tables reach the workers between two bursts; a sleeping worker wakes within this.
const TAKE_OVER: Duration = Duration::from_millis(10);

/// What a node and its session may take from a decision until the router has the UPDATE.
const WITHDRAWAL: Duration = Duration::from_millis(50);

/// What the death of one backend cost.
#[derive(Debug, Clone, Copy)]
pub struct BackendDeath {
    /// From the kill until every node knew.
    pub known_after: Duration,
    /// From the kill until the last connection to it.
    pub last_sent_after: Duration,
    /// Requests refused in between. All of them had been sent to the dead backend.
    pub refused: usize,
    pub requests: usize,
}

/// Withdrawal and return when no backend is left.
#[derive(Debug, Clone, Copy)]
pub struct Blackout {
    /// From the death of the last backend until neither VIP was in the router's kernel.
    pub withdrawn_after: Duration,
    /// From the last node's decision (seen in its API, so a little late) until the same.
    pub withdrawn_after_decision: Duration,
    /// From the return of the backends until the VIPs were back.
    pub back_after: Duration,
}

/// A hung worker.
#[derive(Debug, Clone, Copy)]
pub struct Freeze {
    /// Until the router had taken the node out.
    pub withdrawn_after: Duration,
    /// From the thaw until it was in again.
    pub back_after: Duration,
    /// Requests lost until the router had switched.
    pub lost: usize,
    pub requests: usize,
}

/// A dead node.
#[derive(Debug, Clone, Copy)]
pub struct NodeDeath {
    pub withdrawn_after: Duration,
    pub lost: usize,
    pub requests: usize,
}

/// A node that comes back.
#[derive(Debug, Clone, Copy)]
pub struct Return {
    pub after: Duration,
    pub lost: usize,
    pub requests: usize,
}

impl Story {
    /// 4: backend `n` (from 1) dies under load, and comes back.
    pub fn backend_dies(&mut self, n: u8) -> Result<BackendDeath> {
        self.teller.step(&format!("Backend b{n} dies under {RATE} requests per second"));
        let index = usize::from(n) - 1;
        let sniffer = Sniffer::start(self.fabric.backend_netns(n), PORT)?;
        let load = self.load(RATE)?;
        wait_until("load", PATIENCE, || load.so_far().ok() >= ENOUGH)?;
        let before_kill = Instant::now();
        self.fabric.backends[index].kill()?;
        // Per node: when its API first said that no check of this backend holds any more.
        let known = self.when_each_node_knows(n)?;
        let all_know = known.iter().copied().max().unwrap_or(before_kill);
        wait_until("load afterwards", PATIENCE, || load.so_far().after(all_know).len() >= ENOUGH)?;
        let report = load.stop();

        let sent: Vec<_> = sniffer.seen().into_iter().filter(|syn| syn.at >= before_kill).collect();
        let mut last_sent = before_kill;
        let mut forwarded = 0;
        for (node, known) in (1..).zip(&known) {
            let from_node = sent.iter().filter(|syn| is_local_address(node, syn.from.ip()));
            let late = from_node.clone().filter(|syn| syn.at > *known + TAKE_OVER).count();
            ensure!(
                late == 0,
                "node{node} sent {late} connections to b{n} after its check had failed"
            );
            forwarded += from_node.clone().count();
            last_sent = from_node.map(|syn| syn.at).max().max(Some(last_sent)).unwrap_or(last_sent);
        }
        let after = report.after(all_know + TAKE_OVER);
        lossless(&after)?;
        let lost = report.len() - report.ok();
        // A request under way when the server was killed was sent before it.
        let under_way = report
            .requests
            .iter()
            .filter(|r| r.outcome.is_err() && r.started < before_kill)
            .count();
        ensure!(
            lost <= forwarded + under_way,
            "{lost} requests lost, but only {forwarded} were sent to b{n}: {:?}",
            report.failures()
        );
        let measured = BackendDeath {
            known_after: all_know.saturating_duration_since(before_kill),
            last_sent_after: last_sent.saturating_duration_since(before_kill),
            refused: lost,
            requests: report.len(),
        };
        self.teller.check(&format!(
            "its check failed on every node {} after the kill; last connection to it after {}",
            short(measured.known_after),
            short(measured.last_sent_after)
        ));
        self.teller
            .check(&format!("{} requests since then: none sent to b{n}, none lost", after.len()));
        self.teller.check(&format!(
            "{lost} of {} requests lost, all of them sent to b{n} before its check failed",
            report.len()
        ));
        self.fabric.backends[index].up()?;
        self.wait_backends_healthy()?;
        self.teller.check(&format!("b{n} is back and healthy on every node"));
        Ok(measured)
    }

    /// 5: no backend is left; the VIPs go, and return with the backends.
    pub fn all_backends_die(&mut self) -> Result<Blackout> {
        self.teller.step("All backends die");
        for backend in &mut self.fabric.backends {
            backend.kill()?;
        }
        let killed = Instant::now();
        let mut decided = killed;
        for n in 1..=self.fabric.options.backends {
            let known = self.when_each_node_knows(n)?;
            decided = known.into_iter().fold(decided, Instant::max);
        }
        let gone = self.fabric.wait_vips(&[], PATIENCE)?;
        let withdrawn_after_decision = gone.saturating_duration_since(decided);
        ensure!(
            withdrawn_after_decision <= WITHDRAWAL + self.fabric.router.share(),
            "withdrawn only {} after the decision",
            short(withdrawn_after_decision)
        );
        let withdrawn_after = gone.saturating_duration_since(killed);
        self.teller.check(&format!(
            "both VIPs left the router's kernel {} after the last backend died, {} after the last \
             node decided so (the router's own share is {})",
            short(withdrawn_after),
            short(withdrawn_after_decision),
            short(self.fabric.router.share())
        ));
        for backend in &mut self.fabric.backends {
            backend.up()?;
        }
        let up = Instant::now();
        let back = self.fabric.wait_vips(&self.all_nodes(), PATIENCE)?;
        let back_after = back.saturating_duration_since(up);
        self.teller.check(&format!(
            "announced again {} after they returned, by every node",
            short(back_after)
        ));
        self.wait_backends_healthy()?;
        Ok(Blackout { withdrawn_after, withdrawn_after_decision, back_after })
    }

    /// 6: worker `worker` of node `n` hangs; the node takes itself out.
    pub fn worker_freezes(&mut self, n: u8, worker: u16) -> Result<Freeze> {
        self.teller.step(&format!("worker-{worker} of node{n} is frozen (ptrace)"));
        let load = self.load(RATE)?;
        wait_until("load", PATIENCE, || load.so_far().ok() >= ENOUGH)?;
        let frozen = self.fabric.nodes[usize::from(n) - 1].freeze_worker(worker)?;
        let since = frozen.since();
        let out = self.fabric.wait_out(n, PATIENCE)?;
        let withdrawn_after = out.saturating_duration_since(since);
        ensure!(
            withdrawn_after <= Duration::from_secs(1),
            "withdrawn only {} after the freeze",
            short(withdrawn_after)
        );
        self.fabric.wait_vips(&self.nodes_but(n), PATIENCE)?;
        self.teller.check(&format!(
            "the router forwards to the other node {} later",
            short(withdrawn_after)
        ));
        wait_until("load afterwards", PATIENCE, || load.so_far().after(out).len() >= ENOUGH)?;
        let report = load.stop();
        lossless(&report.after(out))?;
        let lost = report.len() - report.ok();
        self.teller.check(&format!(
            "{} requests after that, none lost; {}",
            report.after(out).len(),
            cost(&report, out)
        ));
        let thawed = frozen.thaw();
        let back = self.fabric.wait_vips(&self.all_nodes(), PATIENCE)?;
        let back_after = back.saturating_duration_since(thawed);
        self.teller.check(&format!("thawed: node{n} announces again {} later", short(back_after)));
        self.wait_bfd(&[n])?;
        self.wait_backends_healthy()?;
        Ok(Freeze { withdrawn_after, back_after, lost, requests: report.len() })
    }

    /// 7: `kill -9` of node `n` under load.
    pub fn node_dies(&mut self, n: u8) -> Result<NodeDeath> {
        self.teller.step(&format!("kill -9 of node{n} under {RATE} requests per second"));
        let load = self.load(RATE)?;
        wait_until("load", PATIENCE, || load.so_far().ok() >= ENOUGH)?;
        let killed = Instant::now();
        self.fabric.nodes[usize::from(n) - 1].kill()?;
        let out = self.fabric.wait_out(n, PATIENCE)?;
        let withdrawn_after = out.saturating_duration_since(killed);
        // Its sockets died with its port: nothing says goodbye, BFD must notice.
        let allowed = self.fabric.options.bfd * 3 + Duration::from_millis(300);
        ensure!(
            withdrawn_after <= allowed,
            "the router switched only after {}, {} allowed",
            short(withdrawn_after),
            short(allowed)
        );
        self.fabric.wait_vips(&self.nodes_but(n), PATIENCE)?;
        self.teller.check(&format!(
            "the router goes on with the other node {} later (BFD {} × 3)",
            short(withdrawn_after),
            short(self.fabric.options.bfd)
        ));
        wait_until("load afterwards", PATIENCE, || load.so_far().after(out).len() >= 2 * ENOUGH)?;
        let report = load.stop();
        lossless(&report.after(out))?;
        let lost = report.len() - report.ok();
        self.teller.check(&format!(
            "{} requests after that, none lost; {}",
            report.after(out).len(),
            cost(&report, out)
        ));
        Ok(NodeDeath { withdrawn_after, lost, requests: report.len() })
    }

    /// 8: node `n` comes back under load.
    pub fn node_returns(&mut self, n: u8) -> Result<Return> {
        self.teller.step(&format!("node{n} returns"));
        let load = self.load(RATE)?;
        let start = Instant::now();
        self.fabric.nodes[usize::from(n) - 1].start()?;
        let back = self.fabric.wait_vips(&self.all_nodes(), PATIENCE)?;
        let after = back.saturating_duration_since(start);
        for prefix in Fabric::vip_prefixes() {
            let hops = self.fabric.fib.next_hops(prefix);
            self.teller.check(&format!("the router's kernel: {prefix} via {}", list(hops.keys())));
        }
        self.teller.note(&format!("{} after its start", short(after)));
        wait_until("load afterwards", PATIENCE, || load.so_far().after(back).len() >= ENOUGH)?;
        let report = load.stop();
        lossless(&report.after(back))?;
        let lost = report.len() - report.ok();
        self.teller.check(&format!(
            "{} requests since then, none lost; {}",
            report.after(back).len(),
            cost(&report, back)
        ));
        self.wait_bfd(&[n])?;
        Ok(Return { after, lost, requests: report.len() })
    }

    /// When each node's API first said that backend `n` fails its checks, both addresses.
    fn when_each_node_knows(&self, n: u8) -> Result<Vec<Instant>> {
        let addresses = backend_addresses(n);
        let nodes = &self.fabric.nodes;
        let mut known = vec![None; nodes.len()];
        wait_for(&format!("every node sees b{n} down"), PATIENCE, || {
            for (node, known) in nodes.iter().zip(&mut known) {
                let backends = node.backends()?;
                let mut mine = backends.iter().filter(|b| addresses.contains(&b.address.ip()));
                if known.is_none() && mine.all(|b| !b.healthy()) {
                    *known = Some(Instant::now());
                }
            }
            known.iter().copied().collect::<Option<Vec<_>>>().context("still healthy")
        })
    }
}

/// What a change cost until the router had followed it.
fn cost(report: &Report, followed: Instant) -> String {
    let first = report.requests.iter().map(|r| r.started).min();
    let before = report.between(first.unwrap_or(followed), followed);
    format!(
        "{} of the {} before were lost, the slowest took {} (TCP repeats a lost SYN after 1 s)",
        before.len() - before.ok(),
        before.len(),
        short(before.latency(1.0))
    )
}

//! Upgrades of node 1, under load, node 2 beside it: a good one, and one that does not work.

use super::boot::RATE;
use super::{Bundle, PATIENCE, Show};
use crate::fabric::{Fabric, wait_out, wait_vips};
use crate::http::Report;
use crate::story::short;
use crate::wait::wait_until;
use anyhow::{Result, ensure};
use std::time::{Duration, Instant};

/// An emulated node may take so long for a request; when the router moves it, it breaks.
const UNDER_WAY: Duration = Duration::from_secs(3);
/// Two boots, the drain, and the deadline of the health gate.
const TWO_BOOTS: Duration = Duration::from_secs(600);

impl Show {
    /// The same content under a higher version. How long until it was kept.
    pub fn good_upgrade(&mut self) -> Result<Duration> {
        let bundle = self.artifacts.good.clone();
        self.teller.step(&format!("Upgrade node1 to {} under load, by https", bundle.version));
        let old_slot = self.node(1)?.slot()?;
        let (took, report, since) = self.explained(1, |show| show.upgrade_under_load(&bundle))?;
        let node = self.node(1)?;
        let (version, slot, kernels) = (node.version()?, node.slot()?, node.kernels()?);
        ensure!(version == bundle.version, "it runs {version}");
        ensure!(slot != old_slot, "it runs from slot {slot} as before");
        self.teller.check(&format!(
            "node1 runs {version} from slot {slot}, kept after {}; kernels: {}",
            short(took),
            kernels.join(", ")
        ));
        self.never_without_a_node(&report, since)?;
        self.sessions(1)?;
        Ok(took)
    }

    /// A version whose dunlind exits: the machine goes back by itself.
    pub fn broken_upgrade(&mut self) -> Result<()> {
        let bundle = self.artifacts.broken.clone();
        self.teller.step(&format!("Upgrade node1 to {}, whose dunlind exits", bundle.version));
        let (version, slot) = (self.node(1)?.version()?, self.node(1)?.slot()?);
        let console = self.node(1)?.vm.serial().mark();
        let since = Instant::now();
        let load = self.site.load(RATE)?;
        let report = self.explained(1, |show| {
            show.node(1)?.upgrade("http", &bundle)?;
            wait_out(&show.site.fib, 1, PATIENCE)?;
            let back = wait_vips(&show.site.fib, &[1, 2], TWO_BOOTS)?;
            wait_until("load", PATIENCE, || load.so_far().after(back).len() >= 50)?;
            Ok(load.stop())
        })?;
        let took = since.elapsed();
        let node = self.node(1)?;
        node.wait_boot(None, PATIENCE)?;
        let (now, now_slot, kernels) = (node.version()?, node.slot()?, node.kernels()?);
        ensure!(
            now == version && now_slot == slot,
            "it runs {now} from slot {now_slot}, not {version} from {slot} as before"
        );
        // Otherwise it would prove nothing: the broken version did boot.
        let console = self.node(1)?.vm.serial().since(console);
        ensure!(console.contains(&bundle.version), "{} never booted:\n{console}", bundle.version);
        self.teller.check(&format!(
            "{} booted, failed, and node1 runs {version} from slot {slot} again, back with the \
             router after {}; kernels: {}",
            bundle.version,
            short(took),
            kernels.join(", ")
        ));
        self.never_without_a_node(&report, since)?;
        self.sessions(1)
    }

    /// Upgrade node 1 and wait until the router has it back and the version is kept.
    fn upgrade_under_load(&mut self, bundle: &Bundle) -> Result<(Duration, Report, Instant)> {
        let load = self.site.load(RATE)?;
        let before = self.node(1)?.boot_id()?;
        let start = Instant::now();
        self.node(1)?.upgrade("https", bundle)?;
        let out = wait_out(&self.site.fib, 1, PATIENCE)?;
        let drained = out.saturating_duration_since(start);
        self.teller.check(&format!("drained: the router left node1 after {}", short(drained)));
        self.node(1)?.wait_boot(Some(&before), PATIENCE)?;
        let back = wait_vips(&self.site.fib, &[1, 2], PATIENCE)?;
        self.node(1)?.wait_blessed(&bundle.version, PATIENCE)?;
        let took = start.elapsed();
        wait_until("load", PATIENCE, || load.so_far().after(back).len() >= 50)?;
        Ok((took, load.stop(), start))
    }

    /// The VIPs always had a next hop, and no request was lost but those that the router moved
    /// while they were under way.
    fn never_without_a_node(&mut self, report: &Report, since: Instant) -> Result<()> {
        let mut moves = Vec::new();
        for prefix in Fabric::vip_prefixes() {
            let changes = self.site.fib.changes(prefix, since);
            ensure!(changes.iter().all(|c| !c.next_hops.is_empty()), "a gap: {changes:?}");
            moves.extend(changes.iter().map(|c| c.at));
        }
        let lost: Vec<_> = report.requests.iter().filter(|r| r.outcome.is_err()).collect();
        for request in &lost {
            let under_way = request.started..request.started + UNDER_WAY;
            ensure!(
                moves.iter().any(|at| under_way.contains(at)),
                "lost without a move: {request:?}; moves at {moves:?}"
            );
        }
        ensure!(lost.len() * 20 <= report.len(), "{} of {} lost", lost.len(), report.len());
        self.teller.check(&format!(
            "{} requests meanwhile, {} broke: they were under way when the router moved them",
            report.len(),
            lost.len()
        ));
        Ok(())
    }
}

//! Two nodes: capacity is added by flashing one more, and one of them may die.

use super::boot::{RATE, lossless};
use super::{PATIENCE, Show};
use crate::fabric::{wait_out, wait_vips};
use crate::story::short;
use crate::wait::wait_until;
use anyhow::{Result, ensure};
use std::time::{Duration, Instant};

impl Show {
    /// Node 2 comes from the same image and another config drive, behind an IOMMU.
    pub fn second_node(&mut self) -> Result<()> {
        self.teller.step("A second machine from the same image, another config drive");
        self.power_on_node(2, true)?;
        self.explained(2, |show| wait_vips(&show.site.fib, &[1, 2], PATIENCE))?;
        self.teller.check("the router's kernel: both VIPs over both nodes");
        self.sessions(2)?;
        self.requests(2)?;
        self.drivers(2)
    }

    /// The power of node 2 is cut under load.
    pub fn node_dies(&mut self) -> Result<()> {
        self.teller.step(&format!("Cut the power of node2 under {RATE} requests per second"));
        let load = self.site.load(RATE)?;
        wait_until("load", PATIENCE, || load.so_far().ok() >= 50)?;
        let cut = Instant::now();
        self.node(2)?.vm.cut_power()?;
        let out = wait_out(&self.site.fib, 2, PATIENCE)?;
        let gone = out.saturating_duration_since(cut);
        wait_until("load", PATIENCE, || load.so_far().after(out).len() >= 100)?;
        let report = load.stop();
        let mut lost = report.requests.iter().filter(|r| r.outcome.is_err());
        let early = lost.find(|r| r.started + UNDER_WAY < cut);
        ensure!(early.is_none(), "lost before the cut: {early:?}");
        let after = report.after(out);
        lossless(&after)?;
        self.teller.check(&format!(
            "the router moved to node1 {} later; {} requests since, none lost; {} of {} lost in \
             between",
            short(gone),
            after.len(),
            report.len() - report.ok(),
            report.len()
        ));
        Ok(())
    }
}

/// A request may have been under way for so long when its node died.
const UNDER_WAY: Duration = Duration::from_secs(3);

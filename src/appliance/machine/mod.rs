//! `dunlin machine`: prepares the machine for the node, at every boot, before `dunlind` starts.
//!
//! In: sysfs and the configuration. Out: data ports bound to a driver that gives them to DPDK, the
//! management NIC left with the kernel, hugepages, kernel modules, everything but the workers off
//! their cores, and `/run/dunlin/devices.json`. Running it again changes nothing that is right
//! already. It must never take away the card that the machine is reached by.

mod apply;
pub mod cores;
pub mod inventory;
pub mod plan;

#[cfg(test)]
mod tests;

use super::host::Host;
use crate::config::Config;
use anyhow::{Result, bail};
use inventory::Inventory;
use plan::{Level, Plan};
use std::io::Write;
use std::path::Path;

/// Prepare the machine for the configuration in `file`, or only say what would be done.
pub fn run(host: &Host, file: &Path, dry_run: bool, out: &mut dyn Write) -> Result<()> {
    let config = Config::load(host.root.path(file))?;
    let inventory = Inventory::take(&host.root);
    let plan = Plan::make(&host.root, &inventory, &config);
    for remark in &plan.remarks {
        let label = match remark.level {
            Level::Note => "note",
            Level::Warning => "WARNING",
            Level::Problem => "PROBLEM",
        };
        writeln!(out, "{label}: {}", remark.text)?;
    }
    if plan.steps.is_empty() {
        writeln!(out, "nothing to change")?;
    }
    let mut failed = 0;
    if dry_run {
        for step in &plan.steps {
            writeln!(out, "would {step}")?;
        }
    } else {
        for outcome in apply::apply(host, &plan)? {
            failed += usize::from(outcome.failed);
            writeln!(out, "{}", outcome.text)?;
        }
    }
    if failed > 0 || plan.has_problem() {
        bail!("the machine is not ready; `dunlin doctor` shows it as a whole");
    }
    Ok(())
}

//! Does what the plan says, and tells how each step went.

use super::inventory::{parse_list, show_list, show_mask};
use super::plan::{Plan, Step};
use crate::appliance::host::{Host, Root};
use anyhow::{Context, Result, bail};
use std::fmt::Write;

const PCI: &str = "sys/bus/pci";
const WORKQUEUES: &str = "sys/devices/virtual/workqueue/cpumask";
/// Where services, logins and the manager itself run. The node has a slice of its own.
const CONFINED: [&str; 3] = ["system.slice", "user.slice", "init.scope"];

/// How a step went.
#[derive(Debug)]
pub struct Outcome {
    pub text: String,
    pub failed: bool,
}

/// Do every step; one that fails does not keep the others from being done.
pub fn apply(host: &Host, plan: &Plan) -> Result<Vec<Outcome>> {
    // First of all: once a card is bound, its address cannot be read any more.
    plan.devices.store(&host.root).context("cannot note the addresses of the cards")?;
    Ok(plan.steps.iter().map(|step| outcome(step, perform(host, step))).collect())
}

fn outcome(step: &Step, result: Result<String>) -> Outcome {
    match result {
        Ok(remark) if remark.is_empty() => Outcome { text: step.to_string(), failed: false },
        Ok(remark) => Outcome { text: format!("{step} ({remark})"), failed: false },
        Err(error) => {
            let failed = !matches!(step, Step::LoadModule { .. });
            Outcome { text: format!("{step}: FAILED: {error:#}"), failed }
        }
    }
}

fn perform(host: &Host, step: &Step) -> Result<String> {
    match step {
        Step::LoadModule { name, .. } => host.run("modprobe", &[name]).map(|_| String::new()),
        Step::Bind { address, driver, .. } => bind(host, address, driver).map(|()| String::new()),
        Step::Hugepages { at, to, .. } => hugepages(&host.root, at, *to),
        Step::Confine { cores } => Ok(confine(host, cores)),
    }
}

/// The override makes the probe choose `driver` and no other, for this device only.
fn bind(host: &Host, address: &str, driver: &str) -> Result<()> {
    let root = &host.root;
    let device = format!("{PCI}/devices/{address}");
    root.poke(format!("{device}/driver_override"), driver).context("driver_override")?;
    if root.exists(format!("{device}/driver")) {
        root.poke(format!("{device}/driver/unbind"), address).context("unbind")?;
    }
    root.poke(format!("{PCI}/drivers_probe"), address).context("drivers_probe")?;
    // The device nodes that go with it.
    host.run("udevadm", &["settle", "--timeout=10"]).context("waiting for its device nodes")?;
    match root.link(format!("{device}/driver")) {
        Some(now) if now == driver => Ok(()),
        Some(other) => bail!("the kernel bound it to {other}"),
        None => bail!("the kernel bound it to nothing; `dmesg | tail` may say why"),
    }
}

/// The kernel gives as many as it finds contiguous memory for, without an error.
fn hugepages(root: &Root, at: &str, pages: u64) -> Result<String> {
    // Only helps; not every kernel has it.
    let _ = root.poke("proc/sys/vm/compact_memory", "1");
    root.poke(at, &pages.to_string())?;
    let got: u64 = root.number(at).unwrap_or(0);
    if got < pages {
        bail!("the kernel found only {got}: memory is fragmented, a reboot helps");
    }
    Ok(String::new())
}

/// Interrupts, work queues and services are off the workers' cores already.
pub fn is_confined(root: &Root, cores: &[u16]) -> bool {
    let list = show_list(cores);
    let queues = root.read(WORKQUEUES).is_none_or(|mask| same_mask(&mask, cores));
    let services = CONFINED.iter().all(|unit| {
        let set = root.read(format!("sys/fs/cgroup/{unit}/cpuset.cpus"));
        set.is_none_or(|set| set == list)
    });
    let interrupts =
        root.read("proc/irq/default_smp_affinity").is_none_or(|mask| same_mask(&mask, cores));
    queues && services && interrupts
}

fn same_mask(mask: &str, cores: &[u16]) -> bool {
    let plain = |mask: &str| mask.replace(',', "").trim_start_matches('0').to_owned();
    plain(mask) == plain(&show_mask(cores))
}

/// As much as the kernel allows: some interrupts cannot be moved, and that is no failure.
fn confine(host: &Host, cores: &[u16]) -> String {
    let root = &host.root;
    let (list, mask) = (show_list(cores), show_mask(cores));
    let mut left = Vec::new();
    if root.poke("proc/irq/default_smp_affinity", &mask).is_err() {
        left.push("the default of new interrupts".to_owned());
    }
    let (mut moved, mut fixed) = (0, 0);
    for irq in root.list("proc/irq") {
        let at = format!("proc/irq/{irq}/smp_affinity_list");
        let Some(now) = root.read(&at) else { continue };
        if parse_list(&now).iter().all(|core| cores.contains(core)) {
            continue;
        }
        match root.poke(&at, &list) {
            Ok(()) => moved += 1,
            Err(_) => fixed += 1,
        }
    }
    if root.exists(WORKQUEUES) && root.poke(WORKQUEUES, &mask).is_err() {
        left.push("kernel work queues".to_owned());
    }
    if root.exists("run/systemd/system") {
        for unit in CONFINED {
            let cpus = format!("AllowedCPUs={list}");
            if let Err(error) = host.run("systemctl", &["set-property", "--runtime", unit, &cpus]) {
                left.push(format!("{unit}: {error:#}"));
            }
        }
    }
    let mut text = format!("{moved} interrupts moved");
    if fixed > 0 {
        // Writing to a String cannot fail.
        let _ = write!(text, ", {fixed} are the kernel's own and stay");
    }
    if !left.is_empty() {
        let _ = write!(text, ", could not move: {}", left.join("; "));
    }
    text
}

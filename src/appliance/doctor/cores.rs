//! Cores and clocks of the workers.

use super::{Findings, Patient};
use crate::appliance::machine::cores::node_of;
use crate::appliance::machine::inventory::show_list;

pub(super) fn check(patient: &Patient<'_>, findings: &mut Findings) {
    places(patient, findings);
    isolation(patient, findings);
    clocks(patient, findings);
    memory(patient, findings);
}

/// What the running workers say of their flow tables. Ordinary memory that was asked for is no news.
fn memory(patient: &Patient<'_>, findings: &mut Findings) {
    if patient.config.as_ref().is_some_and(|config| !config.dataplane.hugepages) {
        return;
    }
    for worker in patient.status.iter().flat_map(|status| &status.workers) {
        if !worker.hint.is_empty() {
            findings.faster(
                format!("worker {}: {}", worker.id, worker.hint),
                "more hugepages on the worker's NUMA node (dunlin machine), or fewer max-flows",
            );
        }
    }
}

fn places(patient: &Patient<'_>, findings: &mut Findings) {
    let (workers, cpus) = (patient.workers(), &patient.inventory.cpus);
    let used: Vec<_> = cpus.iter().filter(|cpu| workers.contains(&cpu.id)).collect();
    let first = cpus.iter().map(|cpu| cpu.first_sibling).min();
    if cpus.len() > 1
        && let Some(cpu) = used.iter().find(|cpu| Some(cpu.first_sibling) == first)
    {
        findings.faster(
            format!("a worker is on core {}, which the kernel itself prefers", cpu.id),
            "leave the first core to the kernel and the routing protocols",
        );
    }
    let sharing: Vec<u16> = used
        .iter()
        .filter(|a| used.iter().any(|b| b.id != a.id && b.first_sibling == a.first_sibling))
        .map(|cpu| cpu.id)
        .collect();
    if !sharing.is_empty() {
        findings.faster(
            format!("workers share the hardware of a core: {}", show_list(&sharing)),
            "one hardware thread per core (lscpu -e)",
        );
    }
    let addresses: Vec<String> = patient
        .plan
        .iter()
        .flat_map(|plan| plan.ports.iter().map(|(_, address)| address.clone()))
        .collect();
    if let Some(node) = node_of(&patient.inventory, &addresses) {
        let far: Vec<u16> = used.iter().filter(|cpu| cpu.node != node).map(|cpu| cpu.id).collect();
        if !far.is_empty() {
            findings.faster(
                format!(
                    "workers on cores {} are not on the cards' NUMA node {node}",
                    show_list(&far)
                ),
                "choose cores of that node (lscpu)",
            );
        }
    }
}

fn isolation(patient: &Patient<'_>, findings: &mut Findings) {
    let (workers, cpus) = (patient.workers(), &patient.inventory.cpus);
    let shared: Vec<u16> = cpus
        .iter()
        .filter(|cpu| workers.contains(&cpu.id) && !cpu.isolated)
        .map(|cpu| cpu.id)
        .collect();
    if !shared.is_empty() && shared.len() < cpus.len() {
        let list = show_list(&shared);
        findings.faster(
            format!("the kernel may run other work on the workers' cores {list}"),
            format!("kernel command line: isolcpus={list} nohz_full={list} rcu_nocbs={list}"),
        );
    }
}

fn clocks(patient: &Patient<'_>, findings: &mut Findings) {
    let root = &patient.host.root;
    let cpuinfo = root.read("proc/cpuinfo").unwrap_or_default();
    let flags = cpuinfo.lines().find(|line| line.starts_with("flags"));
    // Other architectures have a counter that is always constant.
    if let Some(flags) = flags
        && !flags.split_ascii_whitespace().any(|flag| flag == "constant_tsc")
    {
        let what = "the time stamp counter is not constant: timeouts follow the core's clock";
        findings.warning(what, "virtual machines: pass the host's CPU through (+invtsc)");
    }
    let slow: Vec<u16> = patient
        .workers()
        .iter()
        .copied()
        .filter(|core| {
            let at = format!("sys/devices/system/cpu/cpu{core}/cpufreq/scaling_governor");
            root.read(at).is_some_and(|governor| governor != "performance")
        })
        .collect();
    if !slow.is_empty() {
        findings.faster(
            format!("the clock of cores {} rises only under load", show_list(&slow)),
            "cpupower frequency-set -g performance",
        );
    }
    if !patient.inventory.watchdog {
        findings.warning(
            "no hardware watchdog: a machine whose kernel hangs stays so",
            "its driver (iTCO_wdt, sp5100_tco, i6300esb), or softdog",
        );
    }
}

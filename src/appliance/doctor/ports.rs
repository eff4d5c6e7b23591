//! The network cards of the ports, and their control interfaces.

use super::{Findings, Patient};
use crate::api::model::{ControlInterface, SteeringMode};
use crate::appliance::host::Root;
use crate::appliance::nic::Nic;
use crate::config::model::ControlKind;
use std::collections::BTreeSet;

pub(super) fn check(patient: &Patient<'_>, findings: &mut Findings) {
    if patient.inventory.nics.is_empty() {
        let advice = "lspci -nn shows whether there is one without a driver";
        findings.problem("no network card was found", advice);
    }
    let installed = installed_drivers(&patient.host.root);
    for (port, address) in patient.plan.iter().flat_map(|plan| &plan.ports) {
        if let Some(nic) = patient.inventory.nic(address) {
            driver(port, nic, &installed, findings);
            queues(patient, port, nic, findings);
            slot(&patient.host.root, port, nic, findings);
            group(&patient.host.root, port, nic, findings);
        }
    }
    unused(patient, findings);
    running(patient, findings);
    control(patient, findings);
}

/// The poll-mode drivers of the installed DPDK: `e1000` of `librte_net_e1000.so.23`. Empty: unknown.
fn installed_drivers(root: &Root) -> BTreeSet<String> {
    let homes = root.list("usr/lib").into_iter().flat_map(|triplet| {
        let at = format!("usr/lib/{triplet}/dpdk");
        root.list(&at).into_iter().map(move |version| format!("{at}/{version}"))
    });
    let files = homes.flat_map(|home| root.list(home));
    files
        .filter_map(|file| {
            let name = file.strip_prefix("librte_net_")?;
            Some(name.split_once(".so")?.0.to_owned())
        })
        .collect()
}

fn driver(port: &str, nic: &Nic, installed: &BTreeSet<String>, findings: &mut Findings) {
    let wanted = nic.poll_mode_drivers();
    let card =
        format!("{} ({}, {:04x}:{:04x})", nic.address, nic.vendor_name(), nic.vendor, nic.device);
    if wanted.is_empty() {
        // `dunlin machine` warns of it too; here it is what keeps the port from opening.
        findings.problem(
            format!("port {port}: no DPDK driver is known for {card}"),
            "core.dpdk.org/supported lists the cards",
        );
    } else if !installed.is_empty() && !wanted.iter().any(|name| installed.contains(*name)) {
        let packages: Vec<_> = wanted.iter().map(|name| format!("librte-net-{name}*")).collect();
        findings.problem(
            format!("port {port}: the DPDK driver for {card} is not installed"),
            format!("one of the packages {}", packages.join(", ")),
        );
    }
    if nic.driver.is_none() {
        findings.problem(
            format!("port {port}: {card} has no driver at all"),
            "dunlin machine; dmesg | tail",
        );
    }
}

fn queues(patient: &Patient<'_>, port: &str, nic: &Nic, findings: &mut Findings) {
    let workers = patient.workers().len();
    // While the kernel has it, it says how many it uses; DPDK says the rest when it runs.
    let Some(interface) = &nic.interface else { return };
    let names = patient.host.root.list(format!("sys/class/net/{}/queues", interface.name));
    let queues = names.iter().filter(|name| name.starts_with("rx-")).count();
    if queues > 0 && queues < workers {
        few_queues(port, queues, workers, findings);
    }
}

fn few_queues(port: &str, queues: usize, workers: usize, findings: &mut Findings) {
    findings.faster(
        format!(
            "port {port}: {queues} receive queues for {workers} workers: some get nothing of it"
        ),
        "a card with more queues (virtual machines: queues= of the interface), or fewer workers",
    );
}

/// A card in a slot that is narrower or slower than it is.
fn slot(root: &Root, port: &str, nic: &Nic, findings: &mut Findings) {
    let read = |name: &str| root.read(format!("sys/bus/pci/devices/{}/{name}", nic.address));
    for (what, now, best) in [
        ("lanes", "current_link_width", "max_link_width"),
        ("speed", "current_link_speed", "max_link_speed"),
    ] {
        let (Some(now), Some(best)) = (read(now), read(best)) else { continue };
        // Virtual devices have neither.
        let number = |text: &str| {
            text.split([' ', '.']).next().and_then(|n| n.parse::<u32>().ok()).filter(|n| *n > 0)
        };
        if let (Some(has), Some(may)) = (number(&now), number(&best))
            && has < may
        {
            findings.faster(
                format!("port {port}: PCIe {what} {now}, and the card can do {best}"),
                "another slot",
            );
        }
    }
}

/// vfio gives a group to user space as a whole, so nothing else in it may be the kernel's.
fn group(root: &Root, port: &str, nic: &Nic, findings: &mut Findings) {
    let Some(group) = nic.iommu_group.as_ref().filter(|_| nic.behind_iommu() && !nic.is_shared())
    else {
        return;
    };
    let members = root.list(format!("sys/kernel/iommu_groups/{group}/devices"));
    let held = members.iter().filter(|member| **member != nic.address).filter_map(|member| {
        let driver = root.link(format!("sys/bus/pci/devices/{member}/driver"))?;
        // Bridges may stay: they do no DMA of their own.
        (!["vfio-pci", "pcieport", "pci-stub"].contains(&driver.as_str()))
            .then(|| format!("{member} ({driver})"))
    });
    let held: Vec<_> = held.collect();
    if !held.is_empty() {
        findings.problem(
            format!(
                "port {port}: {} shares IOMMU group {group} with {}, so vfio-pci cannot have it",
                nic.address,
                held.join(", ")
            ),
            "another slot, or ACS in the firmware",
        );
    }
}

/// Cards that are neither a port nor the management NIC.
fn unused(patient: &Patient<'_>, findings: &mut Findings) {
    let Some(plan) = &patient.plan else { return };
    for nic in &patient.inventory.nics {
        let is_port = plan.ports.iter().any(|(_, address)| *address == nic.address);
        if !is_port && nic.driver.is_none() {
            let what =
                format!("{} ({}) has no driver, and is not used", nic.address, nic.vendor_name());
            findings.warning(what, "");
        } else if !is_port && nic.in_user_space() {
            let what = format!("{} is taken from the kernel, but is no port", nic.address);
            findings.warning(what, "name it as device of a [[port]], or reboot to give it back");
        }
    }
}

/// What the running node says of its ports.
fn running(patient: &Patient<'_>, findings: &mut Findings) {
    let workers = patient.status.as_ref().map_or(0, |status| status.workers.len());
    for port in &patient.ports {
        let name = &port.name;
        if !port.link_up {
            findings.problem(format!("port {name} has no link"), "the cable, or the switch's side");
        }
        if usize::from(port.rx_queues) < workers {
            few_queues(name, usize::from(port.rx_queues), workers, findings);
        }
        if port.steering.mode == SteeringMode::Software && workers > 1 {
            findings.faster(
                format!(
                    "port {name}: replies are handed over in software: {}",
                    port.steering.reason
                ),
                "a card with RSS or flow rules, or one worker",
            );
        }
        if let (Some(node), Some(buffers)) = (port.numa_node, &port.buffers)
            && buffers.numa_node != Some(node)
            && patient.config.as_ref().is_none_or(|config| config.dataplane.hugepages)
        {
            let why = &buffers.reason;
            findings.faster(
                format!("port {name} is on NUMA node {node}, its packet buffers are not: {why}"),
                "more hugepages on that node (dunlin machine)",
            );
        }
        if port.stats.rx_missed > 0 {
            findings.faster(
                format!(
                    "port {name}: the card dropped {} packets: the workers did not keep up",
                    port.stats.rx_missed
                ),
                "more workers, poll = \"latency\", or more mbufs",
            );
        }
        let asked = patient.config.as_ref().and_then(|c| c.ports.iter().find(|p| p.name == *name));
        let asked_for_tap = asked.is_some_and(|port| port.control == ControlKind::Tap);
        if let Some(control) = &port.control
            && control.kind == ControlInterface::Tap
            && !asked_for_tap
        {
            let what = format!("port {name}: its control interface is a TAP: {}", control.reason);
            findings.faster(what, "modprobe vhost_net, then restart the node");
        }
    }
}

fn control(patient: &Patient<'_>, findings: &mut Findings) {
    if !patient.inventory.tun {
        let what = "there is no /dev/net/tun: control interfaces cannot be made";
        findings.problem(what, "modprobe tun");
    }
    if !patient.inventory.vhost_net && patient.ports.is_empty() {
        let what = "there is no /dev/vhost-net: control interfaces will be TAPs, which are slower";
        findings.faster(what, "modprobe vhost_net");
    }
}

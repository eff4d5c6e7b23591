//! What was chosen, and why.

use super::{Choice, Patient};
use crate::appliance::machine::cores;
use crate::appliance::machine::inventory::{HUGEPAGE_MIB, show_list};
use crate::appliance::machine::plan;
use crate::cli::human;

pub(super) fn choices(patient: &Patient<'_>) -> Vec<Choice> {
    let mut choices = Vec::new();
    management(patient, &mut choices);
    ports(patient, &mut choices);
    workers(patient, &mut choices);
    hugepages(patient, &mut choices);
    choices
}

fn management(patient: &Patient<'_>, choices: &mut Vec<Choice>) {
    let Some(config) = &patient.config else { return };
    let named = config.management.is_some();
    for nic in plan::management(&patient.inventory, config) {
        let name = nic.interface.as_ref().map_or("?", |interface| &interface.name);
        choices.push(Choice {
            what: "Management".to_owned(),
            choice: format!("{name} ({}) stays with the kernel", nic.address),
            why: match named {
                true => "[management] names it",
                false => "the default route leaves by it",
            }
            .to_owned(),
        });
    }
}

fn ports(patient: &Patient<'_>, choices: &mut Vec<Choice>) {
    for (port, address) in patient.plan.iter().flat_map(|plan| &plan.ports) {
        let Some(nic) = patient.inventory.nic(address) else { continue };
        let (driver, why) = match (&nic.iommu_group, nic.is_shared()) {
            (_, true) => (nic.driver.clone(), "DPDK works through the kernel's driver".to_owned()),
            (Some(group), _) if nic.behind_iommu() => {
                (Some("vfio-pci".to_owned()), format!("it is in IOMMU group {group}"))
            }
            _ if patient.inventory.locked_down => {
                (nic.driver.clone(), "Secure Boot, and no IOMMU: DPDK cannot have it".to_owned())
            }
            _ => (Some("uio_pci_generic".to_owned()), "no IOMMU protects memory".to_owned()),
        };
        let driver = driver.unwrap_or_default();
        choices.push(Choice {
            what: format!("Port {port}"),
            choice: format!("{address} on {driver}"),
            why,
        });
    }
    for port in &patient.ports {
        if let Some(control) = &port.control {
            choices.push(Choice {
                what: format!("Port {}", port.name),
                choice: format!("control interface by {}", control.kind),
                why: control.reason.clone(),
            });
        }
        choices.push(Choice {
            what: format!("Port {}", port.name),
            choice: format!("steering by {}", port.steering.mode),
            why: port.steering.reason.clone(),
        });
    }
}

fn workers(patient: &Patient<'_>, choices: &mut Vec<Choice>) {
    let workers = patient.workers();
    if workers.is_empty() {
        return;
    }
    let rest = cores::for_the_rest(&patient.inventory, workers);
    choices.push(Choice {
        what: "Workers".to_owned(),
        choice: format!("cores {}", show_list(workers)),
        why: "the configuration lists them".to_owned(),
    });
    choices.push(Choice {
        what: "The rest".to_owned(),
        choice: match rest.is_empty() {
            true => "shares the workers' cores".to_owned(),
            false => format!("interrupts and services on cores {}", show_list(&rest)),
        },
        why: "no worker is there".to_owned(),
    });
}

fn hugepages(patient: &Patient<'_>, choices: &mut Vec<Choice>) {
    let Some(config) = patient.config.as_ref().filter(|config| config.dataplane.hugepages) else {
        return;
    };
    for node in patient.inventory.memory.iter().filter(|node| node.pages > 0) {
        let size = human::bytes((node.pages * HUGEPAGE_MIB) << 20);
        choices.push(Choice {
            what: "Hugepages".to_owned(),
            choice: format!("{} of 2 MiB ({size}) on NUMA node {}", node.pages, node.id),
            why: format!(
                "memory = {} MiB, and a little to spare, where the workers are",
                config.dataplane.memory_mib
            ),
        });
    }
}

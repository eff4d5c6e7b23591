//! From what the machine has and what the configuration asks for to the steps that are missing.
//!
//! A pure function, so `--dry-run`, `dunlin doctor` and the tests see exactly what would be done. A
//! machine that is prepared already yields no step.

use super::cores;
use super::inventory::{HUGEPAGE_MIB, Inventory, show_list};
use crate::appliance::devices::Devices;
use crate::appliance::host::Root;
use crate::appliance::nic::{self, Nic};
use crate::config::model::{Config, ControlKind, Device, NicName, Port};
use std::fmt;

/// Hugepages beyond what DPDK is told to take: its own tables, and rounding.
const SPARE_PAGES: u64 = 16;
/// Memory that hugepages never take from the rest of the system.
const REST_MIB: u64 = 384;

/// One change to the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A failure is a warning only: the module may be part of the kernel.
    LoadModule {
        name: &'static str,
        why: &'static str,
    },
    Bind {
        port: String,
        address: String,
        from: Option<String>,
        driver: &'static str,
    },
    Hugepages {
        node: u32,
        at: String,
        from: u64,
        to: u64,
    },
    /// Interrupts, kernel work queues and other services keep to these cores.
    Confine {
        cores: Vec<u16>,
    },
}

/// How bad a remark is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Note,
    Warning,
    /// The node cannot do its work so.
    Problem,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remark {
    pub level: Level,
    pub text: String,
}

/// What is to be done, and what there is to say about it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    pub steps: Vec<Step>,
    pub remarks: Vec<Remark>,
    /// Addresses to be noted before a card is taken from the kernel.
    pub devices: Devices,
    /// PCI address of each port that is a card.
    pub ports: Vec<(String, String)>,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LoadModule { name, why } => write!(f, "load the kernel module {name}: {why}"),
            Self::Bind { port, address, from, driver } => {
                let from = from.as_deref().unwrap_or("no driver");
                write!(f, "bind {address} (port {port}) to {driver}, from {from}")
            }
            Self::Hugepages { node, from, to, .. } => {
                write!(f, "reserve {to} hugepages of 2 MiB on NUMA node {node}, from {from}")
            }
            Self::Confine { cores } => {
                let cores = show_list(cores);
                write!(f, "keep interrupts and other services on cores {cores}")
            }
        }
    }
}

impl Plan {
    pub fn make(root: &Root, inventory: &Inventory, config: &Config) -> Self {
        let mut plan = Self { devices: noted(inventory), ..Self::default() };
        let management = management(inventory, config);
        if management.is_empty() {
            let why = match config.management {
                Some(_) => "the one that [management] names is not in this machine",
                None => "[management] names none, and no default route leaves by a card",
            };
            plan.say(
                Level::Warning,
                format!(
                    "no management NIC is known: {why}; every card that is not a port stays with \
                     the kernel all the same"
                ),
            );
        }
        for port in &config.ports {
            plan.port(inventory, port, &management);
        }
        plan.modules(root, inventory, config);
        plan.hugepages(inventory, config);
        plan.confine(root, inventory, config);
        plan
    }

    pub fn has_problem(&self) -> bool {
        self.remarks.iter().any(|remark| remark.level == Level::Problem)
    }

    fn say(&mut self, level: Level, text: impl Into<String>) {
        self.remarks.push(Remark { level, text: text.into() });
    }

    fn port(&mut self, inventory: &Inventory, port: &Port, management: &[&Nic]) {
        let name = &port.name;
        let address = match &port.device {
            Device::Vdev(_) => return,
            Device::Pci(address) => address.clone(),
            Device::Mac(mac) => {
                let Some(address) = self.devices.pci(*mac).cloned() else {
                    let mac = nic::mac_text(*mac);
                    self.say(
                        Level::Problem,
                        format!("port {name}: no NIC of this machine has MAC address {mac}"),
                    );
                    return;
                };
                address
            }
        };
        let Some(card) = inventory.nic(&address) else {
            let text = format!("port {name}: there is no network card {address} in this machine");
            return self.say(Level::Problem, text);
        };
        if management.iter().any(|nic| nic.address == address) {
            let interface = card.interface.as_ref().map_or("?", |interface| &interface.name);
            return self.say(
                Level::Problem,
                format!(
                    "port {name}: {address} is the management NIC ({interface}) and stays with \
                     the kernel; name another in [management], or another device for the port"
                ),
            );
        }
        self.ports.push((name.clone(), address.clone()));
        if card.poll_mode_drivers().is_empty() {
            self.say(
                Level::Warning,
                format!(
                    "port {name}: no DPDK driver is known for {address} ({}, {:04x}:{:04x})",
                    card.vendor_name(),
                    card.vendor,
                    card.device
                ),
            );
        }
        if card.is_shared() {
            let driver = card.driver.as_deref().unwrap_or_default();
            return self.say(
                Level::Note,
                format!("port {name}: {address} keeps {driver}, which DPDK works through"),
            );
        }
        self.bind(inventory, card, name);
    }

    fn bind(&mut self, inventory: &Inventory, card: &Nic, port: &str) {
        let driver = if card.behind_iommu() {
            "vfio-pci"
        } else if inventory.locked_down {
            return self.say(
                Level::Problem,
                format!(
                    "port {port}: Secure Boot locks the kernel down, and then DPDK reaches a card \
                     only through an IOMMU, which {} is not behind: it stays with the kernel. \
                     Either {}; or switch Secure Boot off",
                    card.address,
                    inventory.iommu_advice(Some(card))
                ),
            );
        } else {
            self.say(
                Level::Warning,
                format!(
                    "port {port}: NO IOMMU protects the machine's memory from {}: it is bound to \
                     uio_pci_generic, and can write anywhere. To protect it, {}",
                    card.address,
                    inventory.iommu_advice(Some(card))
                ),
            );
            "uio_pci_generic"
        };
        if card.driver.as_deref() != Some(driver) {
            self.steps.push(Step::Bind {
                port: port.to_owned(),
                address: card.address.clone(),
                from: card.driver.clone(),
                driver,
            });
        }
    }

    /// Modules come first: drivers must be there before cards are bound to them.
    fn modules(&mut self, root: &Root, inventory: &Inventory, config: &Config) {
        let binds = |wanted: &str| {
            self.steps
                .iter()
                .any(|step| matches!(step, Step::Bind { driver, .. } if *driver == wanted))
        };
        let vhost = config.ports.iter().any(|port| port.control != ControlKind::Tap);
        let wanted = [
            (binds("vfio-pci"), "vfio-pci", "gives cards to DPDK behind the IOMMU"),
            (binds("uio_pci_generic"), "uio_pci_generic", "gives cards to DPDK without an IOMMU"),
            (!inventory.tun, "tun", "control interfaces are made of it"),
            (vhost && !inventory.vhost_net, "vhost_net", "fast control interfaces"),
        ];
        let missing = wanted.into_iter().filter(|(needed, name, _)| {
            *needed && !root.exists(format!("sys/module/{}", name.replace('-', "_")))
        });
        let steps = missing.map(|(_, name, why)| Step::LoadModule { name, why });
        self.steps.splice(0..0, steps.collect::<Vec<_>>());
    }

    /// An equal share on every NUMA node that has a worker, for its flows, or a port, for its packet
    /// buffers.
    fn hugepages(&mut self, inventory: &Inventory, config: &Config) {
        if !config.dataplane.hugepages {
            return;
        }
        let workers = &config.dataplane.workers;
        let hosts_worker =
            |id: u32| inventory.cpus.iter().any(|cpu| cpu.node == id && workers.contains(&cpu.id));
        let hosts_port = |id: u32| {
            let nics = self.ports.iter().filter_map(|(_, address)| inventory.nic(address));
            nics.filter_map(|nic| nic.numa_node).any(|node| node == id)
        };
        let mut nodes: Vec<_> = inventory
            .memory
            .iter()
            .filter(|node| hosts_worker(node.id) || hosts_port(node.id))
            .collect();
        if nodes.is_empty() {
            nodes.extend(inventory.memory.first());
        }
        let share = u64::from(config.dataplane.memory_mib).div_ceil(nodes.len().max(1) as u64);
        for node in nodes {
            let Some(at) = &node.pages_at else {
                self.say(Level::Problem, "this kernel has no hugepages of 2 MiB");
                return;
            };
            let wanted = share.div_ceil(HUGEPAGE_MIB) + SPARE_PAGES;
            let most = node.total_mib.saturating_sub(REST_MIB) / HUGEPAGE_MIB * 4 / 5;
            if wanted > most {
                self.say(
                    Level::Problem,
                    format!(
                        "dataplane: memory = {} MiB takes {wanted} hugepages of NUMA node {}, and \
                         of its {} MiB at most {most} pages may go: lower memory (and mbufs)",
                        config.dataplane.memory_mib, node.id, node.total_mib
                    ),
                );
            }
            let to = wanted.min(most);
            // Never fewer: somebody else may use them.
            if node.pages < to {
                let (node, at, from) = (node.id, at.clone(), node.pages);
                self.steps.push(Step::Hugepages { node, at, from, to });
            }
        }
    }

    fn confine(&mut self, root: &Root, inventory: &Inventory, config: &Config) {
        let workers = &config.dataplane.workers;
        for core in workers {
            if !inventory.cpus.iter().any(|cpu| cpu.id == *core) {
                let text = format!("dataplane: workers has core {core}, which is not on line");
                self.say(Level::Problem, text);
            }
        }
        let rest = cores::for_the_rest(inventory, workers);
        if rest.is_empty() {
            self.say(
                Level::Warning,
                "every core has a worker: nothing is left to the kernel and the routing protocols",
            );
        } else if !super::apply::is_confined(root, &rest) {
            self.steps.push(Step::Confine { cores: rest });
        }
    }
}

/// What was noted before, and every card that the kernel shows now.
fn noted(inventory: &Inventory) -> Devices {
    let mut devices = inventory.noted.clone();
    devices.devices.retain(|_, address| inventory.nic(address).is_some());
    for nic in &inventory.nics {
        if let Some(mac) = nic.mac() {
            // Cards may have changed places: what the kernel shows counts.
            devices.devices.retain(|_, address| *address != nic.address);
            devices.devices.insert(nic::mac_text(mac), nic.address.clone());
        }
    }
    devices
}

/// The cards that stay with the kernel: the one that `[management]` names, else those that default
/// routes leave by.
pub fn management<'i>(inventory: &'i Inventory, config: &Config) -> Vec<&'i Nic> {
    let by_name = |name: &str| {
        let named = |nic: &&Nic| nic.interface.as_ref().is_some_and(|i| i.name == name);
        inventory.nics.iter().find(named)
    };
    match config.management.as_ref().map(|management| &management.interface) {
        Some(NicName::Name(name)) => by_name(name).into_iter().collect(),
        Some(NicName::Mac(mac)) => {
            inventory.nics.iter().filter(|nic| nic.mac() == Some(*mac)).collect()
        }
        None => inventory.default_route.iter().filter_map(|name| by_name(name)).collect(),
    }
}

//! What the machine has: cards, cores, memory, IOMMU, devices for the control interfaces.

use crate::appliance::devices::Devices;
use crate::appliance::host::Root;
use crate::appliance::nic::{self, Nic};
use serde::Serialize;

/// Pages that DPDK takes its memory in.
pub const HUGEPAGE_MIB: u64 = 2;

#[derive(Debug, Clone, Serialize)]
pub struct Inventory {
    pub nics: Vec<Nic>,
    pub cpu_model: String,
    pub cpus: Vec<Cpu>,
    pub memory: Vec<MemoryNode>,
    /// At least one device is behind an IOMMU.
    pub iommu: bool,
    /// The kernel is locked down, as Debian's is under Secure Boot: user space cannot reach a card's
    /// registers but through vfio-pci, which needs an IOMMU.
    pub locked_down: bool,
    /// The machine is itself virtual.
    pub virtual_machine: bool,
    /// Interfaces that default routes leave by, and what these are made of (bridge, bond, VLAN).
    pub default_route: Vec<String>,
    /// `/dev/vhost-net` is there.
    pub vhost_net: bool,
    /// `/dev/net/tun` is there.
    pub tun: bool,
    /// A hardware watchdog is there.
    pub watchdog: bool,
    #[serde(skip)]
    pub noted: Devices,
}

/// A core (hardware thread) that is on line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Cpu {
    pub id: u16,
    pub node: u32,
    /// The least of the hardware threads that share its core, itself included.
    pub first_sibling: u16,
    /// The kernel's scheduler places nothing there (`isolcpus`).
    pub isolated: bool,
}

/// The memory of a NUMA node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MemoryNode {
    pub id: u32,
    pub total_mib: u64,
    /// Hugepages of 2 MiB.
    pub pages: u64,
    pub pages_free: u64,
    /// Where their number is set. `None`: the kernel has none of that size.
    #[serde(skip)]
    pub pages_at: Option<String>,
}

impl Inventory {
    pub fn take(root: &Root) -> Self {
        let cpuinfo = root.read("proc/cpuinfo").unwrap_or_default();
        Self {
            nics: nic::scan(root),
            cpu_model: cpu_model(&cpuinfo),
            cpus: cpus(root),
            memory: memory(root),
            iommu: !root.list("sys/kernel/iommu_groups").is_empty(),
            locked_down: root
                .read("sys/kernel/security/lockdown")
                .is_some_and(|states| !states.contains("[none]")),
            virtual_machine: cpuinfo
                .lines()
                .find(|line| line.starts_with("flags"))
                .is_some_and(|flags| flags.split_ascii_whitespace().any(|f| f == "hypervisor")),
            default_route: with_lower(root, nic::default_route_interfaces(root)),
            vhost_net: root.exists("dev/vhost-net"),
            tun: root.exists("dev/net/tun"),
            watchdog: root.exists("dev/watchdog0"),
            noted: Devices::load(root),
        }
    }

    pub fn nic(&self, address: &str) -> Option<&Nic> {
        self.nics.iter().find(|nic| nic.address == address)
    }

    /// How to get an IOMMU, for this card or any.
    pub fn iommu_advice(&self, card: Option<&Nic>) -> &'static str {
        if card.is_some_and(|card| card.past_iommu && card.iommu_group.is_some()) {
            "have the host send this card through the IOMMU that is there (libvirt: <driver \
             iommu='on'/> in its <interface>; QEMU: disable-legacy=on,iommu_platform=on)"
        } else if self.virtual_machine {
            "give the virtual machine an IOMMU (libvirt: <iommu model='intel'>, and <driver \
             iommu='on'/> in each virtio <interface>)"
        } else {
            "switch on VT-d or AMD-Vi in the firmware, and intel_iommu=on iommu=pt"
        }
    }

    pub fn memory_mib(&self) -> u64 {
        self.memory.iter().map(|node| node.total_mib).sum()
    }

    /// The MAC address of a card, also if DPDK has it and it was noted before.
    pub fn mac_of(&self, nic: &Nic) -> Option<String> {
        if let Some(interface) = &nic.interface {
            return Some(interface.mac.clone());
        }
        let noted = self.noted.devices.iter().find(|(_, address)| **address == nic.address);
        noted.map(|(mac, _)| mac.clone())
    }
}

fn cpu_model(cpuinfo: &str) -> String {
    let line = cpuinfo.lines().find(|line| line.starts_with("model name"));
    let model = line.and_then(|line| line.split_once(':')).map(|(_, model)| model.trim());
    model.unwrap_or("unknown").to_owned()
}

fn cpus(root: &Root) -> Vec<Cpu> {
    let list = |path: &str| parse_list(&root.read(path).unwrap_or_default());
    let isolated = list("sys/devices/system/cpu/isolated");
    let nodes: Vec<(u32, Vec<u16>)> = node_ids(root)
        .into_iter()
        .map(|id| (id, list(&format!("sys/devices/system/node/node{id}/cpulist"))))
        .collect();
    let online = list("sys/devices/system/cpu/online");
    online
        .into_iter()
        .map(|id| {
            let topology = format!("sys/devices/system/cpu/cpu{id}/topology/thread_siblings_list");
            Cpu {
                id,
                node: nodes.iter().find(|(_, cpus)| cpus.contains(&id)).map_or(0, |(id, _)| *id),
                first_sibling: list(&topology).first().copied().unwrap_or(id),
                isolated: isolated.contains(&id),
            }
        })
        .collect()
}

fn node_ids(root: &Root) -> Vec<u32> {
    let names = root.list("sys/devices/system/node");
    let mut ids: Vec<u32> =
        names.iter().filter_map(|name| name.strip_prefix("node")?.parse().ok()).collect();
    ids.sort_unstable();
    ids
}

fn memory(root: &Root) -> Vec<MemoryNode> {
    const PAGES: &str = "hugepages/hugepages-2048kB";
    let ids = node_ids(root);
    if ids.is_empty() {
        // A kernel without NUMA.
        return vec![memory_node(root, 0, "proc/meminfo", &format!("sys/kernel/mm/{PAGES}"))];
    }
    ids.into_iter()
        .map(|id| {
            let at = format!("sys/devices/system/node/node{id}");
            memory_node(root, id, &format!("{at}/meminfo"), &format!("{at}/{PAGES}"))
        })
        .filter(|node| node.total_mib > 0)
        .collect()
}

fn memory_node(root: &Root, id: u32, meminfo: &str, pages: &str) -> MemoryNode {
    let text = root.read(meminfo).unwrap_or_default();
    let total = text.lines().find_map(|line| line.split_once("MemTotal:")).and_then(|(_, rest)| {
        rest.split_ascii_whitespace().next().and_then(|kib| kib.parse::<u64>().ok())
    });
    let pages_at = format!("{pages}/nr_hugepages");
    MemoryNode {
        id,
        total_mib: total.unwrap_or(0) / 1024,
        pages: root.number(&pages_at).unwrap_or(0),
        pages_free: root.number(format!("{pages}/free_hugepages")).unwrap_or(0),
        pages_at: root.exists(&pages_at).then_some(pages_at),
    }
}

/// Interfaces, and those that bridges, bonds and VLANs among them are made of.
fn with_lower(root: &Root, mut names: Vec<String>) -> Vec<String> {
    let mut index = 0;
    while let Some(name) = names.get(index) {
        let entries = root.list(format!("sys/class/net/{name}"));
        for lower in entries.iter().filter_map(|entry| entry.strip_prefix("lower_")) {
            if !names.iter().any(|known| known == lower) {
                names.push(lower.to_owned());
            }
        }
        index += 1;
    }
    names
}

/// The kernel's lists: `0-3,8`. What is not a number is left out.
pub fn parse_list(text: &str) -> Vec<u16> {
    let mut numbers = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(first), Ok(last)) = (first.trim().parse::<u16>(), last.trim().parse::<u16>()) {
            numbers.extend(first..=last.min(first.saturating_add(4095)));
        }
    }
    numbers
}

/// The inverse of [`parse_list`], of ascending numbers.
pub fn show_list(numbers: &[u16]) -> String {
    let mut parts: Vec<(u16, u16)> = Vec::new();
    for number in numbers {
        match parts.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(*number) => *last = *number,
            _ => parts.push((*number, *number)),
        }
    }
    let parts = parts.into_iter().map(|(first, last)| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    });
    parts.collect::<Vec<_>>().join(",")
}

/// A set of cores as the kernel's masks are written: hexadecimal words of 32, the highest first.
pub fn show_mask(cores: &[u16]) -> String {
    let words = cores.iter().max().map_or(1, |max| usize::from(*max) / 32 + 1);
    let mut mask = vec![0u32; words];
    for core in cores {
        mask[usize::from(*core) / 32] |= 1 << (core % 32);
    }
    mask.iter().rev().map(|word| format!("{word:08x}")).collect::<Vec<_>>().join(",")
}

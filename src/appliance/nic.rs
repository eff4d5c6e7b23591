//! The network cards of the machine, as sysfs shows them.

use super::host::Root;
use crate::forward::tables::Mac;
use serde::Serialize;

/// PCI class of network controllers: Ethernet, and "other" (some adapters of clouds).
const CLASSES: [&str; 2] = ["0x0200", "0x0280"];

/// Drivers that hand a device to user space.
pub const USER_DRIVERS: [&str; 3] = ["vfio-pci", "uio_pci_generic", "igb_uio"];

/// Kernel drivers that DPDK works through: such a card is not taken away from them.
pub const SHARED_DRIVERS: [&str; 3] = ["mlx4_core", "mlx5_core", "mana"];

const VIRTIO: u16 = 0x1af4;

/// DPDK's drivers by PCI vendor: their names as in `librte_net_NAME.so`, and a word for people.
const DRIVERS: &[(u16, &str, &[&str])] = &[
    (0x1022, "AMD", &["axgbe", "ionic"]),
    (0x1077, "Marvell QLogic", &["qede", "bnx2x"]),
    (0x1137, "Cisco", &["enic"]),
    (0x1425, "Chelsio", &["cxgbe"]),
    (0x14e4, "Broadcom", &["bnxt", "bnx2x"]),
    (0x15ad, "VMware", &["vmxnet3"]),
    (0x15b3, "NVIDIA Mellanox", &["mlx5", "mlx4"]),
    (0x1924, "Solarflare", &["sfc"]),
    (0x19e5, "Huawei", &["hns3", "hinic"]),
    (0x1ae0, "Google", &["gve"]),
    (VIRTIO, "virtio", &["virtio"]),
    (0x1d0f, "Amazon", &["ena"]),
    (0x1d6a, "Aquantia", &["atlantic"]),
    (0x1dd8, "Pensando", &["ionic"]),
    (0x8086, "Intel", &["e1000", "igc", "ixgbe", "i40e", "iavf", "ice", "idpf", "fm10k"]),
    (0x8088, "Wangxun", &["ngbe", "txgbe"]),
];

/// A network card (one PCI function).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Nic {
    /// PCI address, `0000:03:00.0`.
    pub address: String,
    pub vendor: u16,
    pub device: u16,
    /// Kernel driver that has it now.
    pub driver: Option<String>,
    /// `None`: the machine has one node, or does not say.
    pub numa_node: Option<u32>,
    /// IOMMU group; `None`: no IOMMU protects memory from this device.
    pub iommu_group: Option<String>,
    /// A virtio card that goes past the IOMMU, whatever its group: its host did not offer
    /// VIRTIO_F_ACCESS_PLATFORM, so it takes every address for a physical one (virtio 1.2 §6).
    pub past_iommu: bool,
    /// Its interface in the kernel, if a network driver has it.
    pub interface: Option<Interface>,
}

/// A network interface of the kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Interface {
    pub name: String,
    /// `aa:bb:cc:dd:ee:ff`.
    pub mac: String,
    /// `None`: the interface is down, so the kernel does not look.
    pub carrier: Option<bool>,
    /// Megabits per second.
    pub speed: Option<u32>,
}

impl Nic {
    pub fn mac(&self) -> Option<Mac> {
        parse_mac(&self.interface.as_ref()?.mac)
    }

    pub fn in_user_space(&self) -> bool {
        self.driver.as_deref().is_some_and(|driver| USER_DRIVERS.contains(&driver))
    }

    /// An IOMMU protects memory from it.
    pub fn behind_iommu(&self) -> bool {
        self.iommu_group.is_some() && !self.past_iommu
    }

    /// DPDK works through its kernel driver.
    pub fn is_shared(&self) -> bool {
        self.driver.as_deref().is_some_and(|driver| SHARED_DRIVERS.contains(&driver))
    }

    /// Who made it, if known, else the vendor's number.
    pub fn vendor_name(&self) -> String {
        let known = DRIVERS.iter().find(|(vendor, ..)| *vendor == self.vendor);
        known.map_or_else(|| format!("vendor {:04x}", self.vendor), |(_, name, _)| (*name).into())
    }

    /// DPDK's drivers for cards of this vendor; empty: none that we know.
    pub fn poll_mode_drivers(&self) -> &'static [&'static str] {
        let known = DRIVERS.iter().find(|(vendor, ..)| *vendor == self.vendor);
        known.map_or(&[], |(.., drivers)| drivers)
    }

    /// `link up, 10 Gbit/s`.
    pub fn link_text(&self) -> String {
        let Some(interface) = &self.interface else { return String::new() };
        let state = match interface.carrier {
            Some(true) => "up",
            Some(false) => "no link",
            None => "down",
        };
        match interface.speed {
            Some(speed) if speed >= 1000 && speed.is_multiple_of(1000) => {
                format!("{state}, {} Gbit/s", speed / 1000)
            }
            Some(speed) => format!("{state}, {speed} Mbit/s"),
            None => state.to_owned(),
        }
    }
}

/// Every network card, by address.
pub fn scan(root: &Root) -> Vec<Nic> {
    let devices = root.list("sys/bus/pci/devices");
    devices.iter().filter_map(|address| look_at(root, address)).collect()
}

/// One device, if it is a network card.
pub fn look_at(root: &Root, address: &str) -> Option<Nic> {
    let at = format!("sys/bus/pci/devices/{address}");
    let class = root.read(format!("{at}/class"))?;
    if !CLASSES.iter().any(|prefix| class.starts_with(prefix)) {
        return None;
    }
    let hex = |name: &str| {
        let text = root.read(format!("{at}/{name}"))?;
        u16::from_str_radix(text.trim_start_matches("0x"), 16).ok()
    };
    let (vendor, driver) = (hex("vendor").unwrap_or(0), root.link(format!("{at}/driver")));
    Some(Nic {
        address: address.to_owned(),
        vendor,
        device: hex("device").unwrap_or(0),
        past_iommu: vendor == VIRTIO && past_iommu(root, &at, driver.as_deref()),
        driver,
        numa_node: root.number::<i32>(format!("{at}/numa_node")).and_then(|n| n.try_into().ok()),
        iommu_group: root.link(format!("{at}/iommu_group")),
        interface: interface(root, &at),
    })
}

/// virtio puts a device of its own between the PCI device and the interface.
fn virtio_devices(root: &Root, at: &str) -> impl Iterator<Item = String> {
    let names = root.list(at).into_iter().filter(|name| name.starts_with("virtio"));
    names.map(move |name| format!("{at}/{name}"))
}

fn past_iommu(root: &Root, at: &str, driver: Option<&str>) -> bool {
    const ACCESS_PLATFORM: usize = 33;
    match virtio_devices(root, at).find_map(|device| root.read(format!("{device}/features"))) {
        // What was negotiated: a digit for each bit, the lowest first.
        Some(bits) => bits.as_bytes().get(ACCESS_PLATFORM) != Some(&b'1'),
        // Its kernel driver has left it. This one took it for the same reason.
        None => driver == Some("uio_pci_generic"),
    }
}

fn interface(root: &Root, at: &str) -> Option<Interface> {
    let places = std::iter::once(format!("{at}/net"))
        .chain(virtio_devices(root, at).map(|device| format!("{device}/net")));
    places.into_iter().find_map(|place| {
        let name = root.list(&place).into_iter().next()?;
        interface_at(root, &place, name)
    })
}

fn interface_at(root: &Root, place: &str, name: String) -> Option<Interface> {
    let read = |attribute: &str| root.read(format!("{place}/{name}/{attribute}"));
    let mac = read("address").filter(|mac| parse_mac(mac).is_some())?;
    let speed = read("speed").and_then(|speed| speed.parse::<i64>().ok());
    Some(Interface {
        mac,
        carrier: read("carrier").map(|carrier| carrier == "1"),
        speed: speed.and_then(|speed| u32::try_from(speed).ok()).filter(|speed| *speed > 0),
        name,
    })
}

/// The names of the interfaces that default routes leave by, IPv4 first.
pub fn default_route_interfaces(root: &Root) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    let v4 = root.read("proc/net/route").unwrap_or_default();
    for line in v4.lines().skip(1) {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        if let [name, "00000000", ..] = words[..]
            && words.get(7) == Some(&"00000000")
        {
            names.push(name.to_owned());
        }
    }
    let v6 = root.read("proc/net/ipv6_route").unwrap_or_default();
    for line in v6.lines() {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let is_default = words.first().is_some_and(|to| to.bytes().all(|b| b == b'0'))
            && words.get(1) == Some(&"00");
        // The kernel always has an unreachable default route of `lo`.
        if let (true, Some(name)) = (is_default, words.last().filter(|name| **name != "lo")) {
            names.push((*name).to_owned());
        }
    }
    names.dedup();
    names
}

/// `aa:bb:cc:dd:ee:ff`.
pub fn mac_text(mac: Mac) -> String {
    mac.0.map(|byte| format!("{byte:02x}")).join(":")
}

/// Reads what [`mac_text`] writes; not the zero address that interfaces without one have.
pub fn parse_mac(text: &str) -> Option<Mac> {
    let mut octets = [0; 6];
    let mut parts = text.split(':');
    for octet in &mut octets {
        *octet = u8::from_str_radix(parts.next().filter(|part| part.len() == 2)?, 16).ok()?;
    }
    (parts.next().is_none() && octets != [0; 6]).then_some(Mac(octets))
}

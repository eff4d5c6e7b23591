//! Which PCI device has which MAC address: `/run/dunlin/devices.json`.
//!
//! A NIC that DPDK drives has no interface in the kernel that would tell its address. So `dunlin
//! machine` notes the addresses before it takes NICs away from the kernel, and `dunlind` looks up
//! here what `device = "mac:…"` means.

use super::host::Root;
use super::nic;
use crate::config::model::{Device, Port};
use crate::forward::tables::Mac;
use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Where the addresses are noted. It does not outlive the boot: cards may change places.
pub const FILE: &str = "/run/dunlin/devices.json";

/// MAC address, as [`nic::mac_text`] writes it → PCI address.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Devices {
    pub devices: BTreeMap<String, String>,
}

impl Devices {
    /// What was noted; nothing if there is no file, or none that can be read.
    pub fn load(root: &Root) -> Self {
        let text = root.read(FILE).unwrap_or_default();
        serde_json::from_str(&text).unwrap_or_default()
    }

    pub fn store(&self, root: &Root) -> Result<()> {
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        root.replace(FILE, text.as_bytes(), 0o644)
    }

    pub fn pci(&self, mac: Mac) -> Option<&String> {
        self.devices.get(&nic::mac_text(mac))
    }
}

/// The ports with MAC addresses replaced by PCI addresses: as noted, else as the kernel has them
/// now (cards that DPDK drives through the kernel's driver, or a machine that was prepared by hand).
pub fn resolve(root: &Root, ports: &[Port]) -> Result<Vec<Port>> {
    if !ports.iter().any(|port| matches!(port.device, Device::Mac(_))) {
        return Ok(ports.to_vec());
    }
    let mut known = Devices::load(root);
    for (mac, address) in nic::scan(root).iter().filter_map(|nic| Some((nic.mac()?, &nic.address)))
    {
        known.devices.entry(nic::mac_text(mac)).or_insert_with(|| address.clone());
    }
    ports.iter().map(|port| resolve_one(&known, port)).collect()
}

fn resolve_one(known: &Devices, port: &Port) -> Result<Port> {
    let Device::Mac(mac) = port.device else { return Ok(port.clone()) };
    let Some(address) = known.pci(mac) else {
        bail!(
            "port {}: no NIC with MAC address {} is known; `dunlin doctor` lists the NICs, \
             `dunlin machine` prepares them and notes their addresses",
            port.name,
            nic::mac_text(mac)
        );
    };
    Ok(Port { device: Device::Pci(address.clone()), ..port.clone() })
}

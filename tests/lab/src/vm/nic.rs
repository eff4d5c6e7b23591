//! A network card of a machine, and the TAP it is plugged into.

use crate::netns::Netns;
use anyhow::Result;

/// Slot of the first card: above those that QEMU hands out by itself, and low enough that igb's
/// virtual functions, 0x80 further, are still on the bus.
const FIRST_SLOT: usize = 8;

/// What the guest sees.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Model {
    /// virtio-net; with more than one queue also its RSS.
    #[default]
    Virtio,
    /// virtio-net that goes past the machine's IOMMU, as hypervisors make it unless told otherwise.
    VirtioPastIommu,
    /// Intel 82576.
    Igb,
    /// Intel 82574.
    E1000e,
}

/// A card.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nic {
    /// The TAP's name, at most 15 bytes.
    pub tap: String,
    pub mac: String,
    pub model: Model,
    /// Pairs of queues of a virtio-net card. Others have as many as their hardware.
    pub queues: u8,
}

impl Nic {
    /// A virtio-net card with one queue.
    pub fn virtio(tap: &str, mac: &str) -> Self {
        Self { tap: tap.into(), mac: mac.into(), model: Model::Virtio, queues: 1 }
    }

    /// The TAP, up and without any protocol of the kernel's own on it. One that is there already is
    /// taken as it is: a machine of the same host had it before.
    pub(super) fn make_tap(&self, ns: &Netns) -> Result<()> {
        let tap = &self.tap;
        let links = ns.ip_json(&["link", "show"])?;
        if links.as_array().into_iter().flatten().any(|l| l["ifname"] == tap.as_str()) {
            return Ok(());
        }
        // A TAP made for many queues refuses to be opened with one.
        let many = if self.queues > 1 { " multi_queue" } else { "" };
        ns.ip(&format!("tuntap add dev {tap} mode tap{many}"))?;
        ns.sysctl(&format!("net.ipv6.conf.{tap}.disable_ipv6"), "1")?;
        ns.ip(&format!("link set {tap} arp off up"))
    }

    /// The name that QEMU's control socket knows the card by.
    pub(super) fn device_id(n: usize) -> String {
        format!("nic{n}")
    }

    /// Where the guest finds card `n`.
    pub fn pci_address(n: usize) -> String {
        format!("0000:00:{:02x}.0", FIRST_SLOT + n)
    }

    pub(super) fn arguments(&self, n: usize, iommu: bool, add: &mut impl FnMut(&str, String)) {
        let queues = self.queues;
        let many = if queues > 1 { format!(",queues={queues}") } else { String::new() };
        add(
            "-netdev",
            format!("tap,id=net{n},ifname={},script=no,downscript=no,vhost=off{many}", self.tap),
        );
        let (driver, options) = match self.model {
            Model::Virtio if queues > 1 => {
                // A vector per queue, one for changes of the configuration, one for control.
                let vectors = 2 * u32::from(queues) + 2;
                ("virtio-net-pci", format!(",mq=on,vectors={vectors},rss=on,hash=on"))
            }
            // Only the modern interface can be told to respect an IOMMU.
            Model::Virtio if iommu => {
                ("virtio-net-pci", ",disable-legacy=on,iommu_platform=on".to_owned())
            }
            Model::Virtio | Model::VirtioPastIommu => ("virtio-net-pci", String::new()),
            Model::Igb => ("igb", String::new()),
            Model::E1000e => ("e1000e", String::new()),
        };
        let (id, mac) = (Self::device_id(n), &self.mac);
        // No boot ROM: nothing is booted from the network, and it costs seconds.
        let slot = FIRST_SLOT + n;
        let place = format!("bus=pcie.0,addr={slot:#x}");
        add(
            "-device",
            format!("{driver},id={id},{place},netdev=net{n},mac={mac},romfile={options}"),
        );
    }
}

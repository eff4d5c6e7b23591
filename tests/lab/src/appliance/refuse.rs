//! Machines without company: one that boots by BIOS, those that must refuse to boot, and then the
//! one whose power is cut ([`super::power`]).

use super::node::{Image, Ingredients, Node};
use super::power::Moments;
use super::{Artifacts, PATIENCE, Show, config};
use crate::netns::Netns;
use crate::story::{Teller, short};
use crate::vm::{Accel, Firmware, Key, Mark, Model, fat_file, fill, flip, partition, sectors_with};
use crate::wait::wait_for;
use anyhow::{Context, Result, bail, ensure};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

/// What the appliance says when its system partition is not the one that was built.
const MISMATCH: &str = "dunlin: the system partition does not match its root hash";
/// What every boot that gets as far as the system says.
pub(super) const RUNS: &str = "login:";
/// What firmware says of an image it does not trust (and systemd-boot passes on).
const DENIED: &[&str] = &[
    "Access Denied",
    "Access denied",
    "access denied",
    "Security Violation",
    "Security violation",
];

/// A lane of its own: everything that its machines need, and no share in the nodes. One machine at a
/// time.
#[derive(Debug)]
pub struct Lonely {
    /// Its machine's, not a node of the router.
    pub(super) number: u8,
    pub(super) admin: Netns,
    pub(super) host: Netns,
    pub(super) artifacts: Artifacts,
    pub(super) accel: Accel,
    pub(super) key: Key,
    pub(super) storage: PathBuf,
    pub(super) teller: Teller,
    /// A machine that runs under Secure Boot, for who needs one next.
    pub(super) signed: Option<Node>,
    pub(super) moments: Arc<Moments>,
}

/// What this lane shows, in this order.
pub const STEPS: [&str; 4] = ["bios", "flipped-byte", "secure-boot", "power-cuts"];

/// What it shows only when asked for it: emulated, a run of all is long enough without.
pub const MORE_STEPS: [&str; 4] = ["wizard", "installer", "menu-reset", "watchdog"];

/// How a machine of this lane is made.
#[derive(Debug, Clone)]
pub(super) struct Shape {
    pub firmware: Firmware,
    /// It has a config drive.
    pub drive: bool,
    pub iommu: bool,
    /// A watchdog that resets the machine.
    pub watchdog: bool,
    /// Its data card.
    pub data: Model,
    /// Its disk is empty, and the installer is in the drive.
    pub install: bool,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            firmware: Firmware::Uefi,
            drive: true,
            iommu: false,
            watchdog: false,
            data: Model::Virtio,
            install: false,
        }
    }
}

impl Lonely {
    pub(super) fn new(show: &Show, number: u8, name: &'static str) -> Result<Self> {
        Ok(Self {
            number,
            admin: show.site.admin.clone(),
            host: show.site.host(number)?,
            artifacts: show.artifacts.clone(),
            accel: show.accel,
            key: show.key.clone(),
            storage: show.storage.clone(),
            teller: show.teller.beside(name),
            signed: None,
            moments: Arc::clone(&show.moments),
        })
    }

    /// These steps. `upgrade_took` tells, when it is known, how long an upgrade takes: power is cut
    /// within that time.
    pub(super) fn run(
        mut self,
        steps: &[&str],
        upgrade_took: &Receiver<Duration>,
    ) -> Result<Teller> {
        for step in steps {
            self.step(step, upgrade_took)?;
        }
        Ok(self.teller)
    }

    /// One of [`STEPS`] or [`MORE_STEPS`].
    pub(super) fn step(&mut self, step: &str, upgrade_took: &Receiver<Duration>) -> Result<()> {
        match step {
            "bios" => self.bios(),
            "flipped-byte" => self.flipped_byte(),
            "secure-boot" => self.secure_boot(),
            "wizard" => self.wizard_and_reset(),
            "power-cuts" => self.power_cuts(upgrade_took),
            "installer" => self.installer(),
            "menu-reset" => self.menu_reset(),
            "watchdog" => self.watchdog(),
            _ => bail!("no step {step}; there are {STEPS:?} and {MORE_STEPS:?}"),
        }
        .with_context(|| step.to_owned())
    }

    pub fn bios(&mut self) -> Result<()> {
        self.teller.step("The same disk in a machine with BIOS and an Intel 82574 (e1000e)");
        let start = Instant::now();
        let shape = Shape { firmware: Firmware::Bios, data: Model::E1000e, ..Shape::default() };
        let mut node = self.start("bios", shape, |_| Ok(()))?;
        let console = node.vm.wait_console(Mark::START, &[RUNS], PATIENCE);
        node.explained(console)?;
        node.wait_boot(None, PATIENCE)?;
        let version = node.version()?;
        ensure!(version == self.artifacts.version, "it runs {version}");
        let mode = node.run("[ -d /sys/firmware/efi ] && echo UEFI || echo BIOS")?;
        ensure!(mode.trim() == "BIOS", "it booted by {mode}");
        self.teller.check(&format!("{version} runs after {}", short(start.elapsed())));
        self.drives(&node, "uio_pci_generic", "net_e1000_em")
    }

    pub fn flipped_byte(&mut self) -> Result<()> {
        self.teller.step("One byte of the system partition flipped");
        let image = self.artifacts.image.clone();
        // Far from what a boot reads first.
        let (start, _) = partition(&image, "dunlin-root-a")?;
        let at = start + squashfs_size(&image, start)? / 2;
        let mut node = self.start("flipped", Shape::default(), |disk| flip(disk, &image, at))?;
        node.vm.wait_console(Mark::START, &[MISMATCH], PATIENCE)?;
        let console = node.vm.serial().since(Mark::START);
        ensure!(!console.contains(RUNS), "it ran all the same:\n{console}");
        self.teller.check(&format!("refused at boot, byte {at}: {MISMATCH:?}"));
        Ok(())
    }

    pub fn secure_boot(&mut self) -> Result<()> {
        self.teller.step("Secure Boot with the builder's keys, and an Intel 82576 (igb)");
        let uki = Uki::find(&self.artifacts.image, &self.artifacts.version)?;
        let image = self.artifacts.image.clone();
        self.refused("altered", |disk| {
            uki.middle.iter().try_for_each(|at| flip(disk, &image, *at))
        })?;
        self.refused("unsigned", |disk| fill(disk, uki.certificates, 8, 0))?;
        let node = self.signed_node()?;
        self.teller.check("the signed image boots, and the firmware enforces Secure Boot");
        self.drives(&node, "vfio-pci", "net_e1000_igb")?;
        self.signed = Some(node);
        Ok(())
    }

    /// A machine that runs, with Secure Boot.
    pub(super) fn signed_node(&mut self) -> Result<Node> {
        let mut node = self.start("signed", self.secure(), |_| Ok(()))?;
        let console = node.vm.wait_console(Mark::START, &[RUNS], PATIENCE);
        node.explained(console)?;
        node.wait_boot(None, PATIENCE)?;
        // Otherwise refusals would prove nothing. The variable: 4 bytes of attributes, 1 of value.
        let variable = node.run("od -An -tu1 /sys/firmware/efi/efivars/SecureBoot-*")?;
        let enforced = variable.split_whitespace().nth(4);
        ensure!(enforced == Some("1"), "Secure Boot is off: {variable}");
        Ok(node)
    }

    fn secure(&self) -> Shape {
        let firmware = Firmware::SecureBoot { vars: self.artifacts.secure_boot.clone() };
        // Debian's kernel locks itself down then, so DPDK needs an IOMMU.
        Shape { firmware, iommu: true, data: Model::Igb, ..Shape::default() }
    }

    /// The firmware refuses the kernel image that `spoil` made.
    fn refused(&mut self, what: &str, spoil: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        let mut node = self.start(what, self.secure(), spoil)?;
        let needles: Vec<&str> = DENIED.iter().copied().chain([RUNS]).collect();
        let (which, _) = node.vm.wait_console(Mark::START, &needles, PATIENCE)?;
        ensure!(needles[which] != RUNS, "the {what} kernel image booted");
        self.teller.check(&format!("an {what} kernel image is refused: {:?}", needles[which]));
        Ok(())
    }

    /// The node runs and its data card is driven by DPDK.
    pub(super) fn drives(&mut self, node: &Node, kernel: &str, dpdk: &str) -> Result<()> {
        let driven =
            wait_for(&format!("{dpdk} on {kernel}"), PATIENCE, || node.drives(kernel, dpdk));
        node.explained(driven)?;
        self.teller.check(&format!(
            "the data card is bound to {kernel} and driven by {dpdk}; control interface over vhost-net"
        ));
        Ok(())
    }

    /// A machine of this lane; the one before it must be gone. `change` may spoil its disk.
    pub(super) fn start(
        &mut self,
        name: &str,
        shape: Shape,
        change: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<Node> {
        let Shape { firmware, drive, iommu, watchdog, data, install } = shape;
        let from = Ingredients {
            name,
            image: match install {
                true => Image::Installer(&self.artifacts.installer),
                false => Image::Flashed(&self.artifacts.image),
            },
            storage: &self.storage,
            accel: self.accel,
            key: &self.key,
            firmware,
            config: drive.then(|| config::lonely(self.number)),
            authority: None,
            iommu,
            watchdog,
            data,
        };
        Node::start(self.number, &self.host, &self.admin, from, change)
    }
}

/// How much of the partition at `start` its squashfs fills, in bytes: a field of the superblock.
fn squashfs_size(image: &Path, start: u64) -> Result<u64> {
    let mut superblock = [0; 48];
    File::open(image)?.read_exact_at(&mut superblock, start)?;
    ensure!(superblock.starts_with(b"hsqs"), "no squashfs at {start}");
    Ok(u64::from_le_bytes(superblock[40..48].try_into()?))
}

/// Where an image has its kernel image (a PE file), in bytes.
struct Uki {
    /// The header's entry that says where the signatures are: 8 bytes; zeros mean that there are none.
    certificates: u64,
    /// A sector from the middle, wherever the disk has it: BIOS boots a copy.
    middle: Vec<u64>,
}

impl Uki {
    fn find(image: &Path, version: &str) -> Result<Self> {
        let (start, len) = partition(image, "dunlin-esp")?;
        let names = [format!("dunlin_{version}.efi"), format!("dunlin_{version}+1.efi")];
        let mut files = names.iter().map(|n| fat_file(image, start, &format!("/EFI/Linux/{n}")));
        let file = files.find_map(Result::ok);
        let file = file.with_context(|| format!("none of {names:?} on the ESP"))?;
        let sector = |at: usize| file.get(at..at + 512).context("a kernel image that is too short");
        let head = sectors_with(image, start, len, sector(0)?)?;
        ensure!(head.len() == 1, "the kernel image starts at {head:?}");
        let middle = sectors_with(image, start, len, sector(file.len() / 1024 * 512)?)?;
        ensure!(!middle.is_empty(), "the kernel image is not on the ESP");
        Ok(Self { certificates: head[0] + certificates(&file)?, middle })
    }
}

/// Where a PE32+ file has the entry of its certificate table: the fifth data directory.
fn certificates(file: &[u8]) -> Result<u64> {
    let word = |at: usize| -> Result<u32> {
        let bytes = file.get(at..at + 4).context("a truncated PE file")?;
        Ok(u32::from_le_bytes(bytes.try_into()?))
    };
    let pe = word(0x3c)?;
    ensure!(word(pe as usize)? == u32::from_le_bytes(*b"PE\0\0"), "not a PE file");
    // Signature 4, COFF header 20, then 112 bytes of the optional header, then 8 per directory.
    let at = pe + 4 + 20 + 112 + 4 * 8;
    ensure!(word(at as usize)? != 0, "the kernel image is not signed");
    ensure!(at + 8 <= 512, "a PE header beyond the first sector");
    Ok(at.into())
}

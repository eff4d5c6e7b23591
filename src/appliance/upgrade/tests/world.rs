//! A disk of files, the programs that write its partition table and check its hash trees, the boot
//! loader that chooses, and a power that can be cut.

use super::super::bios;
use super::super::disk::{Disk, Machine as Real, Part, Slot};
use super::super::entry::{DIRECTORY, Entry};
use super::super::install::{Running, entries};
use super::super::uuid::Uuid;
use crate::appliance::fake::Machine;
use crate::appliance::host::{Host, Run};
use crate::appliance::node::{Node, Sessions};
use crate::appliance::upgrade::bundle::hex;
use anyhow::{Result, bail, ensure};
use ed25519_dalek::{Signer, SigningKey};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

const PART_SIZE: usize = 64 << 10;
const PARTS: [&str; 4] = ["root-a", "verity-a", "root-b", "verity-b"];

/// A version as a builder makes it.
#[derive(Debug, Clone)]
pub struct Version {
    pub version: String,
    pub root: Vec<u8>,
    pub verity: Vec<u8>,
    pub root_hash: String,
    pub kernel: Vec<u8>,
}

impl Version {
    pub fn build(version: &str) -> Self {
        let root = version.repeat(3000).into_bytes();
        let verity = format!("{} {}\n", root.len(), sha256(&root)).into_bytes();
        let root_hash = sha256(&verity);
        let line = format!("roothash={root_hash} dunlin.version={version} panic=10");
        let parts = [
            (".linux", format!("linux {version}").into_bytes()),
            (".initrd", b"initrd".to_vec()),
            (".cmdline", line.clone().into_bytes()),
            (".profile", b"ID=reset".to_vec()),
            (".cmdline", format!("{line} dunlin.factory-reset").into_bytes()),
        ];
        Self { version: version.to_owned(), root, verity, root_hash, kernel: pe(&parts) }
    }

    fn files(&self) -> [(&'static str, &[u8]); 3] {
        [("root.squashfs", &self.root), ("root.verity", &self.verity), ("dunlin.efi", &self.kernel)]
    }

    pub fn manifest(&self) -> String {
        let files: BTreeMap<_, _> = self
            .files()
            .into_iter()
            .map(|(name, content)| {
                (name, serde_json::json!({"size": content.len(), "sha256": sha256(content)}))
            })
            .collect();
        serde_json::json!({
            "format": 1, "version": self.version, "root_hash": self.root_hash, "files": files,
            "built": 0,
        })
        .to_string()
    }

    pub fn bundle(&self, key: Option<&SigningKey>) -> Vec<u8> {
        self.bundle_with(&self.manifest(), key)
    }

    pub fn bundle_with(&self, manifest: &str, key: Option<&SigningKey>) -> Vec<u8> {
        let signature = key.map(|key| key.sign(manifest.as_bytes()).to_bytes());
        let mut tar = tar::Builder::new(Vec::new());
        let mut add = |name: &str, content: &[u8]| {
            let mut header = tar::Header::new_ustar();
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            header.set_cksum();
            tar.append_data(&mut header, name, content).unwrap();
        };
        add("manifest.json", manifest.as_bytes());
        if let Some(signature) = signature {
            add("manifest.sig", &signature);
        }
        for (name, content) in self.files() {
            add(name, content);
        }
        tar.into_inner().unwrap()
    }
}

fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// As little of a PE image as has sections.
fn pe(parts: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut image = vec![0; 0x40];
    image[0x3c] = 0x40;
    image.extend(b"PE\0\0\x64\x86");
    image.extend((parts.len() as u16).to_le_bytes());
    image.extend([0; 12]);
    image.extend(0u16.to_le_bytes());
    image.extend([0; 2]);
    let mut start = image.len() + parts.len() * 40;
    for (name, content) in parts {
        let mut label = name.as_bytes().to_vec();
        label.resize(8, 0);
        image.extend(label);
        let padded = content.len() + 16;
        for word in [content.len(), 0, padded, start] {
            image.extend((word as u32).to_le_bytes());
        }
        image.extend([0; 16]);
        start += padded;
    }
    for (_, content) in parts {
        image.extend(content);
        image.extend([0; 16]);
    }
    image
}

/// The appliance's disk in a made-up machine.
#[derive(Debug)]
pub struct World {
    pub machine: Machine,
    pub host: Host,
}

impl World {
    /// As an image is flashed: the version in slot A, nothing in slot B.
    pub fn flashed(version: &Version) -> Self {
        let machine = Machine::new();
        for (number, part) in (2..).zip(PARTS) {
            machine.write(&format!("dev/vda{number}"), &"\0".repeat(PART_SIZE));
            machine.write(&format!("sys/class/block/vda{number}/partition"), &number.to_string());
            fs::create_dir_all(machine.path("dev/dunlin")).unwrap();
            let link = machine.path(format!("dev/dunlin/{part}"));
            symlink(format!("../vda{number}"), link).unwrap();
            machine.write(&format!("uuids/{number}"), &format!("{number:032}"));
        }
        machine.write("dev/dunlin/disk", "");
        machine.write("efi/EFI/BOOT/BOOTX64.EFI", "systemd-boot");
        machine.write("efi/syslinux/ldlinux.sys", "syslinux");
        machine.write("efi/syslinux/syslinux.cfg", "");
        let host = Host::new(machine.root(), Box::new(Programs { root: machine.path("") }));
        let world = Self { machine, host };
        let mut disk = Real::open(&world.host).unwrap();
        disk.write(Slot::A, Part::Root, 0, &version.root).unwrap();
        disk.write(Slot::A, Part::Verity, 0, &version.verity).unwrap();
        let (root, verity) = Uuid::of_root_hash(&version.root_hash).unwrap();
        disk.set_uuid(Slot::A, Part::Root, root).unwrap();
        disk.set_uuid(Slot::A, Part::Verity, verity).unwrap();
        let good = Entry { version: version.version.clone(), counter: None };
        disk.boot_append(&good.path(), &version.kernel).unwrap();
        bios::unpack(&mut disk, &version.version, &version.kernel).unwrap();
        let line = bios::command_line(&version.kernel).unwrap();
        bios::write_menu(&mut disk, &[(version.version.clone(), line)]).unwrap();
        drop(disk);
        world.start(version);
        world
    }

    /// What the kernel of a version says about itself.
    pub fn start(&self, version: &Version) {
        let line = bios::command_line(&version.kernel).unwrap();
        self.machine.write("proc/cmdline", &line);
    }

    pub fn disk(&self) -> Real<'_> {
        Real::open(&self.host).unwrap()
    }

    pub fn running(&self) -> Running {
        Running::find(&self.host.root, &self.disk()).unwrap()
    }

    pub fn menu(&self) -> Vec<String> {
        entries(&self.disk()).iter().map(ToString::to_string).collect()
    }

    /// The boot was judged good.
    pub fn bless(&self, version: &str) {
        let mut disk = self.disk();
        let entry = entries(&disk).into_iter().find(|entry| entry.version == version).unwrap();
        let good = Entry { counter: None, ..entry.clone() };
        disk.boot_rename(&entry.path(), &good.path()).unwrap();
    }

    /// systemd-boot starts the first of its menu, and uses up an attempt. Gives the version, if all
    /// that belongs to it is there.
    fn attempt(&self) -> Option<String> {
        let mut disk = self.disk();
        let mut entry = entries(&disk).into_iter().next()?;
        if let Some((left, done)) = entry.counter {
            let used = Some((left.saturating_sub(1), done + 1));
            let counted = Entry { counter: used, ..entry.clone() };
            disk.boot_rename(&entry.path(), &counted.path()).unwrap();
            entry = counted;
        }
        let image = disk.boot_read(&entry.path()).unwrap();
        self.is_complete(&bios::command_line(&image).ok()?).then_some(entry.version)
    }

    /// The machine is switched on, and resets itself when a start fails.
    pub fn boot(&self) -> Option<String> {
        (0..4).find_map(|_| self.attempt())
    }

    /// The same without UEFI.
    pub fn boot_bios(&self) -> Option<String> {
        let menu = self.machine.read("efi/syslinux/syslinux.cfg");
        let default = menu.lines().find_map(|line| line.strip_prefix("DEFAULT "))?;
        let (_, block) = menu.split_once(&format!("LABEL {default}\n"))?;
        let kernel = block.lines().find_map(|line| line.trim().strip_prefix("LINUX /"))?;
        let kernel = fs::read_to_string(self.machine.path(format!("efi/{kernel}"))).ok()?;
        let line = block.lines().find_map(|line| line.trim().strip_prefix("APPEND "))?;
        let whole = kernel == format!("linux {default}") && self.is_complete(line);
        whole.then(|| default.to_owned())
    }

    /// What the initrd does: find the partitions, check them.
    fn is_complete(&self, command_line: &str) -> bool {
        let word = |key: &str| {
            command_line.split(' ').find_map(|word| word.strip_prefix(key)).map(str::to_owned)
        };
        let (Some(root_hash), disk) = (word("roothash="), self.disk()) else { return false };
        let (root, verity) = Uuid::of_root_hash(&root_hash).unwrap();
        Slot::BOTH.into_iter().any(|slot| {
            disk.uuid(slot, Part::Root).unwrap() == root
                && disk.uuid(slot, Part::Verity).unwrap() == verity
                && disk.verify(slot, &root_hash).is_ok()
        })
    }

    fn snapshot(&self) -> Snapshot {
        let mut boot = BTreeMap::new();
        collect(&self.machine.path("efi"), &mut boot);
        let parts = (2..6).map(|n| fs::read(self.machine.path(format!("dev/vda{n}"))).unwrap());
        Snapshot { boot, parts: parts.collect() }
    }
}

fn collect(directory: &Path, files: &mut BTreeMap<PathBuf, Vec<u8>>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => collect(&path, files),
            false => drop(files.insert(path.clone(), fs::read(&path).unwrap())),
        }
    }
}

/// What is on the medium.
#[derive(Debug, Clone)]
struct Snapshot {
    boot: BTreeMap<PathBuf, Vec<u8>>,
    parts: Vec<Vec<u8>>,
}

/// What has not been synced when the power fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unsynced {
    /// Is on the medium all the same; the write under way is torn.
    Arrives,
    /// Is lost.
    IsLost,
}

/// A disk whose power fails before a certain step.
#[derive(Debug)]
pub struct Fused<'w> {
    world: &'w World,
    disk: Real<'w>,
    left: usize,
    unsynced: Unsynced,
    durable: Snapshot,
    pub steps: usize,
}

impl<'w> Fused<'w> {
    pub fn new(world: &'w World, left: usize, unsynced: Unsynced) -> Self {
        let (disk, durable) = (world.disk(), world.snapshot());
        Self { world, disk, left, unsynced, durable, steps: 0 }
    }

    /// `false`: the power fails now.
    fn step(&mut self) -> bool {
        self.steps += 1;
        if self.left == 0 {
            return false;
        }
        self.left -= 1;
        true
    }

    fn changed(
        &mut self,
        alive: bool,
        change: impl FnOnce(&mut Real<'w>) -> Result<()>,
    ) -> Result<()> {
        ensure!(alive, "the power has failed");
        change(&mut self.disk)
    }

    /// What a machine finds that is switched on again.
    pub fn after(self) {
        if self.unsynced == Unsynced::Arrives || self.left > 0 {
            return;
        }
        let efi = self.world.machine.path("efi");
        fs::remove_dir_all(&efi).unwrap();
        for (path, content) in &self.durable.boot {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        fs::create_dir_all(efi.join(DIRECTORY)).unwrap();
        for (number, content) in (2..).zip(&self.durable.parts) {
            fs::write(self.world.machine.path(format!("dev/vda{number}")), content).unwrap();
        }
    }
}

fn index(slot: Slot, part: Part) -> usize {
    usize::from(slot == Slot::B) * 2 + usize::from(part == Part::Verity)
}

impl Disk for Fused<'_> {
    fn size(&self, slot: Slot, part: Part) -> Result<u64> {
        self.disk.size(slot, part)
    }

    fn write(&mut self, slot: Slot, part: Part, offset: u64, data: &[u8]) -> Result<()> {
        let alive = self.step();
        if !alive {
            self.disk.write(slot, part, offset, &data[..data.len() / 2])?;
        }
        self.changed(alive, |disk| disk.write(slot, part, offset, data))
    }

    fn sync(&mut self, slot: Slot, part: Part) -> Result<()> {
        let alive = self.step();
        self.changed(alive, |disk| disk.sync(slot, part))?;
        let now = self.world.snapshot();
        self.durable.parts[index(slot, part)].clone_from(&now.parts[index(slot, part)]);
        Ok(())
    }

    fn read_back(&self, slot: Slot, part: Part) -> Result<Box<dyn Read + '_>> {
        self.disk.read_back(slot, part)
    }

    fn uuid(&self, slot: Slot, part: Part) -> Result<Uuid> {
        self.disk.uuid(slot, part)
    }

    fn set_uuid(&mut self, slot: Slot, part: Part, uuid: Uuid) -> Result<()> {
        let alive = self.step();
        self.changed(alive, |disk| disk.set_uuid(slot, part, uuid))
    }

    fn verify(&self, slot: Slot, root_hash: &str) -> Result<()> {
        self.disk.verify(slot, root_hash)
    }

    fn boot_list(&self, directory: &str) -> Vec<String> {
        self.disk.boot_list(directory)
    }

    fn boot_read(&self, path: &str) -> Result<Vec<u8>> {
        self.disk.boot_read(path)
    }

    fn boot_append(&mut self, path: &str, data: &[u8]) -> Result<()> {
        let alive = self.step();
        if !alive {
            self.disk.boot_append(path, &data[..data.len() / 2])?;
        }
        self.changed(alive, |disk| disk.boot_append(path, data))
    }

    fn boot_rename(&mut self, from: &str, to: &str) -> Result<()> {
        let alive = self.step();
        self.changed(alive, |disk| disk.boot_rename(from, to))
    }

    fn boot_remove(&mut self, path: &str) -> Result<()> {
        let alive = self.step();
        self.changed(alive, |disk| disk.boot_remove(path))
    }

    fn boot_sync(&mut self) -> Result<()> {
        let alive = self.step();
        self.changed(alive, Disk::boot_sync)?;
        self.durable.boot = self.world.snapshot().boot;
        Ok(())
    }

    fn boot_free(&self) -> Result<u64> {
        self.disk.boot_free()
    }
}

/// sfdisk and veritysetup, of a made-up format: the "hash tree" is the length and the hash of the
/// system, and the root hash is the hash of that.
#[derive(Debug)]
struct Programs {
    root: PathBuf,
}

impl Run for Programs {
    fn run(&self, program: &str, arguments: &[&str]) -> Result<String> {
        match (program, arguments) {
            ("sfdisk", ["--part-uuid", _, number]) => {
                Ok(fs::read_to_string(self.root.join("uuids").join(number))?.to_uppercase() + "\n")
            }
            ("sfdisk", [.., "--part-uuid", _, number, uuid]) => {
                fs::write(self.root.join("uuids").join(number), uuid)?;
                Ok(String::new())
            }
            ("veritysetup", ["verify", root, verity, root_hash]) => {
                let (root, verity) = (fs::read(root)?, fs::read(verity)?);
                let end = verity.iter().position(|byte| *byte == b'\n').unwrap_or(0);
                let tree = verity.get(..=end).unwrap_or_default();
                let text = String::from_utf8_lossy(tree);
                let (length, hash) = text.trim().split_once(' ').unwrap_or(("0", ""));
                ensure!(sha256(tree) == *root_hash, "the root hash does not match");
                let length: usize = length.parse()?;
                ensure!(sha256(&root[..length]) == hash, "a block does not match");
                Ok(String::new())
            }
            ("systemctl", ["reboot"]) => Ok(String::new()),
            _ => bail!("{program} {arguments:?}"),
        }
    }
}

/// A node that does not run.
#[derive(Debug)]
pub struct NoNode;

impl Node for NoNode {
    fn status(&self) -> Result<crate::api::model::Status> {
        bail!("dunlind is not running")
    }

    fn sessions(&self) -> Result<Sessions> {
        bail!("dunlind is not running")
    }

    fn ports(&self) -> Result<Vec<crate::api::model::PortInfo>> {
        bail!("dunlind is not running")
    }

    fn drain(&self, _: &str) -> Result<()> {
        bail!("dunlind is not running")
    }
}

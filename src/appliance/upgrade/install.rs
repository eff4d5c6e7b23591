//! Writes a version to the slot that does not run, and makes it the next boot; or goes back.
//!
//! The order of the steps is what keeps the machine bootable. A version boots if its unified kernel
//! image is on the boot partition, and the partitions that this image names (by UUIDs that are halves of
//! its root hash) hold the system that matches the hash. What runs is never touched, so it is enough
//! that no image is ever on the boot partition without its system:
//!
//! 1. The *other* version's image goes first: from here on its slot means nothing, and the boot loader
//!    has only the running version to choose.
//! 2. System and hash tree are written, synced, read back from the medium and compared. No image
//!    names them yet; a power cut leaves rubbish in a slot that nobody looks at.
//! 3. The slot gets its UUIDs (sfdisk writes the backup table first, the primary one next), and
//!    veritysetup checks every block against the root hash.
//! 4. The new image is written under a name that the boot loader passes over, synced, read back.
//! 5. It is renamed to `dunlin_VERSION+1.efi`: this step, and no other, makes it the next boot. A
//!    rename within a directory of FAT changes the directory entries of the new file only; if it is
//!    torn, the file is lost, and the running version boots.
//!
//! The `+1` is one attempt: the boot loader uses it up before it starts the image. A version that
//! does not reach health, or is cut off on the way, is bad from then on, and the one before boots.

use super::bios;
use super::bundle::{self, FileInfo, Manifest};
use super::disk::{Disk, Part, Slot};
use super::entry::{DIRECTORY, Entry, menu_order};
use super::uuid::Uuid;
use super::version;
use crate::appliance::host::Root;
use anyhow::{Context, Result, bail, ensure};
use std::cmp::Ordering;
use std::io::Read;

/// The boot loader takes only names that end in `.efi`.
const FRESH: &str = "EFI/Linux/dunlin.new";

/// The version that runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Running {
    pub version: String,
    pub root_hash: String,
    pub slot: Slot,
}

impl Running {
    /// By the command line, which is part of the verified image, and the disk.
    pub fn find(root: &Root, disk: &dyn Disk) -> Result<Self> {
        let version = root.kernel_argument("dunlin.version").context(
            "the kernel command line has no dunlin.version=: this is not the appliance's image",
        )?;
        let root_hash = root.kernel_argument("roothash").unwrap_or_default();
        let slot = slot_of(disk, &root_hash)?;
        let slot = slot.with_context(|| {
            format!("no slot of this disk has the UUIDs of the running system ({root_hash})")
        })?;
        Ok(Self { version, root_hash, slot })
    }
}

/// The slot whose partitions a root hash names.
fn slot_of(disk: &dyn Disk, root_hash: &str) -> Result<Option<Slot>> {
    let (root, verity) = Uuid::of_root_hash(root_hash)?;
    for slot in Slot::BOTH {
        if disk.uuid(slot, Part::Root)? == root && disk.uuid(slot, Part::Verity)? == verity {
            return Ok(Some(slot));
        }
    }
    Ok(None)
}

/// The versions on the boot partition, in the boot loader's order.
pub fn entries(disk: &dyn Disk) -> Vec<Entry> {
    let names = disk.boot_list(DIRECTORY);
    let mut entries: Vec<Entry> = names.iter().filter_map(|name| Entry::parse(name)).collect();
    entries.sort_by(menu_order);
    entries
}

/// An installation under way.
#[derive(Debug)]
pub struct Install<'d> {
    disk: &'d mut dyn Disk,
    running: Running,
    manifest: Manifest,
    slot: Slot,
}

impl<'d> Install<'d> {
    /// Checks everything that can be checked beforehand. Changes nothing.
    pub fn check(
        disk: &'d mut dyn Disk,
        running: &Running,
        manifest: &Manifest,
        force: bool,
    ) -> Result<Self> {
        let new = &manifest.version;
        match version::compare(new, &running.version) {
            // Two images of one version differ in nothing that the boot loader sorts by.
            Ordering::Equal => bail!("version {new} is the one that runs"),
            Ordering::Less if !force => {
                bail!(
                    "version {new} is older than {}, which runs; --force takes it",
                    running.version
                )
            }
            _ => {}
        }
        ensure!(
            manifest.root_hash != running.root_hash,
            "the bundle holds the very system that runs, under another version"
        );
        let entries = entries(disk);
        let own = entries.iter().find(|entry| entry.version == running.version);
        let own = own.with_context(|| {
            format!("version {} runs, but is not on the boot partition", running.version)
        })?;
        ensure!(
            own.counter.is_none() || force,
            "version {} is itself on trial ({own}): wait until `dunlin health-gate` has judged it, \
             or --force to call it good",
            running.version
        );
        let slot = running.slot.other();
        for (part, name) in [(Part::Root, bundle::ROOT), (Part::Verity, bundle::VERITY)] {
            let (needed, has) = (manifest.file(name)?.size, disk.size(slot, part)?);
            ensure!(needed <= has, "{name} has {needed} bytes, and its partition only {has}");
        }
        check_space(disk, running, manifest)?;
        Ok(Self { disk, running: running.clone(), manifest: manifest.clone(), slot })
    }

    pub fn slot(&self) -> Slot {
        self.slot
    }

    /// Step 1.
    pub fn forget_the_other(&mut self) -> Result<()> {
        let others: Vec<Entry> = entries(self.disk)
            .into_iter()
            .filter(|entry| entry.version != self.running.version)
            .collect();
        let own = entries(self.disk).into_iter().find(|e| e.version == self.running.version);
        if let Some(own) = own.filter(|own| own.counter.is_some()) {
            // Forced: as the only version it must not be a bad one.
            let good = Entry { counter: None, ..own.clone() };
            self.disk.boot_rename(&own.path(), &good.path())?;
            self.disk.boot_sync()?;
        }
        if bios::is_there(self.disk) {
            // The menu first: it must name nothing that is gone.
            let own = self.own_line()?;
            bios::write_menu(self.disk, &[own])?;
            for name in self.disk.boot_list("syslinux") {
                if version::is_sound(&name)
                    && name != self.running.version
                    && self.disk.boot_list(&format!("syslinux/{name}")).contains(&"linux".into())
                {
                    self.disk.boot_remove(&format!("syslinux/{name}"))?;
                }
            }
        }
        for entry in others {
            self.disk.boot_remove(&entry.path())?;
        }
        self.disk.boot_remove(FRESH)?;
        self.disk.boot_sync()
    }

    /// Steps 2 to 4, one file after the other, in the bundle's order.
    pub fn file(&mut self, name: &str, info: &FileInfo, content: &mut dyn Read) -> Result<()> {
        match name {
            bundle::ROOT => self.part(Part::Root, name, info, content),
            bundle::VERITY => {
                self.part(Part::Verity, name, info, content)?;
                let (root, verity) = Uuid::of_root_hash(&self.manifest.root_hash)?;
                self.disk.set_uuid(self.slot, Part::Root, root)?;
                self.disk.set_uuid(self.slot, Part::Verity, verity)?;
                self.disk
                    .verify(self.slot, &self.manifest.root_hash)
                    .context("the system that was written does not match its root hash")
            }
            _ => self.kernel(name, info, content),
        }
    }

    fn part(
        &mut self,
        part: Part,
        name: &str,
        info: &FileInfo,
        content: &mut dyn Read,
    ) -> Result<()> {
        let slot = self.slot;
        bundle::pump(name, info, content, |offset, piece| {
            self.disk.write(slot, part, offset, piece)
        })?;
        self.disk.sync(slot, part)?;
        let mut written = self.disk.read_back(slot, part)?.take(info.size);
        bundle::pump(name, info, &mut written, |_, _| Ok(()))
            .context("the disk does not give back what was written to it")
    }

    fn kernel(&mut self, name: &str, info: &FileInfo, content: &mut dyn Read) -> Result<()> {
        bundle::pump(name, info, content, |_, piece| self.disk.boot_append(FRESH, piece))?;
        self.disk.boot_sync()?;
        let image = self.disk.boot_read(FRESH)?;
        bundle::pump(name, info, &mut &image[..], |_, _| Ok(()))
            .context("the boot partition does not give back what was written to it")?;
        ensure!(
            bios::root_hash(&image)? == self.manifest.root_hash,
            "the bundle's kernel image starts another system than the bundle holds"
        );
        if bios::is_there(self.disk) {
            bios::unpack(self.disk, &self.manifest.version, &image)?;
        }
        Ok(())
    }

    /// Step 5.
    pub fn activate(&mut self) -> Result<()> {
        let new = Entry::on_trial(&self.manifest.version);
        self.disk.boot_rename(FRESH, &new.path())?;
        self.disk.boot_sync()?;
        prefer(self.disk, &new.version, &self.running.version)?;
        if bios::is_there(self.disk) {
            let new = self.line_of(&new)?;
            let own = self.own_line()?;
            bios::write_menu(self.disk, &[new, own])?;
        }
        Ok(())
    }

    fn own_line(&self) -> Result<(String, String)> {
        let entries = entries(self.disk);
        let own = entries.iter().find(|entry| entry.version == self.running.version);
        self.line_of(own.context("the running version is not on the boot partition")?)
    }

    fn line_of(&self, entry: &Entry) -> Result<(String, String)> {
        line_of(self.disk, entry)
    }
}

/// A version with its command line.
fn line_of(disk: &dyn Disk, entry: &Entry) -> Result<(String, String)> {
    let image = disk.boot_read(&entry.path())?;
    Ok((entry.version.clone(), bios::command_line(&image)?))
}

/// What is free, and what step 1 frees, must take the image (and its parts, for BIOS).
fn check_space(disk: &dyn Disk, running: &Running, manifest: &Manifest) -> Result<()> {
    let kernel = manifest.file(bundle::KERNEL)?.size;
    let copies = if bios::is_there(disk) { 2 } else { 1 };
    let mut free = disk.boot_free()?;
    for entry in entries(disk).iter().filter(|entry| entry.version != running.version) {
        let size = disk.boot_read(&entry.path()).map_or(0, |image| image.len() as u64);
        free += size * copies;
    }
    // Directories, and what FAT loses to its clusters.
    let needed = kernel * copies + (1 << 20);
    ensure!(
        needed <= free,
        "the boot partition has room for {} MiB, and {} MiB are needed",
        free >> 20,
        needed >> 20
    );
    Ok(())
}

/// The boot loader takes the newest that is not bad. So if an older one shall boot, the one that runs
/// has to be bad; should the older one fail, both are, and then the newer one comes first again.
fn prefer(disk: &mut dyn Disk, next: &str, running: &str) -> Result<()> {
    if version::compare(next, running) != Ordering::Less {
        return Ok(());
    }
    let entries = entries(disk);
    let own = entries.iter().find(|entry| entry.version == running && !entry.is_bad());
    if let Some(own) = own {
        disk.boot_rename(&own.path(), &Entry::bad(running).path())?;
        disk.boot_sync()?;
    }
    Ok(())
}

/// Make the other version the next boot. Gives its version.
pub fn roll_back(disk: &mut dyn Disk, running: &Running) -> Result<String> {
    let all = entries(disk);
    let Some(other) = all.iter().find(|entry| entry.version != running.version) else {
        bail!("there is no other version on this disk");
    };
    let image = disk.boot_read(&other.path())?;
    let root_hash = bios::root_hash(&image)?;
    let slot = slot_of(disk, &root_hash)?;
    let slot = slot.with_context(|| format!("the system of version {} is gone", other.version))?;
    disk.verify(slot, &root_hash)
        .with_context(|| format!("version {} is damaged, and not taken", other.version))?;
    // On trial, whatever it was: if it does not come up, the version that runs now comes back.
    let next = Entry::on_trial(&other.version);
    if next != *other {
        disk.boot_rename(&other.path(), &next.path())?;
        disk.boot_sync()?;
    }
    prefer(disk, &next.version, &running.version)?;
    if bios::is_there(disk) {
        let own = entries(disk).into_iter().find(|entry| entry.version == running.version);
        let own = own.context("the running version is not on the boot partition")?;
        let lines = [line_of(disk, &next)?, line_of(disk, &own)?];
        bios::write_menu(disk, &lines)?;
    }
    Ok(next.version)
}

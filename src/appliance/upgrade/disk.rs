//! The disk of the appliance: two slots for systems, and the boot partition.
//!
//! [`Disk`] is what an upgrade needs of it, in steps of which each may be the last before a power cut;
//! [`Machine`] does them on the partitions below `/dev/dunlin` and the boot partition at `/efi`. Tests
//! put files in their place, and cut the power.

use super::uuid::Uuid;
use crate::appliance::host::Host;
use anyhow::{Context, Result, ensure};
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

/// Where the boot partition is mounted.
const BOOT: &str = "efi";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slot {
    A,
    B,
}

impl Slot {
    pub const BOTH: [Self; 2] = [Self::A, Self::B];

    pub fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::A => "a",
            Self::B => "b",
        })
    }
}

/// The partitions of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Root,
    Verity,
}

impl Part {
    fn name(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Verity => "verity",
        }
    }
}

/// Writes take effect in any order until they are synced; a rename is one step.
pub trait Disk: fmt::Debug {
    /// Bytes.
    fn size(&self, slot: Slot, part: Part) -> Result<u64>;
    fn write(&mut self, slot: Slot, part: Part, offset: u64, data: &[u8]) -> Result<()>;
    fn sync(&mut self, slot: Slot, part: Part) -> Result<()>;
    /// What the medium has, from the start: not what memory remembers of it.
    fn read_back(&self, slot: Slot, part: Part) -> Result<Box<dyn Read + '_>>;
    /// The partition's UUID, by which the next boot finds it.
    fn uuid(&self, slot: Slot, part: Part) -> Result<Uuid>;
    /// Durable when it returns.
    fn set_uuid(&mut self, slot: Slot, part: Part, uuid: Uuid) -> Result<()>;
    /// Every block of the system matches the hash tree, and that matches the root hash.
    fn verify(&self, slot: Slot, root_hash: &str) -> Result<()>;

    /// Names in a directory of the boot partition.
    fn boot_list(&self, directory: &str) -> Vec<String>;
    /// What the medium has of a file.
    fn boot_read(&self, path: &str) -> Result<Vec<u8>>;
    /// Begin a file, or go on with it.
    fn boot_append(&mut self, path: &str, data: &[u8]) -> Result<()>;
    fn boot_rename(&mut self, from: &str, to: &str) -> Result<()>;
    /// A file, or a directory with all that is in it. Fine if there is none.
    fn boot_remove(&mut self, path: &str) -> Result<()>;
    /// All that was done to the boot partition so far is on the medium when it returns.
    fn boot_sync(&mut self) -> Result<()>;
    /// Bytes that are free.
    fn boot_free(&self) -> Result<u64>;
}

/// The machine's own disk.
#[derive(Debug)]
pub struct Machine<'h> {
    host: &'h Host,
    /// Keeps the boot partition from being unmounted for idleness.
    boot: File,
}

impl<'h> Machine<'h> {
    /// Mounts the boot partition if nobody has.
    pub fn open(host: &'h Host) -> Result<Self> {
        let root = &host.root;
        ensure!(
            root.exists("dev/dunlin/root-a") && root.exists("dev/dunlin/root-b"),
            "this machine was not started from the appliance's disk (no /dev/dunlin/root-a)"
        );
        // An automount mounts when it is looked at.
        let looked = root.list(BOOT);
        if !looked.iter().any(|name| name.eq_ignore_ascii_case("EFI")) {
            let (device, target) = (root.path("dev/dunlin/esp"), root.path(BOOT));
            fs::create_dir_all(&target).context("/efi")?;
            let (device, target) = (device.display().to_string(), target.display().to_string());
            host.run("mount", &["-t", "vfat", "-o", "umask=0077", &device, &target])
                .context("cannot mount the boot partition at /efi")?;
        }
        let boot = File::open(root.path(BOOT)).context("/efi")?;
        Ok(Self { host, boot })
    }

    fn device(&self, slot: Slot, part: Part) -> PathBuf {
        self.host.root.path(format!("dev/dunlin/{}-{slot}", part.name()))
    }

    fn file(&self, path: &str) -> PathBuf {
        self.host.root.path(format!("{BOOT}/{path}"))
    }

    fn open_part(&self, slot: Slot, part: Part, write: bool) -> Result<File> {
        let device = self.device(slot, part);
        let file = OpenOptions::new().read(true).write(write).open(&device);
        file.with_context(|| device.display().to_string())
    }

    /// The disk, and the partition's number on it, as sfdisk wants them.
    fn place(&self, slot: Slot, part: Part) -> Result<(String, String)> {
        let root = &self.host.root;
        let name = format!("dev/dunlin/{}-{slot}", part.name());
        let device = root.link(&name).with_context(|| format!("/{name} leads nowhere"))?;
        let number = root.read(format!("sys/class/block/{device}/partition"));
        let number = number.with_context(|| format!("{device} is not a partition"))?;
        Ok((root.path("dev/dunlin/disk").display().to_string(), number))
    }
}

impl Disk for Machine<'_> {
    fn size(&self, slot: Slot, part: Part) -> Result<u64> {
        use std::io::{Seek, SeekFrom};
        // The length of a block device is where its end is.
        Ok(self.open_part(slot, part, false)?.seek(SeekFrom::End(0))?)
    }

    fn write(&mut self, slot: Slot, part: Part, offset: u64, data: &[u8]) -> Result<()> {
        let file = self.open_part(slot, part, true)?;
        file.write_all_at(data, offset).context("writing the slot")
    }

    fn sync(&mut self, slot: Slot, part: Part) -> Result<()> {
        let file = self.open_part(slot, part, true)?;
        file.sync_all().context("syncing the slot")?;
        // So that what is read next comes from the medium.
        posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?;
        Ok(())
    }

    fn read_back(&self, slot: Slot, part: Part) -> Result<Box<dyn Read + '_>> {
        Ok(Box::new(self.open_part(slot, part, false)?))
    }

    fn uuid(&self, slot: Slot, part: Part) -> Result<Uuid> {
        let (disk, number) = self.place(slot, part)?;
        let text = self.host.run("sfdisk", &["--part-uuid", &disk, &number])?;
        Uuid::parse(text.trim()).with_context(|| format!("sfdisk says {:?}", text.trim()))
    }

    fn set_uuid(&mut self, slot: Slot, part: Part, uuid: Uuid) -> Result<()> {
        let (disk, number) = self.place(slot, part)?;
        let text = uuid.to_string();
        // The disk is in use, and what is mounted does not change: the kernel need not look again.
        let quiet = ["--no-reread", "--no-tell-kernel", "--part-uuid"];
        let arguments = [&quiet[..], &[&disk, &number, &text]].concat();
        self.host.run("sfdisk", &arguments).context("naming the slot")?;
        File::open(self.host.root.path("dev/dunlin/disk"))?.sync_all().context("syncing the disk")
    }

    fn verify(&self, slot: Slot, root_hash: &str) -> Result<()> {
        let (root, verity) = (self.device(slot, Part::Root), self.device(slot, Part::Verity));
        let (root, verity) = (root.display().to_string(), verity.display().to_string());
        self.host.run("veritysetup", &["verify", &root, &verity, root_hash]).map(drop)
    }

    fn boot_list(&self, directory: &str) -> Vec<String> {
        self.host.root.list(format!("{BOOT}/{directory}"))
    }

    fn boot_read(&self, path: &str) -> Result<Vec<u8>> {
        let path = self.file(path);
        let read = || -> io::Result<Vec<u8>> {
            let mut file = File::open(&path)?;
            posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        read().with_context(|| path.display().to_string())
    }

    fn boot_append(&mut self, path: &str, data: &[u8]) -> Result<()> {
        use std::io::Write;
        let path = self.file(path);
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)?;
        }
        let file = OpenOptions::new().append(true).create(true).open(&path);
        file.and_then(|mut file| file.write_all(data)).with_context(|| path.display().to_string())
    }

    fn boot_rename(&mut self, from: &str, to: &str) -> Result<()> {
        let (from, to) = (self.file(from), self.file(to));
        fs::rename(&from, &to).with_context(|| format!("{} to {}", from.display(), to.display()))
    }

    fn boot_remove(&mut self, path: &str) -> Result<()> {
        let path = self.file(path);
        let removed = match path.is_dir() {
            true => fs::remove_dir_all(&path),
            false => fs::remove_file(&path),
        };
        match removed {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.with_context(|| path.display().to_string()),
        }
    }

    fn boot_sync(&mut self) -> Result<()> {
        nix::unistd::syncfs(&self.boot).context("syncing the boot partition")
    }

    fn boot_free(&self) -> Result<u64> {
        let stat = nix::sys::statvfs::fstatvfs(&self.boot)?;
        Ok(stat.blocks_available() * stat.fragment_size())
    }
}

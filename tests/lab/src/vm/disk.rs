//! Disks: overlays, so that an image serves many machines and is never written to, and config
//! drives.

use crate::lab::{self, State};
use crate::netns::run;
use anyhow::{Context, Result};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A disk of a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Disk {
    /// qcow2, written to.
    Overlay(PathBuf),
    /// A raw file that the guest cannot write: a config drive.
    ReadOnly(PathBuf),
}

impl Disk {
    pub(super) fn arguments(&self, n: usize, add: &mut impl FnMut(&str, String)) {
        let (path, format) = match self {
            // Discarded blocks are given back: several disks live side by side.
            Self::Overlay(path) => (path, "qcow2,discard=unmap,cache=writeback"),
            Self::ReadOnly(path) => (path, "raw,readonly=on"),
        };
        let path = path.display();
        add("-drive", format!("if=none,id=disk{n},file={path},format={format}"));
        // The firmware tries the disks in this order.
        add("-device", format!("virtio-blk-pci,drive=disk{n},bootindex={n}"));
    }
}

/// A new disk that starts as `base` and keeps changes to itself. `size` in bytes, at least that of
/// `base`: a larger disk than the image was made for.
pub fn overlay(base: &Path, disk: &Path, size: Option<u64>) -> Result<Disk> {
    let base = base.canonicalize().with_context(|| format!("no image {}", base.display()))?;
    let format = if base.extension().is_some_and(|e| e == "qcow2") { "qcow2" } else { "raw" };
    let mut create = Command::new("qemu-img");
    create.args(["create", "-q", "-f", "qcow2", "-F", format, "-b"]).arg(&base).arg(disk);
    if let Some(size) = size {
        create.arg(size.to_string());
    }
    run(&mut create)?;
    Ok(Disk::Overlay(disk.to_owned()))
}

/// Change bytes of a raw file in place, as a dying disk does.
pub fn overwrite(file: &Path, at: u64, change: impl FnOnce(&mut [u8; 1])) -> Result<()> {
    let file = File::options().read(true).write(true).open(file)?;
    let mut byte = [0];
    file.read_exact_at(&mut byte, at)?;
    change(&mut byte);
    file.write_all_at(&byte, at)?;
    Ok(())
}

/// An ISO 9660 image labelled `label`, with these files.
pub fn config_drive(iso: &Path, label: &str, files: &[(&str, &str)]) -> Result<Disk> {
    let content = iso.with_extension("d");
    fs::create_dir_all(&content)?;
    for (name, text) in files {
        fs::write(content.join(name), text)?;
    }
    let mut xorriso = Command::new("xorriso");
    xorriso.args(["-as", "mkisofs", "-quiet", "-r", "-J", "-V", label, "-o"]);
    run(xorriso.arg(iso).arg(&content))?;
    Ok(Disk::ReadOnly(iso.to_owned()))
}

/// A directory under `root` for the disks of one lab: they are too large for where labs keep the
/// rest. What dead labs left there is removed first.
pub fn storage(root: &Path, prefix: &str) -> Result<PathBuf> {
    fs::create_dir_all(root).with_context(|| format!("cannot make {}", root.display()))?;
    let running: Vec<String> = lab::list()?
        .into_iter()
        .filter(|lab| matches!(lab.state, State::Running | State::Kept))
        .map(|lab| lab.prefix)
        .collect();
    for entry in fs::read_dir(root)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with("dl") && name != prefix && !running.contains(&name) {
            fs::remove_dir_all(entry.path())?;
        }
    }
    let dir = root.join(prefix);
    fs::create_dir_all(&dir)?;
    Ok(dir)
}

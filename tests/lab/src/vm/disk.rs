//! Disks: overlays, so that an image serves many machines and is never written to, and config
//! drives.

use crate::lab::{self, State};
use crate::netns::run;
use anyhow::{Context, Result, ensure};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

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

/// A new disk of `size` bytes with nothing on it.
pub fn blank(disk: &Path, size: u64) -> Result<Disk> {
    let mut create = Command::new("qemu-img");
    run(create.args(["create", "-q", "-f", "qcow2"]).arg(disk).arg(size.to_string()))?;
    Ok(Disk::Overlay(disk.to_owned()))
}

/// Flip all bits of one byte of an overlay, as a dying disk or an attacker does. `base` is the raw
/// image below it.
pub fn flip(disk: &Path, base: &Path, at: u64) -> Result<()> {
    let mut byte = [0];
    File::open(base)?.read_exact_at(&mut byte, at).context("beyond the image")?;
    fill(disk, at, 1, !byte[0])
}

/// Write `len` times the same byte to an overlay.
pub fn fill(disk: &Path, at: u64, len: u64, byte: u8) -> Result<()> {
    let write = format!("write -q -P {byte} {at} {len}");
    run(Command::new("qemu-io").args(["-f", "qcow2", "-c", &write]).arg(disk)).map(drop)
}

/// Where a partition of a raw image starts and how long it is, in bytes, by its GPT label.
pub fn partition(image: &Path, label: &str) -> Result<(u64, u64)> {
    let listed = run(Command::new("sfdisk").arg("--json").arg(image))?;
    let listed: serde_json::Value = serde_json::from_str(&listed)?;
    let table = &listed["partitiontable"];
    let sector = table["sectorsize"].as_u64().unwrap_or(512);
    let mut partitions = table["partitions"].as_array().into_iter().flatten();
    let found = partitions.find(|p| p["name"] == label);
    let place = found.and_then(|p| Some((p["start"].as_u64()?, p["size"].as_u64()?)));
    let (start, size) =
        place.with_context(|| format!("{} has no partition {label}", image.display()))?;
    Ok((start * sector, size * sector))
}

/// A file of the FAT partition that starts at `partition` of a raw image.
pub fn fat_file(image: &Path, partition: u64, path: &str) -> Result<Vec<u8>> {
    let mut mtype = Command::new("mtype");
    mtype.arg("-i").arg(format!("{}@@{partition}", image.display())).arg(format!("::{path}"));
    let out = mtype.stdin(Stdio::null()).output().context("cannot start mtype (package mtools)")?;
    let error = String::from_utf8_lossy(&out.stderr);
    ensure!(out.status.success(), "{path} of {}: {}", image.display(), error.trim());
    Ok(out.stdout)
}

/// Every place of a raw image, from `start` on and for `len` bytes, that holds this sector (512 bytes)
/// and is the start of one.
pub fn sectors_with(image: &Path, start: u64, len: u64, sector: &[u8]) -> Result<Vec<u64>> {
    let file = File::open(image)?;
    let mut buffer = vec![0; 1 << 20];
    let mut found = Vec::new();
    let mut at = start;
    while at < start + len {
        let wanted = buffer.len().min((start + len - at) as usize);
        file.read_exact_at(&mut buffer[..wanted], at)?;
        let chunks = (at..).step_by(512).zip(buffer[..wanted].chunks_exact(512));
        found.extend(chunks.filter(|(_, chunk)| *chunk == sector).map(|(at, _)| at));
        at += wanted as u64;
    }
    Ok(found)
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

/// Firmware variables in which Secure Boot is on and trusts this certificate (PEM) alone, for itself
/// and for what it boots.
pub fn enroll(certificate: &Path, vars: &Path) -> Result<()> {
    // Who owns the entries; the firmware only carries it along.
    const OWNER: &str = "6d2f3a52-8a0e-4b0c-9a41-3b1b6a0d6c11";
    let mut enroll = Command::new("virt-fw-vars");
    enroll.arg("--input").arg(Path::new(super::OVMF).join(super::VARS)).arg("--output").arg(vars);
    for list in ["--set-pk", "--add-kek", "--add-db"] {
        enroll.args([list, OWNER]).arg(certificate);
    }
    run(enroll.arg("--sb")).context("package python3-virt-firmware").map(drop)
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

//! The disk image: boot partition, the two slots of the system, the state partition, and a boot sector
//! for BIOS machines. Nothing is mounted: every file system is written by its own tool.

use super::release::Release;
use super::room::{self, Room};
use super::system::Packed;
use super::tree;
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

const SECTOR: u64 = 512;
const MIB: u64 = 1 << 20;
/// Boot code of the master boot record that starts the partition marked LegacyBIOSBootable.
const BOOT_CODE: &str = "usr/lib/syslinux/mbr/gptmbr.bin";

/// A FAT file system to be: files by their path inside, `/` between the names.
#[derive(Debug)]
pub struct Fat<'a> {
    /// Bytes.
    pub size: u64,
    pub label: &'a str,
    pub files: Vec<(String, PathBuf)>,
}

impl Fat<'_> {
    /// Write it into a file. Names go in by order, with the build's time.
    pub fn build(mut self, room: &Room, release: &Release, file: &Path) -> Result<()> {
        self.files.sort();
        tree::remove(file)?;
        File::create(file)?.set_len(self.size)?;
        let image = room.inside(file)?;
        let serial = format!("{:08x}", release.epoch as u32);
        room.run(
            "mkfs.fat",
            &[
                &"--invariant",
                &"-F",
                &"32",
                &"-s",
                &"1",
                &"-i",
                &serial,
                &"-n",
                &self.label,
                &image,
            ],
        )?;
        let mut made = Vec::new();
        for (name, source) in &self.files {
            let parents: Vec<_> = name.match_indices('/').map(|(at, _)| &name[..at]).collect();
            for parent in parents.into_iter().filter(|parent| !parent.is_empty()) {
                if !made.contains(&parent) {
                    room.run("mmd", &[&"-i", &image, &format!("::{parent}")])?;
                    made.push(parent);
                }
            }
            room.run("mcopy", &[&"-i", &image, &room.inside(source)?, &format!("::{name}")])?;
        }
        Ok(())
    }
}

/// What a disk holds. Slot B is empty.
#[derive(Debug)]
pub struct Recipe<'a> {
    pub esp: Vec<(String, PathBuf)>,
    pub system: &'a Packed,
    pub partitions: &'a str,
}

/// Write the disk into `disk`; its parts are left beside it.
pub fn build(room: &Room, release: &Release, recipe: Recipe, disk: &Path) -> Result<()> {
    let (root, verity) = partition_uuids(&recipe.system.root_hash)?;
    let script = recipe.partitions.replace("@ROOT@", &root).replace("@VERITY@", &verity);
    let total = total_size(&script)?;
    tree::remove(disk)?;
    File::create(disk)?.set_len(total)?;
    let table = partition(room, &script, disk)?;
    let size_of = |name: &str| Ok::<_, anyhow::Error>(find(&table, name)?.1);

    let esp = disk.with_extension("esp");
    let fat = Fat { size: size_of("dunlin-esp")?, label: "DUNLIN-ESP", files: recipe.esp };
    fat.build(room, release, &esp)?;
    room.run("syslinux", &[&"--install", &"--directory", &"/syslinux", &room.inside(&esp)?])?;
    let state = disk.with_extension("state");
    make_state(room, size_of("dunlin-state")?, &state)?;

    for (name, content) in [
        ("dunlin-esp", &esp),
        ("dunlin-root-a", &recipe.system.squashfs),
        ("dunlin-verity-a", &recipe.system.verity),
        ("dunlin-state", &state),
    ] {
        let (start, size) = find(&table, name)?;
        place(content, disk, start, size).with_context(|| name.to_owned())?;
    }
    write_boot_code(room, disk)
}

/// The UUIDs of a system's partitions: the first and the last 128 bits of its root hash (UAPI
/// Discoverable Partitions Specification).
pub fn partition_uuids(root_hash: &str) -> Result<(String, String)> {
    if root_hash.len() != 64 || !root_hash.bytes().all(|b| b.is_ascii_hexdigit()) {
        bail!("not a SHA-256 root hash: {root_hash}");
    }
    let uuid =
        |hex: &str| [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-");
    Ok((uuid(&root_hash[..32]), uuid(&root_hash[32..])))
}

/// The partitions' sizes with the tables around them, rounded up to whole MiB.
fn total_size(script: &str) -> Result<u64> {
    let mut total = 2 * MIB;
    for line in script.lines().filter(|line| line.starts_with("size=")) {
        let size = line.trim_start_matches("size=").split("MiB").next().unwrap_or_default();
        total += size.parse::<u64>().with_context(|| format!("no size in MiB: {line}"))? * MIB;
    }
    Ok(total)
}

/// Write the partition table. Gives back what sfdisk made of it.
fn partition(room: &Room, script: &str, disk: &Path) -> Result<Vec<Value>> {
    let file = disk.with_extension("sfdisk");
    fs::write(&file, script)?;
    let image = room.inside(disk)?;
    let mut sfdisk = room.command("sfdisk");
    sfdisk.args(["--quiet", "--no-reread", "--no-tell-kernel"]).arg(&image);
    sfdisk.stdin(File::open(&file)?);
    room::output(&mut sfdisk)?;
    let table: Value = serde_json::from_slice(&room.run("sfdisk", &[&"--json", &image])?)?;
    let partitions = table["partitiontable"]["partitions"].as_array();
    partitions.cloned().context("sfdisk --json shows no partitions")
}

/// Start and size of a partition, bytes.
fn find(table: &[Value], name: &str) -> Result<(u64, u64)> {
    let partition = table.iter().find(|partition| partition["name"] == name);
    let partition = partition.with_context(|| format!("images/partitions.txt has no {name}"))?;
    match (partition["start"].as_u64(), partition["size"].as_u64()) {
        (Some(start), Some(size)) => Ok((start * SECTOR, size * SECTOR)),
        _ => bail!("sfdisk --json: {partition}"),
    }
}

/// An empty state partition. It is small; the first boot grows it to the disk.
fn make_state(room: &Room, size: u64, file: &Path) -> Result<()> {
    tree::remove(file)?;
    File::create(file)?.set_len(size)?;
    let options = "hash_seed=64756e6c-696e-4000-8000-000000000007,lazy_itable_init=0,lazy_journal_init=0,root_owner=0:0";
    room.run(
        "mke2fs",
        &[
            &"-q",
            &"-t",
            &"ext4",
            &"-L",
            &"dunlin-state",
            &"-E",
            &options,
            &"-U",
            &"64756e6c-696e-4000-8000-000000000008",
            &room.inside(file)?,
        ],
    )?;
    Ok(())
}

/// Copy a file into a place of the disk, leaving holes where there are only zeroes.
fn place(content: &Path, disk: &Path, start: u64, room: u64) -> Result<()> {
    let mut source = File::open(content).with_context(|| content.display().to_string())?;
    let size = source.metadata()?.len();
    if size > room {
        bail!("{size} bytes do not fit into {room}");
    }
    let mut target = OpenOptions::new().write(true).open(disk)?;
    let mut buffer = vec![0; 64 * 1024];
    let mut at = start;
    loop {
        let read = source.read(&mut buffer)?;
        if read == 0 {
            return Ok(());
        }
        if buffer[..read].iter().any(|byte| *byte != 0) {
            target.seek(SeekFrom::Start(at))?;
            target.write_all(&buffer[..read])?;
        }
        at += read as u64;
    }
}

fn write_boot_code(room: &Room, disk: &Path) -> Result<()> {
    let code = fs::read(room.root().join(BOOT_CODE)).context("no boot code of syslinux")?;
    // What follows belongs to the protective partition table.
    if code.len() > 440 {
        bail!("{BOOT_CODE} is too long for a master boot record");
    }
    let mut target = OpenOptions::new().write(true).open(disk)?;
    target.write_all(&code)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_are_named_by_the_root_hash() {
        let hash = "00112233445566778899aabbccddeeff0123456789abcdef0123456789abcdef";
        let (root, verity) = partition_uuids(hash).unwrap();
        assert_eq!(root, "00112233-4455-6677-8899-aabbccddeeff");
        assert_eq!(verity, "01234567-89ab-cdef-0123-456789abcdef");
        assert!(partition_uuids("00").is_err());
        assert!(partition_uuids(&"x".repeat(64)).is_err());
    }

    #[test]
    fn the_disk_is_as_large_as_its_partitions() {
        assert_eq!(total_size("label: gpt\nsize=3MiB, name=a\nsize=4MiB\n").unwrap(), 9 * MIB);
        assert!(total_size("size=3GiB\n").is_err());
    }
}

//! The menu of machines without UEFI: syslinux, on the same boot partition.
//!
//! syslinux starts no unified kernel image, so its parts are put beside it, and a menu names them. There
//! is no boot counting: the menu's default is what boots, until somebody chooses otherwise.

use super::disk::Disk;
use anyhow::{Context, Result, ensure};
use std::fmt::Write;

pub const MENU: &str = "syslinux/syslinux.cfg";

/// The disk boots on machines without UEFI too.
pub fn is_there(disk: &dyn Disk) -> bool {
    disk.boot_list("syslinux").iter().any(|name| name == "syslinux.cfg")
}

/// Take kernel, initrd and command line out of a unified kernel image, and put them on the disk.
pub fn unpack(disk: &mut dyn Disk, version: &str, image: &[u8]) -> Result<()> {
    let directory = format!("syslinux/{version}");
    disk.boot_remove(&directory)?;
    for (part, name) in [(".linux", "linux"), (".initrd", "initrd")] {
        let content = section(image, part)?;
        disk.boot_append(&format!("{directory}/{name}"), content)?;
    }
    disk.boot_sync()
}

/// The menu with `version` as its default, `others` behind it, each with its command line.
pub fn write_menu(disk: &mut dyn Disk, versions: &[(String, String)]) -> Result<()> {
    let Some((default, _)) = versions.first() else { return Ok(()) };
    let labels: Vec<&str> = versions.iter().map(|(version, _)| version.as_str()).collect();
    let mut menu = format!(
        "# BIOS machines. Written by `dunlin upgrade`: nothing goes back by itself, choose here.\n\
         SERIAL 0 115200\nPROMPT 1\nTIMEOUT 30\nDEFAULT {default}\n\
         SAY Dunlin: press a key to choose: {} (with -reset: factory reset)\n",
        labels.join(" or ")
    );
    for (version, command_line) in versions {
        for (suffix, more) in [("", ""), ("-reset", " dunlin.factory-reset")] {
            // Writing to a String cannot fail.
            let _ = write!(
                menu,
                "LABEL {version}{suffix}\n  LINUX /syslinux/{version}/linux\n  \
                 INITRD /syslinux/{version}/initrd\n  APPEND {command_line}{more}\n"
            );
        }
    }
    let fresh = format!("{MENU}.new");
    disk.boot_remove(&fresh)?;
    disk.boot_append(&fresh, menu.as_bytes())?;
    disk.boot_sync()?;
    disk.boot_rename(&fresh, MENU)?;
    disk.boot_sync()
}

/// The kernel command line of a unified kernel image (of its first profile).
pub fn command_line(image: &[u8]) -> Result<String> {
    let text = section(image, ".cmdline")?;
    let text = String::from_utf8_lossy(text);
    Ok(text.trim_matches(['\0', '\n', ' ']).to_owned())
}

/// The first section of a name, of a PE image (Microsoft PE/COFF §3, §4).
fn section<'i>(image: &'i [u8], name: &str) -> Result<&'i [u8]> {
    let found = find_section(image, name);
    found.with_context(|| format!("the kernel image has no section {name}, or is cut off"))
}

fn find_section<'i>(image: &'i [u8], name: &str) -> Option<&'i [u8]> {
    let u16_at = |at: usize| {
        Some(usize::from(u16::from_le_bytes(image.get(at..at.checked_add(2)?)?.try_into().ok()?)))
    };
    let u32_at = |at: usize| {
        let bytes = image.get(at..at.checked_add(4)?)?;
        usize::try_from(u32::from_le_bytes(bytes.try_into().ok()?)).ok()
    };
    let header = u32_at(0x3c)?;
    if image.get(header..header.checked_add(4)?)? != b"PE\0\0" {
        return None;
    }
    let (count, optional) = (u16_at(header + 6)?, u16_at(header + 20)?);
    let table = header + 24 + optional;
    (0..count).map(|index| table + index * 40).find_map(|at| {
        let label = image.get(at..at + 8)?;
        let label = label.split(|byte| *byte == 0).next()?;
        if label != name.as_bytes() {
            return None;
        }
        // What is in memory may be shorter than on disk, where it is padded.
        let size = u32_at(at + 8)?.min(u32_at(at + 16)?);
        let start = u32_at(at + 20)?;
        image.get(start..start.checked_add(size)?)
    })
}

/// The root hash that a unified kernel image starts.
pub fn root_hash(image: &[u8]) -> Result<String> {
    let line = command_line(image)?;
    let hash = line.split_ascii_whitespace().find_map(|word| word.strip_prefix("roothash="));
    let hash = hash.context("the kernel image's command line has no roothash=")?.to_owned();
    ensure!(hash.len() == 64, "the kernel image's roothash= is not one");
    Ok(hash)
}

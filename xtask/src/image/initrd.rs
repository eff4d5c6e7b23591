//! The initial RAM disk: busybox, a few programs with their libraries, drivers for disks, and
//! `images/initrd/init`. The archive is a function of its files: no clock, no inode numbers.

use super::modules::Modules;
use super::room::Room;
use super::tree;
use anyhow::{Context, Result, bail};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

/// What an initrd is made of.
#[derive(Debug)]
pub struct Recipe<'a> {
    /// The first program, and files of its own: laid over everything else.
    pub overlay: &'a [PathBuf],
    /// Programs of the room, by their absolute paths.
    pub programs: &'a [String],
    /// Kernel modules by name; those they need come along.
    pub modules: &'a [String],
}

/// Put an initrd together in `dir` and pack it, compressed, beside it.
pub fn build(room: &Room, modules: &Modules, recipe: &Recipe, dir: &Path) -> Result<PathBuf> {
    tree::fresh(dir)?;
    for name in ["proc", "sys", "dev", "run", "root", "sbin", "etc", "tmp"] {
        fs::create_dir(dir.join(name))?;
    }
    busybox(room, dir)?;
    for program in recipe.programs {
        tree::install(&in_root(room.root(), program), &in_root(dir, program), true)?;
        // One flat place, whatever the release does with /usr/sbin.
        let name = Path::new(program).file_name().context("a program has a name")?;
        symlink(program, dir.join("sbin").join(name))?;
        libraries(room, program, dir)?;
    }
    modules.copy(room, recipe.modules, dir)?;
    for overlay in recipe.overlay {
        tree::lay_over(overlay, dir)?;
    }
    let archive = dir.with_extension("cpio");
    fs::write(&archive, cpio(dir)?)?;
    let packed = dir.with_extension("cpio.zst");
    room.run(
        "zstd",
        &[&"-q", &"-f", &"-15", &"-o", &room.inside(&packed)?, &room.inside(&archive)?],
    )?;
    Ok(packed)
}

fn in_root(root: &Path, path: &str) -> PathBuf {
    root.join(path.trim_start_matches('/'))
}

fn busybox(room: &Room, dir: &Path) -> Result<()> {
    let source = room.root().join("usr/bin/busybox");
    tree::install(&source, &dir.join("bin/busybox"), true)?;
    let applets = room.run("busybox", &[&"--list"])?;
    for applet in String::from_utf8(applets)?.lines().filter(|name| *name != "busybox") {
        symlink("busybox", dir.join("bin").join(applet))?;
    }
    Ok(())
}

/// The shared libraries of a program, as the dynamic linker finds them.
fn libraries(room: &Room, program: &str, dir: &Path) -> Result<()> {
    let listed = String::from_utf8(room.run("ldd", &[&program])?)?;
    for line in listed.lines() {
        if line.contains("not found") {
            bail!("{program}: {}", line.trim());
        }
        let Some(path) = line.split_whitespace().find(|word| word.starts_with('/')) else {
            continue;
        };
        tree::install(&in_root(room.root(), path), &in_root(dir, path), true)?;
    }
    Ok(())
}

/// A `newc` archive of a directory (Linux: Documentation/driver-api/early-userspace/buffer-format.rst):
/// all files root's, all times zero, inodes numbered in order of names.
fn cpio(dir: &Path) -> Result<Vec<u8>> {
    let mut archive = Vec::new();
    let mut inode = 0;
    append_dir(&mut archive, dir, "", &mut inode)?;
    append(&mut archive, "TRAILER!!!", 0, 0, &[]);
    Ok(archive)
}

fn append_dir(archive: &mut Vec<u8>, dir: &Path, prefix: &str, inode: &mut u32) -> Result<()> {
    for name in tree::names(dir)? {
        let path = dir.join(&name);
        let inside = format!("{prefix}{name}");
        let meta = fs::symlink_metadata(&path)?;
        let permissions = meta.permissions().mode() & 0o7777;
        *inode += 1;
        if meta.is_dir() {
            append(archive, &inside, *inode, 0o040_000 | permissions, &[]);
            append_dir(archive, &path, &format!("{inside}/"), inode)?;
        } else if meta.is_symlink() {
            let target = fs::read_link(&path)?;
            append(archive, &inside, *inode, 0o120_777, target.as_os_str().as_encoded_bytes());
        } else {
            append(archive, &inside, *inode, 0o100_000 | permissions, &fs::read(&path)?);
        }
    }
    Ok(())
}

fn append(archive: &mut Vec<u8>, name: &str, inode: u32, mode: u32, content: &[u8]) {
    let links = if mode & 0o170_000 == 0o040_000 { 2 } else { 1 };
    // Magic, inode, mode, uid, gid, links, mtime, size, four device numbers, length of the name with
    // its terminating zero, checksum (unused).
    let header =
        [inode, mode, 0, 0, links, 0, content.len() as u32, 0, 0, 0, 0, name.len() as u32 + 1, 0];
    archive.extend_from_slice(b"070701");
    for field in header {
        archive.extend_from_slice(format!("{field:08x}").as_bytes());
    }
    archive.extend_from_slice(name.as_bytes());
    archive.push(0);
    pad(archive);
    archive.extend_from_slice(content);
    pad(archive);
}

fn pad(archive: &mut Vec<u8>) {
    archive.resize(archive.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_is_what_the_kernel_reads() {
        let mut archive = Vec::new();
        append(&mut archive, "init", 7, 0o100_755, b"hello");
        let text = String::from_utf8(archive).unwrap();
        assert_eq!(
            text,
            "07070100000007000081ed000000000000000000000001000000000000000500000000000000000000000000\
             0000000000000500000000init\0\0hello\0\0\0"
        );
    }
}

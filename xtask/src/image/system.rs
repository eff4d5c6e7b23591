//! The system partition: a Debian root with the node's package, the image's own files, and without what
//! only a package manager needs; as a squashfs with a dm-verity tree beside it.

use super::modules::Modules;
use super::release::Release;
use super::room::{self, Room};
use super::sbom::Installed;
use super::tree;
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A root that is ready to be packed, and what it was made of.
#[derive(Debug)]
pub struct System {
    pub root: PathBuf,
    pub packages: Vec<Installed>,
}

/// A packed system.
#[derive(Debug)]
pub struct Packed {
    pub squashfs: PathBuf,
    pub verity: PathBuf,
    /// 64 hexadecimal digits.
    pub root_hash: String,
}

/// What goes into a system.
#[derive(Debug)]
pub struct Recipe<'a> {
    /// The Debian root, which stays as it is.
    pub base: &'a Path,
    /// The node's package.
    pub deb: &'a Path,
    pub modules: &'a Modules,
    /// Laid over everything else, in this order.
    pub overlays: &'a [PathBuf],
    /// Patterns of what leaves in the end.
    pub remove: &'a [String],
    /// The public half of the key that signs releases.
    pub release_key: Option<&'a [u8]>,
}

/// Put a root together in `root`.
pub fn assemble(room: &Room, recipe: &Recipe, release: &Release, root: &Path) -> Result<System> {
    tree::remove(root)?;
    room.run("cp", &[&"-a", &room.inside(recipe.base)?, &room.inside(root)?])?;
    let deb = root.join("tmp/dunlin.deb");
    fs::copy(recipe.deb, &deb).context("cannot copy the package")?;
    chroot(root, &["dpkg", "--install", "/tmp/dunlin.deb"])?;
    fs::remove_file(deb)?;
    let packages = super::sbom::installed(root)?;

    tree::lay_over(&recipe.modules.root().join("usr/lib/modules"), &root.join("usr/lib/modules"))?;
    write_release(root, release)?;
    if let Some(key) = recipe.release_key {
        tree::write(&root.join("usr/share/dunlin/release-key.pem"), key)?;
    }
    for dir in ["efi", "etc/dunlin"] {
        fs::create_dir_all(root.join(dir))?;
    }
    for overlay in recipe.overlays {
        tree::lay_over(overlay, root)?;
    }
    tree::write(&root.join("etc/machine-id"), "")?;
    chroot(root, &["systemctl", "--quiet", "preset-all"])?;
    // A manager of services for whoever logs in: nobody has any, and each log-in would wait for it.
    chroot(root, &["systemctl", "--quiet", "mask", "user@.service"])?;
    check(root)?;
    tree::remove_matching(root, recipe.remove)?;
    Ok(System { root: root.to_owned(), packages })
}

/// Pack a root, reproducibly, and hash it.
pub fn pack(room: &Room, system: &System, release: &Release, dir: &Path) -> Result<Packed> {
    let squashfs = dir.join("root.squashfs");
    let verity = dir.join("root.verity");
    tree::remove(&squashfs)?;
    tree::remove(&verity)?;
    let (image, hashes) = (room.inside(&squashfs)?, room.inside(&verity)?);
    let time = release.epoch.to_string();
    let mut mksquashfs = room.command("mksquashfs");
    mksquashfs.arg(room.inside(&system.root)?).arg(&image);
    mksquashfs.args(["-quiet", "-no-progress", "-noappend", "-no-xattrs", "-all-time", &time]);
    // The environment has the time already; mksquashfs takes it from one place only.
    mksquashfs.args(["-mkfs-time", &time]).env_remove("SOURCE_DATE_EPOCH");
    mksquashfs.args([
        "-comp",
        "zstd",
        "-Xcompression-level",
        if release.quick { "3" } else { "15" },
    ]);
    mksquashfs.args(["-b", "128K"]);
    room::output(&mut mksquashfs)?;
    // Salt and UUID make no secret: they are derived, so that the same system gives the same hash.
    let salt = super::hash::hex(&super::hash::sha256(release.version.as_bytes()));
    let mut veritysetup = room.command("veritysetup");
    veritysetup.arg("format").arg(image).arg(hashes);
    veritysetup.args(["--hash=sha256", "--salt", &salt]);
    veritysetup.args(["--uuid", "64756e6c-696e-4000-8000-766572697479"]);
    let said = String::from_utf8(room::output(&mut veritysetup)?)?;
    let root_hash = said.lines().find_map(|line| line.strip_prefix("Root hash:"));
    let root_hash = root_hash.context("veritysetup names no root hash")?.trim().to_owned();
    Ok(Packed { squashfs, verity, root_hash })
}

/// A command in the system's own root.
fn chroot(root: &Path, args: &[&str]) -> Result<Vec<u8>> {
    let mut command = Command::new("chroot");
    command.arg(root).args(args);
    command.env_clear().env("PATH", "/usr/bin:/usr/sbin").env("LC_ALL", "C.UTF-8");
    room::output(&mut command)
}

/// Who this is: for people, for the boot loader's menu, and for `dunlin upgrade`.
fn write_release(root: &Path, release: &Release) -> Result<()> {
    tree::write(
        &root.join("usr/lib/dunlin/release"),
        format!(
            "VERSION={}\nCOMMIT={}\nBUILT={}\n",
            release.version, release.commit, release.epoch
        ),
    )?;
    tree::write(&root.join("usr/lib/os-release"), release.os_release())
}

/// The node must find every library it wants, and be the version that the image says.
fn check(root: &Path) -> Result<()> {
    for program in ["/usr/bin/dunlind", "/usr/bin/dunlin"] {
        let listed = String::from_utf8(chroot(root, &["ldd", program])?)?;
        if let Some(line) = listed.lines().find(|line| line.contains("not found")) {
            bail!("{program}: {}", line.trim());
        }
        chroot(root, &[program, "--version"])?;
    }
    Ok(())
}

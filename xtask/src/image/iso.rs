//! The installer: an ISO for a CD or a USB stick that starts on UEFI and BIOS machines, asks for a disk
//! (or takes `dunlin.install=`), writes the disk image that it carries and verifies it.
//!
//! The checksum of the image is in the initrd, so that a signature over the unified kernel image covers
//! what is installed.

use super::disk::Fat;
use super::keys::Keys;
use super::release::Release;
use super::room::{self, Room};
use super::{hash, initrd, kernel, modules::Modules, tree};
use anyhow::{Context, Result};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// The volume's label. Not one that a node would take for a config drive.
const LABEL: &str = "DUNLIN_INSTALL";
/// The disk image on the medium.
const FILE: &str = "dunlin/disk.raw.zst";
const MIB: u64 = 1 << 20;

/// What an installer is made of.
#[derive(Debug)]
pub struct Recipe<'a> {
    /// The directory `images`.
    pub images: &'a Path,
    pub modules: &'a Modules,
    /// The disk to install, as it is and compressed.
    pub raw: &'a Path,
    pub packed: &'a Path,
    pub root_hash: &'a str,
    pub keys: Option<&'a Keys>,
}

/// Build it into `iso`.
pub fn build(room: &Room, release: &Release, recipe: &Recipe, iso: &Path) -> Result<()> {
    let initrd = make_initrd(room, release, recipe)?;
    let parameters = tree::words(&recipe.images.join("cmdline.txt"))?;
    let version = format!("dunlin.version={}", release.version);
    let cmdline = kernel::command_line(&parameters, &[version]);
    let unified = room.work("install.efi")?;
    let unify = kernel::Recipe { initrd: &initrd, cmdline: &cmdline, profiles: &[] };
    kernel::unify(room, release, &unify, &unified)?;
    if let Some(keys) = recipe.keys {
        keys.sign_efi(room, &unified)?;
    }

    let stage = tree::fresh(&room.work("iso")?)?;
    let size = (fs::metadata(&unified)?.len() / MIB + 16).max(40) * MIB;
    let files = vec![("EFI/BOOT/BOOTX64.EFI".to_owned(), unified)];
    Fat { size, label: "DUNLIN-INST", files }.build(room, release, &stage.join("efi.img"))?;
    fs::create_dir(stage.join("dunlin"))?;
    fs::hard_link(recipe.packed, stage.join(FILE))?;
    stage_isolinux(room, recipe, &initrd, &cmdline, &stage.join("isolinux"))?;
    set_times(&stage, SystemTime::UNIX_EPOCH + Duration::from_secs(release.epoch))?;
    pack(room, &stage, iso)
}

fn make_initrd(room: &Room, release: &Release, recipe: &Recipe) -> Result<PathBuf> {
    let source = recipe.images.join("initrd");
    let mut load = tree::words(&source.join("modules-load.txt"))?;
    // Of the medium. The kernel would ask for it by a path that an initrd of busybox does not have.
    load.push("isofs".to_owned());
    let own = tree::fresh(&room.work("install.own")?)?;
    tree::install(&source.join("install"), &own.join("init"), true)?;
    tree::install(&source.join("common"), &own.join("common"), false)?;
    tree::write(&own.join("etc/modules"), load.join("\n") + "\n")?;
    let facts = format!(
        "VERSION={}\nLABEL={LABEL}\nFILE={FILE}\nSIZE={}\nSHA256={}\nROOTHASH={}\n",
        release.version,
        fs::metadata(recipe.raw)?.len(),
        hash::file(recipe.raw)?,
        recipe.root_hash,
    );
    tree::write(&own.join("etc/dunlin-install"), facts)?;
    fs::create_dir(own.join("medium"))?;
    let parts = initrd::Recipe {
        overlay: &[own],
        programs: &tree::words(&source.join("programs-install.txt"))?,
        modules: &[load, tree::words(&source.join("modules.txt"))?].concat(),
    };
    initrd::build(room, recipe.modules, &parts, &room.work("install")?)
}

fn stage_isolinux(
    room: &Room,
    recipe: &Recipe,
    initrd: &Path,
    cmdline: &str,
    dir: &Path,
) -> Result<()> {
    let lib = room.root().join("usr/lib");
    for (from, name) in [
        (lib.join("ISOLINUX/isolinux.bin"), "isolinux.bin"),
        (lib.join("syslinux/modules/bios/ldlinux.c32"), "ldlinux.c32"),
        (kernel::linux(room)?, "linux"),
        (initrd.to_owned(), "initrd"),
    ] {
        tree::install(&from, &dir.join(name), false)?;
    }
    let config = fs::read_to_string(recipe.images.join("boot/isolinux.cfg"))?;
    tree::write(&dir.join("isolinux.cfg"), config.replace("@CMDLINE@", cmdline))
}

/// Give everything below a directory the build's time.
fn set_times(dir: &Path, time: SystemTime) -> Result<()> {
    for name in tree::names(dir)? {
        let path = dir.join(name);
        if path.is_dir() {
            set_times(&path, time)?;
        } else {
            let file = File::options().write(true).open(&path);
            file.and_then(|f| f.set_modified(time)).with_context(|| path.display().to_string())?;
        }
    }
    Ok(File::open(dir)?.set_modified(time)?)
}

/// El Torito for both kinds of firmware, and a partition table over it for USB sticks.
fn pack(room: &Room, stage: &Path, iso: &Path) -> Result<()> {
    let mut xorriso = room.command("xorriso");
    xorriso.args(["-as", "mkisofs", "-quiet", "-r", "-J", "-V", LABEL]);
    xorriso.args(["-isohybrid-mbr", "/usr/lib/ISOLINUX/isohdpfx.bin"]);
    xorriso.args(["-c", "isolinux/boot.cat", "-b", "isolinux/isolinux.bin", "-no-emul-boot"]);
    xorriso.args(["-boot-load-size", "4", "-boot-info-table"]);
    xorriso.args(["-eltorito-alt-boot", "-e", "efi.img", "-no-emul-boot", "-isohybrid-gpt-basdat"]);
    xorriso.arg("-o").arg(room.inside(iso)?).arg(room.inside(stage)?);
    room::output(&mut xorriso).map(drop)
}

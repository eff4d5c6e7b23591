//! The unified kernel image: kernel, initrd and command line in one file that firmware starts and can
//! verify, with a second profile for the factory reset.

use super::release::Release;
use super::room::Room;
use super::tree;
use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};

const STUB: &str = "/usr/lib/systemd/boot/efi/linuxx64.efi.stub";

/// What a unified kernel image is made of.
#[derive(Debug)]
pub struct Recipe<'a> {
    pub initrd: &'a Path,
    pub cmdline: &'a str,
    /// Menu entries beside the plain one: identifier, title, and what is added to the command line.
    pub profiles: &'a [(&'a str, &'a str, &'a str)],
}

/// The parameters of `images/cmdline.txt`, and of this build.
pub fn command_line(parameters: &[String], more: &[String]) -> String {
    more.iter().chain(parameters).map(String::as_str).collect::<Vec<_>>().join(" ")
}

/// The kernel that is in the room.
pub fn linux(room: &Room) -> Result<PathBuf> {
    Ok(room.root().join(format!("boot/vmlinuz-{}", room.kernel()?)))
}

/// Build it into `file`, unsigned.
pub fn unify(room: &Room, release: &Release, recipe: &Recipe, file: &Path) -> Result<()> {
    let dir = file.with_extension("d");
    tree::fresh(&dir)?;
    let os_release = dir.join("os-release");
    fs::write(&os_release, release.os_release())?;
    // systemd-boot 257 sorts the profiles of a version whose attempts are counted as one entry, in any
    // order. What it boots by itself must never be another profile, so those sort behind all versions.
    let behind = dir.join("profile.os-release");
    fs::write(
        &behind,
        release.os_release().replace("IMAGE_ID=dunlin\n", "IMAGE_ID=dunlin-other\n"),
    )?;
    let linux = format!("/boot/vmlinuz-{}", room.kernel()?);
    let inside = room.inside(&dir)?;
    let at = |name: &str| format!("@{}", inside.join(name).display());

    let mut ukify = room.command("ukify");
    ukify.args(["build", "--stub", STUB, "--linux", &linux, "--uname", &room.kernel()?]);
    ukify.arg("--initrd").arg(room.inside(recipe.initrd)?);
    ukify.args(["--cmdline", recipe.cmdline, "--os-release", &at("os-release")]);
    if !recipe.profiles.is_empty() {
        fs::write(dir.join("main.profile"), "ID=main\nTITLE=Start\n")?;
        ukify.args(["--profile", &at("main.profile")]);
    }
    for (id, title, more) in recipe.profiles {
        let profile = format!("{id}.profile");
        fs::write(dir.join(&profile), format!("ID={id}\nTITLE={title}\n"))?;
        let joined = inside.join(format!("{id}.efi"));
        let mut build = room.command("ukify");
        // Without a kernel, ukify takes the stub of addons by itself.
        build.args(["build", "--profile", &at(&profile)]);
        build.args(["--os-release", &at("profile.os-release")]);
        build.arg("--cmdline").arg(format!("{} {more}", recipe.cmdline));
        build.arg("--output").arg(&joined);
        super::room::output(&mut build).context("cannot build a profile")?;
        ukify.arg("--join-profile").arg(joined);
    }
    ukify.arg("--output").arg(room.inside(file)?);
    super::room::output(&mut ukify).map(drop)
}

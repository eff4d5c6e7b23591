//! `cargo xtask deb`: the node as a Debian package, for the image and for plain machines.
//!
//! Compiled inside a root of the release that it is for, so that it links against that release's DPDK
//! and says so in its dependencies. Nothing is enabled or started on installation: a node without a
//! configuration has nothing to do.

mod trial;

use crate::cargo;
use crate::debian;
use crate::image::release::Release;
use crate::image::room::{self, Room};
use crate::image::tree;
use crate::setup::{self, Purpose};
use anyhow::{Context, Result, bail};
use clap::Args;
use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

#[derive(Debug, Args)]
pub struct Options {
    /// The Debian release it is for; this machine's, if not given
    #[arg(long)]
    release: Option<String>,
    /// Where to put it
    #[arg(long, default_value = "target/image/out")]
    out: PathBuf,
    /// The version, if not the workspace's
    #[arg(long)]
    version: Option<String>,
    /// Reuse the build root of an earlier run, even if Debian has newer packages
    #[arg(long)]
    quick: bool,
    /// Then install it on a plain Debian, in a root of its own; look at it, remove it and purge it
    #[arg(long)]
    check: bool,
}

/// Drivers without which no node runs: their packages' names end in the ABI of the release.
const DRIVERS: &[&str] =
    &["librte-bus-pci", "librte-bus-vdev", "librte-mempool-ring", "librte-net-virtio"];

pub fn run(options: &Options) -> Result<()> {
    setup::require_root_because(
        "building the package",
        "runs the compiler in a Debian root of its own",
    )?;
    setup::install(Purpose::Image)?;
    let release = Release::new(options.version.clone(), options.quick)?;
    let debian = options.release.clone().map_or_else(debian::host, Ok)?;
    let room = Room::open(&room::cache()?, &debian, release.epoch, options.quick)?;
    let deb = build(&room, &release)?;
    if options.check {
        trial::run(&room, &deb, release.epoch)?;
    }
    fs::create_dir_all(&options.out)?;
    let name = deb.file_name().context("the package has a name")?;
    let target = options.out.join(name);
    fs::copy(&deb, &target).with_context(|| format!("cannot write {}", target.display()))?;
    println!("{}", target.display());
    Ok(())
}

/// Compile and pack. Gives back the package, below the cache directory.
pub fn build(room: &Room, release: &Release) -> Result<PathBuf> {
    let binaries = compile(room)?;
    let dir = tree::fresh(&room.work("deb")?)?;
    let stage = dir.join("stage");
    for name in ["dunlind", "dunlin"] {
        let program = stage.join("usr/bin").join(name);
        tree::install(&binaries.join(name), &program, true)?;
        // Names of functions stay: a backtrace in the journal has to mean something.
        room.run("strip", &[&"--strip-debug", &room.inside(&program)?])?;
    }
    units(&stage)?;
    documents(&stage)?;
    control(room, release, &dir, &stage)?;
    let version = version(room, release)?;
    let deb = dir.join(format!("dunlin_{version}_amd64.deb"));
    room.run(
        "dpkg-deb",
        &[&"--root-owner-group", &"--build", &room.inside(&stage)?, &room.inside(&deb)?],
    )?;
    Ok(deb)
}

/// Compile the node with the host's toolchain against the room's libraries.
fn compile(room: &Room) -> Result<PathBuf> {
    // What the host's registry cache does not have yet is fetched first, outside.
    cargo::run(["fetch", "--locked", "--quiet"], [""; 0])?;
    let target = room.compiled();
    fs::create_dir_all(&target)?;
    let mut cargo = room.cargo(&target)?;
    cargo.args(["build", "--release", "--locked", "--offline", "--package", "dunlin", "--bins"]);
    cargo::status(&mut cargo)?;
    Ok(target.join("release"))
}

fn units(stage: &Path) -> Result<()> {
    let systemd = cargo::root().join("systemd");
    for name in tree::names(&systemd)? {
        let to = match name.strip_suffix(".sysusers.conf") {
            Some(stem) => format!("usr/lib/sysusers.d/{stem}.conf"),
            None => match name.strip_suffix(".tmpfiles.conf") {
                Some(stem) => format!("usr/lib/tmpfiles.d/{stem}.conf"),
                None => format!("usr/lib/systemd/system/{name}"),
            },
        };
        let (from, to) = (systemd.join(&name), stage.join(to));
        if from.is_dir() { copy_dir(&from, &to)? } else { tree::install(&from, &to, false)? }
    }
    Ok(())
}

/// Drop-ins: a directory of a unit.
fn copy_dir(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    tree::lay_over(from, to)
}

fn documents(stage: &Path) -> Result<()> {
    let (root, doc) = (cargo::root(), stage.join("usr/share/doc/dunlin"));
    for name in ["README.md", "CHANGELOG.md"] {
        tree::install(&root.join(name), &doc.join(name), false)?;
    }
    for name in tree::names(&root.join("docs"))? {
        let from = root.join("docs").join(&name);
        match from.extension().and_then(OsStr::to_str) {
            Some("md") => tree::install(&from, &doc.join(&name), false)?,
            Some("toml") => tree::install(&from, &doc.join("examples").join(&name), false)?,
            _ => {}
        }
    }
    tree::install(&root.join("LICENSE"), &doc.join("copyright"), false)
}

fn control(room: &Room, release: &Release, dir: &Path, stage: &Path) -> Result<()> {
    let fields = fs::read_to_string(cargo::root().join("images/deb/control"))?;
    let mut depends = libraries(room, dir)?;
    depends.extend(drivers(room)?);
    let fields = fields
        .replace("@VERSION@", &version(room, release)?)
        .replace("@DEPENDS@", &depends.join(", "))
        .replace("@SIZE@", &installed_size(stage)?.to_string());
    let meta = stage.join("DEBIAN");
    tree::write(&meta.join("control"), fields)?;
    for script in ["postinst", "prerm", "postrm"] {
        let from = cargo::root().join("images/deb").join(script);
        tree::install(&from, &meta.join(script), true)?;
    }
    // mkdir's mode followed the umask of whoever builds.
    fs::set_permissions(&meta, Permissions::from_mode(0o755))?;
    Ok(())
}

/// What dpkg-shlibdeps finds: the libraries' packages, as new as their symbols ask for.
fn libraries(room: &Room, dir: &Path) -> Result<Vec<String>> {
    // It wants to be in a source package.
    tree::write(
        &dir.join("debian/control"),
        "Source: dunlin\n\nPackage: dunlin\nArchitecture: any\n",
    )?;
    let mut command = room.command("/usr/bin/env");
    command.arg(format!("--chdir={}", room.inside(dir)?.display()));
    command.args(["dpkg-shlibdeps", "-O", "-estage/usr/bin/dunlind", "-estage/usr/bin/dunlin"]);
    let said = String::from_utf8(room::output(&mut command)?)?;
    let list =
        said.trim().strip_prefix("shlibs:Depends=").context("dpkg-shlibdeps says nothing")?;
    Ok(list.split(',').map(|word| word.trim().to_owned()).collect())
}

fn drivers(room: &Room) -> Result<Vec<String>> {
    let installed = crate::image::sbom::installed(room.root())?;
    let mut found = Vec::new();
    for driver in DRIVERS {
        let abi = |name: &str| {
            let rest = name.strip_prefix(driver).map(|rest| rest.trim_start_matches('-'));
            rest.is_some_and(|r| !r.is_empty() && r.bytes().all(|b| b.is_ascii_digit()))
        };
        match installed.iter().find(|package| abi(&package.name)) {
            Some(package) => found.push(package.name.clone()),
            None => bail!("the build root has no {driver}"),
        }
    }
    Ok(found)
}

/// `0.1.0+deb13`: the same source gives a package for each release.
fn version(room: &Room, release: &Release) -> Result<String> {
    let text = fs::read_to_string(room.root().join("etc/os-release"))?;
    let id = text.lines().find_map(|line| line.strip_prefix("VERSION_ID="));
    let id = id.context("the build root's os-release has no VERSION_ID")?.trim_matches('"');
    Ok(format!("{}+deb{id}", release.version))
}

/// KiB, as the field Installed-Size wants.
fn installed_size(dir: &Path) -> Result<u64> {
    let mut size = 0;
    for name in tree::names(dir)? {
        let path = dir.join(name);
        let meta = fs::symlink_metadata(&path)?;
        size += if meta.is_dir() { 1 + installed_size(&path)? } else { meta.len().div_ceil(1024) };
    }
    Ok(size)
}

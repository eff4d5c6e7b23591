//! `cargo xtask deb --check`: does the package install on a plain Debian, work, and leave without a trace?

use crate::image::room::{self, Room};
use crate::image::tree;
use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Install a package in a new Debian root of its release, look at it, remove it, purge it.
pub fn run(room: &Room, deb: &Path, epoch: u64) -> Result<()> {
    let plain = Plain { root: room.work("plain")? };
    room::bootstrap(
        &plain.root,
        room.release(),
        &["--variant=apt", "--dpkgopt=path-include=/usr/share/doc/dunlin/*"],
        &["systemd".into()],
        epoch,
        false,
    )?;
    let name = deb.file_name().context("the package has a name")?.to_string_lossy();
    fs::copy(deb, plain.root.join("tmp").join(name.as_ref()))?;

    plain.run(&["apt-get", "update", "--quiet=2"])?;
    let install = ["apt-get", "install", "--quiet=2", "--yes", "--no-install-recommends"];
    plain.run(&[&install[..], &[&format!("/tmp/{name}")]].concat())?;
    for program in ["dunlind", "dunlin"] {
        plain.run(&[program, "--version"])?;
    }
    plain.run(&["dunlind", "--check", "/usr/share/doc/dunlin/examples/example.toml"])?;
    let unit = |name: &String| name.starts_with("dunlin") && !name.contains(".d");
    let units = tree::names(&plain.root.join("usr/lib/systemd/system"))?;
    for unit in units.iter().filter(|name| unit(name)) {
        plain.run(&["systemd-analyze", "verify", &format!("/usr/lib/systemd/system/{unit}")])?;
    }
    plain.run(&["getent", "group", "dunlin"])?;
    ensure!(plain.root.join("etc/dunlin").is_dir(), "there is no /etc/dunlin");

    plain.run(&["apt-get", "remove", "--quiet=2", "--yes", "dunlin"])?;
    ensure!(!plain.root.join("usr/bin/dunlind").exists(), "removed, and dunlind is still there");
    ensure!(plain.root.join("etc/dunlin").is_dir(), "removed, not purged, and /etc/dunlin is gone");
    plain.run(&["dpkg", "--purge", "dunlin"])?;
    for path in ["etc/dunlin", "var/lib/dunlin", "usr/share/doc/dunlin"] {
        ensure!(!plain.root.join(path).exists(), "purged, and /{path} is still there");
    }
    println!("{name}: installs on a plain Debian, works, and leaves no trace");
    tree::remove(&plain.root)
}

/// A Debian root without the node's build tools.
struct Plain {
    root: PathBuf,
}

impl Plain {
    fn run(&self, args: &[&str]) -> Result<()> {
        let mut command = Command::new("chroot");
        command.arg(&self.root).args(args);
        command.env("DEBIAN_FRONTEND", "noninteractive").env("LC_ALL", "C.UTF-8");
        room::output(command.stdin(Stdio::null())).map(drop)
    }
}

//! The room the image is made in: a Debian root of the image's own release, with the compiler and all
//! tools, so that what comes out does not depend on the host's release.
//!
//! Commands run in it by chroot, with the source, the host's Rust toolchain and the work directory
//! bound below `/build`. The mounts live in a mount namespace of this process and end with it. It must
//! never change the host outside the cache directory.

use super::tree;
use crate::cargo;
use crate::debian::{self, KEYRING};
use anyhow::{Context, Result, bail};
use nix::fcntl::{Flock, FlockArg};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The Debian release of the image.
pub const RELEASE: &str = "trixie";

/// What the room needs from the host, and where it has it.
const SOURCE: &str = "/build/src";
const CACHE: &str = "/build/image";
const CARGO_HOME: &str = "/build/cargo";
const TOOLCHAIN: &str = "/build/rust";

#[derive(Debug)]
pub struct Room {
    root: PathBuf,
    release: String,
    cache: PathBuf,
    epoch: u64,
    /// One build at a time.
    _lock: Flock<File>,
}

/// Where rooms, and what is made in them, are kept between runs.
pub fn cache() -> Result<PathBuf> {
    Ok(cargo::target_dir()?.join("image"))
}

impl Room {
    /// Make the room below the cache directory, unless one is there that may be reused, and enter a
    /// mount namespace in which its commands can run. `epoch`: the time stamp of everything.
    ///
    /// In the image's own release it has what the image takes as well; in others, only what the node
    /// takes.
    pub fn open(cache: &Path, release: &str, epoch: u64, reuse: bool) -> Result<Self> {
        let root = cache.join(format!("room-{release}"));
        let images = cargo::root().join("images");
        let mut packages = tree::words(&images.join("build-node.txt"))?;
        if release == RELEASE {
            packages.extend(tree::words(&images.join("build-image.txt"))?);
        }
        fs::create_dir_all(cache)?;
        let lock = File::create(cache.join("lock"))?;
        let lock = Flock::lock(lock, FlockArg::LockExclusiveNonblock)
            .map_err(|(_, e)| e)
            .with_context(|| format!("another build uses {}", cache.display()))?;
        bootstrap(&root, release, &["--variant=minbase"], &packages, epoch, reuse)?;
        let cache = cache.to_owned();
        let room = Self { root, release: release.to_owned(), cache, epoch, _lock: lock };
        room.mount()?;
        Ok(room)
    }

    /// A place for something below the cache directory, apart for each release.
    pub fn work(&self, name: &str) -> Result<PathBuf> {
        let dir = work(&self.cache, &self.release);
        fs::create_dir_all(&dir)?;
        Ok(dir.join(name))
    }

    /// What cargo compiled.
    pub fn compiled(&self) -> PathBuf {
        compiled(&self.cache, &self.release)
    }

    /// The Debian release.
    pub fn release(&self) -> &str {
        &self.release
    }

    /// The room's own files.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The release of the kernel that is in the room.
    pub fn kernel(&self) -> Result<String> {
        let mut names = tree::names(&self.root.join("usr/lib/modules"))?;
        match (names.pop(), names.pop()) {
            (Some(name), None) => Ok(name),
            _ => bail!("the build room must have one kernel"),
        }
    }

    /// A command inside. Its paths must be those of [`Room::inside`].
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("chroot");
        command.arg(&self.root).arg(program);
        command.env_clear();
        command.env("PATH", format!("{TOOLCHAIN}/bin:/usr/bin:/usr/sbin:/bin:/sbin"));
        command.env("HOME", "/root").env("LC_ALL", "C.UTF-8").env("TZ", "UTC");
        command.env("SOURCE_DATE_EPOCH", self.epoch.to_string());
        // The clock of the file systems' own tools (FAT, ext4).
        command.env("E2FSPROGS_FAKE_TIME", self.epoch.to_string());
        command.stdin(Stdio::null());
        command
    }

    /// Run a command inside, quietly unless it fails.
    pub fn run(&self, program: &str, args: &[&dyn AsRef<OsStr>]) -> Result<Vec<u8>> {
        let mut command = self.command(program);
        for arg in args {
            command.arg(arg);
        }
        output(&mut command)
    }

    /// Cargo inside, with the host's toolchain and what the host's registry cache holds.
    pub fn cargo(&self, target: &Path) -> Result<Command> {
        let mut command = self.command("/usr/bin/env");
        command.arg(format!("--chdir={SOURCE}")).arg("cargo");
        command.env("CARGO_HOME", CARGO_HOME).env("CARGO_TARGET_DIR", self.inside(target)?);
        // Nothing compiled has a date in it, but a new date would have everything compiled anew.
        command.env_remove("SOURCE_DATE_EPOCH").env_remove("E2FSPROGS_FAKE_TIME");
        command.env("CARGO_ENCODED_RUSTFLAGS", remaps(&self.root.join(&CARGO_HOME[1..]))?);
        Ok(command)
    }

    /// How a file below the cache directory is called inside.
    pub fn inside(&self, path: &Path) -> Result<PathBuf> {
        let below = path.strip_prefix(&self.cache);
        let below = below.with_context(|| format!("{} is not in the cache", path.display()))?;
        Ok(Path::new(CACHE).join(below))
    }

    fn mount(&self) -> Result<()> {
        unshare(CloneFlags::CLONE_NEWNS).context("cannot make a mount namespace")?;
        let none: Option<&str> = None;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
            .context("cannot make mounts private")?;
        let toolchain = output(Command::new("rustc").args(["--print", "sysroot"]))?;
        let toolchain = PathBuf::from(String::from_utf8(toolchain)?.trim());
        let home = std::env::var_os("HOME").context("no HOME")?;
        let cargo_home = std::env::var_os("CARGO_HOME")
            .map_or_else(|| Path::new(&home).join(".cargo"), PathBuf::from);
        for (from, to, writable) in [
            (cargo::root(), SOURCE, false),
            (&toolchain, TOOLCHAIN, false),
            (&cargo_home, CARGO_HOME, true),
            (&self.cache, CACHE, true),
            (Path::new("/proc"), "/proc", true),
            (Path::new("/dev"), "/dev", true),
        ] {
            self.bind(from, to, writable)?;
        }
        Ok(())
    }

    /// Show a directory of the host to the room, until this process ends.
    pub fn bind(&self, from: &Path, to: &str, writable: bool) -> Result<()> {
        let none: Option<&str> = None;
        let at = self.root.join(to.trim_start_matches('/'));
        fs::create_dir_all(&at)?;
        let what = || format!("cannot bind {} to {}", from.display(), at.display());
        mount(Some(from), &at, none, MsFlags::MS_BIND, none).with_context(what)?;
        if !writable {
            let read_only = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
            mount(none, &at, none, read_only, none).with_context(what)?;
        }
        Ok(())
    }
}

fn work(cache: &Path, release: &str) -> PathBuf {
    cache.join(format!("work-{release}"))
}

/// What cargo compiled for a release in rooms of earlier runs.
pub fn compiled(cache: &Path, release: &str) -> PathBuf {
    work(cache, release).join("cargo")
}

/// Make a Debian root from the machine's own mirror: the packages named, what they depend on, and
/// the essential ones; no manual pages, translations or documentation. With `reuse`, one that was
/// made from the same list is kept as it is.
pub fn bootstrap(
    root: &Path,
    release: &str,
    options: &[&str],
    packages: &[String],
    epoch: u64,
    reuse: bool,
) -> Result<()> {
    let include = packages.join(",");
    let made_of = root.with_extension("packages");
    let key = format!("{release} {options:?} {epoch} {include}\n");
    // Another commit's time stamp changes nothing but dates, which the image sets anew anyway.
    let same = |old: String| without_epoch(&old) == without_epoch(&key);
    if reuse && root.exists() && fs::read_to_string(&made_of).is_ok_and(same) {
        return Ok(());
    }
    if made_of.exists() {
        fs::remove_file(&made_of)?;
    }
    refuse_mounts(root)?;
    tree::remove(root)?;
    let mut command = Command::new("mmdebstrap");
    command.args(["--quiet", "--mode=root", "--format=directory"]);
    for path in ["man", "doc", "info", "locale", "lintian", "bug"] {
        // Copyright files are shipped: the licences ask for it.
        command.arg(format!("--dpkgopt=path-exclude=/usr/share/{path}/*"));
    }
    command.arg("--dpkgopt=path-include=/usr/share/doc/*/copyright");
    // Last, so that they may take back what is left out.
    command.args(options);
    for option in debian::proxies()? {
        command.arg(format!("--aptopt={option}"));
    }
    command.arg(format!("--keyring={KEYRING}")).arg(format!("--include={include}"));
    // The kernel's own initrd is of no use to us.
    command.env("INITRD", "No").env("SOURCE_DATE_EPOCH", epoch.to_string());
    command.arg(release).arg(root).args(debian::mirror()?.sources(release));
    command.stdin(Stdio::null());
    cargo::status(&mut command)?;
    fs::write(&made_of, key)?;
    Ok(())
}

/// Flags that take the registry's name out of the paths in panic messages: it is a hash of how this
/// machine's cargo reaches the registry. In the shape of `CARGO_ENCODED_RUSTFLAGS`, which also keeps
/// flags of the builder's own cargo configuration out.
fn remaps(cargo_home: &Path) -> Result<String> {
    let src = cargo_home.join("registry/src");
    if !src.exists() {
        return Ok(String::new());
    }
    let flags = tree::names(&src)?
        .into_iter()
        .map(|name| format!("--remap-path-prefix={CARGO_HOME}/registry/src/{name}=/registry"));
    Ok(flags.collect::<Vec<_>>().join("\x1f"))
}

/// Removing a root through which the host shows would remove the host's files.
fn refuse_mounts(root: &Path) -> Result<()> {
    let below = format!(" {}/", root.display());
    if fs::read_to_string("/proc/self/mountinfo")?.contains(&below) {
        bail!("something is mounted below {}", root.display());
    }
    Ok(())
}

fn without_epoch(key: &str) -> Vec<&str> {
    key.split_whitespace().filter(|word| !word.bytes().all(|b| b.is_ascii_digit())).collect()
}

/// What a command prints. Fails with what it complained of.
pub fn output(command: &mut Command) -> Result<Vec<u8>> {
    let shown = cargo::shown(command);
    let output = command
        .stderr(Stdio::piped())
        .stdout(Stdio::piped())
        .output()
        .with_context(|| format!("cannot start {shown}"))?;
    if !output.status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr);
        let said = String::from_utf8_lossy(&output.stdout);
        bail!("{shown}: {}\n{}{}", output.status, said.trim_end(), complaint.trim_end());
    }
    Ok(output.stdout)
}

//! The machine as the appliance's commands see it: files below a root directory, and programs.
//!
//! Everything that these commands read, write or run goes through [`Host`], so that tests give them
//! a directory with a made-up `/sys` and note the programs instead of running them.

use anyhow::{Context, Result, bail};
use std::fmt::Debug;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Largest file that [`Root::read`] takes: configuration, sysfs, key files.
const MAX_FILE: u64 = 16 << 20;

/// The directory that all paths are below: `/`, or a test's.
#[derive(Debug, Clone)]
pub struct Root(PathBuf);

impl Root {
    /// The machine itself.
    pub fn system() -> Self {
        Self(PathBuf::from("/"))
    }

    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// `path` below the root, whether it is written with a leading slash or without.
    pub fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        self.0.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// The text of a file, without white space around it. `None`: there is none, or it cannot be
    /// read (sysfs attributes may refuse), or it is not text, or absurdly large.
    pub fn read(&self, path: impl AsRef<Path>) -> Option<String> {
        let bytes = self.read_bytes(path).ok()?;
        Some(String::from_utf8(bytes).ok()?.trim().to_owned())
    }

    /// The number in a file.
    pub fn number<T: std::str::FromStr>(&self, path: impl AsRef<Path>) -> Option<T> {
        self.read(path)?.parse().ok()
    }

    /// At most 16 MiB, else an error.
    pub fn read_bytes(&self, path: impl AsRef<Path>) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        File::open(self.path(path))?.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > MAX_FILE {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "larger than 16 MiB"));
        }
        Ok(bytes)
    }

    pub fn exists(&self, path: impl AsRef<Path>) -> bool {
        self.path(path).exists()
    }

    /// Names in a directory, sorted. Empty if there is none.
    pub fn list(&self, path: impl AsRef<Path>) -> Vec<String> {
        let entries = fs::read_dir(self.path(path)).into_iter().flatten().flatten();
        let mut names: Vec<String> =
            entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort();
        names
    }

    /// The last component of where a symbolic link leads.
    pub fn link(&self, path: impl AsRef<Path>) -> Option<String> {
        let target = fs::read_link(self.path(path)).ok()?;
        Some(target.file_name()?.to_str()?.to_owned())
    }

    /// Write to an attribute of the kernel's: in place, in one write.
    pub fn poke(&self, path: impl AsRef<Path>, value: &str) -> io::Result<()> {
        let file = OpenOptions::new().write(true).truncate(true).open(self.path(path));
        file?.write_all(value.as_bytes())
    }

    /// Replace a file as a whole, durably: after a power cut it is the old one or the new one.
    /// Makes its directory (mode 0755) if there is none.
    pub fn replace(&self, path: impl AsRef<Path>, content: &[u8], mode: u32) -> Result<()> {
        let path = self.path(path);
        let named = || path.display().to_string();
        let directory = path.parent().with_context(named)?;
        fs::create_dir_all(directory).with_context(|| directory.display().to_string())?;
        let mut fresh = path.clone().into_os_string();
        fresh.push(".new");
        let fresh = PathBuf::from(fresh);
        // A leftover of an interrupted attempt may have another mode.
        match fs::remove_file(&fresh) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).with_context(|| fresh.display().to_string());
            }
            _ => {}
        }
        let write = || -> io::Result<()> {
            let mut file =
                OpenOptions::new().write(true).create_new(true).mode(mode).open(&fresh)?;
            // Exactly: whoever reads it may be somebody else, and the umask is not ours to know.
            file.set_permissions(Permissions::from_mode(mode))?;
            file.write_all(content)?;
            file.sync_all()?;
            fs::rename(&fresh, &path)?;
            File::open(directory)?.sync_all()
        };
        write().with_context(named)
    }

    /// The system that the image boots, not a plain installation.
    pub fn is_appliance(&self) -> bool {
        self.exists("usr/lib/dunlin/release")
    }

    /// The value of `key=` on the kernel's command line (the last one counts), or `""` for a bare word.
    pub fn kernel_argument(&self, key: &str) -> Option<String> {
        let line = self.read("proc/cmdline")?;
        line.split_ascii_whitespace().rev().find_map(|word| match word.split_once('=') {
            Some((name, value)) => (name == key).then(|| value.to_owned()),
            None => (word == key).then(String::new),
        })
    }
}

/// Runs programs.
pub trait Run: Debug {
    /// Run to its end; its standard output. Errors: it cannot be started, or does not exit with 0
    /// (with what it said on standard error).
    fn run(&self, program: &str, arguments: &[&str]) -> Result<String>;
}

/// The machine's own programs.
#[derive(Debug, Clone, Copy)]
pub struct Programs;

impl Run for Programs {
    fn run(&self, program: &str, arguments: &[&str]) -> Result<String> {
        let output = Command::new(program)
            .args(arguments)
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("cannot run {program}"))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            let said = said.trim();
            bail!("{program} {}: {} ({})", arguments.join(" "), said, output.status);
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// Files and programs together.
#[derive(Debug)]
pub struct Host {
    pub root: Root,
    run: Box<dyn Run>,
}

impl Host {
    pub fn system() -> Self {
        Self { root: Root::system(), run: Box::new(Programs) }
    }

    pub fn new(root: Root, run: Box<dyn Run>) -> Self {
        Self { root, run }
    }

    pub fn run(&self, program: &str, arguments: &[&str]) -> Result<String> {
        self.run.run(program, arguments)
    }
}

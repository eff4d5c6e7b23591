//! One lab: a prefix for its namespaces, a directory for its files, and the certainty that both
//! go away.
//!
//! In: a name. Out: namespaces (see [`crate::netns`]) called `PREFIX-NAME`, unique to this
//! instance, so that many labs run side by side. A small shell process, the janitor, waits on a
//! pipe from the owner; when the pipe closes, because the lab was dropped or because its owner
//! was killed, it ends the processes in the lab's namespaces and removes them. Nothing here ever
//! touches a process or a namespace that no lab made.

use crate::netns::Netns;
use anyhow::{Context, Result, bail, ensure};
use nix::unistd::geteuid;
use std::fs;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Where labs keep sockets, configuration and logs. Every parent is mode 755, because FRR and
/// BIRD drop to their own users; short, because it carries Unix sockets.
pub const ROOT: &str = "/run/dunlin-lab";

/// Set in the environment: leave the logs of every lab behind, whatever becomes of it.
pub const KEEP_LOGS: &str = "DUNLIN_LAB_LOGS";

const JANITOR: &str = include_str!("janitor.sh");

/// A lab, alive until the last clone of this handle (every [`Netns`] holds one) is dropped.
#[derive(Debug, Clone)]
pub struct Lab {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    prefix: String,
    dir: PathBuf,
    janitor: Mutex<Option<Child>>,
    kept: AtomicBool,
}

impl Lab {
    /// A new, empty lab. Fails with an explanation when not root or without `ip`.
    pub fn new() -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        ensure!(geteuid().is_root(), "the lab needs root: it makes network namespaces");
        let pid = std::process::id();
        let prefix = match COUNT.fetch_add(1, Ordering::Relaxed) {
            0 => format!("dl{pid}"),
            n => format!("dl{pid}x{n}"),
        };
        let dir = Path::new(ROOT).join(&prefix);
        if dir.exists() {
            // A dead lab whose process id came round again.
            sweep(&prefix)?;
            fs::remove_dir_all(&dir).or_else(ignore_missing)?;
        }
        fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        fs::write(dir.join("owner"), Owner::current()?.to_string())?;
        let janitor = janitor(&prefix, &dir, Stdio::piped())?;
        Ok(Self {
            inner: Arc::new(Inner {
                prefix,
                dir,
                janitor: Mutex::new(Some(janitor)),
                kept: AtomicBool::new(false),
            }),
        })
    }

    /// What every namespace name of this lab starts with, `dl<pid>`.
    pub fn prefix(&self) -> &str {
        &self.inner.prefix
    }

    /// A fresh directory of the lab for `name`'s files.
    pub fn dir(&self, name: &str) -> Result<PathBuf> {
        let dir = self.inner.dir.join(name);
        fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        Ok(dir)
    }

    /// A new namespace `PREFIX-NAME`, its loopback up.
    pub fn netns(&self, name: &str) -> Result<Netns> {
        Netns::create(self.clone(), name)
    }

    /// Leave logs and configuration behind for people when the lab goes. Returns where.
    pub fn keep_logs(&self) -> Result<PathBuf> {
        fs::write(self.inner.dir.join("keep-logs"), "")?;
        Ok(self.inner.dir.clone())
    }

    /// Leave everything up when this process ends: namespaces, processes, files. The caller must
    /// `std::mem::forget` what it holds of the lab. `cargo xtask lab down` removes it.
    pub fn keep(&self) -> Result<()> {
        let mut janitor = self.lock_janitor();
        let child = janitor.as_mut().context("the lab is already gone")?;
        fs::write(self.inner.dir.join("kept"), "")?;
        let pipe = child.stdin.as_mut().context("the janitor has no pipe")?;
        pipe.write_all(b"keep\n")?;
        child.wait()?;
        *janitor = None;
        self.inner.kept.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn lock_janitor(&self) -> std::sync::MutexGuard<'_, Option<Child>> {
        self.inner.janitor.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if self.kept.load(Ordering::Relaxed) {
            return;
        }
        if std::thread::panicking() || std::env::var_os(KEEP_LOGS).is_some() {
            let _ = fs::write(self.dir.join("keep-logs"), "");
            eprintln!("lab: logs are in {}", self.dir.display());
        }
        let janitor = self.janitor.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(mut child) = janitor.take() {
            drop(child.stdin.take());
            let _ = child.wait();
        }
    }
}

/// A lab found on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    pub prefix: String,
    pub dir: PathBuf,
    pub state: State,
}

/// What became of a lab.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Its owner is running.
    Running,
    /// Left up on purpose.
    Kept,
    /// Its owner died and something of it remains.
    Dead,
    /// Only logs of a failed run are left.
    Logs,
}

/// Every lab on this machine, by its record under [`ROOT`].
pub fn list() -> Result<Vec<Found>> {
    let mut found = Vec::new();
    let entries = match fs::read_dir(ROOT) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(found),
        Err(e) => return Err(e).with_context(|| format!("cannot read {ROOT}")),
    };
    for entry in entries {
        let dir = entry?.path();
        let Some(prefix) = dir.file_name().and_then(|n| n.to_str()) else {
            continue;
        };
        if !is_prefix(prefix) {
            continue;
        }
        let owner = fs::read_to_string(dir.join("owner")).ok();
        let state = if dir.join("kept").exists() {
            State::Kept
        } else {
            match owner.as_deref().and_then(Owner::parse) {
                Some(owner) if owner.alive() => State::Running,
                None if dir.join("keep-logs").exists() => State::Logs,
                _ => State::Dead,
            }
        };
        found.push(Found { prefix: prefix.to_owned(), dir: dir.clone(), state });
    }
    found.sort_by(|a, b| a.prefix.cmp(&b.prefix));
    Ok(found)
}

/// Remove a lab that no running process owns: its processes, namespaces and files.
pub fn remove(lab: &Found) -> Result<()> {
    ensure!(lab.state != State::Running, "{} is in use by a running process", lab.prefix);
    sweep(&lab.prefix)?;
    fs::remove_dir_all(&lab.dir).or_else(ignore_missing)?;
    Ok(())
}

fn sweep(prefix: &str) -> Result<()> {
    ensure!(is_prefix(prefix), "{prefix:?} is not the prefix of a lab");
    let dir = Path::new(ROOT).join(prefix);
    let status = janitor(prefix, &dir, Stdio::null())?.wait()?;
    if !status.success() {
        bail!("removing lab {prefix} failed: {status}");
    }
    Ok(())
}

fn janitor(prefix: &str, dir: &Path, stdin: Stdio) -> Result<Child> {
    Command::new("sh")
        .args(["-c", JANITOR, "lab-janitor", prefix])
        .arg(dir)
        .stdin(stdin)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        // Ctrl-C is for the owner; the janitor acts when the owner has gone.
        .process_group(0)
        .spawn()
        .context("cannot start sh")
}

/// `dl<digits>` or `dl<digits>x<digits>`: nothing else is ever swept.
fn is_prefix(name: &str) -> bool {
    let Some(rest) = name.strip_prefix("dl") else {
        return false;
    };
    let number = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    match rest.split_once('x') {
        Some((pid, count)) => number(pid) && number(count),
        None => number(rest),
    }
}

fn ignore_missing(e: std::io::Error) -> std::io::Result<()> {
    if e.kind() == std::io::ErrorKind::NotFound { Ok(()) } else { Err(e) }
}

/// A process, told apart from a later one with the same id by its start time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Owner {
    pid: u32,
    /// Clock ticks after boot: field 22 of `/proc/PID/stat`.
    started: u64,
}

impl Owner {
    fn current() -> Result<Self> {
        let pid = std::process::id();
        let started = start_time(pid).context("cannot read this process's start time")?;
        Ok(Self { pid, started })
    }

    fn parse(text: &str) -> Option<Self> {
        let (pid, started) = text.trim().split_once(' ')?;
        Some(Self { pid: pid.parse().ok()?, started: started.parse().ok()? })
    }

    fn alive(self) -> bool {
        start_time(self.pid) == Some(self.started)
    }
}

impl std::fmt::Display for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{} {}", self.pid, self.started)
    }
}

fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command name may contain anything; fields are counted after its last parenthesis.
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_lab_prefixes_are_swept() {
        for good in ["dl1", "dl4711", "dl4711x2"] {
            assert!(is_prefix(good), "{good}");
        }
        for bad in ["", "dl", "dlx1", "dl1x", "dl1-tor", "kni-p", "../dl1", "dl1 *"] {
            assert!(!is_prefix(bad), "{bad}");
        }
    }

    #[test]
    fn an_owner_is_alive_until_its_id_is_reused() {
        let me = Owner::current().unwrap();
        assert_eq!(Owner::parse(&me.to_string()), Some(me));
        assert!(me.alive());
        let earlier = Owner { started: me.started.wrapping_sub(1), ..me };
        assert!(!earlier.alive());
    }
}

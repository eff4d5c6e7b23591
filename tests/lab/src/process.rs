//! A child process that cannot be forgotten: stopped when dropped, its output in a log file.

use crate::wait::{wait_for, wait_until};
use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

/// How long a process may take to end when asked.
const PATIENCE: Duration = Duration::from_secs(3);

/// A running child. Dropping it asks it to end (SIGTERM), then makes it (SIGKILL).
#[derive(Debug)]
pub struct Process {
    name: String,
    log: PathBuf,
    child: Child,
    ended: Option<ExitStatus>,
}

impl Process {
    pub(crate) fn spawn(name: &str, dir: &Path, command: &mut Command) -> Result<Self> {
        let log = dir.join(format!("{name}.log"));
        let file = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .with_context(|| format!("cannot write {}", log.display()))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            // Ctrl-C reaches only the owner, so that everything is taken down in order.
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        Ok(Self { name: name.to_owned(), log, child, ended: None })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32)
    }

    /// The log file of its standard output and error.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// The last lines of its log, for messages.
    pub fn log_tail(&self, lines: usize) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let all: Vec<&str> = text.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }

    /// How it ended, or `None` while it runs.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().ok().flatten();
        }
        self.ended
    }

    /// An error, with its last words, unless it is running.
    pub fn check(&mut self) -> Result<()> {
        match self.ended() {
            None => Ok(()),
            Some(status) => {
                Err(anyhow::anyhow!("{} ended ({status}):\n{}", self.name, self.log_tail(15)))
            }
        }
    }

    /// Wait until `ready`, or fail at once if it ends before.
    pub fn wait_ready(
        &mut self,
        timeout: Duration,
        mut ready: impl FnMut() -> Result<()>,
    ) -> Result<()> {
        let name = self.name.clone();
        let mut ended = None;
        let waited = wait_for(&name, timeout, || {
            if let Err(e) = self.check() {
                // Waiting longer will not help.
                ended = Some(e);
                return Ok(());
            }
            ready()
        });
        match ended {
            Some(e) => Err(e),
            None => waited.with_context(|| format!("its last words:\n{}", self.log_tail(15))),
        }
    }

    /// Send a signal. Does nothing once it has ended: the id may be another's by then.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        if self.ended().is_some() {
            return Ok(());
        }
        kill(self.pid(), signal).with_context(|| format!("cannot send {signal} to {}", self.name))
    }

    /// SIGKILL, and wait until it is gone.
    pub fn kill(&mut self) -> Result<()> {
        self.signal(Signal::SIGKILL)?;
        if self.ended.is_none() {
            self.ended = Some(self.child.wait()?);
        }
        Ok(())
    }

    /// SIGTERM, wait, and SIGKILL only if it does not end. Returns how it ended.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        self.signal(Signal::SIGTERM)?;
        // A stopped process takes no SIGTERM.
        self.signal(Signal::SIGCONT)?;
        let ended = wait_until(&self.name.clone(), PATIENCE, || self.ended().is_some());
        if ended.is_err() {
            self.kill()?;
        }
        self.ended().with_context(|| format!("{} does not end", self.name))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.stop();
    }
}

//! Commands on a machine, by ssh from a namespace.

use crate::netns::{Netns, run};
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// A key pair made for one test.
#[derive(Debug, Clone)]
pub struct Key {
    private: PathBuf,
    /// The line for `authorized_keys`.
    pub public: String,
}

impl Key {
    /// A new Ed25519 key in `dir`.
    pub fn new(dir: &Path) -> Result<Self> {
        let private = dir.join("id_ed25519");
        let mut keygen = Command::new("ssh-keygen");
        keygen.args(["-q", "-t", "ed25519", "-N", "", "-C", "lab", "-f"]).arg(&private);
        run(&mut keygen).context("ssh-keygen (package openssh-client)")?;
        let public = fs::read_to_string(private.with_extension("pub"))?;
        Ok(Self { private, public })
    }
}

/// A way to a machine: who, where, from where.
#[derive(Debug, Clone)]
pub struct Ssh {
    pub ns: Netns,
    pub key: Key,
    /// `root@10.3.0.11`.
    pub target: String,
}

impl Ssh {
    /// Run to its end; standard output, or an error with what it said.
    pub fn run(&self, command: &str) -> Result<String> {
        let out = self.output(command)?;
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        if !out.status.success() {
            let error = String::from_utf8_lossy(&out.stderr);
            bail!("{}: {command}: {}\n{text}{}", self.target, out.status, error.trim());
        }
        Ok(text)
    }

    /// Run to its end, whatever that is.
    pub fn output(&self, command: &str) -> Result<Output> {
        let output = self.command().arg(command).stdin(Stdio::null()).output();
        output.context("cannot start ssh (package openssh-client)")
    }

    /// `ssh …`, to which the remote command is added.
    pub fn command(&self) -> Command {
        let mut ssh = self.ns.command("ssh");
        ssh.arg("-i").arg(&self.key.private);
        for option in [
            "BatchMode=yes",
            "IdentitiesOnly=yes",
            // The host key was made at first boot; nobody could have told us.
            "StrictHostKeyChecking=no",
            "UserKnownHostsFile=/dev/null",
            "GlobalKnownHostsFile=/dev/null",
            "LogLevel=ERROR",
            "ConnectTimeout=10",
            // A machine whose power was cut must not hang its caller.
            "ServerAliveInterval=5",
            "ServerAliveCountMax=4",
        ] {
            ssh.args(["-o", option]);
        }
        ssh.arg(&self.target);
        ssh
    }
}

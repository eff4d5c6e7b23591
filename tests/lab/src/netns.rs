//! A network namespace of a lab, and what is plugged into it.
//!
//! Commands run through `ip netns exec`, so that `/sys` is the namespace's own as well; sockets
//! are made on threads that entered the namespace. Names inside a namespace are plain (`eth0`):
//! only the namespace's own name carries the lab's prefix.

use crate::lab::Lab;
use crate::process::Process;
use anyhow::{Context, Result, bail};
use nix::sched::{CloneFlags, setns};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;
use std::thread::JoinHandle;

/// A namespace. Clones are the same namespace; it lives as long as its lab.
#[derive(Debug, Clone)]
pub struct Netns {
    lab: Lab,
    name: String,
    full: String,
}

impl Netns {
    pub(crate) fn create(lab: Lab, name: &str) -> Result<Self> {
        let full = format!("{}-{name}", lab.prefix());
        run(Command::new("ip").args(["netns", "add", &full]))?;
        let ns = Self { lab, name: name.to_owned(), full };
        // Addresses are usable at once, and nothing speaks unless the lab says so.
        for default in ["all", "default"] {
            ns.sysctl(&format!("net.ipv6.conf.{default}.accept_dad"), "0")?;
            ns.sysctl(&format!("net.ipv6.conf.{default}.accept_ra"), "0")?;
            ns.sysctl(&format!("net.ipv6.conf.{default}.router_solicitations"), "0")?;
        }
        ns.ip("link set lo up")?;
        Ok(ns)
    }

    /// The name inside the lab: `tor`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The name `ip netns` knows: `dl4711-tor`.
    pub fn full_name(&self) -> &str {
        &self.full
    }

    pub fn lab(&self) -> &Lab {
        &self.lab
    }

    /// Where the kernel shows this namespace.
    pub fn path(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.full)
    }

    /// A directory for this host's files.
    pub fn dir(&self) -> Result<PathBuf> {
        self.lab.dir(&self.name)
    }

    /// Run iproute2 commands, one a line, as one batch: `link set lo up`. Stops at the first error.
    pub fn ip(&self, lines: &str) -> Result<()> {
        let mut child = Command::new("ip")
            .args(["-n", &self.full, "-batch", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot start ip (package iproute2)")?;
        if let Some(mut stdin) = child.stdin.take() {
            // A program that ends early says why on stderr; a broken pipe does not.
            let _ = stdin.write_all(format!("{lines}\n").as_bytes());
        }
        let out = child.wait_with_output()?;
        if !out.status.success() {
            let text = String::from_utf8_lossy(&out.stderr);
            bail!("ip in {}: {}\n{lines}", self.name, text.trim());
        }
        Ok(())
    }

    /// `ip -n NS -j ARGS`, parsed.
    pub fn ip_json(&self, args: &[&str]) -> Result<serde_json::Value> {
        let out = run(Command::new("ip").args(["-n", &self.full, "-j"]).args(args))?;
        if out.trim().is_empty() {
            return Ok(serde_json::Value::Array(Vec::new()));
        }
        serde_json::from_str(&out).with_context(|| format!("ip -j {}: {out}", args.join(" ")))
    }

    /// Set a sysctl by its dotted name, `net.ipv4.ip_forward`.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        let path = Path::new("/proc/sys").join(key.replace('.', "/"));
        self.enter(|| fs::write(&path, value))?
            .with_context(|| format!("sysctl {key}={value} in {}", self.name))
    }

    /// Load an nftables ruleset.
    pub fn nft(&self, rules: &str) -> Result<()> {
        let mut child = self
            .command("nft")
            .args(["-f", "-"])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot start nft (package nftables)")?;
        if let Some(mut stdin) = child.stdin.take() {
            let _ = stdin.write_all(rules.as_bytes());
        }
        let out = child.wait_with_output()?;
        if !out.status.success() {
            let text = String::from_utf8_lossy(&out.stderr);
            bail!("nft in {}: {}", self.name, text.trim());
        }
        Ok(())
    }

    /// Packets leave `interface` as on a wire: whole, no larger than the MTU, checksums filled in.
    pub fn no_offload(&self, interface: &str) -> Result<()> {
        let mut ethtool = self.command("ethtool");
        ethtool.args(["-K", interface, "tx", "off", "tso", "off"]);
        ethtool.args(["gso", "off", "gro", "off"]);
        run(&mut ethtool).map(drop)
    }

    /// A command that will run in the namespace. `ip netns exec` replaces itself by it, so the
    /// child's process id is the program's own.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.full]).arg(program);
        command
    }

    /// Like [`Self::command`], before others on a busy machine: for what answers to timers of
    /// milliseconds. It is what `systemd/dunlin.service` gives a node.
    pub fn urgent_command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = self.command("nice");
        command.args(["-n", "-10"]).arg(program);
        command
    }

    /// Run to its end; standard output, or an error with what it said.
    pub fn run(&self, program: &str, args: &[&str]) -> Result<String> {
        run(self.command(program).args(args))
    }

    /// Start a process that lives until it is stopped or dropped; its output goes to
    /// `DIR/NAME.log`.
    pub fn spawn(&self, name: &str, command: &mut Command) -> Result<Process> {
        Process::spawn(name, &self.dir()?, command)
    }

    /// Start a thread that lives inside the namespace. Sockets it makes stay there.
    pub fn thread<T: Send + 'static>(
        &self,
        name: &str,
        f: impl FnOnce() -> T + Send + 'static,
    ) -> Result<JoinHandle<T>> {
        let ns = File::open(self.path()).with_context(|| format!("namespace {}", self.full))?;
        let (report, entered) = channel();
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .stack_size(256 * 1024)
            .spawn(move || {
                let result = setns(ns, CloneFlags::CLONE_NEWNET);
                let failed = result.is_err();
                let _ = report.send(result);
                // Never in the wrong network: the caller has the error and drops the handle.
                assert!(!failed, "cannot enter the namespace");
                f()
            })?;
        entered
            .recv()
            .context("the thread ended")?
            .with_context(|| format!("cannot enter {}", self.full))?;
        Ok(thread)
    }

    /// Run `f` on a thread inside the namespace and wait for it. Sockets it makes stay there.
    pub fn enter<T: Send>(&self, f: impl FnOnce() -> T + Send) -> Result<T> {
        let ns = File::open(self.path()).with_context(|| format!("namespace {}", self.full))?;
        std::thread::scope(|scope| {
            scope
                .spawn(|| -> Result<T> {
                    setns(&ns, CloneFlags::CLONE_NEWNET)
                        .with_context(|| format!("cannot enter {}", self.full))?;
                    Ok(f())
                })
                .join()
                .map_err(|_| anyhow::anyhow!("a thread in {} panicked", self.full))?
        })
    }
}

/// A cable: a veth pair between two hosts, both ends up, without offloads.
pub fn cable(a: &Netns, a_name: &str, b: &Netns, b_name: &str) -> Result<()> {
    a.ip(&format!("link add {a_name} type veth peer name {b_name} netns {}", b.full_name()))?;
    for (ns, name) in [(a, a_name), (b, b_name)] {
        ns.no_offload(name)?;
        ns.ip(&format!("link set {name} up"))?;
    }
    Ok(())
}

/// Run a command to its end and return its standard output.
pub(crate) fn run(command: &mut Command) -> Result<String> {
    let out = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start {command:?}"))?;
    if !out.status.success() {
        let error = String::from_utf8_lossy(&out.stderr);
        let output = String::from_utf8_lossy(&out.stdout);
        bail!("{command:?}: {}\n{}{}", out.status, output, error.trim());
    }
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

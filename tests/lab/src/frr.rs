//! FRR in a namespace: the daemons asked for, one directory for all their files, questions
//! answered as JSON.

use crate::netns::{Netns, run};
use crate::process::Process;
use crate::wait::wait_for;
use anyhow::{Context, Result, bail};
use nix::unistd::{User, chown};
use serde_json::Value;
use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Where Debian puts the daemons.
const DAEMONS: &str = "/usr/lib/frr";

/// Running FRR daemons. Dropping them stops them, routing daemons first.
#[derive(Debug)]
pub struct Frr {
    daemons: Vec<Process>,
    dir: PathBuf,
}

impl Frr {
    /// Start `daemons` (`bgpd`, `bfdd`, `ospfd`, …; `zebra` is always there) and load `config`.
    pub fn start(ns: &Netns, daemons: &[&str], config: &str) -> Result<Self> {
        let dir = ns.lab().dir(&format!("{}/frr", ns.name()))?;
        give(&dir, "frr")?;
        fs::write(dir.join("frr.conf"), config)?;
        fs::write(dir.join("vtysh.conf"), "")?;
        let mut frr = Self { daemons: Vec::new(), dir };
        for name in std::iter::once("zebra").chain(daemons.iter().copied()) {
            let process = frr.daemon(ns, name)?;
            // Routing daemons stop before zebra, which then still removes their routes.
            frr.daemons.insert(0, process);
        }
        frr.apply(config)?;
        Ok(frr)
    }

    /// Load further configuration lines into the running daemons, as typed after
    /// `configure terminal`. Comments (`!`, `#`) and empty lines are allowed.
    ///
    /// Not `vtysh -b`: bgpd holds all neighbours back for seconds after that.
    pub fn apply(&self, config: &str) -> Result<()> {
        let lines = config.lines().filter(|l| !l.trim().is_empty());
        let lines: Vec<&str> = lines.filter(|l| !l.starts_with(['!', '#'])).collect();
        self.configure(&lines)
    }

    /// Run configuration commands in order.
    pub fn configure(&self, commands: &[&str]) -> Result<()> {
        let mut vtysh = self.vtysh();
        vtysh.args(["-c", "configure terminal"]);
        for command in commands {
            vtysh.args(["-c", command]);
        }
        let out = run(&mut vtysh)?;
        // A refused line starts with % and the next ones still run.
        if let Some(line) = out.lines().find(|l| l.trim_start().starts_with('%')) {
            bail!("FRR refused its configuration: {line}\n{out}");
        }
        Ok(())
    }

    /// A command's text.
    pub fn show(&self, command: &str) -> Result<String> {
        run(self.vtysh().args(["-c", command]))
    }

    /// A command's JSON: `show bgp summary json`.
    pub fn json(&self, command: &str) -> Result<Value> {
        let out = self.show(command)?;
        serde_json::from_str(&out).with_context(|| format!("{command}: {out}"))
    }

    /// The state of a BGP neighbour, `Established`. Empty when there is no such neighbour.
    pub fn bgp_state(&self, neighbor: &str) -> Result<String> {
        let all = self.json(&format!("show bgp neighbors {neighbor} json"))?;
        let state = all.get(neighbor).and_then(|n| n["bgpState"].as_str());
        Ok(state.unwrap_or_default().to_owned())
    }

    /// The status of a BFD peer, `up`. Empty when there is no such peer.
    pub fn bfd_state(&self, peer: &str) -> Result<String> {
        let peers = self.json("show bfd peers json")?;
        let mut peers = peers.as_array().into_iter().flatten();
        let found = peers.find(|p| p["peer"].as_str() == Some(peer));
        let status = found.and_then(|p| p["status"].as_str());
        Ok(status.unwrap_or_default().to_owned())
    }

    /// Wait until a BGP session is Established.
    pub fn wait_established(&self, neighbor: &str, timeout: Duration) -> Result<()> {
        wait_for(&format!("BGP with {neighbor}"), timeout, || {
            match self.bgp_state(neighbor)?.as_str() {
                "Established" => Ok(()),
                other => bail!("{other}"),
            }
        })
    }

    /// One of the daemons, to stop or to look at.
    pub fn process(&mut self, daemon: &str) -> Option<&mut Process> {
        self.daemons.iter_mut().find(|p| p.name() == daemon)
    }

    /// Kill one daemon, as a crash would, and start it again with the configuration from the start.
    pub fn restart(&mut self, ns: &Netns, name: &str) -> Result<()> {
        let process = self.process(name).with_context(|| format!("{name} was not started"))?;
        process.kill()?;
        let config = fs::read_to_string(self.dir.join("frr.conf"))?;
        let fresh = self.daemon(ns, name)?;
        if let Some(process) = self.process(name) {
            *process = fresh;
        }
        self.apply(&config)
    }

    /// The directory of its sockets, logs and configuration.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// How a person talks to it.
    pub fn vtysh_line(&self) -> String {
        let dir = self.dir.display();
        format!("vtysh --vty_socket {dir} --config_dir {dir}")
    }

    fn vtysh(&self) -> Command {
        let mut vtysh = Command::new("vtysh");
        vtysh.arg("--vty_socket").arg(&self.dir);
        vtysh.arg("--config_dir").arg(&self.dir);
        vtysh
    }

    fn daemon(&self, ns: &Netns, name: &str) -> Result<Process> {
        let file = |suffix: &str| self.dir.join(format!("{name}{suffix}"));
        // Empty: vtysh loads the one configuration into all of them.
        fs::write(file(".conf"), "")?;
        let mut command = ns.urgent_command(Path::new(DAEMONS).join(name));
        command.arg("-f").arg(file(".conf"));
        command.arg("-i").arg(file(".pid"));
        command.arg("-z").arg(self.dir.join("zserv.api"));
        command.arg("--vty_socket").arg(&self.dir);
        command.args(["-A", "127.0.0.1"]);
        command.arg("--log").arg(format!("file:{}", file(".daemon.log").display()));
        // Gone in FRR 10; before that, every bfdd wants the same path unless told otherwise.
        if name == "bfdd" && help(name)?.contains("--bfdctl") {
            command.arg("--bfdctl").arg(self.dir.join("bfdd.sock"));
        }
        let mut process = Process::spawn(name, &self.dir, &mut command)?;
        let socket = file(".vty");
        process.wait_ready(Duration::from_secs(10), || {
            UnixStream::connect(&socket)?;
            Ok(())
        })?;
        Ok(process)
    }
}

/// What a daemon says of its options.
fn help(daemon: &str) -> Result<String> {
    run(Command::new(Path::new(DAEMONS).join(daemon)).arg("--help"))
}

/// Give a directory to the user a daemon drops to.
pub(crate) fn give(dir: &Path, user: &str) -> Result<()> {
    let owner =
        User::from_name(user)?.with_context(|| format!("no user {user}: is it installed?"))?;
    chown(dir, Some(owner.uid), Some(owner.gid))?;
    Ok(())
}

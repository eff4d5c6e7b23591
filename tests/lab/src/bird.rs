//! BIRD in a namespace.

use crate::frr::give;
use crate::netns::{Netns, run};
use crate::process::Process;
use anyhow::{Result, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// A running BIRD. Dropping it stops it.
#[derive(Debug)]
pub struct Bird {
    process: Process,
    dir: PathBuf,
}

impl Bird {
    /// Start it with `config`.
    pub fn start(ns: &Netns, config: &str) -> Result<Self> {
        let dir = ns.lab().dir(&format!("{}/bird", ns.name()))?;
        give(&dir, "bird")?;
        fs::write(dir.join("bird.conf"), logged(config))?;
        let mut command = ns.urgent_command("bird");
        command.arg("-f").arg("-c").arg(dir.join("bird.conf"));
        command.arg("-s").arg(dir.join("bird.ctl"));
        command.args(["-u", "bird", "-g", "bird"]);
        let mut process = Process::spawn("bird", &dir, &mut command)?;
        process.wait_ready(Duration::from_secs(10), || birdc(&dir, "show status").map(drop))?;
        Ok(Self { process, dir })
    }

    /// Replace the configuration of the running daemon.
    pub fn configure(&self, config: &str) -> Result<()> {
        fs::write(self.dir.join("bird.conf"), logged(config))?;
        let out = self.birdc("configure")?;
        if !out.contains("econfigur") {
            bail!("BIRD refused its configuration: {out}");
        }
        Ok(())
    }

    /// A command's text: `show protocols all`.
    pub fn birdc(&self, command: &str) -> Result<String> {
        birdc(&self.dir, command)
    }

    /// The info column of a protocol, `Established`. Empty when there is no such protocol.
    pub fn state(&self, protocol: &str) -> Result<String> {
        let out = self.birdc(&format!("show protocols {protocol}"))?;
        // Name Proto Table State Since(date or time) Info…
        let line = out.lines().find(|l| l.starts_with(protocol));
        let words = line.into_iter().flat_map(str::split_whitespace);
        let info: Vec<&str> =
            words.skip(4).filter(|w| !w.contains(':') && !w.contains('-')).collect();
        Ok(info.join(" "))
    }

    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

fn birdc(dir: &Path, command: &str) -> Result<String> {
    let mut birdc = Command::new("birdc");
    birdc.arg("-s").arg(dir.join("bird.ctl"));
    run(birdc.args(command.split_whitespace()))
}

/// With its log where the lab's other logs are.
fn logged(config: &str) -> String {
    format!("log stderr all;\n{config}")
}

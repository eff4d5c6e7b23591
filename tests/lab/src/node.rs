//! A Dunlin node in a namespace: `dunlind`, and questions to it through its command line.

use crate::freeze::{Frozen, freeze};
use crate::netns::{Netns, run};
use crate::process::Process;
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::fs;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Where the built binaries are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binaries {
    pub dunlind: PathBuf,
    pub dunlin: PathBuf,
}

impl Binaries {
    /// `dunlind` and `dunlin` in one directory.
    pub fn in_dir(dir: &Path) -> Result<Self> {
        let binaries = Self { dunlind: dir.join("dunlind"), dunlin: dir.join("dunlin") };
        for path in [&binaries.dunlind, &binaries.dunlin] {
            if !path.is_file() {
                bail!("{} is not built", path.display());
            }
        }
        Ok(binaries)
    }
}

/// One backend of one service, as a node's API has it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
pub struct Backend {
    pub service: String,
    pub address: SocketAddr,
    pub state: String,
    /// What the last check said.
    pub reason: String,
}

impl Backend {
    pub fn healthy(&self) -> bool {
        self.state == "healthy"
    }
}

/// A node. Dropping it stops it.
#[derive(Debug)]
pub struct Dunlind {
    ns: Netns,
    binaries: Binaries,
    dir: PathBuf,
    process: Option<Process>,
}

impl Dunlind {
    /// Make a node with its configuration, not yet running.
    pub fn new(
        ns: &Netns,
        binaries: &Binaries,
        config: impl FnOnce(&Path) -> String,
    ) -> Result<Self> {
        let dir = ns.lab().dir(&format!("{}/dunlin", ns.name()))?;
        let node = Self { ns: ns.clone(), binaries: binaries.clone(), dir, process: None };
        fs::write(node.config_path(), config(&node.socket()))?;
        Ok(node)
    }

    pub fn name(&self) -> &str {
        self.ns.name()
    }

    pub fn netns(&self) -> &Netns {
        &self.ns
    }

    /// The API's Unix socket.
    pub fn socket(&self) -> PathBuf {
        self.dir.join("api.sock")
    }

    pub fn config_path(&self) -> PathBuf {
        self.dir.join("dunlin.toml")
    }

    /// Start it. Returns when its API answers.
    pub fn start(&mut self) -> Result<()> {
        if let Some(process) = &mut self.process
            && process.ended().is_none()
        {
            bail!("{} is already running", self.ns.name());
        }
        let mut command = self.ns.urgent_command(&self.binaries.dunlind);
        command.arg("--config").arg(self.config_path());
        let process = Process::spawn("dunlind", &self.dir, &mut command)?;
        self.process = Some(process);
        self.wait_ready(Duration::from_secs(20))
    }

    /// Wait until its API answers.
    pub fn wait_ready(&mut self, timeout: Duration) -> Result<()> {
        let name = self.ns.name();
        let process = self.process.as_mut();
        let process = process.with_context(|| format!("{name} was not started"))?;
        let socket = self.dir.join("api.sock");
        // Not `dunlin status`: its exit code also says whether the node is healthy.
        let ready = process.wait_ready(timeout, || get(&socket, "/v1/status").map(drop));
        ready.with_context(|| format!("the API of {name}"))
    }

    /// The process, if it was started.
    pub fn process(&mut self) -> Result<&mut Process> {
        let name = self.ns.name();
        self.process.as_mut().with_context(|| format!("{name} was not started"))
    }

    /// `dunlin --json ARGS`.
    pub fn ask(&self, args: &[&str]) -> Result<Value> {
        let out = run(self.cli().arg("--json").args(args))?;
        if out.trim().is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_str(&out).with_context(|| format!("dunlin {}: {out}", args.join(" ")))
    }

    /// `GET PATH` straight from the API, for what is polled often: no process is started.
    pub fn get(&self, path: &str) -> Result<Value> {
        get(&self.socket(), path)
    }

    /// The backends as the node sees them now.
    pub fn backends(&self) -> Result<Vec<Backend>> {
        Ok(serde_json::from_value(self.get("/v1/backends")?)?)
    }

    /// `dunlin ARGS`, the text people see.
    pub fn show(&self, args: &[&str]) -> Result<String> {
        run(self.cli().args(args))
    }

    /// `dunlin ARGS` whatever its exit code: for what must be refused.
    pub fn try_show(&self, args: &[&str]) -> Result<std::process::Output> {
        self.cli().args(args).output().context("cannot start dunlin")
    }

    /// Change the configuration file. An edit that changes nothing is an error: it would test nothing.
    pub fn edit_config(&self, edit: impl FnOnce(&str) -> String) -> Result<()> {
        let before = fs::read_to_string(self.config_path())?;
        let after = edit(&before);
        anyhow::ensure!(before != after, "the edit changes nothing in {}", self.name());
        self.write_config(&after)
    }

    /// How a person asks it.
    pub fn cli_line(&self) -> String {
        format!("{} --socket {}", self.binaries.dunlin.display(), self.socket().display())
    }

    /// Replace the configuration file; `dunlin reload` or SIGHUP applies it.
    pub fn write_config(&self, text: &str) -> Result<()> {
        fs::write(self.config_path(), text).context("cannot write the node's configuration")
    }

    /// Freeze one worker, as if its core hung.
    pub fn freeze_worker(&mut self, worker: u16) -> Result<Frozen> {
        freeze(self.process()?.pid(), &format!("worker-{worker}"))
    }

    /// SIGKILL. Returns when it is gone.
    pub fn kill(&mut self) -> Result<()> {
        self.process()?.kill()
    }

    /// SIGTERM, and wait.
    pub fn stop(&mut self) -> Result<()> {
        self.process()?.stop().map(drop)
    }

    fn cli(&self) -> Command {
        let mut cli = Command::new(&self.binaries.dunlin);
        cli.arg("--socket").arg(self.socket());
        cli
    }
}

fn get(socket: &Path, path: &str) -> Result<Value> {
    let mut stream = UnixStream::connect(socket)?;
    let timeout = Some(Duration::from_secs(5));
    stream.set_read_timeout(timeout)?;
    stream.set_write_timeout(timeout)?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: lab\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let answer = String::from_utf8(answer)?;
    let (head, body) =
        answer.split_once("\r\n\r\n").with_context(|| format!("{path}: no answer"))?;
    anyhow::ensure!(head.starts_with("HTTP/1.1 200 "), "{path}: {head}\n{body}");
    serde_json::from_str(body).with_context(|| format!("{path}: {body}"))
}

//! The yardstick: `dpdk-testpmd --forward-mode=5tswap` on the same capture.

use crate::{Args, Measured, cpu_ns, source};
use anyhow::{Context, Result, bail};
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

/// Longest time it may take to start or to answer.
const SILENCE: Duration = Duration::from_secs(60);

pub fn measure(args: &Args, captures: &[PathBuf]) -> Result<Measured> {
    let mut testpmd = Testpmd::start(args, &source(captures), &[])?;
    let warm_up = testpmd.counters()?.0;
    // At least one pass over all flows.
    while testpmd.counters()?.0 < warm_up + 2 * u64::from(args.flows) {
        thread::sleep(Duration::from_millis(100));
    }
    let schedstat = testpmd.worker()?;
    let (before, cpu_before) = (testpmd.counters()?, cpu_ns(&schedstat)?);
    let begin = Instant::now();
    thread::sleep(Duration::from_secs(args.seconds));
    let wall_ns = begin.elapsed().as_nanos() as u64;
    let (after, cpu_after) = (testpmd.counters()?, cpu_ns(&schedstat)?);
    Ok(Measured {
        received: after.0 - before.0,
        sent: after.1 - before.1,
        cpu_ns: cpu_after - cpu_before,
        wall_ns,
        ..Measured::default()
    })
}

/// A running testpmd, told what to do over its standard input. Killed when dropped.
pub struct Testpmd {
    child: Child,
    commands: ChildStdin,
    lines: Receiver<String>,
}

impl Testpmd {
    /// Forwarding on one virtual device, with these further arguments for DPDK.
    pub fn start(args: &Args, device: &str, more: &[&str]) -> Result<Self> {
        // It does not flush what it prints to a pipe.
        let mut command = Command::new("stdbuf");
        command
            .args(["-oL", "dpdk-testpmd"])
            .args(["--no-pci", "--no-telemetry", "--file-prefix"])
            .arg(format!("dunlin-testpmd-{}", std::process::id()))
            .args(["-l", &format!("{},{}", args.main_core, args.core)])
            .args(["-m", &args.memory_mib().to_string()]);
        if args.no_hugepages {
            command.args(["--no-huge", "--no-shconf"]);
        } else {
            command.arg("--in-memory");
        }
        command
            .args(more)
            .args(["--vdev", device])
            .args(["--", "-i", "--auto-start", "--forward-mode=5tswap", "--mbuf-size=2176"])
            .arg(format!("--total-num-mbufs={}", args.mbufs()));
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("dpdk-testpmd does not start: `apt-get install dpdk`")?;
        let commands = child.stdin.take().context("stdin")?;
        let output = BufReader::new(child.stdout.take().context("stdout")?);
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        Ok(Self { child, commands, lines })
    }

    /// Packets received and sent so far.
    pub fn counters(&mut self) -> Result<(u64, u64)> {
        self.commands.write_all(b"show port stats 0\n")?;
        self.commands.flush()?;
        let received = self.counter("RX-packets:")?;
        Ok((received, self.counter("TX-packets:")?))
    }

    fn counter(&mut self, name: &str) -> Result<u64> {
        loop {
            let line = self.lines.recv_timeout(SILENCE).with_context(|| {
                format!("dpdk-testpmd says nothing: {:?}", self.child.try_wait())
            })?;
            if let Some((_, rest)) = line.split_once(name) {
                let number = rest.split_whitespace().next().context("no number")?;
                return Ok(number.parse()?);
            }
        }
    }

    /// The schedstat of its forwarding thread (`lcore-worker-N`; from 23.11 on `dpdk-workerN`).
    pub fn worker(&self) -> Result<PathBuf> {
        worker_of(self.child.id())
    }
}

/// The schedstat of a process's forwarding thread, by its name.
pub fn worker_of(process: u32) -> Result<PathBuf> {
    for task in std::fs::read_dir(format!("/proc/{process}/task"))? {
        let task = task?.path();
        if std::fs::read_to_string(task.join("comm"))?.contains("worker") {
            return Ok(task.join("schedstat"));
        }
    }
    bail!("process {process} has no forwarding thread")
}

impl Drop for Testpmd {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

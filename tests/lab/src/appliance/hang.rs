//! Machines that hang: a kernel that panics, and an init that does nothing any more.

use super::PATIENCE;
use super::node::Node;
use super::refuse::{Lonely, Shape};
use crate::story::short;
use crate::vm::Ssh;
use crate::wait::wait_for;
use anyhow::{Context, Result, bail, ensure};
use std::process::Output;
use std::thread::JoinHandle;
use std::time::Instant;

/// The machine's watchdog.
const CARD: &str = "/sys/class/watchdog/watchdog0";
/// What a driver says in `bootstatus` when the watchdog restarted the machine
/// (`WDIOF_CARDRESET`, linux/watchdog.h).
const CARD_RESET: u32 = 0x20;

impl Lonely {
    /// Nobody presses a button: the machine restarts by itself, and can tell why.
    pub fn watchdog(&mut self) -> Result<()> {
        self.teller.step("A kernel that panics, and an init that hangs");
        let mut node =
            self.start("hung", Shape { watchdog: true, ..Shape::default() }, |_| Ok(()))?;
        node.wait_boot(None, PATIENCE)?;
        node.wait_healthy(PATIENCE)?;
        let said = node.run(&format!("cat {CARD}/identity {CARD}/state {CARD}/timeout"))?;
        let lines: Vec<&str> = said.lines().collect();
        let [identity, "active", "30"] = lines[..] else { bail!("not armed: {lines:?}") };
        self.teller.check(&format!("{identity} is armed: 30 seconds"));

        // The kernel's own way to try it.
        self.restarts(&mut node, "a panic", "echo c >/proc/sysrq-trigger")?;
        ensure!(!reset_by_watchdog(&node)?, "the watchdog restarted it, not the kernel");
        let kept = wait_for("the panic's messages", PATIENCE, || {
            node.run("grep -rq 'sysrq triggered crash' /var/lib/systemd/pstore")
        });
        node.explained(kept)?;
        self.teller
            .check("the kernel did that itself; its messages are in /var/lib/systemd/pstore");

        // Process 1 takes no signal that would stop it; a frozen group of processes does not ask.
        let freeze = "echo 1 >/sys/fs/cgroup/init.scope/cgroup.freeze";
        self.restarts(&mut node, "a frozen init", freeze)?;
        ensure!(
            reset_by_watchdog(&node)?,
            "it restarted, but the watchdog says that it did not do it"
        );
        self.teller.check("the watchdog says that it was the one");
        let before = node.run("journalctl --quiet --boot -1 --lines 1 --output cat")?;
        ensure!(!before.trim().is_empty(), "the journal of the boot before is gone");
        self.teller.check("the journal of the boot before is there");
        Ok(())
    }

    /// `deed` takes the machine down; it comes up again, and is healthy.
    fn restarts(&mut self, node: &mut Node, what: &str, deed: &str) -> Result<()> {
        let before = node.boot_id()?;
        let start = Instant::now();
        let last = answerless(node.ssh(), deed);
        node.wait_boot(Some(&before), PATIENCE).with_context(|| format!("after {what}"))?;
        let took = start.elapsed();
        // It ended with the machine.
        let _ = last.join();
        node.wait_healthy(PATIENCE)?;
        self.teller.check(&format!("after {what} it runs again, {} later", short(took)));
        Ok(())
    }
}

/// What the watchdog says of the last restart.
fn reset_by_watchdog(node: &Node) -> Result<bool> {
    let status = node.run(&format!("cat {CARD}/bootstatus"))?;
    let flags: u32 = status.trim().parse().with_context(|| status.clone())?;
    Ok(flags & CARD_RESET != 0)
}

/// A command after which the machine does not answer any more.
fn answerless(ssh: Ssh, command: &str) -> JoinHandle<Result<Output>> {
    let command = command.to_owned();
    std::thread::spawn(move || ssh.output(&command))
}

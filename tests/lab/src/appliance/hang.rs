//! Machines that hang: a kernel that panics, and an init that does nothing any more.

use super::PATIENCE;
use super::node::Node;
use super::refuse::{Lonely, Shape};
use crate::story::short;
use crate::vm::Ssh;
use crate::wait::wait_for;
use anyhow::{Context, Result, ensure};
use std::process::Output;
use std::thread::JoinHandle;
use std::time::Instant;

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
        let card = "/sys/class/watchdog/watchdog0";
        let identity = node.run(&format!("cat {card}/identity {card}/state {card}/timeout"))?;
        let words: Vec<&str> = identity.lines().map(str::trim).collect();
        ensure!(words[1..] == ["active", "30"], "the watchdog is not fed: {words:?}");
        self.teller.check(&format!("{} is armed: {} seconds", words[0], words[2]));

        // The kernel's own way to try it.
        self.restarts(&mut node, "a panic", "echo c >/proc/sysrq-trigger")?;
        let dumps = wait_for("the panic's messages", PATIENCE, || {
            let found = node.run("grep -rl 'sysrq triggered crash' /var/lib/systemd/pstore")?;
            Ok(found.lines().count())
        });
        let dumps = node.explained(dumps)?;
        ensure!(dumps > 0, "no messages of the panic");
        self.teller.check("its messages are in /var/lib/systemd/pstore");

        // Process 1 takes no signal that would stop it; a frozen group of processes does not ask.
        let freeze = "echo 1 >/sys/fs/cgroup/init.scope/cgroup.freeze";
        self.restarts(&mut node, "a frozen init", freeze)?;
        let status = node.run(&format!("cat {card}/bootstatus"))?;
        let flags: u32 = status.trim().parse().with_context(|| status.clone())?;
        ensure!(flags & CARD_RESET != 0, "not the watchdog restarted it: {flags:#x}");
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

/// A command after which the machine does not answer any more.
fn answerless(ssh: Ssh, command: &str) -> JoinHandle<Result<Output>> {
    let command = command.to_owned();
    std::thread::spawn(move || ssh.output(&command))
}

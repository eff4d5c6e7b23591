//! Power cuts at random moments of an upgrade: one of the two versions always boots.

use super::node::Node;
use super::refuse::Lonely;
use super::{PATIENCE, Site};
use crate::story::short;
use crate::vm::{Firmware, overlay};
use crate::wait::{wait_for, wait_until};
use anyhow::{Context, Result, ensure};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

/// Set in the environment to repeat a run: the seed it printed.
pub const SEED: &str = "DUNLIN_SEED";
/// How often.
const CUTS: usize = 5;

impl Lonely {
    /// Upgrade, cut, boot, look; as often as [`CUTS`] says. Each upgrade goes onto the disk that the
    /// last cut left, until one got through: then back to the disk of the beginning.
    pub fn power_cuts(&mut self, upgrade_took: &Receiver<Duration>) -> Result<()> {
        self.teller.step("Power cuts at random moments of an upgrade");
        let mut node = self.start("cut", Firmware::Uefi, |_| Ok(()))?;
        node.wait_boot(None, PATIENCE)?;
        node.run("systemctl poweroff")?;
        node.vm.wait_off(PATIENCE)?;
        let Ok(took) = upgrade_took.recv() else {
            // The upgrade itself failed, which is reported where it happened.
            return Ok(());
        };
        let seed = seed()?;
        self.teller.note(&format!("{CUTS} cuts within {}; {SEED}={seed}", short(took)));
        let mut random = StdRng::seed_from_u64(seed);
        let booted = node.disk.clone();
        let mut fresh = true;
        for cut in 1..=CUTS {
            if fresh {
                node.vm.cut_power()?;
                let disk = overlay(&booted, &self.storage.join(format!("cut{cut}.qcow2")), None)?;
                node.vm.rebuild(|machine| machine.disks[0] = disk)?;
                node.vm.power_on()?;
                node.wait_boot(None, PATIENCE)?;
            }
            let moment = took.mul_f64(random.random_range(0.0..1.0));
            let version = self.cut(&mut node, cut, moment)?;
            fresh = version == self.artifacts.good.version;
        }
        Ok(())
    }

    /// One cut, `moment` after the start of an upgrade, and the boot after it: of which version.
    fn cut(&mut self, node: &mut Node, cut: usize, moment: Duration) -> Result<String> {
        let good = self.artifacts.good.clone();
        let old = node.version()?;
        let ssh = node.ssh();
        let command = format!("dunlin upgrade {}", Site::url(&good));
        let start = Instant::now();
        // It is cut off in the middle, so what it says does not matter.
        let upgrade = std::thread::spawn(move || ssh.output(&command));
        wait_until("the moment", moment + PATIENCE, || start.elapsed() >= moment)?;
        node.vm.cut_power()?;
        let doing = node.vm.serial().tail(1);
        let _ = upgrade.join();
        node.vm.power_on()?;
        node.wait_boot(None, PATIENCE).with_context(|| {
            format!(
                "after power cut {cut}, {} into an upgrade (last on the console: {doing})",
                short(moment)
            )
        })?;
        let version = node.version()?;
        ensure!(version == old || version == good.version, "it runs {version}");
        let state =
            wait_for("dunlin.service", PATIENCE, || node.run("systemctl is-active dunlin.service"));
        node.explained(state)?;
        self.teller
            .check(&format!("cut {cut}, {} into it: {version} runs afterwards", short(moment)));
        Ok(version)
    }
}

fn seed() -> Result<u64> {
    match std::env::var(SEED) {
        Ok(text) => text.parse().with_context(|| format!("{SEED}={text}: not a number")),
        Err(_) => Ok(rand::random()),
    }
}

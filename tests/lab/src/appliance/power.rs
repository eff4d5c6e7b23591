//! Power cuts at random moments of an upgrade: one of the two versions always boots.

use super::node::Node;
use super::refuse::Lonely;
use super::{Artifacts, PATIENCE, Site};
use crate::story::short;
use crate::wait::wait_until;
use anyhow::{Context, Result, ensure};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::collections::VecDeque;
use std::sync::mpsc::Receiver;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Set in the environment to repeat a run: the seed it printed.
pub const SEED: &str = "DUNLIN_SEED";
/// How often.
const CUTS: usize = 5;

/// When to cut: fractions of an upgrade. Whichever machine is free takes the next.
#[derive(Debug)]
pub(super) struct Moments {
    seed: u64,
    left: Mutex<VecDeque<(usize, f64)>>,
}

impl Moments {
    /// [`CUTS`] of them, at random.
    pub fn draw() -> Result<Self> {
        let seed = match std::env::var(SEED) {
            Ok(text) => text.parse().with_context(|| format!("{SEED}={text}: not a number"))?,
            Err(_) => rand::random(),
        };
        let mut random = StdRng::seed_from_u64(seed);
        let left = (1..=CUTS).map(|cut| (cut, random.random_range(0.0..1.0))).collect();
        Ok(Self { seed, left: Mutex::new(left) })
    }

    fn next(&self) -> Option<(usize, f64)> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }
}

impl Lonely {
    /// Upgrade, cut, boot, look. Each upgrade goes onto the disk that the last cut left, to the version
    /// that does not run: now newer, now older.
    pub fn power_cuts(&mut self, upgrade_took: &Receiver<Duration>) -> Result<()> {
        let Ok(took) = upgrade_took.recv() else {
            // The upgrade itself failed, which is reported where it happened.
            return Ok(());
        };
        self.teller.step("Power cuts at random moments of an upgrade, under Secure Boot");
        let Moments { seed, .. } = *self.moments;
        self.teller.note(&format!("{CUTS} cuts within {}; {SEED}={seed}", short(took)));
        let mut node = match self.signed.take() {
            Some(node) => node,
            None => self.signed_node()?,
        };
        while let Some((cut, fraction)) = self.moments.next() {
            self.cut(&mut node, cut, took.mul_f64(fraction))?;
        }
        Ok(())
    }

    /// One cut, `moment` after the start of an upgrade, and the boot after it.
    fn cut(&mut self, node: &mut Node, cut: usize, moment: Duration) -> Result<()> {
        let old = node.version()?;
        let Artifacts { same, good, .. } = &self.artifacts;
        let to = if old == same.version { good.clone() } else { same.clone() };
        let ssh = node.ssh();
        let command = format!("dunlin upgrade --force {}", Site::url("http", &to));
        let start = Instant::now();
        // It is cut off in the middle, so what it says does not matter.
        let upgrade = std::thread::spawn(move || ssh.output(&command));
        wait_until("the moment", moment + PATIENCE, || start.elapsed() >= moment)?;
        node.vm.cut_power()?;
        let doing = node.vm.serial().tail(1);
        node.vm.power_on()?;
        node.wait_boot(None, PATIENCE).with_context(|| {
            format!(
                "after power cut {cut}, {} into an upgrade (last on the console: {doing})",
                short(moment)
            )
        })?;
        let _ = upgrade.join();
        let version = node.version()?;
        ensure!(version == old || version == to.version, "it runs {version}");
        // Healthy: one on trial stays from now on.
        node.wait_healthy(PATIENCE)?;
        self.teller.check(&format!(
            "cut {cut}, {} into {old} → {}: {version} runs afterwards",
            short(moment),
            to.version
        ));
        Ok(())
    }
}

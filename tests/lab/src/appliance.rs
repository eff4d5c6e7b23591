//! The appliance, shown on whole machines: the image boots in QEMU, and what an operator relies on
//! is measured and asserted.
//!
//! In: what the image builder made ([`Artifacts`]). Out: a [`Show`], told step by step like the demo
//! ([`crate::story`]). Two nodes stand where the demo's nodes stand, before the same router, client
//! and backends; beside them, on a second lane, go the machines that need no company: those
//! that must refuse to boot, and the one whose power is cut.

mod boot;
mod config;
mod console;
mod hang;
mod install;
mod node;
mod pair;
mod power;
mod refuse;
mod site;
mod upgrade;

pub use node::Node;
pub use power::SEED;
pub use refuse::{Lonely, MORE_STEPS, STEPS};
pub use site::Site;

use crate::story::Teller;
use crate::vm::{Accel, Key, storage};
use anyhow::{Context, Result, ensure};
use power::Moments;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

/// For a machine to boot and settle, emulated and beside another one on a busy host.
const PATIENCE: Duration = Duration::from_secs(600);

/// What an upgrade takes here, where none was measured before power is cut.
const UPGRADE: Duration = Duration::from_secs(120);

/// An update of the appliance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bundle {
    pub version: String,
    pub file: PathBuf,
}

/// What the builder made for the show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artifacts {
    /// The raw disk image.
    pub image: PathBuf,
    pub version: String,
    /// The medium that installs it; there only for the step that is about it.
    pub installer: PathBuf,
    /// What the image has, as an update.
    pub same: Bundle,
    /// The same content, a higher version.
    pub good: Bundle,
    /// Higher still; its dunlind exits at once.
    pub broken: Bundle,
    /// The firmware's variables, with the builder's Secure Boot keys enrolled. The image is signed
    /// with them.
    pub secure_boot: PathBuf,
}

/// What was measured.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Measured {
    /// From power-on until the router's kernel had the VIPs.
    pub boot_to_vip: Duration,
    /// From `dunlin upgrade` until the new version was kept.
    pub upgrade: Duration,
}

/// The show.
#[derive(Debug)]
pub struct Show {
    // Dropped first: machines go before the network they are plugged into.
    nodes: Vec<Node>,
    site: Site,
    artifacts: Artifacts,
    accel: Accel,
    key: Key,
    moments: Arc<Moments>,
    /// Where the disks are.
    storage: PathBuf,
    pub teller: Teller,
}

impl Show {
    /// Lay out the hosts. `disks` is a directory with room for some gigabytes; no machine is on.
    pub fn begin(artifacts: Artifacts, accel: Accel, disks: &Path) -> Result<Self> {
        let mut teller = Teller::new();
        teller.step("Lay out the router, the client and the backends in network namespaces");
        let site = Site::new()?;
        let storage = storage(disks, site.lab.prefix())?;
        let key = Key::new(&site.lab.dir("ssh")?)?;
        for bundle in [&artifacts.same, &artifacts.good, &artifacts.broken] {
            site.offer(bundle)?;
        }
        teller.check("the backends answer the client through the router");
        teller.note(&format!("machines run by {}", accel.name()));
        let moments = Arc::new(Moments::draw()?);
        Ok(Self { nodes: Vec::new(), site, artifacts, accel, key, moments, storage, teller })
    }

    /// All of it.
    pub fn run(&mut self) -> Result<Measured> {
        let boot_to_vip = self.first_node().context("the first node")?;
        let (upgraded, upgrade_took) = channel();
        let (nodes_gone, free) = channel();
        let lonely = Lonely::new(self, 9, "alone")?;
        // Takes a share of the power cuts, when the nodes leave the host to others.
        let later = Lonely::new(self, 10, "also")?;
        let mut upgrade = Duration::ZERO;
        let (main, sides) = std::thread::scope(|scope| {
            let side = scope.spawn(move || lonely.run(&STEPS, &upgrade_took));
            let later = scope.spawn(move || later.run(&["power-cuts"], &free));
            let main = self.together(|took| {
                upgrade = took;
                // A side lane that failed already is reported below.
                let _ = upgraded.send(took);
            });
            if main.is_ok() {
                let _ = nodes_gone.send(upgrade);
            }
            drop((upgraded, nodes_gone));
            (main, [side.join(), later.join()])
        });
        let mut failures: Vec<String> = main.err().iter().map(|e| format!("{e:#}")).collect();
        for side in sides {
            match side {
                Ok(Ok(teller)) => self.teller.join(&teller),
                Ok(Err(e)) => failures.push(format!("{e:#}")),
                Err(_) => failures.push("a side lane panicked".to_owned()),
            }
        }
        ensure!(failures.is_empty(), "{}", failures.join("\n\nand beside it: "));
        Ok(Measured { boot_to_vip, upgrade })
    }

    /// One step of the side lane alone, one of [`STEPS`] or [`MORE_STEPS`].
    pub fn step(&mut self, step: &str) -> Result<()> {
        let (upgraded, upgrade_took) = channel();
        upgraded.send(UPGRADE)?;
        let mut lonely = Lonely::new(self, 9, "alone")?;
        let shown = lonely.step(step, &upgrade_took);
        self.teller.join(&lonely.teller);
        shown
    }

    /// What two nodes show; `upgraded` hears how long the upgrade took.
    fn together(&mut self, upgraded: impl FnOnce(Duration)) -> Result<()> {
        self.look_at_first().context("the first node")?;
        self.second_node().context("the second node")?;
        let took = self.good_upgrade().context("the upgrade")?;
        upgraded(took);
        self.broken_upgrade().context("the broken upgrade")?;
        self.node_dies().context("the death of a node")?;
        // Nothing more to show: the host is the side lane's.
        self.nodes.clear();
        Ok(())
    }

    /// Tell a failure and where the logs stay.
    pub fn failed(&mut self, error: &anyhow::Error) -> Result<()> {
        self.teller.fail(&format!("{error:#}"));
        let logs = self.site.lab.keep_logs()?;
        self.teller.note(&format!("logs: {}", logs.display()));
        Ok(())
    }
}

impl Drop for Show {
    fn drop(&mut self) {
        // QEMU has its disks open until it ends.
        self.nodes.clear();
        let _ = std::fs::remove_dir_all(&self.storage);
    }
}

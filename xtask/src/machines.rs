//! Tests on whole machines, under QEMU: `cargo xtask test rss`.

use crate::cargo;
use crate::setup::{self, Purpose};
use anyhow::{Context, Result};
use lab::story::Teller;
use lab::vm::{Accel, Model, rss};
use std::fs;
use std::path::PathBuf;

/// Replies come back to the queue they were predicted for, on every emulated card whose RSS is real.
pub fn rss() -> Result<()> {
    setup::install(Purpose::Image)?;
    cargo::run(["build", "--package", "dunlin", "--example", "rss_proof"], [""; 0])?;
    let program = cargo::target_dir()?.join("debug/examples/rss_proof");
    let cache = cache()?;
    let accel = Accel::detect(&cache)?;
    let mut teller = Teller::new();
    teller.step(&format!("RSS-aware choice of ports in a guest, under {}", accel.name()));
    for (name, model) in [("virtio-net", Model::Virtio), ("igb", Model::Igb)] {
        let proved = rss::prove(&program, &cache, accel, model).context(name)?;
        let (steered, control) = (&proved.steered, &proved.control);
        teller.check(&format!(
            "{name}: {} of {} replies on the predicted queue, {} handed over; by queue {:?}; hash \
             told for {}, wrong for {}; resent {}",
            steered.right,
            steered.flows,
            steered.handed_over,
            steered.by_queue,
            steered.hash_checked,
            steered.hash_wrong,
            steered.resent
        ));
        teller.note(&format!("{name}, ports left to chance: {} handed over", control.handed_over));
    }
    teller.end();
    Ok(())
}

/// Where kernels and disks of guests are kept.
pub fn cache() -> Result<PathBuf> {
    let dir = cargo::target_dir()?.join("vm");
    fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    Ok(dir)
}

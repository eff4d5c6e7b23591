//! Tests on whole machines, under QEMU: `cargo xtask test rss`, `cargo xtask test-image`.

use crate::cargo;
use crate::setup::{self, Purpose};
use anyhow::{Context, Result, bail};
use lab::appliance::{Artifacts, Bundle, Show};
use lab::story::{Teller, short};
use lab::vm::{Accel, Model, enroll, rss};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

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

/// The appliance boots, announces, upgrades, and refuses what it must. `reuse`: take the images that an
/// earlier run built, if there are any. `step`: only this one of [`lab::appliance::STEPS`] or
/// [`lab::appliance::MORE_STEPS`].
pub fn image(reuse: bool, step: Option<&str>) -> Result<()> {
    setup::require_root("test-image")?;
    setup::install(Purpose::Demo)?;
    setup::install(Purpose::Image)?;
    let cache = cache()?;
    let artifacts = artifacts(&cache, reuse, step == Some("installer"))?;
    let accel = Accel::detect(&cache)?;
    let mut show = Show::begin(artifacts, accel, &cache.join("disks"))?;
    let shown = match step {
        Some(step) => show.step(step).map(|()| None),
        None => show.run().map(Some),
    };
    match shown {
        Ok(None) => {
            show.teller.end();
            Ok(())
        }
        Ok(Some(measured)) => {
            show.teller.end();
            println!(
                "power-on to VIP announced: {} ({}); upgrade, until the new version was kept: {}",
                short(measured.boot_to_vip),
                accel.name(),
                short(measured.upgrade)
            );
            Ok(())
        }
        Err(e) => {
            show.failed(&e)?;
            bail!("test-image failed")
        }
    }
}

/// The image, a better version of it and a broken one, all signed with throw-away keys; the installer
/// if it is wanted.
fn artifacts(cache: &Path, reuse: bool, installer: bool) -> Result<Artifacts> {
    let (keys, out) = (cache.join("keys"), cache.join("out"));
    let version = env!("CARGO_PKG_VERSION").to_owned();
    let (good, broken) = (later(&version, 1)?, later(&version, 2)?);
    let built = |version: &str, end: &str| out.join(format!("dunlin-{version}.{end}"));
    let artifacts = Artifacts {
        image: built(&version, "raw"),
        installer: built(&version, "iso"),
        same: Bundle { file: built(&version, "bundle"), version: version.clone() },
        good: Bundle { file: built(&good, "bundle"), version: good.clone() },
        broken: Bundle { file: built(&broken, "bundle"), version: broken.clone() },
        secure_boot: cache.join("vars.fd"),
        version,
    };
    let Artifacts { image, same, good: better, broken: worse, .. } = &artifacts;
    let all = [image, &same.file, &better.file, &worse.file];
    if !(reuse && all.iter().all(|file| file.exists())) {
        if !keys.exists() {
            builder(&["keys", path(&keys)?])?;
        }
        // The builder tries the programs, so they stay whole: this one is told what it does not know.
        let exits = cache.join("broken");
        let drop_in = exits.join("usr/lib/systemd/system/dunlin.service.d");
        fs::create_dir_all(&drop_in)?;
        let exec = "[Service]\nExecStart=\nExecStart=/usr/bin/dunlind --broken-on-purpose\n";
        fs::write(drop_in.join("broken.conf"), exec)?;
        // It will not get well by waiting.
        let impatient = exits.join("usr/lib/systemd/system/dunlin-health.service.d");
        fs::create_dir_all(&impatient)?;
        let timeout = "[Service]\nEnvironment=DUNLIN_HEALTH_TIMEOUT=20\n";
        fs::write(impatient.join("impatient.conf"), timeout)?;
        let common = ["--quick", "--key-dir", path(&keys)?, "--out", path(&out)?];
        builder(&[&common[..], &["--only", "raw,bundle"]].concat())?;
        let bundle = [&common[..], &["--only", "bundle", "--version"]].concat();
        builder(&[&bundle[..], &[&good]].concat())?;
        builder(&[&bundle[..], &[&broken, "--overlay", path(&exits)?]].concat())?;
    }
    if installer && !(reuse && artifacts.installer.exists()) {
        builder(&["--quick", "--key-dir", path(&keys)?, "--out", path(&out)?, "--only", "iso"])?;
    }
    enroll(&keys.join("db.crt"), &artifacts.secure_boot)?;
    Ok(artifacts)
}

/// `cargo xtask image …`.
fn builder(args: &[&str]) -> Result<()> {
    let own = std::env::current_exe().context("where is this program?")?;
    cargo::status(Command::new(own).arg("image").args(args))
}

/// A version whose last number is higher.
fn later(version: &str, by: u32) -> Result<String> {
    let (front, last) = version.rsplit_once('.').context("a version without a dot")?;
    let last: u32 = last.parse().with_context(|| format!("the version {version}"))?;
    Ok(format!("{front}.{}", last + by))
}

fn path(path: &Path) -> Result<&str> {
    path.to_str().context("a path that is not UTF-8")
}

/// Where kernels and disks of guests are kept.
pub fn cache() -> Result<PathBuf> {
    let dir = cargo::target_dir()?.join("vm");
    fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    Ok(dir)
}

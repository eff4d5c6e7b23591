//! `dunlin upgrade` and `dunlin rollback`: another version of the system, or the one before.
//!
//! In: a bundle, from a file or a web server; the disk; the node's API. Out: the version in the slot
//! that does not run, verified, and made the next boot for one attempt ([`install`] argues why the
//! machine boots one of the two at every moment); the node drained; a reboot. It never writes to what
//! runs, and nothing at all before the builder's signature was checked.

mod bios;
pub mod bundle;
pub mod disk;
pub mod entry;
pub mod install;
mod source;
mod uuid;
pub mod version;

#[cfg(test)]
mod tests;

pub use source::AUTHORITIES_KEPT;

use super::host::{Host, Root};
use super::node::{Node, Sessions};
use super::record::Record;
use anyhow::{Context, Result, bail};
use bundle::Signed;
use disk::{Disk, Machine};
use install::{Install, Running};
use nix::fcntl::{Flock, FlockArg};
use std::fs::File;
use std::io::{Read, Write};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Between looks at a drain.
const LOOK: Duration = Duration::from_millis(500);

/// How to go about it.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Take an older version too.
    pub force: bool,
    pub reboot: bool,
    /// How long flows may take to end, once the node has withdrawn.
    pub drain: Duration,
}

/// Install a version, and reboot into it.
pub fn upgrade(
    host: &Host,
    node: &dyn Node,
    from: &str,
    options: Options,
    out: &mut dyn Write,
) -> Result<()> {
    let _lock = lock(&host.root)?;
    let mut disk = Machine::open(host)?;
    let stream = source::open(&host.root, from)?;
    let version = install(&host.root, &mut disk, node, stream, options.force, out)?;
    writeln!(out, "Version {version} is installed, and the next boot, for one attempt.")?;
    leave(host, node, &format!("upgrade to {version}"), options, out)
}

/// Make the other version the next boot, and reboot into it.
pub fn rollback(host: &Host, node: &dyn Node, options: Options, out: &mut dyn Write) -> Result<()> {
    let _lock = lock(&host.root)?;
    let mut disk = Machine::open(host)?;
    let running = Running::find(&host.root, &disk)?;
    writeln!(out, "Verifying the other version…")?;
    let entries = install::entries(&disk);
    let other = entries.iter().find(|entry| entry.version != running.version);
    if let Some(other) = other {
        record(&host.root, node, &running, &other.version, out)?;
    }
    let version = install::roll_back(&mut disk, &running)?;
    writeln!(out, "Version {version} is the next boot, and stays.")?;
    leave(host, node, &format!("rollback to {version}"), options, out)
}

/// From the stream to the disk. Gives the version.
fn install(
    root: &Root,
    disk: &mut dyn Disk,
    node: &dyn Node,
    stream: impl Read,
    force: bool,
    out: &mut dyn Write,
) -> Result<String> {
    let running = Running::find(root, disk)?;
    let key = bundle::key(root)?;
    let version = std::cell::RefCell::new(String::new());
    let out = std::cell::RefCell::new(out);
    let mut installed = bundle::read(
        stream,
        key.as_ref(),
        |manifest, signed| {
            let mut install = Install::check(disk, &running, manifest, force)?;
            let mut out = out.borrow_mut();
            match signed {
                Signed::ByTheBuilder => writeln!(out, "Signed by the builder of this system.")?,
                Signed::NotChecked => writeln!(
                    out,
                    "WARNING: this system was built without a key, so nobody vouches for the bundle."
                )?,
            }
            writeln!(
                out,
                "Version {} runs in slot {}; {} goes to slot {}.",
                running.version,
                running.slot,
                manifest.version,
                install.slot()
            )?;
            version.borrow_mut().clone_from(&manifest.version);
            install.forget_the_other()?;
            Ok(install)
        },
        |install, name, info, content| {
            writeln!(out.borrow_mut(), "Writing and verifying {name}, {} MiB…", info.size >> 20)?;
            install.file(name, info, content)
        },
    )?;
    let version = version.into_inner();
    // Before the step that makes it the next boot: that boot is measured by it.
    record(root, node, &running, &version, &mut **out.borrow_mut())?;
    installed.activate()?;
    Ok(version)
}

/// Note which sessions were up. A node that does not run has none, and the next boot is measured by
/// its data plane alone.
fn record(
    root: &Root,
    node: &dyn Node,
    running: &Running,
    to: &str,
    out: &mut dyn Write,
) -> Result<()> {
    let (sessions, announced) = match (node.sessions(), node.status()) {
        (Ok(sessions), Ok(status)) => {
            let announced = status.vips.iter().filter(|vip| vip.announced);
            (sessions, announced.map(|vip| vip.prefix.to_string()).collect())
        }
        (Err(error), _) | (_, Err(error)) => {
            writeln!(
                out,
                "WARNING: the node does not answer, so no sessions are noted: {error:#}"
            )?;
            (Sessions::default(), Vec::new())
        }
    };
    let at = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (from, to) = (running.version.clone(), to.to_owned());
    let record = Record { from, to, at, sessions, announced };
    writeln!(out, "Noted: {} sessions are up.", record.sessions.count())?;
    record.store(root)
}

/// Drain the node, then reboot.
fn leave(
    host: &Host,
    node: &dyn Node,
    reason: &str,
    options: Options,
    out: &mut dyn Write,
) -> Result<()> {
    if !options.reboot {
        writeln!(out, "Not rebooting. When it suits: dunlin drain; systemctl reboot")?;
        return Ok(());
    }
    if let Err(error) = drain(node, reason, options.drain, out) {
        writeln!(out, "WARNING: not drained: {error:#}")?;
    }
    writeln!(out, "Rebooting.")?;
    host.run("systemctl", &["reboot"]).map(drop)
}

fn drain(node: &dyn Node, reason: &str, patience: Duration, out: &mut dyn Write) -> Result<()> {
    node.drain(reason)?;
    writeln!(out, "Draining: routers move new connections away, then the node withdraws…")?;
    let mut withdrawn = None;
    loop {
        let status = node.status()?;
        let Some(drain) = status.drain else { bail!("somebody took the node back into service") };
        if drain.phase == crate::api::model::DrainPhase::Withdrawn {
            let since: Instant = *withdrawn.get_or_insert_with(Instant::now);
            if drain.flows_left == 0 {
                writeln!(out, "Withdrawn, and no flow is left.")?;
                return Ok(());
            }
            if since.elapsed() >= patience {
                writeln!(out, "Withdrawn; {} flows are left, and end now.", drain.flows_left)?;
                return Ok(());
            }
        }
        sleep(LOOK);
    }
}

/// One at a time.
fn lock(root: &Root) -> Result<Flock<File>> {
    let path = root.path("run/dunlin-upgrade.lock");
    let file = File::create(&path).with_context(|| path.display().to_string())?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock)
        .map_err(|_| anyhow::anyhow!("another upgrade or rollback is under way"))
}

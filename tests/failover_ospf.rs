//! The node speaks OSPFv2 and OSPFv3 instead of BGP: announced, withdrawn by health, drained, frozen,
//! killed. Asserted on the router's kernel. Needs root: `cargo xtask test lab`.

use anyhow::{Context, Result, ensure};
use lab::Binaries;
use lab::fabric::{Fabric, Options, Speaks};
use lab::wait_until;
use std::path::Path;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(20);

fn binaries() -> Result<Binaries> {
    let own = Path::new(env!("CARGO_BIN_EXE_dunlind"));
    match std::env::var_os("DUNLIN_BIN_DIR") {
        Some(dir) => Binaries::in_dir(Path::new(&dir)),
        None => Binaries::in_dir(own.parent().unwrap_or(own)),
    }
}

/// Wait until the router's kernel has `count` ways to each VIP (IPv6 ways are link-local, so they are
/// counted, not named). When that came to be.
fn ways(fabric: &Fabric, count: usize, timeout: Duration) -> Result<Instant> {
    let mut last = None;
    for prefix in Fabric::vip_prefixes() {
        let at = fabric.fib.wait(prefix, timeout, |hops| hops.len() == count)?;
        last = last.max(Some(at));
    }
    last.context("no VIPs")
}

fn told(story: impl FnOnce(&mut Fabric) -> Result<()>) -> Result<()> {
    let options = Options { speaks: Speaks::Ospf, ..Options::default() };
    let mut fabric = Fabric::new(&binaries()?, options)?;
    for node in &mut fabric.nodes {
        node.start()?;
    }
    let result = ways(&fabric, 2, PATIENCE).and_then(|_| story(&mut fabric));
    if result.is_err() {
        eprintln!("logs: {}", fabric.lab.keep_logs()?.display());
    }
    result
}

#[test]
#[ignore = "needs root: cargo xtask test lab"]
fn vips_follow_health_by_ospf() -> Result<()> {
    told(|fabric| {
        for backend in &mut fabric.backends {
            backend.kill()?;
        }
        ways(fabric, 0, PATIENCE)?;
        for backend in &mut fabric.backends {
            backend.up()?;
        }
        ways(fabric, 2, PATIENCE)?;
        Ok(())
    })
}

#[test]
#[ignore = "needs root: cargo xtask test lab"]
fn a_drained_node_leaves_and_returns_by_ospf() -> Result<()> {
    told(|fabric| {
        fabric.nodes[0].ask(&["drain"])?;
        ways(fabric, 1, PATIENCE)?;
        fabric.nodes[0].ask(&["undrain"])?;
        ways(fabric, 2, PATIENCE)?;
        Ok(())
    })
}

#[test]
#[ignore = "needs root: cargo xtask test lab"]
fn a_frozen_and_a_killed_node_are_left_by_ospf_with_bfd() -> Result<()> {
    told(|fabric| {
        let up =
            || fabric.nodes[0].ask(&["bfd"]).is_ok_and(|bfd| bfd.to_string().contains("\"up\""));
        wait_until("BFD", PATIENCE, up)?;
        let frozen = fabric.nodes[0].freeze_worker(0)?;
        let since = Instant::now();
        let left = ways(fabric, 1, PATIENCE)?.saturating_duration_since(since);
        println!("left {left:?} after its worker froze");
        ensure!(left < Duration::from_secs(1), "left only after {left:?}");
        drop(frozen);
        ways(fabric, 2, PATIENCE)?;
        let since = Instant::now();
        fabric.nodes[0].kill()?;
        let left = ways(fabric, 1, PATIENCE)?.saturating_duration_since(since);
        println!("left {left:?} after it was killed");
        ensure!(left < Duration::from_secs(1), "left only after {left:?}");
        fabric.nodes[0].start()?;
        ways(fabric, 2, PATIENCE)?;
        Ok(())
    })
}

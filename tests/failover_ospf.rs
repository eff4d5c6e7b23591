//! The node speaks OSPFv2 and OSPFv3 instead of BGP: announced, withdrawn by health, drained, frozen,
//! killed. Asserted on the router's kernel. Needs root: `cargo xtask test lab`.

use anyhow::{Context, Result, ensure};
use lab::Binaries;
use lab::fabric::{Fabric, Options, Speaks};
use lab::story::decided;
use lab::wait_until;
use nix::sys::signal::Signal;
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

fn told(options: Options, story: impl FnOnce(&mut Fabric) -> Result<()>) -> Result<()> {
    let options = Options { speaks: Speaks::Ospf, ..options };
    let mut fabric = Fabric::new(&binaries()?, options)?;
    for node in &mut fabric.nodes {
        node.start()?;
    }
    let all = fabric.nodes.len();
    let result = fabric.wait_ways(all, PATIENCE).and_then(|_| story(&mut fabric));
    if result.is_err() {
        eprintln!("logs: {}", fabric.lab.keep_logs()?.display());
    }
    result
}

/// What a withdrawal may take from the node's decision to the router's kernel. FRR's ospfd calculates at
/// once if it has been quiet, its zebra waits 10 ms: there is room for both.
const WITHDRAWAL: Duration = Duration::from_millis(50);
/// ospfd calculates at once only so long after its last calculation (`timers throttle spf`: the hold
/// time falls back to its 50 ms after as many seconds of quiet), and we do not originate an LSA again
/// before so long.
const QUIET: Duration = Duration::from_secs(6);

#[test]
#[ignore = "needs root: cargo xtask test lab"]
fn vips_follow_health_by_ospf_within_50_ms_of_the_decision() -> Result<()> {
    told(Options { nodes: 1, ..Options::default() }, |fabric| {
        for _ in 0..2 {
            std::thread::sleep(QUIET);
            let start = Instant::now();
            for backend in &fabric.backends {
                backend.set_ill(true)?;
            }
            fabric.wait_ways(0, PATIENCE)?;
            for prefix in Fabric::vip_prefixes() {
                let decided = decided(&mut fabric.nodes[0], prefix)?;
                let changes = fabric.fib.changes(prefix, start);
                let gone = changes.iter().find(|change| change.next_hops.is_empty());
                let took = gone.context("no change")?.at.saturating_duration_since(decided);
                println!("{prefix} gone {took:?} after the decision");
                ensure!(took <= WITHDRAWAL, "{prefix}: gone only {took:?} after the decision");
            }
            for backend in &fabric.backends {
                backend.set_ill(false)?;
            }
            fabric.wait_ways(1, PATIENCE)?;
        }
        Ok(())
    })
}

#[test]
#[ignore = "needs root: cargo xtask test lab"]
fn a_drained_node_leaves_and_returns_by_ospf() -> Result<()> {
    told(Options::default(), |fabric| {
        fabric.nodes[0].ask(&["drain"])?;
        fabric.wait_ways(1, PATIENCE)?;
        fabric.nodes[0].ask(&["undrain"])?;
        fabric.wait_ways(2, PATIENCE)?;
        Ok(())
    })
}

fn bfd_is_up(fabric: &Fabric) -> Result<()> {
    for node in &fabric.nodes {
        wait_until("BFD", PATIENCE, || {
            let Ok(bfd) = node.ask(&["bfd"]) else { return false };
            let sessions = bfd["sessions"].as_array().cloned().unwrap_or_default();
            sessions.len() == 2 && sessions.iter().all(|session| session["state"] == "up")
        })?;
    }
    Ok(())
}

#[test]
#[ignore = "needs root: cargo xtask test lab"]
fn a_frozen_and_a_hung_node_are_left_by_ospf_with_bfd() -> Result<()> {
    told(Options::default(), |fabric| {
        bfd_is_up(fabric)?;
        let frozen = fabric.nodes[0].freeze_worker(0)?;
        let left = left_after(fabric, Instant::now(), "its worker froze")?;
        ensure!(left < Duration::from_secs(1), "left only after {left:?}");
        drop(frozen);
        fabric.wait_ways(2, PATIENCE)?;
        bfd_is_up(fabric)?;
        let since = Instant::now();
        fabric.nodes[0].process()?.signal(Signal::SIGSTOP)?;
        let left = left_after(fabric, since, "SIGSTOP")?;
        // 100 ms × 3.
        ensure!(left <= Duration::from_millis(600), "left only after {left:?}");
        fabric.nodes[0].process()?.signal(Signal::SIGCONT)?;
        fabric.wait_ways(2, PATIENCE)?;
        Ok(())
    })
}

#[test]
#[ignore = "needs root: cargo xtask test lab"]
fn a_killed_node_is_left_by_ospf_within_200_ms() -> Result<()> {
    let options = Options { bfd: Duration::from_millis(50), ..Options::default() };
    told(options, |fabric| {
        bfd_is_up(fabric)?;
        std::thread::sleep(QUIET);
        let since = Instant::now();
        fabric.nodes[0].kill()?;
        let left = left_after(fabric, since, "kill -9")?;
        ensure!(left <= Duration::from_millis(200), "left only after {left:?}");
        fabric.nodes[0].start()?;
        fabric.wait_ways(2, PATIENCE)?;
        Ok(())
    })
}

/// From `since` until the router's kernel uses the other node alone.
fn left_after(fabric: &Fabric, since: Instant, why: &str) -> Result<Duration> {
    let left = fabric.wait_ways(1, PATIENCE)?.saturating_duration_since(since);
    println!("left {left:?} after {why}");
    Ok(left)
}

//! What an operator does, and what fails beyond the demo, as clients and the router see it.
//!
//! The steps, and what each asserts, are in the lab crate (`lab::story`). One lab per test. Needs
//! root: `cargo xtask test lab`.

use anyhow::{Result, ensure};
use lab::Binaries;
use lab::fabric::{Options, Runs};
use lab::story::{By, Story, Teller, echo_service};
use std::path::Path;
use std::time::Duration;

/// Two nodes, announced, and what is done with them; when it fails, the logs stay.
fn told(options: Options, tell: impl FnOnce(&mut Story) -> Result<()>) -> Result<()> {
    told_after(options, |_| Ok(()), tell)
}

/// The same, with something to do before the nodes start.
fn told_after(
    options: Options,
    prepare: impl FnOnce(&mut Story) -> Result<()>,
    tell: impl FnOnce(&mut Story) -> Result<()>,
) -> Result<()> {
    let mut story = Story::begin(&binaries()?, options, Teller::new())?;
    let ready = prepare(&mut story).and_then(|()| story.announce().map(drop));
    let result = ready.and_then(|()| tell(&mut story));
    if result.is_err() {
        let logs = story.fabric.lab.keep_logs()?;
        eprintln!("logs: {}", logs.display());
    }
    result
}

/// BFD that a busy machine does not trip: for tests that are not about how soon it notices.
fn calm() -> Options {
    Options { bfd: Duration::from_millis(300), ..Options::default() }
}

/// The build that xtask made for the lab; without it, this test's own.
fn binaries() -> Result<Binaries> {
    let own = Path::new(env!("CARGO_BIN_EXE_dunlind"));
    match std::env::var_os("DUNLIN_BIN_DIR") {
        Some(dir) => Binaries::in_dir(Path::new(&dir)),
        None => Binaries::in_dir(own.parent().unwrap_or(own)),
    }
}

#[test]
#[ignore = "needs root: cargo xtask test lab"]
fn a_reload_by_command_loses_nothing() -> Result<()> {
    told(calm(), |story| story.reloads(By::Command))
}

#[test]
#[ignore = "needs root: cargo xtask test lab"]
fn a_reload_by_signal_loses_nothing() -> Result<()> {
    told(calm(), |story| story.reloads(By::Signal))
}

#[test]
#[ignore = "needs root: cargo xtask test lab"]
fn a_broken_file_changes_nothing() -> Result<()> {
    told(calm(), Story::broken_files)
}

#[test]
#[ignore = "needs root: cargo xtask test lab"]
fn a_drained_node_loses_no_new_connection() -> Result<()> {
    told(calm(), |story| story.node_drains(1).map(drop))
}

#[test]
#[ignore = "needs root: cargo xtask test lab"]
fn a_stopped_node_says_goodbye() -> Result<()> {
    told(calm(), |story| story.node_stops(1).map(drop))
}

#[test]
#[ignore = "needs root: cargo xtask test lab"]
fn a_withdrawal_reaches_the_routers_kernel_at_once() -> Result<()> {
    told(calm(), |story| story.withdrawal_times().map(drop))
}

/// Measured with BIRD, which writes to its kernel at once: what is left is ours and the wire's.
#[test]
#[ignore = "needs root: cargo xtask test lab"]
fn a_withdrawal_reaches_the_kernel_within_50_ms_of_the_decision() -> Result<()> {
    told(Options { router: Runs::Bird, ..calm() }, |story| {
        for _ in 0..3 {
            for took in story.withdrawal_times()? {
                within("a withdrawal", took, Duration::from_millis(50))?;
            }
        }
        Ok(())
    })
}

/// BFD of 50 ms × 3. FRR adds its 60 ms, so it is BIRD that must have switched within 200 ms.
#[test]
#[ignore = "needs root: cargo xtask test lab"]
fn a_killed_node_is_left_within_200_ms() -> Result<()> {
    let bfd = Duration::from_millis(50);
    for router in [Runs::Bird, Runs::Frr] {
        told(Options { bfd, router, ..Options::default() }, |story| {
            let took = story.node_dies(1)?.withdrawn_after;
            within("kill -9", took, Duration::from_millis(200) + story.fabric.router.share())
        })?;
    }
    Ok(())
}

/// BFD of 100 ms × 3.
#[test]
#[ignore = "needs root: cargo xtask test lab"]
fn a_hung_node_is_left_within_600_ms_and_returns_by_itself() -> Result<()> {
    told(Options::default(), |story| {
        within("SIGSTOP", story.node_hangs(1)?, Duration::from_millis(600))
    })
}

fn within(what: &str, took: Duration, allowed: Duration) -> Result<()> {
    ensure!(took <= allowed, "{what}: {took:?}, {allowed:?} allowed");
    Ok(())
}

#[test]
#[ignore = "needs root: cargo xtask test lab"]
fn a_lost_link_heals_by_itself() -> Result<()> {
    told_after(calm(), Story::plain_routes, |story| {
        story.link_fails(1, true)?;
        story.link_fails(2, false).map(drop)
    })
}

#[test]
#[ignore = "needs root: cargo xtask test lab"]
fn a_restarted_router_hears_everything_again() -> Result<()> {
    told(calm(), |story| story.router_restarts().map(drop))
}

#[test]
#[ignore = "needs root: cargo xtask test lab"]
fn datagrams_are_served_and_pings_answered() -> Result<()> {
    let backends = calm().backends;
    let options = Options { extra: echo_service(backends), ..calm() };
    told(options, Story::datagrams)
}

#[test]
#[ignore = "needs root: cargo xtask test lab"]
fn a_drained_backend_keeps_its_connections_only() -> Result<()> {
    told(calm(), Story::backends_are_spared)
}

#[test]
#[ignore = "needs root: cargo xtask test lab"]
fn a_vip_needs_its_minimum_of_backends() -> Result<()> {
    told(calm(), Story::minimum_and_neighbours)
}

#[test]
#[ignore = "needs root: cargo xtask test lab"]
fn traffic_follows_neighbours_and_routes() -> Result<()> {
    told(Options { nodes: 1, ..calm() }, Story::paths_change)
}

#[test]
#[ignore = "needs root: cargo xtask test lab"]
fn ten_thousand_vips_come_and_go() -> Result<()> {
    told(Options { nodes: 1, ..calm() }, |story| story.many_vips(10_000).map(drop))
}

#[test]
#[ignore = "needs root: cargo xtask test lab"]
fn a_flood_takes_no_session_down() -> Result<()> {
    told(calm(), |story| story.flooded(100_000).map(drop))
}

#[test]
#[ignore = "needs root: cargo xtask test lab"]
fn clients_on_one_port_and_backends_on_another() -> Result<()> {
    let options = Options { nodes: 1, ..calm() };
    told_after(options, Story::second_port, Story::two_arms)
}

#[test]
#[ignore = "needs root: cargo xtask test lab"]
fn connections_outlive_a_drained_node_and_its_return() -> Result<()> {
    told(Options { cluster: true, ..calm() }, |story| {
        story.drained_flows_go_on(1)?;
        story.a_node_joins_and_carries_on(1)
    })
}

#[test]
#[ignore = "needs root: cargo xtask test lab"]
fn a_stopping_node_lets_its_connections_end() -> Result<()> {
    told(Options { cluster: true, ..calm() }, |story| story.stopping_waits_for_flows(2))
}

//! What a client and the router see when something dies: the demo's scenario, asserted.
//!
//! The steps, and what each asserts, are in the lab crate (`lab::story`): the demo tells them, these
//! tests run them, alone and in the orders that matter. Needs root: `cargo xtask test lab`.

use anyhow::Result;
use dunlin::config::model::Config;
use lab::Binaries;
use lab::fabric::{Options, node_config};
use lab::story::{Story, Teller};
use std::path::Path;

/// The build that xtask made for the lab; without it, this test's own.
fn binaries() -> Result<Binaries> {
    let own = Path::new(env!("CARGO_BIN_EXE_dunlind"));
    match std::env::var_os("DUNLIN_BIN_DIR") {
        Some(dir) => Binaries::in_dir(Path::new(&dir)),
        None => Binaries::in_dir(own.parent().unwrap_or(own)),
    }
}

/// Run a story from two announced nodes on.
fn told(tell: impl FnOnce(&mut Story) -> Result<()>) -> Result<()> {
    told_from_the_beginning(|story| {
        story.announce()?;
        tell(story)
    })
}

/// Run a story; when it fails, its logs stay.
fn told_from_the_beginning(tell: impl FnOnce(&mut Story) -> Result<()>) -> Result<()> {
    let mut story = Story::begin(&binaries()?, Options::default(), Teller::new())?;
    let result = tell(&mut story);
    if let Err(error) = &result {
        story.failed(error)?;
    }
    result
}

#[test]
fn the_labs_configuration_is_valid() {
    let options = Options::default();
    for node in 1..=options.nodes {
        let text = node_config(node, Path::new("/run/dunlin-lab/api.sock"), &options);
        if let Err(errors) = Config::parse(&text, "node.toml") {
            panic!("{errors}\n{text}");
        }
    }
}

#[test]
#[ignore = "needs root: cargo xtask test lab"]
fn requests_spread_over_nodes_and_backends() -> Result<()> {
    told(|story| story.spread().map(drop))
}

#[test]
#[ignore = "needs root: cargo xtask test lab"]
fn a_dead_backend_gets_no_request_after_its_check_failed() -> Result<()> {
    told(|story| {
        for backend in 1..=story.fabric.options.backends {
            story.backend_dies(backend)?;
        }
        Ok(())
    })
}

#[test]
#[ignore = "needs root: cargo xtask test lab"]
fn vips_without_backends_are_withdrawn_and_come_back() -> Result<()> {
    told(|story| {
        for _ in 0..2 {
            story.all_backends_die()?;
        }
        story.spread().map(drop)
    })
}

#[test]
#[ignore = "needs root: cargo xtask test lab"]
fn any_frozen_worker_takes_its_node_out() -> Result<()> {
    told(|story| {
        for worker in 0..story.fabric.options.workers.len() {
            story.worker_freezes(1, worker as u16)?;
        }
        story.spread().map(drop)
    })
}

#[test]
#[ignore = "needs root: cargo xtask test lab"]
fn a_killed_node_is_replaced_and_returns() -> Result<()> {
    told(|story| {
        for node in [1, 2] {
            story.node_dies(node)?;
            story.node_returns(node)?;
        }
        story.spread().map(drop)
    })
}

#[test]
#[ignore = "needs root: cargo xtask test lab"]
fn the_demo_as_told() -> Result<()> {
    told_from_the_beginning(Story::run)
}

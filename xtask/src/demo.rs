//! `cargo xtask demo`.

use crate::{cargo, setup};
use anyhow::{Result, bail};
use lab::fabric::Options;
use lab::story::{Story, Teller};

/// Install, build, tell the story. Fails if any step of it fails.
pub fn run(keep: bool) -> Result<()> {
    setup::require_root("the demo")?;
    setup::install(setup::Purpose::Demo)?;
    let binaries = cargo::build_node()?;
    let mut story = Story::begin(&binaries, Options::default(), Teller::new())?;
    let result = story.run();
    if let Err(e) = &result {
        story.failed(e)?;
    } else {
        story.teller.end();
    }
    if keep {
        story.keep()?;
    }
    if result.is_err() {
        bail!("the demo failed");
    }
    Ok(())
}

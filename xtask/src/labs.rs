//! `cargo xtask lab …`: the demo's hosts to play with.

use crate::{cargo, setup};
use anyhow::{Result, bail};
use clap::Subcommand;
use lab::fabric::Options;
use lab::story::{Story, Teller};
use lab::{Found, State};

#[derive(Subcommand)]
pub enum Command {
    /// Lay out the hosts, start the nodes, and leave all of it up
    Up,
    /// Remove the labs that were left up
    Down {
        /// Only this one
        name: Option<String>,
    },
    /// Remove what labs left behind whose process died
    Clean,
    /// Show all labs on this machine
    List,
}

pub fn run(command: &Command) -> Result<()> {
    match command {
        Command::Up => up(),
        Command::Down { name } => down(name.as_deref()),
        Command::Clean => remove_all(|lab| matches!(lab.state, State::Dead | State::Logs)),
        Command::List => list(),
    }
}

fn up() -> Result<()> {
    setup::require_root("the lab")?;
    setup::install(setup::Purpose::Demo)?;
    let binaries = cargo::build_node()?;
    let mut story = Story::begin(&binaries, Options::default(), Teller::new())?;
    story.announce()?;
    story.keep()
}

fn down(name: Option<&str>) -> Result<()> {
    if let Some(name) = name
        && !lab::list()?.iter().any(|lab| lab.prefix == name)
    {
        bail!("there is no lab {name}; see cargo xtask lab list");
    }
    remove_all(|lab| match name {
        Some(name) => lab.prefix == name,
        None => lab.state == State::Kept,
    })
}

fn remove_all(chosen: impl Fn(&Found) -> bool) -> Result<()> {
    setup::require_root("removing a lab")?;
    let mut count = 0;
    for found in lab::list()?.iter().filter(|lab| chosen(lab)) {
        lab::remove(found)?;
        println!("removed {}", found.prefix);
        count += 1;
    }
    if count == 0 {
        println!("nothing to remove");
    }
    Ok(())
}

fn list() -> Result<()> {
    for found in lab::list()? {
        let state = match found.state {
            State::Running => "running",
            State::Kept => "left up; remove with: cargo xtask lab down",
            State::Dead => "dead; remove with: cargo xtask lab clean",
            State::Logs => "logs of a failed run; remove with: cargo xtask lab clean",
        };
        println!("{:<12} {:<24} {state}", found.prefix, found.dir.display());
    }
    Ok(())
}

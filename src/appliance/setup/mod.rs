//! `dunlin setup`: gets the node its configuration, and the machine its name and its network.
//!
//! At the first boot the configuration comes from a config drive, else from credentials, else from
//! whoever answers the wizard; it is checked by the parser that `dunlind` uses, and copied to the
//! state. From then on the state counts: a config drive that says something else is mentioned in the
//! log and not taken, until `dunlin factory-reset`.

pub mod console;
pub mod sources;
pub mod wizard;

#[cfg(test)]
mod tests;

use super::host::Host;
use super::network;
use super::upgrade::AUTHORITIES_KEPT;
use crate::config::Config;
use anyhow::{Context, Result, bail};
use sources::{CONFIG, Found};
use std::io::Write;

/// At boot: finds or asks for a configuration, and applies what the machine itself needs of it.
pub fn boot(host: &Host, log: &mut dyn Write) -> Result<()> {
    if host.root.exists(CONFIG) {
        return from_state(host, log);
    }
    let found = if let Some(found) = sources::outside(host, log)? {
        found
    } else {
        writeln!(log, "no configuration anywhere: the wizard asks for one on the console")?;
        console::wizard(host, log)?
    };
    writeln!(log, "configuration from the {}: node {}", found.source, found.config.node.name)?;
    take(host, &found)?;
    network::apply(host, &found.config)
}

/// By hand: the wizard, on this terminal. Gives the file that was written, or `None`.
pub fn by_hand(host: &Host) -> Result<Option<Found>> {
    let (input, output) = (std::io::stdin().lock(), std::io::stdout());
    let mut talk = wizard::Talk::new(input, output);
    if host.root.exists(CONFIG) {
        let question = format!("/{CONFIG} exists. Replace it?");
        if !talk.yes("replace", &question, false)? {
            return Ok(None);
        }
    }
    let found = wizard::run(host, &mut talk)?;
    take(host, &found)?;
    Ok(Some(found))
}

fn from_state(host: &Host, log: &mut dyn Write) -> Result<()> {
    let document = host.root.read_bytes(CONFIG).with_context(|| format!("/{CONFIG}"))?;
    let document = String::from_utf8_lossy(&document).into_owned();
    writeln!(log, "configuration from the state (/{CONFIG})")?;
    if let Some(drive) = sources::differing_drive(host, &document, log)? {
        writeln!(
            log,
            "the {drive} says something else and is NOT taken: the state counts. \
             `dunlin factory-reset` clears the state, and the next boot takes the drive"
        )?;
    }
    match Config::parse(&document, &format!("/{CONFIG}")) {
        Ok(config) => network::apply(host, &config),
        Err(errors) => {
            // Whoever mends it wants to log in.
            network::apply_kept(host)?;
            bail!("the configuration is not valid, and the node does not start:\n{errors}");
        }
    }
}

/// Into the state. Keys first: with the configuration there, nothing is taken from outside again.
fn take(host: &Host, found: &Found) -> Result<()> {
    if let Some(keys) = &found.keys {
        host.root.replace(network::KEYS_KEPT, keys.as_bytes(), 0o600)?;
    }
    if let Some(authorities) = &found.authorities {
        host.root.replace(AUTHORITIES_KEPT, authorities.as_bytes(), 0o644)?;
    }
    if let Some(name) = &found.hostname {
        network::keep_hostname(host, name)?;
    }
    host.root.replace(CONFIG, found.document.as_bytes(), 0o640)?;
    // The group may read it, as the node's own directory says; without the group, root alone.
    let _ = host.run("chgrp", &["dunlin", &host.root.path(CONFIG).display().to_string()]);
    Ok(())
}

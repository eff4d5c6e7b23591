//! `dunlin factory-reset`: the state is emptied at the next boot, before anything reads it.
//!
//! This leaves a marker in the state, which the first program of the next boot looks for; it empties
//! the state partition and removes the marker last, so that a power cut only delays it. The entry of
//! the boot menu does the same without the marker.

use super::host::{Host, Root};
use anyhow::{Result, bail};
use std::io::{BufRead, Write};

const MARKER: &str = "var/lib/dunlin/factory-reset";

/// Ask, leave the marker, reboot.
pub fn run(
    host: &Host,
    sure: bool,
    reboot: bool,
    input: &mut dyn BufRead,
    out: &mut dyn Write,
) -> Result<()> {
    if !host.root.is_appliance() {
        bail!("this is not the appliance: remove /etc/dunlin and /var/lib/dunlin by hand");
    }
    if !sure && !confirmed(&host.root, input, out)? {
        bail!("nothing is changed");
    }
    host.root.replace(MARKER, b"asked for by dunlin factory-reset\n", 0o600)?;
    writeln!(out, "The next boot empties the state.")?;
    if reboot {
        writeln!(out, "Rebooting.")?;
        host.run("systemctl", &["reboot"])?;
    }
    Ok(())
}

/// A word that nobody types by accident: the node's name.
fn confirmed(root: &Root, input: &mut dyn BufRead, out: &mut dyn Write) -> Result<bool> {
    let name = root.read("proc/sys/kernel/hostname").unwrap_or_else(|| "yes".to_owned());
    writeln!(
        out,
        "This removes the configuration, the keys, the logs and the SSH host keys of this node. The\n\
         next boot begins as a fresh image: config drive, credentials, or the wizard."
    )?;
    write!(out, "Type the node's name ({name}) to go on: ")?;
    out.flush()?;
    let mut line = String::new();
    input.read_line(&mut line)?;
    Ok(line.trim() == name)
}

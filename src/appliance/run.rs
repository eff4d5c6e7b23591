//! From arguments to an exit code.

use super::args::Command;
use super::host::Host;
use super::{machine, reset, setup};
use crate::cli::Arguments;
use anyhow::Result;
use std::io;
use std::process::ExitCode;

/// Do what a command says, on this machine. What goes wrong is told on standard error.
pub fn run(command: &Command, everywhere: &Arguments) -> ExitCode {
    match perform(command, everywhere) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("dunlin: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn perform(command: &Command, _everywhere: &Arguments) -> Result<ExitCode> {
    let host = Host::system();
    let mut out = io::stdout();
    match command {
        Command::Setup { boot: true } => setup::boot(&host, &mut out)?,
        Command::Setup { boot: false } => set_up_by_hand(&host)?,
        Command::Machine { dry_run, config } => machine::run(&host, config, *dry_run, &mut out)?,
        Command::FactoryReset { yes, no_reboot } => {
            reset::run(&host, *yes, !*no_reboot, &mut io::stdin().lock(), &mut out)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn set_up_by_hand(host: &Host) -> Result<()> {
    let Some(found) = setup::by_hand(host)? else { return Ok(()) };
    if host.root.is_appliance() {
        super::network::apply(host, &found.config)?;
        // Only what the new configuration changes: the network manager looks again by itself.
        let _ = host.run("networkctl", &["reload"]);
    }
    if host.root.exists("run/systemd/system") {
        host.run("systemctl", &["restart", "dunlin-machine.service", "dunlin.service"])?;
        println!("Started. `dunlin status` shows the node, `dunlin doctor` the machine.");
    } else {
        println!("Written. Next: `dunlin machine`, then dunlind.");
    }
    Ok(())
}

//! From arguments to an exit code.

use super::args::{Command, LeaveArguments};
use super::host::Host;
use super::node::Local;
use super::{banner, doctor, gate, machine, reset, setup, upgrade};
use crate::cli::Arguments;
use crate::cli::table::Style;
use anyhow::Result;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

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

fn perform(command: &Command, everywhere: &Arguments) -> Result<ExitCode> {
    let host = Host::system();
    let mut out = io::stdout();
    match command {
        Command::Setup { boot: true } => setup::boot(&host, &mut out)?,
        Command::Setup { boot: false } => set_up_by_hand(&host)?,
        Command::Machine { dry_run, config } => machine::run(&host, config, *dry_run, &mut out)?,
        Command::Doctor { config } => {
            let node = Local::new(&everywhere.socket)?;
            let report = doctor::Report::make(&host, &node, config);
            let text = match everywhere.json {
                true => serde_json::to_string(&report)? + "\n",
                false => doctor::show::text(&report, Style::of_stdout()),
            };
            out.write_all(text.as_bytes())?;
            return Ok(if report.has_problem() { ExitCode::FAILURE } else { ExitCode::SUCCESS });
        }
        Command::HealthGate { timeout, settle } => {
            let node = Local::new(&everywhere.socket)?;
            let limits = gate::Limits {
                timeout: Duration::from_secs(*timeout),
                settle: Duration::from_secs(*settle),
                look: Duration::from_millis(500),
            };
            return Ok(ExitCode::from(gate::run(&host.root, &node, limits, &mut out)?));
        }
        Command::Banner { every } => {
            let node = Local::new(&everywhere.socket)?;
            banner::run(&host, &node, Duration::from_secs(*every))?;
        }
        Command::Upgrade { bundle, force, leave } => {
            let node = Local::new(&everywhere.socket)?;
            upgrade::upgrade(&host, &node, bundle, options(*force, leave), &mut out)?;
        }
        Command::Rollback { leave } => {
            let node = Local::new(&everywhere.socket)?;
            upgrade::rollback(&host, &node, options(false, leave), &mut out)?;
        }
        Command::FactoryReset { yes, no_reboot } => {
            reset::run(&host, *yes, !*no_reboot, &mut io::stdin().lock(), &mut out)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn options(force: bool, leave: &LeaveArguments) -> upgrade::Options {
    let drain = Duration::from_secs(leave.drain);
    upgrade::Options { force, reboot: !leave.no_reboot, drain }
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

//! Arguments of the commands that look after the machine.

use clap::{Args, Subcommand};
use std::path::PathBuf;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Get a configuration: from a config drive, a credential, or by asking on the console
    Setup {
        /// At boot: take what is found, ask on every console only if nothing is, set up name,
        /// management network and keys
        #[arg(long)]
        boot: bool,
    },
    /// Prepare the machine: bind data ports for DPDK, reserve hugepages, keep cores free
    Machine {
        /// Say what would be done
        #[arg(long)]
        dry_run: bool,
        /// The node's configuration
        #[arg(long, value_name = "FILE", default_value = "/etc/dunlin/dunlin.toml")]
        config: PathBuf,
    },
    /// What this machine has, what was chosen and why, what is wrong, and what would make it faster
    Doctor {
        /// The node's configuration
        #[arg(long, value_name = "FILE", default_value = "/etc/dunlin/dunlin.toml")]
        config: PathBuf,
    },
    /// Judge this boot: 0 healthy, 1 go back to the version before, 3 not healthy, but stay
    HealthGate {
        /// For the node to become healthy
        #[arg(long, value_name = "SECONDS", env = "DUNLIN_HEALTH_TIMEOUT", default_value_t = 180)]
        timeout: u64,
        /// It must stay healthy for this long
        #[arg(long, value_name = "SECONDS", env = "DUNLIN_HEALTH_SETTLE", default_value_t = 5)]
        settle: u64,
    },
    /// Keep what the console shows above the log-in prompt fresh
    Banner {
        /// Between looks
        #[arg(long, value_name = "SECONDS", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=3600))]
        every: u64,
    },
    /// Install another version of the system in the other slot, and reboot into it
    Upgrade {
        /// Bundle: a file, `-`, http:// or https://
        #[arg(value_name = "FILE|URL")]
        bundle: String,
        /// Take an older version too, and call a version on trial good
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        leave: LeaveArguments,
    },
    /// Make the other version the next boot, and reboot into it
    Rollback {
        #[command(flatten)]
        leave: LeaveArguments,
    },
    /// Empty the state at the next boot: configuration, keys, logs
    FactoryReset {
        /// Do not ask
        #[arg(long)]
        yes: bool,
        /// Leave the reboot to somebody else
        #[arg(long)]
        no_reboot: bool,
    },
}

/// How the node is left.
#[derive(Debug, Args)]
pub struct LeaveArguments {
    /// Leave the reboot to somebody else
    #[arg(long)]
    pub no_reboot: bool,
    /// How long flows may take to end, once the node has withdrawn
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    pub drain: u64,
}

//! Arguments of the commands that look after the machine.

use clap::Subcommand;
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

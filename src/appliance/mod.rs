//! The machine around the node: what the appliance needs beyond `dunlind`.
//!
//! In: the machine (sysfs, block devices, consoles), `[management]` and the ports of the configuration,
//! the node's API. Out: a machine that is ready for the node, a configuration, upgraded system slots,
//! a verdict on a boot. Everything goes through [`host::Host`], so that tests give it a made-up
//! machine. It must never take away the card that the machine is managed by, write to the system slot
//! that runs, or leave the disk in a state that does not boot: docs/decisions/0007-appliance.md.
//!
//! `setup`, `machine` and `doctor` also work on a plain Debian machine.

pub mod args;
pub mod banner;
pub mod devices;
pub mod doctor;
#[cfg(test)]
pub(crate) mod fake;
pub mod gate;
pub mod host;
pub mod machine;
pub mod network;
pub mod nic;
pub mod node;
pub mod record;
pub mod reset;
pub mod setup;
pub mod upgrade;

mod run;

pub use args::Command;
pub use run::run;

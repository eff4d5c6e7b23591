//! The project's own commands: `cargo xtask …`.

mod bench;
mod cargo;
mod deb;
mod debian;
mod demo;
mod deny;
mod image;
mod labs;
mod machines;
mod setup;
mod test;

use anyhow::Result;
use clap::builder::PossibleValuesParser;
use clap::{Parser, Subcommand};
use lab::appliance::{MORE_STEPS, STEPS};
use std::process::ExitCode;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Dunlin's own commands")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Install the Debian packages that the other commands need
    Setup,
    /// Show the main job: VIPs announced by BGP, forwarded by DPDK, withdrawn on failure
    Demo {
        /// Leave the lab up at the end and say how to play with it
        #[arg(long)]
        keep: bool,
    },
    /// Run the tests, all of them or the groups named
    Test {
        /// Groups; `cargo xtask test --list` says which there are
        names: Vec<String>,
        /// List the groups
        #[arg(long)]
        list: bool,
    },
    /// Boot the appliance image in virtual machines: VIPs, upgrades, power cuts, Secure Boot
    TestImage {
        /// Take the images that an earlier run built
        #[arg(long)]
        reuse: bool,
        /// Only this step of those that need no router; `wizard` and what follows run only by this
        #[arg(long, value_parser = PossibleValuesParser::new(STEPS.into_iter().chain(MORE_STEPS)))]
        step: Option<String>,
    },
    /// Measure the packet path, and forwarding against dpdk-testpmd
    Bench(bench::Options),
    /// The demo's hosts, without the story
    #[command(subcommand)]
    Lab(labs::Command),
    /// Build the bootable appliance: disk images, installer, update bundle
    Image(image::Options),
    /// Build a Debian package of the node
    Deb(deb::Options),
    /// Rewrite the expected output of data-driven tests; read the difference before you commit it
    Bless,
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("error: {e:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::Setup => setup::install(setup::Purpose::Everything),
        Command::Demo { keep } => demo::run(keep),
        Command::Test { list: true, .. } => {
            test::list();
            Ok(())
        }
        Command::Test { names, list: false } => test::run(&names),
        Command::TestImage { reuse, step } => machines::image(reuse, step.as_deref()),
        Command::Bench(options) => bench::run(&options),
        Command::Lab(command) => labs::run(&command),
        Command::Image(options) => image::run(&options),
        Command::Deb(options) => deb::run(&options),
        Command::Bless => test::bless(),
    }
}

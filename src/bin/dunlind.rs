//! The node: `dunlind --config /etc/dunlin/dunlin.toml`.

use anyhow::Result;
use clap::{Parser, ValueEnum};
use dunlin::config::Config;
use std::path::PathBuf;
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;

#[derive(Debug, Clone, Copy, ValueEnum)]
enum LogFormat {
    /// For people and the journal.
    Text,
    /// One JSON object per line.
    Json,
}

/// An anycast layer-4 load balancer that is also a router.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// The node's configuration.
    #[arg(long, value_name = "FILE", default_value = "/etc/dunlin/dunlin.toml")]
    config: PathBuf,
    /// Check a configuration and exit: 0 if a node can run it, 1 if not.
    #[arg(long, value_name = "FILE")]
    check: Option<PathBuf>,
    /// What to log, e.g. `info` or `info,routing=debug`.
    #[arg(long, value_name = "FILTER", env = "DUNLIN_LOG", default_value = "info")]
    log: String,
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    log_format: LogFormat,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(file) = &arguments.check {
        return check(file);
    }
    match log(&arguments).and_then(|()| dunlin::node::run(&arguments.config)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("dunlind: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn check(file: &std::path::Path) -> ExitCode {
    match Config::load(file) {
        Ok(config) => {
            println!(
                "{}: valid: node {}, {} ports, {} services, {} BGP neighbours",
                file.display(),
                config.node.name,
                config.ports.len(),
                config.services.len(),
                config.bgp.as_ref().map_or(0, |bgp| bgp.neighbors.len()),
            );
            ExitCode::SUCCESS
        }
        Err(errors) => {
            eprintln!("{errors}");
            ExitCode::FAILURE
        }
    }
}

fn log(arguments: &Arguments) -> Result<()> {
    let filter = EnvFilter::try_new(&arguments.log)?;
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match arguments.log_format {
        LogFormat::Text => subscriber.with_ansi(false).init(),
        LogFormat::Json => subscriber.json().flatten_event(true).init(),
    }
    Ok(())
}

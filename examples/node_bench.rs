//! What can be measured of a node in one process, without DPDK: a flow table of many millions, the
//! latency that forwarding adds, and what two workers write that both use.
//!
//! ```text
//! cargo run --release --no-default-features --example node_bench -- table --flows 10000000
//! cargo run --release --no-default-features --example node_bench -- latency --seconds 3
//! ```
//! Each prints one line of JSON. `sharing` is for valgrind and for a reader of its trace:
//! `cargo xtask bench` is both.

#[path = "forward_bench/capture.rs"]
#[allow(dead_code, reason = "a part is used")]
mod capture;
#[path = "node_bench/latency.rs"]
mod latency;
#[path = "forward_bench/life.rs"]
#[allow(dead_code, reason = "a part is used")]
mod life;
#[path = "forward_bench/mirror.rs"]
mod mirror;
#[path = "forward_bench/node.rs"]
#[allow(dead_code, reason = "a part is used")]
mod node;
#[path = "node_bench/sharing.rs"]
mod sharing;
#[path = "node_bench/table.rs"]
mod table;

use anyhow::{Context, Result};
use clap::Parser;

#[derive(Debug, Parser)]
#[command(about = "A node's flow table, latency and sharing, in one process")]
enum Command {
    /// Establish, look up and expire flows.
    Table {
        #[arg(long, default_value_t = 10_000_000, value_parser = clap::value_parser!(u32).range(1..))]
        flows: u32,
    },
    /// Latency at half load, beside that of a loop which only passes frames on.
    Latency {
        /// Of each measurement.
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..))]
        seconds: u64,
        /// CPU of the forwarding thread.
        #[arg(long, default_value_t = 1)]
        core: usize,
        /// CPU of the generator.
        #[arg(long, default_value_t = 0)]
        main_core: usize,
    },
    /// Two workers, turn by turn, under `valgrind --tool=lackey --trace-mem=yes`.
    Sharing {
        /// Of each worker.
        #[arg(long, default_value_t = 32)]
        turns: u32,
    },
}

fn main() -> Result<()> {
    let line = match Command::parse() {
        Command::Table { flows } => table::measure(flows)?,
        Command::Latency { seconds, core, main_core } => {
            latency::measure(seconds, core, main_core)?
        }
        Command::Sharing { turns } => sharing::run(turns)?,
    };
    println!("{line}");
    Ok(())
}

/// Pin the calling thread to one CPU.
fn pin(core: usize) -> Result<()> {
    let mut cpus = nix::sched::CpuSet::new();
    cpus.set(core)
        .and_then(|()| nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &cpus))
        .with_context(|| format!("CPU {core}"))
}

//! `cargo xtask bench`: the packet path alone, then forwarding against DPDK's own test program, and
//! the table of what is required beside what was measured.
//!
//! Forwarding is counted per second of CPU time of the forwarding thread, and quoted as the ratio to
//! `dpdk-testpmd --forward-mode=5tswap` on the same capture, measured right before and right after:
//! neither other load nor the machine's speed moves it much.

mod forwarding;
mod hugepages;
pub mod instructions;
mod report;

use crate::{cargo, setup};
use anyhow::{Result, ensure};
use report::{Line, Requirement};

#[derive(clap::Args)]
pub struct Options {
    /// Only forwarding on DPDK
    #[arg(long, conflicts_with = "packet")]
    forward: bool,
    /// Only the packet path, without DPDK
    #[arg(long)]
    packet: bool,
    /// Numbers of flows to forward
    #[arg(long, value_delimiter = ',', default_values_t = [1_000, 16_000, 64_000, 1_000_000])]
    flows: Vec<u32>,
    /// Rounds of testpmd, Dunlin, testpmd; the median counts
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=99))]
    rounds: u32,
    /// Seconds of each measurement
    #[arg(long, default_value_t = 2)]
    seconds: u64,
    /// Fail when a figure falls short of its requirement
    #[arg(long, conflicts_with = "packet")]
    check: bool,
    /// Only count instructions, and make the figures the committed ones
    #[arg(long)]
    bless: bool,
    /// Do not write docs/performance.md
    #[arg(long)]
    dry: bool,
    /// Handed to `cargo bench`: a filter, or criterion's options
    #[arg(last = true)]
    criterion: Vec<String>,
}

pub fn run(options: &Options) -> Result<()> {
    setup::install(setup::Purpose::Bench)?;
    if options.bless {
        return instructions::bless();
    }
    if !options.forward {
        cargo::run(["bench", "--package", "dunlin", "--"], &options.criterion)?;
    }
    if options.packet {
        return Ok(());
    }
    let lines = measure(options)?;
    let table = report::table(&lines);
    println!("\n{table}");
    if !options.dry {
        report::write(&table, options.rounds, options.seconds)?;
    }
    let short: Vec<&str> =
        lines.iter().filter(|line| !line.met()).map(|line| line.what.as_str()).collect();
    ensure!(!options.check || short.is_empty(), "not met: {}", short.join("; "));
    Ok(())
}

/// Everything that needs DPDK, as lines of the table.
fn measure(options: &Options) -> Result<Vec<Line>> {
    setup::require_root("measuring on DPDK")?;
    instructions::build()?;
    let bench = forwarding::Bench::new(&options.flows, options.rounds, options.seconds)?;
    let mut lines = Vec::new();
    let mut first = None;
    for &flows in &options.flows {
        let udp = bench.compare(flows, &["--proto", "udp"])?;
        lines.push(Line {
            what: format!("established UDP, {flows} flows: ratio to 5tswap"),
            required: ratio_required(flows),
            measured: udp.ratio,
            detail: udp.detail(),
        });
        first.get_or_insert((flows, udp));
    }
    if let Some((flows, udp)) = &first {
        let others: [(&str, &[&str], f64); 2] = [
            ("TCP, 1 SYN : 15 ACK", &["--proto", "tcp"], 1.15),
            ("UDP over IPv6", &["--family", "v6"], 1.25),
        ];
        for (name, args, most) in others {
            let other = bench.compare(*flows, args)?;
            lines.push(Line {
                what: format!("{name}, {flows} flows: time to that of UDP over IPv4"),
                required: Requirement::AtMost(most),
                measured: other.ns / udp.ns,
                detail: other.detail(),
            });
        }
        let changing = bench.with_changes(*flows)?;
        lines.push(Line {
            what: format!("{flows} flows, while 1000 configuration changes a second are made"),
            required: Requirement::AtLeast { least: 0.95, goal: None },
            measured: changing,
            detail: "speed to that without".to_owned(),
        });
        lines.push(Line {
            what: "bytes per flow, everything".to_owned(),
            required: Requirement::AtMost(128.0),
            measured: udp.bytes_per_flow,
            detail: "table for 1 M flows".to_owned(),
        });
    }
    let life = bench.life()?;
    lines.push(Line {
        what: "new TCP flows per CPU second, whole life of 7 packets, million".to_owned(),
        required: Requirement::AtLeast { least: 1.0, goal: None },
        measured: life / 1e6,
        detail: "playing client and backend included".to_owned(),
    });
    for (name, instructions) in instructions::count()? {
        let required = match name.as_str() {
            instructions::LOOP_UDP => Requirement::AtMost(450.0),
            instructions::LOOP_TCP => Requirement::AtMost(500.0),
            _ => Requirement::Stated,
        };
        lines.push(Line {
            what: format!("instructions per packet, {name}"),
            required,
            measured: instructions,
            detail: "callgrind, 1000 flows".to_owned(),
        });
    }
    Ok(lines)
}

fn ratio_required(flows: u32) -> Requirement {
    let (least, goal) = match flows {
        1_000 => (0.40, 0.50),
        16_000 => (0.32, 0.40),
        64_000 => (0.25, 0.30),
        1_000_000 => (0.15, 0.20),
        _ => return Requirement::Stated,
    };
    Requirement::AtLeast { least, goal: Some(goal) }
}

//! `cargo xtask bench`: the packet path alone, then forwarding against DPDK's own test program.
//!
//! Forwarding is counted per second of CPU time of the forwarding thread, and quoted as the ratio to
//! `dpdk-testpmd --forward-mode=5tswap` on the same capture, measured right before and right after:
//! neither other load nor the machine's speed moves it much.

use crate::{cargo, setup};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Stdio};

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
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    /// Handed to `cargo bench`: a filter, or criterion's options
    #[arg(last = true)]
    criterion: Vec<String>,
}

pub fn run(options: &Options) -> Result<()> {
    setup::install(setup::Purpose::Bench)?;
    if !options.forward {
        cargo::run(["bench", "--package", "dunlin", "--"], &options.criterion)?;
    }
    if !options.packet {
        forward(options)?;
    }
    Ok(())
}

/// One size of the flow table.
struct Row {
    flows: u32,
    /// One per round.
    ratios: Vec<f64>,
    ours: Vec<f64>,
    reference: Vec<f64>,
}

fn forward(options: &Options) -> Result<()> {
    setup::require_root("measuring on DPDK")?;
    cargo::run(
        ["build", "--release", "--package", "dunlin", "--example", "forward_bench"],
        [""; 0],
    )?;
    let program = cargo::target_dir()?.join("release/examples/forward_bench");
    let mut rows = Vec::new();
    for flows in &options.flows {
        let mut row =
            Row { flows: *flows, ratios: Vec::new(), ours: Vec::new(), reference: Vec::new() };
        for round in 1..=options.rounds {
            let before = measure(&program, *flows, options.seconds, true)?;
            let ours = measure(&program, *flows, options.seconds, false)?;
            let after = measure(&program, *flows, options.seconds, true)?;
            let reference = f64::midpoint(before, after);
            println!(
                "{flows} flows, round {round}: testpmd {before:.1}, Dunlin {ours:.1}, testpmd \
                 {after:.1} Mpps per CPU second: {:.3}",
                ours / reference
            );
            row.ratios.push(ours / reference);
            row.ours.push(ours);
            row.reference.push(reference);
        }
        rows.push(row);
    }
    println!("\n| flows | testpmd 5tswap, ns | Dunlin, ns | ratio | spread |");
    println!("|---|---|---|---|---|");
    for row in &rows {
        println!(
            "| {} | {:.1} | {:.1} | {:.3} | {:.1} % |",
            row.flows,
            1000.0 / median(&row.reference),
            1000.0 / median(&row.ours),
            median(&row.ratios),
            spread(&row.ratios) * 100.0
        );
    }
    Ok(())
}

/// Million packets per CPU second.
fn measure(program: &Path, flows: u32, seconds: u64, reference: bool) -> Result<f64> {
    let mut command = Command::new(program);
    command.args(["--flows", &flows.to_string()]);
    command.args(["--seconds", &seconds.to_string()]);
    if reference {
        command.arg("--reference");
    }
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot start {}", program.display()))?;
    ensure!(output.status.success(), "{command:?}: {}", output.status);
    let line: Value = serde_json::from_slice(&output.stdout)
        .with_context(|| String::from_utf8_lossy(&output.stdout).into_owned())?;
    let number = |key: &str| {
        let value = line[key].as_f64();
        value.with_context(|| format!("no {key} in {line}"))
    };
    let (received, sent) = (number("ipackets")?, number("opackets")?);
    ensure!(sent >= 0.99 * received, "{sent} of {received} packets sent: this measures dropping");
    number("mpps_per_cpu_second")
}

fn sorted(values: &[f64]) -> Vec<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

/// 0 for no values.
fn median(values: &[f64]) -> f64 {
    let sorted = sorted(values);
    let middle = sorted.len() / 2;
    match sorted.get(middle) {
        Some(upper) if sorted.len() % 2 == 1 => *upper,
        Some(upper) => f64::midpoint(sorted[middle - 1], *upper),
        None => 0.0,
    }
}

/// Largest less smallest, as a share of the median.
fn spread(values: &[f64]) -> f64 {
    let sorted = sorted(values);
    match (sorted.first(), sorted.last()) {
        (Some(first), Some(last)) if *first > 0.0 => (last - first) / median(values),
        _ => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        let cases: [(&[f64], f64, f64); 4] = [
            (&[], 0.0, 0.0),
            (&[2.0], 2.0, 0.0),
            (&[3.0, 1.0, 2.0], 2.0, 1.0),
            (&[4.0, 1.0, 2.0, 3.0], 2.5, 1.2),
        ];
        for (values, middle, width) in cases {
            assert!((median(values) - middle).abs() < 1e-9, "{values:?}");
            assert!((spread(values) - width).abs() < 1e-9, "{values:?}");
        }
    }
}

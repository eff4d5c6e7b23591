//! Forwarding on DPDK, measured in rounds: testpmd, Dunlin, testpmd.

use super::hugepages::Hugepages;
use crate::cargo;
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// Flows where two workers or processes are measured.
const FEW: u64 = 1_000;

/// Runs `forward_bench`; holds the hugepages it needs.
pub struct Bench {
    program: PathBuf,
    rounds: u32,
    seconds: u64,
    _hugepages: Hugepages,
}

/// Medians over the rounds.
pub struct Compared {
    pub ratio: f64,
    /// Per packet.
    pub ns: f64,
    reference_ns: f64,
    spread: f64,
    pub bytes_per_flow: f64,
}

/// Of two ways, compared over and over: quartiles of the ratios.
pub struct Sliced {
    /// Not a number, if there was nothing to compare.
    pub median: f64,
    quartiles: [f64; 2],
    comparisons: f64,
    left_out: f64,
}

impl Sliced {
    fn read(line: &Value, key: &str) -> Result<Self> {
        let quartile = |n: usize| line[key][n].as_f64().unwrap_or(f64::NAN);
        Ok(Self {
            median: quartile(1),
            quartiles: [quartile(0), quartile(2)],
            comparisons: number(line, "comparisons")?,
            left_out: number(line, "left_out")?,
        })
    }

    /// Whether enough was compared to require something of it.
    pub fn says_something(&self) -> bool {
        self.comparisons >= 9.0
    }

    pub fn detail(&self) -> String {
        let [first, third] = self.quartiles;
        let left_out = match self.left_out {
            none if none < 1.0 => String::new(),
            some => format!("; {some} left out: the machine had not two CPUs to give then"),
        };
        format!(
            "{} comparisons of 30 ms each, half of them between {first:.3} and {third:.3}{left_out}",
            self.comparisons
        )
    }
}

impl Compared {
    pub fn detail(&self) -> String {
        format!(
            "{:.1} ns a packet, 5tswap {:.1} ns; ratio {:.3}, spread {:.1} %",
            self.ns,
            self.reference_ns,
            self.ratio,
            self.spread * 100.0
        )
    }
}

impl Bench {
    pub fn new(flows: &[u32], rounds: u32, seconds: u64) -> Result<Self> {
        // As `forward_bench` reckons: a buffer per flow, and those in flight; a table for a million.
        let mib = |flows| ((flows + 16_384) * 2560 + 1_000_000 * 128) / (1 << 20) + 192;
        let most = u64::from(flows.iter().copied().max().unwrap_or(0));
        // Two processes through memif; two workers.
        let mib = mib(most).max(2 * mib(FEW));
        Ok(Self {
            program: cargo::target_dir()?.join("release/examples/forward_bench"),
            rounds,
            seconds,
            _hugepages: Hugepages::reserve(mib + 64)?,
        })
    }

    /// Dunlin to testpmd.
    pub fn compare(&self, flows: u32, args: &[&str]) -> Result<Compared> {
        let (mut ratios, mut ours, mut references) = (Vec::new(), Vec::new(), Vec::new());
        let mut bytes_per_flow = 0.0;
        for round in 1..=self.rounds {
            let before = self.ns(&self.forward(flows, args, &["--reference"])?)?;
            let line = self.forward(flows, args, &[])?;
            let own = self.ns(&line)?;
            let after = self.ns(&self.forward(flows, args, &["--reference"])?)?;
            // Speeds are averaged, not times.
            let reference = 2.0 / (1.0 / before + 1.0 / after);
            println!(
                "{flows} flows {}, round {round}: testpmd {before:.1}, Dunlin {own:.1}, testpmd \
                 {after:.1} ns: ratio {:.3}",
                args.join(" "),
                reference / own
            );
            ratios.push(reference / own);
            ours.push(own);
            references.push(reference);
            bytes_per_flow = number(&line, "bytes_per_flow")?;
        }
        Ok(Compared {
            ratio: median(&ratios),
            ns: median(&ours),
            reference_ns: median(&references),
            spread: spread(&ratios),
            bytes_per_flow,
        })
    }

    /// Time per packet of another kind of traffic, to that of UDP over IPv4 measured right before and
    /// right after. Median of three times the rounds: what is asked for is near what is there.
    pub fn to_udp(&self, flows: u32, args: &[&str]) -> Result<f64> {
        let mut ratios = Vec::new();
        for round in 1..=3 * self.rounds {
            let before = self.ns(&self.forward(flows, &[], &[])?)?;
            let other = self.ns(&self.forward(flows, args, &[])?)?;
            let after = self.ns(&self.forward(flows, &[], &[])?)?;
            let ratio = other / (2.0 / (1.0 / before + 1.0 / after));
            println!(
                "{flows} flows {}, round {round}: UDP {before:.1}, this {other:.1}, UDP {after:.1} \
                 ns: {ratio:.3}",
                args.join(" ")
            );
            ratios.push(ratio);
        }
        Ok(median(&ratios))
    }

    /// Speed while tables are published 1000 times a second, to the speed without, by CPU time.
    pub fn with_changes(&self, flows: u32) -> Result<Sliced> {
        let line = self.slices(flows, &["--changes-per-second", "1000"])?;
        println!("with changes: {line}");
        Sliced::read(&line, "by_cpu")
    }

    /// Whole connections per CPU second.
    pub fn life(&self) -> Result<f64> {
        let mut all = Vec::new();
        for round in 1..=self.rounds {
            let line = self.run(&["--life"])?;
            let connections = number(&line, "connections_per_cpu_second")?;
            println!("whole connections, round {round}: {connections:.0} per CPU second");
            all.push(connections);
        }
        Ok(median(&all))
    }

    /// Two workers to one, flows and queue of their own: packets per CPU second, all together, and
    /// per second.
    pub fn workers(&self, flows: u32) -> Result<(Sliced, Sliced)> {
        let line = self.slices(flows, &["--core", "1", "--workers", "2"])?;
        println!("two workers: {line}");
        Ok((Sliced::read(&line, "by_cpu")?, Sliced::read(&line, "by_clock")?))
    }

    /// Two ways compared, in slices of one run.
    fn slices(&self, flows: u32, args: &[&str]) -> Result<Value> {
        let (flows, seconds) = (flows.to_string(), (self.seconds * 6).to_string());
        let common = ["--slices", "--flows", flows.as_str(), "--seconds", seconds.as_str()];
        self.run(&[&common[..], args].concat())
    }

    /// Both directions through memif: ratio to testpmd, nanoseconds of the forwarder per frame,
    /// and frames lost by either.
    pub fn memif(&self, flows: u32) -> Result<(f64, f64, f64)> {
        let (mut ratios, mut ours, mut lost) = (Vec::new(), Vec::new(), 0.0);
        for round in 1..=self.rounds {
            let reference = self.forward(flows, &["--memif", "--reference"], &[])?;
            let own = self.forward(flows, &["--memif"], &[])?;
            let ratio = self.ns(&reference)? / self.ns(&own)?;
            lost += number(&reference, "lost")? + number(&own, "lost")?;
            println!("memif, round {round}: ratio {ratio:.3}");
            ratios.push(ratio);
            ours.push(self.ns(&own)?);
        }
        Ok((median(&ratios), median(&ours), lost))
    }

    fn forward(&self, flows: u32, args: &[&str], more: &[&str]) -> Result<Value> {
        let flows = flows.to_string();
        let all: Vec<&str> = ["--flows", flows.as_str()]
            .into_iter()
            .chain(args.iter().chain(more).copied())
            .collect();
        let line = self.run(&all)?;
        let (received, sent) = (number(&line, "ipackets")?, number(&line, "opackets")?);
        ensure!(
            sent >= 0.99 * received,
            "{sent} of {received} packets sent: this measures dropping"
        );
        Ok(line)
    }

    fn run(&self, args: &[&str]) -> Result<Value> {
        let mut command = Command::new(&self.program);
        if !args.contains(&"--seconds") {
            command.args(["--seconds", &self.seconds.to_string()]);
        }
        command.args(args);
        let output = command
            .stderr(Stdio::inherit())
            .output()
            .with_context(|| format!("cannot start {}", self.program.display()))?;
        ensure!(output.status.success(), "{command:?}: {}", output.status);
        serde_json::from_slice(&output.stdout)
            .with_context(|| String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn ns(&self, line: &Value) -> Result<f64> {
        number(line, "ns_per_packet")
    }
}

fn number(line: &Value, key: &str) -> Result<f64> {
    line[key].as_f64().with_context(|| format!("no {key} in {line}"))
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

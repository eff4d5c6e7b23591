//! `cargo xtask bench`: the table of what is required beside what was measured.
//!
//! Forwarding is counted per second of CPU time of the forwarding thread, and quoted as the ratio to
//! `dpdk-testpmd --forward-mode=5tswap` on the same capture, measured right before and right after:
//! neither other load nor the machine's speed moves it much.

mod forwarding;
mod hugepages;
pub mod instructions;
mod node;
mod report;
mod sharing;

use crate::{cargo, setup};
use anyhow::{Result, ensure};
use report::{Line, Requirement};

#[derive(clap::Args)]
pub struct Options {
    /// Each stage of the packet path alone, by `cargo bench`, instead
    #[arg(long)]
    packet: bool,
    /// Numbers of flows to forward
    #[arg(long, value_delimiter = ',', default_values_t = [1_000, 16_000, 64_000, 1_000_000])]
    flows: Vec<u32>,
    /// Rounds of testpmd, Dunlin, testpmd; the median counts
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=99))]
    rounds: u32,
    /// Seconds of each measurement
    #[arg(long, default_value_t = 1)]
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
    if options.packet {
        return cargo::run(["bench", "--package", "dunlin", "--"], &options.criterion);
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
                measured: bench.to_udp(*flows, args)?,
                detail: other.detail(),
            });
        }
        let changing = bench.with_changes(*flows)?;
        lines.push(Line {
            what: format!("{flows} flows, while 1000 configuration changes a second are made"),
            required: Requirement::AtLeast { least: 0.95, goal: None },
            measured: changing.median,
            detail: format!("speed to that without; {}", changing.detail()),
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
    let few = options.flows.first().copied().unwrap_or(1000).min(1000);
    lines.extend(two_workers(&bench, few)?);
    let (ratio, ns, lost) = bench.memif(few)?;
    lines.push(Line {
        what: "both directions through memif, reflecting backend: ratio to 5tswap".to_owned(),
        required: Requirement::Stated,
        measured: ratio,
        detail: format!("{ns:.1} ns a packet, zero-copy client in another process"),
    });
    lines.push(Line {
        what: "packets lost meanwhile".to_owned(),
        required: Requirement::AtMost(0.0),
        measured: lost,
        detail: "of those under way through memif".to_owned(),
    });
    lines.extend(node::measure(options.seconds)?);
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

fn two_workers(bench: &forwarding::Bench, flows: u32) -> Result<Vec<Line>> {
    let least = Requirement::AtLeast { least: 1.9, goal: None };
    let quiet = quiet();
    let (by_cpu, by_clock) = bench.workers(flows)?;
    let sharing = sharing::count()?;
    Ok(vec![
        Line {
            what: "two workers to one, packets per CPU second".to_owned(),
            required: if by_cpu.says_something() { least } else { Requirement::Stated },
            measured: by_cpu.median,
            detail: format!("a queue and {flows} flows each; {}", by_cpu.detail()),
        },
        Line {
            what: "two workers to one, packets per second".to_owned(),
            // A machine that does other things meanwhile has no two CPUs to give.
            required: if quiet && by_clock.says_something() { least } else { Requirement::Stated },
            measured: by_clock.median,
            detail: format!("required when nothing else wants the CPUs; {}", by_clock.detail()),
        },
        Line {
            what: "stores to cache lines that both workers use, per packet".to_owned(),
            required: Requirement::AtMost(0.0),
            measured: sharing.shared_stores as f64 / sharing.packets,
            detail: format!(
                "{} of {} stores, to {} lines, in {} packets; {} lines are only read by both; \
                 trace by valgrind's lackey",
                sharing.shared_stores,
                sharing.stores,
                sharing.shared_lines,
                sharing.packets,
                sharing.read_lines
            ),
        },
    ])
}

/// Whether the CPUs are idle but for us.
fn quiet() -> bool {
    let text = std::fs::read_to_string("/proc/pressure/cpu").unwrap_or_default();
    let average = text.split_whitespace().find_map(|word| word.strip_prefix("avg10="));
    average.and_then(|number| number.parse::<f64>().ok()).is_some_and(|share| share < 5.0)
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

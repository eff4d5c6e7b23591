//! Instructions per packet, counted by callgrind: the same on every run, whatever else the machine
//! does. Compared with the figures committed in `benches/instructions.json`.

use crate::cargo;
use anyhow::{Context, Result, bail, ensure};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Growth over the committed figure that is an error.
const TOLERANCE: f64 = 0.03;
/// Two runs of so many packets; what they differ by is the price of the packets they differ by.
const PACKETS: [u32; 2] = [50_000, 250_000];
const FLOWS: &str = "1000";

/// What is counted.
struct Case {
    name: &'static str,
    /// The worker's loop with DPDK's pcap port, or the packet path alone.
    whole_loop: bool,
    args: &'static [&'static str],
}

pub const LOOP_UDP: &str = "worker loop, UDP over IPv4";
pub const LOOP_TCP: &str = "worker loop, TCP over IPv4";

const CASES: &[Case] = &[
    Case { name: LOOP_UDP, whole_loop: true, args: &["--proto", "udp"] },
    Case { name: LOOP_TCP, whole_loop: true, args: &["--proto", "tcp"] },
    Case {
        name: "worker loop, UDP over IPv6",
        whole_loop: true,
        args: &["--proto", "udp", "--family", "v6"],
    },
    Case { name: "packet path, UDP over IPv4", whole_loop: false, args: &["udp4"] },
    Case { name: "packet path, TCP over IPv4", whole_loop: false, args: &["tcp4"] },
];

pub type Figures = BTreeMap<String, f64>;

/// Fails when a figure has grown by more than [`TOLERANCE`].
pub fn check() -> Result<()> {
    let now = count()?;
    let committed = committed()?;
    let mut grown = Vec::new();
    for (name, figure) in &now {
        let Some(before) = committed.get(name) else {
            bail!("{} has no figure for {name}: `cargo xtask bench --bless`", path().display());
        };
        println!("{name:<30}{figure:>8.1}  committed {before:.1}");
        if *figure > before * (1.0 + TOLERANCE) {
            grown.push(format!("{name}: {before:.1} before, {figure:.1} now"));
        }
    }
    ensure!(
        grown.is_empty(),
        "instructions per packet have grown by more than 3 %: {}. If the reason is worth it (or \
         the compiler is another), run `cargo xtask bench --bless`",
        grown.join("; ")
    );
    Ok(())
}

/// Make today's figures the committed ones.
pub fn bless() -> Result<()> {
    let figures: Figures =
        count()?.into_iter().map(|(name, figure)| (name, (figure * 10.0).round() / 10.0)).collect();
    let text = serde_json::to_string_pretty(&figures)? + "\n";
    std::fs::write(path(), text).with_context(|| path().display().to_string())?;
    println!("{} written", path().display());
    Ok(())
}

/// Instructions per packet of each case.
pub fn count() -> Result<Figures> {
    build()?;
    let examples = cargo::target_dir()?.join("release/examples");
    let mut figures = Figures::new();
    for case in CASES {
        let runs = PACKETS.map(|packets| run(&examples, case, packets));
        let [(few, little), (many, much)] = match runs {
            [Ok(short), Ok(long)] => [short, long],
            [Err(e), _] | [_, Err(e)] => return Err(e.context(case.name)),
        };
        ensure!(many > few, "{}: {few} and {many} packets", case.name);
        figures.insert(case.name.to_owned(), (much - little) as f64 / (many - few) as f64);
    }
    Ok(figures)
}

/// The programs that are measured, in one build.
pub fn build() -> Result<()> {
    let examples =
        ["--example", "forward_bench", "--example", "node_bench", "--example", "packet_path"];
    cargo::run(["build", "--release", "--package", "dunlin"], examples)
}

/// Packets forwarded, and instructions of the whole process.
fn run(examples: &Path, case: &Case, packets: u32) -> Result<(u64, u64)> {
    let packets = packets.to_string();
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--fair-sched=yes"]);
    if case.whole_loop {
        command.arg(examples.join("forward_bench"));
        command.args(["--no-hugepages", "--max-flows", "4096", "--core", "0"]);
        command.args(["--flows", FLOWS, "--packets", &packets]).args(case.args);
    } else {
        command.arg(examples.join("packet_path")).args(case.args).args([FLOWS, &packets]);
    }
    let output = command.output().context("valgrind does not start: `cargo xtask setup`")?;
    let (stdout, stderr) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{command:?}: {}\n{stderr}", output.status);
    let collected = stderr.lines().find_map(|line| line.split_once("Collected : "));
    let instructions = collected.and_then(|(_, number)| number.trim().parse().ok());
    let forwarded = if case.whole_loop {
        let line: serde_json::Value = serde_json::from_str(&stdout)?;
        line["total_packets"].as_u64()
    } else {
        // "udp4: 100000 frames over …"
        stdout.split_whitespace().nth(1).and_then(|number| number.parse().ok())
    };
    forwarded
        .zip(instructions)
        .with_context(|| format!("{command:?} answered {stdout}, valgrind {stderr}"))
}

fn path() -> PathBuf {
    cargo::root().join("benches/instructions.json")
}

fn committed() -> Result<Figures> {
    let path = path();
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    serde_json::from_str(&text).with_context(|| path.display().to_string())
}

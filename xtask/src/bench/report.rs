//! The table of requirements and measurements, on the screen and in docs/performance.md.

use crate::cargo;
use anyhow::{Context, Result};
use std::fmt::Write;
use std::process::Command;

/// The generated part of the page is between these.
const BEGIN: &str = "<!-- written by `cargo xtask bench` from here -->";
const END: &str = "<!-- to here -->";

#[derive(Debug, Clone, Copy)]
pub enum Requirement {
    AtLeast {
        least: f64,
        goal: Option<f64>,
    },
    AtMost(f64),
    /// Measured, nothing required.
    Stated,
}

pub struct Line {
    pub what: String,
    pub required: Requirement,
    pub measured: f64,
    pub detail: String,
}

impl Line {
    pub fn met(&self) -> bool {
        match self.required {
            Requirement::AtLeast { least, .. } => self.measured >= least,
            Requirement::AtMost(most) => self.measured <= most,
            Requirement::Stated => true,
        }
    }

    fn verdict(&self) -> &'static str {
        match self.required {
            Requirement::Stated => "",
            Requirement::AtLeast { goal: Some(goal), .. } if self.measured >= goal => "goal met",
            _ if self.met() => "met",
            _ => "**not met**",
        }
    }
}

impl std::fmt::Display for Requirement {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::AtLeast { least, goal: Some(goal) } => {
                write!(f, "at least {least:.2}, goal {goal:.2}")
            }
            Self::AtLeast { least, goal: None } => write!(f, "at least {least:.2}"),
            Self::AtMost(most) => write!(f, "at most {most}"),
            Self::Stated => write!(f, "stated"),
        }
    }
}

/// In Markdown.
pub fn table(lines: &[Line]) -> String {
    let mut table = String::from("| | required | measured | | |\n|---|---|---|---|---|\n");
    for line in lines {
        let measured = if line.measured < 10.0 {
            format!("{:.3}", line.measured)
        } else {
            format!("{:.1}", line.measured)
        };
        let Line { what, required, detail, .. } = line;
        // Writing to a String cannot fail.
        let _ =
            writeln!(table, "| {what} | {required} | {measured} | {} | {detail} |", line.verdict());
    }
    table
}

/// Put the table into docs/performance.md, in place of the last one.
pub fn write(table: &str, rounds: u32, seconds: u64) -> Result<()> {
    let path = cargo::root().join("docs/performance.md");
    let page = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let (before, rest) = page.split_once(BEGIN).context("docs/performance.md: no place for it")?;
    let (_, after) = rest.split_once(END).context("docs/performance.md: the place does not end")?;
    let machine = machine();
    let written = format!(
        "{before}{BEGIN}\n\n{machine}\n\nCommand: `cargo xtask bench --rounds {rounds} \
         --seconds {seconds}`.\n\n{table}\n{END}{after}"
    );
    std::fs::write(&path, written).with_context(|| path.display().to_string())?;
    println!("{} written", path.display());
    Ok(())
}

/// Where and when this was.
fn machine() -> String {
    let line = |program: &str, args: &[&str]| {
        let output = Command::new(program).args(args).output().ok();
        let text = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
        text.filter(|text| !text.is_empty()).unwrap_or_else(|| "unknown".to_owned())
    };
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let cores = cpu.lines().filter(|line| line.starts_with("processor")).count();
    format!(
        "{}, {cores} × {}, Linux {}, DPDK {}, {}.",
        line("date", &["-u", "+%Y-%m-%d %H:%M UTC"]),
        model.map_or("unknown CPU", |(_, name)| name.trim()),
        line("uname", &["-r"]),
        line("pkg-config", &["--modversion", "libdpdk"]),
        line("rustc", &["--version"]),
    )
}

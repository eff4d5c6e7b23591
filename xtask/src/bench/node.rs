//! What `node_bench` measures without DPDK: a large flow table, and latency.

use super::report::{Line, Requirement};
use crate::cargo;
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::process::{Command, Stdio};

const FLOWS: u32 = 10_000_000;

pub fn measure(seconds: u64) -> Result<Vec<Line>> {
    let mut lines = table()?;
    lines.extend(latency(seconds)?);
    Ok(lines)
}

fn table() -> Result<Vec<Line>> {
    let line = run(&["table", "--flows", &FLOWS.to_string()])?;
    let figure = |key| number(&line, key);
    Ok(vec![Line {
        what: format!(
            "{} M flows established, looked up, expired: peak memory, GB",
            FLOWS / 1_000_000
        ),
        required: Requirement::AtMost(1.5),
        measured: figure("peak_rss_bytes")? / 1e9,
        detail: format!(
            "whole process; {:.0}, {:.0} and {:.0} ns each, {:.0} bytes per flow",
            figure("establish_ns")?,
            figure("look_up_ns")?,
            figure("expire_ns")?,
            figure("bytes_per_flow")?
        ),
    }])
}

fn latency(seconds: u64) -> Result<Vec<Line>> {
    let line = run(&["latency", "--seconds", &seconds.to_string()])?;
    let figures = |key: &str| -> Result<Vec<f64>> {
        let all = line[key].as_array().with_context(|| format!("no {key} in {line}"))?;
        Ok(all.iter().filter_map(Value::as_f64).collect())
    };
    let (with, without) = (figures("worker_ns")?, figures("bare_ns")?);
    let load = format!(
        "{:.1} of {:.1} Mpps through in-process rings",
        number(&line, "load_mpps")?,
        number(&line, "full_load_mpps")?
    );
    let each = figures("percentiles")?.into_iter().zip(with.into_iter().zip(without));
    Ok(each
        .map(|(percentile, (with, without))| Line {
            what: format!("latency added at 50 % load, p{percentile}, µs"),
            required: Requirement::Stated,
            measured: (with - without) / 1e3,
            detail: format!(
                "{:.2} µs, a loop that only passes frames on {:.2} µs; {load}",
                with / 1e3,
                without / 1e3
            ),
        })
        .collect())
}

fn run(args: &[&str]) -> Result<Value> {
    let program = cargo::target_dir()?.join("release/examples/node_bench");
    let mut command = Command::new(&program);
    let output = command
        .args(args)
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot start {}", program.display()))?;
    ensure!(output.status.success(), "{command:?}: {}", output.status);
    let text = String::from_utf8_lossy(&output.stdout);
    println!("{}", text.trim());
    serde_json::from_str(&text).with_context(|| text.into_owned())
}

fn number(line: &Value, key: &str) -> Result<f64> {
    line[key].as_f64().with_context(|| format!("no {key} in {line}"))
}

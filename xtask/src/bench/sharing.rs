//! What two workers write that both use, counted from a trace of every memory access.
//!
//! Valgrind's lackey prints each load and store of `node_bench sharing`, in which two workers take
//! turns. Marks that the program writes say whose turn it is, so every access between them has an
//! owner. A cache line is shared if both workers access it during their turns; stores to such lines
//! are what would move lines between cores. Nothing has to be known of what lies where, but for the
//! stack of the one thread that turns both, which is left out.

use crate::cargo;
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};

const LINE: u64 = 64;
const TURNS: &str = "32";

/// Of both workers together.
pub struct Sharing {
    pub packets: f64,
    /// Stores to lines that both workers access.
    pub shared_stores: u64,
    /// All stores.
    pub stores: u64,
    pub shared_lines: usize,
    /// Lines that both only read.
    pub read_lines: usize,
}

/// Accesses to one line, by worker.
#[derive(Default)]
struct Line {
    accessed: [bool; 2],
    stores: u64,
}

pub fn count() -> Result<Sharing> {
    let program = cargo::target_dir()?.join("release/examples/node_bench");
    let mut command = Command::new("valgrind");
    command.args(["--tool=lackey", "--trace-mem=yes", "--fair-sched=yes"]);
    command.arg(&program).args(["sharing", "--turns", TURNS]);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("valgrind does not start: `cargo xtask setup`")?;
    let mut go = child.stdin.take().context("stdin")?;
    let mut output = BufReader::new(child.stdout.take().context("stdout")?);
    let trace = BufReader::with_capacity(1 << 20, child.stderr.take().context("stderr")?);
    // The program says where its marks are and waits; meanwhile the trace must be taken away.
    let (sender, places) = std::sync::mpsc::sync_channel(1);
    let said = std::thread::spawn(move || -> Result<Value> {
        let mut line = String::new();
        output.read_line(&mut line)?;
        sender.send(places_of(&line)?).context("nobody reads the trace")?;
        go.write_all(b"\n")?;
        let mut rest = String::new();
        output.read_to_string(&mut rest)?;
        serde_json::from_str(&rest).with_context(|| rest)
    });
    let lines = read(trace, &places)?;
    let status = child.wait()?;
    ensure!(status.success(), "{command:?}: {status}");
    let said = said.join().map_err(|_| anyhow::anyhow!("the reader panicked"))??;
    let both: Vec<&Line> = lines.values().filter(|line| line.accessed == [true; 2]).collect();
    Ok(Sharing {
        packets: said["packets"].as_f64().context("no number of packets")?,
        shared_stores: both.iter().map(|line| line.stores).sum(),
        stores: lines.values().map(|line| line.stores).sum(),
        shared_lines: both.iter().filter(|line| line.stores > 0).count(),
        read_lines: both.iter().filter(|line| line.stores == 0).count(),
    })
}

/// What the program says of itself first.
struct Places {
    /// Written at the beginnings of the workers' turns, and at the end of a turn.
    marks: [u64; 3],
    /// Of the thread that turns both.
    stack: std::ops::Range<u64>,
}

fn places_of(line: &str) -> Result<Places> {
    let said: Value = serde_json::from_str(line).with_context(|| line.to_owned())?;
    let numbers = |key: &str| -> Vec<u64> {
        said[key].as_array().into_iter().flatten().filter_map(Value::as_u64).collect()
    };
    let wrong = |numbers: Vec<u64>| anyhow::anyhow!("marks or stack: {numbers:?}");
    let marks = numbers("marks").try_into().map_err(wrong)?;
    let [low, high] = numbers("stack").try_into().map_err(wrong)?;
    Ok(Places { marks, stack: low..high })
}

/// Lines accessed during turns, by number.
fn read(
    mut trace: impl BufRead,
    places: &std::sync::mpsc::Receiver<Places>,
) -> Result<HashMap<u64, Line>> {
    let mut lines = HashMap::<u64, Line>::new();
    let mut known: Option<Places> = None;
    let mut whose = None;
    let mut text = Vec::new();
    while trace.read_until(b'\n', &mut text)? > 0 {
        // "I  04012f50,3", " L 1ffeff,8", " S …", " M …"
        if let Some((address, size, stores)) = access(&text) {
            // The program began no turn before it told where the marks are.
            known = known.or_else(|| places.try_recv().ok());
            let Some(Places { marks, stack }) = &known else {
                text.clear();
                continue;
            };
            match marks.iter().position(|&mark| mark == address) {
                Some(2) => whose = None,
                Some(worker) => whose = Some(worker),
                None if stack.contains(&address) => {}
                None => {
                    for number in address / LINE..=(address + size - 1) / LINE {
                        let Some(worker) = whose else { break };
                        let line = lines.entry(number).or_default();
                        line.accessed[worker] = true;
                        line.stores += u64::from(stores);
                    }
                }
            }
        }
        text.clear();
    }
    Ok(lines)
}

/// Address, size, and whether it stores. `None`: no load or store.
fn access(line: &[u8]) -> Option<(u64, u64, bool)> {
    let [b' ', kind @ (b'L' | b'S' | b'M'), b' ', rest @ ..] = line else { return None };
    let (address, size) = std::str::from_utf8(rest).ok()?.trim_end().split_once(',')?;
    let size = size.parse().ok().filter(|&size| size > 0)?;
    Some((u64::from_str_radix(address, 16).ok()?, size, *kind != b'L'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_lines_that_both_workers_use_are_shared() {
        let trace = "==1== Lackey\n S 1000,8\nI  0000,3\n S a0,8\n S 2000,8\n L 3000,4\n S 4038,16\n \
                     S 8000,8\n S a2,1\n S 9000,8\n M a1,8\n L 2008,8\n L 3000,4\n L 4040,8\n S 8000,8\n S a2,1\n";
        let (sender, places) = std::sync::mpsc::sync_channel(1);
        let said = r#"{"marks": [160, 161, 162], "stack": [32768, 36864]}"#;
        sender.send(places_of(said).unwrap()).unwrap();
        let lines = read(trace.as_bytes(), &places).unwrap();
        let mut shared: Vec<(u64, u64)> = lines
            .iter()
            .filter(|(_, line)| line.accessed == [true; 2])
            .map(|(number, line)| (number * LINE, line.stores))
            .collect();
        shared.sort_unstable();
        assert_eq!(shared, [(0x2000, 1), (0x3000, 0), (0x4040, 1)]);
        assert!(!lines.contains_key(&(0x1000 / LINE)) && !lines.contains_key(&(0x9000 / LINE)));
    }
}

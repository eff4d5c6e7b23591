//! The packet path, case by case: frame in, verdict, frame out.
//!
//! The cases are data, in `tests/fixtures/packet_path/*.cases`. Each is a name, a sentence, a
//! set-up and steps:
//!
//! ```text
//! case a new flow, UDP over IPv4
//! A request to a service leaves from a LIP toward its backend.
//! setup plain
//! > udp 198.51.100.7:40000 192.0.2.1:53 payload=68656c6c6f
//!   in 020000000010…
//!   verdict transmit on port 1
//!   out 02000000010d…
//!   = udp 10.1.0.1:1024 > 10.2.0.13:5353, ttl 63, …
//! > reply payload=776f726c64
//! ```
//!
//! `>` is a frame (the language is in `support/frames.rs`; `reply` answers the frame sent last, and
//! `QUOTE` is its IP packet),
//! `@ MS` lets time pass, `! …` changes the tables. The indented lines are what happened. A case
//! whose lines differ fails; `BLESS=1 cargo test --test packet_path` writes what happens now, to be
//! reviewed like code. After every case the counters must add up.

mod support;

use dunlin::forward::steering::Steering;
use dunlin::forward::tables::{BackendId, Mac, NeighbourSpec, PortId, TablesSpec};
use dunlin::forward::{Origin, Verdict, unresolved};
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use support::frames::{self, TestFrame};
use support::{Bench, INNER, backend_mac, ip, plain};

#[test]
fn every_case_happens_as_written() {
    let bless = std::env::var_os("BLESS").is_some();
    let mut failures = String::new();
    let mut count = 0;
    for path in case_files() {
        let written = std::fs::read_to_string(&path).expect("a readable file");
        let happened = run_file(&written, &path);
        count += written.lines().filter(|l| l.starts_with("case ")).count();
        if bless {
            std::fs::write(&path, &happened).expect("a writable file");
        } else {
            failures += &differences(&written, &happened, &path);
        }
    }
    assert!(count >= 40, "only {count} cases were found");
    assert!(failures.is_empty(), "{failures}");
}

fn case_files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/packet_path");
    let entries = std::fs::read_dir(folder).expect("the folder of cases");
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.retain(|path| path.extension().is_some_and(|ext| ext == "cases"));
    files.sort();
    files
}

/// Run every case of a file; returns the file with what happened in it.
fn run_file(text: &str, path: &Path) -> String {
    let mut out = String::new();
    let mut run: Option<Run> = None;
    for (number, line) in text.lines().enumerate() {
        let place = || format!("{}:{}", path.display(), number + 1);
        if line.starts_with("  ") {
            continue; // what happened then
        }
        let _ = writeln!(out, "{line}");
        let result = if line.starts_with("case ") {
            finish(run.take());
            Ok(())
        } else if let Some(name) = line.strip_prefix("setup ") {
            setup(name).map(|bench| run = Some(Run::new(bench)))
        } else if line.starts_with(['>', '@', '!']) {
            match &mut run {
                Some(run) => run.step(line).map(|happened| out += &happened),
                None => Err("a step before the set-up".into()),
            }
        } else {
            Ok(()) // the sentence
        };
        if let Err(error) = result {
            panic!("{}: {error}", place());
        }
    }
    finish(run);
    out
}

fn finish(run: Option<Run>) {
    if let Some(run) = run {
        run.check();
    }
}

fn differences(written: &str, happened: &str, path: &Path) -> String {
    let (mut case, mut step) = ("", "");
    let mut out = String::new();
    let mut happened = happened.lines();
    for (number, written) in written.lines().enumerate() {
        if written.starts_with("case ") {
            case = written;
        }
        if written.starts_with(['>', '@', '!']) {
            step = written;
        }
        let happened = happened.next().unwrap_or("(nothing)");
        if written != happened {
            let _ = writeln!(
                out,
                "{}:{}: {case}\n  {step}\n  written:  {written}\n  happened: {happened}",
                path.display(),
                number + 1
            );
            break; // the rest of the file would only be shifted
        }
    }
    if out.is_empty() && happened.next().is_some() {
        let _ = writeln!(out, "{}: more happened than is written", path.display());
    }
    out
}

/// The named set-ups.
fn setup(name: &str) -> Result<Bench, String> {
    let all_rss = Steering::software(vec![true, true]);
    match name {
        "plain" => Ok(Bench::new(plain(), 1024)),
        "two flows at most" => Ok(Bench::new(plain(), 2)),
        // Worker 0 of 60 000 has one local port: 60 000.
        "one local port" => Ok(Bench::worker(plain(), 64, 0, 60_000, all_rss)),
        "worker 1 of 2, no RSS" => Ok(Bench::worker(plain(), 64, 1, 2, Steering::default())),
        "worker 1 of 2, RSS" => Ok(Bench::worker(plain(), 64, 1, 2, all_rss)),
        other => Err(format!("{other:?} is no set-up")),
    }
}

struct Run {
    bench: Bench,
    /// The tuple sent last, to be answered.
    last: Option<String>,
    /// Its IP packet, to be quoted.
    last_packet: String,
    frames: u64,
    transmitted: u64,
    kernel: u64,
    handed_over: u64,
    kept: u64,
    waiting: Vec<TestFrame>,
}

impl Run {
    fn new(bench: Bench) -> Self {
        Self {
            bench,
            last: None,
            last_packet: String::new(),
            frames: 0,
            transmitted: 0,
            kernel: 0,
            handed_over: 0,
            kept: 0,
            waiting: Vec::new(),
        }
    }

    fn step(&mut self, line: &str) -> Result<String, String> {
        let (kind, rest) = line.split_at(1);
        let rest = rest.trim();
        match kind {
            ">" => self.frame(rest),
            "@" => {
                let ms = rest.parse().map_err(|_| "milliseconds")?;
                self.bench.pass(ms);
                Ok(format!("  flows {}\n", self.bench.engine.flow_count()))
            }
            _ => self.change(rest),
        }
    }

    fn frame(&mut self, text: &str) -> Result<String, String> {
        let (origin, text) = match text.strip_prefix("handed over: ") {
            Some(text) => (Origin::Handover, text),
            None => (Origin::Port, text),
        };
        let (port, mut frame) = frames::parse(&self.answer(text)?)?;
        let mut out = format!("  in {}\n", frames::to_hex(&frame.bytes));
        let before = frame.bytes.clone();
        let verdict = self.bench.burst(port, origin, std::slice::from_mut(&mut frame))[0];
        self.frames += 1;
        self.report(verdict, &before, frame, &mut out);
        Ok(out)
    }

    fn report(&mut self, verdict: Verdict, before: &[u8], frame: TestFrame, out: &mut String) {
        let _ = match verdict {
            Verdict::Transmit { port } => {
                self.transmitted += 1;
                if let Some(tuple) = last_tuple(&frame.bytes, port) {
                    self.last = Some(tuple);
                    self.last_packet = frames::to_hex(&frame.bytes[14..]);
                }
                writeln!(out, "  verdict transmit on port {}", port.0)
            }
            Verdict::Kernel => {
                self.kernel += 1;
                writeln!(out, "  verdict kernel")
            }
            Verdict::Handover { worker } => {
                self.handed_over += 1;
                writeln!(out, "  verdict hand over to worker {}", worker.0)
            }
            Verdict::Wait { next_hop } => {
                let whom = unresolved(&self.bench.tables, next_hop, &frame);
                let (port, address) = whom.expect("somebody to resolve");
                writeln!(out, "  verdict wait for {address} on port {}", port.0)
            }
            Verdict::Await { .. } => {
                self.kept += 1;
                writeln!(out, "  verdict await the first fragment")
            }
            Verdict::Drop(reason) => writeln!(out, "  verdict drop: {}", reason.name()),
        };
        match verdict {
            Verdict::Transmit { .. } | Verdict::Wait { .. } => {
                let _ = writeln!(out, "  out {}", frames::to_hex(&frame.bytes));
                let _ = writeln!(out, "  = {}", frames::describe(&frame.bytes));
            }
            Verdict::Kernel | Verdict::Handover { .. } | Verdict::Await { .. } => {
                assert_eq!(before, frame.bytes, "left to others, but changed");
            }
            Verdict::Drop(_) => {}
        }
        if let Verdict::Wait { .. } = verdict {
            self.waiting.push(frame);
        }
    }

    /// `reply …` becomes the answer to what was sent last; `QUOTE` its IP packet in hex, `QUOTE8` the
    /// first 28 bytes of that.
    fn answer(&self, text: &str) -> Result<String, String> {
        match text.strip_prefix("reply") {
            None => Ok(text
                .replace("QUOTE8", self.last_packet.get(..56).unwrap_or(""))
                .replace("QUOTE", &self.last_packet)),
            Some(options) => {
                let last = self.last.as_ref().ok_or("nothing was sent yet")?;
                Ok(format!("{last}{options}"))
            }
        }
    }

    fn change(&mut self, what: &str) -> Result<String, String> {
        let words: Vec<&str> = what.split_whitespace().collect();
        let id = |text: &str| text.parse::<u32>().map_err(|_| format!("{text:?}"));
        match words[..] {
            ["backend", number, "unusable"] => {
                let number = BackendId(id(number)?);
                self.bench.change(|spec| {
                    each_backend(spec, |backend| {
                        backend.usable &= backend.id != number;
                    });
                });
            }
            ["service", number, "removed"] => {
                let number = id(number)? as usize;
                self.bench.change(|spec| spec.services[number].removed = true);
            }
            ["port", number, "down"] => {
                let number = id(number)? as usize;
                self.bench.change(|spec| spec.ports[number].up = false);
            }
            ["port", number, "mtu", mtu] => {
                let (number, mtu) = (id(number)? as usize, id(mtu)? as u16);
                self.bench.change(|spec| spec.ports[number].mtu = mtu);
            }
            ["no", "default", "routes"] => {
                self.bench.change(|spec| spec.routes.retain(|route| route.prefix.prefix_len() > 0));
            }
            ["neighbour", address] => self.bench.change(|spec| {
                spec.neighbours.push(NeighbourSpec {
                    port: INNER,
                    address: ip(address),
                    mac: Mac(backend_mac(99)),
                });
            }),
            ["router", "mac", last] => {
                let last = id(last)? as u8;
                self.bench.change(|spec| {
                    spec.neighbours[0].mac = Mac(backend_mac(last));
                });
            }
            ["resolve"] => return Ok(self.resolve()),
            _ => return Err(format!("{what:?} is no change")),
        }
        Ok(String::new())
    }

    /// Try the frames that wait once more.
    fn resolve(&mut self) -> String {
        let mut out = String::new();
        for mut frame in std::mem::take(&mut self.waiting) {
            let verdict = self.bench.engine.resolve(&self.bench.tables, &mut frame);
            let before = frame.bytes.clone();
            self.report(verdict, &before, frame, &mut out);
        }
        out
    }

    /// Frames in are frames out, to the kernel, handed over, dropped or waiting.
    fn check(&self) {
        let stats = &self.bench.stats;
        assert_eq!(
            self.frames,
            self.transmitted
                + self.kernel
                + self.handed_over
                + self.kept
                + self.waiting.len() as u64
                + stats.dropped(),
            "frames do not add up"
        );
        assert_eq!(u64::from(self.bench.engine.flow_count()), stats.flows.get(), "flows");
        assert_eq!(
            stats.flows_created.get(),
            stats.flows.get()
                + stats.flows_expired.get()
                + stats.flows_evicted.get()
                + stats.flows_replaced.get(),
            "flows do not add up"
        );
    }
}

fn each_backend(spec: &mut TablesSpec, change: impl Fn(&mut dunlin::forward::tables::BackendSpec)) {
    for service in &mut spec.services {
        service.backends.iter_mut().for_each(&change);
    }
}

/// The answer to a frame sent on `port`, in the language of frames.
fn last_tuple(frame: &[u8], port: PortId) -> Option<String> {
    let described = frames::describe(frame);
    let mut words = described.split([' ', ',']);
    let protocol = words.next().filter(|&word| word == "tcp" || word == "udp")?;
    let source: SocketAddr = words.next()?.parse().ok()?;
    let destination: SocketAddr = words.nth(1)?.parse().ok()?;
    Some(format!("{protocol} {destination} {source} port={}", port.0))
}

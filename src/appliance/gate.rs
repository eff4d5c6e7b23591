//! `dunlin health-gate`: is this boot good?
//!
//! In: the node's API, and what the last upgrade noted. Out: an exit code. 0: every worker beats, and
//! on the first boot of a version every session that was up before is up again; systemd then blesses the
//! boot. [`UNHEALTHY`]: not in time, and the machine shall reboot into the version before.
//! [`NO_WAY_BACK`]: not in time, but this boot is not on trial, or there is no other version: a reboot
//! would change nothing, and a node whose routers are away for a while must not restart for ever.

use super::host::Root;
use super::node::Node;
use super::record::Record;
use super::upgrade::entry::{DIRECTORY, Entry};
use anyhow::Result;
use serde::{Deserialize, Serialize};
use std::io::Write;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

pub const UNHEALTHY: u8 = 1;
pub const NO_WAY_BACK: u8 = 3;
/// What the boot loader counted an attempt for (the Boot Loader Interface).
const COUNTED: &str =
    "sys/firmware/efi/efivars/LoaderBootCountPath-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f";
const VERDICT: &str = "var/lib/dunlin/verdict.json";

#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// For the node to become healthy.
    pub timeout: Duration,
    /// It must stay so for this long: a node that dies and is restarted shows life in between.
    pub settle: Duration,
    /// Between looks.
    pub look: Duration,
}

/// How the last boot was judged, for the operator who comes later.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    pub version: String,
    pub on_trial: bool,
    /// Empty: healthy.
    pub reasons: Vec<String>,
    /// Seconds since 1970-01-01 UTC.
    pub at: u64,
}

impl Verdict {
    pub fn load(root: &Root) -> Option<Self> {
        serde_json::from_str(&root.read(VERDICT)?).ok()
    }
}

/// Wait for a verdict. Gives the exit code.
pub fn run(root: &Root, node: &dyn Node, limits: Limits, out: &mut dyn Write) -> Result<u8> {
    let version = running_version(root);
    let on_trial = is_on_trial(root, &version);
    let record = Record::load(root);
    if let Some(record) = record.as_ref().filter(|r| r.to != version && r.from == version) {
        writeln!(
            out,
            "version {} was made the next boot and is not the one that runs: {version} is back",
            record.to
        )?;
    }
    let before = record.filter(|record| on_trial && record.to == version);
    let reasons = watch(node, before.as_ref(), limits, out)?;
    let at = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let verdict = Verdict { version: version.clone(), on_trial, reasons, at };
    // A boot that is not on trial must not overwrite why the last trial failed.
    if (on_trial || !Verdict::load(root).is_some_and(|last| last.on_trial))
        && let Err(error) = store(root, &verdict)
    {
        writeln!(out, "the verdict is not noted: {error:#}")?;
    }
    if verdict.reasons.is_empty() {
        writeln!(out, "version {version} is healthy")?;
        return Ok(0);
    }
    for reason in &verdict.reasons {
        writeln!(out, "NOT HEALTHY after {} s: {reason}", limits.timeout.as_secs())?;
    }
    if !on_trial {
        writeln!(out, "this boot is not on trial, so the machine stays up")?;
        return Ok(NO_WAY_BACK);
    }
    if !has_other(root, &version) {
        writeln!(out, "there is no other version to go back to, so the machine stays up")?;
        return Ok(NO_WAY_BACK);
    }
    writeln!(out, "version {version} was on trial: the machine reboots into the one before")?;
    Ok(UNHEALTHY)
}

/// Until it was healthy for long enough (no reasons), or the time is over (the last reasons).
fn watch(
    node: &dyn Node,
    before: Option<&Record>,
    limits: Limits,
    out: &mut dyn Write,
) -> Result<Vec<String>> {
    let begin = Instant::now();
    // Since when, and as which process.
    let mut healthy: Option<(Instant, u32)> = None;
    let mut said = Vec::new();
    loop {
        let (reasons, pid) = look(node, before);
        if reasons.is_empty() {
            let since = healthy.filter(|(_, of)| *of == pid);
            let (since, _) = *healthy.insert(since.unwrap_or((Instant::now(), pid)));
            if since.elapsed() >= limits.settle {
                return Ok(Vec::new());
            }
        } else {
            healthy = None;
        }
        if begin.elapsed() >= limits.timeout + limits.settle {
            let restless = vec!["the node keeps restarting".to_owned()];
            return Ok(if reasons.is_empty() { restless } else { reasons });
        }
        if !reasons.is_empty() && begin.elapsed() >= limits.timeout {
            return Ok(reasons);
        }
        if reasons != said {
            for reason in &reasons {
                writeln!(out, "waiting: {reason}")?;
            }
            said = reasons;
        }
        std::thread::sleep(limits.look);
    }
}

/// What is wrong now, and the process that was asked.
fn look(node: &dyn Node, before: Option<&Record>) -> (Vec<String>, u32) {
    let status = match node.status() {
        Ok(status) => status,
        Err(error) => return (vec![format!("the node does not answer: {error:#}")], 0),
    };
    let mut reasons = Vec::new();
    if status.workers.is_empty() {
        reasons.push("the node has no worker".to_owned());
    }
    for worker in status.workers.iter().filter(|worker| worker.stalled) {
        reasons.push(format!("worker {} on core {} does not beat", worker.id, worker.core));
    }
    if let Some(before) = before {
        match node.sessions() {
            Ok(now) => reasons.extend(
                now.missing(&before.sessions)
                    .into_iter()
                    .map(|session| format!("{session} was up before the upgrade, and is not")),
            ),
            Err(error) => reasons.push(format!("the node does not tell its sessions: {error:#}")),
        }
    }
    (reasons, status.pid)
}

/// Of the verified image, or of the program on a plain installation.
pub fn running_version(root: &Root) -> String {
    let version = root.kernel_argument("dunlin.version");
    version.unwrap_or_else(|| env!("CARGO_PKG_VERSION").to_owned())
}

/// The boot loader counted an attempt for the version that runs. The variable outlives an entry that
/// the firmware then refused to start, so it must name this very version.
fn is_on_trial(root: &Root, version: &str) -> bool {
    let counted = root.read_bytes(COUNTED).ok().and_then(|bytes| counted_entry(&bytes));
    counted.is_some_and(|entry| entry.version == version && entry.counter.is_some())
}

/// An EFI variable: four bytes of attributes, then UTF-16 (UEFI §8.2), here a path.
fn counted_entry(variable: &[u8]) -> Option<Entry> {
    let units =
        variable.get(4..)?.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]]));
    let units: Vec<u16> = units.take_while(|unit| *unit != 0).collect();
    let path = String::from_utf16(&units).ok()?;
    Entry::parse(path.rsplit('\\').next()?)
}

fn has_other(root: &Root, version: &str) -> bool {
    let names = root.list(format!("efi/{DIRECTORY}"));
    names.iter().filter_map(|name| Entry::parse(name)).any(|entry| entry.version != version)
}

fn store(root: &Root, verdict: &Verdict) -> Result<()> {
    let text = serde_json::to_string_pretty(verdict)? + "\n";
    root.replace(VERDICT, text.as_bytes(), 0o644)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::model::{PortInfo, Status};
    use crate::appliance::fake::Machine;
    use crate::appliance::node::Sessions;
    use anyhow::bail;
    use std::cell::Cell;

    const FAST: Limits = Limits {
        timeout: Duration::from_millis(60),
        settle: Duration::from_millis(15),
        look: Duration::from_millis(1),
    };

    /// What it answers depends on how often it was asked.
    #[derive(Debug)]
    struct Scripted {
        asked: Cell<u32>,
        /// (alive, pid, stalled)
        status: fn(u32) -> (bool, u32, bool),
        bgp: &'static [&'static str],
    }

    fn scripted(status: fn(u32) -> (bool, u32, bool), bgp: &'static [&'static str]) -> Scripted {
        Scripted { asked: Cell::new(0), status, bgp }
    }

    impl Node for Scripted {
        fn status(&self) -> Result<Status> {
            self.asked.set(self.asked.get() + 1);
            let (alive, pid, stalled) = (self.status)(self.asked.get());
            if !alive {
                bail!("no such socket");
            }
            Ok(status(pid, stalled))
        }

        fn sessions(&self) -> Result<Sessions> {
            let bgp = self.bgp.iter().map(ToString::to_string).collect();
            Ok(Sessions { bgp, ..Sessions::default() })
        }

        fn ports(&self) -> Result<Vec<PortInfo>> {
            bail!("not asked for")
        }

        fn drain(&self, _: &str) -> Result<()> {
            bail!("not asked for")
        }
    }

    fn status(pid: u32, stalled: bool) -> Status {
        let text = include_str!("../../tests/fixtures/cli/status.json");
        let mut status: Status = serde_json::from_str(text).unwrap();
        status.pid = pid;
        status.workers.truncate(1);
        status.workers[0].core = 1;
        status.workers[0].stalled = stalled;
        status
    }

    /// Version 0.2.0 runs; `counted` is what the boot loader says it counted.
    fn machine(counted: Option<&str>, entries: &[&str]) -> Machine {
        let machine = Machine::new();
        machine.write("proc/cmdline", "dunlin.version=0.2.0 quiet");
        for entry in entries {
            machine.write(&format!("efi/EFI/Linux/{entry}"), "");
        }
        if let Some(counted) = counted {
            let path = format!("\\EFI\\Linux\\{counted}\0");
            let mut variable = vec![6, 0, 0, 0];
            variable.extend(path.encode_utf16().flat_map(u16::to_le_bytes));
            machine.write(COUNTED, "");
            std::fs::write(machine.path(COUNTED), variable).unwrap();
        }
        let sessions = Sessions { bgp: ["10.1.1.1".to_owned()].into(), ..Sessions::default() };
        let (from, to) = ("0.1.0".to_owned(), "0.2.0".to_owned());
        let record = Record { from, to, at: 1, sessions, announced: Vec::new() };
        record.store(&machine.root()).unwrap();
        machine
    }

    fn judge(machine: &Machine, node: &Scripted) -> (u8, String) {
        let mut out = Vec::new();
        let code = run(&machine.root(), node, FAST, &mut out).unwrap();
        (code, String::from_utf8(out).unwrap())
    }

    const TRIAL: &str = "dunlin_0.2.0+0-1.efi";
    const BOTH: &[&str] = &[TRIAL, "dunlin_0.1.0.efi"];

    #[test]
    fn a_version_on_trial_is_healthy_when_its_sessions_are_back() {
        let machine = machine(Some(TRIAL), BOTH);
        let node = scripted(|asked| (asked > 3, 7, false), &["10.1.1.1", "10.1.1.9"]);
        let (code, said) = judge(&machine, &node);
        assert_eq!(code, 0, "{said}");
        assert!(said.contains("waiting: the node does not answer"), "{said}");
        assert_eq!(Verdict::load(&machine.root()).unwrap().reasons, [""; 0]);
    }

    #[test]
    fn what_is_not_as_before_sends_a_version_on_trial_back() {
        type Case = (fn(u32) -> (bool, u32, bool), &'static [&'static str], &'static str);
        let cases: &[Case] = &[
            (|_| (true, 7, false), &[], "BGP 10.1.1.1 was up before the upgrade, and is not"),
            (|_| (false, 7, false), &["10.1.1.1"], "the node does not answer"),
            (|_| (true, 7, true), &["10.1.1.1"], "worker 0 on core 1 does not beat"),
            (|asked| (true, asked, false), &["10.1.1.1"], "the node keeps restarting"),
        ];
        for (status, bgp, expected) in cases {
            let machine = machine(Some(TRIAL), BOTH);
            let (code, said) = judge(&machine, &scripted(*status, bgp));
            assert_eq!(code, UNHEALTHY, "{expected}: {said}");
            assert!(said.contains(expected), "{said}");
            let verdict = Verdict::load(&machine.root()).unwrap();
            assert!(verdict.on_trial && verdict.reasons[0].contains(expected), "{verdict:?}");
        }
    }

    #[test]
    fn a_machine_that_has_nothing_to_go_back_to_stays_up() {
        let dead = || scripted(|_| (false, 0, false), &[]);
        let cases = [
            // Blessed long ago: routers that are away must not make it restart for ever.
            (None, BOTH, "is not on trial"),
            // Left behind by a version that Secure Boot refused.
            (Some("dunlin_0.3.0+0-1.efi"), BOTH, "is not on trial"),
            (Some(TRIAL), &BOTH[..1], "there is no other version"),
        ];
        for (counted, entries, expected) in cases {
            let (code, said) = judge(&machine(counted, entries), &dead());
            assert_eq!(code, NO_WAY_BACK, "{said}");
            assert!(said.contains(expected), "{said}");
        }
    }

    #[test]
    fn a_version_that_came_back_says_so_and_keeps_the_reason() {
        let machine = machine(Some(TRIAL), BOTH);
        judge(&machine, &scripted(|_| (false, 0, false), &[]));
        machine.write("proc/cmdline", "dunlin.version=0.1.0");
        let (code, said) = judge(&machine, &scripted(|_| (true, 7, false), &[]));
        assert!(code == 0 && said.contains("0.1.0 is back"), "{said}");
        assert_eq!(Verdict::load(&machine.root()).unwrap().version, "0.2.0");
    }

    #[test]
    fn variables_of_any_content_are_read_or_not() {
        for bytes in [&b""[..], b"\x06\0\0\0", b"\x06\0\0\0\\", b"\x06\0\0\0\x00\xd8"] {
            assert_eq!(counted_entry(bytes), None);
        }
    }
}

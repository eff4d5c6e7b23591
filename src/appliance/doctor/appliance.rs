//! What only the appliance has: slots, the state partition, log-ins.

use super::{Fact, Findings, Patient};
use crate::appliance::gate::{Verdict, running_version};
use crate::appliance::network::KEYS;
use crate::appliance::upgrade::entry::{DIRECTORY, Entry, menu_order};
use crate::cli::human;
use std::fmt::Write;

/// Below this share of free space the state is as good as full.
const LEAST_FREE_PERCENT: u64 = 10;
const STATE: &str = "var";

pub(super) fn facts(patient: &Patient<'_>) -> Vec<Fact> {
    let root = &patient.host.root;
    if !root.is_appliance() {
        return vec![Fact {
            what: "Installation",
            text: "plain (not the appliance's image)".into(),
        }];
    }
    let version = running_version(root);
    let slot = root.read("run/dunlin-image/slot").unwrap_or_else(|| "?".to_owned());
    let others = others(patient, &version);
    let mut text = format!("version {version} runs in slot {slot}");
    for other in &others {
        let state = match (other.is_bad(), other.counter) {
            (true, _) => "bad, or gone back from",
            (_, Some(_)) => "the next boot, on trial",
            _ => "ready to go back to",
        };
        // Writing to a String cannot fail.
        let _ = write!(text, "; {} is {state}", other.version);
    }
    if others.is_empty() {
        text.push_str("; the other slot is empty");
    }
    let mut facts = vec![Fact { what: "System", text }];
    if let Some((free, size)) = space(patient) {
        let text = format!("{} of {} free", human::bytes(free), human::bytes(size));
        facts.push(Fact { what: "State", text });
    }
    facts
}

pub(super) fn check(patient: &Patient<'_>, findings: &mut Findings) {
    let root = &patient.host.root;
    if !root.is_appliance() {
        return;
    }
    let version = running_version(root);
    if let Some(last) = Verdict::load(root)
        && last.on_trial
        && last.version != version
        && !last.reasons.is_empty()
    {
        let what = format!(
            "version {} was tried and did not become healthy, so {version} came back: {}",
            last.version,
            last.reasons.join("; ")
        );
        findings.warning(what, "journalctl -b -1 has that boot");
    }
    if others(patient, &version).is_empty() {
        let what = "there is no other version to go back to";
        findings.warning(what, "it is there after the first dunlin upgrade");
    }
    if root.read(KEYS).is_none_or(|keys| keys.is_empty()) {
        let what = "nobody can log in by ssh: there is no key";
        findings.warning(what, "ssh-keys in [management], then dunlin setup --boot");
    }
    if let Some((free, size)) = space(patient)
        && free * 100 < size * LEAST_FREE_PERCENT
    {
        let what = format!("the state partition is full: {} are left", human::bytes(free));
        findings.problem(what, "journalctl --vacuum-size=100M");
    }
}

/// Empty also if the boot partition is not mounted and may not be.
fn others(patient: &Patient<'_>, version: &str) -> Vec<Entry> {
    let names = patient.host.root.list(format!("efi/{DIRECTORY}"));
    let entries = names.iter().filter_map(|name| Entry::parse(name));
    let mut others: Vec<Entry> = entries.filter(|entry| entry.version != version).collect();
    others.sort_by(menu_order);
    others
}

/// Free and all bytes of the state partition.
fn space(patient: &Patient<'_>) -> Option<(u64, u64)> {
    let stat = nix::sys::statvfs::statvfs(&patient.host.root.path(STATE)).ok()?;
    let unit = stat.fragment_size();
    Some((stat.blocks_available() * unit, stat.blocks() * unit))
}

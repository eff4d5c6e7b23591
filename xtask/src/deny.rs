//! Licences and sources of all dependencies, by the rules in `deny.toml`.
//!
//! `cargo deny` checks most where it is installed. It is a large program, so on a fresh machine
//! the same file's licence and source rules are checked here, on what cargo itself knows.

use crate::cargo;
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::process::Stdio;

/// Check all dependencies.
pub fn check() -> Result<()> {
    let cargo_deny = cargo::command()
        .args(["deny", "--version"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if cargo_deny.is_ok_and(|status| status.success()) {
        return cargo::run(["deny", "check", "bans", "licenses", "sources"], [""; 0]);
    }
    let rules = Rules::read()?;
    let metadata = cargo::metadata(&["--locked"])?;
    let packages = metadata["packages"].as_array();
    let packages = packages.context("cargo metadata: no packages")?;
    let complaints: Vec<String> = packages.iter().filter_map(|p| rules.complain(p)).collect();
    println!(
        "checked licences and sources of {} packages (install cargo-deny for more)",
        packages.len()
    );
    if !complaints.is_empty() {
        bail!("{}", complaints.join("; "));
    }
    Ok(())
}

/// What `deny.toml` allows.
struct Rules {
    licences: BTreeSet<String>,
    banned: BTreeSet<String>,
}

impl Rules {
    fn read() -> Result<Self> {
        let text = fs::read_to_string(cargo::root().join("deny.toml")).context("deny.toml")?;
        let file: toml::Table = text.parse().context("deny.toml")?;
        let words = |table: &str, key: &str| -> Vec<&toml::Value> {
            let list = file.get(table).and_then(|t| t.get(key));
            list.and_then(toml::Value::as_array).into_iter().flatten().collect()
        };
        let licences = words("licenses", "allow");
        let banned = words("bans", "deny");
        Ok(Self {
            licences: licences.iter().filter_map(|v| v.as_str().map(str::to_owned)).collect(),
            banned: banned
                .iter()
                .filter_map(|v| v.get("crate")?.as_str().map(str::to_owned))
                .collect(),
        })
    }

    fn complain(&self, package: &Value) -> Option<String> {
        let name = package["name"].as_str().unwrap_or_default();
        let version = package["version"].as_str().unwrap_or_default();
        let exactly = format!("{name}@{version}");
        if self.banned.contains(name) || self.banned.contains(&exactly) {
            return Some(format!("{name} {version} is banned"));
        }
        // Our own crates have no source.
        let source = package["source"].as_str()?;
        if !source.starts_with("registry+https://github.com/rust-lang/crates.io-index") {
            return Some(format!("{name} {version} comes from {source}"));
        }
        let licence = package["license"].as_str().unwrap_or_default();
        if !allowed(licence, &|id| self.licences.contains(id)) {
            return Some(format!("{name} {version} has licence {licence:?}"));
        }
        None
    }
}

/// Whether an SPDX expression can be satisfied: OR of ANDs, parentheses, and the old `/` for OR.
fn allowed(expression: &str, allow: &dyn Fn(&str) -> bool) -> bool {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = words.as_slice();
    any(&mut rest, allow) && rest.is_empty()
}

fn any(rest: &mut &[&str], allow: &dyn Fn(&str) -> bool) -> bool {
    let mut result = all(rest, allow);
    while let Some((&"OR", after)) = rest.split_first() {
        *rest = after;
        result |= all(rest, allow);
    }
    result
}

fn all(rest: &mut &[&str], allow: &dyn Fn(&str) -> bool) -> bool {
    let mut result = one(rest, allow);
    while let Some((&"AND", after)) = rest.split_first() {
        *rest = after;
        result &= one(rest, allow);
    }
    result
}

fn one(rest: &mut &[&str], allow: &dyn Fn(&str) -> bool) -> bool {
    let Some((word, after)) = rest.split_first() else {
        return false;
    };
    *rest = after;
    if *word == "(" {
        let result = any(rest, allow);
        let closed = rest.first() == Some(&")");
        *rest = rest.get(1..).unwrap_or_default();
        return result && closed;
    }
    // An exception only adds permissions.
    if let [with, _, after @ ..] = *rest
        && *with == "WITH"
    {
        *rest = after;
    }
    allow(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn licence_expressions() {
        let mit = |id: &str| id == "MIT" || id == "Apache-2.0";
        for good in [
            "MIT",
            "MIT OR GPL-3.0",
            "MIT/Apache-2.0",
            "(MIT OR GPL-3.0) AND Apache-2.0",
            "Apache-2.0 WITH LLVM-exception OR BSD-2-Clause",
        ] {
            assert!(allowed(good, &mit), "{good}");
        }
        for bad in ["", "GPL-3.0", "MIT AND GPL-3.0", "(MIT", "MIT MIT", "OR"] {
            assert!(!allowed(bad, &mit), "{bad}");
        }
    }
}

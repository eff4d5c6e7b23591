//! `cargo xtask test`: every test of the project, in groups.
//!
//! Integration tests find their group by package and name, so that a new one is never left out:
//! see [`group_of`].

use crate::cargo;
use crate::deny;
use crate::machines;
use crate::setup::{self, Purpose};
use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Where the failover tests find the node.
const BIN_DIR: &str = "DUNLIN_BIN_DIR";
/// How long each fuzz target runs, seconds. A moment by hand, a minute in CI.
const FUZZ_SECONDS: &str = "DUNLIN_FUZZ_SECONDS";

struct Group {
    name: &'static str,
    about: &'static str,
    root: bool,
    run: fn(&Targets) -> Result<()>,
}

const GROUPS: &[Group] = &[
    Group {
        name: "fmt",
        about: "the source is formatted",
        root: false,
        run: |_| {
            cargo::component("fmt", "rustfmt")?;
            cargo::run(["fmt", "--all", "--check"], NONE)
        },
    },
    Group {
        name: "clippy",
        about: "no lint complains",
        root: false,
        run: |_| {
            cargo::component("clippy", "clippy")?;
            cargo::run(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"], NONE)
        },
    },
    Group {
        name: "unit",
        about: "unit tests of all crates, and integration tests of no other group",
        root: false,
        run: unit,
    },
    Group {
        name: "packet",
        about: "the packet path on plain buffers: frame in, verdict, frame out",
        root: false,
        run: |targets| targets.run("packet", &[]),
    },
    Group {
        name: "nodpdk",
        about: "the node builds and passes without DPDK",
        root: false,
        run: |_| {
            let args = ["test", "--package", "dunlin", "--no-default-features"];
            cargo::run(args, ["--lib", "--bins"])
        },
    },
    Group {
        name: "dpdk",
        about: "bindings and ports, on DPDK's virtual devices",
        root: true,
        run: |targets| targets.run("dpdk", &[]),
    },
    Group {
        name: "kni",
        about: "control interfaces and the netlink mirror",
        root: true,
        run: |targets| {
            cargo::run(["test", "--package", "kni", "--", "--include-ignored"], NONE)?;
            targets.run_if_any("kni", &[])
        },
    },
    Group {
        name: "interop",
        about: "the speaker against FRR and BIRD",
        root: true,
        run: |targets| targets.run("interop", &["--test-threads=1"]),
    },
    Group {
        name: "lab",
        about: "the lab's hosts; two nodes, a router and what fails",
        root: true,
        run: lab,
    },
    Group {
        name: "rss",
        about: "replies reach the predicted queue, on the network cards of a virtual machine",
        root: true,
        run: |_| machines::rss(),
    },
    Group {
        name: "image",
        about: "the appliance image boots, announces, upgrades, and refuses what it must",
        root: true,
        run: |_| machines::image(false, None),
    },
    Group {
        name: "fuzz",
        about: "garbage into everything that reads bytes",
        root: false,
        run: fuzz,
    },
    Group {
        name: "instructions",
        about: "a packet costs no more instructions than the committed figures",
        root: false,
        run: |_| crate::bench::instructions::check(),
    },
    Group {
        name: "deny",
        about: "licences and sources of all dependencies",
        root: false,
        run: |_| deny::check(),
    },
];

const NONE: [&str; 0] = [];

/// The group of an integration test.
fn group_of(package: &str, test: &str) -> &'static str {
    match package {
        "dpdk-sys" => return "dpdk",
        "kni" => return "kni",
        "lab" => return "lab",
        _ => {}
    }
    let by_name = [
        ("packet", "packet"),
        ("dpdk", "dpdk"),
        ("kni", "kni"),
        ("interop", "interop"),
        ("failover", "lab"),
        ("operations", "lab"),
        ("lab", "lab"),
        ("fuzz", "fuzz"),
    ];
    let found = by_name.iter().find(|(prefix, _)| test.starts_with(prefix));
    found.map_or("unit", |(_, group)| group)
}

/// Run the groups named, or all of them, to the end even when one fails.
pub fn run(names: &[String]) -> Result<()> {
    for name in names {
        if !GROUPS.iter().any(|g| g.name == name) {
            let all: Vec<&str> = GROUPS.iter().map(|g| g.name).collect();
            bail!("no group {name}; there are {}", all.join(", "));
        }
    }
    let chosen: Vec<&Group> = GROUPS
        .iter()
        .filter(|g| names.is_empty() || names.iter().any(|name| name == g.name))
        .collect();
    if chosen.iter().any(|g| g.root) {
        setup::require_root("this test")?;
    }
    let lab = chosen.iter().any(|g| ["interop", "lab"].contains(&g.name));
    setup::install(if lab { Purpose::Test } else { Purpose::Build })?;
    // Both use what the benches use: valgrind, dpdk-testpmd.
    if chosen.iter().any(|g| ["instructions", "kni"].contains(&g.name)) {
        setup::install(Purpose::Bench)?;
    }
    let targets = Targets::find()?;

    let mut failed = Vec::new();
    let mut lines = Vec::new();
    for group in &chosen {
        println!("\n== {}: {}", group.name, group.about);
        let start = Instant::now();
        let result = (group.run)(&targets);
        let line = line(group.name, &result, start.elapsed());
        println!("{line}");
        lines.push(line);
        if result.is_err() {
            failed.push(group.name);
        }
    }
    println!("\n== summary");
    for line in &lines {
        println!("{line}");
    }
    println!("{} passed, {} failed", chosen.len() - failed.len(), failed.len());
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    Ok(())
}

/// Say which groups there are.
pub fn list() {
    for group in GROUPS {
        let root = if group.root { "  (root)" } else { "" };
        println!("{:<14}{}{root}", group.name, group.about);
    }
}

/// Let data-driven tests write what they got as what they expect.
pub fn bless() -> Result<()> {
    setup::install(Purpose::Build)?;
    let targets = Targets::find()?;
    let mut command = cargo::command();
    command.args(["test", "--package", "dunlin", "--lib"]);
    for (package, test) in targets.of("packet").chain(targets.of("unit")) {
        if package == "dunlin" {
            command.args(["--test", test]);
        }
    }
    command.env("BLESS", "1");
    cargo::status(&mut command)?;
    println!("Blessed. Read `git diff tests/` before you commit it.");
    Ok(())
}

fn line(name: &str, result: &Result<()>, took: Duration) -> String {
    let took = format!("{:.1}s", took.as_secs_f64());
    match result {
        Ok(()) => format!("ok      {name:<10}{took:>8}"),
        Err(e) => format!("FAILED  {name:<10}{took:>8}  {e:#}"),
    }
}

fn unit(targets: &Targets) -> Result<()> {
    cargo::run(["test", "--workspace", "--lib", "--bins"], NONE)?;
    cargo::run(["test", "--workspace", "--doc"], NONE)?;
    targets.run_if_any("unit", &[])
}

fn lab(targets: &Targets) -> Result<()> {
    let binaries = cargo::build_node()?;
    let dir = binaries.dunlind.parent().context("a path without a directory")?;
    let mut command = cargo::command();
    command.args(["test", "--package", "lab", "--lib"]);
    command.args(["--", "--include-ignored"]);
    cargo::status(&mut command)?;
    // Two cores for everything: one lab at a time.
    for mut command in targets.commands("lab", &["--test-threads=1"]) {
        cargo::status(command.env(BIN_DIR, dir))?;
    }
    Ok(())
}

fn fuzz(targets: &Targets) -> Result<()> {
    let longer = std::env::var_os("CI").is_some() && std::env::var_os(FUZZ_SECONDS).is_none();
    let mut commands = targets.commands("fuzz", &[]);
    if longer {
        for command in &mut commands {
            command.env(FUZZ_SECONDS, "60");
        }
    }
    // Each is one thread that runs for a given time: nothing is lost by running two at once.
    cargo::status_of_all(commands)
}

/// The integration tests of the workspace: group → (package, test).
struct Targets(BTreeMap<&'static str, Vec<(String, String)>>);

impl Targets {
    fn find() -> Result<Self> {
        let metadata = cargo::metadata(&["--no-deps"])?;
        let mut groups = BTreeMap::<_, Vec<_>>::new();
        for package in metadata["packages"].as_array().into_iter().flatten() {
            let name = package["name"].as_str().unwrap_or_default();
            for target in package["targets"].as_array().into_iter().flatten() {
                if target["kind"][0] == "test" {
                    let test = target["name"].as_str().unwrap_or_default();
                    let tests = groups.entry(group_of(name, test)).or_default();
                    tests.push((name.to_owned(), test.to_owned()));
                }
            }
        }
        Ok(Self(groups))
    }

    fn of(&self, group: &str) -> impl Iterator<Item = (&str, &str)> {
        let tests = self.0.get(group).into_iter().flatten();
        tests.map(|(package, test)| (package.as_str(), test.as_str()))
    }

    /// One command per package.
    fn commands(&self, group: &str, args: &[&str]) -> Vec<std::process::Command> {
        let mut packages = BTreeMap::<&str, Vec<&str>>::new();
        for (package, test) in self.of(group) {
            packages.entry(package).or_default().push(test);
        }
        let commands = packages.into_iter().map(|(package, tests)| {
            let mut command = cargo::command();
            command.args(["test", "--package", package]);
            for test in tests {
                command.args(["--test", test]);
            }
            command.args(["--", "--include-ignored"]).args(args);
            command
        });
        commands.collect()
    }

    fn run_if_any(&self, group: &str, args: &[&str]) -> Result<()> {
        for mut command in self.commands(group, args) {
            cargo::status(&mut command)?;
        }
        Ok(())
    }

    /// A group that lost its tests must not pass.
    fn run(&self, group: &str, args: &[&str]) -> Result<()> {
        if self.of(group).next().is_none() {
            bail!("there is no test in this group");
        }
        self.run_if_any(group, args)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_test_has_a_group_that_exists() {
        let cases = [
            ("dunlin", "packet_path", "packet"),
            ("dunlin", "failover", "lab"),
            ("dunlin", "operations", "lab"),
            ("dunlin", "config_files", "unit"),
            ("routing", "interop_bgp", "interop"),
            ("routing", "simulation", "unit"),
            ("kni", "anything", "kni"),
            ("lab", "hosts", "lab"),
        ];
        for (package, test, group) in cases {
            assert_eq!(group_of(package, test), group, "{package} {test}");
            assert!(GROUPS.iter().any(|g| g.name == group));
        }
    }
}

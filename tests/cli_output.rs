//! The command line as its users meet it: the real binary, the real server, a node with fixed data.
//!
//! What it prints is compared with tests/fixtures/cli; `BLESS=1 cargo test` writes those anew.

#[path = "api_fake/mod.rs"]
mod api_fake;

use api_fake::{Fake, Served};
use std::path::Path;
use std::process::{Command, Output};

fn dunlin(socket: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_dunlin"))
        .env_remove("DUNLIN_SOCKET")
        .arg("--socket")
        .arg(socket)
        .args(arguments)
        .output()
        .expect("the binary runs")
}

fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).expect("UTF-8")
}

fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).expect("UTF-8")
}

fn golden(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/cli")
        .join(name);
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, text).expect("fixture is writable");
        return;
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        text == expected,
        "{name} differs (BLESS=1 to accept)\n--- expected\n{expected}\n--- now\n{text}"
    );
}

/// Name of the fixture, arguments, exit code.
const CASES: &[(&str, &[&str], i32)] = &[
    ("status", &["status"], 3),
    ("services", &["services"], 0),
    ("backends", &["backends"], 0),
    ("backends-dns", &["backends", "dns"], 0),
    ("flows", &["flows"], 0),
    (
        "flows-filtered",
        &["flows", "--client", "198.51.100.0/24", "--limit", "2"],
        0,
    ),
    ("bgp", &["bgp"], 0),
    ("bgp-established", &["bgp", "10.0.1.254"], 0),
    ("bgp-active", &["bgp", "2001:db8:1::fe"], 0),
    ("bgp-shutdown", &["bgp", "10.0.1.250"], 0),
    ("bfd", &["bfd"], 0),
    ("ports", &["ports"], 0),
    ("workers", &["workers"], 0),
    ("drops", &["drops"], 0),
    ("drops-all", &["drops", "--all"], 0),
    ("announce", &["announce"], 0),
    ("config", &["config"], 0),
    ("metrics", &["metrics"], 0),
    ("drain", &["drain", "--reason", "new kernel"], 0),
    ("drain-service", &["drain", "--service", "web"], 0),
    ("undrain", &["undrain", "--backend", "10.0.0.3"], 0),
    ("reload", &["reload"], 0),
];

#[test]
fn a_bad_night_reads_as_the_fixtures_say() {
    let served = Served::new(Fake::bad_night());
    for (name, arguments, code) in CASES {
        let output = dunlin(served.socket(), arguments);
        assert_eq!(stderr(&output), "", "{name}");
        assert_eq!(output.status.code(), Some(*code), "{name}");
        golden(&format!("{name}.txt"), stdout(&output));
    }
}

#[test]
fn a_node_with_nothing_to_show_says_so_in_words() {
    let served = Served::new(Fake::empty());
    let mut all = String::new();
    let commands = [
        "status", "services", "backends", "flows", "bgp", "bfd", "ports", "drops", "announce",
        "undrain", "reload",
    ];
    for command in commands {
        let output = dunlin(served.socket(), &[command]);
        assert_eq!(
            output.status.code(),
            Some(0),
            "{command}: {}",
            stderr(&output)
        );
        all.push_str(&format!("$ dunlin {command}\n{}\n", stdout(&output)));
    }
    golden("empty.txt", &all);
}

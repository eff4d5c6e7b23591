//! The command line as its users meet it: the real binary, the real server, a node with fixed data.
//!
//! What it prints is compared with tests/fixtures/cli; `BLESS=1 cargo test` writes those anew.

#[path = "api_fake/mod.rs"]
mod api_fake;

use api_fake::{Fake, Scratch, Served};
use dunlin::api::model::{
    AnnounceInfo, BackendInfo, BfdInfo, BgpInfo, DrainInfo, DrainPhase, DropInfo, FlowList, Health,
    HealthState, OspfInfo, PortInfo, ReloadResult, ServiceInfo, Status, WorkerInfo,
};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};

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
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/cli").join(name);
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
    ("flows-filtered", &["flows", "--client", "198.51.100.0/24", "--limit", "2"], 0),
    ("bgp", &["bgp"], 0),
    ("bgp-established", &["bgp", "10.0.1.254"], 0),
    ("bgp-active", &["bgp", "2001:db8:1::fe"], 0),
    ("bgp-shutdown", &["bgp", "10.0.1.250"], 0),
    ("bgp-unnumbered", &["bgp", "net1"], 0),
    ("bfd", &["bfd"], 0),
    ("bfd-up", &["bfd", "10.0.1.254"], 0),
    ("bfd-down", &["bfd", "2001:db8:1::fe"], 0),
    ("ospf", &["ospf"], 0),
    ("ospf-neighbor", &["ospf", "10.255.0.2"], 0),
    ("announce-one", &["announce", "203.0.113.1"], 0),
    ("cluster", &["cluster"], 0),
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
        "status", "services", "backends", "flows", "bgp", "bfd", "ospf", "ports", "drops",
        "announce", "undrain", "reload",
    ];
    for command in commands {
        let output = dunlin(served.socket(), &[command]);
        assert_eq!(output.status.code(), Some(0), "{command}: {}", stderr(&output));
        all.extend(["$ dunlin ", command, "\n", stdout(&output), "\n"]);
    }
    golden("empty.txt", &all);
}

#[test]
fn a_drain_shows_how_far_it_has_come() {
    let mut fake = Fake::empty();
    fake.status.health = Health {
        state: HealthState::Draining,
        reasons: vec!["an operator drains the node: new kernel".to_owned()],
    };
    let mut drain = DrainInfo {
        age_s: 7,
        phase: DrainPhase::Lowered,
        reason: "new kernel".to_owned(),
        flows_left: 1_204,
    };
    fake.status.drain = Some(drain.clone());
    let served = Served::new(fake);
    let output = dunlin(served.socket(), &["status"]);
    assert_eq!(output.status.code(), Some(3));
    golden("status-draining.txt", stdout(&output));

    drain.phase = DrainPhase::Withdrawn;
    drain.flows_left = 0;
    let mut fake = Fake::empty();
    fake.status.drain = Some(drain);
    let served = Served::new(fake);
    let output = dunlin(served.socket(), &["status"]);
    assert!(stdout(&output).contains("withdrawn, no flows left: safe to stop (new kernel)"));
}

#[test]
fn json_is_the_api_answer_on_one_line_and_reads_back() {
    let served = Served::new(Fake::bad_night());
    let node = &served.node;
    let json = |arguments: &[&str]| {
        let output = dunlin(served.socket(), arguments);
        assert_eq!(stdout(&output).matches('\n').count(), 1, "{arguments:?}");
        golden(&format!("{}.json", arguments[0]), stdout(&output));
        stdout(&output).to_owned()
    };
    let read = "reads back";
    let status: Status = serde_json::from_str(&json(&["status", "--json"])).expect(read);
    assert_eq!(status, node.status);
    let services: Vec<ServiceInfo> =
        serde_json::from_str(&json(&["services", "--json"])).expect(read);
    assert_eq!(services, node.services);
    let backends: Vec<BackendInfo> =
        serde_json::from_str(&json(&["backends", "--json"])).expect(read);
    assert_eq!(backends, node.backends);
    let flows: FlowList = serde_json::from_str(&json(&["flows", "--json"])).expect(read);
    assert_eq!(flows.flows, node.flows);
    let bgp: BgpInfo = serde_json::from_str(&json(&["bgp", "--json"])).expect(read);
    assert_eq!(Some(bgp), node.bgp);
    let bfd: BfdInfo = serde_json::from_str(&json(&["bfd", "--json"])).expect(read);
    assert_eq!(bfd, node.bfd);
    let ospf: Vec<OspfInfo> = serde_json::from_str(&json(&["ospf", "--json"])).expect(read);
    assert_eq!(ospf, node.ospf);
    let ports: Vec<PortInfo> = serde_json::from_str(&json(&["ports", "--json"])).expect(read);
    assert_eq!(ports, node.ports);
    let workers: Vec<WorkerInfo> = serde_json::from_str(&json(&["workers", "--json"])).expect(read);
    assert_eq!(workers, node.status.workers);
    let drops: Vec<DropInfo> = serde_json::from_str(&json(&["drops", "--json"])).expect(read);
    assert_eq!(drops, node.drops);
    let announce: Vec<AnnounceInfo> =
        serde_json::from_str(&json(&["announce", "--json"])).expect(read);
    assert_eq!(announce, node.announce);
    let reload: ReloadResult = serde_json::from_str(&json(&["reload", "--json"])).expect(read);
    assert_eq!(Ok(reload), node.reload);
}

#[test]
fn an_error_says_what_to_do() {
    let served = Served::new(Fake::bad_night());
    let cases: &[(&[&str], i32, &str)] = &[
        (
            &["bgp", "10.0.1.9"],
            1,
            "dunlin: no neighbour 10.0.1.9 (known: 10.0.1.250, 10.0.1.254, 2001:db8:1::fe, net1)\n",
        ),
        (
            &["bfd", "10.0.1.9"],
            1,
            "dunlin: no BFD session with 10.0.1.9 (known: 10.0.1.254, 2001:db8:1::fe)\n",
        ),
        (
            &["ospf", "10.0.1.9"],
            1,
            "dunlin: no OSPF neighbour 10.0.1.9 (known: 10.255.0.1, 10.255.0.2)\n",
        ),
        (&["announce", "198.51.100.1"], 1, "dunlin: no prefix 198.51.100.1 (known: "),
        (&["announce", "web"], 1, "expected a prefix or an address like 192.0.2.10"),
        (&["backends", "www"], 1, "dunlin: no service www (known: dns, web)\n"),
        (&["drain", "--service", "a b/ü?"], 1, "dunlin: no service a b/ü? (known: dns, web)\n"),
        (&["drain", "--backend", "10.9.9.9"], 1, "10.0.0.1:8443"),
        (&["flows", "--client", "me"], 2, "expected ADDRESS, PREFIX/LENGTH or ADDRESS:PORT"),
        (&["flows", "--state", "open"], 2, "expected one of: syn, established, closing, udp"),
        (&["flows", "--limit", "0"], 2, "0 is not in 1..=100000"),
        (&["drain", "--service", "web", "--backend", "10.0.0.1"], 2, "cannot be used with"),
        (&["drain", "--watch"], 2, "--watch is for commands that only show"),
        (&["stauts"], 2, "'status'"),
        (&[], 2, "Usage: dunlin"),
    ];
    for (arguments, code, text) in cases {
        let output = dunlin(served.socket(), arguments);
        let told = stderr(&output);
        assert_eq!(output.status.code(), Some(*code), "{arguments:?}: {told}");
        assert!(told.contains(text), "{arguments:?}: {told}");
        assert_eq!(stdout(&output), "", "{arguments:?}");
    }
    assert_eq!(served.node.done(), Vec::<String>::new());
}

#[test]
fn a_node_that_is_not_there_says_how_to_start_it() {
    let scratch = Scratch::new();
    let missing = scratch.0.join("api.sock");
    let output = dunlin(&missing, &["status"]);
    assert_eq!(output.status.code(), Some(1));
    let expected = format!(
        "dunlin: dunlind is not running (no {}): systemctl start dunlin; journalctl -u dunlin\n",
        missing.display()
    );
    assert_eq!(stderr(&output), expected);
    drop(UnixListener::bind(&missing).expect("bind"));
    let output = dunlin(&missing, &["status"]);
    assert!(stderr(&output).contains("has died or is starting"), "{}", stderr(&output));
}

#[test]
fn the_socket_may_be_named_by_the_environment() {
    let served = Served::new(Fake::bad_night());
    let output = Command::new(env!("CARGO_BIN_EXE_dunlin"))
        .env("DUNLIN_SOCKET", served.socket())
        .arg("bfd")
        .output()
        .expect("the binary runs");
    assert!(output.status.success(), "{}", stderr(&output));
}

#[test]
fn something_else_on_the_socket_is_an_error_not_a_crash() {
    for answer in
        ["", "SSH-2.0-OpenSSH_9.2\r\n", "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n{}{}"]
    {
        let scratch = Scratch::new();
        let socket = scratch.0.join("api.sock");
        let listener = UnixListener::bind(&socket).expect("bind");
        let other = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("the command connects");
            let mut request = [0; 4096];
            let _ = stream.read(&mut request);
            let _ = stream.write_all(answer.as_bytes());
        });
        let output = dunlin(&socket, &["status"]);
        assert_eq!(output.status.code(), Some(1), "{answer:?}");
        assert!(stderr(&output).starts_with("dunlin: "), "{answer:?}: {}", stderr(&output));
        assert!(!stderr(&output).contains("panicked"), "{}", stderr(&output));
        other.join().expect("no panic");
    }
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let mut fake = Fake::bad_night();
    let one = fake.flows[0].clone();
    // More than a pipe holds.
    fake.flows = vec![one; 5_000];
    let served = Served::new(fake);
    let mut child = Command::new(env!("CARGO_BIN_EXE_dunlin"))
        .arg("--socket")
        .arg(served.socket())
        .args(["flows", "--limit", "5000"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    let mut first = [0; 10];
    let mut pipe = child.stdout.take().expect("piped");
    pipe.read_exact(&mut first).expect("some output");
    drop(pipe);
    let output = child.wait_with_output().expect("it ends");
    assert_eq!((output.status.code(), stderr(&output)), (Some(0), ""));
}

#[test]
fn watching_shows_again_and_survives_a_restart_of_the_node() {
    let mut served = Served::new(Fake::bad_night());
    let mut child = Command::new(env!("CARGO_BIN_EXE_dunlin"))
        .arg("--socket")
        .arg(served.socket())
        .args(["bfd", "--watch=1"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let mut until = |text: &str| {
        // Ends by itself: the child either says it or is cut off by the test runner.
        while !lines.next().expect("goes on").expect("UTF-8").contains(text) {}
    };
    until("PEER");
    until("PEER");
    served.stop();
    until("dunlind is not running");
    child.kill().expect("killed");
    child.wait().expect("reaped");
}

#[test]
fn messages_of_a_peer_cannot_drive_the_terminal() {
    let mut fake = Fake::bad_night();
    if let Some(error) = fake.bgp.as_mut().and_then(|bgp| bgp.neighbors[1].last_error.as_mut()) {
        error.text = "\x1b]0;owned\x07\x1b[2J\r\n".to_owned();
    }
    fake.status.health.reasons = vec!["\x1b[31mred".to_owned()];
    fake.announce[0].peers[1].reason = "\x1b[2J".to_owned();
    let served = Served::new(fake);
    for arguments in [&["bgp"][..], &["bgp", "2001:db8:1::fe"], &["status"], &["announce"]] {
        let output = dunlin(served.socket(), arguments);
        let odd = |c: char| c.is_control() && c != '\n';
        assert!(!stdout(&output).contains(odd), "{arguments:?}: {:?}", stdout(&output));
        assert!(stdout(&output).contains('\u{fffd}'), "{arguments:?}");
    }
}

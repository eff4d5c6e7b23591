//! Our BFD against FRR's bfdd and BIRD, asserted on the peer's own view.

mod netns;

use netns::{Bird, Frr, Net, Ours, at_once};
use nix::sys::signal::Signal;
use std::time::Duration;

const UP: Duration = Duration::from_secs(10);
/// What looking through vtysh or birdc and a busy machine may add.
const SLACK: Duration = Duration::from_secs(1);
/// Cases at a time. They mostly watch that nothing happens; peers that are no real-time processes
/// need CPU time all the same.
const AT_ONCE: usize = 2;

fn frr(net: &Net, peer: &str, interval_ms: u64) -> Frr {
    let config = format!(
        "bfd\n peer {peer}\n  receive-interval {interval_ms}\n  transmit-interval {interval_ms}\n  \
         detect-multiplier 3\n"
    );
    net.frr(&["bfdd"], &config)
}

const FRR_PEERS: &str = "show bfd peers json";

fn is_up(peers: &str) -> bool {
    peers.contains("\"status\":\"up\"")
}

fn is_down(peers: &str) -> bool {
    peers.contains("\"status\":\"down\"")
}

fn wait_up(ours: &Ours, frr: &Frr) {
    ours.hear(&["event", " Up "], UP);
    frr.wait(FRR_PEERS, UP, is_up);
}

#[test]
#[ignore = "needs root, FRR and BIRD: cargo xtask test interop"]
fn frr_comes_up_with_the_timers_of_both_sides() {
    let cases = [
        ("4a", "10.9.0.1", vec!["10.9.0.2", "tx=50", "rx=50"], 50),
        ("4b", "10.9.0.1", vec!["10.9.0.2", "tx=300", "rx=300", "interface=eth0"], 300),
        ("6a", "fd09::1", vec!["fd09::2", "tx=100", "rx=100", "local=fd09::1"], 100),
        (
            "mh",
            "10.9.0.1 multihop local-address 10.9.0.2",
            vec!["10.9.0.2", "tx=100", "rx=100", "local=10.9.0.1", "multihop"],
            100,
        ),
    ];
    at_once(AT_ONCE, &cases, |(name, peer, args, interval)| {
        let (peer, interval) = (*peer, *interval);
        let net = Net::new(&format!("bf{name}"));
        let frr = frr(&net, peer, interval);
        let mut ours = net.ours("bfd", args);
        wait_up(&ours, &frr);
        let timer = |field: &str| format!("\"{field}\":{interval}");
        let seen = |peers: &str| {
            peers.contains(&timer("remote-receive-interval"))
                && peers.contains(&timer("remote-transmit-interval"))
        };
        frr.wait(FRR_PEERS, UP, seen);
        ours.say("status");
        let status = ours.hear(&["status"], UP);
        let detection = format!("detection_time_us: {}", 3 * interval * 1000);
        assert!(status.contains(&detection), "{name}: {status}");
        assert!(status.contains("scheduling: \"SCHED_FIFO"), "{name}: {status}");
        // Nothing flaps in a while of the detection time, forty times over.
        std::thread::sleep(Duration::from_millis(3 * interval * 40).min(Duration::from_secs(6)));
        assert_eq!(ours.heard(), Vec::<String>::new(), "{name}");
        assert!(is_up(&frr.show(FRR_PEERS)), "{name}");
        ours.finish();
        let told = |peers: &str| {
            is_down(peers) && peers.contains("\"remote-diagnostic\":\"administratively down\"")
        };
        frr.wait(FRR_PEERS, SLACK, told);
    });
}

#[test]
#[ignore = "needs root, FRR and BIRD: cargo xtask test interop"]
fn frr_notices_a_frozen_process_and_sees_a_drain_for_what_it_is() {
    let net = Net::new("bfz");
    let frr = frr(&net, "10.9.0.1", 100);
    let mut ours = net.ours("bfd", &["10.9.0.2", "tx=100", "rx=100"]);
    wait_up(&ours, &frr);

    ours.signal(Signal::SIGSTOP);
    let took = frr.wait(FRR_PEERS, Duration::from_millis(300) + SLACK, is_down);
    println!("frozen: seen by FRR after {took:?} (detection time 300 ms)");
    let expired = "\"diagnostic\":\"control detection time expired\"";
    assert!(frr.show(FRR_PEERS).contains(expired));
    ours.signal(Signal::SIGCONT);
    ours.hear(&["Up Down", "failure=true"], UP);
    wait_up(&ours, &frr);

    ours.say("timers 50 50 4");
    frr.wait(FRR_PEERS, UP, |peers| peers.contains("\"remote-transmit-interval\":50,"));
    frr.wait(FRR_PEERS, UP, |peers| peers.contains("\"remote-detect-multiplier\":4"));
    assert_eq!(ours.heard(), Vec::<String>::new(), "new timers are no flap");

    ours.say("drain");
    ours.hear(&["Up AdminDown", "failure=false"], UP);
    let told = "\"remote-diagnostic\":\"administratively down\"";
    frr.wait(FRR_PEERS, SLACK, |peers| is_down(peers) && peers.contains(told));
    ours.say("undrain");
    wait_up(&ours, &frr);

    frr.configure(&["bfd", "peer 10.9.0.1", "shutdown"]);
    ours.hear(&["Up Down", "NeighborAdminDown", "failure=false"], UP);
    ours.finish();
}

fn bird(net: &Net, options: &str, neighbor: &str) -> Bird {
    net.bird(&format!(
        "log \"{}/bird/log\" all;\nrouter id 10.9.0.2;\nprotocol device {{}}\n\
         protocol bfd {{ interface \"*\" {{ min rx interval 50 ms; min tx interval 50 ms; \
         idle tx interval 1 s; multiplier 3; {options} }}; neighbor {neighbor}; }}\n",
        net.dir.display()
    ))
}

#[test]
#[ignore = "needs root, FRR and BIRD: cargo xtask test interop"]
fn bird_comes_up_with_every_authentication_and_sees_a_freeze() {
    let cases = [
        ("no", "10.9.0.1", "", vec!["10.9.0.2"]),
        ("v6", "fd09::1 dev \"eth0\"", "", vec!["fd09::2", "interface=eth0"]),
        (
            "ks",
            "10.9.0.1",
            "authentication keyed sha1; password \"tern\";",
            vec!["10.9.0.2", "sha1=tern"],
        ),
        (
            "ms",
            "10.9.0.1",
            "authentication meticulous keyed sha1; password \"tern\" { id 9; };",
            vec!["10.9.0.2", "meticulous-sha1=tern", "key-id=9"],
        ),
    ];
    at_once(AT_ONCE, &cases, |(name, neighbor, options, args)| {
        let net = Net::new(&format!("bb{name}"));
        let bird = bird(&net, options, neighbor);
        let ours = net.ours("bfd", &[&args[..], &["tx=50", "rx=50"]].concat());
        ours.hear(&["event", " Up "], UP);
        let sessions = "show bfd sessions";
        bird.wait(sessions, UP, |s| s.contains("Up") && s.contains("0.050") && s.contains("0.150"));
        std::thread::sleep(Duration::from_secs(3));
        assert_eq!(ours.heard(), Vec::<String>::new(), "{name}: flapped");
        ours.signal(Signal::SIGSTOP);
        let took = bird.wait(sessions, Duration::from_millis(150) + SLACK, |s| s.contains("Down"));
        println!("{name}: frozen: seen by BIRD after {took:?} (detection time 150 ms)");
        ours.signal(Signal::SIGCONT);
        ours.hear(&["Up Down", "failure=true"], UP);
        ours.hear(&["Up Handshake"], UP);
    });
}

#[test]
#[ignore = "needs root, FRR and BIRD: cargo xtask test interop"]
fn wrong_key_never_comes_up() {
    let net = Net::new("bwk");
    let options = "authentication keyed sha1; password \"tern\";";
    let bird = bird(&net, options, "10.9.0.1");
    let mut ours = net.ours("bfd", &["10.9.0.2", "sha1=gull"]);
    // BIRD sends about one packet a second.
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!(ours.heard(), Vec::<String>::new());
    assert!(!bird.show("show bfd sessions").contains("Up"));
    ours.say("status");
    let status = ours.hear(&["status"], UP);
    assert!(status.contains("dropped_auth: ") && !status.contains("dropped_auth: 0"), "{status}");
}

/// Two of ours, since FRR and BIRD are starved by the load themselves.
#[test]
#[ignore = "needs root, FRR and BIRD: cargo xtask test interop"]
fn fifty_ms_times_three_holds_on_a_machine_whose_cores_are_all_busy() {
    let net = Net::new("bld");
    let fast = ["tx=50", "rx=50"];
    let left = net.ours("bfd", &[&["10.9.0.2"], &fast[..]].concat());
    let right = net.ours_as_peer("bfd", &[&["10.9.0.1"], &fast[..]].concat());
    for side in [&left, &right] {
        side.hear(&["Up Handshake"], UP);
    }
    let busy = std::sync::atomic::AtomicBool::new(true);
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..4 * cores {
            scope.spawn(|| {
                while busy.load(std::sync::atomic::Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        std::thread::sleep(Duration::from_secs(8));
        busy.store(false, std::sync::atomic::Ordering::Relaxed);
    });
    for side in [&left, &right] {
        assert_eq!(side.heard(), Vec::<String>::new(), "false Down under load");
    }
}

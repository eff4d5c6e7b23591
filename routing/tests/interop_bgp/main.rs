//! Our speaker against FRR's bgpd and BIRD, asserted on the peer's own view: its BGP table and its
//! kernel's routes.

mod bird;
mod follow;
mod keys;
#[path = "../netns/mod.rs"]
mod netns;
mod restart;

use netns::{Frr, Net, Ours, in_ns};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

const UP: Duration = Duration::from_secs(15);
const SOON: Duration = Duration::from_secs(3);

/// FRR as AS 65000 with a v4 and a v6 session to us; `more` goes into `router bgp`.
fn frr(net: &Net, more: &str) -> Frr {
    net.frr(
        &["bgpd"],
        &format!(
            "router bgp 65000\n bgp router-id 10.9.0.2\n bgp log-neighbor-changes\n no bgp ebgp-requires-policy\n \
             bgp bestpath as-path multipath-relax\n \
             neighbor 10.9.0.1 remote-as 65001\n neighbor 10.9.0.1 timers connect 1\n \
             neighbor fd09::1 remote-as 65001\n neighbor fd09::1 timers connect 1\n {more}\n \
             address-family ipv4 unicast\n  no neighbor fd09::1 activate\n  \
             neighbor 10.9.0.1 default-originate\n exit-address-family\n \
             address-family ipv6 unicast\n  neighbor fd09::1 activate\n exit-address-family\n"
        ),
    )
}

const LISTEN: [&str; 4] = ["65001", "10.9.0.1", "listen=0.0.0.0:179", "listen=[::]:179"];

fn speaker(net: &Net, neighbors: &[&str]) -> Ours {
    net.ours("speaker", &[&LISTEN[..], neighbors].concat())
}

fn ask(ours: &mut Ours, command: &str) -> Value {
    ours.say(command);
    serde_json::from_str(&ours.hear(&[], SOON)).unwrap()
}

fn neighbor(ours: &mut Ours, address: &str) -> Value {
    let status = ask(ours, "status");
    let all = status["neighbors"].as_array().unwrap();
    all.iter().find(|n| n["address"] == address).cloned().unwrap_or(Value::Null)
}

/// Waits until `look` says so.
fn wait(what: &str, within: Duration, mut look: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    while !look() {
        assert!(start.elapsed() < within, "{what}: not within {within:?}");
        std::thread::sleep(Duration::from_millis(2));
    }
    start.elapsed()
}

fn wait_state(ours: &mut Ours, address: &str, state: &str) {
    let mut last = Value::Null;
    let start = Instant::now();
    while last["state"] != state {
        assert!(start.elapsed() < UP, "{address} not {state}: {last:#}");
        std::thread::sleep(Duration::from_millis(20));
        last = neighbor(ours, address);
    }
}

/// Routes of the peer's kernel to this destination.
fn fib(net: &Net, destination: &str) -> String {
    let family = if destination.contains(':') { "-6" } else { "-4" };
    in_ns(&net.peer, &["ip", family, "route", "show", destination])
}

/// Hears of route changes in the peer's kernel as they happen.
struct RouteWatch {
    child: Child,
    lines: Receiver<(Instant, String)>,
}

impl RouteWatch {
    fn new(net: &Net) -> Self {
        let mut child = Command::new("ip")
            .args(["-n", &net.peer, "monitor", "route"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, lines) = channel();
        let out = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                if sender.send((Instant::now(), line)).is_err() {
                    return;
                }
            }
        });
        Self { child, lines }
    }

    /// When the route was deleted; one deletion is told once.
    fn deleted(&self, destination: &str) -> Instant {
        loop {
            let (at, line) = self.lines.recv_timeout(SOON).expect("a route is deleted");
            if line.contains("Deleted") && line.contains(destination) {
                return at;
            }
        }
    }
}

impl Drop for RouteWatch {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// From the decision to the router's kernel. The best of a few: the machine may be busy, the
/// speaker must not be.
fn withdrawal_time(net: &Net, ours: &mut Ours) -> Duration {
    let watch = RouteWatch::new(net);
    let times = (0..5).map(|_| {
        ask(ours, "announce 192.0.2.9/32");
        wait("the route", SOON, || fib(net, "192.0.2.9").contains("via"));
        let decided = Instant::now();
        ask(ours, "withdraw 192.0.2.9/32");
        watch.deleted("192.0.2.9") - decided
    });
    times.min().unwrap()
}

#[test]
#[ignore = "needs root, FRR and BIRD: cargo xtask test interop"]
fn frr_installs_what_is_announced_and_removes_what_is_withdrawn() {
    let net = Net::new("bgp-it-a");
    let frr = frr(&net, "");
    let mut ours = speaker(&net, &["neighbor=10.9.0.2,remote-as=65000,import", "neighbor=fd09::2"]);
    wait_state(&mut ours, "10.9.0.2", "Established");
    wait_state(&mut ours, "fd09::2", "Established");

    let attributes = "community=65001:7 large=65001:2:3 med=20 prepend=1";
    ask(&mut ours, &format!("announce 192.0.2.1/32 {attributes}"));
    ask(&mut ours, "announce 2001:db8:f::1/128");
    wait("the v4 route", SOON, || fib(&net, "192.0.2.1").contains("via 10.9.0.1"));
    wait("the v6 route", SOON, || fib(&net, "2001:db8:f::1").contains("via fd09::1"));
    let seen: Value =
        serde_json::from_str(&frr.show("show bgp ipv4 unicast 192.0.2.1/32 json")).unwrap();
    let path = &seen["paths"][0];
    assert_eq!(path["community"]["string"], "65001:7", "{seen:#}");
    assert_eq!(path["largeCommunity"]["string"], "65001:2:3", "{seen:#}");
    assert_eq!(path["metric"], 20, "{seen:#}");
    assert_eq!(path["aspath"]["string"], "65001 65001", "{seen:#}");
    wait("the peer's default route", SOON, || {
        ask(&mut ours, "imported")["0.0.0.0/0"][0]["address"] == "10.9.0.2"
    });

    // bgpd gathers changes for 50 ms (its work queue's hold); the rest is ours and the kernel's.
    let best = withdrawal_time(&net, &mut ours);
    println!("withdrawn from FRR's kernel after {best:?}");
    assert!(best < Duration::from_millis(100), "withdrawal took {best:?}");

    ours.say("shutdown maintenance of rack 7");
    frr.wait("show bgp neighbor 10.9.0.1", SOON, |text| text.contains("Administrative Shutdown"));
    let log = net.dir.join("frr/bgpd.log");
    wait("the message in bgpd's log", SOON, || {
        std::fs::read_to_string(&log).is_ok_and(|text| text.contains("maintenance of rack 7"))
    });
    wait("all routes gone", SOON, || fib(&net, "192.0.2.1").is_empty());
}

#[test]
#[ignore = "needs root, FRR and BIRD: cargo xtask test interop"]
fn a_killed_speaker_is_forgotten_at_once() {
    let net = Net::new("bgp-it-k");
    let _frr = frr(&net, "");
    let mut ours = speaker(&net, &["neighbor=10.9.0.2"]);
    wait_state(&mut ours, "10.9.0.2", "Established");
    ask(&mut ours, "announce 192.0.2.1/32");
    wait("the route", SOON, || fib(&net, "192.0.2.1").contains("via 10.9.0.1"));
    ours.signal(Signal::SIGKILL);
    let took = wait("gone", SOON, || fib(&net, "192.0.2.1").is_empty());
    println!("route of a killed speaker gone after {took:?}");
    assert!(took < Duration::from_millis(200), "{took:?}");
}

#[test]
#[ignore = "needs root, FRR and BIRD: cargo xtask test interop"]
fn the_wrong_as_is_told_so() {
    let net = Net::new("bgp-it-as");
    let frr = frr(&net, "");
    let mut ours = speaker(&net, &["neighbor=10.9.0.2,remote-as=65009"]);
    wait("the error", UP, || {
        let state = neighbor(&mut ours, "10.9.0.2");
        state["last_error"]["code"] == serde_json::json!([2, 2])
            && state["last_error"]["direction"] == "sent"
    });
    frr.wait("show bgp neighbor 10.9.0.1", SOON, |text| text.contains("Bad Peer AS"));
    assert_eq!(neighbor(&mut ours, "10.9.0.2")["established_count"], 0);
}

#[test]
#[ignore = "needs root, FRR and BIRD: cargo xtask test interop"]
fn the_peers_shutdown_message_is_kept() {
    let net = Net::new("bgp-it-sd");
    let frr = frr(&net, "");
    let mut ours = speaker(&net, &["neighbor=10.9.0.2"]);
    wait_state(&mut ours, "10.9.0.2", "Established");
    let line = "neighbor 10.9.0.1 shutdown message back at noon";
    frr.configure(&["router bgp 65000", line]);
    wait("the message", SOON, || {
        let state = neighbor(&mut ours, "10.9.0.2");
        let text = state["last_error"]["text"].as_str().unwrap_or_default().to_owned();
        text.contains("Administrative Shutdown") && text.contains("back at noon")
    });
}

#[test]
#[ignore = "needs root, FRR and BIRD: cargo xtask test interop"]
fn ten_thousand_prefixes_come_and_go() {
    let net = Net::new("bgp-it-10k");
    let frr = frr(&net, "");
    let mut ours = speaker(&net, &["neighbor=10.9.0.2"]);
    wait_state(&mut ours, "10.9.0.2", "Established");
    let count = |text: &str| -> Option<u64> {
        serde_json::from_str::<Value>(text).ok()?["ipv4Unicast"]["peers"]["10.9.0.1"]["pfxRcd"]
            .as_u64()
    };
    let limit = Duration::from_secs(2);
    for (command, expected) in [("announce-many 10000", 10_000), ("withdraw-all", 0)] {
        ask(&mut ours, command);
        let took = frr.wait("show bgp summary json", limit, |t| count(t) == Some(expected));
        println!("{command}: {took:?}");
        let kib = ask(&mut ours, "memory").as_u64().unwrap();
        println!("memory: {kib} KiB");
        assert!(kib < 64 * 1024, "{kib} KiB for ten thousand prefixes");
    }
}

#[test]
#[ignore = "needs root, FRR and BIRD: cargo xtask test interop"]
fn a_refresh_is_answered() {
    let net = Net::new("bgp-it-rr");
    let frr = frr(&net, "");
    let mut ours = speaker(&net, &["neighbor=10.9.0.2"]);
    wait_state(&mut ours, "10.9.0.2", "Established");
    ask(&mut ours, "announce 192.0.2.1/32");
    wait("the route", SOON, || fib(&net, "192.0.2.1").contains("via 10.9.0.1"));
    let before = neighbor(&mut ours, "10.9.0.2")["sent"]["update"].as_u64();
    frr.show("clear bgp ipv4 unicast 10.9.0.1 soft in");
    wait("the answer", SOON, || {
        let state = neighbor(&mut ours, "10.9.0.2");
        state["received"]["route_refresh"] == 1 && state["sent"]["update"].as_u64() > before
    });
    assert!(fib(&net, "192.0.2.1").contains("via 10.9.0.1"));
    assert_eq!(neighbor(&mut ours, "10.9.0.2")["established_count"], 1);
}

#[test]
#[ignore = "needs root, FRR and BIRD: cargo xtask test interop"]
fn an_unnumbered_neighbour_is_found_and_takes_both_families() {
    let net = Net::new("bgp-it-un");
    let _frr = net.frr(
        &["bgpd"],
        "router bgp 65000\n bgp router-id 10.9.0.2\n no bgp ebgp-requires-policy\n \
         neighbor eth0 interface remote-as external\n neighbor eth0 timers connect 1\n \
         address-family ipv6 unicast\n  neighbor eth0 activate\n exit-address-family\n",
    );
    let mut ours = speaker(&net, &["neighbor=eth0"]);
    wait_state(&mut ours, "::", "Established");
    ask(&mut ours, "announce 192.0.2.1/32");
    ask(&mut ours, "announce 2001:db8:f::1/128");
    wait("the v4 route", SOON, || fib(&net, "192.0.2.1").contains("via inet6 fe80::"));
    wait("the v6 route", SOON, || fib(&net, "2001:db8:f::1").contains("via fe80::"));
    ask(&mut ours, "withdraw 192.0.2.1/32");
    wait("withdrawn", SOON, || fib(&net, "192.0.2.1").is_empty());
    assert_eq!(neighbor(&mut ours, "::")["established_count"], 1);
}

#[test]
#[ignore = "needs root, FRR and BIRD: cargo xtask test interop"]
fn a_neighbour_two_hops_away_is_reached() {
    let net = Net::new("bgp-it-mh");
    for (ns, own, other, via) in [
        (&net.us, "10.99.0.1", "10.99.0.2", "10.9.0.2"),
        (&net.peer, "10.99.0.2", "10.99.0.1", "10.9.0.1"),
    ] {
        in_ns(ns, &["ip", "addr", "add", own, "dev", "lo"]);
        in_ns(ns, &["ip", "route", "add", other, "via", via]);
    }
    let _frr = frr(
        &net,
        "neighbor 10.99.0.1 remote-as 65001\n neighbor 10.99.0.1 ebgp-multihop 2\n \
         neighbor 10.99.0.1 update-source 10.99.0.2\n neighbor 10.99.0.1 timers connect 1",
    );
    let mut ours = speaker(&net, &["neighbor=10.99.0.2,source=10.99.0.1,multihop=2"]);
    wait_state(&mut ours, "10.99.0.2", "Established");
    ask(&mut ours, "announce 192.0.2.1/32");
    wait("the route", SOON, || fib(&net, "192.0.2.1").contains("via 10.9.0.1"));
}

#[test]
#[ignore = "needs root, FRR and BIRD: cargo xtask test interop"]
fn a_neighbour_may_dial_in_from_a_range_with_a_key() {
    let net = Net::new("bgp-it-rg");
    let _frr = frr(&net, "neighbor 10.9.0.1 password sesame");
    let mut ours =
        net.ours("speaker", &[&LISTEN[..], &["range=10.9.0.0/24,password=sesame"]].concat());
    ask(&mut ours, "announce 192.0.2.1/32");
    wait_state(&mut ours, "10.9.0.2", "Established");
    wait("the route", SOON, || fib(&net, "192.0.2.1").contains("via 10.9.0.1"));
}

#[test]
#[ignore = "needs root, FRR and BIRD: cargo xtask test interop"]
fn two_nodes_share_by_bandwidth_and_one_takes_over() {
    let net = Net::new("bgp-it-lb");
    in_ns(&net.us, &["ip", "addr", "add", "10.9.0.3/24", "dev", "eth0"]);
    let _frr = frr(
        &net,
        "neighbor 10.9.0.3 remote-as 65002\n neighbor 10.9.0.3 timers connect 1\n \
         address-family ipv4 unicast\n  maximum-paths 16\n exit-address-family",
    );
    let node = |asn, id| {
        let neighbor = format!("neighbor=10.9.0.2,source={id}");
        net.ours("speaker", &[asn, id, &neighbor])
    };
    let (mut one, mut three) = (node("65001", "10.9.0.1"), node("65002", "10.9.0.3"));
    wait_state(&mut one, "10.9.0.2", "Established");
    wait_state(&mut three, "10.9.0.2", "Established");
    ask(&mut one, "announce 192.0.2.1/32 bandwidth=1000000000");
    ask(&mut three, "announce 192.0.2.1/32 bandwidth=3000000000");
    let weight = |routes: &str, via: &str| -> Option<u32> {
        let hop = routes.split("nexthop").find(|h| h.contains(&format!("via {via} ")))?;
        hop.split_whitespace().skip_while(|w| *w != "weight").nth(1)?.parse().ok()
    };
    wait("both, by weight", SOON, || {
        let routes = fib(&net, "192.0.2.1");
        let weights = (weight(&routes, "10.9.0.1"), weight(&routes, "10.9.0.3"));
        matches!(weights, (Some(a), Some(b)) if a * 3 == b)
    });
    three.signal(Signal::SIGKILL);
    wait("the other alone", SOON, || {
        let routes = fib(&net, "192.0.2.1");
        routes.contains("via 10.9.0.1") && !routes.contains("10.9.0.3")
    });
}

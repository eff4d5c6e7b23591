//! Graceful restart.

use super::bird::bird;
use super::*;

/// RFC 4724, ours as the one that restarts: nothing it announces again leaves the router's kernel
/// while it is away; what it does not goes when it says that it is done.
fn crash_and_return(net: &Net, neighbors: &[&str], peer: &str) {
    let mut ours = speaker(net, neighbors);
    ask(&mut ours, "settled");
    wait_state(&mut ours, peer, "Established");
    ask(&mut ours, "announce 192.0.2.1/32");
    ask(&mut ours, "announce 192.0.2.2/32");
    for vip in ["192.0.2.1", "192.0.2.2"] {
        wait("the route", SOON, || fib(net, vip).contains("via 10.9.0.1"));
    }
    let watch = RouteWatch::new(net);
    ours.signal(Signal::SIGKILL);
    drop(ours);
    let mut ours = speaker(net, neighbors);
    wait_state(&mut ours, peer, "Established");
    assert!(fib(net, "192.0.2.2").contains("via"), "kept until we are done");
    ask(&mut ours, "announce 192.0.2.1/32");
    ask(&mut ours, "settled");
    watch.deleted("192.0.2.2");
    assert!(fib(net, "192.0.2.1").contains("via 10.9.0.1"));
    let gone =
        watch.lines.try_iter().find(|(_, l)| l.contains("Deleted") && l.contains("192.0.2.1"));
    assert!(gone.is_none(), "it was away for a moment: {gone:?}");
    // An orderly end is none of this.
    ours.say("shutdown for good");
    watch.deleted("192.0.2.1");
}

#[test]
#[ignore = "needs root, FRR and BIRD: cargo xtask test interop"]
fn frr_keeps_our_routes_while_we_restart_if_asked_to() {
    let net = Net::new("bgp-it-gr");
    let _frr = frr(&net, "");
    crash_and_return(&net, &["neighbor=10.9.0.2,restart=60"], "10.9.0.2");
}

#[test]
#[ignore = "needs root, FRR and BIRD: cargo xtask test interop"]
fn bird_keeps_our_routes_while_we_restart_if_asked_to() {
    let net = Net::new("bgp-it-gb");
    let session = "local as 65000; neighbor 10.9.0.1 as 65001; \
        ipv4 { import all; export none; }; ipv6 { import all; export none; };";
    let _bird = bird(&net, session);
    crash_and_return(&net, &["neighbor=10.9.0.2,restart=60"], "10.9.0.2");
}

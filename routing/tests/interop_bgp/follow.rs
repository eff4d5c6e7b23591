//! BFD beside BGP: who is followed, and what ends.

use super::*;

#[test]
#[ignore = "needs root, FRR and BIRD: cargo xtask test interop"]
fn bfd_down_ends_the_session_and_it_comes_back() {
    let net = Net::new("bgp-it-b");
    let frr = frr(&net, "");
    let mut ours = speaker(&net, &["neighbor=10.9.0.2"]);
    wait_state(&mut ours, "10.9.0.2", "Established");
    assert_eq!(ask(&mut ours, "bfd-down 10.9.0.2"), true);
    frr.wait("show bgp neighbor 10.9.0.1", SOON, |text| text.contains("(Cease/"));
    let state = neighbor(&mut ours, "10.9.0.2");
    assert_eq!(state["last_error"]["code"], serde_json::json!([6, 10]), "{state:#}");
    wait_state(&mut ours, "10.9.0.2", "Established");
    assert_eq!(neighbor(&mut ours, "10.9.0.2")["established_count"], 2);
}

/// FRR's BFD, 50 ms × 3.
const FAST_BFD: &str = "bfd\n profile fast\n  detect-multiplier 3\n  receive-interval 50\n  \
    transmit-interval 50\n exit\nexit\n";

/// What FRR adds after its BFD says down: bgpd collects changes for 50 ms, zebra for 10 ms.
const FRR_SHARE: Duration = Duration::from_millis(60);

fn bfd_is_up(ours: &mut Ours, frr: &Frr) {
    wait("our BFD", UP, || ask(ours, "bfd")["sessions"][0]["state"] == "Up");
    frr.wait("show bfd peers json", UP, |peers| peers.contains("\"status\":\"up\""));
}

#[test]
#[ignore = "needs root, FRR and BIRD: cargo xtask test interop"]
fn an_unnumbered_neighbour_is_followed_by_bfd() {
    let net = Net::new("bgp-it-ub");
    let frr = net.frr(
        &["bfdd", "bgpd"],
        &format!(
            "{FAST_BFD}router bgp 65000\n bgp router-id 10.9.0.2\n no bgp ebgp-requires-policy\n \
             neighbor eth0 interface remote-as external\n neighbor eth0 timers connect 1\n \
             neighbor eth0 bfd profile fast\n"
        ),
    );
    let mut ours = speaker(&net, &["bfd=50", "neighbor=eth0"]);
    wait_state(&mut ours, "::", "Established");
    bfd_is_up(&mut ours, &frr);
    let session = ask(&mut ours, "bfd")["sessions"][0].clone();
    assert_eq!(session["interface"], "eth0", "{session}");
    assert!(session["peer"].as_str().is_some_and(|p| p.starts_with("fe80::")), "{session}");
    ask(&mut ours, "announce 192.0.2.1/32");
    wait("the route", SOON, || fib(&net, "192.0.2.1").contains("via inet6 fe80::"));

    // We freeze: FRR must notice by BFD, long before its hold time.
    let watch = RouteWatch::new(&net);
    let frozen = Instant::now();
    ours.signal(Signal::SIGSTOP);
    let took = watch.deleted("192.0.2.1") - frozen;
    ours.signal(Signal::SIGCONT);
    println!("frozen: gone from FRR's kernel after {took:?}");
    assert!(took < Duration::from_millis(150) + FRR_SHARE + Duration::from_millis(190), "{took:?}");
    wait("the route again", UP, || fib(&net, "192.0.2.1").contains("via inet6 fe80::"));
    bfd_is_up(&mut ours, &frr);

    // FRR's BFD freezes: our session must end with Cease/10, found by its link.
    frr.signal("bfdd", Signal::SIGSTOP);
    wait("Cease/10", SOON, || {
        neighbor(&mut ours, "::")["last_down"]["code"] == serde_json::json!([6, 10])
    });
    frr.signal("bfdd", Signal::SIGCONT);
    wait_state(&mut ours, "::", "Established");
}

#[test]
#[ignore = "needs root, FRR and BIRD: cargo xtask test interop"]
fn a_neighbour_that_dials_in_from_a_range_is_followed_by_bfd() {
    let net = Net::new("bgp-it-rb");
    let frr = net.frr(
        &["bfdd", "bgpd"],
        &format!(
            "{FAST_BFD}router bgp 65000\n bgp router-id 10.9.0.2\n no bgp ebgp-requires-policy\n \
             neighbor 10.9.0.1 remote-as 65001\n neighbor 10.9.0.1 timers connect 1\n \
             neighbor 10.9.0.1 bfd profile fast\n"
        ),
    );
    let mut ours = speaker(&net, &["bfd=50", "range=10.9.0.0/24"]);
    assert_eq!(ask(&mut ours, "bfd")["sessions"], serde_json::json!([]), "nobody to follow yet");
    wait_state(&mut ours, "10.9.0.2", "Established");
    bfd_is_up(&mut ours, &frr);
    frr.signal("bfdd", Signal::SIGSTOP);
    wait("Cease/10", SOON, || {
        neighbor(&mut ours, "10.9.0.2")["last_down"]["code"] == serde_json::json!([6, 10])
    });
    frr.signal("bfdd", Signal::SIGCONT);
}

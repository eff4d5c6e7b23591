//! TCP-MD5 and GTSM.

use super::netns::at_once;
use super::*;

const AT_ONCE: usize = 3;

/// Of a namespace: letters that tell the cases apart.
fn name(what: &str) -> String {
    what.split(' ').filter_map(|word| word.get(..2.min(word.len()))).collect()
}

/// Ends of TCP connections between the two that may still send something by themselves.
fn connections(net: &Net) -> usize {
    let ends = |ns: &str| in_ns(ns, &["ss", "--tcp", "--all", "--numeric", "--no-header"]);
    let both = ends(&net.us) + &ends(&net.peer);
    let alive = |end: &&str| !end.starts_with("LISTEN") && !end.starts_with("TIME-WAIT");
    both.lines().filter(|end| end.contains("10.9.0.")).filter(alive).count()
}

#[test]
#[ignore = "needs root, FRR and BIRD: cargo xtask test interop"]
fn keys_and_ttl_are_demanded_in_both_directions() {
    let key = "neighbor 10.9.0.1 password sesame";
    let passive = "neighbor 10.9.0.1 passive";
    let gtsm = "neighbor 10.9.0.1 ttl-security hops 1";
    let cases = [
        ("md5, we dial", format!("{key}\n {passive}"), "password=sesame"),
        ("md5, the peer dials", key.to_owned(), "password=sesame,passive"),
        ("gtsm, we dial", format!("{gtsm}\n {passive}"), "gtsm"),
        ("gtsm, the peer dials", gtsm.to_owned(), "gtsm,passive"),
        ("both, we dial", format!("{key}\n {gtsm}\n {passive}"), "password=sesame,gtsm"),
        ("both, the peer dials", format!("{key}\n {gtsm}"), "password=sesame,gtsm,passive"),
    ];
    at_once(AT_ONCE, &cases, |(what, theirs, options)| {
        println!("{what}");
        let net = Net::new(&format!("bgp-it-{}", name(what)));
        let frr = frr(&net, theirs);
        // While it is idle, it accepts connections and closes them.
        wait("FRR to leave Idle", UP, || {
            let seen: Value =
                serde_json::from_str(&frr.show("show bgp neighbors 10.9.0.1 json")).unwrap();
            seen["10.9.0.1"]["bgpState"] != "Idle"
        });
        let mut ours = speaker(&net, &[&format!("neighbor=10.9.0.2,{options}")]);
        wait_state(&mut ours, "10.9.0.2", "Established");
        // Of a connection that was given up, the kernel of the end that waits (TIME-WAIT) answers with
        // its default TTL, and that is dropped, rightly, for minutes. There must not be one.
        assert_eq!(connections(&net), 2, "{what}: one connection, two ends");
        let before = ask(&mut ours, "status")["kernel"].clone();
        ask(&mut ours, "announce 192.0.2.1/32");
        wait("the route", SOON, || fib(&net, "192.0.2.1").contains("via 10.9.0.1"));
        assert_eq!(ask(&mut ours, "status")["kernel"], before, "{what}: nothing is dropped");
    });
}

#[test]
#[ignore = "needs root, FRR and BIRD: cargo xtask test interop"]
fn a_wrong_key_or_ttl_keeps_the_session_down_and_is_counted() {
    let cases = [
        ("another key", "neighbor 10.9.0.1 password sesame", ",password=other", "tcp_md5_failure"),
        ("no key at the peer", "", ",password=other", "tcp_md5_not_found"),
        ("no key here", "neighbor 10.9.0.1 password sesame", "", "tcp_md5_unexpected"),
        ("a TTL of 1", "", ",gtsm", "tcp_min_ttl_drop"),
    ];
    at_once(AT_ONCE, &cases, |&(what, theirs, options, counter)| {
        println!("{what}");
        let net = Net::new(&format!("bgp-it-{}", name(what)));
        let _frr = frr(&net, theirs);
        let mut ours = speaker(&net, &[&format!("neighbor=10.9.0.2,passive{options}")]);
        wait(what, UP, || ask(&mut ours, "status")["kernel"][counter].as_u64() > Some(0));
        assert_eq!(neighbor(&mut ours, "10.9.0.2")["established_count"], 0, "{what}");
    });
}

//! BIRD at the other end.

use super::netns::{Bird, at_once};
use super::*;

const AT_ONCE: usize = 3;

/// BIRD as AS 65000; `session` goes into its BGP protocol.
pub fn bird(net: &Net, session: &str) -> Bird {
    net.bird(&format!(
        "router id 10.9.0.2;\nprotocol device {{ scan time 1; }}\nprotocol direct {{ ipv4; ipv6; }}\n\
         protocol kernel {{ ipv4 {{ export where source=RTS_BGP; }}; merge paths on limit 16; }}\n\
         protocol kernel {{ ipv6 {{ export where source=RTS_BGP; }}; }}\n\
         protocol bgp dunlin {{ connect retry time 1; error wait time 1, 2; {session} }}\n"
    ))
}

#[test]
#[ignore = "needs root, FRR and BIRD: cargo xtask test interop"]
fn bird_installs_what_is_announced() {
    let both = "ipv4 { import all; export none; }; ipv6 { import all; export none; };";
    let cases = [
        ("a", "eBGP over IPv4", "local as 65000; neighbor 10.9.0.1 as 65001;", "neighbor=10.9.0.2"),
        ("b", "eBGP over IPv6", "local as 65000; neighbor fd09::1 as 65001;", "neighbor=fd09::2"),
        (
            "c",
            "iBGP",
            "local as 65001; neighbor 10.9.0.1 as 65001;",
            "neighbor=10.9.0.2,remote-as=internal",
        ),
        (
            "d",
            "MD5, BIRD passive",
            "local as 65000; neighbor 10.9.0.1 as 65001; password \"sesame\"; passive;",
            "neighbor=10.9.0.2,password=sesame",
        ),
        (
            "e",
            "GTSM, we passive",
            "local as 65000; neighbor 10.9.0.1 as 65001; ttl security on;",
            "neighbor=10.9.0.2,gtsm,passive",
        ),
    ];
    at_once(AT_ONCE, &cases, |&(name, what, session, neighbor)| {
        println!("{what}");
        let net = Net::new(&format!("bgp-it-r{name}"));
        let bird = bird(&net, &format!("{session} {both}"));
        let mut ours = speaker(&net, &[neighbor]);
        let address = neighbor.trim_start_matches("neighbor=").split(',').next().unwrap();
        wait_state(&mut ours, address, "Established");
        ask(&mut ours, "announce 192.0.2.1/32 large=65001:2:3");
        ask(&mut ours, "announce 2001:db8:f::1/128");
        wait("the v4 route", SOON, || fib(&net, "192.0.2.1").contains("via 10.9.0.1"));
        wait("the v6 route", SOON, || fib(&net, "2001:db8:f::1").contains("via fd09::1"));
        let route = bird.show("show route all for 192.0.2.1");
        assert!(route.contains("(65001, 2, 3)"), "{route}");
        ask(&mut ours, "withdraw 192.0.2.1/32");
        wait("withdrawn", SOON, || fib(&net, "192.0.2.1").is_empty());
        ours.say("shutdown going home");
        bird.wait("show protocols all dunlin", SOON, |text| {
            text.contains("Administrative shutdown") || text.contains("going home")
        });
    });
}

#[test]
#[ignore = "needs root, FRR and BIRD: cargo xtask test interop"]
fn a_withdrawal_leaves_birds_kernel_at_once() {
    let net = Net::new("bgp-it-bw");
    let session = "local as 65000; neighbor 10.9.0.1 as 65001; ipv4 { import all; export none; };";
    let _bird = bird(&net, session);
    let mut ours = speaker(&net, &["neighbor=10.9.0.2"]);
    wait_state(&mut ours, "10.9.0.2", "Established");
    let best = withdrawal_time(&net, &mut ours);
    println!("withdrawn from BIRD's kernel after {best:?}");
    assert!(best < Duration::from_millis(50), "withdrawal took {best:?}");
}

//! Our OSPF against FRR and BIRD, asserted on the peer's own view.

mod netns;

use netns::{Net, in_ns};
use nix::sys::signal::Signal;
use std::time::Duration;

const FULL: Duration = Duration::from_secs(20);
/// What looking through vtysh or birdc and a busy machine may add.
const SLACK: Duration = Duration::from_secs(1);

fn routes(net: &Net, v6: bool) -> String {
    in_ns(&net.peer, &["ip", if v6 { "-6" } else { "-4" }, "route", "show", "proto", "ospf"])
}

/// Waits for the kernel of the router to have, or not to have, a route to the prefix.
fn wait_route(net: &Net, prefix: &str, there: bool, within: Duration) -> Duration {
    let start = std::time::Instant::now();
    loop {
        let seen = routes(net, prefix.contains(':'));
        let is_it = |line: &str| line.split_whitespace().next() == Some(prefix);
        if seen.lines().any(is_it) == there {
            return start.elapsed();
        }
        assert!(start.elapsed() < within, "{prefix} {there}: not within {within:?}:\n{seen}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
#[ignore = "needs root, FRR and BIRD: cargo xtask test interop"]
fn frr_v2_becomes_full_and_installs_our_prefixes() {
    let cases = [
        ("p", "ip ospf network point-to-point", "normal", "", "eth0,hello=1,dead=4"),
        ("b", "ip ospf network broadcast", "normal", "", "eth0,hello=1,dead=4,broadcast"),
        (
            "d",
            "ip ospf network broadcast\n ip ospf priority 0",
            "normal",
            "",
            "eth0,hello=1,dead=4,broadcast,priority=1",
        ),
        (
            "m",
            "ip ospf network point-to-point\n ip ospf authentication message-digest\n \
             ip ospf message-digest-key 7 md5 tern",
            "normal",
            "",
            "eth0,hello=1,dead=4,md5=7:tern",
        ),
        (
            "a",
            "ip ospf network point-to-point\n ip ospf authentication\n \
             ip ospf authentication-key tern",
            "normal",
            "",
            "eth0,hello=1,dead=4,simple=tern",
        ),
        (
            "s",
            "ip ospf network point-to-point",
            "stub",
            " area 0.0.0.1 stub\n",
            "eth0,hello=1,dead=4",
        ),
        (
            "n",
            "ip ospf network point-to-point",
            "nssa",
            " area 0.0.0.1 nssa\n",
            "eth0,hello=1,dead=4",
        ),
    ];
    for (name, interface, kind, area, ours) in cases {
        let net = Net::new(&format!("o2{name}"));
        let number = if kind == "normal" { "0.0.0.0" } else { "0.0.0.1" };
        let frr = net.frr(
            &["ospfd"],
            &format!(
                "interface eth0\n {interface}\n ip ospf hello-interval 1\n \
                 ip ospf dead-interval 4\n ip ospf area {number}\nexit\n\
                 router ospf\n ospf router-id 10.9.0.2\n{area}exit\n"
            ),
        );
        let mut ours = net.ours("ospf", &["v2", "10.9.0.1", number, kind, ours]);
        ours.say("announce 192.0.2.1/32 stub 7");
        ours.hear(&["new: Full"], FULL);
        frr.wait("show ip ospf neighbor", FULL, |seen| seen.contains("Full/"));
        ours.say("announce 192.0.2.9/32 stub 7");
        wait_route(&net, "192.0.2.1", true, FULL);
        wait_route(&net, "192.0.2.9", true, FULL);
        if kind != "stub" {
            ours.say("announce 198.51.100.1/32 e2 20");
            ours.say("announce 198.51.100.0/24 e1 30");
            wait_route(&net, "198.51.100.1", true, FULL);
            wait_route(&net, "198.51.100.0/24", true, FULL);
            ours.say("withdraw 198.51.100.1/32");
            let took = wait_route(&net, "198.51.100.1", false, FULL);
            println!("{name}: external withdrawn in {took:?}");
        }
        ours.say("withdraw 192.0.2.1/32");
        let took = wait_route(&net, "192.0.2.1", false, FULL);
        println!("{name}: stub withdrawn in {took:?}");
        ours.finish();
        let took = wait_route(&net, "192.0.2.9", false, SLACK);
        println!("{name}: withdrawn by shutdown in {took:?}");
    }
}

#[test]
#[ignore = "needs root, FRR and BIRD: cargo xtask test interop"]
fn crash_and_restart_reclaims_what_the_router_remembers() {
    let net = Net::new("o2r");
    let _frr = net.frr(
        &["ospfd"],
        "interface eth0\n ip ospf network point-to-point\n ip ospf hello-interval 1\n \
         ip ospf dead-interval 4\n ip ospf area 0\nexit\n\
         router ospf\n ospf router-id 10.9.0.2\nexit\n",
    );
    let args = ["v2", "10.9.0.1", "0.0.0.0", "normal", "eth0,hello=1,dead=4"];
    let mut ours = net.ours("ospf", &args);
    ours.say("announce 192.0.2.1/32 e2 7");
    ours.say("announce 192.0.2.2/32 e2 7");
    wait_route(&net, "192.0.2.1", true, FULL);
    wait_route(&net, "192.0.2.2", true, FULL);
    ours.signal(Signal::SIGKILL);
    drop(ours);
    let mut ours = net.ours("ospf", &args);
    ours.say("announce 192.0.2.1/32 e2 7");
    ours.hear(&["new: Full"], FULL);
    wait_route(&net, "192.0.2.1", true, FULL);
    // What the former life announced and this one does not is flushed.
    wait_route(&net, "192.0.2.2", false, FULL);
    ours.finish();
}

#[test]
#[ignore = "needs root, FRR and BIRD: cargo xtask test interop"]
fn frr_v3_becomes_full_and_installs_our_prefixes() {
    let cases = [
        ("p", "ipv6 ospf6 network point-to-point", "normal", "", "eth0,hello=1,dead=4"),
        ("b", "ipv6 ospf6 network broadcast", "normal", "", "eth0,hello=1,dead=4,broadcast"),
        (
            "d",
            "ipv6 ospf6 network broadcast\n ipv6 ospf6 priority 0",
            "normal",
            "",
            "eth0,hello=1,dead=4,broadcast,priority=1",
        ),
        (
            "a",
            "ipv6 ospf6 network point-to-point\n \
             ipv6 ospf6 authentication key-id 7 hash-algo hmac-sha-256 key tern",
            "normal",
            "",
            "eth0,hello=1,dead=4,sha256=7:tern",
        ),
        (
            "s",
            "ipv6 ospf6 network point-to-point",
            "stub",
            " area 0.0.0.1 stub\n",
            "eth0,hello=1,dead=4",
        ),
        (
            "n",
            "ipv6 ospf6 network point-to-point",
            "nssa",
            " area 0.0.0.1 nssa\n",
            "eth0,hello=1,dead=4",
        ),
    ];
    for (name, interface, kind, area, ours) in cases {
        let net = Net::new(&format!("o3{name}"));
        let number = if kind == "normal" { "0.0.0.0" } else { "0.0.0.1" };
        let frr = net.frr(
            &["ospf6d"],
            &format!(
                "interface eth0\n ipv6 ospf6 area {number}\n {interface}\n \
                 ipv6 ospf6 hello-interval 1\n ipv6 ospf6 dead-interval 4\nexit\n\
                 router ospf6\n ospf6 router-id 10.9.0.2\n{area}exit\n"
            ),
        );
        let mut ours = net.ours("ospf", &["v3", "10.9.0.1", number, kind, ours]);
        ours.say("announce 2001:db8::1/128 stub 7");
        ours.hear(&["new: Full"], FULL);
        frr.wait("show ipv6 ospf6 neighbor", FULL, |seen| seen.contains("Full/"));
        ours.say("announce 2001:db8::9/128 stub 7");
        wait_route(&net, "2001:db8::1", true, FULL);
        wait_route(&net, "2001:db8::9", true, FULL);
        if kind != "stub" {
            ours.say("announce 2001:db8:1::1/128 e2 20");
            ours.say("announce 2001:db8:1::/48 e1 30");
            wait_route(&net, "2001:db8:1::1", true, FULL);
            wait_route(&net, "2001:db8:1::/48", true, FULL);
            ours.say("withdraw 2001:db8:1::1/128");
            let took = wait_route(&net, "2001:db8:1::1", false, FULL);
            println!("{name}: external withdrawn in {took:?}");
        }
        ours.say("withdraw 2001:db8::1/128");
        let took = wait_route(&net, "2001:db8::1", false, FULL);
        println!("{name}: intra-area prefix withdrawn in {took:?}");
        ours.finish();
        let took = wait_route(&net, "2001:db8::9", false, SLACK);
        println!("{name}: withdrawn by shutdown in {took:?}");
    }
}

//! Our OSPF against FRR and BIRD, asserted on the peer's own view.

mod netns;

use netns::{Net, at_once, in_ns};
use nix::sys::signal::Signal;
use std::time::Duration;

const FULL: Duration = Duration::from_secs(30);
/// Cases at a time: they wait for hellos and dead intervals, not for the CPU.
const AT_ONCE: usize = 6;
/// What looking through vtysh or birdc and a busy machine may add.
const SLACK: Duration = Duration::from_secs(1);

fn routes(net: &Net, v6: bool) -> String {
    in_ns(&net.peer, &["ip", if v6 { "-6" } else { "-4" }, "route"])
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
    at_once(AT_ONCE, &cases, |&(name, interface, kind, area, ours)| {
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
    });
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
        // No authentication here: FRR 8.4 appends the protocol ID of RFC 7166 §4.3 to the key in host
        // order, so on x86 it agrees with nobody but itself. The trailer is proven against BIRD.
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
    at_once(AT_ONCE, &cases, |&(name, interface, kind, area, ours)| {
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
    });
}

/// Our options of the interface, BIRD's, and those of its area.
struct BirdCase {
    name: &'static str,
    v3: bool,
    ours: &'static str,
    interface: &'static str,
    area: &'static str,
}

const fn bird_case(
    name: &'static str,
    v3: bool,
    ours: &'static str,
    interface: &'static str,
    area: &'static str,
) -> BirdCase {
    BirdCase { name, v3, ours, interface, area }
}

#[test]
#[ignore = "needs root, FRR and BIRD: cargo xtask test interop"]
fn bird_becomes_full_and_installs_our_prefixes() {
    let md5 = "authentication cryptographic; password \"tern\" { id 7; algorithm keyed md5; };";
    let sha1 = "authentication cryptographic; password \"tern\" { id 7; algorithm hmac sha1; };";
    let sha256 =
        "authentication cryptographic; password \"tern\" { id 7; algorithm hmac sha256; };";
    // As long as OSPFv3 leaves room for beside the protocol ID.
    let sha384 = "authentication cryptographic; \
        password \"a tern is no gull and a gull is no dunlin :-)\" \
        { id 7; algorithm hmac sha384; };";
    let sha512 =
        "authentication cryptographic; password \"tern\" { id 7; algorithm hmac sha512; };";
    let long = "sha384=7:a tern is no gull and a gull is no dunlin :-)";
    let cases = [
        bird_case("p2", false, "", "type ptp;", ""),
        bird_case("b2", false, "broadcast", "type broadcast;", ""),
        bird_case("d2", false, "broadcast,priority=1", "type broadcast; priority 0;", ""),
        bird_case("m2", false, "md5=7:tern", md5, ""),
        bird_case("s2", false, "sha1=7:tern", sha1, ""),
        bird_case("t2", false, "sha256=7:tern", sha256, ""),
        bird_case("u2", false, long, sha384, ""),
        bird_case("v2", false, "sha512=7:tern", sha512, ""),
        bird_case("w2", false, "simple=tern", "authentication simple; password \"tern\";", ""),
        bird_case("x2", false, "", "", "stub"),
        bird_case("n2", false, "", "", "nssa"),
        bird_case("p3", true, "", "type ptp;", ""),
        bird_case("b3", true, "broadcast", "type broadcast;", ""),
        bird_case("d3", true, "broadcast,priority=1", "type broadcast; priority 0;", ""),
        bird_case("s3", true, "sha1=7:tern", sha1, ""),
        bird_case("t3", true, "sha256=7:tern", sha256, ""),
        bird_case("u3", true, long, sha384, ""),
        bird_case("v3", true, "sha512=7:tern", sha512, ""),
        bird_case("x3", true, "", "", "stub"),
        bird_case("n3", true, "", "", "nssa"),
    ];
    at_once(AT_ONCE, &cases, bird_case_holds);
}

fn bird_case_holds(case: &BirdCase) {
    let BirdCase { name, v3, ours, interface, area } = case;
    let net = Net::new(&format!("ob{name}"));
    let (version, channel) = if *v3 { ("v3", "ipv6") } else { ("v2", "ipv4") };
    let number = if area.is_empty() { "0.0.0.0" } else { "0.0.0.1" };
    let area_options = if area.is_empty() { String::new() } else { format!("{area};") };
    let kind = if interface.contains("type") { "" } else { "type ptp;" };
    let _bird = net.bird(&format!(
        "log \"{}/bird/log\" all;\nrouter id 10.9.0.2;\nprotocol device {{}}\n\
         protocol kernel {{ {channel} {{ export all; }}; }}\n\
         protocol ospf {version} o {{ {channel} {{ import all; }}; area {number} {{ {area_options} \
         interface \"eth0\" {{ hello 1; dead 4; {kind} {interface} }}; }}; }}\n",
        net.dir.display()
    ));
    let options = format!("eth0,hello=1,dead=4{}{ours}", if ours.is_empty() { "" } else { "," });
    let area_kind = if area.is_empty() { "normal" } else { area };
    let mut ours = net.ours("ospf", &[version, "10.9.0.1", number, area_kind, &options]);
    let (stub, external) =
        if *v3 { ("2001:db8::1", "2001:db8:1::1") } else { ("192.0.2.1", "198.51.100.1") };
    let length = if *v3 { 128 } else { 32 };
    ours.say(&format!("announce {stub}/{length} stub 7"));
    ours.hear(&["new: Full"], FULL);
    wait_route(&net, stub, true, FULL);
    if *area != "stub" {
        ours.say(&format!("announce {external}/{length} e2 20"));
        wait_route(&net, external, true, FULL);
        ours.say(&format!("withdraw {external}/{length}"));
        let took = wait_route(&net, external, false, FULL);
        println!("{name}: external withdrawn in {took:?}");
    }
    ours.finish();
    let took = wait_route(&net, stub, false, FULL);
    println!("{name}: withdrawn by shutdown in {took:?}");
}

/// With the dead interval out of the way, BFD alone must notice.
#[test]
#[ignore = "needs root, FRR and BIRD: cargo xtask test interop"]
fn frozen_process_is_noticed_by_bfd_on_either_side() {
    let net = Net::new("obf");
    let frr = net.frr(
        &["ospfd", "bfdd"],
        "bfd\n profile fast\n  receive-interval 100\n  transmit-interval 100\n  \
         detect-multiplier 3\n exit\nexit\n\
         interface eth0\n ip ospf network point-to-point\n ip ospf hello-interval 1\n \
         ip ospf dead-interval 40\n ip ospf area 0\n ip ospf bfd\n ip ospf bfd profile fast\n\
         exit\nrouter ospf\n ospf router-id 10.9.0.2\nexit\n",
    );
    let args = ["v2", "10.9.0.1", "0.0.0.0", "normal", "bfd", "eth0,hello=1,dead=40"];
    let mut ours = net.ours("ospf", &args);
    ours.say("announce 192.0.2.1/32 stub 7");
    ours.hear(&["new: Full"], FULL);
    wait_route(&net, "192.0.2.1", true, FULL);
    frr.wait("show bfd peers json", FULL, |seen| seen.contains("\"status\":\"up\""));

    ours.signal(Signal::SIGSTOP);
    let took = wait_route(&net, "192.0.2.1", false, Duration::from_millis(600) + SLACK);
    println!("frozen: route gone after {took:?}");
    ours.signal(Signal::SIGCONT);
    ours.hear(&["old: Full, new: Down", "KillNbr"], FULL);
    ours.hear(&["new: Full"], FULL);
    wait_route(&net, "192.0.2.1", true, FULL);

    // The drain of a VIP: its cost rises, it stays reachable.
    ours.say("announce 192.0.2.1/32 stub 5000");
    frr.wait("show ip route 192.0.2.1/32", FULL, |seen| seen.contains("metric 5010"));
    ours.finish();
}

/// RFC 3623: the router's OSPF is upgraded under way; with our help nobody notices.
#[test]
#[ignore = "needs root, FRR and BIRD: cargo xtask test interop"]
fn frr_restarts_gracefully_with_our_help() {
    let net = Net::new("ogr");
    let mut frr = net.frr(
        &["ospfd"],
        "interface eth0\n ip ospf network point-to-point\n ip ospf hello-interval 1\n \
         ip ospf dead-interval 4\n ip ospf area 0\nexit\n\
         router ospf\n ospf router-id 10.9.0.2\n capability opaque\n graceful-restart grace-period 60\nexit\n",
    );
    let args = ["v2", "10.9.0.1", "0.0.0.0", "normal", "eth0,hello=1,dead=4"];
    let mut ours = net.ours("ospf", &args);
    ours.say("announce 192.0.2.1/32 stub 7");
    wait_route(&net, "192.0.2.1", true, FULL);
    ours.hear(&["new: Full"], FULL);
    frr.show("graceful-restart prepare ip ospf");
    frr.stop("ospfd");
    // Longer than the dead interval.
    let gone = std::time::Instant::now();
    while gone.elapsed() < Duration::from_secs(6) {
        let lost = !routes(&net, false).contains("192.0.2.1");
        assert!(!lost, "route lost {:?} after FRR's OSPF went", gone.elapsed());
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(ours.heard(), Vec::<String>::new(), "the neighbour was given up");
    frr.restart("ospfd");
    ours.hear(&["new: Full"], FULL);
    let back = std::time::Instant::now();
    while back.elapsed() < Duration::from_secs(3) {
        assert!(routes(&net, false).contains("192.0.2.1"), "route lost after FRR came back");
        std::thread::sleep(Duration::from_millis(50));
    }
    ours.finish();
}

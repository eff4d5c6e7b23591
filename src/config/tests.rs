//! Values as they are written, and differences between documents.

use super::diff::Effect;
use super::model::Device;
use super::value::{self, show_duration};
use super::{Config, diff, live_part};
use std::time::Duration;

const BASE: &str = r#"
[node]
name = "lb1"
[dataplane]
workers = [1]
[[port]]
name = "wan0"
device = "0000:03:00.0"
addresses = ["10.1.1.2/24"]
[local]
addresses = ["10.9.1.0/29"]
[bgp]
asn = 65001
[[bgp.neighbor]]
address = "10.1.1.1"
asn = 65000
password = "hunter2"
[[service]]
name = "web"
vips = ["192.0.2.10"]
protocol = "tcp"
ports = [80, 443]
check = { type = "tcp" }
backend = [{ address = "10.2.0.11:80" }, { address = "10.2.0.12:80", weight = 2 }]
"#;

fn parse(text: &str) -> Config {
    Config::parse(text, "test.toml").unwrap_or_else(|errors| panic!("{errors}"))
}

/// The base document with pieces replaced, and the difference from it, as people see it.
fn changed(replacements: &[(&str, &str)]) -> String {
    let mut text = BASE.to_owned();
    for (from, to) in replacements {
        assert!(text.contains(from), "{from} is not in the base document");
        text = text.replace(from, to);
    }
    diff(&parse(BASE), &parse(&text)).to_string()
}

#[test]
fn differences_are_told_by_object_and_field() {
    let cases: &[(&[(&str, &str)], &str)] = &[
        (&[], "no changes"),
        (&[("[80, 443]", "[443, 80]")], "no changes"),
        (
            &[("workers = [1]", "workers = [1, 2]")],
            "dataplane: workers [1] → [1, 2] (needs a restart)",
        ),
        (
            &[("workers = [1]", "steering = \"rss\"")],
            "dataplane: steering auto → rss (needs a restart)",
        ),
        (&[("workers = [1]", "stall-after = \"1s\"")], "dataplane: stall-after 500ms → 1s"),
        (
            &[("0000:03:00.0", "net_tap0"), ("10.1.1.2/24", "10.1.1.3/24")],
            "node: router-id 10.1.1.2 → 10.1.1.3 (needs a restart)\n\
             port wan0: device 0000:03:00.0 → net_tap0 (needs a restart)\n\
             port wan0: addresses [10.1.1.2/24] → [10.1.1.3/24]",
        ),
        (&[("10.9.1.0/29", "10.9.2.0/29")], "local 10.9.1.0/29 removed\nlocal 10.9.2.0/29 added"),
        (
            &[("asn = 65000", "asn = \"external\""), ("hunter2", "hunter3")],
            "bgp neighbor 10.1.1.1: asn 65000 → external\n\
             bgp neighbor 10.1.1.1: password changed",
        ),
        (
            &[("10.1.1.1\"", "10.1.1.9\"")],
            "bgp neighbor 10.1.1.1 removed\nbgp neighbor 10.1.1.9 added",
        ),
        (
            &[("password = \"hunter2\"", "bfd = { min-tx = \"50ms\" }\nimport = [\"::/0 le 48\"]")],
            "bgp neighbor 10.1.1.1: bfd false → true\n\
             bgp neighbor 10.1.1.1: password changed\n\
             bgp neighbor 10.1.1.1: import none → [::/0 le 48]",
        ),
        (
            &[("[bgp]", "[announce]\nmed = 5\nextended-communities = [\"rt:1:2\"]\n[bgp]")],
            "announce: extended-communities none → [rt:1:2]\nannounce: med none → 5",
        ),
        (
            &[("[[service]]", "[ospf]\ninterface = [{ name = \"wan0\" }]\n[[service]]")],
            "ospf added (needs a restart)",
        ),
        (
            &[(
                "check =",
                "announce = { ospf = { cost = 7 }, link-bandwidth = \"1Gbit\" }\ncheck =",
            )],
            "service web: link-bandwidth none → 1Gbit\nservice web: ospf none → stub 7",
        ),
        (&[("asn = 65001", "asn = 65009")], "bgp: asn 65001 → 65009 (needs a restart)"),
        (
            &[
                ("10.2.0.12:80\", weight = 2", "10.2.0.13\""),
                ("0.11:80\"", "0.11:80\", weight = 0"),
            ],
            "service web: backend 10.2.0.11:80: weight 1 → 0\n\
             service web: backend 10.2.0.12:80 removed\n\
             service web: backend 10.2.0.13 added",
        ),
        (&[("name = \"web\"", "name = \"www\"")], "service web removed\nservice www added"),
        (
            &[("type = \"tcp\"", "type = \"http\", fall = 1")],
            "service web: check tcp every 1s timeout 500ms rise 2 fall 2 → \
             http / status [200] every 1s timeout 500ms rise 2 fall 1",
        ),
        (
            &[("check =", "scheduler = \"round-robin\"\ncheck =")],
            "service web: scheduler maglev → round-robin",
        ),
    ];
    for (replacements, expected) in cases {
        assert_eq!(changed(replacements), *expected, "{replacements:?}");
    }
}

/// The live changes lead to the live part, and from there only restarts lead on.
#[test]
fn the_live_part_takes_all_live_changes_and_no_other() {
    let full = include_str!("../../docs/example.toml");
    let minimal = include_str!("../../tests/fixtures/config/good/minimal.toml");
    let unmanaged = include_str!("../../tests/fixtures/config/good/unmanaged.toml");
    let edited = full
        .replace("workers = [1, 2]", "workers = [3]")
        .replace("stall-after = \"500ms\"", "stall-after = \"1s\"")
        .replace("10.1.1.2/24", "10.1.1.3/24")
        .replace("mtu = 1500", "mtu = 9000")
        .replace("asn = 65001", "asn = 65002")
        .replace("hold-time = \"9s\"", "hold-time = \"30s\"")
        .replace("rise = 2", "rise = 3");
    let configs = [BASE, full, minimal, unmanaged, &edited].map(parse);
    for old in &configs {
        for new in &configs {
            let live = live_part(old, new);
            let (applied, rest, all) = (diff(old, &live), diff(&live, new), diff(old, new));
            assert!(!applied.needs_restart(), "{applied}");
            assert_eq!(rest.restarts().count(), all.restarts().count());
            for change in applied.changes() {
                assert!(all.changes().contains(change), "{change}");
            }
        }
    }
    let [_, full, .., edited] = &configs;
    let rest = diff(&live_part(full, edited), edited);
    assert!(rest.changes().iter().all(|change| change.effect == Effect::Restart), "{rest}");
    assert_eq!(rest.changes().len(), 3, "{rest}");
}

#[test]
fn adding_or_removing_bgp_needs_a_restart() {
    let without = BASE.split("[bgp]").next().unwrap();
    let (with, without) = (parse(BASE.split("[[service]]").next().unwrap()), parse(without));
    assert_eq!(diff(&with, &without).to_string(), "bgp removed (needs a restart)");
    assert!(diff(&without, &with).needs_restart());
}

#[test]
fn a_password_is_shown_by_no_formatter() {
    let config = parse(BASE);
    assert!(!format!("{config:?} {config:#?}").contains("hunter2"));
    let password = config.bgp.unwrap().neighbors[0].session.password.clone().unwrap();
    assert_eq!(password.expose(), "hunter2");
}

#[test]
fn durations_are_an_integer_and_a_unit() {
    let cases = [
        ("200us", Some(200)),
        ("500ms", Some(500_000)),
        ("3s", Some(3_000_000)),
        ("3 s", Some(3_000_000)),
        ("2m", Some(120_000_000)),
        ("1h", Some(3_600_000_000)),
        ("", None),
        ("s", None),
        ("3", None),
        ("-3s", None),
        ("1.5s", None),
        ("1m30s", None),
        ("3 secs", None),
        ("18446744073709551615us", Some(u64::MAX)),
        ("18446744073709551615s", None),
        ("18446744073709551616us", None),
    ];
    for (text, micros) in cases {
        assert_eq!(value::duration(text).ok(), micros.map(Duration::from_micros), "{text}");
    }
    for text in ["0s", "1us", "1500us", "20ms", "90s", "5m", "36h"] {
        assert_eq!(show_duration(value::duration(text).unwrap()), text);
    }
}

#[test]
fn devices_are_pci_addresses_or_virtual_devices() {
    let pci = |text: &str| Some(Device::Pci(text.to_owned()));
    assert_eq!(value::device("0000:03:00.0").ok(), pci("0000:03:00.0"));
    assert_eq!(value::device("AF:00.1").ok(), pci("0000:af:00.1"));
    for text in ["net_tap0,iface=x", "net_pcap,rx_pcap=/a b".replace(' ', "_").as_str()] {
        assert_eq!(value::device(text).ok(), Some(Device::Vdev(text.to_owned())));
    }
    for text in ["", "eth1", "03:00", "03:00.8", "0000:03:00.00", "ä3:00.0", "net tap", "x,net_"] {
        assert!(value::device(text).is_err(), "{text}");
    }
}

#[test]
fn suggestions_are_near_or_none() {
    let known = ["max-sleep", "max-flows", "poll"];
    let cases = [
        ("max_flows", Some("max-flows")),
        ("MaxFlows", Some("max-flows")),
        ("pol", Some("poll")),
        ("colour", None),
        ("", None),
    ];
    for (text, expected) in cases {
        assert_eq!(value::closest(text, &known), expected, "{text}");
    }
    assert_eq!(value::closest(&"x".repeat(1 << 20), &known), None);
}

//! The largest configuration is accepted, and anything beyond it refused with the limit's name.

use dunlin::config::Config;
use std::fmt::Write;

const HEAD: &str = "[node]\nname = \"lb1\"\n[[port]]\nname = \"wan0\"\ndevice = \"0000:03:00.0\"\n\
                    addresses = [\"10.1.1.2/24\"]\n[local]\naddresses = [\"10.9.0.0/20\"]\n";

/// `services` services with `ports` ports each, and `backends` backends in all, spread evenly.
fn document(services: usize, ports: usize, backends: usize) -> String {
    let mut text = HEAD.to_owned();
    let ports: Vec<_> = (1..=ports).collect();
    for service in 0..services {
        let vip = std::net::Ipv4Addr::from(0x0b00_0001 + service as u32);
        write!(
            text,
            "[[service]]\nname = \"s{service}\"\nvips = [\"{vip}\"]\nprotocol = \"tcp\"\n\
             ports = {ports:?}\n"
        )
        .unwrap();
        let share = backends / services + usize::from(service < backends % services);
        for backend in 0..share {
            let address = std::net::Ipv4Addr::from(0x0ac8_0000 + backend as u32);
            write!(text, "[[service.backend]]\naddress = \"{address}:80\"\n").unwrap();
        }
    }
    text
}

fn parse(text: &str) -> Result<Config, String> {
    Config::parse(text, "limits.toml").map_err(|errors| errors.to_string())
}

#[test]
fn the_most_services_backends_and_local_addresses_are_accepted() {
    let config = parse(&document(16_384, 1, 65_536)).unwrap();
    assert_eq!(config.services.len(), 16_384);
    assert_eq!(config.services.iter().map(|s| s.backends.len()).sum::<usize>(), 65_536);
    assert_eq!(config.local_addresses.len(), 4096);
    let last = config.local_addresses[4095].to_string();
    assert_eq!(last, "10.9.15.255");
    parse(&document(16, 1024, 16)).unwrap();
}

#[test]
fn one_more_is_refused() {
    let cases = [
        (document(16_385, 1, 16_385), "16385 of [[service]] is too many, at most 16384"),
        (document(17, 1024, 17), "service \"s16\": brings the services (VIPs × ports) above 16384"),
        (document(10, 1, 65_537), "service \"s9\": brings the backends above 65536"),
        (document(1, 1025, 1), "ports: 1025 entries are too many, at most 1024"),
    ];
    for (text, expected) in cases {
        let errors = parse(&text).unwrap_err();
        assert!(errors.contains(expected), "{errors}");
        assert_eq!(errors.lines().count(), 1, "{errors}");
    }
    let text = HEAD.replace("\"10.9.0.0/20\"", "\"10.9.0.0/20\", \"10.10.0.0/32\"");
    let errors = parse(&text).unwrap_err();
    assert!(errors.contains("item 2: brings the local addresses above 4096"), "{errors}");
}

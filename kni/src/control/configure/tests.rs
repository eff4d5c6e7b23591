use super::*;

fn set(nets: &[&str]) -> BTreeSet<IpNet> {
    nets.iter().map(|net| net.parse().expect("prefix")).collect()
}

#[test]
fn addresses_are_reconciled_by_difference_and_only_ours_are_removed() {
    struct Case {
        what: &'static str,
        wanted: &'static [&'static str],
        present: &'static [&'static str],
        ours: &'static [&'static str],
        expected: &'static [&'static str],
    }
    let cases = [
        Case {
            what: "a new interface",
            wanted: &["192.0.2.1/24", "2001:db8::1/64"],
            present: &["fe80::1/64"],
            ours: &[],
            expected: &["+192.0.2.1/24", "+2001:db8::1/64"],
        },
        Case {
            what: "nothing changed",
            wanted: &["192.0.2.1/24"],
            present: &["192.0.2.1/24"],
            ours: &["192.0.2.1/24"],
            expected: &[],
        },
        Case {
            what: "somebody else's stay, ours go",
            wanted: &[],
            present: &["192.0.2.1/24", "198.51.100.1/24"],
            ours: &["192.0.2.1/24"],
            expected: &["-192.0.2.1/24"],
        },
        Case {
            what: "the new one comes before the old one goes",
            wanted: &["192.0.2.9/24"],
            present: &["192.0.2.1/24"],
            ours: &["192.0.2.1/24"],
            expected: &["+192.0.2.9/24", "-192.0.2.1/24"],
        },
        Case {
            what: "but not with another prefix length: IPv6 has an address only once",
            wanted: &["2001:db8::1/48"],
            present: &["2001:db8::1/64"],
            ours: &["2001:db8::1/64"],
            expected: &["-2001:db8::1/64", "+2001:db8::1/48"],
        },
        Case {
            what: "ours, but already removed by somebody",
            wanted: &[],
            present: &[],
            ours: &["192.0.2.1/24"],
            expected: &[],
        },
        Case {
            what: "link-local addresses are never removed",
            wanted: &[],
            present: &["fe80::1/64"],
            ours: &["fe80::1/64"],
            expected: &[],
        },
    ];
    for case in cases {
        let found = changes(&set(case.wanted), &set(case.present), &set(case.ours));
        let shown = found.into_iter().map(|change| match change {
            Change::Add(net) => format!("+{net}"),
            Change::Remove(net) => format!("-{net}"),
        });
        assert_eq!(shown.collect::<Vec<_>>(), case.expected, "{}", case.what);
    }
}

#[test]
fn ipv6_addresses_skip_duplicate_address_detection() {
    let message = address_message(7, "2001:db8::1/64".parse().expect("prefix"));
    assert_eq!(message.header.flags, AddressHeaderFlags::Nodad);
    assert_eq!((message.header.index, message.header.prefix_len), (7, 64));
}

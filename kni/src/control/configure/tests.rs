use super::*;

fn set(nets: &[&str]) -> BTreeSet<IpNet> {
    nets.iter()
        .map(|net| net.parse().expect("prefix"))
        .collect()
}

#[test]
fn addresses_are_reconciled_by_difference_and_only_ours_are_removed() {
    struct Case {
        what: &'static str,
        wanted: &'static [&'static str],
        present: &'static [&'static str],
        ours: &'static [&'static str],
        add: &'static [&'static str],
        remove: &'static [&'static str],
    }
    let cases = [
        Case {
            what: "a new interface",
            wanted: &["192.0.2.1/24", "2001:db8::1/64"],
            present: &["fe80::1/64"],
            ours: &[],
            add: &["192.0.2.1/24", "2001:db8::1/64"],
            remove: &[],
        },
        Case {
            what: "nothing changed",
            wanted: &["192.0.2.1/24"],
            present: &["192.0.2.1/24"],
            ours: &["192.0.2.1/24"],
            add: &[],
            remove: &[],
        },
        Case {
            what: "somebody else's stay, ours go",
            wanted: &[],
            present: &["192.0.2.1/24", "198.51.100.1/24"],
            ours: &["192.0.2.1/24"],
            add: &[],
            remove: &["192.0.2.1/24"],
        },
        Case {
            what: "another prefix length is another address",
            wanted: &["192.0.2.1/25"],
            present: &["192.0.2.1/24"],
            ours: &["192.0.2.1/24"],
            add: &["192.0.2.1/25"],
            remove: &["192.0.2.1/24"],
        },
        Case {
            what: "ours, but already removed by somebody",
            wanted: &[],
            present: &[],
            ours: &["192.0.2.1/24"],
            add: &[],
            remove: &[],
        },
        Case {
            what: "link-local addresses are never removed",
            wanted: &[],
            present: &["fe80::1/64"],
            ours: &["fe80::1/64"],
            add: &[],
            remove: &[],
        },
    ];
    for case in cases {
        let found = difference(&set(case.wanted), &set(case.present), &set(case.ours));
        assert_eq!(found.add, Vec::from_iter(set(case.add)), "{}", case.what);
        assert_eq!(
            found.remove,
            Vec::from_iter(set(case.remove)),
            "{}",
            case.what
        );
    }
}

#[test]
fn ipv6_addresses_skip_duplicate_address_detection() {
    let message = address_message(7, "2001:db8::1/64".parse().expect("prefix"));
    assert_eq!(message.header.flags, AddressHeaderFlags::Nodad);
    assert_eq!((message.header.index, message.header.prefix_len), (7, 64));
}

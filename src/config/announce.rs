//! `[announce]` and `[service.announce]`: what goes with a prefix in BGP and OSPF.

use super::model::{Announce, Attributes};
use super::network::Known;
use super::reader::{Field, Table};
use super::schema::{self, Section};
use super::value;
use routing::{OspfAttributes, OspfKind};
use std::net::IpAddr;
use std::time::Duration;

const MAX_COMMUNITIES: usize = 64;
/// A longer path is a mistake: the internet's longest are shorter.
const MAX_PREPEND: u64 = 32;
/// Cost of a prefix when nothing else is said.
const DEFAULT_COST: u32 = 10;
/// One below the maximum, which is what a drain raises it to (RFC 2328 Appendix B: LSInfinity for
/// external routes, which says "unreachable" and so is not used either).
const MAX_STUB_COST: u64 = 65_534;
const MAX_EXTERNAL_COST: u64 = 16_777_213;

pub(super) fn announce(root: &Table<'_>, known: &Known) -> Announce {
    let table = root.section("announce", &schema::ANNOUNCE);
    let drain_wait = table
        .get("drain-wait")
        .and_then(|field| field.duration(Duration::ZERO..=Duration::from_secs(600)));
    let defaults = attributes(&table, &schema::ANNOUNCE_OSPF, known.stub_v4 || known.stub_v6);
    Announce { drain_wait: drain_wait.unwrap_or(Duration::from_secs(5)), defaults }
}

/// `stub`: an OSPF area that would have to carry the prefixes takes no external routes.
pub(super) fn attributes(table: &Table<'_>, ospf: &'static Section, stub: bool) -> Attributes {
    let communities = |key, example: &str| {
        let items = table.get(key)?.list(MAX_COMMUNITIES, format!("[\"{example}\"]"));
        Some((items, format!("a string like \"{example}\"")))
    };
    Attributes {
        communities: communities("communities", "65001:100")
            .map(|(items, expected)| sorted(&items, &expected, value::community)),
        large_communities: communities("large-communities", "65001:1:100")
            .map(|(items, expected)| sorted(&items, &expected, value::large_community)),
        extended_communities: communities("extended-communities", "rt:65001:100")
            .map(|(items, expected)| sorted(&items, &expected, value::extended_community)),
        link_bandwidth: table
            .get("link-bandwidth")
            .and_then(|field| field.parse("a bandwidth like \"10Gbit\"", value::bit_rate)),
        med: table.get("med").and_then(|field| field.integer(0..=u64::from(u32::MAX))),
        local_preference: table
            .get("local-preference")
            .and_then(|field| field.integer(0..=u64::from(u32::MAX))),
        prepend: table.get("prepend").and_then(|field| field.integer(0..=MAX_PREPEND)),
        next_hop: table.get("next-hop").map(|field| next_hops(&field)),
        ospf: table.table("ospf", ospf).and_then(|table| ospf_attributes(&table, stub)),
    }
}

fn sorted<T: Ord>(
    items: &[Field<'_>],
    expected: &str,
    parse: fn(&str) -> value::Parsed<T>,
) -> Vec<T> {
    let mut values: Vec<T> = items.iter().filter_map(|item| item.parse(expected, parse)).collect();
    values.sort();
    values.dedup();
    values
}

/// At most one address of each family.
pub(super) fn next_hops(field: &Field<'_>) -> Vec<IpAddr> {
    let mut hops: Vec<IpAddr> = Vec::new();
    for item in field.list(2, "[\"10.1.1.2\", \"fd00:1::2\"]") {
        let Some(hop) = item.parse("an address like \"10.1.1.2\"", value::unicast) else {
            continue;
        };
        match hops.iter().find(|other| other.is_ipv4() == hop.is_ipv4()) {
            Some(other) => {
                item.error(format!("{hop} is a second one of its family, after {other}"));
            }
            None => hops.push(hop),
        }
    }
    hops
}

fn ospf_attributes(table: &Table<'_>, stub: bool) -> Option<OspfAttributes> {
    let kind = match table.get("type") {
        None => OspfKind::Stub,
        Some(field) => {
            let kind = field.choice(&[
                ("stub", OspfKind::Stub),
                ("external-1", OspfKind::External1),
                ("external-2", OspfKind::External2),
            ])?;
            if kind != OspfKind::Stub && stub {
                field.error("cannot be external: the OSPF area is a stub area");
            }
            kind
        }
    };
    let most = if kind == OspfKind::Stub { MAX_STUB_COST } else { MAX_EXTERNAL_COST };
    let cost = match table.get("cost") {
        None => DEFAULT_COST,
        Some(field) => field.integer(1..=most)?,
    };
    Some(OspfAttributes { cost, kind })
}

#[cfg(test)]
mod tests {
    use super::value;

    #[test]
    fn extended_communities_by_kind_or_in_hex() {
        let cases: &[(&str, Option<u64>)] = &[
            ("rt:65001:100", Some(0x0002_fde9_0000_0064)),
            ("rt:65001:4294967295", Some(0x0002_fde9_ffff_ffff)),
            ("rt:65536:1", Some(0x0202_0001_0000_0001)),
            ("soo:10.0.0.1:7", Some(0x0103_0a00_0001_0007)),
            ("0x4004fde94e9502f9", Some(0x4004_fde9_4e95_02f9)),
            ("rt:65536:65536", None),
            ("rt:10.0.0.1:65536", None),
            ("rt:65001", None),
            ("rt:65001:+1", None),
            ("bandwidth:1:1", None),
            ("0x0002", None),
            ("0x+002fde900000064", None),
            ("65001:100", None),
        ];
        for (text, expected) in cases {
            let octets = value::extended_community(text);
            assert_eq!(octets.clone().ok().map(u64::from_be_bytes), *expected, "{text}");
            if let Ok(octets) = octets {
                assert_eq!(value::show_extended_community(octets), *text);
            }
        }
    }

    #[test]
    fn large_communities_have_three_parts() {
        assert_eq!(value::large_community("1:2:4294967295"), Ok((1, 2, u32::MAX)));
        for text in ["", "1:2", "1:2:3:4", "1:2:4294967296", "1:2:", "a:1:2", "1:2:+3"] {
            assert!(value::large_community(text).is_err(), "{text}");
        }
    }

    #[test]
    fn bandwidths_are_bits_in_powers_of_ten() {
        assert_eq!(value::bit_rate("10Gbit"), Ok(10_000_000_000));
        assert_eq!(value::bit_rate("1kbit"), Ok(1000));
        for text in ["", "10", "10G", "10GiB", "0Mbit", "1001Tbit", "-1Gbit", "1.5Gbit"] {
            assert!(value::bit_rate(text).is_err(), "{text}");
        }
        for text in ["10Gbit", "2500Mbit", "1kbit", "1000Tbit"] {
            assert_eq!(value::bit_rate(text).map(value::show_bit_rate).as_deref(), Ok(text));
        }
    }

    #[test]
    fn a_prefix_list_entry_matches_the_lengths_it_names() {
        let cases = [
            ("10.0.0.0/8", Some((8, 8))),
            ("10.0.0.0/8 le 24", Some((8, 24))),
            ("10.0.0.0/8 ge 16", Some((16, 32))),
            ("10.0.0.0/8 ge 16 le 24", Some((16, 24))),
            ("::/0", Some((0, 0))),
            ("fd00::/8 le 128", Some((8, 128))),
            ("10.0.0.0/8 le 7", None),
            ("10.0.0.0/8 le 33", None),
            ("10.0.0.0/8 ge 24 le 16", None),
            ("10.0.0.0/8 le 24 ge 16", None),
            ("10.0.0.0/8 le", None),
            ("10.0.0.0/8 eq 9", None),
            ("10.1.0.0/8", None),
            ("", None),
        ];
        for (text, lengths) in cases {
            let matched = value::prefix_match(text).ok();
            assert_eq!(matched.map(|m| (m.min_len, m.max_len)), lengths, "{text}");
        }
    }
}

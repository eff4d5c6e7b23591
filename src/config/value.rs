//! How single values are written: durations, sizes, addresses, names.
//!
//! Each function takes the text and gives the value, or the rest of a sentence that begins with
//! the quoted text: `is not a duration (expected like "500ms")`.

use crate::config::model::{Device, NicName};
use crate::forward::tables::Mac;
use ipnet::IpNet;
use routing::bgp::config::PrefixMatch;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

pub(crate) type Parsed<T> = Result<T, String>;

/// An integer and a unit: `200us`, `500ms`, `3s`, `5m`, `1h`.
pub(super) fn duration(text: &str) -> Parsed<Duration> {
    let fault = || {
        "is not a duration (expected like \"500ms\" or \"3s\"; units us, ms, s, m, h)".to_owned()
    };
    let (count, unit) = count_and_unit(text).ok_or_else(fault)?;
    let micros = match unit {
        "us" => 1,
        "ms" => 1_000,
        "s" => 1_000_000,
        "m" => 60_000_000,
        "h" => 3_600_000_000,
        _ => return Err(fault()),
    };
    count.checked_mul(micros).map(Duration::from_micros).ok_or_else(|| "is too long".to_owned())
}

/// A duration as [`duration`] reads it, in the largest unit that holds it exactly.
pub(super) fn show_duration(duration: Duration) -> String {
    let micros = duration.as_micros();
    let units = [(3_600_000_000, "h"), (60_000_000, "m"), (1_000_000, "s"), (1_000, "ms")];
    match units.iter().find(|(size, _)| micros >= *size && micros.is_multiple_of(*size)) {
        Some((size, unit)) => format!("{}{unit}", micros / size),
        None if micros == 0 => "0s".to_owned(),
        None => format!("{micros}us"),
    }
}

/// Bytes: an integer and a unit, `64MiB`.
pub(super) fn size(text: &str) -> Parsed<u64> {
    let fault =
        || "is not a size (expected like \"512MiB\" or \"1GiB\"; units KiB, MiB, GiB)".to_owned();
    let (count, unit) = count_and_unit(text).ok_or_else(fault)?;
    let shift = match unit {
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        _ => return Err(fault()),
    };
    count.checked_mul(1 << shift).ok_or_else(|| "is too large".to_owned())
}

fn count_and_unit(text: &str) -> Option<(u64, &str)> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (count, unit) = text.split_at(digits);
    Some((count.parse().ok()?, unit.trim_start_matches(' ')))
}

/// An address that a packet can be sent to and that is not bound to one link.
pub(crate) fn unicast(text: &str) -> Parsed<IpAddr> {
    let address = text.parse().map_err(|_| {
        "is not an IP address (expected like \"10.0.2.1\" or \"fd00::1\")".to_owned()
    })?;
    check_unicast(address).map(|()| address)
}

/// Refuses addresses that no VIP, local address, backend or gateway can have.
pub(super) fn check_unicast(address: IpAddr) -> Parsed<()> {
    let fault = match address {
        _ if address.is_unspecified() => "is the unspecified address",
        _ if address.is_loopback() => "is a loopback address",
        _ if address.is_multicast() => "is a multicast address",
        IpAddr::V4(v4) if v4.is_broadcast() => "is the broadcast address",
        IpAddr::V4(v4) if v4.octets()[0] == 0 => "is in 0.0.0.0/8, which is not routed",
        IpAddr::V4(v4) if v4.is_link_local() => "is a link-local address",
        IpAddr::V6(v6) if v6.is_unicast_link_local() => "is a link-local address",
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => {
            "is an IPv4-mapped address (write the IPv4 address itself)"
        }
        _ => return Ok(()),
    };
    Err(format!("{fault}, expected a routable unicast address"))
}

/// An address with or without a port: `10.0.2.1:80`, `[fd00::1]:80`, `10.0.2.1`, `fd00::1`.
pub(crate) fn endpoint(text: &str) -> Parsed<(IpAddr, Option<u16>)> {
    let (address, port) = match (text.parse::<SocketAddr>(), text.parse::<IpAddr>()) {
        (Ok(SocketAddr::V6(v6)), _) if v6.scope_id() != 0 => {
            return Err("has a zone, expected a routable unicast address".to_owned());
        }
        (Ok(socket), _) => (socket.ip(), Some(socket.port())),
        (_, Ok(address)) => (address, None),
        _ => {
            return Err("is not an IP address and port (expected like \"10.0.2.1:80\" or \
                 \"[fd00::1]:80\"; without a port, the one the client asked for)"
                .to_owned());
        }
    };
    if port == Some(0) {
        return Err("has port 0, expected 1 to 65535".to_owned());
    }
    check_unicast(address).map(|()| (address, port))
}

/// A prefix: `10.9.1.0/29`, `fd00::/64`. An address alone is a prefix of its full length.
/// Bits beyond the length must be zero.
pub(crate) fn prefix(text: &str) -> Parsed<IpNet> {
    let prefix = match text.parse::<IpAddr>() {
        Ok(address) => IpNet::from(address),
        Err(_) => text.parse::<IpNet>().map_err(|_| {
            "is not a prefix (expected like \"10.9.1.0/29\" or \"fd00:9::/125\")".to_owned()
        })?,
    };
    if prefix.trunc() != prefix {
        return Err(format!(
            "has address bits beyond its length, expected \"{}\" or a longer length",
            prefix.trunc()
        ));
    }
    Ok(prefix)
}

/// An address of an interface with the length of its network: `10.1.1.2/24`.
pub(crate) fn interface_address(text: &str) -> Parsed<IpNet> {
    let example = "(expected like \"10.1.1.2/24\" or \"fd00:1::2/64\")";
    if text.parse::<IpAddr>().is_ok() {
        return Err(format!("has no prefix length {example}"));
    }
    let net: IpNet =
        text.parse().map_err(|_| format!("is not an address with prefix length {example}"))?;
    check_unicast(net.addr())?;
    if net.prefix_len() == 0 {
        return Err(format!("has prefix length 0 {example}"));
    }
    if let IpNet::V4(v4) = net
        && v4.prefix_len() < 31
        && (v4.addr() == v4.network() || v4.addr() == v4.broadcast())
    {
        return Err(format!("is the network or broadcast address of {}", v4.trunc()));
    }
    Ok(net)
}

/// A PCI address, the MAC address of a NIC, or a DPDK virtual device.
pub(super) fn device(text: &str) -> Parsed<Device> {
    if let Some(pci) = pci_address(text) {
        return Ok(Device::Pci(pci));
    }
    if let Some(text) = text.strip_prefix("mac:") {
        return mac(text).map(Device::Mac);
    }
    let (driver, _) = text.split_once(',').unwrap_or((text, ""));
    let known = ["net_", "eth_", "virtio_user"].iter().any(|prefix| driver.starts_with(prefix));
    let plain = driver.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    if known && plain && text.len() <= 255 && text.bytes().all(|b| b.is_ascii_graphic()) {
        return Ok(Device::Vdev(text.to_owned()));
    }
    Err("is not a device (expected a PCI address like \"0000:03:00.0\", a NIC by \
         \"mac:52:54:00:00:00:01\", or a DPDK virtual device like \"net_af_packet,iface=eth1\")"
        .to_owned())
}

/// The name of a kernel interface, or `mac:` and a MAC address.
pub(super) fn nic(text: &str) -> Parsed<NicName> {
    match text.strip_prefix("mac:") {
        Some(text) => mac(text).map(NicName::Mac),
        None => interface_name(text).map(NicName::Name),
    }
}

/// `0000:03:00.0` or `03:00.0`, normalised to the long form in lower case.
fn pci_address(text: &str) -> Option<String> {
    let lower = text.to_ascii_lowercase();
    let full = if lower.len() == 7 { format!("0000:{lower}") } else { lower };
    let shape = b"xxxx:xx:xx.o";
    let fits = full.len() == shape.len()
        && full.bytes().zip(shape).all(|(byte, kind)| match kind {
            b'x' => byte.is_ascii_hexdigit(),
            b'o' => (b'0'..=b'7').contains(&byte),
            other => byte == *other,
        });
    fits.then_some(full)
}

/// `02:00:00:00:00:01`.
pub(super) fn mac(text: &str) -> Parsed<Mac> {
    let fault = || "is not a MAC address (expected like \"02:00:00:00:00:01\")".to_owned();
    let mut octets = [0; 6];
    let mut parts = text.split(':');
    for octet in &mut octets {
        let part = parts.next().filter(|part| part.len() == 2).ok_or_else(fault)?;
        *octet = u8::from_str_radix(part, 16).map_err(|_| fault())?;
    }
    if parts.next().is_some() || text.contains('+') {
        return Err(fault());
    }
    if octets == [0; 6] || octets[0] & 1 != 0 {
        return Err("is not a unicast MAC address".to_owned());
    }
    Ok(Mac(octets))
}

/// A standard community (RFC 1997), `65001:100`.
pub(super) fn community(text: &str) -> Parsed<(u16, u16)> {
    text.split_once(':')
        .filter(|_| text.bytes().all(|b| b.is_ascii_digit() || b == b':'))
        .and_then(|(asn, value)| Some((asn.parse().ok()?, value.parse().ok()?)))
        .ok_or_else(|| {
            "is not a community (expected like \"65001:100\", each part 0 to 65535)".to_owned()
        })
}

/// A large community (RFC 8092), `65001:1:100`.
pub(super) fn large_community(text: &str) -> Parsed<(u32, u32, u32)> {
    let fault = || {
        "is not a large community (expected like \"65001:1:100\", each part 0 to 4294967295)"
            .to_owned()
    };
    if !text.bytes().all(|b| b.is_ascii_digit() || b == b':') {
        return Err(fault());
    }
    let parts: Vec<u32> = text.split(':').map_while(|part| part.parse().ok()).collect();
    match parts[..] {
        [a, b, c] if text.matches(':').count() == 2 => Ok((a, b, c)),
        _ => Err(fault()),
    }
}

/// An extended community (RFC 4360): `rt:65001:100`, `soo:10.0.0.1:7`, or its eight octets in hex.
///
/// The type follows from how the first number is written: two-octet AS (RFC 4360 §3.1), IPv4
/// address (§3.2), four-octet AS (RFC 5668).
pub(super) fn extended_community(text: &str) -> Parsed<[u8; 8]> {
    let fault = || {
        "is not an extended community (expected like \"rt:65001:100\", \"soo:10.0.0.1:100\" or \
         \"0x0002fde900000064\")"
            .to_owned()
    };
    if let Some(hex) = text.strip_prefix("0x") {
        let sound = hex.len() == 16 && hex.bytes().all(|b| b.is_ascii_hexdigit());
        let octets = u64::from_str_radix(hex, 16).ok().filter(|_| sound);
        return octets.map(u64::to_be_bytes).ok_or_else(fault);
    }
    let (kind, rest) = text.split_once(':').ok_or_else(fault)?;
    let subtype = match kind {
        "rt" => 2,
        "soo" => 3,
        _ => return Err(fault()),
    };
    let (global, local) = rest.rsplit_once(':').ok_or_else(fault)?;
    if !rest.bytes().all(|b| b.is_ascii_digit() || matches!(b, b':' | b'.')) {
        return Err(fault());
    }
    let [g0, g1, g2, g3] = match (global.parse::<Ipv4Addr>(), global.parse::<u32>()) {
        (Ok(address), _) => address.octets(),
        (_, Ok(asn)) => asn.to_be_bytes(),
        _ => return Err(fault()),
    };
    let local: u32 = local.parse().map_err(|_| fault())?;
    let [l0, l1, l2, l3] = local.to_be_bytes();
    let kind: u8 = match global.contains('.') {
        true => 1,
        false if (g0, g1) == (0, 0) => 0,
        false => 2,
    };
    if kind == 0 {
        return Ok([kind, subtype, g2, g3, l0, l1, l2, l3]);
    }
    if local > 65_535 {
        return Err(format!("has {local}, expected at most 65535 behind {global}"));
    }
    Ok([kind, subtype, g0, g1, g2, g3, l2, l3])
}

/// An extended community as [`extended_community`] reads it.
pub(crate) fn show_extended_community(octets: [u8; 8]) -> String {
    let [kind, subtype, g0, g1, g2, g3, l2, l3] = octets;
    let name = match subtype {
        2 => "rt",
        3 => "soo",
        _ => return format!("0x{:016x}", u64::from_be_bytes(octets)),
    };
    let (four, two) = (u32::from_be_bytes([g0, g1, g2, g3]), u16::from_be_bytes([l2, l3]));
    match kind {
        0 => {
            let local = u32::from_be_bytes([g2, g3, l2, l3]);
            format!("{name}:{}:{local}", u16::from_be_bytes([g0, g1]))
        }
        1 => format!("{name}:{}:{two}", Ipv4Addr::from(four)),
        // A small number would read as two octets.
        2 if four > 65_535 => format!("{name}:{four}:{two}"),
        _ => format!("0x{:016x}", u64::from_be_bytes(octets)),
    }
}

const BIT_RATES: [(&str, u64); 4] =
    [("Tbit", 1_000_000_000_000), ("Gbit", 1_000_000_000), ("Mbit", 1_000_000), ("kbit", 1_000)];

/// Bits per second: an integer and a unit, `10Gbit`.
pub(super) fn bit_rate(text: &str) -> Parsed<u64> {
    let fault = || {
        "is not a bandwidth (expected like \"10Gbit\" or \"2500Mbit\"; units kbit, Mbit, Gbit, \
         Tbit, per second)"
            .to_owned()
    };
    let (count, unit) = count_and_unit(text).ok_or_else(fault)?;
    let (_, size) = BIT_RATES.iter().find(|(name, _)| *name == unit).ok_or_else(fault)?;
    let rate = count.checked_mul(*size).filter(|rate| *rate <= 1_000_000_000_000_000);
    rate.filter(|rate| *rate > 0)
        .ok_or_else(|| "is out of range, expected 1kbit to 1000Tbit".to_owned())
}

/// A bandwidth as [`bit_rate`] reads it.
pub(crate) fn show_bit_rate(rate: u64) -> String {
    match BIT_RATES.iter().find(|(_, size)| rate >= *size && rate.is_multiple_of(*size)) {
        Some((unit, size)) => format!("{}{unit}", rate / size),
        None => format!("{rate}bit"),
    }
}

/// A prefix and the lengths within it: `10.0.0.0/8`, `10.0.0.0/8 le 24`, `10.0.0.0/8 ge 16 le 24`.
pub(super) fn prefix_match(text: &str) -> Parsed<PrefixMatch> {
    let mut words = text.split_ascii_whitespace();
    let prefix = prefix(words.next().unwrap_or_default())?;
    let (own, longest) = (prefix.prefix_len(), prefix.max_prefix_len());
    let (mut min, mut max): (Option<u8>, Option<u8>) = (None, None);
    while let Some(word) = words.next() {
        let slot = match word {
            "ge" if min.is_none() && max.is_none() => &mut min,
            "le" if max.is_none() => &mut max,
            _ => {
                return Err(
                    "is not a prefix with lengths (expected like \"10.0.0.0/8 ge 16 le 24\")"
                        .to_owned(),
                );
            }
        };
        let length = words.next().and_then(|length| length.parse().ok());
        *slot = length.filter(|length| (own..=longest).contains(length));
        if slot.is_none() {
            return Err(format!("needs a length from {own} to {longest} behind \"{word}\""));
        }
    }
    // As routers read them: `ge` alone opens the end, `le` alone begins with the prefix itself.
    let matched = PrefixMatch {
        prefix,
        min_len: min.unwrap_or(own),
        max_len: max.or(min.map(|_| longest)).unwrap_or(own),
    };
    if matched.min_len > matched.max_len {
        return Err(format!("has ge {} above le {}", matched.min_len, matched.max_len));
    }
    Ok(matched)
}

/// An OSPF area: a number, or four octets.
pub(super) fn area(text: &str) -> Parsed<Ipv4Addr> {
    text.parse().map_err(|_| {
        "is not an area (expected like \"0.0.0.1\", or the number without quotes)".to_owned()
    })
}

/// A name for people and logs: letters, digits, `.`, `_`, `-`, beginning with a letter or digit.
pub(crate) fn name(text: &str) -> Parsed<String> {
    let begins = text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    if begins && text.len() <= 63 && text.bytes().all(is_name_byte) {
        return Ok(text.to_owned());
    }
    Err("is not a name (expected 1 to 63 letters, digits, \".\", \"_\" or \"-\", beginning with a \
         letter or digit)"
        .to_owned())
}

/// A name that the kernel accepts for a network interface, and that is not taken by one.
pub(crate) fn interface_name(text: &str) -> Parsed<String> {
    let reserved = ["lo", "all", "default"];
    if reserved.contains(&text) {
        return Err("is reserved by the kernel, expected another name".to_owned());
    }
    name(text).ok().filter(|name| name.len() <= 15).ok_or_else(|| {
        "is not an interface name (expected 1 to 15 letters, digits, \".\", \"_\" or \"-\", \
         beginning with a letter or digit)"
            .to_owned()
    })
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-')
}

/// The known word that `text` most likely meant, if any is near.
pub(super) fn closest<'k>(text: &str, known: &[&'k str]) -> Option<&'k str> {
    // No key is that long, and the distance costs the product of the lengths.
    if text.len() > 32 {
        return None;
    }
    let text = text.to_ascii_lowercase().replace('_', "-");
    let near = known.iter().map(|word| (distance(&text, word), *word)).min()?;
    (near.0 <= 1 + near.1.len() / 4).then_some(near.1)
}

/// Levenshtein's edit distance, in bytes.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

//! `[ospf]` (version 2, IPv4) and `[ospf3]` (version 3, IPv6), with their interfaces.

use super::model::{Ospf, OspfAuth, OspfInterface, OspfKey};
use super::network::Known;
use super::reader::{Field, Table};
use super::schema::{self, Section};
use super::{secret, value};
use routing::ospf::auth::Algorithm;
use routing::ospf::{AreaKind, NetworkKind, Version};
use std::collections::HashSet;
use std::net::Ipv4Addr;
use std::time::Duration;

const MAX_INTERFACES: usize = 32;
const MAX_KEYS: usize = 16;
/// RFC 2328 §D.3.
const MAX_SIMPLE: usize = 8;
/// RFC 2328 §D.3.
const MAX_MD5: usize = 16;
/// Longer ones are hashed first and gain nothing (RFC 2104 §3).
const MAX_HMAC: usize = 128;

pub(super) fn ospf(root: &Table<'_>, version: Version, known: &mut Known) -> Option<Ospf> {
    let (key, section, of_interface): (_, &'static Section, &'static Section) = match version {
        Version::V2 => ("ospf", &schema::OSPF, &schema::OSPF_INTERFACE),
        Version::V3 => ("ospf3", &schema::OSPF3, &schema::OSPF3_INTERFACE),
    };
    let table = root.table(key, section)?;
    let area_field = table.get("area");
    let area = area_field.as_ref().and_then(area).unwrap_or(Ipv4Addr::UNSPECIFIED);
    let area_kind = area_kind(&table, area);
    match version {
        Version::V2 => known.stub_v4 = area_kind == AreaKind::Stub,
        Version::V3 => known.stub_v6 = area_kind == AreaKind::Stub,
    }
    let bfd = table.get("bfd").and_then(|field| field.boolean()).unwrap_or(false);
    let before = table.report().count();
    let mut seen = HashSet::new();
    let mut interfaces = Vec::new();
    for entry in table.tables("interface", of_interface, "name", MAX_INTERFACES) {
        interfaces.extend(interface(&entry, version, known, &mut seen));
    }
    let followed = interfaces.iter().filter(|interface| bfd && !interface.passive);
    let followed = followed.map(|interface: &OspfInterface| interface.name.clone());
    match version {
        Version::V2 => known.followed_v4.extend(followed),
        Version::V3 => known.followed_v6.extend(followed),
    }
    if interfaces.is_empty() && table.report().count() == before {
        table.error(format!("no [[{}]], expected at least one", of_interface.name));
    }
    Some(Ospf { area, area_kind, bfd, interfaces })
}

fn area(field: &Field<'_>) -> Option<Ipv4Addr> {
    if field.is_string() {
        field.parse("an area like \"0.0.0.1\"", value::area)
    } else {
        field.integer::<u32>(0..=u64::from(u32::MAX)).map(Ipv4Addr::from)
    }
}

fn area_kind(table: &Table<'_>, area: Ipv4Addr) -> AreaKind {
    let Some(field) = table.get("area-type") else {
        return AreaKind::Normal;
    };
    let kind = field
        .choice(&[("normal", AreaKind::Normal), ("stub", AreaKind::Stub), ("nssa", AreaKind::Nssa)])
        .unwrap_or(AreaKind::Normal);
    if kind != AreaKind::Normal && area.is_unspecified() {
        field.error("area 0, the backbone, can only be normal (RFC 2328 section 3.6)");
    }
    kind
}

fn interface(
    table: &Table<'_>,
    version: Version,
    known: &Known,
    seen: &mut HashSet<String>,
) -> Option<OspfInterface> {
    let name = table.require("name", "the name of a port like \"wan0\"").and_then(|field| {
        let name = port(&field, known)?;
        if !seen.insert(name.clone()) {
            field.error("another interface has this name");
        }
        Some(name)
    });
    let network = table.get("network").and_then(|field| {
        field.choice(&[
            ("point-to-point", NetworkKind::PointToPoint),
            ("broadcast", NetworkKind::Broadcast),
        ])
    });
    let integer = |key, range, default| {
        table.get(key).and_then(|field| field.integer(range)).unwrap_or(default)
    };
    let flag = |key| table.get(key).and_then(|field| field.boolean()).unwrap_or(false);
    let hello_interval = seconds(table, "hello-interval", 65_535, 10);
    let dead_field = table.get("dead-interval");
    // RFC 2328 §C.3: some multiple of the hello interval.
    let dead_interval = seconds(table, "dead-interval", u64::from(u32::MAX), 4 * hello_interval);
    if let Some(field) = dead_field
        && dead_interval <= hello_interval
    {
        field.error(format!("{dead_interval}s is not above the hello interval, {hello_interval}s"));
    }
    let instance_id = match version {
        Version::V2 => 0,
        Version::V3 => integer("instance-id", 0..=255, 0) as u8,
    };
    Some(OspfInterface {
        name: name?,
        network: network.unwrap_or(NetworkKind::PointToPoint),
        cost: integer("cost", 1..=65_535, 10) as u16,
        hello_interval: hello_interval as u16,
        dead_interval: dead_interval as u32,
        retransmit_interval: seconds(table, "retransmit-interval", 3_600, 5) as u16,
        transmit_delay: seconds(table, "transmit-delay", 3_600, 1) as u16,
        priority: integer("priority", 0..=255, 0) as u8,
        mtu_ignore: flag("mtu-ignore"),
        passive: flag("passive"),
        instance_id,
        auth: auth(table, version),
    })
}

/// The name of a configured port.
pub(super) fn port(field: &Field<'_>, known: &Known) -> Option<String> {
    field.parse("the name of a port like \"wan0\"", |text| {
        if known.ports.contains(text) {
            return Ok(text.to_owned());
        }
        let mut names: Vec<_> = known.ports.iter().map(String::as_str).collect();
        names.sort_unstable();
        Err(format!("is not a port, expected one of: {}", names.join(", ")))
    })
}

/// A duration in whole seconds, as OSPF's packets carry it.
fn seconds(table: &Table<'_>, key: &str, most: u64, default: u64) -> u64 {
    let Some(field) = table.get(key) else {
        return default;
    };
    let seconds = field.parse("a duration like \"10s\"", |text| {
        let duration = value::duration(text)?;
        if duration.subsec_nanos() != 0 || !(1..=most).contains(&duration.as_secs()) {
            let most = value::show_duration(Duration::from_secs(most));
            return Err(format!("is out of range, expected whole seconds from \"1s\" to {most:?}"));
        }
        Ok(duration.as_secs())
    });
    seconds.unwrap_or(default)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AuthKind {
    Simple,
    Digest(Algorithm),
}

const KINDS: [(&str, AuthKind); 6] = [
    ("hmac-sha-1", AuthKind::Digest(Algorithm::HmacSha1)),
    ("hmac-sha-256", AuthKind::Digest(Algorithm::HmacSha256)),
    ("hmac-sha-384", AuthKind::Digest(Algorithm::HmacSha384)),
    ("hmac-sha-512", AuthKind::Digest(Algorithm::HmacSha512)),
    // OSPFv2 only.
    ("md5", AuthKind::Digest(Algorithm::Md5)),
    ("simple", AuthKind::Simple),
];

/// A list of keys: the first signs, each is accepted, so that keys can be rolled.
fn auth(table: &Table<'_>, version: Version) -> OspfAuth {
    let (section, kinds, most_id) = match version {
        Version::V2 => (&schema::OSPF_AUTH, &KINDS[..], 255),
        Version::V3 => (&schema::OSPF3_AUTH, &KINDS[..4], 65_535),
    };
    let mut keys: Vec<OspfKey> = Vec::new();
    let entries = table.tables("auth", section, "", MAX_KEYS);
    let count = entries.len();
    for entry in &entries {
        let kind = entry
            .require("type", "a string like \"hmac-sha-256\"")
            .and_then(|field| field.choice(kinds));
        let most = match kind {
            Some(AuthKind::Simple) => MAX_SIMPLE,
            Some(AuthKind::Digest(Algorithm::Md5)) => MAX_MD5,
            _ => MAX_HMAC,
        };
        let key = entry
            .require("key", "a string")
            .and_then(|field| kind.and_then(|_| secret::read(&field, most)));
        if kind == Some(AuthKind::Simple) {
            if let Some(field) = entry.get("key-id") {
                field.error("does not go with type = \"simple\"");
            }
            if count > 1 {
                entry.error("is a simple password, which must be the only entry");
            }
            if let Some(key) = key {
                return OspfAuth::Simple(key);
            }
            continue;
        }
        let id: Option<u16> =
            entry.require("key-id", &format!("an integer, 0 to {most_id}")).and_then(|field| {
                let id = field.integer(0..=most_id)?;
                if keys.iter().any(|other| other.id == id) {
                    field.error(format!("{id} is the id of another key"));
                }
                Some(id)
            });
        if let (Some(AuthKind::Digest(algorithm)), Some(id), Some(key)) = (kind, id, key) {
            keys.push(OspfKey { algorithm, id, key });
        }
    }
    if keys.is_empty() { OspfAuth::Null } else { OspfAuth::Keys(keys) }
}

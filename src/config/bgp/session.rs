//! What a session is like, whoever it is with: of a neighbor, or of all that dial in from a prefix.

use super::{asn, bounded, flag};
use crate::config::model::{AoKey, Import, RemoteAs, Session};
use crate::config::reader::{Field, Table};
use crate::config::{announce, schema, secret, value};
use routing::bgp::config::AoAlgorithm;
use routing::bgp::wire::{Families, Family, Role};
use std::net::IpAddr;
use std::time::Duration;

const MAX_IMPORTS: usize = 1024;
/// `TCP_MD5SIG_MAXKEYLEN`, `TCP_AO_MAXKEYLEN`.
const MAX_PASSWORD: usize = 80;
const MAX_AO_KEYS: usize = 16;

/// What is the same for a single neighbor and for all that dial in from a prefix.
pub(super) fn read(table: &Table<'_>, local_as: u32) -> Option<Session> {
    let remote_as = table
        .require("asn", "an AS number, \"external\" or \"internal\"")
        .and_then(|field| remote_as(&field));
    let description = table.get("description").and_then(|field| {
        field.parse("a string", |text| bounded(text, 255, "a description").map(str::to_owned))
    });
    let ttl_security = flag(table, "ttl-security");
    let multihop = table.get("multihop").and_then(|field| {
        if ttl_security {
            field.error("cannot be combined with ttl-security");
        }
        field.integer(1..=255)
    });
    let password = table.get("password").and_then(|field| secret::read(&field, MAX_PASSWORD));
    let ao = ao(table);
    if let Some(field) = table.get("ao").filter(|_| password.is_some()) {
        field.error("cannot be combined with a password, which is TCP-MD5");
    }
    let graceful_restart = table
        .table("graceful-restart", &schema::NEIGHBOR_RESTART)
        .and_then(|table| restart_time(&table));
    let hold_time = table.get("hold-time").and_then(|field| hold_time(&field));
    let families = table.get("families").map_or(Families::BOTH, |field| families(&field));
    let next_hop = table.get("next-hop").map(|field| announce::next_hops(&field));
    let next_hop_v4 = next_hop.iter().flatten().find_map(|hop| match hop {
        IpAddr::V4(v4) => Some(*v4),
        IpAddr::V6(_) => None,
    });
    let next_hop_v6 = next_hop.iter().flatten().find_map(|hop| match hop {
        IpAddr::V6(v6) => Some(*v6),
        IpAddr::V4(_) => None,
    });
    let (role, role_strict) = role(table, remote_as, local_as);
    let import = table.get("import").and_then(|field| import(&field));
    let max_prefixes = table.get("max-prefixes").and_then(|field| field.integer(1..=1_000_000));
    Some(Session {
        remote_as: remote_as?,
        description: description.unwrap_or_default(),
        password,
        ao,
        hold_time: hold_time.unwrap_or(Duration::from_secs(9)),
        ttl_security,
        multihop,
        families,
        extended_next_hop: flag(table, "extended-next-hop"),
        next_hop_v4,
        next_hop_v6,
        role,
        role_strict,
        import: import.unwrap_or(Import::Nothing),
        max_prefixes: max_prefixes.unwrap_or(1000),
        graceful_restart,
    })
}

/// TCP-AO keys. IDs must be unique in each direction, or the kernel could not tell keys apart.
fn ao(table: &Table<'_>) -> Vec<AoKey> {
    let mut keys: Vec<AoKey> = Vec::new();
    for entry in table.tables("ao", &schema::NEIGHBOR_AO, "", MAX_AO_KEYS) {
        let both: Option<u8> = entry.get("id").and_then(|field| field.integer(0..=255));
        let id = |name: &str, taken: fn(&AoKey) -> u8| {
            let field = entry.get(name);
            if entry.get("id").is_some() {
                if let Some(field) = &field {
                    field.error("does not go with id, which is both");
                }
            } else if field.is_none() {
                entry.error(format!(
                    "{name:?} is missing, expected an integer, 0 to 255, or \"id\""
                ));
            }
            let id = field.and_then(|field| field.integer(0..=255)).or(both)?;
            if keys.iter().any(|key| taken(key) == id) {
                entry.error(format!("{id} is the {name} of another key"));
            }
            Some(id)
        };
        let send_id = id("send-id", |key| key.send_id);
        let receive_id = id("recv-id", |key| key.receive_id);
        let algorithms = [
            ("hmac-sha-1-96", AoAlgorithm::HmacSha1),
            ("aes-128-cmac-96", AoAlgorithm::Aes128Cmac),
        ];
        let algorithm = entry
            .require("algorithm", "\"hmac-sha-1-96\" or \"aes-128-cmac-96\"")
            .and_then(|field| field.choice(&algorithms));
        let key = entry
            .require("key", "a string of 1 to 80 bytes")
            .and_then(|field| secret::read(&field, MAX_PASSWORD));
        if let (Some(send_id), Some(receive_id), Some(algorithm), Some(key)) =
            (send_id, receive_id, algorithm, key)
        {
            keys.push(AoKey { send_id, receive_id, algorithm, key });
        }
    }
    keys
}

/// RFC 4724 §3: 12 bits of seconds.
fn restart_time(table: &Table<'_>) -> Option<u16> {
    table.require("restart-time", "a duration like \"60s\"").and_then(|field| {
        field.parse("a duration like \"60s\"", |text| {
            let time = value::duration(text)?;
            match u16::try_from(time.as_secs()) {
                Ok(seconds @ 1..=4095) if time.subsec_nanos() == 0 => Ok(seconds),
                _ => {
                    Err("is out of range, expected whole seconds from \"1s\" to \"4095s\""
                        .to_owned())
                }
            }
        })
    })
}

fn families(field: &Field<'_>) -> Families {
    let before = field.report().count();
    let mut families = Families::default();
    for item in field.list(2, "[\"ipv4\", \"ipv6\"]") {
        let family = item.choice(&[("ipv4", Family::Ipv4Unicast), ("ipv6", Family::Ipv6Unicast)]);
        if let Some(family) = family {
            families.insert(family);
        }
    }
    if families == Families::default() && field.report().count() == before {
        field.error("is empty, expected at least one family like [\"ipv4\"]");
    }
    families
}

/// RFC 9234 §4.1: roles are between different networks.
fn role(table: &Table<'_>, remote_as: Option<RemoteAs>, local_as: u32) -> (Option<Role>, bool) {
    let field = table.get("role");
    let role = field.as_ref().and_then(|field| {
        field.choice(&[
            ("provider", Role::Provider),
            ("customer", Role::Customer),
            ("peer", Role::Peer),
            ("route-server", Role::RouteServer),
            ("route-server-client", Role::RouteServerClient),
        ])
    });
    let internal = match remote_as {
        Some(RemoteAs::Exact(asn)) => asn == local_as,
        Some(RemoteAs::Internal) => true,
        Some(RemoteAs::External) | None => false,
    };
    if let Some(field) = field.as_ref().filter(|_| internal) {
        field.error("is for external neighbors, and this one is in our own AS (RFC 9234)");
    }
    let strict = flag(table, "role-strict");
    if let Some(strict) = table.get("role-strict")
        && field.is_none()
    {
        strict.error("needs a role, which is not set");
    }
    (role, strict)
}

fn import(field: &Field<'_>) -> Option<Import> {
    if !field.is_list() {
        if !field.is_string() {
            field.expected("\"none\", \"default\" or a list like [\"10.0.0.0/8 le 24\"]");
            return None;
        }
        return field.parse("\"none\"", |text| match text {
            "none" => Ok(Import::Nothing),
            "default" => Ok(Import::DefaultRoute),
            _ => Err("is not known, expected \"none\", \"default\" or a list like \
                      [\"10.0.0.0/8 le 24\"]"
                .to_owned()),
        });
    }
    let before = field.report().count();
    let items = field.list(MAX_IMPORTS, "[\"10.0.0.0/8 le 24\"]");
    let prefixes: Vec<_> = items
        .iter()
        .filter_map(|item| item.parse("a string like \"10.0.0.0/8 le 24\"", value::prefix_match))
        .collect();
    if prefixes.is_empty() && field.report().count() == before {
        field.error("is empty; to take nothing write \"none\"");
    }
    Some(Import::Prefixes(prefixes))
}

fn remote_as(field: &Field<'_>) -> Option<RemoteAs> {
    if field.is_string() {
        field.choice(&[("external", RemoteAs::External), ("internal", RemoteAs::Internal)])
    } else {
        asn(field).map(RemoteAs::Exact)
    }
}

/// RFC 4271 §4.2: zero, or at least three seconds, in seconds.
fn hold_time(field: &Field<'_>) -> Option<Duration> {
    field.parse("a duration like \"9s\"", |text| {
        let hold_time = value::duration(text)?;
        let seconds = hold_time.as_secs();
        if hold_time.subsec_nanos() != 0 || !(seconds == 0 || (3..=65535).contains(&seconds)) {
            return Err("is out of range, expected \"0s\" (off) or whole seconds from \"3s\" to \
                        \"65535s\""
                .to_owned());
        }
        Ok(hold_time)
    })
}

//! `[bfd]` and `[bgp.neighbor.bfd]`.

use super::model::{BfdAuth, BfdProfile, NeighborBfd};
use super::reader::Table;
use super::{schema, secret};
use routing::bfd::AuthType;
use std::time::Duration;

/// RFC 5880 §4.4.
const MAX_KEY: usize = 20;

pub(super) fn profile(root: &Table<'_>) -> BfdProfile {
    let table = root.section("bfd", &schema::BFD);
    let default = Duration::from_millis(300);
    BfdProfile {
        min_tx: interval(&table, "min-tx").unwrap_or(default),
        min_rx: interval(&table, "min-rx").unwrap_or(default),
        multiplier: multiplier(&table).unwrap_or(3),
    }
}

/// `bfd = true`, `false`, or a table with what differs from the profile.
pub(super) fn of_neighbor(neighbor: &Table<'_>) -> Option<NeighborBfd> {
    let field = neighbor.get("bfd")?;
    if let Some(wanted) = field.as_boolean() {
        return wanted.then(NeighborBfd::default);
    }
    if !field.is_table() {
        field.expected("true, false, or a table like { min-tx = \"100ms\" }");
        return None;
    }
    let table = neighbor.table("bfd", &schema::NEIGHBOR_BFD)?;
    Some(NeighborBfd {
        min_tx: interval(&table, "min-tx"),
        min_rx: interval(&table, "min-rx"),
        multiplier: multiplier(&table),
        auth: table.table("auth", &schema::NEIGHBOR_BFD_AUTH).and_then(|table| auth(&table)),
    })
}

fn interval(table: &Table<'_>, key: &str) -> Option<Duration> {
    let range = Duration::from_millis(10)..=Duration::from_secs(60);
    table.get(key).and_then(|field| field.duration(range))
}

fn multiplier(table: &Table<'_>) -> Option<u8> {
    table.get("multiplier").and_then(|field| field.integer(1..=255))
}

fn auth(table: &Table<'_>) -> Option<BfdAuth> {
    let expected = "\"keyed-sha1\" or \"meticulous-keyed-sha1\"";
    let kind = table.require("type", expected).and_then(|field| {
        let kinds = [AuthType::KeyedSha1, AuthType::MeticulousKeyedSha1];
        field.choice(&kinds.map(|kind| (kind.name(), kind)))
    });
    let key_id =
        table.require("key-id", "an integer, 0 to 255").and_then(|field| field.integer(0..=255));
    let key = table
        .require("key", "a string of 1 to 20 bytes")
        .and_then(|field| secret::read(&field, MAX_KEY));
    Some(BfdAuth { kind: kind?, key_id: key_id?, key: key? })
}

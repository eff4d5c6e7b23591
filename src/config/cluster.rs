//! `[cluster]`: the other nodes, and how flows are shared with them.

use super::model::Cluster;
use super::reader::{Field, Table};
use super::{schema, secret, value};
use crate::cluster::MAX_PEERS;
use std::collections::HashSet;
use std::net::SocketAddr;
use std::time::Duration;

const DEFAULT_PORT: u16 = 7411;
const MIN_KEY: usize = 16;
const MAX_KEY: usize = 128;

/// `None`: the node shares nothing.
pub(super) fn cluster(root: &Table<'_>) -> Option<Cluster> {
    let table = root.table("cluster", &schema::CLUSTER)?;
    let address = table
        .require("address", "an IP address of this node like \"10.1.1.2\"")
        .and_then(|field| field.parse("an IP address like \"10.1.1.2\"", value::unicast));
    let port = table.get("port").and_then(|field| field.integer(1..=65_535));
    let port = port.unwrap_or(DEFAULT_PORT);
    let peers = table.require("peers", "a list of addresses like [\"10.1.2.2\"]");
    let address = address.map(|ip| SocketAddr::new(ip, port));
    let peers = peers.map(|field| self::peers(&field, address, port));
    let key = table.require("key", "a string of 16 to 128 bytes").and_then(|field| key(&field));
    let integer = |name: &str, from: u64, to: u64, default: u32| {
        table.get(name).and_then(|field| field.integer(from..=to)).unwrap_or(default)
    };
    let drain_flows = table
        .get("drain-flows")
        .and_then(|field| field.duration(Duration::ZERO..=Duration::from_secs(3600)));
    Some(Cluster {
        questions_per_second: integer("max-questions", 100, 1_000_000, 20_000),
        max_adopted: integer("max-adopted", 1, 100_000_000, 100_000),
        drain_flows: drain_flows.unwrap_or(Duration::from_secs(30)),
        address: address?,
        peers: peers?,
        key: key?,
    })
}

/// In the order of their addresses: the order in which they are written means nothing.
fn peers(field: &Field<'_>, own: Option<SocketAddr>, default_port: u16) -> Vec<SocketAddr> {
    let before = field.report().count();
    let mut seen = HashSet::new();
    for item in field.list(MAX_PEERS, "[\"10.1.2.2\", \"10.1.3.2:7411\"]") {
        let endpoint = item.parse("an address like \"10.1.2.2\"", |text| {
            value::endpoint(text)
                .map_err(|fault| fault.replace("the one the client asked for", "the same as ours"))
        });
        let Some((ip, port)) = endpoint else {
            continue;
        };
        let peer = SocketAddr::new(ip, port.unwrap_or(default_port));
        if own.is_some_and(|own| own.is_ipv4() != peer.is_ipv4()) {
            item.error(format!("{peer} is not of the family of our own address"));
        } else if own == Some(peer) {
            item.error(format!("{peer} is this node itself"));
        } else if !seen.insert(peer) {
            item.error(format!("{peer} is named twice"));
        }
    }
    if seen.is_empty() && field.report().count() == before {
        field.error("is empty, expected at least one other node");
    }
    let mut peers: Vec<SocketAddr> = seen.into_iter().collect();
    peers.sort();
    peers
}

fn key(field: &Field<'_>) -> Option<super::Secret> {
    let key = secret::read(field, MAX_KEY)?;
    if key.expose().len() < MIN_KEY {
        let length = key.expose().len();
        field.error(format!("is {length} bytes long, expected {MIN_KEY} to {MAX_KEY}"));
        return None;
    }
    Some(key)
}

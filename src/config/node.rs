//! `[node]` and `[dataplane]`.

use super::model::{Dataplane, Node, PollMode, Port};
use super::reader::{Field, Table};
use super::{schema, value};
use crate::forward::steering::Wish;
use crate::port::buffers::USUAL;
use ipnet::IpNet;
use std::collections::HashSet;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

const MAX_WORKERS: usize = 128;
const MIB: u64 = 1 << 20;
/// An mbuf with its header, headroom and a 2 KiB data room, and its share of the pool's ring.
const BYTES_PER_MBUF: u64 = 2_432;

pub(super) fn node(root: &Table<'_>, ports: &[Port]) -> Node {
    let table = root.section("node", &schema::NODE);
    let name = table
        .require("name", "a string like \"lb1\"")
        .and_then(|field| field.parse("a string like \"lb1\"", value::name));
    let router_id = if let Some(field) = table.get("router-id") {
        field.parse("an IPv4 address like \"10.0.0.1\"", router_id)
    } else {
        let first = first_ipv4(ports);
        if first.is_none() {
            table.error(
                "\"router-id\" is missing, and no port has an IPv4 address to take it from; \
                 expected an IPv4 address like \"10.0.0.1\"",
            );
        }
        first
    };
    let api_socket = table
        .get("api-socket")
        .and_then(|field| field.parse("a path like \"/run/dunlin/api.sock\"", socket_path));
    Node {
        name: name.unwrap_or_default(),
        router_id: router_id.unwrap_or(Ipv4Addr::UNSPECIFIED),
        api_socket: api_socket.unwrap_or_else(|| PathBuf::from("/run/dunlin/api.sock")),
    }
}

fn first_ipv4(ports: &[Port]) -> Option<Ipv4Addr> {
    ports.iter().flat_map(|port| &port.addresses).find_map(|net| match net {
        IpNet::V4(v4) => Some(v4.addr()),
        IpNet::V6(_) => None,
    })
}

/// RFC 6286: any four octets but zero.
fn router_id(text: &str) -> value::Parsed<Ipv4Addr> {
    text.parse().ok().filter(|id| *id != Ipv4Addr::UNSPECIFIED).ok_or_else(|| {
        "is not a router id (expected like \"10.0.0.1\", not \"0.0.0.0\")".to_owned()
    })
}

/// `sockaddr_un` holds 108 bytes, the last of them zero.
fn socket_path(text: &str) -> value::Parsed<PathBuf> {
    if text.starts_with('/') && text.len() <= 107 && !text.contains('\0') {
        return Ok(PathBuf::from(text));
    }
    Err("is not the path of a socket (expected an absolute path of at most 107 bytes)".to_owned())
}

pub(super) fn dataplane(root: &Table<'_>) -> Dataplane {
    let table = root.section("dataplane", &schema::DATAPLANE);
    let poll = table.get("poll").and_then(|field| {
        field.choice(&[
            ("adaptive", PollMode::Adaptive),
            ("interrupt", PollMode::Interrupt),
            ("latency", PollMode::Latency),
            ("throughput", PollMode::Throughput),
        ])
    });
    let steering = table.get("steering").and_then(|field| {
        field.choice(&[
            ("auto", Wish::Auto),
            ("flow-rules", Wish::FlowRules),
            ("rss", Wish::Rss),
            ("software", Wish::Software),
        ])
    });
    let duration = |key: &str, default: Duration, from: Duration, to: Duration| {
        table.get(key).and_then(|field| field.duration(from..=to)).unwrap_or(default)
    };
    let memory = table.get("memory");
    let memory_mib = memory.as_ref().and_then(memory_mib).unwrap_or(1024);
    let field = table.get("mbufs");
    let mbufs = field.as_ref().and_then(|field| field.integer(1024..=8_388_608));
    let pool = mbufs.unwrap_or(USUAL);
    let needed = u64::from(pool) * BYTES_PER_MBUF / MIB;
    if let Some(blamed) = field.or(memory)
        && needed >= u64::from(memory_mib)
    {
        blamed
            .error(format!("{pool} mbufs need about {needed} MiB, but memory is {memory_mib} MiB"));
    }
    Dataplane {
        workers: table.get("workers").map_or_else(|| vec![1], |field| workers(&field)),
        poll: poll.unwrap_or(PollMode::Adaptive),
        max_sleep: duration(
            "max-sleep",
            Duration::from_micros(200),
            Duration::from_micros(1),
            Duration::from_millis(10),
        ),
        max_flows: table
            .get("max-flows")
            .and_then(|field| field.integer(1024..=100_000_000))
            .unwrap_or(1_000_000),
        memory_mib,
        hugepages: table.get("hugepages").and_then(|field| field.boolean()).unwrap_or(true),
        file_prefix: table
            .get("file-prefix")
            .and_then(|field| field.parse("a string like \"dunlin\"", value::name))
            .unwrap_or_else(|| "dunlin".to_owned()),
        mbufs,
        steering: steering.unwrap_or_default(),
        stall_after: duration(
            "stall-after",
            Duration::from_millis(500),
            Duration::from_millis(10),
            Duration::from_secs(60),
        ),
    }
}

fn workers(field: &Field<'_>) -> Vec<u16> {
    let before = field.report().count();
    let mut seen = HashSet::new();
    let mut cores = Vec::new();
    for item in field.list(MAX_WORKERS, "[1, 2] (CPU cores)") {
        let Some(core) = item.integer(0..=1023) else {
            continue;
        };
        if seen.insert(core) {
            cores.push(core);
        } else {
            item.error(format!("core {core} already has a worker"));
        }
    }
    if cores.is_empty() && field.report().count() == before {
        field.error("is empty, expected at least one CPU core like [1]");
    }
    cores
}

fn memory_mib(field: &Field<'_>) -> Option<u32> {
    field.parse("a size like \"1GiB\"", |text| {
        let bytes = value::size(text)?;
        if bytes % MIB != 0 || !(64 * MIB..=1024 * 1024 * MIB).contains(&bytes) {
            return Err("is out of range, expected whole MiB from \"64MiB\" to \"1024GiB\"".into());
        }
        u32::try_from(bytes / MIB).map_err(|_| "is too large".to_owned())
    })
}

//! `[bfd]`, `[bgp]` and `[[bgp.neighbor]]`.

use super::error::quote;
use super::model::{BfdProfile, Bgp, Import, Neighbor, RemoteAs};
use super::network::Known;
use super::reader::{Field, Table};
use super::secret::Secret;
use super::{schema, value};
use std::collections::HashSet;
use std::net::IpAddr;
use std::time::Duration;

const MAX_NEIGHBORS: usize = 256;
const MAX_COMMUNITIES: usize = 64;
const BGP_PORT: u16 = 179;
/// `TCP_MD5SIG_MAXKEYLEN`.
const MAX_PASSWORD: usize = 80;
/// RFC 9003 §2.
const MAX_SHUTDOWN: usize = 255;

pub(super) fn bfd(root: &Table<'_>) -> BfdProfile {
    let table = root.section("bfd", &schema::BFD);
    let interval = |key| {
        let range = Duration::from_millis(10)..=Duration::from_secs(60);
        let value = table.get(key).and_then(|field| field.duration(range));
        value.unwrap_or(Duration::from_millis(300))
    };
    BfdProfile {
        min_tx: interval("min-tx"),
        min_rx: interval("min-rx"),
        multiplier: table.get("multiplier").and_then(|field| field.integer(1..=255)).unwrap_or(3),
    }
}

pub(super) fn bgp(root: &Table<'_>, known: &Known) -> Option<Bgp> {
    let table = root.table("bgp", &schema::BGP)?;
    let asn = table.require("asn", "an AS number like 65001").and_then(|field| asn(&field));
    let listen_port = match table.get("listen") {
        None => Some(BGP_PORT),
        Some(field) => match field.as_boolean() {
            Some(false) => None,
            Some(true) => {
                field.error("true is not a port, expected a TCP port like 179, or false");
                None
            }
            None => field.integer(1..=65535),
        },
    };
    let communities = table.get("communities").map(|field| communities(&field));
    let drain_wait = table
        .get("drain-wait")
        .and_then(|field| field.duration(Duration::ZERO..=Duration::from_secs(600)));
    let mut seen = HashSet::new();
    let mut neighbors = Vec::new();
    for entry in table.tables("neighbor", &schema::NEIGHBOR, "address", MAX_NEIGHBORS) {
        if let Some(neighbor) = neighbor(&entry, known, listen_port.is_some(), &mut seen) {
            neighbors.push(neighbor);
        }
    }
    Some(Bgp {
        asn: asn.unwrap_or_default(),
        communities: communities.unwrap_or_default(),
        listen_port,
        neighbors,
        drain_wait: drain_wait.unwrap_or(Duration::from_secs(5)),
    })
}

/// An AS number that a speaker may have: not 0 (RFC 7607), AS_TRANS (RFC 6793) or the last of
/// either size (RFC 7300).
fn asn(field: &Field<'_>) -> Option<u32> {
    let asn = field.integer(1..=4_294_967_294)?;
    if asn == 23_456 || asn == 65_535 {
        field.error(format!("{asn} is reserved, expected the AS number of a network"));
        return None;
    }
    Some(asn)
}

fn communities(field: &Field<'_>) -> Vec<(u16, u16)> {
    let items = field.list(MAX_COMMUNITIES, "[\"65001:100\"]");
    items
        .iter()
        .filter_map(|item| item.parse("a string like \"65001:100\"", value::community))
        .collect()
}

fn neighbor(
    table: &Table<'_>,
    known: &Known,
    listening: bool,
    seen: &mut HashSet<IpAddr>,
) -> Option<Neighbor> {
    let address = neighbor_address(table, known, seen);
    let remote_as = table
        .require("asn", "an AS number, \"external\" or \"internal\"")
        .and_then(|field| remote_as(&field));
    let description = table.get("description").and_then(|field| {
        field.parse("a string", |text| bounded(text, 255, "a description").map(str::to_owned))
    });
    let flag = |key| table.get(key).and_then(|field| field.boolean()).unwrap_or(false);
    let passive = flag("passive");
    if passive && !listening {
        table.error("is passive, but bgp.listen is false: the session could never begin");
    }
    let source = table.get("source").and_then(|field| source(&field, address));
    let ttl_security = flag("ttl-security");
    let multihop = table.get("multihop").and_then(|field| {
        if ttl_security {
            field.error("cannot be combined with ttl-security");
        }
        field.integer(1..=255)
    });
    let import = table.get("import").and_then(|field| {
        field.choice(&[("none", Import::Nothing), ("default", Import::DefaultRoute)])
    });
    let shutdown = table.get("shutdown").and_then(|field| {
        field.parse("a message for the peer", |text| {
            bounded(text, MAX_SHUTDOWN, "a shutdown message").map(str::to_owned)
        })
    });
    let port = table.get("port").and_then(|field| field.integer(1..=65535));
    let password = table.get("password").and_then(|field| password(&field));
    let hold_time = table.get("hold-time").and_then(|field| hold_time(&field));
    let connect_retry = table
        .get("connect-retry")
        .and_then(|field| field.duration(Duration::from_secs(1)..=Duration::from_secs(3600)));
    let bfd = flag("bfd");
    Some(Neighbor {
        address: address?,
        remote_as: remote_as?,
        description: description.unwrap_or_default(),
        port: port.unwrap_or(BGP_PORT),
        passive,
        source,
        password,
        hold_time: hold_time.unwrap_or(Duration::from_secs(9)),
        connect_retry: connect_retry.unwrap_or(Duration::from_secs(5)),
        ttl_security,
        multihop,
        bfd,
        import: import.unwrap_or(Import::Nothing),
        shutdown,
    })
}

fn neighbor_address(
    table: &Table<'_>,
    known: &Known,
    seen: &mut HashSet<IpAddr>,
) -> Option<IpAddr> {
    let example = "an address like \"10.1.1.1\"";
    let field = table.require("address", example)?;
    let address = field.parse(example, value::unicast)?;
    if let Some(holder) = known.holders.get(&address) {
        field.error(format!("{address} is this node's own, an address of {holder}"));
    }
    if !seen.insert(address) {
        field.error("another neighbor has this address");
    }
    Some(address)
}

fn remote_as(field: &Field<'_>) -> Option<RemoteAs> {
    if field.is_string() {
        field.choice(&[("external", RemoteAs::External), ("internal", RemoteAs::Internal)])
    } else {
        asn(field).map(RemoteAs::Exact)
    }
}

fn source(field: &Field<'_>, neighbor: Option<IpAddr>) -> Option<IpAddr> {
    let source = field.parse("an address like \"10.1.1.2\"", value::unicast)?;
    if let Some(neighbor) = neighbor
        && neighbor.is_ipv4() != source.is_ipv4()
    {
        field.error(format!("{source} cannot be the source toward {neighbor}: other family"));
    }
    Some(source)
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

fn password(field: &Field<'_>) -> Option<Secret> {
    let password = field.secret("a string of 1 to 80 bytes")?;
    if password.is_empty() || password.len() > MAX_PASSWORD {
        field.error(format!("is {} bytes long, expected 1 to {MAX_PASSWORD}", password.len()));
        return None;
    }
    Some(Secret::new(password.to_owned()))
}

/// Text that goes to logs and peers.
fn bounded<'t>(text: &'t str, limit: usize, what: &str) -> value::Parsed<&'t str> {
    if text.len() > limit {
        return Err(format!("is too long for {what}, at most {limit} bytes"));
    }
    match text.chars().find(|c| c.is_control()) {
        Some(c) => Err(format!("has a control character {}", quote(&c.to_string()))),
        None => Ok(text),
    }
}

//! `[bgp]`, `[[bgp.neighbor]]` and `[[bgp.listen-range]]`.

use super::error::quote;
use super::model::{Bgp, Import, ListenRange, Neighbor, Peer, RemoteAs, Session};
use super::network::Known;
use super::reader::{Field, Table};
use super::{announce, bfd, ospf, schema, secret, value};
use ipnet::IpNet;
use routing::bgp::wire::{Families, Family, Role};
use std::collections::HashSet;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

const MAX_NEIGHBORS: usize = 256;
const MAX_RANGES: usize = 64;
const MAX_IMPORTS: usize = 1024;
const BGP_PORT: u16 = 179;
/// `TCP_MD5SIG_MAXKEYLEN`.
const MAX_PASSWORD: usize = 80;
/// RFC 9003 §2.
const MAX_SHUTDOWN: usize = 255;

pub(super) fn bgp(root: &Table<'_>, known: &Known) -> Option<Bgp> {
    let table = root.table("bgp", &schema::BGP)?;
    let asn = table.require("asn", "an AS number like 65001").and_then(|field| asn(&field));
    let listen_port = match table.get("listen") {
        None => Some(BGP_PORT),
        Some(field) => match field.as_boolean() {
            Some(false) => None,
            Some(true) => {
                field.error("true is not a port, expected a TCP port like 179, or false");
                Some(BGP_PORT)
            }
            None => field.integer(1..=65535).or(Some(BGP_PORT)),
        },
    };
    let context =
        Context { known, local_as: asn.unwrap_or_default(), listening: listen_port.is_some() };
    let mut seen = HashSet::new();
    let mut neighbors = Vec::new();
    for entry in table.tables("neighbor", &schema::NEIGHBOR, "address", MAX_NEIGHBORS) {
        neighbors.extend(neighbor(&entry, &context, &mut seen));
    }
    let mut seen = HashSet::new();
    let mut ranges = Vec::new();
    for entry in table.tables("listen-range", &schema::LISTEN_RANGE, "prefix", MAX_RANGES) {
        ranges.extend(listen_range(&entry, &context, &mut seen));
    }
    Some(Bgp { asn: context.local_as, listen_port, neighbors, ranges })
}

/// What neighbors must agree with.
struct Context<'k> {
    known: &'k Known,
    local_as: u32,
    listening: bool,
}

fn listen_range(
    table: &Table<'_>,
    context: &Context<'_>,
    seen: &mut HashSet<IpNet>,
) -> Option<ListenRange> {
    let example = "a prefix like \"10.1.1.0/24\"";
    let prefix = table.require("prefix", example).and_then(|field| {
        let prefix = field.parse(example, value::prefix)?;
        if !seen.insert(prefix) {
            field.error("another listen-range has this prefix");
        }
        Some(prefix)
    });
    if !context.listening {
        table.error("nobody can dial in, because bgp.listen is false");
    }
    let max_peers = table.get("max-peers").and_then(|field| field.integer(1..=256));
    let session = session(table, context);
    Some(ListenRange { prefix: prefix?, max_peers: max_peers.unwrap_or(16), session: session? })
}

fn neighbor(
    table: &Table<'_>,
    context: &Context<'_>,
    seen: &mut HashSet<Peer>,
) -> Option<Neighbor> {
    let peer = peer(table, context.known, seen);
    let passive = flag(table, "passive");
    if passive && !context.listening {
        table.error("is passive, but bgp.listen is false: the session could never begin");
    }
    let source = table.get("source").and_then(|field| source(&field, peer.as_ref()));
    let shutdown = table.get("shutdown").and_then(|field| {
        field.parse("a message for the peer", |text| {
            bounded(text, MAX_SHUTDOWN, "a shutdown message").map(str::to_owned)
        })
    });
    let port = table.get("port").and_then(|field| field.integer(1..=65535));
    let bfd = bfd::of_neighbor(table);
    let mut session = session(table, context);
    let connect_retry = table
        .get("connect-retry")
        .and_then(|field| field.duration(Duration::from_secs(1)..=Duration::from_secs(3600)));
    let on_link = matches!(peer, Some(Peer::LinkLocal { .. } | Peer::Unnumbered(_)));
    if let Some(field) = table.get("multihop").filter(|_| on_link) {
        field.error("cannot go with an interface, whose other end is on the link");
    }
    if matches!(peer, Some(Peer::Unnumbered(_))) {
        if bfd.is_some() {
            table.error("cannot be followed by BFD, which needs an address");
        }
        // Nothing else can be the next hop of IPv4 there.
        if let Some(session) = &mut session
            && table.get("extended-next-hop").is_none()
        {
            session.extended_next_hop = true;
        }
    }
    Some(Neighbor {
        peer: peer?,
        port: port.unwrap_or(BGP_PORT),
        passive,
        source,
        connect_retry: connect_retry.unwrap_or(Duration::from_secs(5)),
        bfd,
        shutdown,
        session: session?,
    })
}

fn flag(table: &Table<'_>, key: &str) -> bool {
    table.get(key).and_then(|field| field.boolean()).unwrap_or(false)
}

fn peer(table: &Table<'_>, known: &Known, seen: &mut HashSet<Peer>) -> Option<Peer> {
    let interface_field = table.get("interface");
    let interface = interface_field.as_ref().and_then(|field| ospf::port(field, known));
    let example = "an address like \"10.1.1.1\"";
    let Some(field) = table.get("address") else {
        let Some(field) = interface_field else {
            table.error(format!("\"address\" is missing, expected {example}, or an interface"));
            return None;
        };
        let peer = Peer::Unnumbered(interface?);
        if !seen.insert(peer.clone()) {
            field.error("another neighbor without address is on this interface");
        }
        return Some(peer);
    };
    let address = field.parse(example, |text| match text.parse::<Ipv6Addr>() {
        Ok(address) if address.is_unicast_link_local() => Ok(address.into()),
        _ => value::unicast(text),
    })?;
    let peer = match address {
        IpAddr::V6(address) if address.is_unicast_link_local() => {
            if interface_field.is_none() {
                table.error(format!(
                    "\"interface\" is missing, expected the port that {address} is reached by"
                ));
            }
            Peer::LinkLocal { address, interface: interface? }
        }
        _ => {
            if let Some(field) = interface_field {
                field.error(format!("goes with a link-local address or none, not with {address}"));
            }
            Peer::Address(address)
        }
    };
    if let Some(holder) = known.holders.get(&address) {
        field.error(format!("{address} is this node's own, an address of {holder}"));
    }
    if !seen.insert(peer.clone()) {
        field.error("another neighbor has this address");
    }
    Some(peer)
}

/// What is the same for a single neighbor and for all that dial in from a prefix.
fn session(table: &Table<'_>, context: &Context<'_>) -> Option<Session> {
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
    let (role, role_strict) = role(table, remote_as, context.local_as);
    let import = table.get("import").and_then(|field| import(&field));
    let max_prefixes = table.get("max-prefixes").and_then(|field| field.integer(1..=1_000_000));
    Some(Session {
        remote_as: remote_as?,
        description: description.unwrap_or_default(),
        password,
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

fn remote_as(field: &Field<'_>) -> Option<RemoteAs> {
    if field.is_string() {
        field.choice(&[("external", RemoteAs::External), ("internal", RemoteAs::Internal)])
    } else {
        asn(field).map(RemoteAs::Exact)
    }
}

fn source(field: &Field<'_>, peer: Option<&Peer>) -> Option<IpAddr> {
    let source = field.parse("an address like \"10.1.1.2\"", value::unicast)?;
    match peer {
        Some(Peer::LinkLocal { .. } | Peer::Unnumbered(_)) => {
            field.error("cannot go with an interface: both ends are then link-local");
        }
        Some(Peer::Address(address)) if address.is_ipv4() != source.is_ipv4() => {
            field.error(format!("{source} cannot be the source toward {address}: other family"));
        }
        _ => {}
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

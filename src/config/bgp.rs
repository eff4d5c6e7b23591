//! `[bgp]`, `[[bgp.neighbor]]` and `[[bgp.listen-range]]`. What holds for a session, whoever it is
//! with, is in [`session`].

use super::error::quote;
use super::model::{Bgp, ListenRange, Neighbor, NeighborBfd, Peer};
use super::network::Known;
use super::reader::{Field, Table};
use super::{bfd, ospf, schema, value};
use ipnet::IpNet;
use std::collections::HashSet;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

mod session;

const MAX_NEIGHBORS: usize = 256;
const MAX_RANGES: usize = 64;
const BGP_PORT: u16 = 179;
/// OSPFv3 neighbors are known by such addresses (RFC 5340 §2.5).
const LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
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
    let bfd = bfd::of_neighbor(table);
    let session = session::read(table, context.local_as);
    let (prefix, session) = (prefix?, session?);
    if followed_alone(session.multihop, bfd.as_ref()) {
        let known = context.known;
        let on_port = |net: &IpNet| net.contains(&prefix) || prefix.contains(net);
        let v4 = known.networks.iter().find(|(port, net)| {
            net.addr().is_ipv4() && on_port(net) && known.followed_v4.contains(port)
        });
        let link_local = prefix.contains(&IpAddr::from(LINK_LOCAL));
        let v6 = known.followed_v6.iter().filter(|_| link_local).min();
        one_authentication(table, v4.map(|(port, _)| port).or(v6));
    }
    Some(ListenRange { prefix, max_peers: max_peers.unwrap_or(16), bfd, session })
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
    let mut session = session::read(table, context.local_as);
    let connect_retry = table
        .get("connect-retry")
        .and_then(|field| field.duration(Duration::from_secs(1)..=Duration::from_secs(3600)));
    let on_link = matches!(peer, Some(Peer::LinkLocal { .. } | Peer::Unnumbered(_)));
    if let Some(field) = table.get("multihop").filter(|_| on_link) {
        field.error("cannot go with an interface, whose other end is on the link");
    }
    if matches!(peer, Some(Peer::Unnumbered(_))) {
        // Nothing else can be the next hop of IPv4 there.
        if let Some(session) = &mut session
            && table.get("extended-next-hop").is_none()
        {
            session.extended_next_hop = true;
        }
    }
    let peer = peer?;
    if followed_alone(session.as_ref().and_then(|session| session.multihop), bfd.as_ref()) {
        let known = context.known;
        let followed = match &peer {
            Peer::Address(address) => known
                .networks
                .iter()
                .find(|(port, net)| net.contains(address) && known.followed_v4.contains(port))
                .filter(|_| address.is_ipv4())
                .map(|(port, _)| port),
            Peer::LinkLocal { interface, .. } | Peer::Unnumbered(interface) => {
                known.followed_v6.get(interface)
            }
        };
        one_authentication(table, followed);
    }
    Some(Neighbor {
        peer,
        port: port.unwrap_or(BGP_PORT),
        passive,
        source,
        connect_retry: connect_retry.unwrap_or(Duration::from_secs(5)),
        bfd,
        shutdown,
        session: session?,
    })
}

/// The neighbor has a BFD session that nobody without authentication may share. A multihop one is
/// never shared with OSPF.
fn followed_alone(multihop: Option<u8>, bfd: Option<&NeighborBfd>) -> bool {
    bfd.is_some_and(|bfd| bfd.auth.is_some()) && multihop.is_none_or(|hops| hops <= 1)
}

/// `followed`: a port where OSPF follows the same neighbor. Between two addresses there is one BFD
/// session, and OSPF asks for it without authentication.
fn one_authentication(table: &Table<'_>, followed: Option<&String>) {
    if let Some(port) = followed {
        table.error(format!(
            "bfd cannot have auth: OSPF follows its neighbors on port {port:?} by BFD without it, \
             and two routers share one session"
        ));
    }
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

/// An AS number that a speaker may have: not 0 (RFC 7607), AS_TRANS (RFC 6793) or the last of
/// either size (RFC 7300).
pub(super) fn asn(field: &Field<'_>) -> Option<u32> {
    let asn = field.integer(1..=4_294_967_294)?;
    if asn == 23_456 || asn == 65_535 {
        field.error(format!("{asn} is reserved, expected the AS number of a network"));
        return None;
    }
    Some(asn)
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

/// Text that goes to logs and peers.
pub(super) fn bounded<'t>(text: &'t str, limit: usize, what: &str) -> value::Parsed<&'t str> {
    if text.len() > limit {
        return Err(format!("is too long for {what}, at most {limit} bytes"));
    }
    match text.chars().find(|c| c.is_control()) {
        Some(c) => Err(format!("has a control character {}", quote(&c.to_string()))),
        None => Ok(text),
    }
}

//! The LSAs of OSPFv3: router-LSA, network-LSA, link-LSA, intra-area-prefix-LSA,
//! AS-external-LSA, NSSA-LSA (RFC 5340 §4.4.3).
//!
//! The router-LSA's R-bit stays clear: the node is a host with many addresses, never transit. Only
//! while it announces external prefixes must the bit be set, since a path to those leads through
//! the router by the letter of §A.2; the maximum metric of its links keeps transit away then.

use super::originate::{Draft, Drafts};
use super::parts::{Core, Interface};
use crate::ospf::config::{AreaKind, NetworkKind};
use crate::ospf::interface::State;
use crate::ospf::lsa::{LsaKey, v3};
use crate::ospf::lsdb::{DbKey, Lsdb};
use crate::ospf::packet::options;
use crate::{OspfAttributes, OspfKind};
use ipnet::{IpNet, Ipv6Net};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv6Addr;

const FLAG_EXTERNAL: u32 = 0x02 << 24;
const LINK_POINT_TO_POINT: u8 = 1;
const LINK_TRANSIT: u8 = 2;
/// RFC 6987 §2.1.
const MAX_LINK_METRIC: u16 = 0xffff;
const MAX_EXTERNAL_METRIC: u32 = 0x00ff_fffe;
/// §A.4.7: the metric is of type 2; a forwarding address follows.
const EXTERNAL_TYPE_2: u32 = 0x04 << 24;
const EXTERNAL_FORWARD: u32 = 0x02 << 24;
/// §A.4.1.1: the prefix is to be propagated out of the NSSA.
const PREFIX_P: u8 = 0x08;
/// VIPs are spread over this many intra-area-prefix-LSAs by a hash of the prefix, so that one that
/// changes moves few others.
const BUCKETS: u32 = 16;
/// Prefixes of one such LSA: 20 bytes each must fit into an IP packet.
const MAX_BUCKET: usize = 3_000;
/// Link state IDs of intra-area-prefix-LSAs: the links' own prefixes, the buckets, then by
/// interface those of the networks that this router speaks for.
const LINKS_ID: u32 = 0;
const FIRST_BUCKET_ID: u32 = 1;
const NETWORK_IDS: u32 = 0x8000_0000;

/// Link state IDs of external prefixes: they mean nothing, but must be stable.
#[derive(Debug, Default)]
pub(super) struct Ids {
    by_prefix: BTreeMap<Ipv6Net, u32>,
    taken: BTreeSet<u32>,
    last: u32,
}

impl Ids {
    fn of(&mut self, net: Ipv6Net) -> u32 {
        if let Some(id) = self.by_prefix.get(&net) {
            return *id;
        }
        loop {
            self.last = self.last.wrapping_add(1);
            if self.taken.insert(self.last) {
                self.by_prefix.insert(net, self.last);
                return self.last;
            }
        }
    }

    fn keep(&mut self, wanted: &BTreeMap<IpNet, OspfAttributes>) {
        let taken = &mut self.taken;
        self.by_prefix.retain(|net, id| {
            let keep = wanted.contains_key(&IpNet::V6(*net));
            if !keep {
                taken.remove(id);
            }
            keep
        });
    }
}

/// What should be in the database.
pub(super) fn draft(
    core: &Core,
    interfaces: &BTreeMap<u32, Interface>,
    wanted: &BTreeMap<IpNet, OspfAttributes>,
    db: &Lsdb,
    ids: &mut Ids,
) -> Drafts {
    let mut drafts = Drafts::default();
    ids.keep(wanted);
    let mut links = Vec::new();
    let mut own_prefixes = Vec::new();
    for (index, interface) in interfaces {
        if interface.state == State::Down {
            continue;
        }
        add_link_lsa(core, *index, interface, &mut drafts);
        let transit = add_links(interface, core.router_id, &mut links);
        if !transit {
            let cost = interface.config.cost;
            own_prefixes.extend(interface.link.v6.iter().map(|net| (net.trunc(), cost)));
        }
        if transit && interface.state == State::Dr {
            add_network(core, *index, interface, db, &mut drafts);
        }
    }
    let mut buckets: BTreeMap<u32, Vec<(Ipv6Net, u16)>> = BTreeMap::new();
    let mut external = false;
    for (prefix, attributes) in wanted {
        let IpNet::V6(net) = prefix else { continue };
        let refusal = match attributes.kind {
            OspfKind::Stub => add_to_bucket(&mut buckets, *net, attributes.cost),
            OspfKind::External1 | OspfKind::External2 => {
                let refusal = add_external(core, interfaces, *net, attributes, ids, &mut drafts);
                external |= refusal.is_none();
                refusal
            }
        };
        if let Some(why) = refusal {
            drafts.refused.insert(*prefix, why);
        }
    }
    if interfaces.is_empty() {
        return drafts;
    }
    let external = if external { FLAG_EXTERNAL | options::R } else { 0 };
    let mut body = (external | router_options(core)).to_be_bytes().to_vec();
    body.extend(links);
    insert(&mut drafts, area_key(core, v3::ROUTER, 0), body);
    let router = (v3::ROUTER, 0);
    if !own_prefixes.is_empty() {
        own_prefixes.sort_unstable();
        own_prefixes.dedup_by_key(|(net, _)| *net);
        let body = prefixes_body(core, router, &own_prefixes);
        insert(&mut drafts, area_key(core, v3::INTRA_AREA_PREFIX, LINKS_ID), body);
    }
    for (bucket, prefixes) in buckets {
        let body = prefixes_body(core, router, &prefixes);
        let key = area_key(core, v3::INTRA_AREA_PREFIX, FIRST_BUCKET_ID + bucket);
        insert(&mut drafts, key, body);
    }
    drafts
}

/// §4.4.3.2: the entries of the router-LSA; returns whether the link is a transit network.
fn add_links(interface: &Interface, own_id: u32, links: &mut Vec<u8>) -> bool {
    let mut add = |kind: u8, neighbor_interface: u32, neighbor: u32| {
        links.extend_from_slice(&[kind, 0]);
        links.extend_from_slice(&MAX_LINK_METRIC.to_be_bytes());
        for word in [interface.link.index, neighbor_interface, neighbor] {
            links.extend_from_slice(&word.to_be_bytes());
        }
    };
    let full = || interface.neighbors.values().filter(|n| n.is_announced());
    match interface.state {
        State::PointToPoint => {
            for neighbor in full() {
                add(LINK_POINT_TO_POINT, neighbor.interface_id, neighbor.router_id);
            }
            false
        }
        State::Dr if full().next().is_some() => {
            add(LINK_TRANSIT, interface.link.index, own_id);
            true
        }
        State::Backup | State::DrOther => {
            let designated = full().find(|n| n.router_id == interface.designated);
            if let Some(designated) = designated {
                add(LINK_TRANSIT, designated.interface_id, designated.router_id);
            }
            designated.is_some()
        }
        _ => false,
    }
}

/// §4.4.3.8: what the routers on the link need to know.
fn add_link_lsa(core: &Core, index: u32, interface: &Interface, drafts: &mut Drafts) {
    let Some(link_local) = interface.link.link_local else { return };
    let priority = u32::from(interface.config.priority) << 24;
    let mut body = (priority | router_options(core)).to_be_bytes().to_vec();
    body.extend_from_slice(&link_local.octets());
    body.extend_from_slice(&(interface.link.v6.len() as u32).to_be_bytes());
    for net in &interface.link.v6 {
        push_prefix(&mut body, net.trunc(), 0, 0);
    }
    let lsa = LsaKey { kind: v3::LINK, id: index, router: core.router_id };
    insert(drafts, DbKey { link: index, lsa }, body);
}

/// As designated router: the network-LSA and the prefixes of the link, which the link-LSAs of the
/// adjacent routers tell (§4.4.3.3, §4.4.3.9).
fn add_network(core: &Core, index: u32, interface: &Interface, db: &Lsdb, drafts: &mut Drafts) {
    if interface.config.network != NetworkKind::Broadcast {
        return;
    }
    let full: Vec<u32> =
        interface.neighbors.values().filter(|n| n.is_announced()).map(|n| n.router_id).collect();
    let mut all_options = router_options(core);
    let mut prefixes: BTreeSet<Ipv6Net> = interface.link.v6.iter().map(Ipv6Net::trunc).collect();
    for (key, entry) in db.iter() {
        if key.link == index && key.lsa.kind == v3::LINK && full.contains(&key.lsa.router) {
            let Some((options, theirs)) = parse_link_lsa(entry.lsa().body()) else { continue };
            all_options |= options;
            prefixes.extend(theirs);
        }
    }
    let mut body = all_options.to_be_bytes().to_vec();
    for id in std::iter::once(core.router_id).chain(full) {
        body.extend_from_slice(&id.to_be_bytes());
    }
    insert(drafts, area_key(core, v3::NETWORK, index), body);
    let prefixes: Vec<(Ipv6Net, u16)> =
        prefixes.into_iter().take(MAX_BUCKET).map(|net| (net, 0)).collect();
    if !prefixes.is_empty() {
        let body = prefixes_body(core, (v3::NETWORK, index), &prefixes);
        insert(drafts, area_key(core, v3::INTRA_AREA_PREFIX, NETWORK_IDS | index), body);
    }
}

/// Options and global prefixes of another router's link-LSA; `None` if it is malformed.
fn parse_link_lsa(body: &[u8]) -> Option<(u32, Vec<Ipv6Net>)> {
    let (head, mut rest) = body.split_first_chunk::<24>()?;
    let options = u32::from_be_bytes([0, head[1], head[2], head[3]]);
    let count = u32::from_be_bytes([head[20], head[21], head[22], head[23]]) as usize;
    let mut prefixes = Vec::new();
    for _ in 0..count {
        let (&[length, _, _, _], after) = rest.split_first_chunk::<4>()?;
        let bytes = usize::from(length).div_ceil(32) * 4;
        let address = after.get(..bytes).filter(|_| length <= 128)?;
        rest = after.get(bytes..)?;
        let mut octets = [0; 16];
        octets.iter_mut().zip(address).for_each(|(to, from)| *to = *from);
        let net = Ipv6Net::new(Ipv6Addr::from(octets), length).ok()?.trunc();
        if !net.addr().is_unicast_link_local() {
            prefixes.push(net);
        }
    }
    Some((options, prefixes))
}

fn add_to_bucket(
    buckets: &mut BTreeMap<u32, Vec<(Ipv6Net, u16)>>,
    net: Ipv6Net,
    cost: u32,
) -> Option<&'static str> {
    let Ok(metric) = u16::try_from(cost) else {
        return Some("an intra-area prefix's cost is at most 65535");
    };
    // FNV-1a over the address.
    let hash =
        net.network().octets().iter().fold(0x811c_9dc5_u32, |hash, byte| {
            (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
        });
    let bucket = buckets.entry(hash % BUCKETS).or_default();
    if bucket.len() >= MAX_BUCKET {
        return Some("too many intra-area prefixes: announce it as external");
    }
    bucket.push((net.trunc(), metric));
    None
}

/// §4.4.3.6, §4.4.3.7.
fn add_external(
    core: &Core,
    interfaces: &BTreeMap<u32, Interface>,
    net: Ipv6Net,
    attributes: &OspfAttributes,
    ids: &mut Ids,
    drafts: &mut Drafts,
) -> Option<&'static str> {
    if core.area_kind == AreaKind::Stub {
        return Some("a stub area takes no external routes");
    }
    if attributes.cost > MAX_EXTERNAL_METRIC {
        return Some("an external route's cost is at most 16777214");
    }
    let nssa = core.area_kind == AreaKind::Nssa;
    // A translated LSA needs an address to forward to that the area can reach (RFC 3101 §2.4).
    let global = || interfaces.values().find_map(|i| i.link.v6.first()).map(Ipv6Net::addr);
    let forward = if nssa { global() } else { None };
    let mut word = attributes.cost;
    if attributes.kind == OspfKind::External2 {
        word |= EXTERNAL_TYPE_2;
    }
    if forward.is_some() {
        word |= EXTERNAL_FORWARD;
    }
    let mut body = word.to_be_bytes().to_vec();
    let prefix_options = if forward.is_some() { PREFIX_P } else { 0 };
    push_prefix(&mut body, net.trunc(), prefix_options, 0);
    if let Some(forward) = forward {
        body.extend_from_slice(&forward.octets());
    }
    let kind = if nssa { v3::NSSA } else { v3::EXTERNAL };
    insert(drafts, area_key(core, kind, ids.of(net)), body);
    None
}

/// An intra-area-prefix-LSA that refers to one of our own LSAs (§A.4.10).
fn prefixes_body(core: &Core, (kind, id): (u16, u32), prefixes: &[(Ipv6Net, u16)]) -> Vec<u8> {
    let mut body = (prefixes.len() as u16).to_be_bytes().to_vec();
    body.extend_from_slice(&kind.to_be_bytes());
    body.extend_from_slice(&id.to_be_bytes());
    body.extend_from_slice(&core.router_id.to_be_bytes());
    for (net, metric) in prefixes {
        push_prefix(&mut body, *net, 0, *metric);
    }
    body
}

/// §A.4.1: length, options, 16 bits that depend on the LSA, and as many words as the length needs.
fn push_prefix(body: &mut Vec<u8>, net: Ipv6Net, options: u8, half: u16) {
    body.extend_from_slice(&[net.prefix_len(), options]);
    body.extend_from_slice(&half.to_be_bytes());
    let bytes = usize::from(net.prefix_len()).div_ceil(32) * 4;
    body.extend_from_slice(&net.network().octets()[..bytes]);
}

fn router_options(core: &Core) -> u32 {
    options::V6 | core.area_kind.options()
}

fn area_key(core: &Core, kind: u16, id: u32) -> DbKey {
    DbKey { link: 0, lsa: LsaKey { kind, id, router: core.router_id } }
}

fn insert(drafts: &mut Drafts, key: DbKey, body: Vec<u8>) {
    drafts.lsas.insert(key, Draft { options: 0, body });
}

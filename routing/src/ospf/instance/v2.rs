//! The LSAs of OSPFv2: router-LSA, network-LSA, AS-external-LSA, NSSA-LSA (RFC 2328 §12.4, RFC
//! 3101).

use super::originate::{Draft, Drafts};
use super::parts::{Core, Interface, Neighbor};
use crate::ospf::config::{AreaKind, NetworkKind};
use crate::ospf::interface::State;
use crate::ospf::lsa::{LsaKey, v2};
use crate::ospf::lsdb::DbKey;
use crate::ospf::packet::options;
use crate::{OspfAttributes, OspfKind};
use ipnet::{IpNet, Ipv4Net};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

/// Bits of the router-LSA (RFC 2328 §A.4.2, RFC 8770 §3).
const FLAG_EXTERNAL: u8 = 0x02;
const FLAG_HOST: u8 = 0x80;
const LINK_POINT_TO_POINT: u8 = 1;
const LINK_TRANSIT: u8 = 2;
const LINK_STUB: u8 = 3;
/// RFC 6987 §2.1: never transit.
const MAX_LINK_METRIC: u16 = 0xffff;
/// The largest metric of an external route: one below LSInfinity.
const MAX_EXTERNAL_METRIC: u32 = 0x00ff_fffe;
const EXTERNAL_TYPE_2: u32 = 0x8000_0000;
/// A router-LSA must fit into one IP packet with its headers (12 bytes a link): beyond this many
/// stub links, prefixes are refused.
const MAX_STUB_LINKS: usize = 5_000;

/// What should be in the database.
pub(super) fn draft(
    core: &Core,
    interfaces: &BTreeMap<u32, Interface>,
    wanted: &BTreeMap<IpNet, OspfAttributes>,
) -> Drafts {
    let mut drafts = Drafts::default();
    let mut router = RouterLsa::default();
    for interface in interfaces.values() {
        router.add_interface(interface);
        add_network(core, interface, &mut drafts);
    }
    let mut externals = Vec::new();
    for (prefix, attributes) in wanted {
        let IpNet::V4(net) = prefix else { continue };
        let refusal = match attributes.kind {
            OspfKind::Stub => router.add_prefix(*net, attributes.cost),
            OspfKind::External1 | OspfKind::External2 => {
                let refusal = check_external(core, attributes);
                if refusal.is_none() {
                    externals.push((*net, attributes));
                }
                refusal
            }
        };
        if let Some(why) = refusal {
            drafts.refused.insert(*prefix, why);
        }
    }
    let flags = FLAG_HOST | if externals.is_empty() { 0 } else { FLAG_EXTERNAL };
    if !interfaces.is_empty() {
        let options = core.area_kind.options() as u8 & options::E as u8;
        let key = key(core, v2::ROUTER, core.router_id);
        drafts.lsas.insert(key, Draft { options, body: router.finish(flags) });
    }
    add_externals(core, interfaces, externals, &mut drafts);
    drafts
}

/// The links of the router-LSA (§12.4.1).
#[derive(Default)]
struct RouterLsa {
    links: Vec<(u32, u32, u8, u16)>,
    prefixes: usize,
}

impl RouterLsa {
    fn add_interface(&mut self, interface: &Interface) {
        let Some(net) = interface.link.v4 else { return };
        let address = u32::from(net.addr());
        let cost = interface.config.cost;
        let mut stub = true;
        match interface.state {
            State::Down | State::Loopback => return,
            State::PointToPoint => {
                for neighbor in interface.neighbors.values() {
                    if neighbor.is_announced() {
                        let id = neighbor.router_id;
                        self.links.push((id, address, LINK_POINT_TO_POINT, MAX_LINK_METRIC));
                    }
                }
            }
            State::Waiting => {}
            State::DrOther | State::Backup | State::Dr => {
                let full = |name| {
                    interface.neighbors.values().any(|n| n.is_announced() && name == n.name())
                };
                let own = interface.state == State::Dr;
                let transit = if own {
                    interface.neighbors.values().any(Neighbor::is_announced)
                } else {
                    full(interface.designated)
                };
                if transit {
                    let network = interface.designated;
                    self.links.push((network, address, LINK_TRANSIT, MAX_LINK_METRIC));
                    stub = false;
                }
            }
        }
        if stub {
            let (network, mask) = (net.network().into(), net.netmask().into());
            self.links.push((network, mask, LINK_STUB, cost));
        }
    }

    fn add_prefix(&mut self, net: Ipv4Net, cost: u32) -> Option<&'static str> {
        let Ok(metric) = u16::try_from(cost) else {
            return Some("a stub link's cost is at most 65535");
        };
        if self.prefixes >= MAX_STUB_LINKS {
            return Some("too many stub links for one router-LSA: announce it as external");
        }
        self.prefixes += 1;
        self.links.push((net.network().into(), net.netmask().into(), LINK_STUB, metric));
        None
    }

    fn finish(self, flags: u8) -> Vec<u8> {
        let mut body = vec![flags, 0];
        body.extend_from_slice(&(self.links.len() as u16).to_be_bytes());
        for (id, data, kind, metric) in self.links {
            body.extend_from_slice(&id.to_be_bytes());
            body.extend_from_slice(&data.to_be_bytes());
            body.extend_from_slice(&[kind, 0]);
            body.extend_from_slice(&metric.to_be_bytes());
        }
        body
    }
}

/// §12.4.2: only the designated router speaks for the network.
fn add_network(core: &Core, interface: &Interface, drafts: &mut Drafts) {
    let Some(net) = interface.link.v4 else { return };
    let full = || interface.neighbors.values().filter(|n| n.is_announced());
    let broadcast = interface.config.network == NetworkKind::Broadcast;
    if !broadcast || interface.state != State::Dr || full().next().is_none() {
        return;
    }
    let mut body = u32::from(net.netmask()).to_be_bytes().to_vec();
    for id in std::iter::once(core.router_id).chain(full().map(|n| n.router_id)) {
        body.extend_from_slice(&id.to_be_bytes());
    }
    let options = core.area_kind.options() as u8 & options::E as u8;
    drafts.lsas.insert(key(core, v2::NETWORK, net.addr().into()), Draft { options, body });
}

fn check_external(core: &Core, attributes: &OspfAttributes) -> Option<&'static str> {
    if core.area_kind == AreaKind::Stub {
        Some("a stub area takes no external routes")
    } else if attributes.cost > MAX_EXTERNAL_METRIC {
        Some("an external route's cost is at most 16777214")
    } else {
        None
    }
}

/// AS-external-LSAs (§12.4.4), or in an NSSA Type-7 LSAs with the P-bit, so that the border router
/// translates them (RFC 3101 §2.4).
fn add_externals(
    core: &Core,
    interfaces: &BTreeMap<u32, Interface>,
    mut externals: Vec<(Ipv4Net, &OspfAttributes)>,
    drafts: &mut Drafts,
) {
    let nssa = core.area_kind == AreaKind::Nssa;
    // A translated LSA needs an address to forward to that the area can reach.
    let forward = if nssa { forwarding_address(interfaces) } else { Ipv4Addr::UNSPECIFIED };
    let kind = if nssa { v2::NSSA } else { v2::EXTERNAL };
    let options = match (nssa, forward.is_unspecified()) {
        (false, _) => options::E as u8,
        (true, false) => options::N as u8,
        (true, true) => 0,
    };
    // Appendix E: the most specific prefix keeps the plain address as its link state ID.
    externals.sort_by_key(|(net, _)| (std::cmp::Reverse(net.prefix_len()), *net));
    let mut taken = BTreeSet::new();
    for (net, attributes) in externals {
        let Some(id) = free_id(net, &taken) else {
            drafts.refused.insert(net.into(), "no link state ID left for this prefix");
            continue;
        };
        taken.insert(id);
        let type_2 = if attributes.kind == OspfKind::External2 { EXTERNAL_TYPE_2 } else { 0 };
        let mut body = u32::from(net.netmask()).to_be_bytes().to_vec();
        body.extend_from_slice(&(type_2 | attributes.cost).to_be_bytes());
        body.extend_from_slice(&forward.octets());
        // External route tag.
        body.extend_from_slice(&[0; 4]);
        drafts.lsas.insert(key(core, kind, id), Draft { options, body });
    }
}

/// RFC 2328 Appendix E: the address, or the address with host bits set.
fn free_id(net: Ipv4Net, taken: &BTreeSet<u32>) -> Option<u32> {
    let network = u32::from(net.network());
    let host = u32::from(net.hostmask());
    let candidates =
        std::iter::once(network).chain((0..=host.min(255)).map(|n| network | (host - n)));
    candidates.into_iter().find(|id| !taken.contains(id))
}

fn forwarding_address(interfaces: &BTreeMap<u32, Interface>) -> Ipv4Addr {
    let usable = interfaces.values().filter(|i| i.state != State::Down);
    usable.filter_map(|i| i.link.v4).map(|net| net.addr()).next().unwrap_or(Ipv4Addr::UNSPECIFIED)
}

fn key(core: &Core, kind: u16, id: u32) -> DbKey {
    DbKey { link: 0, lsa: LsaKey { kind, id, router: core.router_id } }
}

//! From the kernel's list of routes to the best route of each prefix. Pure.

use super::{Link, NextHop, Route, RouteKind};
use crate::wire::{RTNH_F_DEAD, RTNH_F_LINKDOWN, RawRoute};
use ipnet::IpNet;
use std::collections::BTreeMap;
use std::net::IpAddr;

// linux/rtnetlink.h
const RTN_UNICAST: u8 = 1;
const RTN_LOCAL: u8 = 2;
const RTN_BLACKHOLE: u8 = 6;
const RTN_UNREACHABLE: u8 = 7;
const RTN_PROHIBIT: u8 = 8;
const RTN_THROW: u8 = 9;

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Selection {
    /// Sorted by prefix, one for each.
    pub routes: Vec<Route>,
    pub skipped: u64,
    pub unresolved: u64,
}

/// The best route of each prefix; [`Route`] documents the rules.
pub(crate) fn select(raw: &[RawRoute], links: &BTreeMap<u32, Link>) -> Selection {
    let mut best: BTreeMap<IpNet, Route> = BTreeMap::new();
    let mut selection = Selection::default();
    for raw in raw {
        if raw.tos != 0 || raw.source_length != 0 || raw.encap {
            selection.skipped += 1;
            continue;
        }
        let Some(route) = usable(raw, links) else {
            continue;
        };
        if route.kind == RouteKind::Unresolved {
            selection.unresolved += 1;
        }
        match best.get_mut(&route.prefix) {
            Some(current) if current.metric < route.metric => {}
            Some(current) if current.metric == route.metric => merge(current, route),
            _ => {
                best.insert(route.prefix, route);
            }
        }
    }
    selection.routes = best.into_values().collect();
    for route in &mut selection.routes {
        route.next_hops.sort_unstable();
        route.next_hops.dedup();
    }
    selection
}

/// The route as the packet path can use it, if it can.
fn usable(raw: &RawRoute, links: &BTreeMap<u32, Link>) -> Option<Route> {
    if !global(raw.prefix.addr()) {
        return None;
    }
    let mut kind = match raw.kind {
        RTN_UNICAST => RouteKind::Unicast,
        RTN_LOCAL => RouteKind::Local,
        RTN_BLACKHOLE => RouteKind::Blackhole,
        RTN_UNREACHABLE | RTN_THROW => RouteKind::Unreachable,
        RTN_PROHIBIT => RouteKind::Prohibit,
        _ => return None,
    };
    let mut next_hops = Vec::new();
    if matches!(kind, RouteKind::Unicast | RouteKind::Local) {
        next_hops.extend(
            raw.next_hops
                .iter()
                .filter(|hop| hop.flags & (RTNH_F_DEAD | RTNH_F_LINKDOWN) == 0)
                .filter(|hop| links.get(&hop.ifindex).is_some_and(|link| link.up && link.carrier))
                .map(|hop| NextHop { via: hop.via, ifindex: hop.ifindex, weight: hop.weight }),
        );
        if next_hops.is_empty() {
            if raw.next_hop_id.is_none() || !raw.next_hops.is_empty() {
                return None;
            }
            kind = RouteKind::Unresolved;
        }
    }
    Some(Route {
        prefix: raw.prefix.trunc(),
        table: raw.table,
        protocol: raw.protocol,
        metric: raw.metric,
        scope: raw.scope,
        kind,
        next_hops,
    })
}

/// Two routes of one prefix and metric. The kernel takes the first. But IPv6 next hops of one route
/// may be listed as routes of their own, if they have a gateway (kernels before 4.11, and routers
/// learnt from advertisements): these are one multipath route.
fn merge(current: &mut Route, other: Route) {
    let joins = |route: &Route| {
        matches!(route.prefix, IpNet::V6(_))
            && route.kind == RouteKind::Unicast
            && route.next_hops.iter().all(|hop| hop.via.is_some())
    };
    if joins(current) && joins(&other) && current.protocol == other.protocol {
        current.next_hops.extend(other.next_hops);
    }
}

fn global(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => !address.is_multicast() && !address.is_link_local(),
        IpAddr::V6(address) => !address.is_multicast() && !address.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests;

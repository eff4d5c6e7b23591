//! The few routes we take from neighbours, and the best of them.
//!
//! [`AdjRibIn`] holds what one neighbour announced and its policy accepts; all else is dropped
//! unseen, so its size is bounded by policy and `max_prefixes`, not by what a neighbour sends.
//! [`select`] is route selection over all neighbours (RFC 4271 §9.1.2), with multipath.

use super::config::Import;
use super::wire::{Attributes, Families, Family, NextHop, Origin, Role, Update};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// Where an imported route points.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ImportedNextHop {
    pub address: IpAddr,
    /// Interface index of a link-local next hop.
    pub interface: Option<u32>,
}

/// Prefixes taken from neighbours, each with its equally good next hops.
pub type ImportedRoutes = BTreeMap<IpNet, Vec<ImportedNextHop>>;

/// An accepted route with what selection compares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    pub next_hop: ImportedNextHop,
    pub local_preference: u32,
    pub as_path_hops: usize,
    pub origin: Origin,
    pub med: u32,
    pub neighbor_asn: Option<u32>,
    pub external: bool,
}

/// What is known of the neighbour when its UPDATEs are judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImportContext {
    pub local_asn: u32,
    pub remote_asn: u32,
    pub internal: bool,
    /// Our role (RFC 9234).
    pub role: Option<Role>,
    /// Interface index the session runs over, for link-local next hops.
    pub interface: Option<u32>,
}

/// What an UPDATE did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Applied {
    pub changed: bool,
    pub too_many: bool,
}

/// Accepted routes of one neighbour.
#[derive(Debug, Default)]
pub struct AdjRibIn {
    routes: BTreeMap<IpNet, Route>,
    /// Of a session that broke, not announced again yet (RFC 4724 §4.2).
    stale: BTreeSet<IpNet>,
}

impl AdjRibIn {
    pub fn routes(&self) -> &BTreeMap<IpNet, Route> {
        &self.routes
    }

    pub fn has_stale(&self) -> bool {
        !self.stale.is_empty()
    }

    /// The session is gone: keeps the routes of these families as stale, drops all others.
    /// Returns whether there are fewer now.
    pub fn retain_stale(&mut self, families: Families) -> bool {
        let before = self.routes.len();
        // Stale once more without having been announced in between: not to be believed twice.
        self.routes.retain(|p, _| families.contains(Family::of(p)) && !self.stale.contains(p));
        self.stale = self.routes.keys().copied().collect();
        self.routes.len() != before
    }

    /// The peer has said all it has in this family, or had time enough. Returns whether there are
    /// fewer routes now.
    pub fn drop_stale(&mut self, family: Family) -> bool {
        let before = self.routes.len();
        for prefix in self.stale.iter().filter(|p| Family::of(p) == family) {
            self.routes.remove(prefix);
        }
        self.stale.retain(|p| Family::of(p) != family);
        self.routes.len() != before
    }

    /// Takes in an UPDATE. A route that is replaced by an unacceptable one is gone
    /// (RFC 4271 §9: implicit withdrawal).
    pub fn handle_update(
        &mut self,
        update: &Update,
        policy: &Import,
        max_prefixes: u32,
        ctx: &ImportContext,
    ) -> Applied {
        let mut changed = false;
        for prefix in &update.withdrawn {
            changed |= self.remove(prefix);
        }
        let eligible = ctx.eligible(&update.attributes);
        for reach in &update.reach {
            let next_hop = ctx.next_hop(&reach.next_hop).filter(|_| eligible);
            for prefix in reach.prefixes.iter().filter(|p| policy.accepts(p)) {
                let Some(next_hop) = &next_hop else {
                    changed |= self.remove(prefix);
                    continue;
                };
                let route = ctx.route(next_hop.clone(), &update.attributes);
                self.stale.remove(prefix);
                if self.routes.get(prefix) == Some(&route) {
                    continue;
                }
                if !self.routes.contains_key(prefix) && self.routes.len() >= max_prefixes as usize {
                    return Applied { changed, too_many: true };
                }
                self.routes.insert(*prefix, route);
                changed = true;
            }
        }
        if let Some(family) = update.end_of_rib {
            changed |= self.drop_stale(family);
        }
        Applied { changed, too_many: false }
    }

    fn remove(&mut self, prefix: &IpNet) -> bool {
        self.stale.remove(prefix);
        self.routes.remove(prefix).is_some()
    }
}

impl ImportContext {
    /// Whether routes with these attributes may be used at all.
    fn eligible(&self, attributes: &Attributes) -> bool {
        // RFC 4271 §9.1.2: a loop.
        if attributes.as_path.contains(self.local_asn) {
            return false;
        }
        // RFC 4271 §6.3: an external peer puts itself first; a route server does not
        // (RFC 7947 §2.2.2.1).
        if !self.internal
            && self.role != Some(Role::RouteServerClient)
            && attributes.as_path.first() != Some(self.remote_asn)
        {
            return false;
        }
        // RFC 9234 §5, ingress: a leak.
        match (attributes.only_to_customer, self.role) {
            (Some(_), Some(Role::Provider | Role::RouteServer)) => false,
            (Some(asn), Some(Role::Peer)) => asn == self.remote_asn,
            _ => true,
        }
    }

    /// A usable next hop: RFC 4271 §6.3 has semantically wrong ones ignored.
    fn next_hop(&self, next_hop: &NextHop) -> Option<ImportedNextHop> {
        let address = match (next_hop.address, next_hop.link_local) {
            // Peers without a global address send the unspecified one beside the link-local.
            (IpAddr::V6(a), Some(ll)) if a.is_unspecified() => IpAddr::V6(ll),
            (address, _) => address,
        };
        let unusable = match address {
            IpAddr::V4(a) => {
                a.is_unspecified() || a.is_multicast() || a.is_broadcast() || a.is_loopback()
            }
            IpAddr::V6(a) => a.is_unspecified() || a.is_multicast() || a.is_loopback(),
        };
        let link_local = matches!(address, IpAddr::V6(a) if a.is_unicast_link_local());
        let interface = self.interface.filter(|_| link_local);
        (!unusable && link_local == interface.is_some())
            .then_some(ImportedNextHop { address, interface })
    }

    fn route(&self, next_hop: ImportedNextHop, attributes: &Attributes) -> Route {
        Route {
            next_hop,
            local_preference: attributes.local_preference.unwrap_or(100),
            as_path_hops: attributes.as_path.hops(),
            origin: attributes.origin,
            med: attributes.med.unwrap_or(0),
            neighbor_asn: attributes.as_path.first(),
            external: !self.internal,
        }
    }
}

/// The best routes over all neighbours, equals side by side (RFC 4271 §9.1.2.2 a–d; MED compared
/// between routes of one neighbouring AS).
pub fn select<'a>(neighbors: impl Iterator<Item = &'a BTreeMap<IpNet, Route>>) -> ImportedRoutes {
    let mut candidates: BTreeMap<IpNet, Vec<&Route>> = BTreeMap::new();
    for (prefix, route) in neighbors.flatten() {
        candidates.entry(*prefix).or_default().push(route);
    }
    candidates.into_iter().map(|(prefix, routes)| (prefix, best(routes))).collect()
}

fn best(mut routes: Vec<&Route>) -> Vec<ImportedNextHop> {
    let rank = |r: &Route| (u32::MAX - r.local_preference, r.as_path_hops, r.origin);
    let top = routes.iter().map(|r| rank(r)).min();
    routes.retain(|r| Some(rank(r)) == top);
    let beaten =
        |r: &Route| routes.iter().any(|o| o.neighbor_asn == r.neighbor_asn && o.med < r.med);
    let mut left: Vec<&Route> = routes.iter().copied().filter(|r| !beaten(r)).collect();
    if left.iter().any(|r| r.external) {
        left.retain(|r| r.external);
    }
    let mut next_hops: Vec<_> = left.into_iter().map(|r| r.next_hop.clone()).collect();
    next_hops.sort();
    next_hops.dedup();
    next_hops
}

#[cfg(test)]
mod tests;

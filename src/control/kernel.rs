//! The kernel's view of our ports, as decisions need it: who is a neighbour, which way leads where.
//!
//! The netlink mirror speaks of interfaces; this speaks of ports. Plain data, compared by value.

use super::announce::Path;
use crate::forward::tables::{Mac, PortId};
use ipnet::IpNet;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// One way a route may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hop {
    pub port: PortId,
    /// `None`: on-link, the destination itself is the neighbour.
    pub gateway: Option<IpAddr>,
    pub weight: u16,
}

/// Routes and neighbours of the control interfaces.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KernelView {
    /// Ports whose control interface is up.
    pub up: Vec<PortId>,
    /// Best route of each prefix. No hops: unreachable.
    pub routes: BTreeMap<IpNet, Vec<Hop>>,
    /// Neighbours whose link-layer address is known and valid.
    pub neighbours: BTreeMap<(PortId, IpAddr), Mac>,
}

impl KernelView {
    /// Hops of the longest prefix that holds `address`.
    pub fn lookup(&self, address: IpAddr) -> &[Hop] {
        let host = IpNet::from(address);
        (0..=host.prefix_len())
            .rev()
            .filter_map(|len| IpNet::new(address, len).ok())
            .find_map(|prefix| self.routes.get(&prefix.trunc()))
            .map_or(&[], Vec::as_slice)
    }

    /// The neighbours that frames to `address` may be sent to.
    pub fn neighbours_toward(&self, address: IpAddr) -> impl Iterator<Item = (PortId, IpAddr)> {
        self.lookup(address).iter().map(move |hop| (hop.port, hop.gateway.unwrap_or(address)))
    }

    /// How far the way to `address` leads, over ports whose control interface is up and whose link
    /// is up as `link_up` tells.
    pub fn path(&self, address: IpAddr, link_up: impl Fn(PortId) -> bool) -> Path {
        let mut path = Path::Down;
        for key in self.neighbours_toward(address) {
            if !self.up.contains(&key.0) || !link_up(key.0) {
                continue;
            }
            if self.neighbours.contains_key(&key) {
                return Path::Proven;
            }
            path = Path::Unresolved;
        }
        path
    }

    /// Every gateway of every route.
    pub fn gateways(&self) -> impl Iterator<Item = (PortId, IpAddr)> {
        self.routes.values().flatten().filter_map(|hop| Some((hop.port, hop.gateway?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hop(gateway: Option<&str>) -> Hop {
        Hop { port: PortId(0), gateway: gateway.map(|g| g.parse().unwrap()), weight: 1 }
    }

    #[test]
    fn the_longest_prefix_wins_in_both_families() {
        let view = KernelView {
            up: vec![PortId(0)],
            routes: BTreeMap::from([
                ("0.0.0.0/0".parse().unwrap(), vec![hop(Some("10.1.1.1"))]),
                ("10.1.1.0/24".parse().unwrap(), vec![hop(None)]),
                ("10.66.0.0/16".parse().unwrap(), vec![]),
                ("::/0".parse().unwrap(), vec![hop(Some("fd00::1"))]),
            ]),
            neighbours: BTreeMap::from([((PortId(0), "10.1.1.1".parse().unwrap()), Mac([2; 6]))]),
        };
        let path = |address: &str| view.path(address.parse().unwrap(), |_| true);
        assert_eq!(path("198.51.100.1"), Path::Proven, "by the default route");
        let no_link = view.path("198.51.100.1".parse().unwrap(), |_| false);
        assert_eq!(no_link, Path::Down);
        assert_eq!(path("10.1.1.7"), Path::Unresolved, "on-link");
        assert_eq!(path("10.66.1.1"), Path::Down, "unreachable is a route too");
        assert_eq!(path("2001:db8::1"), Path::Unresolved, "by its gateway");
        assert_eq!(view.lookup("2001:db8::1".parse().unwrap()), &[hop(Some("fd00::1"))]);
    }
}

//! The kernel's view of our ports, as decisions need it: who is a neighbour, which way leads where.
//!
//! The netlink mirror speaks of interfaces; this speaks of ports. Plain data, compared by value.

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

    /// Some hop toward `address` has a known link-layer address, on a port whose control interface
    /// is up and whose link is up as `link_up` tells.
    pub fn reaches(&self, address: IpAddr, link_up: impl Fn(PortId) -> bool) -> bool {
        self.neighbours_toward(address).any(|key| {
            self.up.contains(&key.0) && link_up(key.0) && self.neighbours.contains_key(&key)
        })
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
        let reaches = |address: &str| view.reaches(address.parse().unwrap(), |_| true);
        assert!(reaches("198.51.100.1"), "by the default route");
        assert!(!view.reaches("198.51.100.1".parse().unwrap(), |_| false), "no link");
        assert!(!reaches("10.1.1.7"), "on-link, not resolved");
        assert!(!reaches("10.66.1.1"), "unreachable is a route too");
        assert!(!reaches("2001:db8::1"), "gateway not resolved");
        assert_eq!(view.lookup("2001:db8::1".parse().unwrap()), &[hop(Some("fd00::1"))]);
    }
}

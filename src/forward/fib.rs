//! Where a packet leaves: longest-prefix match, ECMP, next hops and neighbours, compiled.
//!
//! Asked when a flow is made and again when routing has changed; flows cache the answer. So the
//! structure is plain: sorted prefixes per length, longest length first.

use super::build::BuildError;
use super::tables::{Mac, NeighbourSpec, NextHopId, NextHopSpec, PortId, PortSpec, RouteSpec};
use ipnet::IpNet;
use std::net::IpAddr;

/// Most neighbours and next hops.
const MOST: usize = 1 << 20;

/// What a frame needs to leave by a port to a neighbour.
#[derive(Debug, Clone, Copy)]
#[repr(align(32))]
pub(super) struct Adjacency {
    /// Destination and source, as they begin the frame.
    pub macs: [u8; 12],
    pub port: PortId,
    /// Largest IP packet; 0 if the port is down.
    pub mtu: u16,
    /// Frames up to so many bytes are certainly not too large: what `mtu` allows, with the Ethernet
    /// header; 0 if the port is down.
    pub longest: u64,
}

/// Where a packet goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hop {
    /// Number of an [`Adjacency`].
    Adjacency(u32),
    /// The neighbour is not resolved.
    Wait(NextHopId),
    NoRoute,
}

#[derive(Debug, Default)]
pub(super) struct Fib {
    source: Source,
    v4: Vec<Length>,
    v6: Vec<Length>,
    groups: Vec<Group>,
    next_hops: Vec<Option<NextHop>>,
    adjacencies: Vec<Adjacency>,
    /// Sorted by port and address; the number is that of the adjacency.
    neighbours: Vec<(PortId, IpAddr, u32)>,
}

/// What a FIB was built from, to know whether the next one differs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Source {
    pub ports: Vec<PortSpec>,
    pub routes: Vec<RouteSpec>,
    pub next_hops: Vec<NextHopSpec>,
    pub neighbours: Vec<NeighbourSpec>,
}

/// The prefixes of one length, sorted, left-aligned in 128 bits.
#[derive(Debug)]
struct Length {
    mask: u128,
    prefixes: Vec<(u128, u32)>,
}

/// The next hops of a route with the cumulated weights; empty is unreachable.
#[derive(Debug)]
struct Group(Vec<(NextHopId, u32)>);

#[derive(Debug, Clone, Copy)]
struct NextHop {
    port: PortId,
    gateway: Option<IpAddr>,
    /// Of the gateway, if it is resolved.
    adjacency: Option<u32>,
}

impl Fib {
    pub fn build(source: Source) -> Result<Self, BuildError> {
        let mut fib = Self::default();
        fib.add_neighbours(&source)?;
        fib.add_next_hops(&source)?;
        fib.add_routes(&source)?;
        fib.source = source;
        Ok(fib)
    }

    pub fn source(&self) -> &Source {
        &self.source
    }

    /// The hop for a destination; among equal ones by `hash`.
    pub fn resolve(&self, destination: IpAddr, hash: u32) -> Hop {
        let (lengths, key) = match destination {
            IpAddr::V4(_) => (&self.v4, key(destination)),
            IpAddr::V6(_) => (&self.v6, key(destination)),
        };
        for length in lengths {
            let prefix = key & length.mask;
            if let Ok(at) = length.prefixes.binary_search_by_key(&prefix, |p| p.0) {
                let group = length.prefixes[at].1;
                return self.choose(group, destination, hash);
            }
        }
        Hop::NoRoute
    }

    pub fn adjacencies(&self) -> &[Adjacency] {
        &self.adjacencies
    }

    pub fn adjacency(&self, number: u32) -> Option<&Adjacency> {
        self.adjacencies.get(number as usize)
    }

    /// The port and neighbour of a next hop for this destination.
    pub fn neighbour(&self, next_hop: NextHopId, destination: IpAddr) -> Option<(PortId, IpAddr)> {
        let next_hop = (*self.next_hops.get(next_hop.0 as usize)?)?;
        Some((next_hop.port, next_hop.gateway.unwrap_or(destination)))
    }

    fn choose(&self, group: u32, destination: IpAddr, hash: u32) -> Hop {
        let Some(Group(members)) = self.groups.get(group as usize) else {
            return Hop::NoRoute;
        };
        let Some(&(_, total)) = members.last() else {
            return Hop::NoRoute;
        };
        let ticket = ((u64::from(hash) * u64::from(total)) >> 32) as u32;
        let at = members.partition_point(|&(_, upto)| upto <= ticket);
        let Some(&(id, _)) = members.get(at) else {
            return Hop::NoRoute;
        };
        let Some(Some(next_hop)) = self.next_hops.get(id.0 as usize) else {
            return Hop::NoRoute;
        };
        let adjacency = match next_hop.gateway {
            Some(_) => next_hop.adjacency,
            None => self.find_neighbour(next_hop.port, destination),
        };
        adjacency.map_or(Hop::Wait(id), Hop::Adjacency)
    }

    fn find_neighbour(&self, port: PortId, address: IpAddr) -> Option<u32> {
        let at = self
            .neighbours
            .binary_search_by_key(&(port, address), |&(port, address, _)| (port, address));
        at.ok().map(|at| self.neighbours[at].2)
    }

    fn add_neighbours(&mut self, source: &Source) -> Result<(), BuildError> {
        if source.neighbours.len() > MOST {
            return Err(BuildError::TooMany("neighbours"));
        }
        for neighbour in &source.neighbours {
            let port = find_port(source, neighbour.port)?;
            let number = self.adjacencies.len() as u32;
            self.adjacencies.push(adjacency(port, neighbour.mac));
            self.neighbours.push((neighbour.port, neighbour.address, number));
        }
        self.neighbours.sort_unstable();
        self.neighbours.dedup_by_key(|&mut (port, address, _)| (port, address));
        Ok(())
    }

    fn add_next_hops(&mut self, source: &Source) -> Result<(), BuildError> {
        for spec in &source.next_hops {
            let number = spec.id.0 as usize;
            if number >= MOST {
                return Err(BuildError::TooMany("next hops"));
            }
            find_port(source, spec.port)?;
            if self.next_hops.len() <= number {
                self.next_hops.resize(number + 1, None);
            }
            let adjacency =
                spec.gateway.and_then(|gateway| self.find_neighbour(spec.port, gateway));
            let next_hop = NextHop { port: spec.port, gateway: spec.gateway, adjacency };
            if self.next_hops[number].replace(next_hop).is_some() {
                return Err(BuildError::Duplicate("next hop", spec.id.0));
            }
        }
        Ok(())
    }

    fn add_routes(&mut self, source: &Source) -> Result<(), BuildError> {
        for route in &source.routes {
            let group = self.groups.len() as u32;
            let members = self.members(source, route)?;
            self.groups.push(Group(members));
            let (lengths, mask) = match route.prefix {
                IpNet::V4(net) => (&mut self.v4, key(net.netmask().into())),
                IpNet::V6(net) => (&mut self.v6, key(net.netmask().into())),
            };
            let prefix = key(route.prefix.network());
            match lengths.iter_mut().find(|length| length.mask == mask) {
                Some(length) => length.prefixes.push((prefix, group)),
                None => lengths.push(Length { mask, prefixes: vec![(prefix, group)] }),
            }
        }
        for lengths in [&mut self.v4, &mut self.v6] {
            lengths.sort_unstable_by_key(|length| std::cmp::Reverse(length.mask));
            for length in lengths {
                // Of two routes for one prefix the first wins.
                length.prefixes.sort_by_key(|prefix| prefix.0);
                length.prefixes.dedup_by_key(|prefix| prefix.0);
            }
        }
        Ok(())
    }

    /// The next hops of a route with cumulated weights. Those whose port is down are left out as
    /// long as one is up.
    fn members(
        &self,
        source: &Source,
        route: &RouteSpec,
    ) -> Result<Vec<(NextHopId, u32)>, BuildError> {
        let mut all = Vec::with_capacity(route.next_hops.len());
        for &(id, weight) in &route.next_hops {
            let Some(Some(next_hop)) = self.next_hops.get(id.0 as usize) else {
                return Err(BuildError::Unknown("next hop", id.0));
            };
            let up = find_port(source, next_hop.port)?.up;
            all.push((id, u32::from(weight.max(1)), up));
        }
        let any_up = all.iter().any(|&(_, _, up)| up);
        let mut total = 0;
        Ok(all
            .into_iter()
            .filter(|&(_, _, up)| up || !any_up)
            .map(|(id, weight, _)| {
                total += weight;
                (id, total)
            })
            .collect())
    }
}

fn find_port(source: &Source, id: PortId) -> Result<&PortSpec, BuildError> {
    let found = source.ports.iter().find(|port| port.id == id);
    found.ok_or(BuildError::Unknown("port", u32::from(id.0)))
}

fn adjacency(port: &PortSpec, neighbour: Mac) -> Adjacency {
    let mut macs = [0; 12];
    macs[..6].copy_from_slice(&neighbour.0);
    macs[6..].copy_from_slice(&port.mac.0);
    let (mtu, header) = if port.up { (port.mtu, 14) } else { (0, 0) };
    Adjacency { macs, port: port.id, mtu, longest: u64::from(mtu) + header }
}

/// An address or mask, left-aligned.
fn key(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()) << 96,
        IpAddr::V6(address) => address.to_bits(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn port(id: u16, up: bool) -> PortSpec {
        PortSpec {
            id: PortId(id),
            mac: Mac([2, 0, 0, 0, 0, id as u8]),
            mtu: 1500,
            up,
            tx_ipv4_checksum: false,
            tx_l4_checksum: false,
        }
    }

    /// Two ports with one gateway each, every route over next hop `id % 2` of its position.
    fn source(prefixes: &[&str]) -> Source {
        let gateway = |n: u8| IpAddr::from([10, 0, n, 1]);
        Source {
            ports: vec![port(0, true), port(1, true)],
            routes: prefixes
                .iter()
                .enumerate()
                .map(|(n, prefix)| RouteSpec {
                    prefix: prefix.parse().unwrap(),
                    next_hops: vec![(NextHopId(n as u32 % 2), 1)],
                })
                .collect(),
            next_hops: (0..2)
                .map(|n| NextHopSpec {
                    id: NextHopId(n),
                    port: PortId(n as u16),
                    gateway: Some(gateway(n as u8)),
                })
                .collect(),
            neighbours: (0..2)
                .map(|n| NeighbourSpec {
                    port: PortId(n),
                    address: gateway(n as u8),
                    mac: Mac([4, 0, 0, 0, 0, n as u8]),
                })
                .collect(),
        }
    }

    fn resolve(fib: &Fib, address: &str) -> Hop {
        fib.resolve(address.parse().unwrap(), 0)
    }

    #[test]
    fn the_longest_prefix_wins_in_both_families() {
        let fib = Fib::build(source(&[
            "0.0.0.0/0",
            "192.0.2.0/24",
            "192.0.2.128/25",
            "192.0.2.7/32",
            "2001:db8::/32",
            "2001:db8:1::/48",
        ]))
        .unwrap();
        assert_eq!(resolve(&fib, "198.51.100.1"), Hop::Adjacency(0));
        assert_eq!(resolve(&fib, "192.0.2.1"), Hop::Adjacency(1));
        assert_eq!(resolve(&fib, "192.0.2.129"), Hop::Adjacency(0));
        assert_eq!(resolve(&fib, "192.0.2.7"), Hop::Adjacency(1));
        assert_eq!(resolve(&fib, "2001:db8:1::1"), Hop::Adjacency(1));
        assert_eq!(resolve(&fib, "2001:db8:2::1"), Hop::Adjacency(0));
        assert_eq!(resolve(&fib, "2001:db9::1"), Hop::NoRoute);
    }

    #[test]
    fn on_link_destinations_are_their_own_neighbours() {
        let mut source = source(&["10.0.0.0/24"]);
        source.next_hops[0].gateway = None;
        let fib = Fib::build(source).unwrap();
        assert_eq!(resolve(&fib, "10.0.0.1"), Hop::Adjacency(0));
        assert_eq!(resolve(&fib, "10.0.0.2"), Hop::Wait(NextHopId(0)));
        let wanted = "10.0.0.2".parse().unwrap();
        assert_eq!(fib.neighbour(NextHopId(0), wanted), Some((PortId(0), wanted)));
    }

    #[test]
    fn equal_cost_paths_share_by_weight_and_avoid_ports_that_are_down() {
        let mut source = source(&["0.0.0.0/0"]);
        source.routes[0].next_hops = vec![(NextHopId(0), 1), (NextHopId(1), 3)];
        let count = |fib: &Fib| {
            let to_first = |n: &u32| {
                let hash = n.wrapping_mul(0x9e37_79b9);
                fib.resolve("192.0.2.1".parse().unwrap(), hash) == Hop::Adjacency(0)
            };
            (0..4000).filter(to_first).count()
        };
        let fib = Fib::build(source.clone()).unwrap();
        assert!((980..1020).contains(&count(&fib)), "{}", count(&fib));
        source.ports[1].up = false;
        assert_eq!(count(&Fib::build(source.clone()).unwrap()), 4000);
        source.ports[0].up = false;
        let fib = Fib::build(source).unwrap();
        assert!(fib.adjacencies.iter().all(|adjacency| adjacency.mtu == 0));
        assert!(matches!(resolve(&fib, "192.0.2.1"), Hop::Adjacency(_)));
    }

    #[test]
    fn an_empty_route_is_unreachable_even_under_a_default() {
        let mut source = source(&["0.0.0.0/0", "192.0.2.0/24"]);
        source.routes[1].next_hops.clear();
        assert_eq!(resolve(&Fib::build(source).unwrap(), "192.0.2.1"), Hop::NoRoute);
    }

    #[test]
    fn unknown_ids_are_refused() {
        let mut wrong = source(&["0.0.0.0/0"]);
        wrong.routes[0].next_hops[0].0 = NextHopId(9);
        assert!(matches!(Fib::build(wrong), Err(BuildError::Unknown("next hop", 9))));
        let mut wrong = source(&[]);
        wrong.neighbours[0].port = PortId(7);
        assert!(matches!(Fib::build(wrong), Err(BuildError::Unknown("port", 7))));
    }

    proptest! {
        /// Against a linear search over all prefixes.
        #[test]
        fn matches_like_a_linear_search(
            routes in prop::collection::vec((any::<u32>(), 0u8..=32), 0..40),
            near in any::<prop::sample::Index>(),
            low in any::<u32>(),
        ) {
            let prefixes: Vec<ipnet::Ipv4Net> = routes
                .iter()
                .map(|&(bits, len)| ipnet::Ipv4Net::new(bits.into(), len).unwrap().trunc())
                .collect();
            let mut source = source(&[]);
            source.routes = prefixes
                .iter()
                .enumerate()
                .map(|(n, &prefix)| RouteSpec {
                    prefix: prefix.into(),
                    next_hops: vec![(NextHopId(n as u32 % 2), 1)],
                })
                .collect();
            let address = if prefixes.is_empty() {
                low
            } else {
                near.get(&prefixes).network().to_bits() ^ (low & 0xff)
            };
            let address = std::net::Ipv4Addr::from(address);
            let expected = prefixes
                .iter()
                .enumerate()
                .filter(|(_, prefix)| prefix.contains(&address))
                .max_by_key(|(n, prefix)| (prefix.prefix_len(), std::cmp::Reverse(*n)))
                .map_or(Hop::NoRoute, |(n, _)| Hop::Adjacency(n as u32 % 2));
            let fib = Fib::build(source).unwrap();
            prop_assert_eq!(fib.resolve(address.into(), 0), expected);
        }
    }
}

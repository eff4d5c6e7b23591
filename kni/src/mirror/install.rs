//! Our routes in the kernel's main table, reconciled by difference. Pure: what the kernel has and
//! what is wanted in, operations out; [`super::task`] performs them.
//!
//! A route is ours by its protocol number alone, so what an earlier process left behind is found
//! and removed.

use super::{Link, WantedRoutes};
use crate::wire::{RawNextHop, RawRoute};
use ipnet::IpNet;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteNextHop, RouteProtocol,
    RouteScope, RouteType, RouteVia,
};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

const RTN_UNICAST: u8 = 1;

/// Who wants a route installed.
///
/// Protocol numbers 236 and 237 are free in iproute2's `rt_protos` and in FRR's and BIRD's sources.
/// The metric is the same number: unlikely to be anyone else's (a route of the same prefix and
/// metric would be in the way), configured routes win over learnt ones, and both give way to what
/// the operator adds by hand (metric 0 for IPv4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RouteSource {
    /// The configuration's static routes: protocol 236, metric 236.
    Static,
    /// Learnt by a routing protocol: protocol 237, metric 237.
    Learned,
}

impl RouteSource {
    /// `RTPROT_*` number of the routes.
    pub fn protocol(self) -> u8 {
        match self {
            Self::Static => 236,
            Self::Learned => 237,
        }
    }

    /// Metric (priority) of the routes.
    pub fn metric(self) -> u32 {
        u32::from(self.protocol())
    }

    fn of_protocol(protocol: u8) -> Option<Self> {
        [Self::Static, Self::Learned].into_iter().find(|source| source.protocol() == protocol)
    }
}

/// A next hop of a route to install. At least one of `via` and `ifindex` must be given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstalledNextHop {
    /// The gateway; an IPv6 one for an IPv4 prefix is fine (RFC 8950). `None`: on link.
    pub via: Option<IpAddr>,
    /// Needed for a link-local gateway; else the kernel finds the interface by itself.
    pub ifindex: Option<u32>,
    /// Relative share, 1 to 256; what is outside is clamped.
    pub weight: u16,
}

pub(crate) type Key = (RouteSource, IpNet);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Operation {
    Delete {
        key: Key,
        metric: u32,
    },
    /// `replace`: one of ours is there already.
    Put {
        key: Key,
        next_hops: Vec<InstalledNextHop>,
        replace: bool,
    },
}

impl Operation {
    pub(crate) fn key(&self) -> Key {
        match self {
            Self::Delete { key, .. } | Self::Put { key, .. } => *key,
        }
    }

    /// Deletions have none.
    fn next_hops(&self) -> &[InstalledNextHop] {
        match self {
            Self::Delete { .. } => &[],
            Self::Put { next_hops, .. } => next_hops,
        }
    }
}

/// What turns the kernel's main table into what is wanted. Removals come first.
///
/// A next hop by an interface of `links` that is down is left out until it is up: the kernel would
/// refuse the whole route.
pub(crate) fn plan(
    actual: &[RawRoute],
    wanted: &WantedRoutes,
    links: &BTreeMap<u32, Link>,
) -> Vec<Operation> {
    let wanted: BTreeMap<Key, Vec<InstalledNextHop>> = wanted
        .iter()
        .map(|(key, next_hops)| (*key, possible(next_hops, links)))
        .filter(|(_, next_hops)| !next_hops.is_empty())
        .collect();
    let mut operations = Vec::new();
    let mut present: BTreeMap<Key, Vec<&RawNextHop>> = BTreeMap::new();
    for route in actual {
        let Some(source) = RouteSource::of_protocol(route.protocol) else {
            continue;
        };
        let key = (source, route.prefix);
        let right = route.metric == source.metric() && route.kind == RTN_UNICAST;
        if right && wanted.contains_key(&key) {
            present.entry(key).or_default().extend(&route.next_hops);
        } else {
            operations.push(Operation::Delete { key, metric: route.metric });
        }
    }
    operations.dedup();
    for (key, next_hops) in wanted {
        let found = present.get(&key);
        if found.is_none_or(|found| !same(&next_hops, found)) {
            operations.push(Operation::Put { key, next_hops, replace: found.is_some() });
        }
    }
    operations
}

/// The next hops the kernel can take now, in normal form.
fn possible(next_hops: &[InstalledNextHop], links: &BTreeMap<u32, Link>) -> Vec<InstalledNextHop> {
    let mut possible: Vec<_> = next_hops
        .iter()
        .filter(|hop| hop.via.is_some() || hop.ifindex.is_some())
        .filter(|hop| hop.ifindex.and_then(|index| links.get(&index)).is_none_or(|link| link.up))
        .map(|hop| InstalledNextHop { weight: hop.weight.clamp(1, 256), ..*hop })
        .collect();
    possible.sort_unstable();
    possible.dedup_by_key(|hop| (hop.via, hop.ifindex));
    // The same gateway with and without an interface: the kernel would find the same for both.
    let explicit: BTreeSet<Option<IpAddr>> =
        possible.iter().filter(|hop| hop.ifindex.is_some()).map(|hop| hop.via).collect();
    possible.retain(|hop| hop.ifindex.is_some() || !explicit.contains(&hop.via));
    // The weight of a single next hop has no meaning, and the kernel does not keep it.
    if let [only] = possible.as_mut_slice() {
        only.weight = 1;
    }
    possible
}

fn same(wanted: &[InstalledNextHop], actual: &[&RawNextHop]) -> bool {
    let mut left: Vec<&RawNextHop> = actual.to_vec();
    wanted.len() == actual.len()
        && wanted.iter().all(|hop| {
            let found = left.iter().position(|other| {
                other.via == hop.via
                    && hop.ifindex.is_none_or(|index| index == other.ifindex)
                    && other.weight == hop.weight
            });
            found.map(|at| left.swap_remove(at)).is_some()
        })
}

/// The message for RTM_NEWROUTE or RTM_DELROUTE.
pub(crate) fn message(operation: &Operation) -> RouteMessage {
    let (source, prefix) = operation.key();
    let mut header = RouteHeader {
        address_family: match prefix {
            IpNet::V4(_) => AddressFamily::Inet,
            IpNet::V6(_) => AddressFamily::Inet6,
        },
        destination_prefix_length: prefix.prefix_len(),
        table: RouteHeader::RT_TABLE_MAIN,
        protocol: RouteProtocol::Other(source.protocol()),
        ..RouteHeader::default()
    };
    let mut attributes = vec![RouteAttribute::Destination(RouteAddress::from(prefix.addr()))];
    match operation {
        Operation::Delete { metric, .. } => {
            // Of any scope and type.
            header.scope = RouteScope::NoWhere;
            header.kind = RouteType::Unspec;
            attributes.push(RouteAttribute::Priority(*metric));
        }
        Operation::Put { next_hops, .. } => {
            header.kind = RouteType::Unicast;
            attributes.push(RouteAttribute::Priority(source.metric()));
            if next_hops.iter().all(|hop| hop.via.is_none()) {
                header.scope = RouteScope::Link;
            }
            match next_hops.as_slice() {
                [only] => {
                    attributes.extend(gateway(prefix, only));
                    attributes.extend(only.ifindex.map(RouteAttribute::Oif));
                }
                several => attributes.push(RouteAttribute::MultiPath(
                    several.iter().map(|hop| multipath(prefix, hop)).collect(),
                )),
            }
        }
    }
    let mut message = RouteMessage::default();
    message.header = header;
    message.attributes = attributes;
    message
}

fn multipath(prefix: IpNet, hop: &InstalledNextHop) -> RouteNextHop {
    let mut next_hop = RouteNextHop::default();
    // `rtnh_hops` is the weight less one.
    next_hop.hops = (hop.weight.clamp(1, 256) - 1) as u8;
    next_hop.interface_index = hop.ifindex.unwrap_or(0);
    next_hop.attributes = gateway(prefix, hop).into_iter().collect();
    next_hop
}

fn gateway(prefix: IpNet, hop: &InstalledNextHop) -> Option<RouteAttribute> {
    let via = hop.via?;
    Some(if via.is_ipv4() == prefix.addr().is_ipv4() {
        RouteAttribute::Gateway(RouteAddress::from(via))
    } else {
        RouteAttribute::Via(RouteVia::from(via))
    })
}

/// Remembers what was just tried, so that a route the kernel refuses, or does not keep as asked, is
/// tried again at leisure. A different wish for the same prefix does not wait.
#[derive(Debug, Default)]
pub(crate) struct Attempts {
    tried: BTreeMap<Key, Attempt>,
}

#[derive(Debug)]
struct Attempt {
    next_hops: Vec<InstalledNextHop>,
    until: Instant,
    failed: bool,
}

impl Attempts {
    const AFTER_SUCCESS: Duration = Duration::from_millis(200);
    const AFTER_FAILURE: Duration = Duration::from_secs(1);

    /// `None`: try now. Else when, and whether the last attempt failed.
    pub(crate) fn wait(&self, operation: &Operation, now: Instant) -> Option<(Instant, bool)> {
        let attempt = self.tried.get(&operation.key())?;
        (attempt.until > now && attempt.next_hops == operation.next_hops())
            .then_some((attempt.until, attempt.failed))
    }

    /// Note an attempt. Returns whether it failed for the first time, thus is worth a log line.
    pub(crate) fn note(&mut self, operation: &Operation, failed: bool, now: Instant) -> bool {
        let next_hops = operation.next_hops().to_vec();
        let delay = if failed { Self::AFTER_FAILURE } else { Self::AFTER_SUCCESS };
        let repeated = self
            .tried
            .get(&operation.key())
            .is_some_and(|last| last.failed && last.next_hops == next_hops);
        let attempt = Attempt { next_hops, until: now + delay, failed };
        self.tried.insert(operation.key(), attempt);
        failed && !repeated
    }

    /// Forget what needs no operation any more and is long past.
    pub(crate) fn forget(&mut self, operations: &[Operation], now: Instant) {
        if self.tried.is_empty() {
            return;
        }
        let pending: BTreeSet<Key> = operations.iter().map(Operation::key).collect();
        self.tried.retain(|key, attempt| attempt.until > now || pending.contains(key));
    }
}

#[cfg(test)]
mod tests;

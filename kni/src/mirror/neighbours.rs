//! Having the kernel resolve neighbours: how often, and which of those in use. Pure.

use super::view::{Entry, View, resolvable};
use super::{NeighbourKey, NeighbourState};
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState as Nud,
};
use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// One permission per neighbour and interval, for a bounded number of neighbours.
#[derive(Debug)]
pub(crate) struct Limiter {
    interval: Duration,
    capacity: usize,
    last: HashMap<NeighbourKey, Instant>,
    /// No entry can have expired before this, so a full table need not be searched again.
    next_purge: Option<Instant>,
}

impl Limiter {
    pub(crate) fn new(interval: Duration, capacity: usize) -> Self {
        Self { interval, capacity, last: HashMap::new(), next_purge: None }
    }

    /// Whether to act for this neighbour now. With the table full of recent ones: no.
    pub(crate) fn allow(&mut self, key: NeighbourKey, now: Instant) -> bool {
        if let Some(last) = self.last.get_mut(&key) {
            let due = now.saturating_duration_since(*last) >= self.interval;
            if due {
                *last = now;
            }
            return due;
        }
        if self.last.len() >= self.capacity {
            self.purge(now);
            if self.last.len() >= self.capacity {
                return false;
            }
        }
        self.last.insert(key, now);
        true
    }

    fn purge(&mut self, now: Instant) {
        if self.next_purge.is_some_and(|at| now < at) {
            return;
        }
        let interval = self.interval;
        self.last.retain(|_, last| now.saturating_duration_since(*last) < interval);
        // At most four searches of the table per interval.
        self.next_purge = Some(now + interval / 4);
    }
}

/// Which neighbours of those in use the kernel should probe now: the missing, and those that have
/// been stale for `stale_after`. The limiter is asked for each.
pub(crate) fn due(
    view: &View,
    in_use: &BTreeSet<NeighbourKey>,
    stale_after: Duration,
    limiter: &mut Limiter,
    now: Instant,
) -> Vec<NeighbourKey> {
    in_use
        .iter()
        .filter(|key| can_resolve(view, **key))
        .filter(|key| match view.neighbours.get(*key) {
            None => true,
            Some(entry) => {
                entry.neighbour.state == NeighbourState::Stale
                    && now.saturating_duration_since(entry.since) >= stale_after
            }
        })
        .filter(|key| limiter.allow(**key, now))
        .copied()
        .collect()
}

/// Whether a request to resolve can help: by an interface of ours that works, and not for a
/// neighbour that is usable and fresh. Never for a permanent one: NTF_USE makes the kernel (since
/// 5.16) forget that it is.
pub(crate) fn wants_resolving(view: &View, key: NeighbourKey) -> bool {
    let stale = |entry: &Entry| entry.neighbour.state == NeighbourState::Stale;
    can_resolve(view, key) && view.neighbours.get(&key).is_none_or(stale)
}

fn can_resolve(view: &View, (ifindex, address): NeighbourKey) -> bool {
    resolvable(address) && view.links.get(&ifindex).is_some_and(|link| link.up && link.carrier)
}

/// RTM_NEWNEIGH that makes the kernel act as if it had a packet to send to the neighbour.
pub(crate) fn use_message((ifindex, address): NeighbourKey) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    };
    message.header.ifindex = ifindex;
    message.header.state = Nud::None;
    message.header.flags = NeighbourFlags::Use;
    message.attributes.push(NeighbourAttribute::Destination(match address {
        IpAddr::V4(address) => NeighbourAddress::from(address),
        IpAddr::V6(address) => NeighbourAddress::from(address),
    }));
    message
}

#[cfg(test)]
mod tests;

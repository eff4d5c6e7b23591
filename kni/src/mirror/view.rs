//! What has been read from the kernel so far. In: decoded messages and `now`. Out: what they
//! changed, and what must be read anew. Knows no socket.
//!
//! Links, addresses and neighbours are patched from events. Routes are not; any sign that they may
//! have changed asks for a new dump of the table. Their events cannot be trusted to add up: IPv4
//! routes vanish without one when a link goes down or an address is deleted, next hops die without
//! one, IPv6 multipath routes are announced as a whole but removed hop by hop, `replace` and
//! `append` depend on the order within the kernel's list. A dump of the few routes that a node has
//! is cheap, and [`super::task`] limits its share of time if they are many.

use super::{Link, Neighbour, NeighbourKey, NeighbourState};
use crate::wire::{AddressInfo, LinkInfo, Message, NeighbourInfo, RawRoute};
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Instant;

pub(crate) const RT_TABLE_MAIN: u32 = 254;

// linux/neighbour.h
const NUD_REACHABLE: u16 = 0x02;
const NUD_STALE: u16 = 0x04;
const NUD_DELAY: u16 = 0x08;
const NUD_PROBE: u16 = 0x10;
const NUD_NOARP: u16 = 0x40;
const NUD_PERMANENT: u16 = 0x80;

/// What a message did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Effect {
    /// The next snapshot differs.
    pub changed: bool,
    /// Everything must be read anew: an interface of ours appeared, with addresses and neighbours
    /// whose events we ignored while it was not ours.
    pub resync: bool,
    /// Routes must be read anew.
    pub routes: bool,
}

impl Effect {
    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            changed: self.changed || other.changed,
            resync: self.resync || other.resync,
            routes: self.routes || other.routes,
        }
    }
}

/// A usable neighbour, and since when it is in its state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    pub neighbour: Neighbour,
    pub since: Instant,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct View {
    names: BTreeSet<String>,
    pub links: BTreeMap<u32, Link>,
    pub addresses: BTreeSet<(u32, IpNet)>,
    pub neighbours: BTreeMap<NeighbourKey, Entry>,
    /// The main table, by whatever interface: reconciling needs all of it.
    pub routes: Vec<RawRoute>,
}

impl View {
    pub(crate) fn new(names: impl IntoIterator<Item = String>) -> Self {
        Self { names: names.into_iter().collect(), ..Self::default() }
    }

    /// Follow an event.
    pub(crate) fn apply(&mut self, message: Message, now: Instant) -> Effect {
        match message {
            Message::Link(info) => self.link(info),
            Message::LinkGone { ifindex } => self.forget(ifindex),
            Message::Address(info) => self.address(info),
            Message::Neighbour(info) => self.neighbour(info, now),
            Message::Route(RawRoute { table, .. }) | Message::RouteGone { table } => {
                Effect { routes: table == RT_TABLE_MAIN, ..Effect::default() }
            }
            Message::NextHopObject => Effect { routes: true, ..Effect::default() },
            Message::Other => Effect::default(),
        }
    }

    /// Become what complete dumps say, links first. Returns whether anything changed.
    pub(crate) fn replace(&mut self, dump: Vec<Message>, now: Instant) -> bool {
        let mut next = Self::new(self.names.iter().cloned());
        let mut routes = Vec::new();
        for message in dump {
            match message {
                Message::Route(route) => routes.push(route),
                other => {
                    next.apply(other, now);
                }
            }
        }
        next.set_routes(routes);
        // A neighbour that was in this state before has been since then.
        for (key, entry) in &mut next.neighbours {
            if let Some(old) =
                self.neighbours.get(key).filter(|old| old.neighbour == entry.neighbour)
            {
                entry.since = old.since;
            }
        }
        let changed = self.links != next.links
            || self.addresses != next.addresses
            || self.routes != next.routes
            || self.neighbours.len() != next.neighbours.len()
            || self.neighbours.iter().zip(&next.neighbours).any(|((old_key, old), (key, new))| {
                old_key != key || old.neighbour.mac != new.neighbour.mac
            });
        *self = next;
        changed
    }

    /// Take a dump of routes. Returns whether anything changed.
    pub(crate) fn replace_routes(&mut self, dump: Vec<Message>) -> bool {
        let before = std::mem::take(&mut self.routes);
        self.set_routes(
            dump.into_iter()
                .filter_map(|message| match message {
                    Message::Route(route) => Some(route),
                    _ => None,
                })
                .collect(),
        );
        self.routes != before
    }

    fn set_routes(&mut self, mut routes: Vec<RawRoute>) {
        routes.retain(|route| {
            route.table == RT_TABLE_MAIN && route.flags & crate::wire::RTM_F_CLONED == 0
        });
        self.routes = routes;
    }

    fn link(&mut self, info: LinkInfo) -> Effect {
        if !self.names.contains(&info.name) {
            // Perhaps ours was renamed.
            return self.forget(info.ifindex);
        }
        let mut effect = Effect::default();
        let link = Link {
            name: info.name,
            mac: info.mac.unwrap_or_default(),
            mtu: info.mtu,
            up: info.up,
            carrier: info.carrier,
        };
        // Recreated or renamed, and the new one heard of before the end of the old one.
        let others: Vec<u32> = self
            .links
            .iter()
            .filter(|(index, other)| **index != info.ifindex && other.name == link.name)
            .map(|(index, _)| *index)
            .collect();
        for other in others {
            effect = effect.and(self.forget(other));
        }
        match self.links.insert(info.ifindex, link.clone()) {
            None => Effect { changed: true, resync: true, routes: true },
            Some(old) => {
                let routes = (old.up, old.carrier) != (link.up, link.carrier);
                effect.and(Effect { changed: old != link, resync: false, routes })
            }
        }
    }

    fn forget(&mut self, ifindex: u32) -> Effect {
        if self.links.remove(&ifindex).is_none() {
            return Effect::default();
        }
        self.addresses.retain(|(index, _)| *index != ifindex);
        self.neighbours.retain(|(index, _), _| *index != ifindex);
        Effect { changed: true, resync: false, routes: true }
    }

    fn address(&mut self, info: AddressInfo) -> Effect {
        if !self.links.contains_key(&info.ifindex) {
            return Effect::default();
        }
        let key = (info.ifindex, info.net);
        let changed = if info.gone || !info.usable {
            self.addresses.remove(&key)
        } else {
            self.addresses.insert(key)
        };
        Effect { changed, resync: false, routes: changed }
    }

    fn neighbour(&mut self, info: NeighbourInfo, now: Instant) -> Effect {
        if !self.links.contains_key(&info.ifindex) || info.address.is_multicast() {
            return Effect::default();
        }
        let key = (info.ifindex, info.address);
        let usable = info.mac.zip(state(info.state)).filter(|_| !info.gone);
        let changed = match usable {
            None => self.neighbours.remove(&key).is_some(),
            Some((mac, state)) => {
                let neighbour = Neighbour { mac, state };
                let old = self.neighbours.get(&key).copied();
                let since =
                    old.filter(|old| old.neighbour == neighbour).map_or(now, |old| old.since);
                self.neighbours.insert(key, Entry { neighbour, since });
                old.is_none_or(|old| old.neighbour.mac != mac)
            }
        };
        Effect { changed, ..Effect::default() }
    }
}

/// The usable states; `None` for the others.
fn state(bits: u16) -> Option<NeighbourState> {
    Some(match bits {
        NUD_REACHABLE => NeighbourState::Reachable,
        NUD_STALE => NeighbourState::Stale,
        NUD_DELAY => NeighbourState::Delay,
        NUD_PROBE => NeighbourState::Probe,
        NUD_NOARP => NeighbourState::NoArp,
        NUD_PERMANENT => NeighbourState::Permanent,
        _ => return None,
    })
}

/// Whether asking the kernel to resolve this address can make sense.
pub(crate) fn resolvable(address: IpAddr) -> bool {
    !address.is_multicast() && !address.is_unspecified() && !address.is_loopback()
}

#[cfg(test)]
mod tests;

//! One OSPF router in one area: interfaces, neighbours, database and the LSAs it originates.
//!
//! Sans-IO. In: what the links are ([`Instance::set_link`]), what to announce
//! ([`Instance::set_wanted`]), packets, timeouts. Out: packets ([`Instance::poll_transmit`]) and
//! changes ([`Instance::poll_event`]). After every call that takes `now`, drain both, then wait
//! until [`Instance::next_timeout`].
//!
//! It must never carry transit, never accept more than the area may hold, and never answer a packet
//! that failed authentication.

use super::auth::AuthError;
use super::config::{AreaKind, Config, InterfaceConfig, NetworkKind};
use super::lsa::LsaKey;
use super::lsdb::{DbKey, Lsdb};
use super::neighbor::{self, State as NeighborState};
use super::packet::{self, Body, Header, Packet, ParseError};
use super::{Instant, Version};
use crate::{OspfAttributes, Wanted};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use parts::{Core, Interface};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

mod adjacency;
mod exchange;
mod flooding;
mod grace;
mod hello;
mod originate;
pub(super) mod parts;
mod v2;
mod v3;

pub use parts::{Counters, Event, Transmit};

/// More neighbours than a network segment of a data centre has.
const MAX_NEIGHBORS: usize = 256;

/// 224.0.0.5
pub const ALL_SPF_ROUTERS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 5);
/// 224.0.0.6
pub const ALL_D_ROUTERS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 6);
/// ff02::5
pub const ALL_SPF_ROUTERS_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 5);
/// ff02::6
pub const ALL_D_ROUTERS_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 6);

/// What the operating system says about an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    pub index: u32,
    /// Administratively up, with carrier.
    pub up: bool,
    pub mtu: u32,
    /// The primary IPv4 address. OSPFv2 does not run without one.
    pub v4: Option<Ipv4Net>,
    /// OSPFv3 does not run without one.
    pub link_local: Option<Ipv6Addr>,
    /// Global and unique local addresses.
    pub v6: Vec<Ipv6Net>,
}

/// Why a packet was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DropReason {
    #[error("OSPF does not run on this interface")]
    Interface,
    #[error("our own packet")]
    Own,
    #[error("sent to a group that this router has not joined")]
    Destination,
    #[error("source address is not on the link")]
    Source,
    #[error("other area")]
    Area,
    #[error("other OSPFv3 instance ID")]
    InstanceId,
    #[error("another router uses our router ID")]
    DuplicateRouterId,
    #[error("Hello parameters differ: {0}")]
    Hello(HelloMismatch),
    #[error("not from a neighbour, or too early for one")]
    Neighbor,
    #[error("MTU of the neighbour is larger")]
    Mtu,
    #[error(transparent)]
    Malformed(#[from] ParseError),
    #[error(transparent)]
    Auth(#[from] AuthError),
}

/// The parameter of a Hello that must be the same on a link (RFC 2328 §10.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HelloMismatch {
    #[error("network mask")]
    Mask,
    #[error("hello interval")]
    HelloInterval,
    #[error("dead interval")]
    DeadInterval,
    #[error("area type (stub or NSSA)")]
    AreaType,
}

/// One router in one area. See the module for the order of calls.
#[derive(Debug)]
pub struct Instance {
    core: Core,
    configs: BTreeMap<String, InterfaceConfig>,
    links: BTreeMap<String, Link>,
    interfaces: BTreeMap<u32, Interface>,
    db: Lsdb,
    /// LSAs at MaxAge that wait for their acknowledgments.
    flushing: BTreeSet<DbKey>,
    wanted: BTreeMap<IpNet, OspfAttributes>,
    originated: originate::Originated,
    stopping: bool,
}

impl Instance {
    /// A router without interfaces: [`Self::set_link`] brings them. `unix_seconds` is the wall
    /// clock at time zero: cryptographic sequence numbers must not go back over a restart.
    pub fn new(config: &Config, seed: u64, unix_seconds: u64) -> Self {
        let configs = config.interfaces.iter().map(|c| (c.name.clone(), c.clone())).collect();
        Self {
            core: Core::new(config, seed, unix_seconds),
            configs,
            links: BTreeMap::new(),
            interfaces: BTreeMap::new(),
            db: Lsdb::default(),
            flushing: BTreeSet::new(),
            wanted: BTreeMap::new(),
            originated: originate::Originated::default(),
            stopping: false,
        }
    }

    /// Replaces the interfaces by difference: a change of cost is only announced, any other change
    /// restarts that interface.
    pub fn set_interfaces(&mut self, wanted: &[InterfaceConfig], now: Instant) {
        self.core.now = now;
        let wanted: BTreeMap<String, InterfaceConfig> =
            wanted.iter().map(|c| (c.name.clone(), c.clone())).collect();
        let old = std::mem::replace(&mut self.configs, wanted);
        let names: BTreeSet<String> = old.keys().chain(self.configs.keys()).cloned().collect();
        for name in names {
            let (before, after) = (old.get(&name), self.configs.get(&name));
            if before == after {
                continue;
            }
            let index = self.links.get(&name).map(|link| link.index);
            let cost_only = before.zip(after).is_some_and(|(before, after)| {
                *before == InterfaceConfig { cost: before.cost, ..after.clone() }
            });
            if cost_only {
                let interface = index.and_then(|index| self.interfaces.get_mut(&index));
                if let Some((interface, after)) = interface.zip(after) {
                    interface.config = after.clone();
                    self.originated.dirty = true;
                }
            } else {
                self.restart_interface(&name);
            }
        }
        self.finish();
    }

    /// Tells what an interface is now; `None`: it is gone. Names without configuration are kept in
    /// mind, in case it comes.
    pub fn set_link(&mut self, name: &str, link: Option<Link>, now: Instant) {
        self.core.now = now;
        let old = self.links.get(name);
        if old == link.as_ref() {
            return;
        }
        let prefixes_only = old
            .zip(link.as_ref())
            .is_some_and(|(old, new)| *old == Link { v6: old.v6.clone(), ..new.clone() });
        let old_index = old.map(|link| link.index);
        if prefixes_only {
            let interface = old_index.and_then(|index| self.interfaces.get_mut(&index));
            if let (Some(interface), Some(link)) = (interface, &link) {
                interface.link = link.clone();
                self.originated.dirty = true;
            }
        } else if let Some(index) = old_index {
            self.interface_down(index);
        }
        match link {
            Some(link) => self.links.insert(name.to_owned(), link),
            None => self.links.remove(name),
        };
        if !prefixes_only {
            self.restart_interface(name);
        }
        self.finish();
    }

    /// Replaces what is announced. Prefixes of the other address family, and those without OSPF
    /// attributes, are ignored.
    pub fn set_wanted(&mut self, wanted: &Wanted, now: Instant) {
        self.core.now = now;
        let v4 = self.core.version == Version::V2;
        let ours = wanted.iter().filter(|(prefix, _)| prefix.addr().is_ipv4() == v4);
        let ours: BTreeMap<_, _> =
            ours.filter_map(|(prefix, a)| Some((*prefix, a.ospf.clone()?))).collect();
        if ours != self.wanted {
            self.wanted = ours;
            self.originated.dirty = true;
        }
        self.finish();
    }

    /// Takes an OSPF packet (without IP header) that arrived on the interface with this index.
    pub fn handle_packet(
        &mut self,
        index: u32,
        source: IpAddr,
        destination: IpAddr,
        bytes: &[u8],
        now: Instant,
    ) -> Result<(), DropReason> {
        self.core.now = now;
        let result = self.receive(index, source, destination, bytes);
        self.core.counters.count(&result);
        if let Some(interface) = self.interfaces.get_mut(&index) {
            interface.counters.count(&result);
        }
        self.finish();
        result
    }

    /// Lets time pass.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.core.now = now;
        let indexes: Vec<u32> = self.interfaces.keys().copied().collect();
        for index in indexes {
            self.interface_timers(index);
        }
        while let Some(key) = self.db.pop_due(now) {
            self.lsa_due(key);
        }
        if self.originated.retry_at.is_some_and(|at| at <= now) {
            self.originated.dirty = true;
        }
        self.finish();
    }

    /// The path to a neighbour failed (BFD): it is dropped at once.
    pub fn handle_path_failure(&mut self, neighbor: IpAddr, now: Instant) {
        self.core.now = now;
        let found: Vec<(u32, u32)> = self
            .interfaces
            .iter()
            .flat_map(|(index, i)| i.neighbors.values().map(move |n| (*index, n)))
            .filter(|(_, n)| n.address == neighbor)
            .map(|(index, n)| (index, n.router_id))
            .collect();
        for (index, id) in found {
            self.neighbor_event(index, id, neighbor::Event::KillNbr);
        }
        self.finish();
    }

    /// Withdraws everything: flushes this router's LSAs. The caller goes on until
    /// [`Self::is_withdrawn`] or its patience ends, then calls [`Self::part`].
    pub fn shutdown(&mut self, now: Instant) {
        self.core.now = now;
        self.stopping = true;
        self.originated.dirty = true;
        self.finish();
    }

    /// Whether every neighbour has acknowledged the flushing of this router's LSAs.
    pub fn is_withdrawn(&self) -> bool {
        let own = self.core.router_id;
        self.stopping && !self.db.iter().any(|(key, _)| key.lsa.router == own)
    }

    /// Says goodbye: a last Hello that names no neighbour takes every adjacency down at once.
    pub fn part(&mut self, now: Instant) {
        self.core.now = now;
        let indexes: Vec<u32> = self.interfaces.keys().copied().collect();
        for index in indexes {
            if let Some(interface) = self.interfaces.get(&index) {
                let mut hello = self.core.hello(interface);
                hello.neighbors.clear();
                self.core.send_group(interface, Body::Hello(hello));
            }
            self.interface_down(index);
        }
    }

    /// The next packet to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        let transmit = self.core.out.pop_front()?;
        if let Some(interface) = self.interfaces.get_mut(&transmit.interface) {
            interface.counters.sent += 1;
        }
        Some(transmit)
    }

    /// The next change.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.core.events.pop_front()
    }

    /// When [`Self::handle_timeout`] is due.
    pub fn next_timeout(&self) -> Option<Instant> {
        let interfaces = self.interfaces.values().filter_map(Interface::next_timeout);
        interfaces.chain(self.db.next_due()).chain(self.originated.retry_at).min()
    }

    /// Addresses of neighbours in state 2-Way or beyond with their interface: whom to watch by BFD.
    pub fn bidirectional(&self) -> impl Iterator<Item = (&str, IpAddr)> {
        self.interfaces.values().flat_map(|interface| {
            let alive = |n: &&parts::Neighbor| n.state >= NeighborState::TwoWay;
            let neighbors = interface.neighbors.values().filter(alive);
            neighbors.map(|n| (interface.config.name.as_str(), n.address))
        })
    }

    /// Whether the group of all designated routers must be listened to on this interface.
    pub fn is_designated(&self, index: u32) -> bool {
        self.interfaces.get(&index).is_some_and(Interface::is_designated)
    }

    pub(super) fn core(&self) -> &Core {
        &self.core
    }

    pub(super) fn interfaces(&self) -> impl Iterator<Item = (&u32, &Interface)> {
        self.interfaces.iter()
    }

    pub(super) fn configs(&self) -> impl Iterator<Item = &InterfaceConfig> {
        self.configs.values()
    }

    /// Prefixes that cannot be announced, and why.
    pub fn refused(&self) -> impl Iterator<Item = (&IpNet, &str)> {
        self.originated.refused.iter().map(|(prefix, why)| (prefix, *why))
    }

    /// The link state database, for display and tests.
    pub fn database(&self) -> &Lsdb {
        &self.db
    }

    /// RFC 2328 §8.2, in its order as far as a single area goes.
    fn receive(
        &mut self,
        index: u32,
        source: IpAddr,
        destination: IpAddr,
        bytes: &[u8],
    ) -> Result<(), DropReason> {
        let version = self.core.version;
        let interface = self.interfaces.get(&index).ok_or(DropReason::Interface)?;
        if interface.config.passive {
            return Err(DropReason::Interface);
        }
        if interface.own_address(version) == Some(source) {
            return Err(DropReason::Own);
        }
        let to_designated =
            destination == ALL_D_ROUTERS || destination == IpAddr::V6(ALL_D_ROUTERS_V6);
        if to_designated && !interface.is_designated() {
            return Err(DropReason::Destination);
        }
        let broadcast = interface.config.network == NetworkKind::Broadcast;
        if let (IpAddr::V4(source), Some(own)) = (source, interface.link.v4)
            && broadcast
            && !own.contains(&source)
        {
            return Err(DropReason::Source);
        }
        let (proper, after) = packet::split(version, bytes)?;
        let ends = (parts::v6(source), parts::v6(destination));
        let verified = interface.config.auth.verify(version, proper, after, ends)?;
        let Packet { header, body } = Packet::parse(version, proper)?;
        self.check_header(interface, &header)?;
        let neighbor = interface.neighbors.get(&header.router_id);
        if let (Some(neighbor), Some(sequence)) = (neighbor, verified.sequence) {
            // RFC 2328 §D.3 (4); RFC 7166 §4.1 asks for strictly rising numbers per packet type.
            let last = neighbor.auth_sequence[body.packet_type() as usize];
            let old = match version {
                Version::V2 => sequence < neighbor.auth_sequence.iter().copied().fold(0, u64::max),
                Version::V3 => last != 0 && sequence <= last,
            };
            if old {
                return Err(AuthError::Sequence.into());
            }
        }
        let (id, kind) = (header.router_id, body.packet_type());
        let result = match body {
            Body::Hello(hello) => self.handle_hello(index, source, id, &hello),
            Body::DatabaseDescription(dd) => self.handle_dd(index, id, dd),
            Body::Request(keys) => self.handle_request(index, id, &keys),
            Body::Update(lsas) => self.handle_update(index, id, lsas),
            Body::Ack(headers) => self.handle_ack(index, id, &headers),
        };
        if let (Some(sequence), Some(neighbor)) = (verified.sequence, self.neighbor_mut(index, id))
        {
            neighbor.auth_sequence[kind as usize] = sequence;
        }
        result
    }

    fn check_header(&self, interface: &Interface, header: &Header) -> Result<(), DropReason> {
        if header.area_id != self.core.area_id {
            return Err(DropReason::Area);
        }
        if self.core.version == Version::V3 && header.instance_id != interface.config.instance_id {
            return Err(DropReason::InstanceId);
        }
        if header.router_id == self.core.router_id || header.router_id == 0 {
            return Err(DropReason::DuplicateRouterId);
        }
        Ok(())
    }

    /// Whatever a call has led to is brought into the outbox.
    fn finish(&mut self) {
        if std::mem::take(&mut self.originated.dirty) {
            self.reconcile();
        }
        self.sweep();
        // What the sweep removed may be originated anew: sequence numbers start over (§12.1.6).
        if std::mem::take(&mut self.originated.dirty) {
            self.reconcile();
        }
        self.send_floods();
    }

    fn restart_interface(&mut self, name: &str) {
        if let Some(link) = self.links.get(name) {
            self.interface_down(link.index);
        }
        self.interface_up(name);
    }

    fn neighbor_mut(&mut self, index: u32, id: u32) -> Option<&mut parts::Neighbor> {
        self.interfaces.get_mut(&index)?.neighbors.get_mut(&id)
    }

    /// Where an LSA of this key belongs when it is heard on an interface.
    fn db_key(&self, lsa: LsaKey, index: u32) -> DbKey {
        let link = match super::lsa::scope(self.core.version, lsa.kind) {
            Some(super::lsa::Scope::Link) => index,
            _ => 0,
        };
        DbKey { link, lsa }
    }

    /// Whether the area takes LSAs of this type.
    fn is_acceptable(&self, kind: u16) -> bool {
        use super::lsa::{is_external, is_nssa, scope};
        let version = self.core.version;
        let area = self.core.area_kind;
        scope(version, kind).is_some()
            && (area == AreaKind::Normal || !is_external(version, kind))
            && (area == AreaKind::Nssa || !is_nssa(version, kind))
    }
}

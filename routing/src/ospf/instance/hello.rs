//! Interfaces coming and going, Hello packets, the designated router.

use super::parts::{Event, Interface, Neighbor};
use super::{DropReason, HelloMismatch, Instance, MAX_NEIGHBORS};
use crate::ospf::Version;
use crate::ospf::config::NetworkKind;
use crate::ospf::interface::{self, Candidate, Next, State};
use crate::ospf::neighbor::{self, State as NeighborState};
use crate::ospf::packet::{Body, Hello, options};
use std::net::IpAddr;
use std::time::Duration;

impl Instance {
    /// Starts OSPF on an interface if configuration, link and address allow.
    pub(super) fn interface_up(&mut self, name: &str) {
        let (Some(config), Some(link)) = (self.configs.get(name), self.links.get(name)) else {
            return;
        };
        let addressed = match self.core.version {
            Version::V2 => link.v4.is_some(),
            Version::V3 => link.link_local.is_some(),
        };
        if self.stopping || !link.up || !addressed {
            return;
        }
        let (index, priority) = (link.index, config.priority);
        let interface = Interface::new(config.clone(), link.clone());
        let network = interface.config.network;
        self.interfaces.insert(index, interface);
        if let Next::Go(state) =
            interface::next(State::Down, interface::Event::InterfaceUp, network, priority)
        {
            self.enter(index, state);
        }
        let now = self.core.now;
        if let Some(interface) = self.interfaces.get_mut(&index) {
            if !interface.config.passive {
                interface.hello_at = Some(now);
            }
            if interface.state == State::Waiting {
                // §9.2: the wait timer is RouterDeadInterval.
                let dead = Duration::from_secs(interface.config.dead_interval.into());
                interface.wait_until = Some(now + dead);
            }
        }
        self.interface_timers(index);
    }

    /// InterfaceDown: the neighbours go, the link-scoped LSAs go.
    pub(super) fn interface_down(&mut self, index: u32) {
        let Some(interface) = self.interfaces.get(&index) else { return };
        let ids: Vec<u32> = interface.neighbors.keys().copied().collect();
        for id in ids {
            self.neighbor_event(index, id, neighbor::Event::KillNbr);
        }
        self.enter(index, State::Down);
        self.interfaces.remove(&index);
        let gone: Vec<_> =
            self.db.iter().map(|(key, _)| *key).filter(|key| key.link == index).collect();
        for key in gone {
            self.db.remove(&key);
            self.flushing.remove(&key);
        }
    }

    /// Runs the timers of an interface and of its neighbours that are due.
    pub(super) fn interface_timers(&mut self, index: u32) {
        let now = self.core.now;
        let Some(interface) = self.interfaces.get_mut(&index) else { return };
        let due = |at: Option<_>| at.is_some_and(|at| at <= now);
        if due(interface.hello_at) {
            let interval = Duration::from_secs(interface.config.hello_interval.into());
            interface.hello_at = Some(now + interval);
            let hello = self.core.hello(interface);
            self.core.send_group(interface, Body::Hello(hello));
        }
        if due(interface.ack_at) {
            self.send_delayed_acks(index);
        }
        let Some(interface) = self.interfaces.get_mut(&index) else { return };
        if due(interface.wait_until) {
            interface.wait_until = None;
            self.interface_event(index, interface::Event::WaitTimer);
        }
        let Some(interface) = self.interfaces.get(&index) else { return };
        let ids: Vec<u32> = interface.neighbors.keys().copied().collect();
        for id in ids {
            self.neighbor_timers(index, id);
        }
    }

    pub(super) fn interface_event(&mut self, index: u32, event: interface::Event) {
        let Some(interface) = self.interfaces.get(&index) else { return };
        let config = &interface.config;
        let helping = interface.neighbors.values().any(|n| n.helping_until.is_some());
        if event == interface::Event::NeighborChange && helping {
            // RFC 3623 §3.1: a designated router that restarts stays designated.
            return;
        }
        match interface::next(interface.state, event, config.network, config.priority) {
            Next::Stay => {}
            Next::Go(state) => self.enter(index, state),
            Next::Elect => self.elect(index),
            Next::Reset(_) => self.interface_down(index),
        }
    }

    /// RFC 2328 §10.5.
    pub(super) fn handle_hello(
        &mut self,
        index: u32,
        source: IpAddr,
        id: u32,
        hello: &Hello,
    ) -> Result<(), DropReason> {
        let own_id = self.core.router_id;
        let now = self.core.now;
        let area_options = self.core.area_kind.options();
        let version = self.core.version;
        let interface = self.interfaces.get_mut(&index).ok_or(DropReason::Interface)?;
        check(interface, version, hello, area_options).map_err(DropReason::Hello)?;
        let dead = Duration::from_secs(interface.config.dead_interval.into());
        let is_new = !interface.neighbors.contains_key(&id);
        if is_new && interface.neighbors.len() >= MAX_NEIGHBORS {
            return Err(DropReason::Neighbor);
        }
        let neighbor =
            interface.neighbors.entry(id).or_insert_with(|| Neighbor::new(id, source, now, dead));
        neighbor.inactive_at = now + dead;
        neighbor.interface_id = hello.interface_id;
        if neighbor.state < NeighborState::ExStart {
            neighbor.options = hello.options;
        }
        neighbor.address = source;
        let name = neighbor.name();
        let before = (neighbor.priority, neighbor.designated, neighbor.backup);
        (neighbor.priority, neighbor.designated, neighbor.backup) =
            (hello.priority, hello.designated, hello.backup);
        let after = (hello.priority, hello.designated, hello.backup);
        self.neighbor_event(index, id, neighbor::Event::HelloReceived);
        if is_new {
            // Heard for the first time: answer now rather than at the next interval.
            if let Some(interface) = self.interfaces.get_mut(&index) {
                interface.hello_at = Some(now);
            }
            self.interface_timers(index);
        }
        if !hello.neighbors.contains(&own_id) {
            self.neighbor_event(index, id, neighbor::Event::OneWay);
            return Ok(());
        }
        let was_bidirectional =
            self.neighbor_mut(index, id).is_some_and(|n| n.state >= NeighborState::TwoWay);
        self.neighbor_event(index, id, neighbor::Event::TwoWayReceived);
        let claims = |designated: u32, backup: u32| (designated == name, backup == name);
        let Some(interface) = self.interfaces.get(&index) else { return Ok(()) };
        if interface.state == State::Waiting {
            let (designated, backup) = claims(hello.designated, hello.backup);
            if backup || (designated && hello.backup == 0) {
                self.interface_event(index, interface::Event::BackupSeen);
            }
        } else if was_bidirectional
            && (before.0 != after.0 || claims(before.1, before.2) != claims(after.1, after.2))
        {
            self.interface_event(index, interface::Event::NeighborChange);
        }
        Ok(())
    }

    /// Enters a state and tells.
    pub(super) fn enter(&mut self, index: u32, state: State) {
        let Some(interface) = self.interfaces.get_mut(&index) else { return };
        let old = std::mem::replace(&mut interface.state, state);
        if old != state {
            let interface = interface.config.name.clone();
            self.core.events.push_back(Event::Interface { interface, old, new: state });
            self.originated.dirty = true;
        }
    }

    /// §9.4, and what follows a change of the designated router.
    fn elect(&mut self, index: u32) {
        let router_id = self.core.router_id;
        let version = self.core.version;
        let Some(interface) = self.interfaces.get_mut(&index) else { return };
        let name = match version {
            Version::V2 => interface.link.v4.map_or(0, |net| net.addr().into()),
            Version::V3 => router_id,
        };
        let own = Candidate {
            router_id,
            name,
            priority: interface.config.priority,
            designated: interface.designated,
            backup: interface.backup,
        };
        let neighbors: Vec<Candidate> = interface
            .neighbors
            .values()
            .filter(|n| n.state >= NeighborState::TwoWay)
            .map(|n| Candidate {
                router_id: n.router_id,
                name: n.name(),
                priority: n.priority,
                designated: n.designated,
                backup: n.backup,
            })
            .collect();
        let (designated, backup) = interface::elect(own, &neighbors);
        let state = if designated == name {
            State::Dr
        } else if backup == name {
            State::Backup
        } else {
            State::DrOther
        };
        interface.wait_until = None;
        let changed = (interface.designated, interface.backup) != (designated, backup);
        (interface.designated, interface.backup) = (designated, backup);
        self.enter(index, state);
        if changed {
            self.originated.dirty = true;
            let ids: Vec<u32> = self
                .interfaces
                .get(&index)
                .map_or_else(Vec::new, |i| i.neighbors.keys().copied().collect());
            for id in ids {
                self.neighbor_event(index, id, neighbor::Event::AdjOk);
            }
        }
    }
}

/// What must be the same on both ends of a link.
fn check(
    interface: &Interface,
    version: Version,
    hello: &Hello,
    area_options: u32,
) -> Result<(), HelloMismatch> {
    let config = &interface.config;
    let mask = interface.link.v4.map_or(0, |net| u32::from(net.netmask()));
    if version == Version::V2 && config.network == NetworkKind::Broadcast && hello.mask != mask {
        return Err(HelloMismatch::Mask);
    }
    if hello.hello_interval != config.hello_interval {
        return Err(HelloMismatch::HelloInterval);
    }
    let dead = match version {
        Version::V2 => config.dead_interval,
        Version::V3 => config.dead_interval & 0xffff,
    };
    if hello.dead_interval != dead {
        return Err(HelloMismatch::DeadInterval);
    }
    if hello.options & (options::E | options::N) != area_options {
        return Err(HelloMismatch::AreaType);
    }
    Ok(())
}

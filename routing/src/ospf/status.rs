//! What an operator sees of OSPF: plain data for the API and the command line. Times in
//! milliseconds or seconds as named.

use super::config::{AreaKind, NetworkKind};
use super::instance::parts::Interface;
use super::instance::{Counters, Instance};
use super::{Instant, Version, interface, neighbor};
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr};

/// One router in one area.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceStatus {
    pub version: Version,
    pub router_id: Ipv4Addr,
    pub area: Ipv4Addr,
    pub area_kind: AreaKind,
    pub interfaces: Vec<InterfaceStatus>,
    pub database: Vec<LsaStatus>,
    pub counters: Counters,
    /// Prefixes that cannot be announced, and why.
    pub refused: Vec<(String, String)>,
}

/// One configured interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceStatus {
    pub name: String,
    pub network: NetworkKind,
    pub state: interface::State,
    pub cost: u16,
    /// Interface address (OSPFv2) or router ID (OSPFv3); 0.0.0.0: none.
    pub designated: Ipv4Addr,
    pub backup: Ipv4Addr,
    pub neighbors: Vec<NeighborStatus>,
    pub counters: Counters,
}

/// One neighbour.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NeighborStatus {
    pub router_id: Ipv4Addr,
    pub address: IpAddr,
    pub state: neighbor::State,
    pub priority: u8,
    pub designated: Ipv4Addr,
    pub backup: Ipv4Addr,
    /// Since the last change of state.
    pub since_ms: u64,
    /// Until the neighbour counts as dead, if it stays silent.
    pub dead_in_ms: u64,
    /// LSAs it has not acknowledged.
    pub unacknowledged: usize,
    /// LSAs it still owes us.
    pub requested: usize,
}

/// One LSA.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LsaStatus {
    pub kind: u16,
    pub id: Ipv4Addr,
    pub advertising_router: Ipv4Addr,
    pub sequence: u32,
    pub checksum: u16,
    pub age_seconds: u16,
    pub length: u16,
}

impl Instance {
    /// The whole of it.
    pub fn status(&self, now: Instant) -> InstanceStatus {
        let core = self.core();
        let running = |name: &str| self.interfaces().find(|(_, i)| i.config.name == name);
        let interfaces = self.configs().map(|config| match running(&config.name) {
            Some((_, interface)) => describe(interface, now),
            None => InterfaceStatus {
                name: config.name.clone(),
                network: config.network,
                state: interface::State::Down,
                cost: config.cost,
                designated: Ipv4Addr::UNSPECIFIED,
                backup: Ipv4Addr::UNSPECIFIED,
                neighbors: Vec::new(),
                counters: Counters::default(),
            },
        });
        let database = self.database().iter().map(|(_, entry)| {
            let header = entry.header(now);
            LsaStatus {
                kind: header.key.kind,
                id: header.key.id.into(),
                advertising_router: header.key.router.into(),
                sequence: header.sequence as u32,
                checksum: header.checksum,
                age_seconds: header.age,
                length: header.length,
            }
        });
        InstanceStatus {
            version: core.version,
            router_id: core.router_id.into(),
            area: core.area_id.into(),
            area_kind: core.area_kind,
            interfaces: interfaces.collect(),
            database: database.collect(),
            counters: core.counters,
            refused: self.refused().map(|(net, why)| (net.to_string(), why.to_owned())).collect(),
        }
    }
}

fn describe(interface: &Interface, now: Instant) -> InterfaceStatus {
    let neighbors = interface.neighbors.values().map(|neighbor| NeighborStatus {
        router_id: neighbor.router_id.into(),
        address: neighbor.address,
        state: neighbor.state,
        priority: neighbor.priority,
        designated: neighbor.designated.into(),
        backup: neighbor.backup.into(),
        since_ms: now.saturating_sub(neighbor.since).as_millis() as u64,
        dead_in_ms: neighbor.inactive_at.saturating_sub(now).as_millis() as u64,
        unacknowledged: neighbor.retransmit.len(),
        requested: neighbor.requests.len(),
    });
    InterfaceStatus {
        name: interface.config.name.clone(),
        network: interface.config.network,
        state: interface.state,
        cost: interface.config.cost,
        designated: interface.designated.into(),
        backup: interface.backup.into(),
        neighbors: neighbors.collect(),
        counters: interface.counters,
    }
}

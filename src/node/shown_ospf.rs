//! OSPF's status as the API shows it.

use crate::api::model::{
    OspfInfo, OspfInterfaceInfo, OspfInterfaceState, OspfLsaCount, OspfNeighborInfo,
    OspfNeighborState, OspfPackets, RefusedPrefix,
};
use routing::ospf::instance::Counters;
use routing::ospf::lsa::{v2, v3};
use routing::ospf::{
    AreaKind, InstanceStatus, InterfaceStatus, NeighborStatus, NetworkKind, Version, interface,
    neighbor,
};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// One version.
pub fn ospf(status: &InstanceStatus) -> OspfInfo {
    let mut lsas: BTreeMap<u16, (u64, u64)> = BTreeMap::new();
    for lsa in &status.database {
        let (count, own) = lsas.entry(lsa.kind).or_default();
        *count += 1;
        *own += u64::from(lsa.advertising_router == status.router_id);
    }
    let version = status.version as u8;
    let neighbors = status.interfaces.iter().flat_map(|interface| {
        interface.neighbors.iter().map(|n| neighbor_info(version, &interface.name, n))
    });
    OspfInfo {
        version,
        router_id: status.router_id,
        area: status.area,
        area_type: match status.area_kind {
            AreaKind::Normal => "normal",
            AreaKind::Stub => "stub",
            AreaKind::Nssa => "nssa",
        }
        .to_owned(),
        interfaces: status.interfaces.iter().map(interface_info).collect(),
        neighbors: neighbors.collect(),
        database: lsas
            .into_iter()
            .map(|(kind, (count, own))| OspfLsaCount {
                kind: lsa_kind(status.version, kind),
                count,
                own,
            })
            .collect(),
        packets: packets(&status.counters),
        packets_sent: status.counters.sent,
        refused: status
            .refused
            .iter()
            .map(|(prefix, reason)| RefusedPrefix {
                prefix: prefix.clone(),
                reason: reason.clone(),
            })
            .collect(),
    }
}

fn interface_info(interface: &InterfaceStatus) -> OspfInterfaceInfo {
    OspfInterfaceInfo {
        name: interface.name.clone(),
        network: match interface.network {
            NetworkKind::PointToPoint => "point-to-point",
            NetworkKind::Broadcast => "broadcast",
        }
        .to_owned(),
        state: match interface.state {
            interface::State::Down => OspfInterfaceState::Down,
            interface::State::Loopback => OspfInterfaceState::Loopback,
            interface::State::Waiting => OspfInterfaceState::Waiting,
            interface::State::PointToPoint => OspfInterfaceState::PointToPoint,
            interface::State::DrOther => OspfInterfaceState::DrOther,
            interface::State::Backup => OspfInterfaceState::Backup,
            interface::State::Dr => OspfInterfaceState::Dr,
        },
        cost: interface.cost,
        designated: known(interface.designated),
        backup: known(interface.backup),
        packets: packets(&interface.counters),
        packets_sent: interface.counters.sent,
    }
}

fn neighbor_info(version: u8, interface: &str, neighbor: &NeighborStatus) -> OspfNeighborInfo {
    OspfNeighborInfo {
        version,
        interface: interface.to_owned(),
        router_id: neighbor.router_id,
        address: neighbor.address,
        state: neighbor_state(neighbor.state),
        state_age_s: neighbor.since_ms / 1000,
        priority: neighbor.priority,
        dead_in_ms: neighbor.dead_in_ms,
        unacknowledged: neighbor.unacknowledged as u64,
        requested: neighbor.requested as u64,
        designated: known(neighbor.designated),
        backup: known(neighbor.backup),
    }
}

/// The state in the API's words.
pub fn neighbor_state(state: neighbor::State) -> OspfNeighborState {
    match state {
        neighbor::State::Down => OspfNeighborState::Down,
        neighbor::State::Attempt => OspfNeighborState::Attempt,
        neighbor::State::Init => OspfNeighborState::Init,
        neighbor::State::TwoWay => OspfNeighborState::TwoWay,
        neighbor::State::ExStart => OspfNeighborState::ExStart,
        neighbor::State::Exchange => OspfNeighborState::Exchange,
        neighbor::State::Loading => OspfNeighborState::Loading,
        neighbor::State::Full => OspfNeighborState::Full,
    }
}

fn known(router: Ipv4Addr) -> Option<Ipv4Addr> {
    (!router.is_unspecified()).then_some(router)
}

fn packets(counters: &Counters) -> OspfPackets {
    OspfPackets {
        received: counters.received,
        dropped_auth: counters.dropped_auth,
        dropped_malformed: counters.dropped_malformed,
        dropped_hello_mismatch: counters.dropped_hello_mismatch,
        dropped_area: counters.dropped_area,
        dropped_duplicate_router_id: counters.dropped_duplicate_router_id,
        dropped_mtu: counters.dropped_mtu,
        dropped_other: counters.dropped_other,
    }
}

fn lsa_kind(version: Version, kind: u16) -> String {
    let name = match (version, kind) {
        (Version::V2, v2::ROUTER) | (Version::V3, v3::ROUTER) => "router",
        (Version::V2, v2::NETWORK) | (Version::V3, v3::NETWORK) => "network",
        (Version::V2, 3) | (Version::V3, 0x2003) => "inter-area-prefix",
        (Version::V2, 4) | (Version::V3, 0x2004) => "inter-area-router",
        (Version::V2, v2::EXTERNAL) | (Version::V3, v3::EXTERNAL) => "external",
        (Version::V2, v2::NSSA) | (Version::V3, v3::NSSA) => "nssa",
        (Version::V3, v3::LINK) => "link",
        (Version::V3, v3::INTRA_AREA_PREFIX) => "intra-area-prefix",
        (Version::V2, v2::OPAQUE_LINK..=v2::OPAQUE_AS) => "opaque",
        (_, other) => return format!("0x{other:04x}"),
    };
    name.to_owned()
}

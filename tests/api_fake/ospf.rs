//! The fixed data of the fake node's OSPF.

use super::data::ip;
use dunlin::api::model::{
    OspfInfo, OspfInterfaceInfo, OspfInterfaceState, OspfLsaCount, OspfNeighborInfo,
    OspfNeighborState, OspfPackets, RefusedPrefix,
};
use std::net::Ipv4Addr;

pub fn ospf() -> Vec<OspfInfo> {
    let router_id = Ipv4Addr::new(10, 0, 1, 1);
    let lsas = |kind: &str, count, own| OspfLsaCount { kind: kind.to_owned(), count, own };
    let neighbor = OspfNeighborInfo {
        version: 2,
        interface: "net0".to_owned(),
        router_id: Ipv4Addr::new(10, 255, 0, 1),
        address: ip("10.0.1.254"),
        state: OspfNeighborState::Full,
        state_age_s: 187_290,
        priority: 1,
        dead_in_ms: 33_120,
        unacknowledged: 0,
        requested: 0,
        designated: Some(Ipv4Addr::new(10, 0, 1, 254)),
        backup: None,
    };
    let packets =
        OspfPackets { received: 19_204, dropped_hello_mismatch: 12, ..OspfPackets::default() };
    vec![
        OspfInfo {
            version: 2,
            router_id,
            area: Ipv4Addr::new(0, 0, 0, 1),
            area_type: "stub".to_owned(),
            interfaces: vec![OspfInterfaceInfo {
                name: "net0".to_owned(),
                network: "broadcast".to_owned(),
                state: OspfInterfaceState::DrOther,
                cost: 10,
                designated: Some(Ipv4Addr::new(10, 0, 1, 254)),
                backup: None,
                packets,
                packets_sent: 18_911,
            }],
            neighbors: vec![
                neighbor.clone(),
                OspfNeighborInfo {
                    router_id: Ipv4Addr::new(10, 255, 0, 2),
                    address: ip("10.0.1.253"),
                    state: OspfNeighborState::ExStart,
                    state_age_s: 371,
                    requested: 4,
                    unacknowledged: 2,
                    ..neighbor
                },
            ],
            database: vec![lsas("router", 3, 1), lsas("network", 1, 0)],
            packets,
            packets_sent: 18_911,
            refused: vec![RefusedPrefix {
                prefix: "203.0.113.9/32".to_owned(),
                reason: "a stub area takes no external routes".to_owned(),
            }],
        },
        OspfInfo {
            version: 3,
            router_id,
            area: Ipv4Addr::UNSPECIFIED,
            area_type: "normal".to_owned(),
            interfaces: vec![OspfInterfaceInfo {
                name: "net1".to_owned(),
                network: "point-to-point".to_owned(),
                state: OspfInterfaceState::Down,
                cost: 10,
                designated: None,
                backup: None,
                packets: OspfPackets::default(),
                packets_sent: 0,
            }],
            neighbors: Vec::new(),
            database: Vec::new(),
            packets: OspfPackets::default(),
            packets_sent: 0,
            refused: Vec::new(),
        },
    ]
}

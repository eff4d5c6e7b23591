//! The fixed data of the fake node's speaker.

use super::data::{ip, socket};
use dunlin::api::model::{
    AnnounceInfo, AnnouncePeer, BfdSessionInfo, BfdState, BgpCapability, BgpErrorInfo, BgpInfo,
    BgpMessages, BgpNeighborInfo, BgpSecurity, BgpState, BgpTransport, Direction, KernelTcpDrops,
};
use std::net::Ipv4Addr;

pub fn bgp() -> BgpInfo {
    let established = established();
    BgpInfo {
        local_as: 65_010,
        router_id: Ipv4Addr::new(10, 0, 1, 1),
        listen_port: Some(179),
        kernel: KernelTcpDrops {
            md5_failure: 0,
            md5_not_found: 14,
            md5_unexpected: 0,
            min_ttl_drop: 1,
        },
        neighbors: vec![
            established.clone(),
            BgpNeighborInfo {
                address: ip("2001:db8:1::fe"),
                description: "tor-b".to_owned(),
                remote_as_configured: "external".to_owned(),
                remote_as: None,
                remote_router_id: None,
                state: BgpState::Active,
                state_age_s: 371,
                transport: None,
                hold_time_s: None,
                keepalive_s: None,
                families: Vec::new(),
                capabilities: Vec::new(),
                messages_in: BgpMessages::default(),
                messages_out: BgpMessages::default(),
                prefixes_announced: 0,
                prefixes_received: 0,
                prefixes_accepted: 0,
                last_error: Some(BgpErrorInfo {
                    age_s: 371,
                    direction: Direction::Received,
                    code: Some((6, 2)),
                    text: "administrative shutdown: \"line card swap\"".to_owned(),
                }),
                established_count: 3,
                retry_in_ms: Some(8_400),
                security: BgpSecurity::default(),
                bfd: Some(BfdState::Down),
                ..established.clone()
            },
            BgpNeighborInfo {
                address: ip("10.0.1.250"),
                description: String::new(),
                state: BgpState::Idle,
                shutdown: Some("decommissioned".to_owned()),
                bfd: None,
                remote_router_id: None,
                hold_time_s: None,
                keepalive_s: None,
                families: Vec::new(),
                capabilities: Vec::new(),
                messages_in: BgpMessages::default(),
                messages_out: BgpMessages::default(),
                prefixes_announced: 0,
                prefixes_received: 0,
                prefixes_accepted: 0,
                transport: None,
                established_count: 0,
                ..established
            },
        ],
    }
}

fn established() -> BgpNeighborInfo {
    let capability =
        |name: &str, local, remote| BgpCapability { name: name.to_owned(), local, remote };
    BgpNeighborInfo {
        address: ip("10.0.1.254"),
        description: "tor-a".to_owned(),
        local_as: 65_010,
        remote_as_configured: "65000".to_owned(),
        remote_as: Some(65_000),
        remote_router_id: Some(Ipv4Addr::new(10, 255, 0, 1)),
        state: BgpState::Established,
        state_age_s: 187_300,
        shutdown: None,
        transport: Some(BgpTransport {
            local: socket("10.0.1.1:40112"),
            remote: socket("10.0.1.254:179"),
            passive: false,
        }),
        hold_time_configured_s: 90,
        hold_time_s: Some(9),
        keepalive_s: Some(3),
        families: vec!["ipv4-unicast".to_owned(), "ipv6-unicast".to_owned()],
        capabilities: vec![
            capability("multiprotocol ipv4-unicast", true, true),
            capability("multiprotocol ipv6-unicast", true, true),
            capability("4-octet-as", true, true),
            capability("route-refresh", true, true),
            capability("graceful-restart", false, true),
        ],
        messages_in: BgpMessages {
            open: 1,
            update: 3,
            notification: 0,
            keepalive: 62_433,
            route_refresh: 1,
        },
        messages_out: BgpMessages {
            open: 1,
            update: 9,
            notification: 0,
            keepalive: 62_434,
            route_refresh: 0,
        },
        prefixes_announced: 3,
        prefixes_received: 12,
        prefixes_accepted: 1,
        last_error: None,
        established_count: 1,
        retry_in_ms: None,
        security: BgpSecurity { md5: true, gtsm: true, multihop: None },
        bfd: Some(BfdState::Up),
    }
}

pub fn bfd() -> Vec<BfdSessionInfo> {
    let up = BfdSessionInfo {
        peer: ip("10.0.1.254"),
        local: ip("10.0.1.1"),
        interface: Some("net0".to_owned()),
        state: BfdState::Up,
        state_age_s: 187_290,
        diagnostic: String::new(),
        remote_state: BfdState::Up,
        remote_diagnostic: String::new(),
        local_discriminator: 1,
        remote_discriminator: 3_405_691_582,
        tx_interval_us: 100_000,
        rx_interval_us: 100_000,
        detection_time_us: 300_000,
        multiplier: 3,
        packets_in: 2_140_311,
        packets_out: 2_140_377,
        packets_invalid: 0,
        up_count: 1,
        users: vec!["bgp".to_owned()],
    };
    let down = BfdSessionInfo {
        peer: ip("2001:db8:1::fe"),
        local: ip("2001:db8:1::1"),
        interface: None,
        state: BfdState::Down,
        state_age_s: 371,
        diagnostic: "control detection time expired".to_owned(),
        remote_state: BfdState::AdminDown,
        remote_diagnostic: "administratively down".to_owned(),
        remote_discriminator: 0,
        tx_interval_us: 1_000_000,
        rx_interval_us: 1_000_000,
        detection_time_us: 0,
        packets_invalid: 17,
        up_count: 3,
        users: vec!["bgp".to_owned(), "ospf".to_owned()],
        ..up.clone()
    };
    vec![up, down]
}

pub fn announce() -> Vec<AnnounceInfo> {
    let peer = |address: &str, sent, reason: &str| AnnouncePeer {
        address: ip(address),
        protocol: "bgp".to_owned(),
        sent,
        reason: reason.to_owned(),
    };
    vec![
        AnnounceInfo {
            prefix: "203.0.113.1/32".parse().expect("prefix"),
            services: vec!["web".to_owned()],
            wanted: true,
            reasons: vec![
                "2 of 4 backends healthy, at least 1 needed (web)".to_owned(),
                "every worker has tables of epoch 41 or later".to_owned(),
            ],
            attributes: vec!["community 65010:100".to_owned()],
            peers: vec![
                peer("10.0.1.254", true, ""),
                peer("2001:db8:1::fe", false, "session is active, not established"),
            ],
        },
        AnnounceInfo {
            prefix: "203.0.113.53/32".parse().expect("prefix"),
            services: vec!["dns".to_owned()],
            wanted: false,
            reasons: vec!["0 of 1 backends healthy, at least 1 needed (dns)".to_owned()],
            attributes: Vec::new(),
            peers: vec![peer("10.0.1.254", false, ""), peer("2001:db8:1::fe", false, "")],
        },
        AnnounceInfo {
            prefix: "10.9.0.0/29".parse().expect("prefix"),
            services: Vec::new(),
            wanted: true,
            reasons: vec!["local addresses of this node".to_owned()],
            attributes: Vec::new(),
            peers: vec![peer("10.0.1.254", true, "")],
        },
    ]
}

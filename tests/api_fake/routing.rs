//! The fixed data of the fake node's speaker.

use super::data::{ip, socket};
use dunlin::api::model::{
    AnnounceInfo, AnnouncePeer, BfdDrops, BfdInfo, BfdLastDown, BfdSessionInfo, BfdState,
    BgpCapability, BgpErrorInfo, BgpInfo, BgpMessages, BgpNeighborInfo, BgpSecurity, BgpState,
    BgpTransport, BgpUpdateErrors, Direction, KernelTcpDrops, RefusedPrefix,
};
use std::net::Ipv4Addr;

pub fn bgp() -> BgpInfo {
    let established = established();
    BgpInfo {
        local_as: 65_010,
        router_id: Ipv4Addr::new(10, 0, 1, 1),
        listen_port: Some(179),
        unknown_peers: 2,
        kernel: KernelTcpDrops {
            md5_failure: 0,
            md5_not_found: 14,
            md5_unexpected: 0,
            min_ttl_drop: 1,
            ..KernelTcpDrops::default()
        },
        neighbors: vec![
            established.clone(),
            BgpNeighborInfo {
                name: "2001:db8:1::fe".to_owned(),
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
                in_sync: false,
                unannounceable: Vec::new(),
                prefixes_accepted: 0,
                update_errors: BgpUpdateErrors::default(),
                role: None,
                remote_role: None,
                last_error: Some(BgpErrorInfo {
                    age_s: 4,
                    direction: Direction::Local,
                    code: None,
                    text: "Connection refused".to_owned(),
                }),
                last_down: Some(BgpErrorInfo {
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
                name: "net1".to_owned(),
                address: ip("::"),
                interface: Some("net1".to_owned()),
                description: "tor-c".to_owned(),
                remote_as_configured: "external".to_owned(),
                remote_as: Some(65_002),
                transport: Some(BgpTransport {
                    local: socket("[fe80::1]:179"),
                    remote: socket("[fe80::fe]:41002"),
                    passive: true,
                }),
                bfd: None,
                security: BgpSecurity::default(),
                ..established.clone()
            },
            BgpNeighborInfo {
                name: "10.0.1.250".to_owned(),
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
                in_sync: false,
                unannounceable: Vec::new(),
                prefixes_accepted: 0,
                update_errors: BgpUpdateErrors::default(),
                role: None,
                remote_role: None,
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
        name: "10.0.1.254".to_owned(),
        address: ip("10.0.1.254"),
        interface: None,
        range: None,
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
        graceful_restart_s: None,
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
        in_sync: true,
        unannounceable: vec![RefusedPrefix {
            prefix: "2001:db8:f::1/128".to_owned(),
            reason: "family not negotiated".to_owned(),
        }],
        prefixes_accepted: 1,
        max_prefixes: 1000,
        update_errors: BgpUpdateErrors {
            treated_as_withdraw: 2,
            attributes_discarded: 1,
            last: Some("AS_PATH: empty segment".to_owned()),
        },
        role: Some("customer".to_owned()),
        remote_role: Some("provider".to_owned()),
        last_error: None,
        last_down: None,
        established_count: 1,
        retry_in_ms: None,
        security: BgpSecurity { md5: true, ao: false, gtsm: true, multihop: None },
        bfd: Some(BfdState::Up),
    }
}

pub fn bfd() -> BfdInfo {
    let up = BfdSessionInfo {
        peer: ip("10.0.1.254"),
        local: Some(ip("10.0.1.1")),
        interface: Some("net0".to_owned()),
        multihop: false,
        state: BfdState::Up,
        up_for_s: Some(187_290),
        diagnostic: String::new(),
        remote_state: BfdState::Up,
        remote_diagnostic: String::new(),
        local_discriminator: 1,
        remote_discriminator: 3_405_691_582,
        min_tx_us: 50_000,
        min_rx_us: 50_000,
        multiplier: 3,
        remote_min_tx_us: 100_000,
        remote_min_rx_us: 100_000,
        remote_multiplier: 3,
        tx_interval_us: 100_000,
        rx_interval_us: 100_000,
        detection_time_us: 300_000,
        polling: false,
        authentication: Some("meticulous-keyed-sha1".to_owned()),
        packets_in: 2_140_311,
        packets_out: 2_140_377,
        dropped_auth: 4,
        dropped_admin_down: 0,
        send_errors: 0,
        up_count: 1,
        failure_count: 0,
        last_down: None,
        error: None,
        users: vec!["bgp".to_owned()],
    };
    let down = BfdSessionInfo {
        peer: ip("2001:db8:1::fe"),
        local: None,
        interface: None,
        multihop: true,
        state: BfdState::Down,
        up_for_s: None,
        diagnostic: "control detection time expired".to_owned(),
        remote_state: BfdState::AdminDown,
        remote_diagnostic: "administratively down".to_owned(),
        remote_discriminator: 0,
        remote_min_tx_us: 1_000_000,
        tx_interval_us: 1_000_000,
        rx_interval_us: 1_000_000,
        detection_time_us: 0,
        polling: true,
        authentication: None,
        dropped_auth: 0,
        dropped_admin_down: 17,
        send_errors: 2,
        up_count: 3,
        failure_count: 2,
        last_down: Some(BfdLastDown {
            age_s: 371,
            cause: "nothing heard for the detection time".to_owned(),
            diagnostic: "control detection time expired".to_owned(),
            remote_diagnostic: "administratively down".to_owned(),
            failure: true,
        }),
        users: vec!["bgp".to_owned(), "ospf".to_owned()],
        ..up.clone()
    };
    BfdInfo {
        scheduling: "SCHED_FIFO, priority 10".to_owned(),
        sessions: vec![up, down],
        dropped: BfdDrops { ttl: 3, unknown_peer: 1, ..BfdDrops::default() },
    }
}

pub fn announce() -> Vec<AnnounceInfo> {
    let peer = |address: &str, sent: bool, reason: &str| AnnouncePeer {
        name: address.to_owned(),
        address: ip(address),
        protocol: "bgp".to_owned(),
        sent,
        next_hop: sent.then(|| ip("10.0.1.1")),
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
            attributes: vec![
                "community 65010:100".to_owned(),
                "link-bandwidth 10Gbit".to_owned(),
                "ospf stub cost 10".to_owned(),
            ],
            peers: vec![
                peer("10.0.1.254", true, ""),
                AnnouncePeer {
                    name: "10.255.0.1".to_owned(),
                    protocol: "ospf".to_owned(),
                    next_hop: None,
                    ..peer("10.0.1.254", true, "")
                },
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

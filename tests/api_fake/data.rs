//! The fixed data of the fake node.

use dunlin::api::model::{
    BackendInfo, BackendState, BgpSummary, BuffersInfo, ClusterDatagrams, ClusterInfo,
    ClusterPeerInfo, ConfigInfo, ControlInfo, ControlInterface, DropInfo, FlowInfo, FlowMemoryInfo,
    FlowMemoryKind, FlowState, Health, HealthState, IdleKind, InterruptsInfo, PortInfo, PortStats,
    ReloadResult, ServiceInfo, SharedFlows, Status, SteeringInfo, SteeringMode, Traffic, VipStatus,
    WorkerInfo,
};
use dunlin::forward::tables::{Protocol, Scheduler};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

pub fn ip(text: &str) -> IpAddr {
    text.parse().expect("address")
}

pub fn socket(text: &str) -> SocketAddr {
    text.parse().expect("address and port")
}

pub fn status() -> Status {
    Status {
        name: "lb1".to_owned(),
        version: "0.1.0".to_owned(),
        router_id: Ipv4Addr::new(10, 0, 1, 1),
        pid: 4242,
        uptime_s: 187_500,
        config_file: "/etc/dunlin/dunlin.toml".to_owned(),
        config_loaded_at: 1_795_416_000,
        config_age_s: 18_120,
        config_error: Some(
            "line 14: services[0].vips[0]: expected an IP address, found \"203.0.113\"".to_owned(),
        ),
        tables_epoch: 42,
        drain: None,
        health: Health {
            state: HealthState::Degraded,
            reasons: vec![
                "worker 1 (core 3) has not beaten for 1.2s".to_owned(),
                "BGP neighbour 2001:db8:1::fe is not established".to_owned(),
                "service dns has no healthy backend".to_owned(),
            ],
        },
        services: 2,
        backends_healthy: 2,
        backends_total: 5,
        workers: workers(),
        vips: vec![
            vip("203.0.113.1/32", true, ""),
            vip("2001:db8:f::1/128", true, ""),
            vip("203.0.113.53/32", false, "0 of 1 backends healthy, at least 1 needed (dns)"),
        ],
        bgp: Some(BgpSummary { neighbors: 3, established: 1 }),
    }
}

pub fn quiet_status() -> Status {
    Status {
        config_error: None,
        health: Health { state: HealthState::Ok, reasons: Vec::new() },
        services: 0,
        backends_healthy: 0,
        backends_total: 0,
        workers: vec![worker(0, 2)],
        vips: Vec::new(),
        bgp: None,
        ..status()
    }
}

fn vip(prefix: &str, announced: bool, reason: &str) -> VipStatus {
    VipStatus { prefix: prefix.parse().expect("prefix"), announced, reason: reason.to_owned() }
}

fn worker(id: u16, core: u16) -> WorkerInfo {
    WorkerInfo {
        id,
        core,
        numa_node: Some(0),
        flow_memory: Some(FlowMemoryInfo {
            kind: FlowMemoryKind::Hugepages,
            numa_node: Some(0),
            reason: String::new(),
        }),
        idle: Some(IdleKind::Interrupt),
        idle_reason: "2 of its 4 queues have receive interrupts".to_owned(),
        hint: String::new(),
        beat_age_ms: 3,
        stalled: false,
        epoch: 42,
        busy_percent: 37.25,
        flows: 812_345,
        max_flows: 1_000_000,
        local_ports_used: 402_111,
        local_ports_total: 516_096,
        rx_packets: 98_765_432_109,
        tx_packets: 98_765_000_000,
        kernel_packets: 12_345,
        handover_packets: 4_321_000,
        misdirected_packets: 12,
        too_big_answers: 7,
        fragment_packets: 2_040,
        forgotten_datagrams: 3,
        dropped_packets: 7_001,
    }
}

fn workers() -> Vec<WorkerInfo> {
    let why = "too few free hugepages on NUMA node 1";
    let stalled = WorkerInfo {
        numa_node: Some(1),
        flow_memory: Some(FlowMemoryInfo {
            kind: FlowMemoryKind::Ordinary,
            numa_node: None,
            reason: why.to_owned(),
        }),
        idle: Some(IdleKind::Spin),
        idle_reason: "as configured".to_owned(),
        hint: format!("flows in ordinary memory: {why}"),
        beat_age_ms: 1_240,
        stalled: true,
        epoch: 41,
        busy_percent: 100.0,
        flows: 990_000,
        ..worker(1, 3)
    };
    vec![worker(0, 2), stalled]
}

pub fn services() -> Vec<ServiceInfo> {
    let traffic = Traffic {
        connections_active: 18_234,
        connections_total: 123_456_789,
        packets_in: 9_876_543_210,
        packets_out: 12_345_678_901,
        bytes_in: 1_234_567_890_123,
        bytes_out: 98_765_432_109_876,
    };
    let web = ServiceInfo {
        name: "web".to_owned(),
        vip: ip("203.0.113.1"),
        protocol: Protocol::Tcp,
        port: 443,
        scheduler: Scheduler::Maglev,
        backends_healthy: 2,
        backends_total: 4,
        min_healthy: 1,
        keep_announced: false,
        announced: true,
        draining: false,
        traffic,
    };
    let web6 = ServiceInfo {
        vip: ip("2001:db8:f::1"),
        draining: true,
        traffic: Traffic::default(),
        ..web.clone()
    };
    let dns = ServiceInfo {
        name: "dns".to_owned(),
        vip: ip("203.0.113.53"),
        protocol: Protocol::Udp,
        port: 53,
        scheduler: Scheduler::RoundRobin,
        backends_healthy: 0,
        backends_total: 1,
        announced: false,
        traffic: Traffic {
            connections_active: 0,
            connections_total: 981,
            packets_in: 981,
            packets_out: 950,
            bytes_in: 62_784,
            bytes_out: 120_400,
        },
        ..web.clone()
    };
    vec![web, web6, dns]
}

pub fn backends() -> Vec<BackendInfo> {
    let first = BackendInfo {
        service: "web".to_owned(),
        address: socket("10.0.0.1:8443"),
        weight: 100,
        state: BackendState::Healthy,
        state_age_s: 187_400,
        reason: "status 200".to_owned(),
        check_latency_us: Some(830),
        traffic: Traffic {
            connections_active: 9_120,
            connections_total: 61_728_394,
            packets_in: 4_938_271_605,
            packets_out: 6_172_839_450,
            bytes_in: 617_283_945_061,
            bytes_out: 49_382_716_054_938,
        },
    };
    let other = |address: &str, state, reason: &str, age| BackendInfo {
        address: socket(address),
        state,
        reason: reason.to_owned(),
        state_age_s: age,
        check_latency_us: None,
        traffic: Traffic::default(),
        ..first.clone()
    };
    vec![
        first.clone(),
        BackendInfo {
            check_latency_us: Some(12_400),
            ..other("10.0.0.2:8443", BackendState::Healthy, "status 200", 52)
        },
        other("10.0.0.3:8443", BackendState::Draining, "drained by uid 1000: new disk", 610),
        other("[2001:db8:b::4]:8443", BackendState::Unhealthy, "status 503, expected 200", 192),
        BackendInfo {
            service: "dns".to_owned(),
            weight: 1,
            ..other(
                "10.0.0.53:0",
                BackendState::Unhealthy,
                "connection to 10.0.0.53 port 53 refused 3 times in a row, last tried 0.4 s ago",
                33,
            )
        },
    ]
}

pub fn flows() -> Vec<FlowInfo> {
    let flow = |client: &str, state, idle_ms, worker| FlowInfo {
        protocol: Protocol::Tcp,
        client: socket(client),
        vip: socket("203.0.113.1:443"),
        lip: socket("10.9.0.1:20481"),
        backend: socket("10.0.0.1:8443"),
        state,
        idle_ms,
        worker,
        service: "web".to_owned(),
        owner: None,
    };
    vec![
        flow("198.51.100.7:51034", FlowState::Established, 42, 0),
        flow("198.51.100.7:51035", FlowState::Syn, 1_400, 1),
        flow("198.51.100.9:40000", FlowState::Closing, 9_999, 0),
        FlowInfo {
            vip: socket("[2001:db8:f::1]:443"),
            lip: socket("[2001:db8:9::1]:1025"),
            backend: socket("[2001:db8:b::4]:8443"),
            owner: Some("10.0.2.1".parse().expect("address")),
            ..flow("[2001:db8:c:42::1234]:61000", FlowState::Established, 754_000, 1)
        },
        FlowInfo {
            protocol: Protocol::Udp,
            vip: socket("203.0.113.53:53"),
            backend: socket("10.0.0.53:53"),
            service: "dns".to_owned(),
            ..flow("192.0.2.200:5353", FlowState::Udp, 12_000, 1)
        },
    ]
}

pub fn cluster() -> ClusterInfo {
    let peer = |address: &str, heard_s, answers, silences| ClusterPeerInfo {
        address: socket(address),
        heard_s,
        answers,
        silences,
    };
    ClusterInfo {
        address: socket("10.0.1.1:7411"),
        peers: vec![peer("10.0.2.1:7411", Some(3), 812, 1), peer("10.0.3.1:7411", None, 0, 813)],
        flows: SharedFlows {
            adopted: 41,
            adoptions: 2_207,
            refused: 3,
            unconfirmed: 1,
            asked: 9_120,
            not_asked: 120_774,
            looked_up: 702,
            found: 350,
        },
        datagrams: ClusterDatagrams {
            sent: 4_002,
            received: 1_175,
            unknown_source: 0,
            bad_signature: 12,
            malformed: 0,
            unexpected: 2,
        },
        unanswered: 813,
        overloaded: 0,
    }
}

pub fn ports() -> Vec<PortInfo> {
    let first = PortInfo {
        name: "net0".to_owned(),
        device: "0000:03:00.0".to_owned(),
        driver: "net_ice".to_owned(),
        mac: "02:00:5e:00:53:01".to_owned(),
        link_up: true,
        speed_mbps: Some(25_000),
        mtu: 1500,
        numa_node: Some(0),
        buffers: Some(BuffersInfo {
            count: 32_768,
            numa_node: Some(0),
            reason: "where the port is".to_owned(),
        }),
        rx_queues: 2,
        tx_queues: 2,
        control: Some(ControlInfo {
            interface: "net0".to_owned(),
            kind: ControlInterface::VhostNet,
            reason: "/dev/vhost-net opens".to_owned(),
            rx_interrupts: Some(InterruptsInfo {
                in_use: false,
                reason: "net_virtio_user cannot have them safely".to_owned(),
            }),
        }),
        steering: SteeringInfo {
            mode: SteeringMode::FlowRule,
            reason: "the NIC took a rule for every local address".to_owned(),
            flow_rules: 16,
            flow_rules_refused: 0,
        },
        rx_interrupts: Some(InterruptsInfo { in_use: true, reason: String::new() }),
        caps: ["rx-ipv4-checksum", "rx-l4-checksum", "tx-ipv4-checksum", "tx-l4-checksum", "rss"]
            .map(str::to_owned)
            .to_vec(),
        stats: PortStats {
            rx_packets: 98_765_432_109,
            tx_packets: 98_765_000_000,
            rx_bytes: 12_345_678_901_234,
            tx_bytes: 23_456_789_012_345,
            rx_errors: 0,
            tx_errors: 0,
            rx_missed: 1_204,
            rx_nombuf: 0,
        },
    };
    let second = PortInfo {
        name: "net1".to_owned(),
        device: "net_af_packet,iface=eth1".to_owned(),
        driver: "net_af_packet".to_owned(),
        mac: "02:00:5e:00:53:02".to_owned(),
        link_up: false,
        speed_mbps: None,
        numa_node: None,
        buffers: Some(BuffersInfo {
            count: 32_768,
            numa_node: None,
            reason: "not on NUMA node 0: cannot create a pool of 32768 packet buffers".to_owned(),
        }),
        rx_queues: 1,
        tx_queues: 1,
        control: Some(ControlInfo {
            interface: "net1".to_owned(),
            kind: ControlInterface::Tap,
            reason: "/dev/vhost-net is missing".to_owned(),
            rx_interrupts: Some(InterruptsInfo { in_use: true, reason: String::new() }),
        }),
        steering: SteeringInfo {
            mode: SteeringMode::Software,
            reason: "the driver has neither flow rules nor RSS".to_owned(),
            flow_rules: 0,
            flow_rules_refused: 0,
        },
        rx_interrupts: Some(InterruptsInfo {
            in_use: false,
            reason: "net1: queue 0 has no interrupt: Operation not supported (95)".to_owned(),
        }),
        caps: Vec::new(),
        stats: PortStats::default(),
        ..first.clone()
    };
    vec![first, second]
}

/// Reasons of its own: the fixtures must not change whenever the packet path learns a reason.
pub fn drops() -> Vec<DropInfo> {
    let drop = |reason: &str, description: &str, per_worker: [u64; 2]| DropInfo {
        reason: reason.to_owned(),
        description: description.to_owned(),
        count: per_worker.iter().sum(),
        per_worker: per_worker.to_vec(),
    };
    vec![
        drop("truncated", "shorter than its headers say", [0, 0]),
        drop("bad-header", "a header field that no valid packet has", [0, 1]),
        drop("no-backend", "the service has no healthy backend", [901, 1_024_332]),
        drop("not-syn", "TCP segment that neither matches a flow nor opens one", [5_120, 1_880]),
        drop("pool-exhausted", "every LIP:port toward that backend is in use", [0, 0]),
    ]
}

pub fn config() -> ConfigInfo {
    ConfigInfo {
        file: "/etc/dunlin/dunlin.toml".to_owned(),
        loaded_at: 1_795_416_000,
        toml: "[node]\nname = \"lb1\"\n\n[[bgp.neighbors]]\npassword = \"<secret>\"\n".to_owned(),
    }
}

pub fn reload() -> ReloadResult {
    ReloadResult {
        changes: vec![
            "service web: backend 10.0.0.5:8443 added".to_owned(),
            "service old: removed, 12 flows go on".to_owned(),
        ],
        needs_restart: vec!["dataplane.workers: [2, 3] → [2, 3, 4]".to_owned()],
    }
}

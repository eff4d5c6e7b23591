//! From the configuration to the speaker, and from its status to what the API shows.

use crate::api::model::{
    BfdSessionInfo, BfdState, BgpCapability, BgpErrorInfo, BgpInfo, BgpMessages, BgpNeighborInfo,
    BgpSecurity, BgpState, BgpTransport, Direction, KernelTcpDrops,
};
use crate::config::model::{self, Config};
use ipnet::IpNet;
use kni::mirror::InstalledNextHop;
use routing::bfd::{self, AuthConfig, BfdStatus, SessionConfig};
use routing::bgp::config::{Import, NeighborConfig, Password, RemoteAs};
use routing::bgp::fsm::State;
use routing::bgp::import::ImportedRoutes;
use routing::bgp::session::{self, MessageCounts};
use routing::bgp::wire::Families;
use routing::ospf::auth::Auth;
use routing::ospf::{self, BfdTimers, Version};
use routing::speaker::{RangeConfig, NeighborStatus, SpeakerConfig, SpeakerStatus};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What the speaker is told; without a `[bgp]` section it has no neighbours and does not listen.
pub fn speaker_config(config: &Config) -> SpeakerConfig {
    let Some(bgp) = &config.bgp else {
        return SpeakerConfig {
            router_id: config.node.router_id,
            asn: 0,
            listen: Vec::new(),
            neighbors: Vec::new(),
            ranges: Vec::new(),
        };
    };
    let listen = bgp.listen_port.map_or_else(Vec::new, |port| {
        vec![
            SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)),
            SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)),
        ]
    });
    SpeakerConfig {
        router_id: config.node.router_id,
        asn: bgp.asn,
        listen,
        neighbors: bgp.neighbors.iter().map(neighbor_config).collect(),
        ranges: bgp.ranges.iter().map(range_config).collect(),
    }
}

fn neighbor_config(neighbor: &model::Neighbor) -> NeighborConfig {
    NeighborConfig {
        address: neighbor.peer.address(),
        interface: neighbor.peer.interface().cloned(),
        port: neighbor.port,
        passive: neighbor.passive,
        source: neighbor.source,
        connect_retry: neighbor.connect_retry,
        shutdown: neighbor.shutdown.clone(),
        ..session_config(&neighbor.session)
    }
}

fn range_config(range: &model::ListenRange) -> RangeConfig {
    RangeConfig {
        prefix: range.prefix,
        max_peers: range.max_peers,
        template: session_config(&range.session),
    }
}

/// All but who the neighbour is.
fn session_config(session: &model::Session) -> NeighborConfig {
    let remote_as = match session.remote_as {
        model::RemoteAs::Exact(asn) => RemoteAs::Exact(asn),
        model::RemoteAs::External => RemoteAs::External,
        model::RemoteAs::Internal => RemoteAs::Internal,
    };
    NeighborConfig {
        description: session.description.clone(),
        password: session.password.as_ref().and_then(|p| Password::new(p.expose())),
        hold_time: session.hold_time,
        ttl_security: session.ttl_security,
        multihop: session.multihop,
        import: match &session.import {
            model::Import::Nothing => Import::Nothing,
            model::Import::DefaultRoute => Import::DefaultRoute,
            model::Import::Prefixes(list) => Import::Prefixes(list.clone()),
        },
        max_prefixes: session.max_prefixes,
        families: session.families,
        extended_next_hop: session.extended_next_hop,
        next_hop_v4: session.next_hop_v4,
        next_hop_v6: session.next_hop_v6,
        role: session.role,
        role_strict: session.role_strict,
        ..NeighborConfig::new(Ipv6Addr::UNSPECIFIED.into(), remote_as)
    }
}

/// A BFD session for every neighbour that wants one and is not shut down.
pub fn bfd_sessions(config: &Config) -> Vec<SessionConfig> {
    let neighbors = config.bgp.iter().flat_map(|bgp| &bgp.neighbors);
    let up = neighbors.filter(|neighbor| neighbor.shutdown.is_none());
    up.filter_map(|neighbor| Some(bfd_session(config, neighbor, neighbor.bfd.as_ref()?))).collect()
}

fn bfd_session(
    config: &Config,
    neighbor: &model::Neighbor,
    bfd: &model::NeighborBfd,
) -> SessionConfig {
    SessionConfig {
        peer: neighbor.peer.address(),
        local: neighbor.source,
        interface: neighbor.peer.interface().cloned(),
        multihop: neighbor.session.multihop.is_some_and(|hops| hops > 1),
        min_tx: bfd.min_tx.unwrap_or(config.bfd.min_tx),
        min_rx: bfd.min_rx.unwrap_or(config.bfd.min_rx),
        multiplier: bfd.multiplier.unwrap_or(config.bfd.multiplier),
        auth: bfd.auth.as_ref().map(|auth| AuthConfig {
            kind: auth.kind,
            key_id: auth.key_id,
            secret: auth.key.expose().as_bytes().to_vec(),
        }),
    }
}

/// OSPF as configured, by version: IPv4 is carried by 2, IPv6 by 3.
pub fn ospf_configs(config: &Config) -> Vec<(ospf::Config, Option<BfdTimers>)> {
    let versions = [(Version::V2, &config.ospf), (Version::V3, &config.ospf3)];
    versions
        .into_iter()
        .filter_map(|(version, ospf)| Some((version, ospf.as_ref()?)))
        .map(|(version, of_version)| {
            let timers = of_version.bfd.then_some(BfdTimers {
                min_tx: config.bfd.min_tx,
                min_rx: config.bfd.min_rx,
                multiplier: config.bfd.multiplier,
            });
            let config = ospf::Config {
                version,
                router_id: config.node.router_id,
                area: of_version.area,
                area_kind: of_version.area_kind,
                interfaces: of_version.interfaces.iter().map(ospf_interface).collect(),
            };
            (config, timers)
        })
        .collect()
}

fn ospf_interface(interface: &model::OspfInterface) -> ospf::InterfaceConfig {
    let auth = match &interface.auth {
        model::OspfAuth::Null => Auth::None,
        model::OspfAuth::Simple(secret) => {
            // At most eight bytes, which the parser has seen to; padded with zeros (RFC 2328 §D.3).
            let mut password = [0; 8];
            for (to, from) in password.iter_mut().zip(secret.expose().bytes()) {
                *to = from;
            }
            Auth::Simple(password)
        }
        model::OspfAuth::Keys(keys) => Auth::Crypto(
            keys.iter()
                .map(|key| ospf::auth::Key {
                    id: key.id,
                    algorithm: key.algorithm,
                    secret: key.key.expose().as_bytes().to_vec(),
                })
                .collect(),
        ),
    };
    ospf::InterfaceConfig {
        name: interface.name.clone(),
        network: interface.network,
        cost: interface.cost,
        hello_interval: interface.hello_interval,
        dead_interval: interface.dead_interval,
        retransmit_interval: interface.retransmit_interval,
        transmit_delay: interface.transmit_delay,
        priority: interface.priority,
        mtu_ignore: interface.mtu_ignore,
        passive: interface.passive,
        instance_id: interface.instance_id,
        auth,
    }
}

/// The configuration's static routes, as the mirror installs them.
pub fn static_routes(config: &Config) -> BTreeMap<IpNet, Vec<InstalledNextHop>> {
    let hop = |via: &IpAddr| InstalledNextHop { via: Some(*via), ifindex: None, weight: 1 };
    config.routes.iter().map(|r| (r.prefix, r.via.iter().map(hop).collect())).collect()
}

/// Routes taken from neighbours, as the mirror installs them.
pub fn learned_routes(imported: &ImportedRoutes) -> BTreeMap<IpNet, Vec<InstalledNextHop>> {
    imported
        .iter()
        .map(|(prefix, hops)| {
            let hops = hops
                .iter()
                .map(|hop| InstalledNextHop {
                    via: Some(hop.address),
                    ifindex: hop.interface,
                    weight: 1,
                })
                .collect();
            (*prefix, hops)
        })
        .collect()
}

/// BGP as the API shows it.
pub fn bgp_info(config: &Config, status: &SpeakerStatus, bfd: Option<&BfdStatus>) -> BgpInfo {
    let configured: BTreeMap<IpAddr, &model::Neighbor> =
        config.bgp.iter().flat_map(|bgp| &bgp.neighbors).map(|n| (n.peer.address(), n)).collect();
    BgpInfo {
        local_as: status.asn,
        router_id: status.router_id,
        listen_port: status.listen.first().map(SocketAddr::port),
        neighbors: status
            .neighbors
            .iter()
            .filter_map(|neighbor| {
                let of_config = configured.get(&neighbor.address)?;
                Some(neighbor_info(status.asn, of_config, neighbor, bfd))
            })
            .collect(),
        kernel: KernelTcpDrops {
            md5_failure: status.kernel.tcp_md5_failure,
            md5_not_found: status.kernel.tcp_md5_not_found,
            md5_unexpected: status.kernel.tcp_md5_unexpected,
            min_ttl_drop: status.kernel.tcp_min_ttl_drop,
        },
    }
}

fn neighbor_info(
    local_as: u32,
    config: &model::Neighbor,
    status: &NeighborStatus,
    bfd: Option<&BfdStatus>,
) -> BgpNeighborInfo {
    let negotiated = status.negotiated.as_ref();
    let of_bfd = bfd.and_then(|b| b.sessions.iter().find(|s| s.key.peer == status.address));
    BgpNeighborInfo {
        address: status.address,
        description: status.description.clone(),
        local_as,
        remote_as_configured: match config.session.remote_as {
            model::RemoteAs::Exact(asn) => asn.to_string(),
            model::RemoteAs::External => "external".to_owned(),
            model::RemoteAs::Internal => "internal".to_owned(),
        },
        remote_as: negotiated.map(|n| n.remote_asn),
        remote_router_id: negotiated.map(|n| n.remote_id),
        state: bgp_state(status.state),
        state_age_s: status.uptime_ms.unwrap_or(0) / 1000,
        shutdown: config.shutdown.clone(),
        transport: status.local.zip(status.remote).map(|(local, remote)| BgpTransport {
            local,
            remote,
            passive: local.port() == config.port,
        }),
        hold_time_configured_s: config.session.hold_time.as_secs() as u16,
        hold_time_s: negotiated.map(|n| n.hold_time.as_secs() as u16),
        keepalive_s: negotiated.map(|n| n.keepalive.as_secs() as u16),
        families: negotiated.map(|n| families(n.families)).unwrap_or_default(),
        capabilities: capabilities(status),
        messages_in: messages(&status.received),
        messages_out: messages(&status.sent),
        prefixes_announced: status.prefixes_announced,
        prefixes_received: status.prefixes_accepted,
        prefixes_accepted: status.prefixes_accepted,
        last_error: status.last_error.as_ref().map(|error| BgpErrorInfo {
            age_s: age_of_unix_ms(error.at_unix_ms).as_secs(),
            direction: match error.direction {
                session::Direction::Sent => Direction::Sent,
                session::Direction::Received => Direction::Received,
                session::Direction::Connection => Direction::Local,
            },
            code: error.code,
            text: error.text.clone(),
        }),
        established_count: status.established_count,
        retry_in_ms: None,
        security: BgpSecurity {
            md5: status.md5,
            gtsm: status.ttl_security,
            multihop: config.session.multihop,
        },
        bfd: of_bfd.map(|session| bfd_state(session.state)),
    }
}

/// What the peer offers; we offer all of these but roles, which are configured.
fn capabilities(status: &NeighborStatus) -> Vec<BgpCapability> {
    let Some(peer) = &status.peer_capabilities else { return Vec::new() };
    let rows = [
        ("multiprotocol", true, peer.families.ipv4 || peer.families.ipv6),
        ("four-octet-as", true, peer.four_octet_as),
        ("route-refresh", true, peer.route_refresh),
        ("enhanced-route-refresh", true, peer.enhanced_route_refresh),
        ("extended-message", true, peer.extended_message),
        ("graceful-restart", true, peer.graceful_restart.is_some()),
    ];
    rows.into_iter()
        .map(|(name, local, remote)| BgpCapability { name: name.to_owned(), local, remote })
        .collect()
}

fn families(families: Families) -> Vec<String> {
    let mut names = Vec::new();
    if families.ipv4 {
        names.push("ipv4-unicast".to_owned());
    }
    if families.ipv6 {
        names.push("ipv6-unicast".to_owned());
    }
    names
}

fn messages(counts: &MessageCounts) -> BgpMessages {
    BgpMessages {
        open: counts.open,
        update: counts.update,
        notification: counts.notification,
        keepalive: counts.keepalive,
        route_refresh: counts.route_refresh,
    }
}

fn bgp_state(state: State) -> BgpState {
    match state {
        State::Idle => BgpState::Idle,
        State::Connect => BgpState::Connect,
        State::Active => BgpState::Active,
        State::OpenSent => BgpState::OpenSent,
        State::OpenConfirm => BgpState::OpenConfirm,
        State::Established => BgpState::Established,
    }
}

/// BFD as the API shows it.
pub fn bfd_info(status: &BfdStatus) -> Vec<BfdSessionInfo> {
    status
        .sessions
        .iter()
        .map(|session| BfdSessionInfo {
            peer: session.key.peer,
            local: session.key.local.unwrap_or(unspecified(session.key.peer)),
            interface: session.key.interface.clone(),
            state: bfd_state(session.state),
            state_age_s: session.up_for_ms.unwrap_or(0) / 1000,
            diagnostic: session.diagnostic.to_string(),
            remote_state: bfd_state(session.remote_state),
            remote_diagnostic: session.remote_diagnostic.to_string(),
            local_discriminator: session.local_discriminator,
            remote_discriminator: session.remote_discriminator,
            tx_interval_us: session.transmit_interval_us,
            rx_interval_us: session.remote_min_tx_us.max(session.min_rx_us),
            detection_time_us: session.detection_time_us,
            multiplier: session.multiplier,
            packets_in: session.counters.received,
            packets_out: session.counters.sent,
            packets_invalid: session.counters.dropped_auth + session.counters.dropped_admin_down,
            up_count: session.counters.ups,
            users: session.clients.clone(),
        })
        .collect()
}

fn unspecified(peer: IpAddr) -> IpAddr {
    if peer.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() }
}

fn bfd_state(state: bfd::State) -> BfdState {
    match state {
        bfd::State::AdminDown => BfdState::AdminDown,
        bfd::State::Down => BfdState::Down,
        bfd::State::Init => BfdState::Init,
        bfd::State::Up => BfdState::Up,
    }
}

fn age_of_unix_ms(at: u64) -> Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.saturating_sub(Duration::from_millis(at))
}

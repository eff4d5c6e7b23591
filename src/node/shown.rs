//! The speaker's status as the API shows it: pure functions, plain data in and out.

use crate::api::model::{
    BfdDrops, BfdInfo, BfdLastDown, BfdSessionInfo, BfdState, BgpCapability, BgpErrorInfo, BgpInfo,
    BgpMessages, BgpNeighborInfo, BgpSecurity, BgpState, BgpTransport, BgpUpdateErrors, Direction,
    KernelTcpDrops, RefusedPrefix,
};
use crate::config::model::{self, Bgp, Config};
use ipnet::IpNet;
use routing::bfd::{self, BfdStatus, Cause, Diagnostic, SessionStatus};
use routing::bgp::fsm::State;
use routing::bgp::session::{self, MessageCounts};
use routing::bgp::wire::{Capabilities, Families, Role};
use routing::speaker::{LastError, NeighborStatus, SpeakerStatus};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// BGP. A neighbour that has just left the configuration is not shown.
pub fn bgp(config: &Config, status: &SpeakerStatus, bfd: Option<&BfdStatus>) -> Option<BgpInfo> {
    let of_config = config.bgp.as_ref()?;
    let neighbors = status
        .neighbors
        .iter()
        .filter_map(|neighbor| neighbor_info(status.asn, of_config, neighbor, bfd));
    Some(BgpInfo {
        local_as: status.asn,
        router_id: status.router_id,
        listen_port: status.listen.first().map(SocketAddr::port),
        neighbors: neighbors.collect(),
        unknown_peers: status.unknown_peers,
        kernel: KernelTcpDrops {
            md5_failure: status.kernel.tcp_md5_failure,
            md5_not_found: status.kernel.tcp_md5_not_found,
            md5_unexpected: status.kernel.tcp_md5_unexpected,
            min_ttl_drop: status.kernel.tcp_min_ttl_drop,
            ao_bad: status.kernel.tcp_ao_bad,
            ao_key_not_found: status.kernel.tcp_ao_key_not_found,
            ao_required: status.kernel.tcp_ao_required,
        },
    })
}

/// As it is called in the configuration, logs and commands.
pub fn neighbor_name(status: &NeighborStatus) -> String {
    match &status.interface {
        Some(interface) if status.address.is_unspecified() => interface.clone(),
        Some(interface) => format!("{}%{interface}", status.address),
        None => status.address.to_string(),
    }
}

/// What is configured for a neighbour, by itself or by the range it dialled in from.
enum Origin<'c> {
    Neighbor(&'c model::Neighbor),
    Range(&'c model::ListenRange),
}

impl<'c> Origin<'c> {
    fn of(bgp: &'c Bgp, status: &NeighborStatus) -> Option<Self> {
        let named = bgp.neighbors.iter().find(|neighbor| {
            neighbor.peer.address() == status.address
                && neighbor.peer.interface() == status.interface.as_ref()
        });
        let holding = || {
            let host = IpNet::from(status.address);
            let ranges = bgp.ranges.iter().filter(|range| range.prefix.contains(&host));
            ranges.max_by_key(|range| range.prefix.prefix_len())
        };
        named.map(Self::Neighbor).or_else(|| holding().map(Self::Range))
    }

    fn session(&self) -> &'c model::Session {
        match self {
            Self::Neighbor(neighbor) => &neighbor.session,
            Self::Range(range) => &range.session,
        }
    }
}

fn neighbor_info(
    local_as: u32,
    config: &Bgp,
    status: &NeighborStatus,
    bfd: Option<&BfdStatus>,
) -> Option<BgpNeighborInfo> {
    let origin = Origin::of(config, status)?;
    let session = origin.session();
    let (port, shutdown, range) = match origin {
        Origin::Neighbor(neighbor) => (neighbor.port, neighbor.shutdown.clone(), None),
        Origin::Range(range) => (routing::bgp::config::BGP_PORT, None, Some(range.prefix)),
    };
    let negotiated = status.negotiated.as_ref();
    let peer = status.peer_capabilities.as_ref();
    let of_bfd = bfd.and_then(|bfd| {
        // Of an unnumbered neighbour the session may be there before it is connected.
        let unnumbered = status.address.is_unspecified() && status.remote.is_none();
        let same = |s: &&SessionStatus| {
            let link_local = matches!(s.key.peer, IpAddr::V6(v6) if v6.is_unicast_link_local());
            (s.key.interface.is_none() || s.key.interface == status.interface)
                && (s.key.peer == status.address
                    || status.remote.is_some_and(|remote| remote.ip() == s.key.peer)
                    || (unnumbered && link_local))
        };
        bfd.sessions.iter().find(same)
    });
    Some(BgpNeighborInfo {
        name: neighbor_name(status),
        address: status.address,
        interface: status.interface.clone(),
        range,
        description: status.description.clone(),
        local_as,
        remote_as_configured: match session.remote_as {
            model::RemoteAs::Exact(asn) => asn.to_string(),
            model::RemoteAs::External => "external".to_owned(),
            model::RemoteAs::Internal => "internal".to_owned(),
        },
        remote_as: negotiated.map(|n| n.remote_asn),
        remote_router_id: negotiated.map(|n| n.remote_id),
        state: bgp_state(status.state),
        state_age_s: status.state_age_ms / 1000,
        shutdown,
        transport: status.local.zip(status.remote).map(|(local, remote)| BgpTransport {
            local,
            remote,
            // Whoever dials comes from a port of the kernel's choice.
            passive: remote.port() != port,
        }),
        graceful_restart_s: session.graceful_restart,
        hold_time_configured_s: session.hold_time.as_secs() as u16,
        hold_time_s: negotiated.map(|n| n.hold_time.as_secs() as u16),
        keepalive_s: negotiated.map(|n| n.keepalive.as_secs() as u16),
        families: negotiated.map(|n| families(n.families)).unwrap_or_default(),
        capabilities: peer
            .map(|peer| capabilities(&status.local_capabilities, peer))
            .unwrap_or_default(),
        role: status.local_capabilities.role.map(role),
        remote_role: peer.and_then(|peer| peer.role).map(role),
        messages_in: messages(&status.received),
        messages_out: messages(&status.sent),
        prefixes_announced: status.prefixes_announced,
        in_sync: status.in_sync,
        unannounceable: status
            .unannounceable
            .iter()
            .map(|(prefix, reason)| RefusedPrefix {
                prefix: prefix.to_string(),
                reason: reason.clone(),
            })
            .collect(),
        prefixes_accepted: status.prefixes_accepted,
        max_prefixes: session.max_prefixes,
        update_errors: BgpUpdateErrors {
            treated_as_withdraw: status.update_errors.treated_as_withdraw,
            attributes_discarded: status.update_errors.attributes_discarded,
            last: status.update_errors.last.clone(),
        },
        last_error: status.last_error.as_ref().map(error),
        last_down: status.last_down.as_ref().map(error),
        established_count: status.established_count,
        retry_in_ms: status.retry_in_ms,
        security: BgpSecurity {
            md5: status.md5,
            ao: status.ao,
            gtsm: status.ttl_security,
            multihop: session.multihop,
        },
        bfd: of_bfd.map(|session| bfd_state(session.state)),
    })
}

fn error(error: &LastError) -> BgpErrorInfo {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    BgpErrorInfo {
        age_s: now.saturating_sub(Duration::from_millis(error.at_unix_ms)).as_secs(),
        direction: match error.direction {
            session::Direction::Sent => Direction::Sent,
            session::Direction::Received => Direction::Received,
            session::Direction::Connection => Direction::Local,
        },
        code: error.code,
        text: error.text.clone(),
    }
}

fn capabilities(ours: &Capabilities, theirs: &Capabilities) -> Vec<BgpCapability> {
    type Offers = fn(&Capabilities) -> bool;
    let rows: [(&str, Offers); 9] = [
        ("ipv4-unicast", |c| c.families.ipv4),
        ("ipv6-unicast", |c| c.families.ipv6),
        ("four-octet-as", |c| c.four_octet_as),
        ("route-refresh", |c| c.route_refresh),
        ("enhanced-route-refresh", |c| c.enhanced_route_refresh),
        ("extended-message", |c| c.extended_message),
        ("extended-next-hop", |c| c.extended_next_hop),
        ("graceful-restart", |c| c.graceful_restart.is_some()),
        ("role", |c| c.role.is_some()),
    ];
    let known = rows.into_iter().map(|(name, offers)| BgpCapability {
        name: name.to_owned(),
        local: offers(ours),
        remote: offers(theirs),
    });
    let unknown = theirs.unknown.iter().map(|code| BgpCapability {
        name: format!("code {code}"),
        local: false,
        remote: true,
    });
    known.chain(unknown).filter(|row| row.local || row.remote).collect()
}

fn role(role: Role) -> String {
    let word = match role {
        Role::Provider => "provider",
        Role::RouteServer => "route-server",
        Role::RouteServerClient => "route-server-client",
        Role::Customer => "customer",
        Role::Peer => "peer",
    };
    word.to_owned()
}

fn families(families: Families) -> Vec<String> {
    let names = [(families.ipv4, "ipv4-unicast"), (families.ipv6, "ipv6-unicast")];
    names.into_iter().filter(|(has, _)| *has).map(|(_, name)| name.to_owned()).collect()
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

/// BFD.
pub fn bfd(status: &BfdStatus) -> BfdInfo {
    let counters = &status.counters;
    BfdInfo {
        scheduling: status.scheduling.clone(),
        sessions: status.sessions.iter().map(bfd_session).collect(),
        dropped: BfdDrops {
            ttl: counters.dropped_ttl,
            malformed: counters.dropped_malformed,
            unknown_discriminator: counters.dropped_unknown_discriminator,
            unknown_peer: counters.dropped_unknown_peer,
            wrong_hops: counters.dropped_wrong_hops + counters.dropped_port,
        },
    }
}

fn bfd_session(session: &SessionStatus) -> BfdSessionInfo {
    let last_down = session.last_down.as_ref().map(|down| BfdLastDown {
        age_s: down.ago_ms / 1000,
        cause: cause(down.cause).to_owned(),
        diagnostic: diagnostic(down.diagnostic),
        remote_diagnostic: diagnostic(down.remote_diagnostic),
        failure: down.failure,
    });
    BfdSessionInfo {
        peer: session.key.peer,
        local: session.key.local,
        interface: session.key.interface.clone(),
        multihop: session.key.multihop,
        state: bfd_state(session.state),
        up_for_s: session.up_for_ms.map(|ms| ms / 1000),
        diagnostic: diagnostic(session.diagnostic),
        remote_state: bfd_state(session.remote_state),
        remote_diagnostic: diagnostic(session.remote_diagnostic),
        local_discriminator: session.local_discriminator,
        remote_discriminator: session.remote_discriminator,
        min_tx_us: session.min_tx_us,
        min_rx_us: session.min_rx_us,
        multiplier: session.multiplier,
        remote_min_tx_us: session.remote_min_tx_us,
        remote_min_rx_us: session.remote_min_rx_us,
        remote_multiplier: session.remote_multiplier,
        tx_interval_us: session.transmit_interval_us,
        rx_interval_us: session.remote_min_tx_us.max(session.advertised_min_rx_us),
        detection_time_us: session.detection_time_us,
        polling: session.polling,
        authentication: session.authentication.clone(),
        packets_in: session.counters.received,
        packets_out: session.counters.sent,
        dropped_auth: session.counters.dropped_auth,
        dropped_admin_down: session.counters.dropped_admin_down,
        send_errors: session.send_errors,
        up_count: session.counters.ups,
        failure_count: session.counters.failures,
        last_down,
        error: session.error.clone(),
        users: session.clients.iter().map(|client| user(client)).collect(),
    }
}

/// The configuration's sessions are those of BGP neighbours.
fn user(client: &str) -> String {
    if client == "config" { "bgp".to_owned() } else { client.to_owned() }
}

fn cause(cause: Cause) -> &'static str {
    match cause {
        Cause::Handshake => "handshake",
        Cause::DetectionTimeExpired => "nothing heard for the detection time",
        Cause::NeighborDown => "the peer says down",
        Cause::NeighborAdminDown => "the peer's operator took it down",
        Cause::LocalAdminDown => "taken down here",
        Cause::LocalAdminUp => "enabled here",
    }
}

/// Empty: there is none.
fn diagnostic(diagnostic: Diagnostic) -> String {
    match diagnostic {
        Diagnostic::None => String::new(),
        other => other.to_string(),
    }
}

fn bfd_state(state: bfd::State) -> BfdState {
    match state {
        bfd::State::AdminDown => BfdState::AdminDown,
        bfd::State::Down => BfdState::Down,
        bfd::State::Init => BfdState::Init,
        bfd::State::Up => BfdState::Up,
    }
}

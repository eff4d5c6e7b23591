//! From the configuration to the speaker: BGP, BFD, OSPF. The way back is in [`super::shown`].

use crate::config::model::{self, Config};
use ipnet::IpNet;
use kni::mirror::InstalledNextHop;
use routing::bfd::{AuthConfig, SessionConfig};
use routing::bgp::config::{AoKey, Import, NeighborConfig, Password, RemoteAs};
use routing::bgp::import::ImportedRoutes;
use routing::ospf::auth::Auth;
use routing::ospf::{self, BfdTimers, Version};
use routing::speaker::{DynamicPeer, RangeConfig, SpeakerConfig};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

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
        ao: session.ao.iter().filter_map(ao_key).collect(),
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
        graceful_restart: session.graceful_restart,
        ..NeighborConfig::new(Ipv6Addr::UNSPECIFIED.into(), remote_as)
    }
}

/// A length that the parser has seen to.
fn ao_key(key: &model::AoKey) -> Option<AoKey> {
    Some(AoKey {
        send_id: key.send_id,
        receive_id: key.receive_id,
        algorithm: key.algorithm,
        secret: Password::new(key.key.expose())?,
    })
}

/// A BFD session for every neighbour that wants one and is not shut down: of those whose address is
/// configured always, of the others while `present`.
pub fn bfd_sessions(config: &Config, present: &BTreeSet<DynamicPeer>) -> Vec<SessionConfig> {
    let Some(bgp) = &config.bgp else { return Vec::new() };
    let up = || bgp.neighbors.iter().filter(|neighbor| neighbor.shutdown.is_none());
    let configured = up().filter_map(|neighbor| {
        let bfd = neighbor.bfd.as_ref()?;
        let (address, interface) = match &neighbor.peer {
            model::Peer::Address(address) => (*address, None),
            model::Peer::LinkLocal { address, interface } => ((*address).into(), Some(interface)),
            model::Peer::Unnumbered(_) => return None,
        };
        let session = bfd_session(config, bfd, &neighbor.session, address, interface);
        Some(SessionConfig { local: neighbor.source, ..session })
    });
    let dynamic = present.iter().filter_map(|peer| {
        let interface = peer.interface.as_ref();
        let (bfd, session) = if let Some(prefix) = peer.range {
            let range = bgp.ranges.iter().find(|range| range.prefix == prefix)?;
            (&range.bfd, &range.session)
        } else {
            let unnumbered = interface.cloned().map(model::Peer::Unnumbered)?;
            let neighbor = up().find(|neighbor| neighbor.peer == unnumbered)?;
            (&neighbor.bfd, &neighbor.session)
        };
        Some(bfd_session(config, bfd.as_ref()?, session, peer.address, interface))
    });
    configured.chain(dynamic).collect()
}

fn bfd_session(
    config: &Config,
    bfd: &model::NeighborBfd,
    session: &model::Session,
    peer: IpAddr,
    interface: Option<&String>,
) -> SessionConfig {
    SessionConfig {
        peer,
        local: None,
        interface: interface.cloned(),
        multihop: session.multihop.is_some_and(|hops| hops > 1),
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
                auth: None,
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A neighbour by address, an unnumbered one and a range, with BFD of their own; a shut down one.
    const CONFIG: &str = r#"
node = { name = "n1", router-id = "10.0.0.1" }
dataplane = { workers = [1] }
bfd = { min-tx = "300ms", min-rx = "300ms" }
port = [
    { name = "wan0", device = "net_tap0", addresses = ["10.1.1.2/24"] },
    { name = "wan1", device = "net_tap1" },
    { name = "wan2", device = "net_tap2" },
]
[bgp]
asn = 65001
neighbor = [
    { address = "10.1.1.1", asn = 65000, bfd = true, source = "10.1.1.2" },
    { interface = "wan0", asn = 65000, bfd = { multiplier = 5 } },
    { interface = "wan1", asn = 65000, bfd = true, shutdown = "" },
    { interface = "wan2", asn = 65000 },
]
listen-range = [
    { prefix = "10.2.0.0/16", asn = "external", bfd = { min-tx = "50ms" } },
    { prefix = "10.3.0.0/16", asn = "external", bfd = true, multihop = 3 },
]
"#;

    fn peer(address: &str, interface: Option<&str>, range: Option<&str>) -> DynamicPeer {
        DynamicPeer {
            address: address.parse().unwrap(),
            interface: interface.map(str::to_owned),
            range: range.map(|range| range.parse().unwrap()),
        }
    }

    #[test]
    fn neighbours_are_followed_by_bfd_once_their_address_is_known() {
        let config = Config::parse(CONFIG, "test.toml").unwrap_or_else(|errors| panic!("{errors}"));
        let addresses = |present: &BTreeSet<DynamicPeer>| -> Vec<String> {
            let sessions = bfd_sessions(&config, present);
            assert!(sessions.iter().all(|session| session.check().is_ok()), "{sessions:?}");
            sessions.iter().map(|session| session.peer.to_string()).collect()
        };
        assert_eq!(addresses(&BTreeSet::new()), ["10.1.1.1"]);
        let present = BTreeSet::from([
            peer("fe80::a", Some("wan0"), None),
            peer("fe80::a", Some("wan1"), None),
            peer("fe80::a", Some("wan2"), None),
            peer("10.2.0.7", None, Some("10.2.0.0/16")),
            peer("10.3.0.7", None, Some("10.3.0.0/16")),
            peer("10.9.0.7", None, Some("10.9.0.0/16")),
        ]);
        assert_eq!(addresses(&present), ["10.1.1.1", "10.2.0.7", "10.3.0.7", "fe80::a"]);
        let sessions = bfd_sessions(&config, &present);
        let of = |peer: &str| sessions.iter().find(|s| s.peer.to_string() == peer).unwrap();
        assert_eq!(of("10.1.1.1").local, Some("10.1.1.2".parse().unwrap()));
        let unnumbered = of("fe80::a");
        assert_eq!((unnumbered.interface.as_deref(), unnumbered.multiplier), (Some("wan0"), 5));
        assert_eq!(of("10.2.0.7").min_tx.as_millis(), 50);
        assert!(of("10.3.0.7").multihop && !of("10.2.0.7").multihop);
    }
}

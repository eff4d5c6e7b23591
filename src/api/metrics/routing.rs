//! Families of announcements and sessions.

use super::exposition::{Exposition, Kind, Value};
use crate::api::model::{
    AnnounceInfo, BfdInfo, BfdSessionInfo, BfdState, BgpInfo, BgpNeighborInfo, BgpState, OspfInfo,
    OspfNeighborState,
};

pub(super) fn announce(out: &mut Exposition, announce: &[AnnounceInfo]) {
    out.family(
        "dunlin_announcement_wanted",
        Kind::Gauge,
        "1 if the prefix should be announced now, else 0.",
    );
    for entry in announce {
        out.sample(&[("prefix", &entry.prefix.to_string())], u64::from(entry.wanted));
    }
    out.family("dunlin_announcement_peers", Kind::Gauge, "Peers that have the prefix from us.");
    for entry in announce {
        let sent = entry.peers.iter().filter(|peer| peer.sent).count();
        out.sample(&[("prefix", &entry.prefix.to_string())], sent as u64);
    }
}

pub(super) fn sessions(out: &mut Exposition, bgp: &BgpInfo) {
    let labels = |n: &BgpNeighborInfo| vec![("neighbor", n.name.clone())];
    type Read = fn(&BgpNeighborInfo) -> u64;
    let families: [(&str, Kind, &str, Read); 9] = [
        ("up", Kind::Gauge, "1 if the session is established, else 0.", |n| {
            u64::from(n.state == BgpState::Established)
        }),
        ("state_age_seconds", Kind::Gauge, "Time in the present state.", |n| n.state_age_s),
        ("established_total", Kind::Counter, "Times the session came up.", |n| n.established_count),
        ("in_sync", Kind::Gauge, "1 if all that is wanted has been sent, else 0.", |n| {
            u64::from(n.in_sync)
        }),
        ("prefixes_announced", Kind::Gauge, "Prefixes announced to the peer.", |n| {
            n.prefixes_announced
        }),
        (
            "prefixes_unannounceable",
            Kind::Gauge,
            "Prefixes that are wanted but cannot be said to the peer.",
            |n| n.unannounceable.len() as u64,
        ),
        ("prefixes_accepted", Kind::Gauge, "Received prefixes that the policy let through.", |n| {
            n.prefixes_accepted
        }),
        (
            "treated_as_withdraw_total",
            Kind::Counter,
            "Malformed updates taken as withdrawals (RFC 7606).",
            |n| n.update_errors.treated_as_withdraw,
        ),
        (
            "attributes_discarded_total",
            Kind::Counter,
            "Malformed attributes of updates passed over (RFC 7606).",
            |n| n.update_errors.attributes_discarded,
        ),
    ];
    for (name, kind, help, value) in families {
        out.family(&format!("dunlin_bgp_session_{name}"), kind, help);
        for neighbor in &bgp.neighbors {
            out.sample_owned(&labels(neighbor), value(neighbor));
        }
    }
    out.family("dunlin_bgp_messages_total", Kind::Counter, "Messages, by type and direction.");
    for neighbor in &bgp.neighbors {
        let both = [("received", neighbor.messages_in), ("sent", neighbor.messages_out)];
        for (direction, messages) in both {
            for (kind, count) in messages.by_type() {
                let mut labels = labels(neighbor);
                labels.push(("direction", direction.to_owned()));
                labels.push(("type", kind.to_owned()));
                out.sample_owned(&labels, count);
            }
        }
    }
    out.family(
        "dunlin_bgp_unknown_peers_total",
        Kind::Counter,
        "Connections refused because nobody is configured at their address.",
    );
    out.sample(&[], bgp.unknown_peers);
    out.family(
        "dunlin_tcp_security_drops_total",
        Kind::Counter,
        "Segments that the kernel dropped for their MD5 or AO signature or TTL, all TCP of the host.",
    );
    let kernel = bgp.kernel;
    out.sample(&[("reason", "md5-failure")], kernel.md5_failure);
    out.sample(&[("reason", "md5-not-found")], kernel.md5_not_found);
    out.sample(&[("reason", "md5-unexpected")], kernel.md5_unexpected);
    out.sample(&[("reason", "min-ttl")], kernel.min_ttl_drop);
    out.sample(&[("reason", "ao-bad")], kernel.ao_bad);
    out.sample(&[("reason", "ao-key-not-found")], kernel.ao_key_not_found);
    out.sample(&[("reason", "ao-required")], kernel.ao_required);
}

pub(super) fn bfd(out: &mut Exposition, bfd: &BfdInfo) {
    type Read = fn(&BfdSessionInfo) -> Value;
    let families: [(&str, Kind, &str, Read); 7] = [
        ("up", Kind::Gauge, "1 if the session is up, else 0.", |s| {
            u64::from(s.state == BfdState::Up).into()
        }),
        ("detection_time_seconds", Kind::Gauge, "Silence after which the session fails.", |s| {
            (s.detection_time_us as f64 / 1e6).into()
        }),
        ("up_total", Kind::Counter, "Times the session came up.", |s| s.up_count.into()),
        ("failures_total", Kind::Counter, "Times it fell because the path failed.", |s| {
            s.failure_count.into()
        }),
        ("receive_packets_total", Kind::Counter, "Packets received.", |s| s.packets_in.into()),
        ("transmit_packets_total", Kind::Counter, "Packets sent.", |s| s.packets_out.into()),
        ("auth_drops_total", Kind::Counter, "Packets that failed authentication.", |s| {
            s.dropped_auth.into()
        }),
    ];
    for (name, kind, help, value) in families {
        out.family(&format!("dunlin_bfd_session_{name}"), kind, help);
        for session in &bfd.sessions {
            let interface = session.interface.as_deref().unwrap_or("");
            let peer = session.peer.to_string();
            out.sample(&[("peer", &peer), ("interface", interface)], value(session));
        }
    }
    let help = "Received BFD packets that belong to no session, by reason.";
    out.family("dunlin_bfd_drops_total", Kind::Counter, help);
    for (reason, count) in bfd.dropped.by_reason() {
        out.sample(&[("reason", reason)], count);
    }
}

pub(super) fn ospf(out: &mut Exposition, versions: &[OspfInfo]) {
    if versions.is_empty() {
        return;
    }
    let help = "1 if the adjacency is full, else 0.";
    out.family("dunlin_ospf_neighbor_full", Kind::Gauge, help);
    for neighbor in versions.iter().flat_map(|ospf| &ospf.neighbors) {
        let full = u64::from(neighbor.state == OspfNeighborState::Full);
        let labels = [
            ("version", neighbor.version.to_string()),
            ("interface", neighbor.interface.clone()),
            ("neighbor", neighbor.router_id.to_string()),
        ];
        out.sample_owned(&labels, full);
    }
    out.family("dunlin_ospf_lsas", Kind::Gauge, "LSAs in the database, by type.");
    for ospf in versions {
        for lsas in &ospf.database {
            let labels = [("version", ospf.version.to_string()), ("type", lsas.kind.clone())];
            out.sample_owned(&labels, lsas.count);
        }
    }
    out.family("dunlin_ospf_own_lsas", Kind::Gauge, "LSAs originated here, by type.");
    for ospf in versions {
        for lsas in &ospf.database {
            let labels = [("version", ospf.version.to_string()), ("type", lsas.kind.clone())];
            out.sample_owned(&labels, lsas.own);
        }
    }
    let help = "Prefixes that are wanted but that OSPF cannot carry.";
    out.family("dunlin_ospf_prefixes_refused", Kind::Gauge, help);
    for ospf in versions {
        let labels = [("version", ospf.version.to_string())];
        out.sample_owned(&labels, ospf.refused.len() as u64);
    }
    out.family("dunlin_ospf_packets_total", Kind::Counter, "OSPF packets, by direction.");
    for ospf in versions {
        for (direction, count) in [("received", ospf.packets.received), ("sent", ospf.packets_sent)]
        {
            let labels =
                [("version", ospf.version.to_string()), ("direction", direction.to_owned())];
            out.sample_owned(&labels, count);
        }
    }
    out.family("dunlin_ospf_drops_total", Kind::Counter, "Received packets dropped, by reason.");
    for ospf in versions {
        for (reason, count) in ospf.packets.drops() {
            let labels = [("version", ospf.version.to_string()), ("reason", reason.to_owned())];
            out.sample_owned(&labels, count);
        }
    }
}

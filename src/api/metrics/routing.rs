//! Families of announcements and sessions.

use super::exposition::{Exposition, Kind, Value};
use crate::api::model::{
    AnnounceInfo, BfdSessionInfo, BfdState, BgpInfo, BgpNeighborInfo, BgpState,
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
    let labels = |n: &BgpNeighborInfo| vec![("neighbor", n.address.to_string())];
    type Read = fn(&BgpNeighborInfo) -> u64;
    let families: [(&str, Kind, &str, Read); 6] = [
        ("up", Kind::Gauge, "1 if the session is established, else 0.", |n| {
            u64::from(n.state == BgpState::Established)
        }),
        ("state_age_seconds", Kind::Gauge, "Time in the present state.", |n| n.state_age_s),
        ("established_total", Kind::Counter, "Times the session came up.", |n| n.established_count),
        ("prefixes_announced", Kind::Gauge, "Prefixes announced to the peer.", |n| {
            n.prefixes_announced
        }),
        ("prefixes_received", Kind::Gauge, "Prefixes received from the peer.", |n| {
            n.prefixes_received
        }),
        ("prefixes_accepted", Kind::Gauge, "Received prefixes that the policy let through.", |n| {
            n.prefixes_accepted
        }),
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
        "dunlin_tcp_security_drops_total",
        Kind::Counter,
        "Segments that the kernel dropped for their MD5 signature or TTL, all TCP of the host.",
    );
    let kernel = bgp.kernel;
    out.sample(&[("reason", "md5-failure")], kernel.md5_failure);
    out.sample(&[("reason", "md5-not-found")], kernel.md5_not_found);
    out.sample(&[("reason", "md5-unexpected")], kernel.md5_unexpected);
    out.sample(&[("reason", "min-ttl")], kernel.min_ttl_drop);
}

pub(super) fn bfd(out: &mut Exposition, sessions: &[BfdSessionInfo]) {
    type Read = fn(&BfdSessionInfo) -> Value;
    let families: [(&str, Kind, &str, Read); 6] = [
        ("up", Kind::Gauge, "1 if the session is up, else 0.", |s| {
            u64::from(s.state == BfdState::Up).into()
        }),
        ("detection_time_seconds", Kind::Gauge, "Silence after which the session fails.", |s| {
            (s.detection_time_us as f64 / 1e6).into()
        }),
        ("up_total", Kind::Counter, "Times the session came up.", |s| s.up_count.into()),
        ("receive_packets_total", Kind::Counter, "Packets received.", |s| s.packets_in.into()),
        ("transmit_packets_total", Kind::Counter, "Packets sent.", |s| s.packets_out.into()),
        ("invalid_packets_total", Kind::Counter, "Packets received and refused.", |s| {
            s.packets_invalid.into()
        }),
    ];
    for (name, kind, help, value) in families {
        out.family(&format!("dunlin_bfd_session_{name}"), kind, help);
        for session in sessions {
            let interface = session.interface.as_deref().unwrap_or("");
            let peer = session.peer.to_string();
            out.sample(&[("peer", &peer), ("interface", interface)], value(session));
        }
    }
}

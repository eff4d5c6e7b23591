//! Families of the flows shared with other nodes.

use super::exposition::{Exposition, Kind};
use crate::api::model::{ClusterInfo, ClusterPeerInfo, SharedFlows};

pub(super) fn all(out: &mut Exposition, cluster: &ClusterInfo) {
    flows(out, cluster.flows);
    let datagrams = &cluster.datagrams;
    let families = [
        ("datagrams_sent_total", "Datagrams sent to other nodes.", datagrams.sent),
        ("datagrams_received_total", "Datagrams from the address of a peer.", datagrams.received),
        ("unanswered_total", "Questions that not every peer answered.", cluster.unanswered),
        ("overloaded_total", "Work refused because something was full.", cluster.overloaded),
    ];
    for (name, help, value) in families {
        out.family(&format!("dunlin_cluster_{name}"), Kind::Counter, help);
        out.sample(&[], value);
    }
    out.family(
        "dunlin_cluster_datagrams_refused_total",
        Kind::Counter,
        "Datagrams refused, by reason.",
    );
    for (reason, count) in datagrams.refused() {
        out.sample(&[("reason", reason)], count);
    }
    type Read = fn(&ClusterPeerInfo) -> u64;
    let families: [(&str, &str, Read); 2] = [
        ("answers_total", "Questions that the peer answered.", |peer| peer.answers),
        ("silences_total", "Questions that the peer did not answer.", |peer| peer.silences),
    ];
    for (name, help, value) in families {
        out.family(&format!("dunlin_cluster_peer_{name}"), Kind::Counter, help);
        for peer in &cluster.peers {
            out.sample(&[("peer", &peer.address.to_string())], value(peer));
        }
    }
}

fn flows(out: &mut Exposition, flows: SharedFlows) {
    out.family(
        "dunlin_cluster_flows_adopted",
        Kind::Gauge,
        "Flows of other nodes that are carried on here.",
    );
    out.sample(&[], flows.adopted);
    let families = [
        ("adoptions_total", "Flows of other nodes taken over.", flows.adoptions),
        ("refused_total", "Answers that could not be used.", flows.refused),
        ("unconfirmed_total", "Adopted flows that their owner did not confirm.", flows.unconfirmed),
        ("asked_total", "Flows that peers were asked for.", flows.asked),
        ("not_asked_total", "Flows not asked for, to limit questions.", flows.not_asked),
        ("looked_up_total", "Flows that peers asked for, by worker.", flows.looked_up),
        ("found_total", "Flows that peers asked for and this node has.", flows.found),
    ];
    for (name, help, value) in families {
        out.family(&format!("dunlin_cluster_flows_{name}"), Kind::Counter, help);
        out.sample(&[], value);
    }
}

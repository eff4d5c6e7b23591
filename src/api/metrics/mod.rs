//! Prometheus text (exposition format 0.0.4) from the same answers that the API gives.
//!
//! A pure function. Names begin with `dunlin_`, units are base units (seconds, bytes), counters end
//! in `_total`; docs/cli.md lists what to alert on.

mod cluster;
mod exposition;
mod forwarding;
mod routing;

use super::model::{
    AnnounceInfo, BackendInfo, BfdInfo, BgpInfo, ClusterInfo, DropInfo, HealthState, OspfInfo,
    PortInfo, ServiceInfo, Status,
};
use exposition::{Exposition, Kind};

/// Content type of the exposition.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What one scrape sees. The parts are read one after another, so they may differ by a moment.
#[derive(Debug, Clone)]
pub struct Snapshot {
    pub status: Status,
    pub services: Vec<ServiceInfo>,
    pub backends: Vec<BackendInfo>,
    /// `None`: BGP is not configured.
    pub bgp: Option<BgpInfo>,
    pub bfd: BfdInfo,
    pub ospf: Vec<OspfInfo>,
    /// `None`: flows are not shared.
    pub cluster: Option<ClusterInfo>,
    pub ports: Vec<PortInfo>,
    pub drops: Vec<DropInfo>,
    pub announce: Vec<AnnounceInfo>,
}

/// The text of one scrape.
pub fn render(snapshot: &Snapshot) -> String {
    let mut out = Exposition::default();
    node(&mut out, &snapshot.status);
    forwarding::workers(&mut out, &snapshot.status.workers);
    forwarding::drops(&mut out, &snapshot.drops);
    forwarding::ports(&mut out, &snapshot.ports);
    forwarding::services(&mut out, &snapshot.services);
    forwarding::backends(&mut out, &snapshot.backends);
    routing::announce(&mut out, &snapshot.announce);
    if let Some(bgp) = &snapshot.bgp {
        routing::sessions(&mut out, bgp);
    }
    routing::bfd(&mut out, &snapshot.bfd);
    routing::ospf(&mut out, &snapshot.ospf);
    if let Some(cluster) = &snapshot.cluster {
        cluster::all(&mut out, cluster);
    }
    out.finish()
}

fn node(out: &mut Exposition, status: &Status) {
    out.family("dunlin_build_info", Kind::Gauge, "Always 1; the version is a label.");
    out.sample(&[("version", &status.version)], 1);
    out.family("dunlin_uptime_seconds", Kind::Gauge, "Time since the node started.");
    out.sample(&[], status.uptime_s);
    out.family(
        "dunlin_healthy",
        Kind::Gauge,
        "1 if everything that is configured works and the node is in service, else 0.",
    );
    out.sample(&[], u64::from(status.health.state == HealthState::Ok));
    out.family("dunlin_draining", Kind::Gauge, "1 if an operator drains the node, else 0.");
    out.sample(&[], u64::from(status.drain.is_some()));
    out.family(
        "dunlin_config_loaded_timestamp_seconds",
        Kind::Gauge,
        "When the running configuration was taken, Unix time.",
    );
    out.sample(&[], status.config_loaded_at);
    out.family(
        "dunlin_config_last_reload_successful",
        Kind::Gauge,
        "0 if the last reload failed and changed nothing, else 1.",
    );
    out.sample(&[], u64::from(status.config_error.is_none()));
    out.family(
        "dunlin_tables_epoch",
        Kind::Gauge,
        "Epoch of the tables last published to the workers.",
    );
    out.sample(&[], status.tables_epoch);
}

//! The exchange of flows with the other nodes, as a node runs it.

use super::dataplane::Dataplane;
use crate::api::model::{ClusterDatagrams, ClusterInfo, ClusterPeerInfo, SharedFlows};
use crate::cluster::{self, ClusterStats, ExchangeConfig, PeerStats};
use crate::config::Config;
use crate::forward::stats::{Counter, SharingStats};
use crate::worker::Shared;
use anyhow::{Context, Result};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;

/// An exchange that runs.
#[derive(Debug)]
pub struct Sharing {
    /// Ours.
    pub address: SocketAddr,
    pub stats: Arc<ClusterStats>,
    pub started: Instant,
    task: JoinHandle<()>,
}

impl Sharing {
    /// `None`: the configuration wants none.
    pub fn start(config: &Config, dataplane: &mut Dataplane) -> Result<Option<Self>> {
        let Some(cluster) = &config.cluster else {
            return Ok(None);
        };
        let socket = cluster::bind(cluster.address)
            .with_context(|| format!("cluster: cannot listen on {}", cluster.address))?;
        let stats = Arc::new(ClusterStats::new(&cluster.peers));
        let exchange = ExchangeConfig {
            node: config.node.router_id,
            key: cluster.key.expose().as_bytes().to_vec(),
            peers: cluster.peers.clone(),
            workers: config.dataplane.workers.len() as u16,
            seed: rand::random(),
        };
        let workers = std::mem::take(&mut dataplane.sharing);
        let news = Arc::clone(&dataplane.news);
        let task = cluster::spawn(socket, exchange, workers, news, Arc::clone(&stats));
        tracing::info!(address = %cluster.address, peers = ?cluster.peers, "flows are shared");
        Ok(Some(Self { address: cluster.address, stats, started: Instant::now(), task }))
    }
}

impl Sharing {
    pub fn info(&self, workers: &[Arc<Shared>]) -> ClusterInfo {
        let stats = &self.stats;
        let sum = |count: fn(&SharingStats) -> &Counter| {
            workers.iter().map(|worker| count(&worker.stats.sharing).get()).sum()
        };
        let uptime = self.started.elapsed();
        let peer = |peer: &PeerStats| ClusterPeerInfo {
            address: peer.address,
            heard_s: peer
                .heard_ms()
                .map(|ms| uptime.saturating_sub(Duration::from_millis(ms)).as_secs()),
            answers: peer.answers.get(),
            silences: peer.silences.get(),
        };
        ClusterInfo {
            address: self.address,
            peers: stats.peers.iter().map(peer).collect(),
            flows: SharedFlows {
                adopted: sum(|s| &s.adopted),
                adoptions: sum(|s| &s.adoptions),
                refused: sum(|s| &s.refused),
                unconfirmed: sum(|s| &s.unconfirmed),
                asked: sum(|s| &s.asked),
                not_asked: sum(|s| &s.not_asked),
                looked_up: sum(|s| &s.looked_up),
                found: sum(|s| &s.found),
            },
            datagrams: ClusterDatagrams {
                sent: stats.sent.get(),
                received: stats.received.get(),
                unknown_source: stats.unknown_source.get(),
                bad_signature: stats.bad_signature.get(),
                malformed: stats.malformed.get(),
                unexpected: stats.unexpected.get(),
            },
            unanswered: stats.unanswered.get(),
            overloaded: stats.overloaded.get(),
        }
    }
}

impl Drop for Sharing {
    fn drop(&mut self) {
        self.task.abort();
    }
}

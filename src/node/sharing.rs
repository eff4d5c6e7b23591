//! The exchange of flows with the other nodes, as a node runs it.

use super::dataplane::Dataplane;
use crate::cluster::{self, ClusterStats, ExchangeConfig};
use crate::config::Config;
use anyhow::{Context, Result};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;
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

impl Drop for Sharing {
    fn drop(&mut self) {
        self.task.abort();
    }
}

//! Routes taken from all neighbours, and the best of them for whoever installs them.

use super::lock;
use super::registry::PeerKey;
use crate::bgp::import::{ImportedRoutes, Route, select};
use ipnet::IpNet;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use tokio::sync::watch;

/// Accepted routes by neighbour, and their selection as the latest value.
#[derive(Debug)]
pub(super) struct Imports {
    neighbors: Mutex<BTreeMap<PeerKey, BTreeMap<IpNet, Route>>>,
    selected: watch::Sender<Arc<ImportedRoutes>>,
}

impl Default for Imports {
    fn default() -> Self {
        Self {
            neighbors: Mutex::default(),
            selected: watch::Sender::new(Arc::new(ImportedRoutes::new())),
        }
    }
}

impl Imports {
    pub fn subscribe(&self) -> watch::Receiver<Arc<ImportedRoutes>> {
        self.selected.subscribe()
    }

    /// `routes` is now all that is taken from `neighbor`.
    pub fn replace(&self, neighbor: &PeerKey, routes: &BTreeMap<IpNet, Route>) {
        let mut neighbors = lock(&self.neighbors);
        if routes.is_empty() {
            neighbors.remove(neighbor);
        } else {
            neighbors.insert(neighbor.clone(), routes.clone());
        }
        let selected = select(neighbors.values());
        // Under the lock, so that the latest value is the last one sent.
        self.selected.send_if_modified(|current| {
            let differs = **current != selected;
            if differs {
                *current = Arc::new(selected);
            }
            differs
        });
    }
}

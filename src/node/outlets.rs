//! Where the owner's decisions go: tables to the workers, announcements to the speaker, targets to
//! the checker, neighbours to the kernel.

use super::kernel::Interfaces;
use super::steering::Rules;
use crate::control::owner::Outputs;
use crate::forward::Tables;
use crate::forward::tables::{PortId, TablesSpec};
use crate::health::{CheckerHandle, Target};
use crate::worker::Published;
use kni::mirror::MirrorHandle;
use routing::Wanted;
use routing::ospf::OspfHandle;
use std::collections::{BTreeSet, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use tokio::sync::watch;

/// The receivers. Each takes the latest whole value and reconciles by itself.
#[derive(Debug)]
pub struct Outlets {
    pub published: Arc<Published>,
    pub wanted: watch::Sender<Arc<Wanted>>,
    /// One for each configured version.
    pub ospf: Vec<OspfHandle>,
    pub checker: CheckerHandle,
    pub mirror: MirrorHandle,
    pub interfaces: Interfaces,
    pub in_use: BTreeSet<(PortId, IpAddr)>,
    /// In the NICs.
    pub rules: Rules,
}

impl Outlets {
    /// Tell the mirror which neighbours to keep fresh, by the interfaces as they are now.
    pub fn refresh_neighbours(&self) {
        let keys = self
            .in_use
            .iter()
            .filter_map(|(port, address)| Some((self.interfaces.index(*port)?, *address)))
            .collect();
        self.mirror.keep_fresh(keys);
    }
}

impl Outputs for Outlets {
    fn tables(&mut self, spec: &TablesSpec) -> bool {
        match Tables::build(spec, Some(&self.published.load())) {
            Ok(tables) => {
                let anew = tables.anew();
                tracing::debug!(epoch = spec.epoch, ?anew, "tables published");
                self.published.publish(Arc::new(tables));
                self.rules.follow(&spec.lips);
                true
            }
            Err(error) => {
                tracing::error!(epoch = spec.epoch, %error, "tables not built; the old ones stay");
                false
            }
        }
    }

    fn announce(&mut self, wanted: Wanted) {
        for ospf in &self.ospf {
            ospf.set_wanted(wanted.clone());
        }
        // Kept even while nobody receives: a speaker that comes later finds the latest value.
        self.wanted.send_replace(Arc::new(wanted));
    }

    fn targets(&mut self, targets: &HashSet<Target>) {
        self.checker.set_targets(targets.iter().cloned());
    }

    fn neighbours(&mut self, in_use: &BTreeSet<(PortId, IpAddr)>) {
        self.in_use.clone_from(in_use);
        self.refresh_neighbours();
    }
}

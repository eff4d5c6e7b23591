//! Whether the way to a service's backends is known, and whether all there is to know is known.

use super::announce::Path;
use super::state::{ServiceState, State};
use crate::forward::tables::PortId;

impl State {
    /// All that has to be found out about what is configured has been: every check has a result,
    /// every worker has the tables, and where a backend is usable the way to it is known.
    pub fn is_settled(&self) -> bool {
        let oldest = self.workers.iter().map(|w| w.epoch).min().unwrap_or(0);
        let known = |service: &ServiceState| {
            service.since_epoch != 0
                && service.since_epoch <= oldest
                && (service.path_proven || self.best_path(service) != Some(Path::Unresolved))
        };
        self.targets.iter().all(|target| self.health.contains_key(target))
            && self.services.values().filter(|s| s.removed.is_none()).all(known)
            && oldest != 0
    }

    /// The best of the ways to the service's usable backends; `None` without such a backend.
    pub(super) fn best_path(&self, service: &ServiceState) -> Option<Path> {
        let link_up = |port: PortId| self.ports.get(usize::from(port.0)).is_some_and(|p| p.up);
        let mut best = None;
        for backend in service.backends.iter().filter(|b| self.usable(b)) {
            match self.kernel.path(backend.address.ip(), link_up) {
                Path::Proven => return Some(Path::Proven),
                Path::Unresolved => best = Some(Path::Unresolved),
                Path::Down => best = best.or(Some(Path::Down)),
            }
        }
        best
    }

    /// To be called once after a batch of events, before the decisions are asked for: remembers
    /// which services have been reachable. The loss of the way as a whole is believed at once; a
    /// neighbour that the kernel forgets is left to the health checks.
    pub(super) fn prove_paths(&mut self) {
        let changes: Vec<_> = self
            .services
            .values()
            .filter(|service| service.removed.is_none())
            .filter_map(|service| {
                let proven = match self.best_path(service)? {
                    Path::Proven => true,
                    Path::Down => false,
                    Path::Unresolved => return None,
                };
                (proven != service.path_proven).then_some((service.key, proven))
            })
            .collect();
        for (key, proven) in changes {
            if let Some(service) = self.services.get_mut(&key) {
                service.path_proven = proven;
            }
        }
    }
}

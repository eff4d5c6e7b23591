//! Which worker a packet belongs to.
//!
//! A reply must reach the worker that owns its flow. The owner is a function of the LIP and the
//! local port alone, so every worker can say who it is. Today there is one way, which is right on
//! every port; hardware steering (a flow rule per LIP, or local ports chosen by their RSS hash)
//! are further variants of [`Steering`]: each says which local ports a worker may use and who owns
//! what.

use super::tables::{LipId, PortId, WorkerId};

/// First local port of flows; below are ports that mean something to middleboxes and people.
pub const FIRST_LOCAL_PORT: u16 = 1024;

/// How packets reach their worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Steering {
    /// Local port modulo the number of workers owns replies; whoever receives another's packet
    /// hands it over. Requests belong to the worker that receives them if the port has RSS, else
    /// to the worker that their hash names.
    Software {
        /// By port: its receive queues are chosen by an RSS hash over addresses and ports, the
        /// same hash on all ports. Missing ones have none.
        rss: Vec<bool>,
    },
}

impl Default for Steering {
    fn default() -> Self {
        Self::Software { rss: Vec::new() }
    }
}

impl Steering {
    /// The owner of a request that arrived on `port`; `None`: whoever received it. `hash`: of its
    /// tuple, 32 uniform bits that all workers compute alike.
    pub fn owner_of_request(&self, port: PortId, hash: u32, workers: u16) -> Option<WorkerId> {
        let Self::Software { rss } = self;
        if rss.get(usize::from(port.0)) == Some(&true) {
            return None;
        }
        Some(WorkerId(((u64::from(hash) * u64::from(workers)) >> 32) as u16))
    }

    /// The owner of a reply to this LIP and local port (host order).
    pub fn owner_of_reply(&self, _lip: LipId, local_port: u16, workers: u16) -> WorkerId {
        let Self::Software { .. } = self;
        WorkerId(local_port % workers.max(1))
    }

    /// How many local ports of one LIP a worker may use.
    pub fn local_ports(&self, worker: WorkerId, workers: u16) -> u32 {
        let Self::Software { .. } = self;
        let workers = u32::from(workers.max(1));
        let all = 0x1_0000 - u32::from(FIRST_LOCAL_PORT);
        let first = Self::first_of(worker, workers);
        all.saturating_sub(first).div_ceil(workers)
    }

    /// The `n`th of a worker's [`Steering::local_ports`], host order.
    pub fn local_port(&self, worker: WorkerId, workers: u16, n: u32) -> u16 {
        let Self::Software { .. } = self;
        let workers = u32::from(workers.max(1));
        (u32::from(FIRST_LOCAL_PORT) + Self::first_of(worker, workers) + n * workers) as u16
    }

    /// Distance from the first local port to the worker's own first.
    fn first_of(worker: WorkerId, workers: u32) -> u32 {
        let remainder = u32::from(FIRST_LOCAL_PORT) % workers;
        (u32::from(worker.0) + workers - remainder) % workers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_local_port_has_one_owner_who_may_use_it() {
        let steering = Steering::default();
        for workers in [1, 2, 3, 7, 64, 1000] {
            let mut uses = vec![0; 0x1_0000];
            for worker in (0..workers).map(WorkerId) {
                for n in 0..steering.local_ports(worker, workers) {
                    let port = steering.local_port(worker, workers, n);
                    assert_eq!(steering.owner_of_reply(LipId(3), port, workers), worker);
                    uses[usize::from(port)] += 1;
                }
            }
            assert!(uses[..1024].iter().all(|&n| n == 0), "{workers} workers");
            assert!(uses[1024..].iter().all(|&n| n == 1), "{workers} workers");
        }
    }

    #[test]
    fn requests_are_spread_by_hash_only_where_there_is_no_rss() {
        let steering = Steering::Software { rss: vec![true, false] };
        assert_eq!(steering.owner_of_request(PortId(0), 77, 4), None);
        for port in [1, 9] {
            let owner = |hash| steering.owner_of_request(PortId(port), hash, 4);
            assert_eq!(owner(0), Some(WorkerId(0)));
            assert_eq!(owner(u32::MAX), Some(WorkerId(3)));
        }
    }
}

//! Local addresses and ports for new flows.
//!
//! Each backend has the whole space of this worker's LIP:port pairs to itself: a pair may be in
//! use toward several backends at once, since the backend is part of a reply's tuple. What is in
//! use is not booked here but asked of the flow table, the one truth: nothing can leak, and
//! nothing can be given twice, not even when two services share a backend's address.
//!
//! Per backend there is only a cursor, which walks over all LIPs and then on to the next port. A
//! port given back is therefore used last: it rests for a whole round of the space. O(1): a
//! handful of steps at any use below nine tenths. Beyond, some attempts give up although a free
//! pair exists; the next attempt goes on from there. They are counted as `pool-exhausted`.

use super::build::Tables;
use super::hash::Seed;
use super::steering::Steering;
use super::tables::{BackendId, LipId, WorkerId};

/// Pairs tried for one flow.
const ATTEMPTS: u32 = 64;

#[derive(Debug)]
pub(super) struct Pool {
    worker: WorkerId,
    workers: u16,
    seed: Seed,
    steering: Steering,
    backends: Vec<BackendPool>,
}

#[derive(Debug, Clone, Copy, Default)]
struct BackendPool {
    cursor: u32,
    active: u32,
}

impl Pool {
    pub fn new(worker: WorkerId, workers: u16, seed: Seed, steering: Steering) -> Self {
        Self { worker, workers, seed, steering, backends: Vec::new() }
    }

    pub fn steering(&self) -> &Steering {
        &self.steering
    }

    /// Room for the backends of these tables. Allocates if there are more than before.
    pub fn set_tables(&mut self, tables: &Tables) {
        for backend in self.backends.len()..tables.backend_slots() {
            let name = [backend as u32, u32::from(self.worker.0)].map(u32::to_ne_bytes);
            self.backends.push(BackendPool {
                cursor: self.seed.bytes(name.as_flattened()) as u32,
                active: 0,
            });
        }
    }

    /// Pairs of a family that this worker may use toward one backend.
    pub fn capacity(&self, tables: &Tables, v6: bool) -> u32 {
        let ports = self.steering.local_ports(self.worker, self.workers);
        ports.saturating_mul(tables.lips_of(v6).len() as u32)
    }

    /// The next pair toward `backend` that `is_free`; the port is in host order. `None`: none was
    /// found. The pair counts as used from now on.
    pub fn take(
        &mut self,
        tables: &Tables,
        backend: BackendId,
        v6: bool,
        mut is_free: impl FnMut(LipId, u16) -> bool,
    ) -> Option<(LipId, u16)> {
        let capacity = self.capacity(tables, v6);
        let lips = tables.lips_of(v6);
        let pool = self.backends.get_mut(backend.0 as usize)?;
        if pool.active >= capacity {
            return None;
        }
        for _ in 0..ATTEMPTS.min(capacity) {
            let at = pool.cursor % capacity;
            pool.cursor = at + 1;
            let lip = lips[at as usize % lips.len()];
            let n = at / lips.len() as u32;
            let port = self.steering.local_port(self.worker, self.workers, n);
            if is_free(lip, port) {
                pool.active += 1;
                return Some((lip, port));
            }
        }
        None
    }

    /// A pair toward `backend` is not used any more.
    pub fn give(&mut self, backend: BackendId) {
        if let Some(pool) = self.backends.get_mut(backend.0 as usize) {
            pool.active = pool.active.saturating_sub(1);
        }
    }

    /// Pairs in use toward the backend that uses most.
    pub fn fullest(&self) -> u32 {
        self.backends.iter().map(|pool| pool.active).max().unwrap_or(0)
    }
}

#[cfg(test)]
impl Pool {
    /// Pairs in use toward all backends together.
    pub fn in_use(&self) -> u32 {
        self.backends.iter().map(|pool| pool.active).sum()
    }
}

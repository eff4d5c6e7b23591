//! Local addresses and ports for new flows.
//!
//! Each backend has the whole space of this worker's LIP:port pairs to itself: a pair may be in
//! use toward several backends at once, since the backend is part of a reply's tuple. What is in
//! use is not booked here but asked of the flow table, the one truth: nothing can leak, and
//! nothing can be given twice, not even when two services share a backend's address.
//!
//! Which pairs are this worker's is for [`Steering`] to say: it numbers them. Per backend there is
//! only a cursor, which walks over the numbers. A pair given back is therefore used last: it rests
//! for a whole round of the space. O(1): a handful of steps at any use below nine tenths. Beyond,
//! some attempts give up although a free pair exists; the next attempt goes on from there. They are
//! counted as `pool-exhausted`.

use super::build::Tables;
use super::hash::Seed;
use super::steering::{Pairs, Steering};
use super::tables::{BackendId, LipId, PortId, WorkerId};
use super::tuple::is_v6;
use crate::packet::Transport;
use std::net::{IpAddr, SocketAddr};

/// Pairs tried for one flow.
const ATTEMPTS: u32 = 64;

#[derive(Debug)]
pub(super) struct Pool {
    worker: WorkerId,
    workers: u16,
    seed: Seed,
    steering: Steering,
    /// Those that this worker may use, IPv4 and IPv6.
    lips: [Vec<LipId>; 2],
    backends: Vec<BackendPool>,
}

#[derive(Debug, Clone, Copy, Default)]
struct BackendPool {
    cursor: u32,
    /// In the ranges of local ports that are used when the best is full.
    overflow: u32,
    active: u32,
}

/// Where a flow is to go.
#[derive(Debug, Clone, Copy)]
pub(super) struct Toward {
    pub backend: BackendId,
    pub transport: Transport,
    /// The backend's.
    pub address: SocketAddr,
}

impl Pool {
    pub fn new(worker: WorkerId, workers: u16, seed: Seed, steering: Steering) -> Self {
        Self { worker, workers, seed, steering, lips: Default::default(), backends: Vec::new() }
    }

    pub fn steering(&self) -> &Steering {
        &self.steering
    }

    /// Room for the backends of these tables, and their LIPs. May allocate.
    pub fn set_tables(&mut self, tables: &Tables) {
        for backend in self.backends.len()..tables.backend_slots() {
            let name = [backend as u32, u32::from(self.worker.0)].map(u32::to_ne_bytes);
            self.backends.push(BackendPool {
                cursor: self.seed.bytes(name.as_flattened()) as u32,
                ..BackendPool::default()
            });
        }
        for (lips, v6) in self.lips.iter_mut().zip([false, true]) {
            let usable = |&lip: &LipId| self.steering.may_use(lip, self.worker, self.workers);
            lips.clear();
            lips.extend(tables.lips_of(v6).iter().copied().filter(usable));
        }
    }

    /// Pairs of a family that this worker may use toward one backend.
    pub fn capacity(&self, v6: bool) -> u32 {
        let transports = if v6 {
            [Transport::Udp6, Transport::Tcp6]
        } else {
            [Transport::Udp4, Transport::Tcp4]
        };
        // How many there are does not depend on the backend.
        let address = IpAddr::from([0; 4]);
        transports
            .map(|transport| {
                let address = SocketAddr::new(address, 0);
                let toward = Toward { backend: BackendId(0), transport, address };
                let usable = self.ranges(&toward).map(|pairs| pairs.usable());
                usable.fold(0, u32::saturating_add)
            })
            .into_iter()
            .min()
            .unwrap_or(0)
    }

    /// The next pair `toward` a backend that `is_free`; the port is in host order. `None`: none
    /// was found. The pair counts as used from now on. `way` is the port toward the backend; asked
    /// only where it matters.
    pub fn take(
        &mut self,
        tables: &Tables,
        toward: &Toward,
        way: impl FnOnce() -> Option<PortId>,
        mut is_free: impl FnMut(LipId, u16) -> bool,
    ) -> Option<(LipId, u16)> {
        let mut pool = *self.backends.get(toward.backend.0 as usize)?;
        let all = self.ranges(toward).map(|pairs| pairs.len());
        if pool.active >= all.fold(0, u32::saturating_add) {
            return None;
        }
        let steering = &self.steering;
        let way = if steering.depends_on_way() { way() } else { None };
        let v6 = is_v6(toward.transport);
        let address_of = |lip| Some(tables.lip(lip)?.address.ip(v6));
        let best = steering.best_range(toward.transport, self.worker, way);
        let pairs = self.pairs(best, toward);
        let mut found = search(&pairs, &mut pool.cursor, address_of, &mut is_free);
        for range in (0..steering.ranges(toward.transport)).filter(|&range| range != best) {
            if found.is_some() {
                break;
            }
            let pairs = self.pairs(range, toward);
            found = search(&pairs, &mut pool.overflow, address_of, &mut is_free);
        }
        pool.active += u32::from(found.is_some());
        if let Some(slot) = self.backends.get_mut(toward.backend.0 as usize) {
            *slot = pool;
        }
        found
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

    fn pairs(&self, range: usize, toward: &Toward) -> Pairs<'_> {
        self.steering.pairs(
            range,
            (self.worker, self.workers),
            (toward.transport, toward.address),
            &self.lips[usize::from(is_v6(toward.transport))],
        )
    }

    fn ranges(&self, toward: &Toward) -> impl Iterator<Item = Pairs<'_>> {
        (0..self.steering.ranges(toward.transport)).map(|range| self.pairs(range, toward))
    }
}

/// The first free pair from the cursor on.
fn search(
    pairs: &Pairs<'_>,
    cursor: &mut u32,
    address_of: impl Fn(LipId) -> Option<IpAddr> + Copy,
    is_free: &mut impl FnMut(LipId, u16) -> bool,
) -> Option<(LipId, u16)> {
    let len = pairs.len();
    if len == 0 {
        return None;
    }
    let (mut attempts, mut patience) = (ATTEMPTS.min(len), pairs.patience());
    while attempts > 0 {
        let at = *cursor % len;
        *cursor = at + 1;
        match pairs.get(at, address_of) {
            Some((lip, port)) if is_free(lip, port) => return Some((lip, port)),
            Some(_) => attempts -= 1,
            None if patience == 0 => return None,
            None => patience -= 1,
        }
    }
    None
}

#[cfg(test)]
impl Pool {
    /// Pairs in use toward all backends together.
    pub fn in_use(&self) -> u32 {
        self.backends.iter().map(|pool| pool.active).sum()
    }
}

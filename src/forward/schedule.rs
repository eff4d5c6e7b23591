//! Which backend takes a new flow: the compiled form of a service's scheduler.

use super::maglev::{Maglev, Member, table_size};
use super::tables::{BackendId, BackendSpec, Scheduler, ServiceSpec};
use std::net::SocketAddr;
use std::sync::Arc;

/// Longest round of weighted round robin; heavier weights are scaled down to it.
const LONGEST_ROUND: u64 = 16_384;

#[derive(Debug)]
pub(super) enum Schedule {
    Maglev {
        table: Arc<Maglev>,
        /// Slots of the table's members, in their order.
        backends: Box<[BackendId]>,
    },
    /// One round, interleaved.
    RoundRobin(Box<[BackendId]>),
}

impl Schedule {
    /// The backends that take new flows, by the service's scheduler. A Maglev table of `previous`
    /// with the same content is shared rather than made again.
    pub fn build(service: &ServiceSpec, previous: Option<&Schedule>) -> Self {
        let mut usable: Vec<&BackendSpec> = service
            .backends
            .iter()
            .filter(|backend| !service.removed && takes_new_flows(backend))
            .collect();
        if service.scheduler == Scheduler::RoundRobin {
            return Self::RoundRobin(round(&usable));
        }
        usable.sort_by_key(|backend| SocketAddr::new(backend.address, backend.port));
        let members: Vec<Member> = usable
            .iter()
            .map(|backend| Member {
                address: SocketAddr::new(backend.address, backend.port),
                weight: backend.weight,
            })
            .collect();
        let size = table_size(service.backends.iter().map(|backend| backend.weight));
        let table = match previous {
            Some(Self::Maglev { table, .. })
                if *table.members() == members[..]
                    && (table.size() == size || members.is_empty()) =>
            {
                Arc::clone(table)
            }
            _ => Arc::new(Maglev::build(&members, size)),
        };
        Self::Maglev { table, backends: usable.iter().map(|backend| backend.id).collect() }
    }

    /// Whether it has a Maglev table that is not that of `other`.
    pub fn has_new_table(&self, other: Option<&Schedule>) -> bool {
        match (self, other) {
            (Self::Maglev { table, .. }, Some(Self::Maglev { table: old, .. })) => {
                !Arc::ptr_eq(table, old)
            }
            (Self::Maglev { .. }, _) => true,
            (Self::RoundRobin(_), _) => false,
        }
    }

    /// The backend for a new flow. `hash`: of the flow, the same on every node. `turn`: this
    /// worker's place in the round, advanced when it is used. `None`: no backend takes flows.
    pub fn pick(&self, hash: u64, turn: &mut u32) -> Option<BackendId> {
        match self {
            Self::Maglev { table, backends } => backends.get(table.pick(hash)?).copied(),
            Self::RoundRobin(round) => {
                let at = *turn as usize % round.len().max(1);
                *turn = at as u32 + 1;
                round.get(at).copied()
            }
        }
    }
}

pub(super) fn takes_new_flows(backend: &BackendSpec) -> bool {
    backend.usable && backend.weight > 0
}

/// Each backend as often as its weight, divided by the common divisor, evenly interleaved.
fn round(backends: &[&BackendSpec]) -> Box<[BackendId]> {
    let divisor = backends.iter().fold(0, |d, backend| gcd(d, backend.weight));
    let total: u64 = backends.iter().map(|b| u64::from(b.weight)).sum();
    let rounds = total / u64::from(divisor.max(1));
    let scale = |weight: u32| -> u64 {
        let turns = u64::from(weight / divisor.max(1));
        if rounds <= LONGEST_ROUND { turns } else { (turns * LONGEST_ROUND / rounds).max(1) }
    };
    let weights: Vec<u64> = backends.iter().map(|b| scale(b.weight)).collect();
    let heaviest = weights.iter().copied().max().unwrap_or(0);
    let mut credits = vec![0; backends.len()];
    let mut round = Vec::with_capacity(weights.iter().sum::<u64>() as usize);
    for _ in 0..heaviest {
        for ((backend, weight), credit) in backends.iter().zip(&weights).zip(&mut credits) {
            *credit += weight;
            if *credit >= heaviest {
                *credit -= heaviest;
                round.push(backend.id);
            }
        }
    }
    round.into_boxed_slice()
}

const fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forward::tables::{Protocol, ServiceId, Timeouts};

    fn service(scheduler: Scheduler, weights: &[(u32, bool)]) -> ServiceSpec {
        let backend = |(n, &(weight, usable)): (usize, &(u32, bool))| BackendSpec {
            id: BackendId(10 + n as u32),
            address: [10, 0, 0, n as u8].into(),
            port: 80,
            weight,
            usable,
        };
        ServiceSpec {
            id: ServiceId(0),
            vip: [192, 0, 2, 1].into(),
            protocol: Protocol::Tcp,
            port: 80,
            scheduler,
            timeouts: Timeouts::default(),
            backends: weights.iter().enumerate().map(backend).collect(),
            removed: false,
        }
    }

    #[test]
    fn round_robin_interleaves_by_weight() {
        let spec =
            service(Scheduler::RoundRobin, &[(20, true), (0, true), (10, false), (10, true)]);
        let schedule = Schedule::build(&spec, None);
        let mut turn = 5;
        let picked: Vec<u32> = (0..6).map(|_| schedule.pick(0, &mut turn).unwrap().0).collect();
        assert_eq!(picked.iter().filter(|&&id| id == 10).count(), 4);
        assert_eq!(picked.iter().filter(|&&id| id == 13).count(), 2);
        assert!(picked.windows(3).all(|w| w[0] != w[1] || w[1] != w[2]));
    }

    #[test]
    fn a_round_stays_short() {
        let weights: Vec<_> = (0..1000).map(|n| (n % 1000 + 1, true)).collect();
        let Schedule::RoundRobin(round) =
            Schedule::build(&service(Scheduler::RoundRobin, &weights), None)
        else {
            panic!("another scheduler");
        };
        assert!(round.len() as u64 <= LONGEST_ROUND + 1000);
        assert!(weights.len() <= round.len());
    }

    #[test]
    fn nobody_usable_is_nobody() {
        for scheduler in [Scheduler::RoundRobin, Scheduler::Maglev] {
            let schedule = Schedule::build(&service(scheduler, &[(1, false), (0, true)]), None);
            assert_eq!(schedule.pick(77, &mut 3), None);
            let mut removed = service(scheduler, &[(1, true)]);
            removed.removed = true;
            assert_eq!(Schedule::build(&removed, None).pick(77, &mut 3), None);
        }
    }

    #[test]
    fn an_unchanged_maglev_table_is_shared_and_order_does_not_matter() {
        let spec = service(Scheduler::Maglev, &[(1, true), (2, true), (1, false)]);
        let first = Schedule::build(&spec, None);
        let mut turned = spec.clone();
        turned.backends.reverse();
        let second = Schedule::build(&turned, Some(&first));
        for n in 0..1000u64 {
            let hash = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            assert_eq!(first.pick(hash, &mut 0), second.pick(hash, &mut 0));
        }
        let (Schedule::Maglev { table: a, .. }, Schedule::Maglev { table: b, .. }) =
            (&first, &second)
        else {
            panic!("another scheduler");
        };
        assert!(Arc::ptr_eq(a, b));
    }
}

//! What a worker counts: written by its one thread, read by anyone, summed by readers.
//!
//! A count is a relaxed load, an addition and a relaxed store: no read-modify-write, and no cache
//! line that two workers write. Counters never go back; gauges ([`WorkerStats::flows`] and the
//! like) do. All wrap at 2^64.
//!
//! Who counts what:
//!
//! | counted by the engine | counted by the worker |
//! |---|---|
//! | every [`Verdict::Drop`](super::Verdict::Drop) that it returns, by reason | frames received (from a port, by hand-over, from the kernel) |
//! | packets and bytes per service and backend, when translated | frames transmitted, given to the kernel, handed over, parked |
//! | flows; echo replies | drops that it makes itself: queue, ring or kernel path full, unresolved, no first fragment |
//!
//! So at any moment, frames in a worker's hands apart:
//! `received + received_by_handover + from_kernel
//!  = transmitted + to_kernel + handed_over + all drops + parked now`.
//! A packet counted for a service may still be dropped afterwards, by the worker.

use super::tables::{BackendId, ServiceId};
use super::verdict::DropReason;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A counter or gauge with one writer.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }

    /// Only for the thread that writes this counter.
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// Only for the thread that writes this gauge.
    #[inline]
    pub fn sub(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_sub(n), Relaxed);
    }

    /// Only for the thread that writes this gauge.
    #[inline]
    pub fn set(&self, n: u64) {
        self.0.store(n, Relaxed);
    }
}

/// Frames and their bytes (whole frames, without FCS).
#[derive(Debug, Default)]
pub struct Traffic {
    pub packets: Counter,
    pub bytes: Counter,
}

impl Traffic {
    /// Only for the writing thread.
    #[inline]
    pub fn add(&self, packets: u64, bytes: u64) {
        self.packets.add(packets);
        self.bytes.add(bytes);
    }
}

/// What a service or a backend did, on one worker.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct Usage {
    /// By direction, so that counting needs no branch.
    pub(super) traffic: [Traffic; 2],
    /// Flows now. A slot may be reused once this is 0 on every worker.
    pub active: Counter,
    /// Flows ever.
    pub total: Counter,
}

impl Usage {
    /// From clients to backends.
    pub fn requests(&self) -> &Traffic {
        &self.traffic[0]
    }

    /// From backends to clients.
    pub fn replies(&self) -> &Traffic {
        &self.traffic[1]
    }
}

/// The counters of one worker.
#[derive(Debug)]
#[repr(align(128))]
pub struct WorkerStats {
    /// From ports.
    pub received: Traffic,
    /// From other workers.
    pub received_by_handover: Traffic,
    /// From control interfaces.
    pub from_kernel: Traffic,
    pub transmitted: Traffic,
    pub to_kernel: Traffic,
    pub handed_over: Traffic,
    /// Replies that arrived here although steering by the NIC should have led them to another
    /// worker. They count as handed over too.
    pub misdirected: Counter,
    /// Gauge: frames that wait now, for a neighbour or for the first fragment of their datagram.
    pub parked: Counter,
    drops: [Counter; DropReason::ALL.len()],
    /// Echo requests to a VIP that were answered. They count as transmitted too.
    pub echo_replies: Counter,
    /// ICMP errors about a flow's packets that were translated. They count as transmitted too.
    pub icmp_errors: Counter,
    /// Packets too big for their way out that became an ICMP error to their sender. They count as
    /// transmitted too.
    pub too_big_answers: Counter,
    /// Fragments that were translated. They count as transmitted too.
    pub fragments: Counter,
    /// Datagrams in fragments that made room for others in a full table: what follows of them is not
    /// known any more.
    pub datagrams_evicted: Counter,
    /// Gauge: flows now.
    pub flows: Counter,
    /// Gauge: of these, TCP before the handshake is complete, UDP before the first reply.
    pub flows_half_open: Counter,
    pub flows_created: Counter,
    /// Ended by their timeout.
    pub flows_expired: Counter,
    /// Half-open flows that made room in a full table.
    pub flows_evicted: Counter,
    /// Ended by a new connection of the same client address and port.
    pub flows_replaced: Counter,
    /// Gauge: LIP:port pairs that this worker may use toward one backend, by family. What is in
    /// use of them is the `active` of each backend.
    pub local_ports_v4: Counter,
    pub local_ports_v6: Counter,
    /// Gauge: the fullest backend's use of these, in thousandths, as of the last second or so.
    pub local_ports_fullest_permille: Counter,
    pub sharing: SharingStats,
    services: Box<[Usage]>,
    backends: Box<[Usage]>,
}

/// Flows shared with other nodes, on one worker.
#[derive(Debug, Default)]
pub struct SharingStats {
    /// Gauge: of the flows now, those that another node owns.
    pub adopted: Counter,
    /// Flows adopted ever.
    pub adoptions: Counter,
    /// Answers that could not be used: see [`Engine::adopt`](super::Engine::adopt).
    pub refused: Counter,
    /// Adopted flows that ended because no owner confirmed them.
    pub unconfirmed: Counter,
    /// Flows that peers were asked for.
    pub asked: Counter,
    /// Flows that peers were not asked for, because there were too many questions.
    pub not_asked: Counter,
    /// Flows that peers asked us for, and those of them that we have.
    pub looked_up: Counter,
    pub found: Counter,
}

impl WorkerStats {
    /// Counters for slots below these. Slots beyond are forwarded like any other, but not
    /// counted one by one.
    pub fn new(services: usize, backends: usize) -> Self {
        let usage = |count| (0..count).map(|_| Usage::default()).collect();
        Self {
            received: Traffic::default(),
            received_by_handover: Traffic::default(),
            from_kernel: Traffic::default(),
            transmitted: Traffic::default(),
            to_kernel: Traffic::default(),
            handed_over: Traffic::default(),
            misdirected: Counter::default(),
            parked: Counter::default(),
            drops: Default::default(),
            echo_replies: Counter::default(),
            icmp_errors: Counter::default(),
            too_big_answers: Counter::default(),
            fragments: Counter::default(),
            datagrams_evicted: Counter::default(),
            flows: Counter::default(),
            flows_half_open: Counter::default(),
            flows_created: Counter::default(),
            flows_expired: Counter::default(),
            flows_evicted: Counter::default(),
            flows_replaced: Counter::default(),
            local_ports_v4: Counter::default(),
            local_ports_v6: Counter::default(),
            local_ports_fullest_permille: Counter::default(),
            sharing: SharingStats::default(),
            services: usage(services),
            backends: usage(backends),
        }
    }

    pub fn drops(&self, reason: DropReason) -> u64 {
        self.drops[reason as usize].get()
    }

    /// Only for the writing thread.
    #[inline]
    pub fn count_drop(&self, reason: DropReason) {
        self.drops[reason as usize].add(1);
    }

    /// Only for the writing thread.
    #[inline]
    pub fn count_drops(&self, reason: DropReason, n: u64) {
        self.drops[reason as usize].add(n);
    }

    /// `None`: a slot beyond those given to [`WorkerStats::new`].
    #[inline]
    pub fn service(&self, id: ServiceId) -> Option<&Usage> {
        self.services.get(id.0 as usize)
    }

    /// `None`: a slot beyond those given to [`WorkerStats::new`].
    #[inline]
    pub fn backend(&self, id: BackendId) -> Option<&Usage> {
        self.backends.get(id.0 as usize)
    }

    /// All drops together.
    pub fn dropped(&self) -> u64 {
        DropReason::ALL.iter().fold(0, |sum, &reason| sum.wrapping_add(self.drops(reason)))
    }
}

/// The sum of one number over all workers, e.g. `sum(&workers, |w| w.flows.get())`.
pub fn sum<'a>(
    workers: impl IntoIterator<Item = &'a WorkerStats>,
    number: impl Fn(&WorkerStats) -> u64,
) -> u64 {
    workers.into_iter().fold(0, |total, worker| total.wrapping_add(number(worker)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_over_workers_and_ignores_slots_beyond() {
        let workers = [WorkerStats::new(2, 1), WorkerStats::new(2, 1)];
        for worker in &workers {
            worker.count_drop(DropReason::NoRoute);
            worker.received.add(2, 120);
            if let Some(usage) = worker.service(ServiceId(1)) {
                usage.traffic[0].add(1, 60);
            }
            assert!(worker.backend(BackendId(1)).is_none());
        }
        assert_eq!(sum(&workers, |w| w.received.bytes.get()), 240);
        assert_eq!(sum(&workers, WorkerStats::dropped), 2);
        assert_eq!(
            sum(&workers, |w| w.service(ServiceId(1)).map_or(0, |u| u.requests().packets.get())),
            2
        );
    }

    #[test]
    fn workers_share_no_cache_line() {
        assert_eq!(align_of::<WorkerStats>() % 128, 0);
        assert_eq!(size_of::<Usage>(), 64);
    }
}

//! Hand-over between workers: a bounded single-producer single-consumer ring for each ordered pair.
//!
//! A frame that a worker received but another must handle crosses here, in order per flow, since
//! both ends are used by one thread each. Full ring: the sender drops and counts. What is for the
//! kernel, or from it, has rings of its own: a flood of the others cannot fill them.

use crate::forward::tables::{PortId, WorkerId};

/// Frames a ring holds.
pub const DEPTH: usize = 1024;
/// Frames a ring of control traffic holds.
pub const CONTROL_DEPTH: usize = 256;

/// Why a frame is handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Errand {
    /// Received on this port; the other worker owns its flow.
    Forward(PortId),
    /// For the kernel; the other worker serves the port's control interface.
    Kernel(PortId),
    /// Ready to leave; the other worker has a queue of the port.
    Transmit(PortId),
}

/// A frame on its way to another worker.
#[derive(Debug)]
pub struct Parcel<F> {
    pub errand: Errand,
    pub frame: F,
}

/// One worker's ends of all rings.
#[derive(Debug)]
pub struct Rings<F> {
    /// To each other worker, by its number; `None` at our own.
    pub to: Vec<Option<rtrb::Producer<Parcel<F>>>>,
    /// From each other worker.
    pub from: Vec<rtrb::Consumer<Parcel<F>>>,
    /// Likewise, control traffic.
    pub control_to: Vec<Option<rtrb::Producer<Parcel<F>>>>,
    pub control_from: Vec<rtrb::Consumer<Parcel<F>>>,
}

impl<F> Rings<F> {
    /// Rings between `workers` workers, each with all others.
    pub fn mesh(workers: u16) -> Vec<Self> {
        let count = usize::from(workers);
        let none = || (0..count).map(|_| None).collect();
        let mut all: Vec<Self> = (0..count)
            .map(|_| Self {
                to: none(),
                from: Vec::new(),
                control_to: none(),
                control_from: Vec::new(),
            })
            .collect();
        for sender in 0..count {
            for receiver in (0..count).filter(|&r| r != sender) {
                let (producer, consumer) = rtrb::RingBuffer::new(DEPTH);
                all[sender].to[receiver] = Some(producer);
                all[receiver].from.push(consumer);
                let (producer, consumer) = rtrb::RingBuffer::new(CONTROL_DEPTH);
                all[sender].control_to[receiver] = Some(producer);
                all[receiver].control_from.push(consumer);
            }
        }
        all
    }

    /// Hand over, or give the parcel's frame back if the ring is full.
    pub fn send(&mut self, worker: WorkerId, parcel: Parcel<F>) -> Result<(), F> {
        push(&mut self.to, worker, parcel)
    }

    /// Likewise, on the ring for control traffic.
    pub fn send_control(&mut self, worker: WorkerId, parcel: Parcel<F>) -> Result<(), F> {
        push(&mut self.control_to, worker, parcel)
    }
}

fn push<F>(
    rings: &mut [Option<rtrb::Producer<Parcel<F>>>],
    worker: WorkerId,
    parcel: Parcel<F>,
) -> Result<(), F> {
    match rings.get_mut(usize::from(worker.0)) {
        Some(Some(ring)) => ring.push(parcel).map_err(|rtrb::PushError::Full(p)| p.frame),
        _ => Err(parcel.frame),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pair_has_its_own_bounded_ring() {
        let mut rings = Rings::mesh(3);
        let parcel = |n: usize| Parcel { errand: Errand::Forward(PortId(0)), frame: n };
        for n in 0..DEPTH {
            assert!(rings[0].send(WorkerId(2), parcel(n)).is_ok());
        }
        assert_eq!(rings[0].send(WorkerId(2), parcel(7)), Err(7), "full");
        assert!(rings[1].send(WorkerId(2), parcel(1)).is_ok(), "another pair is not affected");
        assert_eq!(rings[0].send(WorkerId(0), parcel(5)), Err(5), "not to itself");
        assert_eq!(rings[0].send(WorkerId(9), parcel(6)), Err(6), "no such worker");
        let received: usize = rings[2]
            .from
            .iter_mut()
            .map(|ring| std::iter::from_fn(|| ring.pop().ok()).count())
            .sum();
        assert_eq!(received, DEPTH + 1);
        for n in 0..CONTROL_DEPTH {
            assert!(rings[0].send_control(WorkerId(2), parcel(n)).is_ok());
        }
        assert_eq!(rings[0].send_control(WorkerId(2), parcel(7)), Err(7), "bounded as well");
        assert!(rings[0].send(WorkerId(2), parcel(1)).is_ok(), "the other ring is not affected");
    }
}

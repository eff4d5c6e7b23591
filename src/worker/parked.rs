//! Frames that wait for a neighbour to resolve: a few per neighbour, not many in all, not for long.

use super::Worker;
use crate::forward::tables::PortId;
use crate::forward::{DropReason, Now, Verdict};
use crate::port::Queue;
use std::net::IpAddr;

/// Most frames that wait on one worker.
pub const CAPACITY: usize = 256;
/// Most frames that wait for one neighbour (the kernel's own default is of this order).
pub const PER_NEIGHBOUR: usize = 8;
/// A frame that has waited this long is dropped; the client's retransmission comes at 1 s.
pub const PATIENCE_NS: u64 = 1_000_000_000;

/// Whom a frame waits for.
pub type Neighbour = (PortId, IpAddr);

#[derive(Debug)]
struct Waiting<F> {
    frame: F,
    neighbour: Neighbour,
    since: Now,
}

/// The frames, in order of arrival. Never grows beyond [`CAPACITY`].
#[derive(Debug)]
pub struct Parked<F> {
    frames: Vec<Waiting<F>>,
}

impl<F> Parked<F> {
    /// Allocates everything it will ever need.
    pub fn new() -> Self {
        Self { frames: Vec::with_capacity(CAPACITY) }
    }

    /// Take all frames out for a while, leaving a place that cannot hold any.
    pub fn take(&mut self) -> Self {
        Self { frames: std::mem::take(&mut self.frames) }
    }

    /// Keep the frame, or give it back if there is no room for it.
    pub fn park(&mut self, frame: F, neighbour: Neighbour, since: Now) -> Result<(), F> {
        let same = self.frames.iter().filter(|w| w.neighbour == neighbour).count();
        if self.frames.len() >= CAPACITY || same >= PER_NEIGHBOUR {
            return Err(frame);
        }
        self.frames.push(Waiting { frame, neighbour, since });
        Ok(())
    }

    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    pub fn len(&self) -> usize {
        self.frames.len()
    }

    /// Offer every frame again, oldest first; those that `again` gives back go on waiting.
    pub fn retry(&mut self, mut again: impl FnMut(F) -> Option<F>) {
        for _ in 0..self.frames.len() {
            let Waiting { frame, neighbour, since } = self.frames.remove(0);
            if let Some(frame) = again(frame) {
                self.frames.push(Waiting { frame, neighbour, since });
            }
        }
    }

    /// Let go of those that waited too long. Returns how many.
    pub fn expire(&mut self, now: Now) -> usize {
        let before = self.frames.len();
        self.frames.retain(|w| now.0.saturating_sub(w.since.0) < PATIENCE_NS);
        before - self.frames.len()
    }
}

impl<Q: Queue> Worker<Q> {
    pub(super) fn park(&mut self, frame: Q::Frame, neighbour: Neighbour, now: Now) {
        match self.parked.park(frame, neighbour, now) {
            Ok(()) => {
                // A full queue of wishes holds this one already or will be asked again.
                let _ = self.wanted_neighbours.try_send(neighbour);
                self.show_waiting();
            }
            Err(frame) => self.drop_frame(frame, DropReason::Unresolved),
        }
    }

    pub(super) fn retry_parked(&mut self) {
        if self.parked.is_empty() {
            return;
        }
        let mut parked = self.parked.take();
        parked.retry(|mut frame| {
            match self.engine.resolve(&self.tables, &mut frame) {
                Verdict::Wait { .. } => return Some(frame),
                Verdict::Transmit { port } => self.transmit(port, frame),
                Verdict::Drop(_) => drop(frame),
                Verdict::Kernel | Verdict::Handover { .. } | Verdict::Await { .. } => {
                    self.drop_frame(frame, DropReason::NoRoute);
                }
            }
            None
        });
        self.parked = parked;
        self.show_waiting();
    }

    pub(super) fn expire_parked(&mut self, now: Now) {
        if self.parked.is_empty() {
            return;
        }
        let expired = self.parked.expire(now);
        if expired > 0 {
            self.shared.stats.count_drops(DropReason::Unresolved, expired as u64);
            self.show_waiting();
        }
    }

    pub(super) fn show_waiting(&self) {
        self.shared.stats.parked.set((self.parked.len() + self.kept.len()) as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn neighbour(n: u8) -> Neighbour {
        (PortId(0), IpAddr::from([10, 0, 0, n]))
    }

    #[test]
    fn waits_for_few_and_not_for_long() {
        let mut parked = Parked::new();
        for i in 0..PER_NEIGHBOUR {
            assert_eq!(parked.park(i, neighbour(1), Now(0)), Ok(()));
        }
        assert_eq!(parked.park(99, neighbour(1), Now(0)), Err(99), "one neighbour's share");
        assert_eq!(parked.park(100, neighbour(2), Now(5)), Ok(()));
        assert_eq!(parked.expire(Now(PATIENCE_NS)), PER_NEIGHBOUR);
        assert_eq!(parked.len(), 1);
    }

    #[test]
    fn retry_keeps_order_and_what_still_waits() {
        let mut parked = Parked::new();
        for i in 0..4 {
            parked.park(i, neighbour(i), Now(0)).unwrap();
        }
        let mut seen = Vec::new();
        parked.retry(|frame| {
            seen.push(frame);
            (frame % 2 == 0).then_some(frame)
        });
        assert_eq!(seen, [0, 1, 2, 3]);
        assert_eq!(parked.len(), 2);
    }

    #[test]
    fn never_more_than_its_capacity() {
        let mut parked = Parked::new();
        let taken = (0..2 * CAPACITY)
            .filter(|&i| parked.park(i, (PortId(i as u16), neighbour(1).1), Now(0)).is_ok())
            .count();
        assert_eq!(taken, CAPACITY);
    }
}

//! Fragments that came before the first of their datagram, and wait for it: not many, not for long.
//!
//! RFC 4787 REQ-14: fragments are taken in any order, and that must not open a door to who sends
//! fragments only. So there is a fixed number of places, the oldest gives way, and one datagram may
//! not have all of them. A node's own memory apart, what waits here is all that such a flood can push
//! out.

use super::Worker;
use crate::forward::tables::PortId;
use crate::forward::{DropReason, Now, Origin};
use crate::packet::Frame;
use crate::port::Queue;
use std::collections::VecDeque;

/// Most fragments that wait on one worker.
pub const CAPACITY: usize = 128;
/// Most that wait for one first fragment: all others of the longest datagram, at Ethernet's MTU.
pub const PER_DATAGRAM: usize = 44;
/// A fragment that has waited this long is dropped: RFC 6146 §4's FRAGMENT_MIN.
pub const PATIENCE_NS: u64 = 2_000_000_000;

#[derive(Debug)]
struct Waiting<F> {
    frame: F,
    /// As in [`crate::forward::Verdict::Await`].
    datagram: u32,
    /// How it came, to be forwarded like that again.
    port: PortId,
    origin: Origin,
    since: Now,
}

/// The fragments, in order of arrival. Never grows beyond [`CAPACITY`].
#[derive(Debug)]
pub struct Kept<F> {
    frames: VecDeque<Waiting<F>>,
    /// Datagrams noted when the fragments were last offered again.
    noted: u64,
}

impl<F> Kept<F> {
    /// Allocates everything it will ever need.
    pub fn new() -> Self {
        Self { frames: VecDeque::with_capacity(CAPACITY), noted: 0 }
    }

    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    pub fn len(&self) -> usize {
        self.frames.len()
    }

    /// Keep the frame. Gives back a frame that finds no place any more: this one, if too many of its
    /// datagram wait, or the oldest.
    fn keep(&mut self, new: Waiting<F>) -> Option<F> {
        let same = self.frames.iter().filter(|w| w.datagram == new.datagram).count();
        if same >= PER_DATAGRAM {
            return Some(new.frame);
        }
        let oldest = if self.frames.len() < CAPACITY { None } else { self.frames.pop_front() };
        self.frames.push_back(new);
        oldest.map(|waiting| waiting.frame)
    }

    /// Let go of those that waited too long. Returns how many.
    fn expire(&mut self, now: Now) -> usize {
        let before = self.frames.len();
        while self.frames.front().is_some_and(|w| now.0.saturating_sub(w.since.0) >= PATIENCE_NS) {
            self.frames.pop_front();
        }
        before - self.frames.len()
    }
}

impl<Q: Queue> Worker<Q> {
    pub(super) fn keep(
        &mut self,
        frame: Q::Frame,
        datagram: u32,
        (port, origin): (PortId, Origin),
        since: Now,
    ) {
        let waiting = Waiting { frame, datagram, port, origin, since };
        if let Some(frame) = self.kept.keep(waiting) {
            self.drop_frame(frame, DropReason::FragmentNoFirst);
        }
        self.show_waiting();
    }

    /// Forward what now can be, oldest first, and let go of what waited too long.
    pub(super) fn serve_kept(&mut self, now: Now) {
        let noted = self.engine.datagrams_noted();
        if noted != self.kept.noted {
            self.kept.noted = noted;
            // Those that have to wait on go to the end: after all, in order.
            for _ in 0..self.kept.len() {
                let Some(waiting) = self.kept.frames.pop_front() else { break };
                if self.engine.knows_datagram(waiting.datagram, waiting.origin, now) {
                    let Waiting { frame, port, origin, .. } = waiting;
                    let bytes = frame.total_len() as u64;
                    self.rx.push(frame);
                    self.forward(port, origin, now, bytes);
                } else {
                    self.kept.frames.push_back(waiting);
                }
            }
        }
        let expired = self.kept.expire(now);
        self.shared.stats.count_drops(DropReason::FragmentNoFirst, expired as u64);
        self.show_waiting();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting(frame: usize, datagram: u32, since: u64) -> Waiting<usize> {
        Waiting { frame, datagram, port: PortId(0), origin: Origin::Port, since: Now(since) }
    }

    #[test]
    fn the_oldest_gives_way_and_no_datagram_takes_all() {
        let mut kept = Kept::new();
        for n in 0..PER_DATAGRAM {
            assert_eq!(kept.keep(waiting(n, 1, 0)), None);
        }
        assert_eq!(kept.keep(waiting(99, 1, 0)), Some(99), "one datagram's share");
        for n in PER_DATAGRAM..CAPACITY {
            assert_eq!(kept.keep(waiting(n, n as u32 + 2, 0)), None);
        }
        assert_eq!(kept.keep(waiting(500, 2, 0)), Some(0), "the oldest");
        assert_eq!(kept.len(), CAPACITY);
    }

    #[test]
    fn patience_ends() {
        let mut kept = Kept::new();
        kept.keep(waiting(1, 1, 0));
        kept.keep(waiting(2, 1, 5));
        assert_eq!(kept.expire(Now(PATIENCE_NS - 1)), 0);
        assert_eq!(kept.expire(Now(PATIENCE_NS)), 1);
        assert_eq!(kept.expire(Now(PATIENCE_NS + 5)), 1);
        assert!(kept.is_empty());
    }
}

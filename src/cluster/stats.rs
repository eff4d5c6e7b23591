//! What the exchange counts: written by its task, read by anyone.

use crate::forward::stats::Counter;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Counters of the exchange. Flows asked for, found and adopted are counted by the workers
/// ([`crate::forward::stats::SharingStats`]).
#[derive(Debug)]
pub struct ClusterStats {
    pub sent: Counter,
    /// Whatever came from a peer's address, good or not.
    pub received: Counter,
    /// From an address that is no peer's.
    pub unknown_source: Counter,
    /// Signed with another key, or changed on the way.
    pub bad_signature: Counter,
    /// Signed, but not as the format says, or of another version.
    pub malformed: Counter,
    /// Answers to no question that waits: late, repeated, or replayed; flows that were not asked for.
    pub unexpected: Counter,
    /// Questions given up: not every peer answered.
    pub unanswered: Counter,
    /// Work refused because a table or queue was full, or the socket took no more.
    pub overloaded: Counter,
    pub peers: Vec<PeerStats>,
}

/// Of one peer.
#[derive(Debug)]
pub struct PeerStats {
    pub address: SocketAddr,
    /// Answers that came from it in time.
    pub answers: Counter,
    /// Questions that it did not answer.
    pub silences: Counter,
    /// Milliseconds from the start of the exchange to its last good datagram, plus one; 0: never.
    heard: AtomicU64,
}

impl ClusterStats {
    pub fn new(peers: &[SocketAddr]) -> Self {
        let peer = |&address: &SocketAddr| PeerStats {
            address,
            answers: Counter::default(),
            silences: Counter::default(),
            heard: AtomicU64::new(0),
        };
        Self {
            sent: Counter::default(),
            received: Counter::default(),
            unknown_source: Counter::default(),
            bad_signature: Counter::default(),
            malformed: Counter::default(),
            unexpected: Counter::default(),
            unanswered: Counter::default(),
            overloaded: Counter::default(),
            peers: peers.iter().map(peer).collect(),
        }
    }
}

impl PeerStats {
    /// Milliseconds from the start of the exchange to its last good datagram; `None`: never.
    pub fn heard_ms(&self) -> Option<u64> {
        self.heard.load(Relaxed).checked_sub(1)
    }

    pub(super) fn hear(&self, ms: u64) {
        self.heard.store(ms + 1, Relaxed);
    }
}

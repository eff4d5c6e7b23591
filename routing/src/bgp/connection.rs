//! One TCP connection of a session: its machine's state, its timers, the bytes on their way.
//!
//! Holds no policy: [`super::session`] decides what to send and when to end.

use super::fsm::State;
use super::session::{ConnId, Endpoints, Negotiated};
use super::wire::{Families, GracefulRestart, Open};
use std::time::{Duration, Instant};

/// No more is queued for a peer that does not read; what else is wanted waits in the Adj-RIB-Out.
pub(super) const SEND_BUFFER: usize = 32 * 1024;

/// Wait for the peer's OPEN (RFC 4271 §8.2.2 suggests four minutes).
pub(super) const OPEN_HOLD: Duration = Duration::from_secs(240);

/// Timers that are running, by when they fire.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Timers {
    pub connect_retry: Option<Instant>,
    pub idle_hold: Option<Instant>,
    pub hold: Option<Instant>,
    pub keepalive: Option<Instant>,
    pub send_hold: Option<Instant>,
}

impl Timers {
    pub fn next(&self) -> Option<Instant> {
        [self.connect_retry, self.idle_hold, self.hold, self.keepalive, self.send_hold]
            .into_iter()
            .flatten()
            .min()
    }
}

/// A connection, or the attempt to make one.
#[derive(Debug)]
pub(super) struct Connection {
    pub id: ConnId,
    pub state: State,
    /// We opened it, rather than the peer (decides collisions, RFC 4271 §6.8).
    pub dialled: bool,
    /// The driver knows of it: there is something to close.
    pub open: bool,
    pub endpoints: Option<Endpoints>,
    pub timers: Timers,
    pub peer_open: Option<Open>,
    pub negotiated: Option<Negotiated>,
    received: Vec<u8>,
    sending: Vec<u8>,
}

impl Connection {
    pub fn new(id: ConnId) -> Self {
        Self {
            id,
            state: State::Idle,
            dialled: true,
            open: false,
            endpoints: None,
            timers: Timers::default(),
            peer_open: None,
            negotiated: None,
            received: Vec::new(),
            sending: Vec::new(),
        }
    }

    /// What the peer said of restarting, if it would be more than an interruption (RFC 4724 §3).
    pub fn restart(&self) -> Option<GracefulRestart> {
        let restart = self.peer_open.as_ref()?.capabilities.graceful_restart?;
        (restart.restart_time > 0 && restart.preserved != Families::default()).then_some(restart)
    }

    /// Families in which the peer says it went on forwarding while it restarted.
    pub fn preserved(&self) -> Families {
        let open = self.peer_open.as_ref();
        let restart = open.and_then(|o| o.capabilities.graceful_restart);
        restart.map_or(Families::default(), |r| r.preserved)
    }

    /// Bytes received that are not a whole message yet.
    pub fn take_received(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.received)
    }

    pub fn put_back_received(&mut self, bytes: Vec<u8>) {
        self.received = bytes;
    }

    pub fn sending(&self) -> &[u8] {
        &self.sending
    }

    pub fn sending_mut(&mut self) -> &mut Vec<u8> {
        &mut self.sending
    }

    /// The kernel took `n` bytes (RFC 9687 §4: progress starts the send hold timer again).
    pub fn sent(&mut self, n: usize, now: Instant) {
        self.sending.drain(..n.min(self.sending.len()));
        self.timers.send_hold = None;
        self.watch_sending(now);
    }

    /// Runs the send hold timer exactly while bytes wait (RFC 9687 §4: at least eight minutes,
    /// and at least twice the hold time; none where keepalives are off).
    pub fn watch_sending(&mut self, now: Instant) {
        let hold = self.negotiated.as_ref().map(|n| n.hold_time).filter(|h| !h.is_zero());
        if self.sending.is_empty() {
            self.timers.send_hold = None;
        } else if let (None, Some(hold)) = (self.timers.send_hold, hold) {
            self.timers.send_hold = Some(now + (hold * 2).max(Duration::from_secs(480)));
        }
    }

    /// Forgets the connection; returns the bytes that were still to be sent.
    pub fn reset(&mut self, id: ConnId) -> Vec<u8> {
        let last = std::mem::take(&mut self.sending);
        let state = self.state;
        *self = Self { state, ..Self::new(id) };
        last
    }
}

//! One BFD session (RFC 5880 §6): asynchronous mode, active role, no echo.
//!
//! In: parsed packets that were demultiplexed to this session, timeouts, the operator's wishes.
//! Out: packets to send ([`Session::poll_transmit`]) and changes of state ([`Session::poll_event`]).
//! Time is a parameter. After every `handle_*` or `set_*` call drain both, then wait until
//! [`Session::next_timeout`].
//!
//! The session must never report a failure that is none: a peer that says AdminDown, or that never
//! was up, is told apart by [`Event::is_failure`].

use super::Instant;
use super::auth::{AuthConfig, AuthError, Authenticator, SHA1_SECTION_LEN};
use super::packet::{Control, Diagnostic, MANDATORY_LEN, MAX_LEN, Packet, State};
use super::rng::Rng;
pub use machine::{Cause, Event, Input, is_failure, transition};
pub use remote::{Remote, SessionCounters};
use std::collections::VecDeque;
use std::time::Duration;
use timing::Intervals;

mod machine;
mod remote;
#[cfg(test)]
mod tests;
mod timing;

/// §6.8.3: a session that is not Up advertises at least one second.
const SLOW_TX_US: u32 = 1_000_000;

/// What the operator sets: intervals in whole microseconds (non-zero), the detection multiplier
/// (non-zero).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timers {
    pub min_tx_us: u32,
    pub min_rx_us: u32,
    pub multiplier: u8,
}

/// Why the session itself discarded a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Discard {
    #[error(transparent)]
    Auth(#[from] AuthError),
    #[error("session is administratively down")]
    AdminDown,
}

/// A packet to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transmit {
    bytes: [u8; MAX_LEN],
    len: usize,
}

impl Transmit {
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// A session. See the module for the order of calls.
#[derive(Debug)]
pub struct Session {
    timers: Timers,
    state: State,
    diagnostic: Diagnostic,
    discriminator: u32,
    remote: Remote,
    auth: Option<Authenticator>,
    intervals: Intervals,
    polling: bool,
    /// Timers changed again while a poll sequence was under way: sequences must not overlap.
    timers_pending: bool,
    final_due: bool,
    transmit_due: bool,
    /// Copies of AdminDown still to send at the peer's pace, so that one loss does not turn an
    /// orderly stop into a detected failure; and that pace.
    farewells: u8,
    farewell_interval_us: u32,
    now: Instant,
    last_transmit: Instant,
    next_transmit: Option<Instant>,
    last_received: Option<Instant>,
    detect_at: Option<Instant>,
    rng: Rng,
    events: VecDeque<Event>,
    counters: SessionCounters,
    up_since: Option<Instant>,
    last_down: Option<Event>,
}

impl Session {
    /// A session in state Down that sends its first packet within a second of `now` (spread by
    /// `seed`, so that many sessions do not start in step). `discriminator` is unique in this
    /// system and not 0.
    pub fn new(
        discriminator: u32,
        timers: Timers,
        auth: Option<AuthConfig>,
        seed: u64,
        now: Instant,
    ) -> Self {
        let mut rng = Rng::new(seed);
        let first = now + Duration::from_micros(rng.range(0, u64::from(SLOW_TX_US) / 4));
        let sequence = rng.next_u64() as u32;
        let mut session = Self {
            timers,
            state: State::Down,
            diagnostic: Diagnostic::None,
            discriminator,
            remote: Remote::UNKNOWN,
            auth: auth.map(|config| Authenticator::new(config, sequence)),
            intervals: Intervals { desired_tx: 0, required_rx: 0, tx_in_use: 0, rx_in_use: 0 },
            polling: false,
            timers_pending: false,
            final_due: false,
            transmit_due: false,
            farewells: 0,
            farewell_interval_us: SLOW_TX_US,
            now,
            last_transmit: now,
            next_transmit: Some(first),
            last_received: None,
            detect_at: None,
            rng,
            events: VecDeque::new(),
            counters: SessionCounters::default(),
            up_since: None,
            last_down: None,
        };
        session.advertise_slow();
        session
    }

    /// Takes a packet that was demultiplexed to this session: the rest of §6.8.6, in its order.
    pub fn handle_packet(&mut self, packet: &Packet<'_>, now: Instant) -> Result<(), Discard> {
        self.now = now;
        self.forget_stale_sequence();
        if let Err(error) = self.authenticate(packet) {
            self.counters.dropped_auth += 1;
            return Err(error.into());
        }
        let control = &packet.control;
        self.remote = Remote {
            state: control.state,
            discriminator: control.my_discriminator,
            diagnostic: control.diagnostic,
            min_rx_us: control.required_min_rx_us,
            min_tx_us: control.desired_min_tx_us,
            multiplier: control.detect_multiplier,
            demand: control.demand,
            control_plane_independent: control.control_plane_independent,
        };
        if self.polling && control.is_final {
            self.end_poll();
        }
        if self.state == State::AdminDown {
            if control.state != State::Up {
                self.farewells = 0;
            }
            self.counters.dropped_admin_down += 1;
            self.reschedule();
            return Err(Discard::AdminDown);
        }
        self.counters.received += 1;
        self.apply(Input::Received(control.state));
        // §6.8.6: answered without regard to the transmission timer.
        self.final_due |= control.poll;
        self.last_received = Some(now);
        self.detect_at = Some(now + self.detection_time());
        self.reschedule();
        Ok(())
    }

    /// Lets time pass: detects the peer's silence, makes periodic packets due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.now = now;
        if self.detect_at.is_some_and(|at| at <= now) {
            self.detect_at = None;
            // §6.8.1: the remote discriminator is zero once a detection time passed in silence;
            // the rest of what the peer said is as stale.
            self.remote = Remote { diagnostic: self.remote.diagnostic, ..Remote::UNKNOWN };
            self.apply(Input::DetectionTimeExpired);
            self.reschedule();
        }
        if self.next_transmit.is_some_and(|at| at <= now) {
            self.transmit_due = true;
        }
    }

    /// Takes the session down for the operator, or lets it come up again (§6.8.16). The peer is
    /// told, several times if need be.
    pub fn set_admin_down(&mut self, down: bool, now: Instant) {
        self.now = now;
        let peer_expects_us = self.remote.state == State::Up || self.state == State::Up;
        let interval = self.transmit_interval_us();
        if !self.apply(if down { Input::AdminDown } else { Input::AdminUp }) {
            return;
        }
        if down {
            self.detect_at = None;
            self.farewells = if peer_expects_us { self.timers.multiplier.clamp(2, 5) } else { 1 };
            self.farewell_interval_us = interval;
        } else {
            self.farewells = 0;
            self.remote = Remote::UNKNOWN;
        }
        self.reschedule();
    }

    /// Whether a session that is AdminDown still owes its peer copies of the news.
    pub fn is_saying_farewell(&self) -> bool {
        self.state == State::AdminDown && self.farewells > 0
    }

    /// Changes the timers. A session that is Up stays Up: a poll sequence carries the change (§6.5,
    /// §6.8.3).
    pub fn set_timers(&mut self, timers: Timers, now: Instant) {
        self.now = now;
        if timers == self.timers {
            return;
        }
        let multiplier_only = Timers { multiplier: timers.multiplier, ..self.timers } == timers;
        self.timers = timers;
        if self.state == State::Up {
            if multiplier_only {
                self.transmit_due = true;
            } else if self.polling {
                self.timers_pending = true;
            } else {
                self.advertise_configured();
            }
        } else {
            self.advertise_slow();
        }
        if let Some(last) = self.last_received.filter(|_| self.detect_at.is_some()) {
            self.detect_at = Some(last + self.detection_time());
        }
        self.reschedule();
    }

    /// Changes the authentication of the packets from now on. `sequence` seeds a new one.
    pub fn set_auth(&mut self, auth: Option<AuthConfig>, sequence: u32) {
        match (&mut self.auth, auth) {
            (Some(current), Some(config)) if current.config().kind == config.kind => {
                current.set_config(config);
            }
            (current, config) => {
                *current = config.map(|config| Authenticator::new(config, sequence));
            }
        }
    }

    /// The next packet to send, if one is due.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        if self.final_due {
            self.final_due = false;
            return Some(self.build(true));
        }
        if !self.transmit_due {
            return None;
        }
        self.transmit_due = false;
        self.last_transmit = self.now;
        let packet = self.build(false);
        if self.state == State::AdminDown {
            self.farewells = self.farewells.saturating_sub(1);
        }
        self.next_transmit = None;
        self.reschedule();
        Some(packet)
    }

    /// The next change of state that was not read yet.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When [`Self::handle_timeout`] is due, if at all.
    pub fn next_timeout(&self) -> Option<Instant> {
        match (self.next_transmit, self.detect_at) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    pub fn state(&self) -> State {
        self.state
    }

    pub fn diagnostic(&self) -> Diagnostic {
        self.diagnostic
    }

    pub fn discriminator(&self) -> u32 {
        self.discriminator
    }

    pub fn remote(&self) -> &Remote {
        &self.remote
    }

    pub fn timers(&self) -> Timers {
        self.timers
    }

    /// The Desired Min TX and Required Min RX that our packets carry, in microseconds.
    pub fn advertised_us(&self) -> (u32, u32) {
        (self.intervals.desired_tx, self.intervals.required_rx)
    }

    pub fn is_polling(&self) -> bool {
        self.polling
    }

    pub fn counters(&self) -> &SessionCounters {
        &self.counters
    }

    pub fn up_since(&self) -> Option<Instant> {
        self.up_since
    }

    /// The last change from Up to another state.
    pub fn last_down(&self) -> Option<&Event> {
        self.last_down.as_ref()
    }

    fn authenticate(&mut self, packet: &Packet<'_>) -> Result<(), AuthError> {
        match (&mut self.auth, packet.auth) {
            (None, None) => Ok(()),
            (None, Some(_)) => Err(AuthError::Unexpected),
            (Some(auth), _) => auth.verify(packet),
        }
    }

    /// §6.8.1 bfd.AuthSeqKnown: cleared after twice the detection time without a packet.
    fn forget_stale_sequence(&mut self) {
        let stale = match self.last_received {
            Some(last) => self.now.saturating_sub(last) > 2 * self.detection_time(),
            None => true,
        };
        if let Some(auth) = self.auth.as_mut().filter(|_| stale) {
            auth.forget_peer();
        }
    }

    /// Runs the machine; returns whether the state changed.
    fn apply(&mut self, input: Input) -> bool {
        let Some((new, diagnostic, cause)) = transition(self.state, input) else {
            return false;
        };
        let old = std::mem::replace(&mut self.state, new);
        self.diagnostic = diagnostic;
        let event = Event {
            old,
            new,
            cause,
            diagnostic,
            remote_diagnostic: self.remote.diagnostic,
            at: self.now,
        };
        self.counters.transitions += 1;
        self.counters.failures += u64::from(event.is_failure());
        if new == State::Up {
            self.counters.ups += 1;
            self.up_since = Some(self.now);
            self.advertise_configured();
        } else {
            self.advertise_slow();
        }
        if old == State::Up {
            self.up_since = None;
            self.last_down = Some(event);
        }
        self.events.push_back(event);
        // §6.8.7: sent between the periodic packets, since its contents differ from the last.
        self.transmit_due = true;
        true
    }

    /// §6.8.7, field by field.
    fn build(&mut self, is_final: bool) -> Transmit {
        let control = Control {
            diagnostic: self.diagnostic,
            state: self.state,
            // A packet never carries both; the poll goes out with the next periodic packet.
            poll: self.polling && !is_final,
            is_final,
            // The session dies with the process: forwarding and control share their fate.
            control_plane_independent: false,
            demand: false,
            detect_multiplier: self.timers.multiplier,
            my_discriminator: self.discriminator,
            your_discriminator: self.remote.discriminator,
            desired_min_tx_us: self.intervals.desired_tx,
            required_min_rx_us: self.intervals.required_rx,
            required_min_echo_rx_us: 0,
        };
        self.counters.sent += 1;
        let mut bytes = [0; MAX_LEN];
        let auth_len = if self.auth.is_some() { SHA1_SECTION_LEN } else { 0 };
        bytes[..MANDATORY_LEN].copy_from_slice(&control.encode(auth_len));
        let len = match &mut self.auth {
            Some(auth) => auth.sign(&mut bytes),
            None => MANDATORY_LEN,
        };
        Transmit { bytes, len }
    }
}

//! The session with one neighbour: [`super::fsm`] driven over at most two connections, with
//! collisions resolved (RFC 4271 §6.8), timers, capabilities and the Adj-RIBs.
//!
//! Sans-IO. In: `handle_*`, each with `now`. Out, to be asked for after every `handle_*`:
//! 1. [`Session::poll_output`] until `None`: dial, close, what changed;
//! 2. [`Session::poll_transmit`] per connection: bytes to write, reported back with
//!    [`Session::handle_transmitted`];
//! 3. [`Session::poll_timeout`]: when to call [`Session::handle_timeout`] at the latest.
//!
//! No input can make it fail or panic, and none makes it grow: a message at a time is buffered
//! per connection, a bounded number of bytes waits to be sent, accepted routes are limited.

mod actions;
mod messages;
mod negotiate;
mod status;

pub use negotiate::Negotiated;
pub use status::{Direction, MessageCounts, SessionError, UpdateErrors};

use super::config::{LocalConfig, NeighborConfig};
use super::connection::{Connection, SEND_BUFFER, Timers};
use super::fsm::{Action, Event, State, transition};
use super::import::AdjRibIn;
use super::rib::AdjRibOut;
use super::wire::{Families, Notification};
use crate::Wanted;
use actions::{due, notification, reason};
use std::collections::VecDeque;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Errors in a row after which a neighbour that dials us is refused until our back-off ends.
const PATIENCE: u32 = 3;

/// Names a connection, or the attempt to make one, between session and driver. Never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(u64);

/// Both ends of a connection, and what else its interface offers for a next hop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Endpoints {
    pub local: SocketAddr,
    pub remote: SocketAddr,
    /// Addresses of the interface that holds `local`.
    pub v4: Option<Ipv4Addr>,
    pub v6: Option<Ipv6Addr>,
    pub link_local: Option<Ipv6Addr>,
    /// Its index; 0 if unknown.
    pub interface: u32,
}

/// What the driver has to do or know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Open a connection; answer with `handle_dialled` or `handle_closed`.
    Dial(ConnId),
    /// Write `last`, as far as the peer takes it within a second or so, and close; or give up
    /// the dial. The session has already forgotten the connection.
    Close { id: ConnId, last: Vec<u8> },
    /// For the log.
    StateChanged { from: State, to: State, reason: String },
    /// Accepted routes are not what they were.
    RoutesChanged,
}

/// Why an event happened: for the NOTIFICATION, the log and the operator.
#[derive(Debug, Clone)]
enum Cause {
    Plain,
    Text(String),
    Send(Notification),
    Received(Notification),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Slot {
    Primary,
    /// A second connection, accepted while the first is not settled.
    Second,
}

/// The session with one neighbour.
#[derive(Debug)]
pub struct Session {
    config: NeighborConfig,
    local: LocalConfig,
    primary: Connection,
    second: Option<Connection>,
    admin_down: bool,
    wanted: Arc<Wanted>,
    rib: Option<AdjRibOut>,
    import: AdjRibIn,
    /// When routes of a session that broke are dropped at the latest.
    stale_until: Option<Instant>,
    /// We may have been here before, and do not know yet what of it still holds: End-of-RIB, which
    /// ends the neighbour's patience (RFC 4724 §4.1), waits for that, at the longest until then.
    restarting_until: Option<Instant>,
    /// To be told once, however many UPDATEs an input held.
    routes_changed: bool,
    outputs: VecDeque<Output>,
    reported: State,
    next_id: u64,
    random: u64,
    /// Failures since the last stable session: how long to back off.
    failures: u32,
    /// Of these, errors in what the neighbour sent.
    offences: u32,
    established_at: Option<Instant>,
    established_count: u64,
    last_error: Option<SessionError>,
    last_down: Option<SessionError>,
    received: MessageCounts,
    sent: MessageCounts,
    update_errors: UpdateErrors,
}

impl Session {
    /// `seed` feeds the jitter of timers (RFC 4271 §10). Starts at once unless the neighbour is
    /// configured as shut down.
    pub fn new(
        config: NeighborConfig,
        local: LocalConfig,
        wanted: Arc<Wanted>,
        seed: u64,
        now: Instant,
    ) -> Self {
        let mut session = Self {
            admin_down: config.shutdown.is_some(),
            restarting_until: config
                .graceful_restart
                .map(|seconds| now + Duration::from_secs(u64::from(seconds))),
            config,
            local,
            primary: Connection::new(ConnId(0)),
            second: None,
            wanted,
            rib: None,
            import: AdjRibIn::default(),
            stale_until: None,
            routes_changed: false,
            outputs: VecDeque::new(),
            reported: State::Idle,
            next_id: 1,
            random: seed,
            failures: 0,
            offences: 0,
            established_at: None,
            established_count: 0,
            last_error: None,
            last_down: None,
            received: MessageCounts::default(),
            sent: MessageCounts::default(),
            update_errors: UpdateErrors::default(),
        };
        if !session.admin_down {
            session.start(now);
        }
        session
    }

    /// The dial is through.
    pub fn handle_dialled(&mut self, id: ConnId, endpoints: Endpoints, now: Instant) {
        if let Some(conn) = self.conn_mut(id) {
            conn.endpoints = Some(endpoints);
        }
        self.apply(id, Event::Dialled, Cause::Plain, now);
        self.settle(now);
    }

    /// The peer dialled us. `None`: close it.
    pub fn handle_accepted(&mut self, endpoints: Endpoints, now: Instant) -> Option<ConnId> {
        let free = matches!(self.primary.state, State::Idle | State::Active);
        let backing_off = self.primary.state == State::Idle && self.offences > PATIENCE;
        let second_settled = self.second.as_ref().is_some_and(|s| s.state > State::OpenSent);
        if self.admin_down || backing_off || (!free && second_settled) {
            return None;
        }
        let id = self.new_id();
        if free {
            self.primary.reset(id);
        } else {
            // The peer gave up on what it had dialled before, or it would not dial again.
            if let Some(old) = self.second.as_ref().map(|s| s.id) {
                self.apply(old, Event::CollisionLost, Cause::Plain, now);
            }
            let mut conn = Connection::new(id);
            conn.state = State::Active;
            self.second = Some(conn);
        }
        if let Some(conn) = self.conn_mut(id) {
            conn.dialled = false;
            conn.open = true;
            conn.endpoints = Some(endpoints);
        }
        self.apply(id, Event::Accepted, Cause::Plain, now);
        self.settle(now);
        Some(id)
    }

    /// The peer closed the connection, it broke, or the dial failed.
    pub fn handle_closed(&mut self, id: ConnId, reason: &str, now: Instant) {
        if let Some(conn) = self.conn_mut(id) {
            conn.open = false;
        }
        self.apply(id, Event::ConnectionFails, Cause::Text(reason.to_owned()), now);
        self.settle(now);
    }

    /// Bytes arrived. Best given in pieces of at most some 64 KiB.
    pub fn handle_input(&mut self, id: ConnId, bytes: &[u8], now: Instant) {
        self.process(id, bytes, now);
        self.settle(now);
    }

    /// The kernel took the first `n` bytes of [`Self::poll_transmit`].
    pub fn handle_transmitted(&mut self, id: ConnId, n: usize, now: Instant) {
        if let Some(conn) = self.conn_mut(id) {
            conn.sent(n, now);
        }
        self.settle(now);
    }

    /// The latest wanted state replaces the one before.
    pub fn handle_wanted(&mut self, wanted: Arc<Wanted>, now: Instant) {
        if let Some(rib) = &mut self.rib {
            rib.handle_wanted(&wanted);
        }
        self.wanted = wanted;
        self.settle(now);
    }

    /// The wanted state is complete: all that is known of before a restart has been decided anew.
    /// Does nothing unless graceful restart is configured.
    pub fn handle_settled(&mut self, now: Instant) {
        self.restarting_until = None;
        if let Some(rib) = &mut self.rib {
            rib.release_end_of_rib();
        }
        self.settle(now);
    }

    /// BFD went from Up to Down: the session falls at once (RFC 5882 §4.3, RFC 9384).
    pub fn handle_bfd_down(&mut self, now: Instant) {
        self.apply(self.primary.id, Event::BfdDown, Cause::Plain, now);
        self.settle(now);
    }

    /// The neighbour shows signs of life: do not wait any longer before dialling it.
    pub fn handle_reachable(&mut self, now: Instant) {
        if self.primary.state == State::Active && !self.config.passive {
            self.apply(self.primary.id, Event::ConnectRetryExpires, Cause::Plain, now);
        }
        self.settle(now);
    }

    /// Ends the session and stays down until [`Self::handle_start`].
    pub fn handle_stop(&mut self, reason: Notification, now: Instant) {
        self.admin_down = true;
        for id in self.ids() {
            self.apply(id, Event::Stop, Cause::Send(reason.clone()), now);
        }
        self.primary.timers = Timers::default();
        // Nothing is kept of a neighbour that is not wanted, stale routes included.
        self.routes_changed |= self.import.retain_stale(Families::default());
        self.stale_until = None;
        self.settle(now);
    }

    /// Starts a session that was stopped.
    pub fn handle_start(&mut self, now: Instant) {
        self.admin_down = false;
        if self.primary.state == State::Idle {
            self.start(now);
        }
        self.settle(now);
    }

    /// Fires the timers that are due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.expire_stale(now);
        if self.restarting_until.is_some_and(|t| t <= now) {
            self.handle_settled(now);
        }
        for id in self.ids() {
            while let Some(event) = self.conn_mut(id).and_then(|c| due(c, now)) {
                if event == Event::Start {
                    self.start(now);
                } else {
                    self.apply(id, event, Cause::Plain, now);
                }
            }
        }
        self.settle(now);
    }

    /// When [`Self::handle_timeout`] is due at the latest.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let timers = self.conns().filter_map(|c| c.timers.next());
        timers.chain(self.stale_until).chain(self.restarting_until).min()
    }

    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Bytes to write to this connection.
    pub fn poll_transmit(&self, id: ConnId) -> &[u8] {
        self.conns().find(|c| c.id == id).map_or(&[], Connection::sending)
    }

    fn start(&mut self, now: Instant) {
        let event = if self.config.passive { Event::StartPassive } else { Event::Start };
        self.apply(self.primary.id, event, Cause::Plain, now);
        self.report("start".to_owned());
    }

    fn conns(&self) -> impl Iterator<Item = &Connection> {
        std::iter::once(&self.primary).chain(&self.second)
    }

    fn ids(&self) -> Vec<ConnId> {
        self.conns().map(|c| c.id).collect()
    }

    fn slot(&self, id: ConnId) -> Option<Slot> {
        if self.primary.id == id {
            return Some(Slot::Primary);
        }
        self.second.as_ref().filter(|s| s.id == id).map(|_| Slot::Second)
    }

    fn conn_mut(&mut self, id: ConnId) -> Option<&mut Connection> {
        std::iter::once(&mut self.primary).chain(&mut self.second).find(|c| c.id == id)
    }

    fn new_id(&mut self) -> ConnId {
        self.next_id += 1;
        ConnId(self.next_id)
    }

    /// Runs one event through the table. Returns whether its message is to be taken in.
    fn apply(&mut self, id: ConnId, event: Event, cause: Cause, now: Instant) -> bool {
        let Some(slot) = self.slot(id) else {
            return false;
        };
        let from = self.at(slot).state;
        let step = transition(from, event);
        if step.next == from && step.actions.is_empty() {
            return false;
        }
        self.note(from, event, &cause, now);
        self.at(slot).state = step.next;
        for &action in step.actions {
            self.act(slot, action, from, event, &cause, now);
        }
        let reason = reason(event, &cause);
        self.promote(now);
        self.report(reason);
        step.actions.contains(&Action::Deliver)
    }

    fn at(&mut self, slot: Slot) -> &mut Connection {
        match (slot, &mut self.second) {
            (Slot::Second, Some(second)) => second,
            _ => &mut self.primary,
        }
    }

    /// After every input: news, bytes to send, and their timer.
    fn settle(&mut self, now: Instant) {
        if std::mem::take(&mut self.routes_changed) {
            self.outputs.push_back(Output::RoutesChanged);
        }
        if let (State::Established, Some(rib)) = (self.primary.state, &mut self.rib) {
            let messages = rib.poll_updates(SEND_BUFFER, self.primary.sending_mut());
            self.sent.update += u64::from(messages);
        }
        self.primary.watch_sending(now);
        if let Some(second) = &mut self.second {
            second.watch_sending(now);
        }
    }

    /// Keeps the connection that matters in the first slot.
    fn promote(&mut self, now: Instant) {
        let Some(second) = &self.second else { return };
        match (self.primary.state, second.state) {
            (_, State::Idle | State::Active | State::Connect) => self.second = None,
            (State::Idle | State::Active, _) => {
                if let Some(second) = self.second.take() {
                    self.primary = second;
                }
            }
            (_, State::Established) => {
                // The loser's last words go out first; this comes back here with it Idle.
                self.apply(self.primary.id, Event::CollisionLost, Cause::Plain, now);
            }
            _ => {}
        }
    }

    fn report(&mut self, reason: String) {
        let to = self.state();
        let from = std::mem::replace(&mut self.reported, to);
        if from != to {
            self.outputs.push_back(Output::StateChanged { from, to, reason });
        }
    }
}

#[cfg(test)]
mod tests;

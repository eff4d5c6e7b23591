//! What the table's actions mean: timers, messages, connections (RFC 4271 §8.2.2, §10).

use super::{Cause, Output, Session, Slot};
use crate::bgp::connection::{Connection, OPEN_HOLD, Timers};
use crate::bgp::fsm::{Action, Event, State};
use crate::bgp::rib::AdjRibOut;
use crate::bgp::wire::{Families, Family, Message, MessageKind, Notification, cease, code};
use std::time::{Duration, Instant};

/// Longest time a dial may take.
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);
/// First wait after a failure; doubled by each further one up to the neighbour's connect-retry.
const FIRST_BACK_OFF: Duration = Duration::from_secs(1);
/// A session that lasted this long is forgiven its earlier failures.
const STABLE_AFTER: Duration = Duration::from_secs(30);
/// Routes of a peer that restarts are not kept longer, whatever it asks for.
const LONGEST_STALE: Duration = Duration::from_secs(180);

impl Session {
    /// Does one action of a transition out of `from`.
    pub(super) fn act(
        &mut self,
        slot: Slot,
        action: Action,
        from: State,
        event: Event,
        cause: &Cause,
        now: Instant,
    ) {
        match action {
            Action::Dial => self.dial(),
            Action::StartConnectRetry => self.start_connect_retry(slot, now),
            Action::SendOpen => self.send_open(slot, now),
            Action::Confirm => self.confirm(slot, now),
            Action::SendKeepalive => self.send_keepalive(slot, now),
            Action::RestartHold => {
                let conn = self.at(slot);
                let hold = conn.negotiated.as_ref().map(|n| n.hold_time);
                conn.timers.hold = hold.filter(|h| !h.is_zero()).map(|h| now + h);
            }
            Action::Up => self.up(slot, now),
            Action::Down => self.down(slot, event, now),
            Action::Deliver => {}
            Action::Notify => {
                if let Some(notification) = notification(from, event, cause) {
                    notification.encode(self.at(slot).sending_mut());
                    self.sent.add(MessageKind::Notification);
                }
            }
            Action::Close => {
                let fresh = self.new_id();
                let conn = self.at(slot);
                let (id, open) = (conn.id, conn.open);
                let last = conn.reset(fresh);
                if open {
                    self.outputs.push_back(Output::Close { id, last });
                }
            }
            Action::BackOff => {
                self.failures = self.failures.saturating_add(1);
                self.offences = self.offences.saturating_add(u32::from(event == Event::Malformed));
                let wait = self.back_off();
                self.at(slot).timers.idle_hold = Some(now + wait);
            }
        }
    }

    fn dial(&mut self) {
        let id = self.new_id();
        let timeout = self.primary.timers.connect_retry;
        self.primary.reset(id);
        self.primary.timers.connect_retry = timeout;
        self.primary.open = true;
        self.outputs.push_back(Output::Dial(id));
    }

    fn send_open(&mut self, slot: Slot, now: Instant) {
        let open = self.our_open();
        let conn = self.at(slot);
        conn.timers = Timers { hold: Some(now + OPEN_HOLD), ..Default::default() };
        open.encode(conn.sending_mut());
        self.sent.add(MessageKind::Open);
    }

    fn confirm(&mut self, slot: Slot, now: Instant) {
        let jitter = self.jitter();
        let conn = self.at(slot);
        if let Some(negotiated) = &conn.negotiated {
            let (hold, keepalive) = (negotiated.hold_time, negotiated.keepalive);
            conn.timers.hold = (!hold.is_zero()).then(|| now + hold);
            conn.timers.keepalive = (!hold.is_zero()).then(|| now + keepalive.mul_f64(jitter));
        }
        Message::encode_keepalive(conn.sending_mut());
        self.sent.add(MessageKind::Keepalive);
    }

    fn send_keepalive(&mut self, slot: Slot, now: Instant) {
        let jitter = self.jitter();
        let conn = self.at(slot);
        let interval = conn.negotiated.as_ref().map(|n| n.keepalive);
        conn.timers.keepalive = interval.map(|i| now + i.mul_f64(jitter));
        // Whatever waits to be sent is as good a sign of life.
        if conn.sending().is_empty() {
            Message::encode_keepalive(conn.sending_mut());
            self.sent.add(MessageKind::Keepalive);
        }
    }

    fn up(&mut self, slot: Slot, now: Instant) {
        if let Some(ctx) = self.export_context(slot) {
            let mut rib = AdjRibOut::new(ctx, &self.wanted);
            if self.restarting_until.is_some() {
                rib.hold_end_of_rib();
            }
            self.rib = Some(rib);
        }
        self.established_at = Some(now);
        self.established_count += 1;
        // RFC 4724 §4.2: what the peer did not preserve is not to be used any longer; what it
        // did, until it has announced anew.
        let preserved = self.at(slot).preserved();
        let gone = Family::ALL.into_iter().filter(|f| !preserved.contains(*f));
        for family in gone {
            self.routes_changed |= self.import.drop_stale(family);
        }
        self.stale_until = self.import.has_stale().then(|| now + LONGEST_STALE);
    }

    fn down(&mut self, slot: Slot, event: Event, now: Instant) {
        self.rib = None;
        let stable = self.established_at.take().is_some_and(|t| now - t >= STABLE_AFTER);
        if stable {
            self.failures = 0;
            self.offences = 0;
        }
        // RFC 4724 §4.2: a peer that said it would restart without ceasing to forward is taken
        // at its word, if its connection breaks without a NOTIFICATION.
        let restart = self.at(slot).restart().filter(|_| event == Event::ConnectionFails);
        let preserved = restart.map_or(Families::default(), |r| r.preserved);
        self.routes_changed |= self.import.retain_stale(preserved);
        let time = restart.map_or(0, |r| u64::from(r.restart_time));
        let until = now + Duration::from_secs(time).min(LONGEST_STALE);
        self.stale_until = self.import.has_stale().then_some(until);
    }

    /// The peer did not come back, or did not announce what it had, in time.
    pub(super) fn expire_stale(&mut self, now: Instant) {
        if self.stale_until.is_some_and(|t| t <= now) {
            self.stale_until = None;
            for family in Family::ALL {
                self.routes_changed |= self.import.drop_stale(family);
            }
        }
    }

    /// In Connect the timer bounds the dial, in Active it is the wait for the next one.
    fn start_connect_retry(&mut self, slot: Slot, now: Instant) {
        let wait = if self.at(slot).state == State::Connect {
            self.config.connect_retry.clamp(FIRST_BACK_OFF, DIAL_TIMEOUT)
        } else {
            self.failures = self.failures.saturating_add(1);
            self.back_off()
        };
        self.at(slot).timers.connect_retry = (!self.config.passive).then(|| now + wait);
    }

    /// Doubling from a second to the configured retry time, with jitter.
    fn back_off(&mut self) -> Duration {
        let doubled = FIRST_BACK_OFF * (1 << (self.failures.saturating_sub(1)).min(16));
        let wait = doubled.min(self.config.connect_retry.max(FIRST_BACK_OFF));
        wait.mul_f64(self.jitter())
    }

    /// 0.75 to 1 (RFC 4271 §10), by splitmix64.
    fn jitter(&mut self) -> f64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        0.75 + ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64 * 0.25
    }
}

/// The next timer that is due, taken off.
pub(super) fn due(conn: &mut Connection, now: Instant) -> Option<Event> {
    let timers = &mut conn.timers;
    let mut take = |timer: fn(&mut Timers) -> &mut Option<Instant>, event| {
        let timer = timer(timers);
        timer.is_some_and(|t| t <= now).then(|| {
            *timer = None;
            event
        })
    };
    take(|t| &mut t.hold, Event::HoldExpires)
        .or_else(|| take(|t| &mut t.send_hold, Event::SendHoldExpires))
        .or_else(|| take(|t| &mut t.keepalive, Event::KeepaliveExpires))
        .or_else(|| take(|t| &mut t.connect_retry, Event::ConnectRetryExpires))
        .or_else(|| take(|t| &mut t.idle_hold, Event::Start))
}

/// The NOTIFICATION an event calls for.
pub(super) fn notification(state: State, event: Event, cause: &Cause) -> Option<Notification> {
    Some(match (event, cause) {
        (_, Cause::Send(n)) => n.clone(),
        (_, Cause::Received(_)) => return None,
        (Event::HoldExpires, _) => Notification::new(code::HOLD_TIMER, 0),
        (Event::SendHoldExpires, _) => Notification::new(code::SEND_HOLD_TIMER, 0),
        (Event::CollisionLost, _) => Notification::new(code::CEASE, cease::COLLISION),
        (Event::BfdDown, _) => Notification::new(code::CEASE, cease::BFD_DOWN),
        (Event::Stop, _) => Notification::new(code::CEASE, cease::ADMIN_SHUTDOWN),
        _ => Notification::new(code::FSM, state.unexpected_message_subcode()),
    })
}

/// For the log.
pub(super) fn reason(event: Event, cause: &Cause) -> String {
    match cause {
        Cause::Text(text) => text.clone(),
        Cause::Send(n) => format!("sent {n}"),
        Cause::Received(n) => format!("received {n}"),
        Cause::Plain => match event {
            Event::Start | Event::StartPassive => "start",
            Event::Stop => "stopped",
            Event::ConnectRetryExpires => "connect retry timer expired",
            Event::HoldExpires => "hold timer expired",
            Event::KeepaliveExpires => "keepalive timer expired",
            Event::SendHoldExpires => "send hold timer expired: the peer does not read",
            Event::Dialled => "connected",
            Event::Accepted => "connection accepted",
            Event::ConnectionFails => "connection lost",
            Event::OpenReceived => "OPEN received",
            Event::KeepaliveReceived => "KEEPALIVE received",
            Event::CollisionLost => "connection collision",
            Event::BfdDown => "BFD down",
            Event::Malformed
            | Event::NotificationReceived
            | Event::UpdateReceived
            | Event::RefreshReceived => "unexpected message",
        }
        .to_owned(),
    }
}

//! What arrives: from bytes to messages to events.

use super::{Cause, ConnId, Negotiated, Session};
use crate::bgp::fsm::{Event, State};
use crate::bgp::import::ImportContext;
use crate::bgp::wire::{
    DecodeContext, Message, MessageKind, Notification, Open, RouteRefresh, Update, cease, code,
    next_frame,
};
use std::time::Instant;

impl Session {
    /// Takes whole messages off what was received on a connection.
    pub(super) fn process(&mut self, id: ConnId, bytes: &[u8], now: Instant) {
        let Some(conn) = self.conn_mut(id) else {
            return;
        };
        if conn.state < State::OpenSent {
            return;
        }
        let mut buffer = conn.take_received();
        buffer.extend_from_slice(bytes);
        let mut at = 0;
        loop {
            // Gone as soon as a message ends the connection: its id is not used again.
            let Some(conn) = self.conn_mut(id) else {
                return;
            };
            let negotiated = conn.negotiated.as_ref();
            let extended = negotiated.is_some_and(|n| n.extended_message);
            let ctx = negotiated.map_or_else(DecodeContext::default, Negotiated::decode_context);
            match next_frame(&buffer[at..], extended) {
                Ok(None) => break,
                Ok(Some(frame)) => {
                    at += frame.len;
                    let kind = frame.kind;
                    let message = Message::decode(&frame, ctx);
                    self.received.add(kind);
                    self.message(id, kind, message, now);
                }
                Err(notification) => {
                    self.apply(id, Event::Malformed, Cause::Send(notification), now);
                    return;
                }
            }
        }
        buffer.drain(..at);
        if let Some(conn) = self.conn_mut(id) {
            conn.put_back_received(buffer);
        }
    }

    fn message(
        &mut self,
        id: ConnId,
        kind: MessageKind,
        message: Result<Message, Notification>,
        now: Instant,
    ) {
        let Some(state) = self.conn_mut(id).map(|c| c.state) else {
            return;
        };
        // A message that is out of place is judged by its place, not by its content
        // (RFC 4271 §8.2.2).
        let expected = match kind {
            MessageKind::Open => state == State::OpenSent,
            MessageKind::Update | MessageKind::RouteRefresh => state == State::Established,
            MessageKind::Notification | MessageKind::Keepalive => true,
        };
        let message = match message {
            Ok(message) => message,
            Err(notification) if expected => {
                self.apply(id, Event::Malformed, Cause::Send(notification), now);
                return;
            }
            Err(_) => {
                self.apply(id, event_of(kind), Cause::Plain, now);
                return;
            }
        };
        match message {
            Message::Open(open) if expected => self.open(id, open, now),
            Message::Notification(n) => {
                self.apply(id, Event::NotificationReceived, Cause::Received(n), now);
            }
            Message::Update(update) => {
                if self.apply(id, Event::UpdateReceived, Cause::Plain, now) {
                    self.update(id, &update, now);
                }
            }
            Message::RouteRefresh(refresh) => {
                if self.apply(id, Event::RefreshReceived, Cause::Plain, now) {
                    self.refresh(refresh);
                }
            }
            Message::Open(_) | Message::Keepalive => {
                self.apply(id, event_of(kind), Cause::Plain, now);
            }
        }
    }

    /// A well-formed OPEN where one is due: is it from whom we expect, and on which connection
    /// does the session go on?
    fn open(&mut self, id: ConnId, open: Open, now: Instant) {
        let negotiated = match self.negotiate(&open) {
            Ok(negotiated) => negotiated,
            Err(notification) => {
                self.apply(id, Event::Malformed, Cause::Send(notification), now);
                return;
            }
        };
        if let Some(loser) = self.collision(id, &open) {
            self.apply(loser, Event::CollisionLost, Cause::Plain, now);
            if loser == id {
                return;
            }
        }
        if let Some(conn) = self.conn_mut(id) {
            conn.negotiated = Some(negotiated);
            conn.peer_open = Some(open);
        }
        self.apply(id, Event::OpenReceived, Cause::Plain, now);
    }

    /// The connection to give up, if another has come as far as OPEN (RFC 4271 §6.8).
    fn collision(&self, id: ConnId, open: &Open) -> Option<ConnId> {
        let new = self.conns().find(|c| c.id == id)?;
        let other = self.conns().find(|c| c.id != id)?;
        match other.state {
            State::Established => Some(id),
            State::OpenConfirm if new.dialled == other.dialled => {
                // The peer dialled twice, so it has given up on the first.
                Some(other.id)
            }
            State::OpenConfirm => {
                // The higher identifier's own connection stays; RFC 6286 §2.3: of equal ones,
                // the higher AS's.
                let ours = (u32::from(self.local.router_id), self.local.asn);
                let keep_dialled = ours > (u32::from(open.router_id), open.asn);
                Some(if new.dialled == keep_dialled { other.id } else { id })
            }
            _ => None,
        }
    }

    fn update(&mut self, id: ConnId, update: &Update, now: Instant) {
        let Some(conn) = self.conn_mut(id) else {
            return;
        };
        let interface = conn.endpoints.map(|e| e.interface).filter(|i| *i != 0);
        let Some(negotiated) = conn.negotiated.as_ref() else {
            return;
        };
        let ctx = ImportContext {
            remote_asn: negotiated.remote_asn,
            internal: negotiated.internal,
            interface,
            local_asn: self.local.asn,
            role: self.config.role,
        };
        if let Some(fault) = update.treated_as_withdraw {
            self.update_errors.treated_as_withdraw += 1;
            self.update_errors.last = Some(fault.to_owned());
        }
        self.update_errors.attributes_discarded += u64::from(update.discarded);
        let (import, limit) = (&self.config.import, self.config.max_prefixes);
        let applied = self.import.handle_update(update, import, limit, &ctx);
        self.routes_changed |= applied.changed;
        if applied.too_many {
            let notification = Notification::new(code::CEASE, cease::MAX_PREFIXES);
            self.apply(id, Event::Malformed, Cause::Send(notification), now);
        }
    }

    fn refresh(&mut self, refresh: RouteRefresh) {
        // RFC 7313 §5: markers are for those who keep a table; unknown subtypes are ignored.
        if let (Some(family), RouteRefresh::REQUEST) = (refresh.family, refresh.subtype)
            && let Some(rib) = &mut self.rib
        {
            rib.handle_refresh(family);
        }
    }
}

fn event_of(kind: MessageKind) -> Event {
    match kind {
        MessageKind::Open => Event::OpenReceived,
        MessageKind::Update => Event::UpdateReceived,
        MessageKind::Notification => Event::NotificationReceived,
        MessageKind::Keepalive => Event::KeepaliveReceived,
        MessageKind::RouteRefresh => Event::RefreshReceived,
    }
}

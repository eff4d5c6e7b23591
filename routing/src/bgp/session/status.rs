//! What an operator may know of a session.

use super::{Cause, Negotiated, Session};
use crate::bgp::config::NeighborConfig;
use crate::bgp::connection::Connection;
use crate::bgp::fsm::{Event, State};
use crate::bgp::import::Route;
use crate::bgp::rib::AdjRibOut;
use crate::bgp::wire::{Capabilities, MessageKind, Notification};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Instant;

/// Messages by type.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessageCounts {
    pub open: u64,
    pub update: u64,
    pub notification: u64,
    pub keepalive: u64,
    pub route_refresh: u64,
}

impl MessageCounts {
    pub(super) fn add(&mut self, kind: MessageKind) {
        *match kind {
            MessageKind::Open => &mut self.open,
            MessageKind::Update => &mut self.update,
            MessageKind::Notification => &mut self.notification,
            MessageKind::Keepalive => &mut self.keepalive,
            MessageKind::RouteRefresh => &mut self.route_refresh,
        } += 1;
    }
}

/// UPDATEs that were wrong without ending the session (RFC 7606).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpdateErrors {
    pub treated_as_withdraw: u64,
    pub attributes_discarded: u64,
    pub last: Option<String>,
}

/// Who ended a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// We sent the NOTIFICATION.
    Sent,
    /// The peer did.
    Received,
    /// None was sent: the connection broke or could not be made.
    Connection,
}

/// Why a session ended or did not come up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionError {
    pub at: Instant,
    pub direction: Direction,
    /// Code and subcode of the NOTIFICATION, if there was one.
    pub notification: Option<(u8, u8)>,
    pub text: String,
}

impl Session {
    /// The furthest of its connections.
    pub fn state(&self) -> State {
        self.conns().map(|c| c.state).max().unwrap_or(State::Idle)
    }

    pub fn config(&self) -> &NeighborConfig {
        &self.config
    }

    /// Stopped by the operator.
    pub fn is_admin_down(&self) -> bool {
        self.admin_down
    }

    /// When the present session was established.
    pub fn established_at(&self) -> Option<Instant> {
        self.established_at
    }

    /// Times the session was established.
    pub fn established_count(&self) -> u64 {
        self.established_count
    }

    pub fn last_error(&self) -> Option<&SessionError> {
        self.last_error.as_ref()
    }

    /// Why the last session that was up ended.
    pub fn last_down(&self) -> Option<&SessionError> {
        self.last_down.as_ref()
    }

    pub fn messages_received(&self) -> &MessageCounts {
        &self.received
    }

    pub fn messages_sent(&self) -> &MessageCounts {
        &self.sent
    }

    pub fn update_errors(&self) -> &UpdateErrors {
        &self.update_errors
    }

    /// Settled with the peer; of the connection that has come furthest.
    pub fn negotiated(&self) -> Option<&Negotiated> {
        self.leading().negotiated.as_ref()
    }

    /// What the peer said it can do.
    pub fn peer_capabilities(&self) -> Option<&Capabilities> {
        self.leading().peer_open.as_ref().map(|o| &o.capabilities)
    }

    /// What we say we can do.
    pub fn our_capabilities(&self) -> Capabilities {
        self.our_open().capabilities
    }

    /// When it is dialled again; `None`: nothing is scheduled.
    pub fn retry_at(&self) -> Option<Instant> {
        let timers = &self.primary.timers;
        timers.idle_hold.or(timers.connect_retry)
    }

    pub fn endpoints(&self) -> Option<&super::Endpoints> {
        self.leading().endpoints.as_ref()
    }

    /// What the peer was told; `None` unless the session is established.
    pub fn adj_rib_out(&self) -> Option<&AdjRibOut> {
        self.rib.as_ref()
    }

    /// Accepted routes.
    pub fn routes(&self) -> &BTreeMap<IpNet, Route> {
        self.import.routes()
    }

    fn leading(&self) -> &Connection {
        self.conns().max_by_key(|c| c.state).unwrap_or(&self.primary)
    }

    /// Remembers an event that ends a connection, if it is an error.
    pub(super) fn note(&mut self, state: State, event: Event, cause: &Cause, now: Instant) {
        let (direction, notification) = match (event, cause) {
            (Event::CollisionLost, _) => return,
            (_, Cause::Received(n)) => (Direction::Received, Some(n.clone())),
            (_, Cause::Send(n)) if state >= State::OpenSent => (Direction::Sent, Some(n.clone())),
            (_, Cause::Text(text)) => {
                self.set_error(state, now, Direction::Connection, None, text.clone());
                return;
            }
            (Event::ConnectRetryExpires, _) if state == State::Connect => {
                self.set_error(
                    state,
                    now,
                    Direction::Connection,
                    None,
                    "connect timed out".to_owned(),
                );
                return;
            }
            (Event::HoldExpires | Event::SendHoldExpires | Event::BfdDown, _) => {
                (Direction::Sent, super::notification(state, event, cause))
            }
            (
                Event::OpenReceived
                | Event::KeepaliveReceived
                | Event::UpdateReceived
                | Event::RefreshReceived,
                _,
            ) if crate::bgp::fsm::transition(state, event).next == State::Idle => {
                (Direction::Sent, super::notification(state, event, cause))
            }
            _ => return,
        };
        let text = notification.as_ref().map(Notification::to_string).unwrap_or_default();
        self.set_error(state, now, direction, notification.map(|n| (n.code, n.subcode)), text);
    }

    fn set_error(
        &mut self,
        state: State,
        at: Instant,
        direction: Direction,
        notification: Option<(u8, u8)>,
        text: String,
    ) {
        self.last_error = Some(SessionError { at, direction, notification, text });
        // What ends a session that is up is kept apart from the failures to get it up again.
        if state == State::Established {
            self.last_down.clone_from(&self.last_error);
        }
    }
}

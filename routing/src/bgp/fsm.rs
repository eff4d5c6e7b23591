//! The state machine of one connection as a table (RFC 4271 §8.2.2).
//!
//! In: a state and an event. Out: the next state and what to do. It is total: every pair has an
//! answer, none can fail. What the actions mean is up to [`super::session`].
//!
//! Differences from the RFC's text, all of them options or later RFCs:
//! - DelayOpen is left out (an option of the RFC).
//! - A failed dial leads to Active, as in every implementation, rather than to Idle.
//! - From any error the machine returns to Idle and starts again by itself after a back-off
//!   (the RFC's AutomaticStart with DampPeerOscillations).
//! - A NOTIFICATION is never answered with one.
//! - RFC 6608 gives unexpected messages a subcode per state; RFC 9687 adds the send hold timer.

use serde::{Deserialize, Serialize};

/// RFC 4271 §8.2.2. The order is that of progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum State {
    Idle,
    Connect,
    Active,
    OpenSent,
    OpenConfirm,
    Established,
}

impl State {
    pub const ALL: [Self; 6] = [
        Self::Idle,
        Self::Connect,
        Self::Active,
        Self::OpenSent,
        Self::OpenConfirm,
        Self::Established,
    ];

    /// Lower case, hyphenated.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Connect => "connect",
            Self::Active => "active",
            Self::OpenSent => "open-sent",
            Self::OpenConfirm => "open-confirm",
            Self::Established => "established",
        }
    }

    /// Subcode of an FSM error in this state (RFC 6608 §3).
    pub fn unexpected_message_subcode(self) -> u8 {
        match self {
            Self::OpenSent => 1,
            Self::OpenConfirm => 2,
            Self::Established => 3,
            Self::Idle | Self::Connect | Self::Active => 0,
        }
    }
}

/// What happens to a connection (numbers as in RFC 4271 §8.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// 1, 3, 13: the operator's start, or the end of the back-off.
    Start,
    /// 4, 5: the same where we only accept.
    StartPassive,
    /// 2, 8: shut down, deconfigured, reset.
    Stop,
    /// 9
    ConnectRetryExpires,
    /// 10
    HoldExpires,
    /// 11
    KeepaliveExpires,
    /// RFC 9687
    SendHoldExpires,
    /// 16: the connection we dialled is up.
    Dialled,
    /// 17: the peer dialled us.
    Accepted,
    /// 18
    ConnectionFails,
    /// 19: a valid OPEN.
    OpenReceived,
    /// 21, 22, 28: bytes the RFCs answer with a NOTIFICATION.
    Malformed,
    /// 23
    CollisionLost,
    /// 24, 25
    NotificationReceived,
    /// 26
    KeepaliveReceived,
    /// 27
    UpdateReceived,
    /// RFC 2918, RFC 7313
    RefreshReceived,
    /// BFD went from Up to Down (RFC 5882 §4.3).
    BfdDown,
}

impl Event {
    pub const ALL: [Self; 18] = [
        Self::Start,
        Self::StartPassive,
        Self::Stop,
        Self::ConnectRetryExpires,
        Self::HoldExpires,
        Self::KeepaliveExpires,
        Self::SendHoldExpires,
        Self::Dialled,
        Self::Accepted,
        Self::ConnectionFails,
        Self::OpenReceived,
        Self::Malformed,
        Self::CollisionLost,
        Self::NotificationReceived,
        Self::KeepaliveReceived,
        Self::UpdateReceived,
        Self::RefreshReceived,
        Self::BfdDown,
    ];
}

/// What to do, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Open a TCP connection to the peer.
    Dial,
    /// Wait before the next dial; a passive side just waits to be dialled.
    StartConnectRetry,
    /// Send OPEN, wait at most four minutes for the peer's (RFC 4271 §8.2.2).
    SendOpen,
    /// Take the peer's OPEN: settle timers and capabilities, send KEEPALIVE.
    Confirm,
    /// Send KEEPALIVE and start its timer again.
    SendKeepalive,
    /// Start the hold timer again.
    RestartHold,
    /// The session is up: announce.
    Up,
    /// The session was up: forget what was told and heard.
    Down,
    /// Take in an UPDATE or ROUTE-REFRESH.
    Deliver,
    /// Queue the NOTIFICATION that belongs to the event.
    Notify,
    /// Flush what is queued, close the connection or give up the dial, stop its timers.
    Close,
    /// Start again later.
    BackOff,
}

/// Where an event leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transition {
    pub next: State,
    pub actions: &'static [Action],
}

/// The table.
pub fn transition(state: State, event: Event) -> Transition {
    use Action as A;
    use Event as E;
    use State as S;
    let go = |next, actions| Transition { next, actions };
    let stay = |actions| Transition { next: state, actions };
    match (state, event) {
        (S::Idle, E::Start) => go(S::Connect, &[A::StartConnectRetry, A::Dial]),
        (S::Idle, E::StartPassive) => go(S::Active, &[]),
        // Whether an Idle machine may be dialled is decided before (see session).
        (S::Idle | S::Active, E::Accepted) => go(S::OpenSent, &[A::SendOpen]),
        (S::Idle, _) => stay(&[]),

        (S::Connect, E::Dialled) => go(S::OpenSent, &[A::SendOpen]),
        (S::Connect, E::ConnectRetryExpires) => stay(&[A::Close, A::StartConnectRetry, A::Dial]),
        (S::Connect, E::ConnectionFails) => go(S::Active, &[A::Close, A::StartConnectRetry]),
        (S::Active, E::ConnectRetryExpires) => go(S::Connect, &[A::StartConnectRetry, A::Dial]),
        (S::Active, E::ConnectionFails) => stay(&[]),
        // Nothing to send it on: the peer finds no connection either way.
        (S::Connect | S::Active, E::Stop | E::CollisionLost) => go(S::Idle, &[A::Close]),
        // BFD is for sessions that are up (RFC 5882 §3.2: its Down must not hinder a start).
        (S::Connect | S::Active, _) => stay(&[]),

        (_, E::Start | E::StartPassive | E::ConnectRetryExpires | E::Dialled | E::Accepted) => {
            stay(&[])
        }
        (S::OpenSent | S::OpenConfirm, E::BfdDown) => stay(&[]),

        (S::OpenSent, E::OpenReceived) => go(S::OpenConfirm, &[A::Confirm]),
        (S::OpenSent, E::ConnectionFails) => go(S::Active, &[A::Close, A::StartConnectRetry]),
        (S::OpenSent, E::KeepaliveExpires) => stay(&[]),
        (S::OpenConfirm, E::KeepaliveReceived) => go(S::Established, &[A::RestartHold, A::Up]),
        (S::OpenConfirm | S::Established, E::KeepaliveExpires) => stay(&[A::SendKeepalive]),
        (S::Established, E::KeepaliveReceived) => stay(&[A::RestartHold]),
        (S::Established, E::UpdateReceived) => stay(&[A::RestartHold, A::Deliver]),
        // RFC 4271 §4.4 counts only KEEPALIVE and UPDATE as life.
        (S::Established, E::RefreshReceived) => stay(&[A::Deliver]),

        (S::OpenSent | S::OpenConfirm, E::Stop | E::CollisionLost) => {
            go(S::Idle, &[A::Notify, A::Close])
        }
        (S::Established, E::Stop | E::CollisionLost) => {
            go(S::Idle, &[A::Down, A::Notify, A::Close])
        }
        (S::OpenSent | S::OpenConfirm, E::NotificationReceived | E::ConnectionFails) => {
            go(S::Idle, &[A::Close, A::BackOff])
        }
        (S::Established, E::NotificationReceived | E::ConnectionFails) => {
            go(S::Idle, &[A::Down, A::Close, A::BackOff])
        }
        // Timers, malformed bytes, and messages this state does not expect.
        (
            S::OpenSent | S::OpenConfirm,
            E::HoldExpires
            | E::SendHoldExpires
            | E::Malformed
            | E::OpenReceived
            | E::KeepaliveReceived
            | E::UpdateReceived
            | E::RefreshReceived,
        ) => go(S::Idle, &[A::Notify, A::Close, A::BackOff]),
        (
            S::Established,
            E::HoldExpires | E::SendHoldExpires | E::Malformed | E::OpenReceived | E::BfdDown,
        ) => go(S::Idle, &[A::Down, A::Notify, A::Close, A::BackOff]),
    }
}

#[cfg(test)]
mod tests;

//! The state machine of RFC 5880 §6.2 and §6.8.6 as a pure function.

use crate::bfd::Instant;
use crate::bfd::packet::{Diagnostic, State};
use serde::{Deserialize, Serialize};

/// Why the state changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The three-way handshake moved on.
    Handshake,
    /// Nothing was heard for the detection time.
    DetectionTimeExpired,
    /// The peer signalled Down.
    NeighborDown,
    /// The peer's operator took the session down: not a failure of the path.
    NeighborAdminDown,
    /// Our operator took the session down.
    LocalAdminDown,
    /// Our operator enabled the session again.
    LocalAdminUp,
}

/// A change of state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    pub old: State,
    pub new: State,
    pub cause: Cause,
    /// bfd.LocalDiag after the change.
    pub diagnostic: Diagnostic,
    /// The diagnostic in the peer's last packet.
    pub remote_diagnostic: Diagnostic,
    pub at: Instant,
}

impl Event {
    /// The forwarding path to the peer failed: clients (BGP, OSPF) tear their session down. True
    /// only for Up → Down for a reason other than AdminDown (RFC 5882 §3.2, §4.2).
    ///
    /// Nor is it one if the peer says Down because *we* signalled Down: a session of ours that was
    /// Up has signalled no such thing, so the peer has begun its session anew. FRR does so when its
    /// BGP session establishes; taking BGP down for it would undo just that.
    pub fn is_failure(&self) -> bool {
        is_failure(self.old, self.new, self.cause, self.remote_diagnostic)
    }
}

/// See [`Event::is_failure`].
pub fn is_failure(old: State, new: State, cause: Cause, remote: Diagnostic) -> bool {
    let failed = match cause {
        Cause::DetectionTimeExpired => true,
        Cause::NeighborDown => remote != Diagnostic::NeighborSignaledDown,
        _ => false,
    };
    old == State::Up && new == State::Down && failed
}

/// What happens to a session (§6.8.6, §6.8.4, §6.8.16).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// A packet that passed every check carries this state.
    Received(State),
    DetectionTimeExpired,
    AdminDown,
    AdminUp,
}

/// Next state, bfd.LocalDiag and cause; `None` if nothing changes. The machine of §6.8.6.
pub fn transition(state: State, input: Input) -> Option<(State, Diagnostic, Cause)> {
    use State::{AdminDown, Down, Init, Up};
    match (state, input) {
        (AdminDown, Input::AdminUp) => Some((Down, Diagnostic::None, Cause::LocalAdminUp)),
        (AdminDown, _) | (_, Input::AdminUp) => None,
        (_, Input::AdminDown) => {
            Some((AdminDown, Diagnostic::AdministrativelyDown, Cause::LocalAdminDown))
        }
        (Init | Up, Input::Received(AdminDown)) => {
            Some((Down, Diagnostic::NeighborSignaledDown, Cause::NeighborAdminDown))
        }
        (Down, Input::Received(Down)) => Some((Init, Diagnostic::None, Cause::Handshake)),
        (Down, Input::Received(Init)) | (Init, Input::Received(Init | Up)) => {
            Some((Up, Diagnostic::None, Cause::Handshake))
        }
        (Up, Input::Received(Down)) => {
            Some((Down, Diagnostic::NeighborSignaledDown, Cause::NeighborDown))
        }
        (Init | Up, Input::DetectionTimeExpired) => {
            Some((Down, Diagnostic::DetectionTimeExpired, Cause::DetectionTimeExpired))
        }
        (Down, Input::Received(AdminDown | Up) | Input::DetectionTimeExpired)
        | (Init, Input::Received(Down))
        | (Up, Input::Received(Init | Up)) => None,
    }
}

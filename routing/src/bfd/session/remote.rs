//! What a session knows of its peer, and what it counts.

use crate::bfd::packet::{Diagnostic, State};
use serde::{Deserialize, Serialize};

/// What the peer last told us (§6.8.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Remote {
    pub state: State,
    /// 0: not known.
    pub discriminator: u32,
    pub diagnostic: Diagnostic,
    /// bfd.RemoteMinRxInterval; 0: the peer wants no periodic packets.
    pub min_rx_us: u32,
    /// The last Desired Min TX Interval.
    pub min_tx_us: u32,
    /// The last Detect Mult.
    pub multiplier: u8,
    pub demand: bool,
    pub control_plane_independent: bool,
}

impl Remote {
    pub(super) const UNKNOWN: Self = Self {
        state: State::Down,
        discriminator: 0,
        diagnostic: Diagnostic::None,
        min_rx_us: 1,
        min_tx_us: 0,
        multiplier: 0,
        demand: false,
        control_plane_independent: false,
    };
}

/// Counters of one session. Packets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionCounters {
    pub received: u64,
    pub sent: u64,
    pub dropped_auth: u64,
    pub dropped_admin_down: u64,
    pub transitions: u64,
    /// Times the session came Up.
    pub ups: u64,
    pub failures: u64,
}

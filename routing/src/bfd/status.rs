//! What an operator sees of BFD: plain data for the API and the command line. Times in
//! milliseconds, interval fields in microseconds as BFD itself counts.

use super::Instant;
use super::engine::{EngineCounters, Entry, Key};
use super::packet::{Diagnostic, State};
use super::session::{Cause, Event, SessionCounters};
use serde::{Deserialize, Serialize};

/// Everything: sessions and the packets that belonged to none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BfdStatus {
    pub sessions: Vec<SessionStatus>,
    pub counters: EngineCounters,
    /// Scheduling class of the thread, in words.
    pub scheduling: String,
}

/// One session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionStatus {
    #[serde(flatten)]
    pub key: Key,
    /// Who asked for it: "bgp", "ospf", …
    pub clients: Vec<String>,
    pub state: State,
    pub remote_state: State,
    pub diagnostic: Diagnostic,
    pub remote_diagnostic: Diagnostic,
    pub local_discriminator: u32,
    /// 0: not known.
    pub remote_discriminator: u32,
    /// As configured.
    pub min_tx_us: u32,
    pub min_rx_us: u32,
    pub multiplier: u8,
    /// As our packets say: one second while not Up.
    pub advertised_min_tx_us: u32,
    pub advertised_min_rx_us: u32,
    /// As the peer's packets say.
    pub remote_min_tx_us: u32,
    pub remote_min_rx_us: u32,
    pub remote_multiplier: u8,
    /// Negotiated: between our packets, before jitter.
    pub transmit_interval_us: u32,
    /// Negotiated: silence of the peer that means Down. 0: the peer was never heard.
    pub detection_time_us: u64,
    /// A change of timers is not yet confirmed by the peer.
    pub polling: bool,
    /// Name of the authentication type, if any.
    pub authentication: Option<String>,
    pub counters: SessionCounters,
    pub up_for_ms: Option<u64>,
    pub last_down: Option<LastDown>,
    /// Why the session cannot send or receive, if so.
    pub error: Option<String>,
    /// Packets that the kernel refused to send.
    pub send_errors: u64,
}

/// The last fall from Up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastDown {
    pub cause: Cause,
    pub diagnostic: Diagnostic,
    pub remote_diagnostic: Diagnostic,
    pub ago_ms: u64,
    /// Clients were told to tear down (see [`super::session::Event::is_failure`]).
    pub failure: bool,
}

impl SessionStatus {
    /// Describes a session of the engine; the caller adds what the sockets know.
    pub(super) fn describe(id: u32, entry: &Entry, now: Instant) -> Self {
        let session = &entry.session;
        let remote = session.remote();
        let timers = session.timers();
        let (advertised_min_tx_us, advertised_min_rx_us) = session.advertised_us();
        Self {
            key: entry.key.clone(),
            clients: entry.clients.clone(),
            state: session.state(),
            remote_state: remote.state,
            diagnostic: session.diagnostic(),
            remote_diagnostic: remote.diagnostic,
            local_discriminator: id,
            remote_discriminator: remote.discriminator,
            min_tx_us: timers.min_tx_us,
            min_rx_us: timers.min_rx_us,
            multiplier: timers.multiplier,
            advertised_min_tx_us,
            advertised_min_rx_us,
            remote_min_tx_us: remote.min_tx_us,
            remote_min_rx_us: remote.min_rx_us,
            remote_multiplier: remote.multiplier,
            transmit_interval_us: session.transmit_interval_us(),
            detection_time_us: session.detection_time().as_micros() as u64,
            polling: session.is_polling(),
            authentication: entry.auth_type().map(|auth| auth.name().to_owned()),
            counters: *session.counters(),
            up_for_ms: session.up_since().map(|at| now.saturating_sub(at).as_millis() as u64),
            last_down: session.last_down().map(|event| LastDown::describe(event, now)),
            error: None,
            send_errors: 0,
        }
    }
}

impl LastDown {
    fn describe(event: &Event, now: Instant) -> Self {
        Self {
            cause: event.cause,
            diagnostic: event.diagnostic,
            remote_diagnostic: event.remote_diagnostic,
            ago_ms: now.saturating_sub(event.at).as_millis() as u64,
            failure: event.is_failure(),
        }
    }
}

//! The node as a whole, and what an operator does to it.

use super::WorkerInfo;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;

word_enum! {
    /// The node in one word.
    HealthState {
        /// Everything that is configured works.
        Ok => "ok",
        /// Something that is configured does not work; the reasons say what.
        Degraded => "degraded",
        /// On its way out of service, or out, because an operator asked for it.
        Draining => "draining",
    }
}

/// The node in one word, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    pub state: HealthState,
    /// One sentence each, the most urgent first. Empty if `ok`.
    pub reasons: Vec<String>,
}

/// `GET /v1/status`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    pub name: String,
    pub version: String,
    /// BGP identifier and OSPF router id.
    pub router_id: Ipv4Addr,
    pub pid: u32,
    pub uptime_s: u64,
    pub config_file: String,
    /// When the running configuration was taken, seconds since 1970-01-01 UTC.
    pub config_loaded_at: u64,
    pub config_age_s: u64,
    /// The last reload failed and changed nothing: why. `None` once a reload succeeds.
    pub config_error: Option<String>,
    /// Epoch of the tables last published to the workers.
    pub tables_epoch: u64,
    /// `None`: in service.
    pub drain: Option<DrainInfo>,
    pub health: Health,
    pub services: u64,
    pub backends_healthy: u64,
    pub backends_total: u64,
    pub workers: Vec<WorkerInfo>,
    pub vips: Vec<VipStatus>,
    /// `None`: BGP is not configured.
    pub bgp: Option<BgpSummary>,
}

/// Whether one prefix (a VIP, or local addresses) is announced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VipStatus {
    pub prefix: IpNet,
    pub announced: bool,
    /// The first reason why not, or empty.
    pub reason: String,
}

/// Sessions, counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BgpSummary {
    pub neighbors: u64,
    pub established: u64,
}

word_enum! {
    /// How far a drain has come.
    DrainPhase {
        /// Still announced, but with GRACEFUL_SHUTDOWN (RFC 8326) or a worse cost: routers move on.
        Lowered => "lowered",
        /// Withdrawn. Flows that are left go on until they end.
        Withdrawn => "withdrawn",
    }
}

/// A drain of the node under way or done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainInfo {
    pub age_s: u64,
    pub phase: DrainPhase,
    /// What the operator gave as the reason, or empty.
    pub reason: String,
    /// Flows still alive on this node. 0: it is safe to stop.
    pub flows_left: u64,
}

/// Body of `POST …/drain`; all of it may be left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DrainRequest {
    /// Shown to whoever looks next. At most [`DrainRequest::REASON_MAX`] bytes.
    pub reason: String,
}

impl DrainRequest {
    /// Longest reason, bytes: what fits in a BGP shutdown communication (RFC 9003).
    pub const REASON_MAX: usize = 255;
}

/// Answer to `drain` and `undrain`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainResult {
    /// One sentence each. Empty: it was so already.
    pub changes: Vec<String>,
    /// Of the node's drain: flows that are left on it, as [`DrainInfo::flows_left`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flows_left: Option<u64>,
}

/// Answer to `POST /v1/reload`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadResult {
    /// Applied, one sentence each. Empty: the file says what is running.
    pub changes: Vec<String>,
    /// Differs from what is running, but takes effect at the next start only.
    pub needs_restart: Vec<String>,
}

/// `GET /v1/config`: the document that is running, which may differ from the file by now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigInfo {
    pub file: String,
    /// Seconds since 1970-01-01 UTC.
    pub loaded_at: u64,
    /// The TOML document, secrets replaced.
    pub toml: String,
}

/// Body of every answer that is not 2xx.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    pub error: String,
    /// What to do, or what would have been accepted.
    #[serde(default)]
    pub hint: String,
}

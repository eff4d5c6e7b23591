//! Backend checks: a sans-IO rise/fall machine, probes, and the tokio driver around them.
//!
//! In: the latest set of [`Target`]s, given to the [`CheckerHandle`]. Out: a [`HealthEvent`] when
//! a target's health is first known and whenever it changes, and a snapshot of all for people.
//! A check decides nothing beyond one target: what an unhealthy backend means for a service is
//! `control`'s to say. A fault of this node (no file descriptors) never counts against a backend.

mod checker;
mod machine;
mod probe;

pub use checker::{Checker, CheckerHandle, TargetStatus};
pub use machine::{Change, Machine, State};
pub use probe::{Outcome, probe};

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// What is probed, and how.
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Probe {
    /// A TCP connection must establish.
    Tcp,
    /// An HTTP/1.1 GET must answer with one of the statuses, and the body must contain `body`.
    Http { path: String, host: Option<String>, status: Vec<u16>, body: Option<String> },
}

/// How often, and how many agreeing results turn the state.
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize)]
pub struct CheckSpec {
    pub probe: Probe,
    pub interval: Duration,
    pub timeout: Duration,
    /// Successes in a row that make a backend healthy.
    pub rise: u32,
    /// Failures in a row that make it unhealthy.
    pub fall: u32,
    /// Probe this port instead of the target's own.
    pub port: Option<u16>,
}

/// One thing to check. Equal targets are probed once, whoever asks.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Target {
    pub address: SocketAddr,
    pub check: CheckSpec,
    /// Source address of the probes; `None`: the kernel's choice.
    pub source: Option<IpAddr>,
}

/// A change of a target's health. Sent only when it changes, and once when first known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthEvent {
    pub target: Target,
    pub healthy: bool,
    /// Why, for people: "connection refused", "status 503, expected 200".
    pub reason: String,
}

//! What a client may ask for, and what is refused.

use super::MAX_SESSIONS;
use crate::bfd::auth::AuthConfig;
use crate::bfd::session::Timers;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::time::Duration;

/// The shortest interval accepted: below it, scheduling noise is most of the detection time.
pub const MIN_INTERVAL: Duration = Duration::from_micros(3_300);
/// The longest interval accepted.
pub const MAX_INTERVAL: Duration = Duration::from_secs(60);

/// A session that a client wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionConfig {
    pub peer: IpAddr,
    /// Source address; chosen by the kernel if `None`.
    pub local: Option<IpAddr>,
    /// Interface name; required for an IPv6 link-local peer.
    pub interface: Option<String>,
    /// RFC 5883: UDP port 4784, any TTL.
    pub multihop: bool,
    /// Desired Min TX Interval once Up, [`MIN_INTERVAL`] to [`MAX_INTERVAL`].
    pub min_tx: Duration,
    /// Required Min RX Interval, same range.
    pub min_rx: Duration,
    /// 1 to 255.
    pub multiplier: u8,
    pub auth: Option<AuthConfig>,
}

/// Why a set of wanted sessions was refused. The sessions stay as they were.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    #[error("bfd {peer}: multiplier must be 1 to 255")]
    Multiplier { peer: IpAddr },
    #[error("bfd {peer}: interval {interval:?} is not within {MIN_INTERVAL:?} to {MAX_INTERVAL:?}")]
    Interval { peer: IpAddr, interval: Duration },
    #[error("bfd {peer}: authentication key must have 1 to 20 bytes")]
    Key { peer: IpAddr },
    #[error("bfd {peer}: peer must be a unicast address")]
    Peer { peer: IpAddr },
    #[error("bfd {peer}: local address {local} is of the other family")]
    Family { peer: IpAddr, local: IpAddr },
    #[error("bfd {peer}: a link-local peer needs an interface and cannot be multihop")]
    LinkLocal { peer: IpAddr },
    #[error("bfd {peer}: clients ask for different authentication")]
    Conflict { peer: IpAddr },
    #[error("bfd: more than {MAX_SESSIONS} sessions")]
    TooMany,
}

/// What makes two wishes the same session.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Key {
    pub peer: IpAddr,
    pub local: Option<IpAddr>,
    pub interface: Option<String>,
    pub multihop: bool,
}

impl Key {
    /// How much it leaves open: 2 is nothing.
    pub(super) fn specificity(&self) -> u8 {
        u8::from(self.interface.is_some()) + u8::from(self.local.is_some())
    }

    /// Whether a session with the key `other` is one that this key asks for.
    pub(super) fn is_met_by(&self, other: &Self) -> bool {
        (self.peer, self.multihop) == (other.peer, other.multihop)
            && (self.local.is_none() || self.local == other.local)
            && (self.interface.is_none() || self.interface == other.interface)
    }
}

impl SessionConfig {
    pub(super) fn key(&self) -> Key {
        Key {
            peer: self.peer,
            local: self.local,
            interface: self.interface.clone(),
            multihop: self.multihop,
        }
    }

    pub(super) fn timers(&self) -> Timers {
        Timers {
            min_tx_us: self.min_tx.as_micros() as u32,
            min_rx_us: self.min_rx.as_micros() as u32,
            multiplier: self.multiplier,
        }
    }

    /// Whether this can be a session.
    pub fn check(&self) -> Result<(), ConfigError> {
        let peer = self.peer;
        if peer.is_unspecified() || peer.is_multicast() {
            return Err(ConfigError::Peer { peer });
        }
        if self.multiplier == 0 {
            return Err(ConfigError::Multiplier { peer });
        }
        for interval in [self.min_tx, self.min_rx] {
            if !(MIN_INTERVAL..=MAX_INTERVAL).contains(&interval) {
                return Err(ConfigError::Interval { peer, interval });
            }
        }
        if self.auth.as_ref().is_some_and(|auth| !auth.check()) {
            return Err(ConfigError::Key { peer });
        }
        if let Some(local) = self.local.filter(|local| local.is_ipv4() != peer.is_ipv4()) {
            return Err(ConfigError::Family { peer, local });
        }
        let link_local = matches!(peer, IpAddr::V6(v6) if v6.is_unicast_link_local());
        if link_local && (self.interface.is_none() || self.multihop) {
            return Err(ConfigError::LinkLocal { peer });
        }
        Ok(())
    }
}

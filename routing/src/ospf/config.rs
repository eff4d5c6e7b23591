//! What the operator sets, and what is refused.

use super::Version;
use super::auth::Auth;
use super::packet::options;
use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;

/// One router in one area.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    pub version: Version,
    pub router_id: Ipv4Addr,
    pub area: Ipv4Addr,
    pub area_kind: AreaKind,
    pub interfaces: Vec<InterfaceConfig>,
}

/// Which external routes the area takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AreaKind {
    Normal,
    /// None: VIPs can only be stub links.
    Stub,
    /// Type 7 (RFC 3101); the border router translates them.
    Nssa,
}

impl AreaKind {
    /// The option bits that neighbours must share (RFC 2328 §10.5, RFC 3101 §2.4).
    pub fn options(self) -> u32 {
        match self {
            Self::Normal => options::E,
            Self::Stub => 0,
            Self::Nssa => options::N,
        }
    }
}

/// Kind of network behind an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NetworkKind {
    PointToPoint,
    Broadcast,
}

/// One interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceConfig {
    pub name: String,
    pub network: NetworkKind,
    /// Cost of the interface's own prefixes; transit links always carry the maximum metric.
    pub cost: u16,
    /// Seconds.
    pub hello_interval: u16,
    /// Seconds.
    pub dead_interval: u32,
    /// RxmtInterval, seconds.
    pub retransmit_interval: u16,
    /// InfTransDelay, seconds.
    pub transmit_delay: u16,
    /// Router priority: 0 never becomes designated router.
    pub priority: u8,
    /// Accept Database Descriptions of a larger MTU.
    pub mtu_ignore: bool,
    /// The prefix is announced, but no packet is sent or heard.
    pub passive: bool,
    /// OSPFv3 instance ID.
    pub instance_id: u8,
    pub auth: Auth,
}

impl InterfaceConfig {
    /// The defaults of the field: 10 s / 40 s, point-to-point, priority 0.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            network: NetworkKind::PointToPoint,
            cost: 10,
            hello_interval: 10,
            dead_interval: 40,
            retransmit_interval: 5,
            transmit_delay: 1,
            priority: 0,
            mtu_ignore: false,
            passive: false,
            instance_id: 0,
            auth: Auth::None,
        }
    }
}

/// Why a configuration was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    #[error("ospf: router ID must not be 0.0.0.0")]
    RouterId,
    #[error("ospf: the backbone area cannot be stub or NSSA")]
    Backbone,
    #[error("ospf {interface}: {field} must not be 0")]
    Zero { interface: String, field: &'static str },
    #[error("ospf {interface}: dead interval must be greater than the hello interval")]
    DeadInterval { interface: String },
    #[error("ospf {interface}: configured twice")]
    Twice { interface: String },
    #[error("ospf {interface}: authentication key cannot be used with this version")]
    Key { interface: String },
}

impl Config {
    /// Whether this can run.
    pub fn check(&self) -> Result<(), ConfigError> {
        if self.router_id.is_unspecified() {
            return Err(ConfigError::RouterId);
        }
        if self.area.is_unspecified() && self.area_kind != AreaKind::Normal {
            return Err(ConfigError::Backbone);
        }
        for (n, config) in self.interfaces.iter().enumerate() {
            let interface = config.name.clone();
            if self.interfaces[..n].iter().any(|other| other.name == config.name) {
                return Err(ConfigError::Twice { interface });
            }
            let positive = [
                ("hello interval", u32::from(config.hello_interval)),
                ("retransmit interval", u32::from(config.retransmit_interval)),
                ("transmit delay", u32::from(config.transmit_delay)),
                ("cost", u32::from(config.cost)),
            ];
            if let Some((field, _)) = positive.into_iter().find(|(_, value)| *value == 0) {
                return Err(ConfigError::Zero { interface, field });
            }
            if config.dead_interval <= u32::from(config.hello_interval) {
                return Err(ConfigError::DeadInterval { interface });
            }
            let usable = match &config.auth {
                Auth::None => true,
                Auth::Simple(_) => self.version == Version::V2,
                Auth::Crypto(keys) => {
                    !keys.is_empty() && keys.iter().all(|key| key.check(self.version))
                }
            };
            if !usable {
                return Err(ConfigError::Key { interface });
            }
        }
        Ok(())
    }
}

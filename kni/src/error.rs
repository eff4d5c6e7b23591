//! What can go wrong between us and the kernel.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Errors of this crate. Each says what was attempted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "interface name {0:?}: expected 1 to 15 ASCII letters, digits, '-', '_' or '.', \
         not '.', '..', 'all' or 'default'"
    )]
    InvalidName(String),
    #[error("MAC address {0}: expected a unicast address that is not all zero")]
    InvalidMac(String),
    #[error("MTU {0}: expected at least 1280 (RFC 8200 §5)")]
    InvalidMtu(u16),
    #[error("cannot open {}: {source}", path.display())]
    Device { path: PathBuf, source: io::Error },
    #[error("netlink socket: {0}")]
    Socket(#[source] io::Error),
    /// The kernel's answer, with its own words where it gave some (extended ACK).
    #[error("the kernel refused to {what}: {source}{}{detail}", if detail.is_empty() { "" } else { ": " })]
    Refused { what: &'static str, source: io::Error, detail: String },
    #[error("the kernel's tables kept changing during a dump")]
    DumpInterrupted,
    #[error("no answer from the kernel within {0:?}")]
    Timeout(Duration),
    #[error("no interface {name:?} within {waited:?}; was its DPDK device opened?")]
    NoInterface { name: String, waited: Duration },
    #[error("cannot write {value:?} to {}: {source}", path.display())]
    Sysctl { path: PathBuf, value: &'static str, source: io::Error },
    #[error("these addresses could not be set on {name}: {missing}")]
    Addresses { name: String, missing: String },
    #[error("the netlink mirror has stopped")]
    Stopped,
}

impl Error {
    /// The errno of a refused request.
    pub(crate) fn errno(&self) -> Option<i32> {
        match self {
            Self::Refused { source, .. } => source.raw_os_error(),
            _ => None,
        }
    }
}

//! What can go wrong with DPDK, in words that say what to do.

use dpdk_sys as sys;
use std::ffi::CStr;

/// A DPDK call that failed, or a request that cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DpdkError {
    #[error("DPDK is initialised already; it can be once per process")]
    AlreadyInitialised,

    #[error("{what} contains a NUL byte: {text:?}")]
    Nul { what: &'static str, text: String },

    /// A call returned an error. `log` is what DPDK logged meanwhile at error level.
    #[error("{what}: {text} ({errno}){}{hint}", because(log))]
    Call {
        what: String,
        /// Positive errno.
        errno: i32,
        text: String,
        log: Vec<String>,
        /// What to do about it; empty, or a sentence that begins with ". ".
        hint: String,
    },

    #[error("{device}: no port of that name after probing it; is the driver's plugin installed?")]
    NoPort { device: String },

    #[error("{device} is in use as a port already")]
    InUse { device: String },

    #[error("{device}: a port needs at least one memory pool")]
    NoPool { device: String },

    #[error("{device}: the device has no {direction} queue; give it one in its arguments")]
    NoQueues { device: String, direction: &'static str },

    #[error("{device} has {granted} queues; there is no queue {queue}")]
    NoSuchQueue { device: String, queue: u16, granted: u16 },

    #[error("queue {queue} of {device} is held by another worker")]
    QueueTaken { device: String, queue: u16 },

    #[error("cannot pin the thread to CPU {core}: {errno}. Which exist: `lscpu -e`")]
    Pin { core: u16, errno: nix::errno::Errno },
}

impl DpdkError {
    pub(super) fn call(what: impl Into<String>, errno: i32, log: Vec<String>, hint: &str) -> Self {
        let errno = errno.abs();
        Self::Call {
            what: what.into(),
            errno,
            text: errno_text(errno),
            log,
            hint: if hint.is_empty() { String::new() } else { format!(". {hint}") },
        }
    }
}

/// `Ok(rc)`, or the error that a negative return value stands for.
pub(super) fn check(what: &str, rc: i32, hint: &str) -> Result<i32, DpdkError> {
    if rc < 0 { Err(DpdkError::call(what, rc, Vec::new(), hint)) } else { Ok(rc) }
}

fn errno_text(errno: i32) -> String {
    // SAFETY: rte_strerror returns a string that lives until this thread's next call of it (a
    // static one, or a per-thread buffer); it is copied at once.
    let text = unsafe { CStr::from_ptr(sys::rte_strerror(errno)) };
    text.to_string_lossy().into_owned()
}

fn because(log: &[String]) -> String {
    if log.is_empty() { String::new() } else { format!(": {}", log.join("; ")) }
}

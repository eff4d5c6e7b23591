//! The BGP speaker on tokio: sockets, tasks and the clock around [`crate::bgp::session`].
//!
//! In: a [`SpeakerConfig`] and the latest [`Wanted`] announcements (a watch channel: whoever
//! decides publishes the whole, each neighbour's session works out the difference). Out: sessions
//! with the neighbours, their status, and the routes imported from them. One task per neighbour,
//! one per listening address; none of them ever waits for another's peer.

mod connect;
mod discovery;
mod keys;
mod listener;
mod peer;
mod presence;
mod registry;
mod routes;
mod status;

pub use presence::{DynamicPeer, DynamicPeers};
pub use status::{AnnouncedRoute, KernelCounters, LastError, NeighborStatus, SpeakerStatus};

use crate::Wanted;
use crate::bgp::config::{LocalConfig, NeighborConfig};
use crate::bgp::import::ImportedRoutes;
use crate::bgp::wire::{Notification, cease};
use ipnet::IpNet;
use peer::Command;
use registry::Inner;
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{oneshot, watch};

/// Everything the operator says about BGP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpeakerConfig {
    /// BGP identifier.
    pub router_id: Ipv4Addr,
    pub asn: u32,
    /// Addresses to accept connections on, usually `0.0.0.0:179` and `[::]:179`; may be empty.
    pub listen: Vec<SocketAddr>,
    pub neighbors: Vec<NeighborConfig>,
    /// Prefixes from which neighbours may dial in without being configured one by one.
    pub ranges: Vec<RangeConfig>,
}

/// Neighbours known only by where they dial in from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RangeConfig {
    pub prefix: IpNet,
    /// At most so many sessions at once.
    pub max_peers: u32,
    /// What holds for each of them; address, interface and `passive` are ignored.
    pub template: NeighborConfig,
}

/// Why a speaker cannot run as configured.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot listen for BGP on {address}: {source}")]
    Listen { address: SocketAddr, source: io::Error },
    #[error("cannot set the TCP key of {neighbor} on {address}: {source}")]
    Key { neighbor: IpNet, address: SocketAddr, source: io::Error },
    #[error("cannot use TCP-AO: {0}")]
    TcpAo(io::Error),
    #[error("a neighbour has both a TCP-MD5 and a TCP-AO key")]
    TwoKeys,
    #[error("neighbour {0} is configured twice")]
    Duplicate(String),
    #[error("neighbour {0} needs an interface")]
    InterfaceMissing(IpAddr),
    #[error("the BGP speaker needs a tokio runtime")]
    NoRuntime,
}

/// Starts speakers.
#[derive(Debug)]
pub struct Speaker;

impl Speaker {
    /// Starts the speaker's tasks on the current tokio runtime. Sockets belong to the network
    /// namespace of the calling thread and of the runtime's threads.
    ///
    /// # Errors
    /// An address that cannot be listened on, or a key the kernel does not take. Nothing runs
    /// then.
    pub fn spawn(
        config: SpeakerConfig,
        wanted: watch::Receiver<Arc<Wanted>>,
    ) -> Result<SpeakerHandle, Error> {
        let runtime = tokio::runtime::Handle::try_current().map_err(|_| Error::NoRuntime)?;
        let local = LocalConfig { asn: config.asn, router_id: config.router_id };
        let handle = SpeakerHandle { inner: Arc::new(Inner::new(runtime, wanted, local)) };
        handle.reconfigure(config)?;
        Ok(handle)
    }
}

/// The running speaker. Clones are handles to the same one; when the last is gone, the speaker
/// ends its sessions.
#[derive(Debug, Clone)]
pub struct SpeakerHandle {
    inner: Arc<Inner>,
}

impl SpeakerHandle {
    /// Applies a configuration by difference: neighbours that did not change are not touched. A
    /// changed one is told Cease/6 (Cease/2 with the message if it is shut down) and starts anew,
    /// a removed one Cease/3.
    ///
    /// # Errors
    /// As [`Speaker::spawn`]; everything then stays as it was.
    pub fn reconfigure(&self, config: SpeakerConfig) -> Result<(), Error> {
        self.inner.reconfigure(config)
    }

    /// Everything, now. Cheap enough to be asked every second.
    pub fn status(&self) -> SpeakerStatus {
        self.inner.status()
    }

    /// What the neighbour at `address` has been told; `None` if there is no such neighbour.
    /// `interface` tells link-local addresses apart.
    pub async fn announced(
        &self,
        address: IpAddr,
        interface: Option<&str>,
    ) -> Option<Vec<AnnouncedRoute>> {
        let (reply, answer) = oneshot::channel();
        let commands = self.inner.find(address, interface).map(|(commands, _)| commands)?;
        commands.send(Command::Announced(reply)).await.ok()?;
        answer.await.ok()
    }

    /// The best of the routes taken from neighbours, as the latest value.
    pub fn imported(&self) -> watch::Receiver<Arc<ImportedRoutes>> {
        self.inner.imported()
    }

    /// Neighbours that are known by more than the configuration, as the latest value.
    pub fn dynamic_peers(&self) -> watch::Receiver<DynamicPeers> {
        self.inner.dynamic_peers()
    }

    /// From now on the wanted announcements are complete: all that may have been announced before
    /// a restart has been decided anew. Ends the wait of sessions with graceful restart, which
    /// otherwise lasts for their restart time (RFC 4724 §4.1).
    pub fn set_settled(&self) {
        self.inner.set_settled();
    }

    /// BFD went from Up to Down for this neighbour: its session ends with Cease/10 (RFC 9384).
    /// Returns whether there is such a neighbour. To be called on that change only: a BFD session
    /// that has never been Up says nothing about BGP (RFC 5882 §3.2).
    pub fn peer_down(&self, address: IpAddr, interface: Option<&str>, reason: &str) -> bool {
        let Some((commands, key)) = self.inner.find(address, interface) else {
            return false;
        };
        // Full only if the task is stuck behind its own queue; it would be acted on too late.
        if commands.try_send(Command::BfdDown(reason.to_owned())).is_err() {
            tracing::warn!(peer = %key, "BFD down not delivered: peer task busy");
        }
        true
    }

    /// Ends every session with Cease/2 and `message` (RFC 9003) and stops listening. The future
    /// is done when every peer has been told, or a second has passed; the sessions are ended
    /// whether or not it is awaited.
    pub fn shutdown(&self, message: &str) -> impl Future<Output = ()> + Send + use<> {
        let tasks = self.inner.shutdown(&Notification::shutdown(cease::ADMIN_SHUTDOWN, message));
        async move {
            for task in tasks {
                // A task that panicked has no connection left either.
                let _ = task.await;
            }
        }
    }
}

/// The data behind these locks is replaced whole, so a panic elsewhere leaves it usable.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

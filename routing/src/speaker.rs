//! The BGP speaker on tokio: sockets, tasks and the clock around [`crate::bgp::session`].
//!
//! In: a [`SpeakerConfig`] and the latest [`Wanted`] announcements (a watch channel: whoever
//! decides publishes the whole, each neighbour's session works out the difference). Out: sessions
//! with the neighbours, their status, and the routes imported from them. One task per neighbour,
//! one per listening address; none of them ever waits for another's peer.

mod connect;
mod listener;
mod peer;
mod routes;
mod status;

pub use status::{AnnouncedRoute, KernelCounters, LastError, NeighborStatus, SpeakerStatus};

use crate::Wanted;
use crate::bgp::config::{LocalConfig, NeighborConfig};
use crate::bgp::import::ImportedRoutes;
use crate::bgp::wire::{Notification, cease, code};
use crate::sockopt::set_tcp_md5;
use nix::net::if_::if_indextoname;
use peer::Command;
use routes::Imports;
use status::Snapshot;
use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

/// Commands waiting for a peer task, accepted connections among them.
const COMMANDS: usize = 16;

/// Everything the operator says about BGP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpeakerConfig {
    /// BGP identifier.
    pub router_id: Ipv4Addr,
    pub asn: u32,
    /// Addresses to accept connections on, usually `0.0.0.0:179` and `[::]:179`; may be empty.
    pub listen: Vec<SocketAddr>,
    pub neighbors: Vec<NeighborConfig>,
}

/// Why a speaker cannot run as configured.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot listen for BGP on {address}: {source}")]
    Listen { address: SocketAddr, source: io::Error },
    #[error("cannot set the TCP-MD5 key of neighbour {neighbor} on {address}: {source}")]
    Password { neighbor: IpAddr, address: SocketAddr, source: io::Error },
    #[error("neighbour {0} is configured twice")]
    Duplicate(String),
}

/// Starts speakers.
#[derive(Debug)]
pub struct Speaker;

impl Speaker {
    /// Starts the speaker's tasks on the current tokio runtime. Sockets belong to the network
    /// namespace of the runtime's threads.
    ///
    /// # Errors
    /// An address that cannot be listened on, or a key the kernel does not take. Nothing runs
    /// then.
    pub fn spawn(
        config: SpeakerConfig,
        wanted: watch::Receiver<Arc<Wanted>>,
    ) -> Result<SpeakerHandle, Error> {
        let handle = SpeakerHandle {
            inner: Arc::new(Inner {
                wanted,
                imports: Arc::default(),
                peers: Arc::default(),
                strangers: Arc::default(),
                running: Mutex::new(Running {
                    local: LocalConfig { asn: config.asn, router_id: config.router_id },
                    listeners: BTreeMap::new(),
                }),
            }),
        };
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

#[derive(Debug)]
struct Inner {
    wanted: watch::Receiver<Arc<Wanted>>,
    imports: Arc<Imports>,
    peers: Arc<Peers>,
    strangers: Arc<AtomicU64>,
    running: Mutex<Running>,
}

#[derive(Debug)]
struct Running {
    local: LocalConfig,
    listeners: BTreeMap<SocketAddr, Listening>,
}

#[derive(Debug)]
struct Listening {
    socket: Arc<TcpListener>,
    task: JoinHandle<()>,
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Running neighbours, as the listeners find them.
#[derive(Debug, Default)]
struct Peers(Mutex<BTreeMap<PeerKey, PeerEntry>>);

#[derive(Debug)]
struct PeerEntry {
    config: NeighborConfig,
    commands: mpsc::Sender<Command>,
    snapshot: Arc<Mutex<Option<Snapshot>>>,
    task: JoinHandle<()>,
}

/// Tells neighbours apart: link-local addresses are the same on many interfaces.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct PeerKey {
    address: IpAddr,
    interface: Option<String>,
}

impl PeerKey {
    fn of(config: &NeighborConfig) -> Self {
        let link_local = matches!(config.address, IpAddr::V6(a) if a.is_unicast_link_local());
        let interface = config.interface.clone().filter(|_| link_local);
        Self { address: config.address, interface }
    }

    fn of_remote(remote: &SocketAddr) -> Self {
        let interface = match remote {
            SocketAddr::V6(a) if a.scope_id() != 0 => {
                if_indextoname(a.scope_id()).ok().and_then(|n| n.into_string().ok())
            }
            _ => None,
        };
        Self { address: remote.ip(), interface }
    }
}

impl fmt::Display for PeerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.interface {
            Some(interface) => write!(f, "{}%{interface}", self.address),
            None => write!(f, "{}", self.address),
        }
    }
}

impl SpeakerHandle {
    /// Applies a configuration by difference: neighbours that did not change are not touched. A
    /// changed one is told Cease/6 (Cease/2 with the message if it is shut down) and starts anew,
    /// a removed one Cease/3.
    ///
    /// # Errors
    /// As [`Speaker::spawn`]; neighbours and listeners then stay as they were, but for TCP-MD5
    /// keys already set.
    pub fn reconfigure(&self, config: SpeakerConfig) -> Result<(), Error> {
        let mut wanted = BTreeMap::new();
        for neighbor in config.neighbors {
            let key = PeerKey::of(&neighbor);
            if let Some(twice) = wanted.insert(key, neighbor) {
                return Err(Error::Duplicate(PeerKey::of(&twice).to_string()));
            }
        }
        let inner = &self.inner;
        let mut running = lock(&inner.running);
        let sockets = sockets(&running, &config.listen)?;
        let mut peers = lock(&inner.peers.0);
        set_keys(&sockets, &peers, &wanted)?;

        running.listeners.retain(|address, _| config.listen.contains(address));
        for (address, socket) in sockets {
            running.listeners.entry(address).or_insert_with(|| {
                let accept = listener::run(
                    Arc::clone(&socket),
                    Arc::clone(&inner.peers),
                    Arc::clone(&inner.strangers),
                );
                Listening { socket, task: tokio::spawn(accept) }
            });
        }
        let local = LocalConfig { asn: config.asn, router_id: config.router_id };
        let all = running.local != local;
        running.local = local;
        for (key, old) in std::mem::take(&mut *peers) {
            match wanted.remove(&key) {
                Some(new) if !all && new == old.config => {
                    peers.insert(key, old);
                }
                Some(new) => {
                    let reason = match &new.shutdown {
                        Some(text) => Notification::shutdown(cease::ADMIN_SHUTDOWN, text),
                        None => Notification::new(code::CEASE, cease::CONFIG_CHANGE),
                    };
                    let entry = self.start(key.clone(), new, local, Some(quit(old, reason)));
                    peers.insert(key, entry);
                }
                None => {
                    quit(old, Notification::new(code::CEASE, cease::DECONFIGURED));
                }
            }
        }
        for (key, new) in wanted {
            let entry = self.start(key.clone(), new, local, None);
            peers.insert(key, entry);
        }
        Ok(())
    }

    /// Everything, now. Cheap enough to be asked every second.
    pub fn status(&self) -> SpeakerStatus {
        let running = lock(&self.inner.running);
        let peers = lock(&self.inner.peers.0);
        SpeakerStatus {
            router_id: running.local.router_id,
            asn: running.local.asn,
            listen: running.listeners.keys().copied().collect(),
            unknown_peers: self.inner.strangers.load(Ordering::Relaxed),
            kernel: KernelCounters::read(),
            neighbors: peers
                .values()
                .filter_map(|p| lock(&p.snapshot).as_ref().map(Snapshot::read))
                .collect(),
        }
    }

    /// What the neighbour at `address` has been told; `None` if there is no such neighbour.
    pub async fn announced(&self, address: IpAddr) -> Option<Vec<AnnouncedRoute>> {
        let (reply, answer) = oneshot::channel();
        let commands = self.find(address).map(|(commands, _)| commands)?;
        commands.send(Command::Announced(reply)).await.ok()?;
        answer.await.ok()
    }

    /// The best of the routes taken from neighbours, as the latest value.
    pub fn imported(&self) -> watch::Receiver<Arc<ImportedRoutes>> {
        self.inner.imports.subscribe()
    }

    /// BFD went from Up to Down for this neighbour: its session ends with Cease/10 (RFC 9384).
    /// Returns whether there is such a neighbour. To be called on that change only: a BFD session
    /// that has never been Up says nothing about BGP (RFC 5882 §3.2).
    pub fn peer_down(&self, address: IpAddr, reason: &str) -> bool {
        let Some((commands, key)) = self.find(address) else {
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
        lock(&self.inner.running).listeners.clear();
        let peers = std::mem::take(&mut *lock(&self.inner.peers.0));
        let reason = Notification::shutdown(cease::ADMIN_SHUTDOWN, message);
        let tasks: Vec<_> = peers.into_values().map(|p| quit(p, reason.clone())).collect();
        async move {
            for task in tasks {
                // A task that panicked has no connection left either.
                let _ = task.await;
            }
        }
    }

    fn find(&self, address: IpAddr) -> Option<(mpsc::Sender<Command>, PeerKey)> {
        let peers = lock(&self.inner.peers.0);
        let (key, entry) = peers.iter().find(|(key, _)| key.address == address)?;
        Some((entry.commands.clone(), key.clone()))
    }

    fn start(
        &self,
        key: PeerKey,
        config: NeighborConfig,
        local: LocalConfig,
        previous: Option<JoinHandle<()>>,
    ) -> PeerEntry {
        let (commands, receiver) = mpsc::channel(COMMANDS);
        let snapshot = Arc::new(Mutex::new(None));
        let task = tokio::spawn(peer::run(peer::Setup {
            key,
            config: config.clone(),
            local,
            wanted: self.inner.wanted.clone(),
            commands: receiver,
            imports: Arc::clone(&self.inner.imports),
            snapshot: Arc::clone(&snapshot),
            previous,
        }));
        PeerEntry { config, commands, snapshot, task }
    }
}

/// Asks a peer task to end. If its queue is full, closing the queue does (see `peer::run`).
fn quit(entry: PeerEntry, reason: Notification) -> JoinHandle<()> {
    let _ = entry.commands.try_send(Command::Quit(reason));
    entry.task
}

/// Sockets for the addresses to listen on: those there are, and new ones.
fn sockets(
    running: &Running,
    addresses: &[SocketAddr],
) -> Result<BTreeMap<SocketAddr, Arc<TcpListener>>, Error> {
    let mut sockets = BTreeMap::new();
    for &address in addresses {
        let socket = match running.listeners.get(&address) {
            Some(listening) => Arc::clone(&listening.socket),
            None => Arc::new(
                connect::listen(address).map_err(|source| Error::Listen { address, source })?,
            ),
        };
        sockets.insert(address, socket);
    }
    Ok(sockets)
}

/// Brings the listeners' TCP-MD5 keys to what the neighbours say. A listener holds one key per
/// peer address of its family.
fn set_keys(
    sockets: &BTreeMap<SocketAddr, Arc<TcpListener>>,
    old: &BTreeMap<PeerKey, PeerEntry>,
    new: &BTreeMap<PeerKey, NeighborConfig>,
) -> Result<(), Error> {
    for (&address, socket) in sockets {
        let fits = |config: &NeighborConfig| config.address.is_ipv4() == address.is_ipv4();
        let gone = old.iter().filter(|(key, entry)| {
            entry.config.password.is_some()
                && new.get(*key).is_none_or(|config| config.password.is_none())
        });
        for (_, entry) in gone.filter(|(_, entry)| fits(&entry.config)) {
            // A new listener never had it.
            let _ = set_tcp_md5(socket, entry.config.address, &[]);
        }
        for config in new.values().filter(|config| fits(config)) {
            let Some(password) = &config.password else {
                continue;
            };
            set_tcp_md5(socket, config.address, password.as_bytes())
                .map_err(|source| Error::Password { neighbor: config.address, address, source })?;
        }
    }
    Ok(())
}

/// The data behind these locks is replaced whole, so a panic elsewhere leaves it usable.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

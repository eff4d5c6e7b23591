//! Who is running: neighbours, listeners, discoveries, kept in step with the configuration, and
//! where an accepted connection belongs.

use super::discovery::Discovery;
use super::keys;
use super::peer::{self, Command};
use super::presence::{DynamicPeers, Presence};
use super::routes::Imports;
use super::status::{KernelCounters, NeighborStatus, Snapshot, SpeakerStatus};
use super::{Error, RangeConfig, SpeakerConfig, connect, listener, lock};
use crate::Wanted;
use crate::bgp::config::{LocalConfig, NeighborConfig};
use crate::bgp::import::ImportedRoutes;
use crate::bgp::wire::{Notification, cease, code};
use ipnet::IpNet;
use nix::net::if_::if_indextoname;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tracing::{debug, info};

/// Commands waiting for a peer task, accepted connections among them.
const COMMANDS: usize = 16;

/// Tells neighbours apart: link-local addresses are the same on many interfaces. An unnumbered
/// neighbour (RFC 8950) is known by its interface alone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PeerKey {
    pub address: IpAddr,
    pub interface: Option<String>,
}

impl PeerKey {
    fn of(config: &NeighborConfig) -> Result<Self, Error> {
        let scoped = is_unnumbered(config)
            || matches!(config.address, IpAddr::V6(a) if a.is_unicast_link_local());
        let interface = config.interface.clone().filter(|_| scoped);
        if scoped && interface.is_none() {
            return Err(Error::InterfaceMissing(config.address));
        }
        Ok(Self { address: config.address, interface })
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

    /// The unnumbered neighbour a link-local address may be of.
    fn unnumbered(&self) -> Option<Self> {
        self.interface.is_some().then(|| Self {
            address: Ipv6Addr::UNSPECIFIED.into(),
            interface: self.interface.clone(),
        })
    }
}

impl fmt::Display for PeerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.interface {
            Some(interface) if self.address.is_unspecified() => f.write_str(interface),
            Some(interface) => write!(f, "{}%{interface}", self.address),
            None => write!(f, "{}", self.address),
        }
    }
}

pub(super) fn is_unnumbered(config: &NeighborConfig) -> bool {
    config.address == IpAddr::V6(Ipv6Addr::UNSPECIFIED)
}

/// The speaker's shared state.
#[derive(Debug)]
pub(super) struct Inner {
    runtime: Handle,
    wanted: watch::Receiver<Arc<Wanted>>,
    imports: Arc<Imports>,
    presence: Arc<Presence>,
    settled: watch::Sender<bool>,
    strangers: AtomicU64,
    running: Mutex<Running>,
}

#[derive(Debug)]
struct Running {
    local: LocalConfig,
    ranges: Vec<RangeConfig>,
    listeners: BTreeMap<SocketAddr, Listening>,
    discoveries: BTreeMap<String, Discovery>,
    peers: BTreeMap<PeerKey, PeerEntry>,
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

#[derive(Debug)]
struct PeerEntry {
    config: NeighborConfig,
    /// The range it dialled in from, if it is not configured itself.
    range: Option<IpNet>,
    commands: mpsc::Sender<Command>,
    snapshot: Arc<Mutex<Snapshot>>,
    task: JoinHandle<()>,
}

impl PeerEntry {
    /// Asks the task to end. If its queue is full, closing the queue does (see `peer::run`).
    fn quit(self, reason: Notification) -> JoinHandle<()> {
        let _ = self.commands.try_send(Command::Quit(reason));
        self.task
    }

    fn status(&self) -> NeighborStatus {
        let status = lock(&self.snapshot).read();
        // Only a defect ends a task that is still registered. Its connections ended with it.
        if self.task.is_finished() { status.failed() } else { status }
    }
}

impl Inner {
    pub fn new(runtime: Handle, wanted: watch::Receiver<Arc<Wanted>>, local: LocalConfig) -> Self {
        Self {
            runtime,
            wanted,
            imports: Arc::default(),
            presence: Arc::default(),
            settled: watch::Sender::new(false),
            strangers: AtomicU64::new(0),
            running: Mutex::new(Running {
                local,
                ranges: Vec::new(),
                listeners: BTreeMap::new(),
                discoveries: BTreeMap::new(),
                peers: BTreeMap::new(),
            }),
        }
    }

    /// See [`super::SpeakerHandle::reconfigure`].
    pub fn reconfigure(self: &Arc<Self>, config: SpeakerConfig) -> Result<(), Error> {
        let _runtime = self.runtime.enter();
        let mut wanted = BTreeMap::new();
        for neighbor in config.neighbors {
            let key = PeerKey::of(&neighbor)?;
            let name = key.to_string();
            if wanted.insert(key, neighbor).is_some() {
                return Err(Error::Duplicate(name));
            }
        }
        keys::check(wanted.values(), &config.ranges)?;
        let mut guard = lock(&self.running);
        let running = &mut *guard;
        let sockets = sockets(&running.listeners, &config.listen)?;
        let new = keys::holders(wanted.values(), &config.ranges);
        keys::exchange(&sockets, &running.keys(), &new)?;

        running.listeners.retain(|address, _| config.listen.contains(address));
        for (address, socket) in sockets {
            running.listeners.entry(address).or_insert_with(|| {
                let accept = listener::run(Arc::clone(&socket), Arc::downgrade(self));
                Listening { socket, task: tokio::spawn(accept) }
            });
        }
        let local = LocalConfig { asn: config.asn, router_id: config.router_id };
        let all = running.local != local;
        running.local = local;
        running.ranges = config.ranges;
        running.discover(wanted.values());
        for (key, old) in std::mem::take(&mut running.peers) {
            match wanted.remove(&key) {
                Some(new) if !all && new == old.config && old.range.is_none() => {
                    running.peers.insert(key, old);
                }
                Some(new) => {
                    let reason = match &new.shutdown {
                        Some(text) => Notification::shutdown(cease::ADMIN_SHUTDOWN, text),
                        None => Notification::new(code::CEASE, cease::CONFIG_CHANGE),
                    };
                    let previous = Some(old.quit(reason));
                    self.start(running, key, new, None, previous);
                }
                None if !all && old.range.is_some() && running.still_invited(&key, &old) => {
                    running.peers.insert(key, old);
                }
                None => {
                    old.quit(Notification::new(code::CEASE, cease::DECONFIGURED));
                }
            }
        }
        for (key, new) in wanted {
            self.start(running, key, new, None, None);
        }
        Ok(())
    }

    /// Hands an accepted connection to the neighbour it comes from. Nothing of a stranger's is
    /// read: it is closed at once.
    pub fn accept(self: &Arc<Self>, stream: TcpStream, remote: SocketAddr) {
        let mut guard = lock(&self.running);
        let running = &mut *guard;
        running.peers.retain(|_, peer| peer.range.is_none() || !peer.task.is_finished());
        let mut key = PeerKey::of_remote(&remote);
        if let Some(unnumbered) = key.unnumbered()
            && !running.peers.contains_key(&key)
        {
            key = unnumbered;
        }
        if !running.peers.contains_key(&key)
            && let Some((range, config)) = running.invitation(&key)
        {
            info!(peer = %key, %range, "BGP neighbour dials in");
            self.start(running, key.clone(), config, Some(range), None);
        }
        if let Some(peer) = running.peers.get(&key) {
            // A full queue means a peer that dials faster than it can be served: it may dial
            // again.
            let _ = peer.commands.try_send(Command::Accepted(stream));
        } else {
            self.strangers.fetch_add(1, Ordering::Relaxed);
            debug!(%remote, "connection from an address that is no neighbour's");
        }
    }

    pub fn status(&self) -> SpeakerStatus {
        let mut running = lock(&self.running);
        running.peers.retain(|_, peer| peer.range.is_none() || !peer.task.is_finished());
        SpeakerStatus {
            router_id: running.local.router_id,
            asn: running.local.asn,
            listen: running.listeners.keys().copied().collect(),
            unknown_peers: self.strangers.load(Ordering::Relaxed),
            kernel: KernelCounters::read(),
            neighbors: running.peers.values().map(PeerEntry::status).collect(),
        }
    }

    pub fn imported(&self) -> watch::Receiver<Arc<ImportedRoutes>> {
        self.imports.subscribe()
    }

    pub fn dynamic_peers(&self) -> watch::Receiver<DynamicPeers> {
        self.presence.subscribe()
    }

    pub fn set_settled(&self) {
        self.settled.send_replace(true);
    }

    /// The neighbour configured at, or connected from, an address. The same link-local address may
    /// be on several interfaces: where one is named, it counts.
    pub fn find(
        &self,
        address: IpAddr,
        interface: Option<&str>,
    ) -> Option<(mpsc::Sender<Command>, PeerKey)> {
        let running = lock(&self.running);
        let on_link = |key: &PeerKey| {
            key.interface.is_none() || interface.is_none() || key.interface.as_deref() == interface
        };
        let connected = |peer: &PeerEntry| lock(&peer.snapshot).remote() == Some(address);
        let mut there = running.peers.iter().filter(|(key, _)| on_link(key));
        let named = there.clone().find(|(key, _)| key.address == address);
        let (key, peer) = named.or_else(|| there.find(|(_, peer)| connected(peer)))?;
        Some((peer.commands.clone(), key.clone()))
    }

    /// Stops everything; the tasks that still say goodbye.
    pub fn shutdown(&self, reason: &Notification) -> Vec<JoinHandle<()>> {
        let mut running = lock(&self.running);
        running.listeners.clear();
        running.ranges.clear();
        let peers = std::mem::take(&mut running.peers);
        peers.into_values().map(|p| p.quit(reason.clone())).collect()
    }

    fn start(
        &self,
        running: &mut Running,
        key: PeerKey,
        config: NeighborConfig,
        range: Option<IpNet>,
        previous: Option<JoinHandle<()>>,
    ) {
        let (commands, receiver) = mpsc::channel(COMMANDS);
        let snapshot = Arc::new(Mutex::new(Snapshot::new(&config)));
        let discovery = key.interface.as_ref().and_then(|i| running.discoveries.get(i));
        let task = self.runtime.spawn(peer::run(peer::Setup {
            key: key.clone(),
            config: config.clone(),
            local: running.local,
            wanted: self.wanted.clone(),
            commands: receiver,
            imports: Arc::clone(&self.imports),
            snapshot: Arc::clone(&snapshot),
            previous,
            discovered: discovery.filter(|_| is_unnumbered(&config)).map(Discovery::subscribe),
            range,
            presence: Arc::clone(&self.presence),
            settled: self.settled.subscribe(),
        }));
        running.peers.insert(key, PeerEntry { config, range, commands, snapshot, task });
    }
}

impl Running {
    /// What an uninvited address may be, by the most specific range that has room.
    fn invitation(&self, key: &PeerKey) -> Option<(IpNet, NeighborConfig)> {
        let matching = self.ranges.iter().filter(|r| r.prefix.contains(&key.address));
        let range = matching.max_by_key(|r| r.prefix.prefix_len())?;
        let present = self.peers.values().filter(|p| p.range == Some(range.prefix)).count();
        (present < range.max_peers as usize).then(|| (range.prefix, range.neighbor(key)))
    }

    /// Whether a neighbour that dialled in would be treated just so today.
    fn still_invited(&self, key: &PeerKey, peer: &PeerEntry) -> bool {
        let range = self.ranges.iter().find(|r| Some(r.prefix) == peer.range);
        range.is_some_and(|r| r.neighbor(key) == peer.config)
    }

    /// Discovers neighbours on the interfaces of exactly the unnumbered ones.
    fn discover<'a>(&mut self, wanted: impl Iterator<Item = &'a NeighborConfig>) {
        let unnumbered = wanted.filter(|c| is_unnumbered(c) && c.shutdown.is_none());
        let interfaces: BTreeSet<String> = unnumbered.filter_map(|c| c.interface.clone()).collect();
        self.discoveries.retain(|interface, _| interfaces.contains(interface));
        for interface in interfaces {
            let start = || Discovery::start(interface.clone());
            self.discoveries.entry(interface.clone()).or_insert_with(start);
        }
    }

    fn keys(&self) -> keys::Holders {
        let configured = self.peers.values().filter(|p| p.range.is_none()).map(|p| &p.config);
        keys::holders(configured, &self.ranges)
    }
}

impl RangeConfig {
    /// The template with an address.
    fn neighbor(&self, key: &PeerKey) -> NeighborConfig {
        let PeerKey { address, interface } = key.clone();
        NeighborConfig { address, interface, passive: true, ..self.template.clone() }
    }
}

/// Sockets for the addresses to listen on: those there are, and new ones.
fn sockets(
    listeners: &BTreeMap<SocketAddr, Listening>,
    addresses: &[SocketAddr],
) -> Result<BTreeMap<SocketAddr, Arc<TcpListener>>, Error> {
    let mut sockets = BTreeMap::new();
    for &address in addresses {
        let socket = match listeners.get(&address) {
            Some(listening) => Arc::clone(&listening.socket),
            None => Arc::new(
                connect::listen(address).map_err(|source| Error::Listen { address, source })?,
            ),
        };
        sockets.insert(address, socket);
    }
    Ok(sockets)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bgp::config::RemoteAs;
    use std::net::Ipv4Addr;

    #[tokio::test]
    async fn one_link_local_address_on_two_links_is_two_neighbours() {
        let (_wanted, receiver) = watch::channel(Arc::default());
        let local = LocalConfig { asn: 65001, router_id: Ipv4Addr::new(10, 0, 0, 1) };
        let inner = Arc::new(Inner::new(Handle::current(), receiver, local));
        let address: IpAddr = "fe80::1".parse().unwrap();
        let neighbors = ["nowhere0", "nowhere1"].map(|interface| NeighborConfig {
            interface: Some(interface.to_owned()),
            passive: true,
            ..NeighborConfig::new(address, RemoteAs::External)
        });
        let config = SpeakerConfig {
            router_id: local.router_id,
            asn: local.asn,
            listen: Vec::new(),
            neighbors: neighbors.into(),
            ranges: Vec::new(),
        };
        inner.reconfigure(config).unwrap();
        let found = |interface| inner.find(address, interface).and_then(|(_, key)| key.interface);
        for interface in ["nowhere0", "nowhere1"] {
            assert_eq!(found(Some(interface)).as_deref(), Some(interface));
        }
        assert_eq!(found(Some("nowhere2")), None);
        assert!(found(None).is_some(), "any of them will do");
    }
}

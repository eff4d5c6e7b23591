//! The loop of the OSPF task.

use super::socket::{RawSocket, Received};
use super::{BfdTimers, OspfError, link};
use crate::Wanted;
use crate::bfd::{BfdHandle, PeerEvent, SessionConfig};
use crate::ospf::config::Config;
use crate::ospf::instance::{Event, Instance};
use crate::ospf::neighbor::State;
use crate::ospf::status::InstanceStatus;
use crate::ospf::{Version, instance};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

/// How often the links are looked at.
const LINK_INTERVAL: Duration = Duration::from_millis(500);
/// How long shutdown waits for acknowledgments: time for what was dropped by MinLSArrival to be sent
/// again.
const PATIENCE: Duration = Duration::from_secs(2);
/// Packets of all interfaces that wait for the task; beyond it the kernel queues.
const PACKET_QUEUE: usize = 1024;

/// What the handle asks for.
#[derive(Debug)]
pub(super) enum Command {
    SetConfig { config: Config, reply: oneshot::Sender<Result<(), OspfError>> },
    CheckConfig { config: Config, reply: oneshot::Sender<Result<(), OspfError>> },
    LookAtLinks,
    Status { reply: oneshot::Sender<InstanceStatus> },
    Shutdown { reply: Option<oneshot::Sender<()>> },
}

/// An open socket and the task that reads it.
#[derive(Debug)]
struct Port {
    name: String,
    socket: Arc<RawSocket>,
    reader: JoinHandle<()>,
}

impl Drop for Port {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// State of the task.
#[derive(Debug)]
pub(super) struct Task {
    config: Config,
    instance: Instance,
    epoch: Instant,
    bfd: Option<(BfdHandle, BfdTimers)>,
    bfd_events: Option<broadcast::Receiver<PeerEvent>>,
    watched: Vec<SessionConfig>,
    inbox: mpsc::Receiver<Command>,
    wanted: watch::Receiver<Wanted>,
    events: broadcast::Sender<Event>,
    ports: BTreeMap<u32, Port>,
    packets_in: mpsc::Sender<(u32, Received)>,
    packets: mpsc::Receiver<(u32, Received)>,
    /// Socket errors logged already, by interface.
    errors: BTreeMap<String, String>,
    ending: Option<(Instant, Vec<oneshot::Sender<()>>)>,
}

/// Why the loop woke up.
enum Wake {
    Command(Option<Command>),
    Wanted(bool),
    Packet(u32, Received),
    PathFailure(IpAddr),
    Timeout,
    Links,
}

impl Task {
    pub(super) fn new(
        config: Config,
        bfd: Option<(BfdHandle, BfdTimers)>,
        inbox: mpsc::Receiver<Command>,
        wanted: watch::Receiver<Wanted>,
        events: broadcast::Sender<Event>,
    ) -> Self {
        // A clock before 1970 only weakens the protection against replay.
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let instance = Instance::new(&config, rand::random(), unix);
        let bfd_events = bfd.as_ref().map(|(handle, _)| handle.subscribe());
        let (packets_in, packets) = mpsc::channel(PACKET_QUEUE);
        Self {
            config,
            instance,
            epoch: Instant::now(),
            bfd,
            bfd_events,
            watched: Vec::new(),
            inbox,
            wanted,
            events,
            ports: BTreeMap::new(),
            packets_in,
            packets,
            errors: BTreeMap::new(),
            ending: None,
        }
    }

    /// Runs until shutdown.
    pub(super) async fn run(mut self) {
        let mut links_at = Instant::now();
        loop {
            match self.sleep(links_at).await {
                Wake::Packet(index, packet) => self.take_packet(index, &packet),
                Wake::Wanted(true) => self.take_wanted(),
                // The last handle is gone.
                Wake::Wanted(false) | Wake::Command(None) => self.begin_end(None),
                Wake::Command(Some(Command::LookAtLinks)) => links_at = Instant::now(),
                Wake::Command(Some(command)) => self.obey(command),
                Wake::PathFailure(peer) => self.instance.handle_path_failure(peer, self.now()),
                Wake::Timeout => self.instance.handle_timeout(self.now()),
                Wake::Links => {
                    links_at = Instant::now() + LINK_INTERVAL;
                    self.look_at_links();
                }
            }
            self.flush();
            self.watch_neighbors().await;
            let ended = self.ending.as_ref().is_some_and(|(deadline, _)| {
                self.instance.is_withdrawn() || Instant::now() >= *deadline
            });
            if ended {
                break;
            }
        }
        self.instance.part(self.now());
        self.flush();
        if let Some((handle, _)) = &self.bfd {
            // The BFD thread may have ended first.
            let _ = handle.set_sessions_of(client(self.config.version), Vec::new()).await;
        }
        for reply in self.ending.into_iter().flat_map(|(_, replies)| replies) {
            // Nobody waits any more: fine.
            let _ = reply.send(());
        }
    }

    fn now(&self) -> Duration {
        self.epoch.elapsed()
    }

    async fn sleep(&mut self, links_at: Instant) -> Wake {
        let far = Instant::now() + Duration::from_secs(3600);
        let timer = self.instance.next_timeout().map_or(far, |at| self.epoch + at);
        let deadline = self.ending.as_ref().map_or(far, |(deadline, _)| *deadline);
        let ending = self.ending.is_some();
        tokio::select! {
            biased;
            command = self.inbox.recv(), if !ending => Wake::Command(command),
            changed = self.wanted.changed(), if !ending => Wake::Wanted(changed.is_ok()),
            peer = path_failure(self.bfd_events.as_mut()) => Wake::PathFailure(peer),
            // Before timers: what has arrived was not silence.
            Some((index, packet)) = self.packets.recv() => Wake::Packet(index, packet),
            () = sleep_until(timer.min(deadline)) => Wake::Timeout,
            () = sleep_until(links_at) => Wake::Links,
        }
    }

    fn take_packet(&mut self, index: u32, packet: &Received) {
        let (source, destination) = (packet.source, packet.destination);
        let result =
            self.instance.handle_packet(index, source, destination, &packet.bytes, self.now());
        if let Err(reason) = result {
            let interface = self.ports.get(&index).map_or("", |port| port.name.as_str());
            tracing::debug!(%source, interface, %reason, "ospf: packet dropped");
        }
    }

    fn take_wanted(&mut self) {
        let now = self.now();
        let wanted = self.wanted.borrow_and_update();
        self.instance.set_wanted(&wanted, now);
    }

    fn obey(&mut self, command: Command) {
        // Whoever asked may have gone: a reply that nobody takes is no error.
        match command {
            Command::SetConfig { config, reply } => {
                let result = self.accepts(&config);
                if result.is_ok() {
                    self.instance.set_interfaces(&config.interfaces, self.now());
                    self.config = config;
                    self.look_at_links();
                }
                let _ = reply.send(result);
            }
            Command::CheckConfig { config, reply } => {
                let _ = reply.send(self.accepts(&config));
            }
            Command::Status { reply } => {
                let _ = reply.send(self.instance.status(self.now()));
            }
            Command::Shutdown { reply } => self.begin_end(reply),
            Command::LookAtLinks => self.look_at_links(),
        }
    }

    fn accepts(&self, config: &Config) -> Result<(), OspfError> {
        let identity = |c: &Config| (c.version, c.router_id, c.area, c.area_kind);
        if identity(config) == identity(&self.config) { Ok(()) } else { Err(OspfError::Identity) }
    }

    fn begin_end(&mut self, reply: Option<oneshot::Sender<()>>) {
        let deadline = Instant::now() + PATIENCE;
        self.ending.get_or_insert_with(|| (deadline, Vec::new())).1.extend(reply);
        self.instance.shutdown(self.now());
    }

    /// Brings sockets and instance in line with the links.
    fn look_at_links(&mut self) {
        let mut links = match link::read() {
            Ok(links) => links,
            Err(error) => {
                tracing::warn!(%error, "ospf: cannot read the network interfaces");
                return;
            }
        };
        let names: Vec<(String, bool)> =
            self.config.interfaces.iter().map(|c| (c.name.clone(), c.passive)).collect();
        self.ports.retain(|index, port| {
            names.iter().any(|(name, _)| *name == port.name)
                && links.get(&port.name).is_some_and(|link| link.index == *index && link.up)
        });
        for (name, passive) in names {
            let mut link = links.remove(&name);
            // Without a socket the interface does not run: the next look tries again.
            if let Some(up) = link.as_mut().filter(|link| link.up && !passive) {
                up.up = self.open(&name, up.index);
            }
            self.instance.set_link(&name, link, self.now());
        }
    }

    fn open(&mut self, name: &str, index: u32) -> bool {
        if self.ports.contains_key(&index) {
            return true;
        }
        let socket = match RawSocket::open(self.config.version, name, index) {
            Ok(socket) => Arc::new(socket),
            Err(error) => {
                let error = error.to_string();
                if self.errors.get(name) != Some(&error) {
                    tracing::warn!(interface = name, %error, "ospf: cannot open a socket");
                    self.errors.insert(name.to_owned(), error);
                }
                return false;
            }
        };
        self.errors.remove(name);
        let reader = tokio::spawn(read(Arc::clone(&socket), index, self.packets_in.clone()));
        self.ports.insert(index, Port { name: name.to_owned(), socket, reader });
        true
    }

    /// Sends and publishes what the instance has put out.
    fn flush(&mut self) {
        while let Some(transmit) = self.instance.poll_transmit() {
            let Some(port) = self.ports.get(&transmit.interface) else { continue };
            if let Err(error) = port.socket.send(transmit.destination, &transmit.bytes) {
                let interface = &port.name;
                tracing::debug!(interface, %error, "ospf: packet not sent");
            }
        }
        while let Some(event) = self.instance.poll_event() {
            log(self.config.version, &event);
            // No subscriber: fine.
            let _ = self.events.send(event);
        }
    }

    /// Has the neighbours watched by BFD.
    async fn watch_neighbors(&mut self) {
        let Some((handle, timers)) = &self.bfd else { return };
        let sessions: Vec<SessionConfig> = self
            .instance
            .bidirectional()
            .map(|(interface, peer)| SessionConfig {
                peer,
                local: None,
                // Left open for IPv4, so that a session that BGP has with the neighbour will do.
                interface: peer.is_ipv6().then(|| interface.to_owned()),
                multihop: false,
                min_tx: timers.min_tx,
                min_rx: timers.min_rx,
                multiplier: timers.multiplier,
                auth: timers.auth.clone(),
            })
            .collect();
        if sessions == self.watched {
            return;
        }
        self.watched.clone_from(&sessions);
        if let Err(error) = handle.set_sessions_of(client(self.config.version), sessions).await {
            tracing::warn!(%error, "ospf: neighbours are not watched by BFD");
        }
    }
}

async fn read(socket: Arc<RawSocket>, index: u32, queue: mpsc::Sender<(u32, Received)>) {
    let mut buffer = vec![0; 65_536];
    loop {
        match socket.receive(&mut buffer).await {
            Ok(Some(received)) => {
                if queue.send((index, received)).await.is_err() {
                    return;
                }
            }
            Ok(None) => {}
            // The interface is going: the look at the links closes this socket.
            Err(_) => tokio::time::sleep(LINK_INTERVAL).await,
        }
    }
}

/// The next peer whose path failed; never, without BFD.
async fn path_failure(events: Option<&mut broadcast::Receiver<PeerEvent>>) -> IpAddr {
    let Some(events) = events else { return std::future::pending().await };
    loop {
        match events.recv().await {
            Ok(event) if event.is_failure() => return event.key.peer,
            // Lagging loses old events only; the dead interval covers what they told.
            Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
            Err(broadcast::error::RecvError::Closed) => return std::future::pending().await,
        }
    }
}

fn client(version: Version) -> &'static str {
    match version {
        Version::V2 => "ospfv2",
        Version::V3 => "ospfv3",
    }
}

fn log(version: Version, event: &Event) {
    let protocol = client(version);
    match event {
        instance::Event::Interface { interface, old, new } => {
            tracing::info!(protocol, %interface, ?old, ?new, "ospf: interface changed");
        }
        instance::Event::Neighbor { interface, router_id, address, old, new, cause } => {
            if *old == State::Full || *new == State::Full || *new == State::Down {
                tracing::info!(
                    protocol, %interface, %router_id, %address, ?old, ?new, ?cause,
                    "ospf: neighbour changed"
                );
            } else {
                tracing::debug!(
                    protocol, %interface, %router_id, %address, ?old, ?new, ?cause,
                    "ospf: neighbour changed"
                );
            }
        }
        instance::Event::Refused(what) => tracing::warn!(protocol, %what, "ospf: not announced"),
    }
}

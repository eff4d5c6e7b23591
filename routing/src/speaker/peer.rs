//! One task per neighbour: moves bytes between its sockets and its [`Session`].
//!
//! A neighbour that floods, stalls or sends garbage costs its own task's turns and its own
//! bounded buffers, nobody else's.

use super::connect;
use super::lock;
use super::presence::{DynamicPeer, Presence, Present};
use super::registry::PeerKey;
use super::routes::Imports;
use super::status::{self, AnnouncedRoute, Snapshot};
use crate::Wanted;
use crate::bgp::config::{LocalConfig, NeighborConfig};
use crate::bgp::fsm::State;
use crate::bgp::session::{ConnId, Output, Session};
use crate::bgp::wire::{Notification, cease, code};
use ipnet::IpNet;
use std::future::Future;
use std::io;
use std::net::Ipv6Addr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};
use tracing::{debug, info, warn};

/// How long a closing connection may take over its last words.
const LINGER: Duration = Duration::from_secs(1);
/// Connections that linger at once; of a neighbour that makes more, they are just dropped.
const MAX_CLOSING: usize = 8;
/// How long a neighbour that dialled in is remembered without a session.
const DYNAMIC_LINGER: Duration = Duration::from_secs(60);
/// Read at once.
const READ_BUFFER: usize = 64 * 1024;

/// What the handle and the listener tell a peer task.
#[derive(Debug)]
pub(super) enum Command {
    Accepted(TcpStream),
    BfdDown(String),
    Announced(oneshot::Sender<Vec<AnnouncedRoute>>),
    /// End the session with this NOTIFICATION, then the task.
    Quit(Notification),
}

/// What a peer task is made of.
pub(super) struct Setup {
    pub key: PeerKey,
    pub config: NeighborConfig,
    pub local: LocalConfig,
    pub wanted: watch::Receiver<Arc<Wanted>>,
    pub commands: mpsc::Receiver<Command>,
    pub imports: Arc<Imports>,
    pub snapshot: Arc<Mutex<Snapshot>>,
    /// The task this one replaces: its connection is closed first.
    pub previous: Option<JoinHandle<()>>,
    /// The address of an unnumbered neighbour, once it is heard of.
    pub discovered: Option<watch::Receiver<Option<Ipv6Addr>>>,
    /// Where it dialled in from, if it is not configured itself: then the task ends when nothing is
    /// heard of it any more.
    pub range: Option<IpNet>,
    pub presence: Arc<Presence>,
    /// What is wanted is complete: see [`Session::handle_settled`].
    pub settled: watch::Receiver<bool>,
}

type Dial = Pin<Box<dyn Future<Output = io::Result<TcpStream>> + Send>>;

struct Peer {
    name: String,
    key: PeerKey,
    local: LocalConfig,
    session: Session,
    connections: Vec<(ConnId, TcpStream)>,
    dial: Option<(ConnId, Dial)>,
    closing: JoinSet<()>,
    imports: Arc<Imports>,
    snapshot: Arc<Mutex<Snapshot>>,
    buffer: Vec<u8>,
    discovered: Option<watch::Receiver<Option<Ipv6Addr>>>,
    range: Option<IpNet>,
    present: Present,
    /// When the neighbour last had a connection.
    seen: Instant,
}

/// Runs a neighbour until it is told to quit or the speaker is gone.
pub(super) async fn run(setup: Setup) {
    if let Some(previous) = setup.previous {
        // Bounded by its own linger.
        let _ = previous.await;
    }
    let (mut wanted, mut commands, mut settled) = (setup.wanted, setup.commands, setup.settled);
    let latest = Arc::clone(&wanted.borrow_and_update());
    let mut peer = Peer {
        name: setup.key.to_string(),
        key: setup.key,
        local: setup.local,
        session: Session::new(setup.config, setup.local, latest, rand::random(), Instant::now()),
        connections: Vec::new(),
        dial: None,
        closing: JoinSet::new(),
        imports: setup.imports,
        snapshot: setup.snapshot,
        buffer: vec![0; READ_BUFFER],
        discovered: setup.discovered,
        range: setup.range,
        present: Present::new(setup.presence),
        seen: Instant::now(),
    };
    if *settled.borrow_and_update() {
        peer.session.handle_settled(Instant::now());
    }
    peer.enter();
    let mut wanted_open = true;
    loop {
        peer.flush();
        let forget = peer.forget_at().filter(|_| setup.range.is_some());
        if forget.is_some_and(|t| t <= Instant::now()) {
            return peer.quit(Notification::new(code::CEASE, cease::DECONFIGURED)).await;
        }
        let deadline = peer.session.poll_timeout().into_iter().chain(forget).min();
        tokio::select! {
            () = ready(&peer.connections, &peer.session) => {}
            result = dialled(&mut peer.dial) => peer.on_dialled(result),
            () = sleep_until(deadline.map(tokio::time::Instant::from_std)) => {}
            () = heard_of(&mut peer.discovered) => {
                peer.enter();
                peer.session.handle_reachable(Instant::now());
            }
            Some(_) = peer.closing.join_next() => {}
            changed = wanted.changed(), if wanted_open => {
                wanted_open = changed.is_ok();
                let latest = Arc::clone(&wanted.borrow_and_update());
                peer.session.handle_wanted(latest, Instant::now());
            }
            Ok(()) = settled.changed() => {
                // It speaks of all that was wanted before it.
                let latest = Arc::clone(&wanted.borrow_and_update());
                peer.session.handle_wanted(latest, Instant::now());
                peer.session.handle_settled(Instant::now());
            }
            command = commands.recv() => match command {
                Some(Command::Quit(reason)) => return peer.quit(reason).await,
                None => return peer.quit(Notification::new(code::CEASE, cease::ADMIN_SHUTDOWN)).await,
                Some(command) => peer.on_command(command),
            },
        }
        // What has arrived is read before any timer is believed: a hold time that passed while
        // we were not running is not the peer's fault.
        peer.read();
        let now = Instant::now();
        if peer.session.poll_timeout().is_some_and(|t| t <= now) {
            peer.session.handle_timeout(now);
        }
    }
}

impl Peer {
    /// Makes known who this is, where the configuration does not say.
    fn enter(&mut self) {
        let discovered = self.discovered.as_ref().and_then(|address| *address.borrow());
        let address = match self.range {
            Some(_) => Some(self.key.address),
            None => discovered.map(Into::into),
        };
        let (interface, range) = (self.key.interface.clone(), self.range);
        self.present.set(address.map(|address| DynamicPeer { address, interface, range }));
    }

    fn on_command(&mut self, command: Command) {
        match command {
            Command::Accepted(stream) => self.on_accepted(stream),
            Command::BfdDown(reason) => {
                info!(peer = %self.name, %reason, "BFD reports the neighbour down");
                self.session.handle_bfd_down(Instant::now());
            }
            Command::Announced(reply) => {
                // The asker may have gone.
                let _ = reply.send(status::announced(&self.session));
            }
            Command::Quit(_) => {}
        }
    }

    fn on_accepted(&mut self, stream: TcpStream) {
        let prepared = connect::accepted(&stream, self.session.config(), self.local.asn)
            .and_then(|()| connect::endpoints(&stream));
        match prepared {
            Ok(endpoints) => {
                if let Some(id) = self.session.handle_accepted(endpoints, Instant::now()) {
                    self.connections.push((id, stream));
                } else {
                    debug!(peer = %self.name, "connection refused: session not open to it");
                }
            }
            Err(error) => warn!(peer = %self.name, %error, "accepted connection unusable"),
        }
    }

    fn on_dialled(&mut self, result: io::Result<TcpStream>) {
        let Some((id, _)) = self.dial.take() else {
            return;
        };
        let now = Instant::now();
        match result.and_then(|stream| Ok((connect::endpoints(&stream)?, stream))) {
            Ok((endpoints, stream)) => {
                self.connections.push((id, stream));
                self.session.handle_dialled(id, endpoints, now);
            }
            Err(error) => self.session.handle_closed(id, &format!("connect: {error}"), now),
        }
    }

    /// When a neighbour that dialled in and is gone may be forgotten.
    fn forget_at(&mut self) -> Option<Instant> {
        if !self.connections.is_empty() {
            self.seen = Instant::now();
            return None;
        }
        Some(self.seen + DYNAMIC_LINGER)
    }

    /// One read per connection.
    fn read(&mut self) {
        let mut at = 0;
        while let Some((id, stream)) = self.connections.get(at) {
            let (id, now) = (*id, Instant::now());
            match stream.try_read(&mut self.buffer) {
                Ok(0) => self.lost(at, "closed by the peer"),
                Ok(n) => {
                    self.session.handle_input(id, &self.buffer[..n], now);
                    self.outputs();
                    at += 1;
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => at += 1,
                Err(error) => self.lost(at, &error.to_string()),
            }
        }
    }

    /// Does what the session asks for, writes what can be written, tells what is new.
    fn flush(&mut self) {
        self.outputs();
        let mut at = 0;
        while let Some((id, stream)) = self.connections.get(at) {
            let id = *id;
            let bytes = self.session.poll_transmit(id);
            if bytes.is_empty() {
                at += 1;
                continue;
            }
            match stream.try_write(bytes) {
                Ok(n) => self.session.handle_transmitted(id, n, Instant::now()),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => at += 1,
                Err(error) => self.lost(at, &error.to_string()),
            }
        }
        self.outputs();
        lock(&self.snapshot).refresh(&self.session);
    }

    fn start_dial(&mut self, id: ConnId) {
        let mut config = self.session.config().clone();
        if let Some(discovered) = &self.discovered {
            let Some(address) = *discovered.borrow() else {
                let reason = "nothing heard of the neighbour on its interface yet";
                return self.session.handle_closed(id, reason, Instant::now());
            };
            config.address = address.into();
        }
        self.dial = Some((id, Box::pin(connect::dial(config, self.local.asn))));
    }

    fn lost(&mut self, at: usize, reason: &str) {
        let (id, _) = self.connections.swap_remove(at);
        self.session.handle_closed(id, reason, Instant::now());
    }

    fn outputs(&mut self) {
        while let Some(output) = self.session.poll_output() {
            match output {
                Output::Dial(id) => self.start_dial(id),
                Output::Close { id, last } => {
                    self.dial.take_if(|(dialling, _)| *dialling == id);
                    if let Some(at) = self.connections.iter().position(|(c, _)| *c == id) {
                        let (_, stream) = self.connections.swap_remove(at);
                        if self.closing.len() < MAX_CLOSING {
                            self.closing.spawn(close(stream, last));
                        }
                    }
                }
                Output::StateChanged { from, to, reason } => {
                    if from == State::Established {
                        warn!(peer = %self.name, ?from, ?to, %reason, "BGP session down");
                    } else {
                        info!(peer = %self.name, ?from, ?to, %reason, "BGP session");
                    }
                }
                Output::RoutesChanged => self.imports.replace(&self.key, self.session.routes()),
            }
        }
    }

    async fn quit(mut self, reason: Notification) {
        self.session.handle_stop(reason, Instant::now());
        self.flush();
        while self.closing.join_next().await.is_some() {}
    }
}

/// Writes the last words, then waits for the peer to close: a reset while they are on their way
/// would make the peer's kernel forget them.
async fn close(mut stream: TcpStream, last: Vec<u8>) {
    let goodbye = async {
        stream.write_all(&last).await?;
        stream.shutdown().await?;
        let mut sink = [0; 1024];
        while stream.read(&mut sink).await? > 0 {}
        io::Result::Ok(())
    };
    // Best effort, by design.
    let _ = tokio::time::timeout(LINGER, goodbye).await;
}

/// Until a connection can be read, or written while there is something to write.
async fn ready(connections: &[(ConnId, TcpStream)], session: &Session) {
    std::future::poll_fn(|cx| {
        for (id, stream) in connections {
            let readable = stream.poll_read_ready(cx).is_ready();
            let writable =
                !session.poll_transmit(*id).is_empty() && stream.poll_write_ready(cx).is_ready();
            if readable || writable {
                return Poll::Ready(());
            }
        }
        Poll::Pending
    })
    .await;
}

async fn dialled(dial: &mut Option<(ConnId, Dial)>) -> io::Result<TcpStream> {
    match dial {
        Some((_, dial)) => dial.await,
        None => std::future::pending().await,
    }
}

/// Until an unnumbered neighbour's address is known, or is another.
async fn heard_of(discovered: &mut Option<watch::Receiver<Option<Ipv6Addr>>>) {
    if let Some(discovered) = discovered
        && discovered.changed().await.is_ok()
    {
        return;
    }
    std::future::pending::<()>().await;
}

async fn sleep_until(deadline: Option<tokio::time::Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

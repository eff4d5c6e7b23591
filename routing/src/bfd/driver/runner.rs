//! The loop of the BFD thread.

use super::log::{Line, Log};
use super::{PeerEvent, States};
use crate::bfd::engine::{ConfigError, Engine, Key, SessionConfig};
use crate::bfd::rng::Rng;
use crate::bfd::sched;
use crate::bfd::sockets::{Receiver, Sender};
use crate::bfd::status::{BfdStatus, SessionStatus};
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;
use std::collections::BTreeMap;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::{broadcast, oneshot, watch};

/// Packets taken from one socket before timers and commands have their turn. More than a socket
/// holds: after a pause of the process everything queued is heard before silence is judged.
const PACKETS_PER_TURN: usize = 2048;
/// Longest packet read: the Length field has one byte; longer payloads are cut, which parsing
/// tolerates or refuses.
const BUFFER: usize = 512;
/// How often interfaces are looked up again and failed sockets reopened.
const HOUSEKEEPING: Duration = Duration::from_secs(1);
/// Longest time given to telling peers AdminDown on shutdown.
const FAREWELL: Duration = Duration::from_millis(500);

/// What the handle asks for.
#[derive(Debug)]
pub(super) enum Command {
    SetSessions {
        client: String,
        wanted: Vec<SessionConfig>,
        reply: oneshot::Sender<Result<(), ConfigError>>,
    },
    CheckSessions {
        client: String,
        wanted: Vec<SessionConfig>,
        reply: oneshot::Sender<Result<(), ConfigError>>,
    },
    AdminDown {
        down: bool,
        reply: oneshot::Sender<()>,
    },
    Status {
        reply: oneshot::Sender<BfdStatus>,
    },
    Shutdown {
        reply: Option<oneshot::Sender<()>>,
    },
}

/// A session's way out.
#[derive(Debug, Default)]
struct Link {
    sender: Option<Sender>,
    port: u16,
    error: Option<String>,
    send_errors: u64,
}

/// A receiving socket, wanted while a session of its kind exists.
#[derive(Debug)]
struct Ear {
    multihop: bool,
    v6: bool,
    receiver: Option<Receiver>,
    error: Option<String>,
}

/// State of the thread.
#[derive(Debug)]
pub(super) struct Runner {
    engine: Engine,
    epoch: Instant,
    inbox: mpsc::Receiver<Command>,
    woken: UnixStream,
    events: broadcast::Sender<PeerEvent>,
    states: watch::Sender<States>,
    log: Log,
    links: BTreeMap<u32, Link>,
    ears: Vec<Ear>,
    rng: Rng,
    scheduling: String,
    housekeeping_at: Duration,
    /// Set by shutdown: when to end at the latest, and whom to tell.
    ending: Option<(Duration, Vec<oneshot::Sender<()>>)>,
}

impl Runner {
    pub(super) fn new(
        inbox: mpsc::Receiver<Command>,
        woken: UnixStream,
        events: broadcast::Sender<PeerEvent>,
        states: watch::Sender<States>,
        log: Log,
    ) -> Self {
        let ears = [(false, false), (false, true), (true, false), (true, true)]
            .map(|(multihop, v6)| Ear { multihop, v6, receiver: None, error: None });
        Self {
            engine: Engine::new(rand::random()),
            epoch: Instant::now(),
            inbox,
            woken,
            events,
            states,
            log,
            links: BTreeMap::new(),
            ears: ears.into(),
            rng: Rng::new(rand::random()),
            scheduling: String::new(),
            housekeeping_at: Duration::ZERO,
            ending: None,
        }
    }

    /// Runs until shutdown.
    pub(super) fn run(mut self) {
        self.scheduling = sched::raise().to_string();
        self.log.write(Line::Started { scheduling: self.scheduling.clone() });
        loop {
            self.wait();
            // Packets before timers: what has arrived was not silence.
            self.receive();
            let now = self.now();
            self.engine.handle_timeout(now);
            self.obey();
            if self.now() >= self.housekeeping_at {
                self.keep_house();
            }
            self.flush();
            if self.has_ended() {
                break;
            }
        }
        for reply in self.ending.into_iter().flat_map(|(_, replies)| replies) {
            // Nobody waits any more: fine.
            let _ = reply.send(());
        }
    }

    fn now(&self) -> Duration {
        self.epoch.elapsed()
    }

    /// Sleeps until a packet, a command or a timer.
    fn wait(&mut self) {
        let mut until = self.housekeeping_at;
        if let Some(at) = self.engine.next_timeout() {
            until = until.min(at);
        }
        if let Some((deadline, _)) = &self.ending {
            until = until.min(*deadline);
        }
        let timeout = TimeSpec::from_duration(until.saturating_sub(self.now()));
        let mut fds = vec![PollFd::new(self.woken.as_fd(), PollFlags::POLLIN)];
        let receivers = self.ears.iter().filter_map(|ear| ear.receiver.as_ref());
        fds.extend(receivers.map(|receiver| PollFd::new(receiver.fd(), PollFlags::POLLIN)));
        // EINTR and the like: the loop looks at everything anyway.
        let _ = ppoll(&mut fds, Some(timeout), None);
        let mut sink = [0; 64];
        while matches!(self.woken.read(&mut sink), Ok(n) if n > 0) {}
    }

    fn receive(&mut self) {
        let mut buffer = [0; BUFFER];
        for ear in &mut self.ears {
            let Some(receiver) = &mut ear.receiver else {
                continue;
            };
            for _ in 0..PACKETS_PER_TURN {
                match receiver.receive(&mut buffer) {
                    Ok(Some((len, meta))) => {
                        let now = self.epoch.elapsed();
                        // Drops are counted by the engine.
                        let _ = self.engine.handle_packet(&buffer[..len], &meta, now);
                    }
                    Ok(None) => break,
                    Err(error) => {
                        let what = ear_name(ear.multihop, ear.v6);
                        self.log.write(Line::SocketError { what, error: error.to_string() });
                        break;
                    }
                }
            }
        }
    }

    fn obey(&mut self) {
        loop {
            let command = match self.inbox.try_recv() {
                Ok(command) => command,
                Err(mpsc::TryRecvError::Empty) => return,
                Err(mpsc::TryRecvError::Disconnected) => Command::Shutdown { reply: None },
            };
            let now = self.now();
            // Whoever asked may have gone: a reply that nobody takes is no error.
            match command {
                Command::SetSessions { client, wanted, reply } => {
                    let result = self.engine.set_sessions(&client, wanted, now);
                    self.keep_house();
                    let _ = reply.send(result);
                }
                Command::CheckSessions { client, wanted, reply } => {
                    let _ = reply.send(self.engine.check_sessions(&client, &wanted));
                }
                Command::AdminDown { down, reply } => {
                    self.engine.set_admin_down(down, now);
                    self.flush();
                    let _ = reply.send(());
                }
                Command::Status { reply } => {
                    let _ = reply.send(self.status());
                }
                Command::Shutdown { reply } => {
                    self.engine.set_admin_down(true, now);
                    let deadline = now + FAREWELL;
                    let (_, replies) = self.ending.get_or_insert_with(|| (deadline, Vec::new()));
                    replies.extend(reply);
                    return;
                }
            }
        }
    }

    fn has_ended(&self) -> bool {
        let deadline = self.ending.as_ref().map(|(deadline, _)| *deadline);
        deadline.is_some_and(|at| self.now() >= at || !self.engine.is_saying_farewell())
    }

    /// Opens what is missing, reopens what moved to another interface index.
    fn keep_house(&mut self) {
        self.housekeeping_at = self.now() + HOUSEKEEPING;
        let keys: Vec<(u32, Key)> =
            self.engine.sessions().map(|(id, entry)| (id, entry.key.clone())).collect();
        for ear in &mut self.ears {
            let wanted =
                keys.iter().any(|(_, k)| k.multihop == ear.multihop && k.peer.is_ipv6() == ear.v6);
            if wanted && ear.receiver.is_none() {
                match Receiver::open(ear.multihop, ear.v6) {
                    Ok(receiver) => (ear.receiver, ear.error) = (Some(receiver), None),
                    Err(error) => {
                        let what = ear_name(ear.multihop, ear.v6);
                        note(&mut self.log, &mut ear.error, what, &error);
                    }
                }
            } else if !wanted {
                (ear.receiver, ear.error) = (None, None);
            }
        }
        for (id, key) in &keys {
            let link = self.links.entry(*id).or_default();
            let index = key.interface.as_deref().map(nix::net::if_::if_nametoindex);
            let index = index.and_then(Result::ok);
            if link.sender.as_ref().is_some_and(|sender| sender.interface != index) {
                link.sender = None;
            }
            self.engine.set_interface(*id, index);
            if link.sender.is_none() {
                match Sender::open(key, &mut link.port, &mut self.rng) {
                    Ok(sender) => (link.sender, link.error) = (Some(sender), None),
                    Err(error) => {
                        let what = format!("session with {}", key.peer);
                        note(&mut self.log, &mut link.error, what, &error);
                    }
                }
            }
        }
    }

    /// Sends and publishes what the engine has put out.
    fn flush(&mut self) {
        while let Some((id, transmit)) = self.engine.poll_transmit() {
            let link = self.links.entry(id).or_default();
            let Some(sender) = &link.sender else {
                link.send_errors += 1;
                continue;
            };
            if let Err(error) = sender.send(transmit.bytes()) {
                link.send_errors += 1;
                link.error = Some(error.to_string());
                if is_stale(&error) {
                    link.sender = None;
                }
            } else {
                link.error = None;
            }
        }
        let engine = &self.engine;
        self.links.retain(|id, _| engine.session(*id).is_some());
        while let Some((key, event)) = self.engine.poll_event() {
            let event = PeerEvent {
                key,
                old: event.old,
                new: event.new,
                cause: event.cause,
                diagnostic: event.diagnostic,
                remote_diagnostic: event.remote_diagnostic,
                at: SystemTime::now(),
            };
            self.log.write(Line::Change(event.clone()));
            // No subscriber: the watch still tells.
            let _ = self.events.send(event);
        }
        self.publish_states();
    }

    fn publish_states(&mut self) {
        let known = self.states.borrow();
        let same = known.len() == self.engine.sessions().count()
            && self.engine.sessions().all(|(_, e)| known.get(&e.key) == Some(&e.session.state()));
        drop(known);
        if same {
            return;
        }
        let entries = self.engine.sessions();
        let states: BTreeMap<_, _> =
            entries.map(|(_, entry)| (entry.key.clone(), entry.session.state())).collect();
        self.states.send_replace(Arc::new(states));
    }

    fn status(&self) -> BfdStatus {
        let now = self.now();
        let sessions = self.engine.sessions().map(|(id, entry)| {
            let mut status = SessionStatus::describe(id, entry, now);
            let ear = self
                .ears
                .iter()
                .find(|ear| {
                    ear.multihop == entry.key.multihop && ear.v6 == entry.key.peer.is_ipv6()
                })
                .and_then(|ear| ear.error.clone());
            if let Some(link) = self.links.get(&id) {
                status.send_errors = link.send_errors;
                status.error = ear.or_else(|| link.error.clone());
            }
            status
        });
        BfdStatus {
            sessions: sessions.collect(),
            counters: *self.engine.counters(),
            scheduling: self.scheduling.clone(),
        }
    }
}

/// Remembers an error and logs it once, not at every attempt.
fn note(log: &mut Log, last: &mut Option<String>, what: String, error: &io::Error) {
    let error = error.to_string();
    if last.as_deref() != Some(&error) {
        log.write(Line::SocketError { what, error: error.clone() });
        *last = Some(error);
    }
}

fn ear_name(multihop: bool, v6: bool) -> String {
    let hops = if multihop { "multihop" } else { "single-hop" };
    format!("{hops} receiver for IPv{}", if v6 { 6 } else { 4 })
}

/// The socket's interface or address is gone: only a new socket helps.
fn is_stale(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::ENODEV | libc::ENXIO | libc::EADDRNOTAVAIL | libc::EINVAL)
    )
}

//! Runs the [`Engine`](super::engine::Engine) over UDP on an operating-system thread of its own, so
//! that neither tokio work nor a stuck log can delay a packet.
//!
//! In: wanted sessions from [`BfdHandle::set_sessions`], packets from UDP 3784 and 4784. Out:
//! packets, [`PeerEvent`]s to every subscriber, one log line per change of state (written by a
//! second thread). Dropping the last handle, or [`BfdHandle::shutdown`], tells every peer AdminDown
//! before the thread ends.

use super::engine::{ConfigError, Key, SessionConfig};
use super::packet::{Diagnostic, State};
use super::session::{Cause, is_failure};
use super::status::BfdStatus;
use runner::{Command, Runner};
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::SystemTime;
use tokio::sync::{broadcast, oneshot, watch};

mod log;
mod runner;

/// The client that the configuration is.
const CONFIGURATION: &str = "config";

/// Events a slow subscriber may fall behind before it loses the oldest. One that lags reads
/// [`BfdHandle::states`].
const EVENT_BACKLOG: usize = 4096;

/// A change of state, as clients see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerEvent {
    pub key: Key,
    pub old: State,
    pub new: State,
    pub cause: Cause,
    /// bfd.LocalDiag after the change.
    pub diagnostic: Diagnostic,
    /// The diagnostic in the peer's last packet.
    pub remote_diagnostic: Diagnostic,
    pub at: SystemTime,
}

impl PeerEvent {
    /// The path to the peer failed: tear sessions over it down. Only Up → Down counts, and not if
    /// either side is AdminDown, or if the peer began its session anew: neither a session that never
    /// came up nor an orderly stop is news about the path (RFC 5882 §3.2, §4.2). See
    /// [`super::session::Event::is_failure`].
    pub fn is_failure(&self) -> bool {
        is_failure(self.old, self.new, self.cause, self.remote_diagnostic)
    }
}

/// The state of every session now.
pub type States = Arc<BTreeMap<Key, State>>;

/// Why BFD did not do as asked.
#[derive(Debug, thiserror::Error)]
pub enum BfdError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("cannot start the BFD thread: {0}")]
    Start(#[source] io::Error),
    #[error("the BFD thread has ended")]
    Ended,
}

/// The way to the BFD thread. Clones share it.
#[derive(Debug, Clone)]
pub struct BfdHandle {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    commands: mpsc::Sender<Command>,
    wake: UnixStream,
    events: broadcast::Sender<PeerEvent>,
    states: watch::Receiver<States>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl BfdHandle {
    /// Starts the thread, in the network namespace of the caller. No socket is opened before a
    /// session needs it.
    pub fn spawn() -> Result<Self, BfdError> {
        let (wake, woken) = UnixStream::pair().map_err(BfdError::Start)?;
        wake.set_nonblocking(true).map_err(BfdError::Start)?;
        woken.set_nonblocking(true).map_err(BfdError::Start)?;
        let (commands, inbox) = mpsc::channel();
        let (events, _) = broadcast::channel(EVENT_BACKLOG);
        let (states_in, states) = watch::channel(States::default());
        let log = log::spawn().map_err(BfdError::Start)?;
        let publisher = events.clone();
        let thread = std::thread::Builder::new()
            .name("bfd".to_owned())
            .spawn(move || Runner::new(inbox, woken, publisher, states_in, log).run())
            .map_err(BfdError::Start)?;
        let thread = Mutex::new(Some(thread));
        Ok(Self { shared: Arc::new(Shared { commands, wake, events, states, thread }) })
    }

    /// Replaces the set of sessions wanted by the configuration. See [`Self::set_sessions_of`].
    pub async fn set_sessions(&self, wanted: Vec<SessionConfig>) -> Result<(), BfdError> {
        self.set_sessions_of(CONFIGURATION, wanted).await
    }

    /// Replaces the set of sessions that `client` wants; other clients' wishes stand. Reconciled
    /// by difference: a session that stays is not disturbed, changed timers are negotiated while it
    /// is Up. On error nothing changes. A session whose socket cannot be opened is retried every
    /// second and says so in its status.
    pub async fn set_sessions_of(
        &self,
        client: &str,
        wanted: Vec<SessionConfig>,
    ) -> Result<(), BfdError> {
        let client = client.to_owned();
        self.ask(|reply| Command::SetSessions { client, wanted, reply }).await??;
        Ok(())
    }

    /// Whether [`Self::set_sessions`] would take these. Changes nothing.
    pub async fn check_sessions(&self, wanted: Vec<SessionConfig>) -> Result<(), BfdError> {
        let client = CONFIGURATION.to_owned();
        self.ask(|reply| Command::CheckSessions { client, wanted, reply }).await??;
        Ok(())
    }

    /// Changes of state from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<PeerEvent> {
        self.shared.events.subscribe()
    }

    /// The state of every session: always the latest, intermediate states may be skipped.
    pub fn states(&self) -> watch::Receiver<States> {
        self.shared.states.clone()
    }

    /// Sessions, timers and counters.
    pub async fn status(&self) -> Result<BfdStatus, BfdError> {
        self.ask(|reply| Command::Status { reply }).await
    }

    /// Drain: puts every session, also those to come, into AdminDown, which peers do not read as a
    /// failure; `false` ends it.
    pub async fn admin_down(&self, down: bool) -> Result<(), BfdError> {
        self.ask(|reply| Command::AdminDown { down, reply }).await
    }

    /// Tells every peer AdminDown (repeatedly, for at most half a second) and ends the thread.
    pub async fn shutdown(&self) {
        // An error means that the thread has ended already.
        let _ = self.ask(|reply| Command::Shutdown { reply: Some(reply) }).await;
        let thread = self.shared.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // It has answered and has nothing left to do: this does not wait.
            let _ = thread.join();
        }
    }

    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Result<T, BfdError> {
        let (reply, answer) = oneshot::channel();
        self.shared.send(command(reply)).map_err(|_| BfdError::Ended)?;
        answer.await.map_err(|_| BfdError::Ended)
    }
}

impl Shared {
    fn send(&self, command: Command) -> Result<(), mpsc::SendError<Command>> {
        self.commands.send(command)?;
        // A full pipe wakes just as well.
        let _ = (&self.wake).write(&[1]);
        Ok(())
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // The thread may have ended; it is not waited for, so that dropping never blocks a runtime.
        let _ = self.send(Command::Shutdown { reply: None });
    }
}

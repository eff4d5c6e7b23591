//! Runs an [`Instance`](super::instance::Instance) over raw sockets on a tokio task.
//!
//! In: the configuration, the latest wanted announcements, packets of IP protocol 89, the links as
//! the kernel reports them, failures of paths from BFD. Out: packets, events, one log line per
//! change of state. Shutting down withdraws everything and says goodbye first.

use super::config::{Config, ConfigError};
use super::instance::Event;
use super::status::InstanceStatus;
use crate::Wanted;
use crate::bfd::{AuthConfig, BfdHandle};
use std::sync::Arc;
use std::time::Duration;
use task::{Command, Task};
use tokio::sync::{broadcast, mpsc, oneshot, watch};

mod link;
mod socket;
mod task;

/// Events a slow subscriber may fall behind.
const EVENT_BACKLOG: usize = 1024;

/// The BFD sessions with neighbours. Where BGP watches the same neighbour, they share one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BfdTimers {
    pub min_tx: Duration,
    pub min_rx: Duration,
    pub multiplier: u8,
    pub auth: Option<AuthConfig>,
}

/// Why OSPF did not do as asked.
#[derive(Debug, thiserror::Error)]
pub enum OspfError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("ospf: router ID, area and version cannot change while it runs")]
    Identity,
    #[error("the OSPF task has ended")]
    Ended,
}

/// The way to the OSPF task. Clones share it; dropping the last one withdraws and ends it.
#[derive(Debug, Clone)]
pub struct OspfHandle {
    commands: mpsc::Sender<Command>,
    wanted: Arc<watch::Sender<Wanted>>,
    events: broadcast::Sender<Event>,
}

impl OspfHandle {
    /// Starts the task on the current runtime, in the network namespace of the thread that runs it.
    /// With `bfd`, every bidirectional neighbour is watched, and dropped when its path fails.
    pub fn spawn(config: Config, bfd: Option<(BfdHandle, BfdTimers)>) -> Result<Self, OspfError> {
        config.check()?;
        let (commands, inbox) = mpsc::channel(64);
        let (wanted_in, wanted) = watch::channel(Wanted::new());
        let (events, _) = broadcast::channel(EVENT_BACKLOG);
        let task = Task::new(config, bfd, inbox, wanted, events.clone());
        tokio::spawn(task.run());
        Ok(Self { commands, wanted: Arc::new(wanted_in), events })
    }

    /// Publishes the latest set of wanted announcements.
    pub fn set_wanted(&self, wanted: Wanted) {
        self.wanted.send_replace(wanted);
    }

    /// Changes the interfaces by difference. Version, router ID, area and its kind must stay.
    pub async fn set_config(&self, config: Config) -> Result<(), OspfError> {
        config.check()?;
        self.ask(|reply| Command::SetConfig { config, reply }).await?
    }

    /// Whether [`Self::set_config`] would take this. Changes nothing.
    pub async fn check_config(&self, config: Config) -> Result<(), OspfError> {
        config.check()?;
        self.ask(|reply| Command::CheckConfig { config, reply }).await?
    }

    /// Looks at the links now rather than within half a second: for whoever hears of a change first.
    pub fn look_at_links(&self) {
        // A full queue looks at them anyway.
        let _ = self.commands.try_send(Command::LookAtLinks);
    }

    /// Changes from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }

    /// Interfaces, neighbours, database.
    pub async fn status(&self) -> Result<InstanceStatus, OspfError> {
        self.ask(|reply| Command::Status { reply }).await
    }

    /// Withdraws everything, waits until the neighbours have acknowledged that (at most two seconds),
    /// says goodbye, and ends the task.
    pub async fn shutdown(&self) {
        // An error means that it has ended already.
        let _ = self.ask(|reply| Command::Shutdown { reply: Some(reply) }).await;
    }

    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Result<T, OspfError> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.map_err(|_| OspfError::Ended)?;
        answer.await.map_err(|_| OspfError::Ended)
    }
}

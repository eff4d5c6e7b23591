//! The control plane's one task: everything that happens comes together here, is told to the
//! owner, and what follows goes out.

use super::kernel::Interfaces;
use super::outlets::Outlets;
use super::pulse::Pulse;
use super::{apply, speaking};
use crate::api::ApiError;
use crate::api::model::ReloadResult;
use crate::config::Config;
use crate::config::diff::{Effect, diff, live_part};
use crate::control::owner::{DrainScope, Owner};
use crate::control::state::Event;
use crate::control::view;
use crate::forward::tables::PortId;
use crate::health::HealthEvent;
use crate::worker::Neighbour;
use kni::control::Configurator;
use kni::mirror::{RouteSource, Snapshot};
use routing::bfd::{BfdHandle, PeerEvent};
use routing::bgp::import::ImportedRoutes;
use routing::speaker::{DynamicPeers, SpeakerHandle};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::{broadcast, mpsc, watch};

/// How often workers are looked at. Several times within the shortest time to a stall.
const PULSE: Duration = Duration::from_millis(20);
/// How often removed backends are looked at, and systemd is told that all is well.
const HOUSEKEEPING: Duration = Duration::from_secs(1);

/// Between the end of BGP and that of BFD: what a peer needs to read our last message.
const GOODBYE: Duration = Duration::from_millis(100);

/// A question or a request, run on the task between two events.
pub type Ask = Box<dyn FnOnce(&mut Task) + Send>;

/// The state of one port's link, asked from the device.
pub type LinkProbe = Box<dyn Fn() -> bool + Send>;

/// What the task hears.
pub struct Inputs {
    pub asks: mpsc::Receiver<Ask>,
    pub health: mpsc::Receiver<HealthEvent>,
    pub snapshots: watch::Receiver<Arc<Snapshot>>,
    pub wanted_neighbours: mpsc::Receiver<Neighbour>,
    pub imported: watch::Receiver<Arc<ImportedRoutes>>,
    pub dynamic_peers: watch::Receiver<DynamicPeers>,
    pub bfd: broadcast::Receiver<PeerEvent>,
}

/// What the task owns.
pub struct Task {
    pub owner: Owner,
    pub outlets: Outlets,
    pub pulse: Pulse,
    pub speaker: SpeakerHandle,
    pub bfd: BfdHandle,
    /// Neighbours whose addresses are not configured, as they are followed by BFD.
    pub dynamic_peers: DynamicPeers,
    /// The speaker has been told that its announcements are complete.
    pub settled: bool,
    pub configurator: Configurator,
    pub clock: Box<dyn Fn() -> u64 + Send>,
    pub links: Vec<LinkProbe>,
    pub config_file: PathBuf,
    pub config_text: String,
    pub config_loaded_at: SystemTime,
    pub config_error: Option<String>,
    /// Reloads that wait to be carried out after the present event.
    pub reloads: Vec<tokio::sync::oneshot::Sender<Result<ReloadResult, ApiError>>>,
}

impl std::fmt::Debug for Task {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Task").field("config_file", &self.config_file).finish_non_exhaustive()
    }
}

impl Task {
    /// Runs until `stop` resolves and the node is drained.
    pub async fn run(mut self, mut inputs: Inputs, stop: impl Future<Output = ()>) {
        let mut stop = std::pin::pin!(stop);
        let mut pulse = tokio::time::interval(PULSE);
        pulse.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut housekeeping = tokio::time::interval(HOUSEKEEPING);
        let mut stopping = false;
        let mut flows_until = None;
        loop {
            self.owner.settle(&mut self.outlets);
            if !self.settled && self.owner.is_settled() {
                self.settled = true;
                self.speaker.set_settled();
            }
            if stopping && self.owner.is_drained() && self.flows_ended(&mut flows_until) {
                break;
            }
            tokio::select! {
                () = &mut stop, if !stopping => {
                    stopping = true;
                    self.owner.drain(DrainScope::Node, "dunlind stops".to_owned(), Instant::now());
                }
                Some(ask) = inputs.asks.recv() => ask(&mut self),
                Some(event) = inputs.health.recv() => self.health_changed(event, &mut inputs),
                Ok(()) = inputs.snapshots.changed() => {
                    let snapshot = Arc::clone(&inputs.snapshots.borrow_and_update());
                    self.kernel_changed(&snapshot);
                }
                Some((port, address)) = inputs.wanted_neighbours.recv() => {
                    if let Some(index) = self.outlets.interfaces.index(port) {
                        self.outlets.mirror.resolve(index, address);
                    }
                }
                Ok(()) = inputs.imported.changed() => {
                    let imported = Arc::clone(&inputs.imported.borrow_and_update());
                    let routes = speaking::learned_routes(&imported);
                    self.outlets.mirror.install_routes(RouteSource::Learned, routes);
                }
                Ok(()) = inputs.dynamic_peers.changed() => {
                    self.dynamic_peers = Arc::clone(&inputs.dynamic_peers.borrow_and_update());
                    self.follow_peers().await;
                }
                event = inputs.bfd.recv() => self.bfd_changed(event),
                _ = pulse.tick() => {
                    self.pulse.observe((self.clock)(), &mut self.owner);
                    self.owner.tick(Instant::now());
                }
                _ = housekeeping.tick() => self.keep_house(),
            }
            self.follow_links().await;
            self.carry_out_reloads().await;
        }
        self.leave().await;
    }

    /// Whether nothing is left to wait for: all flows have ended, or had their time. Without other
    /// nodes that carry on the clients' side of them, they have ended with the withdrawal.
    fn flows_ended(&self, until: &mut Option<Instant>) -> bool {
        let Some(cluster) = &self.owner.state().config().cluster else {
            return true;
        };
        let left = view::own_flows(self.pulse.workers());
        let until = *until.get_or_insert_with(|| {
            let limit = cluster.drain_flows;
            tracing::info!(flows = left, ?limit, "withdrawn; flows may end");
            Instant::now() + limit
        });
        let over = left == 0 || Instant::now() >= until;
        if over {
            tracing::info!(flows = left, "stopping now");
        }
        over
    }

    fn health_changed(&mut self, event: HealthEvent, inputs: &mut Inputs) {
        self.note_health(event);
        // All that is there already costs one rebuild together.
        while let Ok(event) = inputs.health.try_recv() {
            self.note_health(event);
        }
    }

    fn note_health(&mut self, event: HealthEvent) {
        tracing::info!(
            backend = %event.target.address,
            healthy = event.healthy,
            reason = event.reason,
            "backend health"
        );
        self.owner.handle(Event::Health(event));
    }

    fn kernel_changed(&mut self, snapshot: &Snapshot) {
        let config = Arc::clone(self.owner.state().config());
        let names: Vec<String> = config.ports.iter().map(|port| port.name.clone()).collect();
        self.outlets.interfaces = Interfaces::of(snapshot, &names);
        self.owner.handle(Event::Kernel(self.outlets.interfaces.view(snapshot)));
        self.outlets.refresh_neighbours();
    }

    fn bfd_changed(&mut self, event: Result<PeerEvent, broadcast::error::RecvError>) {
        match event {
            Ok(event) if event.is_failure() => {
                let reason = format!("BFD: {}", event.diagnostic);
                let interface = event.key.interface.as_deref();
                self.speaker.peer_down(event.key.peer, interface, &reason);
            }
            Ok(_) => {}
            Err(broadcast::error::RecvError::Lagged(missed)) => {
                tracing::error!(missed, "BFD events lost; hold timers remain");
            }
            Err(broadcast::error::RecvError::Closed) => {}
        }
    }

    /// A neighbour has come, or gone, whose address is not configured.
    async fn follow_peers(&self) {
        let sessions = speaking::bfd_sessions(self.owner.state().config(), &self.dynamic_peers);
        if let Err(error) = self.bfd.set_sessions(sessions).await {
            tracing::error!(%error, "neighbours that were found are not followed by BFD");
        }
    }

    fn keep_house(&mut self) {
        let workers = self.pulse.workers();
        self.owner.reap(|backend| {
            workers
                .iter()
                .filter_map(|worker| worker.stats.backend(backend))
                .map(|usage| usage.active.get())
                .sum()
        });
        // A node with a stalled worker announces nothing, and will not get better by itself: left
        // without this for long enough, systemd restarts it.
        if !self.owner.state().workers.iter().any(|worker| worker.stalled) {
            super::notify(&[sd_notify::NotifyState::Watchdog]);
        }
    }

    /// A TAP has carrier as long as we live; the kernel learns of the cable only from us.
    async fn follow_links(&mut self) {
        for index in 0..self.links.len() {
            let up = self.links[index]();
            let known = self.owner.state().ports.get(index).is_some_and(|spec| spec.up);
            if up == known {
                continue;
            }
            let port = index as u16;
            tracing::warn!(port, up, "link");
            self.owner.handle(Event::Link { port, up });
            if let Some(interface) = self.outlets.interfaces.index(PortId(port))
                && let Err(error) = self.configurator.set_carrier(interface, up).await
            {
                tracing::warn!(port, %error, "the kernel was not told of the link");
            }
        }
    }

    async fn carry_out_reloads(&mut self) {
        for reply in std::mem::take(&mut self.reloads) {
            let result = self.reload().await;
            // Whoever asked may have gone.
            let _ = reply.send(result);
        }
    }

    /// Read the file again and apply the difference. What only a restart can change stays.
    pub async fn reload(&mut self) -> Result<ReloadResult, ApiError> {
        let result = self.try_reload().await;
        match &result {
            Ok(result) => {
                self.config_error = None;
                tracing::info!(changes = ?result.changes, restart = ?result.needs_restart, "reload");
            }
            Err(error) => {
                self.config_error = Some(error.error.clone());
                tracing::error!(error = error.error, "reload refused; nothing changed");
            }
        }
        result
    }

    async fn try_reload(&mut self) -> Result<ReloadResult, ApiError> {
        let refuse = |error: String| {
            ApiError::unprocessable(error, "nothing was changed; correct the file and reload again")
        };
        let text = std::fs::read_to_string(&self.config_file)
            .map_err(|error| refuse(format!("{}: {error}", self.config_file.display())))?;
        let next = Config::load(&self.config_file).map_err(|errors| refuse(errors.to_string()))?;
        let running = Arc::clone(self.owner.state().config());
        let changes = diff(&running, &next);
        let live = Arc::new(live_part(&running, &next));
        if self.outlets.rules.in_use()
            && let Some(family) = self.owner.state().lips.short_of(&live.local_addresses)
        {
            return Err(refuse(format!(
                "local: some worker would have no {family} local address, and the NIC steers by \
                 flow rules, one worker to a local address (restart to have this chosen anew)"
            )));
        }
        let plan = apply::Plan {
            speaker: speaking::speaker_config(&live),
            bfd: speaking::bfd_sessions(&live, &self.dynamic_peers),
            ospf: speaking::ospf_configs(&live).into_iter().map(|(config, _)| config).collect(),
        };
        apply::apply(plan, &self.speaker, &self.bfd, &self.outlets.ospf).await.map_err(refuse)?;
        self.outlets.mirror.install_routes(RouteSource::Static, speaking::static_routes(&live));
        self.owner.handle(Event::Config(Arc::clone(&live)));
        self.set_addresses(&live).await;
        self.config_text = text;
        self.config_loaded_at = SystemTime::now();
        let say = |effect: Effect| {
            changes
                .changes()
                .iter()
                .filter(|c| c.effect == effect)
                .map(ToString::to_string)
                .collect()
        };
        Ok(ReloadResult { changes: say(Effect::Live), needs_restart: say(Effect::Restart) })
    }

    async fn set_addresses(&mut self, config: &Config) {
        for (index, port) in config.ports.iter().enumerate() {
            let Some(mac) = self.owner.state().ports.get(index).map(|spec| spec.mac) else {
                continue;
            };
            let set = self.configurator.configure(&port.name, mac.0, port.mtu, &port.addresses);
            if let Err(error) = set.await {
                tracing::error!(port = port.name, %error, "addresses not set");
            }
        }
    }

    /// Withdrawn already; say goodbye so that nobody reads our silence as a failure.
    async fn leave(self) {
        super::notify(&[sd_notify::NotifyState::Stopping]);
        for ospf in &self.outlets.ospf {
            ospf.shutdown().await;
        }
        // BGP before BFD: peers take the end of BFD, even AdminDown, for a failure of the path. Their
        // BFD is another process, so it must not overtake the Cease with its reason.
        self.speaker.shutdown("dunlind stops").await;
        tokio::time::sleep(GOODBYE).await;
        self.bfd.shutdown().await;
        if let Err(error) = self.outlets.mirror.shutdown().await {
            tracing::warn!(%error, "our routes may be left in the kernel");
        }
    }
}

//! The one owner of the node's state: takes inputs, settles, and hands out what follows.
//!
//! Sans-IO: the driver feeds [`Owner::handle`] and [`Owner::tick`] and then calls
//! [`Owner::settle`], which hands to [`Outputs`] only what differs from last time. A batch of inputs
//! between two settlements costs one rebuild. Withdrawals go out before tables are built.

use super::announce::{self, Decision, Drain};
use super::state::{Event, State};
use crate::config::model::Config;
use crate::forward::tables::{BackendId, PortId, PortSpec, TablesSpec};
use crate::health::Target;
use ipnet::IpNet;
use routing::Wanted;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Where decisions go. Each call carries the latest whole value; the receiver reconciles.
pub trait Outputs {
    /// Build and publish. `false`: they could not be built, and the old ones stay in force.
    fn tables(&mut self, spec: &TablesSpec) -> bool;
    fn announce(&mut self, wanted: Wanted);
    fn targets(&mut self, targets: &HashSet<Target>);
    fn neighbours(&mut self, in_use: &BTreeSet<(PortId, IpAddr)>);
}

/// What a drain is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum DrainScope {
    Node,
    Service(String),
    Backend(SocketAddr),
}

/// A drain under way, or done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DrainState {
    pub since: Instant,
    pub phase: Drain,
    pub reason: String,
}

/// The owner.
#[derive(Debug)]
pub struct Owner {
    state: State,
    spec: TablesSpec,
    decisions: BTreeMap<IpNet, Decision>,
    targets: HashSet<Target>,
    neighbours: BTreeSet<(PortId, IpAddr)>,
    drains: BTreeMap<DrainScope, DrainState>,
    drain_wait: Duration,
    /// Something happened since the last settlement.
    dirty: bool,
    settled: bool,
}

impl Owner {
    pub fn new(config: Arc<Config>, ports: Vec<PortSpec>, workers: u16) -> Self {
        let drain_wait = drain_wait(&config);
        Self {
            state: State::new(config, ports, workers),
            spec: TablesSpec::default(),
            decisions: BTreeMap::new(),
            targets: HashSet::new(),
            neighbours: BTreeSet::new(),
            drains: BTreeMap::new(),
            drain_wait,
            dirty: true,
            settled: false,
        }
    }

    pub fn state(&self) -> &State {
        &self.state
    }

    /// The latest decisions, with their reasons.
    pub fn decisions(&self) -> &BTreeMap<IpNet, Decision> {
        &self.decisions
    }

    pub fn drains(&self) -> &BTreeMap<DrainScope, DrainState> {
        &self.drains
    }

    pub fn handle(&mut self, event: Event) {
        if let Event::Config(config) = &event {
            self.drain_wait = drain_wait(config);
            let known = |name: &String| config.services.iter().any(|s| s.name == *name);
            self.drains.retain(|scope, _| !matches!(scope, DrainScope::Service(n) if !known(n)));
        }
        self.state.apply(event);
        self.dirty = true;
    }

    /// Start draining. `false`: it drains already.
    pub fn drain(&mut self, scope: DrainScope, reason: String, now: Instant) -> bool {
        if self.drains.contains_key(&scope) {
            return false;
        }
        // A backend has no preference to lower: it takes no new flows from now on.
        let phase = match scope {
            DrainScope::Backend(_) => Drain::Withdrawn,
            _ => Drain::Lowered,
        };
        self.note_drain(&scope, phase);
        self.drains.insert(scope, DrainState { since: now, phase, reason });
        true
    }

    /// Back in service. `false`: it was not draining.
    pub fn undrain(&mut self, scope: &DrainScope) -> bool {
        let was = self.drains.remove(scope).is_some();
        if was {
            self.note_drain(scope, Drain::No);
        }
        was
    }

    /// Time passes: a lowered preference becomes a withdrawal.
    pub fn tick(&mut self, now: Instant) {
        let due: Vec<DrainScope> = self
            .drains
            .iter()
            .filter(|(_, drain)| drain.phase == Drain::Lowered)
            .filter(|(_, drain)| now.saturating_duration_since(drain.since) >= self.drain_wait)
            .map(|(scope, _)| scope.clone())
            .collect();
        for scope in due {
            self.note_drain(&scope, Drain::Withdrawn);
            if let Some(drain) = self.drains.get_mut(&scope) {
                drain.phase = Drain::Withdrawn;
            }
        }
    }

    /// The node is drained: nothing is announced any more for its sake.
    pub fn is_drained(&self) -> bool {
        self.drains.get(&DrainScope::Node).is_some_and(|drain| drain.phase == Drain::Withdrawn)
    }

    /// All that was configured at the start has been decided, and handed out.
    pub fn is_settled(&self) -> bool {
        self.settled
    }

    /// Forget what has left the configuration and has no flows.
    pub fn reap(&mut self, active: impl Fn(BackendId) -> u64) {
        self.dirty |= self.state.reap(active);
    }

    /// Hand out what follows from everything handled since the last time.
    pub fn settle(&mut self, outputs: &mut impl Outputs) {
        if !std::mem::take(&mut self.dirty) {
            return;
        }
        self.state.prove_paths();
        // Numbering the new tables comes first, since a service is announced only from their epoch
        // on; building and publishing them comes last, since a withdrawal waits for nothing.
        let next = self.state.next_tables(&self.spec);
        self.settle_announcements(outputs);
        self.settled = self.settled || self.state.is_settled();
        if let Some(spec) = next
            && outputs.tables(&spec)
        {
            self.spec = spec;
        }
        if *self.state.targets() != self.targets {
            self.targets.clone_from(self.state.targets());
            outputs.targets(&self.targets);
        }
        let neighbours = self.state.neighbours_in_use();
        if neighbours != self.neighbours {
            self.neighbours = neighbours;
            outputs.neighbours(&self.neighbours);
        }
    }

    fn settle_announcements(&mut self, outputs: &mut impl Outputs) {
        let decisions = self.state.decisions();
        if decisions == self.decisions {
            return;
        }
        log_changes(&self.decisions, &decisions);
        let before = announce::wanted(&self.decisions);
        self.decisions = decisions;
        let wanted = announce::wanted(&self.decisions);
        if wanted != before {
            outputs.announce(wanted);
        }
    }

    fn note_drain(&mut self, scope: &DrainScope, drain: Drain) {
        tracing::info!(?scope, ?drain, "drain");
        self.dirty = true;
        self.state.apply(match scope.clone() {
            DrainScope::Node => Event::DrainNode(drain),
            DrainScope::Service(name) => Event::DrainService { name, drain },
            DrainScope::Backend(address) => {
                Event::DrainBackend { address, drain: drain != Drain::No }
            }
        });
    }
}

fn drain_wait(config: &Config) -> Duration {
    // Without a router that listens, there is nobody to wait for.
    let speaks = config.bgp.is_some() || config.ospf.is_some() || config.ospf3.is_some();
    if speaks { config.announce.drain_wait } else { Duration::ZERO }
}

/// One line per prefix that goes up or down, with all reasons.
fn log_changes(before: &BTreeMap<IpNet, Decision>, after: &BTreeMap<IpNet, Decision>) {
    let up = |decision: Option<&Decision>| decision.is_some_and(|d| d.announcement.is_some());
    for (prefix, decision) in after {
        let announced = decision.announcement.is_some();
        if before.get(prefix).is_none() || up(before.get(prefix)) != announced {
            let reasons: Vec<String> = decision.reasons.iter().map(ToString::to_string).collect();
            tracing::info!(%prefix, announced, reasons = reasons.join("; "), "announcement");
        }
    }
    for (prefix, _) in before.iter().filter(|(prefix, _)| !after.contains_key(prefix)) {
        tracing::info!(%prefix, announced = false, reasons = "not configured", "announcement");
    }
}

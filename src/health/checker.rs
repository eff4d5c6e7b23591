//! The driver: probes every wanted target on its schedule and tells what changes.
//!
//! One task owns all targets. It takes the latest wanted set and reconciles by difference:
//! targets that stay keep their state and their schedule. It never waits for whoever reads its
//! events: what cannot be delivered yet is kept per target, newest only.

use super::machine::{Machine, State};
use super::probe::{self, Outcome};
use super::{HealthEvent, Target};
use nix::sys::resource::{Resource, getrlimit};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet, VecDeque};
use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};
use tokio::sync::{mpsc, watch};
use tokio::task::{self, AbortHandle, JoinError, JoinSet};
use tokio::time::{Instant, sleep_until};

/// Probes in flight at most, file descriptors permitting.
const MAX_IN_FLIGHT: usize = 4096;
/// The first probes of new targets are spread over their interval, but not wider than this each:
/// ten targets start within 10 ms, ten thousand over the whole second.
const SPREAD_PER_TARGET: Duration = Duration::from_millis(1);

/// What is known of one target, for people and the API.
#[derive(Debug, Clone)]
pub struct TargetStatus {
    pub target: Arc<Target>,
    pub state: State,
    /// When it got into this state.
    pub since: SystemTime,
    /// Of the last probe. Empty before the first.
    pub reason: String,
    /// Duration of the last probe.
    pub latency: Option<Duration>,
    /// Probes so far that passed, and that failed. Inconclusive ones are neither.
    pub passed: u64,
    pub failed: u64,
    /// Results in a row toward the next turn of the state.
    pub streak: u32,
}

type Wanted = Arc<HashSet<Target>>;
type Board = Arc<Mutex<HashMap<u64, TargetStatus>>>;

/// Starts checkers.
#[derive(Debug)]
pub struct Checker;

impl Checker {
    /// Starts a checker without targets, on the current tokio runtime. It ends when its handles or
    /// the receiver of its events are dropped.
    pub fn spawn(events: mpsc::Sender<HealthEvent>) -> CheckerHandle {
        let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(soft, _)| soft);
        // Half is left for the rest of the process.
        let in_flight = usize::try_from(limit / 2).unwrap_or(usize::MAX).clamp(16, MAX_IN_FLIGHT);
        let probe = |target: Arc<Target>| async move { probe::probe(&target).await };
        Self::spawn_with(events, in_flight, probe)
    }

    fn spawn_with<P, F>(
        events: mpsc::Sender<HealthEvent>,
        max_in_flight: usize,
        probe: P,
    ) -> CheckerHandle
    where
        P: Fn(Arc<Target>) -> F + Send + 'static,
        F: Future<Output = Outcome> + Send + 'static,
    {
        let (wanted_tx, wanted) = watch::channel(Wanted::default());
        let board = Board::default();
        let driver = Driver {
            probe,
            max_in_flight,
            board: Arc::clone(&board),
            entries: HashMap::new(),
            ids: HashMap::new(),
            next_id: 0,
            due: BinaryHeap::new(),
            running: JoinSet::new(),
            tasks: HashMap::new(),
            outbox: VecDeque::new(),
        };
        tokio::spawn(driver.run(events, wanted));
        CheckerHandle { wanted: Arc::new(wanted_tx), board }
    }
}

/// Steers a checker.
#[derive(Debug, Clone)]
pub struct CheckerHandle {
    wanted: Arc<watch::Sender<Wanted>>,
    board: Board,
}

impl CheckerHandle {
    /// Replaces the set of targets. Those that stay keep state and schedule. A new target takes
    /// over the state of a removed one at the same address, so that changing a check's interval
    /// does not take its backend out of service; this state is told as an event at once. Events of
    /// a target that is no longer wanted may still be in the channel.
    pub fn set_targets(&self, targets: impl IntoIterator<Item = Target>) {
        self.wanted.send_replace(Arc::new(targets.into_iter().collect()));
    }

    /// Every target as it is now, by address. Targets appear here once the checker has taken them up.
    pub fn status(&self) -> Vec<TargetStatus> {
        let mut status: Vec<_> = lock(&self.board).values().cloned().collect();
        status.sort_by_key(|status| (status.target.address, status.target.check.port));
        status
    }
}

/// The board holds plain data, sound after any panic.
fn lock(board: &Board) -> MutexGuard<'_, HashMap<u64, TargetStatus>> {
    board.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Entry {
    target: Arc<Target>,
    machine: Machine,
    /// When the current or next probe is due.
    due: Instant,
    in_flight: Option<AbortHandle>,
    inconclusive: bool,
    /// What the receiver was told last.
    told: Option<bool>,
    /// What it is to be told, once there is room.
    untold: Option<HealthEvent>,
    /// It is in the outbox.
    queued: bool,
}

struct Driver<P> {
    probe: P,
    max_in_flight: usize,
    board: Board,
    /// Ids are never used twice, so what belongs to a removed target finds nothing.
    entries: HashMap<u64, Entry>,
    ids: HashMap<Arc<Target>, u64>,
    next_id: u64,
    due: BinaryHeap<Reverse<(Instant, u64)>>,
    running: JoinSet<(Outcome, Duration)>,
    tasks: HashMap<task::Id, u64>,
    /// Entries that may have something untold, oldest first, each once.
    outbox: VecDeque<u64>,
}

type Joined = Result<(task::Id, (Outcome, Duration)), JoinError>;

impl<P, F> Driver<P>
where
    P: Fn(Arc<Target>) -> F,
    F: Future<Output = Outcome> + Send + 'static,
{
    async fn run(mut self, events: mpsc::Sender<HealthEvent>, mut wanted: watch::Receiver<Wanted>) {
        loop {
            let wake = self.start_due();
            tokio::select! {
                changed = wanted.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let wanted = Arc::clone(&wanted.borrow_and_update());
                    self.reconcile(&wanted);
                }
                Some(joined) = self.running.join_next_with_id() => self.handle_joined(joined),
                permit = events.reserve(), if !self.outbox.is_empty() => {
                    let Ok(permit) = permit else { return };
                    if let Some(event) = next_untold(&mut self.outbox, &mut self.entries) {
                        permit.send(event);
                    }
                }
                () = events.closed() => return,
                () = sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => {}
            }
        }
    }

    /// Starts the probes that are due. Gives when the next one is; `None` if there is none, or no
    /// room for it before one ends.
    fn start_due(&mut self) -> Option<Instant> {
        let now = Instant::now();
        while self.running.len() < self.max_in_flight {
            let Reverse((due, id)) = *self.due.peek()?;
            if due > now {
                return Some(due);
            }
            self.due.pop();
            let Some(entry) = self.entries.get_mut(&id) else {
                continue;
            };
            let probe = (self.probe)(Arc::clone(&entry.target));
            let handle = self.running.spawn(async move {
                let start = Instant::now();
                let outcome = probe.await;
                (outcome, start.elapsed())
            });
            self.tasks.insert(handle.id(), id);
            entry.in_flight = Some(handle);
        }
        None
    }

    fn handle_joined(&mut self, joined: Joined) {
        let (task, result) = match joined {
            Ok((task, result)) => (task, result),
            // Aborted because its target was removed, or it panicked, which must not end the
            // checks of its target.
            Err(error) => {
                let outcome = Outcome::Inconclusive(format!("cannot probe: {error}"));
                (error.id(), (outcome, Duration::ZERO))
            }
        };
        let Some(id) = self.tasks.remove(&task) else {
            return;
        };
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        entry.in_flight = None;
        // From the time it was due, so that the schedule does not drift. No burst after a delay.
        entry.due = (entry.due + entry.target.check.interval).max(Instant::now());
        self.due.push(Reverse((entry.due, id)));
        self.handle_result(id, result.0, result.1);
    }

    fn handle_result(&mut self, id: u64, outcome: Outcome, latency: Duration) {
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        let mut board = lock(&self.board);
        let Some(status) = board.get_mut(&id) else {
            return;
        };
        status.latency = Some(latency);
        let (ok, reason) = match outcome {
            Outcome::Passed(reason) => (true, reason),
            Outcome::Failed(reason) => (false, reason),
            Outcome::Inconclusive(reason) => {
                if !entry.inconclusive {
                    tracing::warn!(backend = %entry.target.address, reason, "health check skipped");
                }
                entry.inconclusive = true;
                status.reason = reason;
                return;
            }
        };
        entry.inconclusive = false;
        let counter = if ok { &mut status.passed } else { &mut status.failed };
        *counter += 1;
        let change = entry.machine.handle_result(ok, &reason);
        status.reason = reason;
        status.streak = entry.machine.streak();
        if let Some(change) = change {
            status.state = entry.machine.state();
            status.since = SystemTime::now();
            drop(board);
            self.tell(id, change.healthy, change.reason);
        }
    }

    /// Notes an event for the receiver. It replaces an older one that is still untold; if the
    /// receiver already believes it, there is nothing to tell.
    fn tell(&mut self, id: u64, healthy: bool, reason: String) {
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        entry.untold = (entry.told != Some(healthy)).then(|| HealthEvent {
            target: Target::clone(&entry.target),
            healthy,
            reason,
        });
        if entry.untold.is_some() && !entry.queued {
            entry.queued = true;
            self.outbox.push_back(id);
        }
    }

    fn reconcile(&mut self, wanted: &HashSet<Target>) {
        let inherited = self.remove_unwanted(wanted);
        let new: Vec<_> = wanted.iter().filter(|t| !self.ids.contains_key(*t)).collect();
        let spread = SPREAD_PER_TARGET.saturating_mul(u32::try_from(new.len()).unwrap_or(u32::MAX));
        for target in new {
            let spread = spread.min(target.check.interval);
            let due = Instant::now() + spread.mul_f64(rand::random::<f64>());
            self.add(target, due, inherited.get(&target.address).cloned().flatten());
        }
    }

    /// Removes the targets that are not wanted. Gives the states that may be taken over, by
    /// address; `None` where there were several that did not agree.
    fn remove_unwanted(
        &mut self,
        wanted: &HashSet<Target>,
    ) -> HashMap<SocketAddr, Option<(State, String)>> {
        let gone: Vec<_> = self.ids.extract_if(|target, _| !wanted.contains(&**target)).collect();
        let mut states: HashMap<SocketAddr, Option<(State, String)>> = HashMap::new();
        let mut board = lock(&self.board);
        for (target, id) in gone {
            if let Some(handle) = self.entries.remove(&id).and_then(|entry| entry.in_flight) {
                handle.abort();
            }
            let Some(status) = board.remove(&id) else {
                continue;
            };
            states
                .entry(target.address)
                .and_modify(|known| {
                    known.take_if(|(state, _)| *state != status.state);
                })
                .or_insert(Some((status.state, status.reason)));
        }
        drop(board);
        self.due.retain(|Reverse((_, id))| self.entries.contains_key(id));
        self.outbox.retain(|id| self.entries.contains_key(id));
        states
    }

    fn add(&mut self, target: &Target, due: Instant, inherited: Option<(State, String)>) {
        let id = self.next_id;
        self.next_id += 1;
        let target = Arc::new(target.clone());
        let (state, reason) = inherited.unwrap_or((State::Unknown, String::new()));
        let machine = Machine::resume(target.check.rise, target.check.fall, state);
        let status = TargetStatus {
            target: Arc::clone(&target),
            state,
            since: SystemTime::now(),
            reason: reason.clone(),
            latency: None,
            passed: 0,
            failed: 0,
            streak: 0,
        };
        lock(&self.board).insert(id, status);
        self.ids.insert(Arc::clone(&target), id);
        let entry = Entry {
            target,
            machine,
            due,
            in_flight: None,
            inconclusive: false,
            told: None,
            untold: None,
            queued: false,
        };
        self.entries.insert(id, entry);
        self.due.push(Reverse((due, id)));
        match state {
            State::Unknown => {}
            State::Healthy => self.tell(id, true, reason),
            State::Unhealthy => self.tell(id, false, reason),
        }
    }
}

/// The oldest event that is still untold.
fn next_untold(
    outbox: &mut VecDeque<u64>,
    entries: &mut HashMap<u64, Entry>,
) -> Option<HealthEvent> {
    while let Some(id) = outbox.pop_front() {
        let Some(entry) = entries.get_mut(&id) else {
            continue;
        };
        entry.queued = false;
        if let Some(event) = entry.untold.take() {
            entry.told = Some(event.healthy);
            return Some(event);
        }
    }
    None
}

#[cfg(test)]
mod tests;

//! One worker's forwarding state: what the worker calls. The way of a burst through it is in
//! `burst`; what that does not cover, in `unusual`; what happens to a packet without a flow, in
//! `create`; to what is neither TCP nor UDP, in `other`.

use super::adopt::{Adoption, ended};
use super::build::Tables;
use super::burst::Scratch;
use super::fib::Hop;
use super::flows::{FlowTable, State, Sweep};
use super::fragments::Fragments;
use super::hash::Seed;
use super::pool::Pool;
use super::slots::{Arena, Ordinary};
use super::stats::WorkerStats;
use super::steering::Steering;
use super::tables::{NextHopId, PortId, WorkerId};
use super::time::{Now, Tick};
use super::too_big::Answers;
use super::tuple::{Family, Tuple, is_v6, protocol_number};
use super::unusual::address;
use super::verdict::{DropReason, Verdict};
use crate::packet::{self, Frame, Kind, Malformed, Other, Transport};
use crate::port::BURST;
use arrayvec::ArrayVec;
use std::net::IpAddr;
use std::sync::Arc;

/// Timers looked at per call of [`Engine::tick`].
const SWEEP_BUDGET: u32 = 32;
/// Tables smaller than this stay in the second-level cache: touching them early gains nothing.
const TOUCH_FROM_BYTES: usize = 512 * 1024;
/// Ticks between two measurements of the fullest backend: about a second.
const GAUGE_TICKS: i32 = 60;

/// What an engine is made with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineConfig {
    pub worker: WorkerId,
    /// How many workers there are. At least 1.
    pub workers: u16,
    /// Most flows of this worker, 1..=2^30.
    pub max_flows: u32,
    /// A secret, random per process and the same for all workers of it.
    pub seed: u64,
    /// The same for all workers.
    pub steering: Steering,
}

/// Where a frame came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// Received from a port.
    Port,
    /// Handed over by another worker: never handed over again.
    Handover,
}

/// One worker's forwarding state. Used by one thread.
#[derive(Debug)]
pub struct Engine {
    pub(super) worker: WorkerId,
    pub(super) workers: u16,
    pub(super) seed: Seed,
    pub(super) flows: FlowTable,
    pub(super) pool: Pool,
    pub(super) adoption: Adoption,
    /// By service: this worker's place in its round.
    pub(super) turns: Vec<u32>,
    pub(super) stats: Arc<WorkerStats>,
    epoch: Option<u64>,
    /// Worth touching lines early.
    pub(super) touch: bool,
    gauged: Tick,
    pub(super) parsed: Scratch,
    pub(super) fragments: Fragments,
    pub(super) answers: Answers,
}

/// What holds for all frames of a burst.
#[derive(Clone, Copy)]
pub(super) struct Context<'a> {
    pub tables: &'a Tables,
    pub now: Tick,
    pub port: PortId,
    pub origin: Origin,
}

impl Engine {
    /// Allocates everything that forwarding will ever need, but for tables with more services or
    /// backends than before.
    pub fn new(config: EngineConfig, stats: Arc<WorkerStats>) -> Self {
        Self::new_in(&Ordinary, config, stats)
    }

    /// As [`Engine::new`], with the flows in this arena's memory if it has enough.
    pub fn new_in(arena: &impl Arena, config: EngineConfig, stats: Arc<WorkerStats>) -> Self {
        let seed = Seed::new(config.seed);
        let flows = FlowTable::new(config.max_flows, Tick(0), arena);
        Self {
            worker: config.worker,
            workers: config.workers.max(1),
            seed,
            touch: flows.memory() >= TOUCH_FROM_BYTES,
            flows,
            pool: Pool::new(config.worker, config.workers.max(1), seed, config.steering),
            adoption: Adoption::default(),
            turns: Vec::new(),
            stats,
            epoch: None,
            gauged: Tick(0),
            parsed: Scratch::new(),
            fragments: Fragments::new(config.worker, config.workers, &seed),
            answers: Answers::new(),
        }
    }

    /// Decide about a burst of frames from one port, rewriting in place what is to be sent.
    /// `verdicts` is cleared and gets one verdict per frame, in order. At most [`BURST`] frames:
    /// further ones are not looked at and get no verdict. Returns the port by which every one of
    /// them is to leave, if it is one.
    pub fn forward_burst<F: Frame>(
        &mut self,
        tables: &Tables,
        now: Now,
        port: PortId,
        origin: Origin,
        frames: &mut [F],
        verdicts: &mut ArrayVec<Verdict, BURST>,
    ) -> Option<PortId> {
        self.follow(tables);
        verdicts.clear();
        let context = Context { tables, now: now.tick(), port, origin };
        let count = frames.len().min(BURST);
        let egress = self.run(&context, &mut frames[..count], verdicts);
        self.gauge();
        egress
    }

    /// A burst of one, from a port.
    pub fn forward<F: Frame>(
        &mut self,
        tables: &Tables,
        now: Now,
        port: PortId,
        frame: &mut F,
    ) -> Verdict {
        let mut verdicts = ArrayVec::new();
        let frames = std::slice::from_mut(frame);
        self.forward_burst(tables, now, port, Origin::Port, frames, &mut verdicts);
        verdicts.pop().unwrap_or(Verdict::Kernel)
    }

    /// New tables: make room for their services and backends. Called once per epoch, before they
    /// are used; may allocate. (Forwarding with tables that were not announced here does it too.)
    pub fn set_tables(&mut self, tables: &Tables) {
        self.epoch = Some(tables.epoch());
        self.pool.set_tables(tables);
        // Workers begin their rounds at different places.
        let worker = u32::from(self.worker.0);
        if self.turns.len() < tables.service_slots() {
            self.turns.resize(tables.service_slots(), worker);
        }
        let capacity = |v6| u64::from(self.pool.capacity(v6));
        self.stats.local_ports_v4.set(capacity(false));
        self.stats.local_ports_v6.set(capacity(true));
    }

    /// End flows whose time has come: bounded work, called every turn of the worker's loop.
    pub fn tick(&mut self, tables: &Tables, now: Now) {
        self.follow(tables);
        let now = now.tick();
        let Self { flows, pool, adoption, stats, .. } = self;
        flows.sweep(now, SWEEP_BUDGET, |record| {
            let timeouts = tables.timeouts(record.service);
            let due = record.last_seen.plus(timeouts.of(record.state));
            let decision = match now.since(due) < 0 {
                true if record.lip.is_foreign() => {
                    adoption.renew(tables, record, due, now, &stats.sharing)
                }
                true => return Sweep::Again(due),
                false => {
                    stats.flows_expired.add(1);
                    Sweep::Remove
                }
            };
            if decision == Sweep::Remove {
                ended(record, pool, adoption, stats);
            }
            decision
        });
        if now.since(self.gauged) >= GAUGE_TICKS {
            self.gauged = now;
            let capacity = [false, true].map(|v6| self.pool.capacity(v6));
            let capacity = capacity.into_iter().filter(|&n| n > 0).min().unwrap_or(1);
            let permille = u64::from(self.pool.fullest()) * 1000 / u64::from(capacity);
            self.stats.local_ports_fullest_permille.set(permille);
        }
        self.gauge();
    }

    /// Bytes of memory that flows take: records, index, timers.
    pub fn flow_memory(&self) -> usize {
        self.flows.memory()
    }

    /// The flows lie in the arena's memory, not in ordinary one.
    pub fn flows_are_lent(&self) -> bool {
        self.flows.is_lent()
    }

    /// Flows this engine has now.
    pub fn flow_count(&self) -> u32 {
        self.flows.len()
    }

    #[inline]
    pub(super) fn follow(&mut self, tables: &Tables) {
        if self.epoch != Some(tables.epoch()) {
            self.set_tables(tables);
        }
    }

    pub(super) fn gauge(&self) {
        self.stats.flows.set(self.flows.len().into());
        self.stats.flows_half_open.set(self.flows.half_open().into());
    }

    /// The adjacency for a packet that leaves with this tuple, or `Wait`, or `Drop`.
    pub(super) fn route<A: Family>(
        &self,
        tables: &Tables,
        out: &Tuple<A>,
        transport: Transport,
    ) -> Result<u32, Verdict> {
        let hash = out.hash(&self.seed, protocol_number(transport)) as u32;
        next_hop(tables, out.destination.ip(), hash)
    }

    /// A frame that waited, once more: it is already rewritten, so only its next hop is looked
    /// for. Answers `Transmit`, `Wait` or `Drop`.
    pub fn resolve<F: Frame>(&self, tables: &Tables, frame: &mut F) -> Verdict {
        let verdict = self.resolve_parked(tables, frame);
        if let Verdict::Drop(reason) = verdict {
            self.stats.count_drop(reason);
        }
        verdict
    }

    fn resolve_parked<F: Frame>(&self, tables: &Tables, frame: &mut F) -> Verdict {
        let transport = match packet::parse(frame.data(), frame.total_len(), false) {
            Ok(Kind::Transport(transport)) => transport,
            Ok(Kind::OtherIp { v6, why: Other::Fragment }) => {
                return self.resolve_fragment(tables, frame.data_mut(), v6);
            }
            Ok(_) => return Verdict::Drop(DropReason::BadHeader),
            Err(malformed) => return Verdict::Drop(malformed.into()),
        };
        let data = frame.data_mut();
        if is_v6(transport) {
            self.address_parked::<u128, 58>(tables, data, transport)
        } else {
            self.address_parked::<u32, 38>(tables, data, transport)
        }
    }

    fn address_parked<A: Family, const N: usize>(
        &self,
        tables: &Tables,
        data: &mut [u8],
        transport: Transport,
    ) -> Verdict {
        let Some(header) = data.first_chunk_mut::<N>() else {
            return Verdict::Drop(DropReason::Truncated);
        };
        match self.route(tables, &Tuple::<A>::read(header), transport) {
            Ok(number) => address::<A, N>(tables, number, header),
            Err(verdict) => verdict,
        }
    }
}

/// The adjacency toward a destination, or `Wait`, or `Drop`. `hash`: chooses among equal ways.
pub(super) fn next_hop(tables: &Tables, destination: IpAddr, hash: u32) -> Result<u32, Verdict> {
    match tables.resolve(destination, hash) {
        Hop::Adjacency(number) => Ok(number),
        Hop::Wait(next_hop) => Err(Verdict::Wait { next_hop }),
        Hop::NoRoute => Err(Verdict::Drop(DropReason::NoRoute)),
    }
}

/// Whom the kernel should resolve so that this frame, which got [`Verdict::Wait`], can leave: the
/// neighbour's address and the port it is on.
pub fn unresolved<F: Frame>(
    tables: &Tables,
    next_hop: NextHopId,
    frame: &F,
) -> Option<(PortId, IpAddr)> {
    let kind = packet::parse(frame.data(), frame.total_len(), false).ok()?;
    let v6 = match kind {
        Kind::Transport(transport) => is_v6(transport),
        Kind::OtherIp { v6, why: Other::Fragment } => v6,
        _ => return None,
    };
    let destination = packet::destination(frame.data(), v6)?;
    tables.neighbour(next_hop, destination)
}

impl From<Malformed> for DropReason {
    fn from(malformed: Malformed) -> Self {
        match malformed {
            Malformed::Truncated => Self::Truncated,
            Malformed::Header => Self::BadHeader,
            Malformed::IpChecksum => Self::BadIpChecksum,
            Malformed::L4Checksum => Self::BadL4Checksum,
        }
    }
}

impl super::build::TimeoutTicks {
    pub(super) const fn of(self, state: State) -> u32 {
        match state {
            State::UdpUnreplied | State::Udp => self.udp,
            State::SynSent | State::SynReceived => self.syn,
            State::Established => self.established,
            State::Free | State::FinClient | State::FinServer | State::Closing | State::Reset => {
                self.closing
            }
        }
    }
}

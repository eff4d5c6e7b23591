//! Flows of other nodes: what a node asks its peers for, what it tells them, and what it adopts.
//!
//! When routers re-hash, a segment of an established connection arrives at a node that has no
//! flow for it. The engine drops it, notes the question ([`Engine::next_question`]) and is told
//! the answer later ([`Engine::adopt`]); TCP sends the segment again meanwhile. An *adopted* flow
//! translates from the client with its owner's LIP and port, so replies go, by routing, to the
//! owner. It never takes from or returns to this worker's pool of local ports.
//!
//! Adopted flows live on a lease: when it ends, the owner must confirm that it still has the
//! flow, or the copy is forgotten. So a LIP and port that the owner has given to another client is
//! not used for long after. Everything is bounded: questions by a rate and a queue, copies by a
//! number. No sockets here and no peers: `cluster` carries questions and answers.

use super::budget::Budget;
use super::build::{Address, Tables, is_host};
use super::create::{Mapped, find};
use super::engine::Engine;
use super::flows::{Direction, Entry, FlowNumber, Record, State, Sweep};
use super::foreign::ForeignLips;
use super::pool::Pool;
use super::stats::{SharingStats, WorkerStats};
use super::tables::{LipId, Protocol};
use super::time::{Now, Tick, ms_of_ticks, ticks_of_ms};
use super::tuple::{Family, Tuple, leaves, transport};
use super::verdict::DropReason;
use crate::packet::{PROTOCOL_TCP, Transport};
use std::collections::VecDeque;
use std::net::SocketAddr;

/// How long an adopted flow goes on without its owner's word.
const LEASE_TICKS: u32 = ticks_of_ms(30_000);
/// How long the owner has to confirm.
const GRACE_TICKS: u32 = ticks_of_ms(2_000);
/// How long after a question the same flow is not asked for again. So this is also how long "no
/// node has it" is believed.
const ASK_AGAIN_TICKS: i32 = ticks_of_ms(1_000) as i32;
/// Flows remembered as asked for. A power of two.
const REMEMBERED: usize = 1 << 14;
/// Questions that may wait for the worker to take them: it does once per turn.
const MAX_WAITING: usize = 512;

/// How much may be asked and adopted by one worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SharingLimits {
    /// Flows asked for per second; a second's worth at once.
    pub questions_per_second: u32,
    /// Adopted flows at a time.
    pub max_adopted: u32,
}

/// What names a TCP connection in the whole cluster: both ends as the client sees them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FlowKey {
    pub client: SocketAddr,
    pub vip: SocketAddr,
}

/// How far a connection has come, as its owner saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FlowPhase {
    Established,
    /// The client has sent FIN.
    FinClient,
    /// The backend has sent FIN.
    FinServer,
    /// Both have.
    Closing,
    /// Either has sent RST.
    Reset,
}

impl FlowPhase {
    pub const ALL: [Self; 5] =
        [Self::Established, Self::FinClient, Self::FinServer, Self::Closing, Self::Reset];

    const fn of(state: State) -> Option<Self> {
        match state {
            State::Established => Some(Self::Established),
            State::FinClient => Some(Self::FinClient),
            State::FinServer => Some(Self::FinServer),
            State::Closing => Some(Self::Closing),
            State::Reset => Some(Self::Reset),
            State::Free
            | State::UdpUnreplied
            | State::Udp
            | State::SynSent
            | State::SynReceived => None,
        }
    }

    const fn state(self) -> State {
        match self {
            Self::Established => State::Established,
            Self::FinClient => State::FinClient,
            Self::FinServer => State::FinServer,
            Self::Closing => State::Closing,
            Self::Reset => State::Reset,
        }
    }
}

/// A whole flow as plain data: with it, any node can translate either direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FlowMapping {
    pub key: FlowKey,
    /// The owner's local address and port toward the backend.
    pub lip: SocketAddr,
    pub backend: SocketAddr,
    pub phase: FlowPhase,
    /// Since the owner saw a packet of it.
    pub idle_ms: u32,
}

/// Questions that wait, and what was asked lately.
#[derive(Debug)]
struct Questions {
    waiting: VecDeque<FlowKey>,
    /// By hash of the tuple: what was asked last in this place, and when.
    recent: Box<[(u32, Tick)]>,
    budget: Budget,
}

/// One worker's part in sharing flows with other nodes. Costs nothing while it is off.
#[derive(Debug, Default)]
pub(super) struct Adoption {
    questions: Option<Questions>,
    pub lips: ForeignLips,
    adopted: u32,
    max_adopted: u32,
}

impl Questions {
    /// Note a question. `false`: too many.
    fn ask(&mut self, key: FlowKey) -> bool {
        let room = self.waiting.len() < MAX_WAITING;
        if room {
            self.waiting.push_back(key);
        }
        room
    }

    /// Whether this flow was asked for lately.
    fn lately(&self, hash: u32, now: Tick) -> bool {
        let (asked, at) = self.recent[hash as usize % REMEMBERED];
        asked == hash && (0..ASK_AGAIN_TICKS).contains(&now.since(at))
    }
}

impl Adoption {
    /// The lease of a flow that is in use has ended. `due`: when it will have been idle for too long.
    pub fn renew(
        &mut self,
        tables: &Tables,
        record: &mut Record,
        due: Tick,
        now: Tick,
        stats: &SharingStats,
    ) -> Sweep {
        if record.lip.is_doubted() {
            stats.unconfirmed.add(1);
            return Sweep::Remove;
        }
        self.confirm(tables, record, stats);
        let grace = now.plus(GRACE_TICKS);
        Sweep::Again(if due.since(grace) < 0 { due } else { grace })
    }

    /// Ask the owner whether it still has this flow.
    fn confirm(&mut self, tables: &Tables, record: &mut Record, stats: &SharingStats) {
        let key = key_of(tables, &self.lips, record);
        if let (Some(questions), Some(key)) = (&mut self.questions, key)
            && questions.ask(key)
        {
            record.lip = record.lip.doubted();
            stats.asked.add(1);
        } else {
            stats.not_asked.add(1);
        }
    }

    /// An adopted flow has ended.
    pub fn ended(&mut self, lip: LipId, stats: &SharingStats) {
        self.lips.give(lip);
        self.adopted = self.adopted.saturating_sub(1);
        stats.adopted.set(self.adopted.into());
    }
}

/// When the timer should look at a flow in this state.
pub(super) fn deadline(record_lip: LipId, now: Tick, timeout: u32) -> Tick {
    now.plus(if record_lip.is_foreign() { timeout.min(LEASE_TICKS) } else { timeout })
}

/// Book that a flow is over.
pub(super) fn ended(
    record: &Record,
    pool: &mut Pool,
    adoption: &mut Adoption,
    stats: &WorkerStats,
) {
    if record.lip.is_foreign() {
        adoption.ended(record.lip, &stats.sharing);
    } else {
        pool.give(record.backend);
    }
    if let Some(usage) = stats.service(record.service) {
        usage.active.sub(1);
    }
    if let Some(usage) = stats.backend(record.backend) {
        usage.active.sub(1);
    }
}

impl Engine {
    /// From now on, ask for TCP flows that are not here. Allocates what that needs.
    pub fn share_flows(&mut self, limits: SharingLimits) {
        // Longer ago than any question is remembered.
        let never = Tick(0).plus(ASK_AGAIN_TICKS as u32 * 2);
        self.adoption.questions = Some(Questions {
            waiting: VecDeque::with_capacity(MAX_WAITING),
            recent: vec![(0, never); REMEMBERED].into_boxed_slice(),
            budget: Budget::new(limits.questions_per_second, limits.questions_per_second),
        });
        self.adoption.max_adopted = limits.max_adopted;
    }

    /// A flow that other nodes should be asked for.
    pub fn next_question(&mut self) -> Option<FlowKey> {
        self.adoption.questions.as_mut()?.waiting.pop_front()
    }

    /// A flow of our own, for a node that has got a segment of it. A peer asks only for what it
    /// got a segment after the SYN of, so the client has answered the handshake.
    pub fn find_flow(&mut self, tables: &Tables, now: Now, key: &FlowKey) -> Option<FlowMapping> {
        self.follow(tables);
        let found = match (key.client.is_ipv6(), key.vip.is_ipv6()) {
            (false, false) => self.find_own::<u32>(tables, now.tick(), key),
            (true, true) => self.find_own::<u128>(tables, now.tick(), key),
            _ => None,
        };
        self.gauge();
        self.stats.sharing.looked_up.add(1);
        self.stats.sharing.found.add(found.is_some().into());
        found
    }

    /// Take over a flow that peer number `peer` owns, or confirm the copy that is here. `false`:
    /// refused. These tables know no such service or backend, the LIP is ours, the flow is here by
    /// itself, or there are too many.
    pub fn adopt(&mut self, tables: &Tables, now: Now, peer: u16, mapping: &FlowMapping) -> bool {
        self.follow(tables);
        let ends = [mapping.key.client, mapping.key.vip, mapping.lip, mapping.backend];
        let adopted = match ends.map(|end| end.is_ipv6()) {
            [false, false, false, false] => self.adopt_as::<u32>(tables, now.tick(), peer, mapping),
            [true, true, true, true] => self.adopt_as::<u128>(tables, now.tick(), peer, mapping),
            _ => None,
        };
        if adopted.is_none() {
            self.stats.sharing.refused.add(1);
        }
        self.gauge();
        adopted.is_some()
    }

    /// A segment, not a SYN, to a TCP service of ours, without a flow: ask for it. Returns how its
    /// drop is counted.
    #[inline(never)]
    pub(super) fn ask<A: Family>(
        &mut self,
        tables: &Tables,
        now: Tick,
        tuple: &Tuple<A>,
        hash: u32,
    ) -> DropReason {
        let Some(questions) = &mut self.adoption.questions else {
            return DropReason::NotSyn;
        };
        let source = tuple.source;
        if !is_host(source.ip()) || tables.local(source.to_address(), A::V6).is_some() {
            return DropReason::BadSource;
        }
        if questions.lately(hash, now) {
            return DropReason::AskedPeers;
        }
        let key = FlowKey {
            client: socket(tuple.source, tuple.source_port),
            vip: socket(tuple.destination, tuple.destination_port),
        };
        if !questions.budget.take(now.start()) || !questions.ask(key) {
            self.stats.sharing.not_asked.add(1);
            return DropReason::NotSyn;
        }
        questions.recent[hash as usize % REMEMBERED] = (hash, now);
        self.stats.sharing.asked.add(1);
        DropReason::AskedPeers
    }

    /// A new connection begins on the tuple of an adopted flow, or somebody wants us to think so:
    /// have the owner confirm it. Says whether the flow is adopted.
    pub(super) fn doubt(&mut self, tables: &Tables, now: Tick, flow: FlowNumber) -> bool {
        let Some(record) = self.flows.get_mut(flow).filter(|r| r.lip.is_foreign()) else {
            return false;
        };
        let state = record.state;
        if !record.lip.is_doubted() {
            self.adoption.confirm(tables, record, &self.stats.sharing);
            self.flows.set_state(flow, state, now.plus(GRACE_TICKS));
        }
        true
    }

    fn find_own<A: Family>(
        &mut self,
        tables: &Tables,
        now: Tick,
        key: &FlowKey,
    ) -> Option<FlowMapping> {
        let outside = tuple::<A>(key.client, key.vip);
        let entry = self.find_tcp(tables, &outside)?;
        let record = *self.flows.get(entry.flow())?;
        if entry.direction() == Direction::Reply || record.lip.is_foreign() {
            return None;
        }
        let mut state = record.state;
        if state == State::SynReceived {
            state = State::Established;
            let timeout = tables.timeouts(record.service).of(state);
            self.flows.set_state(entry.flow(), state, record.last_seen.plus(timeout));
        }
        let inside = leaves::<A>(tables, &self.adoption.lips, &record, Direction::Request)?;
        Some(FlowMapping {
            key: *key,
            lip: socket(inside.source, inside.source_port),
            backend: socket(inside.destination, inside.destination_port),
            phase: FlowPhase::of(state)?,
            idle_ms: ms_of_ticks(now.since(record.last_seen).max(0) as u32) as u32,
        })
    }

    fn adopt_as<A: Family>(
        &mut self,
        tables: &Tables,
        now: Tick,
        peer: u16,
        mapping: &FlowMapping,
    ) -> Option<()> {
        let outside = tuple::<A>(mapping.key.client, mapping.key.vip);
        let inside = tuple::<A>(mapping.lip, mapping.backend);
        let lip = inside.source.to_address();
        let plausible =
            |source: A| is_host(source.ip()) && tables.local(source.to_address(), A::V6).is_none();
        if !plausible(outside.source) || !plausible(inside.source) {
            return None;
        }
        // First, so that a copy outlives the removal of its service, as a flow of our own does.
        if let Some(known) = self.find_tcp(tables, &outside) {
            let record = *self.flows.get(known.flow()).filter(|r| r.lip.is_foreign())?;
            let same = leaves::<A>(tables, &self.adoption.lips, &record, Direction::Request);
            if same == Some(inside) {
                self.confirmed(tables, now, known.flow());
                return Some(());
            }
            self.replace(known.flow());
        }
        let vip = outside.destination.to_address();
        let service = tables.find_service(vip, A::V6, Protocol::Tcp, outside.destination_port)?;
        let backend = inside.destination.to_address();
        let backend = tables.find_backend(service, backend, inside.destination_port)?;
        // The owner says whose this LIP and port is now; a copy that says otherwise is old.
        if let Some(old) = self.find_tcp(tables, &inside.reversed()) {
            self.flows.get(old.flow()).filter(|r| r.lip.is_foreign())?;
            self.replace(old.flow());
        }
        if self.adoption.adopted >= self.adoption.max_adopted {
            return None;
        }
        let lip = self.adoption.lips.take(lip, peer)?;
        let mapped = Mapped {
            transport: tcp::<A>(),
            outside,
            inside,
            service,
            backend,
            lip,
            state: mapping.phase.state(),
        };
        if self.place(tables, now, &mapped).is_err() {
            self.adoption.lips.give(lip);
            return None;
        }
        self.adoption.adopted += 1;
        let sharing = &self.stats.sharing;
        sharing.adopted.set(self.adoption.adopted.into());
        sharing.adoptions.add(1);
        Some(())
    }

    fn confirmed(&mut self, tables: &Tables, now: Tick, flow: FlowNumber) {
        let Some(record) = self.flows.get_mut(flow) else {
            return;
        };
        record.lip = record.lip.confirmed();
        let (state, lip) = (record.state, record.lip);
        let timeout = tables.timeouts(record.service).of(state);
        self.flows.set_state(flow, state, deadline(lip, now, timeout));
    }

    fn replace(&mut self, flow: FlowNumber) {
        self.end(flow);
        self.stats.flows_replaced.add(1);
    }

    fn find_tcp<A: Family>(&self, tables: &Tables, arrives: &Tuple<A>) -> Option<Entry> {
        let hash = arrives.hash(&self.seed, PROTOCOL_TCP) as u32;
        find(&self.flows, tables, &self.adoption.lips, tcp::<A>(), arrives, hash)
    }
}

const fn tcp<A: Family>() -> Transport {
    transport(A::V6, true)
}

/// From one end to the other. Both are of the family `A`.
fn tuple<A: Family>(from: SocketAddr, to: SocketAddr) -> Tuple<A> {
    let port = |end: SocketAddr| u16::from_ne_bytes(end.port().to_be_bytes());
    Tuple {
        source: A::from_address(&Address::of(from.ip())),
        destination: A::from_address(&Address::of(to.ip())),
        source_port: port(from),
        destination_port: port(to),
    }
}

fn socket<A: Family>(address: A, port: u16) -> SocketAddr {
    SocketAddr::new(address.ip(), u16::from_be_bytes(port.to_ne_bytes()))
}

fn key_of(tables: &Tables, lips: &ForeignLips, record: &Record) -> Option<FlowKey> {
    fn of<A: Family>(tables: &Tables, lips: &ForeignLips, record: &Record) -> Option<FlowKey> {
        let outside = leaves::<A>(tables, lips, record, Direction::Reply)?.reversed();
        Some(FlowKey {
            client: socket(outside.source, outside.source_port),
            vip: socket(outside.destination, outside.destination_port),
        })
    }
    if record.transport == tcp::<u128>() as u8 {
        of::<u128>(tables, lips, record)
    } else {
        of::<u32>(tables, lips, record)
    }
}

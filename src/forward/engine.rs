//! One worker's forwarding state, and the way of a burst through it, in stages:
//!
//! 1. every frame is parsed and its tuple hashed; what is not for the flow table is decided or
//!    set aside;
//! 2. the lines of the index are touched together, then looked up; then those of the records;
//! 3. every frame is translated, in order.
//!
//! So the cache misses of a burst overlap. What happens to a frame without a flow is in
//! `create`; to what is neither TCP nor UDP, in `other`.

use super::build::Tables;
use super::flows::{Direction, Entry, FlowNumber, FlowTable, NO_ADJACENCY, Record, State, Sweep};
use super::hash::Seed;
use super::pool::Pool;
use super::stats::{Usage, WorkerStats};
use super::steering::Steering;
use super::tables::{BackendId, NextHopId, PortId, ServiceId, WorkerId};
use super::tcp;
use super::time::{Now, Tick};
use super::tuple::{Sides, Tuple, get, l4_offset, put, to_address, transport};
use super::verdict::{DropReason, Verdict};
use crate::packet::checksum::Delta;
use crate::packet::{
    self, Checksum, ETHERTYPE_IPV4, Frame, Kind, Malformed, PROTOCOL_TCP, PROTOCOL_UDP, RxMeta,
    Transport, offset,
};
use crate::port::BURST;
use arrayvec::ArrayVec;
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
    /// By service: this worker's place in its round.
    pub(super) turns: Vec<u32>,
    pub(super) stats: Arc<WorkerStats>,
    epoch: Option<u64>,
    touch: bool,
    gauged: Tick,
}

/// What holds for all frames of a burst.
#[derive(Clone, Copy)]
pub(super) struct Context<'a> {
    pub tables: &'a Tables,
    pub now: Tick,
    pub port: PortId,
}

/// A frame after the first stage.
#[derive(Clone, Copy)]
struct Parsed {
    step: Step,
    hash: u32,
    found: Option<Entry>,
}

#[derive(Clone, Copy)]
enum Step {
    Translate(Transport),
    /// Well-formed, but neither TCP nor UDP that can be translated.
    Other,
    Decided(Verdict),
}

/// A packet that belongs to a flow: everything that translating it needs.
#[derive(Clone, Copy)]
pub(super) struct Hit {
    pub flow: FlowNumber,
    pub direction: Direction,
    state: State,
    service: ServiceId,
    backend: BackendId,
    /// The tuple it leaves with.
    out: Tuple,
    l4_delta: Delta,
    ip_delta: Delta,
    adjacency: u32,
}

impl Engine {
    /// Allocates everything that forwarding will ever need, but for tables with more services or
    /// backends than before.
    pub fn new(config: EngineConfig, stats: Arc<WorkerStats>) -> Self {
        let seed = Seed::new(config.seed);
        let flows = FlowTable::new(config.max_flows, Tick(0));
        Self {
            worker: config.worker,
            workers: config.workers.max(1),
            seed,
            touch: flows.memory() >= TOUCH_FROM_BYTES,
            flows,
            pool: Pool::new(config.worker, config.workers.max(1), seed, config.steering),
            turns: Vec::new(),
            stats,
            epoch: None,
            gauged: Tick(0),
        }
    }

    /// Decide about a burst of frames from one port, rewriting in place what is to be sent.
    /// `verdicts` is cleared and gets one verdict per frame, in order. At most [`BURST`] frames:
    /// further ones are not looked at and get no verdict.
    pub fn forward_burst<F: Frame>(
        &mut self,
        tables: &Tables,
        now: Now,
        port: PortId,
        origin: Origin,
        frames: &mut [F],
        verdicts: &mut ArrayVec<Verdict, BURST>,
    ) {
        self.follow(tables);
        verdicts.clear();
        let context = Context {
            tables,
            now: now.tick(),
            port,
        };
        let count = frames.len().min(BURST);
        let frames = &mut frames[..count];
        let mut parsed = ArrayVec::<Parsed, BURST>::new();
        let mac = tables.port_mac(port);
        for frame in frames.iter() {
            parsed.push(self.parse(context, mac, origin, frame));
        }
        self.look_up(&mut parsed);
        for (frame, parsed) in frames.iter_mut().zip(&parsed) {
            let verdict = self.decide(context, frame, *parsed);
            if let Verdict::Drop(reason) = verdict {
                self.stats.count_drop(reason);
            }
            verdicts.push(verdict);
        }
        self.gauge();
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
        let capacity = |v6| u64::from(self.pool.capacity(tables, v6));
        self.stats.local_ports_v4.set(capacity(false));
        self.stats.local_ports_v6.set(capacity(true));
    }

    /// End flows whose time has come: bounded work, called every turn of the worker's loop.
    pub fn tick(&mut self, tables: &Tables, now: Now) {
        self.follow(tables);
        let now = now.tick();
        let Self {
            flows, pool, stats, ..
        } = self;
        flows.sweep(now, SWEEP_BUDGET, |record| {
            let timeouts = tables.timeouts(record.service);
            let due = record.last_seen.plus(timeouts.of(record.state));
            if now.since(due) < 0 {
                return Sweep::Again(due);
            }
            stats.flows_expired.add(1);
            ended(record, pool, stats);
            Sweep::Remove
        });
        if now.since(self.gauged) >= GAUGE_TICKS {
            self.gauged = now;
            let capacity = [false, true].map(|v6| self.pool.capacity(tables, v6));
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

    /// Flows this engine has now.
    pub fn flow_count(&self) -> u32 {
        self.flows.len()
    }

    #[inline]
    fn follow(&mut self, tables: &Tables) {
        if self.epoch != Some(tables.epoch()) {
            self.set_tables(tables);
        }
    }

    fn gauge(&self) {
        self.stats.flows.set(self.flows.len().into());
        self.stats
            .flows_half_open
            .set(self.flows.half_open().into());
    }

    /// Stage 1. `mac`: of the port.
    #[inline(always)]
    fn parse<F: Frame>(
        &self,
        context: Context,
        mac: Option<u64>,
        origin: Origin,
        frame: &F,
    ) -> Parsed {
        let data = frame.data();
        let Some(first) = data.first_chunk::<8>() else {
            return Parsed::decided(Verdict::Drop(DropReason::Truncated));
        };
        if Some(u64::from_le_bytes(*first) & 0xffff_ffff_ffff) != mac {
            // The group bit: ARP requests, ND, OSPF.
            return Parsed::decided(if first[0] & 1 != 0 {
                Verdict::Kernel
            } else {
                Verdict::Drop(DropReason::NotForUs)
            });
        }
        let meta = frame.rx_meta();
        let verify = meta.ip_checksum != Checksum::Good;
        let kind = match packet::parse(data, frame.total_len(), verify) {
            Ok(kind) => kind,
            Err(malformed) => return Parsed::decided(Verdict::Drop(malformed.into())),
        };
        let Kind::Transport(transport) = kind else {
            return Parsed::other(bad_ip_checksum(meta, data));
        };
        if meta.ip_checksum == Checksum::Bad || meta.l4_checksum == Checksum::Bad {
            return Parsed::other(bad_ip_checksum(meta, data).or(bad_l4_checksum(meta)));
        }
        let hash = match transport {
            Transport::Udp4 => self.hash::<false, 38>(data, PROTOCOL_UDP),
            Transport::Tcp4 => self.hash::<false, 38>(data, PROTOCOL_TCP),
            Transport::Udp6 => self.hash::<true, 58>(data, PROTOCOL_UDP),
            Transport::Tcp6 => self.hash::<true, 58>(data, PROTOCOL_TCP),
        };
        if self.workers > 1
            && origin == Origin::Port
            && let Some(worker) = self.other_owner(context, data, transport, hash)
        {
            return Parsed::decided(Verdict::Handover { worker });
        }
        Parsed {
            step: Step::Translate(transport),
            hash: hash as u32,
            found: None,
        }
    }

    #[inline(always)]
    fn hash<const V6: bool, const N: usize>(&self, data: &[u8], protocol: u8) -> u64 {
        // The parser has seen that the bytes are there.
        data.first_chunk::<N>().map_or(0, |header| {
            Tuple::read::<V6, N>(header).hash(V6, &self.seed, protocol)
        })
    }

    /// Stage 2. The early, unused loads stand for prefetches, which safe code does not have: a
    /// tight loop of them is in flight together.
    #[inline(always)]
    fn look_up(&self, parsed: &mut [Parsed]) {
        if self.touch {
            let mut touched = 0;
            for parsed in parsed.iter() {
                touched ^= self.flows.index().touch(parsed.hash);
            }
            std::hint::black_box(touched);
        }
        for parsed in parsed.iter_mut() {
            if let Step::Translate(_) = parsed.step {
                parsed.found = self.flows.first(parsed.hash);
            }
        }
        if self.touch {
            let mut touched = 0;
            for parsed in parsed.iter() {
                let flow = parsed.found.map_or(0, Entry::flow);
                touched ^= self.flows.get(flow).map_or(0, |record| record.last_seen.0);
            }
            std::hint::black_box(touched);
        }
    }

    /// Stage 3.
    #[inline(always)]
    fn decide<F: Frame>(&mut self, context: Context, frame: &mut F, parsed: Parsed) -> Verdict {
        match parsed.step {
            Step::Translate(Transport::Udp4) => {
                self.translate::<false, false, 42, F>(context, frame, parsed)
            }
            Step::Translate(Transport::Tcp4) => {
                self.translate::<false, true, 54, F>(context, frame, parsed)
            }
            Step::Translate(Transport::Udp6) => {
                self.translate::<true, false, 62, F>(context, frame, parsed)
            }
            Step::Translate(Transport::Tcp6) => {
                self.translate::<true, true, 74, F>(context, frame, parsed)
            }
            Step::Other => self.other(context, frame),
            Step::Decided(verdict) => verdict,
        }
    }

    /// A TCP or UDP packet. `N`: bytes up to the end of its fixed headers.
    #[inline(always)]
    fn translate<const V6: bool, const TCP: bool, const N: usize, F: Frame>(
        &mut self,
        context: Context,
        frame: &mut F,
        parsed: Parsed,
    ) -> Verdict {
        let length = frame.total_len() as u64;
        let Some(header) = frame.data_mut().first_chunk_mut::<N>() else {
            return Verdict::Drop(DropReason::Truncated);
        };
        let tuple = Tuple::read::<V6, N>(header);
        let flags = if TCP {
            header[l4_offset(V6) + offset::TCP_FLAGS]
        } else {
            0
        };
        let ttl = header[ttl_offset(V6)];
        let transport = transport(V6, TCP);
        let hit = parsed
            .found
            .and_then(|entry| self.hit(context.tables, entry, transport, &tuple));
        let hit = match hit {
            Some(hit) if !(TCP && self.starts_anew(context.tables, &hit, flags)) => hit,
            _ => {
                let arrival = Arrival {
                    transport,
                    tuple,
                    hash: parsed.hash,
                    flags,
                    ttl,
                };
                match self.find_or_create(context, &arrival) {
                    Ok(hit) => hit,
                    Err(verdict) => return verdict,
                }
            }
        };
        // RFC 1812 §5.3.1, RFC 8200 §3.
        if ttl <= 1 {
            return Verdict::Drop(DropReason::TtlExpired);
        }
        let verdict = match self.next_hop::<V6, TCP, N>(context, header, &hit) {
            Verdict::Drop(reason) => return Verdict::Drop(reason),
            verdict => verdict,
        };
        self.seen::<TCP>(context, &hit, flags);
        rewrite::<V6, TCP, N>(header, &hit);
        self.count(&hit, length);
        verdict
    }

    /// Whether this entry is the flow of the packet.
    #[inline(always)]
    pub(super) fn hit(
        &self,
        tables: &Tables,
        entry: Entry,
        transport: Transport,
        tuple: &Tuple,
    ) -> Option<Hit> {
        let record = self.flows.get(entry.flow())?;
        if record.transport != transport as u8 {
            return None;
        }
        let direction = entry.direction();
        let sides = Sides::of(tables, record, super::tuple::is_v6(transport))?;
        let (arrives, out) = sides.of_direction(direction);
        if arrives != *tuple {
            return None;
        }
        let adjacency = if record.routing == tables.routing() {
            record.adjacency[direction as usize]
        } else {
            NO_ADJACENCY
        };
        Some(Hit {
            flow: entry.flow(),
            direction,
            state: record.state,
            service: record.service,
            backend: record.backend,
            out,
            l4_delta: record.l4_delta[direction as usize],
            ip_delta: record.ip_delta[direction as usize],
            adjacency,
        })
    }

    /// Whether a segment of a known flow is the first of another connection: the old one is
    /// ending, or its backend takes no new ones.
    #[inline(always)]
    pub(super) fn starts_anew(&self, tables: &Tables, hit: &Hit, flags: u8) -> bool {
        !tcp::plain(flags)
            && tcp::opens(flags)
            && hit.direction == Direction::Request
            && (hit.state.closing()
                || !tables
                    .backend(hit.backend)
                    .is_some_and(|backend| backend.takes_new_flows))
    }

    /// Find where the packet leaves; on `Transmit` its Ethernet addresses are written.
    #[inline(always)]
    fn next_hop<const V6: bool, const TCP: bool, const N: usize>(
        &mut self,
        context: Context,
        header: &mut [u8; N],
        hit: &Hit,
    ) -> Verdict {
        let mut number = hit.adjacency;
        if number == NO_ADJACENCY {
            match self.route_flow(context, hit, transport(V6, TCP)) {
                Ok(found) => number = found,
                Err(verdict) => return verdict,
            }
        }
        let Some(adjacency) = context.tables.adjacency(number) else {
            return Verdict::Drop(DropReason::NoRoute);
        };
        let length = ip_length::<V6, N>(header);
        if length > u32::from(adjacency.mtu) {
            return Verdict::Drop(if adjacency.mtu == 0 {
                DropReason::PortDown
            } else {
                DropReason::TooBig
            });
        }
        put(header, 0, adjacency.macs);
        Verdict::Transmit {
            port: adjacency.port,
        }
    }

    /// The flow was seen: its timer, and its state where this packet changes it.
    #[inline(always)]
    fn seen<const TCP: bool>(&mut self, context: Context, hit: &Hit, flags: u8) {
        if let Some(record) = self.flows.get_mut(hit.flow) {
            record.last_seen = context.now;
        }
        if TCP {
            if hit.state != State::Established || !tcp::plain(flags) {
                let next = tcp::next(hit.state, hit.direction, flags);
                self.move_to(context, hit, next);
            }
        } else if hit.state == State::UdpUnreplied && hit.direction == Direction::Reply {
            self.move_to(context, hit, State::Udp);
        }
    }

    #[inline(never)]
    fn move_to(&mut self, context: Context, hit: &Hit, next: State) {
        if next != hit.state {
            let timeout = context.tables.timeouts(hit.service).of(next);
            self.flows
                .set_state(hit.flow, next, context.now.plus(timeout));
        }
    }

    #[inline(always)]
    fn count(&self, hit: &Hit, length: u64) {
        let add = |usage: Option<&Usage>| {
            if let Some(usage) = usage {
                match hit.direction {
                    Direction::Request => usage.requests.add(1, length),
                    Direction::Reply => usage.replies.add(1, length),
                }
            }
        };
        add(self.stats.service(hit.service));
        add(self.stats.backend(hit.backend));
    }

    /// Ask the routes for a flow's direction, and keep the answer.
    #[inline(never)]
    fn route_flow(
        &mut self,
        context: Context,
        hit: &Hit,
        transport: Transport,
    ) -> Result<u32, Verdict> {
        let number = self.route(context.tables, &hit.out, transport)?;
        if let Some(record) = self.flows.get_mut(hit.flow) {
            if record.routing != context.tables.routing() {
                record.routing = context.tables.routing();
                record.adjacency = [NO_ADJACENCY; 2];
            }
            record.adjacency[hit.direction as usize] = number;
        }
        Ok(number)
    }

    /// The adjacency for a packet that leaves with this tuple. A `Wait` means the packet is
    /// rewritten all the same.
    fn route(&self, tables: &Tables, out: &Tuple, transport: Transport) -> Result<u32, Verdict> {
        use super::fib::Hop;
        let v6 = super::tuple::is_v6(transport);
        let hash = out.hash(v6, &self.seed, transport as u8) as u32;
        match tables.resolve(out.destination_ip(v6), hash) {
            Hop::Adjacency(number) => Ok(number),
            Hop::Wait(next_hop) => Err(Verdict::Wait { next_hop }),
            Hop::NoRoute => Err(Verdict::Drop(DropReason::NoRoute)),
        }
    }

    /// The worker that owns this packet, if it is another one.
    #[inline(never)]
    fn other_owner(
        &self,
        context: Context,
        data: &[u8],
        transport: Transport,
        hash: u64,
    ) -> Option<WorkerId> {
        use super::build::Local;
        let v6 = super::tuple::is_v6(transport);
        let tuple = read_tuple(data, v6)?;
        let local = context
            .tables
            .local(to_address(tuple.destination, v6), v6)?;
        let steering = self.pool.steering();
        let owner = match local {
            Local::Lip(lip) => {
                let port = u16::from_be_bytes(tuple.destination_port.to_ne_bytes());
                Some(steering.owner_of_reply(lip, port, self.workers))
            }
            Local::Vip { .. } => {
                steering.owner_of_request(context.port, (hash >> 32) as u32, self.workers)
            }
        };
        owner.filter(|&owner| owner != self.worker)
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
            Ok(_) => return Verdict::Drop(DropReason::BadHeader),
            Err(malformed) => return Verdict::Drop(malformed.into()),
        };
        let v6 = super::tuple::is_v6(transport);
        let Some(tuple) = read_tuple(frame.data(), v6) else {
            return Verdict::Drop(DropReason::Truncated);
        };
        let number = match self.route(tables, &tuple, transport) {
            Ok(number) => number,
            Err(verdict) => return verdict,
        };
        let Some(header) = frame.data_mut().first_chunk_mut::<34>() else {
            return Verdict::Drop(DropReason::Truncated);
        };
        let length = if v6 {
            ip_length::<true, 34>(header)
        } else {
            ip_length::<false, 34>(header)
        };
        match tables.adjacency(number) {
            None => Verdict::Drop(DropReason::NoRoute),
            Some(adjacency) if adjacency.mtu == 0 => Verdict::Drop(DropReason::PortDown),
            Some(adjacency) if length > u32::from(adjacency.mtu) => {
                Verdict::Drop(DropReason::TooBig)
            }
            Some(adjacency) => {
                put(header, 0, adjacency.macs);
                Verdict::Transmit {
                    port: adjacency.port,
                }
            }
        }
    }
}

/// Whom the kernel should resolve so that this frame, which got [`Verdict::Wait`], can leave: the
/// neighbour's address and the port it is on.
pub fn unresolved<F: Frame>(
    tables: &Tables,
    next_hop: NextHopId,
    frame: &F,
) -> Option<(PortId, std::net::IpAddr)> {
    let kind = packet::parse(frame.data(), frame.total_len(), false).ok()?;
    let Kind::Transport(transport) = kind else {
        return None;
    };
    let v6 = super::tuple::is_v6(transport);
    let tuple = read_tuple(frame.data(), v6)?;
    tables.neighbour(next_hop, tuple.destination_ip(v6))
}

/// What is known of a packet that may begin a flow.
pub(super) struct Arrival {
    pub transport: Transport,
    pub tuple: Tuple,
    pub hash: u32,
    pub flags: u8,
    pub ttl: u8,
}

/// Book that a flow is over.
pub(super) fn ended(record: &Record, pool: &mut Pool, stats: &WorkerStats) {
    pool.give(record.backend);
    if let Some(usage) = stats.service(record.service) {
        usage.active.sub(1);
    }
    if let Some(usage) = stats.backend(record.backend) {
        usage.active.sub(1);
    }
}

pub(super) fn read_tuple(data: &[u8], v6: bool) -> Option<Tuple> {
    if v6 {
        data.first_chunk::<58>().map(Tuple::read::<true, 58>)
    } else {
        data.first_chunk::<38>().map(Tuple::read::<false, 38>)
    }
}

impl Parsed {
    #[inline(always)]
    const fn decided(verdict: Verdict) -> Self {
        Self {
            step: Step::Decided(verdict),
            hash: 0,
            found: None,
        }
    }

    fn other(bad: Option<DropReason>) -> Self {
        Self {
            step: bad.map_or(Step::Other, |reason| Step::Decided(Verdict::Drop(reason))),
            hash: 0,
            found: None,
        }
    }
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

fn bad_ip_checksum(meta: RxMeta, data: &[u8]) -> Option<DropReason> {
    let ipv4 = data.get(12..14) == Some(&ETHERTYPE_IPV4.to_be_bytes());
    (ipv4 && meta.ip_checksum == Checksum::Bad).then_some(DropReason::BadIpChecksum)
}

fn bad_l4_checksum(meta: RxMeta) -> Option<DropReason> {
    (meta.l4_checksum == Checksum::Bad).then_some(DropReason::BadL4Checksum)
}

#[inline(always)]
const fn ttl_offset(v6: bool) -> usize {
    if v6 {
        offset::V6_HOP_LIMIT
    } else {
        offset::V4_TTL
    }
}

/// Of the whole IP packet, bytes.
#[inline(always)]
fn ip_length<const V6: bool, const N: usize>(header: &[u8; N]) -> u32 {
    if V6 {
        40 + u32::from(u16::from_be_bytes(get(header, offset::V6_LENGTH)))
    } else {
        u16::from_be_bytes(get(header, offset::V4_LENGTH)).into()
    }
}

/// Addresses, ports, TTL and checksums.
#[inline(always)]
fn rewrite<const V6: bool, const TCP: bool, const N: usize>(header: &mut [u8; N], hit: &Hit) {
    header[ttl_offset(V6)] = header[ttl_offset(V6)].wrapping_sub(1);
    if !V6 {
        let checksum = u16::from_ne_bytes(get(header, offset::V4_CHECKSUM));
        let checksum = hit.ip_delta.apply(checksum);
        put(header, offset::V4_CHECKSUM, checksum.to_ne_bytes());
    }
    hit.out.write::<V6, N>(header);
    let at = l4_offset(V6)
        + if TCP {
            offset::TCP_CHECKSUM
        } else {
            offset::UDP_CHECKSUM
        };
    let checksum = u16::from_ne_bytes(get(header, at));
    let checksum = if TCP {
        hit.l4_delta.apply(checksum)
    } else {
        hit.l4_delta.apply_udp(checksum)
    };
    put(header, at, checksum.to_ne_bytes());
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

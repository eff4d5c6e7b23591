//! The way of a burst through the engine, in stages:
//!
//! 1. every frame is parsed and its tuple hashed; what is not for the flow table is decided or
//!    set aside;
//! 2. the lines of the index are touched together, then looked up; then those of the records;
//! 3. every frame is translated, in order.
//!
//! So the cache misses of a burst overlap. Here is the short way only: a packet of a flow that
//! stays in the state it is in, to a neighbour that is known. At the first thing that is otherwise,
//! nothing has been written yet, and the frame goes the long way in `unusual`, which covers every
//! case, this one too. The short way must decide as the long one does; a property test compares
//! them.
//!
//! What is the same for a whole burst is fetched once ([`Way`]), and what is counted for a whole
//! burst is written once ([`Run`], [`Tally`]).

use super::engine::{Context, Engine};
use super::fib::Adjacency;
use super::flows::{Direction, Entry, Record, State};
use super::foreign::ForeignLips;
use super::stats::WorkerStats;
use super::tables::{PortId, ServiceId};
use super::tcp;
use super::tuple::{Family, Wire, get, is_v6, put, transport};
use super::verdict::Verdict;
use crate::packet::checksum::Delta;
use crate::packet::{self, Checksum, Frame, Transport, offset};
use crate::port::BURST;
use arrayvec::ArrayVec;

/// A frame after the first stages.
#[derive(Debug, Clone, Copy)]
pub(super) struct Parsed {
    step: Step,
    hash: u32,
    found: Entry,
}

/// One [`Parsed`] per frame of a burst, used again and again.
#[derive(Debug)]
pub(super) struct Scratch(pub Vec<Parsed>);

impl Scratch {
    pub fn new() -> Self {
        Self(vec![Parsed { step: Step::Decided, hash: 0, found: Entry::NONE }; BURST])
    }
}

/// What stage 3 has to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Translate(Transport),
    /// Well-formed, but neither TCP nor UDP that can be translated.
    Other,
    /// The verdict is there already.
    Decided,
}

/// What holds for all frames of a burst, at hand.
pub(super) struct Way<'a> {
    context: Context<'a>,
    adjacencies: &'a [Adjacency],
    routing: u32,
    /// The port's.
    mac: u64,
    /// Packets may belong to other workers.
    steer: bool,
}

/// Equally many of each, and one per frame.
pub(super) struct Frames<'a, F> {
    pub frames: &'a mut [F],
    pub parsed: &'a [Parsed],
    pub verdicts: &'a mut [Verdict],
}

impl Engine {
    /// All stages over at most [`BURST`] frames of one port. Returns the port by which every one
    /// of them leaves, if it is one.
    pub(super) fn run<F: Frame>(
        &mut self,
        context: &Context,
        frames: &mut [F],
        verdicts: &mut ArrayVec<Verdict, BURST>,
    ) -> Option<PortId> {
        // Taken out for the time being, so that both can be borrowed; nothing is allocated.
        let mut all = std::mem::take(&mut self.parsed.0);
        let count = frames.len().min(all.len());
        let parsed = &mut all[..count];
        // Every one is written, in stage 1 or 3; those of the last burst will do until then.
        verdicts.truncate(count);
        while verdicts.len() < count {
            verdicts.push(Verdict::Kernel);
        }
        let way = self.way(context);
        self.parse(&way, frames, parsed, verdicts);
        self.look_up(parsed);
        let mut tally = Tally::new();
        self.translate(&way, Frames { frames, parsed, verdicts }, &mut tally);
        self.parsed.0 = all;
        tally.egress()
    }

    pub(super) fn way<'a>(&self, context: &Context<'a>) -> Way<'a> {
        let tables = context.tables;
        Way {
            context: *context,
            adjacencies: tables.adjacencies(),
            routing: tables.routing(),
            // No frame has 64 bits of MAC.
            mac: tables.port_mac(context.port).unwrap_or(u64::MAX),
            steer: self.asks_owner(context),
        }
    }

    /// Stage 1. (Stages are functions of their own because the compiler then has registers enough.)
    #[inline(never)]
    pub(super) fn parse<F: Frame>(
        &self,
        way: &Way,
        frames: &[F],
        parsed: &mut [Parsed],
        verdicts: &mut [Verdict],
    ) {
        for ((frame, parsed), verdict) in frames.iter().zip(parsed).zip(verdicts) {
            let Some(transport) = common(way.mac, frame) else {
                (parsed.step, parsed.hash) = self.parse_any(&way.context, way.mac, frame, verdict);
                continue;
            };
            let data = frame.data();
            let hash = if is_v6(transport) {
                self.hash::<u128, 58>(data)
            } else {
                self.hash::<u32, 38>(data)
            };
            parsed.step = Step::Translate(transport);
            parsed.hash = hash as u32;
            if way.steer
                && let Some(worker) = self.other_owner(&way.context, data, transport, hash)
            {
                *verdict = Verdict::Handover { worker };
                parsed.step = Step::Decided;
            }
        }
    }

    #[inline(always)]
    pub(super) fn hash<A: Family, const N: usize>(&self, data: &[u8]) -> u64 {
        // The parser has seen that the bytes are there.
        data.first_chunk::<N>()
            .map_or(0, |header| Wire::<A>::read(header).hash(&self.seed, header[A::PROTOCOL]))
    }

    /// Stage 2. The early, unused loads stand for prefetches, which safe code does not have: a
    /// tight loop of them is in flight together. Not inlined, so that the compiler knows that what
    /// is written is no part of the index.
    #[inline(never)]
    pub(super) fn look_up(&self, parsed: &mut [Parsed]) {
        if self.touch {
            let mut touched = 0;
            for parsed in parsed.iter() {
                touched ^= self.flows.index().touch(parsed.hash);
            }
            std::hint::black_box(touched);
        }
        // What is not to be translated is looked up as well: that is cheaper than to ask.
        for parsed in parsed.iter_mut() {
            parsed.found = self.flows.first(parsed.hash);
        }
        if self.touch {
            let mut touched = 0;
            for parsed in parsed.iter() {
                let record = self.flows.get(parsed.found.flow());
                touched ^= record.map_or(0, |record| record.last_seen.0);
            }
            std::hint::black_box(touched);
        }
    }

    /// Stage 3: the short way as far as it goes, then the long way for one frame, and so on.
    pub(super) fn translate<F: Frame>(&mut self, way: &Way, all: Frames<F>, tally: &mut Tally) {
        let Frames { frames, parsed, verdicts } = all;
        let mut at = 0;
        while let Some(next) = parsed.get(at) {
            let rest = Frames {
                frames: &mut frames[at..],
                parsed: &parsed[at..],
                verdicts: &mut verdicts[at..],
            };
            let done = match next.step {
                Step::Translate(Transport::Udp4) => {
                    self.translate_run::<u32, false, 42, F>(way, rest, tally)
                }
                Step::Translate(Transport::Tcp4) => {
                    self.translate_run::<u32, true, 54, F>(way, rest, tally)
                }
                Step::Translate(Transport::Udp6) => {
                    self.translate_run::<u128, false, 62, F>(way, rest, tally)
                }
                Step::Translate(Transport::Tcp6) => {
                    self.translate_run::<u128, true, 74, F>(way, rest, tally)
                }
                Step::Other | Step::Decided => 0,
            };
            at += done;
            // A frame of another kind, or one that needs the long way?
            let Some(stuck) = parsed.get(at).filter(|p| done == 0 || p.step == next.step) else {
                continue;
            };
            let verdict = &mut verdicts[at];
            if stuck.step != Step::Decided {
                let Parsed { step, hash, found } = *stuck;
                *verdict = self.decide_any(&way.context, &mut frames[at], step, hash, found);
            }
            tally.note(*verdict);
            at += 1;
        }
    }

    /// Frames of one transport, as many as the short way can translate. Returns how many.
    #[inline(never)]
    fn translate_run<A: Family, const TCP: bool, const N: usize, F: Frame>(
        &mut self,
        way: &Way,
        run: Frames<F>,
        tally: &mut Tally,
    ) -> usize {
        let step = Step::Translate(transport(A::V6, TCP));
        let Self { flows, adoption, stats, .. } = self;
        let stats: &WorkerStats = stats;
        let records = flows.records_mut();
        let mut usage = Run::new();
        let mut done = 0;
        for ((frame, parsed), verdict) in run.frames.iter_mut().zip(run.parsed).zip(run.verdicts) {
            if parsed.step != step {
                break;
            }
            let bytes = frame.total_len() as u64;
            let found = parsed.found;
            let Some((record, adjacency)) =
                translate::<A, TCP, N, F>(way, &adoption.lips, records, frame, bytes, found)
            else {
                break;
            };
            let direction = found.direction();
            if let Some(usage) = stats.backend(record.backend) {
                usage.traffic[direction as usize].add(1, bytes);
            }
            usage.count(stats, record.service, direction, bytes);
            let port = adjacency.port;
            tally.leave(port);
            *verdict = Verdict::Transmit { port };
            done += 1;
        }
        usage.book(stats);
        done
    }
}

/// Translate a TCP or UDP packet of the flow that the index gave first and address it to where it
/// leaves. `N`: bytes up to the end of its fixed headers. `None`: not the usual case; nothing
/// changed.
#[inline(always)]
fn translate<'a, A: Family, const TCP: bool, const N: usize, F: Frame>(
    way: &Way<'a>,
    foreign: &ForeignLips,
    records: &'a mut [Record],
    frame: &mut F,
    bytes: u64,
    found: Entry,
) -> Option<(&'a Record, &'a Adjacency)> {
    let header = frame.data_mut().first_chunk_mut::<N>()?;
    let record = records.get_mut(found.flow() as usize)?;
    let direction = found.direction();
    let (arrives, leaves) = A::wires(way.context.tables, foreign, record, direction)?;
    if arrives != Wire::read(header) || record.transport != transport(A::V6, TCP) as u8 {
        return None;
    }
    match record.state {
        state if TCP && state.stays() && tcp::plain(header[A::L4 + offset::TCP_FLAGS]) => {}
        State::Udp if !TCP => {}
        State::UdpUnreplied if !TCP && direction == Direction::Request => {}
        _ => return None,
    }
    if header[A::TTL] <= 1 || record.routing != way.routing {
        return None;
    }
    // No next hop known: a number that is out of range.
    let adjacency = way.adjacencies.get(record.adjacency[direction as usize] as usize)?;
    if bytes > adjacency.longest {
        return None;
    }
    record.last_seen = way.context.now;
    let reply = direction == Direction::Reply;
    let addresses_delta = record.addresses_delta.undo_if(reply);
    let l4_delta = record.l4_delta.undo_if(reply);
    put(header, 0, adjacency.macs);
    rewrite::<A, TCP, N>(header, &leaves, addresses_delta, l4_delta);
    Some((record, adjacency))
}

/// The transport of a frame, if it is one for us that [`packet::common`] knows, and nobody found a
/// bad checksum.
#[inline(always)]
fn common<F: Frame>(mac: u64, frame: &F) -> Option<Transport> {
    let meta = frame.rx_meta();
    if meta.ip_checksum == Checksum::Bad || meta.l4_checksum == Checksum::Bad {
        return None;
    }
    let data = frame.data();
    if destination_mac(data.first_chunk::<{ packet::COMMON }>()?.first_chunk()?) != mac {
        return None;
    }
    packet::common(data, frame.total_len(), meta.ip_checksum != Checksum::Good)
}

/// The first six bytes of a frame, as [`super::build::Tables::port_mac`] has a port's.
#[inline(always)]
pub(super) fn destination_mac(first: &[u8; 8]) -> u64 {
    u64::from_le_bytes(*first) & 0xffff_ffff_ffff
}

/// Addresses, ports, TTL and checksums.
#[inline(always)]
pub(super) fn rewrite<A: Family, const TCP: bool, const N: usize>(
    header: &mut [u8; N],
    leaves: &Wire<A>,
    addresses_delta: Delta,
    l4_delta: Delta,
) {
    header[A::TTL] = header[A::TTL].wrapping_sub(1);
    if !A::V6 {
        let checksum = u16::from_ne_bytes(get(header, offset::V4_CHECKSUM));
        let checksum = addresses_delta.and(Delta::TTL_DECREMENT).apply(checksum);
        put(header, offset::V4_CHECKSUM, checksum.to_ne_bytes());
    }
    leaves.write(header);
    let at = A::L4 + if TCP { offset::TCP_CHECKSUM } else { offset::UDP_CHECKSUM };
    let checksum = u16::from_ne_bytes(get(header, at));
    let checksum = if TCP { l4_delta.apply(checksum) } else { l4_delta.apply_udp(checksum) };
    put(header, at, checksum.to_ne_bytes());
}

/// What packets in a row did for the same service: booked when the service changes, and at the end.
struct Run {
    service: ServiceId,
    /// Packets and bytes, by direction.
    traffic: [(u64, u64); 2],
}

impl Run {
    const fn new() -> Self {
        Self { service: ServiceId(u32::MAX), traffic: [(0, 0); 2] }
    }

    #[inline(always)]
    fn count(&mut self, stats: &WorkerStats, service: ServiceId, direction: Direction, bytes: u64) {
        if service != self.service {
            self.book(stats);
            self.service = service;
        }
        let (packets, total) = &mut self.traffic[direction as usize];
        *packets += 1;
        *total += bytes;
    }

    #[inline(never)]
    fn book(&mut self, stats: &WorkerStats) {
        let traffic = std::mem::take(&mut self.traffic);
        let Some(usage) = stats.service(self.service) else { return };
        for (counters, (packets, bytes)) in usage.traffic.iter().zip(traffic) {
            counters.add(packets, bytes);
        }
    }
}

/// Where the frames of a burst go, all together.
pub(super) struct Tally {
    /// The numbers of all ports that frames leave by, by AND and by OR: the same if it is one.
    ports: [u16; 2],
    /// Some frame does not leave.
    stays: bool,
}

impl Tally {
    pub const fn new() -> Self {
        Self { ports: [u16::MAX, 0], stays: false }
    }

    #[inline(always)]
    fn leave(&mut self, port: PortId) {
        self.ports[0] &= port.0;
        self.ports[1] |= port.0;
    }

    fn note(&mut self, verdict: Verdict) {
        match verdict {
            Verdict::Transmit { port } => self.leave(port),
            _ => self.stays = true,
        }
    }

    fn egress(&self) -> Option<PortId> {
        let [all, any] = self.ports;
        (all == any && !self.stays).then_some(PortId(any))
    }
}

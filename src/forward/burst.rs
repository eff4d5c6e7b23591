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
//! burst is written once ([`Tally`]).

use super::engine::{Context, Engine, Origin};
use super::fib::Adjacency;
use super::flows::{Direction, Entry, State};
use super::stats::{Traffic, WorkerStats};
use super::tables::{PortId, ServiceId};
use super::tcp;
use super::tuple::{Family, Wire, get, put, transport};
use super::verdict::Verdict;
use crate::packet::checksum::Delta;
use crate::packet::{self, Checksum, Frame, PROTOCOL_TCP, PROTOCOL_UDP, Transport, offset};
use crate::port::BURST;
use arrayvec::ArrayVec;

/// A frame after the first stages.
#[derive(Debug, Clone, Copy)]
struct Parsed {
    step: Step,
    hash: u32,
    found: Entry,
}

/// One [`Parsed`] per frame of a burst, used again and again.
#[derive(Debug)]
pub(super) struct Scratch(Vec<Parsed>);

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
struct Way<'a> {
    context: Context<'a>,
    adjacencies: &'a [Adjacency],
    routing: u32,
    /// The port's.
    mac: u64,
}

impl Engine {
    /// All stages over at most [`BURST`] frames of one port. Returns the port by which every one
    /// of them leaves, if it is one.
    #[inline(always)]
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
        verdicts.extend(std::iter::repeat_n(Verdict::Kernel, count));
        let tables = context.tables;
        let way = Way {
            context: *context,
            adjacencies: tables.adjacencies(),
            routing: tables.routing(),
            // No frame has 64 bits of MAC.
            mac: tables.port_mac(context.port).unwrap_or(u64::MAX),
        };
        for ((frame, parsed), verdict) in frames.iter().zip(&mut *parsed).zip(&mut *verdicts) {
            self.parse(&way, frame, parsed, verdict);
        }
        self.look_up(parsed);
        let mut tally = Tally::new();
        for ((frame, parsed), verdict) in frames.iter_mut().zip(&*parsed).zip(&mut *verdicts) {
            self.decide(&way, frame, parsed, verdict, &mut tally);
        }
        tally.book(&self.stats);
        self.parsed.0 = all;
        tally.egress()
    }

    /// Stage 1.
    #[inline(always)]
    fn parse<F: Frame>(&self, way: &Way, frame: &F, parsed: &mut Parsed, verdict: &mut Verdict) {
        let data = frame.data();
        let meta = frame.rx_meta();
        let verify = meta.ip_checksum != Checksum::Good;
        let bad = meta.ip_checksum == Checksum::Bad || meta.l4_checksum == Checksum::Bad;
        let common = packet::common(data, frame.total_len(), verify);
        let ours = data.first_chunk().is_some_and(|first| destination_mac(first) == way.mac);
        let Some(transport) = common.filter(|_| ours && !bad) else {
            (parsed.step, parsed.hash) = self.parse_any(&way.context, way.mac, frame, verdict);
            return;
        };
        let hash = match transport {
            Transport::Udp4 => self.hash::<u32, 38>(data, PROTOCOL_UDP),
            Transport::Tcp4 => self.hash::<u32, 38>(data, PROTOCOL_TCP),
            Transport::Udp6 => self.hash::<u128, 58>(data, PROTOCOL_UDP),
            Transport::Tcp6 => self.hash::<u128, 58>(data, PROTOCOL_TCP),
        };
        parsed.step = Step::Translate(transport);
        parsed.hash = hash as u32;
        if self.workers > 1
            && way.context.origin == Origin::Port
            && let Some(worker) = self.other_owner(&way.context, data, transport, hash)
        {
            *verdict = Verdict::Handover { worker };
            parsed.step = Step::Decided;
        }
    }

    #[inline(always)]
    pub(super) fn hash<A: Family, const N: usize>(&self, data: &[u8], protocol: u8) -> u64 {
        // The parser has seen that the bytes are there.
        data.first_chunk::<N>()
            .map_or(0, |header| Wire::<A>::read(header).hash(&self.seed, protocol))
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

    /// Stage 3.
    #[inline(always)]
    fn decide<F: Frame>(
        &mut self,
        way: &Way,
        frame: &mut F,
        parsed: &Parsed,
        verdict: &mut Verdict,
        tally: &mut Tally,
    ) {
        let found = parsed.found;
        let egress = match parsed.step {
            Step::Translate(Transport::Udp4) => {
                self.translate::<u32, false, 42, F>(way, frame, found, tally)
            }
            Step::Translate(Transport::Tcp4) => {
                self.translate::<u32, true, 54, F>(way, frame, found, tally)
            }
            Step::Translate(Transport::Udp6) => {
                self.translate::<u128, false, 62, F>(way, frame, found, tally)
            }
            Step::Translate(Transport::Tcp6) => {
                self.translate::<u128, true, 74, F>(way, frame, found, tally)
            }
            Step::Other | Step::Decided => None,
        };
        if let Some(port) = egress {
            *verdict = Verdict::Transmit { port };
            tally.leave(port);
        } else {
            if parsed.step != Step::Decided {
                *verdict = self.decide_any(&way.context, frame, parsed.step, parsed.hash, found);
            }
            tally.differ(*verdict);
        }
    }

    /// A TCP or UDP packet of the flow that the index gave first, addressed to where it leaves.
    /// `N`: bytes up to the end of its fixed headers. `None`: not the usual case; nothing changed.
    #[inline(always)]
    fn translate<A: Family, const TCP: bool, const N: usize, F: Frame>(
        &mut self,
        way: &Way,
        frame: &mut F,
        found: Entry,
        tally: &mut Tally,
    ) -> Option<PortId> {
        let bytes = frame.total_len() as u64;
        let header = frame.data_mut().first_chunk_mut::<N>()?;
        let record = self.flows.get_mut(found.flow())?;
        let direction = found.direction();
        let (arrives, leaves) = A::wires(way.context.tables, record, direction)?;
        let stays = if TCP {
            record.state == State::Established && tcp::plain(header[A::L4 + offset::TCP_FLAGS])
        } else {
            record.state == State::Udp
                || (record.state == State::UdpUnreplied && direction == Direction::Request)
        };
        if arrives != Wire::read(header)
            || record.transport != transport(A::V6, TCP) as u8
            || !stays
            || header[A::TTL] <= 1
            || record.routing != way.routing
        {
            return None;
        }
        // No next hop known: a number that is out of range.
        let adjacency = way.adjacencies.get(record.adjacency[direction as usize] as usize)?;
        let length = u32::from(u16::from_be_bytes(get(header, A::LENGTH))) + A::LENGTH_WITHOUT;
        if length > u32::from(adjacency.mtu) {
            return None;
        }
        record.last_seen = way.context.now;
        let reply = direction == Direction::Reply;
        let addresses_delta = record.addresses_delta.undo_if(reply);
        let l4_delta = record.l4_delta.undo_if(reply);
        put(header, 0, adjacency.macs);
        rewrite::<A, TCP, N>(header, &leaves, addresses_delta, l4_delta);
        if let Some(usage) = self.stats.backend(record.backend) {
            usage.traffic[direction as usize].add(1, bytes);
        }
        tally.count(&self.stats, record.service, direction, bytes);
        Some(adjacency.port)
    }
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

/// What a burst has done so far: booked when the service changes, and at the end.
struct Tally {
    service: ServiceId,
    /// Packets and bytes, by direction.
    traffic: [(u64, u64); 2],
    /// Where the first frame leaves.
    first: Option<PortId>,
    /// Not all frames leave there.
    mixed: bool,
}

impl Tally {
    const fn new() -> Self {
        Self { service: ServiceId(u32::MAX), traffic: [(0, 0); 2], first: None, mixed: false }
    }

    /// Count a packet for its service.
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
        let book = |counters: &Traffic, (packets, bytes)| counters.add(packets, bytes);
        book(&usage.traffic[0], traffic[0]);
        book(&usage.traffic[1], traffic[1]);
    }

    /// A frame leaves by this port.
    #[inline(always)]
    fn leave(&mut self, port: PortId) {
        self.mixed |= *self.first.get_or_insert(port) != port;
    }

    /// A frame has a verdict of its own.
    fn differ(&mut self, verdict: Verdict) {
        match verdict {
            Verdict::Transmit { port } => self.leave(port),
            _ => self.mixed = true,
        }
    }

    fn egress(&self) -> Option<PortId> {
        self.first.filter(|_| !self.mixed)
    }
}

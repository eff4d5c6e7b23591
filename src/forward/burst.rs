//! The way of a burst through the engine, in stages:
//!
//! 1. every frame is parsed and its tuple hashed; what is not for the flow table is decided or
//!    set aside;
//! 2. the lines of the index are touched together, then looked up; then those of the records;
//! 3. every frame is translated, in order.
//!
//! So the cache misses of a burst overlap. Everything a known flow's packet needs is here and
//! inlined; the rest is called.

use super::build::{Local, Tables};
use super::create::Arrival;
use super::engine::{Context, Engine, Origin};
use super::flows::{Direction, Entry, FlowNumber, NO_ADJACENCY, State};
use super::stats::Usage;
use super::tables::{BackendId, ServiceId, WorkerId};
use super::tcp;
use super::tuple::{Family, Tuple, get, is_v6, put, sides, transport};
use super::verdict::{DropReason, Verdict};
use crate::packet::checksum::Delta;
use crate::packet::{
    self, Checksum, ETHERTYPE_IPV4, Frame, Kind, PROTOCOL_TCP, PROTOCOL_UDP, RxMeta, Transport,
    offset,
};
use crate::port::BURST;
use arrayvec::ArrayVec;

/// A frame after the first stages.
#[derive(Debug, Clone, Copy)]
struct Parsed {
    step: Step,
    hash: u32,
    found: Entry,
    /// With [`Step::Decided`].
    verdict: Verdict,
}

/// One [`Parsed`] per frame of a burst, used again and again.
#[derive(Debug)]
pub(super) struct Scratch(Vec<Parsed>);

impl Scratch {
    pub fn new() -> Self {
        Self(vec![Parsed::NOTHING; BURST])
    }
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Translate(Transport),
    /// Well-formed, but neither TCP nor UDP that can be translated.
    Other,
    Decided,
}

/// When the owner of a packet is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    /// It arrived.
    Arrival,
    /// It arrived, and the flow table does not know it.
    Stranger,
    /// An ICMP error about its answer arrived.
    Error,
}

impl Engine {
    /// All stages over at most [`BURST`] frames of one port.
    #[inline(always)]
    pub(super) fn run<F: Frame>(
        &mut self,
        context: &Context,
        frames: &mut [F],
        verdicts: &mut ArrayVec<Verdict, BURST>,
    ) {
        // Taken out for the time being, so that both can be borrowed; nothing is allocated.
        let mut all = std::mem::take(&mut self.parsed.0);
        let count = frames.len().min(all.len());
        let parsed = &mut all[..count];
        // No frame has 64 bits of MAC.
        let mac = context.tables.port_mac(context.port).unwrap_or(u64::MAX);
        let ask_owner = self.workers > 1
            && context.origin == Origin::Port
            && !self.pool.steering().trusts(context.port);
        for (frame, parsed) in frames.iter().zip(parsed.iter_mut()) {
            self.parse(context, mac, ask_owner, frame, parsed);
        }
        self.look_up(parsed);
        for (frame, parsed) in frames.iter_mut().zip(parsed.iter()) {
            let verdict = self.decide(context, frame, parsed);
            if let Verdict::Drop(reason) = verdict {
                self.stats.count_drop(reason);
            }
            verdicts.push(verdict);
        }
        self.parsed.0 = all;
    }

    /// Stage 1. `mac`: of the port. `ask_owner`: the packet may be another worker's.
    #[inline(always)]
    fn parse<F: Frame>(
        &self,
        context: &Context,
        mac: u64,
        ask_owner: bool,
        frame: &F,
        parsed: &mut Parsed,
    ) {
        let data = frame.data();
        let Some(first) = data.first_chunk::<8>() else {
            return parsed.decide(Verdict::Drop(DropReason::Truncated));
        };
        let destination = u64::from_le_bytes(*first) & 0xffff_ffff_ffff;
        if destination != mac {
            // The group bit: ARP requests, ND, OSPF.
            return parsed.decide(if destination & 1 != 0 {
                Verdict::Kernel
            } else {
                Verdict::Drop(DropReason::NotForUs)
            });
        }
        let meta = frame.rx_meta();
        let verify = meta.ip_checksum != Checksum::Good;
        let transport = match packet::parse(data, frame.total_len(), verify) {
            Ok(Kind::Transport(transport)) => transport,
            Ok(_) => return parsed.other(bad_ip_checksum(meta, data)),
            Err(malformed) => return parsed.decide(Verdict::Drop(malformed.into())),
        };
        if meta.ip_checksum == Checksum::Bad || meta.l4_checksum == Checksum::Bad {
            return parsed.other(bad_ip_checksum(meta, data).or(bad_l4_checksum(meta)));
        }
        let hash = match transport {
            Transport::Udp4 => self.hash::<u32, 38>(data, PROTOCOL_UDP),
            Transport::Tcp4 => self.hash::<u32, 38>(data, PROTOCOL_TCP),
            Transport::Udp6 => self.hash::<u128, 58>(data, PROTOCOL_UDP),
            Transport::Tcp6 => self.hash::<u128, 58>(data, PROTOCOL_TCP),
        };
        if ask_owner && let Some(worker) = self.other_owner(context, data, transport, hash) {
            return parsed.decide(Verdict::Handover { worker });
        }
        parsed.step = Step::Translate(transport);
        parsed.hash = hash as u32;
    }

    #[inline(always)]
    fn hash<A: Family, const N: usize>(&self, data: &[u8], protocol: u8) -> u64 {
        // The parser has seen that the bytes are there.
        data.first_chunk::<N>()
            .map_or(0, |header| Tuple::<A>::read(header).hash(&self.seed, protocol))
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
                let record = self.flows.get(parsed.found.flow());
                touched ^= record.map_or(0, |record| record.last_seen.0);
            }
            std::hint::black_box(touched);
        }
    }

    /// Stage 3.
    #[inline(always)]
    fn decide<F: Frame>(&mut self, context: &Context, frame: &mut F, parsed: &Parsed) -> Verdict {
        let (hash, found) = (parsed.hash, parsed.found);
        match parsed.step {
            Step::Translate(Transport::Udp4) => {
                self.translate::<u32, false, 42, F>(context, frame, hash, found)
            }
            Step::Translate(Transport::Tcp4) => {
                self.translate::<u32, true, 54, F>(context, frame, hash, found)
            }
            Step::Translate(Transport::Udp6) => {
                self.translate::<u128, false, 62, F>(context, frame, hash, found)
            }
            Step::Translate(Transport::Tcp6) => {
                self.translate::<u128, true, 74, F>(context, frame, hash, found)
            }
            Step::Other => self.other(*context, frame),
            Step::Decided => parsed.verdict,
        }
    }

    /// A TCP or UDP packet. `N`: bytes up to the end of its fixed headers.
    #[inline(always)]
    fn translate<A: Family, const TCP: bool, const N: usize, F: Frame>(
        &mut self,
        context: &Context,
        frame: &mut F,
        hash: u32,
        found: Entry,
    ) -> Verdict {
        let length = frame.total_len() as u64;
        let Some(header) = frame.data_mut().first_chunk_mut::<N>() else {
            return Verdict::Drop(DropReason::Truncated);
        };
        let tuple = Tuple::<A>::read(header);
        let flags = tcp_flags::<A, TCP, N>(header);
        let anew = TCP && !tcp::plain(flags) && self.starts_anew(context.tables, found, flags);
        let known = if anew {
            None
        } else {
            self.translate_known::<A, TCP, N>(context, header, found, &tuple, length)
        };
        match known {
            Some(verdict) => verdict,
            None => self.translate_unknown::<A, TCP, N>(context, header, hash, length),
        }
    }

    /// A packet whose flow the burst's lookup did not give. Out of the way of the others.
    #[inline(never)]
    fn translate_unknown<A: Family, const TCP: bool, const N: usize>(
        &mut self,
        context: &Context,
        header: &mut [u8; N],
        hash: u32,
        length: u64,
    ) -> Verdict {
        let arrival = Arrival {
            transport: transport(A::V6, TCP),
            tuple: Tuple::<A>::read(header),
            hash,
            flags: tcp_flags::<A, TCP, N>(header),
            ttl: header[A::TTL],
        };
        let entry = match self.find_or_create(*context, &arrival) {
            Ok(entry) => entry,
            Err(verdict) => return verdict,
        };
        self.translate_known::<A, TCP, N>(context, header, entry, &arrival.tuple, length)
            .unwrap_or(Verdict::Drop(DropReason::NoFlow))
    }

    /// Translate a packet and address it, if this entry is its flow.
    #[inline(always)]
    fn translate_known<A: Family, const TCP: bool, const N: usize>(
        &mut self,
        context: &Context,
        header: &mut [u8; N],
        entry: Entry,
        tuple: &Tuple<A>,
        length: u64,
    ) -> Option<Verdict> {
        let (tables, direction) = (context.tables, entry.direction());
        let record = self.flows.get_mut(entry.flow())?;
        if record.transport != transport(A::V6, TCP) as u8 {
            return None;
        }
        let (arrives, out) = sides::<A>(tables, record, direction)?;
        if arrives != *tuple {
            return None;
        }
        // RFC 1812 §5.3.1, RFC 8200 §3.
        if header[A::TTL] <= 1 {
            return Some(Verdict::Drop(DropReason::TtlExpired));
        }
        let mut number = record.adjacency[direction as usize];
        if record.routing != tables.routing() {
            number = NO_ADJACENCY;
        }
        let reply = direction == Direction::Reply;
        let addresses_delta = record.addresses_delta.undo_if(reply);
        let l4_delta = record.l4_delta.undo_if(reply);
        let (service, backend, state) = (record.service, record.backend, record.state);
        let verdict = if number == NO_ADJACENCY {
            let verdict = self.route_flow::<A, N>(context, entry, &out, TCP, header);
            if let Verdict::Drop(_) = verdict {
                return Some(verdict);
            }
            if let Some(record) = self.flows.get_mut(entry.flow()) {
                record.last_seen = context.now;
            }
            verdict
        } else {
            let verdict = address::<A, N>(tables, number, header);
            if let Verdict::Drop(_) = verdict {
                return Some(verdict);
            }
            record.last_seen = context.now;
            verdict
        };
        if TCP {
            let flags = tcp_flags::<A, TCP, N>(header);
            if state != State::Established || !tcp::plain(flags) {
                let next = tcp::next(state, direction, flags);
                self.move_to(context, entry.flow(), service, next);
            }
        } else if state == State::UdpUnreplied && direction == Direction::Reply {
            self.move_to(context, entry.flow(), service, State::Udp);
        }
        rewrite::<A, TCP, N>(header, &out, addresses_delta, l4_delta);
        self.count(service, backend, direction, length);
        Some(verdict)
    }

    /// The flow's state changed, or not.
    #[inline(never)]
    fn move_to(&mut self, context: &Context, flow: FlowNumber, service: ServiceId, next: State) {
        if self.flows.get(flow).is_some_and(|r| r.state != next) {
            let timeout = context.tables.timeouts(service).of(next);
            self.flows.set_state(flow, next, context.now.plus(timeout));
        }
    }

    #[inline(always)]
    fn count(&self, service: ServiceId, backend: BackendId, direction: Direction, length: u64) {
        let add = |usage: Option<&Usage>| {
            if let Some(usage) = usage {
                usage.traffic[direction as usize].add(1, length);
            }
        };
        add(self.stats.service(service));
        add(self.stats.backend(backend));
    }

    /// Ask the routes for a flow's direction, keep the answer, and address the packet.
    #[inline(never)]
    fn route_flow<A: Family, const N: usize>(
        &mut self,
        context: &Context,
        entry: Entry,
        out: &Tuple<A>,
        tcp: bool,
        header: &mut [u8; N],
    ) -> Verdict {
        let number = match self.route(context.tables, out, transport(A::V6, tcp)) {
            Ok(number) => number,
            Err(verdict) => return verdict,
        };
        if let Some(record) = self.flows.get_mut(entry.flow()) {
            if record.routing != context.tables.routing() {
                record.routing = context.tables.routing();
                record.adjacency = [NO_ADJACENCY; 2];
            }
            record.adjacency[entry.direction() as usize] = number;
        }
        address::<A, N>(context.tables, number, header)
    }

    /// The worker that owns this packet, if it is another one. `hash`: of its tuple.
    #[inline(never)]
    fn other_owner(
        &self,
        context: &Context,
        data: &[u8],
        transport: Transport,
        hash: u64,
    ) -> Option<WorkerId> {
        let owner = if is_v6(transport) {
            let tuple = Tuple::<u128>::read(data.first_chunk::<58>()?);
            self.owner(context, transport, &tuple, hash, Asked::Arrival)
        } else {
            let tuple = Tuple::<u32>::read(data.first_chunk::<38>()?);
            self.owner(context, transport, &tuple, hash, Asked::Arrival)
        };
        owner.filter(|&owner| owner != self.worker)
    }

    /// The worker that owns packets with this tuple, if one is known; `None`: whoever received it.
    pub(super) fn owner<A: Family>(
        &self,
        context: &Context,
        transport: Transport,
        tuple: &Tuple<A>,
        hash: u64,
        asked: Asked,
    ) -> Option<WorkerId> {
        let (steering, workers) = (self.pool.steering(), self.workers);
        let input = || tuple.rss_input(transport);
        match context.tables.local(tuple.destination.to_address(), A::V6)? {
            Local::Lip(_)
                if asked == Asked::Arrival && steering.brings_replies(context.port, transport) =>
            {
                None
            }
            Local::Lip(lip) => {
                let port = u16::from_be_bytes(tuple.destination_port.to_ne_bytes());
                Some(steering.owner_of_reply(lip, port, workers, input))
            }
            Local::Vip { .. } => {
                let hash = (hash >> 32) as u32;
                let itself = asked != Asked::Error;
                steering.owner_of_request(context.port, itself, hash, workers, input)
            }
        }
    }
}

impl Parsed {
    const NOTHING: Self =
        Self { step: Step::Decided, hash: 0, found: Entry::NONE, verdict: Verdict::Kernel };

    #[inline(always)]
    fn decide(&mut self, verdict: Verdict) {
        *self = Self { verdict, ..Self::NOTHING };
    }

    fn other(&mut self, bad: Option<DropReason>) {
        match bad {
            Some(reason) => self.decide(Verdict::Drop(reason)),
            None => *self = Self { step: Step::Other, ..Self::NOTHING },
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
fn tcp_flags<A: Family, const TCP: bool, const N: usize>(header: &[u8; N]) -> u8 {
    if TCP { header[A::L4 + offset::TCP_FLAGS] } else { 0 }
}

/// Write the Ethernet addresses for this adjacency. `Transmit` or `Drop`.
#[inline(always)]
pub(super) fn address<A: Family, const N: usize>(
    tables: &Tables,
    number: u32,
    header: &mut [u8; N],
) -> Verdict {
    let Some(adjacency) = tables.adjacency(number) else {
        return Verdict::Drop(DropReason::NoRoute);
    };
    let length = u32::from(u16::from_be_bytes(get(header, A::LENGTH))) + A::LENGTH_WITHOUT;
    if length > u32::from(adjacency.mtu) {
        return Verdict::Drop(if adjacency.mtu == 0 {
            DropReason::PortDown
        } else {
            DropReason::TooBig
        });
    }
    put(header, 0, adjacency.macs);
    Verdict::Transmit { port: adjacency.port }
}

/// Addresses, ports, TTL and checksums.
#[inline(always)]
fn rewrite<A: Family, const TCP: bool, const N: usize>(
    header: &mut [u8; N],
    out: &Tuple<A>,
    addresses_delta: Delta,
    l4_delta: Delta,
) {
    header[A::TTL] = header[A::TTL].wrapping_sub(1);
    if !A::V6 {
        let checksum = u16::from_ne_bytes(get(header, offset::V4_CHECKSUM));
        let checksum = addresses_delta.and(Delta::TTL_DECREMENT).apply(checksum);
        put(header, offset::V4_CHECKSUM, checksum.to_ne_bytes());
    }
    out.write(header);
    let at = A::L4 + if TCP { offset::TCP_CHECKSUM } else { offset::UDP_CHECKSUM };
    let checksum = u16::from_ne_bytes(get(header, at));
    let checksum = if TCP { l4_delta.apply(checksum) } else { l4_delta.apply_udp(checksum) };
    put(header, at, checksum.to_ne_bytes());
}

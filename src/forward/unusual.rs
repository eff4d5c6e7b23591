//! The long way: frames that the short one in `burst` does not cover. Covers every case, and
//! decides as the short way does where both could.
//!
//! Malformed frames and frames for others; packets without a flow, or whose flow is not what the
//! index gave first; flows that change their state; next hops not asked for yet. Counts the drops
//! that it decides.

use super::adopt::deadline;
use super::build::Tables;
use super::burst::{Step, destination_mac, rewrite};
use super::create::Arrival;
use super::engine::{Context, Engine};
use super::flows::{Direction, Entry, FlowNumber, NO_ADJACENCY, State};
use super::stats::Usage;
use super::tables::{BackendId, ServiceId};
use super::tcp;
use super::tuple::{Family, Tuple, Wire, get, is_v6, leaves, put, transport};
use super::verdict::{DropReason, Verdict};
use crate::packet::{self, Checksum, ETHERTYPE_IPV4, Frame, Kind, RxMeta, Transport, offset};

impl Engine {
    /// Stage 1 for any frame: what is to be done with it, and its hash. With [`Step::Decided`], the
    /// verdict is written. `mac`: of the port.
    #[inline(never)]
    pub(super) fn parse_any<F: Frame>(
        &self,
        context: &Context,
        mac: u64,
        frame: &F,
        verdict: &mut Verdict,
    ) -> (Step, u32) {
        match self.classify(context, mac, frame) {
            Ok(step_and_hash) => step_and_hash,
            Err(decided) => {
                if let Verdict::Drop(reason) = decided {
                    self.stats.count_drop(reason);
                }
                *verdict = decided;
                (Step::Decided, 0)
            }
        }
    }

    fn classify<F: Frame>(
        &self,
        context: &Context,
        mac: u64,
        frame: &F,
    ) -> Result<(Step, u32), Verdict> {
        let data = frame.data();
        let first = data.first_chunk().ok_or(Verdict::Drop(DropReason::Truncated))?;
        let destination = destination_mac(first);
        if destination != mac {
            // The group bit: ARP requests, ND, OSPF.
            return Err(if destination & 1 != 0 {
                Verdict::Kernel
            } else {
                Verdict::Drop(DropReason::NotForUs)
            });
        }
        let meta = frame.rx_meta();
        let verify = meta.ip_checksum != Checksum::Good;
        let transport = match packet::parse(data, frame.total_len(), verify) {
            Ok(Kind::Transport(transport)) => transport,
            Ok(_) => return other(bad_ip_checksum(meta, data)),
            Err(malformed) => return Err(Verdict::Drop(malformed.into())),
        };
        if meta.ip_checksum == Checksum::Bad || meta.l4_checksum == Checksum::Bad {
            return other(bad_ip_checksum(meta, data).or(bad_l4_checksum(meta)));
        }
        let hash =
            if is_v6(transport) { self.hash::<u128, 58>(data) } else { self.hash::<u32, 38>(data) };
        if self.asks_owner(context)
            && let Some(worker) = self.other_owner(context, data, transport, hash)
        {
            return Err(Verdict::Handover { worker });
        }
        Ok((Step::Translate(transport), hash as u32))
    }

    /// Stage 3 for any frame that is not decided. `found`: what the index gave first for `hash`.
    #[inline(never)]
    pub(super) fn decide_any<F: Frame>(
        &mut self,
        context: &Context,
        frame: &mut F,
        step: Step,
        hash: u32,
        found: Entry,
    ) -> Verdict {
        let length = frame.total_len() as u64;
        let verdict = match step {
            Step::Translate(Transport::Udp4) => {
                self.translate_any::<u32, false, 42, F>(context, frame, hash, found, length)
            }
            Step::Translate(Transport::Tcp4) => {
                self.translate_any::<u32, true, 54, F>(context, frame, hash, found, length)
            }
            Step::Translate(Transport::Udp6) => {
                self.translate_any::<u128, false, 62, F>(context, frame, hash, found, length)
            }
            Step::Translate(Transport::Tcp6) => {
                self.translate_any::<u128, true, 74, F>(context, frame, hash, found, length)
            }
            Step::Other | Step::Decided => self.other(*context, frame),
        };
        if let Verdict::Drop(reason) = verdict {
            self.stats.count_drop(reason);
        }
        verdict
    }

    /// A TCP or UDP packet. `N`: bytes up to the end of its fixed headers.
    fn translate_any<A: Family, const TCP: bool, const N: usize, F: Frame>(
        &mut self,
        context: &Context,
        frame: &mut F,
        hash: u32,
        found: Entry,
        length: u64,
    ) -> Verdict {
        let data = frame.data_mut();
        let Some(header) = data.first_chunk_mut::<N>() else {
            return Verdict::Drop(DropReason::Truncated);
        };
        let verdict = self.translate_header::<A, TCP, N>(context, header, hash, found, length);
        if verdict == Verdict::Drop(DropReason::TooBig) {
            let header = *header;
            return self.answer_too_big::<A, TCP, N>(context, data, &header).unwrap_or(verdict);
        }
        verdict
    }

    /// The same, of its headers: those of a first fragment, too.
    pub(super) fn translate_header<A: Family, const TCP: bool, const N: usize>(
        &mut self,
        context: &Context,
        header: &mut [u8; N],
        hash: u32,
        found: Entry,
        length: u64,
    ) -> Verdict {
        let flags = tcp_flags::<A, TCP, N>(header);
        if !(TCP && self.may_start_anew(context.tables, found, flags))
            && let Some(verdict) = self.translate_of::<A, TCP, N>(context, header, found, length)
        {
            return verdict;
        }
        let arrival = Arrival {
            transport: transport(A::V6, TCP),
            tuple: Tuple::<A>::read(header),
            hash,
            flags,
            ttl: header[A::TTL],
        };
        let entry = match self.find_or_create(*context, &arrival) {
            Ok(entry) => entry,
            Err(verdict) => return verdict,
        };
        self.translate_of::<A, TCP, N>(context, header, entry, length)
            .unwrap_or(Verdict::Drop(DropReason::NoFlow))
    }

    /// Translate a packet and address it, if this entry is its flow.
    fn translate_of<A: Family, const TCP: bool, const N: usize>(
        &mut self,
        context: &Context,
        header: &mut [u8; N],
        entry: Entry,
        length: u64,
    ) -> Option<Verdict> {
        let (tables, direction) = (context.tables, entry.direction());
        let record = self.flows.get(entry.flow())?;
        let (arrives, leaves) = A::wires(tables, &self.adoption.lips, record, direction)?;
        if record.transport != transport(A::V6, TCP) as u8 || arrives != Wire::read(header) {
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
            self.route_flow::<A, N>(context, entry, TCP, header)
        } else {
            address::<A, N>(tables, number, header)
        };
        if let Verdict::Drop(_) = verdict {
            return Some(verdict);
        }
        if let Some(record) = self.flows.get_mut(entry.flow()) {
            record.last_seen = context.now;
        }
        if TCP {
            let next = tcp::next(state, direction, tcp_flags::<A, TCP, N>(header));
            self.move_to(context, entry.flow(), service, next);
        } else if state == State::UdpUnreplied && reply {
            self.move_to(context, entry.flow(), service, State::Udp);
        }
        rewrite::<A, TCP, N>(header, &leaves, addresses_delta, l4_delta);
        self.count(service, backend, direction, length);
        Some(verdict)
    }

    /// The flow's state changed, or not.
    fn move_to(&mut self, context: &Context, flow: FlowNumber, service: ServiceId, next: State) {
        if let Some(record) = self.flows.get(flow).filter(|r| r.state != next) {
            let timeout = context.tables.timeouts(service).of(next);
            let deadline = deadline(record.lip, context.now, timeout);
            self.flows.set_state(flow, next, deadline);
        }
    }

    /// A packet of so many bytes was translated.
    pub(super) fn count(
        &self,
        service: ServiceId,
        backend: BackendId,
        direction: Direction,
        length: u64,
    ) {
        let add = |usage: Option<&Usage>| {
            if let Some(usage) = usage {
                usage.traffic[direction as usize].add(1, length);
            }
        };
        add(self.stats.service(service));
        add(self.stats.backend(backend));
    }

    /// Ask the routes for a flow's direction, keep the answer, and address the packet.
    fn route_flow<A: Family, const N: usize>(
        &mut self,
        context: &Context,
        entry: Entry,
        tcp: bool,
        header: &mut [u8; N],
    ) -> Verdict {
        let (tables, direction) = (context.tables, entry.direction());
        let (record, lips) = (self.flows.get(entry.flow()), &self.adoption.lips);
        let Some(out) = record.and_then(|record| leaves::<A>(tables, lips, record, direction))
        else {
            return Verdict::Drop(DropReason::NoFlow);
        };
        let number = match self.route(tables, &out, transport(A::V6, tcp)) {
            Ok(number) => number,
            Err(verdict) => return verdict,
        };
        if let Some(record) = self.flows.get_mut(entry.flow()) {
            if record.routing != tables.routing() {
                record.routing = tables.routing();
                record.adjacency = [NO_ADJACENCY; 2];
            }
            record.adjacency[direction as usize] = number;
        }
        address::<A, N>(tables, number, header)
    }
}

/// Write the Ethernet addresses for this adjacency. `Transmit` or `Drop`.
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

fn other(bad: Option<DropReason>) -> Result<(Step, u32), Verdict> {
    match bad {
        Some(reason) => Err(Verdict::Drop(reason)),
        None => Ok((Step::Other, 0)),
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

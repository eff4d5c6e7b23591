//! What happens to a TCP or UDP packet that the burst's lookup gave no flow: another look, or a
//! new flow, or a reason why not.

use super::adopt::{deadline, ended};
use super::build::{Local, Tables, is_host};
use super::engine::{Context, Engine, Origin};
use super::flows::{Direction, Entry, FlowNumber, FlowTable, Record, State};
use super::foreign::ForeignLips;
use super::hash::Seed;
use super::owner::Asked;
use super::pool::Toward;
use super::tables::{BackendId, LipId, Protocol, ServiceId};
use super::tcp;
use super::time::Tick;
use super::tuple::{Family, Tuple, deltas, is_tcp, protocol_number};
use super::verdict::{DropReason, Verdict};
use crate::packet::{TCP_SYN, Transport};
use std::net::SocketAddr;

/// What is known of a packet that may begin a flow.
pub(super) struct Arrival<A> {
    pub transport: Transport,
    pub tuple: Tuple<A>,
    pub hash: u32,
    pub flags: u8,
    pub ttl: u8,
}

/// A flow to be made: its two sides, and what it is called in the tables.
pub(super) struct Mapped<A> {
    pub transport: Transport,
    pub outside: Tuple<A>,
    pub inside: Tuple<A>,
    pub service: ServiceId,
    pub backend: BackendId,
    pub lip: LipId,
    pub state: State,
}

impl Engine {
    /// The flow of this packet: one that the first look missed (made by an earlier packet of this
    /// burst, or behind a false match), or a new one. `Err`: the verdict.
    #[inline(never)]
    pub(super) fn find_or_create<A: Family>(
        &mut self,
        context: Context,
        arrival: &Arrival<A>,
    ) -> Result<Entry, Verdict> {
        let transport = arrival.transport;
        let (tables, lips) = (context.tables, &self.adoption.lips);
        let known = find(&self.flows, tables, lips, transport, &arrival.tuple, arrival.hash);
        if let Some(entry) = known {
            if !self.starts_anew(tables, entry, arrival.flags) {
                if is_tcp(transport) && tcp::opens(arrival.flags) {
                    self.doubt(tables, context.now, entry.flow());
                }
                return Ok(entry);
            }
            self.end(entry.flow());
            self.stats.flows_replaced.add(1);
        }
        let service = find_service(tables, arrival).map_err(|verdict| match verdict {
            Verdict::Drop(DropReason::NotSyn) if arrival.flags & TCP_SYN == 0 => {
                Verdict::Drop(self.ask(tables, context.now, &arrival.tuple, arrival.hash))
            }
            Verdict::Drop(DropReason::NoFlow) => self.stray_reply(&context, arrival),
            other => other,
        })?;
        let flow = self.create(context, arrival, service).map_err(Verdict::Drop)?;
        Ok(Entry::new(flow, Direction::Request))
    }

    /// What becomes of a packet to a LIP whose flow is not here: it may be another worker's.
    fn stray_reply<A: Family>(&self, context: &Context, arrival: &Arrival<A>) -> Verdict {
        if self.workers > 1 && context.origin == Origin::Port {
            let owner = self.owner(context, arrival.transport, &arrival.tuple, 0, Asked::Stranger);
            if let Some(worker) = owner.filter(|&owner| owner != self.worker) {
                let local_port = u16::from_be_bytes(arrival.tuple.destination_port.to_ne_bytes());
                if self.pool.steering().promises(context.port, arrival.transport, local_port) {
                    self.stats.misdirected.add(1);
                }
                return Verdict::Handover { worker };
            }
        }
        Verdict::Drop(DropReason::NoFlow)
    }

    /// Whether a segment of a known flow is the first of another connection: the old one is
    /// ending, or its backend takes no new ones.
    pub(super) fn starts_anew(&self, tables: &Tables, entry: Entry, flags: u8) -> bool {
        let Some(record) = self.flows.get(entry.flow()) else {
            return false;
        };
        let backend = tables.backend(record.backend);
        tcp::opens(flags)
            && entry.direction() == Direction::Request
            && (record.state.closing() || !backend.is_some_and(|b| b.takes_new_flows))
    }

    /// Whether [`Engine::find_or_create`] must look at a segment that the burst's lookup gave this
    /// flow: as [`Engine::starts_anew`], or it is a SYN and the flow another node's.
    pub(super) fn may_start_anew(&self, tables: &Tables, entry: Entry, flags: u8) -> bool {
        let adopted = || self.flows.get(entry.flow()).is_some_and(|r| r.lip.is_foreign());
        self.starts_anew(tables, entry, flags) || (tcp::opens(flags) && adopted())
    }

    /// Remove a flow and book it.
    pub(super) fn end(&mut self, flow: FlowNumber) {
        let record = self.flows.remove(flow);
        if record.state != State::Free {
            ended(&record, &mut self.pool, &mut self.adoption, &self.stats);
        }
    }

    fn create<A: Family>(
        &mut self,
        context: Context,
        arrival: &Arrival<A>,
        service: ServiceId,
    ) -> Result<FlowNumber, DropReason> {
        let backend = self.schedule(context.tables, arrival, service)?;
        let local = self.take_local::<A>(context.tables, arrival.transport, backend)?;
        let flow = match self.insert(context, arrival, (service, backend), local) {
            Ok(flow) => flow,
            Err(reason) => {
                self.pool.give(backend);
                return Err(reason);
            }
        };
        self.stats.flows_created.add(1);
        let used = [self.stats.service(service), self.stats.backend(backend)];
        used.into_iter().flatten().for_each(|usage| usage.total.add(1));
        Ok(flow)
    }

    pub(super) fn schedule<A: Family>(
        &mut self,
        tables: &Tables,
        arrival: &Arrival<A>,
        service: ServiceId,
    ) -> Result<BackendId, DropReason> {
        let protocol = protocol_number(arrival.transport);
        let hash = arrival.tuple.hash(&Seed::FIXED, protocol);
        let mut no_turn = 0;
        let turn = self.turns.get_mut(service.0 as usize).unwrap_or(&mut no_turn);
        tables
            .schedule(service)
            .and_then(|schedule| schedule.pick(hash, turn))
            .ok_or(DropReason::NoBackend)
    }

    /// A LIP and port (host order) whose replies from `backend` no flow is waiting for.
    pub(super) fn take_local<A: Family>(
        &mut self,
        tables: &Tables,
        transport: Transport,
        backend: BackendId,
    ) -> Result<(LipId, u16), DropReason> {
        let slot = tables.backend(backend).ok_or(DropReason::NoBackend)?;
        let Self { pool, flows, adoption, seed, .. } = self;
        let address =
            SocketAddr::new(slot.address.ip(A::V6), u16::from_be_bytes(slot.port.to_ne_bytes()));
        let toward = Toward { backend, transport, address };
        let way = || tables.way(address.ip());
        let taken = pool.take(tables, &toward, way, |lip, port| {
            let Some(lip) = tables.lip(lip) else {
                return false;
            };
            let reply = Tuple {
                source: A::from_address(&slot.address),
                destination: A::from_address(&lip.address),
                source_port: slot.port,
                destination_port: u16::from_ne_bytes(port.to_be_bytes()),
            };
            let hash = reply.hash(seed, protocol_number(transport)) as u32;
            find(flows, tables, &adoption.lips, transport, &reply, hash).is_none()
        });
        taken.ok_or(DropReason::PoolExhausted)
    }

    fn insert<A: Family>(
        &mut self,
        context: Context,
        arrival: &Arrival<A>,
        (service, backend): (ServiceId, BackendId),
        (lip, port): (LipId, u16),
    ) -> Result<FlowNumber, DropReason> {
        let state = if is_tcp(arrival.transport) { State::SynSent } else { State::UdpUnreplied };
        let tables = context.tables;
        let (Some(backend_slot), Some(lip_slot)) = (tables.backend(backend), tables.lip(lip))
        else {
            return Err(DropReason::NoBackend);
        };
        let outside = arrival.tuple;
        let inside = Tuple {
            source: A::from_address(&lip_slot.address),
            destination: A::from_address(&backend_slot.address),
            source_port: u16::from_ne_bytes(port.to_be_bytes()),
            destination_port: backend_slot.port,
        };
        let mapped =
            Mapped { transport: arrival.transport, outside, inside, service, backend, lip, state };
        self.place(tables, context.now, &mapped)
    }

    /// Make a flow. A full table gives up a half-open one for it.
    pub(super) fn place<A: Family>(
        &mut self,
        tables: &Tables,
        now: Tick,
        mapped: &Mapped<A>,
    ) -> Result<FlowNumber, DropReason> {
        let Mapped { transport, outside, inside, service, backend, lip, state } = *mapped;
        let (addresses_delta, ports_delta) = deltas(&outside, &inside);
        let record = Record {
            addresses: A::pack([
                outside.source,
                outside.destination,
                inside.source,
                inside.destination,
            ]),
            ports: [outside, inside.reversed()].map(|tuple| tuple.wire().ports),
            service,
            backend,
            lip,
            transport: transport as u8,
            state,
            addresses_delta,
            l4_delta: addresses_delta.and(ports_delta),
            last_seen: now,
            routing: tables.routing(),
            ..Record::EMPTY
        };
        let protocol = protocol_number(transport);
        let hashes =
            [outside, inside.reversed()].map(|tuple| tuple.hash(&self.seed, protocol) as u32);
        let deadline = deadline(lip, now, tables.timeouts(service).of(state));
        let mut inserted = self.flows.insert(record, hashes, deadline);
        if inserted.is_err() {
            let victim = self.flows.eviction_candidate().ok_or(DropReason::FlowTableFull)?;
            self.end(victim);
            self.stats.flows_evicted.add(1);
            inserted = self.flows.insert(record, hashes, deadline);
        }
        let flow = inserted.map_err(|_| DropReason::FlowTableFull)?;
        let used = [self.stats.service(service), self.stats.backend(backend)];
        used.into_iter().flatten().for_each(|usage| usage.active.add(1));
        Ok(flow)
    }
}

/// The flow that a packet with this tuple belongs to.
pub(super) fn find<A: Family>(
    flows: &FlowTable,
    tables: &Tables,
    foreign: &ForeignLips,
    transport: Transport,
    tuple: &Tuple<A>,
    hash: u32,
) -> Option<Entry> {
    let wire = tuple.wire();
    flows.find(hash, |record, direction| {
        record.transport == transport as u8
            && A::wires(tables, foreign, record, direction)
                .is_some_and(|(arrives, _)| arrives == wire)
    })
}

/// The service that a packet without a flow may begin a flow to.
fn find_service<A: Family>(tables: &Tables, arrival: &Arrival<A>) -> Result<ServiceId, Verdict> {
    let drop = |reason| Err(Verdict::Drop(reason));
    let tcp = is_tcp(arrival.transport);
    let destination = arrival.tuple.destination.to_address();
    match tables.local(destination, A::V6) {
        None => return Err(Verdict::Kernel),
        Some(Local::Lip(_)) => return drop(DropReason::NoFlow),
        Some(Local::Vip { .. }) => {}
    }
    let protocol = if tcp { Protocol::Tcp } else { Protocol::Udp };
    let port = arrival.tuple.destination_port;
    let Some(service) = tables.find_service(destination, A::V6, protocol, port) else {
        return drop(DropReason::NoService);
    };
    if tcp && !tcp::opens(arrival.flags) {
        return drop(DropReason::NotSyn);
    }
    let source = arrival.tuple.source;
    if !is_host(source.ip()) || tables.local(source.to_address(), A::V6).is_some() {
        return drop(DropReason::BadSource);
    }
    if arrival.ttl <= 1 {
        return drop(DropReason::TtlExpired);
    }
    Ok(service)
}

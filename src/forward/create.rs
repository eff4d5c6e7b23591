//! What happens to a TCP or UDP packet that the burst's lookup gave no flow: another look, or a
//! new flow, or a reason why not.

use super::build::{Local, Tables, is_host};
use super::engine::{Arrival, Context, Engine, Hit, ended};
use super::flows::{Direction, Entry, FlowNumber, FlowTable, Record, State};
use super::hash::Seed;
use super::tables::{BackendId, LipId, Protocol, ServiceId};
use super::tuple::{Sides, Tuple, from_address, is_tcp, is_v6, to_address};
use super::verdict::{DropReason, Verdict};
use super::{tcp, time::Tick};
use crate::packet::checksum::Delta;
use crate::packet::{PROTOCOL_TCP, PROTOCOL_UDP, Transport};

impl Engine {
    /// The flow of this packet: one that the first look missed (made by an earlier packet of this
    /// burst, or behind a false match), or a new one. `Err`: the verdict.
    #[inline(never)]
    pub(super) fn find_or_create(
        &mut self,
        context: Context,
        arrival: &Arrival,
    ) -> Result<Hit, Verdict> {
        let known = self.find(
            context.tables,
            arrival.transport,
            &arrival.tuple,
            arrival.hash,
        );
        match known {
            Some(hit) if self.starts_anew(context.tables, &hit, arrival.flags) => {
                self.end(hit.flow);
                self.stats.flows_replaced.add(1);
            }
            Some(hit) => return Ok(hit),
            None => {}
        }
        let service = find_service(context.tables, arrival)?;
        let flow = self
            .create(context, arrival, service)
            .map_err(Verdict::Drop)?;
        let entry = Entry::new(flow, Direction::Request);
        self.hit(context.tables, entry, arrival.transport, &arrival.tuple)
            .ok_or(Verdict::Drop(DropReason::NoFlow))
    }

    /// The flow that a packet with this tuple belongs to.
    pub(super) fn find(
        &self,
        tables: &Tables,
        transport: Transport,
        tuple: &Tuple,
        hash: u32,
    ) -> Option<Hit> {
        let entry = find(&self.flows, tables, transport, tuple, hash)?;
        self.hit(tables, entry, transport, tuple)
    }

    /// Remove a flow and book it.
    pub(super) fn end(&mut self, flow: FlowNumber) {
        let record = self.flows.remove(flow);
        if record.state != State::Free {
            ended(&record, &mut self.pool, &self.stats);
        }
    }

    fn create(
        &mut self,
        context: Context,
        arrival: &Arrival,
        service: ServiceId,
    ) -> Result<FlowNumber, DropReason> {
        let backend = self.schedule(context.tables, arrival, service)?;
        let (lip, port) = self.take_local(context.tables, arrival.transport, backend)?;
        match self.insert(context, arrival, service, backend, lip, port) {
            Ok(flow) => {
                self.stats.flows_created.add(1);
                for usage in [self.stats.service(service), self.stats.backend(backend)]
                    .into_iter()
                    .flatten()
                {
                    usage.active.add(1);
                    usage.total.add(1);
                }
                Ok(flow)
            }
            Err(reason) => {
                self.pool.give(backend);
                Err(reason)
            }
        }
    }

    fn schedule(
        &mut self,
        tables: &Tables,
        arrival: &Arrival,
        service: ServiceId,
    ) -> Result<BackendId, DropReason> {
        let v6 = is_v6(arrival.transport);
        let protocol = protocol_number(arrival.transport);
        let hash = arrival.tuple.hash(v6, &Seed::FIXED, protocol);
        let mut no_turn = 0;
        let turn = self
            .turns
            .get_mut(service.0 as usize)
            .unwrap_or(&mut no_turn);
        tables
            .schedule(service)
            .and_then(|schedule| schedule.pick(hash, turn))
            .ok_or(DropReason::NoBackend)
    }

    /// A LIP and port (host order) whose replies from `backend` no flow is waiting for.
    fn take_local(
        &mut self,
        tables: &Tables,
        transport: Transport,
        backend: BackendId,
    ) -> Result<(LipId, u16), DropReason> {
        let v6 = is_v6(transport);
        let slot = tables.backend(backend).ok_or(DropReason::NoBackend)?;
        let Self {
            pool, flows, seed, ..
        } = self;
        let taken = pool.take(tables, backend, v6, |lip, port| {
            let Some(lip) = tables.lip(lip) else {
                return false;
            };
            let reply = Tuple {
                source: from_address(&slot.address.0, v6),
                destination: from_address(&lip.address.0, v6),
                source_port: slot.port,
                destination_port: u16::from_ne_bytes(port.to_be_bytes()),
            };
            let hash = reply.hash(v6, seed, protocol_number(transport)) as u32;
            find(flows, tables, transport, &reply, hash).is_none()
        });
        taken.ok_or(DropReason::PoolExhausted)
    }

    fn insert(
        &mut self,
        context: Context,
        arrival: &Arrival,
        service: ServiceId,
        backend: BackendId,
        lip: LipId,
        port: u16,
    ) -> Result<FlowNumber, DropReason> {
        let v6 = is_v6(arrival.transport);
        let state = if is_tcp(arrival.transport) {
            State::SynSent
        } else {
            State::UdpUnreplied
        };
        let mut record = Record {
            client: to_address(arrival.tuple.source, v6).0,
            client_port: arrival.tuple.source_port,
            local_port: u16::from_ne_bytes(port.to_be_bytes()),
            service,
            backend,
            lip,
            transport: arrival.transport as u8,
            state,
            last_seen: context.now,
            routing: context.tables.routing(),
            ..Record::EMPTY
        };
        let sides = Sides::of(context.tables, &record, v6).ok_or(DropReason::NoBackend)?;
        let mut hashes = [0; 2];
        for direction in [Direction::Request, Direction::Reply] {
            let (arrives, leaves) = sides.of_direction(direction);
            let number = direction as usize;
            let (ip, l4) = deltas(&arrives, &leaves, v6);
            record.ip_delta[number] = ip;
            record.l4_delta[number] = l4;
            hashes[number] = self.tuple_hash(&arrives, arrival.transport);
        }
        let deadline = self.deadline(context, service, state);
        if let Ok(flow) = self.flows.insert(record, hashes, deadline) {
            return Ok(flow);
        }
        let victim = self
            .flows
            .eviction_candidate()
            .ok_or(DropReason::FlowTableFull)?;
        self.end(victim);
        self.stats.flows_evicted.add(1);
        self.flows
            .insert(record, hashes, deadline)
            .map_err(|_| DropReason::FlowTableFull)
    }

    fn deadline(&self, context: Context, service: ServiceId, state: State) -> Tick {
        let timeouts = context.tables.timeouts(service);
        context.now.plus(timeouts.of(state))
    }

    pub(super) fn tuple_hash(&self, tuple: &Tuple, transport: Transport) -> u32 {
        tuple.hash(is_v6(transport), &self.seed, protocol_number(transport)) as u32
    }
}

fn find(
    flows: &FlowTable,
    tables: &Tables,
    transport: Transport,
    tuple: &Tuple,
    hash: u32,
) -> Option<Entry> {
    flows.find(hash, |record, direction| {
        record.transport == transport as u8
            && Sides::of(tables, record, is_v6(transport))
                .is_some_and(|sides| sides.of_direction(direction).0 == *tuple)
    })
}

/// The service that a packet without a flow may begin a flow to.
fn find_service(tables: &Tables, arrival: &Arrival) -> Result<ServiceId, Verdict> {
    let drop = |reason| Err(Verdict::Drop(reason));
    let (v6, tcp) = (is_v6(arrival.transport), is_tcp(arrival.transport));
    let destination = to_address(arrival.tuple.destination, v6);
    match tables.local(destination, v6) {
        None => return Err(Verdict::Kernel),
        Some(Local::Lip(_)) => return drop(DropReason::NoFlow),
        Some(Local::Vip { .. }) => {}
    }
    let protocol = if tcp { Protocol::Tcp } else { Protocol::Udp };
    let port = arrival.tuple.destination_port;
    let Some(service) = tables.find_service(destination, v6, protocol, port) else {
        return drop(DropReason::NoService);
    };
    if tcp && !tcp::opens(arrival.flags) {
        return drop(DropReason::NotSyn);
    }
    let source = to_address(arrival.tuple.source, v6);
    if !is_host(source.ip(v6)) || tables.local(source, v6).is_some() {
        return drop(DropReason::BadSource);
    }
    if arrival.ttl <= 1 {
        return drop(DropReason::TtlExpired);
    }
    Ok(service)
}

/// What translation from one tuple to the other does to the checksums of IPv4 (with the TTL's
/// decrement) and of TCP or UDP.
fn deltas(from: &Tuple, to: &Tuple, v6: bool) -> (Delta, Delta) {
    let addresses = |tuple: &Tuple| [tuple.source, tuple.destination].map(u128::to_ne_bytes);
    let ports = |tuple: &Tuple| [tuple.source_port, tuple.destination_port].map(u16::to_ne_bytes);
    // IPv4 addresses are the low half of the number; what is around them is zero in both.
    let addresses =
        Delta::NONE.replace(addresses(from).as_flattened(), addresses(to).as_flattened());
    let ports = Delta::NONE.replace(ports(from).as_flattened(), ports(to).as_flattened());
    let ip = if v6 {
        Delta::NONE
    } else {
        addresses.and(Delta::TTL_DECREMENT)
    };
    (ip, addresses.and(ports))
}

const fn protocol_number(transport: Transport) -> u8 {
    if is_tcp(transport) {
        PROTOCOL_TCP
    } else {
        PROTOCOL_UDP
    }
}

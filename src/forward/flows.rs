//! The flows of one worker: records, the index over them, and their timers.
//!
//! A record is one cache line, for both families and both directions. It is plain data: addresses
//! of VIP, backend and LIP are named by slot, so it stays small, and it can be copied to another
//! worker, process or node that knows the same slots. Nothing here reads packets or tables.
//!
//! Every flow is found in both directions or in neither; [`FlowTable::check`] says so in tests.

use super::index::{Hash32, Index};
use super::slots::{Arena, Slots};
use super::tables::{BackendId, LipId, ServiceId};
use super::time::Tick;
use super::wheel::{Links, Ring, Wheel};
use crate::packet::checksum::Delta;

/// No next hop is cached.
pub(super) const NO_ADJACENCY: u32 = u32::MAX;

/// Which way a packet of a flow goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub(super) enum Direction {
    /// Client to backend.
    Request = 0,
    /// Backend to client.
    Reply = 1,
}

/// Where a flow stands in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub(super) enum State {
    /// The record is not in use.
    Free,
    /// UDP, nothing came back yet.
    UdpUnreplied,
    Udp,
    SynSent,
    SynReceived,
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

impl State {
    /// May be evicted for a new flow when the table is full.
    pub const fn half_open(self) -> bool {
        matches!(self, Self::UdpUnreplied | Self::SynSent | Self::SynReceived)
    }

    /// TCP after the handshake: a segment with none of SYN, FIN and RST changes nothing.
    #[inline(always)]
    pub const fn stays(self) -> bool {
        matches!(
            self,
            Self::Established | Self::FinClient | Self::FinServer | Self::Closing | Self::Reset
        )
    }

    /// A SYN means a new connection.
    pub const fn closing(self) -> bool {
        matches!(self, Self::FinClient | Self::FinServer | Self::Closing | Self::Reset)
    }

    pub const fn name(self) -> &'static str {
        match self {
            Self::Free => "free",
            Self::UdpUnreplied => "unreplied",
            Self::Udp => "replied",
            Self::SynSent => "syn-sent",
            Self::SynReceived => "syn-received",
            Self::Established => "established",
            Self::FinClient => "fin-client",
            Self::FinServer => "fin-server",
            Self::Closing => "closing",
            Self::Reset => "reset",
        }
    }
}

/// One flow.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Record {
    /// IPv4: what requests arrive with, client and VIP, and what replies arrive with, backend and
    /// LIP, as they lie in the packet: by [`Direction`]. IPv6: the client; the others are looked up
    /// by slot.
    pub addresses: [u64; 2],
    /// Likewise: client and VIP, backend and LIP. See [`super::tuple::ports`].
    pub ports: [u32; 2],
    pub service: ServiceId,
    pub backend: BackendId,
    pub lip: LipId,
    /// [`crate::packet::Transport`] as a number; [`Record::FREE`] if not in use.
    pub transport: u8,
    pub state: State,
    /// What translating a request does to a checksum over its addresses, and to one over addresses
    /// and ports. A reply undoes it.
    pub addresses_delta: Delta,
    pub l4_delta: Delta,
    pub last_seen: Tick,
    /// Where each direction leaves, as of the routes of `routing`; or [`NO_ADJACENCY`].
    pub adjacency: [u32; 2],
    pub routing: u32,
    pub links: Links,
}

const _: () = assert!(size_of::<Record>() == 64);

impl Record {
    pub const FREE: u8 = 0xff;

    /// A record not in use. Fields are then filled in by whoever makes the flow.
    pub const EMPTY: Self = Self {
        addresses: [0; 2],
        ports: [0; 2],
        service: ServiceId(u32::MAX),
        backend: BackendId(u32::MAX),
        lip: LipId(u16::MAX),
        transport: Self::FREE,
        state: State::Free,
        addresses_delta: Delta::NONE,
        l4_delta: Delta::NONE,
        last_seen: Tick(0),
        adjacency: [NO_ADJACENCY; 2],
        routing: 0,
        links: Links::NONE,
    };
}

/// Number of a flow's record.
pub(super) type FlowNumber = u32;

/// What the index stores: a flow and the direction in which the packet was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry(u32);

impl Entry {
    /// No flow. (There are at most [`FlowTable::MAX`].)
    pub const NONE: Self = Self(u32::MAX);

    pub const fn new(flow: FlowNumber, direction: Direction) -> Self {
        Self(flow << 1 | direction as u32)
    }

    #[inline(always)]
    pub const fn flow(self) -> FlowNumber {
        self.0 >> 1
    }

    #[inline(always)]
    pub const fn direction(self) -> Direction {
        if self.0 & 1 == 0 { Direction::Request } else { Direction::Reply }
    }
}

/// Why a flow was not inserted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Full;

/// What the sweep of the timers decided about a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sweep {
    Remove,
    /// Look again then.
    Again(Tick),
}

#[derive(Debug)]
pub(super) struct FlowTable {
    records: Slots<Record>,
    /// The hashes a flow was inserted with, by direction. Apart from the record, because only
    /// insertion and removal need them.
    hashes: Slots<[Hash32; 2]>,
    index: Index,
    wheel: Wheel,
    /// Records never used begin here.
    fresh: u32,
    /// Records used before and free now, linked by `links.next`.
    free: u32,
    used: u32,
    half_open: u32,
}

impl FlowTable {
    /// Most flows a table can hold.
    pub const MAX: u32 = 1 << 30;

    /// Allocates everything for at most `capacity` flows, from `arena` as far as it has memory.
    pub fn new(capacity: u32, now: Tick, arena: &impl Arena) -> Self {
        let capacity = capacity.clamp(1, Self::MAX);
        Self {
            records: Slots::new(arena, capacity as usize, Record::EMPTY),
            hashes: Slots::new(arena, capacity as usize, [0; 2]),
            index: Index::new(2 * capacity as usize, arena),
            wheel: Wheel::new(now),
            fresh: 0,
            free: Links::NIL,
            used: 0,
            half_open: 0,
        }
    }

    /// Bytes of memory, everything.
    pub fn memory(&self) -> usize {
        size_of_val::<[Record]>(&self.records)
            + size_of_val::<[[Hash32; 2]]>(&self.hashes)
            + self.index.memory()
            + self.wheel.memory()
    }

    /// Records and index, what every packet touches, lie in the arena's memory.
    pub fn is_lent(&self) -> bool {
        self.records.is_lent() && self.index.is_lent()
    }

    pub fn len(&self) -> u32 {
        self.used
    }

    pub fn capacity(&self) -> u32 {
        self.records.len() as u32
    }

    pub fn half_open(&self) -> u32 {
        self.half_open
    }

    pub fn index(&self) -> &Index {
        &self.index
    }

    /// What the index has first for this hash. It may belong to another tuple.
    #[inline(always)]
    pub fn first(&self, hash: Hash32) -> Entry {
        self.index.first(hash).map_or(Entry::NONE, Entry)
    }

    /// The entry with this hash for which `is_it` holds.
    pub fn find(
        &self,
        hash: Hash32,
        mut is_it: impl FnMut(&Record, Direction) -> bool,
    ) -> Option<Entry> {
        self.index
            .find(hash, |value| {
                let entry = Entry(value);
                self.get(entry.flow()).is_some_and(|record| is_it(record, entry.direction()))
            })
            .map(Entry)
    }

    #[inline(always)]
    pub fn get(&self, flow: FlowNumber) -> Option<&Record> {
        self.records.get(flow as usize)
    }

    #[inline(always)]
    pub fn get_mut(&mut self, flow: FlowNumber) -> Option<&mut Record> {
        self.records.get_mut(flow as usize)
    }

    /// By [`FlowNumber`]. What the wheel and the index go by must stay as it is.
    #[inline(always)]
    pub fn records_mut(&mut self) -> &mut [Record] {
        &mut self.records
    }

    /// Insert a flow under its two hashes, by [`Direction`]; it is looked at again at `deadline`.
    pub fn insert(
        &mut self,
        mut record: Record,
        hashes: [Hash32; 2],
        deadline: Tick,
    ) -> Result<FlowNumber, Full> {
        let flow = self.take_free().ok_or(Full)?;
        let number = flow as usize;
        // Before the index may ask for them.
        self.hashes[number] = hashes;
        for direction in [Direction::Request, Direction::Reply] {
            let known = &self.hashes;
            let hash_of = |value: u32| known[(value >> 1) as usize][(value & 1) as usize];
            let value = Entry::new(flow, direction).0;
            let hash = hashes[direction as usize];
            if !self.index.insert(hash, value, hash_of) {
                if direction == Direction::Reply {
                    self.index.remove(hashes[0], Entry::new(flow, Direction::Request).0);
                }
                self.give_free(flow);
                return Err(Full);
            }
        }
        record.links = Links::NONE;
        self.records[number] = record;
        self.half_open += u32::from(record.state.half_open());
        self.wheel.link(&mut self.records, flow, ring(record.state), deadline);
        Ok(flow)
    }

    /// Remove a flow in use; returns what it was.
    pub fn remove(&mut self, flow: FlowNumber) -> Record {
        let number = flow as usize;
        let record = self.records[number];
        if record.state == State::Free {
            return record;
        }
        self.wheel.unlink(&mut self.records, flow);
        self.release(flow, record.state);
        record
    }

    /// Move a flow to another state, to be looked at again at `deadline`.
    pub fn set_state(&mut self, flow: FlowNumber, state: State, deadline: Tick) {
        let number = flow as usize;
        let old = self.records[number].state;
        self.half_open -= u32::from(old.half_open());
        self.half_open += u32::from(state.half_open());
        self.wheel.unlink(&mut self.records, flow);
        self.records[number].state = state;
        self.wheel.link(&mut self.records, flow, ring(state), deadline);
    }

    /// The half-open flow that is due soonest.
    pub fn eviction_candidate(&self) -> Option<FlowNumber> {
        if self.half_open == 0 {
            return None;
        }
        self.wheel.nearest(Ring::HalfOpen)
    }

    /// Look at the flows whose time has come, at most `budget` of them.
    pub fn sweep(
        &mut self,
        now: Tick,
        mut budget: u32,
        mut decide: impl FnMut(&mut Record) -> Sweep,
    ) {
        if self.used == 0 {
            self.wheel.skip_to(now);
        }
        while budget > 0 {
            let Some((flow, ring)) = self.wheel.next_due(&mut self.records, now, &mut budget)
            else {
                return;
            };
            let record = &mut self.records[flow as usize];
            let state = record.state;
            match decide(record) {
                Sweep::Remove => self.release(flow, state),
                Sweep::Again(at) => self.wheel.link(&mut self.records, flow, ring, at),
            }
        }
    }

    /// Forget a flow that is on no wheel any more.
    fn release(&mut self, flow: FlowNumber, state: State) {
        let hashes = self.hashes[flow as usize];
        for direction in [Direction::Request, Direction::Reply] {
            let removed =
                self.index.remove(hashes[direction as usize], Entry::new(flow, direction).0);
            debug_assert!(removed, "flow {flow} was not indexed");
        }
        self.half_open -= u32::from(state.half_open());
        self.give_free(flow);
    }

    fn take_free(&mut self) -> Option<FlowNumber> {
        let flow = if self.free != Links::NIL {
            let flow = self.free;
            self.free = self.records[flow as usize].links.next;
            flow
        } else if (self.fresh as usize) < self.records.len() {
            self.fresh += 1;
            self.fresh - 1
        } else {
            return None;
        };
        self.used += 1;
        Some(flow)
    }

    fn give_free(&mut self, flow: FlowNumber) {
        let record = &mut self.records[flow as usize];
        *record = Record::EMPTY;
        record.links.next = self.free;
        self.free = flow;
        self.used -= 1;
    }
}

const fn ring(state: State) -> Ring {
    if state.half_open() { Ring::HalfOpen } else { Ring::Open }
}

impl super::wheel::Linked for Slots<Record> {
    fn links(&mut self, item: u32) -> &mut Links {
        &mut self[item as usize].links
    }
}

#[cfg(test)]
impl FlowTable {
    /// Panics if the table contradicts itself.
    pub fn check(&self) {
        let used: Vec<u32> = (0..self.capacity())
            .filter(|&flow| self.records[flow as usize].state != State::Free)
            .collect();
        assert_eq!(used.len() as u32, self.used, "records in use");
        let half_open =
            used.iter().filter(|&&flow| self.records[flow as usize].state.half_open()).count();
        assert_eq!(half_open as u32, self.half_open, "half-open flows");
        for &flow in &used {
            for direction in [Direction::Request, Direction::Reply] {
                let hash = self.hashes[flow as usize][direction as usize];
                let value = Entry::new(flow, direction).0;
                let found = self.index.find(hash, |found| found == value);
                assert_eq!(found, Some(value), "flow {flow} {direction:?}");
            }
        }
        assert_eq!(self.index.len(), 2 * used.len(), "index entries");
        let mut linked =
            self.wheel.all(&self.records, |records, item| records[item as usize].links.next);
        linked.sort_unstable();
        assert_eq!(linked, used, "flows with a timer");
    }
}

//! Which local ports belong to whom when replies are steered by RSS.
//!
//! The owner of a reply must not depend on anything that changes: routes move backends from one
//! port to another, flows stay. So the local ports are divided, once and for all, into a few equal
//! ranges, each with its own rule. With one kind of NIC there is one range: all of them, by that
//! NIC's hash. Where ports hash differently, each hash has a range, and a flow takes its local port
//! from the range of the port that leads to its backend. Where some worker would have no port at
//! all (no entry of the redirection table leads to it; the NIC hashes addresses only), there is a
//! range that is shared out by number as in software steering.

use super::rss::{Hashed, RssFunction, TRANSPORTS};
use super::solve::Solver;
use super::{FIRST_LOCAL_PORT, RssInput};
use crate::forward::tables::{LipId, PortId, WorkerId};
use crate::packet::Transport;
use std::net::{IpAddr, SocketAddr};

/// Most different hashes among the ports that are followed.
pub const MOST_FUNCTIONS: usize = 3;
/// Pairs that turn out not to be usable, one after the other, before a range is given up.
const MOST_SKIPPED: u32 = 1024;

/// Ownership of replies by RSS.
#[derive(Debug, PartialEq, Eq)]
pub struct Plan {
    /// At most [`MOST_FUNCTIONS`], all different.
    functions: Vec<RssFunction>,
    /// By port: which of them it has.
    of_port: Vec<Option<u8>>,
    layouts: [Layout; 4],
}

/// How the local ports of one transport are divided.
#[derive(Debug, PartialEq, Eq)]
pub struct Layout {
    /// log2 of the ports in a range.
    size: u32,
    ranges: Vec<Rule>,
}

/// Who owns the ports of a range.
#[derive(Debug, PartialEq, Eq)]
enum Rule {
    /// By number.
    Shared,
    /// The hash over addresses and ports leads to the owner.
    Ports(u8, Solver),
    /// The hash over addresses leads to the owner, whatever the port.
    Addresses(u8),
}

impl Plan {
    pub fn new(functions: Vec<RssFunction>, of_port: Vec<Option<u8>>, workers: u16) -> Self {
        let layouts = TRANSPORTS.map(|transport| Layout::new(transport, &functions, workers));
        Self { functions, of_port, layouts }
    }

    pub fn layout(&self, transport: Transport) -> &Layout {
        &self.layouts[transport as usize]
    }

    /// Whether replies that come in by this port reach their worker by its hash.
    pub fn steers(&self, port: usize, transport: Transport) -> bool {
        let function = self.of_port.get(port).copied().flatten();
        function.is_some_and(|function| self.layout(transport).range_of(function).is_some())
    }

    /// Whether the hash of this port names the owner of replies to this local port.
    pub fn promises(&self, port: usize, transport: Transport, local_port: u16) -> bool {
        let function = self.of_port.get(port).copied().flatten();
        match self.layout(transport).rule(local_port) {
            Rule::Shared => false,
            Rule::Ports(number, _) | Rule::Addresses(number) => function == Some(*number),
        }
    }

    pub fn depends_on_way(&self) -> bool {
        self.functions.len() > 1
    }

    pub fn owner(&self, input: &RssInput, local_port: u16, workers: u16) -> WorkerId {
        let layout = self.layout(input.transport);
        let function = match layout.rule(local_port) {
            Rule::Shared => None,
            Rule::Ports(function, _) | Rule::Addresses(function) => self.function(*function),
        };
        let worker = function.and_then(|function| function.worker(input));
        worker.unwrap_or_else(|| by_port(local_port, workers))
    }

    pub fn best_range(&self, transport: Transport, worker: WorkerId, way: Option<PortId>) -> usize {
        let layout = self.layout(transport);
        if layout.len() == 1 {
            return 0;
        }
        let function = match way {
            Some(port) => self.of_port.get(usize::from(port.0)).copied().flatten(),
            None => Some(0),
        };
        let reaches =
            |function: &u8| self.function(*function).is_some_and(|f| !f.entries(worker).is_empty());
        function
            .filter(reaches)
            .and_then(|function| layout.range_of(function))
            .or_else(|| layout.ranges.iter().position(|rule| *rule == Rule::Shared))
            .unwrap_or(0)
    }

    pub fn pairs<'a>(
        &'a self,
        range: usize,
        (worker, workers): (WorkerId, u16),
        (transport, backend): (Transport, SocketAddr),
        lips: &'a [LipId],
    ) -> Pairs<'a> {
        let layout = self.layout(transport);
        let first = range << layout.size;
        let ports = (first as u32, (first + (1 << layout.size)) as u32);
        match layout.ranges.get(range) {
            Some(Rule::Ports(function, solver)) if let Some(f) = self.function(*function) => {
                let backend =
                    f.source(transport, backend.ip()) ^ f.source_port(transport, backend.port());
                let entries = f.entries(worker);
                Pairs::Ports { lips, hash: Hash { f, transport, backend }, solver, entries }
            }
            Some(Rule::Addresses(function)) if let Some(f) = self.function(*function) => {
                let backend = f.source(transport, backend.ip());
                let numbers = Numbers::new(ports, 0, 1);
                Pairs::Addresses { lips, hash: Hash { f, transport, backend }, worker, numbers }
            }
            _ => Pairs::Numbers { lips, numbers: Numbers::new(ports, worker.0, workers) },
        }
    }

    fn function(&self, number: u8) -> Option<&RssFunction> {
        self.functions.get(usize::from(number))
    }
}

impl Layout {
    fn new(transport: Transport, functions: &[RssFunction], workers: u16) -> Self {
        let mut kinds: Vec<Option<u8>> = (0u8..)
            .zip(functions)
            .filter(|(_, f)| f.hashed(transport) != Hashed::Nothing)
            .map(|(number, _)| Some(number))
            .collect();
        let leaves_out = |f: &RssFunction| {
            f.hashed(transport) == Hashed::Addresses
                || (0..workers).any(|worker| f.entries(WorkerId(worker)).is_empty())
        };
        let chosen = |kind: &Option<u8>| kind.and_then(|n| functions.get(usize::from(n)));
        if kinds.is_empty() || kinds.iter().filter_map(chosen).any(leaves_out) {
            kinds.push(None);
        }
        let ranges = kinds.len().next_power_of_two();
        let size = 16 - ranges.trailing_zeros();
        let ranges = (0..ranges).zip(kinds.iter().cycle()).map(|(range, kind)| {
            let (Some(number), Some(f)) = (kind, chosen(kind)) else {
                return Rule::Shared;
            };
            if f.hashed(transport) == Hashed::Addresses {
                return Rule::Addresses(*number);
            }
            let adds = |port| f.destination_port(transport, port);
            let base = (range << size) as u16;
            Solver::new(base, size, f.bits(), adds)
                .map_or(Rule::Shared, |solver| Rule::Ports(*number, solver))
        });
        Self { size, ranges: ranges.collect() }
    }

    pub fn len(&self) -> usize {
        self.ranges.len()
    }

    fn rule(&self, local_port: u16) -> &Rule {
        // As many ranges of this size as there are ports.
        &self.ranges[usize::from(local_port) >> self.size]
    }

    fn range_of(&self, function: u8) -> Option<usize> {
        self.ranges.iter().position(|rule| match rule {
            Rule::Shared => false,
            Rule::Ports(number, _) | Rule::Addresses(number) => *number == function,
        })
    }
}

/// Pairs of LIP and local port, numbered from 0.
#[derive(Debug)]
pub(in crate::forward) enum Pairs<'a> {
    Numbers { lips: &'a [LipId], numbers: Numbers },
    Ports { lips: &'a [LipId], hash: Hash<'a>, solver: &'a Solver, entries: &'a [u16] },
    Addresses { lips: &'a [LipId], hash: Hash<'a>, worker: WorkerId, numbers: Numbers },
}

/// The hash of replies from one backend.
#[derive(Debug, Clone, Copy)]
pub(in crate::forward) struct Hash<'a> {
    f: &'a RssFunction,
    transport: Transport,
    /// What the backend's side adds.
    backend: u32,
}

/// Every `step`th port from `first` on.
#[derive(Debug, Clone, Copy)]
pub(in crate::forward) struct Numbers {
    first: u32,
    step: u32,
    count: u32,
}

impl<'a> Pairs<'a> {
    /// A worker's share by number of all ports.
    pub fn shared(lips: &'a [LipId], worker: WorkerId, workers: u16) -> Self {
        Self::Numbers { lips, numbers: Numbers::new((0, 1 << 16), worker.0, workers) }
    }

    /// All ports.
    pub fn all(lips: &'a [LipId]) -> Self {
        Self::Numbers { lips, numbers: Numbers::new((0, 1 << 16), 0, 1) }
    }

    /// How many numbers there are. Some stand for no pair, see [`Pairs::get`].
    pub fn len(&self) -> u32 {
        let per_lip = match self {
            Self::Numbers { numbers, .. } | Self::Addresses { numbers, .. } => numbers.count,
            Self::Ports { solver, entries, .. } => solver.count() * entries.len() as u32,
        };
        per_lip.saturating_mul(self.lips().len() as u32)
    }

    /// How many pairs there are, whatever the backend: of [`Pairs::len`], without those that are
    /// reserved or lead elsewhere.
    pub fn usable(&self) -> u32 {
        match self {
            Self::Numbers { .. } => self.len(),
            Self::Ports { hash, entries, solver, .. } => {
                let ports = u32::from(solver.reserves()) * u32::from(FIRST_LOCAL_PORT);
                // Spread evenly over the entries of the table.
                let reserved = (ports >> hash.f.bits()) * entries.len() as u32;
                self.len().saturating_sub(reserved.saturating_mul(self.lips().len() as u32))
            }
            Self::Addresses { hash, worker, .. } => {
                let share = hash.f.entries(*worker).len() as u64;
                ((u64::from(self.len()) * share) >> hash.f.bits()) as u32
            }
        }
    }

    /// How many numbers in a row may stand for no pair before it is time to give up.
    pub fn patience(&self) -> u32 {
        match self {
            Self::Numbers { .. } => 0,
            Self::Ports { .. } => MOST_SKIPPED,
            Self::Addresses { lips, .. } => MOST_SKIPPED.min(lips.len() as u32),
        }
    }

    /// The pair of this number (below [`Pairs::len`]); the port in host order. `None`: the number
    /// stands for a reserved port or one that leads to another worker. `address_of` a LIP.
    #[inline]
    pub fn get(
        &self,
        at: u32,
        address_of: impl Fn(LipId) -> Option<IpAddr>,
    ) -> Option<(LipId, u16)> {
        let count = self.lips().len() as u32;
        match *self {
            Self::Numbers { lips, numbers } => {
                let lip = *lips.get((at % count) as usize)?;
                Some((lip, numbers.get(at / count)))
            }
            Self::Ports { lips, hash, solver, entries } => {
                let (rest, n) = (at / solver.count(), at % solver.count());
                let lip = *lips.get((rest % count) as usize)?;
                let entry = *entries.get((rest / count) as usize)?;
                let adds = (hash.of(address_of(lip)?) ^ u32::from(entry)) & hash.f.mask();
                let port = solver.port(adds, n);
                (port >= FIRST_LOCAL_PORT).then_some((lip, port))
            }
            Self::Addresses { lips, hash, worker, numbers } => {
                let lip = *lips.get((at % count) as usize)?;
                let ours = hash.f.worker_of(hash.of(address_of(lip)?)) == worker;
                ours.then(|| (lip, numbers.get(at / count)))
            }
        }
    }

    fn lips(&self) -> &'a [LipId] {
        match self {
            Self::Numbers { lips, .. }
            | Self::Ports { lips, .. }
            | Self::Addresses { lips, .. } => lips,
        }
    }
}

impl Hash<'_> {
    /// Of a reply to this LIP, but for what its local port adds.
    fn of(&self, lip: IpAddr) -> u32 {
        self.backend ^ self.f.destination(self.transport, lip)
    }
}

impl Numbers {
    /// Those of `from..to` that are not reserved and leave `remainder` when divided by `modulus`.
    fn new((from, to): (u32, u32), remainder: u16, modulus: u16) -> Self {
        let step = u32::from(modulus.max(1));
        let from = from.max(u32::from(FIRST_LOCAL_PORT));
        let first = from + (u32::from(remainder) + step - from % step) % step;
        Self { first, step, count: to.saturating_sub(first).div_ceil(step) }
    }

    fn get(self, n: u32) -> u16 {
        (self.first + n * self.step) as u16
    }
}

/// The owner of a local port, by its number.
pub fn by_port(local_port: u16, workers: u16) -> WorkerId {
    WorkerId(local_port % workers.max(1))
}

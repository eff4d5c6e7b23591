//! Which worker a packet belongs to, and which local ports a worker may use so that replies come
//! back to it.
//!
//! The owner of a reply is a function of its addresses and ports alone, fixed when the process
//! starts, so every worker can say who it is: no LIP:port is given twice, and a packet that arrives
//! at the wrong worker (an ICMP error, a NIC that does not what it says) is handed over, never
//! lost. There are three such functions, see [`choose`]:
//!
//! 1. flow rules: a LIP belongs to one worker, and the NIC has a rule for it;
//! 2. RSS: the worker to whose queue the NIC's hash leads ([`RssFunction`]);
//! 3. software: local port modulo the number of workers, on every port.
//!
//! In the first two a worker takes what it receives for its own until its flow table knows nothing
//! of it ([`Steering::trusts`]); in the third it asks for the owner first.

mod choose;
mod layout;
mod rss;
mod solve;
#[cfg(test)]
pub(crate) mod tests;
mod toeplitz;

pub use choose::{Choice, Mode, PortOffer, PortSteering, Wish, choose};
pub use rss::{Hashed, RssFunction, RssOffer, TRANSPORTS};
pub use toeplitz::Toeplitz;

use super::tables::{LipId, PortId, WorkerId};
use crate::packet::Transport;
pub(in crate::forward) use layout::Pairs;
use layout::{Layout, Plan};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// First local port of flows; below are ports that mean something to middleboxes and people.
pub const FIRST_LOCAL_PORT: u16 = 1024;

/// What RSS hashes of a TCP or UDP packet. Ports in host order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RssInput {
    pub transport: Transport,
    pub source: IpAddr,
    pub destination: IpAddr,
    pub source_port: u16,
    pub destination_port: u16,
}

/// How packets reach their worker. The same for all workers, for the life of the process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Steering {
    requests: Requests,
    replies: Replies,
    /// By port and [`Transport`]: the NIC leads replies to their owner, or most of them.
    steered: Vec<[bool; 4]>,
}

/// Owners of what clients send.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Requests {
    /// By port: whoever receives. Such ports spread by the same hash, so that a client whose
    /// packets move from one port to another keeps its worker.
    receiver: Vec<bool>,
    /// That hash, if it is known: of requests that arrive elsewhere.
    reference: Option<Arc<RssFunction>>,
}

/// Owners of what backends send.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Replies {
    Software,
    FlowRules,
    Rss(Arc<Plan>),
}

impl Default for Steering {
    fn default() -> Self {
        Self::software(Vec::new())
    }
}

impl Steering {
    /// Software steering. `rss`: by port: its receive queues are chosen by an RSS hash over
    /// addresses and ports, the same hash on all ports; missing ones have none.
    pub fn software(rss: Vec<bool>) -> Self {
        let requests = Requests { receiver: rss, reference: None };
        Self { requests, replies: Replies::Software, steered: Vec::new() }
    }

    /// What arrives on this port is the receiver's until its flow table says otherwise.
    pub fn trusts(&self, port: PortId) -> bool {
        let receiver = self.requests.receiver.get(usize::from(port.0)) == Some(&true);
        receiver && TRANSPORTS.into_iter().all(|transport| self.brings_replies(port, transport))
    }

    /// Replies that arrive on this port are the receiver's until its flow table says otherwise.
    pub fn brings_replies(&self, port: PortId, transport: Transport) -> bool {
        let steered = self.steered.get(usize::from(port.0));
        steered.is_some_and(|steered| of_transport(*steered, transport))
    }

    /// A reply to this local port that arrives on this port should be at its owner.
    pub fn promises(&self, port: PortId, transport: Transport, local_port: u16) -> bool {
        match &self.replies {
            Replies::Software => false,
            Replies::FlowRules => self.brings_replies(port, transport),
            Replies::Rss(plan) => plan.promises(usize::from(port.0), transport, local_port),
        }
    }

    /// The owner of a request that arrived on `port`; `None`: whoever received it. `itself`: it is
    /// the request that arrived, whole, not a fragment of it or an error about its answer. `hash`: of its tuple, 32 uniform
    /// bits that all workers compute alike.
    pub fn owner_of_request(
        &self,
        port: PortId,
        itself: bool,
        hash: u32,
        workers: u16,
        input: impl FnOnce() -> RssInput,
    ) -> Option<WorkerId> {
        let receiver = self.requests.receiver.get(usize::from(port.0)) == Some(&true);
        if receiver && itself {
            return None;
        }
        if let Some(function) = &self.requests.reference
            && let Some(worker) = function.worker(&input())
        {
            return Some(worker);
        }
        (!receiver).then(|| WorkerId(((u64::from(hash) * u64::from(workers)) >> 32) as u16))
    }

    /// The owner of a reply to this LIP and local port (host order).
    pub fn owner_of_reply(
        &self,
        lip: LipId,
        local_port: u16,
        workers: u16,
        input: impl FnOnce() -> RssInput,
    ) -> WorkerId {
        match &self.replies {
            Replies::Software => layout::by_port(local_port, workers),
            Replies::FlowRules => owner_of_lip(lip, workers),
            Replies::Rss(plan) => {
                let input = input();
                plan.owner(&input, local_port, workers)
            }
        }
    }

    /// Whether a worker may use this LIP at all.
    pub fn may_use(&self, lip: LipId, worker: WorkerId, workers: u16) -> bool {
        self.replies != Replies::FlowRules || owner_of_lip(lip, workers) == worker
    }

    /// Into how many ranges local ports are divided: usually one. See [`Steering::pairs`].
    pub(in crate::forward) fn ranges(&self, transport: Transport) -> usize {
        self.layout(transport).map_or(1, Layout::len)
    }

    /// Whether [`Steering::best_range`] depends on the port toward the backend.
    pub(in crate::forward) fn depends_on_way(&self) -> bool {
        matches!(&self.replies, Replies::Rss(plan) if plan.depends_on_way())
    }

    /// The range of local ports from which to take first; `way`: the port toward the backend, where
    /// its replies will come in.
    pub(in crate::forward) fn best_range(
        &self,
        transport: Transport,
        worker: WorkerId,
        way: Option<PortId>,
    ) -> usize {
        match &self.replies {
            Replies::Rss(plan) => plan.best_range(transport, worker, way),
            Replies::Software | Replies::FlowRules => 0,
        }
    }

    /// The pairs of LIP and local port that a worker may use toward one backend, out of one range
    /// of local ports. `lips`: those that it [may use](Steering::may_use).
    pub(in crate::forward) fn pairs<'a>(
        &'a self,
        range: usize,
        (worker, workers): (WorkerId, u16),
        (transport, backend): (Transport, SocketAddr),
        lips: &'a [LipId],
    ) -> Pairs<'a> {
        match &self.replies {
            Replies::Software => Pairs::shared(lips, worker, workers),
            Replies::FlowRules => Pairs::all(lips),
            Replies::Rss(plan) => plan.pairs(range, (worker, workers), (transport, backend), lips),
        }
    }

    fn layout(&self, transport: Transport) -> Option<&Layout> {
        match &self.replies {
            Replies::Rss(plan) => Some(plan.layout(transport)),
            Replies::Software | Replies::FlowRules => None,
        }
    }
}

/// With flow rules: the worker that a LIP belongs to. `control` numbers LIPs so that every worker
/// has its share of each family.
pub fn owner_of_lip(lip: LipId, workers: u16) -> WorkerId {
    WorkerId(lip.0 % workers.max(1))
}

/// The element of an array by [`Transport`].
fn of_transport<T: Copy>(all: [T; 4], transport: Transport) -> T {
    all[transport as usize]
}

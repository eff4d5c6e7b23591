//! What a worker shows to the rest of the process, and how tables reach it.
//!
//! Every field is written by one side only, with plain stores; nobody waits for anybody.

use super::idle::Rest;
use crate::forward::{Tables, WorkerStats};
use arc_swap::ArcSwap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// The latest tables. Written by `control`, taken by workers between bursts.
#[derive(Debug)]
pub struct Published {
    /// Changes after `tables`, so that a worker that sees a new epoch finds tables at least so new.
    epoch: AtomicU64,
    tables: ArcSwap<Tables>,
}

impl Published {
    pub fn new(tables: Arc<Tables>) -> Self {
        Self { epoch: AtomicU64::new(tables.epoch()), tables: ArcSwap::new(tables) }
    }

    pub fn publish(&self, tables: Arc<Tables>) {
        let epoch = tables.epoch();
        self.tables.store(tables);
        self.epoch.store(epoch, Ordering::Release);
    }

    /// The latest tables, if they are newer than `epoch`. One load when they are not.
    pub fn newer_than(&self, epoch: u64) -> Option<Arc<Tables>> {
        (self.epoch.load(Ordering::Acquire) > epoch).then(|| self.tables.load_full())
    }

    pub fn load(&self) -> Arc<Tables> {
        self.tables.load_full()
    }
}

/// Where a worker is, and its memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// NUMA node of the worker's core; `None`: not known.
    pub node: Option<u32>,
    pub flows: FlowMemory,
}

/// Where the flow table lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FlowMemory {
    /// `node`: as DPDK says; `None`: it does not.
    Hugepages {
        node: Option<u32>,
    },
    Ordinary {
        why: String,
    },
}

impl Place {
    /// What makes the flow table slower than it could be here, in words; `None`: nothing known.
    pub fn hint(&self) -> Option<String> {
        match (&self.flows, self.node) {
            (FlowMemory::Hugepages { node: Some(flows) }, Some(own)) if *flows != own => {
                Some(format!("flows on NUMA node {flows}, the worker on {own}"))
            }
            (FlowMemory::Hugepages { .. }, _) => None,
            (FlowMemory::Ordinary { why }, _) => Some(format!("flows in ordinary memory: {why}")),
        }
    }
}

impl fmt::Display for FlowMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hugepages { node: Some(node) } => write!(f, "hugepages of NUMA node {node}"),
            Self::Hugepages { node: None } => f.write_str("hugepages"),
            Self::Ordinary { why } => write!(f, "ordinary memory: {why}"),
        }
    }
}

/// One worker's signs of life and its counters. Apart from those of others, by cache lines and by
/// the pairs of them that CPUs fetch together.
#[derive(Debug)]
#[repr(align(128))]
pub struct Shared {
    pub core: u16,
    /// Told by the worker's thread when it begins.
    pub place: OnceLock<Place>,
    pub stats: Arc<WorkerStats>,
    /// Time of the last completed turn, nanoseconds of the node's clock.
    pub beat_ns: AtomicU64,
    /// Epoch of the tables in use.
    pub epoch: AtomicU64,
    /// Time spent on turns that found work, nanoseconds.
    pub busy_ns: AtomicU64,
    /// Ask for a synthetic packet to be sent through the worker: any value not asked before.
    pub probe_asked: AtomicU64,
    /// The last asked value whose synthetic packet came back right.
    pub probe_answered: AtomicU64,
    /// Leave the loop.
    pub stop: AtomicBool,
    /// What it does when idle, and why. Written by the worker, hardly ever.
    rest: Mutex<(Rest, String)>,
}

impl Shared {
    pub fn new(core: u16, stats: Arc<WorkerStats>) -> Self {
        Self {
            core,
            place: OnceLock::new(),
            stats,
            beat_ns: AtomicU64::new(0),
            epoch: AtomicU64::new(0),
            busy_ns: AtomicU64::new(0),
            probe_asked: AtomicU64::new(0),
            probe_answered: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            rest: Mutex::new((Rest::Spins, "it has not begun yet".to_owned())),
        }
    }

    /// What it does when idle, and why.
    pub fn rest(&self) -> (Rest, String) {
        self.rest.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn rests(&self, rest: Rest, why: String) {
        *self.rest.lock().unwrap_or_else(PoisonError::into_inner) = (rest, why);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hint_says_what_is_slower_than_it_could_be() {
        let hugepages = |node| FlowMemory::Hugepages { node };
        let ordinary = FlowMemory::Ordinary { why: "hugepages = false".to_owned() };
        let cases = [
            (Some(0), hugepages(Some(0)), None, "hugepages of NUMA node 0"),
            (Some(0), hugepages(None), None, "hugepages"),
            (None, hugepages(Some(1)), None, "hugepages of NUMA node 1"),
            (
                Some(0),
                hugepages(Some(1)),
                Some("flows on NUMA node 1, the worker on 0"),
                "hugepages of NUMA node 1",
            ),
            (
                Some(0),
                ordinary,
                Some("flows in ordinary memory: hugepages = false"),
                "ordinary memory: hugepages = false",
            ),
        ];
        for (node, flows, hint, shown) in cases {
            let place = Place { node, flows };
            assert_eq!((place.hint().as_deref(), place.flows.to_string().as_str()), (hint, shown));
        }
    }
}

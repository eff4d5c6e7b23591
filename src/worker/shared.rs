//! What a worker shows to the rest of the process, and how tables reach it.
//!
//! Every field is written by one side only, with plain stores; nobody waits for anybody.

use crate::forward::{Tables, WorkerStats};
use arc_swap::ArcSwap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

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

/// One worker's signs of life and its counters. Apart from those of others, by cache lines and by
/// the pairs of them that CPUs fetch together.
#[derive(Debug)]
#[repr(align(128))]
pub struct Shared {
    pub core: u16,
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
}

impl Shared {
    pub fn new(core: u16, stats: Arc<WorkerStats>) -> Self {
        Self {
            core,
            stats,
            beat_ns: AtomicU64::new(0),
            epoch: AtomicU64::new(0),
            busy_ns: AtomicU64::new(0),
            probe_asked: AtomicU64::new(0),
            probe_answered: AtomicU64::new(0),
            stop: AtomicBool::new(false),
        }
    }
}

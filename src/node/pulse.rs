//! The workers as the control plane watches them: alive or stalled, which tables, how busy.

use crate::control::liveness::{Liveness, Signs};
use crate::control::owner::Owner;
use crate::control::state::Event;
use crate::worker::Shared;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How far apart [`Pulse::busy`] is measured.
const BUSY_WINDOW_NS: u64 = 1_000_000_000;

/// Watches all workers.
#[derive(Debug)]
pub struct Pulse {
    workers: Vec<Arc<Shared>>,
    liveness: Vec<Liveness>,
    epochs: Vec<u64>,
    window_start: u64,
    busy_at_start: Vec<u64>,
    busy: Vec<f64>,
}

impl Pulse {
    pub fn new(workers: Vec<Arc<Shared>>, stall_after: Duration) -> Self {
        let count = workers.len();
        Self {
            liveness: (0..count).map(|_| Liveness::new(stall_after)).collect(),
            epochs: vec![0; count],
            window_start: 0,
            busy_at_start: vec![0; count],
            busy: vec![0.0; count],
            workers,
        }
    }

    pub fn workers(&self) -> &[Arc<Shared>] {
        &self.workers
    }

    /// Share of the last whole second that each worker had work, 0..=100.
    pub fn busy(&self) -> &[f64] {
        &self.busy
    }

    /// Look at every worker and tell the owner what changed.
    pub fn observe(&mut self, now_ns: u64, owner: &mut Owner) {
        for (index, worker) in self.workers.iter().enumerate() {
            let number = index as u16;
            let epoch = worker.epoch.load(Ordering::Acquire);
            if epoch != self.epochs[index] {
                self.epochs[index] = epoch;
                owner.handle(Event::WorkerEpoch { worker: number, epoch });
            }
            let finding = self.liveness[index].observe(
                now_ns,
                Signs {
                    beat_ns: worker.beat_ns.load(Ordering::Acquire),
                    answered: worker.probe_answered.load(Ordering::Acquire),
                },
            );
            worker.probe_asked.store(finding.ask, Ordering::Release);
            if let Some(stalled) = finding.change {
                if stalled {
                    tracing::error!(worker = number, core = worker.core, "worker stalled");
                } else {
                    tracing::info!(worker = number, core = worker.core, "worker is back");
                }
                owner.handle(Event::WorkerStalled { worker: number, stalled });
            }
        }
        self.measure(now_ns);
    }

    fn measure(&mut self, now_ns: u64) {
        let window = now_ns.saturating_sub(self.window_start);
        if window < BUSY_WINDOW_NS {
            return;
        }
        for (index, worker) in self.workers.iter().enumerate() {
            let busy = worker.busy_ns.load(Ordering::Relaxed);
            let share = busy.saturating_sub(self.busy_at_start[index]) as f64 / window as f64;
            self.busy[index] = (share * 100.0).min(100.0);
            self.busy_at_start[index] = busy;
        }
        self.window_start = now_ns;
    }
}

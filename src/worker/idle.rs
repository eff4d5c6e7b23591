//! What a worker does when a turn found no work: it spins, or rests until a while has passed or a port
//! that can tell has got a frame.
//!
//! Whether by interrupt or not, a rest is never longer than it would be without: other workers' rings,
//! new tables and ports without interrupts are looked at after it.

use super::Worker;
use super::alarm::{Alarm, Heard};
use crate::config::model::PollMode;
use crate::port::Queue;
use std::time::Duration;

/// Empty turns before a worker rests at all: work comes in clusters.
const SPINS: u32 = 64;
/// First rest; doubled on every further empty turn.
const FIRST_REST: Duration = Duration::from_micros(5);

/// What an idle worker does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rest {
    /// Looks again.
    Spins,
    /// Looks again after a while.
    Sleeps,
    /// The same, or as soon as a port has got a frame.
    WakesUp,
}

/// Counts empty turns.
#[derive(Debug)]
pub struct Idle {
    mode: PollMode,
    max_sleep: Duration,
    empty: u32,
}

impl Idle {
    pub fn new(mode: PollMode, max_sleep: Duration) -> Self {
        Self { mode, max_sleep, empty: 0 }
    }

    /// What is done at all, with an alarm or without.
    pub fn rest(&self, alarm: bool) -> Rest {
        match self.mode {
            PollMode::Throughput | PollMode::Latency => Rest::Spins,
            PollMode::Adaptive | PollMode::Interrupt if alarm => Rest::WakesUp,
            PollMode::Adaptive | PollMode::Interrupt => Rest::Sleeps,
        }
    }

    /// A turn has ended. How long to rest: at most `max_sleep`. `None`: not at all.
    pub fn after_turn(&mut self, found_work: bool) -> Option<Duration> {
        if found_work {
            self.empty = 0;
            return None;
        }
        self.empty = self.empty.saturating_add(1);
        if self.rest(false) == Rest::Spins || self.empty <= SPINS {
            return None;
        }
        let doubled = FIRST_REST.saturating_mul(1 << (self.empty - SPINS - 1).min(20));
        Some(doubled.min(self.max_sleep))
    }

    /// As after very many empty turns.
    #[cfg(test)]
    pub fn tire(&mut self) {
        self.empty = u32::MAX - 1000;
    }

    #[cfg(test)]
    pub fn is_fresh(&self) -> bool {
        self.empty == 0
    }

    /// Something has arrived: look for it for a while.
    pub fn woken(&mut self) {
        self.empty = 0;
    }
}

impl<Q: Queue> Worker<Q> {
    /// After a turn: rest, if it is time. Says whether time has passed.
    pub(super) fn rest(&mut self, found_work: bool) -> bool {
        let pause = self.idle.after_turn(found_work);
        let frames = self.frames_of_ports();
        let Some(alarm) = &mut self.alarm else {
            match pause {
                Some(pause) => std::thread::sleep(pause),
                None if !found_work => std::hint::spin_loop(),
                None => {}
            }
            return pause.is_some();
        };
        if alarm.was_silent(frames) {
            self.give_up_alarm();
            return false;
        }
        match pause {
            None => {
                if alarm.set(false) {
                    self.arm(false);
                } else if !found_work {
                    std::hint::spin_loop();
                }
                false
            }
            // What came before is not signalled: one more turn looks for it.
            Some(_) if alarm.set(true) => {
                self.arm(true);
                false
            }
            Some(pause) => {
                if alarm.wait(pause, frames) == Heard::Something {
                    self.idle.woken();
                }
                true
            }
        }
    }

    /// Frames from the queues of this worker.
    fn frames_of_ports(&self) -> u64 {
        self.shared.stats.received.packets.get() + self.shared.stats.from_kernel.packets.get()
    }

    fn arm(&mut self, on: bool) {
        for end in &mut self.ports {
            let queues = &mut end.queues;
            for queue in [&mut queues.wire, &mut queues.control].into_iter().flatten() {
                queue.arm(on);
            }
        }
    }

    /// Nothing is lost by it: it was looked at every port after each rest anyway.
    fn give_up_alarm(&mut self) {
        self.arm(false);
        self.alarm = None;
        let why = "frames came, and no interrupt";
        tracing::warn!(worker = self.id.0, why, "receive interrupts do not work: sleeping instead");
        self.shared.rests(Rest::Sleeps, why.to_owned());
    }

    /// The alarm of the queues that can tell, and what this worker does when idle, for the operator.
    pub(super) fn set_alarm(&mut self) {
        let waits = self.idle.rest(true) == Rest::WakesUp;
        let ends = self.ports.iter().map(|end| &end.queues);
        let queues = ends.flat_map(|queues| [&queues.wire, &queues.control]).flatten();
        let all = queues.clone().count();
        let lines: Vec<_> = queues.filter_map(Queue::arrivals).collect();
        let why = match (waits, lines.len()) {
            (false, _) => "as configured".to_owned(),
            (true, 0) => "no port of it has receive interrupts (dunlin ports)".to_owned(),
            (true, some) => format!("{some} of its {all} queues have receive interrupts"),
        };
        self.alarm = if waits { Alarm::new(&lines, lines.len() == all) } else { None };
        self.shared.rests(self.idle.rest(self.alarm.is_some()), why);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The pauses after so many empty turns from now on.
    fn pauses(idle: &mut Idle, turns: u32) -> Vec<u128> {
        (0..turns).filter_map(|_| Some(idle.after_turn(false)?.as_micros())).collect()
    }

    #[test]
    fn idle_workers_rest_ever_longer_up_to_their_limit() {
        for mode in [PollMode::Adaptive, PollMode::Interrupt] {
            let mut idle = Idle::new(mode, Duration::from_micros(15));
            assert_eq!(pauses(&mut idle, SPINS), []);
            assert_eq!(pauses(&mut idle, 4), [5, 10, 15, 15]);
            idle.empty = u32::MAX;
            assert_eq!(pauses(&mut idle, 1), [15]);
            assert_eq!(idle.after_turn(true), None);
            assert_eq!(pauses(&mut idle, SPINS + 1), [5]);
            idle.woken();
            assert_eq!(pauses(&mut idle, SPINS), []);
        }
    }

    #[test]
    fn the_other_modes_never_rest() {
        for mode in [PollMode::Latency, PollMode::Throughput] {
            let mut idle = Idle::new(mode, Duration::from_secs(1));
            idle.empty = u32::MAX;
            assert_eq!((idle.after_turn(false), idle.rest(true)), (None, Rest::Spins));
        }
    }
}

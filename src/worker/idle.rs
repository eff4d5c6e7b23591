//! What a worker does when a turn found no work.

use crate::config::model::PollMode;
use std::time::Duration;

/// Empty turns before an adaptive worker sleeps at all: work comes in clusters.
const SPINS: u32 = 64;
/// First sleep; doubled on every further empty turn.
const FIRST_SLEEP: Duration = Duration::from_micros(5);

/// Counts empty turns and spins or sleeps accordingly.
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

    /// A turn has ended. Sleeps at most `max_sleep`; says whether it did.
    pub fn after_turn(&mut self, found_work: bool) -> bool {
        if found_work {
            self.empty = 0;
            return false;
        }
        self.empty = self.empty.saturating_add(1);
        let pause = self.pause();
        match pause {
            Some(pause) => std::thread::sleep(pause),
            None => std::hint::spin_loop(),
        }
        pause.is_some()
    }

    fn pause(&self) -> Option<Duration> {
        if self.mode != PollMode::Adaptive || self.empty <= SPINS {
            return None;
        }
        let doubled = FIRST_SLEEP.saturating_mul(1 << (self.empty - SPINS - 1).min(20));
        Some(doubled.min(self.max_sleep))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adaptive_sleeps_ever_longer_up_to_its_limit() {
        let mut idle = Idle::new(PollMode::Adaptive, Duration::from_micros(15));
        idle.empty = SPINS;
        assert_eq!(idle.pause(), None);
        let pauses: Vec<_> = (1..5)
            .map(|n| {
                idle.empty = SPINS + n;
                idle.pause().unwrap().as_micros()
            })
            .collect();
        assert_eq!(pauses, [5, 10, 15, 15]);
        idle.empty = u32::MAX;
        assert_eq!(idle.pause(), Some(Duration::from_micros(15)));
        idle.after_turn(true);
        assert_eq!(idle.pause(), None);
    }

    #[test]
    fn the_other_modes_never_sleep() {
        for mode in [PollMode::Latency, PollMode::Throughput] {
            let mut idle = Idle::new(mode, Duration::from_secs(1));
            idle.empty = u32::MAX;
            assert_eq!(idle.pause(), None);
        }
    }
}

//! Is every worker alive? Beats, and a synthetic packet that must come back.
//!
//! A worker is stalled when it has not completed a turn, or has not answered the synthetic packet,
//! for longer than allowed. Sans-IO: the driver reads the workers' shared fields and the clock.

use std::time::Duration;

/// What a worker shows at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signs {
    /// Time of its last completed turn, nanoseconds.
    pub beat_ns: u64,
    /// Last synthetic packet that came back.
    pub answered: u64,
}

/// Watches one worker.
#[derive(Debug)]
pub struct Liveness {
    stall_after_ns: u64,
    asked: u64,
    /// When the oldest unanswered packet was sent; `None`: all answered.
    unanswered_since: Option<u64>,
    observed_ns: u64,
    /// Silence counts from here at the earliest.
    excused_ns: u64,
    stalled: bool,
}

/// What [`Liveness::observe`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Finding {
    /// Set on a change: now stalled, or alive again.
    pub change: Option<bool>,
    /// Number of the next synthetic packet to ask for.
    pub ask: u64,
}

impl Liveness {
    pub fn new(stall_after: Duration) -> Self {
        Self {
            stall_after_ns: stall_after.as_nanos() as u64,
            asked: 0,
            unanswered_since: None,
            observed_ns: 0,
            excused_ns: 0,
            stalled: false,
        }
    }

    /// Look at the worker now. To be called several times within the allowed time.
    pub fn observe(&mut self, now_ns: u64, signs: Signs) -> Finding {
        // If the observer itself was not run for so long, the whole process was stopped, and the
        // workers are owed the same time again to show that they are back.
        let away = now_ns.saturating_sub(self.observed_ns);
        if away > self.stall_after_ns && !self.stalled {
            self.excused_ns = now_ns;
        }
        self.observed_ns = now_ns;
        if signs.answered == self.asked {
            self.asked += 1;
            self.unanswered_since = Some(now_ns);
        }
        let since = |then: u64| now_ns.saturating_sub(then.max(self.excused_ns));
        let silent = since(signs.beat_ns);
        let unanswered = self.unanswered_since.map_or(0, since);
        let stalled = silent > self.stall_after_ns || unanswered > self.stall_after_ns;
        let change = (stalled != self.stalled).then_some(stalled);
        self.stalled = stalled;
        Finding { change, ask: self.asked }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn liveness() -> Liveness {
        Liveness::new(Duration::from_millis(500))
    }

    /// A worker that beats and answers whatever was asked last.
    fn healthy(liveness: &mut Liveness, until_ms: u64) -> u64 {
        let mut answered = 0;
        for ms in (0..until_ms).step_by(50) {
            let finding = liveness.observe(ms * MS, Signs { beat_ns: ms * MS, answered });
            assert_eq!(finding.change, None, "at {ms} ms");
            answered = finding.ask;
        }
        answered
    }

    #[test]
    fn a_worker_that_beats_and_answers_is_alive() {
        healthy(&mut liveness(), 10_000);
    }

    #[test]
    fn silence_is_a_stall_and_a_beat_ends_it() {
        let mut liveness = liveness();
        let answered = healthy(&mut liveness, 1_000);
        let frozen = Signs { beat_ns: 950 * MS, answered };
        assert_eq!(liveness.observe(1_450 * MS, frozen).change, None);
        assert_eq!(liveness.observe(1_451 * MS, frozen).change, Some(true));
        assert_eq!(liveness.observe(2_000 * MS, frozen).change, None, "said once");
        let asked = liveness.observe(2_050 * MS, frozen).ask;
        let thawed = Signs { beat_ns: 2_100 * MS, answered: asked };
        assert_eq!(liveness.observe(2_100 * MS, thawed).change, Some(false));
    }

    #[test]
    fn a_stopped_observer_does_not_blame_the_workers() {
        let mut liveness = liveness();
        let answered = healthy(&mut liveness, 1_000);
        let before = Signs { beat_ns: 950 * MS, answered };
        assert_eq!(liveness.observe(60_000 * MS, before).change, None, "all were stopped");
        assert_eq!(liveness.observe(60_400 * MS, before).change, None);
        assert_eq!(liveness.observe(60_501 * MS, before).change, Some(true), "still silent");
    }

    #[test]
    fn beating_without_answering_is_a_stall() {
        let mut liveness = liveness();
        healthy(&mut liveness, 1_000);
        let at = |ms: u64| Signs { beat_ns: ms * MS, answered: u64::MAX };
        let changes: Vec<_> = (1_000..1_700)
            .step_by(50)
            .filter_map(|ms| liveness.observe(ms * MS, at(ms)).change)
            .collect();
        assert_eq!(changes, [true]);
    }
}

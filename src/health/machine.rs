//! Rise and fall: how many agreeing results turn a target's state. Sans-IO.
//!
//! ```text
//!             rise successes in a row                fall failures in a row
//!   Unknown ─────────────────────────► Healthy ─────────────────────────────► Unhealthy
//!      │                                  ▲                                        │ ▲
//!      │                                  └──────── rise successes in a row ───────┘ │
//!      └──────────────────────────────── one failure ──────────────────────────────┘
//! ```
//! An unknown backend takes no traffic, so nothing is lost by believing the first failure, and an
//! operator sees it at once. Believing the first success would send clients to a backend that
//! flaps.

/// What is known of a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Too few results yet. Not to be sent traffic.
    Unknown,
    Healthy,
    Unhealthy,
}

/// A turn of the state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub healthy: bool,
    /// Reason of the result that turned it.
    pub reason: String,
}

/// The state of one target. Feed it every result in order; it cannot fail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    rise: u32,
    fall: u32,
    state: State,
    /// Results in a row that speak against the state (or, if unknown, for healthy).
    streak: u32,
}

impl Machine {
    /// An unknown target. A threshold of 0 counts as 1.
    pub fn new(rise: u32, fall: u32) -> Self {
        Self::resume(rise, fall, State::Unknown)
    }

    /// A target whose state is known from elsewhere, e.g. from before its thresholds changed.
    pub fn resume(rise: u32, fall: u32, state: State) -> Self {
        Self { rise: rise.max(1), fall: fall.max(1), state, streak: 0 }
    }

    pub fn state(&self) -> State {
        self.state
    }

    /// Results in a row toward the next turn, below the threshold that turns it.
    pub fn streak(&self) -> u32 {
        self.streak
    }

    /// Counts one result; tells if it turned the state.
    pub fn handle_result(&mut self, ok: bool, reason: &str) -> Option<Change> {
        let threshold = match (self.state, ok) {
            (State::Healthy, true) | (State::Unhealthy, false) => {
                self.streak = 0;
                return None;
            }
            (State::Unknown, false) => 1,
            (State::Unknown | State::Unhealthy, true) => self.rise,
            (State::Healthy, false) => self.fall,
        };
        self.streak += 1;
        if self.streak < threshold {
            return None;
        }
        self.streak = 0;
        self.state = if ok { State::Healthy } else { State::Unhealthy };
        Some(Change { healthy: ok, reason: reason.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Results (`+` passed, `-` failed) and after each the state: `?` unknown, `H`, `U`.
    /// Upper case where the result turned it.
    #[test]
    fn results_turn_the_state_as_the_thresholds_say() {
        let cases = [
            // rise, fall, results, states
            (1, 1, "+-+-", "HUHU"),
            (2, 1, "++-++", "?HUuH"),
            (2, 2, "++-+--+-++", "?HhhhUuuuH"),
            (3, 2, "-+++", "UuuH"),
            (3, 2, "++-+++", "??UuuH"),
            (2, 3, "++--+---", "?HhhhhhU"),
            (2, 2, "++++", "?Hhh"),
            (2, 2, "---", "Uuu"),
            (0, 0, "+-", "HU"),
        ];
        for (rise, fall, results, expected) in cases {
            let mut machine = Machine::new(rise, fall);
            let mut states = String::new();
            for result in results.chars() {
                let change = machine.handle_result(result == '+', "why");
                let state = match machine.state() {
                    State::Unknown => '?',
                    State::Healthy => 'h',
                    State::Unhealthy => 'u',
                };
                if let Some(change) = &change {
                    assert_eq!(change.healthy, state == 'h');
                    assert_eq!(change.reason, "why");
                }
                states.push(if change.is_some() { state.to_ascii_uppercase() } else { state });
            }
            assert_eq!(states, expected, "rise {rise} fall {fall} results {results}");
        }
    }

    #[test]
    fn a_resumed_state_needs_the_full_count_to_turn() {
        let mut machine = Machine::resume(2, 2, State::Healthy);
        assert_eq!(machine.handle_result(false, ""), None);
        assert_eq!(machine.streak(), 1);
        assert!(machine.handle_result(false, "").is_some_and(|change| !change.healthy));
    }

    proptest! {
        /// The state is healthy only after `rise` successes, unhealthy only after `fall` failures
        /// (or a first failure); it turns at the first moment that holds, and changes alternate.
        #[test]
        fn a_turn_is_backed_by_its_count_of_agreeing_results(
            rise in 1u32..5,
            fall in 1u32..5,
            results in proptest::collection::vec(any::<bool>(), 0..200),
        ) {
            let mut machine = Machine::new(rise, fall);
            let mut last_change = None;
            for (index, ok) in results.iter().enumerate() {
                let before = machine.state();
                let run = results[..=index].iter().rev().take_while(|r| *r == ok).count() as u32;
                let change = machine.handle_result(*ok, "");
                let turns = match (before, *ok) {
                    (State::Unknown, false) => true,
                    (State::Unknown | State::Unhealthy, true) => run >= rise,
                    (State::Healthy, false) => run >= fall,
                    (State::Healthy, true) | (State::Unhealthy, false) => false,
                };
                prop_assert_eq!(change.is_some(), turns);
                if let Some(change) = change {
                    prop_assert_eq!(change.healthy, *ok);
                    prop_assert_ne!(last_change, Some(change.healthy));
                    last_change = Some(change.healthy);
                }
            }
        }
    }
}

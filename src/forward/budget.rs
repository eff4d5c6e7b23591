//! So many of something per second, and a second's worth at once: a token bucket.

use super::time::{Tick, ms_of_ticks};

#[derive(Debug)]
pub(super) struct Budget {
    per_second: u32,
    left: u32,
    refilled: Tick,
}

impl Budget {
    pub fn new(per_second: u32, now: Tick) -> Self {
        Self { per_second, left: per_second, refilled: now }
    }

    /// Take one, if there is one.
    pub fn take(&mut self, now: Tick) -> bool {
        let passed = now.since(self.refilled).max(0) as u32;
        if passed > 0 {
            let new = ms_of_ticks(passed).saturating_mul(self.per_second.into()) / 1000;
            let left = u64::from(self.left).saturating_add(new);
            self.left = left.min(self.per_second.into()) as u32;
            self.refilled = now;
        }
        self.left = match self.left.checked_sub(1) {
            Some(left) => left,
            None => return false,
        };
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forward::time::ticks_of_ms;

    #[test]
    fn a_seconds_worth_at_once_and_then_as_time_passes() {
        let mut budget = Budget::new(100, Tick(7));
        let taken = |budget: &mut Budget, now| (0..1000).filter(|_| budget.take(now)).count();
        assert_eq!(taken(&mut budget, Tick(7)), 100);
        let half = Tick(7).plus(ticks_of_ms(500));
        assert!((49..=52).contains(&taken(&mut budget, half)));
        let late = half.plus(ticks_of_ms(60_000));
        assert_eq!(taken(&mut budget, late), 100, "no more than a second's worth");
        assert_eq!(taken(&mut budget, half), 0, "time does not go back");
    }
}

//! So many of something per second, and so many at once: a token bucket.

use super::time::Now;

/// Counts in nanoseconds: time earns them, each of what is limited costs some.
#[derive(Debug, Clone, Copy)]
pub struct Budget {
    cost: u64,
    most: u64,
    credit: u64,
    since: Now,
}

impl Budget {
    /// Full. Of 0 per second there is never one.
    pub fn new(per_second: u32, at_once: u32) -> Self {
        let cost = 1_000_000_000_u64.checked_div(per_second.into());
        let most = cost.map_or(0, |cost| cost * u64::from(at_once));
        Self { cost: cost.unwrap_or(u64::MAX), most, credit: most, since: Now(0) }
    }

    /// Take one, if there is one.
    pub fn take(&mut self, now: Now) -> bool {
        // A clock that was set back earns nothing.
        let earned = now.0.saturating_sub(self.since.0);
        self.since = now;
        self.credit = self.credit.saturating_add(earned).min(self.most);
        let enough = self.credit >= self.cost;
        if enough {
            self.credit -= self.cost;
        }
        enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn taken(budget: &mut Budget, now: u64) -> usize {
        (0..1000).filter(|_| budget.take(Now(now))).count()
    }

    #[test]
    fn what_may_be_at_once_and_then_as_time_passes() {
        let mut budget = Budget::new(100, 50);
        assert_eq!(taken(&mut budget, 7), 50);
        assert_eq!(taken(&mut budget, SECOND / 4 + 7), 25);
        assert_eq!(taken(&mut budget, 60 * SECOND), 50, "no more than may be at once");
        assert_eq!(taken(&mut budget, 59 * SECOND), 0, "time does not go back");
        assert_eq!(taken(&mut budget, 59 * SECOND + SECOND / 10), 10, "and goes on from there");
    }

    #[test]
    fn none_per_second_is_none() {
        let mut budget = Budget::new(0, 10);
        assert_eq!(taken(&mut budget, u64::MAX), 0);
    }
}

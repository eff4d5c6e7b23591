//! Time as the packet path sees it: nanoseconds in, coarse ticks stored.

/// Nanoseconds of a monotonic clock chosen by the caller. Must not go back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Now(pub u64);

/// log2 of a tick's length in nanoseconds: 16.8 ms.
const TICK_SHIFT: u32 = 24;

/// A point in time in ticks of 2^24 ns. Wraps after 2.28 years; differences stay right as long as
/// they are below half of that, and no timeout is longer than 50 days.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Tick(pub u32);

impl Now {
    pub(super) const fn tick(self) -> Tick {
        Tick((self.0 >> TICK_SHIFT) as u32)
    }
}

impl Tick {
    /// Ticks from `earlier` to this one; negative if `earlier` is later.
    pub const fn since(self, earlier: Self) -> i32 {
        self.0.wrapping_sub(earlier.0) as i32
    }

    pub const fn plus(self, ticks: u32) -> Self {
        Self(self.0.wrapping_add(ticks))
    }

    /// When it began, in the first 2.28 years.
    pub const fn start(self) -> Now {
        Now((self.0 as u64) << TICK_SHIFT)
    }
}

/// A timeout in ticks, rounded up; at least one.
pub(super) const fn ticks_of_ms(ms: u32) -> u32 {
    let ticks = (ms as u64 * 1_000_000).div_ceil(1 << TICK_SHIFT);
    if ticks == 0 { 1 } else { ticks as u32 }
}

/// Ticks as milliseconds, rounded down.
pub(super) const fn ms_of_ticks(ticks: u32) -> u64 {
    ((ticks as u64) << TICK_SHIFT) / 1_000_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_wrap() {
        let late = Now(u64::from(u32::MAX) << TICK_SHIFT).tick();
        let wrapped = Now((u64::from(u32::MAX) + 3) << TICK_SHIFT).tick();
        assert_eq!(wrapped.since(late), 3);
        assert_eq!(late.since(wrapped), -3);
        assert_eq!(late.plus(3), wrapped);
    }

    #[test]
    fn timeouts_round_up() {
        assert_eq!(ticks_of_ms(0), 1);
        assert_eq!(ticks_of_ms(1), 1);
        assert_eq!(ticks_of_ms(17), 2);
        assert!(ms_of_ticks(ticks_of_ms(900_000)) >= 900_000);
        assert!(ticks_of_ms(u32::MAX) < i32::MAX as u32);
    }
}

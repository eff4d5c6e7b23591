//! Timers: a wheel of lists, linked through the records themselves.
//!
//! O(1) to link, unlink and expire. Lazy: traffic does not touch the wheel, it only stores when a
//! flow was last seen; when its slot comes round the owner decides whether it is over or must be
//! linked again. So a deadline beyond the wheel's horizon is simply looked at once more. Two rings:
//! half-open flows apart, so that the next of them to go can be found for eviction.

use super::time::Tick;

/// Slots of each ring: a horizon of 68.7 s.
const SLOTS: u32 = 4096;
/// Set in `prev` of a list's first item: the rest is the number of the list.
const HEAD: u32 = 1 << 31;
/// Most empty slots that one call walks over.
const STRIDE: u32 = 64;

/// The place of an item in its list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Links {
    pub next: u32,
    prev: u32,
}

impl Links {
    pub const NIL: u32 = u32::MAX;
    pub const NONE: Self = Self { next: Self::NIL, prev: Self::NIL };
}

/// Where the links of an item are kept.
pub(super) trait Linked {
    fn links(&mut self, item: u32) -> &mut Links;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ring {
    HalfOpen,
    Open,
}

#[derive(Debug)]
pub(super) struct Wheel {
    /// First items: those of the half-open ring, then those of the other.
    heads: Box<[u32]>,
    /// The slot being worked on; all before are empty.
    cursor: Tick,
}

impl Wheel {
    pub fn new(now: Tick) -> Self {
        Self { heads: vec![Links::NIL; 2 * SLOTS as usize].into_boxed_slice(), cursor: now }
    }

    pub fn memory(&self) -> usize {
        size_of_val::<[u32]>(&self.heads)
    }

    /// Link an item that is in no list. Due at once if `deadline` has passed, at the horizon if it
    /// lies beyond.
    pub fn link<L: Linked>(&mut self, items: &mut L, item: u32, ring: Ring, at: Tick) {
        let ahead = at.since(self.cursor).clamp(0, SLOTS as i32 - 1) as u32;
        let list = list(ring, self.cursor.plus(ahead));
        let head = &mut self.heads[list as usize];
        let next = std::mem::replace(head, item);
        *items.links(item) = Links { next, prev: HEAD | list };
        if next != Links::NIL {
            items.links(next).prev = item;
        }
    }

    /// Take an item out of its list.
    pub fn unlink<L: Linked>(&mut self, items: &mut L, item: u32) {
        let Links { next, prev } = std::mem::replace(items.links(item), Links::NONE);
        if prev & HEAD == 0 {
            items.links(prev).next = next;
        } else if prev != Links::NIL {
            self.heads[(prev & !HEAD) as usize] = next;
        }
        if next != Links::NIL {
            items.links(next).prev = prev;
        }
    }

    /// Go on at `now` at once. Only for an empty wheel.
    pub fn skip_to(&mut self, now: Tick) {
        self.cursor = now;
    }

    /// Unlink and return an item whose slot is not after `now`. Each item, and each stride of
    /// empty slots, costs one of `budget`.
    pub fn next_due<L: Linked>(
        &mut self,
        items: &mut L,
        now: Tick,
        budget: &mut u32,
    ) -> Option<(u32, Ring)> {
        while *budget > 0 {
            *budget -= 1;
            for _ in 0..STRIDE {
                if now.since(self.cursor) < 0 {
                    return None;
                }
                for ring in [Ring::HalfOpen, Ring::Open] {
                    let item = self.heads[list(ring, self.cursor) as usize];
                    if item != Links::NIL {
                        self.unlink(items, item);
                        return Some((item, ring));
                    }
                }
                if self.cursor == now {
                    return None;
                }
                self.cursor = self.cursor.plus(1);
            }
        }
        None
    }

    /// The item of a ring whose slot comes next.
    pub fn nearest(&self, ring: Ring) -> Option<u32> {
        (0..SLOTS)
            .map(|ahead| self.heads[list(ring, self.cursor.plus(ahead)) as usize])
            .find(|&item| item != Links::NIL)
    }
}

const fn list(ring: Ring, slot: Tick) -> u32 {
    let slot = slot.0 % SLOTS;
    match ring {
        Ring::HalfOpen => slot,
        Ring::Open => SLOTS + slot,
    }
}

#[cfg(test)]
impl Wheel {
    /// Every linked item.
    pub fn all<L>(&self, items: &L, next: impl Fn(&L, u32) -> u32) -> Vec<u32> {
        let mut all = Vec::new();
        for &head in &self.heads {
            let mut item = head;
            while item != Links::NIL {
                all.push(item);
                item = next(items, item);
            }
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    impl Linked for Vec<Links> {
        fn links(&mut self, item: u32) -> &mut Links {
            &mut self[item as usize]
        }
    }

    #[test]
    fn an_idle_wheel_costs_nothing_and_never_goes_past_now() {
        let mut wheel = Wheel::new(Tick(10));
        let mut items = vec![Links::NONE; 1];
        assert_eq!(wheel.next_due(&mut items, Tick(10), &mut 5), None);
        wheel.link(&mut items, 0, Ring::Open, Tick(10));
        assert_eq!(wheel.next_due(&mut items, Tick(10), &mut 5), Some((0, Ring::Open)));
    }

    proptest! {
        /// Items come out exactly once, never early, and none is late once the wheel caught up;
        /// across the wrap of ticks as well.
        #[test]
        fn behaves_like_a_sorted_map(
            start in prop_oneof![Just(0u32), Just(u32::MAX - 50)],
            operations in prop::collection::vec((0u32..16, 0u32..300, 0u32..40), 1..200),
        ) {
            let mut now = Tick(start);
            let mut wheel = Wheel::new(now);
            let mut items = vec![Links::NONE; 16];
            let mut model: BTreeMap<u32, (Tick, Ring)> = BTreeMap::new();
            for (item, ahead, pass) in operations {
                if model.remove(&item).is_some() {
                    wheel.unlink(&mut items, item);
                } else {
                    let ring = if ahead % 2 == 0 { Ring::Open } else { Ring::HalfOpen };
                    let at = now.plus(ahead);
                    wheel.link(&mut items, item, ring, at);
                    model.insert(item, (at, ring));
                }
                let nearest = model
                    .iter()
                    .filter(|(_, (_, ring))| *ring == Ring::HalfOpen)
                    .map(|(_, (at, _))| at.since(now))
                    .min();
                let found = wheel.nearest(Ring::HalfOpen);
                prop_assert_eq!(found.map(|item| model[&item].0.since(now)), nearest);
                now = now.plus(pass);
                let mut budget = 1000;
                while let Some((item, ring)) = wheel.next_due(&mut items, now, &mut budget) {
                    let (at, expected) = model.remove(&item).unwrap();
                    prop_assert_eq!(ring, expected);
                    prop_assert!(now.since(at) >= 0);
                }
                prop_assert!(model.values().all(|(at, _)| at.since(now) > 0));
            }
        }
    }
}

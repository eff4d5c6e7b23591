//! Stable small numbers for things that come and go.
//!
//! The packet path stores ids in flow records, so a slot must not be given to another key while a
//! worker may still hold a flow that names it. The owner releases a slot only when it knows so.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

/// Maps keys to slots `0..capacity`. A slot, once released, is reused last.
#[derive(Debug)]
pub struct Slots<K> {
    by_key: HashMap<K, u32>,
    free: VecDeque<u32>,
    next: u32,
    capacity: u32,
}

impl<K: Eq + Hash + Clone> Slots<K> {
    pub fn new(capacity: u32) -> Self {
        Self { by_key: HashMap::new(), free: VecDeque::new(), next: 0, capacity }
    }

    /// The key's slot, taken now if it has none. `None`: every slot is taken.
    pub fn take(&mut self, key: &K) -> Option<u32> {
        if let Some(&slot) = self.by_key.get(key) {
            return Some(slot);
        }
        let slot = if self.next < self.capacity {
            self.next += 1;
            self.next - 1
        } else {
            self.free.pop_front()?
        };
        self.by_key.insert(key.clone(), slot);
        Some(slot)
    }

    /// Give the key's slot back. Nothing may name it any more.
    pub fn release(&mut self, key: &K) {
        if let Some(slot) = self.by_key.remove(key) {
            self.free.push_back(slot);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_keeps_its_slot_until_released() {
        let mut slots = Slots::new(2);
        assert_eq!(slots.take(&"a"), Some(0));
        assert_eq!(slots.take(&"b"), Some(1));
        assert_eq!(slots.take(&"a"), Some(0));
        assert_eq!(slots.take(&"c"), None, "full");
        slots.release(&"a");
        assert_eq!(slots.take(&"c"), Some(0));
        assert_eq!(slots.take(&"b"), Some(1));
    }

    #[test]
    fn a_released_slot_is_reused_last() {
        let mut slots = Slots::new(3);
        slots.take(&"a");
        slots.release(&"a");
        assert_eq!(slots.take(&"b"), Some(1));
        assert_eq!(slots.take(&"c"), Some(2));
        assert_eq!(slots.take(&"d"), Some(0));
    }
}

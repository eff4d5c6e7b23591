//! A small hash map for what the tables look up by address.

use super::build::Address;
use super::hash::Seed;

/// Hash map from an address and a number: open addressing, at most half full, built once. Its seed
/// is fixed: the keys are the operator's, not the senders'.
#[derive(Debug)]
pub(super) struct Map<V> {
    entries: Vec<Option<(Address, u32, V)>>,
    mask: usize,
}

impl<V: Copy> Map<V> {
    pub fn with_capacity(keys: usize) -> Self {
        let size = (2 * keys).next_power_of_two().max(8);
        Self { entries: vec![None; size], mask: size - 1 }
    }

    pub fn get(&self, address: Address, tail: u32) -> Option<V> {
        let mut at = Self::hash(address, tail) & self.mask;
        while let Some((a, t, value)) = &self.entries[at] {
            if *a == address && *t == tail {
                return Some(*value);
            }
            at = (at + 1) & self.mask;
        }
        None
    }

    /// Insert or replace. Never more keys than the map was made for.
    pub fn insert(&mut self, address: Address, tail: u32, value: V) {
        let mut at = Self::hash(address, tail) & self.mask;
        while let Some((a, t, _)) = &self.entries[at] {
            if *a == address && *t == tail {
                break;
            }
            at = (at + 1) & self.mask;
        }
        self.entries[at] = Some((address, tail, value));
    }

    #[inline(always)]
    fn hash(address: Address, tail: u32) -> usize {
        let mut halves = [0; 2];
        let (words, _) = address.0.as_chunks::<8>();
        for (half, word) in halves.iter_mut().zip(words) {
            *half = u64::from_ne_bytes(*word);
        }
        Seed::FIXED.v6(halves, [0, 0], tail, 0) as usize
    }
}

//! The index of the flow table: from the hash of a tuple to a `u32`, in 64-byte buckets.
//!
//! Each key has two buckets. It lives in its first one unless that was full (cuckoo hashing with
//! buckets: Erlingsson, Manasse, McSherry, WDAS 2006; the second bucket is computed from the first
//! and a tag, as in MemC3, NSDI'13). A bucket counts how many keys live elsewhere that would have
//! it first: a miss usually touches one cache line. Keys are not stored: the caller compares what
//! a match leads to, and there may be false matches (1 in 6 500 lookups).
//!
//! The design load is 80 %: 8 bytes per key.

/// Slots of a bucket: 10 tags of 16 bits, a count of 32, 10 values of 32.
const LANES: usize = 10;
/// Most keys per bucket, on average.
const DESIGN_LOAD: usize = 8;
/// Lowest bit of each tag lane in a word.
const LOW: u64 = 0x0001_0001_0001_0001;
/// The count is the upper half of the third word.
const COUNT_ONE: u64 = 1 << 32;
const COUNT_MASK: u64 = 0xffff_ffff << 32;
/// Lanes of the third word that hold tags.
const THIRD_TAGS: u64 = 0xffff_ffff;

#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
struct Bucket {
    tags: [u64; 3],
    values: [u32; LANES],
}

const _: () = assert!(size_of::<Bucket>() == 64);

#[derive(Debug)]
pub(super) struct Index {
    buckets: Box<[Bucket]>,
    mask: u32,
}

/// What of a key's hash the index uses. Kept by the owner of the key, for removal.
pub(super) type Hash32 = u32;

impl Index {
    /// For at most `keys` keys.
    pub fn new(keys: usize) -> Self {
        let count = keys.div_ceil(DESIGN_LOAD).max(2).next_power_of_two().min(1 << 31);
        let empty = Bucket { tags: [0; 3], values: [0; LANES] };
        Self { buckets: vec![empty; count].into_boxed_slice(), mask: count as u32 - 1 }
    }

    /// Bytes of memory.
    pub fn memory(&self) -> usize {
        size_of_val::<[Bucket]>(&self.buckets)
    }

    /// Touch the line that [`Index::first`] reads. The result is worth nothing; a caller who
    /// collects several before he uses any has them loaded side by side.
    #[inline(always)]
    pub fn touch(&self, hash: Hash32) -> u64 {
        self.bucket(hash & self.mask).tags[0]
    }

    /// The first value whose tag matches, or nothing if there is certainly no such key. A wrong
    /// first value is rare, and then [`Index::find`] has to be asked.
    #[inline(always)]
    pub fn first(&self, hash: Hash32) -> Option<u32> {
        let tag = tag(hash);
        let bucket = self.bucket(hash & self.mask);
        match bucket.first_lane(tag) {
            Some(lane) => Some(bucket.value(lane)),
            None if bucket.tags[2] & COUNT_MASK == 0 => None,
            None => {
                let other = self.bucket(self.other(hash & self.mask, tag));
                other.first_lane(tag).map(|lane| other.value(lane))
            }
        }
    }

    /// The first value with this hash for which `is_it` holds.
    pub fn find(&self, hash: Hash32, mut is_it: impl FnMut(u32) -> bool) -> Option<u32> {
        let tag = tag(hash);
        let first = hash & self.mask;
        let bucket = self.bucket(first);
        let found = bucket.find(tag, &mut is_it);
        if found.is_some() || bucket.tags[2] & COUNT_MASK == 0 {
            return found.map(|lane| bucket.value(lane));
        }
        let other = self.bucket(self.other(first, tag));
        other.find(tag, &mut is_it).map(|lane| other.value(lane))
    }

    /// Add a key. `hash_of` gives the hash a stored value was inserted with. `false`: both buckets
    /// are full and none of their keys can move; nothing changed.
    #[must_use]
    pub fn insert(&mut self, hash: Hash32, value: u32, hash_of: impl Fn(u32) -> Hash32) -> bool {
        let tag = tag(hash);
        let first = hash & self.mask;
        let second = self.other(first, tag);
        if self.put(first, tag, value) {
            return true;
        }
        if !self.put(second, tag, value) {
            // Make room in one of the two by moving a key to its other bucket.
            let Some(freed) =
                [first, second].into_iter().find(|&bucket| self.move_one(bucket, &hash_of))
            else {
                return false;
            };
            self.put(freed, tag, value);
            if freed == first {
                return true;
            }
        }
        if second != first {
            self.bucket_mut(first).tags[2] += COUNT_ONE;
        }
        true
    }

    /// Remove the key inserted with this hash and value. `false`: there is none.
    pub fn remove(&mut self, hash: Hash32, value: u32) -> bool {
        let tag = tag(hash);
        let first = hash & self.mask;
        if self.take(first, tag, value) {
            return true;
        }
        let second = self.other(first, tag);
        if second == first || !self.take(second, tag, value) {
            return false;
        }
        self.bucket_mut(first).tags[2] -= COUNT_ONE;
        true
    }

    /// Move some key of a full bucket to its other bucket.
    fn move_one(&mut self, from: u32, hash_of: &impl Fn(u32) -> Hash32) -> bool {
        for lane in 0..LANES {
            let bucket = self.bucket(from);
            let (tag, value) = (bucket.tag(lane), bucket.value(lane));
            let to = self.other(from, tag);
            if to == from || !self.put(to, tag, value) {
                continue;
            }
            self.bucket_mut(from).set_tag(lane, 0);
            let home = hash_of(value) & self.mask;
            if home == from {
                self.bucket_mut(from).tags[2] += COUNT_ONE;
            } else {
                self.bucket_mut(to).tags[2] -= COUNT_ONE;
            }
            return true;
        }
        false
    }

    /// The other bucket of a key; its own inverse.
    fn other(&self, bucket: u32, tag: u16) -> u32 {
        (bucket ^ u32::from(tag).wrapping_mul(0x5bd1_e995)) & self.mask
    }

    fn put(&mut self, bucket: u32, tag: u16, value: u32) -> bool {
        let bucket = self.bucket_mut(bucket);
        let Some(lane) = bucket.first_lane(0) else {
            return false;
        };
        bucket.set_tag(lane, tag);
        bucket.values[lane] = value;
        true
    }

    fn take(&mut self, bucket: u32, tag: u16, value: u32) -> bool {
        let bucket = self.bucket_mut(bucket);
        let Some(lane) = bucket.find(tag, &mut |found| found == value) else {
            return false;
        };
        bucket.set_tag(lane, 0);
        true
    }

    #[inline(always)]
    fn bucket(&self, number: u32) -> &Bucket {
        &self.buckets[number as usize]
    }

    fn bucket_mut(&mut self, number: u32) -> &mut Bucket {
        &mut self.buckets[number as usize]
    }
}

/// From the bits of the hash that choose the bucket last. 0 marks an empty lane.
#[inline(always)]
const fn tag(hash: Hash32) -> u16 {
    let tag = (hash >> 16) as u16;
    if tag == 0 { 1 } else { tag }
}

/// The highest bit of every lane that is zero. Exact for the lowest of them: the borrow of the
/// subtraction only spoils lanes above it.
#[inline(always)]
const fn zero_lanes(word: u64) -> u64 {
    word.wrapping_sub(LOW) & !word & (LOW << 15)
}

impl Bucket {
    /// The first lane with this tag, four lanes at a time.
    #[inline(always)]
    fn first_lane(&self, tag: u16) -> Option<usize> {
        let pattern = LOW.wrapping_mul(tag.into());
        let lane = |word: usize, among: u64| {
            let found = zero_lanes(self.tags[word] ^ pattern) & among;
            (found != 0).then(|| 4 * word + found.trailing_zeros() as usize / 16)
        };
        lane(0, !0).or_else(|| lane(1, !0)).or_else(|| lane(2, THIRD_TAGS))
    }

    fn find(&self, tag: u16, is_it: &mut impl FnMut(u32) -> bool) -> Option<usize> {
        (0..LANES).find(|&lane| self.tag(lane) == tag && is_it(self.value(lane)))
    }

    fn tag(&self, lane: usize) -> u16 {
        (self.tags[lane / 4] >> (lane % 4 * 16)) as u16
    }

    fn set_tag(&mut self, lane: usize, tag: u16) {
        let shift = lane % 4 * 16;
        let word = &mut self.tags[lane / 4];
        *word = *word & !(0xffff << shift) | u64::from(tag) << shift;
    }

    #[inline(always)]
    fn value(&self, lane: usize) -> u32 {
        self.values[lane]
    }
}

#[cfg(test)]
impl Index {
    /// Keys stored.
    pub fn len(&self) -> usize {
        let stored = |bucket: &Bucket| (0..LANES).filter(|&lane| bucket.tag(lane) != 0).count();
        self.buckets.iter().map(stored).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    /// The hash of a value in these tests; few distinct ones, so that buckets overflow.
    fn crowded(value: u32) -> Hash32 {
        (value % 7) << 16 | (value / 7 % 3)
    }

    fn spread(value: u32) -> Hash32 {
        super::super::hash::Seed::new(3).v4(u64::from(value), 0, 0) as u32
    }

    #[test]
    fn fills_to_the_design_load_without_refusing() {
        let keys = 1 << 17;
        let mut index = Index::new(keys as usize);
        assert_eq!(index.memory() / keys as usize, 8);
        for value in 0..keys {
            assert!(index.insert(spread(value), value, spread), "{value}");
        }
        let mut false_first = 0;
        for value in 0..keys {
            assert_eq!(index.find(spread(value), |found| found == value), Some(value));
            false_first += u32::from(index.first(spread(value)) != Some(value));
        }
        assert!(false_first < keys / 500, "{false_first}");
        for value in 0..keys {
            assert!(index.remove(spread(value), value));
        }
        assert!(index.buckets.iter().all(|bucket| bucket.tags == [0; 3]));
    }

    proptest! {
        /// Any operations, on hashes that collide all the time, against a map.
        #[test]
        fn behaves_like_a_map(
            operations in prop::collection::vec((any::<bool>(), 0u32..90), 1..400),
        ) {
            let mut index = Index::new(40);
            let mut model = HashMap::new();
            for (add, value) in operations {
                let hash = crowded(value);
                if add && !model.contains_key(&value) {
                    if index.insert(hash, value, crowded) {
                        model.insert(value, hash);
                    }
                } else {
                    prop_assert_eq!(index.remove(hash, value), model.remove(&value).is_some());
                }
                for value in 0..90 {
                    let found = index.find(crowded(value), |found| found == value);
                    prop_assert_eq!(found, model.get(&value).map(|_| value));
                    if found.is_some() {
                        prop_assert!(index.first(crowded(value)).is_some());
                    }
                }
                prop_assert_eq!(index.len(), model.len());
            }
        }
    }
}

//! Maglev consistent hashing (Eisenbud et al., NSDI'16, §3.4), with weights.
//!
//! The table depends only on the set of (address, port, weight) and on its size: nodes that know
//! the same backends choose the same one for a flow without talking, in whatever order they learnt
//! of them. Removing a backend moves its own share and little else.

use super::hash::Seed;
use std::net::{IpAddr, SocketAddr};

/// Table sizes: primes about four times apart.
const SIZES: [u32; 6] = [1021, 4093, 16381, 65537, 262_147, 1_048_573];
/// Slots per backend that keep equal shares within 1 % of each other.
const SLOTS_PER_SHARE: u64 = 100;

/// A backend that takes its part of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Member {
    pub address: SocketAddr,
    /// More than 0.
    pub weight: u32,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Maglev {
    /// In order of address: what `slots` counts.
    members: Box<[Member]>,
    slots: Box<[u16]>,
}

/// The table size for a service: of everything configured, healthy or not, so that a failure does
/// not change it. At least 100 slots for the smallest share (up to a million slots in all).
pub(super) fn table_size(weights: impl Iterator<Item = u32> + Clone) -> u32 {
    let positive = weights.filter(|&weight| weight > 0);
    let smallest = u64::from(positive.clone().min().unwrap_or(1));
    let total: u64 = positive.clone().map(u64::from).sum();
    let by_count = positive.count() as u64 * SLOTS_PER_SHARE;
    // Uneven weights may not drive a small service beyond the paper's default of 65537.
    let by_weight = (total * SLOTS_PER_SHARE / smallest).min(65537);
    let wanted = by_count.max(by_weight);
    let fits = SIZES.iter().find(|&&size| u64::from(size) >= wanted);
    *fits.unwrap_or(&SIZES[SIZES.len() - 1])
}

impl Maglev {
    /// Fill a table of `size` slots (a prime). `members` is in order of address, without
    /// duplicates, at most 65 535; empty gives an empty table.
    pub fn build(members: &[Member], size: u32) -> Self {
        const FREE: u16 = u16::MAX;
        let mut slots = vec![FREE; if members.is_empty() { 0 } else { size as usize }];
        let mut turns: Vec<Turn> = members.iter().map(|m| Turn::new(m, size)).collect();
        let heaviest = members.iter().map(|m| m.weight).max().unwrap_or(1);
        let mut left = slots.len();
        while left > 0 {
            for (number, turn) in turns.iter_mut().enumerate() {
                // A backend of weight w takes part in w of `heaviest` rounds, evenly spaced.
                turn.credit += turn.weight;
                if turn.credit < heaviest {
                    continue;
                }
                turn.credit -= heaviest;
                while slots[turn.at as usize] != FREE {
                    turn.advance(size);
                }
                slots[turn.at as usize] = number as u16;
                turn.advance(size);
                left -= 1;
                if left == 0 {
                    break;
                }
            }
        }
        Self { members: members.into(), slots: slots.into_boxed_slice() }
    }

    pub fn members(&self) -> &[Member] {
        &self.members
    }

    pub fn size(&self) -> u32 {
        self.slots.len() as u32
    }

    /// The number of the member that serves a flow with this hash, in order of address.
    pub fn pick(&self, hash: u64) -> Option<usize> {
        // The upper bits scaled to the size: no division.
        let slot = ((hash >> 32) * self.slots.len() as u64) >> 32;
        self.slots.get(slot as usize).map(|&n| usize::from(n))
    }
}

/// One backend's walk over its permutation: offset + j × skip, modulo the size.
struct Turn {
    at: u32,
    skip: u32,
    weight: u32,
    credit: u32,
}

impl Turn {
    fn new(member: &Member, size: u32) -> Self {
        let name = name(member.address);
        let offset = Seed::FIXED.bytes(&[name.as_slice(), b"offset"].concat());
        let skip = Seed::FIXED.bytes(&[name.as_slice(), b"skip"].concat());
        Self {
            at: (offset % u64::from(size)) as u32,
            skip: (skip % u64::from(size - 1)) as u32 + 1,
            weight: member.weight,
            credit: 0,
        }
    }

    fn advance(&mut self, size: u32) {
        self.at += self.skip;
        if self.at >= size {
            self.at -= size;
        }
    }
}

/// 16 bytes of address (IPv4 mapped) and 2 of port.
fn name(address: SocketAddr) -> [u8; 18] {
    let ip = match address.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    let mut name = [0; 18];
    name[..16].copy_from_slice(&ip.octets());
    name[16..].copy_from_slice(&address.port().to_be_bytes());
    name
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn members(weights: &[u32]) -> Vec<Member> {
        let member = |(n, &weight): (usize, &u32)| Member {
            address: SocketAddr::from(([10, 0, (n >> 8) as u8, n as u8], 80)),
            weight,
        };
        weights.iter().enumerate().map(member).collect()
    }

    fn build(weights: &[u32]) -> Maglev {
        Maglev::build(&members(weights), table_size(weights.iter().copied()))
    }

    fn shares(table: &Maglev) -> Vec<u32> {
        let mut shares = vec![0; table.members.len()];
        for &slot in &table.slots {
            shares[usize::from(slot)] += 1;
        }
        shares
    }

    #[test]
    fn sizes_are_prime() {
        for size in SIZES {
            assert!((2..=size.isqrt()).all(|d| size % d != 0), "{size}");
        }
    }

    #[test]
    fn an_empty_service_picks_nothing() {
        assert_eq!(Maglev::build(&[], 1021).pick(7), None);
    }

    /// Pinned: nodes of different versions must agree. Change it only with a note to operators.
    #[test]
    fn the_table_is_the_same_everywhere() {
        let table = build(&[1, 1, 2]);
        let digest = table
            .slots
            .iter()
            .fold(0u64, |hash, &n| hash.wrapping_mul(31).wrapping_add(u64::from(n)));
        assert_eq!((table.size(), digest), (1021, 13_592_559_273_035_266_475));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        /// Every share is within 1 % of its weight's part (and one slot, where 1 % is less).
        #[test]
        fn shares_follow_weights(weights in prop::collection::vec(1u32..=100, 1..120)) {
            let table = build(&weights);
            let total: f64 = weights.iter().map(|&w| f64::from(w)).sum();
            for (share, weight) in shares(&table).into_iter().zip(&weights) {
                let ideal = f64::from(table.size()) * f64::from(*weight) / total;
                let error = (f64::from(share) - ideal).abs();
                prop_assert!(error <= (ideal * 0.01).max(1.0), "{share} of {ideal}");
            }
        }

        /// Only flows of the removed backend must move; the paper's figure 12 shows a few percent
        /// of others for a table 100 times the number of backends.
        #[test]
        fn removing_one_disturbs_few_others(count in 2usize..100, gone in 0usize..100) {
            let gone = gone % count;
            let weights = vec![1; count];
            let before = build(&weights);
            let mut rest = members(&weights);
            rest.remove(gone);
            let after = Maglev::build(&rest, before.size());
            let moved = before.slots.iter().zip(&after.slots).filter(|(old, new)| {
                let old = before.members[usize::from(**old)];
                old != before.members[gone] && old != after.members[usize::from(**new)]
            });
            let moved = moved.count() as f64 / f64::from(before.size());
            prop_assert!(moved < 0.05, "{moved}");
        }
    }
}

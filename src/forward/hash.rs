//! Hashing of packet tuples: folded 64 × 64 → 128 bit multiplications.
//!
//! Two uses. The flow table and steering hash with a secret drawn once per process, so that a
//! sender who does not know it cannot aim at one bucket. This is no cryptographic hash: it has
//! full diffusion but no proof, and somebody who could observe which of his packets collide (by
//! timing, say) may learn about the seed. The table stays correct then: a full pair of buckets
//! refuses flows and counts it, it never degenerates into a long chain.
//!
//! Maglev hashes with [`Seed::FIXED`], so that every node picks the same backend for a flow.

/// What is hashed, in the order of the packet: bytes as they lie there, read natively. So the
/// value differs between little- and big-endian machines; nodes of one cluster must be of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seed([u64; 4]);

impl Seed {
    /// The published seed for choices that nodes must agree on: the first 256 bits of the
    /// fractional part of pi.
    pub const FIXED: Self = Self([
        0x243f_6a88_85a3_08d3,
        0x1319_8a2e_0370_7344,
        0xa409_3822_299f_31d0,
        0x082e_fa98_ec4e_6c89,
    ]);

    /// Four secrets out of one, by splitmix64 (Steele, Lea, Flood: OOPSLA 2014).
    pub fn new(secret: u64) -> Self {
        let mut state = secret;
        Self([(); 4].map(|()| {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        }))
    }

    /// `addresses`: source and destination side by side. `ports`: source and destination port.
    #[inline(always)]
    pub fn v4(&self, addresses: u64, ports: u32, protocol: u8) -> u64 {
        let s = &self.0;
        let tail = u64::from(ports) << 8 | u64::from(protocol);
        mix(mix(addresses ^ s[0], tail ^ s[1]) ^ s[2], s[3])
    }

    #[inline(always)]
    pub fn v6(&self, source: [u64; 2], destination: [u64; 2], ports: u32, protocol: u8) -> u64 {
        let s = &self.0;
        let tail = u64::from(ports) << 8 | u64::from(protocol);
        let source = mix(source[0] ^ s[0], source[1] ^ s[1]);
        let destination = mix(destination[0] ^ s[2], destination[1] ^ s[3]);
        mix(source ^ s[3] ^ tail, destination.rotate_left(32) ^ s[1] ^ tail)
    }

    /// Any bytes: names of backends, keys of maps.
    pub fn bytes(&self, bytes: &[u8]) -> u64 {
        let s = &self.0;
        let (words, rest) = bytes.as_chunks::<8>();
        let mut hash = s[3] ^ bytes.len() as u64;
        for word in words {
            hash = mix(hash ^ s[0], u64::from_le_bytes(*word) ^ s[1]);
        }
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        mix(mix(hash ^ s[0], u64::from_le_bytes(last) ^ s[2]), s[3])
    }
}

#[inline(always)]
const fn mix(a: u64, b: u64) -> u64 {
    let product = a as u128 * b as u128;
    product as u64 ^ (product >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each single-bit change of the input must change about half of the output.
    #[test]
    fn every_input_bit_reaches_the_output() {
        let seed = Seed::new(7);
        let mut flipped = 0u32;
        for bit in 0..64 {
            let a = seed.v4(0x0a00_0001_c000_0207, 0x1234_0035, 17);
            let b = seed.v4(0x0a00_0001_c000_0207 ^ (1 << bit), 0x1234_0035, 17);
            let changed = (a ^ b).count_ones();
            assert!((14..=50).contains(&changed), "bit {bit}: {changed}");
            flipped += changed;
        }
        assert!((64 * 28..64 * 36).contains(&flipped), "{flipped}");
        for bit in 0..32 {
            let a = seed.v6([1, 2], [3, 4], 0x1234_0035, 6);
            let b = seed.v6([1, 2], [3, 4], 0x1234_0035 ^ (1 << bit), 6);
            assert!((14..=50).contains(&(a ^ b).count_ones()), "bit {bit}");
        }
    }

    /// Sequential clients and ports, as load generators and NATs make them, spread evenly.
    #[test]
    fn sequential_tuples_spread() {
        let seed = Seed::new(1);
        let mut buckets = vec![0u32; 1024];
        for n in 0..102_400u64 {
            let addresses = (0x0a00_0000 + (n >> 10)) << 32 | 0xc000_0207;
            let hash = seed.v4(addresses, (n as u32 & 1023) << 16 | 0x35, 17);
            buckets[(hash & 1023) as usize] += 1;
        }
        let (low, high) = (buckets.iter().min(), buckets.iter().max());
        assert!(low > Some(&60) && high < Some(&145), "{low:?} {high:?}");
    }

    #[test]
    fn the_seed_matters() {
        assert_ne!(Seed::new(1).v4(1, 2, 6), Seed::new(2).v4(1, 2, 6));
        assert_ne!(Seed::new(1).bytes(b"a"), Seed::new(1).bytes(b"a\0"));
    }
}

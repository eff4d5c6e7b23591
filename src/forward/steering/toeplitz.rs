//! The Toeplitz hash, by which NICs choose a receive queue (Microsoft, "RSS Hashing Functions";
//! Krawczyk, CRYPTO '94).
//!
//! Every set bit of the input adds (XOR) the 32 bits of the key that begin at its place. So the
//! hash of an input is the XOR of the hashes of its parts, each at its place: [`Toeplitz::part`].
//! Steering lives off that: what a local port adds does not depend on anything else.

/// Bytes of hash: an input byte at place `n` is multiplied with the key's bytes `n` to `n + 4`.
const WINDOW: usize = 4;

/// The hash under one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Toeplitz {
    /// For each half byte of the input, what each of its values adds. 64 bytes per half: all that
    /// an IPv6 tuple needs is 4.6 KB, and stays in the first-level cache.
    halves: Vec<[u32; 16]>,
}

impl Toeplitz {
    /// `key`: at least 5 bytes, or nothing can be hashed.
    pub fn new(key: &[u8]) -> Self {
        let inputs = key.len().saturating_sub(WINDOW);
        let halves = (0..2 * inputs)
            .map(|half| {
                let mut sums = [0; 16];
                for (value, sum) in sums.iter_mut().enumerate() {
                    *sum = (0..4)
                        .filter(|bit| value >> (3 - bit) & 1 == 1)
                        .fold(0, |sum, bit| sum ^ window(key, 4 * half + bit));
                }
                sums
            })
            .collect();
        Self { halves }
    }

    /// Longest input, bytes.
    pub fn inputs(&self) -> usize {
        self.halves.len() / 2
    }

    /// What `bytes` add to the hash where they stand at byte `place` of the input. Bytes beyond
    /// [`Toeplitz::inputs`] add nothing.
    #[inline]
    pub fn part(&self, place: usize, bytes: &[u8]) -> u32 {
        let halves = self.halves.get(2 * place..).unwrap_or_default();
        let (pairs, _) = halves.as_chunks::<2>();
        bytes.iter().zip(pairs).fold(0, |sum, (&byte, [high, low])| {
            sum ^ high[usize::from(byte >> 4)] ^ low[usize::from(byte & 15)]
        })
    }
}

/// The 32 bits of the key from bit `at` on, the first as the highest.
fn window(key: &[u8], at: usize) -> u32 {
    let mut bits = 0u64;
    for n in 0..=WINDOW {
        bits = bits << 8 | u64::from(key.get(at / 8 + n).copied().unwrap_or(0));
    }
    (bits >> (8 - at % 8)) as u32
}

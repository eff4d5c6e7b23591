//! Local ports by what they add to the hash: linear algebra over GF(2).
//!
//! The low bits of what a port adds are a linear function of its 16 bits. So the ports that add a
//! given value are one of them plus every port that adds nothing: both can be written as XORs of a
//! few basis vectors, and the n-th port that adds a value is found without a search and without a
//! table of ports.

use arrayvec::ArrayVec;

/// The ports of one aligned range, by what they add.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Solver {
    base: u16,
    /// What `base` adds.
    base_adds: u32,
    /// For each bit of what is added: bits of a port that add it alone.
    units: ArrayVec<u16, 16>,
    /// Bits of a port that together add nothing: a basis, those with the highest bits first.
    kernel: ArrayVec<u16, 16>,
}

impl Solver {
    /// Ports `base .. base + 2^size`; `base` is a multiple of the size. `adds`: what a port adds,
    /// linear, of which the low `bits` count. `None`: not every value can be had.
    pub fn new(base: u16, size: u32, bits: u32, adds: impl Fn(u16) -> u32) -> Option<Self> {
        let mask = (1u32 << bits) - 1;
        // What is added, by which bits of the port; the leading bits of `adds` differ and each is
        // set in its own row alone.
        let mut rows: ArrayVec<(u32, u16), 16> = ArrayVec::new();
        let mut kernel = ArrayVec::new();
        for bit in 0..size {
            let port = 1u16 << bit;
            let mut row = (adds(port) & mask, port);
            for &(added, ports) in &rows {
                if row.0 & leading(added) != 0 {
                    row = (row.0 ^ added, row.1 ^ ports);
                }
            }
            if row.0 == 0 {
                kernel.push(row.1);
                continue;
            }
            for other in &mut rows {
                if other.0 & leading(row.0) != 0 {
                    *other = (other.0 ^ row.0, other.1 ^ row.1);
                }
            }
            rows.push(row);
        }
        if rows.len() < bits as usize {
            return None;
        }
        // Of full rank and reduced: each row adds exactly one bit.
        rows.sort_unstable();
        // Reserved ports have no high bits: where those change from one port to the next, few of
        // the reserved follow each other.
        kernel.reverse();
        let units = rows.iter().map(|&(_, ports)| ports).collect();
        Some(Self { base, base_adds: adds(base) & mask, units, kernel })
    }

    /// Ports that add the same value.
    pub fn count(&self) -> u32 {
        1 << self.kernel.len()
    }

    /// Whether the range begins with the reserved ports.
    pub fn reserves(&self) -> bool {
        self.base == 0
    }

    /// The `n`th port that adds `value`; `n` counts from 0 to [`Solver::count`].
    #[inline]
    pub fn port(&self, value: u32, n: u32) -> u16 {
        self.base ^ sum(&self.units, value ^ self.base_adds) ^ sum(&self.kernel, n)
    }
}

/// XOR of the vectors whose bits are set in `which`.
#[inline]
fn sum(vectors: &[u16], which: u32) -> u16 {
    let chosen =
        |(bit, vector): (usize, &u16)| vector & 0u16.wrapping_sub((which >> bit) as u16 & 1);
    vectors.iter().enumerate().map(chosen).fold(0, |sum, vector| sum ^ vector)
}

const fn leading(value: u32) -> u32 {
    1 << value.ilog2()
}

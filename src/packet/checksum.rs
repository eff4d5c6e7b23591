//! The Internet checksum (RFC 1071) and its incremental update (RFC 1624).
//!
//! Sums and checksums are held in native byte order, as loaded from the packet: the ones'
//! complement sum does not care, as long as everything uses the same order (RFC 1071 §2 B).
//! Nothing here knows where in a packet a checksum lies.

/// Ones' complement sum of 16-bit words, not yet folded. An odd last byte is padded with zero.
pub fn sum(bytes: &[u8]) -> u64 {
    let mut total = 0u64;
    let (words, rest) = bytes.as_chunks::<4>();
    for word in words {
        total += u64::from(u32::from_ne_bytes(*word));
    }
    let mut last = [0; 4];
    last[..rest.len()].copy_from_slice(rest);
    total + u64::from(u32::from_ne_bytes(last))
}

/// Folds carries until 16 bits are left.
pub const fn fold(sum: u64) -> u16 {
    let sum = (sum >> 32) + (sum & 0xffff_ffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    sum as u16
}

/// The checksum of `bytes`, in native order: store with `to_ne_bytes`.
pub fn checksum(bytes: &[u8]) -> u16 {
    !fold(sum(bytes))
}

/// Sum of the TCP/UDP/ICMPv6 pseudo-header. `source` and `destination` are both 4 bytes (RFC 9293
/// §3.1) or both 16 (RFC 8200 §8.1); `length` is that of the layer-4 header and data.
pub fn pseudo_header(source: &[u8], destination: &[u8], protocol: u8, length: u32) -> u64 {
    sum(source)
        + sum(destination)
        + u64::from(u32::from_ne_bytes([0, 0, 0, protocol]))
        + u64::from(u32::from_ne_bytes(length.to_be_bytes()))
}

/// Whether a 20-byte IPv4 header, not all zero, carries the right checksum (RFC 791 §3.1).
#[inline(always)]
pub fn ipv4_header_good(header: &[u8; 20]) -> bool {
    let (words, rest) = header.as_chunks::<8>();
    let mut sum = rest.first_chunk().map_or(0, |last| u64::from(u32::from_ne_bytes(*last)));
    for word in words {
        // 2^64 is 1 modulo 0xffff: a carry is worth one.
        let (added, carry) = sum.overflowing_add(u64::from_ne_bytes(*word));
        sum = added + u64::from(carry);
    }
    // Folding keeps the remainder; folded, the sum must be 0xffff. This costs one multiplication.
    sum % 0xffff == 0
}

/// What replacing some bytes does to a checksum, computed once and applied to every packet of a
/// flow (RFC 1624 §3, equation 3: HC' = ~(~HC + ~m + m')).
///
/// An error that the checksum had before it still has afterwards, so the end host finds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Delta(u16);

impl Delta {
    /// Nothing is replaced.
    pub const NONE: Self = Self(0);

    /// The TTL, high byte of its word, becomes one less.
    pub const TTL_DECREMENT: Self = Self(u16::from_ne_bytes([0xfe, 0xff]));

    /// Also replace `old` by `new`: equally long, beginning at an even offset, even length.
    #[must_use]
    pub fn replace(self, old: &[u8], new: &[u8]) -> Self {
        debug_assert!(old.len() == new.len() && old.len().is_multiple_of(2));
        Self(fold(u64::from(self.0) + u64::from(!fold(sum(old))) + sum(new)))
    }

    /// The replacement undone, if `undo`.
    #[must_use]
    #[inline(always)]
    pub const fn undo_if(self, undo: bool) -> Self {
        // The negative of a ones' complement number.
        Self(self.0 ^ (undo as u16).wrapping_neg())
    }

    /// Both replacements.
    #[must_use]
    #[inline(always)]
    pub const fn and(self, other: Self) -> Self {
        let (sum, carry) = self.0.overflowing_add(other.0);
        Self(sum.wrapping_add(carry as u16))
    }

    /// The checksum after the replacement, in native order like `checksum`.
    #[inline(always)]
    pub const fn apply(self, checksum: u16) -> u16 {
        // ~(~HC + delta), with the carry going round, is HC - delta, with the borrow going round.
        let (left, borrow) = checksum.overflowing_sub(self.0);
        left.wrapping_sub(borrow as u16)
    }

    /// As [`Delta::apply`] for UDP: 0 means "no checksum" (RFC 768) and stays; a computed 0 is
    /// sent as 0xffff.
    #[inline(always)]
    pub const fn apply_udp(self, checksum: u16) -> u16 {
        if checksum == 0 {
            return 0;
        }
        match self.apply(checksum) {
            0 => 0xffff,
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_example_of_rfc_1071() {
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(fold(sum(&bytes)).to_ne_bytes(), [0xdd, 0xf2]);
        assert_eq!(checksum(&bytes).to_ne_bytes(), [0x22, 0x0d]);
    }

    #[test]
    fn an_odd_last_byte_counts_as_the_high_byte() {
        assert_eq!(fold(sum(&[1, 2, 3])), fold(sum(&[1, 2, 3, 0])));
        assert_eq!(fold(sum(&[1])), u16::from_ne_bytes([1, 0]));
    }

    /// RFC 1624 §4: the case that RFC 1141's equation gets wrong.
    #[test]
    fn the_example_of_rfc_1624() {
        let be = |value: u16| u16::from_ne_bytes(value.to_be_bytes());
        let delta = Delta::NONE.replace(&[0x55, 0x55], &[0x32, 0x85]);
        assert_eq!(delta.apply(be(0xdd2f)), be(0x0000));
        assert_eq!(delta.apply_udp(be(0xdd2f)), 0xffff);
        assert_eq!(delta.apply_udp(0), 0);
    }

    proptest! {
        #[test]
        fn incremental_update_equals_recomputation(
            mut bytes in prop::collection::vec(any::<u8>(), 12..64),
            new in any::<[u8; 8]>(),
            at in 0usize..2,
        ) {
            bytes[0] |= 1; // an all-zero packet has two representations of its sum
            let before = checksum(&bytes);
            let at = 2 + at * 2;
            let old: [u8; 8] = bytes[at..at + 8].try_into().unwrap();
            bytes[at..at + 8].copy_from_slice(&new);
            prop_assert_eq!(Delta::NONE.replace(&old, &new).apply(before), checksum(&bytes));
            let halves = Delta::NONE
                .replace(&old[..4], &new[..4])
                .and(Delta::NONE.replace(&old[4..], &new[4..]));
            prop_assert_eq!(halves.apply(before), checksum(&bytes));
            let undone = halves.undo_if(true).apply(checksum(&bytes));
            prop_assert_eq!(undone, before);
        }

        /// RFC 1624 §3, equation 3, word for word.
        #[test]
        fn applying_is_equation_3(checksum: u16, delta: u16) {
            let sum = u32::from(!checksum) + u32::from(delta);
            let expected = !((sum & 0xffff) + (sum >> 16)) as u16;
            prop_assert_eq!(Delta(delta).apply(checksum), expected);
        }

        #[test]
        fn ttl_decrement_equals_recomputation(mut header in any::<[u8; 20]>()) {
            header[0] = 0x45;
            header[8] |= 2;
            header[10..12].fill(0);
            let before = checksum(&header);
            header[8] -= 1;
            prop_assert_eq!(Delta::TTL_DECREMENT.apply(before), checksum(&header));
        }

        #[test]
        fn a_header_is_good_exactly_with_its_checksum(mut header in any::<[u8; 20]>(), flip in 0usize..160) {
            header[0] = 0x45;
            header[10..12].fill(0);
            let value = checksum(&header).to_ne_bytes();
            header[10..12].copy_from_slice(&value);
            prop_assert!(ipv4_header_good(&header));
            header[flip / 8] ^= 1 << (flip % 8);
            prop_assert!(!ipv4_header_good(&header));
        }
    }
}

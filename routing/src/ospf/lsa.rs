//! Link state advertisements as bytes: the 20-byte header that OSPFv2 and OSPFv3 share, the
//! Fletcher checksum, which of two instances is newer, and how far each type is flooded.
//!
//! Bodies of other routers are stored and flooded as they came; nothing here looks into them.
//! Router IDs and link state IDs are host order.

use super::Version;
use std::cmp::Ordering;
use std::sync::Arc;

/// Length of the header.
pub const HEADER_LEN: usize = 20;
/// RFC 2328 Appendix B, seconds.
pub const MAX_AGE: u16 = 3600;
/// RFC 2328 Appendix B, seconds.
pub const MAX_AGE_DIFF: u16 = 900;
/// RFC 2328 §12.1.6.
pub const INITIAL_SEQUENCE: i32 = i32::MIN + 1;
/// RFC 2328 §12.1.6.
pub const MAX_SEQUENCE: i32 = i32::MAX;

/// LS types of OSPFv2 (RFC 2328 §A.4.1, RFC 3101, RFC 5250).
pub mod v2 {
    pub const ROUTER: u16 = 1;
    pub const NETWORK: u16 = 2;
    pub const EXTERNAL: u16 = 5;
    pub const NSSA: u16 = 7;
    pub const OPAQUE_LINK: u16 = 9;
    pub const OPAQUE_AREA: u16 = 10;
    pub const OPAQUE_AS: u16 = 11;
    /// RFC 3623 Appendix A: opaque type of Grace-LSAs, the first byte of the link state ID.
    pub const OPAQUE_GRACE: u32 = 3;
}

/// LS types of OSPFv3 (RFC 5340 §A.4.2.1).
pub mod v3 {
    pub const ROUTER: u16 = 0x2001;
    pub const NETWORK: u16 = 0x2002;
    pub const EXTERNAL: u16 = 0x4005;
    pub const NSSA: u16 = 0x2007;
    pub const LINK: u16 = 0x0008;
    /// RFC 5187 §2.1.
    pub const GRACE: u16 = 0x000b;
    pub const INTRA_AREA_PREFIX: u16 = 0x2009;
}

/// How far an LSA travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    Link,
    Area,
    As,
}

/// The scope of an LS type; `None`: not to be accepted at all (RFC 2328 §13 step 2, RFC 5340
/// §4.5.1).
pub fn scope(version: Version, kind: u16) -> Option<Scope> {
    match version {
        Version::V2 => match kind {
            1..=4 | v2::NSSA | v2::OPAQUE_AREA => Some(Scope::Area),
            v2::EXTERNAL | v2::OPAQUE_AS => Some(Scope::As),
            v2::OPAQUE_LINK => Some(Scope::Link),
            _ => None,
        },
        Version::V3 => {
            let known = matches!(kind & 0x1fff, 1..=5 | 7..=9);
            if !known && kind & 0x8000 == 0 {
                // Unknown with the U-bit clear: treated as if it had link-local scope.
                return Some(Scope::Link);
            }
            match kind >> 13 & 3 {
                0 => Some(Scope::Link),
                1 => Some(Scope::Area),
                2 => Some(Scope::As),
                _ => None,
            }
        }
    }
}

/// Whether this is an AS-external-LSA, which stub areas and NSSAs do not take.
pub fn is_external(version: Version, kind: u16) -> bool {
    match version {
        Version::V2 => kind == v2::EXTERNAL || kind == v2::OPAQUE_AS,
        Version::V3 => kind >> 13 & 3 == 2,
    }
}

/// Whether this is a Type-7 LSA, which only NSSAs take.
pub fn is_nssa(version: Version, kind: u16) -> bool {
    kind == match version {
        Version::V2 => v2::NSSA,
        Version::V3 => v3::NSSA,
    }
}

/// Whether this is an opaque LSA, which only goes to neighbours that said so (RFC 5250 §3.1).
pub fn is_opaque(version: Version, kind: u16) -> bool {
    version == Version::V2 && (v2::OPAQUE_LINK..=v2::OPAQUE_AS).contains(&kind)
}

/// Whether this is a Grace-LSA (RFC 3623, RFC 5187).
pub fn is_grace(version: Version, key: &LsaKey) -> bool {
    match version {
        Version::V2 => key.kind == v2::OPAQUE_LINK && key.id >> 24 == v2::OPAQUE_GRACE,
        Version::V3 => key.kind == v3::GRACE,
    }
}

/// What names an LSA; instances differ by sequence number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LsaKey {
    /// LS type: 8 bits in OSPFv2, 16 in OSPFv3.
    pub kind: u16,
    pub id: u32,
    /// Advertising router.
    pub router: u32,
}

/// The header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LsaHeader {
    /// Seconds, at the time of writing.
    pub age: u16,
    /// OSPFv2 only; 0 in OSPFv3.
    pub options: u8,
    pub key: LsaKey,
    pub sequence: i32,
    pub checksum: u16,
    /// With the header.
    pub length: u16,
}

impl LsaHeader {
    pub fn parse(version: Version, bytes: &[u8; HEADER_LEN]) -> Self {
        let half = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        let word = |at: usize| u32::from(half(at)) << 16 | u32::from(half(at + 2));
        let (options, kind) = match version {
            Version::V2 => (bytes[2], u16::from(bytes[3])),
            Version::V3 => (0, half(2)),
        };
        Self {
            // The DoNotAge bit (RFC 1793) is not supported: such an age reads as MaxAge at most.
            age: half(0).min(MAX_AGE),
            options,
            key: LsaKey { kind, id: word(4), router: word(8) },
            sequence: word(12) as i32,
            checksum: half(16),
            length: half(18),
        }
    }

    pub fn encode(&self, version: Version) -> [u8; HEADER_LEN] {
        let mut out = [0; HEADER_LEN];
        out[0..2].copy_from_slice(&self.age.to_be_bytes());
        match version {
            Version::V2 => [out[2], out[3]] = [self.options, self.key.kind as u8],
            Version::V3 => out[2..4].copy_from_slice(&self.key.kind.to_be_bytes()),
        }
        out[4..8].copy_from_slice(&self.key.id.to_be_bytes());
        out[8..12].copy_from_slice(&self.key.router.to_be_bytes());
        out[12..16].copy_from_slice(&self.sequence.to_be_bytes());
        out[16..18].copy_from_slice(&self.checksum.to_be_bytes());
        out[18..20].copy_from_slice(&self.length.to_be_bytes());
        out
    }

    /// RFC 2328 §13.1: `Greater` if `self` is the more recent instance of the same LSA.
    pub fn compare(&self, other: &Self) -> Ordering {
        let max_age = |header: &Self| header.age >= MAX_AGE;
        self.sequence
            .cmp(&other.sequence)
            .then(self.checksum.cmp(&other.checksum))
            .then(max_age(self).cmp(&max_age(other)))
            .then_with(|| {
                if self.age.abs_diff(other.age) > MAX_AGE_DIFF {
                    other.age.cmp(&self.age)
                } else {
                    Ordering::Equal
                }
            })
    }
}

/// A whole LSA: the header and the bytes it was read from. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lsa {
    pub header: LsaHeader,
    bytes: Arc<[u8]>,
}

impl Lsa {
    /// Reads the LSA at the start of `bytes`; `None` if it does not fit or its length is absurd.
    /// The checksum is not checked here: see [`Self::is_intact`].
    pub fn parse(version: Version, bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (head, _) = bytes.split_first_chunk::<HEADER_LEN>()?;
        let header = LsaHeader::parse(version, head);
        let length = usize::from(header.length);
        if length < HEADER_LEN || length > bytes.len() {
            return None;
        }
        let (own, rest) = bytes.split_at(length);
        Some((Self { header, bytes: own.into() }, rest))
    }

    /// Makes an LSA with age 0. `body` must leave room for the header in 65 535 bytes.
    pub fn build(
        version: Version,
        options: u8,
        key: LsaKey,
        sequence: i32,
        body: &[u8],
    ) -> Option<Self> {
        let length = u16::try_from(HEADER_LEN + body.len()).ok()?;
        let mut header = LsaHeader { age: 0, options, key, sequence, checksum: 0, length };
        let mut bytes = header.encode(version).to_vec();
        bytes.extend_from_slice(body);
        header.checksum = checksum(&bytes);
        bytes[16..18].copy_from_slice(&header.checksum.to_be_bytes());
        Some(Self { header, bytes: bytes.into() })
    }

    /// Whether the checksum fits (RFC 2328 §12.1.7).
    pub fn is_intact(&self) -> bool {
        let (mut c0, mut c1) = (0u32, 0u32);
        for byte in &self.bytes[2..] {
            c0 = (c0 + u32::from(*byte)) % 255;
            c1 = (c1 + c0) % 255;
        }
        c0 == 0 && c1 == 0
    }

    /// The bytes with another age in the header. The checksum does not cover the age.
    pub fn write(&self, age: u16, out: &mut Vec<u8>) {
        out.extend_from_slice(&age.to_be_bytes());
        out.extend_from_slice(&self.bytes[2..]);
    }

    pub fn body(&self) -> &[u8] {
        &self.bytes[HEADER_LEN..]
    }

    /// Length with the header.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.body().is_empty()
    }
}

/// The Fletcher checksum of an LSA whose checksum field holds zero (RFC 2328 §12.1.7, RFC 905
/// Annex B). Covers everything after the age.
fn checksum(lsa: &[u8]) -> u16 {
    let covered = &lsa[2..];
    let (mut c0, mut c1) = (0i64, 0i64);
    for byte in covered {
        c0 = (c0 + i64::from(*byte)) % 255;
        c1 = (c1 + c0) % 255;
    }
    // The checksum sits at 14 of the bytes covered.
    let after = covered.len() as i64 - 14 - 1;
    let x = (after * c0 - c1).rem_euclid(255);
    let y = (510 - c0 - x).rem_euclid(255);
    // Zero means "no checksum" in this arithmetic; 255 is the same residue.
    let nonzero = |v: i64| if v == 0 { 255u16 } else { v as u16 };
    nonzero(x) << 8 | nonzero(y)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header(sequence: i32, checksum: u16, age: u16) -> LsaHeader {
        let key = LsaKey { kind: 1, id: 1, router: 1 };
        LsaHeader { age, options: 2, key, sequence, checksum, length: 20 }
    }

    /// RFC 2328 §13.1, in the order of its rules.
    #[test]
    fn newer_instance_is_found_by_sequence_checksum_max_age_and_age() {
        use Ordering::{Equal, Greater, Less};
        let cases = [
            ((2, 0, 0), (1, 9, 0), Greater),
            ((INITIAL_SEQUENCE, 9, 0), (MAX_SEQUENCE, 0, 0), Less),
            ((-1, 0, 0), (0, 0, 0), Less),
            ((1, 0x8000, 0), (1, 0x7fff, 0), Greater),
            ((1, 1, MAX_AGE), (1, 1, 0), Greater),
            ((1, 1, 1000), (1, 1, 0), Less),
            ((1, 1, 900), (1, 1, 0), Equal),
            ((1, 1, 0), (1, 1, 901), Greater),
            ((1, 1, MAX_AGE), (1, 1, MAX_AGE), Equal),
        ];
        for ((s, c, a), (s2, c2, a2), expected) in cases {
            let (left, right) = (header(s, c, a), header(s2, c2, a2));
            assert_eq!(left.compare(&right), expected, "{left:?} {right:?}");
            assert_eq!(right.compare(&left), expected.reverse());
        }
    }

    #[test]
    fn scopes_follow_the_type() {
        for (kind, expected) in [
            (1, Some(Scope::Area)),
            (4, Some(Scope::Area)),
            (5, Some(Scope::As)),
            (6, None),
            (7, Some(Scope::Area)),
            (8, None),
            (9, Some(Scope::Link)),
            (11, Some(Scope::As)),
            (12, None),
        ] {
            assert_eq!(scope(Version::V2, kind), expected, "v2 {kind}");
        }
        for (kind, expected) in [
            (v3::ROUTER, Some(Scope::Area)),
            (v3::EXTERNAL, Some(Scope::As)),
            (v3::LINK, Some(Scope::Link)),
            (0x6001, None),
            (0x2fff, Some(Scope::Link)),
            (0xafff, Some(Scope::Area)),
            (0xcfff, Some(Scope::As)),
            (0xefff, None),
        ] {
            assert_eq!(scope(Version::V3, kind), expected, "v3 {kind:#x}");
        }
    }

    proptest! {
        #[test]
        fn built_lsas_are_intact_and_read_back(
            body in proptest::collection::vec(any::<u8>(), 0..200), options: u8, kind in 1u16..12,
            id: u32, router: u32, sequence: i32, age: u16, flip in any::<prop::sample::Index>(),
        ) {
            for version in [Version::V2, Version::V3] {
                let key = LsaKey { kind, id, router };
                let lsa = Lsa::build(version, options, key, sequence, &body).unwrap();
                prop_assert!(lsa.is_intact());
                let mut bytes = Vec::new();
                lsa.write(age.min(MAX_AGE), &mut bytes);
                let (read, rest) = Lsa::parse(version, &bytes).unwrap();
                prop_assert!(rest.is_empty() && read.is_intact());
                prop_assert_eq!(read.header.key, key);
                prop_assert_eq!(read.body(), &body[..]);
                prop_assert_eq!(read.header.sequence, sequence);
                // One flipped byte (other than 0 ↔ 255, which Fletcher cannot tell) is noticed.
                let at = 2 + flip.index(bytes.len() - 2);
                bytes[at] = bytes[at].wrapping_add(1);
                if bytes[at] != 0
                    && let Some((spoilt, _)) = Lsa::parse(version, &bytes)
                    && spoilt.len() == lsa.len()
                {
                    prop_assert!(!spoilt.is_intact());
                }
            }
        }
    }
}

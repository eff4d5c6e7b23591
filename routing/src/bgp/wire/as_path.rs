//! AS_PATH (RFC 4271 §4.3, §5.1.2) with two or four octets per AS (RFC 6793).

use super::{AS_TRANS, Reader};

/// One segment of an AS path (RFC 4271 §4.3, RFC 5065).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Segment {
    Set(Vec<u32>),
    Sequence(Vec<u32>),
    ConfedSequence(Vec<u32>),
    ConfedSet(Vec<u32>),
}

/// AS_PATH (RFC 4271 §5.1.2).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct AsPath(pub Vec<Segment>);

impl Segment {
    fn asns(&self) -> &[u32] {
        match self {
            Self::Set(a) | Self::Sequence(a) | Self::ConfedSequence(a) | Self::ConfedSet(a) => a,
        }
    }

    fn wire_kind(&self) -> u8 {
        match self {
            Self::Set(_) => 1,
            Self::Sequence(_) => 2,
            Self::ConfedSequence(_) => 3,
            Self::ConfedSet(_) => 4,
        }
    }
}

impl AsPath {
    /// `count` times the same AS; at most 255 in a segment.
    pub fn repeated(asn: u32, count: usize) -> Self {
        let mut segments = Vec::new();
        let mut left = count;
        while left > 0 {
            let n = left.min(255);
            segments.push(Segment::Sequence(vec![asn; n]));
            left -= n;
        }
        Self(segments)
    }

    pub fn contains(&self, asn: u32) -> bool {
        self.0.iter().any(|s| s.asns().contains(&asn))
    }

    /// The neighbouring AS: the first of a leading sequence (RFC 4271 §6.3).
    pub fn first(&self) -> Option<u32> {
        match self.0.first()? {
            Segment::Sequence(asns) => asns.first().copied(),
            _ => None,
        }
    }

    /// Length as route selection counts it: a set is one, confederation segments none
    /// (RFC 4271 §9.1.2.2 a, RFC 5065 §5.3).
    pub fn hops(&self) -> usize {
        self.0
            .iter()
            .map(|s| match s {
                Segment::Sequence(asns) => asns.len(),
                Segment::Set(_) => 1,
                Segment::ConfedSequence(_) | Segment::ConfedSet(_) => 0,
            })
            .sum()
    }

    /// The real path behind a two-octet one (RFC 6793 §4.2.3): the tail is AS4_PATH's, and what
    /// AS4_PATH lacks in length is taken from the front of `self`.
    pub(super) fn merged_with(self, as4: Self) -> Self {
        let Some(mut keep) = self.hops().checked_sub(as4.hops()) else {
            return self;
        };
        let mut segments = Vec::new();
        for segment in self.0 {
            match segment {
                Segment::Sequence(mut asns) if keep > 0 => {
                    asns.truncate(keep);
                    keep -= asns.len();
                    segments.push(Segment::Sequence(asns));
                }
                Segment::Set(asns) if keep > 0 => {
                    keep -= 1;
                    segments.push(Segment::Set(asns));
                }
                Segment::Sequence(_) | Segment::Set(_) => {}
                confed => segments.push(confed),
            }
        }
        segments.extend(as4.0);
        Self(segments)
    }

    /// `None`: malformed (RFC 7606 §7.2).
    pub(super) fn decode(value: &[u8], four_octet_as: bool, confederation: bool) -> Option<Self> {
        let mut r = Reader(value);
        let mut segments = Vec::new();
        while !r.is_empty() {
            let kind = r.u8()?;
            let count = usize::from(r.u8()?);
            if count == 0 {
                return None;
            }
            let mut asns = Vec::with_capacity(count);
            for _ in 0..count {
                asns.push(if four_octet_as { r.u32()? } else { u32::from(r.u16()?) });
            }
            segments.push(match kind {
                1 => Segment::Set(asns),
                2 => Segment::Sequence(asns),
                3 if confederation => Segment::ConfedSequence(asns),
                4 if confederation => Segment::ConfedSet(asns),
                _ => return None,
            });
        }
        Some(Self(segments))
    }

    pub(super) fn encode(&self, four_octet_as: bool) -> Vec<u8> {
        let mut value = Vec::new();
        for segment in &self.0 {
            let asns = segment.asns();
            value.extend_from_slice(&[segment.wire_kind(), asns.len() as u8]);
            for &asn in asns {
                if four_octet_as {
                    value.extend_from_slice(&asn.to_be_bytes());
                } else {
                    let short = u16::try_from(asn).unwrap_or(AS_TRANS);
                    value.extend_from_slice(&short.to_be_bytes());
                }
            }
        }
        value
    }

    pub(super) fn needs_four_octets(&self) -> bool {
        self.0.iter().any(|s| s.asns().iter().any(|&a| a > u32::from(u16::MAX)))
    }
}

//! BGP messages as they travel (RFC 4271 §4): framing, decoding, encoding.
//!
//! In: bytes a peer sent, or values of our own. Out: checked values, or the NOTIFICATION that the
//! RFCs demand for what is wrong with the bytes. Everything is bounded by the one message at hand.
//! This module keeps no state between messages, allocates nothing a message's own length does not
//! bound, and never panics on what a peer sends.

mod as_path;
mod attribute;
mod message;
mod nlri;
mod notification;
mod open;
mod update;

pub use as_path::{AsPath, Segment};
pub use attribute::{Attributes, NextHop, Origin};
pub use message::{DecodeContext, Frame, Message, MessageKind, RouteRefresh, next_frame};
pub use notification::{
    Notification, cease, code, header, open as open_error, update as update_error,
};
pub use open::{Capabilities, GracefulRestart, Open, Role};
pub use update::{
    AnnounceTemplate, Reach, Update, encode_end_of_rib, encode_withdrawal, encoded_prefix_len,
};

/// Octets of the header: marker, length, type (RFC 4271 §4.1).
pub const HEADER_LEN: usize = 19;
/// Longest message without the extended message capability (RFC 4271 §4.1).
pub const MAX_MESSAGE: usize = 4096;
/// Longest message with it (RFC 8654).
pub const MAX_EXTENDED_MESSAGE: usize = 65535;
/// AS number that stands for a four-octet one toward a two-octet speaker (RFC 6793).
pub const AS_TRANS: u16 = 23456;

/// An address family we carry; both are unicast (SAFI 1).
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Family {
    Ipv4Unicast,
    Ipv6Unicast,
}

impl Family {
    pub const ALL: [Self; 2] = [Self::Ipv4Unicast, Self::Ipv6Unicast];
    pub const SAFI_UNICAST: u8 = 1;

    /// The family a prefix belongs to.
    pub fn of(prefix: &ipnet::IpNet) -> Self {
        match prefix {
            ipnet::IpNet::V4(_) => Self::Ipv4Unicast,
            ipnet::IpNet::V6(_) => Self::Ipv6Unicast,
        }
    }

    /// Address family identifier (IANA).
    pub fn afi(self) -> u16 {
        match self {
            Self::Ipv4Unicast => 1,
            Self::Ipv6Unicast => 2,
        }
    }

    /// `None`: a family we do not carry.
    pub fn from_wire(afi: u16, safi: u8) -> Option<Self> {
        match (afi, safi) {
            (1, Self::SAFI_UNICAST) => Some(Self::Ipv4Unicast),
            (2, Self::SAFI_UNICAST) => Some(Self::Ipv6Unicast),
            _ => None,
        }
    }
}

/// A set of families.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct Families {
    pub ipv4: bool,
    pub ipv6: bool,
}

impl Families {
    pub const BOTH: Self = Self { ipv4: true, ipv6: true };

    pub fn contains(self, family: Family) -> bool {
        match family {
            Family::Ipv4Unicast => self.ipv4,
            Family::Ipv6Unicast => self.ipv6,
        }
    }

    pub fn insert(&mut self, family: Family) {
        match family {
            Family::Ipv4Unicast => self.ipv4 = true,
            Family::Ipv6Unicast => self.ipv6 = true,
        }
    }

    pub fn intersection(self, other: Self) -> Self {
        Self { ipv4: self.ipv4 && other.ipv4, ipv6: self.ipv6 && other.ipv6 }
    }

    pub fn iter(self) -> impl Iterator<Item = Family> {
        Family::ALL.into_iter().filter(move |f| self.contains(*f))
    }
}

/// Takes checked pieces off the front of a byte slice; `None` where it is too short.
#[derive(Debug, Clone, Copy)]
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(n)?;
        self.0 = tail;
        Some(head)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, tail) = self.0.split_first_chunk::<N>()?;
        self.0 = tail;
        Some(*head)
    }

    fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[b]| b)
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn rest(self) -> &'a [u8] {
        self.0
    }
}

#[cfg(test)]
mod tests;

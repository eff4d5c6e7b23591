//! Authentication of OSPF packets and the packet checksum.
//!
//! OSPFv2: null, simple password and MD5 (RFC 2328 Appendix D), HMAC-SHA (RFC 5709). OSPFv3: none,
//! or the authentication trailer (RFC 7166).
//!
//! The cryptographic sequence number is checked per neighbour by the caller, with
//! [`Verified::sequence`]: it is known only after the digest has been found good.

use super::Version;
use super::packet::options;
use hmac::{Hmac, KeyInit, Mac};
use md5::{Digest, Md5};
use serde::{Deserialize, Serialize};
use sha1::Sha1;
use sha2::{Sha256, Sha384, Sha512};
use std::net::Ipv6Addr;

/// Hash of a cryptographic key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Algorithm {
    /// OSPFv2 only.
    Md5,
    HmacSha1,
    HmacSha256,
    HmacSha384,
    HmacSha512,
}

impl Algorithm {
    /// Length of the digest in bytes.
    pub fn digest_len(self) -> usize {
        match self {
            Self::Md5 => 16,
            Self::HmacSha1 => 20,
            Self::HmacSha256 => 32,
            Self::HmacSha384 => 48,
            Self::HmacSha512 => 64,
        }
    }
}

/// A cryptographic key.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    /// 8 bits on the wire of OSPFv2, 16 (SA ID) of OSPFv3.
    pub id: u16,
    pub algorithm: Algorithm,
    /// 1 byte to the length of the digest, in OSPFv3 two bytes less. Longer keys are refused: RFC
    /// 5709 §3.3 has them hashed first, which others do only beyond the block size, as plain HMAC.
    #[serde(skip_serializing)]
    pub secret: Vec<u8>,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Key")
            .field("id", &self.id)
            .field("algorithm", &self.algorithm)
            .finish_non_exhaustive()
    }
}

/// How an interface authenticates.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Auth {
    #[default]
    None,
    /// OSPFv2 only: a password of up to 8 bytes in clear, padded with zeros.
    Simple(#[serde(skip_serializing)] [u8; 8]),
    /// The first key signs; any key is accepted, so that keys can be rolled.
    Crypto(Vec<Key>),
}

impl std::fmt::Debug for Auth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::None => f.write_str("None"),
            Self::Simple(_) => f.write_str("Simple"),
            Self::Crypto(keys) => f.debug_tuple("Crypto").field(keys).finish(),
        }
    }
}

/// Why a packet failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum AuthError {
    #[error("packet checksum is wrong")]
    Checksum,
    #[error("other authentication type")]
    Type,
    #[error("wrong password")]
    Password,
    #[error("unknown key ID")]
    KeyId,
    #[error("digest missing or mismatched")]
    Digest,
    #[error("sequence number went back")]
    Sequence,
}

/// A packet that passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verified {
    /// The cryptographic sequence number, if the packet carries one.
    pub sequence: Option<u64>,
}

const APAD: [u8; 4] = [0x87, 0x8f, 0xe1, 0xf3];
/// RFC 7166 §4.1: fixed part of the trailer.
const TRAILER_LEN: usize = 16;
/// RFC 7166 §4.3: OSPFv3 Cryptographic Protocol ID.
const V3_PROTOCOL_ID: [u8; 2] = [0, 1];

impl Auth {
    /// Bytes that signing appends to a packet.
    pub fn overhead(&self, version: Version) -> usize {
        match (self, version) {
            (Self::Crypto(keys), Version::V2) => {
                keys.first().map_or(0, |key| key.algorithm.digest_len())
            }
            (Self::Crypto(keys), Version::V3) => {
                keys.first().map_or(0, |key| TRAILER_LEN + key.algorithm.digest_len())
            }
            _ => 0,
        }
    }

    /// Bits to set in the options of Hello and Database Description packets.
    pub fn options(&self, version: Version) -> u32 {
        match (self, version) {
            (Self::Crypto(_), Version::V3) => options::AT,
            _ => 0,
        }
    }

    /// Fills in checksum and authentication of an encoded packet. `sequence` never decreases over
    /// restarts (OSPFv2 uses the low 32 bits); `ends` are the packet's source and destination
    /// (OSPFv3 only).
    pub fn sign(
        &self,
        version: Version,
        packet: &mut Vec<u8>,
        sequence: u64,
        ends: (Ipv6Addr, Ipv6Addr),
    ) {
        match version {
            Version::V2 => self.sign_v2(packet, sequence as u32),
            Version::V3 => self.sign_v3(packet, sequence, ends),
        }
    }

    /// Checks a packet that was split into the packet proper and what follows it.
    pub fn verify(
        &self,
        version: Version,
        packet: &[u8],
        after: &[u8],
        ends: (Ipv6Addr, Ipv6Addr),
    ) -> Result<Verified, AuthError> {
        match version {
            Version::V2 => self.verify_v2(packet, after),
            Version::V3 => self.verify_v3(packet, after, ends),
        }
    }

    fn sign_v2(&self, packet: &mut Vec<u8>, sequence: u32) {
        let kind: u16 = match self {
            Self::None => 0,
            Self::Simple(_) => 1,
            Self::Crypto(_) => 2,
        };
        packet[14..16].copy_from_slice(&kind.to_be_bytes());
        match self {
            Self::None | Self::Simple(_) => {
                let sum = internet_checksum(packet);
                packet[12..14].copy_from_slice(&sum.to_be_bytes());
                if let Self::Simple(password) = self {
                    packet[16..24].copy_from_slice(password);
                }
            }
            Self::Crypto(keys) => {
                let Some(key) = keys.first() else { return };
                packet[16..18].fill(0);
                packet[18] = key.id as u8;
                packet[19] = key.algorithm.digest_len() as u8;
                packet[20..24].copy_from_slice(&sequence.to_be_bytes());
                let digest = key.digest_v2(packet);
                packet.extend_from_slice(&digest);
            }
        }
    }

    fn verify_v2(&self, packet: &[u8], after: &[u8]) -> Result<Verified, AuthError> {
        let kind = u16::from_be_bytes([packet[14], packet[15]]);
        match (self, kind) {
            (Self::None, 0) | (Self::Simple(_), 1) => {
                let mut copy = packet.to_vec();
                copy[16..24].fill(0);
                if internet_checksum(&copy) != 0 {
                    return Err(AuthError::Checksum);
                }
                match self {
                    Self::Simple(password) if !same(password, &packet[16..24]) => {
                        Err(AuthError::Password)
                    }
                    _ => Ok(Verified { sequence: None }),
                }
            }
            (Self::Crypto(keys), 2) => {
                let id = u16::from(packet[18]);
                let key = keys.iter().find(|key| key.id == id).ok_or(AuthError::KeyId)?;
                let digest = after.get(..usize::from(packet[19])).ok_or(AuthError::Digest)?;
                if !same(&key.digest_v2(packet), digest) {
                    return Err(AuthError::Digest);
                }
                let sequence = u32::from_be_bytes([packet[20], packet[21], packet[22], packet[23]]);
                Ok(Verified { sequence: Some(sequence.into()) })
            }
            _ => Err(AuthError::Type),
        }
    }

    fn sign_v3(&self, packet: &mut Vec<u8>, sequence: u64, ends: (Ipv6Addr, Ipv6Addr)) {
        let key = match self {
            Self::Crypto(keys) => keys.first(),
            _ => None,
        };
        // RFC 7166 §4.2: with a trailer the checksum stays zero.
        let Some(key) = key else {
            let sum = upper_layer_checksum(packet, ends);
            packet[12..14].copy_from_slice(&sum.to_be_bytes());
            return;
        };
        // RFC 7166 §4.1: type 1 (HMAC), length of the trailer.
        let length = (TRAILER_LEN + key.algorithm.digest_len()) as u16;
        packet.extend_from_slice(&1u16.to_be_bytes());
        packet.extend_from_slice(&length.to_be_bytes());
        packet.extend_from_slice(&0u16.to_be_bytes());
        packet.extend_from_slice(&key.id.to_be_bytes());
        packet.extend_from_slice(&sequence.to_be_bytes());
        let digest = key.digest_v3(packet, ends.0);
        packet.extend_from_slice(&digest);
    }

    fn verify_v3(
        &self,
        packet: &[u8],
        after: &[u8],
        ends: (Ipv6Addr, Ipv6Addr),
    ) -> Result<Verified, AuthError> {
        let Self::Crypto(keys) = self else {
            // A trailer that nobody asked for makes the checksum fail: it is zero then.
            let good = upper_layer_checksum(packet, ends) == 0;
            return if good { Ok(Verified { sequence: None }) } else { Err(AuthError::Checksum) };
        };
        let (fixed, digest) = after.split_first_chunk::<TRAILER_LEN>().ok_or(AuthError::Digest)?;
        let half = |at: usize| u16::from_be_bytes([fixed[at], fixed[at + 1]]);
        if half(0) != 1 {
            return Err(AuthError::Type);
        }
        let key = keys.iter().find(|key| key.id == half(6)).ok_or(AuthError::KeyId)?;
        let digest = digest.get(..key.algorithm.digest_len()).ok_or(AuthError::Digest)?;
        if usize::from(half(2)) != TRAILER_LEN + digest.len() {
            return Err(AuthError::Digest);
        }
        let covered = [packet, &fixed[..]].concat();
        if !same(&key.digest_v3(&covered, ends.0), digest) {
            return Err(AuthError::Digest);
        }
        let mut sequence = [0; 8];
        sequence.copy_from_slice(&fixed[8..]);
        Ok(Verified { sequence: Some(u64::from_be_bytes(sequence)) })
    }
}

impl Key {
    /// Whether the key can be used.
    pub fn check(&self, version: Version) -> bool {
        let longest = match version {
            Version::V2 => self.algorithm.digest_len(),
            Version::V3 => self.algorithm.digest_len() - V3_PROTOCOL_ID.len(),
        };
        let fits = (1..=longest).contains(&self.secret.len());
        let known = self.algorithm != Algorithm::Md5 || version == Version::V2;
        fits && known && (version == Version::V3 || self.id <= 255)
    }

    fn digest_v2(&self, packet: &[u8]) -> Vec<u8> {
        match self.algorithm {
            // RFC 2328 §D.4.3: the key, padded to 16 bytes, takes the digest's place.
            Algorithm::Md5 => {
                let mut key = self.secret.clone();
                key.resize(16, 0);
                Md5::new().chain_update(packet).chain_update(&key).finalize().to_vec()
            }
            // RFC 5709 §3.3: Apad takes it.
            _ => self.hmac(&self.secret, packet, &apad(self.algorithm.digest_len())),
        }
    }

    /// RFC 7166 §4.5: Apad starts with the source address, the key ends with the protocol ID.
    fn digest_v3(&self, covered: &[u8], source: Ipv6Addr) -> Vec<u8> {
        let mut pad = source.octets().to_vec();
        pad.extend(apad(self.algorithm.digest_len().saturating_sub(16)));
        let key = [&self.secret[..], &V3_PROTOCOL_ID].concat();
        self.hmac(&key, covered, &pad)
    }

    fn hmac(&self, key: &[u8], covered: &[u8], pad: &[u8]) -> Vec<u8> {
        fn run<D: Digest, M: Mac + KeyInit>(key: &[u8], covered: &[u8], pad: &[u8]) -> Vec<u8> {
            // RFC 5709 §3.3: a key longer than the digest is hashed first, unlike plain HMAC, which
            // does so only beyond the block size.
            let hashed = D::digest(key);
            let key = if key.len() > hashed.len() { &hashed[..] } else { key };
            // HMAC takes keys of any length: this cannot fail.
            let Ok(mut mac) = <M as KeyInit>::new_from_slice(key) else { return Vec::new() };
            mac.update(covered);
            mac.update(pad);
            mac.finalize().into_bytes().to_vec()
        }
        match self.algorithm {
            Algorithm::Md5 => run::<Md5, Hmac<Md5>>(key, covered, pad),
            Algorithm::HmacSha1 => run::<Sha1, Hmac<Sha1>>(key, covered, pad),
            Algorithm::HmacSha256 => run::<Sha256, Hmac<Sha256>>(key, covered, pad),
            Algorithm::HmacSha384 => run::<Sha384, Hmac<Sha384>>(key, covered, pad),
            Algorithm::HmacSha512 => run::<Sha512, Hmac<Sha512>>(key, covered, pad),
        }
    }
}

fn apad(len: usize) -> Vec<u8> {
    APAD.iter().copied().cycle().take(len).collect()
}

/// Compares without telling by its timing where the difference is; empty digests never match.
fn same(left: &[u8], right: &[u8]) -> bool {
    !left.is_empty()
        && left.len() == right.len()
        && left.iter().zip(right).fold(0, |acc, (a, b)| acc | (a ^ b)) == 0
}

/// RFC 1071 over the packet; the authentication field must be zero (RFC 2328 §A.3.1).
fn internet_checksum(packet: &[u8]) -> u16 {
    fold(sum(packet))
}

/// RFC 8200 §8.1: the packet with the IPv6 pseudo-header of its source and destination.
fn upper_layer_checksum(packet: &[u8], (source, destination): (Ipv6Addr, Ipv6Addr)) -> u16 {
    const PROTOCOL: u64 = 89;
    let addresses = sum(&source.octets()) + sum(&destination.octets());
    fold(addresses + packet.len() as u64 + PROTOCOL + sum(packet))
}

fn sum(bytes: &[u8]) -> u64 {
    let word = |pair: &[u8]| u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0));
    bytes.chunks(2).map(word).sum()
}

fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

//! Authentication of BFD Control packets: Keyed SHA1 and Meticulous Keyed SHA1 (RFC 5880 §4.4,
//! §6.7.4). The other types parse as [`AuthSection`] and are refused by [`Authenticator::verify`].
//!
//! The digest is checked before any state changes, so a forged sequence number cannot move the
//! window.

use super::packet::{MANDATORY_LEN, MAX_LEN, Packet};
use serde::{Deserialize, Serialize};
use sha1::{Digest, Sha1};

/// Length of a SHA1 section: type, length, key ID, reserved, sequence number, 20 bytes of digest.
pub const SHA1_SECTION_LEN: usize = 28;
const DIGEST_LEN: usize = 20;
/// Offset of the digest in the section.
const DIGEST_AT: usize = 8;

/// How a session authenticates (§4.1 "Auth Type").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AuthType {
    /// The sequence number may repeat: a replay inside the window passes.
    KeyedSha1 = 4,
    /// The sequence number rises with every packet.
    MeticulousKeyedSha1 = 5,
}

impl AuthType {
    /// As in configuration and status pages.
    pub fn name(self) -> &'static str {
        match self {
            Self::KeyedSha1 => "keyed-sha1",
            Self::MeticulousKeyedSha1 => "meticulous-keyed-sha1",
        }
    }
}

/// A shared key and the way it is used.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthConfig {
    pub kind: AuthType,
    pub key_id: u8,
    /// 1 to 20 bytes (§4.4); longer keys are refused by [`AuthConfig::check`].
    #[serde(skip_serializing)]
    pub secret: Vec<u8>,
}

impl AuthConfig {
    /// Whether the key has a length that the format can carry.
    pub fn check(&self) -> bool {
        (1..=DIGEST_LEN).contains(&self.secret.len())
    }
}

impl std::fmt::Debug for AuthConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AuthConfig")
            .field("kind", &self.kind)
            .field("key_id", &self.key_id)
            .finish_non_exhaustive()
    }
}

/// An authentication section as received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuthSection<'a> {
    pub auth_type: u8,
    /// The whole section, as long as its own Auth Len says.
    pub bytes: &'a [u8],
}

impl<'a> AuthSection<'a> {
    /// Reads type and length; `None` if the section does not fit `bytes`.
    pub(super) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (&[auth_type, len], _) = bytes.split_first_chunk::<2>()?;
        let bytes = bytes.get(..usize::from(len)).filter(|section| section.len() >= 2)?;
        Some(Self { auth_type, bytes })
    }
}

/// Why a packet failed authentication.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum AuthError {
    #[error("packet is not authenticated")]
    Missing,
    #[error("packet is authenticated, the session is not")]
    Unexpected,
    #[error("other authentication type or section length")]
    Type,
    #[error("unknown key ID")]
    KeyId,
    #[error("digest mismatch")]
    Digest,
    #[error("sequence number outside the window")]
    Sequence,
}

/// Keys and sequence numbers of one session (§6.8.1 bfd.XmitAuthSeq, RcvAuthSeq, AuthSeqKnown).
#[derive(Debug, Clone)]
pub struct Authenticator {
    config: AuthConfig,
    transmit_sequence: u32,
    /// `None`: bfd.AuthSeqKnown is 0.
    receive_sequence: Option<u32>,
}

impl Authenticator {
    /// `sequence` is the first to send; it should be random.
    pub fn new(config: AuthConfig, sequence: u32) -> Self {
        Self { config, transmit_sequence: sequence, receive_sequence: None }
    }

    /// Changes the key; the sequence numbers go on.
    pub fn set_config(&mut self, config: AuthConfig) {
        self.config = config;
    }

    pub fn config(&self) -> &AuthConfig {
        &self.config
    }

    /// Forgets the peer's sequence number, so that it may restart (§6.8.1 bfd.AuthSeqKnown).
    pub fn forget_peer(&mut self) {
        self.receive_sequence = None;
    }

    /// Appends the section to a mandatory section; returns the length of the packet.
    pub fn sign(&mut self, out: &mut [u8; MAX_LEN]) -> usize {
        // §6.7.4: Meticulous must raise the number on each packet; Keyed SHA1 may, and so narrows
        // the replay window.
        self.transmit_sequence = self.transmit_sequence.wrapping_add(1);
        let section = &mut out[MANDATORY_LEN..];
        section[0] = self.config.kind as u8;
        section[1] = SHA1_SECTION_LEN as u8;
        section[2] = self.config.key_id;
        section[3] = 0;
        section[4..8].copy_from_slice(&self.transmit_sequence.to_be_bytes());
        section[DIGEST_AT..].copy_from_slice(&self.padded_key());
        let digest = Sha1::digest(&out[..]);
        out[MANDATORY_LEN + DIGEST_AT..].copy_from_slice(&digest);
        MAX_LEN
    }

    /// Checks a received packet (§6.7.4) and, if it passes, moves the sequence window.
    pub fn verify(&mut self, packet: &Packet<'_>) -> Result<(), AuthError> {
        let section = packet.auth.ok_or(AuthError::Missing)?;
        let Some((bytes, [])) = section.bytes.split_first_chunk::<SHA1_SECTION_LEN>() else {
            return Err(AuthError::Type);
        };
        if section.auth_type != self.config.kind as u8 {
            return Err(AuthError::Type);
        }
        if bytes[2] != self.config.key_id {
            return Err(AuthError::KeyId);
        }
        let sequence = u32::from_be_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]);
        if !self.in_window(sequence, packet.control.detect_multiplier) {
            return Err(AuthError::Sequence);
        }
        let (covered, _) = packet.bytes.split_at(MANDATORY_LEN + DIGEST_AT);
        let mut hasher = Sha1::new();
        hasher.update(covered);
        hasher.update(self.padded_key());
        // The section may be followed by bytes inside Length; the digest covers the whole packet.
        hasher.update(&packet.bytes[MAX_LEN.min(packet.bytes.len())..]);
        let expected = hasher.finalize();
        let difference =
            expected.iter().zip(&bytes[DIGEST_AT..]).fold(0, |acc, (a, b)| acc | (a ^ b));
        if difference != 0 {
            return Err(AuthError::Digest);
        }
        self.receive_sequence = Some(sequence);
        Ok(())
    }

    fn in_window(&self, sequence: u32, detect_multiplier: u8) -> bool {
        let Some(last) = self.receive_sequence else {
            return true;
        };
        let ahead = sequence.wrapping_sub(last);
        let least = match self.config.kind {
            AuthType::KeyedSha1 => 0,
            AuthType::MeticulousKeyedSha1 => 1,
        };
        (least..=3 * u32::from(detect_multiplier)).contains(&ahead)
    }

    fn padded_key(&self) -> [u8; DIGEST_LEN] {
        let mut key = [0; DIGEST_LEN];
        for (to, from) in key.iter_mut().zip(&self.config.secret) {
            *to = *from;
        }
        key
    }
}

#[cfg(test)]
mod tests {
    use super::super::packet::{Control, Diagnostic, State};
    use super::*;

    fn config(kind: AuthType) -> AuthConfig {
        AuthConfig { kind, key_id: 7, secret: b"tern".to_vec() }
    }

    fn signed(auth: &mut Authenticator) -> [u8; MAX_LEN] {
        let control = Control {
            diagnostic: Diagnostic::None,
            state: State::Down,
            poll: false,
            is_final: false,
            control_plane_independent: false,
            demand: false,
            detect_multiplier: 3,
            my_discriminator: 1,
            your_discriminator: 0,
            desired_min_tx_us: 1_000_000,
            required_min_rx_us: 1_000_000,
            required_min_echo_rx_us: 0,
        };
        let mut out = [0; MAX_LEN];
        out[..MANDATORY_LEN].copy_from_slice(&control.encode(SHA1_SECTION_LEN));
        assert_eq!(auth.sign(&mut out), MAX_LEN);
        out
    }

    fn verify(auth: &mut Authenticator, bytes: &[u8]) -> Result<(), AuthError> {
        auth.verify(&Packet::parse(bytes).unwrap())
    }

    #[test]
    fn digest_covers_the_packet_with_the_key_in_place_of_the_digest() {
        let mut sender = Authenticator::new(config(AuthType::KeyedSha1), 9);
        let bytes = signed(&mut sender);
        // Independent of sign(): concatenate by hand.
        let mut plain = bytes[..MANDATORY_LEN + DIGEST_AT].to_vec();
        plain.extend(b"tern");
        plain.resize(MAX_LEN, 0);
        assert_eq!(&bytes[32..], Sha1::digest(&plain).as_slice());
        assert_eq!(&bytes[24..32], &[4, 28, 7, 0, 0, 0, 0, 10]);
    }

    #[test]
    fn any_flipped_bit_is_noticed() {
        for kind in [AuthType::KeyedSha1, AuthType::MeticulousKeyedSha1] {
            let bytes = signed(&mut Authenticator::new(config(kind), 9));
            assert_eq!(verify(&mut Authenticator::new(config(kind), 0), &bytes), Ok(()));
            for bit in 0..MAX_LEN * 8 {
                let mut spoilt = bytes;
                spoilt[bit / 8] ^= 1 << (bit % 8);
                let mut receiver = Authenticator::new(config(kind), 0);
                if let Ok(packet) = Packet::parse(&spoilt) {
                    assert!(receiver.verify(&packet).is_err(), "bit {bit}");
                }
            }
        }
    }

    #[test]
    fn window_follows_section_6_7_4() {
        let cases = [
            (AuthType::KeyedSha1, 0, Ok(())),
            (AuthType::KeyedSha1, 9, Ok(())),
            (AuthType::KeyedSha1, 10, Err(AuthError::Sequence)),
            (AuthType::KeyedSha1, u32::MAX, Err(AuthError::Sequence)),
            (AuthType::MeticulousKeyedSha1, 0, Err(AuthError::Sequence)),
            (AuthType::MeticulousKeyedSha1, 1, Ok(())),
            (AuthType::MeticulousKeyedSha1, 9, Ok(())),
            (AuthType::MeticulousKeyedSha1, 10, Err(AuthError::Sequence)),
        ];
        // The first number sits at the wrap on purpose.
        for (kind, ahead, verdict) in cases {
            let start = u32::MAX - 1;
            let mut receiver = Authenticator::new(config(kind), 0);
            let first = signed(&mut Authenticator::new(config(kind), start.wrapping_sub(1)));
            assert_eq!(verify(&mut receiver, &first), Ok(()));
            let sequence = start.wrapping_add(ahead);
            let next = signed(&mut Authenticator::new(config(kind), sequence.wrapping_sub(1)));
            assert_eq!(verify(&mut receiver, &next), verdict, "{kind:?} +{ahead}");
            receiver.forget_peer();
            assert_eq!(verify(&mut receiver, &next), Ok(()), "{kind:?} after forgetting");
        }
    }

    #[test]
    fn other_key_type_or_secret_is_refused() {
        let bytes = signed(&mut Authenticator::new(config(AuthType::KeyedSha1), 1));
        let mut other = config(AuthType::MeticulousKeyedSha1);
        assert_eq!(verify(&mut Authenticator::new(other.clone(), 0), &bytes), Err(AuthError::Type));
        other.kind = AuthType::KeyedSha1;
        other.key_id = 8;
        assert_eq!(
            verify(&mut Authenticator::new(other.clone(), 0), &bytes),
            Err(AuthError::KeyId)
        );
        other.key_id = 7;
        other.secret = b"gull".to_vec();
        assert_eq!(verify(&mut Authenticator::new(other, 0), &bytes), Err(AuthError::Digest));
    }

    #[test]
    fn secrets_do_not_leak_through_debug() {
        assert!(!format!("{:?}", config(AuthType::KeyedSha1)).contains("secret"));
    }
}

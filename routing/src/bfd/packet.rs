//! The BFD Control packet (RFC 5880 §4.1): bytes to [`Packet`] and back.
//!
//! Parsing performs those reception rules of §6.8.6 that need nothing but the packet, in the order
//! of the RFC, and names the rule that failed. Intervals are microseconds, as on the wire;
//! discriminators are host order. Whatever the bytes, parsing never panics or allocates.

use super::auth::AuthSection;
use serde::{Deserialize, Serialize};

/// Length of the mandatory section.
pub const MANDATORY_LEN: usize = 24;
/// Room for the longest packet we send: mandatory section and a SHA1 section.
pub const MAX_LEN: usize = MANDATORY_LEN + super::auth::SHA1_SECTION_LEN;

const VERSION: u8 = 1;
const POLL: u8 = 0x20;
const FINAL: u8 = 0x10;
const CONTROL_PLANE_INDEPENDENT: u8 = 0x08;
const AUTHENTICATION: u8 = 0x04;
const DEMAND: u8 = 0x02;
const MULTIPOINT: u8 = 0x01;

/// Session state, as on the wire (§4.1 "Sta").
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum State {
    AdminDown = 0,
    Down = 1,
    Init = 2,
    Up = 3,
}

impl State {
    /// From the low two bits of `bits`.
    pub fn from_bits(bits: u8) -> Self {
        match bits & 3 {
            0 => Self::AdminDown,
            1 => Self::Down,
            2 => Self::Init,
            _ => Self::Up,
        }
    }
}

/// Why a session last changed state (§4.1 "Diag").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Diagnostic {
    None,
    DetectionTimeExpired,
    EchoFailed,
    NeighborSignaledDown,
    ForwardingPlaneReset,
    PathDown,
    ConcatenatedPathDown,
    AdministrativelyDown,
    ReverseConcatenatedPathDown,
    /// 9–31, reserved by RFC 5880 or assigned later.
    Other(u8),
}

impl std::fmt::Display for Diagnostic {
    /// As RFC 5880 §4.1 words it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::None => "no diagnostic",
            Self::DetectionTimeExpired => "control detection time expired",
            Self::EchoFailed => "echo function failed",
            Self::NeighborSignaledDown => "neighbor signaled session down",
            Self::ForwardingPlaneReset => "forwarding plane reset",
            Self::PathDown => "path down",
            Self::ConcatenatedPathDown => "concatenated path down",
            Self::AdministrativelyDown => "administratively down",
            Self::ReverseConcatenatedPathDown => "reverse concatenated path down",
            Self::Other(code) => return write!(f, "diagnostic {code}"),
        })
    }
}

impl Diagnostic {
    /// From the low five bits of `code`.
    pub fn from_code(code: u8) -> Self {
        match code & 0x1f {
            0 => Self::None,
            1 => Self::DetectionTimeExpired,
            2 => Self::EchoFailed,
            3 => Self::NeighborSignaledDown,
            4 => Self::ForwardingPlaneReset,
            5 => Self::PathDown,
            6 => Self::ConcatenatedPathDown,
            7 => Self::AdministrativelyDown,
            8 => Self::ReverseConcatenatedPathDown,
            other => Self::Other(other),
        }
    }

    /// The five bits of the wire.
    pub fn code(self) -> u8 {
        match self {
            Self::None => 0,
            Self::DetectionTimeExpired => 1,
            Self::EchoFailed => 2,
            Self::NeighborSignaledDown => 3,
            Self::ForwardingPlaneReset => 4,
            Self::PathDown => 5,
            Self::ConcatenatedPathDown => 6,
            Self::AdministrativelyDown => 7,
            Self::ReverseConcatenatedPathDown => 8,
            Self::Other(code) => code & 0x1f,
        }
    }
}

/// The mandatory section, without the fields that its encoding implies (version, lengths).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Control {
    pub diagnostic: Diagnostic,
    pub state: State,
    pub poll: bool,
    /// The F bit: this packet answers a poll.
    pub is_final: bool,
    pub control_plane_independent: bool,
    pub demand: bool,
    /// Never 0 in a packet that was parsed.
    pub detect_multiplier: u8,
    /// Never 0 in a packet that was parsed.
    pub my_discriminator: u32,
    /// 0: the sender has not heard us yet.
    pub your_discriminator: u32,
    pub desired_min_tx_us: u32,
    pub required_min_rx_us: u32,
    pub required_min_echo_rx_us: u32,
}

/// A received packet: the mandatory section, the authentication section if there is one, and the
/// bytes that the digest covers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet<'a> {
    pub control: Control,
    pub auth: Option<AuthSection<'a>>,
    /// The packet cut to its own Length field: UDP payload beyond it is ignored.
    pub bytes: &'a [u8],
}

/// The rule of §6.8.6 that a packet broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum ParseError {
    #[error("shorter than the mandatory section")]
    Truncated,
    #[error("version is not 1")]
    Version,
    #[error("Length field below the minimum")]
    LengthTooSmall,
    #[error("Length field beyond the payload")]
    LengthBeyondPayload,
    #[error("Detect Mult is zero")]
    ZeroMultiplier,
    #[error("Multipoint bit is set")]
    Multipoint,
    #[error("My Discriminator is zero")]
    ZeroMyDiscriminator,
    #[error("Your Discriminator is zero in state Init or Up")]
    ZeroYourDiscriminator,
    #[error("malformed authentication section")]
    Authentication,
    #[error("Poll and Final both set")]
    PollAndFinal,
}

impl<'a> Packet<'a> {
    /// Parses a UDP payload.
    pub fn parse(payload: &'a [u8]) -> Result<Self, ParseError> {
        let Some((head, _)) = payload.split_first_chunk::<MANDATORY_LEN>() else {
            return Err(ParseError::Truncated);
        };
        if head[0] >> 5 != VERSION {
            return Err(ParseError::Version);
        }
        let flags = head[1];
        let has_auth = flags & AUTHENTICATION != 0;
        let length = usize::from(head[3]);
        if length < if has_auth { MANDATORY_LEN + 2 } else { MANDATORY_LEN } {
            return Err(ParseError::LengthTooSmall);
        }
        let bytes = payload.get(..length).ok_or(ParseError::LengthBeyondPayload)?;
        let control = Control::from_head(head);
        if control.detect_multiplier == 0 {
            return Err(ParseError::ZeroMultiplier);
        }
        if flags & MULTIPOINT != 0 {
            return Err(ParseError::Multipoint);
        }
        if control.my_discriminator == 0 {
            return Err(ParseError::ZeroMyDiscriminator);
        }
        if control.your_discriminator == 0 && matches!(control.state, State::Init | State::Up) {
            return Err(ParseError::ZeroYourDiscriminator);
        }
        // §4.1 says that a packet cannot have both bits set, without a rule of its own in §6.8.6.
        if control.poll && control.is_final {
            return Err(ParseError::PollAndFinal);
        }
        let auth = if has_auth {
            let section = AuthSection::parse(&bytes[MANDATORY_LEN..]);
            Some(section.ok_or(ParseError::Authentication)?)
        } else {
            None
        };
        Ok(Self { control, auth, bytes })
    }
}

impl Control {
    fn from_head(head: &[u8; MANDATORY_LEN]) -> Self {
        let word =
            |at: usize| u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let flags = head[1];
        Self {
            diagnostic: Diagnostic::from_code(head[0]),
            state: State::from_bits(flags >> 6),
            poll: flags & POLL != 0,
            is_final: flags & FINAL != 0,
            control_plane_independent: flags & CONTROL_PLANE_INDEPENDENT != 0,
            demand: flags & DEMAND != 0,
            detect_multiplier: head[2],
            my_discriminator: word(4),
            your_discriminator: word(8),
            desired_min_tx_us: word(12),
            required_min_rx_us: word(16),
            required_min_echo_rx_us: word(20),
        }
    }

    /// The mandatory section as it travels. `auth_len` is the length of the authentication section
    /// that the caller appends, 0 for none.
    pub fn encode(&self, auth_len: usize) -> [u8; MANDATORY_LEN] {
        let flag = |on: bool, bit: u8| if on { bit } else { 0 };
        let mut out = [0; MANDATORY_LEN];
        out[0] = VERSION << 5 | self.diagnostic.code();
        out[1] = (self.state as u8) << 6
            | flag(self.poll, POLL)
            | flag(self.is_final, FINAL)
            | flag(self.control_plane_independent, CONTROL_PLANE_INDEPENDENT)
            | flag(auth_len != 0, AUTHENTICATION)
            | flag(self.demand, DEMAND);
        out[2] = self.detect_multiplier;
        out[3] = (MANDATORY_LEN + auth_len) as u8;
        out[4..8].copy_from_slice(&self.my_discriminator.to_be_bytes());
        out[8..12].copy_from_slice(&self.your_discriminator.to_be_bytes());
        out[12..16].copy_from_slice(&self.desired_min_tx_us.to_be_bytes());
        out[16..20].copy_from_slice(&self.required_min_rx_us.to_be_bytes());
        out[20..24].copy_from_slice(&self.required_min_echo_rx_us.to_be_bytes());
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// State Up, poll, diagnostic 3, multiplier 3, 1 s / 50 ms.
    const GOOD: [u8; 24] = [
        0x23, 0xe0, 3, 24, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0x0f, 0x42, 0x40, 0, 0, 0xc3, 0x50, 0, 0, 0,
        0,
    ];

    #[test]
    fn reads_every_field() {
        let packet = Packet::parse(&GOOD).unwrap();
        assert_eq!(
            packet.control,
            Control {
                diagnostic: Diagnostic::NeighborSignaledDown,
                state: State::Up,
                poll: true,
                is_final: false,
                control_plane_independent: false,
                demand: false,
                detect_multiplier: 3,
                my_discriminator: 1,
                your_discriminator: 2,
                desired_min_tx_us: 1_000_000,
                required_min_rx_us: 50_000,
                required_min_echo_rx_us: 0,
            }
        );
        assert_eq!(packet.auth, None);
        assert_eq!(packet.control.encode(0), GOOD);
    }

    #[test]
    fn names_the_rule_that_a_packet_breaks() {
        type Spoil = fn(&mut Vec<u8>);
        let cases: &[(&str, Spoil, ParseError)] = &[
            ("23 bytes", |p| p.truncate(23), ParseError::Truncated),
            ("version 0", |p| p[0] &= 0x1f, ParseError::Version),
            ("length 23", |p| p[3] = 23, ParseError::LengthTooSmall),
            ("A bit, no room for a section", |p| p[1] |= 4, ParseError::LengthTooSmall),
            ("length beyond payload", |p| p[3] = 25, ParseError::LengthBeyondPayload),
            ("multiplier 0", |p| p[2] = 0, ParseError::ZeroMultiplier),
            ("multipoint", |p| p[1] |= 1, ParseError::Multipoint),
            ("my discriminator 0", |p| p[7] = 0, ParseError::ZeroMyDiscriminator),
            ("Up without your discriminator", |p| p[11] = 0, ParseError::ZeroYourDiscriminator),
            ("poll and final", |p| p[1] |= 0x10, ParseError::PollAndFinal),
            (
                "authentication section longer than the packet",
                |p| {
                    p[1] |= 4;
                    p[3] = 28;
                    p.extend([4, 28, 1, 0]);
                },
                ParseError::Authentication,
            ),
        ];
        for (what, spoil, error) in cases {
            let mut bytes = GOOD.to_vec();
            spoil(&mut bytes);
            assert_eq!(Packet::parse(&bytes).unwrap_err(), *error, "{what}");
        }
    }

    #[test]
    fn zero_your_discriminator_is_fine_in_down_and_admin_down() {
        for state in [State::AdminDown, State::Down] {
            let mut bytes = GOOD;
            bytes[1] = (state as u8) << 6;
            bytes[11] = 0;
            assert_eq!(Packet::parse(&bytes).unwrap().control.state, state);
        }
    }

    #[test]
    fn payload_beyond_the_length_field_is_ignored() {
        let mut bytes = GOOD.to_vec();
        bytes.extend([1, 2, 3]);
        assert_eq!(Packet::parse(&bytes).unwrap().bytes, &GOOD);
    }

    prop_compose! {
        fn control()(
            codes in (0u8..32, 0u8..4, 1u8..), discr in (1u32.., 1u32..),
            times in any::<[u32; 3]>(), flags in any::<[bool; 4]>(),
        ) -> Control {
            Control {
                diagnostic: Diagnostic::from_code(codes.0),
                state: State::from_bits(codes.1),
                poll: flags[0],
                is_final: flags[1] && !flags[0],
                control_plane_independent: flags[2],
                demand: flags[3],
                detect_multiplier: codes.2,
                my_discriminator: discr.0,
                your_discriminator: discr.1,
                desired_min_tx_us: times[0],
                required_min_rx_us: times[1],
                required_min_echo_rx_us: times[2],
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_what_is_read(control in control()) {
            let bytes = control.encode(0);
            prop_assert_eq!(Packet::parse(&bytes).unwrap().control, control);
        }

        #[test]
        fn any_bytes_parse_or_fail_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Ok(packet) = Packet::parse(&bytes) {
                let auth_len = packet.bytes.len() - MANDATORY_LEN;
                if packet.auth.is_some() || auth_len == 0 {
                    prop_assert_eq!(&packet.control.encode(auth_len)[..], &bytes[..MANDATORY_LEN]);
                }
            }
        }
    }
}

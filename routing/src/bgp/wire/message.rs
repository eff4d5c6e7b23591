//! Framing (RFC 4271 §4.1, §6.1) and the whole messages.

use super::notification::{code, header};
use super::{
    Families, Family, HEADER_LEN, MAX_EXTENDED_MESSAGE, MAX_MESSAGE, Notification, Open, Reader,
    Update,
};

/// What a message is.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum MessageKind {
    Open,
    Update,
    Notification,
    Keepalive,
    RouteRefresh,
}

impl MessageKind {
    fn from_wire(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Open,
            2 => Self::Update,
            3 => Self::Notification,
            4 => Self::Keepalive,
            5 => Self::RouteRefresh,
            _ => return None,
        })
    }

    fn wire(self) -> u8 {
        match self {
            Self::Open => 1,
            Self::Update => 2,
            Self::Notification => 3,
            Self::Keepalive => 4,
            Self::RouteRefresh => 5,
        }
    }

    /// Whether a whole message of this kind may have this length (RFC 4271 §6.1). ROUTE-REFRESH
    /// has an error code of its own (RFC 7313 §5) and is checked when decoded.
    fn length_fits(self, len: usize) -> bool {
        match self {
            Self::Open => (29..=MAX_MESSAGE).contains(&len),
            Self::Update => len >= 23,
            Self::Notification => len >= 21,
            Self::Keepalive => len == HEADER_LEN,
            Self::RouteRefresh => true,
        }
    }
}

/// One message's place in the bytes received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    pub kind: MessageKind,
    /// What follows the header.
    pub body: &'a [u8],
    /// Octets of the whole message, header included.
    pub len: usize,
}

/// Finds the first whole message in `bytes`; `Ok(None)` if more bytes are needed.
/// `extended`: we offered messages longer than 4096 octets (RFC 8654).
///
/// # Errors
/// The NOTIFICATION to send: the stream cannot be followed any further.
pub fn next_frame(bytes: &[u8], extended: bool) -> Result<Option<Frame<'_>>, Notification> {
    let Some((head, _)) = bytes.split_first_chunk::<HEADER_LEN>() else {
        return Ok(None);
    };
    let [marker @ .., len_hi, len_lo, kind] = *head;
    if marker != [0xff; 16] {
        return Err(Notification::new(code::HEADER, header::NOT_SYNCHRONIZED));
    }
    let bad_length =
        || Notification::with_data(code::HEADER, header::BAD_LENGTH, vec![len_hi, len_lo]);
    let len = usize::from(u16::from_be_bytes([len_hi, len_lo]));
    let max = if extended { MAX_EXTENDED_MESSAGE } else { MAX_MESSAGE };
    if !(HEADER_LEN..=max).contains(&len) {
        return Err(bad_length());
    }
    let kind = MessageKind::from_wire(kind)
        .ok_or_else(|| Notification::with_data(code::HEADER, header::BAD_TYPE, vec![kind]))?;
    if !kind.length_fits(len) {
        return Err(bad_length());
    }
    Ok(bytes.get(HEADER_LEN..len).map(|body| Frame { kind, body, len }))
}

/// What decoding needs to know of the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecodeContext {
    /// Both sides speak four-octet AS numbers (RFC 6793).
    pub four_octet_as: bool,
    /// The peer is in our own AS.
    pub internal: bool,
    /// Families negotiated; routes of others are ignored.
    pub families: Families,
    /// IPv4 routes may come with an IPv6 next hop (RFC 8950).
    pub extended_next_hop: bool,
}

impl Default for DecodeContext {
    fn default() -> Self {
        Self {
            four_octet_as: true,
            internal: false,
            families: Families::BOTH,
            extended_next_hop: false,
        }
    }
}

/// A decoded message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    Open(Open),
    Update(Update),
    Notification(Notification),
    Keepalive,
    RouteRefresh(RouteRefresh),
}

impl Message {
    /// # Errors
    /// The NOTIFICATION to send. Errors that RFC 7606 lets a session survive are not errors
    /// here: see [`Update`].
    pub fn decode(frame: &Frame<'_>, ctx: DecodeContext) -> Result<Self, Notification> {
        match frame.kind {
            MessageKind::Open => Open::decode(frame.body).map(Self::Open),
            MessageKind::Update => Update::decode(frame.body, ctx).map(Self::Update),
            MessageKind::Notification => Notification::decode(frame.body)
                .map(Self::Notification)
                .ok_or_else(|| Notification::new(code::HEADER, header::BAD_LENGTH)),
            MessageKind::Keepalive => Ok(Self::Keepalive),
            MessageKind::RouteRefresh => RouteRefresh::decode(frame.body).map(Self::RouteRefresh),
        }
    }
}

/// ROUTE-REFRESH (RFC 2918) and its begin and end markers (RFC 7313).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RouteRefresh {
    /// `None`: a family we do not carry.
    pub family: Option<Family>,
    /// 0 request, 1 beginning of refresh, 2 end of refresh; others are to be ignored.
    pub subtype: u8,
}

impl RouteRefresh {
    pub const REQUEST: u8 = 0;
    pub const BEGIN: u8 = 1;
    pub const END: u8 = 2;

    /// Appends the message to `out`.
    pub fn encode(family: Family, subtype: u8, out: &mut Vec<u8>) {
        message(MessageKind::RouteRefresh, out, |out| {
            out.extend_from_slice(&family.afi().to_be_bytes());
            out.extend_from_slice(&[subtype, Family::SAFI_UNICAST]);
        });
    }

    fn decode(body: &[u8]) -> Result<Self, Notification> {
        let mut r = Reader(body);
        match (r.u16(), r.u8(), r.u8(), r.is_empty()) {
            (Some(afi), Some(subtype), Some(safi), true) => {
                Ok(Self { family: Family::from_wire(afi, safi), subtype })
            }
            // RFC 7313 §5: Invalid Message Length. An ORF request (RFC 5291) is longer, but we
            // never offer that capability.
            _ => Err(Notification::with_data(code::ROUTE_REFRESH, 1, body)),
        }
    }
}

impl Open {
    /// Appends the message to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        message(MessageKind::Open, out, |out| self.encode_body(out));
    }
}

impl Notification {
    /// Appends the message to `out`. Data that would not fit a message is cut.
    pub fn encode(&self, out: &mut Vec<u8>) {
        message(MessageKind::Notification, out, |out| {
            out.extend_from_slice(&[self.code, self.subcode]);
            let room = MAX_MESSAGE - HEADER_LEN - 2;
            out.extend_from_slice(&self.data[..self.data.len().min(room)]);
        });
    }
}

/// Appends a KEEPALIVE to `out`.
pub(super) fn encode_keepalive(out: &mut Vec<u8>) {
    message(MessageKind::Keepalive, out, |_| {});
}

impl Message {
    /// Appends a KEEPALIVE to `out`.
    pub fn encode_keepalive(out: &mut Vec<u8>) {
        encode_keepalive(out);
    }
}

/// Writes the header, the body, then the length. Bodies are built to fit by their makers.
pub(super) fn message(kind: MessageKind, out: &mut Vec<u8>, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0xff; 16]);
    out.extend_from_slice(&[0, 0, kind.wire()]);
    body(out);
    let len = (out.len() - start) as u16;
    out[start + 16..start + 18].copy_from_slice(&len.to_be_bytes());
}

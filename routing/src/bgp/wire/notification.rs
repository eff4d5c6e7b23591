//! NOTIFICATION: why a session ends, in the RFCs' numbers and in words (RFC 4271 §4.5, §6).

use std::fmt;

/// Error codes (IANA "BGP Error (Notification) Codes").
pub mod code {
    pub const HEADER: u8 = 1;
    pub const OPEN: u8 = 2;
    pub const UPDATE: u8 = 3;
    pub const HOLD_TIMER: u8 = 4;
    pub const FSM: u8 = 5;
    pub const CEASE: u8 = 6;
    /// RFC 7313.
    pub const ROUTE_REFRESH: u8 = 7;
    /// RFC 9687.
    pub const SEND_HOLD_TIMER: u8 = 8;
}

/// Subcodes of [`code::HEADER`] (RFC 4271 §6.1).
pub mod header {
    pub const NOT_SYNCHRONIZED: u8 = 1;
    pub const BAD_LENGTH: u8 = 2;
    pub const BAD_TYPE: u8 = 3;
}

/// Subcodes of [`code::OPEN`] (RFC 4271 §6.2, RFC 5492, RFC 9234).
pub mod open {
    pub const MALFORMED: u8 = 0;
    pub const VERSION: u8 = 1;
    pub const BAD_PEER_AS: u8 = 2;
    pub const BAD_IDENTIFIER: u8 = 3;
    pub const UNSUPPORTED_PARAMETER: u8 = 4;
    pub const HOLD_TIME: u8 = 6;
    pub const UNSUPPORTED_CAPABILITY: u8 = 7;
    pub const ROLE_MISMATCH: u8 = 11;
}

/// Subcodes of [`code::UPDATE`] (RFC 4271 §6.3).
pub mod update {
    pub const MALFORMED_ATTRIBUTES: u8 = 1;
    pub const UNRECOGNIZED_WELL_KNOWN: u8 = 2;
    pub const OPTIONAL_ATTRIBUTE: u8 = 9;
    pub const INVALID_NETWORK: u8 = 10;
}

/// Subcodes of [`code::CEASE`] (RFC 4486, RFC 8538, RFC 9384).
pub mod cease {
    pub const MAX_PREFIXES: u8 = 1;
    pub const ADMIN_SHUTDOWN: u8 = 2;
    pub const DECONFIGURED: u8 = 3;
    pub const ADMIN_RESET: u8 = 4;
    pub const REJECTED: u8 = 5;
    pub const CONFIG_CHANGE: u8 = 6;
    pub const COLLISION: u8 = 7;
    pub const HARD_RESET: u8 = 9;
    pub const BFD_DOWN: u8 = 10;
}

/// Why a session ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notification {
    pub code: u8,
    pub subcode: u8,
    /// What the code calls for; at most a message's length.
    pub data: Vec<u8>,
}

impl Notification {
    /// Without data.
    pub fn new(code: u8, subcode: u8) -> Self {
        Self { code, subcode, data: Vec::new() }
    }

    pub fn with_data(code: u8, subcode: u8, data: impl Into<Vec<u8>>) -> Self {
        Self { code, subcode, data: data.into() }
    }

    /// Cease with an administrative message (RFC 9003). The text is cut to 255 octets of UTF-8.
    pub fn shutdown(subcode: u8, text: &str) -> Self {
        let mut end = text.len().min(255);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        if end == 0 {
            return Self::new(code::CEASE, subcode);
        }
        let mut data = vec![end as u8];
        data.extend_from_slice(&text.as_bytes()[..end]);
        Self { code: code::CEASE, subcode, data }
    }

    /// The administrative message, if this carries a well-formed one (RFC 9003 §2).
    /// Control characters are replaced: the text ends up in logs and terminals.
    pub fn shutdown_message(&self) -> Option<String> {
        if self.code != code::CEASE
            || !matches!(self.subcode, cease::ADMIN_SHUTDOWN | cease::ADMIN_RESET)
        {
            return None;
        }
        let (&len, text) = self.data.split_first()?;
        let text = std::str::from_utf8(text.get(..usize::from(len))?).ok()?;
        (!text.is_empty())
            .then(|| text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect())
    }

    /// The registry's name of the code and subcode.
    pub fn name(&self) -> &'static str {
        match (self.code, self.subcode) {
            (code::HEADER, 1) => "Message Header Error/Connection Not Synchronized",
            (code::HEADER, 2) => "Message Header Error/Bad Message Length",
            (code::HEADER, 3) => "Message Header Error/Bad Message Type",
            (code::HEADER, _) => "Message Header Error",
            (code::OPEN, 1) => "OPEN Message Error/Unsupported Version Number",
            (code::OPEN, 2) => "OPEN Message Error/Bad Peer AS",
            (code::OPEN, 3) => "OPEN Message Error/Bad BGP Identifier",
            (code::OPEN, 4) => "OPEN Message Error/Unsupported Optional Parameter",
            (code::OPEN, 6) => "OPEN Message Error/Unacceptable Hold Time",
            (code::OPEN, 7) => "OPEN Message Error/Unsupported Capability",
            (code::OPEN, 11) => "OPEN Message Error/Role Mismatch",
            (code::OPEN, _) => "OPEN Message Error",
            (code::UPDATE, 1) => "UPDATE Message Error/Malformed Attribute List",
            (code::UPDATE, 2) => "UPDATE Message Error/Unrecognized Well-known Attribute",
            (code::UPDATE, 3) => "UPDATE Message Error/Missing Well-known Attribute",
            (code::UPDATE, 4) => "UPDATE Message Error/Attribute Flags Error",
            (code::UPDATE, 5) => "UPDATE Message Error/Attribute Length Error",
            (code::UPDATE, 6) => "UPDATE Message Error/Invalid ORIGIN Attribute",
            (code::UPDATE, 8) => "UPDATE Message Error/Invalid NEXT_HOP Attribute",
            (code::UPDATE, 9) => "UPDATE Message Error/Optional Attribute Error",
            (code::UPDATE, 10) => "UPDATE Message Error/Invalid Network Field",
            (code::UPDATE, 11) => "UPDATE Message Error/Malformed AS_PATH",
            (code::UPDATE, _) => "UPDATE Message Error",
            (code::HOLD_TIMER, _) => "Hold Timer Expired",
            (code::FSM, 1) => "Finite State Machine Error/Unexpected Message in OpenSent",
            (code::FSM, 2) => "Finite State Machine Error/Unexpected Message in OpenConfirm",
            (code::FSM, 3) => "Finite State Machine Error/Unexpected Message in Established",
            (code::FSM, _) => "Finite State Machine Error",
            (code::CEASE, 1) => "Cease/Maximum Number of Prefixes Reached",
            (code::CEASE, 2) => "Cease/Administrative Shutdown",
            (code::CEASE, 3) => "Cease/Peer De-configured",
            (code::CEASE, 4) => "Cease/Administrative Reset",
            (code::CEASE, 5) => "Cease/Connection Rejected",
            (code::CEASE, 6) => "Cease/Other Configuration Change",
            (code::CEASE, 7) => "Cease/Connection Collision Resolution",
            (code::CEASE, 8) => "Cease/Out of Resources",
            (code::CEASE, 9) => "Cease/Hard Reset",
            (code::CEASE, 10) => "Cease/BFD Down",
            (code::CEASE, _) => "Cease",
            (code::ROUTE_REFRESH, 1) => "ROUTE-REFRESH Message Error/Invalid Message Length",
            (code::ROUTE_REFRESH, _) => "ROUTE-REFRESH Message Error",
            (code::SEND_HOLD_TIMER, _) => "Send Hold Timer Expired",
            _ => "unknown",
        }
    }

    pub(super) fn decode(body: &[u8]) -> Option<Self> {
        let (&[code, subcode], data) = body.split_first_chunk::<2>()?;
        Some(Self { code, subcode, data: data.to_vec() })
    }
}

impl fmt::Display for Notification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}/{})", self.name(), self.code, self.subcode)?;
        match self.shutdown_message() {
            Some(text) => write!(f, ": {text}"),
            None => Ok(()),
        }
    }
}

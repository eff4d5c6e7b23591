//! OSPF packets (RFC 2328 §A.3, RFC 5340 §A.3): bytes to [`Packet`] and back. Authentication and
//! the packet checksum are [`super::auth`]'s: what arrives here has passed them.
//!
//! Bounded by the IP packet: a body never holds more than its bytes can. No panic whatever the
//! bytes.

use super::Version;
use super::lsa::{HEADER_LEN as LSA_HEADER_LEN, Lsa, LsaHeader, LsaKey};

/// Length of the OSPFv2 packet header.
pub const V2_HEADER_LEN: usize = 24;
/// Length of the OSPFv3 packet header.
pub const V3_HEADER_LEN: usize = 16;

/// Options (RFC 2328 §A.2, RFC 5340 §A.2): the bits used here have the same place in both.
pub mod options {
    /// OSPFv3: IPv6 forwarding.
    pub const V6: u32 = 0x01;
    /// The area takes AS-external-LSAs.
    pub const E: u32 = 0x02;
    /// The area is an NSSA (in an LSA's options: the P-bit).
    pub const N: u32 = 0x08;
    /// OSPFv3: the router may be transited.
    pub const R: u32 = 0x10;
    /// OSPFv2: opaque LSAs are understood.
    pub const O: u32 = 0x40;
    /// OSPFv3: an authentication trailer follows (RFC 7166).
    pub const AT: u32 = 0x400;
}

/// Flags of a database description packet.
pub mod dd {
    pub const INIT: u8 = 4;
    pub const MORE: u8 = 2;
    pub const MASTER: u8 = 1;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PacketType {
    Hello = 1,
    DatabaseDescription = 2,
    LinkStateRequest = 3,
    LinkStateUpdate = 4,
    LinkStateAck = 5,
}

/// What the packet header says, without lengths, checksum and authentication.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    pub router_id: u32,
    pub area_id: u32,
    /// OSPFv3 only; 0 in OSPFv2.
    pub instance_id: u8,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    pub header: Header,
    pub body: Body,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    Hello(Hello),
    DatabaseDescription(DatabaseDescription),
    Request(Vec<LsaKey>),
    Update(Vec<Lsa>),
    Ack(Vec<LsaHeader>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// OSPFv2 only: network mask.
    pub mask: u32,
    /// OSPFv3 only.
    pub interface_id: u32,
    pub options: u32,
    pub priority: u8,
    /// Seconds.
    pub hello_interval: u16,
    /// Seconds; 16 bits in OSPFv3.
    pub dead_interval: u32,
    /// OSPFv2: interface address; OSPFv3: router ID. 0: none.
    pub designated: u32,
    pub backup: u32,
    pub neighbors: Vec<u32>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatabaseDescription {
    pub mtu: u16,
    pub options: u32,
    /// See [`dd`].
    pub flags: u8,
    pub sequence: u32,
    pub headers: Vec<LsaHeader>,
}

/// Why bytes are no OSPF packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum ParseError {
    #[error("shorter than its header")]
    Truncated,
    #[error("other OSPF version")]
    Version,
    #[error("Packet length field does not fit")]
    Length,
    #[error("unknown packet type")]
    Type,
    #[error("malformed Hello")]
    Hello,
    #[error("malformed Database Description")]
    DatabaseDescription,
    #[error("malformed Link State Request")]
    Request,
    #[error("malformed Link State Update")]
    Update,
    #[error("malformed Link State Acknowledgment")]
    Ack,
}

/// Length of the packet header.
pub fn header_len(version: Version) -> usize {
    match version {
        Version::V2 => V2_HEADER_LEN,
        Version::V3 => V3_HEADER_LEN,
    }
}

/// The packet's own Packet length, checked against what arrived: the packet proper, and what
/// follows it (digest or trailer).
pub fn split(version: Version, bytes: &[u8]) -> Result<(&[u8], &[u8]), ParseError> {
    let header = header_len(version);
    if bytes.len() < header {
        return Err(ParseError::Truncated);
    }
    if bytes[0] != version as u8 {
        return Err(ParseError::Version);
    }
    let length = usize::from(u16::from_be_bytes([bytes[2], bytes[3]]));
    if length < header || length > bytes.len() {
        return Err(ParseError::Length);
    }
    Ok(bytes.split_at(length))
}

impl Packet {
    /// Reads a packet that [`split`] has cut to its length.
    pub fn parse(version: Version, bytes: &[u8]) -> Result<Self, ParseError> {
        let (bytes, _) = split(version, bytes)?;
        let header = Header {
            router_id: word(bytes, 4),
            area_id: word(bytes, 8),
            instance_id: if version == Version::V3 { bytes[14] } else { 0 },
        };
        let rest = &bytes[header_len(version)..];
        let body = match bytes[1] {
            1 => Body::Hello(Hello::parse(version, rest).ok_or(ParseError::Hello)?),
            2 => Body::DatabaseDescription(
                DatabaseDescription::parse(version, rest).ok_or(ParseError::DatabaseDescription)?,
            ),
            3 => Body::Request(parse_requests(rest).ok_or(ParseError::Request)?),
            4 => Body::Update(parse_update(version, rest).ok_or(ParseError::Update)?),
            5 => Body::Ack(parse_headers(version, rest).ok_or(ParseError::Ack)?),
            _ => return Err(ParseError::Type),
        };
        Ok(Self { header, body })
    }

    /// The packet with zero checksum and authentication, for [`super::auth`] to finish. An update
    /// writes each LSA with the age of its header.
    pub fn encode(&self, version: Version) -> Vec<u8> {
        let mut writer = Writer::new(version, self.body.packet_type(), &self.header);
        let out = &mut writer.bytes;
        match &self.body {
            Body::Hello(hello) => hello.write(version, out),
            Body::DatabaseDescription(dd) => dd.write(version, out),
            Body::Request(keys) => {
                for key in keys {
                    out.extend_from_slice(&u32::from(key.kind).to_be_bytes());
                    out.extend_from_slice(&key.id.to_be_bytes());
                    out.extend_from_slice(&key.router.to_be_bytes());
                }
            }
            Body::Update(lsas) => {
                out.extend_from_slice(&(lsas.len() as u32).to_be_bytes());
                for lsa in lsas {
                    lsa.write(lsa.header.age, out);
                }
            }
            Body::Ack(headers) => {
                for header in headers {
                    out.extend_from_slice(&header.encode(version));
                }
            }
        }
        writer.finish()
    }
}

impl Body {
    pub fn packet_type(&self) -> PacketType {
        match self {
            Self::Hello(_) => PacketType::Hello,
            Self::DatabaseDescription(_) => PacketType::DatabaseDescription,
            Self::Request(_) => PacketType::LinkStateRequest,
            Self::Update(_) => PacketType::LinkStateUpdate,
            Self::Ack(_) => PacketType::LinkStateAck,
        }
    }
}

/// A packet under construction.
struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    fn new(version: Version, kind: PacketType, header: &Header) -> Self {
        let mut bytes = vec![0; header_len(version)];
        bytes[0] = version as u8;
        bytes[1] = kind as u8;
        bytes[4..8].copy_from_slice(&header.router_id.to_be_bytes());
        bytes[8..12].copy_from_slice(&header.area_id.to_be_bytes());
        if version == Version::V3 {
            bytes[14] = header.instance_id;
        }
        Self { bytes }
    }

    fn finish(mut self) -> Vec<u8> {
        // The caller packs by the MTU; a lone LSA is at most 65 535 − headers by construction.
        let length = self.bytes.len().min(usize::from(u16::MAX)) as u16;
        self.bytes[2..4].copy_from_slice(&length.to_be_bytes());
        self.bytes
    }
}

impl Hello {
    fn parse(version: Version, bytes: &[u8]) -> Option<Self> {
        if bytes.len() < 20 || !bytes.len().is_multiple_of(4) {
            return None;
        }
        let neighbors = bytes[20..].chunks_exact(4).map(|chunk| word(chunk, 0)).collect();
        let (designated, backup) = (word(bytes, 12), word(bytes, 16));
        Some(match version {
            Version::V2 => Self {
                mask: word(bytes, 0),
                interface_id: 0,
                hello_interval: half(bytes, 4),
                options: u32::from(bytes[6]),
                priority: bytes[7],
                dead_interval: word(bytes, 8),
                designated,
                backup,
                neighbors,
            },
            Version::V3 => Self {
                mask: 0,
                interface_id: word(bytes, 0),
                priority: bytes[4],
                options: word(bytes, 4) & 0x00ff_ffff,
                hello_interval: half(bytes, 8),
                dead_interval: u32::from(half(bytes, 10)),
                designated,
                backup,
                neighbors,
            },
        })
    }

    fn write(&self, version: Version, out: &mut Vec<u8>) {
        match version {
            Version::V2 => {
                out.extend_from_slice(&self.mask.to_be_bytes());
                out.extend_from_slice(&self.hello_interval.to_be_bytes());
                out.extend_from_slice(&[self.options as u8, self.priority]);
                out.extend_from_slice(&self.dead_interval.to_be_bytes());
            }
            Version::V3 => {
                let priority = u32::from(self.priority) << 24;
                out.extend_from_slice(&self.interface_id.to_be_bytes());
                out.extend_from_slice(&(priority | self.options & 0x00ff_ffff).to_be_bytes());
                out.extend_from_slice(&self.hello_interval.to_be_bytes());
                out.extend_from_slice(&(self.dead_interval as u16).to_be_bytes());
            }
        }
        for id in [self.designated, self.backup].iter().chain(&self.neighbors) {
            out.extend_from_slice(&id.to_be_bytes());
        }
    }
}

impl DatabaseDescription {
    /// Length before the LSA headers.
    pub fn fixed_len(version: Version) -> usize {
        match version {
            Version::V2 => 8,
            Version::V3 => 12,
        }
    }

    fn parse(version: Version, bytes: &[u8]) -> Option<Self> {
        let fixed = Self::fixed_len(version);
        if bytes.len() < fixed {
            return None;
        }
        let headers = parse_headers(version, &bytes[fixed..])?;
        Some(match version {
            Version::V2 => Self {
                mtu: half(bytes, 0),
                options: u32::from(bytes[2]),
                flags: bytes[3] & 7,
                sequence: word(bytes, 4),
                headers,
            },
            Version::V3 => Self {
                options: word(bytes, 0) & 0x00ff_ffff,
                mtu: half(bytes, 4),
                flags: bytes[7] & 7,
                sequence: word(bytes, 8),
                headers,
            },
        })
    }

    fn write(&self, version: Version, out: &mut Vec<u8>) {
        match version {
            Version::V2 => {
                out.extend_from_slice(&self.mtu.to_be_bytes());
                out.extend_from_slice(&[self.options as u8, self.flags]);
            }
            Version::V3 => {
                out.extend_from_slice(&(self.options & 0x00ff_ffff).to_be_bytes());
                out.extend_from_slice(&self.mtu.to_be_bytes());
                out.extend_from_slice(&[0, self.flags]);
            }
        }
        out.extend_from_slice(&self.sequence.to_be_bytes());
        for header in &self.headers {
            out.extend_from_slice(&header.encode(version));
        }
    }
}

fn parse_requests(bytes: &[u8]) -> Option<Vec<LsaKey>> {
    if !bytes.len().is_multiple_of(12) {
        return None;
    }
    let key = |chunk: &[u8]| {
        Some(LsaKey {
            kind: u16::try_from(word(chunk, 0)).ok()?,
            id: word(chunk, 4),
            router: word(chunk, 8),
        })
    };
    bytes.chunks_exact(12).map(key).collect()
}

fn parse_update(version: Version, bytes: &[u8]) -> Option<Vec<Lsa>> {
    let (count, mut rest) = bytes.split_first_chunk::<4>()?;
    let count = u32::from_be_bytes(*count) as usize;
    if count > rest.len() / LSA_HEADER_LEN {
        return None;
    }
    let mut lsas = Vec::with_capacity(count);
    for _ in 0..count {
        let (lsa, after) = Lsa::parse(version, rest)?;
        lsas.push(lsa);
        rest = after;
    }
    rest.is_empty().then_some(lsas)
}

fn parse_headers(version: Version, bytes: &[u8]) -> Option<Vec<LsaHeader>> {
    let (chunks, rest) = bytes.as_chunks::<LSA_HEADER_LEN>();
    rest.is_empty().then(|| chunks.iter().map(|c| LsaHeader::parse(version, c)).collect())
}

/// Callers have checked the length.
fn half(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// Callers have checked the length.
fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

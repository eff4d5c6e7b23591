//! Datagrams between nodes: encoding, decoding, signature.
//!
//! All numbers are big-endian; docs/cluster.md draws the layout. A datagram is a header, up to
//! [`MAX_ENTRIES`] entries of one size, and an HMAC-SHA-256 over all of that. So a datagram is at
//! most [`MAX_DATAGRAM`] bytes, which fit in the smallest IPv6 MTU. The signature is checked first:
//! nothing is read from a datagram of a stranger.

use crate::forward::{FlowKey, FlowMapping, FlowPhase};
use arrayvec::ArrayVec;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Most flows in one datagram.
pub const MAX_ENTRIES: usize = 13;
/// Longest datagram, bytes.
pub const MAX_DATAGRAM: usize = HEADER + MAX_ENTRIES * MAPPING + SIGNATURE;

const _: () = assert!(MAX_DATAGRAM <= 1280 - 40 - 8);

const MAGIC: [u8; 4] = *b"DNLF";
const VERSION: u8 = 1;
const HEADER: usize = 20;
const KEY: usize = 40;
const MAPPING: usize = KEY + 44;
const SIGNATURE: usize = 32;
const QUESTION: u8 = 1;
const ANSWER: u8 = 2;
const TCP: u8 = crate::packet::PROTOCOL_TCP;

/// A datagram's content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Router id of the node that sent it.
    pub sender: Ipv4Addr,
    /// Chosen at random by the asking node, and repeated in the answer.
    pub nonce: u64,
    pub body: Body,
}

#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "one at a time, on the stack")]
pub enum Body {
    /// "Which of these flows are yours?"
    Question(ArrayVec<FlowKey, MAX_ENTRIES>),
    /// "These are"; the others that were asked for are not.
    Answer(ArrayVec<FlowMapping, MAX_ENTRIES>),
}

/// Why a datagram was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    #[error("the signature is wrong")]
    Signature,
    #[error("version {0} is not known")]
    Version(u8),
    #[error("the format is wrong")]
    Malformed,
}

/// Signs and checks with one key.
#[derive(Clone)]
pub struct Signer(Hmac<Sha256>);

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signer")
    }
}

impl Signer {
    pub fn new(key: &[u8]) -> Self {
        // HMAC takes keys of any length; those longer than a block are hashed (RFC 2104 §2).
        let mut block = [0; 64];
        let hashed = <Sha256 as sha2::Digest>::digest(key);
        let key = if key.len() > block.len() { &hashed[..] } else { key };
        block[..key.len()].copy_from_slice(key);
        Self(<Hmac<Sha256> as KeyInit>::new(&block.into()))
    }

    /// The datagram for a message.
    pub fn encode(&self, message: &Message) -> Vec<u8> {
        let mut out = Vec::with_capacity(MAX_DATAGRAM);
        let (kind, count) = match &message.body {
            Body::Question(keys) => (QUESTION, keys.len()),
            Body::Answer(mappings) => (ANSWER, mappings.len()),
        };
        out.extend(MAGIC);
        out.extend([VERSION, kind, count as u8, 0]);
        out.extend(message.sender.octets());
        out.extend(message.nonce.to_be_bytes());
        match &message.body {
            Body::Question(keys) => keys.iter().for_each(|key| put_key(&mut out, key)),
            Body::Answer(mappings) => mappings.iter().for_each(|m| put_mapping(&mut out, m)),
        }
        let mut mac = self.0.clone();
        mac.update(&out);
        out.extend(mac.finalize().into_bytes());
        out
    }

    /// The message in a datagram.
    pub fn decode(&self, datagram: &[u8]) -> Result<Message, WireError> {
        let signed = datagram.len().checked_sub(SIGNATURE).ok_or(WireError::Malformed)?;
        if datagram.len() > MAX_DATAGRAM {
            return Err(WireError::Malformed);
        }
        let (content, signature) = datagram.split_at(signed);
        let mut mac = self.0.clone();
        mac.update(content);
        mac.verify_slice(signature).map_err(|_| WireError::Signature)?;
        decode_content(content)
    }
}

/// What is signed. Separate, so that it can be fuzzed.
pub fn decode_content(content: &[u8]) -> Result<Message, WireError> {
    let mut reader = Reader(content);
    if reader.take::<4>()? != MAGIC {
        return Err(WireError::Malformed);
    }
    let [version, kind, count, reserved] = reader.take()?;
    if version != VERSION {
        return Err(WireError::Version(version));
    }
    let count = usize::from(count);
    if reserved != 0 || count > MAX_ENTRIES {
        return Err(WireError::Malformed);
    }
    let sender = Ipv4Addr::from(reader.take::<4>()?);
    let nonce = u64::from_be_bytes(reader.take()?);
    let body = match kind {
        QUESTION if count > 0 => Body::Question(entries(&mut reader, count, get_key)?),
        ANSWER => Body::Answer(entries(&mut reader, count, get_mapping)?),
        _ => return Err(WireError::Malformed),
    };
    if !reader.0.is_empty() {
        return Err(WireError::Malformed);
    }
    Ok(Message { sender, nonce, body })
}

fn entries<T>(
    reader: &mut Reader<'_>,
    count: usize,
    get: fn(&mut Reader<'_>) -> Result<T, WireError>,
) -> Result<ArrayVec<T, MAX_ENTRIES>, WireError> {
    (0..count).map(|_| get(reader)).collect()
}

fn put_key(out: &mut Vec<u8>, key: &FlowKey) {
    out.extend([if key.client.is_ipv4() { 4 } else { 6 }, TCP]);
    out.extend(key.client.port().to_be_bytes());
    out.extend(key.vip.port().to_be_bytes());
    out.extend([0; 2]);
    put_address(out, key.client.ip());
    put_address(out, key.vip.ip());
}

fn put_mapping(out: &mut Vec<u8>, mapping: &FlowMapping) {
    put_key(out, &mapping.key);
    out.extend(mapping.lip.port().to_be_bytes());
    out.extend(mapping.backend.port().to_be_bytes());
    out.extend([phase_number(mapping.phase), 0, 0, 0]);
    out.extend(mapping.idle_ms.to_be_bytes());
    put_address(out, mapping.lip.ip());
    put_address(out, mapping.backend.ip());
}

/// 16 bytes; IPv4 in the first four, zeros behind.
fn put_address(out: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(v4) => {
            out.extend(v4.octets());
            out.extend([0; 12]);
        }
        IpAddr::V6(v6) => out.extend(v6.octets()),
    }
}

fn get_key(reader: &mut Reader<'_>) -> Result<FlowKey, WireError> {
    Ok(get_family_and_key(reader)?.1)
}

fn get_family_and_key(reader: &mut Reader<'_>) -> Result<(bool, FlowKey), WireError> {
    let [family, protocol] = reader.take()?;
    let v6 = match (family, protocol) {
        (4, TCP) => false,
        (6, TCP) => true,
        _ => return Err(WireError::Malformed),
    };
    let [client, vip] = [reader.port()?, reader.port()?];
    reader.zeros::<2>()?;
    let client = SocketAddr::new(reader.address(v6)?, client);
    let vip = SocketAddr::new(reader.address(v6)?, vip);
    Ok((v6, FlowKey { client, vip }))
}

fn get_mapping(reader: &mut Reader<'_>) -> Result<FlowMapping, WireError> {
    let (v6, key) = get_family_and_key(reader)?;
    let [lip, backend] = [reader.port()?, reader.port()?];
    let [number] = reader.take()?;
    let known = FlowPhase::ALL.into_iter().find(|&phase| phase_number(phase) == number);
    let phase = known.ok_or(WireError::Malformed)?;
    reader.zeros::<3>()?;
    let idle_ms = u32::from_be_bytes(reader.take()?);
    let lip = SocketAddr::new(reader.address(v6)?, lip);
    let backend = SocketAddr::new(reader.address(v6)?, backend);
    Ok(FlowMapping { key, lip, backend, phase, idle_ms })
}

const fn phase_number(phase: FlowPhase) -> u8 {
    match phase {
        FlowPhase::Established => 1,
        FlowPhase::FinClient => 2,
        FlowPhase::FinServer => 3,
        FlowPhase::Closing => 4,
        FlowPhase::Reset => 5,
    }
}

/// What is left to read.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let (taken, rest) = self.0.split_first_chunk::<N>().ok_or(WireError::Malformed)?;
        self.0 = rest;
        Ok(*taken)
    }

    fn zeros<const N: usize>(&mut self) -> Result<(), WireError> {
        if self.take::<N>()? == [0; N] { Ok(()) } else { Err(WireError::Malformed) }
    }

    fn port(&mut self) -> Result<u16, WireError> {
        self.take().map(u16::from_be_bytes)
    }

    fn address(&mut self, v6: bool) -> Result<IpAddr, WireError> {
        if v6 {
            return self.take::<16>().map(IpAddr::from);
        }
        let address = IpAddr::from(self.take::<4>()?);
        self.zeros::<12>()?;
        Ok(address)
    }
}

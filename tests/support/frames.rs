//! A small language for frames, so that a case can be read: `udp 198.51.100.7:4000 192.0.2.1:53`.
//!
//! First word: `udp`, `tcp`, `icmp`, `ip` or `hex`; then source and destination; then options:
//!
//! | option | |
//! |---|---|
//! | `flags=SA` | TCP flags: F S R P A U |
//! | `payload=HEX` | UDP, TCP or ICMP data; for ICMP type and code come first |
//! | `proto=N` | protocol of `ip` |
//! | `port=1` | received on this port (0 is toward clients) |
//! | `ttl=N` | TTL or hop limit, checksum right |
//! | `set=OFFSET:HEX` | overwrite bytes of the finished frame, checksums as they were |
//! | `fixip` | then make the IPv4 header's checksum right again |
//! | `vlan=N` | insert an 802.1Q tag |
//! | `to=MAC` | destination MAC, six bytes of hex; the port's own otherwise |
//! | `cut=N` | keep the first N bytes |
//! | `pad=N` | append N zero bytes |
//! | `rx=bad-ip`, `rx=bad-l4`, `rx=good` | what the port said |

use super::{INNER, INNER_MAC, OUTER, OUTER_MAC, ROUTER_MAC, backend_mac};
use dunlin::forward::tables::PortId;
use dunlin::packet::build::{self, Link};
use dunlin::packet::checksum::checksum;
use dunlin::packet::{Checksum, Fragment, Frame, Kind, Other, RxMeta, parse as parse_frame};
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

/// A buffer with what its port said about it.
#[derive(Debug, Clone, Default)]
pub struct TestFrame {
    pub bytes: Vec<u8>,
    pub meta: RxMeta,
}

impl Frame for TestFrame {
    fn data(&self) -> &[u8] {
        &self.bytes
    }

    fn data_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    fn rx_meta(&self) -> RxMeta {
        self.meta
    }
}

/// Read a frame's description. Returns the port it arrives on, and the frame.
pub fn parse(text: &str) -> Result<(PortId, TestFrame), String> {
    let mut words = text.split_whitespace();
    let kind = words.next().ok_or("an empty description")?;
    if kind == "hex" {
        let bytes = from_hex(words.next().unwrap_or(""))?;
        let frame = TestFrame { bytes, meta: RxMeta::default() };
        return Ok((OUTER, frame));
    }
    let source = words.next().ok_or("a source is missing")?;
    let destination = words.next().ok_or("a destination is missing")?;
    let options = Options::read(words)?;
    let link = options.link();
    let bytes = match kind {
        "udp" => build::udp(link, socket(source)?, socket(destination)?, &options.payload),
        "tcp" => {
            build::tcp(link, socket(source)?, socket(destination)?, options.flags, &options.payload)
        }
        "icmp" => build::icmp(link, host(source)?, host(destination)?, &options.payload),
        "ip" => build::ip(
            link,
            host(source)?,
            host(destination)?,
            options.protocol,
            options.payload.clone(),
        ),
        other => return Err(format!("{other:?} is no kind of frame")),
    };
    let frame = options.apply(bytes)?;
    Ok((options.port, frame))
}

struct Options {
    port: PortId,
    flags: u8,
    payload: Vec<u8>,
    protocol: u8,
    ttl: Option<u8>,
    sets: Vec<(usize, Vec<u8>)>,
    fix_ip: bool,
    vlan: Option<u16>,
    to: Option<Vec<u8>>,
    cut: Option<usize>,
    pad: usize,
    meta: RxMeta,
}

impl Options {
    fn read<'a>(words: impl Iterator<Item = &'a str>) -> Result<Self, String> {
        let mut options = Self {
            port: OUTER,
            flags: 0,
            payload: Vec::new(),
            protocol: 0,
            ttl: None,
            sets: Vec::new(),
            fix_ip: false,
            vlan: None,
            to: None,
            cut: None,
            pad: 0,
            meta: RxMeta::default(),
        };
        for word in words {
            let (key, value) = word.split_once('=').unwrap_or((word, ""));
            match key {
                "port" => options.port = PortId(number(value)?),
                "flags" => options.flags = flags(value)?,
                "payload" => options.payload = from_hex(value)?,
                "proto" => options.protocol = number(value)?,
                "ttl" => options.ttl = Some(number(value)?),
                "set" => {
                    let (at, bytes) = value.split_once(':').ok_or("set=OFFSET:HEX")?;
                    options.sets.push((number(at)?, from_hex(bytes)?));
                }
                "fixip" => options.fix_ip = true,
                "vlan" => options.vlan = Some(number(value)?),
                "to" => options.to = Some(from_hex(value)?),
                "cut" => options.cut = Some(number(value)?),
                "pad" => options.pad = number(value)?,
                "rx" => options.meta = meta(value)?,
                other => return Err(format!("{other:?} is no option")),
            }
        }
        Ok(options)
    }

    fn link(&self) -> Link {
        if self.port == INNER {
            Link { source: backend_mac(11), destination: INNER_MAC }
        } else {
            Link { source: ROUTER_MAC, destination: OUTER_MAC }
        }
    }

    fn apply(&self, mut bytes: Vec<u8>) -> Result<TestFrame, String> {
        let v4 = bytes[12..14] == [0x08, 0x00];
        if let Some(ttl) = self.ttl {
            bytes[if v4 { 22 } else { 21 }] = ttl;
            if v4 {
                fix_ip(&mut bytes);
            }
        }
        for (at, new) in &self.sets {
            let end = at + new.len();
            let place = bytes.get_mut(*at..end).ok_or("set= beyond the frame")?;
            place.copy_from_slice(new);
        }
        if self.fix_ip {
            fix_ip(&mut bytes);
        }
        if let Some(tag) = self.vlan {
            let [high, low] = tag.to_be_bytes();
            bytes.splice(12..12, [0x81, 0x00, high, low]);
        }
        if let Some(to) = &self.to {
            bytes[..6].copy_from_slice(to.get(..6).ok_or("to= wants six bytes")?);
        }
        if let Some(keep) = self.cut {
            bytes.truncate(keep);
        }
        bytes.resize(bytes.len() + self.pad, 0);
        Ok(TestFrame { bytes, meta: self.meta })
    }
}

fn fix_ip(bytes: &mut [u8]) {
    let length = usize::from(bytes[14] & 0x0f) * 4;
    bytes[24..26].fill(0);
    let value = checksum(&bytes[14..14 + length]).to_ne_bytes();
    bytes[24..26].copy_from_slice(&value);
}

fn flags(text: &str) -> Result<u8, String> {
    text.chars().try_fold(0, |flags, letter| {
        let bit = "FSRPAU".find(letter).ok_or("flags are of FSRPAU")?;
        Ok(flags | 1 << bit)
    })
}

fn meta(text: &str) -> Result<RxMeta, String> {
    let (ip_checksum, l4_checksum) = match text {
        "bad-ip" => (Checksum::Bad, Checksum::Good),
        "bad-l4" => (Checksum::Good, Checksum::Bad),
        "good" => (Checksum::Good, Checksum::Good),
        other => return Err(format!("rx={other}")),
    };
    Ok(RxMeta { rss_hash: None, ip_checksum, l4_checksum })
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("{text:?} is no number"))
}

fn socket(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| format!("{text:?} is no address and port"))
}

fn host(text: &str) -> Result<IpAddr, String> {
    text.parse().map_err(|_| format!("{text:?} is no address"))
}

pub fn from_hex(text: &str) -> Result<Vec<u8>, String> {
    if !text.len().is_multiple_of(2) || !text.is_ascii() {
        return Err("hex wants two digits per byte".into());
    }
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).map_err(|_| "not hex".into()))
        .collect()
}

pub fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Say what is in a frame, as independently of the packet path as one page allows.
pub fn describe(frame: &[u8]) -> String {
    let Some(ethernet) = frame.first_chunk::<14>() else {
        return format!("{} bytes", frame.len());
    };
    let macs = format!("{} > {}", mac(&ethernet[6..12]), mac(&ethernet[..6]));
    let (ip, v6) = match (ethernet[12], ethernet[13]) {
        (0x08, 0x00) if frame.len() >= 34 => (&frame[14..], false),
        (0x86, 0xdd) if frame.len() >= 54 => (&frame[14..], true),
        (a, b) => return format!("{macs} ethertype {a:02x}{b:02x}, {} bytes", frame.len()),
    };
    let (source, destination, protocol, ttl, l4) = if v6 {
        let address = |at: usize| {
            let mut bytes = [0; 16];
            bytes.copy_from_slice(&ip[at..at + 16]);
            IpAddr::from(bytes)
        };
        (address(8), address(24), ip[6], ip[7], &ip[40..])
    } else {
        let address = |at: usize| IpAddr::from([ip[at], ip[at + 1], ip[at + 2], ip[at + 3]]);
        (address(12), address(16), ip[9], ip[8], &ip[20..])
    };
    if let Ok(Kind::OtherIp { why: Other::Fragment, .. }) = parse_frame(frame, frame.len(), false)
        && let Ok(fragment) = Fragment::read(frame, v6)
    {
        let Fragment { protocol, identification, offset, length, more } = fragment;
        let more = if more { ", more to come" } else { "" };
        let sums = if v6 || checksum(&ip[..20]) == 0 { "right" } else { "WRONG" };
        return format!(
            "fragment of protocol {protocol} {source} > {destination}, {length} bytes at {offset} of \
             {identification:#x}{more}, ttl {ttl}, header {sums}, {macs}, {} bytes",
            frame.len()
        );
    }
    let sums = if build::checksums_good(frame) { "checksums right" } else { "checksum WRONG" };
    let what = match protocol {
        6 | 17 if l4.len() >= 8 => {
            let name = if protocol == 6 { "tcp" } else { "udp" };
            let port = |at: usize| u16::from_be_bytes([l4[at], l4[at + 1]]);
            let source = SocketAddr::new(source, port(0));
            let destination = SocketAddr::new(destination, port(2));
            let none = protocol == 17 && l4[6..8] == [0, 0];
            let sum = if none { ", no UDP checksum" } else { "" };
            format!("{name} {source} > {destination}{sum}")
        }
        1 | 58 if l4.len() >= 2 => {
            format!("icmp type {} code {} {source} > {destination}", l4[0], l4[1])
        }
        other => format!("protocol {other} {source} > {destination}"),
    };
    format!("{what}, ttl {ttl}, {sums}, {macs}, {} bytes", frame.len())
}

fn mac(bytes: &[u8]) -> String {
    let parts: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    parts.join(":")
}

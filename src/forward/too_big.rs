//! Packets larger than the MTU of their way out: their sender is told, so that path MTU discovery
//! works through us as through any router (RFC 1191 §4, RFC 8201 §3).
//!
//! The packet itself becomes the answer: an ICMP error in front of as much of it as an error may
//! quote, from the address it was sent to, back the way it came. What the answer does not need of the
//! frame stays behind it, as padding. IPv4 that may be fragmented is dropped without an answer, since
//! RFC 792 has none for it. Bounded per second.

use super::budget::Budget;
use super::create::find;
use super::engine::{Context, Engine};
use super::tuple::{Family, Tuple, leaves, protocol_number, transport};
use super::verdict::Verdict;
use crate::packet::checksum::{self, fold, pseudo_header};
use crate::packet::{PROTOCOL_ICMP, PROTOCOL_ICMPV6, offset};

/// Answers per second and worker; as many at once. RFC 1812 §4.3.2.8, RFC 4443 §2.4 (f).
pub(super) const PER_SECOND: u32 = 1000;
/// TTL of what we send ourselves (RFC 1700's default).
const OWN_TTL: u8 = 64;
/// Most bytes of an error: RFC 1812 §4.3.2.3, RFC 4443 §2.4 (c).
const LONGEST_V4: usize = 576;
const LONGEST_V6: usize = 1280;
/// Of an IP header and an ICMP header, without options.
const HEADS_V4: usize = 28;
const HEADS_V6: usize = 48;
/// In the byte at [`FLAGS`].
const DO_NOT_FRAGMENT: u8 = 0x40;
const FLAGS: usize = offset::IP + 6;

/// How many answers may still be given.
#[derive(Debug)]
pub(super) struct Answers(Budget);

impl Answers {
    pub fn new() -> Self {
        Self(Budget::new(PER_SECOND, PER_SECOND))
    }
}

impl Engine {
    /// Turn a packet that is too big for its way out into the answer to it. `data`: the frame as it
    /// arrived; `header`: its headers, those of a first fragment as if it were whole. `None`: it gets
    /// no answer, and nothing changed.
    #[inline(never)]
    pub(super) fn answer_too_big<A: Family, const TCP: bool, const N: usize>(
        &mut self,
        context: &Context,
        data: &mut [u8],
        header: &[u8; N],
    ) -> Option<Verdict> {
        if !A::V6 && data.get(FLAGS)? & DO_NOT_FRAGMENT == 0 {
            return None;
        }
        let mtu = self.mtu_toward::<A, TCP, N>(context, header)?;
        if !self.answers.0.take(context.now.start()) {
            return None;
        }
        if A::V6 { answer_v6(data, mtu) } else { answer_v4(data, mtu) }?;
        self.stats.too_big_answers.add(1);
        Some(Verdict::Transmit { port: context.port })
    }

    /// The MTU of the port by which a packet of a known flow has to leave.
    fn mtu_toward<A: Family, const TCP: bool, const N: usize>(
        &self,
        context: &Context,
        header: &[u8; N],
    ) -> Option<u16> {
        let (tables, lips) = (context.tables, &self.adoption.lips);
        let transport = transport(A::V6, TCP);
        let arrives = Tuple::<A>::read(header);
        let hash = arrives.hash(&self.seed, protocol_number(transport)) as u32;
        let entry = find(&self.flows, tables, lips, transport, &arrives, hash)?;
        let out = leaves::<A>(tables, lips, self.flows.get(entry.flow())?, entry.direction())?;
        let number = self.route(tables, &out, transport).ok()?;
        tables.adjacency(number).map(|adjacency| adjacency.mtu)
    }
}

/// RFC 792, RFC 1191 §4: destination unreachable, fragmentation needed.
fn answer_v4(data: &mut [u8], mtu: u16) -> Option<()> {
    let quoted = make_room(data, offset::V4_LENGTH, 0, HEADS_V4, LONGEST_V4)?;
    let message = data.get_mut(offset::IP..offset::IP + HEADS_V4 + quoted)?;
    let (ip, icmp) = message.split_at_mut(20);
    ip[..8].copy_from_slice(&[0x45, 0, 0, 0, 0, 0, DO_NOT_FRAGMENT, 0]);
    ip[2..4].copy_from_slice(&((HEADS_V4 + quoted) as u16).to_be_bytes());
    ip[8..12].copy_from_slice(&[OWN_TTL, PROTOCOL_ICMP, 0, 0]);
    turn(&mut ip[12..20]);
    let value = checksum::checksum(ip);
    ip[10..12].copy_from_slice(&value.to_ne_bytes());
    icmp[..6].copy_from_slice(&[3, 4, 0, 0, 0, 0]);
    icmp[6..8].copy_from_slice(&mtu.to_be_bytes());
    let value = checksum::checksum(icmp);
    icmp[2..4].copy_from_slice(&value.to_ne_bytes());
    Some(())
}

/// RFC 4443 §3.2: packet too big.
fn answer_v6(data: &mut [u8], mtu: u16) -> Option<()> {
    let quoted = make_room(data, offset::V6_LENGTH, 40, HEADS_V6, LONGEST_V6)?;
    let message = data.get_mut(offset::IP..offset::IP + HEADS_V6 + quoted)?;
    let (ip, icmp) = message.split_at_mut(40);
    let length = icmp.len() as u16;
    ip[..4].copy_from_slice(&[0x60, 0, 0, 0]);
    ip[4..6].copy_from_slice(&length.to_be_bytes());
    ip[6..8].copy_from_slice(&[PROTOCOL_ICMPV6, OWN_TTL]);
    turn(&mut ip[8..40]);
    icmp[..4].copy_from_slice(&[2, 0, 0, 0]);
    icmp[4..8].copy_from_slice(&u32::from(mtu).to_be_bytes());
    let pseudo = pseudo_header(&ip[8..24], &ip[24..40], PROTOCOL_ICMPV6, length.into());
    let value = !fold(pseudo + checksum::sum(icmp));
    icmp[2..4].copy_from_slice(&value.to_ne_bytes());
    Some(())
}

/// Move the IP packet back, behind room for the headers of an error about it, and address the frame
/// back to where it came from. Returns how many bytes of the packet are quoted. The IP header's place
/// holds what it did. `None`: the frame is not longer than an error about it, and nothing changed.
fn make_room(
    data: &mut [u8],
    length_at: usize,
    uncounted: usize,
    heads: usize,
    longest: usize,
) -> Option<usize> {
    let length = u16::from_be_bytes(*data.get(length_at..)?.first_chunk()?);
    let packet = usize::from(length) + uncounted;
    let quoted = packet.min(longest - heads).min(data.len().checked_sub(offset::IP + heads)?);
    if quoted <= heads {
        return None;
    }
    data.copy_within(offset::IP..offset::IP + quoted, offset::IP + heads);
    turn(&mut data[..12]);
    Some(quoted)
}

/// Two addresses, the other way round.
fn turn(addresses: &mut [u8]) {
    let (first, second) = addresses.split_at_mut(addresses.len() / 2);
    first.swap_with_slice(second);
}

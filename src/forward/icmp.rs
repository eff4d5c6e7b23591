//! ICMP and ICMPv6 to our VIPs and LIPs: echo requests to a VIP are answered; errors about a packet
//! of a flow are translated to whom sent that packet, so that path MTU discovery and "port
//! unreachable" work through us (RFC 5508 §4.2, for both directions). The rest is the kernel's.

use super::build::Local;
use super::create::find;
use super::engine::{Context, Engine, Origin};
use super::fragments::FRAGMENT_HEADER;
use super::owner::Asked;
use super::tables::Protocol;
use super::tuple::{Family, Tuple, deltas, get, is_tcp, leaves, protocol_number, put};
use super::unusual::address;
use super::verdict::{DropReason, Verdict};
use crate::packet::checksum::Delta;
use crate::packet::{Fragment, PROTOCOL_TCP, PROTOCOL_UDP, Transport, offset};

/// TTL of what we send ourselves (RFC 1700's default).
const OWN_TTL: u8 = 64;
/// Most bytes of a quoted packet that translation can change: an IPv6, a Fragment and a TCP header.
const MOST_CHANGED: usize = 68;

/// What kind of message, for what is done with it.
enum Message {
    Echo,
    /// With a quoted packet after 8 bytes.
    Error,
    Other,
}

impl Message {
    /// RFC 792; RFC 4443 §2.1.
    const fn of(v6: bool, kind: u8) -> Self {
        match (v6, kind) {
            (false, 8) | (true, 128) => Self::Echo,
            (false, 3 | 11 | 12) | (true, 1..=4) => Self::Error,
            _ => Self::Other,
        }
    }
}

impl Engine {
    /// `N`: bytes up to the end of a UDP header. At least 8 bytes of the message are there.
    pub(super) fn icmp<A: Family, const N: usize>(
        &mut self,
        context: Context,
        frame: &mut [u8],
    ) -> Verdict {
        let Some(header) = frame.first_chunk_mut::<N>() else {
            return Verdict::Drop(DropReason::Truncated);
        };
        let destination = A::read(header, A::DESTINATION).to_address();
        let local = context.tables.local(destination, A::V6);
        match (Message::of(A::V6, header[A::L4]), local) {
            (Message::Echo, Some(Local::Vip { live: true })) => {
                answer_echo::<A, N>(header);
                self.stats.echo_replies.add(1);
                Verdict::Transmit { port: context.port }
            }
            (Message::Error, Some(_)) => {
                self.icmp_error::<A, N>(context, frame).unwrap_or_else(Verdict::Drop)
            }
            _ => Verdict::Kernel,
        }
    }

    /// An error that somebody on the way, or at the end of it, sent about a packet we translated.
    /// It quotes that packet as we sent it, so the reverse of the quoted tuple is what packets of
    /// the other direction arrive with.
    fn icmp_error<A: Family, const N: usize>(
        &mut self,
        context: Context,
        frame: &mut [u8],
    ) -> Result<Verdict, DropReason> {
        let message = ip_packet::<A>(frame).ok_or(DropReason::Truncated)?;
        let quoted = Quote::<A>::read::<N>(message)?;
        if message
            .first_chunk::<N>()
            .is_none_or(|header| A::read(header, A::DESTINATION) != quoted.tuple.source)
        {
            return Err(DropReason::NoFlow); // it was not sent to whom it quotes
        }
        let transport = quoted.transport;
        let arrives = quoted.tuple.reversed();
        let hash = arrives.hash(&self.seed, protocol_number(transport));
        if self.workers > 1 && context.origin == Origin::Port {
            let owner = self.owner(&context, transport, &arrives, hash, Asked::ByAddresses);
            if let Some(worker) = owner.filter(|&owner| owner != self.worker) {
                return Ok(Verdict::Handover { worker });
            }
        }
        let (tables, lips) = (context.tables, &self.adoption.lips);
        let known = find(&self.flows, tables, lips, transport, &arrives, hash as u32);
        let Some(entry) = known else {
            return Err(self.no_flow(context, transport, &arrives, hash as u32));
        };
        let out = self
            .flows
            .get(entry.flow())
            .and_then(|record| leaves::<A>(tables, lips, record, entry.direction()))
            .ok_or(DropReason::NoFlow)?;
        if message[A::TTL] <= 1 {
            return Err(DropReason::TtlExpired);
        }
        let number = match self.route(tables, &out, transport) {
            Ok(number) => number,
            Err(Verdict::Drop(reason)) => return Err(reason),
            // Not worth a place among the frames that wait: errors are sent again.
            Err(_) => return Err(DropReason::Unresolved),
        };
        let header = message.first_chunk_mut::<N>().ok_or(DropReason::Truncated)?;
        let verdict = address::<A, N>(tables, number, header);
        if let Verdict::Transmit { .. } = verdict {
            translate_error::<A, N>(message, &quoted, &out);
            self.stats.icmp_errors.add(1);
        }
        Ok(verdict)
    }

    /// An error about a packet of no flow here. If another node may have sent it, ask: the sender
    /// of errors will repeat this one.
    fn no_flow<A: Family>(
        &mut self,
        context: Context,
        transport: Transport,
        arrives: &Tuple<A>,
        hash: u32,
    ) -> DropReason {
        let (tables, vip) = (context.tables, arrives.destination.to_address());
        let port = arrives.destination_port;
        let ours =
            is_tcp(transport) && tables.find_service(vip, A::V6, Protocol::Tcp, port).is_some();
        match ours.then(|| self.ask(tables, context.now, arrives, hash)) {
            Some(DropReason::AskedPeers) => DropReason::AskedPeers,
            _ => DropReason::NoFlow,
        }
    }
}

/// Turn an echo request into its reply (RFC 792, RFC 4443 §4.2), back to where it came from.
fn answer_echo<A: Family, const N: usize>(header: &mut [u8; N]) {
    let (macs, _) = header.split_at_mut(12);
    let (to, from) = macs.split_at_mut(6);
    to.swap_with_slice(from);
    let source = A::read(header, A::SOURCE);
    let destination = A::read(header, A::DESTINATION);
    destination.write(header, A::SOURCE);
    source.write(header, A::DESTINATION);
    // Echo reply. The pseudo-header's sum is the same with the addresses turned.
    let reply = if A::V6 { 129 } else { 0 };
    let change = |header: &mut [u8; N], at: usize, value: u8, checksum: usize| {
        let before = [header[at], header[at + 1]];
        header[at] = value;
        let after = [header[at], header[at + 1]];
        update(header, checksum, Delta::NONE.replace(&before, &after));
    };
    change(header, A::L4, reply, A::L4 + 2);
    // A reply of zeros only (identifier, sequence number, data) has the other zero: the update cannot
    // tell (RFC 1624 §3), and for any other reply both are right.
    if header[A::L4 + 2..A::L4 + 4] == [0, 0] {
        header[A::L4 + 2..A::L4 + 4].fill(0xff);
    }
    if A::V6 {
        header[A::TTL] = OWN_TTL;
    } else {
        change(header, A::TTL, OWN_TTL, offset::V4_CHECKSUM);
    }
}

/// The frame without what follows the IP packet.
fn ip_packet<A: Family>(frame: &mut [u8]) -> Option<&mut [u8]> {
    let length = *frame.get(A::LENGTH..)?.first_chunk::<2>()?;
    let length = u32::from(u16::from_be_bytes(length)) + A::LENGTH_WITHOUT;
    let end = frame.len().min(offset::IP + length as usize);
    frame.get_mut(..end)
}

/// The packet that an error quotes, as we sent it.
struct Quote<A> {
    transport: Transport,
    tuple: Tuple<A>,
    /// Where in the message's frame its TCP or UDP header begins.
    l4: usize,
}

impl<A: Family> Quote<A> {
    /// 14 bytes before the quoted packet: offsets from the start of a frame are right from here.
    const START: usize = A::L4 + 8 - offset::IP;

    /// `N`: bytes up to the end of a UDP header. An IPv6 first fragment has its Fragment header before.
    fn read<const N: usize>(message: &[u8]) -> Result<Self, DropReason> {
        let frame = message.get(Self::START..).ok_or(DropReason::Truncated)?;
        let mut header = *frame.first_chunk::<N>().ok_or(DropReason::Truncated)?;
        let mut l4 = A::L4;
        if A::V6 && header[A::PROTOCOL] == FRAGMENT_HEADER {
            let [next, _, offset, low, ..] = get::<8, N>(&header, A::L4);
            if u16::from_be_bytes([offset, low]) & 0xfff8 != 0 {
                return Err(DropReason::UnsupportedHeader); // it does not begin with ports
            }
            l4 += Fragment::header_len(true);
            let behind = frame.get(l4..).and_then(<[u8]>::first_chunk::<8>);
            put(&mut header, A::L4, *behind.ok_or(DropReason::Truncated)?);
            header[A::PROTOCOL] = next;
        }
        let transport = quoted_transport::<A, N>(&header)?;
        Ok(Self { transport, tuple: Tuple::read(&header), l4: Self::START + l4 })
    }
}

fn quoted_transport<A: Family, const N: usize>(quoted: &[u8; N]) -> Result<Transport, DropReason> {
    let fragment = u16::from_be_bytes([quoted[offset::IP + 6], quoted[offset::IP + 7]]);
    // Fragments but the first do not begin with ports.
    let whole = if A::V6 {
        quoted[offset::IP] >> 4 == 6
    } else {
        quoted[offset::IP] == 0x45 && fragment.trailing_zeros() >= 13
    };
    match (whole, quoted[A::PROTOCOL]) {
        (true, PROTOCOL_TCP) => Ok(super::tuple::transport(A::V6, true)),
        (true, PROTOCOL_UDP) => Ok(super::tuple::transport(A::V6, false)),
        (true, _) => Err(DropReason::NoFlow),
        (false, _) => Err(DropReason::UnsupportedHeader),
    }
}

/// Rewrite an error about the packet `quoted` as one about the packet that became it: to whom sent
/// that, from the address he sent it to (`out`).
fn translate_error<A: Family, const N: usize>(
    message: &mut [u8],
    quoted: &Quote<A>,
    out: &Tuple<A>,
) {
    let body = A::L4 + 8;
    let changed = (message.len() - body).min(MOST_CHANGED) & !1;
    let mut before = [0; MOST_CHANGED];
    before[..changed].copy_from_slice(&message[body..body + changed]);
    translate_quote::<A, N>(message, quoted, &out.reversed());
    let mut delta = Delta::NONE.replace(&before[..changed], &message[body..body + changed]);

    let Some(header) = message.first_chunk_mut::<N>() else {
        return;
    };
    let outer = Tuple {
        source: A::read(header, A::SOURCE),
        destination: A::read(header, A::DESTINATION),
        ..*out
    };
    let (addresses, _) = deltas(&outer, out);
    if A::V6 {
        delta = delta.and(addresses); // the pseudo-header
    } else {
        let delta = addresses.and(Delta::TTL_DECREMENT);
        update(header, offset::V4_CHECKSUM, delta);
    }
    out.source.write(header, A::SOURCE);
    out.destination.write(header, A::DESTINATION);
    header[A::TTL] = header[A::TTL].wrapping_sub(1);
    update(header, A::L4 + 2, delta);
}

/// Put `new` in place of the quoted tuple, its checksums following as far as they are quoted. The
/// identification of a fragment stays ours: who gets the error looks for ports.
fn translate_quote<A: Family, const N: usize>(
    message: &mut [u8],
    quoted: &Quote<A>,
    new: &Tuple<A>,
) {
    let (addresses, ports) = deltas(&quoted.tuple, new);
    let l4_delta = addresses.and(ports);
    let new = new.wire();
    let ip = message.get_mut(Quote::<A>::START..).and_then(<[u8]>::first_chunk_mut::<N>);
    if let Some(ip) = ip {
        A::write_pair(new.addresses, ip);
        if !A::V6 {
            update(ip, offset::V4_CHECKSUM, addresses);
        }
    }
    let Some(l4) = message.get_mut(quoted.l4..) else {
        return;
    };
    if let Some(field) = l4.first_chunk_mut() {
        *field = new.ports.to_ne_bytes();
    }
    if is_tcp(quoted.transport) {
        // In a quote of 8 bytes of layer 4 it is missing.
        if let Some(field) = l4.get_mut(offset::TCP_CHECKSUM..offset::TCP_CHECKSUM + 2) {
            update(field, 0, l4_delta);
        }
    } else if let Some(field) = l4.get_mut(offset::UDP_CHECKSUM..offset::UDP_CHECKSUM + 2) {
        let checksum = u16::from_ne_bytes([field[0], field[1]]);
        field.copy_from_slice(&l4_delta.apply_udp(checksum).to_ne_bytes());
    }
}

fn update(bytes: &mut [u8], at: usize, delta: Delta) {
    let checksum = u16::from_ne_bytes([bytes[at], bytes[at + 1]]);
    bytes[at..at + 2].copy_from_slice(&delta.apply(checksum).to_ne_bytes());
}

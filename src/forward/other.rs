//! Frames that are neither TCP nor UDP that can be translated: left to the kernel, answered, or
//! dropped with a reason. Not the fast path.

use super::build::{Address, Local};
use super::engine::{Context, Engine};
use super::verdict::{DropReason, Verdict};
use crate::packet::checksum::Delta;
use crate::packet::{self, Frame, Kind, Other, offset};
use std::net::IpAddr;

const ICMP_ECHO: u8 = 8;
const ICMP_ECHO_REPLY: u8 = 0;
const ICMPV6_ECHO: u8 = 128;
const ICMPV6_ECHO_REPLY: u8 = 129;
/// TTL of what we send ourselves (RFC 1700's default).
const OWN_TTL: u8 = 64;

impl Engine {
    #[inline(never)]
    pub(super) fn other<F: Frame>(&mut self, context: Context, frame: &mut F) -> Verdict {
        // The header's checksum has been looked at.
        match packet::parse(frame.data(), frame.total_len(), false) {
            Err(malformed) => Verdict::Drop(malformed.into()),
            Ok(Kind::OtherIp { destination, why }) => other_ip(context, destination, why),
            Ok(Kind::Icmp { v6 }) => self.icmp(context, frame, v6),
            // Tagged frames too: VLANs are the kernel's, on its own VLAN interfaces.
            Ok(Kind::NotIp | Kind::Transport(_)) => Verdict::Kernel,
        }
    }

    fn icmp<F: Frame>(&mut self, context: Context, frame: &mut F, v6: bool) -> Verdict {
        let Some(message) = IcmpView::of(frame.data_mut(), v6) else {
            return Verdict::Drop(DropReason::Truncated);
        };
        let local = context.tables.local(message.destination(), v6);
        match (local, message.kind(), v6) {
            (Some(Local::Vip { live: true }), ICMP_ECHO, false)
            | (Some(Local::Vip { live: true }), ICMPV6_ECHO, true) => {
                message.answer_echo();
                self.stats.echo_replies.add(1);
                Verdict::Transmit { port: context.port }
            }
            _ => Verdict::Kernel,
        }
    }
}

fn other_ip(context: Context, destination: IpAddr, why: Other) -> Verdict {
    let address = Address::of(destination);
    let local = context.tables.local(address, destination.is_ipv6());
    let Some(local) = local else {
        return Verdict::Kernel;
    };
    Verdict::Drop(match (why, local) {
        (Other::Fragment, _) => DropReason::Fragment,
        (Other::Header, _) => DropReason::UnsupportedHeader,
        (Other::Protocol, Local::Vip { .. }) => DropReason::NoService,
        (Other::Protocol, Local::Lip(_)) => DropReason::NoFlow,
    })
}

/// An ICMP or ICMPv6 message in its frame: headers at fixed offsets, 8 bytes of it present.
struct IcmpView<'a> {
    frame: &'a mut [u8],
    v6: bool,
}

impl<'a> IcmpView<'a> {
    fn of(frame: &'a mut [u8], v6: bool) -> Option<Self> {
        let l4 = if v6 { offset::V6_L4 } else { offset::V4_L4 };
        (frame.len() >= l4 + 8).then_some(Self { frame, v6 })
    }

    fn l4(&self) -> usize {
        if self.v6 {
            offset::V6_L4
        } else {
            offset::V4_L4
        }
    }

    fn kind(&self) -> u8 {
        self.frame[self.l4()]
    }

    fn destination(&self) -> Address {
        let mut address = Address::default();
        if self.v6 {
            let at = offset::V6_DESTINATION;
            address.0.copy_from_slice(&self.frame[at..at + 16]);
        } else {
            let at = offset::V4_DESTINATION;
            address.0[12..].copy_from_slice(&self.frame[at..at + 4]);
        }
        address
    }

    /// Turn an echo request into its reply (RFC 792, RFC 4443 §4.2), back to where it came from.
    fn answer_echo(self) {
        let l4 = self.l4();
        let (addresses, size, ttl, reply) = if self.v6 {
            let ttl = offset::V6_HOP_LIMIT;
            (offset::V6_SOURCE, 16, ttl, ICMPV6_ECHO_REPLY)
        } else {
            (offset::V4_SOURCE, 4, offset::V4_TTL, ICMP_ECHO_REPLY)
        };
        let frame = self.frame;
        swap(frame, 0, 6);
        swap(frame, addresses, size);
        let before = [frame[l4], frame[l4 + 1]];
        frame[l4] = reply;
        let after = [frame[l4], frame[l4 + 1]];
        update(frame, l4 + 2, Delta::NONE.replace(&before, &after));
        let before = [frame[ttl], frame[ttl + 1]];
        if self.v6 {
            frame[ttl] = OWN_TTL;
        } else {
            frame[ttl] = OWN_TTL;
            let after = [frame[ttl], frame[ttl + 1]];
            let delta = Delta::NONE.replace(&before, &after);
            update(frame, offset::V4_CHECKSUM, delta);
        }
    }
}

/// Swap two neighbouring fields of this size.
fn swap(frame: &mut [u8], at: usize, size: usize) {
    let (first, second) = frame[at..at + 2 * size].split_at_mut(size);
    first.swap_with_slice(second);
}

fn update(frame: &mut [u8], at: usize, delta: Delta) {
    let checksum = u16::from_ne_bytes([frame[at], frame[at + 1]]);
    let value = delta.apply(checksum).to_ne_bytes();
    frame[at..at + 2].copy_from_slice(&value);
}

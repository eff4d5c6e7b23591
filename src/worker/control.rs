//! The way between the ports and the kernel: its own, bounded, and starved by no flood.
//!
//! *To the kernel*: what the kernel is given costs a system call or a copy each, so it is rationed by
//! [`Gate`], and by [`Class`]: a flood of pings takes nothing from BGP, and neither takes the worker's
//! time from what is forwarded. A worker without the port's control interface hands over on a ring
//! that carries nothing else, behind the gates of both workers.
//!
//! *From the kernel*: read before anything that was received, sent before anything that is forwarded.
//! What a full wire does not take waits for the next turn, and the kernel's own queue holds the rest.

use super::ring::{Errand, Parcel};
use super::{BURST, DropReason, PortEnd, Worker, bytes, send};
use crate::forward::tables::PortId;
use crate::forward::{Budget, Now};
use crate::packet::{
    ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6, ETHERTYPE_VLAN, Frame, PROTOCOL_ICMPV6,
    PROTOCOL_TCP, PROTOCOL_UDP,
};
use crate::port::Queue;

const PROTOCOL_OSPF: u8 = 89;
const BGP: u16 = 179;
/// RFC 5881 §4 (control, echo), RFC 5883 §5 (multihop), RFC 7130 §2.2 (members of a LAG).
const BFD: [u16; 4] = [3784, 3785, 4784, 6784];
/// Router solicitation to redirect (RFC 4861 §4).
const NEIGHBOUR_DISCOVERY: std::ops::RangeInclusive<u8> = 133..=137;

/// What the kernel is given, by how much is lost if it is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// BGP, BFD, OSPF.
    Routing,
    /// ARP and neighbour discovery.
    Neighbour,
    /// Everything else: pings, answers to health checks, logins.
    Other,
}

/// Frames per second and at once that a worker gives to the kernel, by [`Class`]. Above what a node
/// needs; all of them together take about a third of a core where a frame costs 4 µs (a TAP).
const RATIONS: [(u32, u32); 3] = [(20_000, 2048), (10_000, 1024), (50_000, 2048)];

impl Class {
    /// Of a frame. What cannot be read is [`Class::Other`].
    pub fn of(frame: &[u8]) -> Self {
        Self::read(frame).unwrap_or(Self::Other)
    }

    fn read(frame: &[u8]) -> Option<Self> {
        let mut at = 12;
        let mut ethertype = be16(frame, at)?;
        for _ in 0..2 {
            if ETHERTYPE_VLAN.contains(&ethertype) {
                at += 4;
                ethertype = be16(frame, at)?;
            }
        }
        let ip = at + 2;
        let (protocol, l4) = match ethertype {
            ETHERTYPE_ARP => return Some(Self::Neighbour),
            ETHERTYPE_IPV4 => {
                // Of a fragment but the first, what follows is no header.
                let offset = be16(frame, ip + 6)? & 0x1fff;
                let first = offset == 0;
                let header = usize::from(frame.get(ip)? & 0x0f) * 4;
                (first.then_some(*frame.get(ip + 9)?)?, ip + header)
            }
            ETHERTYPE_IPV6 => (*frame.get(ip + 6)?, ip + 40),
            _ => return None,
        };
        match protocol {
            PROTOCOL_OSPF => Some(Self::Routing),
            PROTOCOL_TCP if be16(frame, l4)? == BGP || be16(frame, l4 + 2)? == BGP => {
                Some(Self::Routing)
            }
            PROTOCOL_UDP if BFD.contains(&be16(frame, l4 + 2)?) => Some(Self::Routing),
            PROTOCOL_ICMPV6 if NEIGHBOUR_DISCOVERY.contains(frame.get(l4)?) => {
                Some(Self::Neighbour)
            }
            _ => None,
        }
    }
}

fn be16(frame: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*frame.get(at..)?.first_chunk()?))
}

/// Rations what a worker gives to the kernel, each class by itself.
#[derive(Debug)]
pub(super) struct Gate([Budget; 3]);

impl Gate {
    /// Full.
    pub fn new() -> Self {
        Self(RATIONS.map(|(per_second, at_once)| Budget::new(per_second, at_once)))
    }

    /// Whether a frame of this class may pass now.
    pub fn admits(&mut self, class: Class, now: Now) -> bool {
        self.0[class as usize].take(now)
    }
}

impl<Q: Queue> Worker<Q> {
    /// What the kernel sends is ours to keep alive (BGP, BFD, ARP) and little: all of it is served
    /// before any port is. So is what other workers have for the kernel, or from it.
    pub(super) fn serve_control(&mut self, now: Now) -> usize {
        let mut work = self.receive_control(now);
        for index in 0..self.ports.len() {
            work += self.receive_from_kernel(PortId(index as u16));
        }
        work
    }

    /// Frames from the kernel leave as they are: it has addressed them itself. They count as received
    /// when they leave.
    fn receive_from_kernel(&mut self, port: PortId) -> usize {
        let end = &mut self.ports[usize::from(port.0)];
        let Some(control) = &mut end.queues.control else { return 0 };
        // While some wait, the kernel's own queue holds the rest.
        let received =
            if end.from_kernel.is_empty() { control.rx_burst(&mut end.from_kernel) } else { 0 };
        if !end.from_kernel.is_empty() {
            self.send_from_kernel(port);
        }
        received
    }

    fn send_from_kernel(&mut self, port: PortId) {
        let PortEnd { queues, from_kernel, .. } = &mut self.ports[usize::from(port.0)];
        let stats = &self.shared.stats;
        let waiting = bytes(from_kernel);
        if let Some(wire) = &mut queues.wire {
            let (frames, bytes) = send(wire, from_kernel, waiting);
            stats.from_kernel.add(frames, bytes);
            stats.transmitted.add(frames, bytes);
            return;
        }
        let before = from_kernel.len();
        for frame in std::mem::take(from_kernel) {
            let parcel = Parcel { errand: Errand::Transmit(port), frame };
            if let Err(frame) = self.rings.send_control(queues.wire_deputy, parcel) {
                from_kernel.push(frame);
            }
        }
        let handed = (before - from_kernel.len()) as u64;
        stats.from_kernel.add(handed, waiting - bytes(from_kernel));
        stats.handed_over.packets.add(handed);
    }

    /// From the rings that carry nothing but control traffic, at most a burst of each.
    fn receive_control(&mut self, now: Now) -> usize {
        let mut received = 0;
        for ring in 0..self.rings.control_from.len() {
            for _ in 0..BURST {
                let Ok(Parcel { errand, frame }) = self.rings.control_from[ring].pop() else {
                    break;
                };
                received += 1;
                match errand {
                    Errand::Kernel(port) => self.give_to_kernel(port, frame, now),
                    // First of this turn, so that they leave first.
                    Errand::Transmit(port) => self.transmit(port, frame),
                    Errand::Forward(_) => self.drop_frame(frame, DropReason::HandoverFull),
                }
            }
        }
        if received > 0 {
            self.shared.stats.received_by_handover.packets.add(received as u64);
        }
        received
    }

    pub(super) fn give_to_kernel(&mut self, port: PortId, frame: Q::Frame, now: Now) {
        if !self.gate.admits(Class::of(frame.data()), now) {
            return self.drop_frame(frame, DropReason::KernelFull);
        }
        let end = &mut self.ports[usize::from(port.0)];
        if end.queues.control.is_none() {
            let owner = end.queues.control_owner;
            let parcel = Parcel { errand: Errand::Kernel(port), frame };
            return match self.rings.send_control(owner, parcel) {
                Ok(()) => self.shared.stats.handed_over.packets.add(1),
                Err(frame) => self.drop_frame(frame, DropReason::KernelFull),
            };
        }
        if end.to_kernel.is_full() {
            self.flush_kernel(port);
        }
        self.ports[usize::from(port.0)].to_kernel.push(frame);
    }

    pub(super) fn flush_kernel(&mut self, port: PortId) {
        let end = &mut self.ports[usize::from(port.0)];
        if let (Some(control), false) = (&mut end.queues.control, end.to_kernel.is_empty()) {
            let waiting = bytes(&end.to_kernel);
            let (frames, bytes) = send(control, &mut end.to_kernel, waiting);
            self.shared.stats.to_kernel.add(frames, bytes);
            self.shared.stats.count_drops(DropReason::KernelFull, end.to_kernel.len() as u64);
            end.to_kernel.clear();
        }
    }
}

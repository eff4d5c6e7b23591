//! Where frames come from and go to.
//!
//! A [`Queue`] is one receive/transmit queue pair of a port, owned by one worker. The worker is
//! generic over it: DPDK ports, memory ports in tests and pcap files run the same loop.

pub mod buffers;
#[cfg(feature = "dpdk")]
pub mod dpdk;
pub mod memory;
pub mod pcap;

use crate::packet::Frame;
use arrayvec::ArrayVec;
use std::os::fd::BorrowedFd;

/// Most frames a burst carries.
pub const BURST: usize = 64;

/// Frames in flight between a queue and the packet path.
pub type Burst<F> = ArrayVec<F, BURST>;

/// What a port can do in hardware. Asked once, at start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Caps {
    pub rx_ipv4_checksum: bool,
    pub rx_l4_checksum: bool,
    pub tx_ipv4_checksum: bool,
    pub tx_l4_checksum: bool,
    /// Receive queues are chosen by an RSS hash over addresses and ports.
    pub rss: bool,
}

/// One queue pair of a port.
pub trait Queue: Send {
    type Frame: Frame;

    /// Append up to the burst's remaining capacity. Returns how many. Never blocks.
    fn rx_burst(&mut self, burst: &mut Burst<Self::Frame>) -> usize;

    /// Send from the front; what the port did not take stays in `burst`, in order. Returns how
    /// many were taken. Never blocks.
    fn tx_burst(&mut self, burst: &mut Burst<Self::Frame>) -> usize;

    /// A descriptor that becomes readable when a frame arrives while the queue is armed; not to be
    /// read. `None`: the port cannot tell, so look.
    fn arrivals(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// Have [`Queue::arrivals`] tell from now on, or no longer. Frames that are there already may go
    /// untold.
    fn arm(&mut self, _on: bool) {}
}

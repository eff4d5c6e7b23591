//! One receive/transmit queue pair, polled by one worker.

use super::device::Device;
use super::mbuf::Mbuf;
use crate::port::{BURST, Burst, Queue};
use dpdk_sys as sys;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

/// A queue pair of a [`super::DpdkPort`]. Keeps the port open; given back when dropped.
#[derive(Debug)]
pub struct DpdkQueue {
    port: u16,
    queue: u16,
    device: Arc<Device>,
}

impl DpdkQueue {
    /// The device must be started, and the queue claimed from it for this value alone.
    pub(super) fn new(device: Arc<Device>, queue: u16) -> Self {
        Self { port: device.id(), queue, device }
    }

    /// Index of the queue on its port.
    pub fn index(&self) -> u16 {
        self.queue
    }
}

impl Drop for DpdkQueue {
    fn drop(&mut self) {
        self.device.release(self.queue);
    }
}

impl Queue for DpdkQueue {
    type Frame = Mbuf;

    /// Give it an empty burst: vector drivers receive in steps of 4 to 32 and return nothing when
    /// less is asked of them.
    #[inline]
    fn rx_burst(&mut self, burst: &mut Burst<Mbuf>) -> usize {
        let (start, room) = (burst.len(), BURST - burst.len());
        // SAFETY: the device is started for as long as self holds it, the queue is ours alone and
        // set up. The burst has room for `room` more pointers; Mbuf is a transparent non-null
        // pointer to an owned mbuf, and the driver has filled in `received` of those.
        unsafe {
            let into = burst.as_mut_ptr().add(start).cast::<*mut sys::rte_mbuf>();
            let received = sys::rx_burst(self.port, self.queue, into, room as u16);
            let received = usize::from(received);
            burst.set_len(start + received);
            received
        }
    }

    #[inline]
    fn tx_burst(&mut self, burst: &mut Burst<Mbuf>) -> usize {
        let count = burst.len();
        // SAFETY: as in rx_burst. The driver now owns the first `sent` frames; the rest, still
        // ours, moves to the front, and the length says so.
        unsafe {
            let from = burst.as_mut_ptr();
            let sent = sys::tx_burst(self.port, self.queue, from.cast(), count as u16);
            let sent = usize::from(sent);
            std::ptr::copy(from.add(sent), from, count - sent);
            burst.set_len(count - sent);
            sent
        }
    }

    fn arrivals(&self) -> Option<BorrowedFd<'_>> {
        let line = self.device.line(self.queue)?;
        // SAFETY: the driver keeps the descriptor open for as long as the port is started, which the
        // device is for as long as self holds it.
        Some(unsafe { BorrowedFd::borrow_raw(line.fd) })
    }

    fn arm(&mut self, on: bool) {
        if self.device.line(self.queue).is_none_or(|line| !line.switched) {
            return;
        }
        // SAFETY: the port is started, configured for receive interrupts, and the queue is ours alone.
        let rc = unsafe {
            if on {
                sys::rte_eth_dev_rx_intr_enable(self.port, self.queue)
            } else {
                sys::rte_eth_dev_rx_intr_disable(self.port, self.queue)
            }
        };
        // It worked when the port was opened. If not now, whoever waits finds out.
        debug_assert_eq!(rc, 0, "queue {} of port {}", self.queue, self.port);
    }
}

//! Ports made of memory: two queues joined by a pair of bounded channels. Tests and benches run
//! the real worker loop over them, without DPDK and without a kernel.

use super::{Burst, Queue};
use crate::packet::Frame;
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// A frame in a plain buffer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryFrame(pub Vec<u8>);

impl Frame for MemoryFrame {
    fn data(&self) -> &[u8] {
        &self.0
    }

    fn data_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

type Wire = Arc<Mutex<VecDeque<MemoryFrame>>>;

/// A receive interrupt.
#[derive(Debug)]
struct Bell {
    descriptor: EventFd,
    armed: AtomicBool,
    /// If not, it promises and does not ring.
    rings: bool,
}

/// One end of a two-way wire. Each direction holds a bounded number of frames.
#[derive(Debug, Clone)]
pub struct MemoryQueue {
    rx: Wire,
    tx: Wire,
    depth: usize,
    /// Tells us.
    bell: Option<Arc<Bell>>,
    /// Tells the other end.
    far_bell: Option<Arc<Bell>>,
}

/// Two ends; what one sends, the other receives. `depth`: most frames in flight per direction.
pub fn pair(depth: usize) -> (MemoryQueue, MemoryQueue) {
    let (ab, ba) = (Wire::default(), Wire::default());
    let (rx, tx) = (Arc::clone(&ba), Arc::clone(&ab));
    let a = MemoryQueue { rx, tx, depth, bell: None, far_bell: None };
    let b = MemoryQueue { rx: ab, tx: ba, depth, bell: None, far_bell: None };
    (a, b)
}

/// Two ends, of which the second has a receive interrupt; unless it rings, only by its own account.
pub fn pair_with_interrupt(depth: usize, rings: bool) -> io::Result<(MemoryQueue, MemoryQueue)> {
    let descriptor = EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?;
    let bell = Arc::new(Bell { descriptor, armed: AtomicBool::new(false), rings });
    let (mut a, mut b) = pair(depth);
    a.far_bell = Some(Arc::clone(&bell));
    b.bell = Some(bell);
    Ok((a, b))
}

impl MemoryQueue {
    /// Send one frame; `false` if the wire is full.
    pub fn send(&self, frame: Vec<u8>) -> bool {
        let mut tx = self.tx.lock().unwrap_or_else(PoisonError::into_inner);
        let room = tx.len() < self.depth;
        if room {
            tx.push_back(MemoryFrame(frame));
        }
        drop(tx);
        if room {
            self.ring();
        }
        room
    }

    /// Whether the other end waits to be told.
    pub fn is_awaited(&self) -> bool {
        self.far_bell.as_ref().is_some_and(|bell| bell.armed.load(Ordering::Acquire))
    }

    fn ring(&self) {
        if let Some(bell) = self.far_bell.as_ref().filter(|bell| bell.rings && self.is_awaited()) {
            // Full after 2^64 rings.
            let _ = bell.descriptor.write(1);
        }
    }

    /// The next frame that arrived.
    pub fn receive(&self) -> Option<Vec<u8>> {
        self.rx.lock().unwrap_or_else(PoisonError::into_inner).pop_front().map(|frame| frame.0)
    }
}

impl Queue for MemoryQueue {
    type Frame = MemoryFrame;

    fn rx_burst(&mut self, burst: &mut Burst<MemoryFrame>) -> usize {
        let mut rx = self.rx.lock().unwrap_or_else(PoisonError::into_inner);
        let count = rx.len().min(burst.remaining_capacity());
        burst.extend(rx.drain(..count));
        count
    }

    fn tx_burst(&mut self, burst: &mut Burst<MemoryFrame>) -> usize {
        let mut tx = self.tx.lock().unwrap_or_else(PoisonError::into_inner);
        let count = burst.len().min(self.depth.saturating_sub(tx.len()));
        tx.extend(burst.drain(..count));
        drop(tx);
        if count > 0 {
            self.ring();
        }
        count
    }

    fn arrivals(&self) -> Option<BorrowedFd<'_>> {
        Some(self.bell.as_ref()?.descriptor.as_fd())
    }

    fn arm(&mut self, on: bool) {
        if let Some(bell) = &self.bell {
            bell.armed.store(on, Ordering::Release);
        }
    }
}

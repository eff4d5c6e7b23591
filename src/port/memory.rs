//! Ports made of memory: two queues joined by a pair of bounded channels. Tests and benches run
//! the real worker loop over them, without DPDK and without a kernel.

use super::{Burst, Queue};
use crate::packet::Frame;
use std::collections::VecDeque;
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

/// One end of a two-way wire. Each direction holds a bounded number of frames.
#[derive(Debug, Clone)]
pub struct MemoryQueue {
    rx: Wire,
    tx: Wire,
    depth: usize,
}

/// Two ends; what one sends, the other receives. `depth`: most frames in flight per direction.
pub fn pair(depth: usize) -> (MemoryQueue, MemoryQueue) {
    let (ab, ba) = (Wire::default(), Wire::default());
    let a = MemoryQueue { rx: Arc::clone(&ba), tx: Arc::clone(&ab), depth };
    let b = MemoryQueue { rx: ab, tx: ba, depth };
    (a, b)
}

impl MemoryQueue {
    /// Send one frame; `false` if the wire is full.
    pub fn send(&self, frame: Vec<u8>) -> bool {
        let mut tx = self.tx.lock().unwrap_or_else(PoisonError::into_inner);
        let room = tx.len() < self.depth;
        if room {
            tx.push_back(MemoryFrame(frame));
        }
        room
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
        count
    }
}

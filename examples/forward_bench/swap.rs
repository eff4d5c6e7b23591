//! The least that a forwarder can do: what testpmd's `5tswap` does.

use crate::mirror::swap;
use dunlin::packet::Frame;
use dunlin::port::dpdk::{DpdkQueue, Mbuf};
use dunlin::port::{Burst, Queue};

/// Receive, swap, send and free one burst. Returns how many were received and sent.
pub fn turn(queue: &mut DpdkQueue, burst: &mut Burst<Mbuf>) -> (u64, u64) {
    let received = queue.rx_burst(burst) as u64;
    for frame in &mut *burst {
        swap(frame.data_mut());
    }
    let sent = queue.tx_burst(burst) as u64;
    Mbuf::free_burst(burst);
    (received, sent)
}

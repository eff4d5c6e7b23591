//! Whole lives of TCP connections: a queue whose far end plays clients and backends.
//!
//! Each connection is seven packets: SYN, SYN-ACK, ACK, data, FIN, the backend's FIN and the last
//! ACK. What the worker sends decides what it receives next, so a packet that went wrong ends its
//! connection's story, and the count falls short. The cost of playing both ends is in the figure.
//! Checksums of TCP are not kept right from packet to packet: no forwarder verifies them.

use crate::capture::{self, ACK, Family, PORT, PORT_MAC, Proto, SYN};
use crate::mirror::swap;
use dunlin::packet::Frame;
use dunlin::port::{BURST, Burst, Queue};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const FIN: u8 = 0x01;
const PSH: u8 = 0x08;
const FLAGS_AT: usize = 47;
/// A byte of the sequence number that marks the last packet of a connection.
const LAST_AT: usize = 41;
/// Connections under way at a time.
const OPEN: usize = 256;
/// Frames of one burst, as a NIC under load gives.
const RECEIVE: usize = 32;

#[derive(Debug, Clone)]
pub struct Bytes(pub Box<[u8; 60]>);

impl Frame for Bytes {
    #[inline(always)]
    fn data(&self) -> &[u8] {
        &self.0[..]
    }

    #[inline(always)]
    fn data_mut(&mut self) -> &mut [u8] {
        &mut self.0[..]
    }
}

/// The worker's end, and the two far ends behind it.
pub struct LifeQueue {
    arriving: VecDeque<Bytes>,
    spare: Vec<Bytes>,
    begun: u32,
    ended: Arc<AtomicU64>,
    open: usize,
    first: [u8; 60],
}

impl LifeQueue {
    /// `ended` counts connections whose last packet has passed.
    pub fn new(ended: Arc<AtomicU64>) -> Self {
        let mut first = [0; 60];
        first.copy_from_slice(&capture::frame(0, Family::V4, Proto::Tcp, SYN));
        Self {
            arriving: VecDeque::with_capacity(4 * OPEN),
            spare: (0..4 * OPEN).map(|_| Bytes(Box::new(first))).collect(),
            begun: 0,
            ended,
            open: 0,
            first,
        }
    }

    fn begin(&mut self) {
        let Some(mut frame) = self.spare.pop() else { return };
        let (client, port) = (self.begun / 60_000, 1024 + self.begun % 60_000);
        *frame.0 = self.first;
        // The identification makes up for the address, so that the checksum stays as it was.
        let address = 0x0a00_0001 + client;
        frame.0[26..30].copy_from_slice(&address.to_be_bytes());
        frame.0[18..20].copy_from_slice(&balance(client).to_be_bytes());
        frame.0[34..36].copy_from_slice(&(port as u16).to_be_bytes());
        self.begun = self.begun.wrapping_add(1);
        self.open += 1;
        self.arriving.push_back(frame);
    }

    /// What follows a packet that the worker sent.
    fn follow(&mut self, mut frame: Bytes) {
        let flags = frame.0[FLAGS_AT];
        // Clients and LIPs use ports from 1024 on.
        let to_backend = frame.0[34..36] != PORT.to_be_bytes();
        if to_backend && flags & (SYN | FIN) == 0 {
            if frame.0[LAST_AT] == 1 {
                self.open -= 1;
                self.ended.store(self.ended.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
            }
            return self.spare.push(frame);
        }
        swap(&mut frame.0[..]);
        frame.0[..6].copy_from_slice(&PORT_MAC);
        if to_backend {
            frame.0[FLAGS_AT] = flags | ACK;
            return self.arriving.push_back(frame);
        }
        if flags & SYN == 0 {
            frame.0[FLAGS_AT] = ACK;
            frame.0[LAST_AT] = 1;
            return self.arriving.push_back(frame);
        }
        for flags in [ACK, ACK | PSH] {
            if let Some(mut copy) = self.spare.pop() {
                *copy.0 = *frame.0;
                copy.0[FLAGS_AT] = flags;
                self.arriving.push_back(copy);
            }
        }
        frame.0[FLAGS_AT] = ACK | FIN;
        self.arriving.push_back(frame);
    }
}

/// The number that, added to an otherwise constant IPv4 header whose source address is larger by
/// `more`, leaves its one's complement sum as it was (RFC 1071).
pub fn balance(more: u32) -> u16 {
    let base = 0x0a00_0001u32;
    let fold = |address: u32| {
        let sum = (address >> 16) + (address & 0xffff);
        (sum & 0xffff) + (sum >> 16)
    };
    let difference = fold(base) + (0xffff - fold(base + more));
    ((difference & 0xffff) + (difference >> 16)) as u16
}

impl Queue for LifeQueue {
    type Frame = Bytes;

    fn rx_burst(&mut self, burst: &mut Burst<Bytes>) -> usize {
        while self.open < OPEN && self.arriving.len() < RECEIVE && !self.spare.is_empty() {
            self.begin();
        }
        let count = self.arriving.len().min(RECEIVE).min(BURST - burst.len());
        burst.extend(self.arriving.drain(..count));
        count
    }

    fn tx_burst(&mut self, burst: &mut Burst<Bytes>) -> usize {
        let count = burst.len();
        for frame in burst.drain(..) {
            self.follow(frame);
        }
        count
    }
}

//! The queues of the proof: those of the devices, watched, and those of the clients, in memory.

use dunlin::forward::steering::{RssFunction, RssInput};
use dunlin::packet::{Frame, PROTOCOL_TCP, Transport};
use dunlin::port::dpdk::{DpdkQueue, Mbuf};
use dunlin::port::{Burst, Queue};
use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Stands before the number of the connection, at the end of every payload.
pub const MARK: [u8; 8] = *b"rssproof";

/// What was seen on the devices' queues.
#[derive(Debug)]
pub struct Observed {
    /// By connection: the queue its request left by, and the one its answer arrived on.
    flows: Vec<(Option<u16>, Option<u16>)>,
    /// Answers, the first of each connection.
    pub by_queue: Vec<u32>,
    /// Answers for which the NIC told its hash; and where it was not what we compute.
    pub hash_checked: u32,
    pub hash_wrong: u32,
    functions: Vec<Option<RssFunction>>,
}

impl Observed {
    pub fn new(flows: u32, queues: u16, functions: Vec<Option<RssFunction>>) -> Self {
        Self {
            flows: vec![(None, None); flows as usize],
            by_queue: vec![0; usize::from(queues)],
            hash_checked: 0,
            hash_wrong: 0,
            functions,
        }
    }

    pub fn answered(&self, flow: u32) -> bool {
        self.flows.get(flow as usize).is_some_and(|(_, arrived)| arrived.is_some())
    }

    /// Connections whose answer arrived where their request had left.
    pub fn right(&self) -> u32 {
        let right = self.flows.iter().filter(|(left, came)| came.is_some() && left == came);
        right.count() as u32
    }

    /// Connections without an answer.
    pub fn lost(&self) -> u32 {
        self.flows.iter().filter(|(_, came)| came.is_none()).count() as u32
    }

    fn leaves(&mut self, frame: &Mbuf, queue: u16) {
        if let Some((left, _)) = number(frame).and_then(|n| self.flows.get_mut(n as usize)) {
            left.get_or_insert(queue);
        }
    }

    fn arrives(&mut self, frame: &Mbuf, port: usize, queue: u16) {
        let Some((_, came)) = number(frame).and_then(|n| self.flows.get_mut(n as usize)) else {
            return; // somebody else's: ND from the host's side
        };
        if came.replace(queue).is_some() {
            return;
        }
        if let Some(count) = self.by_queue.get_mut(usize::from(queue)) {
            *count += 1;
        }
        let foreseen = self
            .functions
            .get(port)
            .and_then(Option::as_ref)
            .zip(rss_input(frame.data()))
            .and_then(|(function, input)| function.hash(&input));
        if let Some((told, foreseen)) = frame.rx_meta().rss_hash.zip(foreseen) {
            self.hash_checked += 1;
            self.hash_wrong += u32::from(told != foreseen);
        }
    }
}

/// The number at the end of the payload. Short frames have padding after it.
fn number(frame: &Mbuf) -> Option<u32> {
    let data = frame.data();
    let at = data.windows(MARK.len()).position(|window| window == MARK)? + MARK.len();
    Some(u32::from_be_bytes(*data.get(at..)?.first_chunk()?))
}

/// Of an untagged frame without options or extension headers.
fn rss_input(data: &[u8]) -> Option<RssInput> {
    let port = |at: usize| Some(u16::from_be_bytes(*data.get(at..)?.first_chunk()?));
    let v6 = data.get(12..14)? == [0x86, 0xdd];
    let (protocol, source, destination, l4): (u8, IpAddr, IpAddr, usize) = if v6 {
        let address = |at: usize| Some(Ipv6Addr::from(*data.get(at..)?.first_chunk::<16>()?));
        (*data.get(20)?, address(22)?.into(), address(38)?.into(), 54)
    } else {
        let address = |at: usize| Some(Ipv4Addr::from(*data.get(at..)?.first_chunk::<4>()?));
        (*data.get(23)?, address(26)?.into(), address(30)?.into(), 34)
    };
    let transport = match (v6, protocol == PROTOCOL_TCP) {
        (false, false) => Transport::Udp4,
        (false, true) => Transport::Tcp4,
        (true, false) => Transport::Udp6,
        (true, true) => Transport::Tcp6,
    };
    let (source_port, destination_port) = (port(l4)?, port(l4 + 2)?);
    Some(RssInput { transport, source, destination, source_port, destination_port })
}

/// A queue of one worker.
pub enum Wire {
    /// Of a device, with the number of its port.
    Device(DpdkQueue, usize, Arc<Mutex<Observed>>),
    /// What clients send; what they get is freed.
    Clients(Arc<Mutex<VecDeque<Mbuf>>>),
    /// The kernel: sends nothing and takes everything.
    Kernel,
}

impl Queue for Wire {
    type Frame = Mbuf;

    fn rx_burst(&mut self, burst: &mut Burst<Mbuf>) -> usize {
        let before = burst.len();
        match self {
            Self::Device(queue, port, seen) => {
                queue.rx_burst(burst);
                let mut seen = lock(seen);
                for frame in &burst[before..] {
                    seen.arrives(frame, *port, queue.index());
                }
            }
            Self::Clients(requests) => {
                let mut requests = lock(requests);
                let room = requests.len().min(burst.remaining_capacity());
                burst.extend(requests.drain(..room));
            }
            Self::Kernel => {}
        }
        burst.len() - before
    }

    fn tx_burst(&mut self, burst: &mut Burst<Mbuf>) -> usize {
        match self {
            Self::Device(queue, _, seen) => {
                let mut seen = lock(seen);
                for frame in burst.iter() {
                    seen.leaves(frame, queue.index());
                }
                queue.tx_burst(burst)
            }
            Self::Clients(_) | Self::Kernel => burst.drain(..).count(),
        }
    }
}

pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

//! How one NIC spreads packets over its receive queues: key, what is hashed, redirection table.

use super::toeplitz::Toeplitz;
use super::{RssInput, of_transport};
use crate::forward::tables::WorkerId;
use crate::packet::Transport;
use std::net::IpAddr;

/// Largest redirection table that is followed. NICs have 128 to 2048 entries.
const MOST_ENTRIES: usize = 1 << 15;

/// What of a packet goes into the hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hashed {
    /// Source and destination address, source and destination port.
    Ports,
    /// Source and destination address.
    Addresses,
    /// Nothing: the packet goes to some fixed queue.
    Nothing,
}

/// RSS as a port says that it does it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RssOffer {
    /// Toeplitz key; empty if the driver does not tell.
    pub key: Vec<u8>,
    /// By [`Transport`].
    pub hashed: [Hashed; 4],
    /// Queue by the low bits of the hash; empty if the driver does not tell.
    pub reta: Vec<u16>,
}

/// RSS that can be computed here: the queue of any packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RssFunction {
    toeplitz: Toeplitz,
    hashed: [Hashed; 4],
    reta: Vec<u16>,
    /// By worker: the entries of `reta` that lead to its queue.
    entries: Vec<Vec<u16>>,
}

impl RssFunction {
    /// `queues`: of the port; queue `n` is worker `n`'s. The error says, for the operator, why the
    /// queue of a packet cannot be told in advance.
    pub fn new(offer: &RssOffer, queues: u16, workers: u16) -> Result<Self, String> {
        let size = offer.reta.len();
        if offer.key.is_empty() {
            return Err("the driver does not tell its RSS key".to_owned());
        }
        if offer.key.iter().all(|&byte| byte == 0) {
            return Err("the driver's RSS key is all zeros".to_owned());
        }
        if size == 0 {
            return Err("the driver does not tell its redirection table".to_owned());
        }
        if !size.is_power_of_two() || !(2..=MOST_ENTRIES).contains(&size) {
            return Err(format!(
                "a redirection table of {size} entries cannot be followed (2, 4, … {MOST_ENTRIES} can)"
            ));
        }
        let polled = queues.min(workers);
        if let Some(queue) = offer.reta.iter().find(|&&queue| queue >= polled) {
            return Err(format!(
                "its redirection table names queue {queue}, but only {polled} are polled"
            ));
        }
        let toeplitz = Toeplitz::new(&offer.key);
        let mut hashed = offer.hashed;
        for (transport, hashed) in TRANSPORTS.into_iter().zip(&mut hashed) {
            if input_bytes(transport, *hashed) > toeplitz.inputs() {
                // Drivers of old hardware have IPv4 only; what they do with more is not known.
                *hashed = Hashed::Nothing;
            }
        }
        if hashed == [Hashed::Nothing; 4] {
            return Err("it hashes neither TCP nor UDP".to_owned());
        }
        let entries = (0..workers)
            .map(|worker| {
                let its = (0u16..).zip(&offer.reta).filter(|(_, queue)| **queue == worker);
                its.map(|(entry, _)| entry).collect()
            })
            .collect();
        Ok(Self { toeplitz, hashed, reta: offer.reta.clone(), entries })
    }

    /// Whose queue this packet arrives on; `None`: its kind is not hashed.
    pub fn worker(&self, input: &RssInput) -> Option<WorkerId> {
        self.hash(input).map(|hash| self.worker_of(hash))
    }

    /// The NIC's hash of this packet; `None`: its kind is not hashed.
    pub fn hash(&self, input: &RssInput) -> Option<u32> {
        let addresses = self.source(input.transport, input.source)
            ^ self.destination(input.transport, input.destination);
        match self.hashed(input.transport) {
            Hashed::Ports => Some(
                addresses
                    ^ self.source_port(input.transport, input.source_port)
                    ^ self.destination_port(input.transport, input.destination_port),
            ),
            Hashed::Addresses => Some(addresses),
            Hashed::Nothing => None,
        }
    }

    pub fn hashed(&self, transport: Transport) -> Hashed {
        of_transport(self.hashed, transport)
    }

    /// log2 of the entries of the redirection table.
    pub(super) fn bits(&self) -> u32 {
        self.reta.len().trailing_zeros()
    }

    pub(super) fn mask(&self) -> u32 {
        self.reta.len() as u32 - 1
    }

    /// The entries of the redirection table that lead to this worker.
    pub(super) fn entries(&self, worker: WorkerId) -> &[u16] {
        self.entries.get(usize::from(worker.0)).map_or(&[], Vec::as_slice)
    }

    pub(super) fn worker_of(&self, hash: u32) -> WorkerId {
        let entry = (hash & self.mask()) as usize;
        WorkerId(self.reta.get(entry).copied().unwrap_or_default())
    }

    /// Here and below: what one field adds to the hash.
    pub(super) fn source(&self, _transport: Transport, address: IpAddr) -> u32 {
        self.address(0, address)
    }

    pub(super) fn destination(&self, transport: Transport, address: IpAddr) -> u32 {
        self.address(address_bytes(transport), address)
    }

    pub(super) fn source_port(&self, transport: Transport, port: u16) -> u32 {
        self.toeplitz.part(2 * address_bytes(transport), &port.to_be_bytes())
    }

    pub(super) fn destination_port(&self, transport: Transport, port: u16) -> u32 {
        self.toeplitz.part(2 * address_bytes(transport) + 2, &port.to_be_bytes())
    }

    fn address(&self, place: usize, address: IpAddr) -> u32 {
        match address {
            IpAddr::V4(v4) => self.toeplitz.part(place, &v4.octets()),
            IpAddr::V6(v6) => self.toeplitz.part(place, &v6.octets()),
        }
    }
}

/// Every [`Transport`], in the order of its numbers.
pub const TRANSPORTS: [Transport; 4] =
    [Transport::Udp4, Transport::Tcp4, Transport::Udp6, Transport::Tcp6];

const fn address_bytes(transport: Transport) -> usize {
    match transport {
        Transport::Udp4 | Transport::Tcp4 => 4,
        Transport::Udp6 | Transport::Tcp6 => 16,
    }
}

const fn input_bytes(transport: Transport, hashed: Hashed) -> usize {
    match hashed {
        Hashed::Ports => 2 * address_bytes(transport) + 4,
        Hashed::Addresses => 2 * address_bytes(transport),
        Hashed::Nothing => 0,
    }
}

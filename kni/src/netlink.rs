//! Netlink sockets: one request at a time, and the kernel's multicast events.
//!
//! Both belong to the network namespace of the thread that opens them. Datagrams that do not come
//! from the kernel (port 0) are ignored.

use crate::error::Error;
use crate::raw;
use crate::wire::{self, Message, NLM_F_DUMP_INTR, NLMSG_DONE, NLMSG_ERROR};
use futures::FutureExt;
use rtnetlink::packet_core::{NetlinkHeader, NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::sys::{AsyncSocket, SocketAddr, TokioSocket, protocols::NETLINK_ROUTE};
use std::future::poll_fn;
use std::io;
use std::time::Duration;

pub(crate) const NLM_F_REQUEST: u16 = 1;
pub(crate) const NLM_F_ACK: u16 = 4;
pub(crate) const NLM_F_DUMP: u16 = 0x300;
pub(crate) const NLM_F_REPLACE: u16 = 0x100;
pub(crate) const NLM_F_EXCL: u16 = 0x200;
pub(crate) const NLM_F_CREATE: u16 = 0x400;

/// More than any single message the kernel builds; a longer one would come out truncated, thus
/// malformed, and be handled as such.
const BUFFER: usize = 256 * 1024;
/// The kernel answers within the system call; this only bounds the unforeseen.
const TIMEOUT: Duration = Duration::from_secs(5);
const DUMP_ATTEMPTS: usize = 5;

/// A socket for requests, which it answers one after the other.
#[derive(Debug)]
pub(crate) struct Netlink {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
    /// Malformed attributes and messages so far.
    pub malformed: u64,
}

impl Netlink {
    pub(crate) fn open() -> Result<Self, Error> {
        let socket = Socket(TokioSocket::new(NETLINK_ROUTE).map_err(Error::Socket)?);
        let inner = socket.0.socket_ref();
        inner.set_cap_ack(true).map_err(Error::Socket)?;
        inner.set_ext_ack(true).map_err(Error::Socket)?;
        Ok(Self { socket, sequence: 0, buffer: Vec::with_capacity(BUFFER), malformed: 0 })
    }

    /// Send a request and wait for its acknowledgement. `what` completes "refused to ...".
    pub(crate) async fn request(
        &mut self,
        what: &'static str,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<Vec<Message>, Error> {
        self.transact(what, message, NLM_F_REQUEST | NLM_F_ACK | flags).await
    }

    /// Everything of a kind, consistent: a dump that the kernel says was interrupted by a change is
    /// repeated. Messages that cannot be decoded are counted and left out: they would be the same
    /// the next time, and the rest is still worth having.
    pub(crate) async fn dump(
        &mut self,
        what: &'static str,
        message: RouteNetlinkMessage,
    ) -> Result<Vec<Message>, Error> {
        let mut attempt = 1;
        loop {
            match self.transact(what, message.clone(), NLM_F_REQUEST | NLM_F_DUMP).await {
                Err(Error::DumpInterrupted) if attempt < DUMP_ATTEMPTS => attempt += 1,
                outcome => return outcome,
            }
        }
    }

    async fn transact(
        &mut self,
        what: &'static str,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<Vec<Message>, Error> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        header.sequence_number = self.sequence;
        let mut request = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        self.socket.send(&bytes).await.map_err(Error::Socket)?;
        tokio::time::timeout(TIMEOUT, self.answer(what))
            .await
            .map_err(|_| Error::Timeout(TIMEOUT))?
    }

    async fn answer(&mut self, what: &'static str) -> Result<Vec<Message>, Error> {
        let mut answer = Vec::new();
        let mut interrupted = false;
        let mut lost = 0;
        loop {
            self.socket.receive(&mut self.buffer).await.map_err(Error::Socket)?;
            for message in wire::messages(&self.buffer) {
                let Ok((header, payload)) = message else {
                    lost += 1;
                    continue;
                };
                // An earlier request that timed out.
                if header.sequence != self.sequence {
                    continue;
                }
                interrupted |= header.flags & NLM_F_DUMP_INTR != 0;
                if header.kind != NLMSG_ERROR && header.kind != NLMSG_DONE {
                    match wire::decode(header.kind, payload, &mut self.malformed) {
                        Ok(message) => answer.push(message),
                        Err(_) => lost += 1,
                    }
                    continue;
                }
                let (errno, detail) =
                    wire::outcome(header, payload).unwrap_or((libc::EBADMSG, String::new()));
                self.malformed += lost;
                return match (errno, interrupted) {
                    (0, false) => Ok(answer),
                    (0, true) => Err(Error::DumpInterrupted),
                    (errno, _) => {
                        let source = io::Error::from_raw_os_error(errno);
                        Err(Error::Refused { what, source, detail })
                    }
                };
            }
        }
    }
}

/// The kernel's announcements.
#[derive(Debug)]
pub(crate) struct Events {
    socket: Socket,
    buffer: Vec<u8>,
    /// Malformed attributes and messages so far.
    pub malformed: u64,
}

/// What a read of [`Events`] brought.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Batch {
    pub messages: Vec<Message>,
    /// Something was lost: the socket overran, or a message could not be decoded.
    pub lost: bool,
}

impl Events {
    /// Listen to the groups (`RTNLGRP_*`, 1 to 32). `receive_buffer`: bytes.
    pub(crate) fn open(groups: &[u32], receive_buffer: usize) -> Result<Self, Error> {
        let mut socket = Socket(TokioSocket::new(NETLINK_ROUTE).map_err(Error::Socket)?);
        raw::set_receive_buffer(&socket.0, receive_buffer).map_err(Error::Socket)?;
        let mask = groups.iter().fold(0, |mask, group| mask | 1u32 << (group - 1));
        let inner = socket.0.socket_mut();
        inner.bind(&SocketAddr::new(0, mask)).map_err(Error::Socket)?;
        Ok(Self { socket, buffer: Vec::with_capacity(BUFFER), malformed: 0 })
    }

    /// The next events, with whatever else is already there (to a limit, so that a flood cannot
    /// keep the caller here). Cancelling loses nothing. An error: the socket is of no more use.
    pub(crate) async fn next(&mut self) -> io::Result<Batch> {
        const MOST: usize = 64;
        let mut batch = Batch::default();
        let mut received = self.socket.receive(&mut self.buffer).await;
        for _ in 0..MOST {
            match received {
                Ok(()) => self.decode(&mut batch),
                // Overrun: the kernel dropped events (netlink(7)).
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => batch.lost = true,
                Err(error) => return Err(error),
            }
            match self.socket.receive(&mut self.buffer).now_or_never() {
                Some(more) => received = more,
                None => break,
            }
        }
        Ok(batch)
    }

    fn decode(&mut self, batch: &mut Batch) {
        for message in wire::messages(&self.buffer) {
            let decoded = message.and_then(|(header, payload)| {
                wire::decode(header.kind, payload, &mut self.malformed)
            });
            if let Ok(message) = decoded {
                batch.messages.push(message);
            } else {
                self.malformed += 1;
                batch.lost = true;
            }
        }
    }
}

struct Socket(TokioSocket);

impl std::fmt::Debug for Socket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Socket").finish_non_exhaustive()
    }
}

impl Socket {
    async fn send(&self, bytes: &[u8]) -> io::Result<()> {
        let kernel = SocketAddr::new(0, 0);
        poll_fn(|cx| self.0.poll_send_to(cx, bytes, &kernel)).await.map(|_| ())
    }

    /// The next datagram from the kernel replaces what `buffer` holds.
    async fn receive(&self, buffer: &mut Vec<u8>) -> io::Result<()> {
        loop {
            buffer.clear();
            let from = poll_fn(|cx| self.0.poll_recv_from(cx, buffer)).await?;
            if from.port_number() == 0 {
                return Ok(());
            }
        }
    }
}

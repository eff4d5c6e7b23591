//! Unnumbered neighbours: who is the router at the other end of this link?
//!
//! BGP over link-local addresses (RFC 8950 in use) needs the peer's address without configuring
//! it. Routers tell theirs in router advertisements (RFC 4861 §4.2), and FRR accepts such a
//! session only from a neighbour whose advertisement it has seen. So this task advertises us with a
//! lifetime of 0, which makes nobody's default router of us, and listens for the neighbour's.
//! In: an interface's name. Out: the neighbour's link-local address, as the latest value.

use crate::sockopt::register;
use nix::net::if_::if_nametoindex;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrIn6, recvmsg, setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};
use std::io::{self, IoSliceMut};
use std::net::{Ipv6Addr, SocketAddrV6};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::{info, warn};

const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
const ROUTER_SOLICITATION: u8 = 133;
const ROUTER_ADVERTISEMENT: u8 = 134;
/// Between advertisements; the first few follow each other faster.
const INTERVAL: Duration = Duration::from_secs(10);
const INITIAL_INTERVAL: Duration = Duration::from_secs(1);
const INITIAL_COUNT: u32 = 5;
/// Between answers to solicitations.
const MIN_DELAY: Duration = Duration::from_secs(1);
/// Before an interface that is missing or broken is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// A neighbour silent for so long gives way to another one on the same link.
const FORGET: Duration = Duration::from_secs(30);

/// A running discovery; it ends when dropped.
#[derive(Debug)]
pub(super) struct Discovery {
    neighbor: watch::Receiver<Option<Ipv6Addr>>,
    task: JoinHandle<()>,
}

impl Drop for Discovery {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Discovery {
    /// Within a tokio runtime.
    pub fn start(interface: String) -> Self {
        let (sender, neighbor) = watch::channel(None);
        Self { neighbor, task: tokio::spawn(run(interface, sender)) }
    }

    pub fn subscribe(&self) -> watch::Receiver<Option<Ipv6Addr>> {
        self.neighbor.clone()
    }
}

async fn run(interface: String, neighbor: watch::Sender<Option<Ipv6Addr>>) {
    let mut told = false;
    loop {
        let link = match Link::open(&interface) {
            Ok(link) => link,
            Err(error) => {
                if !std::mem::replace(&mut told, true) {
                    warn!(%interface, %error, "no neighbour discovery on this interface yet");
                }
                tokio::time::sleep(RETRY).await;
                continue;
            }
        };
        told = false;
        if let Err(error) = link.serve(&interface, &neighbor).await {
            warn!(%interface, %error, "neighbour discovery interrupted");
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// A raw ICMPv6 socket on one interface.
struct Link {
    socket: AsyncFd<Socket>,
    index: u32,
}

impl Link {
    fn open(interface: &str) -> io::Result<Self> {
        let index = if_nametoindex(interface)?;
        let kind = Type::RAW.nonblocking().cloexec();
        let socket = Socket::new(Domain::IPV6, kind, Some(Protocol::ICMPV6))?;
        socket.bind_device(Some(interface.as_bytes()))?;
        // RFC 4861 §4.2, §6.1.2: only packets that no router has forwarded count.
        socket.set_multicast_hops_v6(255)?;
        setsockopt(&socket, sockopt::Ipv6RecvHopLimit, &true)?;
        socket.set_multicast_if_v6(index)?;
        socket.set_multicast_loop_v6(false)?;
        socket.join_multicast_v6(&ALL_ROUTERS, index)?;
        Ok(Self { socket: register(socket)?, index })
    }

    /// Advertises and listens until the interface is another one or broken.
    async fn serve(
        &self,
        interface: &str,
        neighbor: &watch::Sender<Option<Ipv6Addr>>,
    ) -> io::Result<()> {
        self.send(ALL_ROUTERS, &[ROUTER_SOLICITATION, 0, 0, 0, 0, 0, 0, 0]);
        let mut sent = 0u32;
        let mut last_sent: Option<Instant> = None;
        let mut next = Instant::now();
        let mut heard: Option<Instant> = None;
        loop {
            if next <= Instant::now() {
                if if_nametoindex(interface)? != self.index {
                    return Err(io::Error::other("the interface is a new one"));
                }
                self.advertise();
                sent = sent.saturating_add(1);
                last_sent = Some(Instant::now());
                let interval = if sent < INITIAL_COUNT { INITIAL_INTERVAL } else { INTERVAL };
                next = Instant::now() + interval;
            }
            let message = tokio::select! {
                message = self.receive() => message?,
                () = tokio::time::sleep_until(next.into()) => None,
            };
            match message {
                Some((ROUTER_SOLICITATION, _)) => {
                    let earliest = last_sent.map_or(next, |t| t + MIN_DELAY);
                    next = next.min(earliest);
                }
                Some((ROUTER_ADVERTISEMENT, from)) => {
                    let known = *neighbor.borrow();
                    let silent = heard.is_none_or(|t| t.elapsed() >= FORGET);
                    if known == Some(from) || known.is_none() || silent {
                        heard = Some(Instant::now());
                        neighbor.send_if_modified(|current| {
                            let new = *current != Some(from);
                            if new {
                                info!(%interface, neighbor = %from, "unnumbered neighbour found");
                                *current = Some(from);
                            }
                            new
                        });
                    }
                }
                _ => {}
            }
        }
    }

    /// A router advertisement of no use but to be seen: hop limit unspecified, lifetime 0, no
    /// prefix. The kernel fills in the checksum.
    fn advertise(&self) {
        let mut advertisement = [0; 16];
        advertisement[0] = ROUTER_ADVERTISEMENT;
        self.send(ALL_NODES, &advertisement);
    }

    /// Losing one is harmless: there will be more. A link without carrier refuses all.
    fn send(&self, to: Ipv6Addr, message: &[u8]) {
        let to = SocketAddrV6::new(to, 0, 0, self.index);
        let _ = self.socket.get_ref().send_to(message, &to.into());
    }

    /// Type and sender of the next ICMPv6 message from a neighbour on the link; `None` for
    /// messages that are no business of ours.
    async fn receive(&self) -> io::Result<Option<(u8, Ipv6Addr)>> {
        loop {
            let mut ready = self.socket.readable().await?;
            match ready.try_io(|socket| receive(socket.get_ref())) {
                Ok(result) => return result,
                Err(_would_block) => {}
            }
        }
    }
}

fn receive(socket: &Socket) -> io::Result<Option<(u8, Ipv6Addr)>> {
    let mut buffer = [0; 256];
    let mut control = nix::cmsg_space!(libc::c_int);
    let mut iov = [IoSliceMut::new(&mut buffer)];
    let flags = MsgFlags::empty();
    let message = recvmsg::<SockaddrIn6>(socket.as_raw_fd(), &mut iov, Some(&mut control), flags)?;
    let hop_limit = message.cmsgs()?.find_map(|c| match c {
        ControlMessageOwned::Ipv6HopLimit(limit) => Some(limit),
        _ => None,
    });
    let from = message.address.map(|a| a.ip());
    let (length, kind) = (message.bytes, message.iovs().next().and_then(|b| b.first().copied()));
    // RFC 4861 §6.1.1, §6.1.2.
    let valid = length >= 8 && hop_limit == Some(255);
    Ok(match (kind, from) {
        (Some(kind), Some(from)) if valid && from.is_unicast_link_local() => Some((kind, from)),
        _ => None,
    })
}

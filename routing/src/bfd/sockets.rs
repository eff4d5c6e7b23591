//! BFD's UDP sockets: one receiver per port and family, one sender per session.
//!
//! Receivers are bound to the wildcard address, since packets are demultiplexed by discriminator;
//! they ask the kernel for the TTL, the interface and the destination of every packet. Senders use
//! TTL 255 and a source port of 49152–65535 that stays the same for the life of the session
//! (RFC 5881 §4).

use super::engine::{Key, Meta};
use super::rng::Rng;
use super::{MULTIHOP_PORT, SINGLE_HOP_PORT};
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt, sockopt,
};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

const FIRST_SOURCE_PORT: u64 = 49_152;
const LAST_SOURCE_PORT: u64 = 65_535;
/// Internetwork control (RFC 2474 §4.2.2.2): routers queue it before user traffic.
const TOS_CS6: u32 = 0xc0;
const TTL: u32 = 255;
/// Room for bursts of all peers while the thread is off the CPU.
const RECEIVE_BUFFER: usize = 1 << 20;

/// Listens on one port of one family.
#[derive(Debug)]
pub(super) struct Receiver {
    socket: Socket,
    port: u16,
    control: Vec<u8>,
}

impl Receiver {
    /// Binds the port of the hop kind.
    pub(super) fn open(multihop: bool, v6: bool) -> io::Result<Self> {
        let port = if multihop { MULTIHOP_PORT } else { SINGLE_HOP_PORT };
        let socket = udp(v6)?;
        if v6 {
            socket.set_only_v6(true)?;
            setsockopt(&socket, sockopt::Ipv6RecvHopLimit, &true)?;
            setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?;
        } else {
            setsockopt(&socket, sockopt::Ipv4RecvTtl, &true)?;
            setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?;
        }
        socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
        socket.bind(&SockAddr::from(SocketAddr::new(wildcard(v6), port)))?;
        let control = nix::cmsg_space!(libc::c_int, libc::in_pktinfo, libc::in6_pktinfo);
        Ok(Self { socket, port, control })
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// The next packet into `buffer`: its length and how it arrived; `None` if there is none.
    pub(super) fn receive(&mut self, buffer: &mut [u8]) -> io::Result<Option<(usize, Meta)>> {
        let mut iov = [IoSliceMut::new(buffer)];
        let flags = MsgFlags::MSG_DONTWAIT;
        let fd = self.socket.as_raw_fd();
        let message = match recvmsg::<SockaddrStorage>(fd, &mut iov, Some(&mut self.control), flags)
        {
            Ok(message) => message,
            Err(nix::errno::Errno::EAGAIN) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let src = message.address.as_ref().and_then(source).unwrap_or(wildcard(false));
        let mut meta = Meta { src, dst: None, interface: 0, ttl: None, port: self.port };
        for control in message.cmsgs()? {
            match control {
                ControlMessageOwned::Ipv4Ttl(ttl) | ControlMessageOwned::Ipv6HopLimit(ttl) => {
                    meta.ttl = u8::try_from(ttl).ok();
                }
                ControlMessageOwned::Ipv4PacketInfo(info) => {
                    let dst = Ipv4Addr::from(u32::from_be(info.ipi_addr.s_addr));
                    meta.dst = Some(dst.into());
                    meta.interface = info.ipi_ifindex.unsigned_abs();
                }
                ControlMessageOwned::Ipv6PacketInfo(info) => {
                    meta.dst = Some(Ipv6Addr::from(info.ipi6_addr.s6_addr).into());
                    meta.interface = info.ipi6_ifindex;
                }
                _ => {}
            }
        }
        Ok(Some((message.bytes, meta)))
    }
}

/// Sends for one session.
#[derive(Debug)]
pub(super) struct Sender {
    socket: Socket,
    destination: SockAddr,
    /// Index of the interface at the time of opening; `None` if the session names none.
    pub(super) interface: Option<u32>,
}

impl Sender {
    /// Opens the socket of a session. `port` is kept over reopening: in, the port to try first;
    /// out, the port in use.
    pub(super) fn open(key: &Key, port: &mut u16, rng: &mut Rng) -> io::Result<Self> {
        let v6 = key.peer.is_ipv6();
        let interface = key.interface.as_deref().map(nix::net::if_::if_nametoindex).transpose()?;
        let socket = udp(v6)?;
        if v6 {
            socket.set_only_v6(true)?;
            socket.set_unicast_hops_v6(TTL)?;
            socket.set_tclass_v6(TOS_CS6)?;
        } else {
            socket.set_ttl_v4(TTL)?;
            socket.set_tos_v4(TOS_CS6)?;
        }
        if let Some(name) = &key.interface {
            socket.bind_device(Some(name.as_bytes()))?;
        }
        let scoped = |address: IpAddr, port: u16| match address {
            IpAddr::V6(v6) if v6.is_unicast_link_local() => {
                SocketAddr::V6(SocketAddrV6::new(v6, port, 0, interface.unwrap_or(0)))
            }
            other => SocketAddr::new(other, port),
        };
        let local = key.local.unwrap_or(wildcard(v6));
        bind_in_range(&socket, port, rng, |port| scoped(local, port).into())?;
        let to = if key.multihop { MULTIHOP_PORT } else { SINGLE_HOP_PORT };
        Ok(Self { socket, destination: scoped(key.peer, to).into(), interface })
    }

    pub(super) fn send(&self, bytes: &[u8]) -> io::Result<()> {
        self.socket.send_to(bytes, &self.destination).map(drop)
    }
}

/// Tries `port` if it is not 0, then random ports of the range.
fn bind_in_range(
    socket: &Socket,
    port: &mut u16,
    rng: &mut Rng,
    address: impl Fn(u16) -> SockAddr,
) -> io::Result<()> {
    const ATTEMPTS: usize = 64;
    let mut last = io::Error::from(io::ErrorKind::AddrInUse);
    for attempt in 0..ATTEMPTS {
        let candidate = match *port {
            kept if kept != 0 && attempt == 0 => kept,
            _ => rng.range(FIRST_SOURCE_PORT, LAST_SOURCE_PORT) as u16,
        };
        match socket.bind(&address(candidate)) {
            Ok(()) => {
                *port = candidate;
                return Ok(());
            }
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => last = error,
            Err(error) => return Err(error),
        }
    }
    Err(last)
}

fn udp(v6: bool) -> io::Result<Socket> {
    let domain = if v6 { Domain::IPV6 } else { Domain::IPV4 };
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn wildcard(v6: bool) -> IpAddr {
    if v6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() }
}

fn source(address: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
    v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
}

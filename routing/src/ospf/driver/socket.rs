//! A raw socket for OSPF on one interface.

use crate::ospf::Version;
use crate::ospf::instance::{ALL_D_ROUTERS, ALL_D_ROUTERS_V6, ALL_SPF_ROUTERS, ALL_SPF_ROUTERS_V6};
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt, sockopt,
};
use socket2::{Domain, InterfaceIndexOrAddress, Protocol, SockAddr, Socket, Type};
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::AsRawFd;
use tokio::io::unix::AsyncFd;

const PROTOCOL: i32 = 89;
/// Internetwork control, as RFC 2328 §A.1 asks.
const TOS: u32 = 0xc0;
/// The database of a peer may arrive at once.
const RECEIVE_BUFFER: usize = 4 << 20;

/// A packet without its IP header.
#[derive(Debug)]
pub(super) struct Received {
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    pub(super) bytes: Vec<u8>,
}

#[derive(Debug)]
pub(super) struct RawSocket {
    socket: AsyncFd<Socket>,
    version: Version,
    index: u32,
}

impl RawSocket {
    /// Opens a socket that sends and receives on one interface only. Needs CAP_NET_RAW.
    pub(super) fn open(version: Version, name: &str, index: u32) -> io::Result<Self> {
        let domain = if version == Version::V2 { Domain::IPV4 } else { Domain::IPV6 };
        let socket = Socket::new(domain, Type::RAW, Some(Protocol::from(PROTOCOL)))?;
        socket.set_nonblocking(true)?;
        socket.bind_device(Some(name.as_bytes()))?;
        socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
        match version {
            Version::V2 => {
                let interface = InterfaceIndexOrAddress::Index(index);
                for group in [ALL_SPF_ROUTERS, ALL_D_ROUTERS] {
                    socket.join_multicast_v4_n(&group, &interface)?;
                }
                socket.set_multicast_ttl_v4(1)?;
                socket.set_multicast_loop_v4(false)?;
                socket.set_ttl_v4(1)?;
                socket.set_tos_v4(TOS)?;
            }
            Version::V3 => {
                for group in [ALL_SPF_ROUTERS_V6, ALL_D_ROUTERS_V6] {
                    socket.join_multicast_v6(&group, index)?;
                }
                socket.set_multicast_if_v6(index)?;
                socket.set_multicast_hops_v6(1)?;
                socket.set_multicast_loop_v6(false)?;
                socket.set_unicast_hops_v6(1)?;
                socket.set_tclass_v6(TOS)?;
                setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?;
            }
        }
        Ok(Self { socket: crate::sockopt::register(socket)?, version, index })
    }

    /// Sends one packet; a full queue drops it, which OSPF repairs.
    pub(super) fn send(&self, destination: IpAddr, bytes: &[u8]) -> io::Result<()> {
        let address: SockAddr = match destination {
            IpAddr::V4(v4) => SocketAddr::from((v4, 0)).into(),
            IpAddr::V6(v6) => SocketAddrV6::new(v6, 0, 0, self.index).into(),
        };
        self.socket.get_ref().send_to(bytes, &address).map(drop)
    }

    /// Waits for a packet. `buffer` holds the largest possible one.
    pub(super) async fn receive(&self, buffer: &mut [u8]) -> io::Result<Option<Received>> {
        loop {
            let mut ready = self.socket.readable().await?;
            match ready.try_io(|socket| self.read(socket.get_ref(), buffer)) {
                Ok(result) => return result,
                Err(_would_block) => {}
            }
        }
    }

    fn read(&self, socket: &Socket, buffer: &mut [u8]) -> io::Result<Option<Received>> {
        let mut control = nix::cmsg_space!(libc::in6_pktinfo);
        let (length, source, destination) = {
            let mut iov = [IoSliceMut::new(buffer)];
            let message = recvmsg::<SockaddrStorage>(
                socket.as_raw_fd(),
                &mut iov,
                Some(&mut control),
                MsgFlags::MSG_DONTWAIT,
            )?;
            let source = message.address.as_ref().and_then(|address| {
                let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
                v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
            });
            let mut destination = None;
            for message in message.cmsgs()? {
                if let ControlMessageOwned::Ipv6PacketInfo(info) = message {
                    destination = Some(IpAddr::V6(Ipv6Addr::from(info.ipi6_addr.s6_addr)));
                }
            }
            (message.bytes, source, destination)
        };
        let packet = &buffer[..length.min(buffer.len())];
        let Some(source) = source else { return Ok(None) };
        Ok(match self.version {
            Version::V2 => strip_ipv4(packet).map(|(destination, bytes)| Received {
                source,
                destination: destination.into(),
                bytes: bytes.to_vec(),
            }),
            Version::V3 => destination.map(|destination| Received {
                source,
                destination,
                bytes: packet.to_vec(),
            }),
        })
    }
}

/// Raw IPv4 sockets deliver the IP header; the kernel has checked it.
fn strip_ipv4(packet: &[u8]) -> Option<(Ipv4Addr, &[u8])> {
    let (head, _) = packet.split_first_chunk::<20>()?;
    let header = usize::from(head[0] & 0x0f) * 4;
    let destination = Ipv4Addr::new(head[16], head[17], head[18], head[19]);
    Some((destination, packet.get(header..)?))
}

//! TCP for BGP: sockets opened, accepted and given their options.

use super::keys::Keys;
use crate::bgp::config::NeighborConfig;
use crate::bgp::session::Endpoints;
use crate::sockopt::set_min_ttl;
use nix::ifaddrs::getifaddrs;
use nix::net::if_::if_nametoindex;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::time::Duration;
use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// Network control traffic (class selector 6), as RFC 4271 appendix E recommends precedence.
const TOS_CS6: u32 = 0xc0;
/// The kernel gives up a connection whose data is not acknowledged for so long. Longer than any
/// hold time one would use: the hold timer speaks first.
const USER_TIMEOUT: Duration = Duration::from_secs(600);
/// Connections of peers we have not looked at yet.
const BACKLOG: u32 = 128;

/// The address to dial, with the interface of a link-local one.
pub fn remote(config: &NeighborConfig) -> io::Result<SocketAddr> {
    Ok(match config.address {
        IpAddr::V4(address) => SocketAddr::new(address.into(), config.port),
        IpAddr::V6(address) => SocketAddrV6::new(address, config.port, 0, scope(config)?).into(),
    })
}

fn scope(config: &NeighborConfig) -> io::Result<u32> {
    match &config.interface {
        Some(name) => Ok(if_nametoindex(name.as_str())?),
        None => Ok(0),
    }
}

/// Opens a connection to the neighbour.
pub async fn dial(config: NeighborConfig, local_asn: u32) -> io::Result<TcpStream> {
    let remote = remote(&config)?;
    let socket = Socket::new(
        Domain::for_address(remote),
        Type::STREAM.nonblocking().cloexec(),
        Some(Protocol::TCP),
    )?;
    apply(SockRef::from(&socket), &config, local_asn)?;
    if let Some(keys) = Keys::of(&config) {
        keys.set(&socket, config.address.into(), true)?;
    }
    if let Some(source) = config.source {
        let source = match source {
            IpAddr::V6(a) if a.is_unicast_link_local() => {
                SocketAddrV6::new(a, 0, 0, scope(&config)?).into()
            }
            other => SocketAddr::new(other, 0),
        };
        socket.bind(&source.into())?;
    }
    TcpSocket::from_std_stream(socket.into()).connect(remote).await
}

/// Options of a connection the neighbour opened; its key is on the listener.
pub fn accepted(stream: &TcpStream, config: &NeighborConfig, local_asn: u32) -> io::Result<()> {
    apply(SockRef::from(stream), config, local_asn)
}

/// A listening socket on exactly this address and family.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM.nonblocking().cloexec(),
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    // Peers with GTSM judge the very first answer (RFC 5082 §3), so it leaves with 255.
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
        socket.set_unicast_hops_v6(255)?;
        socket.set_tclass_v6(TOS_CS6)?;
    } else {
        socket.set_ttl_v4(255)?;
        socket.set_tos_v4(TOS_CS6)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG as i32)?;
    TcpListener::from_std(socket.into())
}

fn apply(socket: SockRef<'_>, config: &NeighborConfig, local_asn: u32) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
    let ttl = if config.ttl_security {
        // 255 at the sender, less the hops between (RFC 5082 §2.2).
        set_min_ttl(&*socket, config.address, 255 - (config.multihop.unwrap_or(1).max(1) - 1))?;
        Some(255)
    } else if let Some(hops) = config.multihop {
        Some(u32::from(hops))
    } else {
        // An eBGP peer is a neighbour unless said otherwise; its packets need no second hop.
        config.is_external(local_asn).then_some(1)
    };
    match config.address {
        IpAddr::V4(_) => {
            socket.set_tos_v4(TOS_CS6)?;
            ttl.map_or(Ok(()), |ttl| socket.set_ttl_v4(ttl))
        }
        IpAddr::V6(_) => {
            socket.set_tclass_v6(TOS_CS6)?;
            ttl.map_or(Ok(()), |ttl| socket.set_unicast_hops_v6(ttl))
        }
    }
}

/// Both ends of a connection, and the other addresses of its interface.
pub fn endpoints(stream: &TcpStream) -> io::Result<Endpoints> {
    let (local, remote) = (stream.local_addr()?, stream.peer_addr()?);
    let mut endpoints =
        Endpoints { local, remote, v4: None, v6: None, link_local: None, interface: 0 };
    let addresses: Vec<(String, IpAddr)> = getifaddrs()?
        .filter_map(|i| {
            let address = i.address?;
            let v4 = address.as_sockaddr_in().map(|a| IpAddr::from(a.ip()));
            let v6 = address.as_sockaddr_in6().map(|a| IpAddr::from(a.ip()));
            Some((i.interface_name, v4.or(v6)?))
        })
        .collect();
    // A link-local address may be on several interfaces: the scope says which.
    let scope = match remote {
        SocketAddr::V6(a) if a.scope_id() != 0 => Some(a.scope_id()),
        _ => None,
    };
    let index = |name: &str| if_nametoindex(name).ok();
    let Some(interface) = addresses
        .iter()
        .filter(|(_, address)| *address == local.ip())
        .map(|(name, _)| name)
        .find(|name| scope.is_none() || index(name) == scope)
    else {
        return Ok(endpoints);
    };
    endpoints.interface = index(interface).unwrap_or(0);
    for (_, address) in addresses.iter().filter(|(name, _)| name == interface) {
        match *address {
            IpAddr::V4(a) => endpoints.v4 = endpoints.v4.or(Some(a)),
            IpAddr::V6(a) if a.is_unicast_link_local() => {
                endpoints.link_local = endpoints.link_local.or(Some(a));
            }
            IpAddr::V6(a) if a != Ipv6Addr::LOCALHOST => {
                endpoints.v6 = endpoints.v6.or(Some(a));
            }
            IpAddr::V6(_) => {}
        }
    }
    Ok(endpoints)
}

//! Socket options that no safe crate offers: TCP-MD5 (RFC 2385), TCP-AO (RFC 5925) and GTSM
//! (RFC 5082).
//!
//! In: an open socket and plain values. Out: an `io::Result`. The only `unsafe` of the crate's
//! TCP side is here: one `setsockopt` call, the address it takes, and handing a socket to tokio.
#![allow(unsafe_code)]

pub mod ao;

use ipnet::IpNet;
use socket2::Socket;
use std::io;
use std::mem::size_of;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use tokio::io::unix::AsyncFd;

const MAX_KEY: usize = libc::TCP_MD5SIG_MAXKEYLEN;

/// `TCP_MD5SIG_FLAG_PREFIX` of linux/tcp.h.
const FLAG_PREFIX: u8 = 1;

/// `struct tcp_md5sig` of linux/tcp.h.
#[repr(C)]
struct TcpMd5Sig {
    address: libc::sockaddr_storage,
    flags: u8,
    prefix_len: u8,
    key_len: u16,
    interface: i32,
    key: [u8; MAX_KEY],
}

const _: () = assert!(size_of::<TcpMd5Sig>() == 216);

/// Signs segments to and from the addresses of `peers` with `key`, and drops what is not so
/// signed. On a listener it covers the connections they open. An empty key removes it. Of several
/// prefixes the longest counts.
///
/// # Errors
/// A key over 80 octets, or a kernel without `CONFIG_TCP_MD5SIG`.
pub fn set_tcp_md5(socket: impl AsFd, peers: IpNet, key: &[u8]) -> io::Result<()> {
    let mut storage = socket2::SockAddr::from(SocketAddr::new(peers.addr(), 0)).as_storage();
    // SAFETY: `SockAddrStorage` wraps exactly a `sockaddr_storage`.
    let address = unsafe { *storage.view_as::<libc::sockaddr_storage>() };
    let single = peers.prefix_len() == peers.max_prefix_len();
    let mut option = TcpMd5Sig {
        address,
        flags: if single { 0 } else { FLAG_PREFIX },
        prefix_len: if single { 0 } else { peers.prefix_len() },
        key_len: key.len() as u16,
        interface: 0,
        key: [0; MAX_KEY],
    };
    let too_long = || io::Error::new(io::ErrorKind::InvalidInput, "TCP-MD5 key over 80 octets");
    option.key.get_mut(..key.len()).ok_or_else(too_long)?.copy_from_slice(key);
    let name = if single { libc::TCP_MD5SIG } else { libc::TCP_MD5SIG_EXT };
    set(socket.as_fd(), libc::IPPROTO_TCP, name, &option)
}

/// Drops segments whose TTL or hop limit on arrival is below `min` (RFC 5082 §3).
pub fn set_min_ttl(socket: impl AsFd, ip: IpAddr, min: u8) -> io::Result<()> {
    let value = libc::c_int::from(min);
    match ip {
        IpAddr::V4(_) => set(socket.as_fd(), libc::IPPROTO_IP, libc::IP_MINTTL, &value),
        IpAddr::V6(_) => set(socket.as_fd(), libc::IPPROTO_IPV6, libc::IPV6_MINHOPCOUNT, &value),
    }
}

/// Makes a socket awaitable, within a tokio runtime.
pub fn register(socket: Socket) -> io::Result<AsyncFd<Socket>> {
    // SAFETY: the socket owns its descriptor, moves into the `AsyncFd` and is closed only after it;
    // nothing replaces the descriptor.
    unsafe { Ok(AsyncFd::register(socket)?) }
}

fn set<T>(
    socket: BorrowedFd<'_>,
    level: libc::c_int,
    name: libc::c_int,
    value: &T,
) -> io::Result<()> {
    // SAFETY: the descriptor is open for the borrow's lifetime, and the kernel only reads
    // `size_of::<T>()` octets from a live reference to a `repr(C)` value.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            std::ptr::from_ref(value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

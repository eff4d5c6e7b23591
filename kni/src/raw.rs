//! The system calls that no safe wrapper covers. In: descriptors and interface names. Out: errors.
#![allow(unsafe_code)]

use nix::sys::socket::{AddressFamily, SockFlag, SockType, setsockopt, socket, sockopt};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

/// Make the receive buffer `bytes` long, beyond `net.core.rmem_max` where we may.
pub(crate) fn set_receive_buffer(owner: &impl AsRawFd, bytes: usize) -> io::Result<()> {
    let fd: RawFd = owner.as_raw_fd();
    // SAFETY: `owner` is borrowed for the whole function, so its descriptor stays open.
    let fd = unsafe { BorrowedFd::borrow_raw(fd) };
    setsockopt(&fd, sockopt::RcvBufForce, &bytes)
        .or_else(|_| setsockopt(&fd, sockopt::RcvBuf, &bytes))
        .map_err(io::Error::from)
}

// linux/ethtool.h
const ETHTOOL_STXCSUM: u32 = 0x17;
const ETHTOOL_STSO: u32 = 0x1f;

/// `struct ethtool_value` of linux/ethtool.h.
#[repr(C)]
struct EthtoolValue {
    cmd: u32,
    data: u32,
}

/// Turn off transmit checksum and segmentation offload, so that what the kernel sends through the
/// interface is complete. A device that has no such offload is fine.
pub(crate) fn disable_offloads(name: &str) -> io::Result<()> {
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    for cmd in [ETHTOOL_STSO, ETHTOOL_STXCSUM] {
        let mut value = EthtoolValue { cmd, data: 0 };
        // SAFETY: `ifreq` is plain data for which all zeroes is a valid value.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        // The last byte stays zero: the name is a C string.
        let room = request.ifr_name.len() - 1;
        for (to, from) in request.ifr_name[..room].iter_mut().zip(name.bytes()) {
            *to = from as libc::c_char;
        }
        request.ifr_ifru.ifru_data = (&raw mut value).cast();
        // SAFETY: SIOCETHTOOL takes an `ifreq` whose `ifru_data` points to the command's struct;
        // both live until the call returns, and these two commands write nothing beyond `value`.
        let done = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL, &raw mut request) };
        if done < 0 {
            let error = io::Error::last_os_error();
            if error.raw_os_error() != Some(libc::EOPNOTSUPP) {
                return Err(error);
            }
        }
    }
    Ok(())
}

//! Reads what the kernel says about the network interfaces, and hands sockets to the reactor. The
//! only unsafe code of OSPF.
#![allow(unsafe_code)]

use crate::ospf::instance::Link;
use ipnet::{Ipv4Net, Ipv6Net};
use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;
use nix::sys::socket::SockaddrStorage;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsRawFd;

nix::ioctl_read_bad!(siocgifmtu, libc::SIOCGIFMTU, libc::ifreq);

/// All interfaces of this network namespace by name.
pub(super) fn read() -> io::Result<BTreeMap<String, Link>> {
    let mut links: BTreeMap<String, Link> = BTreeMap::new();
    let control = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None)?;
    for entry in getifaddrs()? {
        let name = entry.interface_name;
        if !links.contains_key(&name) {
            // It may vanish between the two calls.
            let Ok(index) = nix::net::if_::if_nametoindex(name.as_str()) else { continue };
            let flags = InterfaceFlags::IFF_UP | InterfaceFlags::IFF_RUNNING;
            let up = entry.flags.contains(flags);
            let mtu = mtu(&control, &name)?;
            let link = Link { index, up, mtu, v4: None, link_local: None, v6: Vec::new() };
            links.insert(name.clone(), link);
        }
        let (Some(link), Some(address)) = (links.get_mut(&name), entry.address) else { continue };
        add_address(link, &address, entry.netmask.as_ref());
    }
    for link in links.values_mut() {
        link.v6.sort_unstable();
    }
    Ok(links)
}

fn add_address(link: &mut Link, address: &SockaddrStorage, mask: Option<&SockaddrStorage>) {
    if let (Some(v4), Some(mask)) =
        (address.as_sockaddr_in(), mask.and_then(|mask| mask.as_sockaddr_in()))
    {
        // The first one listed is the primary, which the kernel uses as source.
        if link.v4.is_none() {
            link.v4 = Ipv4Net::with_netmask(v4.ip(), mask.ip()).ok();
        }
    } else if let (Some(v6), Some(mask)) =
        (address.as_sockaddr_in6(), mask.and_then(|mask| mask.as_sockaddr_in6()))
    {
        if v6.ip().is_unicast_link_local() {
            link.link_local.get_or_insert(v6.ip());
        } else if !v6.ip().is_loopback() {
            link.v6.extend(Ipv6Net::with_netmask(v6.ip(), mask.ip()));
        }
    }
}

fn mtu(control: &socket2::Socket, name: &str) -> io::Result<u32> {
    // SAFETY: ifreq is plain data, for which all zeros is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // One byte stays zero: the name is terminated.
    let room = request.ifr_name.len() - 1;
    for (to, from) in request.ifr_name[..room].iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    // SAFETY: the request lives through the call, the kernel writes within it, and has filled in
    // `ifru_mtu` when the call succeeds.
    let mtu = unsafe {
        siocgifmtu(control.as_raw_fd(), &raw mut request)?;
        request.ifr_ifru.ifru_mtu
    };
    Ok(u32::try_from(mtu).unwrap_or(0))
}

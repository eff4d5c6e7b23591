//! TCP-AO keys of a socket (RFC 5925), byte for byte as `linux/tcp.h` of Linux 6.7 and later has
//! them. A kernel without `CONFIG_TCP_AO` says ENOPROTOOPT, which [`explain`] puts into words.
#![deny(unsafe_code)]

use super::set;
use crate::bgp::config::{AoAlgorithm, AoKey};
use ipnet::IpNet;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;

const TCP_AO_ADD_KEY: libc::c_int = 38;
const TCP_AO_DEL_KEY: libc::c_int = 39;
/// 96 bits, as RFC 5926 §3.2 has both algorithms.
const MAC_LEN: u8 = 12;

/// `struct tcp_ao_add`.
#[repr(C, align(8))]
struct Add([u8; 288]);

/// `struct tcp_ao_del`.
#[repr(C, align(8))]
struct Delete([u8; 144]);

/// Signs segments to and from the addresses of `peers` with `key`, and drops what no key of theirs
/// has signed. On a listener it covers the connections they open. `preferred`: the key to begin
/// with, of a connection that we open.
///
/// # Errors
/// The IDs are taken, a TCP-MD5 key covers the same peer, or the kernel lacks TCP-AO or the
/// algorithm.
pub fn add_key(socket: impl AsFd, peers: IpNet, key: &AoKey, preferred: bool) -> io::Result<()> {
    set(socket.as_fd(), libc::IPPROTO_TCP, TCP_AO_ADD_KEY, &add(peers, key, preferred))
        .map_err(explain)
}

/// Takes a key of [`add_key`] back.
pub fn delete_key(socket: impl AsFd, peers: IpNet, key: &AoKey) -> io::Result<()> {
    set(socket.as_fd(), libc::IPPROTO_TCP, TCP_AO_DEL_KEY, &delete(peers, key)).map_err(explain)
}

/// Whether this kernel takes such a key at all.
pub fn probe(key: &AoKey) -> io::Result<()> {
    let kind = socket2::Type::STREAM.cloexec();
    let socket = socket2::Socket::new(socket2::Domain::IPV4, kind, None)?;
    add_key(&socket, IpNet::from(IpAddr::from([127, 0, 0, 1])), key, true)
}

fn explain(error: io::Error) -> io::Error {
    let because = match error.raw_os_error() {
        Some(libc::ENOPROTOOPT) => {
            "this kernel has no TCP-AO; it takes Linux 6.7 or later, built with CONFIG_TCP_AO"
        }
        Some(libc::ENOENT) => {
            "this kernel lacks the algorithm; it takes CONFIG_CRYPTO_HMAC and CONFIG_CRYPTO_SHA1, \
             or CONFIG_CRYPTO_CMAC and CONFIG_CRYPTO_AES"
        }
        Some(libc::EKEYREJECTED) => "a TCP-MD5 key covers the same addresses",
        Some(libc::EEXIST) => "the key IDs are taken",
        _ => return error,
    };
    io::Error::new(error.kind(), because)
}

fn add(peers: IpNet, key: &AoKey, preferred: bool) -> Add {
    let mut option = [0; 288];
    put_address(&mut option, peers);
    let name = match key.algorithm {
        AoAlgorithm::HmacSha1 => "hmac(sha1)",
        AoAlgorithm::Aes128Cmac => "cmac(aes128)",
    };
    put(&mut option, 128, name.as_bytes());
    let flags: u32 = if preferred { SET_CURRENT | SET_RNEXT } else { 0 };
    put(&mut option, 196, &flags.to_ne_bytes());
    let secret = key.secret.as_bytes();
    let ids = [peers.prefix_len(), key.send_id, key.receive_id, MAC_LEN, 0, secret.len() as u8];
    put(&mut option, 202, &ids);
    put(&mut option, 208, secret);
    Add(option)
}

fn delete(peers: IpNet, key: &AoKey) -> Delete {
    let mut option = [0; 144];
    put_address(&mut option, peers);
    put(&mut option, 138, &[peers.prefix_len(), key.send_id, key.receive_id]);
    Delete(option)
}

/// Bit fields of one 32-bit word, which C lays out from the end that comes first in memory.
const SET_CURRENT: u32 = if cfg!(target_endian = "little") { 1 } else { 1 << 31 };
const SET_RNEXT: u32 = if cfg!(target_endian = "little") { 1 << 1 } else { 1 << 30 };

/// A `sockaddr_storage` at the start, without port: both structures begin with it.
fn put_address(option: &mut [u8], peers: IpNet) {
    match SocketAddr::new(peers.trunc().addr(), 0) {
        SocketAddr::V4(v4) => {
            put(option, 0, &(libc::AF_INET as libc::sa_family_t).to_ne_bytes());
            put(option, 4, &v4.ip().octets());
        }
        SocketAddr::V6(v6) => {
            put(option, 0, &(libc::AF_INET6 as libc::sa_family_t).to_ne_bytes());
            put(option, 8, &v6.ip().octets());
        }
    }
}

fn put(option: &mut [u8], at: usize, bytes: &[u8]) {
    for (to, from) in option.iter_mut().skip(at).zip(bytes) {
        *to = *from;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bgp::config::Password;

    fn key(algorithm: AoAlgorithm) -> AoKey {
        let secret = Password::new("tern").unwrap();
        AoKey { send_id: 5, receive_id: 7, algorithm, secret }
    }

    /// Offsets as a C compiler gives them for `struct tcp_ao_add` of linux/tcp.h, Linux 6.12.
    #[test]
    #[cfg(target_endian = "little")]
    fn a_key_is_laid_out_as_linux_wants_it() {
        let Add(option) = add("10.1.0.0/16".parse().unwrap(), &key(AoAlgorithm::HmacSha1), true);
        assert_eq!(option[..8], [2, 0, 0, 0, 10, 1, 0, 0], "family, no port, address");
        assert_eq!(option[128..192], {
            let mut name = [0; 64];
            name[..10].copy_from_slice(b"hmac(sha1)");
            name
        });
        assert_eq!(option[192..196], [0; 4], "ifindex");
        assert_eq!(option[196..200], [3, 0, 0, 0], "set_current, set_rnext");
        assert_eq!(option[200..202], [0; 2], "reserved2");
        assert_eq!(option[202..208], [16, 5, 7, 12, 0, 4], "prefix to keylen");
        assert_eq!(&option[208..212], b"tern");
        assert!(option[8..128].iter().chain(&option[212..]).all(|byte| *byte == 0));

        let peer = "fd00::1/128".parse().unwrap();
        let Add(option) = add(peer, &key(AoAlgorithm::Aes128Cmac), false);
        assert_eq!(option[..8], [10, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(option[8..24], "fd00::1".parse::<std::net::Ipv6Addr>().unwrap().octets());
        assert_eq!(&option[128..141], b"cmac(aes128)\0");
        assert_eq!(option[196..200], [0; 4]);
        assert_eq!(option[202..208], [128, 5, 7, 12, 0, 4]);
    }

    /// As above, `struct tcp_ao_del`.
    #[test]
    #[cfg(target_endian = "little")]
    fn a_key_is_taken_back_as_linux_wants_it() {
        let Delete(option) = delete("10.1.1.1/32".parse().unwrap(), &key(AoAlgorithm::HmacSha1));
        assert_eq!(option[..8], [2, 0, 0, 0, 10, 1, 1, 1]);
        assert_eq!(option[128..138], [0; 10], "ifindex, flags, reserved2");
        assert_eq!(option[138..144], [32, 5, 7, 0, 0, 0], "prefix to keyflags");
    }

    #[test]
    fn a_kernel_without_it_is_named() {
        let error = explain(io::Error::from_raw_os_error(libc::ENOPROTOOPT));
        assert!(error.to_string().contains("CONFIG_TCP_AO"), "{error}");
        if let Err(error) = probe(&key(AoAlgorithm::HmacSha1)) {
            assert!(error.to_string().contains("CONFIG_"), "{error}");
        }
    }
}

//! Who opens connections to a host: its incoming TCP SYNs, with the time of each.
//!
//! A server's log cannot tell that a dead server is left alone; the wire can.

use crate::netns::Netns;
use anyhow::{Context, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockProtocol, SockType, recvmsg,
    setsockopt, socket, sockopt,
};
use nix::sys::time::TimeSpec;
use std::io::IoSliceMut;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

/// One SYN seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Syn {
    /// When the kernel took it, not when this process came to read it.
    pub at: Instant,
    pub from: SocketAddr,
    pub to: SocketAddr,
}

/// A running watch. Dropping it ends it.
#[derive(Debug)]
pub struct Sniffer {
    seen: Arc<Mutex<Vec<Syn>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Sniffer {
    /// Watch every interface of `ns` for SYNs to TCP `port`.
    pub fn start(ns: &Netns, port: u16) -> Result<Self> {
        let fd = ns.enter(open)?.context("packet socket")?;
        let seen = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let thread = std::thread::Builder::new().name("sniff".into()).spawn({
            let (seen, stop) = (seen.clone(), stop.clone());
            move || {
                while !stop.load(Ordering::Relaxed) {
                    if let Some(syn) = next(&fd)
                        && syn.to.port() == port
                    {
                        seen.lock().unwrap_or_else(PoisonError::into_inner).push(syn);
                    }
                }
            }
        })?;
        Ok(Self { seen, stop, thread: Some(thread) })
    }

    /// What was seen so far.
    pub fn seen(&self) -> Vec<Syn> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Sniffer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn open() -> nix::Result<OwnedFd> {
    let fd = packet_socket(4 << 20)?;
    setsockopt(&fd, sockopt::ReceiveTimestampns, &true)?;
    Ok(fd)
}

/// Hears every frame of this namespace. `buffer`: of the socket, bytes.
pub(crate) fn packet_socket(buffer: usize) -> nix::Result<OwnedFd> {
    let fd =
        socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::EthAll)?;
    setsockopt(&fd, sockopt::RcvBuf, &buffer)?;
    Ok(fd)
}

/// The next SYN, or nothing within a short time.
fn next(fd: &OwnedFd) -> Option<Syn> {
    let mut fds = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
    if poll(&mut fds, PollTimeout::from(50u8)).ok()? == 0 {
        return None;
    }
    // Headers are enough: Ethernet 14, IPv6 40, TCP 20.
    let mut frame = [0; 128];
    let mut iov = [IoSliceMut::new(&mut frame)];
    let mut control = nix::cmsg_space!(TimeSpec);
    let flags = MsgFlags::MSG_DONTWAIT;
    let message = recvmsg::<()>(fd.as_raw_fd(), &mut iov, Some(&mut control), flags).ok()?;
    let stamp = message.cmsgs().ok()?.find_map(|c| match c {
        ControlMessageOwned::ScmTimestampns(at) => Some(Duration::from(at)),
        _ => None,
    });
    let len = message.bytes;
    let (from, to) = syn(&frame[..len])?;
    let at = instant(stamp?)?;
    Some(Syn { at, from, to })
}

/// A time of day as the moment it was on the monotonic clock.
fn instant(since_epoch: Duration) -> Option<Instant> {
    let ago = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH + since_epoch);
    Instant::now().checked_sub(ago.unwrap_or_default())
}

/// Source and destination, if the frame is a TCP SYN (and not a SYN-ACK).
fn syn(frame: &[u8]) -> Option<(SocketAddr, SocketAddr)> {
    let ip = frame.get(14..)?;
    let (from, to, tcp): (IpAddr, IpAddr, &[u8]) = match frame.get(12..14)? {
        [0x08, 0x00] if *ip.get(9)? == 6 => {
            let v4 = |at: usize| <[u8; 4]>::try_from(ip.get(at..at + 4)?).ok();
            let header = usize::from(ip.first()? & 0x0f) * 4;
            (v4(12)?.into(), v4(16)?.into(), ip.get(header..)?)
        }
        [0x86, 0xdd] if *ip.get(6)? == 6 => {
            let v6 = |at: usize| <[u8; 16]>::try_from(ip.get(at..at + 16)?).ok();
            (v6(8)?.into(), v6(24)?.into(), ip.get(40..)?)
        }
        _ => return None,
    };
    let port = |at: usize| Some(u16::from_be_bytes(tcp.get(at..at + 2)?.try_into().ok()?));
    const SYN: u8 = 0x02;
    const ACK: u8 = 0x10;
    if tcp.get(13)? & (SYN | ACK) != SYN {
        return None;
    }
    Some((SocketAddr::new(from, port(0)?), SocketAddr::new(to, port(2)?)))
}

//! The far end of every conversation: whatever arrives is sent back with its addresses and ports
//! swapped, as a backend's replies are.
//!
//! Works on whole frames, on any interface of its namespace, IPv4 and IPv6, TCP and UDP. Swapping
//! leaves every checksum right, so none is computed.

use crate::netns::Netns;
use crate::sniff::packet_socket;
use anyhow::{Context, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{LinkAddr, MsgFlags, recvfrom, sendto};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

/// `PACKET_OUTGOING` of `packet(7)`: the copy of a frame that this host sends.
const OUTGOING: u8 = 4;

/// A running reflector. Dropping it ends it.
#[derive(Debug)]
pub struct Reflector {
    reflected: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Reflector {
    /// Reflect on all interfaces of `ns`.
    pub fn start(ns: &Netns) -> Result<Self> {
        let fd = ns.enter(|| packet_socket(8 << 20))?.context("packet socket")?;
        let reflected = Arc::new(AtomicU64::new(0));
        let stop = Arc::new(AtomicBool::new(false));
        let thread = std::thread::Builder::new().name("reflect".into()).spawn({
            let (reflected, stop) = (reflected.clone(), stop.clone());
            move || {
                let mut frame = vec![0; 16 * 1024];
                while !stop.load(Ordering::Relaxed) {
                    if next(&fd, &mut frame) {
                        reflected.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
        })?;
        Ok(Self { reflected, stop, thread: Some(thread) })
    }

    /// Frames sent back so far.
    pub fn reflected(&self) -> u64 {
        self.reflected.load(Ordering::Relaxed)
    }
}

impl Drop for Reflector {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Reflect the next frame, if one comes within a short time.
fn next(fd: &OwnedFd, frame: &mut [u8]) -> bool {
    let mut fds = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
    if !poll(&mut fds, PollTimeout::from(50u8)).is_ok_and(|ready| ready > 0) {
        return false;
    }
    let Ok((len, Some(from))) = recvfrom::<LinkAddr>(fd.as_raw_fd(), frame) else {
        return false;
    };
    if from.pkttype() == OUTGOING || !turn(&mut frame[..len]) {
        return false;
    }
    // Its address names the interface it came by; a raw frame carries the rest itself.
    sendto(fd.as_raw_fd(), &frame[..len], &from, MsgFlags::empty()).is_ok()
}

/// Swap source and destination of the frame, the packet and the ports. `false`: not a whole TCP or
/// UDP packet; then the frame is as it was.
fn turn(frame: &mut [u8]) -> bool {
    let Some((addresses, width, ports)) = layout(frame) else {
        return false;
    };
    swap(frame, 0, 6);
    swap(frame, addresses, width);
    swap(frame, ports, 2);
    true
}

/// Where the packet's addresses are, how wide each is, and where the ports are.
fn layout(frame: &[u8]) -> Option<(usize, usize, usize)> {
    const IP: usize = 14;
    const TCP: u8 = 6;
    const UDP: u8 = 17;
    let (protocol, addresses, width, ports) = match frame.get(12..14)? {
        [0x08, 0x00] => {
            let header = usize::from(frame.get(IP)? & 0x0f) * 4;
            // A later fragment has no ports.
            let offset = u16::from_be_bytes([*frame.get(IP + 6)?, *frame.get(IP + 7)?]);
            if header < 20 || offset & 0x1fff != 0 {
                return None;
            }
            (*frame.get(IP + 9)?, IP + 12, 4, IP + header)
        }
        [0x86, 0xdd] => (*frame.get(IP + 6)?, IP + 8, 16, IP + 40),
        _ => return None,
    };
    let whole = frame.len() >= ports + 4;
    (whole && matches!(protocol, TCP | UDP)).then_some((addresses, width, ports))
}

/// Swap two neighbours of `width` bytes each.
fn swap(frame: &mut [u8], at: usize, width: usize) {
    let (first, second) = frame[at..at + 2 * width].split_at_mut(width);
    first.swap_with_slice(second);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn udp4() -> Vec<u8> {
        let mut frame = vec![1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 0x08, 0x00];
        frame.extend([0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        frame.extend([0x12, 0x34, 0x00, 0x50, 0, 8, 0, 0]);
        frame
    }

    #[test]
    fn a_packet_turns_round_and_round_again() {
        let mut v6 = vec![1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 0x86, 0xdd];
        v6.extend([0x60, 0, 0, 0, 0, 8, 6, 64]);
        v6.extend((0..32).collect::<Vec<u8>>());
        v6.extend([0x12, 0x34, 0x00, 0x50, 0, 8, 0, 0]);
        for frame in [udp4(), v6] {
            let mut turned = frame.clone();
            assert!(turn(&mut turned));
            assert_eq!(turned[..6], frame[6..12]);
            let (addresses, width, ports) = layout(&frame).unwrap();
            assert_eq!(turned[addresses..][..width], frame[addresses + width..][..width]);
            assert_eq!(turned[ports..][..2], frame[ports + 2..][..2]);
            assert!(turn(&mut turned));
            assert_eq!(turned, frame);
        }
    }

    #[test]
    fn what_is_no_whole_packet_stays_as_it_is() {
        let whole = udp4();
        for len in 0..whole.len() - 4 {
            let mut cut = whole[..len].to_vec();
            assert!(!turn(&mut cut), "{len}");
            assert_eq!(cut, whole[..len]);
        }
        let mut icmp = udp4();
        icmp[23] = 1;
        assert!(!turn(&mut icmp));
        let mut fragment = udp4();
        fragment[21] = 3;
        assert!(!turn(&mut fragment));
    }
}

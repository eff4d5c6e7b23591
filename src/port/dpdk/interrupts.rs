//! Receive interrupts: a queue has a descriptor that becomes readable when a frame arrives, so that an
//! idle worker can wait for it.
//!
//! DPDK's own way to wait (`rte_epoll_wait`) keeps state in each thread. Only the descriptors are taken
//! from it here; who waits on them, and how, is the worker's business.

use super::device::Device;
use super::error::DpdkError;
use dpdk_sys as sys;
use std::os::fd::RawFd;

/// Drivers with which this was tried (tests/dpdk_port).
const TRIED: &[&str] = &["net_tap"];
/// They make their device anew when they are asked for interrupts, and do not survive a refusal.
const FRAGILE: &[&str] = &["net_virtio", "net_virtio_user"];

/// Whether to ask a port for receive interrupts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Interrupts {
    /// Nobody will wait for them.
    #[default]
    No,
    /// If its driver is one that was tried.
    Tried,
    /// Whatever its driver.
    Any,
}

/// The interrupt of one queue.
#[derive(Debug, Clone, Copy)]
pub(super) struct Line {
    pub fd: RawFd,
    /// The driver can switch it off. Else the descriptor is readable whenever a frame arrives.
    pub switched: bool,
}

/// Why a device is not asked at all; `None`: it is.
pub(super) fn refusal(device: &Device, driver: &str, wanted: Interrupts) -> Option<String> {
    let tried = TRIED.contains(&driver);
    match wanted {
        Interrupts::No => Some("the workers do not wait (dataplane: poll)".to_owned()),
        _ if FRAGILE.contains(&driver) => Some(format!("{driver} cannot have them safely")),
        Interrupts::Tried if !tried => {
            Some(format!("not tried with {driver} (dataplane: poll = \"interrupt\" does)"))
        }
        // UIO has one interrupt for everything.
        _ if device.is_behind_uio() => Some("UIO has none for each queue; vfio-pci has".to_owned()),
        _ => None,
    }
}

/// The interrupt of each queue of a started port; or why there is none. Each is switched on and off
/// once: what a driver says that it can do is not asked.
///
/// # Safety
/// The port is started and was configured for receive interrupts, and nobody uses it yet.
pub(super) unsafe fn lines(
    name: &str,
    port: u16,
    driver: &str,
    queues: u16,
) -> Result<Vec<Line>, DpdkError> {
    let refused = |what: String, rc| DpdkError::call(format!("{name}: {what}"), rc, Vec::new(), "");
    (0..queues)
        .map(|queue| {
            // SAFETY: the caller's.
            let fd = unsafe { sys::rte_eth_dev_rx_intr_ctl_q_get_fd(port, queue) };
            if fd < 0 {
                let what = format!("queue {queue} has no interrupt");
                return Err(refused(what, libc::ENOTSUP));
            }
            // SAFETY: the caller's.
            match unsafe { sys::rte_eth_dev_rx_intr_enable(port, queue) } {
                0 => {
                    // SAFETY: the caller's.
                    unsafe { sys::rte_eth_dev_rx_intr_disable(port, queue) };
                    Ok(Line { fd, switched: true })
                }
                rc if rc == -libc::ENOTSUP && TRIED.contains(&driver) => {
                    Ok(Line { fd, switched: false })
                }
                rc => Err(refused(format!("queue {queue}: its interrupt cannot be had"), rc)),
            }
        })
        .collect()
}

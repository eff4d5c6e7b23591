//! A DPDK device, opened, configured and started.
//!
//! [`DpdkPort::attach`] finds a device, and [`Attached::start`] asks it for what the node wants and
//! takes what it offers; what was granted is in [`PortInfo`]. The port runs until the last of its
//! handles and queues is dropped, then it is stopped, closed and detached.

use super::device::Device;
use super::eal::Eal;
use super::error::{DpdkError, check};
use super::interrupts::{self, Interrupts};
use super::mempool::Mempool;
use super::queue::DpdkQueue;
use super::rss::Rss;
use super::setup::{self, Ask, setup};
use crate::config::model;
use crate::forward::steering::PortOffer;
use crate::forward::tables::Mac;
use crate::port::Caps;
use dpdk_sys as sys;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What to open and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortConfig {
    pub device: model::Device,
    /// Queue pairs wanted; the port gets as many as the device has.
    pub queues: u16,
    /// Receive descriptors per queue, before the device's own limits.
    pub rx_desc: u16,
    /// Transmit descriptors per queue, before the device's own limits.
    pub tx_desc: u16,
    /// Largest IP packet, bytes.
    pub mtu: u16,
    /// Default: the device's own.
    pub mac: Option<Mac>,
    /// Receive frames to any address. All multicast is received anyway: ND and OSPF need it.
    pub promiscuous: bool,
    /// Let the device verify and compute checksums where it can.
    pub checksum_offload: bool,
    /// Let idle workers wait for frames.
    pub interrupts: Interrupts,
}

impl PortConfig {
    /// Descriptors of a queue pair, unless one asks otherwise.
    pub const DESCRIPTORS: u32 = 2 * 1024;

    /// One queue pair, 1024 descriptors each way, MTU 1500, checksum offloads.
    pub fn new(device: model::Device) -> Self {
        Self {
            device,
            queues: 1,
            rx_desc: 1024,
            tx_desc: 1024,
            mtu: 1500,
            mac: None,
            promiscuous: false,
            checksum_offload: true,
            interrupts: Interrupts::No,
        }
    }
}

/// What was granted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortInfo {
    /// DPDK's name of the device.
    pub device: String,
    pub driver: String,
    pub caps: Caps,
    pub queues: u16,
    pub rx_desc: u16,
    pub tx_desc: u16,
    pub mtu: u16,
    pub mac: Mac,
    /// NUMA node, if the device is on one.
    pub socket: Option<u32>,
    /// NUMA node of the pool that the device receives into; `None`: wherever there was memory.
    pub pool_socket: Option<u32>,
    /// How flows are spread over the queues; `None`: not by hash.
    pub rss: Option<Rss>,
    /// Whether queues have receive interrupts, or why not.
    pub interrupts: Result<(), String>,
}

impl PortInfo {
    /// What steering can make of the port. `name`: for the operator; `flow_rules`: whether the port
    /// takes them, or why not.
    pub fn offer(&self, name: &str, flow_rules: Result<(), String>) -> PortOffer {
        let none = || "the driver does not spread packets by RSS".to_owned();
        PortOffer {
            name: name.to_owned(),
            queues: self.queues,
            spreads: self.caps.rss,
            rss: self.rss.as_ref().ok_or_else(none).and_then(Rss::offer),
            flow_rules,
        }
    }
}

/// Link state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Link {
    pub up: bool,
    /// Mbit/s; 0 or `u32::MAX` if the device does not know.
    pub speed_mbps: u32,
    pub full_duplex: bool,
}

/// Counters of a port since it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PortStats {
    pub rx_packets: u64,
    pub tx_packets: u64,
    pub rx_bytes: u64,
    pub tx_bytes: u64,
    /// Dropped by the device because its receive queue was full: the worker is too slow.
    pub rx_missed: u64,
    /// Frames the device found broken.
    pub rx_errors: u64,
    pub tx_errors: u64,
    /// Dropped because the memory pool was empty.
    pub rx_no_buffer: u64,
}

/// An open port. Clones share it.
#[derive(Debug, Clone)]
pub struct DpdkPort {
    pub(super) device: Arc<Device>,
    info: Arc<PortInfo>,
}

/// A device that DPDK has taken, and that is not configured yet. Given back when dropped.
#[derive(Debug)]
pub struct Attached {
    device: Device,
    config: PortConfig,
    /// NUMA node, if the device is on one.
    pub socket: Option<u32>,
    /// Queue pairs that it will have.
    pub queues: u16,
}

impl Attached {
    /// Receive and transmit descriptors of each queue pair, before the device's own limits.
    pub fn descriptors_of_pair(&self) -> u32 {
        u32::from(self.config.rx_desc) + u32::from(self.config.tx_desc)
    }

    /// Configure the device and start it. What it receives comes in buffers of `pool`.
    pub fn start(self, pool: &Mempool) -> Result<DpdkPort, DpdkError> {
        let Self { mut device, config, .. } = self;
        let driver = setup::driver(&device)?;
        let mut without = interrupts::refusal(&device, &driver, config.interrupts);
        let refused = without.is_some();
        // Some virtual drivers claim RSS and fail when asked for it. RSS is worth more than interrupts.
        let attempts = [(true, true), (true, false), (false, true), (false, false)];
        let mut failure = None;
        for (rss, interrupts) in attempts {
            if (interrupts && refused) || (!rss && config.queues <= 1) {
                continue;
            }
            let error = match setup(&mut device, &config, pool, Ask { rss, interrupts }) {
                Ok(mut info) => {
                    info.interrupts =
                        if interrupts { Ok(()) } else { Err(without.unwrap_or_default()) };
                    device.taken = (0..info.queues).map(|_| AtomicBool::new(false)).collect();
                    return Ok(DpdkPort { device: Arc::new(device), info: Arc::new(info) });
                }
                Err(error) => error,
            };
            tracing::debug!(device = device.name, rss, interrupts, %error, "trying with less");
            device.stop();
            if interrupts {
                without = Some(error.to_string());
            } else {
                failure.get_or_insert(error);
            }
        }
        // Of the first attempt without interrupts: the last always is one.
        Err(failure.unwrap_or(DpdkError::NoPort { device: device.name.clone() }))
    }
}

impl DpdkPort {
    /// Find the device, or plug it in.
    pub fn attach(eal: &Eal, config: &PortConfig) -> Result<Attached, DpdkError> {
        let device = Device::attach(eal, &config.device)?;
        let (socket, queues) = (device.socket(), setup::granted_queues(&device, config)?);
        Ok(Attached { device, config: config.clone(), socket, queues })
    }

    /// Attach the device and start it. `pools` is one pool per NUMA node; that of the device's node
    /// is used, else the first.
    pub fn open(eal: &Eal, config: &PortConfig, pools: &[Mempool]) -> Result<Self, DpdkError> {
        let attached = Self::attach(eal, config)?;
        let near =
            |pool: &&Mempool| attached.socket.is_some() && pool.config().socket == attached.socket;
        let none = || DpdkError::NoPool { device: attached.device.name.clone() };
        let pool = pools.iter().find(near).or(pools.first()).ok_or_else(none)?;
        attached.start(pool)
    }

    pub fn info(&self) -> &PortInfo {
        &self.info
    }

    /// Take a queue pair. Each has one holder at a time; dropping it gives it back.
    pub fn queue(&self, queue: u16) -> Result<DpdkQueue, DpdkError> {
        let device = self.device.name.clone();
        match self.device.taken.get(usize::from(queue)) {
            None => Err(DpdkError::NoSuchQueue { device, queue, granted: self.info.queues }),
            Some(taken) if taken.swap(true, Ordering::Acquire) => {
                Err(DpdkError::QueueTaken { device, queue })
            }
            Some(_) => Ok(DpdkQueue::new(Arc::clone(&self.device), queue)),
        }
    }

    /// Link state now. Workers may poll meanwhile.
    pub fn link(&self) -> Result<Link, DpdkError> {
        let _alone = self.device.control();
        let (mut up, mut speed_mbps, mut full_duplex) = (0, 0, 0);
        // SAFETY: the port is open as long as self; the out pointers are valid.
        let rc = unsafe {
            sys::dpdk_sys_link(
                self.device.id(),
                &raw mut up,
                &raw mut speed_mbps,
                &raw mut full_duplex,
            )
        };
        check("cannot read the link state", rc, "")?;
        Ok(Link { up: up != 0, speed_mbps, full_duplex: full_duplex != 0 })
    }

    /// Counters now. Workers may poll meanwhile.
    pub fn stats(&self) -> Result<PortStats, DpdkError> {
        let _alone = self.device.control();
        let mut s = sys::rte_eth_stats::default();
        // SAFETY: the port is open as long as self; the structure is DPDK's own.
        let rc = unsafe { sys::rte_eth_stats_get(self.device.id(), &raw mut s) };
        check("cannot read the port's counters", rc, "")?;
        Ok(PortStats {
            rx_packets: s.ipackets,
            tx_packets: s.opackets,
            rx_bytes: s.ibytes,
            tx_bytes: s.obytes,
            rx_missed: s.imissed,
            rx_errors: s.ierrors,
            tx_errors: s.oerrors,
            rx_no_buffer: s.rx_nombuf,
        })
    }

    /// The driver's own counters by name, for operators: names and meaning differ by driver.
    pub fn extended_stats(&self) -> Result<Vec<(String, u64)>, DpdkError> {
        const WHAT: &str = "cannot read the driver's counters";
        let _alone = self.device.control();
        let id = self.device.id();
        // SAFETY: the port is open; with no array both calls return how many there are, and with
        // one they write at most its length.
        unsafe {
            let count =
                check(WHAT, sys::rte_eth_xstats_get(id, std::ptr::null_mut(), 0), "")? as u32;
            let mut values = vec![sys::rte_eth_xstat::default(); count as usize];
            let mut names = vec![sys::rte_eth_xstat_name::default(); count as usize];
            let named = sys::rte_eth_xstats_get_names(id, names.as_mut_ptr(), count);
            let named = check(WHAT, named, "")? as usize;
            let valued = sys::rte_eth_xstats_get(id, values.as_mut_ptr(), count);
            let valued = check(WHAT, valued, "")? as usize;
            values.truncate(valued);
            names.truncate(named);
            Ok(values
                .iter()
                .filter_map(|v| Some((text(&names.get(v.id as usize)?.name), v.value)))
                .collect())
        }
    }
}

/// A fixed-size field that holds a string.
fn text(field: &[std::ffi::c_char]) -> String {
    let bytes: Vec<u8> = field.iter().map(|c| *c as u8).take_while(|c| *c != 0).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

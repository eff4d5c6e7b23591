//! Configuring a device: ask for what the node wants, take what it offers, say what was granted.

use super::device::Device;
use super::eal::with_log;
use super::error::{DpdkError, check};
use super::interrupts;
use super::mempool::Mempool;
use super::port::{PortConfig, PortInfo};
use super::rss;
use crate::forward::tables::Mac;
use crate::port::Caps;
use dpdk_sys as sys;
use std::ffi::CStr;

/// Ethernet header, two VLAN tags and the frame check sequence, bytes.
const FRAME_OVERHEAD: u32 = 14 + 8 + 4;

/// What to ask of a device that it may refuse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ask {
    pub rss: bool,
    pub interrupts: bool,
}

/// Configure and start an attached device.
pub(super) fn setup(
    device: &mut Device,
    config: &PortConfig,
    pool: &Mempool,
    ask: Ask,
) -> Result<PortInfo, DpdkError> {
    let id = device.id();
    let name = device.name.clone();
    let info = offered(device)?;
    let queues = granted_queues(device, config)?;
    device.pool = Some(pool.clone());

    let mut request = if ask.rss && queues > 1 { rss::Request::for_device(&info) } else { None };
    let offloads = Offloads::choose(config, &info, pool, request.is_some());
    let mut conf = sys::rte_eth_conf::default();
    conf.rxmode.offloads = offloads.rx;
    conf.txmode.offloads = offloads.tx;
    conf.rxmode.mtu = u32::from(config.mtu.clamp(info.min_mtu, info.max_mtu.max(info.min_mtu)));
    conf.intr_conf.set_rxq(u32::from(ask.interrupts));
    device.lines.clear();
    if let Some(request) = &mut request {
        conf.rxmode.mq_mode = sys::DPDK_SYS_MQ_RX_RSS;
        conf.rx_adv_conf.rss_conf = request.conf();
    }
    let (rc, log) = with_log(|| {
        // SAFETY: here and below: the port is attached and ours, and not started; nobody else knows
        // it. Structures are DPDK's own and outlive the calls.
        unsafe { sys::rte_eth_dev_configure(id, queues, queues, &raw const conf) }
    });
    if rc < 0 {
        return Err(DpdkError::call(format!("{name}: cannot configure"), rc, log, ""));
    }
    let (rx_desc, tx_desc) = setup_queues(&name, id, config, queues, &info, &conf, pool)?;
    tolerate(&name, "set the MTU", || {
        // SAFETY: as above.
        unsafe { sys::rte_eth_dev_set_mtu(id, conf.rxmode.mtu as u16) }
    });
    if let Some(mac) = config.mac {
        let mut address = sys::rte_ether_addr { addr_bytes: mac.0 };
        tolerate(&name, "set the MAC address", || {
            // SAFETY: as above.
            unsafe { sys::rte_eth_dev_default_mac_addr_set(id, &raw mut address) }
        });
    }
    // SAFETY: as above.
    let (rc, log) = with_log(|| unsafe { sys::rte_eth_dev_start(id) });
    if rc < 0 {
        return Err(DpdkError::call(format!("{name}: cannot start"), rc, log, ""));
    }
    device.started = true;
    let driver = driver(device)?;
    if ask.interrupts {
        // SAFETY: started, configured for interrupts, and still ours alone.
        let (lines, log) = with_log(|| unsafe { interrupts::lines(&name, id, &driver, queues) });
        if lines.is_err() {
            tracing::debug!(device = name, ?log, "no receive interrupts");
        }
        device.lines = lines?;
    }
    receive_filters(&name, id, config.promiscuous);
    // SAFETY: started, configured for RSS, and still ours alone.
    let rss = request.map(|_| unsafe { rss::spread(id, &info, queues) });

    Ok(PortInfo {
        device: name,
        driver,
        caps: offloads.caps(rss.is_some()),
        queues,
        rx_desc,
        tx_desc,
        mtu: granted_mtu(id, config.mtu),
        mac: granted_mac(id),
        socket: device.socket(),
        pool_socket: pool.config().socket,
        rss,
        interrupts: Err(String::new()),
    })
}

/// DPDK's name of the device's driver.
pub(super) fn driver(device: &Device) -> Result<String, DpdkError> {
    Ok(c_text(offered(device)?.driver_name))
}

/// What the device says that it can do.
fn offered(device: &Device) -> Result<sys::rte_eth_dev_info, DpdkError> {
    let mut info = sys::rte_eth_dev_info::default();
    // SAFETY: the port is attached and ours; the structure is DPDK's own and outlives the call.
    let rc = unsafe { sys::rte_eth_dev_info_get(device.id(), &raw mut info) };
    check(&format!("{}: cannot ask what the device offers", device.name), rc, "")?;
    Ok(info)
}

/// Queue pairs: as many as wanted, if the device has them.
pub(super) fn granted_queues(device: &Device, config: &PortConfig) -> Result<u16, DpdkError> {
    let info = offered(device)?;
    let none = |direction| DpdkError::NoQueues { device: device.name.clone(), direction };
    match (info.max_rx_queues, info.max_tx_queues) {
        (0, _) => Err(none("receive")),
        (_, 0) => Err(none("transmit")),
        (rx, tx) => Ok(config.queues.clamp(1, rx.min(tx))),
    }
}

/// Offloads asked for, in DPDK's bits.
#[derive(Debug, Clone, Copy)]
struct Offloads {
    rx: u64,
    tx: u64,
}

const RX_L4: u64 = sys::DPDK_SYS_OFFLOAD_RX_TCP_CKSUM | sys::DPDK_SYS_OFFLOAD_RX_UDP_CKSUM;
const TX_L4: u64 = sys::DPDK_SYS_OFFLOAD_TX_TCP_CKSUM | sys::DPDK_SYS_OFFLOAD_TX_UDP_CKSUM;

impl Offloads {
    fn choose(
        config: &PortConfig,
        info: &sys::rte_eth_dev_info,
        pool: &Mempool,
        rss: bool,
    ) -> Self {
        let mut rx = 0;
        let mut tx = sys::DPDK_SYS_OFFLOAD_TX_MULTI_SEGS;
        if config.checksum_offload {
            rx |= RX_L4 | sys::DPDK_SYS_OFFLOAD_RX_IPV4_CKSUM;
            tx |= TX_L4 | sys::DPDK_SYS_OFFLOAD_TX_IPV4_CKSUM;
        }
        if rss {
            rx |= sys::DPDK_SYS_OFFLOAD_RX_RSS_HASH;
        }
        if u32::from(config.mtu) + FRAME_OVERHEAD > u32::from(pool.config().frame_size) {
            rx |= sys::DPDK_SYS_OFFLOAD_RX_SCATTER;
        }
        Self { rx: rx & info.rx_offload_capa, tx: tx & info.tx_offload_capa }
    }

    fn caps(self, rss: bool) -> Caps {
        Caps {
            rx_ipv4_checksum: self.rx & sys::DPDK_SYS_OFFLOAD_RX_IPV4_CKSUM != 0,
            rx_l4_checksum: self.rx & RX_L4 == RX_L4,
            tx_ipv4_checksum: self.tx & sys::DPDK_SYS_OFFLOAD_TX_IPV4_CKSUM != 0,
            tx_l4_checksum: self.tx & TX_L4 == TX_L4,
            rss,
        }
    }
}

/// Set up the queue pairs. Returns the numbers of descriptors granted.
fn setup_queues(
    name: &str,
    id: u16,
    config: &PortConfig,
    queues: u16,
    info: &sys::rte_eth_dev_info,
    conf: &sys::rte_eth_conf,
    pool: &Mempool,
) -> Result<(u16, u16), DpdkError> {
    let (mut rx_desc, mut tx_desc) = (config.rx_desc, config.tx_desc);
    // SAFETY: here and below: the port is configured, ours alone and not started; structures are
    // DPDK's own and outlive the calls; the device holds the pool for as long as it is open.
    let rc =
        unsafe { sys::rte_eth_dev_adjust_nb_rx_tx_desc(id, &raw mut rx_desc, &raw mut tx_desc) };
    check(&format!("{name}: cannot choose queue sizes"), rc, "")?;
    let mut rx_conf = info.default_rxconf;
    rx_conf.offloads = conf.rxmode.offloads;
    let mut tx_conf = info.default_txconf;
    tx_conf.offloads = conf.txmode.offloads;
    let (result, log) = with_log(|| {
        for queue in 0..queues {
            // SAFETY: as above.
            let (rx, tx) = unsafe {
                let socket = sys::rte_eth_dev_socket_id(id) as u32;
                let rx = sys::rte_eth_rx_queue_setup(
                    id,
                    queue,
                    rx_desc,
                    socket,
                    &raw const rx_conf,
                    pool.as_ptr(),
                );
                (rx, sys::rte_eth_tx_queue_setup(id, queue, tx_desc, socket, &raw const tx_conf))
            };
            if rx < 0 || tx < 0 {
                return Err((queue, rx.min(tx)));
            }
        }
        Ok((rx_desc, tx_desc))
    });
    result.map_err(|(queue, rc)| {
        let what = format!("{name}: cannot set up queue {queue} of {queues}");
        DpdkError::call(what, rc, log, "Fewer descriptors, or more memory?")
    })
}

/// All multicast, or failing that everything; and everything if asked for.
fn receive_filters(name: &str, id: u16, promiscuous: bool) {
    // SAFETY: the port is started and ours.
    let multicast =
        tolerate(name, "receive all multicast", || unsafe { sys::rte_eth_allmulticast_enable(id) });
    if promiscuous || !multicast {
        // SAFETY: as above.
        tolerate(name, "receive everything", || unsafe { sys::rte_eth_promiscuous_enable(id) });
    }
}

/// Drivers without an operation answer ENOTSUP; the port works without. Returns whether it was
/// done.
fn tolerate(name: &str, what: &str, call: impl FnOnce() -> i32) -> bool {
    let (rc, log) = with_log(call);
    match -rc {
        0 => {}
        libc::ENOTSUP => tracing::debug!(device = name, "the driver cannot {what}"),
        errno => tracing::warn!(device = name, errno, ?log, "cannot {what}"),
    }
    rc == 0
}

fn granted_mtu(id: u16, wanted: u16) -> u16 {
    let mut mtu = 0;
    // SAFETY: the port is open.
    let rc = unsafe { sys::rte_eth_dev_get_mtu(id, &raw mut mtu) };
    if rc == 0 { mtu } else { wanted }
}

fn granted_mac(id: u16) -> Mac {
    let mut mac = sys::rte_ether_addr::default();
    // SAFETY: the port is open.
    unsafe { sys::rte_eth_macaddr_get(id, &raw mut mac) };
    Mac(mac.addr_bytes)
}

/// DPDK's name of a driver; empty if it has none.
fn c_text(text: *const std::ffi::c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: not null, and DPDK's strings are NUL-terminated and static.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

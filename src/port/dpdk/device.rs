//! An attached DPDK device: found or plugged in, owned once, unplugged when the last user is gone.

use super::eal::{Eal, c_string, with_log};
use super::error::DpdkError;
use super::interrupts::Line;
use super::mempool::Mempool;
use crate::config::model;
use dpdk_sys as sys;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The attached device: what queues and handles share.
#[derive(Debug)]
pub(super) struct Device {
    id: u16,
    pub name: String,
    bus: &'static str,
    pub started: bool,
    /// One per queue: somebody holds it.
    pub taken: Box<[AtomicBool]>,
    /// Receive interrupts, by queue. Empty: there are none.
    pub lines: Vec<Line>,
    /// Drivers expect one control call at a time per port.
    control: Mutex<()>,
    /// Buffers in the device's rings belong to it.
    pub pool: Option<Mempool>,
    _eal: Eal,
}

impl Device {
    pub fn attach(eal: &Eal, wanted: &model::Device) -> Result<Self, DpdkError> {
        let (bus, name, args) = match wanted {
            model::Device::Pci(address) => ("pci", address.clone(), String::new()),
            // Whoever opens ports resolves these first; DPDK knows no MAC address before it probes.
            model::Device::Mac(mac) => {
                return Err(DpdkError::NoPort { device: format!("mac:{mac:02x?}") });
            }
            model::Device::Vdev(text) => {
                let (name, args) = text.split_once(',').unwrap_or((text, ""));
                ("vdev", unique_vdev(name), args.to_owned())
            }
        };
        let c_bus = c_string("bus", bus)?;
        let c_name = c_string("device", &name)?;
        let c_args = c_string("device arguments", &args)?;
        let mut id = 0;
        // SAFETY: EAL is initialised; the string and the out pointer are valid.
        let found = unsafe { sys::rte_eth_dev_get_port_by_name(c_name.as_ptr(), &raw mut id) };
        let known = found == 0;
        if known && !claim(id) {
            return Err(DpdkError::InUse { device: name });
        }
        if !known {
            let (rc, log) = with_log(|| {
                // SAFETY: as above; DPDK copies the strings.
                unsafe {
                    sys::rte_eal_hotplug_add(c_bus.as_ptr(), c_name.as_ptr(), c_args.as_ptr())
                }
            });
            if rc < 0 {
                let hint = attach_hint(bus);
                return Err(DpdkError::call(format!("cannot open {name}"), rc, log, hint));
            }
            // SAFETY: as above.
            if unsafe { sys::rte_eth_dev_get_port_by_name(c_name.as_ptr(), &raw mut id) } != 0 {
                return Err(DpdkError::NoPort { device: name });
            }
            claim(id);
        }
        Ok(Self {
            id,
            name,
            bus,
            started: false,
            taken: Box::default(),
            lines: Vec::new(),
            control: Mutex::new(()),
            pool: None,
            _eal: eal.clone(),
        })
    }

    pub fn id(&self) -> u16 {
        self.id
    }

    /// NUMA node, if the device is on one.
    pub fn socket(&self) -> Option<u32> {
        // SAFETY: the device is attached.
        u32::try_from(unsafe { sys::rte_eth_dev_socket_id(self.id) }).ok()
    }

    /// The receive interrupt of a queue.
    pub fn line(&self, queue: u16) -> Option<Line> {
        self.lines.get(usize::from(queue)).copied()
    }

    /// Its driver in the kernel is one of UIO's.
    pub fn is_behind_uio(&self) -> bool {
        let driver =
            std::fs::read_link(format!("/sys/bus/{}/devices/{}/driver", self.bus, self.name));
        driver.is_ok_and(|driver| {
            driver.file_name().and_then(|name| name.to_str()).is_some_and(|n| n.contains("uio"))
        })
    }

    pub fn release(&self, queue: u16) {
        if let Some(taken) = self.taken.get(usize::from(queue)) {
            taken.store(false, Ordering::Release);
        }
    }

    pub fn control(&self) -> MutexGuard<'_, ()> {
        self.control.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn stop(&mut self) {
        if std::mem::take(&mut self.started) {
            // SAFETY: the port is open and nobody polls it: queues hold the device, and this is
            // either its drop or before the first queue.
            let rc = unsafe { sys::rte_eth_dev_stop(self.id) };
            if rc < 0 {
                tracing::warn!(device = self.name, rc, "the port did not stop");
            }
        }
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        let Self { id, bus, .. } = *self;
        let (c_bus, c_name) = (c_string("bus", bus), c_string("device", &self.name));
        let ((), _) = with_log(|| {
            self.stop();
            // SAFETY: the port is open and stopped, and this was its last owner.
            let rc = unsafe { sys::rte_eth_dev_close(id) };
            if rc < 0 {
                tracing::warn!(device = self.name, rc, "the port did not close");
            }
            if let (Ok(bus), Ok(name)) = (c_bus, c_name) {
                // SAFETY: EAL is initialised; the strings are valid.
                unsafe { sys::rte_eal_hotplug_remove(bus.as_ptr(), name.as_ptr()) };
            }
        });
        release(id);
    }
}

/// Ports that have an owner here. EAL probes allowed PCI devices by itself at start, so that a
/// device is known to DPDK does not mean that it is in use.
static OWNED: Mutex<Vec<u16>> = Mutex::new(Vec::new());

fn claim(id: u16) -> bool {
    let mut owned = OWNED.lock().unwrap_or_else(PoisonError::into_inner);
    let free = !owned.contains(&id);
    if free {
        owned.push(id);
    }
    free
}

fn release(id: u16) {
    OWNED.lock().unwrap_or_else(PoisonError::into_inner).retain(|owned| *owned != id);
}

/// DPDK tells virtual devices apart by name, and drivers match by prefix: `net_af_packet` is
/// numbered, `net_tap0` is left as it is.
fn unique_vdev(name: &str) -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    if name.ends_with(|c: char| c.is_ascii_digit()) {
        name.to_owned()
    } else {
        format!("{name}_{}", NUMBER.fetch_add(1, Ordering::Relaxed))
    }
}

fn attach_hint(bus: &str) -> &'static str {
    if bus == "pci" {
        "Is it bound to vfio-pci (dpdk-devbind.py --status), and in the list of allowed devices?"
    } else {
        "Is the driver's plugin installed (librte-net-*), and are its arguments right?"
    }
}

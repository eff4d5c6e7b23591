//! A made-up machine for tests: a directory with what sysfs and procfs would show, and programs that
//! are noted instead of run. Where a command relies on what the kernel does next, the fake does it.

use super::host::{Host, Root, Run};
use anyhow::{Result, bail};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

/// Removed when dropped.
#[derive(Debug)]
pub struct Machine {
    directory: PathBuf,
    pub ran: Arc<Mutex<Vec<String>>>,
}

/// One network card of it.
#[derive(Debug, Clone, Copy)]
pub struct Card {
    pub address: &'static str,
    pub vendor: &'static str,
    pub driver: &'static str,
    pub name: &'static str,
    pub mac: &'static str,
    pub iommu: bool,
    pub link: bool,
}

pub const MANAGEMENT: Card = Card {
    address: "0000:00:02.0",
    vendor: "0x1af4",
    driver: "virtio-pci",
    name: "enp0s2",
    mac: "52:54:00:00:00:01",
    iommu: false,
    link: true,
};

pub const DATA: Card = Card {
    address: "0000:00:03.0",
    vendor: "0x8086",
    driver: "igb",
    name: "enp0s3",
    mac: "52:54:00:00:00:02",
    iommu: true,
    link: true,
};

impl Machine {
    /// Two cores, one NUMA node of 2 GiB, hugepages, no cards.
    pub fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("dunlin-machine-{}-{number}", std::process::id());
        // In memory where that is possible: upgrades sync a lot.
        let shm = Path::new("/dev/shm");
        let base = if shm.is_dir() { shm.to_owned() } else { std::env::temp_dir() };
        let directory = base.join(name);
        fs::create_dir_all(&directory).unwrap();
        let machine = Self { directory, ran: Arc::default() };
        let node = "sys/devices/system/node/node0";
        let pages = format!("{node}/hugepages/hugepages-2048kB");
        for (path, content) in [
            ("proc/cpuinfo", "model name\t: Testium\nflags\t\t: fpu hypervisor\n"),
            ("proc/cmdline", "roothash=00 quiet\n"),
            ("proc/net/route", "Iface Destination Gateway Flags RefCnt Use Metric Mask\n"),
            ("proc/sys/kernel/hostname", "localhost\n"),
            ("proc/irq/default_smp_affinity", "3\n"),
            ("proc/irq/24/smp_affinity_list", "0-1\n"),
            ("sys/devices/system/cpu/online", "0-1\n"),
            ("sys/devices/system/cpu/isolated", "\n"),
            (&format!("{node}/cpulist"), "0-1\n"),
            (&format!("{node}/meminfo"), "Node 0 MemTotal:        2097152 kB\n"),
            (&format!("{pages}/nr_hugepages"), "0\n"),
            (&format!("{pages}/free_hugepages"), "0\n"),
            ("sys/devices/virtual/workqueue/cpumask", "3\n"),
            ("sys/bus/pci/drivers_probe", ""),
            ("sys/bus/pci/devices/0000:00:00.0/class", "0x060000\n"),
            ("run/systemd/system/.keep", ""),
            ("dev/net/tun", ""),
            ("dev/vhost-net", ""),
            ("dev/watchdog0", ""),
        ] {
            machine.write(path, content);
        }
        machine
    }

    pub fn with(self, card: Card) -> Self {
        let at = format!("sys/bus/pci/devices/{}", card.address);
        self.write(&format!("{at}/class"), "0x020000\n");
        self.write(&format!("{at}/vendor"), card.vendor);
        self.write(&format!("{at}/device"), "0x1000");
        self.write(&format!("{at}/numa_node"), "-1\n");
        self.write(&format!("{at}/driver_override"), "(null)\n");
        let net = match card.driver {
            "virtio-pci" => format!("{at}/virtio0/net/{}", card.name),
            _ => format!("{at}/net/{}", card.name),
        };
        self.write(&format!("{net}/address"), card.mac);
        self.write(&format!("{net}/carrier"), if card.link { "1" } else { "0" });
        self.write(&format!("{net}/speed"), "10000");
        self.bind(card.address, card.driver);
        if card.iommu {
            self.write("sys/kernel/iommu_groups/7/type", "DMA");
            symlink(self.path("sys/kernel/iommu_groups/7"), self.path(format!("{at}/iommu_group")))
                .unwrap();
        }
        self
    }

    pub fn default_route(self, name: &str) -> Self {
        let line =
            format!("Iface Destination Gateway\n{name} 00000000 0101A8C0 0003 0 0 100 00000000");
        self.write("proc/net/route", &line);
        self
    }

    pub fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        self.directory.join(path)
    }

    pub fn write(&self, path: &str, content: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    pub fn read(&self, path: &str) -> String {
        fs::read_to_string(self.path(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
    }

    pub fn driver(&self, address: &str) -> Option<String> {
        self.root().link(format!("sys/bus/pci/devices/{address}/driver"))
    }

    pub fn root(&self) -> Root {
        Root::at(&self.directory)
    }

    pub fn host(&self) -> Host {
        let kernel = Kernel { root: self.directory.clone(), ran: Arc::clone(&self.ran) };
        Host::new(self.root(), Box::new(kernel))
    }

    fn bind(&self, address: &str, driver: &str) {
        let at = format!("sys/bus/pci/drivers/{driver}");
        self.write(&format!("{at}/unbind"), "");
        symlink(self.path(at), self.path(format!("sys/bus/pci/devices/{address}/driver"))).unwrap();
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// What the kernel and the programs do.
#[derive(Debug)]
struct Kernel {
    root: PathBuf,
    ran: Arc<Mutex<Vec<String>>>,
}

impl Run for Kernel {
    fn run(&self, program: &str, arguments: &[&str]) -> Result<String> {
        let line = format!("{program} {}", arguments.join(" "));
        let line = line.replace(&format!("{}/", self.root.display()), "/");
        self.ran.lock().unwrap().push(line);
        match (program, arguments) {
            ("udevadm", _) => self.probe(),
            ("mount", [.., device, _]) => {
                let content = PathBuf::from(format!("{device}.content"));
                if !content.exists() {
                    bail!("mount: unknown filesystem type");
                }
                fs::remove_dir(self.root.join("run/dunlin-drive"))?;
                fs::rename(content, self.root.join("run/dunlin-drive"))?;
            }
            ("modprobe", ["uio_pci_generic"]) => bail!("Module uio_pci_generic not found"),
            _ => {}
        }
        Ok(String::new())
    }
}

impl Kernel {
    /// Cards that were unbound go to the driver that their override names, and lose their interface.
    fn probe(&self) {
        let devices = self.root.join("sys/bus/pci/devices");
        let probed = fs::read_to_string(self.root.join("sys/bus/pci/drivers_probe")).unwrap();
        let device = devices.join(probed.trim());
        let Ok(driver) = fs::read_to_string(device.join("driver_override")) else { return };
        let (_, _) =
            (fs::remove_file(device.join("driver")), fs::remove_dir_all(device.join("net")));
        let home = self.root.join("sys/bus/pci/drivers").join(driver.trim());
        fs::create_dir_all(&home).unwrap();
        fs::write(home.join("unbind"), "").unwrap();
        symlink(home, device.join("driver")).unwrap();
    }
}

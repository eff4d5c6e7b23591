//! Virtual machines in a lab: QEMU, wired into its namespaces.
//!
//! In: a [`Machine`], which says what a machine is made of (firmware, disks, network cards), and
//! the namespace it shall live in. Out: a running [`Vm`]; its serial console as text to wait on,
//! QEMU's own control socket, and the power switch. QEMU runs inside the namespace, so that its
//! TAPs are there, and the lab's janitor ends it whatever becomes of the test.
//!
//! Never waits for time: every wait names a condition, and its failure shows what was on the
//! console. Deadlines are wide, because without KVM everything is emulated.

mod accel;
mod disk;
pub mod guest;
mod nic;
mod qmp;
pub mod reflector;
pub mod rss;
mod serial;
mod ssh;

pub use accel::{Accel, KVM};
pub use disk::{
    Disk, blank, config_drive, enroll, fat_file, fill, flip, overlay, partition, sectors_with,
    storage,
};
pub use nic::{Model, Nic};
pub use qmp::Qmp;
pub use serial::{Keyboard, Mark, Serial};
pub use ssh::{Key, Ssh};

use crate::netns::Netns;
use crate::process::Process;
use crate::wait::wait_for;
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::{Duration, Instant};

/// Where Debian's `ovmf` puts the firmware.
const OVMF: &str = "/usr/share/OVMF";
/// Its variables, as they leave the factory: no keys.
const VARS: &str = "OVMF_VARS_4M.fd";
/// Lines of the console in a message about a failure.
const TAIL: usize = 40;

/// What a machine boots with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Firmware {
    /// UEFI without Secure Boot.
    #[default]
    Uefi,
    /// UEFI that enforces Secure Boot, with the keys enrolled in this variable store.
    SecureBoot { vars: PathBuf },
    /// SeaBIOS.
    Bios,
}

/// A kernel that QEMU loads itself: no firmware menu, no boot loader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kernel {
    pub image: PathBuf,
    pub initrd: PathBuf,
    pub command_line: String,
}

/// What a machine is made of.
#[derive(Debug, Clone)]
pub struct Machine {
    /// Unique in its namespace.
    pub name: String,
    /// MiB.
    pub memory: u32,
    pub cpus: u8,
    /// An Intel IOMMU, which network cards are behind.
    pub iommu: bool,
    pub accel: Accel,
    pub firmware: Firmware,
    pub kernel: Option<Kernel>,
    /// In the order of the guest's `/dev/vda`, `/dev/vdb`, …
    pub disks: Vec<Disk>,
    pub nics: Vec<Nic>,
    /// Further words of QEMU's command line.
    pub extra: Vec<String>,
}

impl Machine {
    /// A UEFI machine with 1 GiB, two CPUs, and nothing attached.
    pub fn new(name: &str, accel: Accel) -> Self {
        Self {
            name: name.to_owned(),
            memory: 1024,
            cpus: 2,
            iommu: false,
            accel,
            firmware: Firmware::default(),
            kernel: None,
            disks: Vec::new(),
            nics: Vec::new(),
            extra: Vec::new(),
        }
    }
}

/// A machine that was switched on. Dropping it pulls the plug.
#[derive(Debug)]
pub struct Vm {
    machine: Machine,
    ns: Netns,
    /// Sockets and the console's log.
    dir: PathBuf,
    process: Option<Process>,
    serial: Serial,
}

impl Vm {
    /// Lay its cables and switch it on. TAPs are made in `ns` and set up; whoever wants them in a
    /// bridge puts them there before or after.
    pub fn start(ns: &Netns, machine: Machine) -> Result<Self> {
        for nic in &machine.nics {
            nic.make_tap(ns)?;
        }
        let dir = ns.lab().dir(&format!("{}/{}", ns.name(), machine.name))?;
        let serial = Serial::new(dir.join("serial.log"));
        let mut vm = Self { machine, ns: ns.clone(), dir, process: None, serial };
        vm.power_on()?;
        Ok(vm)
    }

    pub fn name(&self) -> &str {
        &self.machine.name
    }

    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// The console's output since the machine was made; power cuts do not clear it.
    pub fn serial(&self) -> &Serial {
        &self.serial
    }

    /// Change the machine while it is off.
    pub fn rebuild(&mut self, change: impl FnOnce(&mut Machine)) -> Result<()> {
        if self.process.is_some() {
            bail!("{} is on", self.name());
        }
        change(&mut self.machine);
        Ok(())
    }

    /// Switch it on (again), with the disks and firmware variables as they are.
    pub fn power_on(&mut self) -> Result<()> {
        if self.process.is_some() {
            bail!("{} is already on", self.machine.name);
        }
        for socket in ["qmp.sock", "serial.sock"] {
            let _ = fs::remove_file(self.dir.join(socket));
        }
        let mut command = self.ns.command("qemu-system-x86_64");
        command.args(self.arguments()?);
        let name = format!("qemu-{}", self.machine.name);
        let mut process = Process::spawn(&name, &self.dir, &mut command)?;
        let socket = self.dir.join("qmp.sock");
        process.wait_ready(Duration::from_secs(20), || Qmp::connect(&socket).map(drop))?;
        self.process = Some(process);
        Ok(())
    }

    /// Pull the plug: QEMU is killed, the guest notices nothing.
    pub fn cut_power(&mut self) -> Result<()> {
        match self.process.take() {
            Some(mut process) => process.kill(),
            None => Ok(()),
        }
    }

    /// Press the reset button.
    pub fn reset(&self) -> Result<()> {
        self.qmp()?.execute("system_reset")
    }

    /// Plug the cable of a network card in or out (cards are counted from 0).
    pub fn set_link(&self, nic: usize, up: bool) -> Result<()> {
        let arguments = serde_json::json!({ "name": Nic::device_id(nic), "up": up });
        self.qmp()?.execute_with("set_link", arguments).map(drop)
    }

    /// QEMU's control socket.
    pub fn qmp(&self) -> Result<Qmp> {
        Qmp::connect(&self.dir.join("qmp.sock"))
    }

    /// Sit down at the serial console.
    pub fn keyboard(&self) -> Result<Keyboard> {
        Keyboard::open(&self.dir.join("serial.sock"))
    }

    /// Wait until the console, from `mark` on, shows one of `needles`. Which, and when it was seen.
    /// Fails at once when QEMU ends.
    pub fn wait_console(
        &mut self,
        mark: Mark,
        needles: &[&str],
        timeout: Duration,
    ) -> Result<(usize, Instant)> {
        let what = format!("{} on the console of {}", needles.join(" or "), self.name());
        self.wait(&what, timeout, |vm| {
            let text = vm.serial.since(mark);
            let found = needles.iter().position(|needle| text.contains(needle));
            found.map(|which| (which, Instant::now())).context("not there")
        })
    }

    /// Wait for any condition on the machine; a failure shows the end of the console.
    pub fn wait<T>(
        &mut self,
        what: &str,
        timeout: Duration,
        mut condition: impl FnMut(&Self) -> Result<T>,
    ) -> Result<T> {
        let mut dead = None;
        let waited = wait_for(what, timeout, || {
            match condition(self) {
                Ok(value) => Ok(Some(value)),
                // What it wrote last may be what was waited for, so this comes second.
                Err(e) => match self.process.as_mut().map_or(Ok(()), Process::check) {
                    Ok(()) => Err(e),
                    Err(ended) => {
                        dead = Some(ended);
                        Ok(None)
                    }
                },
            }
        });
        let failed = match (waited, dead) {
            (Ok(Some(value)), _) => return Ok(value),
            (_, Some(ended)) => ended.context(what.to_owned()),
            (Err(e), None) => e,
            (Ok(None), None) => anyhow::anyhow!("{what}: never"),
        };
        Err(failed.context(self.last_words()))
    }

    /// Wait until QEMU ends by itself: the guest switched the machine off (or, with `-no-reboot`,
    /// restarted it).
    pub fn wait_off(&mut self, timeout: Duration) -> Result<ExitStatus> {
        let name = self.machine.name.clone();
        let process = self.process.as_mut().context("it is off")?;
        let status = wait_for(&format!("{name} to switch off"), timeout, || {
            process.ended().context("still on")
        });
        let status = status.with_context(|| self.last_words())?;
        self.process = None;
        Ok(status)
    }

    /// For messages: what the console showed last.
    pub fn last_words(&self) -> String {
        let tail = self.serial.tail(TAIL);
        format!("the console of {} ended with:\n{tail}\n--", self.name())
    }

    /// The words of QEMU's command line.
    fn arguments(&self) -> Result<Vec<String>> {
        let machine = &self.machine;
        let mut words: Vec<String> = Vec::new();
        let mut add = |option: &str, value: String| words.extend([option.to_owned(), value]);
        add("-name", machine.name.clone());
        let secure = matches!(machine.firmware, Firmware::SecureBoot { .. });
        let mut board = String::from("q35");
        if secure {
            board += ",smm=on";
        }
        if machine.iommu {
            // Interrupts are remapped by QEMU, not by KVM.
            board += ",kernel-irqchip=split";
        }
        add("-machine", board);
        if machine.iommu {
            // Before the devices behind it.
            add("-device", "intel-iommu,intremap=on,caching-mode=on,aw-bits=48".into());
        }
        machine.accel.arguments(&mut add);
        add("-smp", machine.cpus.to_string());
        add("-m", machine.memory.to_string());
        add("-display", "none".into());
        add("-qmp", format!("unix:{},server=on,wait=off", self.file("qmp.sock")));
        add(
            "-chardev",
            format!(
                "socket,id=serial,path={},server=on,wait=off,logfile={},logappend=on",
                self.file("serial.sock"),
                self.file("serial.log")
            ),
        );
        add("-serial", "chardev:serial".into());
        add("-device", "virtio-rng-pci".into());
        if machine.kernel.is_none() {
            self.firmware(&mut add)?;
        }
        if let Some(kernel) = &machine.kernel {
            add("-kernel", kernel.image.display().to_string());
            add("-initrd", kernel.initrd.display().to_string());
            add("-append", kernel.command_line.clone());
        }
        for (n, disk) in machine.disks.iter().enumerate() {
            disk.arguments(n, &mut add);
        }
        // No card but those named; also no boot menu entry for the network.
        add("-nic", "none".into());
        for (n, nic) in machine.nics.iter().enumerate() {
            nic.arguments(n, machine.iommu, &mut add);
        }
        words.push("-nodefaults".into());
        words.push("-no-user-config".into());
        words.extend(machine.extra.iter().cloned());
        Ok(words)
    }

    fn firmware(&self, add: &mut impl FnMut(&str, String)) -> Result<()> {
        let (code, template) = match &self.machine.firmware {
            Firmware::Bios => return Ok(()),
            Firmware::Uefi => ("OVMF_CODE_4M.fd", Path::new(OVMF).join(VARS)),
            Firmware::SecureBoot { vars } => ("OVMF_CODE_4M.secboot.fd", vars.clone()),
        };
        if matches!(self.machine.firmware, Firmware::SecureBoot { .. }) {
            add("-global", "driver=cfi.pflash01,property=secure,value=on".into());
            add("-global", "ICH9-LPC.disable_s3=1".into());
        }
        let vars = self.dir.join("vars.fd");
        if !vars.exists() {
            fs::copy(&template, &vars)
                .with_context(|| format!("cannot copy {} (package ovmf)", template.display()))?;
        }
        add("-drive", format!("if=pflash,format=raw,unit=0,readonly=on,file={OVMF}/{code}"));
        add("-drive", format!("if=pflash,format=raw,unit=1,file={}", vars.display()));
        Ok(())
    }

    fn file(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        let _ = self.cut_power();
    }
}

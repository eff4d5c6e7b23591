//! A machine that runs the appliance: its power switch, its console, and questions to it by ssh.

use super::config::{data_mac, management_address, management_mac};
use super::site::Site;
use crate::netns::Netns;
use crate::vm::{
    Accel, Disk, Firmware, Key, Machine, Model, Nic, Ssh, Vm, blank, config_drive, overlay,
};
use crate::wait::wait_for;
use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Disks of the machines: larger than the image, so that the state partition has to grow.
const DISK: u64 = 4 << 30;
/// MiB.
const MEMORY: u32 = 1536;

/// What a machine starts from.
#[derive(Debug, Clone)]
pub(super) struct Ingredients<'a> {
    pub name: &'a str,
    pub image: Image<'a>,
    pub storage: &'a Path,
    pub accel: Accel,
    pub key: &'a Key,
    pub firmware: Firmware,
    /// `dunlin.toml` of its config drive; without, it has none.
    pub config: Option<String>,
    /// `ca-certificates.crt` of its config drive.
    pub authority: Option<&'a str>,
    pub iommu: bool,
    /// An Intel 6300ESB: a watchdog that resets the machine.
    pub watchdog: bool,
    /// Its data card.
    pub data: Model,
}

/// What is on its disk.
#[derive(Debug, Clone, Copy)]
pub(super) enum Image<'a> {
    Flashed(&'a Path),
    /// Nothing, and this medium is in the drive.
    Installer(&'a Path),
}

/// A machine that runs the appliance.
#[derive(Debug)]
pub struct Node {
    /// From 1.
    pub n: u8,
    pub vm: Vm,
    pub disk: PathBuf,
    ssh: Ssh,
}

impl Node {
    /// Make machine `n` and switch it on. `change` may do something to its new disk before.
    pub(super) fn start(
        n: u8,
        host: &Netns,
        admin: &Netns,
        from: Ingredients<'_>,
        change: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<Self> {
        // Two lanes may have a machine of one name.
        let file = |end: &str| from.storage.join(format!("{n}-{}.{end}", from.name));
        let disk = file("qcow2");
        let mut machine = Machine::new(from.name, from.accel);
        machine.memory = MEMORY;
        machine.firmware = from.firmware;
        machine.iommu = from.iommu;
        if from.watchdog {
            machine.extra.extend(["-device", "i6300esb"].map(str::to_owned));
        }
        match from.image {
            Image::Flashed(image) => machine.disks.push(overlay(image, &disk, Some(DISK))?),
            Image::Installer(medium) => {
                machine.disks.push(blank(&disk, DISK)?);
                machine.disks.push(Disk::ReadOnly(medium.to_owned()));
            }
        }
        change(&disk)?;
        if let Some(text) = &from.config {
            let iso = file("iso");
            let mut files =
                vec![("dunlin.toml", text.as_str()), ("authorized_keys", &from.key.public)];
            files.extend(from.authority.map(|pem| ("ca-certificates.crt", pem)));
            machine.disks.push(config_drive(&iso, "DUNLIN", &files)?);
        }
        let (mgmt, data) = (format!("mgmt{n}"), format!("data{n}"));
        machine.nics.push(Nic::virtio(&mgmt, &management_mac(n)));
        machine.nics.push(Nic { model: from.data, ..Nic::virtio(&data, &data_mac(n)) });
        let vm = Vm::start(host, machine)?;
        host.ip(&format!("link set {mgmt} master mgmt\nlink set {data} master data"))?;
        let target = format!("root@{}", management_address(n));
        let ssh = Ssh { ns: admin.clone(), key: from.key.clone(), target };
        Ok(Self { n, vm, disk, ssh })
    }

    /// The PCI address of its data card.
    pub(super) fn data_card() -> String {
        Nic::pci_address(1)
    }

    /// Run a command on it.
    pub fn run(&self, command: &str) -> Result<String> {
        self.ssh.run(command)
    }

    /// `dunlin --json ARGS` on it.
    pub fn ask(&self, args: &str) -> Result<Value> {
        let out = self.run(&format!("dunlin --json {args}"))?;
        serde_json::from_str(&out).with_context(|| format!("dunlin {args}: {out}"))
    }

    /// `KEY=` of `/usr/lib/dunlin/release`.
    pub fn release(&self, key: &str) -> Result<String> {
        let text = self.run("cat /usr/lib/dunlin/release")?;
        let found = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        Ok(found.with_context(|| format!("no {key} in {text}"))?.to_owned())
    }

    /// The version that runs.
    pub fn version(&self) -> Result<String> {
        self.release("VERSION")
    }

    /// Which system partition it runs from, `a` or `b`.
    pub fn slot(&self) -> Result<String> {
        Ok(self.run("cat /run/dunlin-image/slot")?.trim().to_owned())
    }

    /// The kernels on its ESP, with their boot counters.
    pub fn kernels(&self) -> Result<Vec<String>> {
        let listed = self.run("ls /efi/EFI/Linux")?;
        Ok(listed.lines().map(|line| line.trim().to_owned()).collect())
    }

    /// Of this boot; another boot has another.
    pub fn boot_id(&self) -> Result<String> {
        Ok(self.run("cat /proc/sys/kernel/random/boot_id")?.trim().to_owned())
    }

    /// Wait until ssh answers, in another boot than `before`.
    pub fn wait_boot(&mut self, before: Option<&str>, timeout: Duration) -> Result<String> {
        let what = format!("ssh to node{}", self.n);
        let ssh = self.ssh.clone();
        let waited = self.vm.wait(&what, timeout, |_| {
            let id = ssh.run("cat /proc/sys/kernel/random/boot_id")?.trim().to_owned();
            ensure!(Some(id.as_str()) != before, "not restarted yet");
            Ok(id)
        });
        self.explained(waited)
    }

    /// Wait until this version is the one to stay: its kernel has no boot counter any more.
    pub fn wait_blessed(&mut self, version: &str, timeout: Duration) -> Result<()> {
        let wanted = format!("dunlin_{version}.efi");
        let waited = wait_for(&format!("{wanted} on the ESP"), timeout, || {
            let kernels = self.kernels()?;
            ensure!(kernels.contains(&wanted), "there are {kernels:?}");
            Ok(())
        });
        self.explained(waited)
    }

    /// Wait until the node runs as it should: a version on trial is kept from then on.
    pub(super) fn wait_healthy(&self, timeout: Duration) -> Result<()> {
        let healthy = wait_for("boot-complete.target", timeout, || {
            self.run("systemctl is-active dunlin.service boot-complete.target")
        });
        self.explained(healthy).map(drop)
    }

    /// Its data card is bound to `kernel`'s driver, driven by `dpdk`'s, and has a link.
    pub(super) fn drives(&self, kernel: &str, dpdk: &str) -> Result<()> {
        let card = Self::data_card();
        let link = self.run(&format!("readlink /sys/bus/pci/devices/{card}/driver"))?;
        let driver = link.trim().rsplit('/').next().unwrap_or_default();
        ensure!(driver == kernel, "{card} is bound to {driver}, not {kernel}");
        let ports = self.ask("ports")?;
        let port = ports.get(0).context("no port")?;
        ensure!(port["driver"] == dpdk, "the port is not driven by {dpdk}: {port}");
        ensure!(port["link_up"] == true, "the port has no link: {port}");
        let control = port["control"].to_string();
        ensure!(control.contains("vhost"), "the control interface is not vhost-net's: {port}");
        Ok(())
    }

    /// `dunlin upgrade`, from the administrator's server, by http or https. Returns when the machine
    /// goes down for its restart, or an error if it refuses.
    pub fn upgrade(&self, scheme: &str, bundle: &super::Bundle) -> Result<()> {
        let out = self.ssh.output(&format!("dunlin upgrade {}", Site::url(scheme, bundle)))?;
        let text = String::from_utf8_lossy(&out.stdout);
        let error = String::from_utf8_lossy(&out.stderr);
        match out.status.code() {
            // 255: the machine took the connection with it.
            Some(0 | 255) => Ok(()),
            _ => bail!("dunlin upgrade: {}\n{text}{}", out.status, error.trim()),
        }
    }

    /// The way to it, for a thread of one's own.
    pub(super) fn ssh(&self) -> Ssh {
        self.ssh.clone()
    }

    /// A failure, with what the machine itself has to say about it.
    pub fn explained<T>(&self, result: Result<T>) -> Result<T> {
        result.map_err(|error| {
            let units = "systemctl --failed --no-legend; journalctl -b --no-pager -n 60";
            let journal = match self.run(units) {
                Ok(text) => format!("its journal ended with:\n{text}--"),
                Err(e) => format!("no journal: {e:#}"),
            };
            error.context(format!("{}\nnode{}: {journal}", self.vm.last_words(), self.n))
        })
    }
}

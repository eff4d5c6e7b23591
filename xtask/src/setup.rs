//! The Debian packages the project needs, and installing those that are missing.
//!
//! Nothing is taken for granted but git, gcc and a Rust toolchain. Daemons that come along (FRR,
//! nginx, BIRD) are not started on the host, now or at the next boot: the lab runs its own
//! instances in network namespaces.

use crate::debian;
use anyhow::{Context, Result, bail};
use nix::unistd::geteuid;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

/// What the packages are wanted for. Each purpose includes those before it, [`Purpose::Bench`] and
/// [`Purpose::Image`] only the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    Build,
    Demo,
    Test,
    Bench,
    /// Building the appliance image and the Debian package, and booting the image under QEMU.
    Image,
    Everything,
}

struct Package {
    name: &'static str,
    purpose: Purpose,
    why: &'static str,
}

const fn package(name: &'static str, purpose: Purpose, why: &'static str) -> Package {
    Package { name, purpose, why }
}

const PACKAGES: &[Package] = &[
    package("libdpdk-dev", Purpose::Build, "DPDK: the packet path's ports"),
    package("libclang-dev", Purpose::Build, "reads DPDK's headers for the bindings"),
    package("pkg-config", Purpose::Build, "finds DPDK"),
    package("iproute2", Purpose::Demo, "network namespaces, links, routes"),
    package("nftables", Purpose::Demo, "keeps the kernel off a node's network card"),
    package("ethtool", Purpose::Demo, "turns off offloads of virtual cables"),
    package("frr", Purpose::Demo, "the router: zebra, bgpd, bfdd"),
    package("nginx", Purpose::Demo, "the backends"),
    package("curl", Purpose::Demo, "for playing with a lab that stays up"),
    package("bird2", Purpose::Test, "a second router to interoperate with"),
    package("iputils-ping", Purpose::Test, "pings the VIPs"),
    package("procps", Purpose::Test, "sysctl, in the namespaces of tests"),
    package(
        "dpdk-dev",
        Purpose::Bench,
        "dpdk-testpmd: opens devices as we do, and is the measure of forwarding",
    ),
    package("valgrind", Purpose::Bench, "counts instructions"),
    // What builds the image itself (squashfs, verity, EFI, ISO) runs inside a root of the image's own
    // release, so that hosts cannot differ: see xtask/src/image.
    package(
        "mmdebstrap",
        Purpose::Image,
        "makes the image's Debian root, and the one it builds in",
    ),
    package("openssl", Purpose::Image, "makes signing keys"),
    package("qemu-system-x86", Purpose::Image, "boots the image"),
    package("qemu-utils", Purpose::Image, "overlays of the image, one per virtual machine"),
    package("seabios", Purpose::Image, "firmware: BIOS machines"),
    package("ipxe-qemu", Purpose::Image, "option ROMs, without which QEMU refuses some NICs"),
    package("ovmf", Purpose::Image, "firmware: UEFI machines, with and without Secure Boot"),
    package("cpio", Purpose::Image, "RAM disks of small guests"),
    package("busybox-static", Purpose::Image, "what runs in small guests"),
    package("xz-utils", Purpose::Image, "unpacks the modules of small guests"),
    package("kmod", Purpose::Image, "which modules a guest's module needs"),
    package("fdisk", Purpose::Image, "finds the partitions of the image"),
    package("openssh-client", Purpose::Image, "asks the machines"),
    package(
        "python3-virt-firmware",
        Purpose::Image,
        "enrols Secure Boot keys for virtual machines",
    ),
    package("mtools", Purpose::Image, "config drives: FAT"),
    package("dosfstools", Purpose::Image, "config drives: FAT"),
    package("xorriso", Purpose::Image, "config drives: ISO9660"),
];

/// Those that a machine with Debian 12 takes from its backports: the release's own QEMU 7.2 has no
/// igb, the one emulated NIC beside virtio with RSS, and the release has no virt-firmware.
const BACKPORTS: &[&str] =
    &["qemu-system-x86", "qemu-utils", "seabios", "ipxe-qemu", "python3-virt-firmware"];

/// Services that Debian would start and enable with those packages.
const SERVICES: &[&str] = &["frr", "nginx", "bird", "bird6"];

/// Install what is missing for a purpose, saying what and why. Does nothing when all is there.
pub fn install(purpose: Purpose) -> Result<()> {
    let missing: Vec<&Package> = missing(purpose)?;
    if missing.is_empty() {
        return Ok(());
    }
    println!("Debian packages to install:");
    for package in &missing {
        println!("  {:<22}{}", package.name, package.why);
    }
    let names: Vec<&str> = missing.iter().map(|p| p.name).collect();
    if !geteuid().is_root() {
        bail!("not root; run: sudo apt-get install {}", names.join(" "));
    }
    let before = enabled_services();
    let guard = NoAutostart::new()?;
    apt(&["update", "--quiet"])?;
    let install = ["install", "--quiet", "--yes", "--no-install-recommends"];
    let (backports, own): (Vec<&str>, Vec<&str>) = names.iter().partition(|name| {
        BACKPORTS.contains(name) && debian::host().is_ok_and(|h| h == "bookworm")
    });
    if !backports.is_empty() {
        add_backports()?;
        apt(&[&install[..], &["--target-release", BACKPORTS_SUITE], &backports].concat())?;
    }
    if !own.is_empty() {
        apt(&[&install[..], &own].concat())?;
    }
    drop(guard);
    disable_new_services(&before);
    let still: Vec<&str> = self::missing(purpose)?.iter().map(|p| p.name).collect();
    if !still.is_empty() {
        bail!("apt-get did not install {}", still.join(" "));
    }
    Ok(())
}

/// Fails, with what to do, unless root: for what lives in network namespaces.
pub fn require_root(what: &str) -> Result<()> {
    require_root_because(what, "makes network namespaces and opens raw sockets")
}

/// Fails, with what to do, unless root.
pub fn require_root_because(what: &str, why: &str) -> Result<()> {
    if geteuid().is_root() {
        return Ok(());
    }
    bail!("{what} needs root: it {why}; run it as root, or with sudo -E env \"PATH=$PATH\"");
}

fn missing(purpose: Purpose) -> Result<Vec<&'static Package>> {
    let output = Command::new("dpkg-query")
        .args(["--show", "--showformat", "${db:Status-Abbrev}\t${Package}\n"])
        .stderr(Stdio::null())
        .output()
        .context("no dpkg-query: this needs Debian 12 or 13 (or a relative)")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let installed: BTreeSet<&str> =
        text.lines().filter_map(|line| line.strip_prefix("ii ")?.split('\t').nth(1)).collect();
    let wanted = PACKAGES.iter().filter(|p| purpose.includes(p.purpose));
    Ok(wanted.filter(|p| !installed.contains(p.name)).collect())
}

impl Purpose {
    fn includes(self, other: Self) -> bool {
        match self {
            Self::Build => other == Self::Build,
            Self::Demo => matches!(other, Self::Build | Self::Demo),
            Self::Test => matches!(other, Self::Build | Self::Demo | Self::Test),
            Self::Bench => matches!(other, Self::Build | Self::Bench),
            Self::Image => matches!(other, Self::Build | Self::Image),
            Self::Everything => true,
        }
    }
}

const BACKPORTS_SUITE: &str = "bookworm-backports";
const BACKPORTS_FILE: &str = "/etc/apt/sources.list.d/dunlin-backports.sources";

/// Debian 12's backports, from the mirror that the machine uses already. apt installs nothing from
/// there by itself.
fn add_backports() -> Result<()> {
    if debian::indices()?.iter().any(|index| index.codename == BACKPORTS_SUITE) {
        return Ok(());
    }
    let mirror = debian::mirror()?;
    println!("adding {BACKPORTS_SUITE} to the machine's apt sources: {BACKPORTS_FILE}");
    let source = format!(
        "Types: deb\nURIs: {}\nSuites: {BACKPORTS_SUITE}\nComponents: main\nSigned-By: {}\n",
        mirror.main,
        debian::KEYRING
    );
    fs::write(BACKPORTS_FILE, source).with_context(|| format!("cannot write {BACKPORTS_FILE}"))?;
    apt(&["update", "--quiet"])
}

fn apt(args: &[&str]) -> Result<()> {
    let mut apt = Command::new("apt-get");
    apt.args(args);
    apt.env("DEBIAN_FRONTEND", "noninteractive");
    apt.stdin(Stdio::null());
    crate::cargo::status(&mut apt)
}

const POLICY: &str = "/usr/sbin/policy-rc.d";
const SAVED: &str = "/usr/sbin/policy-rc.d.dunlin-saved";
const MARK: &str = "# put here by cargo xtask setup";

/// While it lives, installing a package starts no service: Debian asks `policy-rc.d` (see
/// invoke-rc.d(8)) and 101 means no.
struct NoAutostart;

impl NoAutostart {
    fn new() -> Result<Self> {
        // What an interrupted run left is put right first.
        restore()?;
        if Path::new(POLICY).exists() {
            fs::rename(POLICY, SAVED).context("cannot set policy-rc.d aside")?;
        }
        let guard = Self;
        fs::write(POLICY, format!("#!/bin/sh\n{MARK}\nexit 101\n"))?;
        fs::set_permissions(POLICY, fs::Permissions::from_mode(0o755))?;
        Ok(guard)
    }
}

impl Drop for NoAutostart {
    fn drop(&mut self) {
        if let Err(e) = restore() {
            eprintln!("warning: {POLICY} is not as it was: {e:#}");
        }
    }
}

fn restore() -> Result<()> {
    if fs::read_to_string(POLICY).is_ok_and(|text| text.contains(MARK)) {
        fs::remove_file(POLICY).with_context(|| format!("cannot remove {POLICY}"))?;
    }
    if Path::new(SAVED).exists() && !Path::new(POLICY).exists() {
        fs::rename(SAVED, POLICY).with_context(|| format!("cannot restore {POLICY}"))?;
    }
    Ok(())
}

/// Those of [`SERVICES`] that start at boot already. Empty where systemd does not run.
fn enabled_services() -> BTreeSet<&'static str> {
    let enabled = |service: &&&str| {
        let mut systemctl = Command::new("systemctl");
        systemctl.args(["is-enabled", "--quiet", service]);
        systemctl.stderr(Stdio::null()).status().is_ok_and(|s| s.success())
    };
    SERVICES.iter().filter(enabled).copied().collect()
}

fn disable_new_services(before: &BTreeSet<&str>) {
    for service in enabled_services().difference(before) {
        let mut systemctl = Command::new("systemctl");
        systemctl.args(["disable", "--quiet", service]);
        match systemctl.status() {
            Ok(status) if status.success() => {
                println!("{service} will not start at boot: the lab runs its own");
            }
            _ => eprintln!("warning: cannot disable {service}; it starts at the next boot"),
        }
    }
}

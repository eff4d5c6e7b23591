//! Small guests: a Debian kernel with a RAM disk that holds one program and what it needs.
//!
//! For what needs another kernel or another machine than the host: network cards under DPDK,
//! protocols newer than the host's kernel. The kernel comes from its Debian package, which is
//! unpacked, not installed; the program and its libraries come from the host.

use super::Kernel;
use crate::netns::run;
use anyhow::{Context, Result, bail, ensure};
use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The package that stands for the current kernel.
const META: &str = "linux-image-amd64";
/// What is unpacked of a kernel package.
const WANTED: &[&str] = &[
    "./boot/vmlinuz-*",
    "*/drivers/uio/*",
    "*/drivers/vfio/*",
    "*/drivers/vhost/*",
    "*/drivers/net/tun.ko*",
    "*/drivers/iommu/*",
    "*/virt/lib/irqbypass.ko*",
];
/// Says on the console how the guest's program ended.
pub const ENDED: &str = "guest: the program ended with ";

/// An unpacked kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelPackage {
    /// `6.12.95+deb13-amd64`.
    pub release: String,
    pub image: PathBuf,
    dir: PathBuf,
}

impl KernelPackage {
    /// The newest kernel that the machine's package sources offer, below `cache`, where it stays.
    pub fn fetch(cache: &Path) -> Result<Self> {
        let package = newest()?;
        let release = package.trim_start_matches("linux-image-").to_owned();
        let dir = cache.join(&package);
        if !dir.exists() {
            unpack(&package, cache, &dir)?;
        }
        let image = dir.join(format!("boot/vmlinuz-{release}"));
        ensure!(image.is_file(), "{} has no {}", package, image.display());
        Ok(Self { release, image, dir })
    }

    /// The file of a module, `uio_pci_generic`.
    fn module(&self, name: &str) -> Result<PathBuf> {
        let mut found = Vec::new();
        find(&self.dir, &mut |path| {
            let file = path.file_name().and_then(|f| f.to_str()).unwrap_or_default();
            let stem = file.split(".ko").next().unwrap_or_default();
            if file.contains(".ko") && stem.replace('-', "_") == name {
                found.push(path.to_owned());
            }
        })?;
        found.pop().with_context(|| format!("no module {name} in {}", self.release))
    }
}

/// The package that the metapackage depends on, in its newest version.
fn newest() -> Result<String> {
    let offered = run(Command::new("apt-cache").args(["madison", META]))?;
    let version = offered.lines().next().and_then(|line| line.split('|').nth(1));
    let version = version.with_context(|| format!("no package source offers {META}"))?.trim();
    let shown = run(Command::new("apt-cache").args(["show", &format!("{META}={version}")]))?;
    let depends = shown.lines().find_map(|line| line.strip_prefix("Depends: "));
    let package = depends.and_then(|d| d.split_whitespace().next());
    Ok(package.with_context(|| format!("{META}={version} depends on nothing"))?.to_owned())
}

fn unpack(package: &str, cache: &Path, dir: &Path) -> Result<()> {
    let fresh = cache.join(format!("{package}.new"));
    if fresh.exists() {
        fs::remove_dir_all(&fresh)?;
    }
    fs::create_dir_all(&fresh)?;
    run(Command::new("apt-get").args(["download", "-qq", package]).current_dir(&fresh))?;
    let script = "dpkg-deb --fsys-tarfile *.deb | tar -x --wildcards \"$@\" 2>tar.log || true\n\
                  rm *.deb";
    let mut sh = Command::new("sh");
    sh.args(["-ec", script, "unpack"]).args(WANTED).current_dir(&fresh);
    run(&mut sh)?;
    fs::rename(&fresh, dir).with_context(|| format!("cannot make {}", dir.display()))
}

/// A RAM disk in the making.
#[derive(Debug)]
pub struct Initrd {
    stage: PathBuf,
    modules: Vec<String>,
}

impl Initrd {
    /// One with busybox, and nothing else. Files are gathered in `stage`, which must not exist.
    pub fn new(stage: &Path) -> Result<Self> {
        for dir in ["bin", "lib/modules", "proc", "sys", "dev", "tmp", "run", "etc", "var"] {
            fs::create_dir_all(stage.join(dir))?;
        }
        let initrd = Self { stage: stage.to_owned(), modules: Vec::new() };
        initrd.file(Path::new("/bin/busybox"), "bin/busybox").context("package busybox-static")?;
        symlink("busybox", stage.join("bin/sh"))?;
        symlink("/run", stage.join("var/run"))?;
        Ok(initrd)
    }

    /// Copy a file of the host.
    pub fn file(&self, from: &Path, to: &str) -> Result<()> {
        let to = self.stage.join(to.trim_start_matches('/'));
        if let Some(parent) = to.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::copy(from, &to).with_context(|| format!("cannot copy {}", from.display()))?;
        Ok(())
    }

    /// Write a text file.
    pub fn text(&self, to: &str, text: &str) -> Result<()> {
        let to = self.stage.join(to.trim_start_matches('/'));
        if let Some(parent) = to.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(to, text)?;
        Ok(())
    }

    /// A program, as `/bin/NAME`, with the libraries it is linked to.
    pub fn program(&self, from: &Path, name: &str) -> Result<()> {
        self.file(from, &format!("bin/{name}"))?;
        self.libraries_of(from)
    }

    /// DPDK drivers (`net_virtio`), where DPDK looks for them, and no others: the host's plugin
    /// directory holds all that are packaged.
    pub fn dpdk_drivers(&self, drivers: &[&str]) -> Result<()> {
        let dir = plugin_dir()?;
        for driver in drivers {
            let prefix = format!("librte_{driver}.so.");
            let mut names: Vec<PathBuf> = Vec::new();
            find(&dir, &mut |path| {
                let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
                // The name with the ABI version is what other libraries ask for.
                if name.starts_with(&prefix) {
                    names.push(path.to_owned());
                }
            })?;
            ensure!(!names.is_empty(), "no DPDK driver {driver} in {}", dir.display());
            for path in names {
                self.same(&path)?;
                self.libraries_of(&path)?;
            }
        }
        Ok(())
    }

    /// A module and those it needs, loaded at start in the right order.
    pub fn module(&mut self, kernel: &KernelPackage, name: &str) -> Result<()> {
        if self.modules.iter().any(|m| m == name) {
            return Ok(());
        }
        let path = kernel.module(name)?;
        let needs = run(Command::new("modinfo").args(["-F", "depends"]).arg(&path))?;
        for need in needs.trim().split(',').filter(|n| !n.is_empty()) {
            self.module(kernel, &need.replace('-', "_"))?;
        }
        let to = format!("lib/modules/{name}.ko");
        match path.extension().and_then(|e| e.to_str()) {
            Some("ko") => self.file(&path, &to)?,
            Some(packed @ ("xz" | "zst")) => {
                let tool = if packed == "xz" { "xz" } else { "zstd" };
                let out = Command::new(tool).args(["-dc"]).arg(&path).output();
                let out = out.with_context(|| format!("cannot start {tool}"))?;
                ensure!(out.status.success(), "{tool} cannot unpack {}", path.display());
                fs::write(self.stage.join(to), out.stdout)?;
            }
            _ => bail!("what is {}?", path.display()),
        }
        self.modules.push(name.to_owned());
        Ok(())
    }

    /// Pack it. The guest loads the modules, runs `script` (a shell script; `/bin/busybox` has the
    /// usual tools), says how it ended (see [`ENDED`]) and switches the machine off.
    pub fn pack(&self, script: &str, file: &Path) -> Result<()> {
        let mut init = String::from(
            "#!/bin/busybox sh\n\
             /bin/busybox --install -s /bin\n\
             export PATH=/bin LD_LIBRARY_PATH=/lib64\n\
             mount -t proc proc /proc\n\
             mount -t sysfs sys /sys\n\
             mount -t devtmpfs dev /dev\n\
             mount -t tmpfs tmp /tmp\n\
             mount -t tmpfs run /run\n\
             mkdir -p /dev/hugepages && mount -t hugetlbfs huge /dev/hugepages\n\
             ip link set lo up\n",
        );
        for module in &self.modules {
            let _ = writeln!(init, "insmod /lib/modules/{module}.ko");
        }
        let _ = write!(
            init,
            "sh /etc/script\necho \"{ENDED}$?\"\n\
             # All of it must be out before the machine is off.\nsync\npoweroff -f\n"
        );
        self.text("etc/script", script)?;
        self.text("init", &init)?;
        fs::set_permissions(self.stage.join("init"), fs::Permissions::from_mode(0o755))?;
        let mut sh = Command::new("sh");
        sh.args(["-ec", "find . | cpio --quiet -o -H newc >\"$0\""]).arg(file);
        run(sh.current_dir(&self.stage))?;
        Ok(())
    }

    /// A file of the host at its own path. Links stay links: DPDK reaches a driver by several
    /// names and must find that they are one library.
    fn same(&self, path: &Path) -> Result<()> {
        let staged = |path: &Path| self.stage.join(path.strip_prefix("/").unwrap_or(path));
        let real = path.canonicalize().with_context(|| format!("no {}", path.display()))?;
        if !staged(&real).exists() {
            self.file(&real, &real.to_string_lossy())?;
        }
        let link = staged(path);
        if real != path && !link.is_symlink() {
            if let Some(parent) = link.parent() {
                fs::create_dir_all(parent)?;
            }
            symlink(&real, link)?;
        }
        Ok(())
    }

    fn libraries_of(&self, program: &Path) -> Result<()> {
        let listed = run(Command::new("ldd").arg(program))?;
        for path in libraries(&listed) {
            self.same(path)?;
        }
        Ok(())
    }
}

/// The kernel with this RAM disk; `more` is added to the command line.
pub fn kernel(package: &KernelPackage, initrd: &Path, more: &str) -> Kernel {
    Kernel {
        image: package.image.clone(),
        initrd: initrd.to_owned(),
        // The kernel's look at the timer needs it to tick in time, which a busy host does not grant.
        command_line: format!("console=ttyS0 quiet panic=-1 no_timer_check {more}"),
    }
}

/// A script that gives every network card to `uio_pci_generic`, for DPDK.
pub fn bind_network_cards() -> &'static str {
    "for device in /sys/bus/pci/devices/*; do\n\
     case $(cat $device/class) in 0x0200*) ;; *) continue ;; esac\n\
     echo uio_pci_generic >$device/driver_override\n\
     [ -e $device/driver ] && echo ${device##*/} >$device/driver/unbind\n\
     echo ${device##*/} >/sys/bus/pci/drivers_probe\n\
     done\n"
}

/// Paths in what `ldd` prints.
fn libraries(listed: &str) -> BTreeSet<&Path> {
    let paths = listed.lines().filter_map(|line| {
        let line = line.trim();
        let path = line.split_once(" => ").map_or(line, |(_, path)| path);
        path.starts_with('/').then(|| path.split_whitespace().next()).flatten()
    });
    paths.map(Path::new).collect()
}

/// Where this host's DPDK looks for drivers.
fn plugin_dir() -> Result<PathBuf> {
    let libdir = run(Command::new("pkg-config").args(["--variable=libdir", "libdpdk"]))?;
    let dpdk = Path::new(libdir.trim()).join("dpdk");
    let entries = fs::read_dir(&dpdk).with_context(|| format!("cannot read {}", dpdk.display()))?;
    let mut dirs = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let found =
        dirs.find(|d| d.file_name().is_some_and(|n| n.to_string_lossy().starts_with("pmds-")));
    found.with_context(|| format!("no DPDK drivers in {}", dpdk.display()))
}

/// Every file below a directory.
fn find(dir: &Path, seen: &mut impl FnMut(&Path)) -> Result<()> {
    for entry in fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            find(&entry.path(), seen)?;
        } else {
            seen(&entry.path());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ldd_prints() {
        let listed = "\tlinux-vdso.so.1 (0x00007ffc)\n\
                      \tlibrte_eal.so.23 => /usr/lib/x86_64-linux-gnu/librte_eal.so.23 (0x00007f)\n\
                      \tlibmissing.so => not found\n\
                      \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        let found: Vec<_> = libraries(listed).into_iter().collect();
        let wanted = ["/lib64/ld-linux-x86-64.so.2", "/usr/lib/x86_64-linux-gnu/librte_eal.so.23"];
        assert_eq!(found, wanted.map(Path::new));
    }
}

//! What runs the guest's instructions: the processor itself, or QEMU's translator.
//!
//! `/dev/kvm` alone proves nothing: there are hosts where it opens and no kernel boots. So KVM is
//! taken only where a kernel was seen to boot under it.

use super::guest::KernelPackage;
use super::{Kernel, Machine, Vm};
use crate::lab::Lab;
use anyhow::{Context, Result, bail};
use std::fs::File;
use std::path::Path;
use std::time::Duration;

/// Set in the environment to `on` or `off`: use KVM, or do not, without trying.
pub const KVM: &str = "DUNLIN_VM_KVM";

/// Who runs the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accel {
    Kvm,
    /// Emulation, a thread per CPU of the guest.
    Tcg,
}

impl Accel {
    /// KVM where it works. `cache` keeps the kernel that it is tried with.
    pub fn detect(cache: &Path) -> Result<Self> {
        match std::env::var(KVM).ok().as_deref() {
            Some("on") => return Ok(Self::Kvm),
            Some("off") => return Ok(Self::Tcg),
            Some(other) => bail!("{KVM}={other}: it is on or off"),
            None => {}
        }
        if File::options().read(true).write(true).open("/dev/kvm").is_err() {
            return Ok(Self::Tcg);
        }
        let kernel = KernelPackage::fetch(cache)?;
        Ok(if boots_under_kvm(&kernel)? { Self::Kvm } else { Self::Tcg })
    }

    /// How it is called where people read it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kvm => "KVM",
            Self::Tcg => "software emulation",
        }
    }

    pub(super) fn arguments(self, add: &mut impl FnMut(&str, String)) {
        match self {
            Self::Kvm => {
                add("-accel", "kvm".into());
                add("-cpu", "host".into());
            }
            // Named models are emulated feature by feature, far slower than `max`.
            Self::Tcg => {
                add("-accel", "tcg,thread=multi".into());
                add("-cpu", "max".into());
            }
        }
    }
}

/// A kernel without a root file system boots, says so and panics; `-no-reboot` then ends QEMU.
fn boots_under_kvm(kernel: &KernelPackage) -> Result<bool> {
    let ns = Lab::new()?.netns("kvm")?;
    let empty = ns.dir()?.join("empty");
    std::fs::write(&empty, "").context("cannot write an empty initrd")?;
    let mut machine = Machine::new("kvm", Accel::Kvm);
    machine.cpus = 1;
    machine.kernel = Some(Kernel {
        image: kernel.image.clone(),
        initrd: empty,
        command_line: "console=ttyS0 panic=-1".into(),
    });
    machine.extra.push("-no-reboot".into());
    // A QEMU that cannot even open KVM ends with an error: that is an answer too.
    let Ok(mut vm) = Vm::start(&ns, machine) else {
        return Ok(false);
    };
    let booted = vm.wait_console(super::Mark::START, &["Kernel panic"], Duration::from_secs(15));
    Ok(booted.is_ok())
}

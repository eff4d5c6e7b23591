//! The control interface of a port: what kind, as which DPDK device, and the kernel's side of it.
//!
//! In: a [`Spec`]. Out: the device string that the main package opens ([`plan`]), then, once DPDK
//! has made the kernel interface, its set-up ([`Configurator`]). Knows no DPDK.
//!
//! The interface lives and dies with the process: it is never made persistent. A dead node's
//! interface would go on answering ARP for a port that forwards nothing.
//! docs/decisions/0003-control-interface.md has the reasons for every choice.

mod configure;
mod sysctl;

pub use configure::Configurator;

use crate::error::Error;
use std::fmt;
use std::fs::OpenOptions;
use std::io;
use std::path::Path;

/// Least MTU: IPv6 needs it on every link (RFC 8200 §5).
pub const LEAST_MTU: u16 = 1280;

/// What the control interface is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// virtio-user over `/dev/vhost-net`: a kernel thread moves the packets.
    VhostNet,
    /// The TAP driver: a system call per packet. Control traffic only, so fast enough.
    Tap,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::VhostNet => "vhost-net",
            Self::Tap => "tap",
        })
    }
}

/// What the configuration asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Requested {
    /// vhost-net where it opens, else TAP.
    Auto,
    VhostNet,
    Tap,
}

/// The control interface of one port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    /// Of the port, dense from 0; makes the DPDK device's name unique.
    pub index: u16,
    /// Of the kernel interface, at most 15 bytes.
    pub name: String,
    /// The NIC's, so that what the kernel answers to ARP and ND is right.
    pub mac: [u8; 6],
    /// Largest IP packet, bytes.
    pub mtu: u16,
    pub requested: Requested,
}

/// The decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    pub kind: Kind,
    /// Why this kind, for the log.
    pub why: String,
    /// DPDK device: name and arguments, as `--vdev` or `rte_eal_hotplug_add` take them.
    pub vdev: String,
}

/// Decide on the kind by trying what the kernel has, and make the device string. Errors: a field
/// of `spec` is invalid, or the requested kind (with `Auto`, any) cannot be had.
pub fn plan(spec: &Spec) -> Result<Plan, Error> {
    plan_with(spec, Path::new("/dev/vhost-net"), Path::new("/dev/net/tun"))
}

fn plan_with(spec: &Spec, vhost_net: &Path, tun: &Path) -> Result<Plan, Error> {
    validate(spec)?;
    // Both kinds end in a TAP interface.
    probe(tun).map_err(|source| Error::Device { path: tun.to_owned(), source })?;
    let (kind, why) = match spec.requested {
        Requested::Tap => (Kind::Tap, "configured".to_owned()),
        Requested::VhostNet => {
            probe(vhost_net)
                .map_err(|source| Error::Device { path: vhost_net.to_owned(), source })?;
            (Kind::VhostNet, "configured".to_owned())
        }
        Requested::Auto => match probe(vhost_net) {
            Ok(()) => (Kind::VhostNet, format!("{} opens", vhost_net.display())),
            Err(error) => (Kind::Tap, format!("{} does not open: {error}", vhost_net.display())),
        },
    };
    Ok(Plan { kind, why, vdev: vdev(kind, spec) })
}

fn probe(device: &Path) -> io::Result<()> {
    OpenOptions::new().read(true).write(true).open(device).map(|_| ())
}

fn vdev(kind: Kind, spec: &Spec) -> String {
    let (index, name, mac) = (spec.index, &spec.name, MacText(spec.mac));
    match kind {
        Kind::VhostNet => format!(
            "virtio_user{index},path=/dev/vhost-net,queues=1,queue_size=1024,iface={name},mac={mac}"
        ),
        Kind::Tap => format!("net_tap{index},iface={name},mac={mac}"),
    }
}

fn validate(spec: &Spec) -> Result<(), Error> {
    validate_name(&spec.name)?;
    validate_mac(spec.mac)?;
    validate_mtu(spec.mtu)
}

/// The kernel allows more, but not '/' or white space; ',' and '=' would end up in the device
/// string, '%' makes the kernel choose a number, and the last two are taken in /proc/sys/net.
fn validate_name(name: &str) -> Result<(), Error> {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let right = (1..=15).contains(&name.len())
        && name.bytes().all(good)
        && ![".", "..", "all", "default"].contains(&name);
    if right { Ok(()) } else { Err(Error::InvalidName(name.to_owned())) }
}

fn validate_mac(mac: [u8; 6]) -> Result<(), Error> {
    // The group bit: multicast and broadcast.
    if mac == [0; 6] || mac[0] & 1 != 0 {
        return Err(Error::InvalidMac(MacText(mac).to_string()));
    }
    Ok(())
}

fn validate_mtu(mtu: u16) -> Result<(), Error> {
    if mtu < LEAST_MTU { Err(Error::InvalidMtu(mtu)) } else { Ok(()) }
}

struct MacText([u8; 6]);

impl fmt::Display for MacText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.0.map(|byte| format!("{byte:02x}"));
        f.write_str(&bytes.join(":"))
    }
}

#[cfg(test)]
mod tests;

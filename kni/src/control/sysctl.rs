//! The kernel's per-interface settings of a control interface, with the reason for each.
//!
//! `/proc/sys/net` shows the network namespace of the thread that opens it.

use crate::error::Error;
use std::io::ErrorKind;
use std::path::PathBuf;

/// Below `/proc/sys/net/FAMILY/conf/INTERFACE`. The kernel combines some with the value of `all`,
/// as noted; these were chosen so that `all` cannot spoil them.
const SETTINGS: &[(&str, &str, &str)] = &[
    // Loose. Replies may come in by another port than the route back takes (ECMP). The kernel uses
    // the greater of this and `all`, so 0 would give way to a strict 1 there; 2 does not.
    ("ipv4", "rp_filter", "2"),
    // Answer ARP only for addresses of this interface, not for a VIP or LIP on `lo` or another port.
    ("ipv4", "arp_ignore", "1"),
    // Ask with an address of this interface's subnet, never with a VIP.
    ("ipv4", "arp_announce", "2"),
    // Tell the neighbours when the interface comes up or its MAC changes: a restarted node.
    ("ipv4", "arp_notify", "1"),
    // Removing the first address of a subnet must not remove the others.
    ("ipv4", "promote_secondaries", "1"),
    // A port without carrier takes no packets: use the next best route. The mirror does the same.
    ("ipv4", "ignore_routes_with_linkdown", "1"),
    ("ipv4", "accept_redirects", "0"),
    ("ipv4", "send_redirects", "0"),
    ("ipv6", "disable_ipv6", "0"),
    // Else link down deletes the addresses, and the BGP sessions with them.
    ("ipv6", "keep_addr_on_down", "1"),
    // Routes and addresses come from the configuration and from BGP.
    ("ipv6", "accept_ra", "0"),
    ("ipv6", "autoconf", "0"),
    // No duplicate address detection: for its second the address cannot be bound, and where frames
    // come back to us (ECMP test loops, some switches) it fails, for good.
    ("ipv6", "accept_dad", "0"),
    ("ipv6", "dad_transmits", "0"),
    ("ipv6", "ndisc_notify", "1"),
    ("ipv6", "ignore_routes_with_linkdown", "1"),
    ("ipv6", "accept_redirects", "0"),
];

/// Write all settings. Those that this kernel does not have (no IPv6, an older one) are skipped
/// and returned.
pub(super) fn write(interface: &str) -> Result<Vec<String>, Error> {
    let mut missing = Vec::new();
    for (family, name, value) in SETTINGS {
        let path: PathBuf = ["/proc/sys/net", family, "conf", interface, name].iter().collect();
        match std::fs::write(&path, value) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {
                missing.push(format!("{family}/{name}"));
            }
            // Read-only (a container): fine if it already says so.
            Err(_) if std::fs::read_to_string(&path).is_ok_and(|now| now.trim() == *value) => {}
            Err(source) => {
                return Err(Error::Sysctl { path, value, source });
            }
        }
    }
    Ok(missing)
}

//! The network of the appliance itself: name, management NIC, who may log in.
//!
//! From `[management]` to a file for systemd-networkd, which lives in `/run` and is written at every
//! boot. A copy stays in the state: if the configuration is broken one day, the machine must still be
//! reachable for the one who mends it.

use super::host::Host;
use super::nic::mac_text;
use crate::config::model::{Config, Management, NicName};
use anyhow::{Context, Result};
use std::fmt::Write;

/// For systemd-networkd.
const UNIT: &str = "run/systemd/network/10-dunlin-management.network";
const UNIT_KEPT: &str = "var/lib/dunlin/network/10-dunlin-management.network";
const NAME_KEPT: &str = "var/lib/dunlin/hostname";
/// Keys from the config drive or a credential; those of `[management]` are added to them.
pub const KEYS_KEPT: &str = "etc/dunlin/authorized_keys";
/// What sshd reads, made anew at every boot. sshd runs only if there is a key in it.
pub const KEYS: &str = "var/lib/dunlin/ssh/authorized_keys";
/// Worse than any route of the data ports (236 and 237): management is used where nothing else leads.
const METRIC: u32 = 1024;
/// Answers from the management addresses leave by the management NIC, whatever the data ports' routes
/// say.
const TABLE: u32 = 1000;

/// Apply the configuration: hostname, network, keys.
pub fn apply(host: &Host, config: &Config) -> Result<()> {
    let name = host.root.read(NAME_KEPT).unwrap_or_else(|| config.node.name.clone());
    set_hostname(host, &name)?;
    if let Some(management) = &config.management {
        let unit = networkd(management);
        host.root.replace(UNIT_KEPT, unit.as_bytes(), 0o644)?;
        host.root.replace(UNIT, unit.as_bytes(), 0o644)?;
    }
    let of_config = config.management.as_ref().map_or(&[][..], |management| &management.ssh_keys);
    keys(host, of_config)
}

/// Without a valid configuration: what was last applied.
pub fn apply_kept(host: &Host) -> Result<()> {
    if let Some(name) = host.root.read(NAME_KEPT) {
        set_hostname(host, &name)?;
    }
    if let Some(unit) = host.root.read(UNIT_KEPT) {
        host.root.replace(UNIT, format!("{unit}\n").as_bytes(), 0o644)?;
    }
    keys(host, &[])
}

/// A name from the config drive goes before that of the node.
pub fn keep_hostname(host: &Host, name: &str) -> Result<()> {
    host.root.replace(NAME_KEPT, format!("{name}\n").as_bytes(), 0o644)
}

fn set_hostname(host: &Host, name: &str) -> Result<()> {
    let at = "proc/sys/kernel/hostname";
    if host.root.read(at).as_deref() == Some(name) {
        return Ok(());
    }
    host.root.poke(at, name).context("cannot set the host's name")
}

fn keys(host: &Host, of_config: &[String]) -> Result<()> {
    let mut all = host.root.read(KEYS_KEPT).unwrap_or_default();
    for key in of_config {
        all.push('\n');
        all.push_str(key);
    }
    let all = all.trim();
    let text = if all.is_empty() { String::new() } else { format!("{all}\n") };
    host.root.replace(KEYS, text.as_bytes(), 0o600)
}

/// The `.network` file. systemd.network(5).
fn networkd(management: &Management) -> String {
    let mut text =
        String::from("# Written by `dunlin setup` from [management]; changes are lost.\n");
    // Writing to a String cannot fail.
    let _ = match &management.interface {
        NicName::Name(name) => writeln!(text, "[Match]\nName={name}"),
        // `Type=`: VLANs on it have the same address.
        NicName::Mac(mac) => writeln!(text, "[Match]\nMACAddress={}\nType=ether", mac_text(*mac)),
    };
    let dhcp = if management.dhcp { "yes" } else { "no" };
    let _ = writeln!(text, "\n[Link]\nRequiredForOnline=no");
    let _ = writeln!(text, "\n[Network]\nDHCP={dhcp}\nIPv6AcceptRA={dhcp}\nLLDP=yes");
    for address in &management.addresses {
        let _ = writeln!(text, "Address={address}");
    }
    for server in &management.dns {
        let _ = writeln!(text, "DNS={server}");
    }
    if management.dhcp {
        // The node has its name from its configuration.
        let _ = writeln!(text, "\n[DHCPv4]\nRouteMetric={METRIC}\nUseHostname=no");
        let _ = writeln!(text, "\n[IPv6AcceptRA]\nRouteMetric={METRIC}");
    }
    for gateway in &management.gateways {
        let _ = writeln!(text, "\n[Route]\nGateway={gateway}\nMetric={METRIC}");
        let _ = writeln!(text, "\n[Route]\nGateway={gateway}\nTable={TABLE}");
        let of_family = |net: &&ipnet::IpNet| net.addr().is_ipv4() == gateway.is_ipv4();
        for address in management.addresses.iter().filter(of_family) {
            // First what is more precise than a default route, then the NIC's own default route.
            let from = address.addr();
            let _ = writeln!(
                text,
                "\n[RoutingPolicyRule]\nFrom={from}\nTable=254\nSuppressPrefixLength=0\nPriority=998"
            );
            let _ =
                writeln!(text, "\n[RoutingPolicyRule]\nFrom={from}\nTable={TABLE}\nPriority=999");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn management(table: &str) -> Management {
        let text = format!(
            "[node]\nname = \"n\"\nrouter-id = \"10.0.0.1\"\n[[port]]\nname = \"wan0\"\n\
             device = \"mac:52:54:00:00:00:02\"\n[management]\n{table}"
        );
        Config::parse(&text, "t").unwrap_or_else(|e| panic!("{e}")).management.unwrap()
    }

    #[test]
    fn dhcp_takes_what_it_is_given_but_neither_name_nor_precedence() {
        let text = networkd(&management("interface = \"mac:52:54:00:00:00:01\""));
        for line in [
            "MACAddress=52:54:00:00:00:01\nType=ether",
            "DHCP=yes",
            "[DHCPv4]\nRouteMetric=1024\nUseHostname=no",
        ] {
            assert!(text.contains(line), "{text}");
        }
        assert!(!text.contains("Address=\n") && !text.contains("[Route]"), "{text}");
    }

    #[test]
    fn answers_from_a_static_address_leave_where_the_question_came_in() {
        let text = networkd(&management(
            "interface = \"eno1\"\naddresses = [\"192.0.2.5/24\", \"2001:db8::5/64\"]\n\
             gateways = [\"192.0.2.1\"]\ndns = [\"192.0.2.53\"]",
        ));
        for line in [
            "Name=eno1",
            "DHCP=no",
            "Address=192.0.2.5/24\nAddress=2001:db8::5/64\nDNS=192.0.2.53",
            "[Route]\nGateway=192.0.2.1\nMetric=1024",
            "From=192.0.2.5\nTable=1000",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
        assert!(!text.contains("From=2001"), "no rule without a gateway of the family: {text}");
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let cases = [
            ("interface = \"wan0\"", "wan0 is a port"),
            ("interface = \"mac:52:54:00:00:00:02\"", "is the device of a port"),
            ("interface = \"e0\"\ngateways = [\"192.0.2.1\"]", "is in the network of none"),
            ("interface = \"e0\"\nssh-keys = [\"command=x ssh-rsa A\"]", "is not a public key"),
            ("dhcp = true", "\"interface\" is missing"),
        ];
        for (table, expected) in cases {
            let text = format!(
                "[node]\nname = \"n\"\nrouter-id = \"10.0.0.1\"\n[[port]]\nname = \"wan0\"\n\
                 device = \"mac:52:54:00:00:00:02\"\n[management]\n{table}"
            );
            let errors = Config::parse(&text, "t").unwrap_err().to_string();
            assert!(errors.contains(expected), "{table}: {errors}");
        }
    }
}

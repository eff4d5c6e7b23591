//! `[[port]]`, `[[route]]` and `[local]`: where the node stands in the network.

use super::model::{ControlKind, Device, Port, StaticRoute};
use super::reader::{Field, Table};
use super::{schema, value};
use crate::forward::tables::Mac;
use ipnet::IpNet;
use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

/// DPDK's `RTE_MAX_ETHPORTS` as Debian builds it.
const MAX_PORTS: usize = 32;
const MAX_ROUTES: usize = 4096;
const MAX_PORT_ADDRESSES: usize = 64;
/// Local addresses after expansion of their prefixes.
const MAX_LOCAL: u64 = 4096;
/// RFC 8200 §5.
const IPV6_MIN_MTU: u16 = 1280;

/// The node's own addresses, for the sections that must not use them, or need them.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// Who holds an address, e.g. `port "wan0"`.
    pub holders: HashMap<IpAddr, String>,
    /// There are local addresses of the family: IPv4, IPv6.
    pub local_v4: bool,
    pub local_v6: bool,
    /// `[local]` was read without a mistake, so what it lacks is really missing.
    pub local_is_sound: bool,
    /// Names of the ports.
    pub ports: HashSet<String>,
    /// Ports that are named by the MAC address of their NIC.
    pub macs: HashSet<Mac>,
    /// Networks that the ports are in, by port.
    pub networks: Vec<(String, IpNet)>,
    /// Ports whose neighbors OSPF of these versions has followed by BFD: IPv4, IPv6.
    pub followed_v4: HashSet<String>,
    pub followed_v6: HashSet<String>,
    /// OSPF areas of these versions take no external routes: IPv4, IPv6.
    pub stub_v4: bool,
    pub stub_v6: bool,
}

pub(super) fn ports(root: &Table<'_>, known: &mut Known) -> Vec<Port> {
    let before = root.report().count();
    let tables = root.tables("port", &schema::PORT, "name", MAX_PORTS);
    if tables.is_empty() && root.report().count() == before {
        root.error("no [[port]], expected at least one");
    }
    let mut names = HashSet::new();
    let mut devices = HashSet::new();
    let mut ports = Vec::new();
    for table in tables {
        let name_field = table.require("name", "a string like \"wan0\"");
        let name = name_field
            .as_ref()
            .and_then(|field| field.parse("a string like \"wan0\"", value::interface_name));
        if let (Some(field), Some(name)) = (&name_field, &name)
            && !names.insert(name.clone())
        {
            field.error("another port has this name");
        }
        let device_field = table.require("device", "a string like \"0000:03:00.0\"");
        let device = device_field
            .as_ref()
            .and_then(|field| field.parse("a string like \"0000:03:00.0\"", value::device));
        if let (Some(field), Some(device)) = (&device_field, &device)
            && !devices.insert(format!("{device:?}"))
        {
            field.error("another port has this device");
        }
        let control = table.get("control").and_then(|field| {
            field.choice(&[
                ("auto", ControlKind::Auto),
                ("vhost-net", ControlKind::VhostNet),
                ("tap", ControlKind::Tap),
            ])
        });
        let holder = format!("port {:?}", name.as_deref().unwrap_or("?"));
        let addresses = port_addresses(&table, &holder, known);
        let mac = table
            .get("mac")
            .and_then(|field| field.parse("a string like \"02:00:00:00:00:01\"", value::mac));
        let mtu = port_mtu(&table, &addresses);
        known.ports.extend(name.clone());
        if let Some(Device::Mac(mac)) = &device {
            known.macs.insert(*mac);
        }
        if let Some(name) = &name {
            known.networks.extend(addresses.iter().map(|net| (name.clone(), net.trunc())));
        }
        if let (Some(name), Some(device)) = (name, device) {
            let control = control.unwrap_or(ControlKind::Auto);
            ports.push(Port { name, device, control, addresses, mtu, mac });
        }
    }
    ports
}

fn port_addresses(table: &Table<'_>, holder: &str, known: &mut Known) -> Vec<IpNet> {
    let Some(field) = table.get("addresses") else {
        return Vec::new();
    };
    let mut addresses = Vec::new();
    for item in field.list(MAX_PORT_ADDRESSES, "[\"10.1.1.2/24\"]") {
        let net = item.parse("a string like \"10.1.1.2/24\"", value::interface_address);
        let Some(net) = net else { continue };
        if hold(&item, known, net.addr(), holder) {
            addresses.push(net);
        }
    }
    addresses
}

/// Takes an address for `holder`, or reports that it is taken.
pub(super) fn hold(item: &Field<'_>, known: &mut Known, address: IpAddr, holder: &str) -> bool {
    let other = known.holders.insert(address, holder.to_owned());
    if let Some(other) = &other {
        item.error(format!("{address} is already an address of {other}"));
    }
    other.is_none()
}

fn port_mtu(table: &Table<'_>, addresses: &[IpNet]) -> u16 {
    let Some(field) = table.get("mtu") else {
        return 1500;
    };
    let mtu = field.integer(576..=9600).unwrap_or(1500);
    if mtu < IPV6_MIN_MTU && addresses.iter().any(|net| matches!(net, IpNet::V6(_))) {
        field.error(format!("{mtu} is too small for IPv6, expected at least {IPV6_MIN_MTU}"));
    }
    mtu
}

pub(super) fn routes(root: &Table<'_>) -> Vec<StaticRoute> {
    let mut seen = HashSet::new();
    let mut routes = Vec::new();
    for table in root.tables("route", &schema::ROUTE, "to", MAX_ROUTES) {
        let example = "a prefix like \"0.0.0.0/0\"";
        let to = table.require("to", example);
        let prefix = to.as_ref().and_then(|field| field.parse(example, value::prefix));
        if let (Some(field), Some(prefix)) = (&to, prefix)
            && !seen.insert(prefix)
        {
            field.error("another route has this prefix; list all gateways in one \"via\"");
        }
        let via = gateways(&table, prefix);
        if let Some(prefix) = prefix {
            routes.push(StaticRoute { prefix, via });
        }
    }
    routes
}

fn gateways(table: &Table<'_>, prefix: Option<IpNet>) -> Vec<IpAddr> {
    let example = "[\"10.1.1.1\"]";
    let Some(field) = table.require("via", &format!("a list like {example}")) else {
        return Vec::new();
    };
    let before = table.report().count();
    let mut via = Vec::new();
    for item in field.list(64, example) {
        let Some(gateway) = item.parse("a string like \"10.1.1.1\"", value::unicast) else {
            continue;
        };
        if let Some(prefix) = prefix
            && gateway.is_ipv4() != prefix.addr().is_ipv4()
        {
            item.error(format!("{gateway} cannot be the gateway of {prefix}: other family"));
        } else if via.contains(&gateway) {
            item.error(format!("{gateway} is listed twice"));
        } else {
            via.push(gateway);
        }
    }
    if via.is_empty() && table.report().count() == before {
        field.error(format!("is empty, expected at least one gateway like {example}"));
    }
    via
}

pub(super) fn local(root: &Table<'_>, known: &mut Known) -> Vec<IpNet> {
    let table = root.section("local", &schema::LOCAL);
    let Some(field) = table.get("addresses") else {
        if !table.is_absent() {
            table.error("\"addresses\" is missing, expected a list like [\"10.9.1.0/29\"]");
        }
        return Vec::new();
    };
    let mut total = 0;
    let mut prefixes = Vec::new();
    for item in field.list(MAX_LOCAL as usize, "[\"10.9.1.0/29\", \"fd00:9:1::/125\"]") {
        let prefix = item.parse("a string like \"10.9.1.0/29\"", |text| {
            let prefix = value::prefix(text)?;
            check_local_size(prefix)?;
            value::check_unicast(prefix.addr())?;
            Ok(prefix)
        });
        let Some(prefix) = prefix else { continue };
        let before = total;
        total += size_of(prefix);
        if total > MAX_LOCAL {
            if before <= MAX_LOCAL {
                item.error(format!("brings the local addresses above {MAX_LOCAL}"));
            }
            continue;
        }
        // One message for a prefix that overlaps, not one for each of its addresses.
        let taken = addresses_of(&prefix).find(|address| known.holders.contains_key(address));
        if let Some(address) = taken {
            hold(&item, known, address, "[local]");
            continue;
        }
        known.holders.extend(addresses_of(&prefix).map(|address| (address, "[local]".to_owned())));
        match prefix {
            IpNet::V4(_) => known.local_v4 = true,
            IpNet::V6(_) => known.local_v6 = true,
        }
        prefixes.push(prefix);
    }
    prefixes
}

/// Every address of a prefix, first and last included: the prefix is routed to the node, it is
/// not a network with a broadcast address.
pub(super) fn addresses_of(prefix: &IpNet) -> impl Iterator<Item = IpAddr> + use<> {
    let (first, count) = (prefix.network(), size_of(*prefix));
    (0..count).map(move |index| match first {
        IpAddr::V4(v4) => IpAddr::V4((u32::from(v4).saturating_add(index as u32)).into()),
        IpAddr::V6(v6) => IpAddr::V6((u128::from(v6).saturating_add(u128::from(index))).into()),
    })
}

/// Addresses in a prefix, saturating.
fn size_of(prefix: IpNet) -> u64 {
    let bits = prefix.max_prefix_len() - prefix.prefix_len();
    1u64.checked_shl(u32::from(bits)).unwrap_or(u64::MAX)
}

fn check_local_size(prefix: IpNet) -> value::Parsed<()> {
    if size_of(prefix) <= MAX_LOCAL {
        return Ok(());
    }
    let longest = prefix.max_prefix_len() - MAX_LOCAL.trailing_zeros() as u8;
    Err(format!(
        "holds more than {MAX_LOCAL} addresses, and each one becomes a local address; expected a \
         length of /{longest} or longer (8 addresses, a /{}, are plenty for most nodes)",
        prefix.max_prefix_len() - 3
    ))
}

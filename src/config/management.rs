//! `[management]`: how the appliance itself is reached. The packet path knows nothing of it.

use super::model::{Management, NicName};
use super::network::Known;
use super::reader::{Field, Table};
use super::{schema, value};
use ipnet::IpNet;
use std::net::IpAddr;

const MAX_ADDRESSES: usize = 16;
const MAX_SERVERS: usize = 8;
const MAX_KEYS: usize = 64;
/// An RSA key of 16384 bits with a long comment.
const MAX_KEY: usize = 4096;

pub(super) fn management(root: &Table<'_>, known: &mut Known) -> Option<Management> {
    let table = root.table("management", &schema::MANAGEMENT)?;
    let example = "a string like \"eno1\" or \"mac:52:54:00:00:00:01\"";
    let interface_field = table.require("interface", example);
    let interface = interface_field.as_ref().and_then(|field| field.parse(example, value::nic));
    if let (Some(field), Some(NicName::Name(name))) = (&interface_field, &interface)
        && known.ports.contains(name)
    {
        field.error(format!("{name} is a port; the management NIC stays with the kernel"));
    }
    if let (Some(field), Some(NicName::Mac(mac))) = (&interface_field, &interface)
        && known.macs.contains(mac)
    {
        field.error("is the device of a port; the management NIC stays with the kernel");
    }
    let before = table.report().count();
    let addresses = addresses(&table, known);
    let gateways = list(&table, "gateways", 2, "[\"192.0.2.1\"]");
    if table.report().count() == before {
        check_gateways(&table, &addresses, &gateways);
    }
    let dhcp = table.get("dhcp").and_then(|field| field.boolean());
    let ssh_keys = table.get("ssh-keys").map_or_else(Vec::new, |field| ssh_keys(&field));
    Some(Management {
        interface: interface?,
        dhcp: dhcp.unwrap_or(addresses.is_empty()),
        addresses,
        gateways,
        dns: list(&table, "dns", MAX_SERVERS, "[\"192.0.2.53\"]"),
        ssh_keys,
    })
}

fn addresses(table: &Table<'_>, known: &mut Known) -> Vec<IpNet> {
    let Some(field) = table.get("addresses") else { return Vec::new() };
    let mut addresses = Vec::new();
    for item in field.list(MAX_ADDRESSES, "[\"192.0.2.5/24\"]") {
        let net = item.parse("a string like \"192.0.2.5/24\"", value::interface_address);
        let Some(net) = net else { continue };
        if super::network::hold(&item, known, net.addr(), "[management]") {
            addresses.push(net);
        }
    }
    addresses
}

fn list(table: &Table<'_>, key: &str, limit: usize, example: &str) -> Vec<IpAddr> {
    let Some(field) = table.get(key) else { return Vec::new() };
    let mut found = Vec::new();
    for item in field.list(limit, example) {
        let Some(address) = item.parse("a string like \"192.0.2.1\"", value::unicast) else {
            continue;
        };
        if found.contains(&address) {
            item.error(format!("{address} is listed twice"));
        } else {
            found.push(address);
        }
    }
    found
}

fn check_gateways(table: &Table<'_>, addresses: &[IpNet], gateways: &[IpAddr]) {
    let Some(field) = table.get("gateways") else { return };
    if gateways.len() == 2 && gateways[0].is_ipv4() == gateways[1].is_ipv4() {
        field.error("has two of one family, expected at most one IPv4 and one IPv6 gateway");
    }
    for gateway in gateways {
        if !addresses.iter().any(|net| net.contains(gateway)) {
            field.error(format!("{gateway} is in the network of none of \"addresses\""));
        }
    }
}

fn ssh_keys(field: &Field<'_>) -> Vec<String> {
    let example = "[\"ssh-ed25519 AAAA… you@example.org\"]";
    let items = field.list(MAX_KEYS, example);
    items.iter().filter_map(|item| item.parse("a public key", ssh_key)).collect()
}

/// A line of `authorized_keys` without options: type, base64, comment.
fn ssh_key(text: &str) -> value::Parsed<String> {
    let fault = || "is not a public key (expected like \"ssh-ed25519 AAAA… you@example.org\")";
    let mut words = text.split_ascii_whitespace();
    let (kind, key) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let known = ["ssh-", "ecdsa-sha2-", "sk-ssh-", "sk-ecdsa-"];
    let base64 = |b: u8| b.is_ascii_alphanumeric() || b"+/=".contains(&b);
    let sound = known.iter().any(|prefix| kind.starts_with(prefix))
        && key.starts_with("AAAA")
        && key.bytes().all(base64)
        && text.len() <= MAX_KEY
        && !text.chars().any(char::is_control);
    if sound { Ok(text.to_owned()) } else { Err(fault().to_owned()) }
}

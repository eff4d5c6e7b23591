//! Values as the document writes them.

use crate::config::model::{Device, Import, Management, NicName, RemoteAs};
use crate::config::value::show_duration;
use crate::forward::tables::{Mac, Timeouts};
use crate::health::{CheckSpec, Probe};
use routing::bgp::config::PrefixMatch;
use routing::bgp::wire::{Families, Family};
use routing::{OspfAttributes, OspfKind};
use std::fmt::{Debug, Display, Write};
use std::time::Duration;

pub(super) fn list<T: Display>(items: &[T]) -> String {
    let items: Vec<_> = items.iter().map(ToString::to_string).collect();
    format!("[{}]", items.join(", "))
}

pub(super) fn optional<T: Display>(value: Option<T>) -> String {
    value.map_or("none".to_owned(), |value| value.to_string())
}

pub(super) fn text(text: &String) -> String {
    format!("{text:?}")
}

/// A field-less variant the way the document spells it: `RoundRobin` is `round-robin`.
pub(super) fn word<T: Debug>(value: &T) -> String {
    let mut word = String::new();
    for c in format!("{value:?}").chars() {
        if c.is_ascii_uppercase() && !word.is_empty() {
            word.push('-');
        }
        word.push(c.to_ascii_lowercase());
    }
    word
}

pub(super) fn device(device: &Device) -> String {
    match device {
        Device::Pci(name) | Device::Vdev(name) => name.clone(),
        Device::Mac(address) => format!("mac:{}", mac(*address)),
    }
}

pub(super) fn mac(mac: Mac) -> String {
    let octets = mac.0.map(|octet| format!("{octet:02x}"));
    octets.join(":")
}

pub(super) fn management(management: &Management) -> String {
    let Management { interface, dhcp, addresses, gateways, dns, ssh_keys } = management;
    let interface = match interface {
        NicName::Name(name) => name.clone(),
        NicName::Mac(address) => format!("mac:{}", mac(*address)),
    };
    let dhcp = if *dhcp { " dhcp" } else { "" };
    format!(
        "{interface}{dhcp} {} gateways {} dns {} with {} ssh keys",
        list(addresses),
        list(gateways),
        list(dns),
        ssh_keys.len()
    )
}

pub(super) fn remote_as(remote_as: RemoteAs) -> String {
    match remote_as {
        RemoteAs::Exact(asn) => asn.to_string(),
        RemoteAs::External => "external".to_owned(),
        RemoteAs::Internal => "internal".to_owned(),
    }
}

pub(super) fn import(import: &Import) -> String {
    match import {
        Import::Nothing => "none".to_owned(),
        Import::DefaultRoute => "default".to_owned(),
        Import::Prefixes(list) => self::list(&list.iter().map(prefix_match).collect::<Vec<_>>()),
    }
}

fn prefix_match(matched: &PrefixMatch) -> String {
    let PrefixMatch { prefix, min_len, max_len } = matched;
    let own = prefix.prefix_len();
    match (*min_len == own, *max_len == own) {
        (true, true) => prefix.to_string(),
        (true, false) => format!("{prefix} le {max_len}"),
        _ => format!("{prefix} ge {min_len} le {max_len}"),
    }
}

pub(super) fn ospf(ospf: &OspfAttributes) -> String {
    let kind = match ospf.kind {
        OspfKind::Stub => "stub",
        OspfKind::External1 => "external-1",
        OspfKind::External2 => "external-2",
    };
    format!("{kind} {}", ospf.cost)
}

pub(super) fn families(families: Families) -> String {
    let names = families.iter().map(|family| match family {
        Family::Ipv4Unicast => "ipv4",
        Family::Ipv6Unicast => "ipv6",
    });
    list(&names.collect::<Vec<_>>())
}

pub(super) fn timeouts(timeouts: &Timeouts) -> String {
    let ms = |ms: u32| show_duration(Duration::from_millis(u64::from(ms)));
    format!(
        "syn {} established {} closing {} udp {}",
        ms(timeouts.syn_ms),
        ms(timeouts.established_ms),
        ms(timeouts.closing_ms),
        ms(timeouts.udp_ms)
    )
}

pub(super) fn check(check: &CheckSpec) -> String {
    let mut shown = String::new();
    // Writing to a String cannot fail.
    let _ = match &check.probe {
        Probe::Tcp => write!(shown, "tcp"),
        Probe::Http { path, host, status, body } => write!(shown, "http {path}").and_then(|()| {
            let host = host.as_ref().map_or(String::new(), |host| format!(" host {host}"));
            let body = body.as_ref().map_or(String::new(), |body| format!(" body {body:?}"));
            write!(shown, "{host} status {}{body}", list(status))
        }),
    };
    let _ = write!(
        shown,
        " every {} timeout {} rise {} fall {}",
        show_duration(check.interval),
        show_duration(check.timeout),
        check.rise,
        check.fall
    );
    if let Some(port) = check.port {
        let _ = write!(shown, " port {port}");
    }
    shown
}

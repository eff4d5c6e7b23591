//! `[[service]]` with its timeouts, check and backends.

use super::model::{Attributes, Backend, OnNoBackend, Service};
use super::network::Known;
use super::reader::{Field, Spot, Table};
use super::{announce, schema, value};
use crate::forward::tables::{Protocol, Scheduler, Timeouts};
use crate::health::{CheckSpec, Probe};
use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::time::Duration;

/// Services, counted as the packet path does: one per VIP, protocol and port.
const MAX_SERVICES: usize = 16_384;
const MAX_BACKENDS: usize = 65_536;
const MAX_WEIGHT: u64 = 1000;
const MAX_TEXT: usize = 1024;

/// What all services together must agree on.
#[derive(Debug, Default)]
struct Shared<'a> {
    names: HashSet<String>,
    endpoints: HashMap<(IpAddr, Protocol, u16), String>,
    vips: HashSet<IpAddr>,
    /// What the first service on a VIP says of it, and which service that is.
    announced: HashMap<IpAddr, (Attributes, String)>,
    backends: Vec<(IpAddr, Spot<'a>)>,
}

pub(super) fn services(root: &Table<'_>, known: &Known) -> Vec<Service> {
    let mut shared = Shared::default();
    let mut services = Vec::new();
    for table in root.tables("service", &schema::SERVICE, "name", MAX_SERVICES) {
        let service = service(&table, known, &mut shared);
        if shared.endpoints.len() > MAX_SERVICES {
            table.error(format!(
                "brings the services (VIPs × ports) above {MAX_SERVICES}, the most there may be"
            ));
            break;
        }
        if shared.backends.len() > MAX_BACKENDS {
            table.error(format!("brings the backends above {MAX_BACKENDS}, the most there may be"));
            break;
        }
        services.extend(service);
    }
    for (address, spot) in &shared.backends {
        if shared.vips.contains(address) {
            spot.error(format!("{address} is a VIP, so it cannot be a backend"));
        }
    }
    services
}

fn service<'a>(table: &Table<'a>, known: &Known, shared: &mut Shared<'a>) -> Option<Service> {
    let before = table.report().count();
    let name = service_name(table, shared);
    let protocol = table
        .require("protocol", "\"tcp\" or \"udp\"")
        .and_then(|field| field.choice(&[("tcp", Protocol::Tcp), ("udp", Protocol::Udp)]));
    let vips = vips(table, known);
    let ports = ports(table);
    let scheduler = table.get("scheduler").and_then(|field| {
        field.choice(&[("maglev", Scheduler::Maglev), ("round-robin", Scheduler::RoundRobin)])
    });
    let on_no_backend = table.get("on-no-backend").and_then(|field| {
        field.choice(&[("withdraw", OnNoBackend::Withdraw), ("keep", OnNoBackend::Keep)])
    });
    let timeouts = timeouts(&table.section("timeouts", &schema::TIMEOUTS));
    let check = table.table("check", &schema::CHECK);
    let check = check.and_then(|check| self::check(&check));
    let backends = backends(table, known, shared);
    let announce = announcement(table, known, &vips);
    let min_healthy = table.get("min-healthy");
    let minimum = min_healthy.as_ref().and_then(|field| field.integer(1..=65_536)).unwrap_or(1);
    // What follows blames the lack of things, so it is said only if all that is there was read.
    if table.report().count() == before {
        check_families(table, known, &vips, &backends, minimum);
        if let (Some(name), Some(protocol)) = (&name, protocol) {
            claim_endpoints(shared, name, &vips, protocol, &ports);
            agree_on_announcements(table, shared, name, &vips, &announce);
        }
    }
    let vips: Vec<_> = vips.into_iter().map(|(vip, _)| vip).collect();
    shared.vips.extend(&vips);
    Some(Service {
        name: name?,
        vips,
        protocol: protocol?,
        ports,
        scheduler: scheduler.unwrap_or(Scheduler::Maglev),
        timeouts,
        on_no_backend: on_no_backend.unwrap_or(OnNoBackend::Withdraw),
        min_healthy: minimum,
        check,
        announce,
        backends,
    })
}

fn service_name(table: &Table<'_>, shared: &mut Shared<'_>) -> Option<String> {
    let field = table.require("name", "a string like \"web\"")?;
    let name = field.parse("a string like \"web\"", value::name)?;
    if !shared.names.insert(name.clone()) {
        field.error("another service has this name");
    }
    Some(name)
}

fn vips<'a>(table: &Table<'a>, known: &Known) -> Vec<(IpAddr, Spot<'a>)> {
    let example = "[\"192.0.2.10\"]";
    let Some(field) = table.require("vips", &format!("a list like {example}")) else {
        return Vec::new();
    };
    let before = table.report().count();
    let mut seen = HashSet::new();
    let mut vips = Vec::new();
    for item in field.list(1024, example) {
        let Some(vip) = item.parse("a string like \"192.0.2.10\"", value::unicast) else {
            continue;
        };
        if let Some(holder) = known.holders.get(&vip) {
            item.error(format!("{vip} is already an address of {holder}"));
        } else if seen.insert(vip) {
            vips.push((vip, item.spot()));
        } else {
            item.error(format!("{vip} is listed twice"));
        }
    }
    if vips.is_empty() && table.report().count() == before {
        field.error(format!("is empty, expected at least one address like {example}"));
    }
    vips
}

/// `port = 80` or `ports = [80, 443]`.
fn ports(table: &Table<'_>) -> Vec<u16> {
    let list = match (table.get("port"), table.get("ports")) {
        (Some(field), None) => return field.integer(1..=65535).into_iter().collect(),
        (None, Some(list)) => list,
        (Some(field), Some(_)) => {
            field.error("\"port\" and \"ports\" are both set, expected one of them");
            return Vec::new();
        }
        (None, None) => {
            table.error("\"ports\" is missing, expected a list like [80], or port = 80");
            return Vec::new();
        }
    };
    let before = table.report().count();
    let mut seen = HashSet::new();
    let mut ports = Vec::new();
    for item in list.list(1024, "[80, 443]") {
        let Some(port) = item.integer(1..=65535) else {
            continue;
        };
        if seen.insert(port) {
            ports.push(port);
        } else {
            item.error(format!("{port} is listed twice"));
        }
    }
    if ports.is_empty() && table.report().count() == before {
        list.error("is empty, expected at least one port like [80]");
    }
    ports
}

fn timeouts(table: &Table<'_>) -> Timeouts {
    let default = Timeouts::default();
    let timeout = |key, default| {
        let range = Duration::from_millis(100)..=Duration::from_secs(7 * 24 * 3600);
        let duration = table.get(key).and_then(|field| field.duration(range));
        duration.and_then(|duration| duration.as_millis().try_into().ok()).unwrap_or(default)
    };
    Timeouts {
        syn_ms: timeout("syn", default.syn_ms),
        established_ms: timeout("established", default.established_ms),
        closing_ms: timeout("closing", default.closing_ms),
        udp_ms: timeout("udp", default.udp_ms),
    }
}

fn check(table: &Table<'_>) -> Option<CheckSpec> {
    let http = table
        .require("type", "\"tcp\" or \"http\"")
        .and_then(|field| field.choice(&[("tcp", false), ("http", true)]));
    let probe = match http {
        Some(true) => Some(http_probe(table)),
        Some(false) => {
            for key in ["path", "host", "status", "body"] {
                if let Some(field) = table.get(key) {
                    field.error("applies to type = \"http\" only");
                }
            }
            Some(Probe::Tcp)
        }
        None => None,
    };
    let interval = table
        .get("interval")
        .and_then(|field| field.duration(Duration::from_millis(50)..=Duration::from_secs(3600)))
        .unwrap_or(Duration::from_secs(1));
    let timeout_field = table.get("timeout");
    let timeout = timeout_field
        .as_ref()
        .and_then(|field| field.duration(Duration::from_millis(10)..=Duration::from_secs(3600)))
        .unwrap_or(Duration::from_millis(500).min(interval));
    if let Some(field) = timeout_field
        && timeout > interval
    {
        let (timeout, interval) = (value::show_duration(timeout), value::show_duration(interval));
        field.error(format!("{timeout} is longer than the interval, {interval}"));
    }
    let count = |key| table.get(key).and_then(|field| field.integer(1..=100)).unwrap_or(2);
    let (rise, fall) = (count("rise"), count("fall"));
    let port = table.get("port").and_then(|field| field.integer(1..=65535));
    Some(CheckSpec { probe: probe?, interval, timeout, rise, fall, port })
}

fn http_probe(table: &Table<'_>) -> Probe {
    let text = |key, expected, parse: fn(&str) -> value::Parsed<String>| {
        table.get(key).and_then(|field| field.parse(expected, parse))
    };
    let status = table.get("status").map(|field| statuses(&field));
    Probe::Http {
        path: text("path", "a string like \"/healthz\"", http_path).unwrap_or("/".to_owned()),
        host: text("host", "a string like \"www.example.org\"", http_host),
        status: status.unwrap_or_else(|| vec![200]),
        body: text("body", "a string", |text| {
            if text.is_empty() || text.len() > MAX_TEXT {
                return Err(format!("is {} bytes long, expected 1 to {MAX_TEXT}", text.len()));
            }
            Ok(text.to_owned())
        }),
    }
}

/// The origin-form of RFC 9112 §3.2.1.
fn http_path(text: &str) -> value::Parsed<String> {
    let sound = text.starts_with('/')
        && text.len() <= MAX_TEXT
        && text.bytes().all(|b| b.is_ascii_graphic() && b != b'#')
        && text.parse::<hyper::http::uri::PathAndQuery>().is_ok();
    if sound {
        return Ok(text.to_owned());
    }
    Err("is not a path (expected like \"/healthz?full=1\", percent-encoded)".to_owned())
}

fn http_host(text: &str) -> value::Parsed<String> {
    let sound = text.len() <= 255 && text.parse::<hyper::http::uri::Authority>().is_ok();
    if sound && !text.contains('@') {
        return Ok(text.to_owned());
    }
    Err("is not a host (expected like \"www.example.org\" or \"www.example.org:8080\")".to_owned())
}

fn statuses(field: &Field<'_>) -> Vec<u16> {
    let before = field.report().count();
    let items = field.list(64, "[200, 204]");
    let statuses: Vec<u16> = items.iter().filter_map(|item| item.integer(200..=599)).collect();
    if statuses.is_empty() && field.report().count() == before {
        field.error("is empty, expected at least one status like [200]");
    }
    statuses
}

fn backends<'a>(table: &Table<'a>, known: &Known, shared: &mut Shared<'a>) -> Vec<Backend> {
    let mut seen = HashSet::new();
    let mut backends = Vec::new();
    for entry in table.tables("backend", &schema::BACKEND, "", MAX_BACKENDS) {
        let weight = entry.get("weight").and_then(|field| field.integer(0..=MAX_WEIGHT));
        let example = "a string like \"10.2.0.11:80\"";
        let Some(field) = entry.require("address", example) else {
            continue;
        };
        let Some((address, port)) = field.parse(example, value::endpoint) else {
            continue;
        };
        if !seen.insert((address, port)) {
            field.error("another backend of the service has this address");
        }
        if let Some(holder) = known.holders.get(&address) {
            field.error(format!("{address} is this node's own, an address of {holder}"));
        }
        shared.backends.push((address, field.spot()));
        backends.push(Backend { address, port, weight: weight.unwrap_or(1) });
    }
    backends
}

/// A VIP is served by backends of its family, from local addresses of its family.
fn check_families(
    table: &Table<'_>,
    known: &Known,
    vips: &[(IpAddr, Spot<'_>)],
    backends: &[Backend],
    min_healthy: u32,
) {
    for v4 in [true, false] {
        let Some((vip, spot)) = vips.iter().find(|(vip, _)| vip.is_ipv4() == v4) else {
            continue;
        };
        let family = if v4 { "IPv4" } else { "IPv6" };
        let local = if v4 { known.local_v4 } else { known.local_v6 };
        if !local && known.local_is_sound {
            spot.error(format!("VIP {vip} needs an {family} prefix in [local] addresses"));
        }
        let able = backends.iter().filter(|backend| backend.address.is_ipv4() == v4).count();
        if able == 0 {
            spot.error(format!("VIP {vip} has no {family} backend, expected at least one"));
        } else if (able as u64) < u64::from(min_healthy) {
            table.error(format!(
                "min-healthy is {min_healthy}, but VIP {vip} has only {able} {family} backends"
            ));
        }
    }
}

fn claim_endpoints(
    shared: &mut Shared<'_>,
    name: &str,
    vips: &[(IpAddr, Spot<'_>)],
    protocol: Protocol,
    ports: &[u16],
) {
    for (vip, spot) in vips {
        for port in ports {
            if shared.endpoints.len() > MAX_SERVICES {
                return;
            }
            let other = shared.endpoints.insert((*vip, protocol, *port), name.to_owned());
            if let Some(other) = other {
                let protocol = protocol_name(protocol);
                spot.error(format!("{vip} {protocol}/{port} is already in service {other:?}"));
            }
        }
    }
}

fn announcement(table: &Table<'_>, known: &Known, vips: &[(IpAddr, Spot<'_>)]) -> Attributes {
    let Some(entry) = table.table("announce", &schema::SERVICE_ANNOUNCE) else {
        return Attributes::default();
    };
    let stub =
        vips.iter().any(|(vip, _)| if vip.is_ipv4() { known.stub_v4 } else { known.stub_v6 });
    announce::attributes(&entry, &schema::SERVICE_ANNOUNCE_OSPF, stub)
}

/// A VIP is announced once, so its services must not contradict each other about how.
fn agree_on_announcements(
    table: &Table<'_>,
    shared: &mut Shared<'_>,
    name: &str,
    vips: &[(IpAddr, Spot<'_>)],
    announce: &Attributes,
) {
    for (vip, _) in vips {
        let before = shared
            .announced
            .entry(*vip)
            .or_insert_with(|| (Attributes::default(), name.to_owned()));
        if let Some(key) = before.0.contradiction(announce) {
            table.error(format!(
                "announce: {key} contradicts service {:?}, which has the same VIP {vip}; a VIP is \
                 announced once, so its services must agree",
                before.1
            ));
            return;
        }
        before.0 = before.0.or(announce);
    }
}

fn protocol_name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    }
}

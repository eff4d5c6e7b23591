//! Field by field: what differs between two configurations, and whether a reload can apply it.

use super::{Diff, Effect, Kind, Subject, routing, show};
use crate::config::model::{Cluster, Config, Dataplane, Port, Service};
use crate::config::value::show_duration;

pub(super) fn configs(diff: &mut Diff, old: &Config, new: &Config) {
    node(diff, old, new);
    dataplane(diff, &old.dataplane, &new.dataplane);
    diff.objects(
        &old.ports,
        &new.ports,
        |port| port.name.clone(),
        |name| Subject::Port(name.clone()),
        Effect::Restart,
        port,
    );
    diff.objects(
        &old.routes,
        &new.routes,
        |route| route.prefix,
        |prefix| Subject::Route(*prefix),
        Effect::Live,
        |diff, subject, old, new| {
            diff.field(subject, "via", &sorted(&old.via), &sorted(&new.via), |items| {
                show::list(items)
            });
        },
    );
    diff.objects(
        &old.local_prefixes,
        &new.local_prefixes,
        |prefix| *prefix,
        |prefix| Subject::Local(*prefix),
        Effect::Live,
        |_, _, _, _| {},
    );
    cluster(diff, old.cluster.as_ref(), new.cluster.as_ref());
    diff.fixed(&Subject::Node, "management", &old.management, &new.management, |management| {
        show::optional(management.as_ref().map(show::management))
    });
    routing::all(diff, old, new);
    diff.objects(
        &old.services,
        &new.services,
        |service| service.name.clone(),
        |name| Subject::Service(name.clone()),
        Effect::Live,
        service,
    );
}

fn cluster(diff: &mut Diff, old: Option<&Cluster>, new: Option<&Cluster>) {
    let subject = Subject::Cluster;
    let (old, new) = match (old, new) {
        (Some(old), Some(new)) => (old, new),
        (None, None) => return,
        (Some(_), None) => return diff.push(subject, Kind::Removed, Effect::Restart),
        (None, Some(_)) => return diff.push(subject, Kind::Added, Effect::Restart),
    };
    diff.fixed(&subject, "address", &old.address, &new.address, ToString::to_string);
    diff.fixed(&subject, "peers", &old.peers, &new.peers, |peers| show::list(peers));
    diff.hidden_fixed(&subject, "key", &old.key, &new.key);
    let (before, after) = (&old.questions_per_second, &new.questions_per_second);
    diff.fixed(&subject, "max-questions", before, after, u32::to_string);
    diff.fixed(&subject, "max-adopted", &old.max_adopted, &new.max_adopted, u32::to_string);
    diff.field(&subject, "drain-flows", &old.drain_flows, &new.drain_flows, |d| show_duration(*d));
}

fn node(diff: &mut Diff, old: &Config, new: &Config) {
    let (old, new, subject) = (&old.node, &new.node, Subject::Node);
    diff.fixed(&subject, "name", &old.name, &new.name, String::clone);
    diff.fixed(&subject, "router-id", &old.router_id, &new.router_id, ToString::to_string);
    diff.fixed(&subject, "api-socket", &old.api_socket, &new.api_socket, |path| {
        path.display().to_string()
    });
}

fn dataplane(diff: &mut Diff, old: &Dataplane, new: &Dataplane) {
    let subject = Subject::Dataplane;
    diff.fixed(&subject, "workers", &old.workers, &new.workers, |cores| show::list(cores));
    diff.fixed(&subject, "poll", &old.poll, &new.poll, show::word);
    diff.fixed(&subject, "max-sleep", &old.max_sleep, &new.max_sleep, |d| show_duration(*d));
    diff.fixed(&subject, "max-flows", &old.max_flows, &new.max_flows, u32::to_string);
    diff.fixed(&subject, "memory", &old.memory_mib, &new.memory_mib, |mib| format!("{mib}MiB"));
    diff.fixed(&subject, "hugepages", &old.hugepages, &new.hugepages, bool::to_string);
    diff.fixed(&subject, "file-prefix", &old.file_prefix, &new.file_prefix, String::clone);
    diff.fixed(&subject, "mbufs", &old.mbufs, &new.mbufs, |mbufs| show::optional(*mbufs));
    diff.fixed(&subject, "steering", &old.steering, &new.steering, show::word);
    diff.field(&subject, "stall-after", &old.stall_after, &new.stall_after, |d| show_duration(*d));
}

fn port(diff: &mut Diff, subject: &Subject, old: &Port, new: &Port) {
    diff.fixed(subject, "device", &old.device, &new.device, show::device);
    diff.fixed(subject, "control", &old.control, &new.control, show::word);
    diff.fixed(subject, "mtu", &old.mtu, &new.mtu, u16::to_string);
    diff.fixed(subject, "mac", &old.mac, &new.mac, |mac| show::optional(mac.map(show::mac)));
    let (old, new) = (sorted(&old.addresses), sorted(&new.addresses));
    diff.field(subject, "addresses", &old, &new, |items| show::list(items));
}

fn service(diff: &mut Diff, subject: &Subject, old: &Service, new: &Service) {
    diff.field(subject, "vips", &sorted(&old.vips), &sorted(&new.vips), |items| show::list(items));
    diff.field(subject, "protocol", &old.protocol, &new.protocol, show::word);
    diff.field(subject, "ports", &sorted(&old.ports), &sorted(&new.ports), |items| {
        show::list(items)
    });
    diff.field(subject, "scheduler", &old.scheduler, &new.scheduler, show::word);
    diff.field(subject, "on-no-backend", &old.on_no_backend, &new.on_no_backend, show::word);
    diff.field(subject, "min-healthy", &old.min_healthy, &new.min_healthy, u32::to_string);
    diff.field(subject, "timeouts", &old.timeouts, &new.timeouts, show::timeouts);
    diff.field(subject, "check", &old.check, &new.check, |check| {
        show::optional(check.as_ref().map(show::check))
    });
    routing::attributes(diff, subject, &old.announce, &new.announce);
    diff.objects(
        &old.backends,
        &new.backends,
        |backend| (backend.address, backend.port),
        |(address, port)| {
            let service = match subject {
                Subject::Service(name) => name.clone(),
                _ => String::new(),
            };
            Subject::Backend { service, address: *address, port: *port }
        },
        Effect::Live,
        |diff, subject, old, new| {
            diff.field(subject, "weight", &old.weight, &new.weight, u32::to_string);
        },
    );
}

/// Keeps of `old` what the functions above call fixed.
pub(super) fn live_part(old: &Config, new: &Config) -> Config {
    let ports = old.ports.iter().map(|port| {
        let same = new.ports.iter().find(|new| new.name == port.name);
        let addresses = same.map_or(&port.addresses, |new| &new.addresses).clone();
        Port { addresses, ..port.clone() }
    });
    let cluster = old.cluster.as_ref().map(|old| {
        let drain_flows = new.cluster.as_ref().map_or(old.drain_flows, |new| new.drain_flows);
        Cluster { drain_flows, ..old.clone() }
    });
    Config {
        node: old.node.clone(),
        cluster,
        dataplane: Dataplane { stall_after: new.dataplane.stall_after, ..old.dataplane.clone() },
        ports: ports.collect(),
        management: old.management.clone(),
        bgp: routing::live_bgp(old.bgp.as_ref(), new.bgp.as_ref()),
        ospf: routing::live_ospf(old.ospf.as_ref(), new.ospf.as_ref()),
        ospf3: routing::live_ospf(old.ospf3.as_ref(), new.ospf3.as_ref()),
        ..new.clone()
    }
}

/// For lists whose order means nothing.
fn sorted<T: Ord + Clone>(items: &[T]) -> Vec<T> {
    let mut items = items.to_vec();
    items.sort();
    items
}

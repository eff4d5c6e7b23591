//! Families of workers, drops, ports, services and backends.

use super::exposition::{Exposition, Kind, Value};
use crate::api::model::{
    BackendInfo, BackendState, DropInfo, PortInfo, ServiceInfo, SteeringInfo, SteeringMode,
    Traffic, WorkerInfo, protocol_name,
};

pub(super) fn workers(out: &mut Exposition, workers: &[WorkerInfo]) {
    type Read = fn(&WorkerInfo) -> Value;
    let families: [(&str, Kind, &str, Read); 18] = [
        ("beat_age_seconds", Kind::Gauge, "Time since the worker's last beat.", |w| {
            (w.beat_age_ms as f64 / 1e3).into()
        }),
        ("stalled", Kind::Gauge, "1 if the worker has stopped beating, else 0.", |w| {
            u64::from(w.stalled).into()
        }),
        ("tables_epoch", Kind::Gauge, "Epoch of the tables that the worker uses.", |w| {
            w.epoch.into()
        }),
        ("busy_ratio", Kind::Gauge, "Share of loops that found packets, 0 to 1.", |w| {
            (w.busy_percent / 100.0).into()
        }),
        ("flows", Kind::Gauge, "Flows alive on the worker.", |w| w.flows.into()),
        ("flows_max", Kind::Gauge, "Flows that the worker has room for.", |w| w.max_flows.into()),
        ("local_ports_used", Kind::Gauge, "Local ports in use toward backends.", |w| {
            w.local_ports_used.into()
        }),
        ("local_ports", Kind::Gauge, "Local ports that the worker has.", |w| {
            w.local_ports_total.into()
        }),
        ("receive_packets_total", Kind::Counter, "Packets received.", |w| w.rx_packets.into()),
        ("transmit_packets_total", Kind::Counter, "Packets sent.", |w| w.tx_packets.into()),
        ("kernel_packets_total", Kind::Counter, "Packets passed to the kernel.", |w| {
            w.kernel_packets.into()
        }),
        ("handover_packets_total", Kind::Counter, "Packets handed to other workers.", |w| {
            w.handover_packets.into()
        }),
        (
            "misdirected_packets_total",
            Kind::Counter,
            "Replies that steering by the NIC led to the wrong worker; handed over.",
            |w| w.misdirected_packets.into(),
        ),
        (
            "too_big_answers_total",
            Kind::Counter,
            "Packets too big for their way out, answered by an ICMP error.",
            |w| w.too_big_answers.into(),
        ),
        ("fragment_packets_total", Kind::Counter, "Fragments translated.", |w| {
            w.fragment_packets.into()
        }),
        (
            "forgotten_datagrams_total",
            Kind::Counter,
            "Datagrams in fragments that made room for others in a full table.",
            |w| w.forgotten_datagrams.into(),
        ),
        ("drop_packets_total", Kind::Counter, "Packets dropped, all reasons.", |w| {
            w.dropped_packets.into()
        }),
        ("info", Kind::Gauge, "Always 1; core, NUMA node and flow memory are labels.", |_| {
            Value::Whole(1)
        }),
    ];
    for (name, kind, help, value) in families {
        out.family(&format!("dunlin_worker_{name}"), kind, help);
        for worker in workers {
            let (id, core) = (worker.id.to_string(), worker.core.to_string());
            let node = worker.numa_node.map_or_else(String::new, |node| node.to_string());
            let memory = worker.flow_memory.as_ref().map_or("", |memory| memory.kind.word());
            let labels = [
                ("worker", id.as_str()),
                ("core", core.as_str()),
                ("numa_node", node.as_str()),
                ("flow_memory", memory),
            ];
            let shown = if name == "info" { &labels[..] } else { &labels[..1] };
            out.sample(shown, value(worker));
        }
    }
}

pub(super) fn drops(out: &mut Exposition, drops: &[DropInfo]) {
    out.family("dunlin_drops_total", Kind::Counter, "Packets dropped, by reason and worker.");
    for drop in drops {
        for (worker, count) in drop.per_worker.iter().enumerate() {
            out.sample(&[("reason", &drop.reason), ("worker", &worker.to_string())], *count);
        }
    }
}

pub(super) fn ports(out: &mut Exposition, ports: &[PortInfo]) {
    type Read = fn(&PortInfo) -> u64;
    let families: [(&str, Kind, &str, Read); 9] = [
        ("up", Kind::Gauge, "1 if the link is up, else 0.", |p| u64::from(p.link_up)),
        ("receive_packets_total", Kind::Counter, "Packets received.", |p| p.stats.rx_packets),
        ("transmit_packets_total", Kind::Counter, "Packets sent.", |p| p.stats.tx_packets),
        ("receive_bytes_total", Kind::Counter, "Bytes received.", |p| p.stats.rx_bytes),
        ("transmit_bytes_total", Kind::Counter, "Bytes sent.", |p| p.stats.tx_bytes),
        ("receive_errors_total", Kind::Counter, "Bad frames received.", |p| p.stats.rx_errors),
        ("transmit_errors_total", Kind::Counter, "Frames that failed to be sent.", |p| {
            p.stats.tx_errors
        }),
        (
            "receive_missed_total",
            Kind::Counter,
            "Frames dropped by the NIC because the workers did not keep up.",
            |p| p.stats.rx_missed,
        ),
        ("receive_nombuf_total", Kind::Counter, "Frames dropped because no mbuf was free.", |p| {
            p.stats.rx_nombuf
        }),
    ];
    for (name, kind, help, value) in families {
        out.family(&format!("dunlin_port_{name}"), kind, help);
        for port in ports {
            out.sample(&[("port", &port.name)], value(port));
        }
    }
    out.family("dunlin_port_info", Kind::Gauge, "Always 1; how the port is driven, as labels.");
    for port in ports {
        let control = port.control.as_ref().map_or("none", |c| c.kind.word());
        let steering = port.steering.mode.word();
        out.sample(
            &[
                ("port", &port.name),
                ("driver", &port.driver),
                ("control", control),
                ("steering", steering),
            ],
            1,
        );
    }
    out.family(
        "dunlin_port_flow_rules",
        Kind::Gauge,
        "Local addresses that have flow rules in the NIC, and that it refused.",
    );
    for port in ports.iter().filter(|port| port.steering.mode == SteeringMode::FlowRule) {
        let SteeringInfo { flow_rules, flow_rules_refused, .. } = port.steering;
        out.sample(&[("port", &port.name), ("state", "made")], flow_rules);
        out.sample(&[("port", &port.name), ("state", "refused")], flow_rules_refused);
    }
}

pub(super) fn services(out: &mut Exposition, services: &[ServiceInfo]) {
    let labels = |service: &ServiceInfo| {
        vec![
            ("service", service.name.clone()),
            ("vip", service.vip.to_string()),
            ("protocol", protocol_name(service.protocol).to_owned()),
            ("port", service.port.to_string()),
        ]
    };
    type Read = fn(&ServiceInfo) -> u64;
    let families: [(&str, &str, Read); 4] = [
        ("backends_healthy", "Backends that take new flows.", |s| s.backends_healthy),
        ("backends", "Backends configured.", |s| s.backends_total),
        ("announced", "1 if the VIP is announced to at least one peer, else 0.", |s| {
            u64::from(s.announced)
        }),
        ("draining", "1 if an operator drains the service, else 0.", |s| u64::from(s.draining)),
    ];
    for (name, help, value) in families {
        out.family(&format!("dunlin_service_{name}"), Kind::Gauge, help);
        for service in services {
            out.sample_owned(&labels(service), value(service));
        }
    }
    traffic(out, "service", services, labels, |service| service.traffic);
}

pub(super) fn backends(out: &mut Exposition, backends: &[BackendInfo]) {
    let labels = |backend: &BackendInfo| {
        vec![("service", backend.service.clone()), ("backend", backend.address.to_string())]
    };
    out.family(
        "dunlin_backend_state",
        Kind::Gauge,
        "1 for the state that the backend is in, 0 for the others.",
    );
    for backend in backends {
        for state in BackendState::ALL {
            let mut labels = labels(backend);
            labels.push(("state", state.word().to_owned()));
            out.sample_owned(&labels, u64::from(backend.state == *state));
        }
    }
    out.family("dunlin_backend_weight", Kind::Gauge, "Relative share of new flows.");
    for backend in backends {
        out.sample_owned(&labels(backend), u64::from(backend.weight));
    }
    out.family(
        "dunlin_backend_check_duration_seconds",
        Kind::Gauge,
        "Duration of the last check that succeeded.",
    );
    for backend in backends {
        if let Some(latency) = backend.check_latency_us {
            out.sample_owned(&labels(backend), latency as f64 / 1e6);
        }
    }
    traffic(out, "backend", backends, labels, |backend| backend.traffic);
}

/// Families that services and backends have alike.
fn traffic<T>(
    out: &mut Exposition,
    prefix: &str,
    items: &[T],
    labels: impl Fn(&T) -> Vec<(&'static str, String)>,
    of: impl Fn(&T) -> Traffic,
) {
    type Read = fn(Traffic) -> u64;
    let families: [(&str, Kind, &str, Read); 6] = [
        ("connections", Kind::Gauge, "Flows alive.", |t| t.connections_active),
        ("connections_total", Kind::Counter, "Flows opened.", |t| t.connections_total),
        ("receive_packets_total", Kind::Counter, "Packets, client to backend.", |t| t.packets_in),
        ("transmit_packets_total", Kind::Counter, "Packets, backend to client.", |t| t.packets_out),
        ("receive_bytes_total", Kind::Counter, "Bytes, client to backend.", |t| t.bytes_in),
        ("transmit_bytes_total", Kind::Counter, "Bytes, backend to client.", |t| t.bytes_out),
    ];
    for (name, kind, help, value) in families {
        out.family(&format!("dunlin_{prefix}_{name}"), kind, help);
        for item in items {
            out.sample_owned(&labels(item), value(of(item)));
        }
    }
}

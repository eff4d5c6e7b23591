//! Services, backends, flows, ports, workers and drops.

use super::{Facts, printable, yes_no};
use crate::api::model::{
    BackendInfo, BackendState, BuffersInfo, DropInfo, FlowList, InterruptsInfo, PortInfo,
    ServiceInfo, SteeringMode, WorkerInfo, protocol_name,
};
use crate::cli::human;
use crate::cli::table::{Style, Table, Tone};
use crate::forward::tables::Scheduler;
use std::net::SocketAddr;

pub fn services(services: &[ServiceInfo], style: Style) -> String {
    if services.is_empty() {
        return "No service is configured.\n".to_owned();
    }
    let mut table = Table::default()
        .text("SERVICE")
        .text("VIP")
        .text("PROTO")
        .text("SCHEDULER")
        .number("HEALTHY")
        .text("ANNOUNCED")
        .number("ACTIVE")
        .number("OPENED")
        .number("PKTS IN")
        .number("PKTS OUT")
        .number("BYTES IN")
        .number("BYTES OUT")
        .text("NOTE");
    for service in services {
        let traffic = service.traffic;
        let (announced_tone, announced) = yes_no(service.announced);
        let note = if service.draining { "draining" } else { "" };
        table
            .row()
            .cell(&service.name)
            .cell(SocketAddr::new(service.vip, service.port).to_string())
            .cell(protocol_name(service.protocol))
            .cell(match service.scheduler {
                Scheduler::Maglev => "maglev",
                Scheduler::RoundRobin => "round-robin",
            })
            .toned(
                health_tone(service),
                format!("{}/{}", service.backends_healthy, service.backends_total),
            )
            .toned(announced_tone, announced)
            .cell(human::exact(traffic.connections_active))
            .cell(human::exact(traffic.connections_total))
            .cell(human::amount(traffic.packets_in))
            .cell(human::amount(traffic.packets_out))
            .cell(human::bytes(traffic.bytes_in))
            .cell(human::bytes(traffic.bytes_out))
            .toned(Tone::Warning, note);
    }
    table.render(style)
}

fn health_tone(service: &ServiceInfo) -> Tone {
    if service.backends_healthy < u64::from(service.min_healthy.max(1)) {
        Tone::Bad
    } else if service.backends_healthy < service.backends_total {
        Tone::Warning
    } else {
        Tone::Good
    }
}

pub fn backends(backends: &[BackendInfo], style: Style) -> String {
    if backends.is_empty() {
        return "No backend is configured.\n".to_owned();
    }
    let mut table = Table::default()
        .text("SERVICE")
        .text("BACKEND")
        .number("WEIGHT")
        .text("STATE")
        .number("FOR")
        .number("CHECK")
        .number("ACTIVE")
        .number("OPENED")
        .number("BYTES IN")
        .number("BYTES OUT")
        .prose("REASON");
    for backend in backends {
        let tone = match backend.state {
            BackendState::Healthy => Tone::Good,
            BackendState::Unhealthy => Tone::Bad,
            BackendState::Unknown | BackendState::Draining => Tone::Warning,
            BackendState::Removed => Tone::Faint,
        };
        // What a good check said is not worth a line; its duration stands under CHECK.
        let healthy = backend.state == BackendState::Healthy;
        let traffic = backend.traffic;
        let address = match backend.address.port() {
            0 => backend.address.ip().to_string(),
            _ => backend.address.to_string(),
        };
        table
            .row()
            .cell(&backend.service)
            .cell(address)
            .cell(backend.weight.to_string())
            .toned(tone, backend.state.word())
            .cell(human::seconds(backend.state_age_s))
            .cell(backend.check_latency_us.map_or_else(String::new, human::microseconds))
            .cell(human::exact(traffic.connections_active))
            .cell(human::exact(traffic.connections_total))
            .cell(human::bytes(traffic.bytes_in))
            .cell(human::bytes(traffic.bytes_out))
            .cell(if healthy { "" } else { &backend.reason });
    }
    table.render(style)
}

pub fn flows(list: &FlowList, style: Style) -> String {
    if list.flows.is_empty() {
        return match list.total {
            0 => "No flows.\n".to_owned(),
            total => format!("No flow matches; {} on this node.\n", human::counted(total, "flow")),
        };
    }
    let mut table = Table::default()
        .text("PROTO")
        .text("CLIENT")
        .text("VIP")
        .text("LOCAL")
        .text("BACKEND")
        .text("STATE")
        .number("IDLE")
        .number("WORKER")
        .text("SERVICE")
        .text("OWNER");
    for flow in &list.flows {
        table
            .row()
            .cell(protocol_name(flow.protocol))
            .cell(flow.client.to_string())
            .cell(flow.vip.to_string())
            .cell(flow.lip.to_string())
            .cell(flow.backend.to_string())
            .cell(flow.state.word())
            .cell(human::milliseconds(flow.idle_ms))
            .cell(flow.worker.to_string())
            .cell(&flow.service)
            .cell(flow.owner.map_or_else(String::new, |owner| owner.to_string()));
    }
    let mut out = table.render(style);
    let shown = list.flows.len() as u64;
    if shown < list.matched {
        let (shown, matched) = (human::exact(shown), human::exact(list.matched));
        let total = human::counted(list.total, "flow");
        let rest =
            format!("{shown} of {matched} that match shown (--limit), {total} on this node.\n");
        out.push_str(&rest);
    }
    out
}

pub fn ports(ports: &[PortInfo], style: Style) -> String {
    if ports.is_empty() {
        return "No port is configured.\n".to_owned();
    }
    let each: Vec<String> = ports.iter().map(|port| one_port(port, style)).collect();
    format!("{}\n{}", port_counters(ports, style), each.join("\n"))
}

fn port_counters(ports: &[PortInfo], style: Style) -> String {
    let mut table = Table::default()
        .text("PORT")
        .text("LINK")
        .number("RX PKTS")
        .number("TX PKTS")
        .number("RX BYTES")
        .number("TX BYTES")
        .number("RX ERRORS")
        .number("TX ERRORS")
        .number("RX MISSED")
        .number("NO MBUF");
    let lost = |count: u64| {
        let tone = if count == 0 { Tone::Plain } else { Tone::Bad };
        (tone, human::exact(count))
    };
    for port in ports {
        let stats = port.stats;
        let (link_tone, link) = if port.link_up { (Tone::Good, "up") } else { (Tone::Bad, "down") };
        let mut row = table
            .row()
            .cell(&port.name)
            .toned(link_tone, link)
            .cell(human::amount(stats.rx_packets))
            .cell(human::amount(stats.tx_packets))
            .cell(human::bytes(stats.rx_bytes))
            .cell(human::bytes(stats.tx_bytes));
        for count in [stats.rx_errors, stats.tx_errors, stats.rx_missed, stats.rx_nombuf] {
            let (tone, text) = lost(count);
            row = row.toned(tone, text);
        }
    }
    table.render(style)
}

fn one_port(port: &PortInfo, style: Style) -> String {
    let mut facts = Facts::default();
    let name = style.paint(Tone::Strong, &printable(&port.name));
    let device = printable(&port.device);
    let driver = printable(&port.driver);
    let same = device.starts_with(&driver);
    facts.add("Port", name);
    facts.add("Device", if same { device } else { format!("{device} ({driver})") });
    let speed = port.speed_mbps.map_or_else(
        || "speed not known".to_owned(),
        |mbps| match mbps % 1_000 {
            0 if mbps > 0 => format!("{} Gbit/s", mbps / 1_000),
            _ => format!("{mbps} Mbit/s"),
        },
    );
    facts.add(
        "Link",
        format!(
            "{}, {}, MTU {}, {} and {}",
            printable(&port.mac),
            speed,
            port.mtu,
            human::counted(u64::from(port.rx_queues), "receive queue"),
            human::counted(u64::from(port.tx_queues), "transmit queue")
        ),
    );
    let numa = port.numa_node.map_or_else(|| "none".to_owned(), |node| node.to_string());
    facts.add("NUMA node", numa);
    facts.add("Buffers", port.buffers.as_ref().map_or_else(String::new, buffers));
    let control = port.control.as_ref().map_or_else(
        || "none".to_owned(),
        |c| format!("{} by {}: {}", printable(&c.interface), c.kind, printable(&c.reason)),
    );
    facts.add("Control", control);
    facts.add("Interrupts", port.rx_interrupts.as_ref().map_or_else(String::new, interrupts));
    let of_control = port.control.as_ref().and_then(|control| control.rx_interrupts.as_ref());
    facts.add("of control", of_control.map_or_else(String::new, interrupts));
    let steering = &port.steering;
    facts.add("Steering", format!("{}: {}", steering.mode, printable(&steering.reason)));
    if steering.mode == SteeringMode::FlowRule {
        let (made, refused) = (steering.flow_rules, steering.flow_rules_refused);
        facts.add("Flow rules", format!("for {made} local addresses; refused for {refused}"));
    }
    let caps = if port.caps.is_empty() { "none".to_owned() } else { port.caps.join(", ") };
    facts.add("Offloads", printable(&caps));
    facts.render(style)
}

/// `in use`, or `none: UIO has none for each queue; vfio-pci has`.
fn interrupts(interrupts: &InterruptsInfo) -> String {
    if interrupts.in_use {
        "in use".to_owned()
    } else {
        format!("none: {}", printable(&interrupts.reason))
    }
}

/// `32,768 on NUMA node 0: where the port is`.
fn buffers(buffers: &BuffersInfo) -> String {
    let on = buffers
        .numa_node
        .map_or_else(|| "on any NUMA node".to_owned(), |node| format!("on NUMA node {node}"));
    let count = human::exact(u64::from(buffers.count));
    format!("{count} {on}: {}", printable(&buffers.reason))
}

/// The few columns that `dunlin status` has room for.
pub(super) fn worker_load(workers: &[WorkerInfo], style: Style) -> String {
    let mut table = Table::default()
        .number("WORKER")
        .number("CORE")
        .text("STATE")
        .number("BEAT")
        .number("BUSY")
        .number("FLOWS")
        .number("OF")
        .number("LOCAL PORTS")
        .number("EPOCH");
    for worker in workers {
        let (tone, state) =
            if worker.stalled { (Tone::Bad, "stalled") } else { (Tone::Good, "running") };
        table
            .row()
            .cell(worker.id.to_string())
            .cell(worker.core.to_string())
            .toned(tone, state)
            .cell(human::milliseconds(worker.beat_age_ms))
            .cell(format!("{:.0}%", worker.busy_percent))
            .toned(fill_tone(worker.flows, worker.max_flows), human::exact(worker.flows))
            .cell(human::exact(worker.max_flows))
            .toned(
                fill_tone(worker.local_ports_used, worker.local_ports_total),
                share(worker.local_ports_used, worker.local_ports_total),
            )
            .cell(worker.epoch.to_string());
    }
    if workers.is_empty() {
        return "No worker runs.\n".to_owned();
    }
    table.render(style)
}

/// Red when nearly full: the next flows will be refused.
fn fill_tone(used: u64, total: u64) -> Tone {
    match (used.saturating_mul(100)).checked_div(total) {
        Some(95..) => Tone::Bad,
        Some(80..) => Tone::Warning,
        _ => Tone::Plain,
    }
}

/// `0%`, `0.4%`, `37%`.
fn share(used: u64, total: u64) -> String {
    if total == 0 {
        return "none".to_owned();
    }
    let percent = used as f64 * 100.0 / total as f64;
    let decimals = usize::from(used > 0 && percent < 10.0);
    format!("{percent:.decimals$}%")
}

pub fn workers(workers: &[WorkerInfo], style: Style) -> String {
    if workers.is_empty() {
        return "No worker runs.\n".to_owned();
    }
    let mut table = Table::default()
        .number("WORKER")
        .number("RECEIVED")
        .number("SENT")
        .number("TO KERNEL")
        .number("HANDED OVER")
        .number("DROPPED")
        .number("PORTS USED")
        .number("OF");
    for worker in workers {
        table
            .row()
            .cell(worker.id.to_string())
            .cell(human::amount(worker.rx_packets))
            .cell(human::amount(worker.tx_packets))
            .cell(human::amount(worker.kernel_packets))
            .cell(human::amount(worker.handover_packets))
            .cell(human::amount(worker.dropped_packets))
            .cell(human::exact(worker.local_ports_used))
            .cell(human::exact(worker.local_ports_total));
    }
    let tables = [worker_load(workers, style), table.render(style), worker_places(workers, style)];
    tables.join("\n")
}

fn worker_places(workers: &[WorkerInfo], style: Style) -> String {
    let node = |node: Option<u32>| node.map_or_else(String::new, |node| node.to_string());
    let mut table = Table::default()
        .number("WORKER")
        .number("NUMA NODE")
        .text("FLOW MEMORY")
        .number("ON NODE")
        .number("MISDIRECTED")
        .text("WHEN IDLE")
        .prose("NOTE");
    for worker in workers {
        let memory = worker.flow_memory.as_ref();
        let idle = worker
            .idle
            .map_or_else(String::new, |idle| format!("{idle}: {}", printable(&worker.idle_reason)));
        table
            .row()
            .cell(worker.id.to_string())
            .cell(node(worker.numa_node))
            .cell(memory.map_or("", |memory| memory.kind.word()))
            .cell(memory.map_or_else(String::new, |memory| node(memory.numa_node)))
            .cell(human::amount(worker.misdirected_packets))
            .cell(idle)
            .toned(Tone::Warning, &worker.hint);
    }
    table.render(style)
}

pub fn drops(drops: &[DropInfo], all: bool, style: Style) -> String {
    let mut shown: Vec<&DropInfo> = drops.iter().filter(|d| all || d.count > 0).collect();
    if shown.is_empty() {
        return "No packet was dropped.\n".to_owned();
    }
    shown.sort_by_key(|drop| std::cmp::Reverse(drop.count));
    let several = shown.iter().any(|drop| drop.per_worker.len() > 1);
    let mut table =
        Table::default().text("REASON").number("PACKETS").text("BY WORKER").prose("MEANING");
    for drop in shown {
        let by_worker: Vec<String> = drop.per_worker.iter().copied().map(human::exact).collect();
        table
            .row()
            .cell(&drop.reason)
            .cell(human::exact(drop.count))
            .cell(if several { by_worker.join(" ") } else { String::new() })
            .cell(drop.description.trim());
    }
    table.render(style)
}

//! Ports as the API shows them.

use super::dataplane::OpenPort;
use super::steering::RulesShown;
use super::task::LinkProbe;
use crate::api::model::{
    BuffersInfo, ControlInfo, ControlInterface, InterruptsInfo, PortInfo, PortStats, SteeringInfo,
    SteeringMode,
};
use crate::config::model::Device;
use crate::forward::steering::{Mode, PortSteering};
use crate::forward::tables::Mac;
use crate::port::Caps;
use crate::port::dpdk::DpdkPort;
use std::sync::{Arc, Mutex, PoisonError};

/// Asks the port's device for its link.
pub fn link_probe(port: &OpenPort) -> LinkProbe {
    let wire = port.wire.clone();
    Box::new(move || wire.link().is_ok_and(|link| link.up))
}

/// Describes all ports, as they are whenever it is asked.
pub fn describer(ports: &[OpenPort]) -> Box<dyn Fn() -> Vec<PortInfo> + Send + Sync> {
    let described: Vec<(PortInfo, DpdkPort, Arc<Mutex<RulesShown>>)> = ports
        .iter()
        .map(|port| (fixed(port), port.wire.clone(), Arc::clone(&port.rules)))
        .collect();
    Box::new(move || {
        let now = |(fixed, wire, rules): &(PortInfo, DpdkPort, Arc<Mutex<RulesShown>>)| {
            let mut port = now(fixed.clone(), wire);
            show_rules(&mut port.steering, rules);
            port
        };
        described.iter().map(now).collect()
    })
}

fn fixed(port: &OpenPort) -> PortInfo {
    let info = port.wire.info();
    PortInfo {
        name: port.config.name.clone(),
        device: match &port.config.device {
            Device::Pci(address) => address.clone(),
            Device::Mac(address) => format!("mac:{}", mac(*address)),
            Device::Vdev(arguments) => arguments.clone(),
        },
        driver: info.driver.clone(),
        mac: mac(info.mac),
        link_up: false,
        speed_mbps: None,
        mtu: port.config.mtu,
        numa_node: info.socket,
        buffers: Some(BuffersInfo {
            count: port.buffers.mbufs,
            numa_node: port.buffers.node,
            reason: port.buffers.why.clone(),
        }),
        rx_queues: info.queues,
        tx_queues: info.queues,
        control: Some(ControlInfo {
            interface: port.config.name.clone(),
            kind: match port.control_kind {
                kni::control::Kind::VhostNet => ControlInterface::VhostNet,
                kni::control::Kind::Tap => ControlInterface::Tap,
            },
            reason: port.control_why.clone(),
            rx_interrupts: Some(interrupts(&port.control)),
        }),
        steering: steering(port),
        rx_interrupts: Some(interrupts(&port.wire)),
        caps: caps(info.caps),
        stats: PortStats::default(),
    }
}

fn now(mut port: PortInfo, wire: &DpdkPort) -> PortInfo {
    if let Ok(link) = wire.link() {
        port.link_up = link.up;
        let known = link.speed_mbps != 0 && link.speed_mbps != u32::MAX;
        port.speed_mbps = known.then_some(link.speed_mbps);
    }
    if let Ok(stats) = wire.stats() {
        port.stats = PortStats {
            rx_packets: stats.rx_packets,
            tx_packets: stats.tx_packets,
            rx_bytes: stats.rx_bytes,
            tx_bytes: stats.tx_bytes,
            rx_errors: stats.rx_errors,
            tx_errors: stats.tx_errors,
            rx_missed: stats.rx_missed,
            rx_nombuf: stats.rx_no_buffer,
        };
    }
    port
}

fn interrupts(port: &DpdkPort) -> InterruptsInfo {
    let wanting = port.info().interrupts.as_ref().err();
    InterruptsInfo { in_use: wanting.is_none(), reason: wanting.cloned().unwrap_or_default() }
}

fn steering(port: &OpenPort) -> SteeringInfo {
    let PortSteering { mode, reason } = &port.steering;
    SteeringInfo {
        mode: match mode {
            Mode::Single => SteeringMode::Single,
            Mode::FlowRules => SteeringMode::FlowRule,
            Mode::Rss => SteeringMode::Rss,
            Mode::Software => SteeringMode::Software,
        },
        reason: reason.clone(),
        flow_rules: 0,
        flow_rules_refused: 0,
    }
}

/// Rules come and go with the local addresses.
fn show_rules(steering: &mut SteeringInfo, rules: &Mutex<RulesShown>) {
    let rules = rules.lock().unwrap_or_else(PoisonError::into_inner);
    steering.flow_rules = rules.made;
    steering.flow_rules_refused = rules.refused;
    if let Some(error) = &rules.error {
        steering.reason =
            format!("{} local addresses have no rule, the last {error}", rules.refused);
    }
}

fn caps(caps: Caps) -> Vec<String> {
    [
        (caps.rx_ipv4_checksum, "rx-ipv4-checksum"),
        (caps.rx_l4_checksum, "rx-l4-checksum"),
        (caps.tx_ipv4_checksum, "tx-ipv4-checksum"),
        (caps.tx_l4_checksum, "tx-l4-checksum"),
        (caps.rss, "rss"),
    ]
    .into_iter()
    .filter(|(has, _)| *has)
    .map(|(_, name)| name.to_owned())
    .collect()
}

fn mac(mac: Mac) -> String {
    mac.0.map(|byte| format!("{byte:02x}")).join(":")
}

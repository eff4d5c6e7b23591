//! Steering of the node's own ports: asks the devices, has the way chosen, and keeps flow rules in
//! step with the local addresses.

use super::dataplane::OpenPort;
use crate::config::model::Config;
use crate::forward::steering::{Choice, Mode, PortOffer, Wish, choose, owner_of_lip};
use crate::forward::tables::LipSpec;
use crate::port::dpdk::{DpdkPort, LipRules};
use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

/// Ask every port and choose. Logs a line per port.
pub fn probe(config: &Config, ports: &[OpenPort]) -> Choice {
    let (wish, workers) = (config.dataplane.steering, config.dataplane.workers.len() as u16);
    let lips = &config.local_addresses;
    let offers: Vec<PortOffer> = ports
        .iter()
        .map(|port| {
            let rules = if workers > 1 && matches!(wish, Wish::Auto | Wish::FlowRules) {
                probe_rules(&port.wire, lips, workers)
            } else {
                Err("not asked for".to_owned())
            };
            port.wire.info().offer(&port.config.name, rules)
        })
        .collect();
    let v6 = lips.iter().filter(|lip| lip.is_ipv6()).count();
    let choice = choose(wish, &offers, workers, [lips.len() - v6, v6]);
    for (port, steering) in ports.iter().zip(&choice.ports) {
        let (mode, reason) = (steering.mode, &steering.reason);
        tracing::info!(port = port.config.name, ?mode, reason, "steering");
    }
    if choice.disappointed {
        tracing::warn!(?wish, "steering is not on every port as configured; see `dunlin ports`");
    }
    choice
}

/// Whether the port takes rules for all local addresses.
fn probe_rules(wire: &DpdkPort, lips: &[IpAddr], workers: u16) -> Result<(), String> {
    // Fewer queues than workers: the rest cannot be led to. It is said elsewhere.
    let queues = wire.info().queues.min(workers).max(1);
    let numbered = lips.iter().copied().zip((0..queues).cycle());
    if lips.is_empty() {
        return Err("there are no local addresses".to_owned());
    }
    LipRules::probe(wire, numbered).map_err(|error| error.to_string())
}

/// The flow rules of all ports that have some. Removed from the NICs when dropped.
#[derive(Debug)]
pub struct Rules {
    workers: u16,
    lips: Vec<LipSpec>,
    ports: Vec<PortRules>,
}

#[derive(Debug)]
struct PortRules {
    name: String,
    wire: DpdkPort,
    made: HashMap<IpAddr, LipRules>,
    refused: HashSet<IpAddr>,
    shown: Arc<Mutex<RulesShown>>,
}

/// For the API.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RulesShown {
    /// Local addresses that have their rules.
    pub made: u64,
    /// Local addresses that have none, because the NIC refused them: handed over in software.
    pub refused: u64,
    /// Why, the last time.
    pub error: Option<String>,
}

impl Rules {
    pub fn new(ports: &[OpenPort], workers: u16) -> Self {
        let ports = ports.iter().filter(|port| port.steering.mode == Mode::FlowRules);
        let of_port = |port: &OpenPort| PortRules {
            name: port.config.name.clone(),
            wire: port.wire.clone(),
            made: HashMap::new(),
            refused: HashSet::new(),
            shown: Arc::clone(&port.rules),
        };
        Self { workers, lips: Vec::new(), ports: ports.map(of_port).collect() }
    }

    /// Whether any port has rules, so that every worker needs a local address.
    pub fn in_use(&self) -> bool {
        !self.ports.is_empty()
    }

    /// Make the rules that these local addresses need and remove those that they do not. Replies
    /// that have no rule are handed over, so the order of this and the tables does not matter.
    pub fn follow(&mut self, lips: &[LipSpec]) {
        if self.lips == lips {
            return;
        }
        self.lips = lips.to_vec();
        for port in &mut self.ports {
            port.follow(lips, self.workers);
        }
    }
}

impl PortRules {
    fn follow(&mut self, lips: &[LipSpec], workers: u16) {
        let wanted: HashSet<IpAddr> = lips.iter().map(|lip| lip.address).collect();
        self.made.retain(|lip, _| wanted.contains(lip));
        self.refused.clear();
        let mut why = None;
        for lip in lips {
            if self.made.contains_key(&lip.address) {
                continue;
            }
            match LipRules::make(&self.wire, lip.address, owner_of_lip(lip.id, workers).0) {
                Ok(rules) => {
                    self.made.insert(lip.address, rules);
                }
                Err(error) => {
                    tracing::warn!(
                        port = self.name,
                        lip = %lip.address,
                        %error,
                        "no flow rule; its replies are handed over in software"
                    );
                    self.refused.insert(lip.address);
                    why = Some(format!("{}: {error}", lip.address));
                }
            }
        }
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        *shown = RulesShown {
            made: self.made.len() as u64,
            refused: self.refused.len() as u64,
            error: why,
        };
    }
}

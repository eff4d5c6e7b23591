//! `dunlin doctor`: the machine as an operator wants to see it, on the appliance and on plain Debian.
//!
//! In: sysfs, the configuration, the node's API if it answers. Out: what was found, what is chosen and
//! why, what is wrong and what would be faster, each with what to do about it. It changes nothing, and
//! what it cannot find out it says.

mod appliance;
mod chosen;
mod cores;
mod ports;
pub mod show;

#[cfg(test)]
mod tests;

use super::host::Host;
use super::machine::inventory::{HUGEPAGE_MIB, Inventory};
use super::machine::plan::{self, Plan};
use super::node::Node;
use crate::api::model::{PortInfo, Status};
use crate::cli::human;
use crate::config::Config;
use serde::Serialize;
use std::path::Path;

/// Everything there is to say.
#[derive(Debug, Serialize)]
pub struct Report {
    pub version: String,
    /// The system of the image, with two slots.
    pub appliance: bool,
    pub found: Vec<Fact>,
    pub cards: Vec<Card>,
    pub chosen: Vec<Choice>,
    pub findings: Vec<Finding>,
}

#[derive(Debug, Clone, Serialize)]
pub struct Fact {
    pub what: &'static str,
    pub text: String,
}

/// A network card.
#[derive(Debug, Clone, Serialize)]
pub struct Card {
    pub address: String,
    pub interface: Option<String>,
    pub mac: Option<String>,
    pub vendor: String,
    pub driver: Option<String>,
    pub numa_node: Option<u32>,
    pub link: String,
    /// `port wan0`, `management`, or empty.
    pub role: String,
}

#[derive(Debug, Clone, Serialize)]
pub struct Choice {
    pub what: String,
    pub choice: String,
    pub why: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// The node cannot do its work, or not all of it.
    Problem,
    /// It works, but somebody should know.
    Warning,
    /// It would be faster otherwise.
    Faster,
}

#[derive(Debug, Clone, Serialize)]
pub struct Finding {
    pub level: Level,
    pub what: String,
    /// What to do; may be empty.
    pub advice: String,
}

/// All that the checks look at.
#[derive(Debug)]
struct Patient<'a> {
    host: &'a Host,
    inventory: Inventory,
    /// `None`: there is none, or it is not valid.
    config: Option<Config>,
    plan: Option<Plan>,
    status: Option<Status>,
    /// Empty if the node does not answer.
    ports: Vec<PortInfo>,
}

/// Collects findings.
#[derive(Debug, Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn problem(&mut self, what: impl Into<String>, advice: impl Into<String>) {
        self.add(Level::Problem, what, advice);
    }

    fn warning(&mut self, what: impl Into<String>, advice: impl Into<String>) {
        self.add(Level::Warning, what, advice);
    }

    fn faster(&mut self, what: impl Into<String>, advice: impl Into<String>) {
        self.add(Level::Faster, what, advice);
    }

    fn add(&mut self, level: Level, what: impl Into<String>, advice: impl Into<String>) {
        self.0.push(Finding { level, what: what.into(), advice: advice.into() });
    }
}

impl Report {
    pub fn make(host: &Host, node: &dyn Node, file: &Path) -> Self {
        let mut findings = Findings::default();
        let config = configuration(host, file, &mut findings);
        let inventory = Inventory::take(&host.root);
        let plan = config.as_ref().map(|config| Plan::make(&host.root, &inventory, config));
        let status = node.status();
        if let (Err(error), Some(_)) = (&status, &config) {
            let advice = "systemctl start dunlin; journalctl -u dunlin";
            findings.problem(format!("the node does not answer: {error:#}"), advice);
        }
        let ports = node.ports().unwrap_or_default();
        let patient = Patient { host, inventory, config, plan, status: status.ok(), ports };
        patient.preparation(&mut findings);
        patient.memory(&mut findings);
        ports::check(&patient, &mut findings);
        cores::check(&patient, &mut findings);
        appliance::check(&patient, &mut findings);
        let mut findings = findings.0;
        findings.sort_by_key(|finding| finding.level);
        Self {
            version: super::gate::running_version(&host.root),
            appliance: host.root.is_appliance(),
            found: patient.found(),
            cards: patient.cards(),
            chosen: chosen::choices(&patient),
            findings,
        }
    }

    pub fn has_problem(&self) -> bool {
        self.findings.iter().any(|finding| finding.level == Level::Problem)
    }
}

fn configuration(host: &Host, file: &Path, findings: &mut Findings) -> Option<Config> {
    if !host.root.exists(file) {
        let what = format!("there is no configuration ({})", file.display());
        findings.problem(what, "dunlin setup asks for one; docs/example.toml has every key");
        return None;
    }
    match Config::load(host.root.path(file)) {
        Ok(config) => Some(config),
        Err(errors) => {
            let what = format!("the configuration is not valid:\n{errors}");
            findings.problem(what, format!("dunlind --check {}", file.display()));
            None
        }
    }
}

impl Patient<'_> {
    fn workers(&self) -> &[u16] {
        self.config.as_ref().map_or(&[], |config| &config.dataplane.workers)
    }

    /// What `dunlin machine` has to say, and whether it was run.
    fn preparation(&self, findings: &mut Findings) {
        let Some(plan) = &self.plan else { return };
        for remark in &plan.remarks {
            match remark.level {
                plan::Level::Problem => findings.problem(&remark.text, ""),
                plan::Level::Warning => findings.warning(&remark.text, ""),
                plan::Level::Note => {}
            }
        }
        // What the cards and the memory still need stops the node; the rest costs speed.
        let (vital, rest): (Vec<_>, Vec<_>) = plan.steps.iter().partition(|step| {
            matches!(step, plan::Step::Bind { .. } | plan::Step::Hugepages { .. })
        });
        for step in vital {
            findings.problem(format!("not done yet: {step}"), "dunlin machine");
        }
        for step in rest {
            findings.faster(format!("not done yet: {step}"), "dunlin machine");
        }
    }

    fn memory(&self, findings: &mut Findings) {
        let pages: u64 = self.inventory.memory.iter().map(|node| node.pages).sum();
        let wants = self.config.as_ref().is_none_or(|config| config.dataplane.hugepages);
        if !wants {
            let advice = "hugepages = true in [dataplane]";
            findings.faster("the configuration takes ordinary memory instead of hugepages", advice);
        } else if pages == 0 {
            findings.problem("no hugepages are reserved", "dunlin machine reserves them");
        }
        // Of a port without one, `dunlin machine` has said so.
        let said = self.plan.iter().flat_map(|plan| &plan.ports).any(|(_, address)| {
            let nic = self.inventory.nic(address);
            nic.is_some_and(|nic| !nic.behind_iommu() && !nic.is_shared())
        });
        if !self.inventory.iommu && !said {
            let what = "no IOMMU: data ports can write anywhere in memory (uio_pci_generic)";
            findings.warning(what, self.inventory.iommu_advice(None));
        }
    }

    fn found(&self) -> Vec<Fact> {
        let inventory = &self.inventory;
        let virtual_machine = if inventory.virtual_machine { ", virtual machine" } else { "" };
        let nodes = human::counted(inventory.memory.len() as u64, "NUMA node");
        let cores = human::counted(inventory.cpus.len() as u64, "core");
        let (pages, free) = inventory
            .memory
            .iter()
            .fold((0, 0), |(pages, free), node| (pages + node.pages, free + node.pages_free));
        let memory = human::bytes(inventory.memory_mib() << 20);
        let reserved = human::bytes((pages * HUGEPAGE_MIB) << 20);
        let yes = |is: bool, what: &str| format!("{what} {}", if is { "yes" } else { "NO" });
        let kernel = self.host.root.read("proc/sys/kernel/osrelease").unwrap_or_default();
        let mut facts = vec![
            Fact {
                what: "Processor",
                text: format!("{}, {cores}, {nodes}{virtual_machine}", inventory.cpu_model),
            },
            Fact {
                what: "Memory",
                text: format!("{memory}, of it {reserved} in hugepages, {free} of {pages} free"),
            },
            Fact {
                what: "Kernel",
                text: format!(
                    "{kernel}{}: {}, {}, {}, {}",
                    if inventory.locked_down { ", locked down (Secure Boot)" } else { "" },
                    yes(inventory.iommu, "IOMMU"),
                    yes(inventory.vhost_net, "vhost-net"),
                    yes(inventory.tun, "tun"),
                    yes(inventory.watchdog, "watchdog")
                ),
            },
        ];
        facts.extend(appliance::facts(self));
        facts
    }

    fn cards(&self) -> Vec<Card> {
        let config = self.config.as_ref();
        let management = config.map(|config| plan::management(&self.inventory, config));
        let ports = self.plan.iter().flat_map(|plan| &plan.ports);
        let ports: Vec<_> = ports.collect();
        let cards = self.inventory.nics.iter().map(|nic| {
            let port = ports.iter().find(|(_, address)| *address == nic.address);
            let manages = management.iter().flatten().any(|other| other.address == nic.address);
            Card {
                address: nic.address.clone(),
                interface: nic.interface.as_ref().map(|interface| interface.name.clone()),
                mac: self.inventory.mac_of(nic),
                vendor: nic.vendor_name(),
                driver: nic.driver.clone(),
                numa_node: nic.numa_node,
                link: nic.link_text(),
                role: match port {
                    Some((name, _)) => format!("port {name}"),
                    None if manages => "management".to_owned(),
                    None => String::new(),
                },
            }
        });
        cards.collect()
    }
}

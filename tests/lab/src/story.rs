//! The demo's scenario: what Dunlin is for, shown on real packets, every claim measured and
//! asserted.
//!
//! Each step is a method of [`Story`]: it acts, waits for what must follow, fails if it does not,
//! tells it in a line or two, and returns what it measured. `cargo xtask demo` runs
//! [`Story::run`]; the failover tests call the same steps one by one.

mod arms;
mod backends;
mod datagrams;
mod drain;
mod failures;
mod flood;
mod outage;
mod paths;
mod reload;
mod scale;
mod service;
mod share;
mod teller;

pub use datagrams::echo_service;
pub use drain::Move;
pub use failures::{BackendDeath, Blackout, Freeze, NodeDeath, Return};
pub use outage::decided;
pub use reload::By;
pub use scale::Scale;
pub use service::{Announced, Spread};
pub use teller::{Teller, short};

use crate::fabric::{Fabric, Options};
use crate::node::Binaries;
use crate::stall::StallWatch;
use anyhow::{Context, Result};
use std::time::Duration;

/// How long the lab may take for what has no deadline of its own.
const PATIENCE: Duration = Duration::from_secs(20);

/// A fabric and what is told about it.
#[derive(Debug)]
pub struct Story {
    pub fabric: Fabric,
    pub teller: Teller,
    stalls: StallWatch,
}

impl Story {
    /// Lay out the hosts. Nodes are not started.
    pub fn begin(binaries: &Binaries, options: Options, mut teller: Teller) -> Result<Self> {
        teller.step("Lay out the hosts in network namespaces");
        let fabric = Fabric::new(binaries, options)?;
        let mut story = Self { fabric, teller, stalls: StallWatch::start()? };
        story.laid_out()?;
        Ok(story)
    }

    /// The whole scenario.
    pub fn run(&mut self) -> Result<()> {
        self.announce().context("starting the nodes")?;
        self.spread().context("spreading requests")?;
        self.backend_dies(1).context("the death of a backend")?;
        self.all_backends_die().context("the death of all backends")?;
        let last = self.fabric.options.workers.len() as u16 - 1;
        self.worker_freezes(1, last).context("a frozen worker")?;
        self.node_dies(1).context("the death of a node")?;
        self.node_returns(1).context("the return of a node")?;
        Ok(())
    }

    /// Tell a failure: what failed, where the logs stay, and whether the machine may be to blame.
    pub fn failed(&mut self, error: &anyhow::Error) -> Result<()> {
        self.teller.fail(&format!("{error:#}"));
        let logs = self.fabric.lab.keep_logs()?;
        self.teller.note(&format!("logs: {}", logs.display()));
        let (worst, ago) = self.stalls.worst();
        self.teller.note(&format!(
            "the machine kept this program from running for up to {} ({} ago)",
            teller::short(worst),
            teller::short(ago)
        ));
        Ok(())
    }

    /// Leave everything up and say how to play with it.
    pub fn keep(mut self) -> Result<()> {
        self.fabric.lab.keep()?;
        self.teller.step("The lab stays up");
        for line in self.play() {
            self.teller.note(&line);
        }
        // Their guards would stop the processes.
        std::mem::forget(self);
        Ok(())
    }

    /// Commands for people.
    fn play(&self) -> Vec<String> {
        let fabric = &self.fabric;
        let client = fabric.client.full_name();
        let tor = fabric.tor.full_name();
        let mut lines = vec![
            format!("ip netns exec {client} curl -s http://192.0.2.10/ 'http://[2001:db8::10]/'"),
            format!("ip -n {tor} route show proto bgp; ip -n {tor} -6 route show proto bgp"),
        ];
        if let Ok(frr) = fabric.router.frr() {
            lines.push(format!("{} -c 'show bgp summary'", frr.vtysh_line()));
        }
        for node in &fabric.nodes {
            lines.push(format!("{} status    # {}", node.cli_line(), node.name()));
        }
        lines.push("…or services, backends, flows, bgp, ports, drops, announce, drain".into());
        lines.push("cargo xtask lab down    # removes it".into());
        lines
    }
}

//! A flood of packets for nobody must not take the sessions down.

use super::{PATIENCE, Story};
use crate::fabric::{Fabric, VIP4};
use crate::udp::Flood;
use crate::wait::wait_until;
use anyhow::{Result, ensure};
use serde_json::Value;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// How long it lasts: many times the detection time of BFD.
const LASTS: Duration = Duration::from_secs(6);

impl Story {
    /// Up to `rate` small datagrams a second to a port of a VIP that has no service.
    pub fn flooded(&mut self, rate: u32) -> Result<f64> {
        self.teller.step(&format!("Flood a VIP with up to {rate} datagrams per second"));
        wait_until("BFD up on every node", PATIENCE, || {
            self.bfd_sessions().is_ok_and(|all| all.iter().all(|s| s["state"] == "up"))
        })?;
        let sessions = self.sessions_came_up()?;
        let ups = self.bfd_came_up()?;
        let received = self.received()?;
        let load = self.load(50)?;
        let since = Instant::now();
        let flood = Flood::start(&self.fabric.client, SocketAddr::new(VIP4, 9), rate)?;
        wait_until("the flood's end", LASTS + PATIENCE, || since.elapsed() >= LASTS)?;
        let sent = flood.sent();
        let took = since.elapsed().as_secs_f64();
        drop(flood);
        let report = load.stop();
        let arrived = (self.received()? - received) as f64 / took;
        ensure!(self.sessions_came_up()? == sessions, "BGP sessions went down");
        ensure!(self.bfd_came_up()? == ups, "BFD sessions went down");
        for prefix in Fabric::vip_prefixes() {
            let changes = self.fabric.fib.changes(prefix, since);
            ensure!(changes.is_empty(), "{prefix} changed: {changes:?}");
        }
        self.teller.check(&format!(
            "{:.0} datagrams/s sent, {arrived:.0} packets/s reached the workers: no session went \
             down, no route changed",
            sent as f64 / took
        ));
        let lost = report.len() - report.ok();
        self.teller.note(&format!("{lost} of {} requests meanwhile were lost", report.len()));
        Ok(arrived)
    }

    /// How often each BFD session came up.
    fn bfd_came_up(&self) -> Result<Vec<u64>> {
        Ok(self.bfd_sessions()?.iter().filter_map(|s| s["up_count"].as_u64()).collect())
    }

    /// Every BFD session of every node.
    fn bfd_sessions(&self) -> Result<Vec<Value>> {
        let mut all = Vec::new();
        for node in &self.fabric.nodes {
            let bfd = node.get("/v1/bfd")?;
            all.extend(bfd["sessions"].as_array().into_iter().flatten().cloned());
        }
        ensure!(!all.is_empty(), "no BFD sessions");
        Ok(all)
    }

    /// Packets that the workers received, over all nodes.
    fn received(&self) -> Result<u64> {
        let mut sum = 0;
        for node in &self.fabric.nodes {
            let workers = node.get("/v1/workers")?;
            let workers = workers.as_array().into_iter().flatten();
            sum += workers.filter_map(|w| w["rx_packets"].as_u64()).sum::<u64>();
        }
        Ok(sum)
    }
}

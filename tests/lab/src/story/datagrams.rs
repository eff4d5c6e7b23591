//! A UDP service through the whole lab, and pings.

use super::{PATIENCE, Story};
use crate::fabric::{Fabric, VIP4, VIP6, backend_addresses};
use crate::udp::{self, Echo};
use crate::wait::wait_for;
use anyhow::{Context, Result, ensure};
use std::fmt::Write;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// The UDP service's port.
const ECHO: u16 = 7;

/// Configuration of a UDP service on both VIPs, beside the web service. It is kept without
/// backends, so that a client's datagram meets a node that has nowhere to send it.
pub fn echo_service(backends: u8) -> String {
    let mut text = format!(
        "\n[[service]]\nname = \"echo\"\nvips = [\"{VIP4}\", \"{VIP6}\"]\nprotocol = \"udp\"\n\
         port = {ECHO}\non-no-backend = \"keep\"\n\
         check = {{ type = \"tcp\", port = 80, interval = \"250ms\", timeout = \"200ms\" }}\n"
    );
    for n in 1..=backends {
        for address in backend_addresses(n) {
            let _ = write!(text, "\n[[service.backend]]\naddress = \"{address}\"\n");
        }
    }
    text
}

impl Story {
    /// Datagrams through both VIPs of [`echo_service`]: answered, spread, shown, answered if they come in
    /// fragments too, and dropped for a named reason when no backend is left. Pings of the VIPs are answered.
    pub fn datagrams(&mut self) -> Result<()> {
        const ASKED: u32 = 300;
        self.teller.step("UDP through both VIPs, each datagram from a port of its own");
        let servers = (1..=self.fabric.options.backends)
            .map(|n| Echo::start(self.fabric.backend_netns(n), ECHO))
            .collect::<Result<Vec<_>>>()?;
        for vip in [VIP4, VIP6] {
            let target = SocketAddr::new(vip, ECHO);
            let answers =
                self.fabric.client.enter(|| udp::ask(target, ASKED, Duration::from_secs(2)))??;
            ensure!(
                answers.len() == servers.len() && answers.values().all(|n| *n >= 30),
                "{target}: {answers:?}"
            );
            self.teller.check(&format!("{target}: {ASKED} answered: {answers:?}"));
        }
        self.flows_are_shown(u64::from(ASKED) * 2)?;
        self.fragments_are_answered()?;
        for vip in [VIP4, VIP6] {
            let out = self
                .fabric
                .client
                .run("ping", &["-c", "3", "-i", "0.2", "-W", "1", &vip.to_string()])?;
            ensure!(out.contains(" 0% packet loss"), "{out}");
        }
        self.teller.check("pings of both VIPs are answered");
        self.no_backend_is_counted()
    }

    fn flows_are_shown(&mut self, count: u64) -> Result<()> {
        let mut matched = 0;
        for node in &self.fabric.nodes {
            let flows =
                node.ask(&["flows", "--protocol", "udp", "--service", "echo", "--limit", "5"])?;
            let listed = flows["flows"].as_array().context("flows")?;
            ensure!(listed.len() == 5 && listed.iter().all(|f| f["protocol"] == "udp"), "{flows}");
            matched += flows["matched"].as_u64().context("matched")?;
        }
        ensure!(matched == count, "{matched} UDP flows for {count} clients");
        // One client's own flow, on whichever node it is.
        let target = SocketAddr::new(VIP6, ECHO);
        let socket = self.fabric.client.enter(|| udp::open(target, 0))??;
        let client = socket.local_addr()?.to_string();
        socket.send(b"here")?;
        wait_for("the client's flow", PATIENCE, || {
            let mut mine = 0;
            for node in &self.fabric.nodes {
                mine += node.ask(&["flows", "--client", &client])?["matched"].as_u64().unwrap_or(0);
            }
            ensure!(mine == 1, "{mine} flows of {client}");
            Ok(())
        })?;
        self.teller.check(&format!("{matched} flows shown; one client's is found by its address"));
        Ok(())
    }

    /// Longer than the MTU of every wire, both ways. IPv6 alone: DPDK's af_packet, on which the lab's nodes
    /// stand, has the kernel put fragments of IPv4 together before the node sees them
    /// (`PACKET_FANOUT_FLAG_DEFRAG`), and what comes of it is larger than the wire.
    fn fragments_are_answered(&mut self) -> Result<()> {
        const LENGTHS: [usize; 3] = [1600, 4000, 20_000];
        let before = self.fragments()?;
        let target = SocketAddr::new(VIP6, ECHO);
        for bytes in LENGTHS {
            let ask = || udp::ask_at_length(target, bytes, Duration::from_secs(2));
            self.fabric.client.enter(ask)??;
        }
        // The last answer may not be counted yet; it was sent by a node nevertheless.
        let least: u64 = LENGTHS.iter().map(|bytes| bytes.div_ceil(1500) as u64 * 2).sum();
        wait_for("counted fragments", PATIENCE, || {
            let counted = self.fragments()? - before;
            ensure!(counted >= least, "{counted} fragments counted, at least {least} were sent");
            Ok(())
        })?;
        self.teller
            .check("datagrams of 1600, 4000 and 20000 bytes came back over IPv6, in fragments");
        Ok(())
    }

    /// Fragments translated, over all nodes.
    fn fragments(&self) -> Result<u64> {
        let mut sum = 0;
        for node in &self.fabric.nodes {
            let workers = node.get("/v1/workers")?;
            for worker in workers.as_array().context("workers")? {
                sum += worker["fragment_packets"].as_u64().context("fragment_packets")?;
            }
        }
        Ok(sum)
    }

    fn no_backend_is_counted(&mut self) -> Result<()> {
        let since = Instant::now();
        let before = self.dropped("no-backend")?;
        for backend in &mut self.fabric.backends {
            backend.kill()?;
        }
        for node in &self.fabric.nodes {
            wait_for("backends down", PATIENCE, || {
                let backends = node.backends()?;
                ensure!(backends.iter().all(|b| !b.healthy()), "{backends:?}");
                Ok(())
            })?;
        }
        let target = SocketAddr::new(VIP4, ECHO);
        const LOST: u32 = 20;
        let answers = self
            .fabric
            .client
            .enter(|| udp::ask_anew(target, LOST, Duration::from_millis(20)))??;
        ensure!(answers.keys().all(String::is_empty), "somebody answers: {answers:?}");
        wait_for("counted drops", PATIENCE, || {
            let now = self.dropped("no-backend")?;
            ensure!(now >= before + u64::from(LOST), "{before}, now {now}");
            Ok(())
        })?;
        for prefix in Fabric::vip_prefixes() {
            ensure!(self.fabric.fib.changes(prefix, since).is_empty(), "{prefix} was not kept");
        }
        self.teller.check("all backends down: counted as no-backend, VIPs kept as configured");
        for backend in &mut self.fabric.backends {
            backend.up()?;
        }
        self.wait_backends_healthy()?;
        let answers =
            self.fabric.client.enter(|| udp::ask(target, LOST, Duration::from_secs(2)))??;
        ensure!(!answers.contains_key(""), "after their return: {answers:?}");
        self.teller.check("they return, and answer");
        Ok(())
    }

    /// Packets dropped for a reason, over all nodes.
    pub(super) fn dropped(&self, reason: &str) -> Result<u64> {
        let mut sum = 0;
        for node in &self.fabric.nodes {
            let drops = node.get("/v1/drops")?;
            let drops = drops.as_array().context("drops")?;
            let found = drops.iter().find(|d| d["reason"] == reason);
            let found = found.with_context(|| format!("no reason {reason} in {drops:?}"))?;
            sum += found["count"].as_u64().context("count")?;
        }
        Ok(sum)
    }
}

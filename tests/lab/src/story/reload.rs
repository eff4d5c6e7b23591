//! A running node takes a new configuration, or refuses a broken one, and clients notice neither.

use super::service::lossless;
use super::teller::short;
use super::{PATIENCE, Story};
use crate::fabric::{Fabric, PORT, VIP4, backend_addresses};
use crate::fib::{NextHops, Prefix};
use crate::http::{self, Download};
use crate::node::Dunlind;
use crate::wait::{wait_for, wait_until};
use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// VIPs that come with a reload.
const NEW_VIPS: [&str; 2] = ["192.0.2.20", "2001:db8::20"];

/// Bytes per second of the long download: it outlasts every step.
const SLOW: u32 = 400_000;

/// How the operator makes a node read its file again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    Command,
    Signal,
}

impl Story {
    /// Every kind of change under load and during a long download through each VIP.
    pub fn reloads(&mut self, by: By) -> Result<()> {
        self.teller.step(&format!("Change the configuration of running nodes by {by:?}"));
        let sessions = self.sessions_came_up()?;
        let since = Instant::now();
        let load = self.load(200)?;
        let downloads = self.downloads(SLOW)?;
        let backend = self.backend_of_flow(SocketAddr::new(VIP4, PORT))?;

        self.remove_backend(backend, by)?;
        let removed = Instant::now();
        wait_until("requests without it", PATIENCE, || load.so_far().after(removed).len() >= 60)?;
        let shares = load.so_far().after(removed).by_backend();
        ensure!(
            !shares.contains_key(&format!("b{backend}")),
            "b{backend} still gets requests: {shares:?}"
        );
        self.teller.check(&format!("b{backend}, which serves the IPv4 download, is removed"));

        self.weigh(backend, by)?;
        let heavy = Instant::now();
        wait_until("requests by weight", PATIENCE, || load.so_far().after(heavy).len() >= 400)?;
        let shares = load.so_far().after(heavy).by_backend();
        let total: usize = shares.values().sum();
        let mine = shares.get(&format!("b{backend}")).copied().unwrap_or_default();
        // Weight 4 against 1 and 1: two thirds.
        ensure!(mine * 2 > total && mine < total * 9 / 10, "weight 4 of 6 gave {shares:?}");
        self.teller.check(&format!("it returns with weight 4 of 6: {mine} of {total} requests"));

        let added = self.add_service(by)?;
        self.teller.check(&format!("a service on new VIPs: in the router after {}", short(added)));
        let gone = self.remove_service(by)?;
        self.teller.check(&format!("removed: out of the router after {}", short(gone)));

        lossless(&load.stop())?;
        for download in downloads {
            let done = download.join()?;
            ensure!(done.bytes == crate::nginx::DOWNLOAD, "cut short: {done:?}");
        }
        self.undisturbed(&sessions, since)?;
        self.teller.check("no request lost, both downloads intact, no session touched");
        Ok(())
    }

    /// A file with a mistake changes nothing, and says where the mistake is.
    pub fn broken_files(&mut self) -> Result<()> {
        self.teller.step("Reload broken files");
        let sessions = self.sessions_came_up()?;
        let since = Instant::now();
        let load = self.load(200)?;
        type Edit = fn(&str) -> String;
        let cases: [(&str, &str, Edit); 4] = [
            ("syntax", "asn = 65001\n", |t| t.replace("asn = 65001\n", "asn = = 65001\n")),
            ("type", "multiplier = 3", |t| t.replace("multiplier = 3", "multiplier = \"x\"")),
            ("unknown key", "rise = 2", |t| t.replace("rise = 2", "raise = 2")),
            ("meaning", "address = \"10.2.0.12\"", |t| {
                t.replace("address = \"10.2.0.12\"", "address = \"10.2.0.11\"")
            }),
        ];
        for (what, line, edit) in cases {
            let node = &self.fabric.nodes[0];
            let good = std::fs::read_to_string(node.config_path())?;
            let epoch = epoch(node)?;
            let at = good.lines().position(|l| format!("{l}\n").contains(line));
            let at = at.with_context(|| format!("{line:?} is not in the file"))? + 1;
            node.edit_config(edit)?;
            let out = node.try_show(&["reload"])?;
            let said = String::from_utf8_lossy(&out.stderr).into_owned();
            ensure!(out.status.code() == Some(1), "{what}: exit {:?}: {said}", out.status);
            let place = format!("dunlin.toml:{at}");
            ensure!(said.contains(&place), "{what}: no {place} in: {said}");
            let status = node.get("/v1/status")?.to_string();
            ensure!(status.contains(&place), "{what}: the status does not tell: {status}");
            ensure!(epoch == self::epoch(node)?, "{what}: tables changed");
            node.write_config(&good)?;
            node.show(&["reload"])?;
            let status = node.get("/v1/status")?.to_string();
            ensure!(!status.contains(&place), "{what}: still told after a good reload: {status}");
            let first = said.lines().next().unwrap_or_default().to_owned();
            self.teller.check(&format!("{what}: refused: {first}"));
        }
        // By signal nobody hears the answer: the status tells.
        let node = &mut self.fabric.nodes[0];
        let good = std::fs::read_to_string(node.config_path())?;
        node.edit_config(|t| t.replace("rise = 2", "rise = 0"))?;
        node.process()?.signal(Signal::SIGHUP)?;
        wait_for("the refusal in the status", PATIENCE, || {
            let status = node.get("/v1/status")?.to_string();
            ensure!(status.contains("dunlin.toml:"), "{status}");
            Ok(())
        })?;
        node.write_config(&good)?;
        node.show(&["reload"])?;
        lossless(&load.stop())?;
        self.undisturbed(&sessions, since)?;
        self.teller.check("no request lost, no session touched, no route changed");
        Ok(())
    }

    /// One download through each VIP, under way.
    pub(super) fn downloads(&self, rate: u32) -> Result<Vec<Download>> {
        let targets = self.fabric.targets().into_iter();
        let downloads = targets
            .map(|target| Download::start(&self.fabric.client, target, rate, PATIENCE))
            .collect::<Result<Vec<_>>>()?;
        wait_until("downloads", PATIENCE, || downloads.iter().all(|d| d.received() > 0))?;
        Ok(downloads)
    }

    /// How often each session of each node came up.
    pub(super) fn sessions_came_up(&self) -> Result<Vec<u64>> {
        let mut counts = Vec::new();
        for node in &self.fabric.nodes {
            let bgp = node.get("/v1/bgp")?;
            for neighbor in bgp["neighbors"].as_array().context("neighbors")? {
                counts.push(neighbor["established_count"].as_u64().context("established_count")?);
            }
        }
        Ok(counts)
    }

    /// Sessions came up no more often, and the router's routes to the VIPs never changed.
    fn undisturbed(&self, sessions: &[u64], since: Instant) -> Result<()> {
        let now = self.sessions_came_up()?;
        ensure!(now == sessions, "sessions flapped: {sessions:?}, then {now:?}");
        for prefix in Fabric::vip_prefixes() {
            let changes = self.fabric.fib.changes(prefix, since);
            ensure!(changes.is_empty(), "{prefix} changed: {changes:?}");
        }
        Ok(())
    }

    /// The backend (from 1) of the long flow to `vip`, on whatever node it is.
    pub(super) fn backend_of_flow(&self, vip: SocketAddr) -> Result<u8> {
        let mut seen = BTreeMap::new();
        let backend = wait_for("the download's flow", PATIENCE, || {
            let mut now = BTreeMap::new();
            for node in &self.fabric.nodes {
                let flows =
                    node.get(&format!("/v1/flows?vip={vip}&state=established&limit=100"))?;
                for flow in flows["flows"].as_array().context("flows")? {
                    let backend: SocketAddr =
                        flow["backend"].as_str().context("backend")?.parse()?;
                    now.insert(flow["client"].to_string(), backend.ip());
                }
            }
            // A request of the load is over by the next look.
            let since = seen.values().copied().min();
            let lasting = now.iter().find(|(client, _)| {
                seen.get(*client).is_some_and(|at: &Instant| at.elapsed().as_millis() > 150)
            });
            if let Some((_, backend)) = lasting {
                return Ok(*backend);
            }
            seen.retain(|client, _| now.contains_key(client));
            for client in now.into_keys() {
                seen.entry(client).or_insert_with(Instant::now);
            }
            anyhow::bail!("no established flow lasts; the oldest since {since:?}")
        })?;
        let mut all = 1..=self.fabric.options.backends;
        all.find(|b| backend_addresses(*b).contains(&backend)).context("a backend of nobody")
    }

    fn remove_backend(&mut self, backend: u8, by: By) -> Result<()> {
        self.change(by, |_, text| {
            let mut text = text.to_owned();
            for address in backend_addresses(backend) {
                text = text.replace(&format!("[[service.backend]]\naddress = \"{address}\"\n"), "");
            }
            text
        })?;
        self.wait_backends(|shown| !shown.iter().any(|b| backend_addresses(backend).contains(b)))
    }

    /// Bring a backend in again, with four times the weight of the others.
    fn weigh(&mut self, backend: u8, by: By) -> Result<()> {
        self.change(by, |_, text| {
            let mut entry = String::new();
            for address in backend_addresses(backend) {
                let _ =
                    write!(entry, "\n[[service.backend]]\naddress = \"{address}\"\nweight = 4\n");
            }
            format!("{text}{entry}")
        })?;
        self.wait_backends_healthy()
    }

    fn add_service(&mut self, by: By) -> Result<Duration> {
        let start = Instant::now();
        let [backend, _] = backend_addresses(1);
        let [_, backend6] = backend_addresses(2);
        let [vip4, vip6] = NEW_VIPS;
        self.change(by, |_, text| {
            format!(
                "{text}\n[[service]]\nname = \"new\"\nvips = [\"{vip4}\", \"{vip6}\"]\n\
                 protocol = \"tcp\"\nport = 8080\n\
                 backend = [{{ address = \"{backend}:80\" }}, \
                 {{ address = \"[{backend6}]:80\" }}]\n"
            )
        })?;
        let nodes = self.fabric.nodes.len();
        let at = self.wait_new_vips(|hops| hops.len() == nodes)?;
        for vip in NEW_VIPS {
            let target = SocketAddr::new(vip.parse()?, 8080);
            let answer = self.fabric.client.enter(|| http::get(target, "/", PATIENCE).outcome)?;
            ensure!(answer.is_ok(), "{target}: {answer:?}");
        }
        Ok(at.saturating_duration_since(start))
    }

    fn remove_service(&mut self, by: By) -> Result<Duration> {
        let start = Instant::now();
        self.change(by, |_, text| {
            text.split_once("\n[[service]]\nname = \"new\"")
                .map_or_else(|| text.to_owned(), |(before, _)| before.to_owned())
        })?;
        let at = self.wait_new_vips(NextHops::is_empty)?;
        Ok(at.saturating_duration_since(start))
    }

    fn wait_new_vips(&self, wanted: impl Fn(&NextHops) -> bool + Copy) -> Result<Instant> {
        let mut last = None;
        for vip in NEW_VIPS {
            let at = self.fabric.fib.wait(Prefix::host(vip.parse()?), PATIENCE, wanted)?;
            last = last.max(Some(at));
        }
        last.context("no VIPs")
    }

    /// Edit every node's file and let it be read.
    pub(super) fn change(&mut self, by: By, edit: impl Fn(u8, &str) -> String) -> Result<()> {
        for (n, node) in (1..).zip(&mut self.fabric.nodes) {
            node.edit_config(|text| edit(n, text))?;
            match by {
                By::Command => node.show(&["reload"]).map(drop)?,
                By::Signal => node.process()?.signal(Signal::SIGHUP)?,
            }
        }
        Ok(())
    }

    /// Wait until what every node shows of its backends is as wanted.
    fn wait_backends(&self, wanted: impl Fn(&[IpAddr]) -> bool) -> Result<()> {
        for node in &self.fabric.nodes {
            wait_for(&format!("backends of {}", node.name()), PATIENCE, || {
                let shown = node.get("/v1/backends")?;
                let shown = shown.as_array().context("backends")?;
                // One that left the configuration is listed until its last flow ends.
                let current = shown.iter().filter(|b| b["state"] != "removed");
                let addresses: Vec<IpAddr> = current
                    .filter_map(|b| b["address"].as_str()?.parse::<SocketAddr>().ok())
                    .map(|b| b.ip())
                    .collect();
                ensure!(wanted(&addresses), "{shown:?}");
                Ok(())
            })?;
        }
        Ok(())
    }
}

/// The epoch of the tables published last.
fn epoch(node: &Dunlind) -> Result<u64> {
    node.get("/v1/status")?["tables_epoch"].as_u64().context("tables_epoch")
}

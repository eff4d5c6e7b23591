//! The first node: from an image and a config drive to a VIP, untouched by hand.

use super::node::{Image, Ingredients, Node};
use super::{PATIENCE, Show, config};
use crate::fabric::{Fabric, node_addresses, wait_vips};
use crate::http::Report;
use crate::story::short;
use crate::vm::{Firmware, Model};
use crate::wait::{wait_for, wait_until};
use anyhow::{Context, Result, ensure};
use std::time::{Duration, Instant};

/// Requests per second: an emulated node is slow, and shares the host.
pub(super) const RATE: u32 = 10;

impl Show {
    /// Boot node 1. From power-on until the VIPs were there.
    pub fn first_node(&mut self) -> Result<Duration> {
        self.teller.step("Boot the image, with a config drive: nobody touches the machine");
        let start = self.power_on_node(1, false)?;
        let at = self.explained(1, |show| wait_vips(&show.site.fib, &[1], PATIENCE))?;
        let took = at.saturating_duration_since(start);
        self.teller.check(&format!("power-on to VIPs in the router's kernel: {}", short(took)));
        for prefix in Fabric::vip_prefixes() {
            let hops: Vec<String> =
                self.site.fib.next_hops(prefix).keys().map(ToString::to_string).collect();
            self.teller.check(&format!("the router's kernel: {prefix} via {}", hops.join(", ")));
        }
        Ok(took)
    }

    /// Look at it from all sides.
    pub(super) fn look_at_first(&mut self) -> Result<()> {
        self.sessions(1)?;
        self.requests(1)?;
        self.drivers(1)
    }

    /// Switch node `n` on, from the image. When that was.
    pub(super) fn power_on_node(&mut self, n: u8, iommu: bool) -> Result<Instant> {
        let host = self.site.host(n)?;
        let from = Ingredients {
            name: &format!("node{n}"),
            image: Image::Flashed(&self.artifacts.image),
            storage: &self.storage,
            accel: self.accel,
            key: &self.key,
            firmware: Firmware::Uefi,
            config: Some(config::node(n)),
            authority: Some(&self.site.authority),
            iommu,
            watchdog: false,
            data: Model::Virtio,
        };
        let start = Instant::now();
        let node = Node::start(n, &host, &self.site.admin, from, |_| Ok(()))?;
        self.nodes.push(node);
        Ok(start)
    }

    /// Node `n` (from 1).
    pub(super) fn node(&mut self, n: u8) -> Result<&mut Node> {
        let found = self.nodes.iter_mut().find(|node| node.n == n);
        found.with_context(|| format!("there is no node{n}"))
    }

    /// Do something that depends on node `n`; if it fails, say what the node says.
    pub(super) fn explained<T>(
        &mut self,
        n: u8,
        act: impl FnOnce(&mut Self) -> Result<T>,
    ) -> Result<T> {
        let result = act(self);
        self.node(n)?.explained(result)
    }

    /// The router sees BGP Established and BFD up with node `n`, in both families.
    pub(super) fn sessions(&mut self, n: u8) -> Result<()> {
        self.explained(n, |show| {
            for address in node_addresses(n) {
                show.site.router.wait_established(address, PATIENCE)?;
                let up = || show.site.router.bfd_is_up(address);
                wait_for(&format!("BFD with {address}"), PATIENCE, up)?;
            }
            Ok(())
        })?;
        let bfd = self.site.options.bfd.as_millis();
        self.teller.check(&format!(
            "the router says of node{n}: BGP Established, BFD up ({bfd} ms × 3), IPv4 and IPv6"
        ));
        Ok(())
    }

    /// HTTP through both VIPs reaches every backend, and nothing is lost.
    pub(super) fn requests(&mut self, n: u8) -> Result<()> {
        const REQUESTS: usize = 100;
        self.explained(n, |show| {
            let load = show.site.load(RATE)?;
            wait_until("requests", PATIENCE, || load.so_far().len() >= REQUESTS)?;
            let report = load.stop();
            lossless(&report)?;
            let shares = report.by_backend();
            ensure!(shares.len() == show.site.backends.len(), "not all backends: {shares:?}");
            show.teller.check(&format!(
                "{} requests through both VIPs, none lost: {shares:?}; median {}",
                report.len(),
                short(report.latency(0.5))
            ));
            Ok(())
        })
    }

    /// The data card belongs to DPDK, its control interface goes over vhost-net, and the doctor
    /// has seen both.
    pub(super) fn drivers(&mut self, n: u8) -> Result<()> {
        let iommu = self.node(n)?.vm.machine().iommu;
        let wanted = if iommu { "vfio-pci" } else { "uio_pci_generic" };
        self.node(n)?.wait_boot(None, PATIENCE)?;
        self.explained(n, |show| {
            let node = show.node(n)?;
            let card = Node::data_card();
            node.drives(wanted, "net_virtio")?;
            let doctor = node.run("dunlin doctor --json || true")?;
            ensure!(doctor.contains(&card), "the doctor does not know {card}: {doctor}");
            ensure!(doctor.contains(wanted), "the doctor does not say {wanted}: {doctor}");
            show.teller.check(&format!(
                "node{n}: {card} is bound to {wanted} and driven by DPDK; control interface over \
                 vhost-net; `dunlin doctor` says so"
            ));
            Ok(())
        })
    }
}

/// Nothing was lost.
pub(super) fn lossless(report: &Report) -> Result<()> {
    let lost = report.len() - report.ok();
    ensure!(lost == 0, "{lost} of {} requests lost: {:?}", report.len(), report.failures());
    Ok(())
}

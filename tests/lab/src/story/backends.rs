//! What an operator does to backends, and to services that share a VIP.

use super::reload::By;
use super::service::lossless;
use super::{PATIENCE, Story};
use crate::fabric::{Fabric, PORT, VIP4, backend_addresses};
use crate::http;
use crate::wait::wait_until;
use anyhow::{Result, ensure};
use std::net::SocketAddr;
use std::time::Instant;

impl Story {
    /// `dunlin drain --backend`, then weight 0: no new connection, and a download goes on.
    pub fn backends_are_spared(&mut self) -> Result<()> {
        self.teller.step("Drain a backend under load");
        let load = self.load(200)?;
        let downloads = self.downloads(800_000)?;
        let backend = self.backend_of_flow(SocketAddr::new(VIP4, PORT))?;
        for command in ["drain", "undrain"] {
            for node in &self.fabric.nodes {
                for address in backend_addresses(backend) {
                    node.show(&[command, "--backend", &address.to_string()])?;
                }
            }
            let since = Instant::now();
            wait_until("load", PATIENCE, || load.so_far().after(since).len() >= 200)?;
            let served = load.so_far().after(since).by_backend();
            let mine = served.contains_key(&format!("b{backend}"));
            ensure!(mine == (command == "undrain"), "b{backend}: after {command}: {served:?}");
            self.teller.check(&format!("{command}: {served:?}"));
        }
        self.change(By::Command, |_, text| {
            let mut text = text.to_owned();
            for address in backend_addresses(backend) {
                let line = format!("address = \"{address}\"\n");
                text = text.replace(&line, &format!("{line}weight = 0\n"));
            }
            text
        })?;
        let since = Instant::now();
        wait_until("load", PATIENCE, || load.so_far().after(since).len() >= 200)?;
        let served = load.so_far().after(since).by_backend();
        ensure!(!served.contains_key(&format!("b{backend}")), "weight 0: {served:?}");
        self.teller.check(&format!("weight 0: {served:?}"));
        lossless(&load.stop())?;
        for download in downloads {
            download.join()?;
        }
        self.teller.check("no request lost, the downloads intact");
        Ok(())
    }

    /// Fewer healthy backends than `min-healthy` are none; a second service on the VIPs keeps them
    /// announced, and answers.
    pub fn minimum_and_neighbours(&mut self) -> Result<()> {
        self.teller.step("min-healthy = 2");
        self.change(By::Command, |_, text| {
            text.replace("name = \"web\"\n", "name = \"web\"\nmin-healthy = 2\n")
        })?;
        let ill = self.fabric.backends.len() - 1;
        for backend in &self.fabric.backends[..ill] {
            backend.set_ill(true)?;
        }
        self.fabric.wait_vips(&[], PATIENCE)?;
        self.teller.check("one healthy backend left: withdrawn");
        self.fabric.backends[0].set_ill(false)?;
        self.fabric.wait_vips(&self.all_nodes(), PATIENCE)?;
        self.teller.check("two: announced");

        self.teller.step("Two services on one VIP");
        let [v4, v6] = backend_addresses(1);
        let vips = [VIP4, crate::fabric::VIP6];
        self.change(By::Command, |_, text| {
            format!(
                "{text}\n[[service]]\nname = \"alt\"\nvips = [\"{}\", \"{}\"]\nprotocol = \"tcp\"\n\
                 port = 81\nbackend = [{{ address = \"{v4}:80\" }}, \
                 {{ address = \"[{v6}]:80\" }}]\n",
                vips[0], vips[1]
            )
        })?;
        for backend in &self.fabric.backends {
            backend.set_ill(true)?;
        }
        let since = Instant::now();
        for node in &self.fabric.nodes {
            wait_until("web is down", PATIENCE, || {
                let backends = node.backends().unwrap_or_default();
                backends.iter().filter(|b| b.service == "web").all(|b| !b.healthy())
            })?;
        }
        for vip in vips {
            let answer = self
                .fabric
                .client
                .enter(|| http::get(SocketAddr::new(vip, 81), "/", PATIENCE).outcome)?;
            ensure!(answer == Ok("b1".to_owned()), "{vip}: {answer:?}");
        }
        for prefix in Fabric::vip_prefixes() {
            let changes = self.fabric.fib.changes(prefix, since);
            ensure!(changes.is_empty(), "{prefix} changed: {changes:?}");
        }
        self.teller.check("one is dead, the other answers: the VIPs stay");
        Ok(())
    }
}

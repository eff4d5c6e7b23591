//! A node with two ports: clients on one, backends on the other.

use super::Story;
use crate::fabric::backend_addresses;
use crate::netns::cable;
use anyhow::{Context, Result, ensure};

/// The node's addresses on the backends' network.
const INSIDE: [&str; 2] = ["10.2.0.101", "fd00:2::101"];

impl Story {
    /// Plug the second port of node 1 into the backends' network, before the node starts. Backends
    /// send what is for its local addresses straight to it.
    pub fn second_port(&mut self) -> Result<()> {
        ensure!(self.fabric.nodes.len() == 1, "one node");
        let tor = self.fabric.tor.clone();
        let node = self.fabric.nodes[0].netns().clone();
        cable(&node, "eth1", &tor, "m1")?;
        tor.ip("link set m1 master br0")?;
        node.sysctl("net.ipv6.conf.eth1.disable_ipv6", "1")?;
        node.ip("link set eth1 arp off")?;
        node.nft(
            "table netdev inside {\n\
               chain eth1 {\n\
                 type filter hook ingress device \"eth1\" priority 0; policy drop;\n\
               }\n\
             }\n",
        )?;
        let [v4, v6] = INSIDE;
        for backend in &self.fabric.backends {
            backend.netns().ip(&format!(
                "route add 10.9.1.0/29 via {v4}\nroute add fd00:9:1::/125 via {v6}"
            ))?;
        }
        self.fabric.nodes[0].edit_config(|text| {
            let port = format!(
                "[[port]]\nname = \"dn1\"\ndevice = \"net_af_packet,iface=eth1\"\n\
                 control = \"tap\"\naddresses = [\"{v4}/24\", \"{v6}/64\"]\n\n[[route]]\n"
            );
            text.replacen("[[route]]\n", &port, 1)
        })
    }

    /// Requests come in by one port, and go to the backends by the other; replies the same way back.
    pub fn two_arms(&mut self) -> Result<()> {
        let before = self.port_packets()?;
        let spread = self.spread()?;
        let after = self.port_packets()?;
        // A request is at least SYN, ACK, GET and FIN one way, and as many the other.
        let least = 4 * spread.requests as u64;
        for ((name, rx, tx), (_, old_rx, old_tx)) in after.iter().zip(&before) {
            let (rx, tx) = (rx - old_rx, tx - old_tx);
            ensure!(rx >= least && tx >= least, "{name}: {rx} received, {tx} sent");
            self.teller.check(&format!("{name}: {rx} packets received, {tx} sent"));
        }
        ensure!(after.len() == 2, "{after:?}");
        let node = self.fabric.nodes[0].netns();
        for (interface, address) in [("dn0", "10.1.1.2"), ("dn1", INSIDE[0])] {
            let shown = node.ip_json(&["addr", "show", "dev", interface])?.to_string();
            ensure!(shown.contains(&format!("\"{address}\"")), "{interface}: {shown}");
        }
        // The kernel itself speaks through the second port: that is how backends are checked.
        let [backend, _] = backend_addresses(1);
        let route = node.ip_json(&["route", "get", &backend.to_string()])?;
        ensure!(route[0]["dev"] == "dn1", "{route}");
        self.teller.check("each port has its control interface, with its addresses");
        Ok(())
    }

    /// Name, packets received and packets sent of each port of node 1.
    fn port_packets(&self) -> Result<Vec<(String, u64, u64)>> {
        let ports = self.fabric.nodes[0].get("/v1/ports")?;
        let ports = ports.as_array().context("ports")?.iter();
        ports
            .map(|port| {
                let count = |key: &str| {
                    port["stats"][key].as_u64().with_context(|| format!("{key}: {port}"))
                };
                let name = port["name"].as_str().context("name")?.to_owned();
                Ok((name, count("rx_packets")?, count("tx_packets")?))
            })
            .collect()
    }
}

//! The hosts of the demo and of the failover tests, plugged together.
//!
//! ```text
//!                         client   10.100.0.2, fd00:100::2
//!                            │
//!                          c0│     10.100.0.1, fd00:100::1
//!   ┌────────────────────────┴────────────────────────┐
//!   │ tor: FRR (zebra, bgpd, bfdd) or BIRD, AS 65000  │
//!   │ kernel ECMP over the nodes, hashed by ports     │
//!   └──n1────────────────n2───────────────────br0─────┘
//!      │10.1.1.1         │10.1.2.1            │10.2.0.1, fd00:2::1
//!      │fd00:1:1::1      │fd00:1:2::1         ├───────┬───────┐
//!   eth0│             eth0│                   b1      b2      b3   nginx
//!   ┌───┴─────────┐   ┌───┴─────────┐         10.2.0.11, .12, .13
//!   │node1        │   │node2        │         fd00:2::11, ::12, ::13
//!   │AS 65001     │   │AS 65002     │
//!   └─────────────┘   └─────────────┘
//!      dn0 10.1.1.2      dn0 10.1.2.2           control interfaces, fd00:1:N::2
//!      10.9.1.0/29       10.9.2.0/29            local addresses, fd00:9:N::/125
//!
//!   VIPs 192.0.2.10 and 2001:db8::10, TCP port 80, announced by every node
//! ```
//!
//! `eth0` is a node's network card: DPDK reads it through AF_PACKET, and the node's own kernel must
//! not: it has no address there, answers no ARP, and an nftables ingress hook, which comes after
//! AF_PACKET has taken its copy, drops every frame. What the kernel may see comes from the node, through
//! the control interface `dn0`.

mod config;

pub use config::node_config;
pub(crate) use config::{node_duty, node_port};

use crate::fib::{Fib, Prefix};
use crate::lab::Lab;
use crate::netns::{Netns, cable};
use crate::nginx::Nginx;
use crate::node::{Binaries, Dunlind};
use crate::router::Router;
use anyhow::{Context, Result, ensure};
use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::Pid;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

/// The IPv4 VIP.
pub const VIP4: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 10));
/// The IPv6 VIP.
pub const VIP6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x10));
/// The service's port.
pub const PORT: u16 = 80;
/// The router's AS; node N is AS 65000 + N.
pub const TOR_AS: u32 = 65000;

/// What the nodes speak to the router.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaks {
    /// eBGP, a session per family.
    Bgp,
    /// OSPFv2 and OSPFv3 on point-to-point links in area 0, hellos every second.
    Ospf,
}

/// What runs on the router.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Runs {
    Frr,
    /// For BGP only.
    Bird,
}

/// How a fabric differs from the demo's.
#[derive(Debug, Clone)]
pub struct Options {
    /// 1 to 9.
    pub nodes: u8,
    /// 1 to 9.
    pub backends: u8,
    /// CPU core of each worker of every node.
    pub workers: Vec<usize>,
    pub speaks: Speaks,
    pub router: Runs,
    /// Interval of BFD, both ways; three lost in a row mean down.
    pub bfd: Duration,
    /// BGP's hold time, whole seconds, at least 3.
    pub hold: Duration,
    /// Interval of the health checks; a check has four fifths of it to answer.
    pub check: Duration,
    /// The nodes share flows.
    pub cluster: bool,
    /// Lines added to the end of every node's configuration.
    pub extra: String,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            nodes: 2,
            backends: 3,
            workers: cores(2),
            speaks: Speaks::Bgp,
            router: Runs::Frr,
            bfd: Duration::from_millis(100),
            hold: Duration::from_secs(3),
            check: Duration::from_millis(250),
            cluster: false,
            extra: String::new(),
        }
    }
}

/// All hosts, running. Dropping it stops and removes them.
#[derive(Debug)]
pub struct Fabric {
    // Dropped in this order: who speaks goes before who listens.
    pub nodes: Vec<Dunlind>,
    pub router: Router,
    pub backends: Vec<Nginx>,
    /// The router's kernel routing table, watched.
    pub fib: Fib,
    pub client: Netns,
    pub tor: Netns,
    pub options: Options,
    pub lab: Lab,
}

impl Fabric {
    /// Lay out the hosts, with the router and the backends running and the nodes not started.
    pub fn new(binaries: &Binaries, options: Options) -> Result<Self> {
        ensure!((1..=9).contains(&options.nodes), "1 to 9 nodes");
        ensure!((1..=9).contains(&options.backends), "1 to 9 backends");
        ensure!(!options.workers.is_empty(), "a node needs a worker");
        let lab = Lab::new()?;
        let tor = router_host(&lab)?;
        let client = client(&lab, &tor)?;
        let backends =
            (1..=options.backends).map(|n| backend(&lab, &tor, n)).collect::<Result<Vec<_>>>()?;
        let nodes = (1..=options.nodes)
            .map(|n| {
                let ns = node_host(&lab, &tor, n)?;
                Dunlind::new(&ns, binaries, |socket| node_config(n, socket, &options))
            })
            .collect::<Result<Vec<_>>>()?;
        let fib = Fib::watch(&tor)?;
        let router = Router::start(&tor, &options)?;
        Ok(Self { nodes, router, backends, fib, client, tor, options, lab })
    }

    /// What clients ask: both VIPs.
    pub fn targets(&self) -> Vec<SocketAddr> {
        [VIP4, VIP6].map(|vip| SocketAddr::new(vip, PORT)).to_vec()
    }

    /// The host of backend `n` (from 1).
    pub fn backend_netns(&self, n: u8) -> &Netns {
        self.backends[usize::from(n) - 1].netns()
    }

    /// The host routes of both VIPs.
    pub fn vip_prefixes() -> [Prefix; 2] {
        [VIP4, VIP6].map(Prefix::host)
    }

    /// The next hop of node `n` (from 1) in the family of `prefix`.
    pub fn next_hop(n: u8, prefix: Prefix) -> IpAddr {
        let [v4, v6] = node_addresses(n);
        if prefix.address.is_ipv4() { v4 } else { v6 }
    }

    /// Wait until the router sends neither VIP to node `n`. When it stopped.
    pub fn wait_out(&self, n: u8, timeout: Duration) -> Result<Instant> {
        wait_out(&self.fib, n, timeout)
    }

    /// Wait until the router has `count` ways to each VIP (by OSPF, IPv6 ways are link-local, so they
    /// are counted, not named). When that came to be.
    pub fn wait_ways(&self, count: usize, timeout: Duration) -> Result<Instant> {
        let mut last = None;
        for prefix in Self::vip_prefixes() {
            let at = self.fib.wait(prefix, timeout, |hops| hops.len() == count)?;
            last = last.max(Some(at));
        }
        last.context("no VIPs")
    }

    /// Wait until the router sends both VIPs to exactly these nodes (from 1). When it came to do so.
    pub fn wait_vips(&self, nodes: &[u8], timeout: Duration) -> Result<Instant> {
        wait_vips(&self.fib, nodes, timeout)
    }
}

/// [`Fabric::wait_out`], of any router.
pub(crate) fn wait_out(fib: &Fib, n: u8, timeout: Duration) -> Result<Instant> {
    let mut last = None;
    for prefix in Fabric::vip_prefixes() {
        let hop = Fabric::next_hop(n, prefix);
        let at = fib.wait(prefix, timeout, |hops| !hops.contains_key(&hop))?;
        last = last.max(Some(at));
    }
    last.context("no VIPs")
}

/// [`Fabric::wait_vips`], of any router.
pub(crate) fn wait_vips(fib: &Fib, nodes: &[u8], timeout: Duration) -> Result<Instant> {
    let mut last = None;
    for prefix in Fabric::vip_prefixes() {
        let wanted: BTreeSet<IpAddr> = nodes.iter().map(|n| Fabric::next_hop(*n, prefix)).collect();
        let at = fib.wait(prefix, timeout, |hops| {
            hops.len() == wanted.len() && hops.keys().all(|hop| wanted.contains(hop))
        })?;
        last = last.max(Some(at));
    }
    last.context("no VIPs")
}

/// Addresses of backend `n` (from 1).
pub fn backend_addresses(n: u8) -> [IpAddr; 2] {
    [
        Ipv4Addr::new(10, 2, 0, 10 + n).into(),
        // Written ::11, ::12 like the IPv4 address, so hexadecimal 0x11, 0x12.
        Ipv6Addr::new(0xfd00, 2, 0, 0, 0, 0, 0, 0x10 + u16::from(n)).into(),
    ]
}

/// Addresses of node `n`'s control interface.
pub fn node_addresses(n: u8) -> [IpAddr; 2] {
    [
        Ipv4Addr::new(10, 1, n, 2).into(),
        Ipv6Addr::new(0xfd00, 1, u16::from(n), 0, 0, 0, 0, 2).into(),
    ]
}

/// Whether `address` is one of node `n`'s local addresses.
pub fn is_local_address(n: u8, address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => matches!(v4.octets(), [10, 9, m, last] if m == n && last < 8),
        IpAddr::V6(v6) => {
            matches!(v6.segments(), [0xfd00, 9, m, 0, 0, 0, 0, last] if m == u16::from(n) && last < 8)
        }
    }
}

/// Up to `most` CPU cores that this process may use.
fn cores(most: usize) -> Vec<usize> {
    let set = sched_getaffinity(Pid::from_raw(0)).unwrap_or_else(|_| CpuSet::new());
    let mut cores: Vec<usize> =
        (0..CpuSet::count()).filter(|core| set.is_set(*core).unwrap_or(false)).take(most).collect();
    if cores.is_empty() {
        cores.push(0);
    }
    cores
}

pub(crate) fn router_host(lab: &Lab) -> Result<Netns> {
    let tor = lab.netns("tor")?;
    for (key, value) in [
        ("net.ipv4.ip_forward", "1"),
        ("net.ipv6.conf.all.forwarding", "1"),
        // Replies may come back by another node's link than the request left by.
        ("net.ipv4.conf.all.rp_filter", "0"),
        ("net.ipv4.conf.default.rp_filter", "0"),
        // Spread flows over next hops by ports too, not by addresses alone.
        ("net.ipv4.fib_multipath_hash_policy", "1"),
        ("net.ipv6.fib_multipath_hash_policy", "1"),
    ] {
        tor.sysctl(key, value)?;
    }
    tor.ip("link add br0 type bridge\n\
         link set br0 up\n\
         addr add 10.2.0.1/24 dev br0\n\
         addr add fd00:2::1/64 dev br0 nodad")?;
    Ok(tor)
}

pub(crate) fn client(lab: &Lab, tor: &Netns) -> Result<Netns> {
    let client = lab.netns("client")?;
    cable(&client, "eth0", tor, "c0")?;
    tor.ip("addr add 10.100.0.1/24 dev c0\naddr add fd00:100::1/64 dev c0 nodad")?;
    client.ip("addr add 10.100.0.2/24 dev eth0\n\
         addr add fd00:100::2/64 dev eth0 nodad\n\
         route add default via 10.100.0.1\n\
         route add default via fd00:100::1")?;
    Ok(client)
}

pub(crate) fn backend(lab: &Lab, tor: &Netns, n: u8) -> Result<Nginx> {
    let name = format!("b{n}");
    let ns = lab.netns(&name)?;
    cable(&ns, "eth0", tor, &name)?;
    tor.ip(&format!("link set {name} master br0"))?;
    let [v4, v6] = backend_addresses(n);
    ns.ip(&format!(
        "addr add {v4}/24 dev eth0\n\
         addr add {v6}/64 dev eth0 nodad\n\
         route add default via 10.2.0.1\n\
         route add default via fd00:2::1"
    ))?;
    Nginx::start(&ns)
}

fn node_host(lab: &Lab, tor: &Netns, n: u8) -> Result<Netns> {
    let ns = lab.netns(&format!("node{n}"))?;
    let link = format!("n{n}");
    cable(&ns, "eth0", tor, &link)?;
    tor.ip(&format!(
        "addr add 10.1.{n}.1/24 dev {link}\n\
         addr add fd00:1:{n}::1/64 dev {link} nodad"
    ))?;
    ns.sysctl("net.ipv6.conf.eth0.disable_ipv6", "1")?;
    ns.ip("link set eth0 arp off")?;
    ns.nft(
        "table netdev dunlin {\n\
           chain eth0 {\n\
             type filter hook ingress device \"eth0\" priority 0; policy drop;\n\
           }\n\
         }\n",
    )?;
    Ok(ns)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_told_apart_by_node() {
        for n in 1..=2 {
            for lip in [format!("10.9.{n}.1"), format!("fd00:9:{n}::7")] {
                let lip = lip.parse().unwrap();
                assert!(is_local_address(n, lip));
                assert!(!is_local_address(3 - n, lip));
            }
            assert!(!is_local_address(n, node_addresses(n)[0]));
            assert!(!is_local_address(n, format!("10.9.{n}.8").parse().unwrap()));
        }
        assert_eq!(backend_addresses(2)[0].to_string(), "10.2.0.12");
        assert_eq!(backend_addresses(2)[1].to_string(), "fd00:2::12");
    }
}

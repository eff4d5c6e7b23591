//! The demo's hosts carry a VIP, with stand-ins for the nodes: BIRD announces, nftables translates.
//! What holds here and fails with `dunlind` is `dunlind`'s doing. Needs root.

use anyhow::Result;
use lab::fabric::{Options, PORT, is_local_address, node_addresses};
use lab::http::Load;
use lab::{Binaries, Bird, Fabric, Netns, Sniffer, wait_until};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(20);

/// A fabric whose nodes are never started.
fn fabric() -> Result<Fabric> {
    let nothing =
        Binaries { dunlind: "/nonexistent/dunlind".into(), dunlin: "/nonexistent/dunlin".into() };
    Fabric::new(&nothing, Options::default())
}

/// Node `n`, done by the kernel: FULLNAT from the VIPs to the three backends, random by packet of
/// a new flow; BIRD announces VIPs and local addresses.
fn stand_in(ns: &Netns, n: u8) -> Result<Bird> {
    let [v4, v6] = node_addresses(n);
    ns.nft("flush ruleset")?;
    ns.sysctl("net.ipv6.conf.eth0.disable_ipv6", "0")?;
    ns.sysctl("net.ipv4.ip_forward", "1")?;
    ns.sysctl("net.ipv6.conf.all.forwarding", "1")?;
    ns.ip(&format!(
        "link set eth0 arp on\n\
         addr add {v4}/24 dev eth0\n\
         addr add {v6}/64 dev eth0 nodad\n\
         addr add 10.9.{n}.1/32 dev lo\n\
         addr add fd00:9:{n}::1/128 dev lo\n\
         route add default via 10.1.{n}.1\n\
         route add default via fd00:1:{n}::1"
    ))?;
    ns.nft(&format!(
        "table ip n {{\n\
           chain pre {{ type nat hook prerouting priority dstnat;\n\
             ip daddr 192.0.2.10 tcp dport 80 dnat to numgen random mod 3 map \
               {{ 0: 10.2.0.11, 1: 10.2.0.12, 2: 10.2.0.13 }}\n\
           }}\n\
           chain post {{ type nat hook postrouting priority srcnat;\n\
             ip daddr 10.2.0.0/24 tcp dport 80 snat to 10.9.{n}.1\n\
           }}\n\
         }}\n\
         table ip6 n {{\n\
           chain pre {{ type nat hook prerouting priority dstnat;\n\
             ip6 daddr 2001:db8::10 tcp dport 80 dnat to numgen random mod 3 map \
               {{ 0: fd00:2::11, 1: fd00:2::12, 2: fd00:2::13 }}\n\
           }}\n\
           chain post {{ type nat hook postrouting priority srcnat;\n\
             ip6 daddr fd00:2::/64 tcp dport 80 snat to fd00:9:{n}::1\n\
           }}\n\
         }}\n"
    ))?;
    let asn = 65000 + u32::from(n);
    let session = |family: &str, own: &str, tor: &str| {
        format!(
            "protocol bgp tor{family} {{ local {own} as {asn}; neighbor {tor} as 65000; bfd on;\n\
             connect delay time 1; error wait time 1, 1;\n\
             ipv{family} {{ import none; export where proto = \"vips{family}\"; }}; }}\n"
        )
    };
    Bird::start(
        ns,
        &format!(
            "router id {v4};\nprotocol device {{}}\n\
             protocol bfd {{ interface \"eth0\" {{ interval 100 ms; }}; }}\n\
             protocol static vips4 {{ ipv4;\n\
               route 192.0.2.10/32 blackhole; route 10.9.{n}.0/29 blackhole; }}\n\
             protocol static vips6 {{ ipv6;\n\
               route 2001:db8::10/128 blackhole; route fd00:9:{n}::/125 blackhole; }}\n{}{}",
            session("4", &v4.to_string(), &format!("10.1.{n}.1")),
            session("6", &v6.to_string(), &format!("fd00:1:{n}::1")),
        ),
    )
}

#[test]
#[ignore = "needs root: cargo xtask test lab"]
fn a_vip_is_carried_and_survives_a_node() -> Result<()> {
    let fabric = fabric()?;
    let mut birds = Vec::new();
    for (n, node) in (1..).zip(&fabric.nodes) {
        birds.push(stand_in(node.netns(), n)?);
    }
    for n in 1..=2 {
        for address in node_addresses(n) {
            fabric.router.wait_established(address, PATIENCE)?;
            wait_until("BFD", PATIENCE, || fabric.router.bfd_is_up(address).is_ok())?;
        }
    }
    fabric.wait_vips(&[1, 2], PATIENCE)?;

    let sniffer = Sniffer::start(fabric.backend_netns(1), PORT)?;
    let load = Load { targets: fabric.targets(), rate: 200, timeout: Duration::from_secs(3) };
    let load = load.start(&fabric.client)?;
    wait_until("load", PATIENCE, || load.so_far().ok() >= 200)?;
    let killed = Instant::now();
    birds[0].process().kill()?;
    let switched = fabric.wait_vips(&[2], PATIENCE)?;
    assert!(switched > killed);
    wait_until("load", PATIENCE, || load.so_far().after(switched).len() >= 200)?;
    let report = load.stop();
    // A connection that was open while the router moved it is cut, since the other node does not
    // know it. Later ones are not touched.
    let after = report.after(switched);
    assert_eq!(after.ok(), after.len(), "{:?}", after.failures());
    assert_eq!(report.by_backend().len(), 3);
    for target in fabric.targets() {
        assert_eq!(report.to(target).by_backend().len(), 3, "{target}");
    }
    let seen = sniffer.seen();
    for n in 1..=2 {
        let through = seen.iter().filter(|s| is_local_address(n, s.from.ip())).count();
        assert!(through > 10, "node{n} forwarded {through}");
    }
    let late = seen.iter().filter(|s| s.at > switched && is_local_address(1, s.from.ip()));
    assert_eq!(late.count(), 0, "node1 was still used");
    Ok(())
}

#[test]
#[ignore = "needs root: cargo xtask test lab"]
fn the_kernel_does_not_hear_a_nodes_card() -> Result<()> {
    let fabric = fabric()?;
    let ns = fabric.nodes[0].netns();
    // Even with an address of its own it must not answer, not ARP either.
    ns.ip("addr add 10.1.1.2/24 dev eth0\nlink set eth0 arp on")?;
    let sniffer = Sniffer::start(ns, 4444)?;
    let connect = |port| {
        fabric.tor.enter(move || {
            let target = format!("10.1.1.2:{port}").parse::<std::net::SocketAddr>()?;
            std::net::TcpStream::connect_timeout(&target, Duration::from_millis(200))?;
            anyhow::Ok(())
        })
    };
    assert!(connect(4444)?.is_err());
    assert!(sniffer.seen().is_empty(), "nobody answered ARP, so no SYN can be sent");
    // AF_PACKET does hear it: with a static neighbour the SYN arrives, still unanswered.
    let link = ns.ip_json(&["link", "show", "eth0"])?;
    let mac = link[0]["address"].as_str().unwrap_or_default().to_owned();
    fabric.tor.ip(&format!("neigh replace 10.1.1.2 lladdr {mac} dev n1"))?;
    assert!(connect(4444)?.is_err());
    wait_until("the SYN", PATIENCE, || !sniffer.seen().is_empty())?;
    Ok(())
}

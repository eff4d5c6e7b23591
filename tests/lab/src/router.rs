//! The routing daemons of the fabric's router: FRR, or BIRD where times must not hold what FRR adds.

use crate::bird::Bird;
use crate::fabric::{Options, Runs, Speaks, TOR_AS, node_addresses};
use crate::frr::Frr;
use crate::netns::Netns;
use crate::wait::wait_for;
use anyhow::{Result, bail, ensure};
use std::fmt::Write;
use std::net::IpAddr;
use std::time::Duration;

/// A running router.
#[derive(Debug)]
pub enum Router {
    Frr(Frr),
    Bird(Bird),
}

impl Router {
    pub(crate) fn start(tor: &Netns, options: &Options) -> Result<Self> {
        Ok(match (options.router, options.speaks) {
            (Runs::Frr, Speaks::Bgp) => {
                Self::Frr(Frr::start(tor, &["bfdd", "bgpd"], &frr_bgp(options))?)
            }
            (Runs::Frr, Speaks::Ospf) => {
                Self::Frr(Frr::start(tor, &["bfdd", "ospfd", "ospf6d"], &frr_ospf(options))?)
            }
            (Runs::Bird, Speaks::Bgp) => Self::Bird(Bird::start(tor, &bird_bgp(options))?),
            (Runs::Bird, Speaks::Ospf) => bail!("BIRD is set up for BGP only"),
        })
    }

    /// FRR, for what only FRR can be asked.
    pub fn frr(&self) -> Result<&Frr> {
        match self {
            Self::Frr(frr) => Ok(frr),
            Self::Bird(_) => bail!("the router runs BIRD"),
        }
    }

    pub fn frr_mut(&mut self) -> Result<&mut Frr> {
        match self {
            Self::Frr(frr) => Ok(frr),
            Self::Bird(_) => bail!("the router runs BIRD"),
        }
    }

    /// What the router itself adds between an UPDATE, or the end of a session, and its kernel. FRR's
    /// bgpd collects changes for 50 ms before it selects best paths (`spec.hold` of its process queue,
    /// a constant), its zebra for 10 ms before it writes them (`zebra work-queue`). BIRD writes at once.
    pub fn share(&self) -> Duration {
        match self {
            Self::Frr(_) => Duration::from_millis(60),
            Self::Bird(_) => Duration::ZERO,
        }
    }

    /// Wait until the BGP session with a node is Established.
    pub fn wait_established(&self, neighbor: IpAddr, timeout: Duration) -> Result<()> {
        match self {
            Self::Frr(frr) => frr.wait_established(&neighbor.to_string(), timeout),
            Self::Bird(bird) => wait_for(&format!("BGP with {neighbor}"), timeout, || {
                let protocols = bird.birdc("show protocols all")?;
                let mut sections = protocols.split("\n\n");
                let of = format!("Neighbor address: {neighbor}\n");
                let up = |text: &str| {
                    text.contains(&of) && text.contains("BGP state:          Established")
                };
                ensure!(sections.any(up), "{protocols}");
                Ok(())
            }),
        }
    }

    /// Whether BFD with a node is up; if not, what it is.
    pub fn bfd_is_up(&self, peer: IpAddr) -> Result<()> {
        match self {
            Self::Frr(frr) => {
                let state = frr.bfd_state(&peer.to_string())?;
                ensure!(state == "up", "{state}");
            }
            Self::Bird(bird) => {
                let sessions = bird.birdc("show bfd sessions")?;
                let mut lines = sessions.lines().map(|line| line.split_whitespace());
                let peer = peer.to_string();
                let up = lines
                    .any(|mut words| words.next() == Some(&peer) && words.any(|word| word == "Up"));
                ensure!(up, "{sessions}");
            }
        }
        Ok(())
    }
}

fn bird_bgp(options: &Options) -> String {
    let bfd = options.bfd.as_millis();
    let (keepalive, hold) = (options.hold.as_secs() / 3, options.hold.as_secs());
    let mut config = format!(
        "router id 10.100.0.1;\n\
         protocol device {{ scan time 1; }}\n\
         protocol direct {{ ipv4; ipv6; }}\n\
         protocol kernel k4 {{ ipv4 {{ import none; export where source = RTS_BGP; }}; \
         merge paths on limit 16; }}\n\
         protocol kernel k6 {{ ipv6 {{ import none; export where source = RTS_BGP; }}; \
         merge paths on limit 16; }}\n\
         protocol bfd {{ interface \"n*\" {{ interval {bfd} ms; multiplier 3; }}; }}\n"
    );
    for n in 1..=options.nodes {
        for address in node_addresses(n) {
            let (family, own) = match address {
                IpAddr::V4(_) => (4, format!("10.1.{n}.1")),
                IpAddr::V6(_) => (6, format!("fd00:1:{n}::1")),
            };
            let asn = TOR_AS + u32::from(n);
            // The AS paths differ, as multipath-relax allows in FRR: compared by length alone.
            let _ = writeln!(
                config,
                "protocol bgp node{n}v{family} {{ local {own} as {TOR_AS}; \
                 neighbor {address} as {asn}; bfd on; hold time {hold}; keepalive time {keepalive}; \
                 connect delay time 1; connect retry time 1; error wait time 1, 1; \
                 ipv{family} {{ import all; export none; }}; }}"
            );
        }
    }
    config
}

fn frr_ospf(options: &Options) -> String {
    let bfd = options.bfd.as_millis();
    let mut config = format!(
        "hostname tor\n\
         log timestamp precision 3\n\
         bfd\n profile lab\n  detect-multiplier 3\n  receive-interval {bfd}\n  \
         transmit-interval {bfd}\n exit\nexit\n"
    );
    for n in 1..=options.nodes {
        let _ = writeln!(config, "interface n{n}");
        for v in ["ip ospf", "ipv6 ospf6"] {
            let _ = write!(
                config,
                " {v} area 0\n {v} network point-to-point\n {v} hello-interval 1\n \
                 {v} dead-interval 3\n {v} bfd\n {v} bfd profile lab\n"
            );
        }
        config.push_str("exit\n");
    }
    for (router, id) in [("ospf", "ospf router-id"), ("ospf6", "ospf6 router-id")] {
        let _ = write!(config, "router {router}\n {id} 10.100.0.1\n maximum-paths 16\nexit\n");
    }
    config
}

fn frr_bgp(options: &Options) -> String {
    let bfd = options.bfd.as_millis();
    let (keepalive, hold) = (options.hold.as_secs() / 3, options.hold.as_secs());
    let mut peers = String::new();
    let mut families = [String::new(), String::new()];
    for n in 1..=options.nodes {
        for (family, address) in node_addresses(n).into_iter().enumerate() {
            let asn = TOR_AS + u32::from(n);
            let _ = write!(
                peers,
                " neighbor {address} remote-as {asn}\n \
                 neighbor {address} description node{n}\n \
                 neighbor {address} timers connect 1\n \
                 neighbor {address} advertisement-interval 0\n \
                 neighbor {address} bfd profile lab\n"
            );
            let _ = writeln!(families[family], "  neighbor {address} activate");
            if address.is_ipv6() {
                // Next hops by which tests can tell the nodes apart.
                let _ = writeln!(families[family], "  neighbor {address} route-map global in");
            }
        }
    }
    let [v4, v6] = families;
    format!(
        "hostname tor\n\
         log timestamp precision 3\n\
         bfd\n \
         profile lab\n  \
         detect-multiplier 3\n  \
         receive-interval {bfd}\n  \
         transmit-interval {bfd}\n \
         exit\n\
         exit\n\
         route-map global permit 10\n \
         set ipv6 next-hop prefer-global\n\
         exit\n\
         router bgp {TOR_AS}\n \
         bgp router-id 10.100.0.1\n \
         no bgp ebgp-requires-policy\n \
         no bgp default ipv4-unicast\n \
         no bgp network import-check\n \
         bgp bestpath as-path multipath-relax\n \
         timers bgp {keepalive} {hold}\n\
         {peers} \
         address-family ipv4 unicast\n  \
         maximum-paths 16\n\
         {v4} \
         exit-address-family\n \
         address-family ipv6 unicast\n  \
         maximum-paths 16\n\
         {v6} \
         exit-address-family\n\
         exit\n"
    )
}

//! Two OSPF routers on one wire over a virtual clock, and every packet they send.
// Each test file uses its own part of this.
#![allow(dead_code)]

use routing::ospf::auth::Auth;
use routing::ospf::instance::{Instance, Link, Transmit};
use routing::ospf::{AreaKind, Config, InterfaceConfig, NetworkKind, Version, neighbor};
use routing::{Announcement, OspfAttributes, OspfKind, Wanted};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

pub struct Pair {
    pub version: Version,
    pub now: Duration,
    pub sides: [Instance; 2],
    pub sent: Vec<(usize, Transmit)>,
}

pub fn address(version: Version, side: usize) -> IpAddr {
    match version {
        Version::V2 => Ipv4Addr::new(10, 0, 0, side as u8 + 1).into(),
        Version::V3 => Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, side as u16 + 1).into(),
    }
}

pub fn router_id(side: usize) -> Ipv4Addr {
    Ipv4Addr::new(1, 1, 1, side as u8 + 1)
}

pub fn link(version: Version, side: usize) -> Link {
    let (v4, link_local) = match address(version, side) {
        IpAddr::V4(v4) => (Some(ipnet::Ipv4Net::new(v4, 24).unwrap()), None),
        IpAddr::V6(v6) => (None, Some(v6)),
    };
    let global = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, side as u16 + 1);
    let v6 = vec![ipnet::Ipv6Net::new(global, 64).unwrap()];
    Link { index: 1, up: true, mtu: 1500, v4, link_local, v6 }
}

/// A handful of prefixes of every kind. `ospf-parser` 0.5 reads an IPv6 prefix right only if its
/// length is a multiple of 32 (it rounds to bytes, not to words): others are tried against FRR.
pub fn wanted() -> Wanted {
    let all = [
        ("192.0.2.1/32", OspfKind::Stub, 7),
        ("198.51.100.0/24", OspfKind::External1, 20),
        ("198.51.100.0/32", OspfKind::External2, 30),
        ("198.51.100.255/32", OspfKind::External2, 40),
        ("2001:db8::1/128", OspfKind::Stub, 8),
        ("2001:db8::/32", OspfKind::External1, 21),
        ("2001:db8:2::/96", OspfKind::External2, 31),
    ];
    let entry = |(prefix, kind, cost): (&str, OspfKind, u32)| {
        let ospf = Some(OspfAttributes { cost, kind });
        (prefix.parse().unwrap(), Announcement { ospf, ..Announcement::default() })
    };
    all.into_iter().map(entry).collect()
}

impl Pair {
    pub fn new(version: Version, network: NetworkKind, area_kind: AreaKind, auth: &Auth) -> Self {
        let side = |n: usize| {
            let interface = InterfaceConfig {
                network,
                priority: 1,
                hello_interval: 1,
                dead_interval: 4,
                auth: auth.clone(),
                ..InterfaceConfig::new("eth0")
            };
            let config = Config {
                version,
                router_id: router_id(n),
                area: Ipv4Addr::from(u32::from(area_kind != AreaKind::Normal)),
                area_kind,
                interfaces: vec![interface],
            };
            config.check().unwrap();
            let mut instance = Instance::new(&config, n as u64 + 1, 1_000_000);
            instance.set_link("eth0", Some(link(version, n)), Duration::ZERO);
            instance.set_wanted(&wanted(), Duration::ZERO);
            instance
        };
        let mut pair =
            Self { version, now: Duration::ZERO, sides: [side(0), side(1)], sent: vec![] };
        pair.deliver();
        pair
    }

    /// Carries everything that is waiting, at once and without loss.
    pub fn deliver(&mut self) {
        loop {
            let mut quiet = true;
            for from in 0..2 {
                while let Some(transmit) = self.sides[from].poll_transmit() {
                    quiet = false;
                    let (source, to) = (address(self.version, from), transmit.destination);
                    let _ = self.sides[1 - from].handle_packet(
                        1,
                        source,
                        to,
                        &transmit.bytes,
                        self.now,
                    );
                    self.sent.push((from, transmit));
                }
                while self.sides[from].poll_event().is_some() {}
            }
            if quiet {
                return;
            }
        }
    }

    pub fn run(&mut self, end: Duration) {
        while let Some(next) =
            self.sides.iter().filter_map(Instance::next_timeout).min().filter(|at| *at <= end)
        {
            self.now = next.max(self.now);
            for side in &mut self.sides {
                side.handle_timeout(self.now);
            }
            self.deliver();
        }
        self.now = end;
    }

    pub fn is_full(&self) -> bool {
        self.sides.iter().all(|side| {
            let status = side.status(self.now);
            let mut neighbors = status.interfaces.iter().flat_map(|i| i.neighbors.iter());
            neighbors.any(|n| n.state == neighbor::State::Full)
        })
    }
}

//! What a build shares with the tables before, counted, and that sharing changes nothing.

use super::*;
use crate::forward::tables::{
    LipId, LipSpec, Mac, NeighbourSpec, NextHopId, NextHopSpec, PortId, PortSpec, Protocol,
    RouteSpec, Scheduler, ServiceId, Timeouts,
};

const SERVICES: u32 = 200;
const BACKENDS: u32 = 4;

fn service(id: u32) -> ServiceSpec {
    ServiceSpec {
        id: ServiceId(id),
        vip: [192, 0, (id >> 8) as u8, id as u8].into(),
        protocol: Protocol::Tcp,
        port: 80,
        // Every fourth has no Maglev table.
        scheduler: if id % 4 == 3 { Scheduler::RoundRobin } else { Scheduler::Maglev },
        timeouts: Timeouts::default(),
        backends: (0..BACKENDS)
            .map(|n| BackendSpec {
                id: BackendId(id * BACKENDS + n),
                address: [10, n as u8, (id >> 8) as u8, id as u8].into(),
                port: 8080,
                weight: 1,
                usable: true,
            })
            .collect(),
        removed: false,
    }
}

fn spec() -> TablesSpec {
    let port = PortId(0);
    let gateway = IpAddr::from([10, 255, 0, 1]);
    TablesSpec {
        epoch: 1,
        workers: 1,
        ports: vec![PortSpec {
            id: port,
            mac: Mac([2, 0, 0, 0, 0, 1]),
            mtu: 1500,
            up: true,
            tx_ipv4_checksum: false,
            tx_l4_checksum: false,
        }],
        services: (0..SERVICES).map(service).collect(),
        lips: vec![LipSpec { id: LipId(0), address: [10, 254, 0, 1].into() }],
        routes: vec![RouteSpec {
            prefix: "0.0.0.0/0".parse().unwrap(),
            next_hops: vec![(NextHopId(0), 1)],
        }],
        next_hops: vec![NextHopSpec { id: NextHopId(0), port, gateway: Some(gateway) }],
        neighbours: vec![NeighbourSpec { port, address: gateway, mac: Mac([2; 6]) }],
    }
}

fn build(spec: &TablesSpec, previous: Option<&Tables>) -> Tables {
    Tables::build(spec, previous).unwrap()
}

/// All that packets see.
fn seen(tables: &Tables) -> String {
    format!(
        "{:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?}",
        tables.services,
        tables.services_cold,
        tables.backends,
        tables.lips,
        tables.port_macs,
        tables.locals,
        tables.exact,
        tables.fib
    )
}

#[test]
fn only_what_changed_is_compiled_anew() {
    let anew = |services, maglev_tables, fib| Anew { services, maglev_tables, fib };
    let first = build(&spec(), None);
    assert_eq!(first.anew(), anew(SERVICES, SERVICES / 4 * 3, true));
    type Change = fn(&mut TablesSpec);
    let cases: [(&str, Change, Anew); 9] = [
        ("nothing", |_| {}, anew(0, 0, false)),
        ("a backend fails", |s| s.services[8].backends[1].usable = false, anew(1, 1, false)),
        ("one of round robin", |s| s.services[7].backends[1].usable = false, anew(1, 0, false)),
        ("a weight", |s| s.services[8].backends[1].weight = 3, anew(1, 1, false)),
        ("a timeout", |s| s.services[8].timeouts.udp_ms = 7, anew(1, 0, false)),
        ("a service goes", |s| drop(s.services.remove(8)), anew(0, 0, false)),
        ("a service comes", |s| s.services.push(service(SERVICES)), anew(1, 1, false)),
        ("the order", |s| s.services.reverse(), anew(0, 0, false)),
        ("a route", |s| s.routes[0].prefix = "10.0.0.0/8".parse().unwrap(), anew(0, 0, true)),
    ];
    for (what, change, expected) in cases {
        let mut next = spec();
        next.epoch = 2;
        change(&mut next);
        let shared = build(&next, Some(&first));
        assert_eq!(shared.anew(), expected, "{what}");
        assert_eq!(seen(&shared), seen(&build(&next, None)), "{what}");
    }
}

/// As under a thousand changes a second, each to one backend of one of many services.
#[test]
fn a_thousand_changes_make_a_thousand_services_and_no_more() {
    let mut spec = spec();
    let mut tables = build(&spec, None);
    let mut sum = Anew::default();
    for n in 0..1000u32 {
        spec.epoch += 1;
        let service = &mut spec.services[(n * 7 % SERVICES) as usize];
        let backend = &mut service.backends[(n / SERVICES % BACKENDS) as usize];
        backend.usable = !backend.usable;
        tables = build(&spec, Some(&tables));
        let anew = tables.anew();
        sum.services += anew.services;
        sum.maglev_tables += anew.maglev_tables;
        sum.fib |= anew.fib;
    }
    assert_eq!(sum, Anew { services: 1000, maglev_tables: 750, fib: false });
    assert_eq!(seen(&tables), seen(&build(&spec, None)));
}

/// A service that was right is not looked at again, but what it shares with others is.
#[test]
fn what_an_unchanged_service_collides_with_is_still_refused() {
    let first = build(&spec(), None);
    let mut same_vip = spec();
    let mut other = service(SERVICES);
    other.vip = same_vip.services[0].vip;
    same_vip.services.push(other);
    let mut same_backend = spec();
    same_backend.services[5].backends[0].id = BackendId(0);
    let mut vip_as_lip = spec();
    vip_as_lip.lips[0].address = vip_as_lip.services[0].vip;
    for wrong in [same_vip, same_backend, vip_as_lip] {
        let refused = Tables::build(&wrong, None).err();
        assert!(refused.is_some());
        assert_eq!(Tables::build(&wrong, Some(&first)).err(), refused);
    }
}

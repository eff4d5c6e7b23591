//! The published vectors; and that what was chosen really comes back, by a second, bit by bit
//! implementation of the hash.

use super::*;
use proptest::prelude::*;
use std::collections::HashSet;
use std::net::{Ipv4Addr, Ipv6Addr};

/// Of Microsoft's specification.
const KEY: [u8; 40] = [
    0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0,
    0xd0, 0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c,
    0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
];

/// The hash as the specification describes it: a key that is shifted by a bit for every bit of the
/// input. Knows nothing of the implementation.
pub(crate) fn reference_hash(key: &[u8], input: &[u8]) -> u32 {
    let bit = |bytes: &[u8], at: usize| u32::from(bytes[at / 8] >> (7 - at % 8) & 1);
    let mut window = (0..32).fold(0, |window, at| window << 1 | bit(key, at));
    let mut result = 0;
    for at in 0..input.len() * 8 {
        if bit(input, at) == 1 {
            result ^= window;
        }
        let next = at + 32;
        window = window << 1 | if next < key.len() * 8 { bit(key, next) } else { 0 };
    }
    result
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// What a NIC with this offer hashes of a packet.
fn reference_input(offer: &RssOffer, input: &RssInput) -> Option<Vec<u8>> {
    let mut bytes = octets(input.source);
    bytes.extend(octets(input.destination));
    match offer.hashed[input.transport as usize] {
        Hashed::Ports => {
            bytes.extend(input.source_port.to_be_bytes());
            bytes.extend(input.destination_port.to_be_bytes());
            Some(bytes)
        }
        Hashed::Addresses => Some(bytes),
        Hashed::Nothing => None,
    }
}

fn reference_queue(offer: &RssOffer, input: &RssInput) -> Option<u16> {
    let hash = reference_hash(&offer.key, &reference_input(offer, input)?);
    Some(offer.reta[hash as usize % offer.reta.len()])
}

fn offer(key: &[u8], reta: Vec<u16>) -> RssOffer {
    RssOffer { key: key.to_vec(), hashed: [Hashed::Ports; 4], reta }
}

fn port(name: &str, queues: u16, rss: RssOffer) -> PortOffer {
    PortOffer {
        name: name.to_owned(),
        queues,
        spreads: true,
        rss: Ok(rss),
        flow_rules: Err("not asked".to_owned()),
    }
}

fn even(queues: u16, size: u16) -> Vec<u16> {
    (0..size).map(|entry| entry % queues).collect()
}

/// Destination, source, hash over addresses, hash over addresses and ports: the specification's
/// table "Verifying the RSS Hash Calculation".
const VECTORS: [(&str, &str, u32, u32); 8] = [
    ("161.142.100.80:1766", "66.9.149.187:2794", 0x323e_8fc2, 0x51cc_c178),
    ("65.69.140.83:4739", "199.92.111.2:14230", 0xd718_262a, 0xc626_b0ea),
    ("12.22.207.184:38024", "24.19.198.95:12898", 0xd2d0_a5de, 0x5c2b_394a),
    ("209.142.163.6:2217", "38.27.205.30:48228", 0x8298_9176, 0xafc7_327f),
    ("202.188.127.2:1303", "153.39.163.191:44251", 0x5d18_09c5, 0x10e8_28a2),
    ("[3ffe:2501:200:3::1]:1766", "[3ffe:2501:200:1fff::7]:2794", 0x2cc1_8cd5, 0x4020_7d3d),
    ("[ff02::1]:4739", "[3ffe:501:8::260:97ff:fe40:efab]:14230", 0x0f0c_461c, 0xdde5_1bbf),
    (
        "[fe80::200:f8ff:fe21:67cf]:38024",
        "[3ffe:1900:4545:3:200:f8ff:fe21:67cf]:44251",
        0x4b61_e985,
        0x02d1_feef,
    ),
];

#[test]
fn hashes_are_those_that_microsoft_published() {
    for (destination, source, addresses, ports) in VECTORS {
        let destination: SocketAddr = destination.parse().unwrap();
        let source: SocketAddr = source.parse().unwrap();
        let transport = if source.is_ipv4() { Transport::Tcp4 } else { Transport::Tcp6 };
        let input = RssInput {
            transport,
            source: source.ip(),
            destination: destination.ip(),
            source_port: source.port(),
            destination_port: destination.port(),
        };
        for (hashed, expected) in [(Hashed::Addresses, addresses), (Hashed::Ports, ports)] {
            let offer = RssOffer { hashed: [hashed; 4], ..offer(&KEY, even(4, 128)) };
            let function = RssFunction::new(&offer, 4, 4).unwrap();
            assert_eq!(function.hash(&input), Some(expected), "{source} {hashed:?}");
            let bytes = reference_input(&offer, &input).unwrap();
            assert_eq!(reference_hash(&KEY, &bytes), expected, "the reference");
            assert_eq!(function.worker(&input).map(|w| w.0), reference_queue(&offer, &input));
        }
    }
}

/// Software steering is what there is without an offer.
#[test]
fn every_local_port_has_one_owner_who_may_use_it() {
    let steering = Steering::default();
    let unused = || unreachable!("only RSS looks at more than the port");
    for workers in [1, 2, 3, 7, 64, 1000] {
        let mut uses = vec![0; 0x1_0000];
        for worker in (0..workers).map(WorkerId) {
            let pairs = Pairs::shared(&[LipId(3)], worker, workers);
            for n in 0..pairs.len() {
                let (lip, port) = pairs.get(n, |_| None).unwrap();
                assert_eq!(steering.owner_of_reply(lip, port, workers, unused), worker);
                uses[usize::from(port)] += 1;
            }
        }
        assert!(uses[..1024].iter().all(|&n| n == 0), "{workers} workers");
        assert!(uses[1024..].iter().all(|&n| n == 1), "{workers} workers");
    }
}

#[test]
fn requests_are_spread_by_hash_only_where_there_is_no_rss() {
    let steering = Steering::software(vec![true, false]);
    let unused = || unreachable!("no reference");
    assert_eq!(steering.owner_of_request(PortId(0), true, 77, 4, unused), None);
    for port in [1, 9] {
        let owner = |hash| steering.owner_of_request(PortId(port), true, hash, 4, unused);
        assert_eq!(owner(0), Some(WorkerId(0)));
        assert_eq!(owner(u32::MAX), Some(WorkerId(3)));
    }
}

/// A request that arrives where another hash is used, or as the quote of an ICMP error, is owned by
/// whoever would have received it on the first port.
#[test]
fn requests_have_one_owner_wherever_they_arrive() {
    let first = offer(&KEY, even(4, 128));
    let mut other = KEY;
    other.reverse();
    let offers = [port("a", 4, first.clone()), port("b", 4, offer(&other, even(4, 64)))];
    let choice = choose(Wish::Auto, &offers, 4, [1, 0]);
    let input = input(Transport::Udp4, 7, 9, 5353, 53);
    let owner = reference_queue(&first, &input).map(WorkerId);
    let ask = |port, itself| choice.steering.owner_of_request(PortId(port), itself, 0, 4, || input);
    assert_eq!(ask(0, true), None, "who receives it");
    assert_eq!((ask(0, false), ask(1, true), ask(1, false)), (owner, owner, owner));
    assert!(choice.steering.trusts(PortId(0)) && !choice.steering.trusts(PortId(1)));
}

fn input(transport: Transport, from: u32, to: u32, source_port: u16, to_port: u16) -> RssInput {
    let address = |n: u32| -> IpAddr {
        if matches!(transport, Transport::Udp4 | Transport::Tcp4) {
            Ipv4Addr::from(0x0a00_0000 | n).into()
        } else {
            Ipv6Addr::from(0x2001_0db8 << 96 | u128::from(n) << 37 | u128::from(n)).into()
        }
    };
    RssInput {
        transport,
        source: address(from),
        destination: address(to),
        source_port,
        destination_port: to_port,
    }
}

/// Everything that one worker may take toward one backend, checked: it is ours by the reference,
/// the owner function says so, and nothing comes twice.
fn assert_pairs_come_back(
    steering: &Steering,
    offers: &[RssOffer],
    (worker, workers): (WorkerId, u16),
    backend: &RssInput,
    lips: &[LipId],
    seen: &mut HashSet<(LipId, u16)>,
) -> u32 {
    let transport = backend.transport;
    let lip_address = |lip: LipId| input(transport, 0, u32::from(lip.0) * 77 + 5, 0, 0).destination;
    let mut found = 0;
    for range in 0..steering.ranges(transport) {
        let address = SocketAddr::new(backend.source, backend.source_port);
        let pairs = steering.pairs(range, (worker, workers), (transport, address), lips);
        for at in 0..pairs.len() {
            let Some((lip, local_port)) = pairs.get(at, |lip| Some(lip_address(lip))) else {
                continue;
            };
            assert!(local_port >= FIRST_LOCAL_PORT);
            assert!(seen.insert((lip, local_port)), "{lip:?}:{local_port} is given twice");
            let reply = RssInput {
                destination: lip_address(lip),
                destination_port: local_port,
                ..*backend
            };
            assert_eq!(steering.owner_of_reply(lip, local_port, workers, || reply), worker);
            if let [offer] = offers
                && steering.brings_replies(PortId(0), transport)
                && range == steering.best_range(transport, worker, None)
                && offer.reta.contains(&worker.0)
            {
                assert_eq!(reference_queue(offer, &reply), Some(worker.0), "comes back elsewhere");
            }
            found += 1;
        }
    }
    found
}

fn transports() -> impl Strategy<Value = Transport> {
    prop::sample::select(TRANSPORTS.to_vec())
}

fn keys() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => prop::collection::vec(any::<u8>(), 40..=52),
        // Symmetric, as some use it: 16 bits again and again.
        1 => any::<[u8; 2]>().prop_map(|pair| pair.repeat(20)),
        1 => prop::collection::vec(prop_oneof![9 => Just(0u8), 1 => any::<u8>()], 40),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Random keys, redirection tables (with any distribution, also such that leave workers out)
    /// and backends: all pairs of all workers together are every LIP:port once.
    #[test]
    fn local_ports_come_back_to_who_chose_them(
        key in keys(),
        workers in 2u16..=9,
        bits in 1u32..=9,
        reta_seed in any::<u64>(),
        transport in transports(),
        hashed in prop::sample::select(vec![Hashed::Ports, Hashed::Addresses, Hashed::Nothing]),
        backend in 0u32..0x00ff_ffff,
        backend_port in 1u16..,
    ) {
        let mut state = reta_seed;
        let reta: Vec<u16> = (0..1 << bits).map(|entry: u16| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            if reta_seed % 3 == 0 { (state >> 40) as u16 % workers } else { entry % workers }
        }).collect();
        let mut offer = offer(&key, reta);
        offer.hashed[transport as usize] = hashed;
        let choice = choose(Wish::Rss, &[port("wan0", workers, offer.clone())], workers, [2, 2]);
        let backend = input(transport, backend, 0, backend_port, 0);
        let lips = [LipId(0), LipId(9)];
        let mut seen = HashSet::new();
        for worker in (0..workers).map(WorkerId) {
            let found = assert_pairs_come_back(
                &choice.steering,
                std::slice::from_ref(&offer),
                (worker, workers),
                &backend,
                &lips,
                &mut seen,
            );
            prop_assert!(found > 0, "worker {worker:?} has no local port");
        }
        prop_assert_eq!(seen.len(), 2 * (0x1_0000 - 1024), "every pair has an owner");
    }

    /// Ports that hash differently: still one owner for each pair, and whoever takes from the best
    /// range of a port gets replies that this port's hash leads to him.
    #[test]
    fn ports_with_different_hashes_share_the_local_ports(
        keys in prop::collection::vec(prop::collection::vec(any::<u8>(), 40), 2..=5),
        workers in 2u16..=5,
        transport in transports(),
        backend in 0u32..0x00ff_ffff,
    ) {
        let rss: Vec<RssOffer> = keys.iter().map(|key| offer(key, even(workers, 128))).collect();
        let offers: Vec<PortOffer> =
            rss.iter().map(|rss| port("p", workers, rss.clone())).collect();
        let choice = choose(Wish::Auto, &offers, workers, [1, 1]);
        let backend = input(transport, backend, 0, 443, 0);
        let mut seen = HashSet::new();
        for worker in (0..workers).map(WorkerId) {
            let who = (worker, workers);
            assert_pairs_come_back(&choice.steering, &rss, who, &backend, &[LipId(0)], &mut seen);
            for (index, rss) in rss.iter().enumerate().take(3) {
                let (steering, way) = (&choice.steering, PortId(index as u16));
                if !steering.brings_replies(way, transport) {
                    continue; // a key under which local ports make too little difference
                }
                let range = steering.best_range(transport, worker, Some(way));
                let address = SocketAddr::new(backend.source, backend.source_port);
                let pairs = steering.pairs(range, who, (transport, address), &[LipId(0)]);
                let to = input(transport, 0, 5, 0, 0).destination;
                for at in (0..pairs.len()).step_by(13) {
                    if let Some((_, local)) = pairs.get(at, |_| Some(to)) {
                        let reply =
                            RssInput { destination: to, destination_port: local, ..backend };
                        prop_assert_eq!(reference_queue(rss, &reply), Some(worker.0));
                    }
                }
            }
        }
        prop_assert_eq!(seen.len(), 0x1_0000 - 1024);
        let followed = choice.ports.iter().filter(|port| port.mode == Mode::Rss).count();
        prop_assert!(followed <= 3);
    }
}

/// The usual NIC: nothing is searched, and nobody is short of local ports.
#[test]
fn with_an_ordinary_nic_the_ports_are_divided_evenly() {
    for (workers, size) in [(2, 128), (4, 128), (8, 512), (6, 128), (3, 64)] {
        let offer = offer(&KEY, even(workers, size));
        let choice = choose(Wish::Auto, &[port("wan0", workers, offer)], workers, [1, 1]);
        assert_eq!(choice.ports[0].mode, Mode::Rss, "{}", choice.ports[0].reason);
        for transport in TRANSPORTS {
            let backend = input(transport, 1234, 0, 80, 0);
            let address = SocketAddr::new(backend.source, 80);
            for worker in (0..workers).map(WorkerId) {
                let lips = [LipId(0)];
                let who = (worker, workers);
                let pairs = choice.steering.pairs(0, who, (transport, address), &lips);
                let found: Vec<bool> = (0..pairs.len())
                    .map(|at| pairs.get(at, |_| Some(backend.destination)).is_some())
                    .collect();
                let usable = found.iter().filter(|&&found| found).count() as u32;
                assert_eq!(usable, pairs.usable(), "what is shown as the capacity");
                let share = (0x1_0000 - 1024) / u32::from(workers);
                assert!(usable.abs_diff(share) <= share / 8, "{usable} of about {share}");
                let longest = found.split(|&found| found).map(<[bool]>::len).max();
                assert!(longest <= Some(8), "{longest:?} misses in a row");
            }
        }
    }
}

/// What each port offers, the wish, and how it ends: for IPv4 and IPv6 LIPs.
#[test]
fn the_way_is_chosen_by_what_the_ports_offer() {
    let good = || port("good", 4, offer(&KEY, even(4, 128)));
    let rules = |mut port: PortOffer| {
        port.flow_rules = Ok(());
        port
    };
    let none = || PortOffer { spreads: false, rss: Err("it has no RSS".into()), ..good() };
    let with = |change: fn(&mut RssOffer)| {
        let mut offer = offer(&KEY, even(4, 128));
        change(&mut offer);
        PortOffer { rss: Ok(offer), ..good() }
    };
    use Mode::{FlowRules, Rss, Software};
    type Case = (&'static str, Wish, Vec<PortOffer>, [usize; 2], Vec<(Mode, &'static str)>);
    let cases: Vec<Case> = vec![
        ("rss", Wish::Auto, vec![good()], [1, 0], vec![(Rss, "no flow rules: not asked")]),
        ("both", Wish::Auto, vec![rules(good())], [4, 4], vec![(FlowRules, "every local address")]),
        ("too few LIPs", Wish::Auto, vec![rules(good())], [4, 3], vec![(Rss, "only 3 of IPv6")]),
        ("no IPv6 at all", Wish::Auto, vec![rules(good())], [5, 0], vec![(FlowRules, "")]),
        ("wish for RSS", Wish::Rss, vec![rules(good())], [4, 4], vec![(Rss, "known in advance")]),
        ("wish for software", Wish::Software, vec![good()], [4, 4], vec![(Software, "configured")]),
        ("nothing", Wish::Auto, vec![none()], [4, 4], vec![(Software, "it has no RSS")]),
        ("wish in vain", Wish::FlowRules, vec![none()], [4, 4], vec![(Software, "not asked")]),
        (
            "fewer queues",
            Wish::Auto,
            vec![rules(PortOffer { queues: 2, ..with(|o| o.reta = even(2, 128)) })],
            [4, 4],
            vec![(Rss, "it has 2")],
        ),
        (
            "one of two ports",
            Wish::Auto,
            vec![good(), none()],
            [4, 4],
            vec![(Rss, "known"), (Software, "it has no RSS")],
        ),
        (
            "no key",
            Wish::Auto,
            vec![with(|o| o.key.clear())],
            [4, 4],
            vec![(Software, "does not tell its RSS key")],
        ),
        (
            "no table",
            Wish::Auto,
            vec![with(|o| o.reta.clear())],
            [4, 4],
            vec![(Software, "does not tell its redirection table")],
        ),
        (
            "odd table",
            Wish::Auto,
            vec![with(|o| o.reta.truncate(100))],
            [4, 4],
            vec![(Software, "100 entries")],
        ),
        (
            "queue that nobody polls",
            Wish::Auto,
            vec![with(|o| o.reta[9] = 4)],
            [4, 4],
            vec![(Software, "names queue 4, but only 4 are polled")],
        ),
        (
            "zero key",
            Wish::Auto,
            vec![with(|o| o.key.fill(0))],
            [4, 4],
            vec![(Software, "all zeros")],
        ),
        (
            "addresses only",
            Wish::Auto,
            vec![with(|o| o.hashed = [Hashed::Addresses; 4])],
            [4, 4],
            vec![(Rss, "by addresses only: UDP over IPv4, TCP over IPv4")],
        ),
        (
            "no UDP",
            Wish::Auto,
            vec![with(|o| o.hashed[0] = Hashed::Nothing)],
            [4, 4],
            vec![(Rss, "in software: UDP over IPv4")],
        ),
        (
            "a key too short for IPv6",
            Wish::Auto,
            vec![with(|o| o.key.truncate(16))],
            [4, 4],
            vec![(Rss, "in software: UDP over IPv6, TCP over IPv6")],
        ),
    ];
    for (name, wish, offers, lips, expected) in cases {
        let choice = choose(wish, &offers, 4, lips);
        assert_eq!(choice.ports.len(), expected.len(), "{name}");
        for (port, (mode, reason)) in choice.ports.iter().zip(&expected) {
            assert_eq!(port.mode, *mode, "{name}: {}", port.reason);
            assert!(port.reason.contains(reason), "{name}: {}", port.reason);
        }
        let unmet = match wish {
            Wish::Auto => false,
            Wish::FlowRules => expected.iter().any(|(mode, _)| *mode != FlowRules),
            Wish::Rss => expected.iter().any(|(mode, _)| *mode != Rss),
            Wish::Software => expected.iter().any(|(mode, _)| *mode != Software),
        };
        assert_eq!(choice.disappointed, unmet, "{name}");
    }
    let alone = choose(Wish::Rss, &[good()], 1, [1, 1]);
    assert_eq!((alone.ports[0].mode, alone.disappointed), (Mode::Single, false));
}

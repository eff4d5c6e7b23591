//! Bounded fuzzing of everything that reads OSPF packets: noise and mutated packets of a live
//! session, with checksums made good again so that they reach the machines.
//! `DUNLIN_FUZZ_SECONDS` (default 2) bounds it; the seed is printed.

mod ospf_pair;

use ospf_pair::{Pair, address};
use routing::ospf::auth::Auth;
use routing::ospf::lsa::{Lsa, LsaKey};
use routing::ospf::packet::{Body, Packet, header_len};
use routing::ospf::{AreaKind, NetworkKind, Version};
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

fn v6(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V6(v6) => v6,
        IpAddr::V4(_) => Ipv6Addr::UNSPECIFIED,
    }
}

#[test]
fn mutated_packets_never_panic_nor_break_a_session_for_good() {
    let seconds = std::env::var("DUNLIN_FUZZ_SECONDS").ok().and_then(|s| s.parse().ok());
    let budget = Duration::from_secs(seconds.unwrap_or(2));
    let mut seed: u64 = rand::random();
    println!("seed {seed}");
    let start = Instant::now();
    let mut rounds = 0;
    while rounds < 4 || start.elapsed() < budget {
        let version = if rounds % 2 == 0 { Version::V2 } else { Version::V3 };
        let network =
            if rounds % 4 < 2 { NetworkKind::PointToPoint } else { NetworkKind::Broadcast };
        round(&mut seed, version, network);
        rounds += 1;
    }
}

/// A session that is fed bad packets in between, then left alone: it must end Full.
fn round(seed: &mut u64, version: Version, network: NetworkKind) {
    let mut pair = Pair::new(version, network, AreaKind::Normal, &Auth::None);
    let (mut accepted, mut refused) = (0, 0);
    for _ in 0..600 {
        let pause = Duration::from_millis(next(seed) % 100);
        pair.run(pair.now + pause);
        let Some((from, bytes, destination)) = spoilt(seed, &pair) else { continue };
        let source = address(version, from);
        let now = pair.now;
        match pair.sides[1 - from].handle_packet(1, source, destination, &bytes, now) {
            Ok(()) => accepted += 1,
            Err(_) => refused += 1,
        }
        pair.deliver();
        pair.sent.truncate(400);
        for side in &pair.sides {
            assert!(side.database().len() < 2_000);
        }
    }
    assert!(accepted > 0 && refused > 0, "{accepted} accepted, {refused} refused: blind");
    pair.run(pair.now + Duration::from_secs(30));
    assert!(pair.is_full(), "{:#?}", pair.sides[0].status(pair.now).interfaces);
}

/// One of the packets sent so far, changed; often with its checksum made good.
fn spoilt(seed: &mut u64, pair: &Pair) -> Option<(usize, Vec<u8>, IpAddr)> {
    let random = next(seed);
    let pick = &pair.sent[next(seed) as usize % pair.sent.len().max(1)..];
    let (from, transmit) = pick.first()?;
    let mut bytes = transmit.bytes.clone();
    let ends = (v6(address(pair.version, *from)), v6(transmit.destination));
    match random % 4 {
        0 => bytes = (0..random >> 57).map(|_| next(seed) as u8).collect(),
        1 => {
            // An LSA with a good checksum and any body, also as if it were the receiver's own.
            let packet = Packet::parse(pair.version, &bytes).ok()?;
            let kinds: &[u16] = match pair.version {
                Version::V2 => &[1, 2, 3, 5, 7, 9, 10, 11, 99],
                Version::V3 => &[0x2001, 0x2002, 0x4005, 8, 0x2009, 0xffff, 0x2007, 0xa0ff],
            };
            let key = LsaKey {
                kind: kinds[next(seed) as usize % kinds.len()],
                id: next(seed) as u32 % 8,
                router: u32::from(ospf_pair::router_id((next(seed) % 3) as usize)),
            };
            let body: Vec<u8> = (0..random >> 58).map(|_| next(seed) as u8).collect();
            let sequence = match next(seed) % 4 {
                0 => i32::MAX,
                1 => i32::MIN,
                _ => next(seed) as i32,
            };
            let lsa = Lsa::build(pair.version, 2, key, sequence, &body)?;
            bytes = Packet { header: packet.header, body: Body::Update(vec![lsa]) }
                .encode(pair.version);
        }
        _ => {
            for _ in 0..=(random >> 8 & 3) {
                let at = next(seed) as usize % bytes.len().max(1);
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = next(seed) as u8;
                }
            }
            if (random >> 16).is_multiple_of(8) {
                bytes.truncate(next(seed) as usize % (bytes.len() + 1));
            }
        }
    }
    let mend = !(random >> 20).is_multiple_of(4);
    if mend && bytes.len() >= header_len(pair.version) {
        let length = (bytes.len() as u16).to_be_bytes();
        bytes[2..4].copy_from_slice(&length);
        bytes[12..14].fill(0);
        if pair.version == Version::V2 {
            bytes[14..24].fill(0);
        }
        Auth::None.sign(pair.version, &mut bytes, 0, ends);
    }
    Some((*from, bytes, transmit.destination))
}

//! Bounded fuzzing of everything that reads BFD packets: random bytes and mutated good packets into
//! the codec and into an engine with live sessions. `DUNLIN_FUZZ_SECONDS` (default 2) bounds it;
//! the seed is printed.

use routing::bfd::auth::{AuthConfig, AuthType};
use routing::bfd::engine::{Engine, Meta, SessionConfig};
use routing::bfd::packet::{Control, Diagnostic, Packet, State};
use std::net::IpAddr;
use std::time::{Duration, Instant};

fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

fn session(n: u8) -> SessionConfig {
    let auth = |kind| Some(AuthConfig { kind, key_id: 1, secret: vec![n] });
    SessionConfig {
        peer: IpAddr::from([192, 0, 2, n]),
        local: None,
        interface: None,
        multihop: n.is_multiple_of(2),
        min_tx: Duration::from_millis(50),
        min_rx: Duration::from_millis(50),
        multiplier: 3,
        auth: match n % 3 {
            0 => None,
            1 => auth(AuthType::KeyedSha1),
            _ => auth(AuthType::MeticulousKeyedSha1),
        },
    }
}

#[test]
fn mutated_packets_never_panic_nor_grow_the_engine() {
    let seconds = std::env::var("DUNLIN_FUZZ_SECONDS").ok().and_then(|s| s.parse().ok());
    let budget = Duration::from_secs(seconds.unwrap_or(2));
    let mut seed: u64 = rand::random();
    println!("seed {seed}");
    let mut engine = Engine::new(seed);
    let sessions: Vec<_> = (1..=6).map(session).collect();
    engine.set_sessions("fuzz", sessions, Duration::ZERO).unwrap();
    let ids: Vec<u32> = engine.sessions().map(|(id, _)| id).collect();
    let mut virtual_now = Duration::ZERO;
    let mut corpus: Vec<Vec<u8>> = Vec::new();
    let (mut accepted, mut refused) = (0u64, 0u64);
    let start = Instant::now();
    while start.elapsed() < budget {
        for _ in 0..1000 {
            let bytes = packet(&mut seed, &ids, &corpus);
            let random = next(&mut seed);
            let meta = Meta {
                src: IpAddr::from([192, 0, 2, (random % 8) as u8]),
                dst: None,
                interface: 1,
                ttl: (random & 0x18 != 0x18).then_some(255),
                port: if random & 32 == 0 { 3784 } else { 4784 },
            };
            virtual_now += Duration::from_micros(random >> 47);
            match engine.handle_packet(&bytes, &meta, virtual_now) {
                Ok(()) => accepted += 1,
                Err(_) => refused += 1,
            }
            engine.handle_timeout(virtual_now);
            let mut out = 0;
            while let Some((_, transmit)) = engine.poll_transmit() {
                out += 1;
                // What we send is well-formed whatever we were told.
                Packet::parse(transmit.bytes()).unwrap();
                let at = (next(&mut seed) % 64) as usize;
                if corpus.len() < 64 {
                    corpus.push(transmit.bytes().to_vec());
                } else {
                    corpus[at] = transmit.bytes().to_vec();
                }
            }
            // The session of the packet and every session by the clock: a final and a periodic
            // packet each at most.
            assert!(out <= 2 * ids.len() + 2, "{out} packets for one");
            while engine.poll_event().is_some() {}
        }
        assert_eq!(engine.sessions().count(), ids.len());
    }
    assert!(accepted > 0 && refused > 0, "{accepted} accepted, {refused} refused: blind");
}

/// A good packet for one of the sessions, one of ours turned back, or noise; often spoilt.
fn packet(seed: &mut u64, ids: &[u32], corpus: &[Vec<u8>]) -> Vec<u8> {
    let random = next(seed);
    let mut bytes = match random % 4 {
        0 if !corpus.is_empty() => corpus[(next(seed) as usize) % corpus.len()].clone(),
        1 => (0..random >> 58).map(|_| next(seed) as u8).collect(),
        _ => Control {
            diagnostic: Diagnostic::from_code(next(seed) as u8),
            state: State::from_bits((random >> 8) as u8),
            poll: random & 0x400 != 0,
            is_final: random & 0xc00 == 0x800,
            control_plane_independent: false,
            demand: random & 0xf000 == 0,
            detect_multiplier: (random >> 16) as u8,
            my_discriminator: next(seed) as u32,
            your_discriminator: match random >> 24 & 3 {
                0 => 0,
                _ => ids[(next(seed) as usize) % ids.len()],
            },
            desired_min_tx_us: next(seed) as u32 >> (random >> 32 & 31),
            required_min_rx_us: next(seed) as u32 >> (random >> 40 & 31),
            required_min_echo_rx_us: 0,
        }
        .encode(0)
        .to_vec(),
    };
    for _ in 0..(random >> 48 & 3) {
        if !bytes.is_empty() {
            let at = next(seed) as usize % bytes.len();
            bytes[at] ^= 1 << (next(seed) % 8);
        }
    }
    if (random >> 52).is_multiple_of(8) {
        bytes.truncate((next(seed) % 60) as usize);
    }
    bytes
}

//! Bounded fuzzing of datagrams between nodes on a stable toolchain: good messages, mutated, signed
//! and not.
//!
//! See `support/campaign.rs` for settings and failures. The same body runs under libFuzzer: see
//! `fuzz/`.

#[path = "support/campaign.rs"]
mod campaign;
#[path = "support/cluster.rs"]
mod cluster;

use dunlin::cluster::wire::{Body, Message, Signer};
use dunlin::forward::{FlowKey, FlowMapping, FlowPhase};
use rand::RngExt;
use rand::rngs::StdRng;
use std::net::SocketAddr;

#[test]
fn any_datagrams_are_refused_or_answered_and_forgotten() {
    campaign::run("cluster", cluster::datagrams, input);
}

/// A few datagrams as [`cluster::datagrams`] reads them.
fn input(random: &mut StdRng) -> Vec<u8> {
    let mut input = Vec::new();
    for _ in 0..random.random_range(1..8) {
        let mut content = content(random);
        for _ in 0..random.random_range(0..4) {
            let at = random.random_range(0..content.len());
            match random.random_range(0..4) {
                0 => content[at] ^= 1 << random.random_range(0..8),
                1 => content[at] = random.random(),
                2 => content.truncate(at.max(1)),
                _ => content.insert(at, random.random()),
            }
        }
        input.push(random.random());
        input.extend((content.len() as u16).to_be_bytes());
        input.extend(content);
    }
    input
}

/// What is signed of a good message.
fn content(random: &mut StdRng) -> Vec<u8> {
    let socket = |n: u8, port: u16, v6: bool| -> SocketAddr {
        if v6 {
            SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, n.into()], port))
        } else {
            SocketAddr::from(([10, 0, 0, n], port))
        }
    };
    let (v6, count) = (random.random(), random.random_range(1..=13));
    let mut key = || FlowKey { client: socket(1, random.random(), v6), vip: socket(2, 80, v6) };
    let keys: Vec<FlowKey> = (0..count).map(|_| key()).collect();
    let body = if random.random() {
        Body::Question(keys.into_iter().collect())
    } else {
        let mapping = |key| FlowMapping {
            key,
            lip: socket(3, 1024, v6),
            backend: socket(4, 80, v6),
            phase: FlowPhase::Established,
            idle_ms: 1,
        };
        Body::Answer(keys.into_iter().map(mapping).collect())
    };
    let message = Message { sender: [10, 0, 0, 2].into(), nonce: random.random_range(0..4), body };
    let mut datagram = Signer::new(b"any").encode(&message);
    datagram.truncate(datagram.len() - 32);
    datagram
}

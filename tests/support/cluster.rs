//! The body of the fuzz target of datagrams between nodes: run by libFuzzer (`fuzz/`) and, bounded,
//! by `tests/fuzz_cluster.rs`. It panics if something does not hold.

use dunlin::cluster::wire::{MAX_DATAGRAM, Signer, decode_content};
use dunlin::cluster::{ClusterStats, Exchange, ExchangeConfig};
use dunlin::forward::FlowKey;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

const KEY: &[u8] = b"the key of the fuzzer";

/// Any bytes as what a peer, with the right key, and anybody else send: datagrams of a control byte,
/// a length (two bytes) and as many bytes, repeated.
pub fn datagrams(data: &[u8]) {
    let signer = Signer::new(KEY);
    let peer = SocketAddr::from(([10, 0, 0, 2], 7411));
    let stats = Arc::new(ClusterStats::new(&[peer]));
    let mut now = Instant::now();
    let config = ExchangeConfig {
        node: [10, 0, 0, 1].into(),
        key: KEY.to_vec(),
        peers: vec![peer],
        workers: 2,
        seed: [7; 32],
    };
    let mut exchange = Exchange::new(config, Arc::clone(&stats), now);
    let (mut left, mut handled) = (data, 0);
    while let [control, high, low, rest @ ..] = left {
        let length = usize::from(u16::from_be_bytes([*high, *low]) & 0x7ff).min(rest.len());
        let (content, after) = rest.split_at(length);
        left = after;
        if let Ok(message) = decode_content(content) {
            let again = signer.encode(&message);
            assert!(again.len() <= MAX_DATAGRAM);
            assert_eq!(&again[..content.len()], content, "two encodings of one message");
        }
        if control & 1 == 0 {
            let client = SocketAddr::from(([198, 51, 100, 1], u16::from(*control)));
            let vip = SocketAddr::from(([192, 0, 2, 1], 80));
            exchange.handle_missing(0, FlowKey { client, vip });
            exchange.flush(now);
        }
        let unsigned = control & 2 != 0;
        let datagram = if unsigned { content.to_vec() } else { signer.sign(content.to_vec()) };
        exchange.handle_datagram(peer, &datagram, now);
        handled += 1;
        if control & 4 != 0 {
            now += Duration::from_millis(50);
            exchange.handle_timeout(now);
        }
        while exchange.poll_order().is_some() {}
        while let Some((to, answer)) = exchange.poll_transmit() {
            assert_eq!(to, peer);
            assert!(signer.decode(&answer).is_ok());
        }
    }
    assert_eq!(stats.received.get(), handled);
    // Whatever was asked, all is forgotten in the end.
    for _ in 0..8 {
        now += Duration::from_millis(500);
        exchange.handle_timeout(now);
        while exchange.poll_transmit().is_some() {}
    }
    assert_eq!(exchange.poll_timeout(), None);
}

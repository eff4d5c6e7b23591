//! Fragments come to the worker that their addresses lead to, and cross to the one that has their
//! flow.

use super::*;
use crate::packet::Fragment;
use crate::packet::build::{fragments, reassemble};

/// Bytes in a fragment: with the headers of IPv6, the MTU.
const MOST: usize = 1448;

impl Traffic {
    /// Deliver fragments in this order; what they become when put together, and where it leaves.
    fn carry(&mut self, port: u16, parts: Vec<Vec<u8>>) -> (u16, Vec<u8>) {
        let count = parts.len();
        for part in parts {
            self.deliver(port, part);
        }
        let sent = self.settle();
        assert_eq!(sent.len(), count, "fragments in and out");
        let way = sent[0].0;
        assert!(sent.iter().all(|(port, _)| *port == way));
        let sent: Vec<Vec<u8>> = sent.into_iter().map(|(_, frame)| frame).collect();
        let whole = reassemble(&sent).expect("one datagram");
        assert!(build::checksums_good(&whole));
        (way, whole)
    }

    /// A client's datagram of this flow in fragments, then its backend's, each in some order.
    fn both_ways(&mut self, at: usize, identification: u32) {
        let flow = &self.flows[at];
        let (client, vip, tcp) = (flow.client, flow.vip, flow.tcp);
        let made = |from, to| {
            let payload = vec![identification as u8; 4000];
            if tcp {
                build::tcp(INBOUND, from, to, ACK, &payload)
            } else {
                build::udp(INBOUND, from, to, &payload)
            }
        };
        let mut parts = fragments(&made(client, vip), identification, MOST);
        self.shuffle(&mut parts);
        let (way, whole) = self.carry(0, parts);
        let (lip, backend) = tuple(&whole);
        let flow = &mut self.flows[at];
        if let Some((known_lip, known_backend, ..)) = &flow.inside {
            assert_eq!((lip, backend), (*known_lip, *known_backend), "another flow");
        } else {
            assert!(self.given.insert((lip, backend, tcp)), "{lip} given twice");
            flow.inside = Some((lip, backend, way, whole));
        }
        let mut parts = fragments(&made(backend, lip), identification, MOST);
        self.shuffle(&mut parts);
        let (port, whole) = self.carry(way, parts);
        assert_eq!((port, tuple(&whole)), (0, (vip, client)));
    }

    fn shuffle(&mut self, parts: &mut [Vec<u8>]) {
        for at in (1..parts.len()).rev() {
            parts.swap(at, self.dice.roll(at as u32 + 1) as usize);
        }
    }
}

#[test]
fn fragments_find_the_worker_of_their_flow() {
    for workers in 2..=4 {
        for wish in [Wish::Rss, Wish::FlowRules, Wish::Software] {
            let nics = vec![Nic::new(u64::from(workers) * 31, workers)];
            let flow_rules = wish == Wish::FlowRules;
            let mut traffic = Traffic::new(wish, workers, nics, flow_rules, 21);
            traffic.run(80);
            let (known, before) = (traffic.flows.len(), traffic.handed_over());
            // And some that begin with a fragment.
            for n in 0..40 {
                let v6 = n % 2 == 0;
                let client = SocketAddr::new(host(v6, 101, n), 5000 + n);
                let vip = SocketAddr::new(host(v6, 5, 1), 80);
                traffic.flows.push(Flow { client, vip, tcp: false, inside: None });
            }
            for at in 0..traffic.flows.len() {
                traffic.both_ways(at, at as u32 + 1);
            }
            let bench = &traffic.bench;
            let created = bench.sum(|stats| stats.flows_created.get());
            assert_eq!(created, known as u64 + 40, "no flow at two workers: {wish:?}");
            assert_eq!(bench.sum(WorkerStats::dropped), 0);
            assert_eq!(bench.sum(|stats| stats.parked.get()), 0);
            assert!(traffic.handed_over() > before + 20, "{wish:?}: {}", traffic.handed_over());
            assert_eq!(traffic.misdirected(), 0, "they were not expected here");
            // Whole packets of the new flows find what the fragments made.
            for _ in 0..100 {
                traffic.request(false);
                traffic.reply();
            }
            assert_eq!(traffic.bench.sum(|stats| stats.flows_created.get()), created);
        }
    }
}

/// Workers share LIPs and VIPs: what they send at the same time must not get mixed up.
#[test]
fn workers_give_different_identifications() {
    let workers = 4;
    let mut traffic = Traffic::new(Wish::Software, workers, vec![Nic::new(3, workers)], false, 7);
    let mut seen = HashSet::new();
    for n in 0..300 {
        let client = SocketAddr::new(host(false, 100, n), 4000);
        let vip = SocketAddr::new(host(false, 5, 1), 80);
        let whole = build::udp(INBOUND, client, vip, &[1; 2000]);
        for part in fragments(&whole, 1, 1480) {
            traffic.deliver(0, part);
        }
        for (_, frame) in traffic.settle() {
            let fragment = Fragment::read(&frame, false).unwrap();
            let name = (frame[26..34].to_vec(), fragment.identification, fragment.offset);
            assert!(seen.insert(name), "client {n}: {}", fragment.identification);
        }
    }
    assert_eq!(seen.len(), 600);
}

/// Fragments whose first never comes: kept, a few, then dropped under their reason.
#[test]
fn fragments_without_their_first_are_dropped_in_the_end() {
    let workers = 2;
    let mut traffic = Traffic::new(Wish::Software, workers, vec![Nic::new(3, workers)], false, 7);
    let vip = SocketAddr::new(host(false, 5, 1), 80);
    let client = SocketAddr::new(host(false, 100, 1), 4000);
    let whole = build::udp(INBOUND, client, vip, &[1; 2000]);
    let parked = |traffic: &Traffic| traffic.bench.sum(|stats| stats.parked.get());
    let dropped =
        |traffic: &Traffic| traffic.bench.sum(|stats| stats.drops(DropReason::FragmentNoFirst));
    for n in 0..500 {
        traffic.deliver(0, fragments(&whole, n, 1480).remove(1));
        traffic.settle();
    }
    assert_eq!(parked(&traffic), kept::CAPACITY as u64, "all came to one worker");
    assert_eq!(parked(&traffic) + dropped(&traffic), 500);
    // The newest is still there.
    traffic.deliver(0, fragments(&whole, 499, 1480).remove(0));
    let out: Vec<Vec<u8>> = traffic.settle().into_iter().map(|(_, frame)| frame).collect();
    assert!(reassemble(&out).is_some());
    traffic.bench.now.0 += kept::PATIENCE_NS;
    traffic.settle();
    assert_eq!((parked(&traffic), dropped(&traffic)), (0, 499));
}

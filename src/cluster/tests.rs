use super::exchange::GIVE_UP;
use super::wire::{Body, MAX_DATAGRAM, MAX_ENTRIES, Message, Signer, WireError, decode_content};
use super::{ClusterStats, Exchange, ExchangeConfig};
use crate::forward::{FlowKey, FlowMapping, FlowPhase};
use crate::worker::sharing::Order;
use proptest::prelude::*;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

const KEY: &[u8] = b"a key for these tests";

fn address(n: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, n], 7411))
}

fn flow(n: u16) -> FlowKey {
    let client = SocketAddr::from(([198, 51, 100, 1], n));
    FlowKey { client, vip: "192.0.2.1:80".parse().unwrap() }
}

fn mapping(n: u16, idle_ms: u32) -> FlowMapping {
    FlowMapping {
        key: flow(n),
        lip: SocketAddr::from(([10, 9, 1, 1], n)),
        backend: "10.2.0.1:80".parse().unwrap(),
        phase: FlowPhase::Established,
        idle_ms,
    }
}

/// A node: its exchange, and the flows that its workers have.
struct Node {
    number: u8,
    exchange: Exchange,
    stats: Arc<ClusterStats>,
    flows: Vec<FlowMapping>,
    adopted: Vec<(u16, u16, FlowMapping)>,
    /// Does its workers answer?
    stalled: bool,
}

impl Node {
    fn new(number: u8, nodes: u8, key: &[u8], now: Instant) -> Self {
        let peers: Vec<SocketAddr> = (1..=nodes).filter(|n| *n != number).map(address).collect();
        let stats = Arc::new(ClusterStats::new(&peers));
        let config = ExchangeConfig {
            node: [10, 0, 0, number].into(),
            key: key.to_vec(),
            peers,
            workers: 2,
            seed: [number; 32],
        };
        let exchange = Exchange::new(config, Arc::clone(&stats), now);
        let (flows, adopted) = (Vec::new(), Vec::new());
        Self { number, exchange, stats, flows, adopted, stalled: false }
    }

    fn carry_out_orders(&mut self) {
        while let Some((worker, order)) = self.exchange.poll_order() {
            match order {
                Order::Find { .. } if self.stalled => {}
                Order::Find { ticket, key } => {
                    // All flows are on the second worker.
                    let found = self.flows.iter().find(|flow| worker == 1 && flow.key == key);
                    self.exchange.handle_found(ticket, found.copied());
                }
                Order::Adopt { peer, mapping } => self.adopted.push((worker, peer, mapping)),
            }
        }
    }
}

/// Nodes and the datagrams between them.
struct Net {
    now: Instant,
    nodes: Vec<Node>,
    /// From, to, bytes: everything ever sent.
    sent: Vec<(SocketAddr, SocketAddr, Vec<u8>)>,
}

impl Net {
    fn new(nodes: u8) -> Self {
        let now = Instant::now();
        Self {
            now,
            nodes: (1..=nodes).map(|n| Node::new(n, nodes, KEY, now)).collect(),
            sent: vec![],
        }
    }

    /// Deliver until all is quiet; `lost` says which datagrams are.
    fn settle(&mut self, mut lost: impl FnMut(usize) -> bool) {
        loop {
            let before = self.sent.len();
            for node in &mut self.nodes {
                node.exchange.flush(self.now);
                node.carry_out_orders();
                while let Some((to, datagram)) = node.exchange.poll_transmit() {
                    assert!(datagram.len() <= MAX_DATAGRAM);
                    self.sent.push((address(node.number), to, datagram));
                }
            }
            if self.sent.len() == before {
                return;
            }
            for at in before..self.sent.len() {
                if !lost(at) {
                    let (from, to, datagram) = self.sent[at].clone();
                    self.deliver(from, to, &datagram);
                }
            }
        }
    }

    fn deliver(&mut self, from: SocketAddr, to: SocketAddr, datagram: &[u8]) {
        let now = self.now;
        if let Some(node) = self.nodes.iter_mut().find(|node| address(node.number) == to) {
            node.exchange.handle_datagram(from, datagram, now);
            node.carry_out_orders();
        }
    }

    /// Let time pass, from timer to timer.
    fn pass(&mut self, time: Duration, mut lost: impl FnMut(usize) -> bool) {
        let end = self.now + time;
        while let Some(due) =
            self.nodes.iter().filter_map(|n| n.exchange.poll_timeout()).min().filter(|d| *d <= end)
        {
            self.now = due;
            for node in &mut self.nodes {
                node.exchange.handle_timeout(due);
            }
            self.settle(&mut lost);
        }
        self.now = end;
    }
}

#[test]
fn the_owner_answers_and_the_worker_that_asked_adopts() {
    let mut net = Net::new(3);
    net.nodes[2].flows = vec![mapping(1, 7), mapping(2, 8)];
    for n in 1..=3 {
        net.nodes[0].exchange.handle_missing(n, flow(n));
    }
    net.settle(|_| false);
    // Two questions, two answers: all three flows in one datagram each.
    assert_eq!(net.sent.len(), 4);
    // Peers of node 1 are nodes 2 and 3; node 3 is number 1.
    assert_eq!(net.nodes[0].adopted, [(1, 1, mapping(1, 7)), (2, 1, mapping(2, 8))]);
    assert_eq!(net.nodes[0].exchange.poll_timeout(), None, "nothing waits");
    assert_eq!(net.nodes[0].stats.peers[0].answers.get(), 1);
    assert!(net.nodes[0].stats.peers[1].heard_ms().is_some());
}

#[test]
fn many_flows_are_asked_for_in_few_datagrams() {
    let mut net = Net::new(2);
    net.nodes[1].flows = (0..1000).map(|n| mapping(n, 0)).collect();
    for n in 0..1000 {
        net.nodes[0].exchange.handle_missing(0, flow(n));
    }
    net.settle(|_| false);
    assert_eq!(net.nodes[0].adopted.len(), 1000);
    assert_eq!(net.sent.len(), 2 * 1000_usize.div_ceil(MAX_ENTRIES));
}

#[test]
fn what_is_lost_is_asked_again_and_then_given_up() {
    let mut net = Net::new(2);
    net.nodes[1].flows = vec![mapping(1, 0)];
    net.nodes[0].exchange.handle_missing(0, flow(1));
    // The question, then the answer, are lost; the third goes through.
    net.settle(|at| at == 0);
    net.pass(GIVE_UP, |at| at == 2);
    assert_eq!(net.sent.len(), 5);
    assert_eq!(net.nodes[0].adopted.len(), 1);

    net.nodes[0].exchange.handle_missing(0, flow(1));
    net.settle(|_| true);
    net.pass(GIVE_UP * 2, |_| true);
    assert_eq!(net.sent.len(), 5 + 3);
    assert_eq!(net.nodes[0].exchange.poll_timeout(), None);
    let stats = &net.nodes[0].stats;
    assert_eq!((stats.unanswered.get(), stats.peers[0].silences.get()), (1, 1));
}

#[test]
fn a_node_whose_workers_do_not_answer_says_nothing() {
    let mut net = Net::new(2);
    net.nodes[1].stalled = true;
    net.nodes[1].flows = vec![mapping(1, 0)];
    net.nodes[0].exchange.handle_missing(0, flow(1));
    net.settle(|_| false);
    net.pass(GIVE_UP * 2, |_| false);
    assert!(net.sent.iter().all(|(from, ..)| *from == address(1)));
    assert!(net.nodes.iter().all(|node| node.exchange.poll_timeout().is_none()));
}

#[test]
fn of_two_owners_the_one_that_saw_it_last_counts() {
    for (first, second, adopted) in [(9000, 5, 2), (5, 9000, 1)] {
        let mut net = Net::new(3);
        net.nodes[1].flows = vec![mapping(1, first)];
        net.nodes[2].flows = vec![mapping(1, second)];
        net.nodes[0].exchange.handle_missing(0, flow(1));
        net.settle(|_| false);
        assert_eq!(net.nodes[0].adopted.len(), adopted);
        assert_eq!(net.nodes[0].adopted.last().unwrap().2.idle_ms, 5);
    }
}

#[test]
fn forged_and_replayed_datagrams_change_nothing() {
    let mut net = Net::new(2);
    net.nodes[1].flows = vec![mapping(1, 0)];
    net.nodes[0].exchange.handle_missing(0, flow(1));
    net.settle(|_| false);
    let (question, answer) = (net.sent[0].2.clone(), net.sent[1].2.clone());
    let adopted = net.nodes[0].adopted.len();
    let stats = Arc::clone(&net.nodes[0].stats);

    // The answer once more: to nothing, and to another question.
    net.deliver(address(2), address(1), &answer);
    net.nodes[0].exchange.handle_missing(0, flow(1));
    net.settle(|_| true);
    net.deliver(address(2), address(1), &answer);
    assert_eq!(stats.unexpected.get(), 2);
    // Our own question, sent back to us.
    net.deliver(address(2), address(1), &question);
    assert_eq!(stats.unexpected.get(), 3);
    // From a stranger.
    net.deliver(address(9), address(1), &answer);
    assert_eq!(stats.unknown_source.get(), 1);
    // Of somebody who guesses the nonce but has not the key, and one who changes a byte.
    let nonce = u64::from_be_bytes(net.sent[2].2[12..20].try_into().unwrap());
    let body = Body::Answer([mapping(1, 0)].into_iter().collect());
    let forged = Message { sender: [10, 0, 0, 2].into(), nonce, body };
    net.deliver(address(2), address(1), &Signer::new(b"another key").encode(&forged));
    let mut changed = Signer::new(KEY).encode(&forged);
    changed[60] ^= 1;
    net.deliver(address(2), address(1), &changed);
    assert_eq!(stats.bad_signature.get(), 2);
    // A peer that names what it was not asked for.
    let body = Body::Answer([mapping(77, 0)].into_iter().collect());
    let unasked = Message { body, ..forged };
    net.deliver(address(2), address(1), &Signer::new(KEY).encode(&unasked));
    assert_eq!(stats.unexpected.get(), 4);
    assert_eq!(net.nodes[0].adopted.len(), adopted);
}

#[test]
fn nothing_grows_without_bound() {
    let mut net = Net::new(2);
    for n in 0..200_000u32 {
        net.nodes[0].exchange.handle_missing(0, flow(n as u16));
        if n % 1000 == 0 {
            net.nodes[0].exchange.flush(net.now);
        }
    }
    assert!(net.nodes[0].stats.overloaded.get() > 100_000);
    // Questions without end of a peer whose key is right, and of which nothing is looked up.
    let peer = &mut net.nodes[1];
    for nonce in 0..50_000 {
        let body = Body::Question([flow(1)].into_iter().collect());
        let message = Message { sender: [10, 0, 0, 1].into(), nonce, body };
        let datagram = Signer::new(KEY).encode(&message);
        peer.exchange.handle_datagram(address(1), &datagram, net.now);
    }
    assert!(peer.stats.overloaded.get() >= 50_000 - 4096);
    peer.stalled = true;
    net.settle(|_| true);
    net.pass(GIVE_UP * 2, |_| true);
    assert!(net.nodes.iter().all(|node| node.exchange.poll_timeout().is_none()));
}

fn keys() -> impl Strategy<Value = FlowKey> {
    let ip = |v6: bool, bits: u128| -> IpAddr {
        if v6 {
            IpAddr::from(bits.to_be_bytes())
        } else {
            IpAddr::from((bits as u32).to_be_bytes())
        }
    };
    (any::<bool>(), any::<[u128; 2]>(), any::<[u16; 2]>()).prop_map(move |(v6, ips, ports)| {
        let [client, vip] = [0, 1].map(|n| SocketAddr::new(ip(v6, ips[n]), ports[n]));
        FlowKey { client, vip }
    })
}

fn mappings() -> impl Strategy<Value = FlowMapping> {
    let phase = prop::sample::select(FlowPhase::ALL.to_vec());
    (keys(), keys(), phase, any::<u32>()).prop_filter_map(
        "of one family",
        |(key, other, phase, idle_ms)| {
            let (lip, backend) = (other.client, other.vip);
            let same = key.client.is_ipv4() == lip.is_ipv4();
            same.then_some(FlowMapping { key, lip, backend, phase, idle_ms })
        },
    )
}

fn messages() -> impl Strategy<Value = Message> {
    let question = prop::collection::vec(keys(), 1..=MAX_ENTRIES)
        .prop_map(|keys| Body::Question(keys.into_iter().collect()));
    let answer = prop::collection::vec(mappings(), 0..=MAX_ENTRIES)
        .prop_map(|mappings| Body::Answer(mappings.into_iter().collect()));
    let body = prop_oneof![question, answer];
    (any::<u32>(), any::<u64>(), body).prop_map(|(sender, nonce, body)| Message {
        sender: sender.into(),
        nonce,
        body,
    })
}

proptest! {
    #[test]
    fn a_message_comes_back(message in messages()) {
        let signer = Signer::new(KEY);
        let datagram = signer.encode(&message);
        prop_assert!(datagram.len() <= MAX_DATAGRAM);
        prop_assert_eq!(signer.decode(&datagram), Ok(message));
    }

    #[test]
    fn a_changed_datagram_is_refused(message in messages(), at: prop::sample::Index, bit in 0..8u8) {
        let signer = Signer::new(KEY);
        let mut datagram = signer.encode(&message);
        let at = at.index(datagram.len());
        datagram[at] ^= 1 << bit;
        prop_assert_eq!(signer.decode(&datagram), Err(WireError::Signature));
        datagram.truncate(at);
        prop_assert!(signer.decode(&datagram).is_err());
    }

    /// What decodes has one encoding.
    #[test]
    fn any_content_is_refused_or_the_one_encoding(message in messages(), changes: Vec<(prop::sample::Index, u8)>) {
        let signer = Signer::new(KEY);
        let mut content = signer.encode(&message);
        content.truncate(content.len() - 32);
        for (at, byte) in changes.iter().take(4) {
            let at = at.index(content.len());
            content[at] = *byte;
        }
        if let Ok(decoded) = decode_content(&content) {
            let encoded = signer.encode(&decoded);
            prop_assert_eq!(&encoded[..encoded.len() - 32], &content[..]);
        }
    }
}

//! The protocol between nodes: who is asked what, who answers, what becomes of it.
//!
//! Sans-IO. Call `handle_*` with what happened, then [`Exchange::flush`], then take everything from
//! [`Exchange::poll_transmit`] and [`Exchange::poll_order`]; call [`Exchange::handle_timeout`] at
//! [`Exchange::poll_timeout`].
//!
//! A question goes to all peers at once, again to those that do not answer, and is given up after
//! [`GIVE_UP`]: whoever needs the flow asks again later. An answer counts only if it repeats the
//! nonce of a question that waits and comes from a peer that has not answered it, so recorded
//! answers are worth nothing. A recorded question costs its lookups, and its answer goes to the
//! peer it is said to come from.

use super::stats::ClusterStats;
use super::wire::{Body, MAX_ENTRIES, Message, Signer, WireError};
use crate::forward::{FlowKey, FlowMapping};
use crate::worker::sharing::Order;
use arrayvec::ArrayVec;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Most peers: their answers are noted in the bits of a number.
pub const MAX_PEERS: usize = 63;
/// A question is sent again after so long, counted from its first time.
const AGAIN: [Duration; 2] = [Duration::from_millis(40), Duration::from_millis(120)];
/// A question is forgotten after so long.
pub const GIVE_UP: Duration = Duration::from_millis(400);
/// Our workers have so long to look up what a peer asks.
const LOOKUP_TIME: Duration = Duration::from_millis(100);
/// Questions of ours that may wait for answers.
const MAX_QUESTIONS: usize = 4096;
/// Questions of peers that may wait for our workers.
const MAX_LOOKUPS: usize = 4096;
/// Datagrams, and orders, that may wait to be taken.
const MAX_WAITING: usize = 16_384;

/// What an exchange is made with.
#[derive(Debug, Clone)]
pub struct ExchangeConfig {
    /// This node's router id: its name in datagrams.
    pub node: Ipv4Addr,
    pub key: Vec<u8>,
    /// At most [`MAX_PEERS`]; their number is their place in here.
    pub peers: Vec<SocketAddr>,
    pub workers: u16,
    /// Of the nonces: must not be guessable.
    pub seed: [u8; 32],
}

#[derive(Debug)]
struct Wanted {
    key: FlowKey,
    worker: u16,
    /// Of the best answer so far: how long its owner has not seen a packet of the flow.
    idle_ms: Option<u32>,
}

/// One of ours.
#[derive(Debug)]
struct Question {
    wanted: ArrayVec<Wanted, MAX_ENTRIES>,
    /// Bit by peer: has not answered.
    waiting: u64,
    first_sent: Instant,
    /// Times that it was sent again.
    again: usize,
    due: Instant,
    datagram: Vec<u8>,
}

/// One of a peer's.
#[derive(Debug)]
struct Lookup {
    peer: usize,
    nonce: u64,
    /// Answers of workers that are missing.
    left: usize,
    found: ArrayVec<FlowMapping, MAX_ENTRIES>,
    due: Instant,
}

/// The exchange with all peers.
#[derive(Debug)]
pub struct Exchange {
    node: Ipv4Addr,
    signer: Signer,
    peers: Vec<SocketAddr>,
    workers: u16,
    random: StdRng,
    /// Asked by our workers since the last flush.
    collected: Vec<Wanted>,
    /// By nonce.
    questions: HashMap<u64, Question>,
    /// When, and the nonce.
    question_due: BTreeSet<(Instant, u64)>,
    /// By ticket.
    lookups: HashMap<u64, Lookup>,
    /// When, and the ticket.
    lookup_due: BTreeSet<(Instant, u64)>,
    /// Peer and nonce of each of [`Self::lookups`].
    looked_up: HashSet<(usize, u64)>,
    next_ticket: u64,
    datagrams: VecDeque<(SocketAddr, Vec<u8>)>,
    orders: VecDeque<(u16, Order)>,
    start: Instant,
    stats: Arc<ClusterStats>,
}

impl Exchange {
    pub fn new(config: ExchangeConfig, stats: Arc<ClusterStats>, now: Instant) -> Self {
        let mut peers = config.peers;
        peers.truncate(MAX_PEERS);
        Self {
            node: config.node,
            signer: Signer::new(&config.key),
            peers,
            workers: config.workers,
            random: StdRng::from_seed(config.seed),
            collected: Vec::new(),
            questions: HashMap::new(),
            question_due: BTreeSet::new(),
            lookups: HashMap::new(),
            lookup_due: BTreeSet::new(),
            looked_up: HashSet::new(),
            next_ticket: 0,
            datagrams: VecDeque::new(),
            orders: VecDeque::new(),
            start: now,
            stats,
        }
    }

    /// A worker of ours misses a flow. The question leaves with the next [`Exchange::flush`].
    pub fn handle_missing(&mut self, worker: u16, key: FlowKey) {
        let most = MAX_QUESTIONS.saturating_sub(self.questions.len()) * MAX_ENTRIES;
        if self.collected.len() >= most {
            return self.stats.overloaded.add(1);
        }
        self.collected.push(Wanted { key, worker, idle_ms: None });
    }

    /// Ask what was collected, several flows in a datagram.
    pub fn flush(&mut self, now: Instant) {
        let mut collected = std::mem::take(&mut self.collected).into_iter();
        loop {
            let wanted: ArrayVec<Wanted, MAX_ENTRIES> =
                collected.by_ref().take(MAX_ENTRIES).collect();
            if wanted.is_empty() {
                return;
            }
            self.ask(wanted, now);
        }
    }

    /// A datagram came in.
    pub fn handle_datagram(&mut self, from: SocketAddr, datagram: &[u8], now: Instant) {
        let Some(peer) = self.peers.iter().position(|peer| *peer == from) else {
            return self.stats.unknown_source.add(1);
        };
        self.stats.received.add(1);
        let message = match self.signer.decode(datagram) {
            Ok(message) => message,
            Err(WireError::Signature) => return self.stats.bad_signature.add(1),
            Err(WireError::Malformed | WireError::Version(_)) => {
                return self.stats.malformed.add(1);
            }
        };
        // Our own, sent back to us.
        if message.sender == self.node {
            return self.stats.unexpected.add(1);
        }
        let since_start = now.saturating_duration_since(self.start);
        self.stats.peers[peer].hear(since_start.as_millis() as u64);
        match message.body {
            Body::Question(keys) => self.look_up(peer, message.nonce, &keys, now),
            Body::Answer(mappings) => self.handle_answer(peer, message.nonce, &mappings),
        }
    }

    /// A worker has carried out [`Order::Find`].
    pub fn handle_found(&mut self, ticket: u64, mapping: Option<FlowMapping>) {
        let Some(lookup) = self.lookups.get_mut(&ticket) else {
            return; // too late
        };
        if let Some(mapping) = mapping
            && !lookup.found.iter().any(|found| found.key == mapping.key)
        {
            // There are no more keys than room.
            let _ = lookup.found.try_push(mapping);
        }
        lookup.left = lookup.left.saturating_sub(1);
        if lookup.left == 0 {
            self.end_lookup(ticket, true);
        }
    }

    /// When [`Exchange::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let first = |due: &BTreeSet<(Instant, u64)>| due.first().map(|(at, _)| *at);
        [first(&self.question_due), first(&self.lookup_due)].into_iter().flatten().min()
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(&(at, nonce)) = self.question_due.first()
            && at <= now
        {
            self.question_due.pop_first();
            self.ask_again(nonce);
        }
        while let Some(&(at, ticket)) = self.lookup_due.first()
            && at <= now
        {
            self.end_lookup(ticket, false);
        }
    }

    /// A datagram to send, and to whom.
    pub fn poll_transmit(&mut self) -> Option<(SocketAddr, Vec<u8>)> {
        let datagram = self.datagrams.pop_front()?;
        self.stats.sent.add(1);
        Some(datagram)
    }

    /// An order, and the worker it is for.
    pub fn poll_order(&mut self) -> Option<(u16, Order)> {
        self.orders.pop_front()
    }

    fn ask(&mut self, wanted: ArrayVec<Wanted, MAX_ENTRIES>, now: Instant) {
        let nonce = loop {
            let nonce = self.random.random();
            if !self.questions.contains_key(&nonce) {
                break nonce;
            }
        };
        let keys = wanted.iter().map(|wanted| wanted.key).collect();
        let message = Message { sender: self.node, nonce, body: Body::Question(keys) };
        let question = Question {
            wanted,
            waiting: (1 << self.peers.len()) - 1,
            first_sent: now,
            again: 0,
            due: now + AGAIN[0],
            datagram: self.signer.encode(&message),
        };
        self.question_due.insert((question.due, nonce));
        self.send_to(question.waiting, &question.datagram);
        self.questions.insert(nonce, question);
    }

    /// A question's time has come: once more, or never.
    fn ask_again(&mut self, nonce: u64) {
        let Some(question) = self.questions.get_mut(&nonce) else {
            return;
        };
        if question.again == AGAIN.len() {
            for (peer, stats) in self.stats.peers.iter().enumerate() {
                stats.silences.add(question.waiting >> peer & 1);
            }
            self.stats.unanswered.add(1);
            self.questions.remove(&nonce);
            return;
        }
        question.again += 1;
        let next = AGAIN.get(question.again).unwrap_or(&GIVE_UP);
        question.due = question.first_sent + *next;
        self.question_due.insert((question.due, nonce));
        let (waiting, datagram) = (question.waiting, question.datagram.clone());
        self.send_to(waiting, &datagram);
    }

    fn send_to(&mut self, peers: u64, datagram: &[u8]) {
        for peer in (0..self.peers.len()).filter(|peer| peers >> peer & 1 == 1) {
            self.send(peer, datagram.to_vec());
        }
    }

    fn send(&mut self, peer: usize, datagram: Vec<u8>) {
        if self.datagrams.len() >= MAX_WAITING {
            return self.stats.overloaded.add(1);
        }
        self.datagrams.push_back((self.peers[peer], datagram));
    }

    fn handle_answer(&mut self, peer: usize, nonce: u64, mappings: &[FlowMapping]) {
        let stats = Arc::clone(&self.stats);
        let question = self.questions.get_mut(&nonce).filter(|q| q.waiting >> peer & 1 == 1);
        let Some(question) = question else {
            return stats.unexpected.add(1);
        };
        stats.peers[peer].answers.add(1);
        question.waiting &= !(1 << peer);
        let mut adopt = ArrayVec::<(u16, Order), MAX_ENTRIES>::new();
        for &mapping in mappings {
            let Some(wanted) = question.wanted.iter_mut().find(|w| w.key == mapping.key) else {
                stats.unexpected.add(1);
                continue;
            };
            // Two nodes may have a flow by this name, one of them from long ago.
            if wanted.idle_ms.is_none_or(|idle| mapping.idle_ms < idle) {
                wanted.idle_ms = Some(mapping.idle_ms);
                let order = Order::Adopt { peer: peer as u16, mapping };
                // A mapping that is named twice in an answer may find no room the second time.
                let _ = adopt.try_push((wanted.worker, order));
            }
        }
        if question.waiting == 0 {
            let due = (question.due, nonce);
            self.questions.remove(&nonce);
            self.question_due.remove(&due);
        }
        for (worker, order) in adopt {
            self.order(worker, order);
        }
    }

    fn look_up(&mut self, peer: usize, nonce: u64, keys: &[FlowKey], now: Instant) {
        if self.looked_up.contains(&(peer, nonce)) {
            return; // sent again while the workers look
        }
        let orders = keys.len() * usize::from(self.workers);
        if self.lookups.len() >= MAX_LOOKUPS || self.orders.len() + orders > MAX_WAITING {
            return self.stats.overloaded.add(1);
        }
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        let due = now + LOOKUP_TIME;
        let lookup = Lookup { peer, nonce, left: orders, found: ArrayVec::new(), due };
        self.lookups.insert(ticket, lookup);
        self.lookup_due.insert((due, ticket));
        self.looked_up.insert((peer, nonce));
        for worker in 0..self.workers {
            for &key in keys {
                self.order(worker, Order::Find { ticket, key });
            }
        }
    }

    /// Answer, if all was looked at or something was found. Silence lets the peer ask again.
    fn end_lookup(&mut self, ticket: u64, whole: bool) {
        let Some(lookup) = self.lookups.remove(&ticket) else {
            return;
        };
        self.lookup_due.remove(&(lookup.due, ticket));
        self.looked_up.remove(&(lookup.peer, lookup.nonce));
        if !whole {
            self.stats.overloaded.add(1);
        }
        if whole || !lookup.found.is_empty() {
            let body = Body::Answer(lookup.found);
            let message = Message { sender: self.node, nonce: lookup.nonce, body };
            let datagram = self.signer.encode(&message);
            self.send(lookup.peer, datagram);
        }
    }

    fn order(&mut self, worker: u16, order: Order) {
        if self.orders.len() >= MAX_WAITING {
            return self.stats.overloaded.add(1);
        }
        self.orders.push_back((worker, order));
    }
}

//! Many BFD sessions behind one set of sockets: demultiplexing (RFC 5880 §6.3, RFC 5881 §3,
//! RFC 5883 §4), one session per peer however many clients ask for it, reconciliation of the wanted
//! sessions by difference. Sans-IO, like [`super::session`].
//!
//! Bounded: at most [`MAX_SESSIONS`] sessions; packets that belong to none are counted and leave
//! nothing behind.

use super::auth::{AuthConfig, AuthType};
use super::packet::{Packet, ParseError};
use super::rng::Rng;
use super::session::{Discard, Event, Session, Timers, Transmit};
use super::{Instant, MULTIHOP_PORT, SINGLE_HOP_PORT};
pub use config::{ConfigError, Key, MAX_INTERVAL, MIN_INTERVAL, SessionConfig};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;

mod config;
#[cfg(test)]
mod tests;

/// More sessions than any node has peers; a limit, so that a mistake cannot exhaust the thread.
pub const MAX_SESSIONS: usize = 1024;

/// RFC 5881 §5: the TTL or hop limit of a packet that crossed no router.
const SINGLE_HOP_TTL: u8 = 255;

/// How a packet arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meta {
    pub src: IpAddr,
    pub dst: Option<IpAddr>,
    /// Index of the receiving interface.
    pub interface: u32,
    /// `None` if the kernel did not say: a single-hop packet is then dropped.
    pub ttl: Option<u8>,
    /// UDP destination port: tells single hop from multihop.
    pub port: u16,
}

/// Why a packet was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DropReason {
    #[error("TTL is not 255 (RFC 5881 section 5)")]
    Ttl,
    #[error("arrived on a port that is not BFD's")]
    Port,
    #[error(transparent)]
    Malformed(#[from] ParseError),
    #[error("Your Discriminator names no session")]
    UnknownDiscriminator,
    #[error("no session with this source address and interface")]
    UnknownPeer,
    #[error("single-hop packet for a multihop session or the reverse")]
    WrongHops,
    #[error(transparent)]
    Session(#[from] Discard),
}

/// Packets that reached no session, by reason, and the total. Session drops are counted there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineCounters {
    pub received: u64,
    pub dropped_ttl: u64,
    pub dropped_port: u64,
    pub dropped_malformed: u64,
    pub dropped_unknown_discriminator: u64,
    pub dropped_unknown_peer: u64,
    pub dropped_wrong_hops: u64,
}

/// A session with its place in the engine.
#[derive(Debug)]
pub struct Entry {
    pub key: Key,
    pub session: Session,
    /// Who wants it.
    pub clients: Vec<String>,
    /// Index of `key.interface`, once resolved.
    interface: Option<u32>,
    auth: Option<AuthConfig>,
    /// Wanted by nobody: says AdminDown, then goes.
    departing: bool,
    scheduled: Option<Instant>,
}

impl Entry {
    /// The kind of authentication in use.
    pub fn auth_type(&self) -> Option<AuthType> {
        self.auth.as_ref().map(|auth| auth.kind)
    }
}

/// The wish of all clients for one key.
#[derive(Debug, Clone)]
struct Merged {
    timers: Timers,
    auth: Option<AuthConfig>,
    clients: Vec<String>,
}

/// The engine. Sessions are named by their local discriminator.
#[derive(Debug)]
pub struct Engine {
    sessions: BTreeMap<u32, Entry>,
    by_key: BTreeMap<Key, u32>,
    by_peer: BTreeMap<(IpAddr, bool), Vec<u32>>,
    timers: BTreeSet<(Instant, u32)>,
    wishes: BTreeMap<String, Vec<SessionConfig>>,
    admin_down: bool,
    transmits: VecDeque<(u32, Transmit)>,
    events: VecDeque<(Key, Event)>,
    counters: EngineCounters,
    rng: Rng,
}

impl Engine {
    /// `seed` must be unpredictable in production: discriminators come from it.
    pub fn new(seed: u64) -> Self {
        Self {
            sessions: BTreeMap::new(),
            by_key: BTreeMap::new(),
            by_peer: BTreeMap::new(),
            timers: BTreeSet::new(),
            wishes: BTreeMap::new(),
            admin_down: false,
            transmits: VecDeque::new(),
            events: VecDeque::new(),
            counters: EngineCounters::default(),
            rng: Rng::new(seed),
        }
    }

    /// Replaces what `client` wants and reconciles by difference: new sessions start, changed
    /// timers are negotiated without a flap, sessions that nobody wants say AdminDown and go.
    /// Where clients differ on timers, the faster ones count.
    pub fn set_sessions(
        &mut self,
        client: &str,
        wanted: Vec<SessionConfig>,
        now: Instant,
    ) -> Result<(), ConfigError> {
        let merged = self.plan(client, &wanted)?;
        self.wishes.insert(client.to_owned(), wanted);
        let gone: Vec<u32> = self
            .by_key
            .iter()
            .filter(|(key, _)| !merged.contains_key(key))
            .map(|(_, id)| *id)
            .collect();
        for id in gone {
            if let Some(entry) = self.sessions.get_mut(&id) {
                entry.departing = true;
                entry.clients.clear();
                entry.session.set_admin_down(true, now);
            }
            self.settle(id);
        }
        for (key, wish) in merged {
            let id = match self.by_key.get(&key) {
                Some(id) => *id,
                None => self.insert(key, &wish, now),
            };
            self.update(id, wish, now);
            self.settle(id);
        }
        Ok(())
    }

    /// Whether [`Self::set_sessions`] would take these. Changes nothing.
    pub fn check_sessions(
        &self,
        client: &str,
        wanted: &[SessionConfig],
    ) -> Result<(), ConfigError> {
        self.plan(client, wanted).map(drop)
    }

    /// Takes every session down for the operator, those to come too; or lets them come up again.
    pub fn set_admin_down(&mut self, down: bool, now: Instant) {
        self.admin_down = down;
        let ids: Vec<u32> = self.sessions.keys().copied().collect();
        for id in ids {
            if let Some(entry) = self.sessions.get_mut(&id) {
                entry.session.set_admin_down(down || entry.departing, now);
            }
            self.settle(id);
        }
    }

    /// Tells which interface index the name in the session's key has now.
    pub fn set_interface(&mut self, id: u32, index: Option<u32>) {
        if let Some(entry) = self.sessions.get_mut(&id) {
            entry.interface = index;
        }
    }

    /// Takes a UDP payload from port 3784 or 4784.
    pub fn handle_packet(
        &mut self,
        payload: &[u8],
        meta: &Meta,
        now: Instant,
    ) -> Result<(), DropReason> {
        self.counters.received += 1;
        let result = self.demultiplex(payload, meta).and_then(|(id, packet)| {
            let entry = self.sessions.get_mut(&id).ok_or(DropReason::UnknownDiscriminator)?;
            let verdict = entry.session.handle_packet(&packet, now);
            self.settle(id);
            verdict.map_err(DropReason::from)
        });
        if let Err(reason) = result {
            self.count(reason);
        }
        result
    }

    /// Lets time pass for every session that is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some((at, id)) = self.timers.first().copied().filter(|(at, _)| *at <= now) {
            self.timers.remove(&(at, id));
            if let Some(entry) = self.sessions.get_mut(&id) {
                entry.scheduled = None;
                entry.session.handle_timeout(now);
            }
            self.settle(id);
        }
    }

    /// The next packet to send and the session it leaves from.
    pub fn poll_transmit(&mut self) -> Option<(u32, Transmit)> {
        self.transmits.pop_front()
    }

    /// The next change of state.
    pub fn poll_event(&mut self) -> Option<(Key, Event)> {
        self.events.pop_front()
    }

    /// When [`Self::handle_timeout`] is due.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Whether a session still owes its peer the news of AdminDown.
    pub fn is_saying_farewell(&self) -> bool {
        self.sessions.values().any(|entry| entry.session.is_saying_farewell())
    }

    /// All sessions with their local discriminators.
    pub fn sessions(&self) -> impl Iterator<Item = (u32, &Entry)> {
        self.sessions.iter().map(|(id, entry)| (*id, entry))
    }

    pub fn session(&self, id: u32) -> Option<&Entry> {
        self.sessions.get(&id)
    }

    pub fn counters(&self) -> &EngineCounters {
        &self.counters
    }

    /// Checks what needs no session, then finds the session: by Your Discriminator, else by source
    /// address and interface.
    fn demultiplex<'a>(
        &self,
        payload: &'a [u8],
        meta: &Meta,
    ) -> Result<(u32, Packet<'a>), DropReason> {
        let multihop = match meta.port {
            SINGLE_HOP_PORT => false,
            MULTIHOP_PORT => true,
            _ => return Err(DropReason::Port),
        };
        // RFC 5881 §5, RFC 5082: first of all, and whether or not the session is authenticated.
        if !multihop && meta.ttl != Some(SINGLE_HOP_TTL) {
            return Err(DropReason::Ttl);
        }
        let packet = Packet::parse(payload)?;
        let yours = packet.control.your_discriminator;
        if yours != 0 {
            let entry = self.sessions.get(&yours).ok_or(DropReason::UnknownDiscriminator)?;
            // Otherwise a packet from afar on port 4784 would get round the TTL check.
            if entry.key.multihop != multihop {
                return Err(DropReason::WrongHops);
            }
            return Ok((yours, packet));
        }
        let id = self.find(meta, multihop).ok_or(DropReason::UnknownPeer)?;
        Ok((id, packet))
    }

    /// The most specific session with this source address, and with the interface and the local
    /// address of the packet where the session names any.
    fn find(&self, meta: &Meta, multihop: bool) -> Option<u32> {
        let fits = |id: &&u32| {
            self.sessions.get(id).is_some_and(|entry| {
                let interface =
                    entry.key.interface.is_none() || entry.interface == Some(meta.interface);
                let local = entry.key.local.is_none_or(|local| meta.dst.is_none_or(|d| d == local));
                interface && local
            })
        };
        let specific = |id: &&u32| self.sessions.get(id).map(|entry| entry.key.specificity());
        self.by_peer.get(&(meta.src, multihop))?.iter().filter(fits).max_by_key(specific).copied()
    }

    fn count(&mut self, reason: DropReason) {
        let counters = &mut self.counters;
        match reason {
            DropReason::Ttl => counters.dropped_ttl += 1,
            DropReason::Port => counters.dropped_port += 1,
            DropReason::Malformed(_) => counters.dropped_malformed += 1,
            DropReason::UnknownDiscriminator => counters.dropped_unknown_discriminator += 1,
            DropReason::UnknownPeer => counters.dropped_unknown_peer += 1,
            DropReason::WrongHops => counters.dropped_wrong_hops += 1,
            DropReason::Session(_) => {}
        }
    }

    /// What all clients together want, if `client` wanted these.
    fn plan(
        &self,
        client: &str,
        wanted: &[SessionConfig],
    ) -> Result<BTreeMap<Key, Merged>, ConfigError> {
        if wanted.len() > MAX_SESSIONS {
            return Err(ConfigError::TooMany);
        }
        for config in wanted {
            config.check()?;
        }
        let others = self.wishes.iter().filter(|(name, _)| *name != client);
        let others = others.map(|(name, wanted)| (name.as_str(), wanted.as_slice()));
        merge(&others.chain([(client, wanted)]).collect())
    }

    fn insert(&mut self, key: Key, wish: &Merged, now: Instant) -> u32 {
        let id = loop {
            let candidate = self.rng.next_u64() as u32;
            if candidate != 0 && !self.sessions.contains_key(&candidate) {
                break candidate;
            }
        };
        let seed = self.rng.next_u64();
        let mut session = Session::new(id, wish.timers, wish.auth.clone(), seed, now);
        if self.admin_down {
            session.set_admin_down(true, now);
        }
        self.by_peer.entry((key.peer, key.multihop)).or_default().push(id);
        self.by_key.insert(key.clone(), id);
        let entry = Entry {
            key,
            session,
            clients: Vec::new(),
            interface: None,
            auth: wish.auth.clone(),
            departing: false,
            scheduled: None,
        };
        self.sessions.insert(id, entry);
        id
    }

    fn update(&mut self, id: u32, wish: Merged, now: Instant) {
        let sequence = self.rng.next_u64() as u32;
        let admin_down = self.admin_down;
        let Some(entry) = self.sessions.get_mut(&id) else {
            return;
        };
        entry.clients = wish.clients;
        if std::mem::take(&mut entry.departing) {
            entry.session.set_admin_down(admin_down, now);
        }
        if entry.auth != wish.auth {
            entry.session.set_auth(wish.auth.clone(), sequence);
            entry.auth = wish.auth;
        }
        entry.session.set_timers(wish.timers, now);
    }

    /// Collects a session's outputs after it was touched, renews its timer, and lets it go if it
    /// is departing and has said so.
    fn settle(&mut self, id: u32) {
        let Some(entry) = self.sessions.get_mut(&id) else {
            return;
        };
        while let Some(transmit) = entry.session.poll_transmit() {
            self.transmits.push_back((id, transmit));
        }
        while let Some(event) = entry.session.poll_event() {
            self.events.push_back((entry.key.clone(), event));
        }
        if let Some(at) = entry.scheduled.take() {
            self.timers.remove(&(at, id));
        }
        // The entry stays until its last packet has left: the socket is found by it.
        if entry.departing && !entry.session.is_saying_farewell() {
            self.remove(id);
            return;
        }
        entry.scheduled = entry.session.next_timeout();
        if let Some(at) = entry.scheduled {
            self.timers.insert((at, id));
        }
    }

    fn remove(&mut self, id: u32) {
        let Some(entry) = self.sessions.remove(&id) else {
            return;
        };
        self.by_key.remove(&entry.key);
        let place = (entry.key.peer, entry.key.multihop);
        if let Some(ids) = self.by_peer.get_mut(&place) {
            ids.retain(|other| *other != id);
            if ids.is_empty() {
                self.by_peer.remove(&place);
            }
        }
    }
}

/// What all clients together want. A wish that leaves the local address or the interface open is
/// met by another client's session with the same peer that names them: two sessions between one
/// pair of addresses would disturb each other.
fn merge(wishes: &BTreeMap<&str, &[SessionConfig]>) -> Result<BTreeMap<Key, Merged>, ConfigError> {
    let all = wishes.values().flat_map(|wanted| wanted.iter());
    let keys: BTreeSet<Key> = all.map(SessionConfig::key).collect();
    let mut merged: BTreeMap<Key, Merged> = BTreeMap::new();
    for (&client, wanted) in wishes {
        for config in *wanted {
            let key = config.key();
            let narrower = keys.iter().filter(|other| key.is_met_by(other));
            let key = narrower.max_by_key(|key| key.specificity()).cloned().unwrap_or(key);
            let timers = config.timers();
            let entry = merged.entry(key).or_insert_with(|| Merged {
                timers,
                auth: config.auth.clone(),
                clients: Vec::new(),
            });
            if entry.auth != config.auth {
                return Err(ConfigError::Conflict { peer: config.peer });
            }
            entry.timers.min_tx_us = entry.timers.min_tx_us.min(timers.min_tx_us);
            entry.timers.min_rx_us = entry.timers.min_rx_us.min(timers.min_rx_us);
            entry.timers.multiplier = entry.timers.multiplier.min(timers.multiplier);
            if !entry.clients.iter().any(|known| known == client) {
                entry.clients.push(client.to_owned());
            }
        }
    }
    if merged.len() > MAX_SESSIONS {
        return Err(ConfigError::TooMany);
    }
    Ok(merged)
}

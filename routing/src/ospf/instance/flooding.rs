//! Flooding (RFC 2328 §13): Link State Update and Acknowledgment, retransmission, ageing out.

use super::parts::{Interface, Neighbor};
use super::{DropReason, Instance};
use crate::ospf::Version;
use crate::ospf::config::NetworkKind;
use crate::ospf::interface::State as InterfaceState;
use crate::ospf::lsa::{self, HEADER_LEN, Lsa, LsaHeader, MAX_AGE, MAX_SEQUENCE};
use crate::ospf::lsdb::DbKey;
use crate::ospf::neighbor::{Event, State};
use crate::ospf::packet::{Body, options};
use std::cmp::Ordering;
use std::net::IpAddr;
use std::time::Duration;

/// RFC 2328 Appendix B.
pub(super) const MIN_LS_ARRIVAL: Duration = Duration::from_secs(1);
/// How long an acknowledgment may wait for company (§13.5): well below any RxmtInterval.
const ACK_DELAY: Duration = Duration::from_millis(200);
/// The first repetition of an LSA of our own. A neighbour that got the instance before only just
/// now, by asking for it, drops the next one by MinLSArrival; RxmtInterval would leave it so for
/// seconds.
const EARLY_RETRANSMIT: Duration = Duration::from_millis(1_200);
/// LSAs sent again to one neighbour at a time; the rest follows shortly.
const RETRANSMIT_BATCH: usize = 256;
const RETRANSMIT_PAUSE: Duration = Duration::from_millis(50);
/// Bytes before the LSAs of an update.
const UPDATE_LEN: usize = 4;

/// What the receipt of an LSA leads to, towards its sender (§13.5 table 19).
enum Reply {
    Nothing,
    DirectAck(LsaHeader),
    DelayedAck(LsaHeader),
    /// What we have is newer.
    SendBack(DbKey),
    BadRequest,
}

/// Whether an LSA may be sent to this neighbour: right link, and opaque only if understood.
pub(super) fn may_go(key: &DbKey, index: u32, neighbor: &Neighbor, version: Version) -> bool {
    (key.link == 0 || key.link == index)
        && (!lsa::is_opaque(version, key.lsa.kind) || neighbor.options & options::O != 0)
}

impl Instance {
    /// §13.
    pub(super) fn handle_update(
        &mut self,
        index: u32,
        id: u32,
        lsas: Vec<Lsa>,
    ) -> Result<(), DropReason> {
        let neighbor = self.neighbor_mut(index, id).ok_or(DropReason::Neighbor)?;
        if neighbor.state < State::Exchange {
            return Err(DropReason::Neighbor);
        }
        let to = neighbor.address;
        let mut direct = Vec::new();
        let mut back = Vec::new();
        for lsa in lsas {
            match self.take_lsa(index, id, lsa) {
                Reply::Nothing => {}
                Reply::DirectAck(header) => direct.push(header),
                Reply::DelayedAck(header) => self.delay_ack(index, header),
                Reply::SendBack(key) => back.extend(self.outgoing(index, &key)),
                Reply::BadRequest => {
                    self.neighbor_event(index, id, Event::BadLsReq);
                    return Ok(());
                }
            }
        }
        self.send_acks(index, Some(to), direct);
        self.send_updates(index, Some(to), back);
        self.check_loading(index, id);
        Ok(())
    }

    /// Steps 1 to 8 of §13 for one LSA.
    fn take_lsa(&mut self, index: u32, id: u32, lsa: Lsa) -> Reply {
        let now = self.core.now;
        let header = lsa.header;
        if !lsa.is_intact() || !self.is_acceptable(header.key.kind) {
            return Reply::Nothing;
        }
        let key = self.db_key(header.key, index);
        let have = self.db.get(&key).map(|entry| (entry.header(now), entry.flooded));
        let exchanging = || {
            let mut neighbors = self.interfaces.values().flat_map(|i| i.neighbors.values());
            neighbors.any(|n| matches!(n.state, State::Exchange | State::Loading))
        };
        if header.age >= MAX_AGE && have.is_none() && !exchanging() {
            return Reply::DirectAck(header);
        }
        let order = have.map_or(Ordering::Greater, |(have, _)| header.compare(&have));
        if order == Ordering::Greater {
            return self.take_newer(index, id, key, lsa, have.is_some_and(|(_, flooded)| flooded));
        }
        let Some(interface) = self.interfaces.get_mut(&index) else { return Reply::Nothing };
        let from_designated = is_from(interface, id, interface.designated);
        let backup = interface.state == InterfaceState::Backup;
        let Some(neighbor) = interface.neighbors.get_mut(&id) else { return Reply::Nothing };
        if neighbor.requests.contains_key(&key) {
            return Reply::BadRequest;
        }
        if order == Ordering::Equal {
            // Step 7: a duplicate acknowledges what we sent ourselves.
            if neighbor.retransmit.contains_key(&key) {
                neighbor.forget_retransmission(&key);
                return if backup && from_designated {
                    Reply::DelayedAck(header)
                } else {
                    Reply::Nothing
                };
            }
            return Reply::DirectAck(header);
        }
        self.answer_older(key)
    }

    /// Step 5: a newer instance.
    fn take_newer(&mut self, index: u32, id: u32, key: DbKey, lsa: Lsa, flooded: bool) -> Reply {
        let now = self.core.now;
        let header = lsa.header;
        let too_soon = self
            .db
            .get(&key)
            .is_some_and(|entry| flooded && now < entry.installed() + MIN_LS_ARRIVAL);
        if too_soon || (self.db.is_full() && self.db.get(&key).is_none()) {
            return Reply::Nothing;
        }
        self.consider_grace(index, &lsa);
        self.install(key, lsa, true, None);
        let flooded_back = self.flood(key, Some((index, id)));
        let own = self.is_own(&key);
        if own {
            // §13.4: an instance from before a restart, or one that somebody flushed.
            self.originated.reissue.insert(key);
            self.originated.dirty = true;
        }
        let Some(interface) = self.interfaces.get_mut(&index) else { return Reply::Nothing };
        let from_designated = is_from(interface, id, interface.designated);
        let backup = interface.state == InterfaceState::Backup;
        if let Some(neighbor) = interface.neighbors.get_mut(&id) {
            Self::request_satisfied(neighbor, &key);
        }
        // The newer instance that answers it acknowledges it; an acknowledgment of its own might come
        // after that and be taken for one of the same instance, learned anew from elsewhere.
        if own || flooded_back || (backup && !from_designated) {
            Reply::Nothing
        } else {
            Reply::DelayedAck(header)
        }
    }

    /// Step 8: the sender's instance is older than ours.
    fn answer_older(&mut self, key: DbKey) -> Reply {
        let now = self.core.now;
        let Some(entry) = self.db.get_mut(&key) else { return Reply::Nothing };
        if entry.is_max_age(now) && entry.lsa().header.sequence == MAX_SEQUENCE {
            return Reply::Nothing;
        }
        if entry.answered.is_some_and(|at| now < at + MIN_LS_ARRIVAL) {
            return Reply::Nothing;
        }
        entry.answered = Some(now);
        Reply::SendBack(key)
    }

    /// §13.7.
    pub(super) fn handle_ack(
        &mut self,
        index: u32,
        id: u32,
        headers: &[LsaHeader],
    ) -> Result<(), DropReason> {
        let now = self.core.now;
        let state = self.neighbor_mut(index, id).ok_or(DropReason::Neighbor)?.state;
        if state < State::Exchange {
            return Err(DropReason::Neighbor);
        }
        for header in headers {
            let key = self.db_key(header.key, index);
            let same = self
                .db
                .get(&key)
                .is_some_and(|entry| header.compare(&entry.header(now)) == Ordering::Equal);
            if same && let Some(neighbor) = self.neighbor_mut(index, id) {
                neighbor.forget_retransmission(&key);
            }
        }
        Ok(())
    }

    /// Puts an instance into the database in place of the old one (§13.2).
    pub(super) fn install(
        &mut self,
        key: DbKey,
        lsa: Lsa,
        flooded: bool,
        attention: Option<Duration>,
    ) {
        let changed = self.db.get(&key).is_none_or(|entry| {
            entry.lsa().body() != lsa.body() || entry.is_max_age(self.core.now)
        });
        if changed || lsa.header.age >= MAX_AGE {
            self.topology_changed(&key);
        }
        for neighbor in self.interfaces.values_mut().flat_map(|i| i.neighbors.values_mut()) {
            neighbor.forget_retransmission(&key);
        }
        if lsa.header.age >= MAX_AGE {
            self.flushing.insert(key);
        } else {
            self.flushing.remove(&key);
        }
        self.db.install(key, lsa, flooded, attention, self.core.now);
    }

    /// §13.3. Returns whether the LSA goes back out of the interface it came from.
    pub(super) fn flood(&mut self, key: DbKey, from: Option<(u32, u32)>) -> bool {
        let now = self.core.now;
        let Some(header) = self.db.get(&key).map(|entry| entry.header(now)) else { return false };
        let own = key.lsa.router == self.core.router_id;
        let mut back = false;
        let mut loaded = Vec::new();
        for (index, interface) in &mut self.interfaces {
            let interval = interface.retransmit_interval();
            let due = now + if own { interval.min(EARLY_RETRANSMIT) } else { interval };
            let mut added = false;
            for neighbor in interface.neighbors.values_mut() {
                if neighbor.state < State::Exchange
                    || !may_go(&key, *index, neighbor, self.core.version)
                {
                    continue;
                }
                if let Some(wanted) = neighbor.requests.get(&key) {
                    let order = header.compare(wanted);
                    if order == Ordering::Less {
                        continue;
                    }
                    Self::request_satisfied(neighbor, &key);
                    loaded.push((*index, neighbor.router_id));
                    if order == Ordering::Equal {
                        continue;
                    }
                }
                if from == Some((*index, neighbor.router_id)) {
                    continue;
                }
                neighbor.retransmit.insert(key, due);
                neighbor.retransmit_at =
                    Some(neighbor.retransmit_at.map_or(due, |earlier| earlier.min(due)));
                added = true;
            }
            if !added {
                continue;
            }
            if let Some((_, id)) = from.filter(|(came, _)| came == index) {
                let heard = is_from(interface, id, interface.designated)
                    || is_from(interface, id, interface.backup)
                    || interface.state == InterfaceState::Backup;
                if heard {
                    continue;
                }
                back = true;
            }
            interface.floods.insert(key);
        }
        for (index, id) in loaded {
            if from != Some((index, id)) {
                self.check_loading(index, id);
            }
        }
        back
    }

    /// Sends what was marked for flooding during this call, packed by interface.
    pub(super) fn send_floods(&mut self) {
        let indexes: Vec<u32> = self.interfaces.keys().copied().collect();
        for index in indexes {
            let Some(interface) = self.interfaces.get_mut(&index) else { continue };
            let keys = std::mem::take(&mut interface.floods);
            let lsas: Vec<Lsa> = keys.iter().filter_map(|key| self.outgoing(index, key)).collect();
            self.send_updates(index, None, lsas);
        }
    }

    /// Sends LSAs that a neighbour did not acknowledge again (§13.6).
    pub(super) fn retransmit(&mut self, index: u32, id: u32) {
        let now = self.core.now;
        let Some(interface) = self.interfaces.get_mut(&index) else { return };
        let interval = interface.retransmit_interval();
        let Some(neighbor) = interface.neighbors.get_mut(&id) else { return };
        let to = neighbor.address;
        let mut due: Vec<DbKey> = Vec::new();
        let mut next: Option<Duration> = None;
        for (key, at) in &mut neighbor.retransmit {
            if *at <= now && due.len() < RETRANSMIT_BATCH {
                due.push(*key);
                *at = now + interval;
            }
            let at = (*at).max(now + RETRANSMIT_PAUSE);
            next = Some(next.map_or(at, |earliest: Duration| earliest.min(at)));
        }
        neighbor.retransmit_at = next;
        let lsas: Vec<Lsa> = due.iter().filter_map(|key| self.outgoing(index, key)).collect();
        self.send_updates(index, Some(to), lsas);
    }

    /// An LSA as it leaves: older by InfTransDelay (§13.3).
    pub(super) fn outgoing(&self, index: u32, key: &DbKey) -> Option<Lsa> {
        let entry = self.db.get(key)?;
        let delay = self.interfaces.get(&index)?.config.transmit_delay;
        let mut lsa = entry.lsa().clone();
        lsa.header.age = entry.age(self.core.now).saturating_add(delay).min(MAX_AGE);
        Some(lsa)
    }

    /// Packs LSAs into updates by the MTU. An LSA that is larger goes alone and is fragmented by IP.
    pub(super) fn send_updates(&mut self, index: u32, to: Option<IpAddr>, lsas: Vec<Lsa>) {
        let Some(interface) = self.interfaces.get(&index) else { return };
        let room = self.core.room(interface).saturating_sub(UPDATE_LEN);
        let mut batch: Vec<Lsa> = Vec::new();
        let mut used = 0;
        for lsa in lsas {
            if !batch.is_empty() && used + lsa.len() > room {
                let body = Body::Update(std::mem::take(&mut batch));
                used = 0;
                match to {
                    Some(to) => self.core.send_neighbor(interface, to, body),
                    None => self.core.send_group(interface, body),
                }
            }
            used += lsa.len();
            batch.push(lsa);
        }
        if !batch.is_empty() {
            match to {
                Some(to) => self.core.send_neighbor(interface, to, Body::Update(batch)),
                None => self.core.send_group(interface, Body::Update(batch)),
            }
        }
    }

    fn delay_ack(&mut self, index: u32, header: LsaHeader) {
        let at = self.core.now + ACK_DELAY;
        if let Some(interface) = self.interfaces.get_mut(&index) {
            interface.acks.push(header);
            interface.ack_at.get_or_insert(at);
        }
    }

    pub(super) fn send_delayed_acks(&mut self, index: u32) {
        let Some(interface) = self.interfaces.get_mut(&index) else { return };
        interface.ack_at = None;
        let mut acks = std::mem::take(&mut interface.acks);
        // What was overtaken in the meantime is answered by what overtook it.
        acks.retain(|header| {
            let key = self.db_key(header.key, index);
            let have = self.db.get(&key).map(|entry| entry.header(self.core.now));
            have.is_none_or(|have| header.compare(&have) != Ordering::Less)
        });
        self.send_acks(index, None, acks);
    }

    fn send_acks(&mut self, index: u32, to: Option<IpAddr>, headers: Vec<LsaHeader>) {
        let Some(interface) = self.interfaces.get(&index) else { return };
        let room = (self.core.room(interface) / HEADER_LEN).max(1);
        for chunk in headers.chunks(room) {
            let body = Body::Ack(chunk.to_vec());
            match to {
                Some(to) => self.core.send_neighbor(interface, to, body),
                None => self.core.send_group(interface, body),
            }
        }
    }

    /// An LSA reached its refresh time (our own) or MaxAge (others').
    pub(super) fn lsa_due(&mut self, key: DbKey) {
        if self.is_own(&key) && key.lsa.router == self.core.router_id {
            self.originated.reissue.insert(key);
            self.originated.dirty = true;
        } else {
            self.expire(key);
        }
    }

    /// Floods an LSA at MaxAge, so that everyone removes it (§14).
    pub(super) fn expire(&mut self, key: DbKey) {
        if self.db.expire(&key, self.core.now) {
            self.topology_changed(&key);
            for neighbor in self.interfaces.values_mut().flat_map(|i| i.neighbors.values_mut()) {
                neighbor.forget_retransmission(&key);
            }
            self.flushing.insert(key);
            self.flood(key, None);
        }
    }

    /// Removes LSAs at MaxAge that everyone has acknowledged (§14).
    pub(super) fn sweep(&mut self) {
        if self.flushing.is_empty() {
            return;
        }
        let neighbors = || self.interfaces.values().flat_map(|i| i.neighbors.values());
        if neighbors().any(|n| matches!(n.state, State::Exchange | State::Loading)) {
            return;
        }
        let done: Vec<DbKey> = self
            .flushing
            .iter()
            .filter(|key| !neighbors().any(|n| n.retransmit.contains_key(key)))
            .copied()
            .collect();
        for key in done {
            self.flushing.remove(&key);
            self.db.remove(&key);
            if key.lsa.router == self.core.router_id {
                self.originated.dirty = true;
            }
        }
    }

    /// §13.4: an LSA that this router is answerable for.
    pub(super) fn is_own(&self, key: &DbKey) -> bool {
        if key.lsa.router == self.core.router_id {
            return true;
        }
        // A network-LSA from a time when this router had another ID.
        self.core.version == Version::V2
            && key.lsa.kind == lsa::v2::NETWORK
            && self.interfaces.values().any(|interface| {
                interface.link.v4.is_some_and(|net| u32::from(net.addr()) == key.lsa.id)
            })
    }
}

/// Whether neighbour `id` is the router named `name` on a network with designated routers.
fn is_from(interface: &Interface, id: u32, name: u32) -> bool {
    interface.config.network == NetworkKind::Broadcast
        && name != 0
        && interface.neighbors.get(&id).is_some_and(|neighbor| neighbor.name() == name)
}

//! The database exchange: Database Description and Link State Request (RFC 2328 §10.6–10.9).

use super::parts::Neighbor;
use super::{DropReason, Instance};
use crate::ospf::Version;
use crate::ospf::lsa::{HEADER_LEN, Lsa, LsaHeader, LsaKey};
use crate::ospf::lsdb::{DbKey, MAX_LSAS};
use crate::ospf::neighbor::{Event, State};
use crate::ospf::packet::{Body, DatabaseDescription, dd, options};
use std::cmp::Ordering;

/// Bytes of one entry in a Link State Request.
const REQUEST_LEN: usize = 12;

impl Instance {
    /// §10.6.
    pub(super) fn handle_dd(
        &mut self,
        index: u32,
        id: u32,
        packet: DatabaseDescription,
    ) -> Result<(), DropReason> {
        let own_id = self.core.router_id;
        let interface = self.interfaces.get(&index).ok_or(DropReason::Interface)?;
        if u32::from(packet.mtu) > interface.link.mtu && !interface.config.mtu_ignore {
            return Err(DropReason::Mtu);
        }
        let neighbor = interface.neighbors.get(&id).ok_or(DropReason::Neighbor)?;
        if neighbor.state == State::Init {
            // It could only know our DD sequence number by having heard us.
            self.neighbor_event(index, id, Event::TwoWayReceived);
        }
        let neighbor = self.neighbor_mut(index, id).ok_or(DropReason::Neighbor)?;
        let seen = (packet.flags, packet.options, packet.sequence);
        let duplicate = neighbor.last_dd == Some(seen);
        let has = |flag| packet.flags & flag != 0;
        match neighbor.state {
            State::ExStart => {
                let all = dd::INIT | dd::MORE | dd::MASTER;
                if packet.flags == all && packet.headers.is_empty() && id > own_id {
                    neighbor.master = false;
                    neighbor.dd_sequence = packet.sequence;
                } else if has(dd::INIT)
                    || has(dd::MASTER)
                    || packet.sequence != neighbor.dd_sequence
                    || id > own_id
                {
                    return Ok(());
                }
                neighbor.options = packet.options;
                neighbor.dd_at = None;
                self.neighbor_event(index, id, Event::NegotiationDone);
                self.accept_dd(index, id, packet);
                Ok(())
            }
            State::Exchange if duplicate => {
                if !neighbor.master {
                    self.resend_dd(index, id);
                }
                Ok(())
            }
            State::Exchange => {
                let expected = if neighbor.master {
                    neighbor.dd_sequence
                } else {
                    neighbor.dd_sequence.wrapping_add(1)
                };
                let options_differ = neighbor.last_dd.is_some_and(|(_, o, _)| o != packet.options);
                if has(dd::MASTER) == neighbor.master
                    || has(dd::INIT)
                    || options_differ
                    || packet.sequence != expected
                {
                    self.neighbor_event(index, id, Event::SeqNumberMismatch);
                } else {
                    self.accept_dd(index, id, packet);
                }
                Ok(())
            }
            State::Loading | State::Full if duplicate => {
                if !neighbor.master {
                    self.resend_dd(index, id);
                }
                Ok(())
            }
            State::Loading | State::Full => {
                self.neighbor_event(index, id, Event::SeqNumberMismatch);
                Ok(())
            }
            State::Down | State::Attempt | State::Init | State::TwoWay => Err(DropReason::Neighbor),
        }
    }

    /// A Database Description that is next in sequence: what is newer there is wanted here; then
    /// the next one goes out, or the exchange is done (§10.6, §10.8).
    fn accept_dd(&mut self, index: u32, id: u32, packet: DatabaseDescription) {
        for header in &packet.headers {
            if !self.is_acceptable(header.key.kind) {
                self.neighbor_event(index, id, Event::SeqNumberMismatch);
                return;
            }
        }
        let now = self.core.now;
        let wanted: Vec<(DbKey, LsaHeader)> = packet
            .headers
            .iter()
            .map(|header| (self.db_key(header.key, index), *header))
            .filter(|(key, header)| {
                let have = self.db.get(key).map(|entry| entry.header(now));
                have.is_none_or(|have| header.compare(&have) == Ordering::Greater)
            })
            .collect();
        let Some(neighbor) = self.neighbor_mut(index, id) else { return };
        neighbor.last_dd = Some((packet.flags, packet.options, packet.sequence));
        if neighbor.requests.len() + wanted.len() > MAX_LSAS {
            // Nobody has as many: the exchange starts over rather than filling the memory.
            self.neighbor_event(index, id, Event::SeqNumberMismatch);
            return;
        }
        neighbor.requests.extend(wanted);
        let more = packet.flags & dd::MORE != 0;
        if neighbor.master {
            let said_all = neighbor
                .sent_dd
                .as_ref()
                .is_some_and(|sent| sent.flags & (dd::MORE | dd::INIT) == 0);
            neighbor.dd_sequence = neighbor.dd_sequence.wrapping_add(1);
            if said_all && !more {
                neighbor.dd_at = None;
                neighbor.sent_dd = None;
                self.exchange_done(index, id);
            } else {
                self.send_dd(index, id);
            }
        } else {
            neighbor.dd_sequence = packet.sequence;
            self.send_dd(index, id);
            let neighbor = self.neighbor_mut(index, id);
            let said_all = neighbor
                .and_then(|n| n.sent_dd.as_ref())
                .is_some_and(|sent| sent.flags & dd::MORE == 0);
            if said_all && !more {
                self.exchange_done(index, id);
            }
        }
        self.start_requests(index, id);
    }

    fn exchange_done(&mut self, index: u32, id: u32) {
        self.neighbor_event(index, id, Event::ExchangeDone);
    }

    /// Sends the next Database Description: an empty claim in ExStart, then the summary list.
    pub(super) fn send_dd(&mut self, index: u32, id: u32) {
        let now = self.core.now;
        let Some(interface) = self.interfaces.get_mut(&index) else { return };
        let fixed = DatabaseDescription::fixed_len(self.core.version);
        let room = self.core.room(interface).saturating_sub(fixed) / HEADER_LEN;
        let opaque = if self.core.version == Version::V2 { options::O } else { 0 };
        let mut packet = DatabaseDescription {
            mtu: interface.link.mtu.min(65_535) as u16,
            options: self.core.options(&interface.config.auth) | opaque,
            flags: 0,
            sequence: 0,
            headers: Vec::new(),
        };
        let interval = interface.retransmit_interval();
        let Some(neighbor) = interface.neighbors.get_mut(&id) else { return };
        packet.sequence = neighbor.dd_sequence;
        if neighbor.state == State::ExStart {
            packet.flags = dd::INIT | dd::MORE | dd::MASTER;
        } else {
            while packet.headers.len() < room
                && let Some(key) = neighbor.summary.pop_front()
            {
                // It may have been flushed since it was listed.
                packet.headers.extend(self.db.get(&key).map(|entry| entry.header(now)));
            }
            if !neighbor.summary.is_empty() {
                packet.flags |= dd::MORE;
            }
            if neighbor.master {
                packet.flags |= dd::MASTER;
            }
        }
        neighbor.sent_dd = Some(packet);
        // §10.8: only the master repeats of itself; the slave when it is asked again.
        neighbor.dd_at = neighbor.master.then_some(now + interval);
        self.resend_dd(index, id);
    }

    /// Sends the last Database Description (again).
    pub(super) fn resend_dd(&mut self, index: u32, id: u32) {
        let now = self.core.now;
        let Some(interface) = self.interfaces.get_mut(&index) else { return };
        let interval = interface.retransmit_interval();
        let Some(neighbor) = interface.neighbors.get_mut(&id) else { return };
        if neighbor.dd_at.is_some() {
            neighbor.dd_at = Some(now + interval);
        }
        let (to, packet) = (neighbor.address, neighbor.sent_dd.clone());
        if let Some(packet) = packet {
            let interface: &_ = interface;
            self.core.send_neighbor(interface, to, Body::DatabaseDescription(packet));
        }
    }

    /// Asks for the first LSAs of the request list if no request is under way.
    pub(super) fn start_requests(&mut self, index: u32, id: u32) {
        let idle = self.neighbor_mut(index, id).is_some_and(|neighbor| {
            matches!(neighbor.state, State::Exchange | State::Loading)
                && neighbor.asked.is_empty()
                && !neighbor.requests.is_empty()
        });
        if idle {
            self.send_request(index, id);
        }
    }

    /// Asks (again) for as many LSAs as fit into one request (§10.9).
    pub(super) fn send_request(&mut self, index: u32, id: u32) {
        let now = self.core.now;
        let Some(interface) = self.interfaces.get_mut(&index) else { return };
        let room = self.core.room(interface) / REQUEST_LEN;
        let interval = interface.retransmit_interval();
        let Some(neighbor) = interface.neighbors.get_mut(&id) else { return };
        neighbor.asked = neighbor.requests.keys().take(room).copied().collect();
        neighbor.request_at = (!neighbor.asked.is_empty()).then_some(now + interval);
        if neighbor.asked.is_empty() {
            return;
        }
        let keys: Vec<LsaKey> = neighbor.asked.iter().map(|key| key.lsa).collect();
        let to = neighbor.address;
        let interface: &_ = interface;
        self.core.send_neighbor(interface, to, Body::Request(keys));
    }

    /// An LSA that was asked for has come, or a newer one.
    pub(super) fn request_satisfied(neighbor: &mut Neighbor, key: &DbKey) {
        neighbor.requests.remove(key);
        neighbor.asked.remove(key);
        if neighbor.asked.is_empty() {
            neighbor.request_at = None;
        }
    }

    /// After updates have been taken in: the next request, or Full.
    pub(super) fn check_loading(&mut self, index: u32, id: u32) {
        let Some(neighbor) = self.neighbor_mut(index, id) else { return };
        if neighbor.requests.is_empty() {
            if neighbor.state == State::Loading {
                self.neighbor_event(index, id, Event::LoadingDone);
            }
        } else {
            self.start_requests(index, id);
        }
    }

    /// §10.7: the neighbour asks for LSAs.
    pub(super) fn handle_request(
        &mut self,
        index: u32,
        id: u32,
        keys: &[LsaKey],
    ) -> Result<(), DropReason> {
        let neighbor = self.neighbor_mut(index, id).ok_or(DropReason::Neighbor)?;
        if neighbor.state < State::Exchange {
            return Err(DropReason::Neighbor);
        }
        let to = neighbor.address;
        let mut found = Vec::new();
        for key in keys {
            let key = self.db_key(*key, index);
            if self.db.get(&key).is_none() {
                self.neighbor_event(index, id, Event::BadLsReq);
                return Ok(());
            }
            found.push(key);
        }
        let lsas: Vec<Lsa> = found.iter().filter_map(|key| self.outgoing(index, key)).collect();
        self.send_updates(index, Some(to), lsas);
        Ok(())
    }
}

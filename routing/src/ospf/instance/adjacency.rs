//! Runs the neighbour machine: state, its actions, the neighbour's timers.

use super::Instance;
use super::parts::{Event as Report, Interface, Neighbor};
use crate::ospf::config::NetworkKind;
use crate::ospf::interface;
use crate::ospf::neighbor::{self, Action, Context, Event, State};

impl Instance {
    /// Feeds an event to the machine of a neighbour and does what it says.
    pub(super) fn neighbor_event(&mut self, index: u32, id: u32, event: Event) {
        let Some(interface) = self.interfaces.get(&index) else { return };
        let Some(neighbor) = interface.neighbors.get(&id) else { return };
        let context = Context {
            adjacency_wanted: wants_adjacency(interface, neighbor),
            nothing_to_request: neighbor.requests.is_empty(),
        };
        let old = neighbor.state;
        let (new, action) = neighbor::next(old, event, context);
        self.set_state(index, id, event, new);
        match action {
            // Hellos have restarted the timer already.
            Action::Nothing | Action::RestartTimer | Action::Greet => {}
            Action::BeginExchange => self.begin_exchange(index, id),
            Action::RestartExchange => {
                self.clear_lists(index, id);
                self.begin_exchange(index, id);
            }
            Action::ListDatabase => self.list_database(index, id),
            Action::ClearLists => self.clear_lists(index, id),
            Action::Forget => {
                if let Some(interface) = self.interfaces.get_mut(&index) {
                    interface.neighbors.remove(&id);
                }
            }
        }
        if (old >= State::TwoWay) != (new >= State::TwoWay) {
            self.interface_event(index, interface::Event::NeighborChange);
        }
        // §10.3: on entering Full nothing more is to be done but to announce it, which the
        // router-LSA does.
        if (old == State::Full) != (new == State::Full) {
            self.originated.dirty = true;
        }
    }

    fn set_state(&mut self, index: u32, id: u32, cause: Event, new: State) {
        let now = self.core.now;
        let Some(interface) = self.interfaces.get_mut(&index) else { return };
        let Some(neighbor) = interface.neighbors.get_mut(&id) else { return };
        let old = std::mem::replace(&mut neighbor.state, new);
        if old == new {
            return;
        }
        neighbor.since = now;
        self.core.events.push_back(Report::Neighbor {
            interface: interface.config.name.clone(),
            router_id: id.into(),
            address: neighbor.address,
            old,
            new,
            cause,
        });
    }

    fn clear_lists(&mut self, index: u32, id: u32) {
        if let Some(neighbor) = self.neighbor_mut(index, id) {
            neighbor.clear_lists();
        }
    }

    /// Entering ExStart (§10.3, §10.8).
    fn begin_exchange(&mut self, index: u32, id: u32) {
        let random = self.core.random() as u32;
        let Some(neighbor) = self.neighbor_mut(index, id) else { return };
        neighbor.dd_sequence = match neighbor.dd_sequence {
            0 => random,
            last => last.wrapping_add(1),
        };
        neighbor.master = true;
        neighbor.last_dd = None;
        self.send_dd(index, id);
    }

    /// Entering Exchange: the summary of the database (§10.3 NegotiationDone). LSAs at MaxAge are
    /// flooded to the neighbour instead.
    fn list_database(&mut self, index: u32, id: u32) {
        let now = self.core.now;
        let Some(interface) = self.interfaces.get_mut(&index) else { return };
        let due = now + interface.retransmit_interval();
        let Some(neighbor) = interface.neighbors.get_mut(&id) else { return };
        neighbor.summary.clear();
        for (key, entry) in self.db.iter() {
            if !super::flooding::may_go(key, index, neighbor, self.core.version) {
                continue;
            }
            if entry.is_max_age(now) {
                neighbor.retransmit.insert(*key, due);
                neighbor.retransmit_at.get_or_insert(due);
            } else {
                neighbor.summary.push_back(*key);
            }
        }
    }

    /// Runs what is due for a neighbour.
    pub(super) fn neighbor_timers(&mut self, index: u32, id: u32) {
        let now = self.core.now;
        let due = |at: Option<_>| at.is_some_and(|at| at <= now);
        self.stop_helping_in_time(index, id);
        let Some(neighbor) = self.neighbor_mut(index, id) else { return };
        if let Some(until) = neighbor.helping_until {
            // Silence is expected of a router that restarts.
            neighbor.inactive_at = neighbor.inactive_at.max(until);
        }
        if neighbor.inactive_at <= now {
            self.neighbor_event(index, id, Event::InactivityTimer);
            return;
        }
        let (dd, request, retransmit) =
            (due(neighbor.dd_at), due(neighbor.request_at), due(neighbor.retransmit_at));
        if dd {
            self.resend_dd(index, id);
        }
        if request {
            self.send_request(index, id);
        }
        if retransmit {
            self.retransmit(index, id);
        }
    }
}

/// §10.4: whether a neighbour that is bidirectional should become adjacent.
fn wants_adjacency(interface: &Interface, neighbor: &Neighbor) -> bool {
    let name = neighbor.name();
    interface.config.network == NetworkKind::PointToPoint
        || interface.is_designated()
        || interface.designated == name
        || interface.backup == name
}

//! Helping a neighbour through a graceful restart (RFC 3623 §3, RFC 5187).
//!
//! A neighbour that is about to restart floods a Grace-LSA on the link. Until it says that it is
//! done, its grace period ends, or the topology changes, this router goes on announcing the
//! adjacency and takes neither silence nor a forgetful Hello for the end of it.

use super::Instance;
use crate::ospf::interface;
use crate::ospf::lsa::{self, Lsa, MAX_AGE};
use crate::ospf::lsdb::DbKey;
use crate::ospf::neighbor::State;
use std::time::Duration;

const TLV_GRACE_PERIOD: u16 = 1;
/// RFC 3623 §B.2 recommends at most the time after which LSAs would be refreshed.
const LONGEST: Duration = Duration::from_secs(1_800);

impl Instance {
    /// Begins or ends helping, if the LSA says so.
    pub(super) fn consider_grace(&mut self, index: u32, lsa: &Lsa) {
        let header = lsa.header;
        if !lsa::is_grace(self.core.version, &header.key) {
            return;
        }
        let id = header.key.router;
        if header.age >= MAX_AGE {
            // §3.2 (1): the neighbour is done.
            self.stop_helping(index, id);
            return;
        }
        let Some(period) = grace_period(lsa.body()) else { return };
        let left = period.min(LONGEST).saturating_sub(Duration::from_secs(header.age.into()));
        let now = self.core.now;
        let Some(neighbor) = self.neighbor_mut(index, id) else { return };
        // §3.1 (1), (3); a second Grace-LSA may extend the period.
        let fit = neighbor.state == State::Full || neighbor.helping_until.is_some();
        if fit && !left.is_zero() {
            neighbor.helping_until = Some(now + left);
        }
    }

    /// §3.2 (3): an LSA changed that the restarting router ought to know; it cannot, so what others
    /// believe of it is no longer true.
    pub(super) fn topology_changed(&mut self, key: &DbKey) {
        if key.link != 0 || lsa::is_opaque(self.core.version, key.lsa.kind) {
            return;
        }
        let helped: Vec<(u32, u32)> = self
            .interfaces
            .iter()
            .flat_map(|(index, interface)| interface.neighbors.values().map(move |n| (*index, n)))
            .filter(|(_, n)| n.helping_until.is_some() && n.router_id != key.lsa.router)
            .map(|(index, n)| (index, n.router_id))
            .collect();
        for (index, id) in helped {
            self.stop_helping(index, id);
        }
    }

    /// §3.2 (2): the grace period is over.
    pub(super) fn stop_helping_in_time(&mut self, index: u32, id: u32) {
        let now = self.core.now;
        let over = self
            .neighbor_mut(index, id)
            .is_some_and(|neighbor| neighbor.helping_until.is_some_and(|until| until <= now));
        if over {
            self.stop_helping(index, id);
        }
    }

    fn stop_helping(&mut self, index: u32, id: u32) {
        let helped = self.neighbor_mut(index, id).is_some_and(|n| n.helping_until.take().is_some());
        if helped {
            self.originated.dirty = true;
            self.interface_event(index, interface::Event::NeighborChange);
        }
    }
}

/// The grace period of a Grace-LSA; `None` if it has none or is malformed (RFC 3623 Appendix A).
fn grace_period(mut body: &[u8]) -> Option<Duration> {
    loop {
        let (&[a, b, c, d], rest) = body.split_first_chunk::<4>()?;
        let (kind, length) = (u16::from_be_bytes([a, b]), usize::from(u16::from_be_bytes([c, d])));
        let value = rest.get(..length)?;
        if kind == TLV_GRACE_PERIOD {
            let seconds = u32::from_be_bytes(value.try_into().ok()?);
            return Some(Duration::from_secs(seconds.into()));
        }
        // Values are padded to four bytes; the last one may not be.
        body = rest.get(length.next_multiple_of(4)..)?;
    }
}

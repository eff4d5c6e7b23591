//! Which LSAs this router originates, reconciled by difference with what the database holds.
//!
//! [`super::v2`] and [`super::v3`] say what should be there; here that is compared with what is, and
//! the rest is originated, originated anew or flushed, none more often than
//! [`MIN_LS_INTERVAL`].

use super::parts::Event;
use super::{Instance, v2, v3};
use crate::ospf::lsa::{INITIAL_SEQUENCE, Lsa, MAX_SEQUENCE};
use crate::ospf::lsdb::DbKey;
use crate::ospf::{Instant, Version};
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Least time between two instances of one LSA. RFC 2328 Appendix B says 5 s for MinLSInterval,
/// which would hold a VIP up for as long; what receivers enforce is MinLSArrival, 1 s, and this
/// stays clear of it.
const MIN_LS_INTERVAL: Duration = Duration::from_millis(1_100);
/// RFC 2328 Appendix B.
const LS_REFRESH_TIME: Duration = Duration::from_secs(1_800);

/// An LSA as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Draft {
    /// OSPFv2 only.
    pub(super) options: u8,
    pub(super) body: Vec<u8>,
}

/// What should be there, and what cannot be.
#[derive(Debug, Default)]
pub(super) struct Drafts {
    pub(super) lsas: BTreeMap<DbKey, Draft>,
    /// Prefixes that cannot be announced, and why.
    pub(super) refused: BTreeMap<IpNet, &'static str>,
}

/// Bookkeeping of origination.
#[derive(Debug, Default)]
pub(super) struct Originated {
    /// Something changed that LSAs may depend on.
    pub(super) dirty: bool,
    /// Own LSAs that must be originated anew although their contents stand.
    pub(super) reissue: BTreeSet<DbKey>,
    /// When an LSA that had to wait may go.
    pub(super) retry_at: Option<Instant>,
    pub(super) refused: BTreeMap<IpNet, &'static str>,
    /// Link state IDs of OSPFv3 externals, stable for the life of the prefix.
    pub(super) ids: v3::Ids,
    last: BTreeMap<DbKey, Instant>,
}

impl Instance {
    /// Brings the database in line with what should be there.
    pub(super) fn reconcile(&mut self) {
        self.originated.retry_at = None;
        let drafts = if self.stopping { Drafts::default() } else { self.draft() };
        if drafts.refused != self.originated.refused {
            for (prefix, why) in &drafts.refused {
                if self.originated.refused.get(prefix) != Some(why) {
                    let text = format!("{prefix}: {why}");
                    self.core.events.push_back(Event::Refused(text));
                }
            }
            self.originated.refused.clone_from(&drafts.refused);
        }
        let own: Vec<DbKey> =
            self.db.iter().map(|(key, _)| *key).filter(|key| self.is_own(key)).collect();
        for key in own {
            if !drafts.lsas.contains_key(&key) {
                self.withdraw(key);
            }
        }
        for (key, draft) in drafts.lsas {
            self.bring_up_to_date(key, &draft);
        }
        let (now, db) = (self.core.now, &self.db);
        self.originated.last.retain(|key, at| db.get(key).is_some() || now < *at + MIN_LS_INTERVAL);
        self.originated.reissue.clear();
    }

    fn draft(&mut self) -> Drafts {
        match self.core.version {
            Version::V2 => v2::draft(&self.core, &self.interfaces, &self.wanted),
            Version::V3 => v3::draft(
                &self.core,
                &self.interfaces,
                &self.wanted,
                &self.db,
                &mut self.originated.ids,
            ),
        }
    }

    fn withdraw(&mut self, key: DbKey) {
        let now = self.core.now;
        if self.db.get(&key).is_none_or(|entry| entry.is_max_age(now)) {
            return;
        }
        // Stopping does not wait: what receivers drop as too early is repeated until acknowledged.
        if !self.stopping && self.must_wait(&key) {
            return;
        }
        self.originated.last.insert(key, now);
        self.expire(key);
    }

    fn bring_up_to_date(&mut self, key: DbKey, draft: &Draft) {
        let now = self.core.now;
        let reissue = self.originated.reissue.contains(&key);
        let mut sequence = INITIAL_SEQUENCE;
        if let Some(entry) = self.db.get(&key) {
            let lsa = entry.lsa();
            let same = lsa.body() == draft.body && lsa.header.options == draft.options;
            let dead = entry.is_max_age(now);
            if same && !dead && !reissue {
                return;
            }
            if lsa.header.sequence == MAX_SEQUENCE {
                // §12.1.6: the last sequence number must be flushed first; once it is gone the
                // sweep marks us dirty and the numbers start over.
                if !dead {
                    self.expire(key);
                }
                return;
            }
            sequence = lsa.header.sequence + 1;
        }
        // An old instance of ours that came back is answered at once; a change waits its turn.
        if !reissue && self.must_wait(&key) {
            return;
        }
        let version = self.core.version;
        let Some(lsa) = Lsa::build(version, draft.options, key.lsa, sequence, &draft.body) else {
            return;
        };
        self.originated.last.insert(key, now);
        // Spread, so that what was originated together is not refreshed together for ever.
        let spread = Duration::from_millis(self.core.random() % 60_000);
        self.install(key, lsa, false, Some(LS_REFRESH_TIME.saturating_sub(spread)));
        self.flood(key, None);
    }

    /// Whether the LSA changed too recently; if so, it is looked at again in time.
    fn must_wait(&mut self, key: &DbKey) -> bool {
        let Some(last) = self.originated.last.get(key) else { return false };
        let at = *last + MIN_LS_INTERVAL;
        if self.core.now >= at {
            return false;
        }
        let retry = &mut self.originated.retry_at;
        *retry = Some(retry.map_or(at, |earlier| earlier.min(at)));
        true
    }
}

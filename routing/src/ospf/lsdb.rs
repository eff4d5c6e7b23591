//! The link state database: the latest instance of every LSA, its age, and when it needs attention
//! (refresh of our own, expiry of others').
//!
//! Bounded: at most [`MAX_LSAS`] and [`MAX_BYTES`]; an LSA of another router beyond that is refused,
//! which the sender sees as a missing acknowledgment.

use super::Instant;
use super::lsa::{Lsa, LsaHeader, LsaKey, MAX_AGE};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Far beyond what an area holds.
pub const MAX_LSAS: usize = 200_000;
/// Bytes of all LSAs together.
pub const MAX_BYTES: usize = 128 << 20;

/// Where an LSA belongs: link scope is per interface (its index), all else 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DbKey {
    pub link: u32,
    pub lsa: LsaKey,
}

/// An LSA in the database.
#[derive(Debug, Clone)]
pub struct Entry {
    lsa: Lsa,
    installed: Instant,
    /// Arrived by flooding, so MinLSArrival applies.
    pub flooded: bool,
    /// When it was last sent in answer to an older instance (RFC 2328 §13 step 8).
    pub answered: Option<Instant>,
    deadline: Option<Instant>,
}

impl Entry {
    /// Seconds, capped at MaxAge.
    pub fn age(&self, now: Instant) -> u16 {
        let elapsed = now.saturating_sub(self.installed).as_secs();
        let age = u64::from(self.lsa.header.age) + elapsed;
        age.min(u64::from(MAX_AGE)) as u16
    }

    pub fn is_max_age(&self, now: Instant) -> bool {
        self.age(now) >= MAX_AGE
    }

    /// The header with its age now.
    pub fn header(&self, now: Instant) -> LsaHeader {
        LsaHeader { age: self.age(now), ..self.lsa.header }
    }

    pub fn lsa(&self) -> &Lsa {
        &self.lsa
    }

    pub fn installed(&self) -> Instant {
        self.installed
    }
}

/// The database.
#[derive(Debug, Default)]
pub struct Lsdb {
    entries: BTreeMap<DbKey, Entry>,
    deadlines: BTreeSet<(Instant, DbKey)>,
    bytes: usize,
}

impl Lsdb {
    pub fn get(&self, key: &DbKey) -> Option<&Entry> {
        self.entries.get(key)
    }

    pub fn get_mut(&mut self, key: &DbKey) -> Option<&mut Entry> {
        self.entries.get_mut(key)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&DbKey, &Entry)> {
        self.entries.iter()
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub fn is_full(&self) -> bool {
        self.entries.len() >= MAX_LSAS || self.bytes >= MAX_BYTES
    }

    /// Installs an instance. It comes up again in [`Self::pop_due`] after `attention`, or when it
    /// reaches MaxAge if that is `None`.
    pub fn install(
        &mut self,
        key: DbKey,
        lsa: Lsa,
        flooded: bool,
        attention: Option<Duration>,
        now: Instant,
    ) {
        self.remove(&key);
        let age = lsa.header.age;
        let life = Duration::from_secs(u64::from(MAX_AGE.saturating_sub(age)));
        let deadline = (age < MAX_AGE).then(|| now + attention.unwrap_or(life).min(life));
        if let Some(at) = deadline {
            self.deadlines.insert((at, key));
        }
        self.bytes += lsa.len();
        let entry = Entry { lsa, installed: now, flooded, answered: None, deadline };
        self.entries.insert(key, entry);
    }

    /// Sets an LSA's age to MaxAge, so that it can be flushed. Returns false if it is not there.
    pub fn expire(&mut self, key: &DbKey, now: Instant) -> bool {
        let Some(entry) = self.entries.get_mut(key) else { return false };
        if let Some(at) = entry.deadline.take() {
            self.deadlines.remove(&(at, *key));
        }
        entry.lsa.header.age = MAX_AGE;
        entry.installed = now;
        true
    }

    pub fn remove(&mut self, key: &DbKey) -> Option<Entry> {
        let entry = self.entries.remove(key)?;
        self.bytes -= entry.lsa.len();
        if let Some(at) = entry.deadline {
            self.deadlines.remove(&(at, *key));
        }
        Some(entry)
    }

    /// When the next LSA needs attention.
    pub fn next_due(&self) -> Option<Instant> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// Takes an LSA that needs attention.
    pub fn pop_due(&mut self, now: Instant) -> Option<DbKey> {
        let (at, key) = *self.deadlines.first().filter(|(at, _)| *at <= now)?;
        self.deadlines.remove(&(at, key));
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.deadline = None;
        }
        Some(key)
    }
}

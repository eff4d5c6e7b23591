//! Datagrams that arrive in fragments: what became of the first fragment, for those that follow it.
//!
//! Only the first fragment has ports, so only it can be looked up as a packet. What became of it is
//! kept here under what all fragments of a datagram have in common (RFC 791 §3.2, RFC 8200 §4.5):
//! addresses, protocol, identification. This is RFC 6146 §3.4's second way, to translate fragments
//! as they arrive; nothing is put together. Bounded and made at the start: four places per hash,
//! the oldest gives way, and what is too old is as good as gone, so nothing is swept. Fragments that
//! come before the first never get a place here: who sends only those pushes nobody out.
//!
//! Translated fragments get an identification of ours ([`Identifications`]): clients share local
//! addresses and backends share VIPs, so two senders' datagrams may have the same addresses and
//! identification once translated, and would be put together into one (RFC 3022 §6.3). RFC 6864
//! §5.3: who rewrites addresses sees to it that the identification is as unique as if it were the
//! sender.

use super::build::Address;
use super::flows::Direction;
use super::hash::Seed;
use super::tables::{BackendId, ServiceId, WorkerId};
use super::time::{Tick, ticks_of_ms};
use super::verdict::DropReason;

/// How long after its last fragment a datagram is remembered: what RFC 6146 §4 asks for at least
/// (FRAGMENT_MIN). Fragments leave their sender back to back, and its receiver, who gives up after
/// 15 s or more, is not served by fragments that are apart longer.
pub(super) const LIFETIME: i32 = ticks_of_ms(2_000) as i32;
/// Datagrams remembered by one worker.
const PLACES: usize = 1 << 12;
/// Places that a datagram may take.
const WAYS: usize = 4;
/// Counters of identifications. Pairs of addresses share them by hash.
const COUNTERS: usize = 1 << 10;

/// What all fragments of a datagram have in common, as they arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Key {
    /// Source and destination.
    pub addresses: [Address; 2],
    pub identification: u32,
    pub protocol: u8,
    pub v6: bool,
}

/// What became of a first fragment, and becomes of those that follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Dropped(DropReason),
    /// Handed over: its flow is another worker's.
    Owned(WorkerId),
    Translated(Translation),
}

/// What fragments of a datagram leave with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Translation {
    /// Source and destination.
    pub addresses: [Address; 2],
    pub identification: u32,
    /// Hash by which the first was routed.
    pub route: u32,
    pub service: ServiceId,
    pub backend: BackendId,
    pub direction: Direction,
}

/// A datagram whose first fragment was seen.
#[derive(Debug, Clone, Copy)]
pub(super) struct Datagram {
    /// As in [`super::tuple::Wire`], as they arrived.
    pub ports: u32,
    /// Where the first fragment ends, bytes of the datagram's payload.
    pub first_end: u32,
    pub fate: Fate,
}

#[derive(Debug, Clone, Copy)]
struct Place {
    key: Key,
    hash: u32,
    seen: Tick,
    /// `None`: never used.
    datagram: Option<Datagram>,
}

/// The datagrams of one worker.
#[derive(Debug)]
pub(super) struct Datagrams {
    places: Box<[Place]>,
    recorded: u64,
}

impl Datagrams {
    /// Allocates everything it will ever need.
    pub fn new() -> Self {
        let key =
            Key { addresses: [Address::default(); 2], identification: 0, protocol: 0, v6: false };
        let empty = Place { key, hash: 0, seen: Tick(0), datagram: None };
        Self { places: vec![empty; PLACES].into_boxed_slice(), recorded: 0 }
    }

    /// How many were recorded ever.
    pub fn recorded(&self) -> u64 {
        self.recorded
    }

    /// The datagram of a fragment, which lives on from now.
    pub fn find(&mut self, hash: u32, key: &Key, now: Tick) -> Option<&mut Datagram> {
        let same = |place: &&mut Place| place.lives(now) && place.hash == hash && place.key == *key;
        let place = self.set(hash).iter_mut().find(same)?;
        place.seen = now;
        place.datagram.as_mut()
    }

    /// Whether a datagram of this hash (they are hardly ever two) is known for which `useful` holds.
    pub fn knows(&self, hash: u32, now: Tick, useful: impl Fn(&Fate) -> bool) -> bool {
        let start = start(hash);
        self.places[start..start + WAYS].iter().any(|place| {
            place.hash == hash
                && place.lives(now)
                && place.datagram.is_some_and(|datagram| useful(&datagram.fate))
        })
    }

    /// Remember a datagram; if its key is known, instead of what was. Says whether another one, which
    /// may have had fragments to come, had to give way.
    pub fn record(&mut self, hash: u32, key: Key, datagram: Datagram, now: Tick) -> bool {
        self.recorded += 1;
        // The same one; else a free place; else the oldest.
        let rank = |place: &Place| match place.lives(now) {
            true if place.hash == hash && place.key == key => i32::MAX,
            true => now.since(place.seen),
            false => i32::MAX - 1,
        };
        let Some(place) = self.set(hash).iter_mut().max_by_key(|place| rank(place)) else {
            return false;
        };
        let evicts = place.lives(now) && place.key != key;
        *place = Place { key, hash, seen: now, datagram: Some(datagram) };
        evicts
    }

    fn set(&mut self, hash: u32) -> &mut [Place] {
        let start = start(hash);
        &mut self.places[start..start + WAYS]
    }
}

const fn start(hash: u32) -> usize {
    hash as usize % (PLACES / WAYS) * WAYS
}

impl Place {
    fn lives(&self, now: Tick) -> bool {
        self.datagram.is_some() && now.since(self.seen) < LIFETIME
    }
}

/// Where identifications of what this worker sends in fragments come from.
///
/// Each pair of addresses counts on its own, but for some that share a counter, so that one busy
/// pair does not make the 16 bits of IPv4 come round early for others; and from a secret start, so
/// that nobody knows another's (RFC 7739). Workers share local addresses and VIPs, so each has only
/// those that leave its number when divided by how many workers there are.
#[derive(Debug)]
pub(super) struct Identifications {
    counters: Box<[u32]>,
    worker: u32,
    workers: u32,
}

impl Identifications {
    pub fn new(worker: WorkerId, workers: u16, seed: &Seed) -> Self {
        let counters = (0..COUNTERS as u64).map(|n| seed.v4(n, 0, 0) as u32).collect();
        Self { counters, worker: worker.0.into(), workers: workers.max(1).into() }
    }

    /// One that this worker has not given lately. `hash`: of the addresses that the datagram leaves
    /// with.
    pub fn next(&mut self, hash: u64, v6: bool) -> u32 {
        let counter = &mut self.counters[hash as usize % COUNTERS];
        *counter = counter.wrapping_add(1);
        let most = if v6 { u32::MAX } else { u16::MAX.into() };
        // All below are at most `most`; a worker has at least one.
        let each = (most / self.workers).max(1);
        (*counter % each * self.workers + self.worker) & most
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn key(identification: u32) -> Key {
        let [a, b] = [1, 2].map(|n| Address([n; 16]));
        Key { addresses: [a, b], identification, protocol: 17, v6: true }
    }

    fn owned(worker: u16) -> Datagram {
        Datagram { ports: 0, first_end: 8, fate: Fate::Owned(WorkerId(worker)) }
    }

    fn owner(datagrams: &mut Datagrams, n: u32, now: Tick) -> Option<Fate> {
        datagrams.find(7, &key(n), now).map(|datagram| datagram.fate)
    }

    #[test]
    fn a_datagram_is_known_until_its_fragments_stay_away() {
        let mut datagrams = Datagrams::new();
        let expected = Some(Fate::Owned(WorkerId(3)));
        assert!(!datagrams.record(7, key(1), owned(3), Tick(10)));
        let mut others = [key(1); 4];
        others[0].addresses.swap(0, 1);
        others[1].identification = 2;
        others[2].protocol = 6;
        others[3].v6 = false;
        for other in others {
            assert!(datagrams.find(7, &other, Tick(10)).is_none(), "{other:?}");
        }
        let mut now = Tick(10);
        for _ in 0..5 {
            assert!(datagrams.knows(7, now, |_| true));
            assert_eq!(owner(&mut datagrams, 1, now), expected);
            now = now.plus(LIFETIME as u32 - 1);
        }
        now = now.plus(1);
        assert!(!datagrams.knows(7, now, |_| true));
        assert_eq!(owner(&mut datagrams, 1, now), None);
        assert!(!datagrams.record(7, key(9), owned(1), now), "the place was free");
    }

    #[test]
    fn the_oldest_of_a_full_set_gives_way() {
        let mut datagrams = Datagrams::new();
        for n in 0..WAYS as u32 {
            assert!(!datagrams.record(7, key(n), owned(n as u16), Tick(n)));
        }
        assert!(owner(&mut datagrams, 0, Tick(50)).is_some(), "0 lives on, 1 is the oldest");
        assert!(!datagrams.record(7, key(2), owned(22), Tick(60)), "in place of itself");
        assert!(datagrams.record(7, key(99), owned(9), Tick(60)));
        let known: Vec<u32> = [0, 1, 2, 3, 99]
            .into_iter()
            .filter(|&n| owner(&mut datagrams, n, Tick(60)).is_some())
            .collect();
        assert_eq!(known, [0, 2, 3, 99]);
        assert_eq!(owner(&mut datagrams, 2, Tick(60)), Some(Fate::Owned(WorkerId(22))));
        assert_eq!(datagrams.recorded(), WAYS as u64 + 2);
        assert!(size_of::<Place>() <= 128, "{}", size_of::<Place>());
    }

    /// No two workers ever give the same, and one worker none twice before all.
    #[test]
    fn identifications_are_disjoint_between_workers() {
        for workers in [1, 2, 3, 7, 64] {
            let mut seen = HashSet::new();
            for worker in 0..workers {
                let mut all = Identifications::new(WorkerId(worker), workers, &Seed::new(5));
                // The counter may come round once.
                let turns = u32::from(u16::MAX) / u32::from(workers);
                let fresh = (0..turns).filter(|_| seen.insert(all.next(11, false))).count();
                assert!(fresh as u32 >= turns - 1, "{fresh} of {turns}, {workers} workers");
            }
            assert!(seen.iter().all(|&id| id <= u16::MAX.into()));
            let ids: HashSet<u32> = (0..workers)
                .flat_map(|worker| {
                    let mut all = Identifications::new(WorkerId(worker), workers, &Seed::new(5));
                    (0..1000).map(move |_| all.next(3, true))
                })
                .collect();
            assert!(ids.len() >= 1000 * usize::from(workers) - 1);
        }
    }

    #[test]
    fn more_workers_than_identifications_still_get_some() {
        let mut all = Identifications::new(WorkerId(65_000), u16::MAX, &Seed::new(5));
        assert!(all.next(1, false) <= u16::MAX.into());
    }
}

//! Numbers of local addresses.
//!
//! Where the NIC steers by flow rules, a LIP belongs to the worker that its number names (see
//! [`owner_of_lip`]). So numbers are given out such that every worker has its share of each
//! family. A number stays with its address for the life of the process: taking a local address out
//! of the configuration ends the flows on it, and they must not wake up on another one.

use crate::forward::steering::owner_of_lip;
use crate::forward::tables::{LipId, LipSpec};
use std::collections::HashMap;
use std::net::IpAddr;

/// Most local addresses.
pub const MAX_LIPS: u16 = 4_096;

#[derive(Debug)]
pub struct Lips {
    numbers: HashMap<IpAddr, LipId>,
    /// By worker: the next number that names it.
    next: Vec<u16>,
}

impl Lips {
    pub fn new(workers: u16) -> Self {
        Self { numbers: HashMap::new(), next: (0..workers.max(1)).collect() }
    }

    /// These addresses with their numbers. Beyond [`MAX_LIPS`] (over the life of the process),
    /// addresses are left out.
    pub fn number(&mut self, addresses: &[IpAddr]) -> Vec<LipSpec> {
        for v6 in [false, true] {
            let mut shares = self.shares(addresses, v6);
            for &address in addresses.iter().filter(|address| address.is_ipv6() == v6) {
                if self.numbers.contains_key(&address) {
                    continue;
                }
                let open = |&worker: &usize| self.next[worker] < MAX_LIPS;
                let least = (0..self.next.len()).filter(open).min_by_key(|&w| shares[w]);
                let Some(worker) = least else { continue };
                self.numbers.insert(address, LipId(self.next[worker]));
                self.next[worker] += self.next.len() as u16;
                shares[worker] += 1;
            }
        }
        let spec =
            |address: &IpAddr| Some(LipSpec { id: *self.numbers.get(address)?, address: *address });
        addresses.iter().filter_map(spec).collect()
    }

    /// The family of which some worker would have no local address, while others have.
    pub fn short_of(&self, addresses: &[IpAddr]) -> Option<&'static str> {
        [(false, "IPv4"), (true, "IPv6")].into_iter().find_map(|(v6, family)| {
            let all = addresses.iter().filter(|address| address.is_ipv6() == v6);
            let new = all.clone().filter(|address| !self.numbers.contains_key(address)).count();
            let without = self.shares(addresses, v6).iter().filter(|&&share| share == 0).count();
            (all.count() > 0 && without > new).then_some(family)
        })
    }

    /// By worker: how many of these addresses are its own already.
    fn shares(&self, addresses: &[IpAddr], v6: bool) -> Vec<usize> {
        let workers = self.next.len() as u16;
        let mut shares = vec![0; self.next.len()];
        for address in addresses.iter().filter(|address| address.is_ipv6() == v6) {
            if let Some(&id) = self.numbers.get(address) {
                shares[usize::from(owner_of_lip(id, workers).0)] += 1;
            }
        }
        shares
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn v4(hosts: impl IntoIterator<Item = u8>) -> Vec<IpAddr> {
        hosts.into_iter().map(|host| IpAddr::from([10, 9, 0, host])).collect()
    }

    fn owners(specs: &[LipSpec], workers: u16) -> Vec<u16> {
        let mut owners: Vec<u16> =
            specs.iter().map(|spec| owner_of_lip(spec.id, workers).0).collect();
        owners.sort_unstable();
        owners
    }

    #[test]
    fn every_worker_has_its_share_of_each_family() {
        let mut lips = Lips::new(4);
        let mut addresses = v4(1..=5);
        let v6: Vec<IpAddr> = (1..=4u16).map(|n| [0xfd00, 0, 0, 0, 0, 0, 0, n].into()).collect();
        addresses.extend(&v6);
        let specs = lips.number(&addresses);
        assert_eq!(owners(&specs[..5], 4), [0, 0, 1, 2, 3]);
        assert_eq!(owners(&specs[5..], 4), [0, 1, 2, 3]);
        let ids: HashSet<LipId> = specs.iter().map(|spec| spec.id).collect();
        assert_eq!(ids.len(), 9, "each its own");
        assert_eq!(lips.number(&addresses), specs, "and keeps it");
    }

    #[test]
    fn who_lost_an_address_gets_the_next() {
        let mut lips = Lips::new(3);
        let before = lips.number(&v4(1..=3));
        assert_eq!(lips.short_of(&v4([1, 3])), Some("IPv4"));
        assert_eq!(lips.short_of(&v4([1, 3, 9])), None);
        let after = lips.number(&v4([1, 3, 9]));
        assert_eq!(owners(&after, 3), [0, 1, 2]);
        assert_ne!(after[2].id, before[1].id, "a number is not used again");
        // Enough addresses, but two of one worker.
        let six = lips.number(&v4([1, 3, 9, 10, 11, 12]));
        let mine: Vec<IpAddr> = six
            .iter()
            .filter(|spec| owner_of_lip(spec.id, 3).0 != 1)
            .map(|spec| spec.address)
            .collect();
        assert_eq!((mine.len(), lips.short_of(&mine)), (4, Some("IPv4")));
        assert_eq!(lips.short_of(&[]), None, "a family that nobody has is not missed");
    }

    #[test]
    fn there_is_an_end() {
        let mut lips = Lips::new(3);
        let many: Vec<IpAddr> =
            (0..5000u16).map(|n| [10, 0, (n >> 8) as u8, n as u8].into()).collect();
        let specs = lips.number(&many);
        assert_eq!(specs.len(), usize::from(MAX_LIPS));
        assert!(specs.iter().all(|spec| spec.id.0 < MAX_LIPS));
    }
}

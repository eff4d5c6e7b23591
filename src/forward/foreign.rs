//! Local addresses of other nodes, as adopted flows name them (see `adopt`).
//!
//! A record names a LIP by its slot in the tables. Those of other nodes are in no table: they are
//! kept here, as long as a flow uses them, and have numbers that no slot of the tables has.

use super::build::Address;
use super::tables::LipId;

/// Most LIPs of other nodes that copies may use at a time.
const MAX_FOREIGN: usize = 4096;
/// Bits of a [`LipId`] in a record: the LIP is another node's; the owner was asked to confirm. The
/// rest is then an index into [`ForeignLips`].
const FOREIGN: u16 = 0x8000;
const UNCONFIRMED: u16 = 0x4000;
/// Slots of our own LIPs are below.
pub(super) const MAX_OWN_LIP: u16 = UNCONFIRMED;

/// LIPs of other nodes, by the index that records hold, as long as a flow uses them.
#[derive(Debug, Default)]
pub(super) struct ForeignLips(Vec<ForeignLip>);

#[derive(Debug)]
struct ForeignLip {
    address: Address,
    /// Whose it is: the number of the peer that said so.
    peer: u16,
    flows: u32,
}

impl LipId {
    /// Of another node: the flow is adopted.
    #[inline(always)]
    pub(super) const fn is_foreign(self) -> bool {
        self.0 & FOREIGN != 0
    }

    /// The owner was asked to confirm the flow.
    pub(super) const fn is_doubted(self) -> bool {
        self.0 & UNCONFIRMED != 0
    }

    pub(super) const fn doubted(self) -> Self {
        Self(self.0 | UNCONFIRMED)
    }

    pub(super) const fn confirmed(self) -> Self {
        Self(self.0 & !UNCONFIRMED)
    }

    const fn foreign_index(self) -> usize {
        (self.0 & !(FOREIGN | UNCONFIRMED)) as usize
    }
}

impl ForeignLips {
    #[cold]
    #[inline(never)]
    pub fn get(&self, lip: LipId) -> Option<&Address> {
        self.used(lip).map(|lip| &lip.address)
    }

    /// Number of the peer whose LIP it is.
    pub fn peer(&self, lip: LipId) -> Option<u16> {
        self.used(lip).map(|lip| lip.peer)
    }

    fn used(&self, lip: LipId) -> Option<&ForeignLip> {
        let slot = lip.is_foreign().then(|| self.0.get(lip.foreign_index()))??;
        (slot.flows > 0).then_some(slot)
    }

    /// One more flow uses this address. `None`: too many addresses.
    pub fn take(&mut self, address: Address, peer: u16) -> Option<LipId> {
        let same = |slot: &ForeignLip| slot.address == address && slot.peer == peer;
        let index = match self.0.iter().position(|slot| slot.flows > 0 && same(slot)) {
            Some(index) => index,
            None => match self.0.iter().position(|slot| slot.flows == 0) {
                Some(index) => index,
                None if self.0.len() < MAX_FOREIGN => {
                    self.0.push(ForeignLip { address, peer, flows: 0 });
                    self.0.len() - 1
                }
                None => return None,
            },
        };
        let slot = self.0.get_mut(index)?;
        *slot = ForeignLip { address, peer, flows: slot.flows + 1 };
        Some(LipId(FOREIGN | index as u16))
    }

    pub fn give(&mut self, lip: LipId) {
        if let Some(slot) = self.0.get_mut(lip.foreign_index()) {
            slot.flows = slot.flows.saturating_sub(1);
        }
    }
}

#[cfg(test)]
impl ForeignLips {
    /// Flows that use any of them.
    pub fn flows(&self) -> u64 {
        self.0.iter().map(|lip| u64::from(lip.flows)).sum()
    }
}

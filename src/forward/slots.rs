//! Where the large tables of the packet path lie: in ordinary memory, or in memory that somebody
//! lends, such as hugepages of the worker's NUMA node.

use std::any::Any;
use std::ops::{Deref, DerefMut};

/// Who lends memory for tables.
pub trait Arena {
    /// So many slots, each with this value, aligned to their type. `None`: there is not so much.
    fn lend<T: Copy + Send + Sync + 'static>(&self, count: usize, value: T) -> Option<Slots<T>>;
}

/// Lends nothing: tables lie in ordinary memory.
#[derive(Debug, Clone, Copy, Default)]
pub struct Ordinary;

impl Arena for Ordinary {
    fn lend<T: Copy + Send + Sync + 'static>(&self, _count: usize, _value: T) -> Option<Slots<T>> {
        None
    }
}

/// A fixed number of slots.
#[derive(Debug)]
pub struct Slots<T: 'static>(Place<T>);

#[derive(Debug)]
enum Place<T: 'static> {
    Ordinary(Box<[T]>),
    /// Valid while the lender is there; dropped in this order.
    Lent(&'static mut [T], #[allow(dead_code, reason = "kept")] Box<dyn Lender>),
}

/// Whatever keeps lent memory in place until it is dropped.
pub trait Lender: Any + Send + Sync + std::fmt::Debug {}

impl<T: Copy + Send + Sync + 'static> Slots<T> {
    /// From the arena, or else from ordinary memory.
    pub fn new(arena: &impl Arena, count: usize, value: T) -> Self {
        let lent = arena.lend(count, value);
        lent.unwrap_or_else(|| Self(Place::Ordinary(vec![value; count].into_boxed_slice())))
    }
}

impl<T> Slots<T> {
    /// Slots that stay in place as long as `lender` does.
    pub fn lent(slots: &'static mut [T], lender: Box<dyn Lender>) -> Self {
        Self(Place::Lent(slots, lender))
    }

    pub fn is_lent(&self) -> bool {
        matches!(self.0, Place::Lent(..))
    }
}

impl<T> Deref for Slots<T> {
    type Target = [T];

    #[inline(always)]
    fn deref(&self) -> &[T] {
        match &self.0 {
            Place::Ordinary(slots) => slots,
            Place::Lent(slots, _) => slots,
        }
    }
}

impl<T> DerefMut for Slots<T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [T] {
        match &mut self.0 {
            Place::Ordinary(slots) => slots,
            Place::Lent(slots, _) => slots,
        }
    }
}

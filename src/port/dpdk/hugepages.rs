//! Memory for tables, from DPDK's heap on one NUMA node.

use super::eal::{Eal, WorkerThread};
use crate::forward::slots::{Arena, Lender, Slots};
use dpdk_sys as sys;
use std::cell::Cell;
use std::ffi::c_void;
use std::ptr::NonNull;

/// DPDK's heap on the NUMA node of a worker: hugepages, if [`super::EalConfig::hugepages`]. Grows
/// as far as there are free ones.
#[derive(Debug)]
pub struct NodeMemory {
    eal: Eal,
    socket: i32,
    /// Where the last block came from, or the one before if only that was far.
    lent_from: Cell<Option<i32>>,
}

impl NodeMemory {
    /// That of the node on which the calling thread, pinned before it was registered, runs.
    pub fn of_worker(eal: &Eal, _thread: &WorkerThread) -> Self {
        // SAFETY: reads a thread-local variable.
        let socket = unsafe { sys::rte_socket_id() } as i32;
        Self { eal: eal.clone(), socket, lent_from: Cell::new(None) }
    }

    /// The NUMA node asked for; `None`: any.
    pub fn node(&self) -> Option<u32> {
        u32::try_from(self.socket).ok()
    }

    /// The NUMA node on which what was lent lies, by DPDK's own account of its pages; the far one if
    /// some is not where it was asked for. `None`: nothing was lent, or DPDK does not say.
    pub fn lent_from(&self) -> Option<u32> {
        u32::try_from(self.lent_from.get()?).ok()
    }
}

impl Arena for NodeMemory {
    fn lend<T: Copy + Send + Sync + 'static>(&self, count: usize, value: T) -> Option<Slots<T>> {
        let size = count.checked_mul(size_of::<T>()).filter(|&size| size > 0)?;
        let align = align_of::<T>().max(64) as u32;
        // SAFETY: EAL is initialised; the type's name may be absent.
        let memory = unsafe { sys::rte_malloc_socket(std::ptr::null(), size, align, self.socket) };
        let memory = NonNull::new(memory)?;
        // SAFETY: only compares the address with those of DPDK's memory.
        let from = unsafe { sys::dpdk_sys_memory_socket(memory.as_ptr()) };
        if self.lent_from.get().is_none_or(|known| known == self.socket) {
            self.lent_from.set(Some(from));
        }
        let lender = Box::new(Block { memory, _eal: self.eal.clone() });
        let first = memory.cast::<T>();
        // SAFETY: the block has room for `count` values, is aligned for them and nobody else knows
        // it. It stays until the lender is dropped, which Slots does after its last use of this.
        let slots = unsafe {
            for at in 0..count {
                first.add(at).write(value);
            }
            std::slice::from_raw_parts_mut(first.as_ptr(), count)
        };
        Some(Slots::lent(slots, lender))
    }
}

/// A block of the heap, given back when dropped.
#[derive(Debug)]
struct Block {
    memory: NonNull<c_void>,
    _eal: Eal,
}

// SAFETY: the block is plain memory, and DPDK's heap may be used by any thread.
unsafe impl Send for Block {}
// SAFETY: nothing can be done with a shared Block.
unsafe impl Sync for Block {}

impl Lender for Block {}

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: allocated by rte_malloc_socket and freed once.
        unsafe { sys::rte_free(self.memory.as_ptr()) }
    }
}

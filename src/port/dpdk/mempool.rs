//! Pools of packet buffers.

use super::eal::{Eal, c_string, with_log};
use super::error::DpdkError;
use super::mbuf::Mbuf;
use crate::port::{BURST, Burst};
use dpdk_sys as sys;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

/// Shape of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolConfig {
    /// Buffers in the pool. Enough for every receive and transmit descriptor of the ports that
    /// use it, the bursts in flight and the workers' caches.
    pub mbufs: u32,
    /// Longest frame one buffer holds, bytes.
    pub frame_size: u16,
    /// NUMA node; `None`: any.
    pub socket: Option<u32>,
}

impl Default for PoolConfig {
    fn default() -> Self {
        Self { mbufs: 16_383, frame_size: 2048, socket: None }
    }
}

/// Buffers each registered thread keeps at hand.
const CACHE: u32 = 256;
/// Most that it keeps: DPDK lets a cache grow by half before it gives some back.
pub const CACHED: u32 = CACHE * 3 / 2;

/// A pool of packet buffers. Clones share it; it lives as long as the environment.
#[derive(Debug, Clone)]
pub struct Mempool {
    pool: NonNull<sys::rte_mempool>,
    config: PoolConfig,
    _eal: Eal,
}

// SAFETY: DPDK's pools are multi-producer, multi-consumer by default (as created here), and their
// caches are per thread.
unsafe impl Send for Mempool {}
// SAFETY: as above.
unsafe impl Sync for Mempool {}

/// Why there is no buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AllocError {
    #[error("the pool is empty")]
    Empty,
    #[error("the frame does not fit one buffer")]
    TooLong,
}

impl Mempool {
    pub fn new(eal: &Eal, config: PoolConfig) -> Result<Self, DpdkError> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        // Pool names are unique per process and at most 25 bytes.
        let name = format!("dunlin{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let c_name = c_string("pool name", &name)?;
        let headroom = sys::DPDK_SYS_PKTMBUF_HEADROOM as u16;
        let room = config.frame_size.saturating_add(headroom);
        // DPDK wants at most two thirds of the pool in one cache.
        let cache = CACHE.min(config.mbufs / 2);
        let socket = config.socket.map_or(sys::DPDK_SYS_SOCKET_ANY, |s| s as i32);
        let (pool, log) = with_log(|| {
            // SAFETY: EAL is initialised; the name is copied by DPDK.
            let pool = unsafe {
                sys::rte_pktmbuf_pool_create(c_name.as_ptr(), config.mbufs, cache, 0, room, socket)
            };
            // SAFETY: reads this thread's rte_errno.
            NonNull::new(pool).ok_or_else(|| unsafe { sys::dpdk_sys_errno() })
        });
        match pool {
            Ok(pool) => {
                eal.keep_pool(pool, config.mbufs);
                Ok(Self { pool, config, _eal: eal.clone() })
            }
            Err(errno) => Err(DpdkError::call(
                format!("cannot create a pool of {} packet buffers", config.mbufs),
                errno,
                log,
                &format!(
                    "It takes about {} MiB of DPDK memory: give it more memory or fewer mbufs",
                    u64::from(config.mbufs) * (u64::from(room) + 256) / (1 << 20) + 1
                ),
            )),
        }
    }

    pub fn config(&self) -> PoolConfig {
        self.config
    }

    /// An empty frame.
    pub fn alloc(&self) -> Result<Mbuf, AllocError> {
        // SAFETY: the pool is alive (the environment is).
        let mbuf = unsafe { sys::dpdk_sys_pktmbuf_alloc(self.pool.as_ptr()) };
        // SAFETY: a fresh mbuf, owned by nobody else.
        NonNull::new(mbuf).map(|m| unsafe { Mbuf::from_raw(m) }).ok_or(AllocError::Empty)
    }

    /// A frame with these bytes.
    pub fn alloc_from(&self, bytes: &[u8]) -> Result<Mbuf, AllocError> {
        let len = u16::try_from(bytes.len()).map_err(|_| AllocError::TooLong)?;
        let mut mbuf = self.alloc()?;
        mbuf.append(len).ok_or(AllocError::TooLong)?.copy_from_slice(bytes);
        Ok(mbuf)
    }

    /// Fill the burst with empty frames: all that fit, or none if the pool has not so many.
    pub fn alloc_burst(&self, burst: &mut Burst<Mbuf>) -> Result<(), AllocError> {
        let (start, count) = (burst.len(), BURST - burst.len());
        // SAFETY: the pool is alive, the burst has room for `count` more, and Mbuf is a
        // transparent non-null pointer, all of which the call fills in when it succeeds.
        unsafe {
            let into = burst.as_mut_ptr().add(start).cast::<*mut sys::rte_mbuf>();
            if sys::dpdk_sys_pktmbuf_alloc_bulk(self.pool.as_ptr(), into, count as u32) != 0 {
                return Err(AllocError::Empty);
            }
            burst.set_len(BURST);
        }
        Ok(())
    }

    /// Buffers not in use now. Walks all threads' caches: for operators and tests.
    pub fn available(&self) -> u32 {
        // SAFETY: the pool is alive.
        unsafe { sys::rte_mempool_avail_count(self.pool.as_ptr()) }
    }

    pub(super) fn as_ptr(&self) -> *mut sys::rte_mempool {
        self.pool.as_ptr()
    }
}

//! Ports on DPDK: NICs and virtual devices.
//!
//! The small safe face of `dpdk-sys`: [`Eal`] (the environment, once per process), [`Mempool`] and
//! [`Mbuf`] (packet buffers), [`DpdkPort`] (a device) and [`DpdkQueue`] (one of its queue pairs,
//! which a worker polls). Nothing else in the node calls DPDK.
//!
//! A control interface toward the kernel is a port like any other, opened from a virtual device
//! (`net_tap…`, `virtio_user…`).
//!
//! What keeps this safe: a port is started for as long as its value or one of its queues lives, a
//! queue has one holder, buffers are owned values, and the environment is taken down only when
//! every buffer is back in its pool.
#![allow(unsafe_code)]

mod device;
mod eal;
mod error;
mod flow;
mod hugepages;
mod interrupts;
mod mbuf;
mod mempool;
mod port;
mod queue;
mod rss;
mod setup;

pub use eal::{Eal, EalConfig, TscClock, WorkerThread, pin_current_thread};
pub use error::DpdkError;
pub use flow::{FlowRule, LipRules};
pub use hugepages::NodeMemory;
pub use interrupts::Interrupts;
pub use mbuf::Mbuf;
pub use mempool::{AllocError, CACHED, Mempool, PoolConfig};
pub use port::{Attached, DpdkPort, Link, PortConfig, PortInfo, PortStats};
pub use queue::DpdkQueue;
pub use rss::Rss;

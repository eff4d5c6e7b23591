//! The packet path: parse → flow → service → schedule → rewrite → next hop → verdict.
//!
//! Takes bytes and `now`, returns verdicts. Knows no socket, no clock, no DPDK, and never
//! allocates, logs or blocks. The worker alone sends, frees and counts.

pub mod tables;
mod verdict;

pub use verdict::{DropReason, Verdict};

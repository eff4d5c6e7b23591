//! Any bytes as datagrams between nodes. The body is in `tests/support/cluster.rs`.

#![no_main]

#[path = "../../tests/support/cluster.rs"]
mod cluster;

libfuzzer_sys::fuzz_target!(|data: &[u8]| cluster::datagrams(data));

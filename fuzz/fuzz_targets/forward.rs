//! Any bytes as a sequence of frames. The body is in `tests/support/fuzz.rs`.

#![no_main]

#[path = "../../tests/support/mod.rs"]
mod support;

libfuzzer_sys::fuzz_target!(|data: &[u8]| support::fuzz::forward(data));

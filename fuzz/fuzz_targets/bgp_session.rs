//! A BGP session fed raw bytes in every state; the rules are those of routing/tests/fuzz_bgp.rs.
//! Seeds: routing/tests/seeds/bgp.
#![no_main]

#[path = "../../routing/tests/bgp_drive/mod.rs"]
mod bgp_drive;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| bgp_drive::drive(input));

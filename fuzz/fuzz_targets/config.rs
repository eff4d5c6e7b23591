//! Any text is refused with bounded errors, or read; the same holds as in tests/fuzz_config.rs.
//! Seeds: tests/fixtures/config/seeds.
#![no_main]

use dunlin::config::{Config, MAX_ERRORS, diff};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| match Config::parse(text, "fuzz.toml") {
    Ok(config) => assert!(diff(&config, &config).is_empty()),
    Err(errors) => assert!((1..=MAX_ERRORS).contains(&errors.iter().count())),
});

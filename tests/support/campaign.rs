//! Bounded fuzzing on a stable toolchain: random inputs into one body for a while.
//!
//! `DUNLIN_FUZZ_SECONDS` is the time per test (default 2), `DUNLIN_FUZZ_SEED` the random seed (a new
//! one each time otherwise). A failure prints both the input as hex and the seed.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::fmt::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

/// Give `body` what `make` makes, as long as the time lasts.
pub fn run(name: &str, body: fn(&[u8]), make: impl Fn(&mut StdRng) -> Vec<u8>) {
    let setting = |name| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let seconds = setting("DUNLIN_FUZZ_SECONDS").unwrap_or(2);
    let seed = setting("DUNLIN_FUZZ_SEED").unwrap_or_else(|| rand::rng().next_u64());
    let mut random = StdRng::seed_from_u64(seed);
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut inputs = 0u64;
    while Instant::now() < end {
        let input = make(&mut random);
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| body(&input))) {
            let hex = input.iter().fold(String::new(), |mut hex, byte| {
                let _ = write!(hex, "{byte:02x}");
                hex
            });
            eprintln!("{name}: input {inputs} of seed {seed} fails:\n{hex}");
            std::panic::resume_unwind(panic);
        }
        inputs += 1;
    }
    println!("{name}: {inputs} inputs from seed {seed}");
    assert!(inputs > 0);
}

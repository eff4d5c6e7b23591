//! Bounded fuzzing of the BGP session: damaged messages in every state. `DUNLIN_FUZZ_SECONDS`
//! (default 2) bounds it. A failing input is printed as hex and can be replayed with
//! `DUNLIN_FUZZ_INPUT=<hex>`. Seeds: tests/seeds/bgp, the corpus of the libFuzzer target too.

mod bgp_drive;

use bgp_drive::drive;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

/// SplitMix64.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn below(state: &mut u64, n: usize) -> usize {
    (next(state) % n.max(1) as u64) as usize
}

fn seeds() -> Vec<Vec<u8>> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/seeds/bgp");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|f| f.unwrap().path()).collect();
    files.sort();
    files.iter().map(|path| std::fs::read(path).unwrap()).collect()
}

/// A few seeds in a row, damaged; header lengths mostly put right again, so that the damage gets
/// past the framing.
fn input(random: &mut u64, seeds: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = vec![next(random) as u8, next(random) as u8];
    for _ in 0..=below(random, 4) {
        let mut message = seeds[below(random, seeds.len())][2..].to_vec();
        for _ in 0..below(random, 5) {
            damage(random, &mut message);
        }
        if message.len() >= 19 && below(random, 8) != 0 {
            let len = (message.len() as u16).to_be_bytes();
            message[..16].fill(0xff);
            message[16..18].copy_from_slice(&len);
        }
        bytes.extend(message);
    }
    bytes
}

fn damage(random: &mut u64, message: &mut Vec<u8>) {
    let at = below(random, message.len());
    match below(random, 7) {
        0 if at < message.len() => message[at] ^= 1 << below(random, 8),
        1 if at < message.len() => message[at] = next(random) as u8,
        2 if at < message.len() => message[at] = [0, 1, 0x7f, 0x80, 0xff][below(random, 5)],
        3 => message.insert(at.min(message.len()), next(random) as u8),
        4 if at < message.len() => drop(message.remove(at)),
        5 => message.truncate(at),
        _ => {
            let piece = message[at..(at + below(random, 40)).min(message.len())].to_vec();
            let to = below(random, message.len() + 1);
            message.splice(to..to, piece);
        }
    }
}

#[test]
fn damaged_messages_never_break_a_session() {
    if let Ok(hex) = std::env::var("DUNLIN_FUZZ_INPUT") {
        let octet = |i: usize| u8::from_str_radix(&hex[i..i + 2], 16).unwrap();
        drive(&(0..hex.len()).step_by(2).map(octet).collect::<Vec<_>>());
        return;
    }
    let seconds = std::env::var("DUNLIN_FUZZ_SECONDS").ok().and_then(|s| s.parse().ok());
    let budget = Duration::from_secs(seconds.unwrap_or(2));
    let seeds = seeds();
    assert!(seeds.len() > 10, "seeds found");
    for seed in &seeds {
        drive(seed);
    }
    let mut random = Instant::now().elapsed().as_nanos() as u64 ^ u64::from(std::process::id());
    let start = Instant::now();
    let mut runs = 0u64;
    while start.elapsed() < budget {
        let bytes = input(&mut random, &seeds);
        if catch_unwind(AssertUnwindSafe(|| drive(&bytes))).is_err() {
            let hex: Vec<String> = bytes.iter().map(|b| format!("{b:02x}")).collect();
            panic!("DUNLIN_FUZZ_INPUT={}", hex.concat());
        }
        runs += 1;
    }
    println!("{runs} inputs");
}

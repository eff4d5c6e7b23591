//! Bounded fuzzing of frame parsing and of the forward path on a stable toolchain: seeds from
//! `tests/fixtures/seeds/packet` and the frames of the packet-path cases, mutated.
//!
//! See `support/campaign.rs` for settings and failures. The same bodies run under libFuzzer: see
//! `fuzz/`.

#[path = "support/campaign.rs"]
mod campaign;
mod support;

use dunlin::packet::build::fragments;
use rand::RngExt;
use rand::rngs::StdRng;
use std::path::Path;
use support::frames::from_hex;

#[test]
fn any_frame_is_parsed_and_forwarded() {
    run("frame", support::fuzz::frame, mutate);
}

#[test]
fn any_sequence_of_frames_is_forwarded() {
    run("forward", support::fuzz::forward, |random, seeds| {
        let mut input = Vec::new();
        for _ in 0..random.random_range(1..12) {
            let frame =
                if random.random_bool(0.4) { pick(random, seeds) } else { mutate(random, seeds) };
            let frame = &frame[..frame.len().min(255)];
            let control: u8 = random.random();
            input.extend([control & !0x0c, frame.len() as u8]);
            input.extend(frame);
        }
        input
    });
}

/// As before, but most frames are fragments of a few datagrams, in any order, some changed.
#[test]
fn any_sequence_of_fragments_is_forwarded() {
    run("fragments", support::fuzz::forward, |random, seeds| {
        let mut parts = Vec::new();
        for _ in 0..random.random_range(1..5) {
            let mut whole = pick(random, seeds);
            whole.extend(vec![random.random::<u8>(); random.random_range(0..120)]);
            if whole.len() < 62 {
                continue;
            }
            let size = random.random_range(8..100);
            parts.extend(fragments(&whole, random.random_range(1..4), size));
        }
        let mut input = Vec::new();
        for _ in 0..parts.len() {
            let mut frame = if random.random_bool(0.9) {
                parts.swap_remove(random.random_range(0..parts.len()))
            } else {
                mutate(random, &parts)
            };
            if random.random_bool(0.1) {
                let at = random.random_range(0..frame.len().max(1));
                frame.iter_mut().skip(at).take(1).for_each(|byte| *byte = random.random());
                fix_header(&mut frame);
            }
            let frame = &frame[..frame.len().min(255)];
            let control: u8 = random.random();
            // Time seldom passes: all parts should be there.
            let control = if random.random_bool(0.95) { control & 0x73 } else { control & !0x0c };
            input.extend([control, frame.len() as u8]);
            input.extend(frame);
        }
        input
    });
}

fn run(name: &str, body: fn(&[u8]), make: impl Fn(&mut StdRng, &[Vec<u8>]) -> Vec<u8>) {
    let seeds = seeds();
    for seed in &seeds {
        body(seed);
    }
    campaign::run(name, body, |random| make(random, &seeds));
}

/// The seeds kept as files, and every frame of the packet-path cases.
fn seeds() -> Vec<Vec<u8>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let mut seeds = Vec::new();
    for entry in std::fs::read_dir(root.join("seeds/packet")).expect("the seeds") {
        let text = std::fs::read_to_string(entry.expect("an entry").path()).expect("a seed");
        seeds.push(from_hex(text.trim()).expect("hex"));
    }
    for entry in std::fs::read_dir(root.join("packet_path")).expect("the cases") {
        let text = std::fs::read_to_string(entry.expect("an entry").path()).expect("cases");
        let frames = text.lines().filter_map(|line| line.strip_prefix("  in "));
        seeds.extend(frames.map(|hex| from_hex(hex).expect("hex")));
    }
    assert!(seeds.len() > 100, "only {} seeds", seeds.len());
    seeds
}

fn pick(random: &mut StdRng, seeds: &[Vec<u8>]) -> Vec<u8> {
    seeds[random.random_range(0..seeds.len())].clone()
}

/// A seed with a few bytes changed, cut, repeated or spliced with another; the IPv4 header
/// checksum is usually made right again, so that the change gets past it.
fn mutate(random: &mut StdRng, seeds: &[Vec<u8>]) -> Vec<u8> {
    const INTERESTING: [u8; 8] = [0, 1, 0x7f, 0x80, 0xff, 0x45, 0x60, 0x06];
    let mut frame = pick(random, seeds);
    for _ in 0..random.random_range(1..6) {
        if frame.is_empty() {
            frame.push(random.random());
        }
        let at = random.random_range(0..frame.len());
        match random.random_range(0..6) {
            0 => frame[at] ^= 1 << random.random_range(0..8),
            1 => frame[at] = random.random(),
            2 => frame[at] = INTERESTING[random.random_range(0..INTERESTING.len())],
            3 => frame.truncate(at),
            4 => frame.insert(at, random.random()),
            _ => {
                let other = pick(random, seeds);
                frame.truncate(at);
                frame.extend(other.iter().skip(at));
            }
        }
    }
    if random.random_bool(0.8) {
        fix_header(&mut frame);
    }
    frame
}

/// Make the IPv4 header checksum right, if there is one.
fn fix_header(frame: &mut [u8]) {
    if frame.len() >= 34 && frame[12..14] == [0x08, 0x00] {
        let length = (usize::from(frame[14] & 0x0f) * 4).clamp(20, frame.len() - 14);
        frame[24..26].fill(0);
        let value = dunlin::packet::checksum::checksum(&frame[14..14 + length]);
        frame[24..26].copy_from_slice(&value.to_ne_bytes());
    }
}

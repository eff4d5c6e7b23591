//! The packet path alone, for counting instructions: forwards bursts of 32 frames of established
//! flows and prints how many frames that were.
//!
//! ```text
//! cargo build --release --no-default-features --example packet_path
//! valgrind --tool=callgrind --callgrind-out-file=/dev/null \
//!     target/release/examples/packet_path udp4 1000 100000
//! valgrind --tool=callgrind --callgrind-out-file=/dev/null \
//!     target/release/examples/packet_path udp4 1000 300000
//! ```
//!
//! Arguments: `udp4`, `tcp4`, `udp6` or `tcp6`; flows; frames. The difference of the two totals
//! ("Collected"), divided by the difference of frames, is instructions per packet: making the
//! flows and the start of the process cancel out. Resetting a frame between two uses costs 54 bytes
//! of copying, which is in the figure (about 15 instructions).

#[path = "../tests/support/mod.rs"]
mod support;

use dunlin::forward::{Origin, Verdict};
use support::{OUTER, established};

const BURST: usize = 32;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let number = |at: usize, default| {
        let argument = arguments.get(at).map(|text| text.parse::<usize>());
        argument.map_or(default, |number| number.expect("a number"))
    };
    let kind = arguments.get(1).map_or("udp4", String::as_str);
    let (flows, frames) = (number(2, 1000), number(3, 100_000));
    let (mut bench, sent) = established(kind, flows);
    let mut burst = sent[..BURST.min(flows)].to_vec();
    let mut done = 0;
    let mut at = 0;
    while done < frames {
        for frame in &mut burst {
            frame.copy_from_slice(&sent[at]);
            at = (at + 1) % sent.len();
        }
        let verdicts = bench.burst(OUTER, Origin::Port, &mut burst);
        let sent = |verdict: &Verdict| matches!(verdict, Verdict::Transmit { .. });
        assert!(verdicts.iter().all(sent), "{verdicts:?}");
        done += verdicts.len();
    }
    println!(
        "{kind}: {done} frames over {flows} flows, {} bytes per flow at capacity",
        bench.engine.flow_memory() / bench.capacity as usize
    );
}

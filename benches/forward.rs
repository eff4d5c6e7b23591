//! The packet path without hardware: time per packet of established flows, new flows per second,
//! bytes per flow; and each stage alone.
//!
//! `cargo bench --no-default-features --bench forward`. Each figure is for one burst of 32 frames,
//! flows in random order; `thrpt` is frames per second. Instructions per packet: see
//! `examples/packet_path.rs`.

#[path = "../tests/support/mod.rs"]
mod support;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use dunlin::forward::Origin;
use dunlin::forward::stages::Stages;
use dunlin::forward::tables::ServiceId;
use support::{OUTER, established, first_frames, plain};

const BURST: usize = 32;

/// A full-period walk over `count` items in an order that no prefetcher guesses.
struct Shuffled {
    at: usize,
    step: usize,
    count: usize,
}

impl Iterator for Shuffled {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        self.at = (self.at + self.step) % self.count;
        Some(self.at)
    }
}

fn shuffled(count: usize) -> Shuffled {
    const PRIME: usize = 15_485_863;
    Shuffled { at: 0, step: PRIME % count, count }
}

fn known_flows(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("established");
    group.throughput(Throughput::Elements(BURST as u64));
    let sizes = [(1_000, "1k"), (64_000, "64k"), (1_000_000, "1M")];
    for kind in ["udp4", "tcp4", "udp6"] {
        for (flows, name) in sizes {
            let (mut bench, sent) = established(kind, flows);
            let each = bench.engine.flow_memory() / bench.capacity as usize;
            println!("{kind}, {flows} flows: {each} bytes per flow at capacity");
            let mut order = shuffled(flows);
            let mut burst = sent[..BURST].to_vec();
            group.bench_function(format!("{kind}/{name}"), |bencher| {
                bencher.iter(|| {
                    for frame in &mut burst {
                        if let Some(at) = order.next() {
                            frame.copy_from_slice(&sent[at]);
                        }
                    }
                    bench.burst(OUTER, Origin::Port, &mut burst).len()
                });
            });
        }
    }
}

fn new_flows(criterion: &mut Criterion) {
    const FLOWS: usize = 10_000;
    let mut group = criterion.benchmark_group("new");
    group.sample_size(20);
    group.throughput(Throughput::Elements(FLOWS as u64));
    for kind in ["udp4", "tcp4", "udp6"] {
        let sent = first_frames(kind, FLOWS);
        group.bench_function(kind, |bencher| {
            bencher.iter_batched(
                || (support::Bench::new(plain(), FLOWS as u32), sent.clone()),
                |(mut bench, mut frames)| {
                    for burst in frames.chunks_mut(BURST) {
                        bench.burst(OUTER, Origin::Port, burst);
                    }
                    assert_eq!(bench.engine.flow_count() as usize, FLOWS);
                    (bench, frames)
                },
                BatchSize::LargeInput,
            );
        });
    }
}

/// Of packets of 1000 established flows, and what a new one needs besides.
fn stages(criterion: &mut Criterion) {
    const FLOWS: usize = 1000;
    let mut group = criterion.benchmark_group("stage");
    group.throughput(Throughput::Elements(BURST as u64));
    for kind in ["udp4", "tcp4", "udp6"] {
        let (mut bench, sent) = established(kind, FLOWS);
        let mut stages = Stages::new(&mut bench.engine, &bench.tables, bench.now, OUTER);
        let fresh = &sent[..BURST];
        group.bench_function(format!("parse/{kind}"), |bencher| {
            bencher.iter(|| stages.parse(fresh));
        });
        group.bench_function(format!("look up/{kind}"), |bencher| {
            bencher.iter(|| stages.look_up(BURST));
        });
        let mut burst = fresh.to_vec();
        group.bench_function(format!("rewrite, with resetting the frames/{kind}"), |bencher| {
            bencher.iter(|| {
                for (frame, fresh) in burst.iter_mut().zip(fresh) {
                    frame.copy_from_slice(fresh);
                }
                assert_eq!(stages.translate(&mut burst), BURST);
            });
        });
    }
    let mut bench = support::Bench::new(plain(), FLOWS as u32);
    bench.engine.set_tables(&bench.tables);
    let frames = first_frames("udp4", BURST);
    let mut stages = Stages::new(&mut bench.engine, &bench.tables, bench.now, OUTER);
    for (name, with_port) in [("schedule", false), ("schedule and local port", true)] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                for frame in &frames {
                    stages.choose(frame, ServiceId(1), with_port).expect("a backend");
                }
            });
        });
    }
}

criterion_group!(benches, stages, known_flows, new_flows);
criterion_main!(benches);

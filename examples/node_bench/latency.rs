//! The latency that forwarding adds at half load.
//!
//! A generator on one CPU sends stamped frames through a pair of rings to the worker on another and
//! takes them back. First it sends as fast as it can: what comes through is full load. Then it
//! sends half as many, evenly, and notes how long each frame was away. The same frames at the same
//! rate through a loop that only passes bursts on say what of that is the transport's.

use crate::capture::{self, Family, Proto};
use crate::node::{self, Handle};
use crate::pin;
use anyhow::{Context, Result, ensure};
use dunlin::forward::Now;
use dunlin::forward::tables::Timeouts;
use dunlin::packet::Frame;
use dunlin::port::{BURST, Burst, Queue};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const FLOWS: u32 = 1000;
/// Frames a ring holds.
const RING: usize = 4096;
const LENGTH: usize = 64;
/// After the UDP header.
const STAMP_AT: usize = 42;
/// Longest latency told apart, in steps of [`STEP_NS`]; longer ones count as this.
const STEPS: usize = 1 << 20;
const STEP_NS: u64 = 16;

#[derive(Debug, Clone)]
struct Stamped(Box<[u8; LENGTH]>);

impl Frame for Stamped {
    #[inline(always)]
    fn data(&self) -> &[u8] {
        &self.0[..]
    }

    #[inline(always)]
    fn data_mut(&mut self) -> &mut [u8] {
        &mut self.0[..]
    }
}

/// One end of the pair of rings.
struct End {
    receive: rtrb::Consumer<Stamped>,
    send: rtrb::Producer<Stamped>,
}

fn ends() -> [End; 2] {
    let (there, arrived) = rtrb::RingBuffer::new(RING);
    let (back, returned) = rtrb::RingBuffer::new(RING);
    [End { receive: returned, send: there }, End { receive: arrived, send: back }]
}

impl Queue for End {
    type Frame = Stamped;

    fn rx_burst(&mut self, burst: &mut Burst<Stamped>) -> usize {
        let count = self.receive.slots().min(BURST - burst.len());
        let Ok(chunk) = self.receive.read_chunk(count) else { return 0 };
        burst.extend(chunk);
        count
    }

    fn tx_burst(&mut self, burst: &mut Burst<Stamped>) -> usize {
        let count = self.send.slots().min(burst.len());
        let Ok(chunk) = self.send.write_chunk_uninit(count) else { return 0 };
        chunk.fill_from_iter(burst.drain(..count))
    }
}

pub fn measure(seconds: u64, core: usize, main_core: usize) -> Result<serde_json::Value> {
    pin(main_core)?;
    let time = Duration::from_secs(seconds);
    let [full, _] = with_worker(core, |end| Ok([flood(end, time), 0.0]))?;
    let half = full / 2.0;
    let worker = with_worker(core, |end| paced(end, half, time))?;
    let bare = with_loop(core, |end| paced(end, half, time))?;
    Ok(serde_json::json!({
        "what": "latency",
        "full_load_mpps": full * 1e3,
        "load_mpps": half * 1e3,
        "percentiles": [50, 99, 99.9],
        "worker_ns": worker,
        "bare_ns": bare,
    }))
}

/// Run `generate` against the node's worker.
fn with_worker<T>(core: usize, generate: impl FnOnce(&mut Generator) -> Result<T>) -> Result<T> {
    let handle = Handle::new(Family::V4, Timeouts::default())?;
    let [near, far] = ends();
    let on_worker = handle.clone();
    let start = Instant::now();
    let worker = thread::spawn(move || -> Result<()> {
        pin(core)?;
        let now = || Now(1_000_000_000 + start.elapsed().as_nanos() as u64);
        let mut engine = on_worker.engine(0, 4 * FLOWS);
        let tables = on_worker.published.load();
        node::establish(&mut engine, &tables, now(), (Family::V4, Proto::Udp), 0..FLOWS)?;
        on_worker.node(engine, far)?.worker.run(now);
        Ok(())
    });
    let outcome = generate(&mut Generator::new(near));
    handle.shared[0].stop.store(true, Ordering::Relaxed);
    worker.join().map_err(|_| anyhow::anyhow!("the worker panicked"))??;
    ensure!(handle.shared[0].stats.dropped() == 0, "packets were dropped");
    outcome
}

/// Run `generate` against a loop that only passes bursts on.
fn with_loop<T>(core: usize, generate: impl FnOnce(&mut Generator) -> Result<T>) -> Result<T> {
    let [near, mut far] = ends();
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let passing = thread::spawn(move || -> Result<()> {
        pin(core)?;
        let mut burst = Burst::new();
        while !stopped.load(Ordering::Relaxed) {
            far.rx_burst(&mut burst);
            while !burst.is_empty() && !stopped.load(Ordering::Relaxed) {
                far.tx_burst(&mut burst);
            }
        }
        Ok(())
    });
    let outcome = generate(&mut Generator::new(near));
    stop.store(true, Ordering::Relaxed);
    passing.join().map_err(|_| anyhow::anyhow!("the loop panicked"))??;
    outcome
}

struct Generator {
    end: End,
    templates: Vec<[u8; LENGTH]>,
    next: usize,
    /// Frames to send; there are as many as one ring holds, so neither ring can be full.
    spare: Vec<Stamped>,
    burst: Burst<Stamped>,
    start: Instant,
}

impl Generator {
    fn new(end: End) -> Self {
        let template = |flow| {
            let mut bytes = capture::frame(flow, Family::V4, Proto::Udp, 0);
            // The stamp is payload.
            bytes[16..18].copy_from_slice(&(LENGTH as u16 - 14).to_be_bytes());
            bytes[24..26].fill(0);
            let sum = dunlin::packet::checksum::checksum(&bytes[14..34]);
            bytes[24..26].copy_from_slice(&sum.to_ne_bytes());
            bytes[38..40].copy_from_slice(&(LENGTH as u16 - 34).to_be_bytes());
            bytes[40..42].fill(0);
            let mut whole = [0; LENGTH];
            whole[..bytes.len()].copy_from_slice(&bytes);
            whole
        };
        let templates: Vec<[u8; LENGTH]> = (0..FLOWS).map(template).collect();
        let spare = (0..RING).map(|_| Stamped(Box::new([0; LENGTH]))).collect();
        Self { end, templates, next: 0, spare, burst: Burst::new(), start: Instant::now() }
    }

    fn send(&mut self, now_ns: u64) -> bool {
        let Some(mut frame) = self.spare.pop() else { return false };
        *frame.0 = self.templates[self.next];
        self.next = (self.next + 1) % self.templates.len();
        frame.0[STAMP_AT..STAMP_AT + 8].copy_from_slice(&now_ns.to_ne_bytes());
        self.end.send.push(frame).is_ok()
    }

    fn now_ns(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }

    /// Take back what has returned; tells when each frame was sent. Returns how many.
    fn take_back(&mut self, mut sent_at: impl FnMut(u64)) -> u64 {
        let count = self.end.rx_burst(&mut self.burst) as u64;
        for frame in self.burst.drain(..) {
            let stamp = frame.0[STAMP_AT..].first_chunk().map_or(0, |s| u64::from_ne_bytes(*s));
            sent_at(stamp);
            self.spare.push(frame);
        }
        count
    }
}

/// As fast as it goes. Frames a nanosecond that came through.
fn flood(generator: &mut Generator, time: Duration) -> f64 {
    let mut returned = 0;
    let start = Instant::now();
    while start.elapsed() < time {
        for _ in 0..BURST {
            generator.send(0);
        }
        returned += generator.take_back(|_| ());
    }
    returned as f64 / start.elapsed().as_nanos() as f64
}

/// So many frames a nanosecond, evenly. The percentiles 50, 99 and 99.9 of the time that they were
/// away, nanoseconds.
fn paced(generator: &mut Generator, rate: f64, time: Duration) -> Result<[f64; 3]> {
    let mut histogram = vec![0u64; STEPS];
    let (begin, length) = (generator.now_ns(), time.as_nanos() as u64);
    // The first tenth warms up.
    let counted_from = begin + length / 10;
    let mut sent = 0;
    loop {
        let now = generator.now_ns();
        let due = ((now - begin) as f64 * rate) as u64;
        if now - begin < length && sent < due {
            if !generator.send(now) {
                // Nothing is left to send with: the other side was away. What is late stays unsent.
                sent = due;
            }
            sent += 1;
        }
        let now = generator.now_ns();
        generator.take_back(|stamp| {
            if stamp >= counted_from {
                let step = (now.saturating_sub(stamp) / STEP_NS) as usize;
                histogram[step.min(STEPS - 1)] += 1;
            }
        });
        if now - begin >= length && generator.spare.len() == RING {
            break;
        }
        ensure!(now - begin < 2 * length + 1_000_000_000, "frames did not come back");
    }
    let total: u64 = histogram.iter().sum();
    let percentile = |share: f64| {
        let rank = (total as f64 * share).ceil() as u64;
        let mut below = 0;
        let step = histogram.iter().position(|&count| {
            below += count;
            below >= rank
        });
        step.map(|step| (step as u64 * STEP_NS) as f64).context("no frames")
    };
    Ok([percentile(0.5)?, percentile(0.99)?, percentile(0.999)?])
}

//! Two workers that forward established flows, turn by turn, for a reader of a memory trace: which
//! cache lines does one write that the other uses?
//!
//! Each worker has a thread, a queue and flows of its own, so also a stack; all else they share as
//! in the node. Before and after each turn a mark is written whose address is printed first, and
//! between the marks of a turn nothing runs but the loop: so every access of the trace has an owner.

use crate::capture::{Family, Proto, frame};
use crate::life::Bytes;
use crate::node::{self, Handle};
use anyhow::{Context, Result, ensure};
use dunlin::forward::Now;
use dunlin::forward::tables::Timeouts;
use dunlin::port::{BURST, Burst, Queue};
use dunlin::worker::Rings;
use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;

const FLOWS: u32 = 64;
const RECEIVE: usize = 32;
const WARM_UP: u32 = 4;
const WORKERS: u16 = 2;

/// By worker: written when its turn begins; the last: when a turn ends. Apart from all else.
#[repr(align(128))]
struct Marks([AtomicU64; WORKERS as usize + 1]);
static MARKS: Marks = Marks([const { AtomicU64::new(0) }; WORKERS as usize + 1]);

/// Replays frames for ever and frees nothing.
struct Replay {
    frames: Vec<Bytes>,
    waiting: Vec<Bytes>,
    next: usize,
}

impl Queue for Replay {
    type Frame = Bytes;

    fn rx_burst(&mut self, burst: &mut Burst<Bytes>) -> usize {
        let before = burst.len();
        while burst.len() < BURST && burst.len() - before < RECEIVE {
            let Some(mut frame) = self.waiting.pop() else { break };
            *frame.0 = *self.frames[self.next].0;
            self.next = (self.next + 1) % self.frames.len();
            burst.push(frame);
        }
        burst.len() - before
    }

    fn tx_burst(&mut self, burst: &mut Burst<Bytes>) -> usize {
        let count = burst.len();
        self.waiting.extend(burst.drain(..));
        count
    }
}

/// Prints the addresses of the marks, waits for a line, runs.
pub fn run(turns: u32) -> Result<serde_json::Value> {
    let marks: Vec<usize> = MARKS.0.iter().map(|mark| std::ptr::from_ref(mark) as usize).collect();
    println!("{}", serde_json::json!({ "marks": marks }));
    std::io::stdout().flush()?;
    std::io::stdin().read_line(&mut String::new()).context("standard input")?;

    let handle = Handle::with(Family::V4, Timeouts::default(), node::BACKENDS, WORKERS)?;
    let barrier = Arc::new(Barrier::new(usize::from(WORKERS)));
    let threads: Vec<_> = Rings::mesh(WORKERS)
        .into_iter()
        .enumerate()
        .map(|(id, rings)| {
            let (handle, barrier) = (handle.clone(), Arc::clone(&barrier));
            thread::spawn(move || one(id as u16, &handle, rings, turns, &barrier))
        })
        .collect();
    let mut packets = 0;
    for thread in threads {
        packets += thread.join().map_err(|_| anyhow::anyhow!("a worker panicked"))??;
    }
    let handed_over: u64 =
        handle.shared.iter().map(|shared| shared.stats.handed_over.packets.get()).sum();
    ensure!(handed_over == 0, "{handed_over} packets were handed over");
    Ok(
        serde_json::json!({ "what": "sharing", "packets": packets, "turns": turns * u32::from(WORKERS) }),
    )
}

/// One worker. Returns how many packets it forwarded between marks.
fn one(
    id: u16,
    handle: &Handle,
    rings: Rings<Bytes>,
    turns: u32,
    barrier: &Barrier,
) -> Result<u64> {
    let mut now = Now(1_000_000_000);
    let mut engine = handle.engine(id, 1024);
    let flows = u32::from(id) * FLOWS..u32::from(id + 1) * FLOWS;
    let tables = handle.published.load();
    node::establish(&mut engine, &tables, now, (Family::V4, Proto::Udp), flows.clone())?;
    let bytes = |flow| {
        let mut bytes = Box::new([0; 60]);
        bytes.copy_from_slice(&frame(flow, Family::V4, Proto::Udp, 0));
        Bytes(bytes)
    };
    let frames: Vec<Bytes> = flows.map(bytes).collect();
    let queue = Replay { waiting: frames.clone(), frames, next: 0 };
    let mut node = handle.worker(id, engine, queue, rings);
    let stats = &handle.shared[usize::from(id)].stats;
    let mut before = 0;
    for turn in 0..WARM_UP + turns {
        if turn == WARM_UP {
            before = stats.transmitted.packets.get();
        }
        for whose in 0..WORKERS {
            barrier.wait();
            if whose == id {
                now.0 += 1000;
                let marked = turn >= WARM_UP;
                if marked {
                    MARKS.0[usize::from(id)].store(u64::from(turn), Ordering::SeqCst);
                }
                node.worker.turn(now);
                if marked {
                    MARKS.0[usize::from(WORKERS)].store(u64::from(turn), Ordering::SeqCst);
                }
            }
        }
    }
    Ok(stats.transmitted.packets.get() - before)
}

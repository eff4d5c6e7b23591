//! Two workers that forward established flows, turn by turn, for a reader of a memory trace: which
//! cache lines does one write that the other uses?
//!
//! One thread turns both, so that nothing else can run meanwhile; each has a queue and flows of its
//! own, all else they share as in the node. Before and after each turn a mark is written whose
//! address is printed first, so every access of the trace has an owner. The thread's stack is printed
//! too: in the node each worker has its own.

use crate::capture::{Family, Proto, frame};
use crate::node::{self, Handle, Node};
use anyhow::{Context, Result, ensure};
use dunlin::forward::Now;
use dunlin::forward::tables::Timeouts;
use dunlin::packet::Frame;
use dunlin::port::{BURST, Burst, Queue};
use dunlin::worker::Rings;
use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

const FLOWS: u32 = 64;
const RECEIVE: usize = 32;
const WARM_UP: u32 = 4;
const WORKERS: u16 = 2;

/// By worker: written when its turn begins; the last: when a turn ends. Apart from all else.
#[repr(align(128))]
struct Marks([AtomicU64; WORKERS as usize + 1]);
static MARKS: Marks = Marks([const { AtomicU64::new(0) }; WORKERS as usize + 1]);

/// A packet buffer, in lines of its own as those of DPDK are.
#[derive(Debug, Clone)]
#[repr(align(64))]
struct Buffer([u8; 60]);

#[derive(Debug, Clone)]
struct Packet(Box<Buffer>);

impl Frame for Packet {
    fn data(&self) -> &[u8] {
        &self.0.0
    }

    fn data_mut(&mut self) -> &mut [u8] {
        &mut self.0.0
    }
}

/// Replays frames for ever and frees nothing.
struct Replay {
    frames: Vec<Packet>,
    waiting: Vec<Packet>,
    next: usize,
}

impl Queue for Replay {
    type Frame = Packet;

    fn rx_burst(&mut self, burst: &mut Burst<Packet>) -> usize {
        let before = burst.len();
        while burst.len() < BURST && burst.len() - before < RECEIVE {
            let Some(mut frame) = self.waiting.pop() else { break };
            frame.0.0 = self.frames[self.next].0.0;
            self.next = (self.next + 1) % self.frames.len();
            burst.push(frame);
        }
        burst.len() - before
    }

    fn tx_burst(&mut self, burst: &mut Burst<Packet>) -> usize {
        let count = burst.len();
        self.waiting.extend(burst.drain(..));
        count
    }
}

/// Frames of the loop and of what it calls lie in so many bytes of stack, bytes.
const STACK: usize = 256 * 1024;

/// Prints the addresses of the marks and the stack, waits for a line, runs.
pub fn run(turns: u32) -> Result<serde_json::Value> {
    // A thread of its own, because its stack has a known size.
    let thread = thread::Builder::new().stack_size(4 * STACK).spawn(move || take_turns(turns))?;
    thread.join().map_err(|_| anyhow::anyhow!("a worker panicked"))?
}

fn take_turns(turns: u32) -> Result<serde_json::Value> {
    let here = 0u8;
    let top = std::ptr::from_ref(&here) as usize;
    let marks: Vec<usize> = MARKS.0.iter().map(|mark| std::ptr::from_ref(mark) as usize).collect();
    println!("{}", serde_json::json!({ "marks": marks, "stack": [top - STACK, top] }));
    std::io::stdout().flush()?;
    std::io::stdin().read_line(&mut String::new()).context("standard input")?;

    let handle = Handle::with(Family::V4, Timeouts::default(), node::BACKENDS, WORKERS)?;
    // On the heap: on the stack is only what a turn needs.
    let mut workers: Vec<_> = (0..WORKERS)
        .zip(Rings::mesh(WORKERS))
        .map(|(id, rings)| one(id, &handle, rings).map(Box::new))
        .collect::<Result<_>>()?;
    let transmitted = || -> u64 {
        handle.shared.iter().map(|shared| shared.stats.transmitted.packets.get()).sum()
    };
    let mut now = Now(1_000_000_000);
    let mut before = 0;
    for turn in 0..WARM_UP + turns {
        if turn == WARM_UP {
            before = transmitted();
        }
        for (node, mark) in workers.iter_mut().zip(&MARKS.0) {
            now.0 += 1000;
            let marked = turn >= WARM_UP;
            if marked {
                mark.store(u64::from(turn), Ordering::SeqCst);
            }
            node.worker.turn(now);
            if marked {
                MARKS.0[usize::from(WORKERS)].store(u64::from(turn), Ordering::SeqCst);
            }
        }
    }
    let handed_over: u64 =
        handle.shared.iter().map(|shared| shared.stats.handed_over.packets.get()).sum();
    ensure!(handed_over == 0, "{handed_over} packets were handed over");
    Ok(serde_json::json!({
        "what": "sharing",
        "packets": transmitted() - before,
        "turns": turns * u32::from(WORKERS),
    }))
}

/// A worker with flows of its own.
fn one(id: u16, handle: &Handle, rings: Rings<Packet>) -> Result<Node<Replay>> {
    let mut engine = handle.engine(id, 1024);
    let flows = u32::from(id) * FLOWS..u32::from(id + 1) * FLOWS;
    let (tables, kind) = (handle.published.load(), (Family::V4, Proto::Udp));
    node::establish(&mut engine, &tables, Now(1_000_000_000), kind, flows.clone())?;
    let bytes = |flow| {
        let mut bytes = [0; 60];
        bytes.copy_from_slice(&frame(flow, Family::V4, Proto::Udp, 0));
        Packet(Box::new(Buffer(bytes)))
    };
    let frames: Vec<Packet> = flows.map(bytes).collect();
    let queue = Replay { waiting: frames.clone(), frames, next: 0 };
    Ok(handle.worker(id, engine, queue, rings))
}

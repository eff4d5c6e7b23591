//! Two ways of running compared in one run, turn by turn in slices of milliseconds: all workers with
//! each alone, or tables that change with tables that do not.
//!
//! On a shared machine a CPU is at times half as fast as a moment before, for seconds, whatever runs on
//! it. Measurements of a second each, one after the other, compare such moments; neighbouring slices
//! meet the same one. At other times two of its CPUs are really one: then a loop that needs nothing but
//! registers does not run twice as often on two of them either. Such comparisons are left out, and counted.

use crate::node::Handle;
use crate::{Args, Measured, drops};
use anyhow::{Context, Result, ensure};
use dunlin::forward::Now;
use dunlin::port::Queue;
use dunlin::worker::{Shared, Worker};
use nix::time::{ClockId, clock_gettime};
use std::hint::black_box;
use std::ops::Range;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

/// Long to what waking a thread costs.
const SLICE: Duration = Duration::from_millis(30);
/// For caches, and for every flow to be seen.
const WARM_UP: Duration = Duration::from_millis(500);

/// Of the loop in registers.
const CONTROL: Duration = Duration::from_millis(10);
/// Two CPUs are two if that loop runs so much more often on both.
const TWO: f64 = 1.95;

/// What to do in a slice.
#[derive(Debug, Clone, Copy)]
enum Task {
    Forward,
    Registers,
}

/// What one worker did in a slice.
struct Slice {
    received: u64,
    sent: u64,
    cpu_ns: u64,
    wall_ns: u64,
}

/// The end of the channels that says when to run.
pub struct Orders {
    go: Vec<SyncSender<Task>>,
    done: Receiver<Slice>,
}

/// A worker's end.
pub struct Obeys {
    go: Receiver<Task>,
    done: SyncSender<Slice>,
}

pub fn channels(workers: u16) -> (Orders, Vec<Obeys>) {
    let (sender, done) = sync_channel(usize::from(workers));
    let pair = |_| {
        let (go, receiver) = sync_channel(1);
        (go, Obeys { go: receiver, done: sender.clone() })
    };
    let (go, ends) = (0..workers).map(pair).unzip();
    (Orders { go, done }, ends)
}

/// The worker's side: run when told, until stopped, and say how it went.
pub fn obey<Q: Queue>(
    worker: &mut Worker<Q>,
    shared: &Shared,
    clock: impl Fn() -> Now,
    orders: &Obeys,
) -> Result<Measured> {
    let stats = &shared.stats;
    while let Ok(task) = orders.go.recv() {
        let (received, sent) = (stats.received.packets.get(), stats.transmitted.packets.get());
        let (cpu, begin) = (cpu_time()?, Instant::now());
        let rounds = match task {
            Task::Forward => {
                worker.run(&clock);
                0
            }
            Task::Registers => registers(shared),
        };
        let slice = Slice {
            cpu_ns: cpu_time()?.saturating_sub(cpu).as_nanos() as u64,
            wall_ns: begin.elapsed().as_nanos() as u64,
            received: stats.received.packets.get() - received + rounds,
            sent: stats.transmitted.packets.get() - sent + rounds,
        };
        orders.done.send(slice).context("nobody counts the slices")?;
    }
    let drops = drops(stats);
    ensure!(drops.is_empty(), "packets were dropped: {drops:?}");
    Ok(Measured::default())
}

/// Arithmetic until stopped: how many rounds.
fn registers(shared: &Shared) -> u64 {
    let (mut rounds, mut state) = (0, 1u64);
    while !shared.stop.load(Ordering::Relaxed) {
        for _ in 0..64 {
            state = black_box(state.wrapping_mul(0x5851_f42d_4c95_7f2d).rotate_left(7) ^ rounds);
        }
        rounds += 1;
    }
    rounds
}

/// CPU time of this thread; its schedstat is only brought up to date at ticks.
fn cpu_time() -> Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?.into())
}

/// Packets per nanosecond, all workers of a slice together.
#[derive(Debug, Clone, Copy)]
struct Speed {
    by_cpu: f64,
    by_clock: f64,
}

impl Speed {
    fn to(self, one: Self, other: Self) -> Self {
        Self {
            by_cpu: self.by_cpu / f64::midpoint(one.by_cpu, other.by_cpu),
            by_clock: self.by_clock / f64::midpoint(one.by_clock, other.by_clock),
        }
    }
}

/// The other side: has the slices run, and prints what they say.
pub fn compare(args: &Args, mut handle: Handle, orders: &Orders) -> Result<()> {
    let workers = usize::from(args.workers);
    let changing = args.changes_per_second > 0;
    ensure!(
        changing || workers == 2,
        "--slices compares two workers with one, or changes with none"
    );
    slice(&handle, orders, 0..workers, WARM_UP)?;
    let begin = Instant::now();
    let (mut ratios, mut left_out) = (Vec::new(), 0);
    while begin.elapsed() < Duration::from_secs(args.seconds) {
        if changing {
            let before = slice(&handle, orders, 0..workers, SLICE)?;
            let meanwhile = changes(args, &mut handle, orders)?;
            ratios.push(meanwhile.to(before, slice(&handle, orders, 0..workers, SLICE)?));
        } else if !two_cpus(&handle, orders)? {
            left_out += 1;
        } else {
            let one = slice(&handle, orders, 0..1, SLICE)?;
            let all = slice(&handle, orders, 0..2, SLICE)?;
            let ratio = all.to(one, slice(&handle, orders, 1..2, SLICE)?);
            // They were two before; were they afterwards?
            match two_cpus(&handle, orders)? {
                true => ratios.push(ratio),
                false => left_out += 1,
            }
        }
    }
    println!(
        "{}",
        serde_json::json!({
            "what": "dunlin-slices",
            "flows": args.flows,
            "workers": args.workers,
            "changes_per_second": args.changes_per_second,
            "comparisons": ratios.len(),
            "left_out": left_out,
            "by_cpu": quartiles(ratios.iter().map(|speed| speed.by_cpu)),
            "by_clock": quartiles(ratios.iter().map(|speed| speed.by_clock)),
        })
    );
    Ok(())
}

/// Whether the machine gives two CPUs just now.
fn two_cpus(handle: &Handle, orders: &Orders) -> Result<bool> {
    let run = |workers| run(handle, orders, (Task::Registers, workers), CONTROL);
    let (one, both, other) = (run(0..1)?, run(0..2)?, run(1..2)?);
    Ok(both.to(one, other).by_clock >= TWO)
}

/// Let these workers forward for so long.
fn slice(handle: &Handle, orders: &Orders, workers: Range<usize>, time: Duration) -> Result<Speed> {
    run(handle, orders, (Task::Forward, workers), time)
}

fn run(
    handle: &Handle,
    orders: &Orders,
    what: (Task, Range<usize>),
    time: Duration,
) -> Result<Speed> {
    during(handle, orders, what, || {
        thread::sleep(time);
        Ok(())
    })
}

/// A slice in which new tables are published at the rate asked for.
fn changes(args: &Args, handle: &mut Handle, orders: &Orders) -> Result<Speed> {
    let running = handle.clone();
    during(&running, orders, (Task::Forward, 0..usize::from(args.workers)), || {
        let (begin, rate) = (Instant::now(), args.changes_per_second);
        let all = (SLICE.as_secs_f64() * f64::from(rate)) as u32;
        for change in 1..=all {
            handle.change()?;
            let due = Duration::from_secs(1) * change / rate;
            thread::sleep(due.saturating_sub(begin.elapsed()));
        }
        // Otherwise there were fewer a second than the figure says.
        ensure!(begin.elapsed() < 2 * SLICE, "{all} changes took {:?}", begin.elapsed());
        Ok(())
    })
}

fn during(
    handle: &Handle,
    orders: &Orders,
    (task, workers): (Task, Range<usize>),
    act: impl FnOnce() -> Result<()>,
) -> Result<Speed> {
    let chosen = &handle.shared[workers.clone()];
    for (shared, go) in chosen.iter().zip(&orders.go[workers]) {
        shared.stop.store(false, Ordering::Relaxed);
        go.send(task).context("a worker is gone")?;
    }
    let acted = act();
    for shared in chosen {
        shared.stop.store(true, Ordering::Relaxed);
    }
    let mut speed = Speed { by_cpu: 0.0, by_clock: 0.0 };
    for _ in chosen {
        let slice =
            orders.done.recv_timeout(Duration::from_secs(10)).context("a worker is gone")?;
        let Slice { received, sent, cpu_ns, wall_ns } = slice;
        ensure!(received > 0 && cpu_ns > 0, "nothing was forwarded");
        ensure!(100 * sent >= 99 * received, "{sent} of {received} sent: this measures dropping");
        speed.by_cpu += received as f64 / cpu_ns as f64;
        speed.by_clock += received as f64 / wall_ns as f64;
    }
    acted.map(|()| speed)
}

/// The first, the median, the third; nothing of nothing.
fn quartiles(values: impl Iterator<Item = f64>) -> [Option<f64>; 3] {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    [1, 2, 3].map(|quarter| sorted.get(sorted.len() * quarter / 4).copied())
}

//! How many packets one worker forwards per second of CPU time, in process and without a NIC.
//!
//! Runs the node's own loop, [`dunlin::worker::Worker`], with 8 backends, 8 LIPs and a flow table
//! of the default size. Source and sink are DPDK's pcap driver: `infinite_rx=1` replays a capture
//! this program writes, one packet of each flow, and with no output file what is sent is freed.
//! The flows are established first. Packets are counted against the CPU time of the worker's
//! thread (`schedstat`), so other load on the machine hardly matters. `--reference` measures
//! `dpdk-testpmd --forward-mode=5tswap` on the same capture in the same way; only the ratio of the
//! two means something beyond this machine. A run that drops anything fails.
//!
//! `--life` measures whole connections instead, over a queue that plays clients and backends;
//! `--workers 2` as many workers with a queue each; `--memif` both directions, through shared
//! memory, between this process, which plays clients and backends, and another, which forwards.
//! `--slices` compares one worker with all, or tables that change with tables that do not, turn by
//! turn within one run, so that a machine whose speed comes and goes does not matter.
//!
//! Needs free hugepages: 360 MiB, and 2.8 GiB for a million flows
//! (`echo 1450 > /proc/sys/vm/nr_hugepages`); `--life` needs none.
//!
//! ```text
//! cargo run --release --example forward_bench -- --flows 1000 --seconds 5
//! cargo run --release --example forward_bench -- --flows 1000 --seconds 5 --reference
//! ```
//! Prints one line of JSON.

#[path = "forward_bench/capture.rs"]
mod capture;
#[path = "forward_bench/life.rs"]
mod life;
#[path = "forward_bench/memif.rs"]
mod memif;
#[path = "forward_bench/mirror.rs"]
mod mirror;
#[path = "forward_bench/node.rs"]
mod node;
#[path = "forward_bench/reference.rs"]
mod reference;
#[path = "forward_bench/slices.rs"]
mod slices;
#[path = "forward_bench/swap.rs"]
mod swap;

use anyhow::{Context, Result, ensure};
use capture::{Family, Proto};
use clap::Parser;
use dunlin::config::model::Device;
use dunlin::forward::tables::Timeouts;
use dunlin::forward::{DropReason, Now, WorkerStats};
use dunlin::port::Queue;
use dunlin::port::dpdk::{
    DpdkPort, DpdkQueue, Eal, EalConfig, Mbuf, Mempool, NodeMemory, PoolConfig, PortConfig,
    TscClock, pin_current_thread,
};
use dunlin::worker::{Rings, Shared, Worker};
use node::Handle;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Callback {
    /// The node's loop.
    Worker,
    /// What testpmd's 5tswap does, in Rust: how much of a packet's time is the port's.
    Swap,
}

#[derive(Debug, Clone, Parser)]
#[command(about = "Packets forwarded per second of CPU time, from memory to memory")]
struct Args {
    /// Flows in the capture: each one packet with a source of its own.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=4_000_000))]
    flows: u32,
    /// How long to measure, after a warm-up of at least two passes over all flows.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Measure this many packets instead: for counting instructions.
    #[arg(long)]
    packets: Option<u64>,
    #[arg(long, value_enum, default_value_t = Family::V4)]
    family: Family,
    #[arg(long, value_enum, default_value_t = Proto::Udp)]
    proto: Proto,
    #[arg(long, value_enum, default_value_t = Callback::Worker)]
    callback: Callback,
    /// Whole lives of TCP connections per second of CPU time.
    #[arg(long, conflicts_with_all = ["reference", "callback"])]
    life: bool,
    /// Both directions through memif, with a reflecting backend.
    #[arg(long, conflicts_with_all = ["life", "callback"])]
    memif: bool,
    /// Forward on the other side of this memif socket, until standard input ends.
    #[arg(long, hide = true)]
    serve: Option<String>,
    /// Workers, each with flows, a queue and a CPU of its own, from `--core` downward.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=16))]
    workers: u16,
    /// Publish new tables so often meanwhile.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=10_000))]
    changes_per_second: u32,
    /// Compare in slices of a few milliseconds, for `--seconds`: all workers with each alone, or
    /// changes with none.
    #[arg(long, conflicts_with_all = ["reference", "callback", "life", "memif", "packets"])]
    slices: bool,
    /// Most flows the worker can have.
    #[arg(long, default_value_t = 1_000_000)]
    max_flows: u32,
    /// CPU of the forwarding thread.
    #[arg(long, default_value_t = 1)]
    core: u16,
    /// CPU of everything else.
    #[arg(long, default_value_t = 0)]
    main_core: u16,
    /// Ordinary memory instead of hugepages, for a machine that has none to spare. Address
    /// translation then costs more than forwarding: such figures compare with nothing.
    #[arg(long)]
    no_hugepages: bool,
    /// Measure dpdk-testpmd instead.
    #[arg(long)]
    reference: bool,
}

impl Args {
    /// Buffers: the driver keeps one per flow, and some are in flight.
    fn mbufs(&self) -> u32 {
        u32::from(self.workers) * (self.flows + 16_384)
    }

    fn memory_mib(&self) -> u32 {
        // A buffer of 2048 + 128 bytes with its header and padding, and the driver's ring; a flow.
        let buffers = u64::from(self.mbufs()) * 2560;
        let flows = u64::from(self.workers) * u64::from(self.max_flows.max(self.flows)) * 128;
        ((buffers + flows) / (1 << 20)) as u32 + 192
    }
}

/// The device that replays the captures for ever, one per queue, and frees what is sent to it.
fn source(captures: &[PathBuf]) -> String {
    let captures = captures.iter().map(|path| format!(",rx_pcap={}", path.display()));
    format!("net_pcap0{},infinite_rx=1", captures.collect::<String>())
}

/// What was counted in the measured time.
#[derive(Debug, Clone, Copy, Default)]
struct Measured {
    received: u64,
    sent: u64,
    /// Received from the start on, warm-up included.
    total: u64,
    cpu_ns: u64,
    wall_ns: u64,
    /// Bytes of memory per flow that the table can hold.
    bytes_per_flow: usize,
    connections: u64,
    /// Sent to the forwarder and never seen again.
    lost: u64,
}

impl Measured {
    fn and(self, other: &Self) -> Self {
        Self {
            received: self.received + other.received,
            sent: self.sent + other.sent,
            total: self.total + other.total,
            cpu_ns: self.cpu_ns + other.cpu_ns,
            wall_ns: self.wall_ns + other.wall_ns,
            bytes_per_flow: self.bytes_per_flow + other.bytes_per_flow,
            connections: self.connections + other.connections,
            lost: self.lost + other.lost,
        }
    }
}

fn main() -> Result<()> {
    let args = Args::parse();
    if let Some(socket) = &args.serve {
        return memif::serve(&args, socket);
    }
    let all = if args.life {
        vec![measure_life(&args)?]
    } else if args.memif {
        vec![memif::measure(&args)?]
    } else {
        with_capture(&args)?
    };
    if args.slices {
        // They have said themselves what they found.
        return Ok(());
    }
    let idle = all.iter().find(|measured| measured.cpu_ns == 0 || measured.received == 0);
    ensure!(idle.is_none(), "nothing was forwarded");
    // What each does in a second, together.
    let sum = |ns: fn(&Measured) -> u64| -> f64 {
        all.iter().map(|measured| measured.received as f64 / ns(measured) as f64).sum()
    };
    let per_cpu_ns = sum(|measured| measured.cpu_ns);
    let per_wall_ns = sum(|measured| measured.wall_ns);
    let measured = all.iter().fold(Measured::default(), Measured::and);
    let what = match (args.reference, args.life, args.callback) {
        (true, ..) => "testpmd-5tswap",
        (_, true, _) => "dunlin-life",
        (.., Callback::Swap) => "swap",
        _ => "dunlin",
    };
    println!(
        "{}",
        serde_json::json!({
            "what": what,
            "flows": args.flows,
            "hugepages": !args.no_hugepages,
            "family": format!("{:?}", args.family).to_lowercase(),
            "proto": format!("{:?}", args.proto).to_lowercase(),
            "workers": args.workers,
            "mpps_per_cpu_second": 1000.0 * per_cpu_ns,
            "mpps": 1000.0 * per_wall_ns,
            "ns_per_packet": 1.0 / per_cpu_ns,
            "lost": measured.lost,
            "ipackets": measured.received,
            "opackets": measured.sent,
            "total_packets": measured.total,
            "cpu_seconds": measured.cpu_ns as f64 / 1e9,
            "bytes_per_flow": all[0].bytes_per_flow,
            "connections_per_cpu_second":
                measured.connections as f64 * 1e9 / measured.cpu_ns as f64,
        })
    );
    Ok(())
}

fn with_capture(args: &Args) -> Result<Vec<Measured>> {
    let dir = std::env::temp_dir().join(format!("dunlin-bench-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    let write = |worker| {
        let path = dir.join(format!("flows{worker}.pcap"));
        capture::write(&path, flows_of(args, worker), args.family, args.proto)?;
        Ok(path)
    };
    let captures: Result<Vec<PathBuf>> = (0..args.workers).map(write).collect();
    let outcome = captures.and_then(|captures| {
        if args.reference {
            Ok(vec![reference::measure(args, &captures)?])
        } else {
            measure(args, &captures)
        }
    });
    std::fs::remove_dir_all(&dir)?;
    outcome
}

fn flows_of(args: &Args, worker: u16) -> Range<u32> {
    let worker = u32::from(worker);
    worker * args.flows..(worker + 1) * args.flows
}

fn measure(args: &Args, captures: &[PathBuf]) -> Result<Vec<Measured>> {
    let eal = Eal::init(&EalConfig {
        file_prefix: format!("dunlin-bench-{}", std::process::id()),
        memory_mib: args.memory_mib(),
        hugepages: !args.no_hugepages,
        main_core: args.main_core,
        ..EalConfig::default()
    })?;
    let pool = Mempool::new(&eal, PoolConfig { mbufs: args.mbufs(), ..PoolConfig::default() })?;
    let device = Device::Vdev(source(captures));
    let config = PortConfig { queues: args.workers, ..PortConfig::new(device) };
    let port = DpdkPort::open(&eal, &config, &[pool])?;
    if args.callback == Callback::Swap {
        let (queue, on_thread) = (port.queue(0)?, args.clone());
        let run = move || {
            pin_current_thread(on_thread.core)?;
            let _registered = eal.register_worker_thread()?;
            swap::run(queue, &on_thread)
        };
        return Ok(vec![join(thread::spawn(run))?]);
    }
    let handle = Handle::with(args.family, Timeouts::default(), node::BACKENDS, args.workers)?;
    let (sender, started) = sync_channel(0);
    let (orders, ends) = slices::channels(args.workers);
    let mut threads = Vec::new();
    for ((worker, rings), obeys) in (0..args.workers).zip(Rings::mesh(args.workers)).zip(ends) {
        let on_dpdk = OnDpdk { worker, eal: eal.clone(), queue: port.queue(worker)?, rings, obeys };
        let (args, handle, sender) = (args.clone(), handle.clone(), sender.clone());
        threads.push(thread::spawn(move || run_worker(on_dpdk, &args, &handle, &sender)));
    }
    drop(sender);
    let paced = if args.slices {
        slices::compare(args, handle, &orders)
    } else {
        pace(args, handle, &started)
    };
    // The workers end with their orders.
    drop(orders);
    let all: Result<Vec<Measured>> = threads.into_iter().map(join).collect();
    // A worker's own error says more.
    let all = all?;
    paced?;
    Ok(all)
}

/// What a worker's thread is given.
struct OnDpdk {
    worker: u16,
    eal: Eal,
    queue: DpdkQueue,
    rings: Rings<Mbuf>,
    obeys: slices::Obeys,
}

fn run_worker(
    on_dpdk: OnDpdk,
    args: &Args,
    handle: &Handle,
    started: &SyncSender<()>,
) -> Result<Measured> {
    let OnDpdk { worker, eal, queue, rings, obeys } = on_dpdk;
    pin_current_thread(args.core.saturating_sub(worker))?;
    let registered = eal.register_worker_thread()?;
    let clock = TscClock::new(&eal);
    let now = || Now(clock.now_ns());
    let max_flows = args.max_flows.max(args.flows);
    // As the node does it.
    let mut engine = if args.no_hugepages {
        handle.engine(worker, max_flows)
    } else {
        let memory = NodeMemory::of_worker(&eal, &registered);
        let engine = handle.engine_in(&memory, worker, max_flows);
        ensure!(engine.flows_are_lent(), "too few hugepages for the flow table");
        engine
    };
    let tables = handle.published.load();
    let kind = (args.family, args.proto);
    node::establish(&mut engine, &tables, now(), kind, flows_of(args, worker))?;
    let bytes_per_flow = engine.flow_memory() / max_flows as usize;
    let mut node = handle.worker(worker, engine, queue, rings);
    let shared = &handle.shared[usize::from(worker)];
    let measured = if args.slices {
        slices::obey(&mut node.worker, shared, now, &obeys)?
    } else {
        run_paced(&mut node.worker, shared, now, started)?
    };
    Ok(Measured { bytes_per_flow, ..measured })
}

fn measure_life(args: &Args) -> Result<Measured> {
    // The shortest time a closing flow may be configured to stay, so that the table's size stands
    // for the rate.
    let timeouts = Timeouts { closing_ms: 1000, ..Timeouts::default() };
    let handle = Handle::new(Family::V4, timeouts)?;
    let on_handle = handle.clone();
    let (sender, started) = sync_channel(0);
    let on_thread = args.clone();
    let run = move || {
        pin_current_thread(on_thread.core)?;
        let ended = Arc::new(AtomicU64::new(0));
        let start = Instant::now();
        let now = || Now(1_000_000_000 + start.elapsed().as_nanos() as u64);
        let engine = on_handle.engine(0, 4 * on_thread.max_flows);
        let mut node = on_handle.node(engine, life::LifeQueue::new(Arc::clone(&ended)))?;
        // The warm-up's connections are taken off by counting from where the measurement begins.
        let before = std::cell::Cell::new(0);
        let measured =
            run_paced_with(&mut node.worker, &on_handle.shared[0], now, &sender, || {
                before.set(ended.load(Ordering::Relaxed));
            })?;
        let connections = ended.load(Ordering::Relaxed) - before.get();
        Ok(Measured { connections, ..measured })
    };
    let thread = thread::spawn(run);
    pace(args, handle, &started)?;
    join(thread)
}

fn join(thread: thread::JoinHandle<Result<Measured>>) -> Result<Measured> {
    thread.join().map_err(|_| anyhow::anyhow!("the worker panicked"))?
}

fn run_paced<Q: Queue>(
    worker: &mut Worker<Q>,
    shared: &Shared,
    clock: impl Fn() -> Now,
    started: &SyncSender<()>,
) -> Result<Measured> {
    run_paced_with(worker, shared, clock, started, || ())
}

/// The worker's side: run warm, then measured; [`pace`] ends both.
fn run_paced_with<Q: Queue>(
    worker: &mut Worker<Q>,
    shared: &Shared,
    clock: impl Fn() -> Now,
    started: &SyncSender<()>,
    warm: impl Fn(),
) -> Result<Measured> {
    let schedstat = Path::new("/proc/thread-self/schedstat");
    let counts = || {
        let stats = &shared.stats;
        (stats.received.packets.get(), stats.transmitted.packets.get())
    };
    started.send(())?;
    worker.run(&clock);
    shared.stop.store(false, Ordering::Relaxed);
    warm();
    started.send(())?;
    let (cpu, before, begin) = (cpu_ns(schedstat)?, counts(), Instant::now());
    worker.run(&clock);
    let (cpu, after, wall) = (cpu_ns(schedstat)? - cpu, counts(), begin.elapsed());
    let drops = drops(&shared.stats);
    ensure!(drops.is_empty(), "packets were dropped: {drops:?}");
    Ok(Measured {
        received: after.0 - before.0,
        sent: after.1 - before.1,
        total: after.0,
        cpu_ns: cpu,
        wall_ns: wall.as_nanos() as u64,
        ..Measured::default()
    })
}

/// By reason, those that there were.
fn drops(stats: &WorkerStats) -> Vec<(&'static str, u64)> {
    let counts = DropReason::ALL.iter().map(|&reason| (reason.name(), stats.drops(reason)));
    counts.filter(|(_, count)| *count > 0).collect()
}

/// The other side: says when to stop, and changes the tables meanwhile.
fn pace(args: &Args, mut handle: Handle, started: &Receiver<()>) -> Result<()> {
    let shared = handle.shared.clone();
    let all_started = || shared.iter().try_for_each(|_| started.recv());
    let stop_all = || shared.iter().for_each(|one| one.stop.store(true, Ordering::Relaxed));
    let gone = "the worker did not start";
    // That of the slowest.
    let received = || shared.iter().map(|one| one.stats.received.packets.get()).min().unwrap_or(0);
    all_started().context(gone)?;
    let begin = Instant::now();
    // Lives: until the first have expired.
    let warm_up = Duration::from_millis(if args.life { 1500 } else { 300 });
    while received() < 2 * u64::from(args.flows)
        || (args.packets.is_none() && begin.elapsed() < warm_up)
    {
        thread::sleep(Duration::from_millis(10));
    }
    stop_all();
    all_started().context(gone)?;
    let (begin, first) = (Instant::now(), received());
    let enough = || match args.packets {
        Some(packets) => received() - first >= packets,
        None => begin.elapsed() >= Duration::from_secs(args.seconds),
    };
    let mut changes = 0u32;
    while !enough() {
        let due = (begin.elapsed().as_secs_f64() * f64::from(args.changes_per_second)) as u32;
        if changes < due {
            handle.change()?;
            changes += 1;
        } else {
            thread::sleep(Duration::from_millis(if args.changes_per_second > 0 { 1 } else { 10 }));
        }
    }
    if args.changes_per_second > 0 {
        eprintln!("{changes} changes in {:.1} s", begin.elapsed().as_secs_f64());
    }
    stop_all();
    Ok(())
}

/// CPU time of a thread, from its schedstat: the first field, in nanoseconds.
fn cpu_ns(schedstat: &Path) -> Result<u64> {
    let text = std::fs::read_to_string(schedstat)
        .with_context(|| format!("reading {}", schedstat.display()))?;
    let first = text.split_whitespace().next().context("schedstat is empty")?;
    Ok(first.parse()?)
}

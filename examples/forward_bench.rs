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
//! `--life` measures whole connections instead, over a queue that plays clients and backends.
//!
//! Needs free hugepages: 240 MiB, and 2.7 GiB for a million flows
//! (`echo 1400 > /proc/sys/vm/nr_hugepages`); `--life` needs none.
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
#[path = "forward_bench/node.rs"]
mod node;
#[path = "forward_bench/reference.rs"]
mod reference;
#[path = "forward_bench/swap.rs"]
mod swap;

use anyhow::{Context, Result, ensure};
use capture::{Family, Proto};
use clap::Parser;
use dunlin::config::model::Device;
use dunlin::forward::tables::Timeouts;
use dunlin::forward::{DropReason, Now};
use dunlin::port::dpdk::{
    DpdkPort, DpdkQueue, Eal, EalConfig, Mempool, PoolConfig, PortConfig, TscClock,
    pin_current_thread,
};
use dunlin::port::{Burst, Queue};
use dunlin::worker::{Shared, Worker};
use node::Handle;
use std::path::Path;
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
    /// Publish new tables so often meanwhile.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=10_000))]
    changes_per_second: u32,
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
        self.flows + 16_384
    }

    fn memory_mib(&self) -> u32 {
        // A buffer of 2048 + 128 bytes with its header and padding, and the driver's ring.
        (u64::from(self.mbufs()) * 2560 / (1 << 20)) as u32 + 192
    }
}

/// The device that replays the capture for ever and frees what is sent to it.
fn source(capture: &Path) -> String {
    format!("net_pcap0,rx_pcap={},infinite_rx=1", capture.display())
}

/// What was counted in the measured time.
#[derive(Debug, Clone, Copy, Default)]
struct Measured {
    received: u64,
    sent: u64,
    /// Received from the start on, warm-up included.
    total: u64,
    cpu_ns: u64,
    /// Bytes of memory per flow that the table can hold.
    bytes_per_flow: usize,
    connections: u64,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let measured = if args.life { measure_life(&args)? } else { with_capture(&args)? };
    ensure!(measured.cpu_ns > 0 && measured.received > 0, "nothing was forwarded");
    let ns_per_packet = measured.cpu_ns as f64 / measured.received as f64;
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
            "mpps_per_cpu_second": 1000.0 / ns_per_packet,
            "ns_per_packet": ns_per_packet,
            "ipackets": measured.received,
            "opackets": measured.sent,
            "total_packets": measured.total,
            "cpu_seconds": measured.cpu_ns as f64 / 1e9,
            "bytes_per_flow": measured.bytes_per_flow,
            "connections_per_cpu_second":
                measured.connections as f64 * 1e9 / measured.cpu_ns as f64,
        })
    );
    Ok(())
}

fn with_capture(args: &Args) -> Result<Measured> {
    let dir = std::env::temp_dir().join(format!("dunlin-bench-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    let path = dir.join("flows.pcap");
    let outcome = capture::write(&path, args.flows, args.family, args.proto).and_then(|()| {
        if args.reference { reference::measure(args, &path) } else { measure(args, &path) }
    });
    std::fs::remove_dir_all(&dir)?;
    outcome
}

fn measure(args: &Args, capture: &Path) -> Result<Measured> {
    let eal = Eal::init(&EalConfig {
        file_prefix: format!("dunlin-bench-{}", std::process::id()),
        memory_mib: args.memory_mib(),
        hugepages: !args.no_hugepages,
        main_core: args.main_core,
        ..EalConfig::default()
    })?;
    let pool = Mempool::new(&eal, PoolConfig { mbufs: args.mbufs(), ..PoolConfig::default() })?;
    let config = PortConfig::new(Device::Vdev(source(capture)));
    let port = DpdkPort::open(&eal, &config, &[pool])?;
    let queue = port.queue(0)?;
    let clock = TscClock::new(&eal);
    let on_thread = args.clone();
    if args.callback == Callback::Swap {
        let run = move || {
            pin_current_thread(on_thread.core)?;
            let _registered = eal.register_worker_thread()?;
            run_swap(queue, &on_thread)
        };
        return join(thread::spawn(run));
    }
    let handle = Handle::new(args.family, Timeouts::default())?;
    let on_handle = handle.clone();
    let (sender, started) = sync_channel(0);
    let run = move || {
        let args = on_thread;
        pin_current_thread(args.core)?;
        let _registered = eal.register_worker_thread()?;
        let now = || Now(clock.now_ns());
        let mut engine = on_handle.engine(args.max_flows.max(args.flows));
        let tables = on_handle.published.load();
        node::establish(&mut engine, &tables, now(), (args.family, args.proto), args.flows)?;
        let bytes_per_flow = engine.flow_memory() / args.max_flows.max(args.flows) as usize;
        let mut node = on_handle.node(engine, queue)?;
        let measured = run_paced(&mut node.worker, &on_handle.shared, now, &sender)?;
        Ok(Measured { bytes_per_flow, ..measured })
    };
    let thread = thread::spawn(run);
    pace(args, handle, &started)?;
    join(thread)
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
        let engine = on_handle.engine(4 * on_thread.max_flows);
        let mut node = on_handle.node(engine, life::LifeQueue::new(Arc::clone(&ended)))?;
        // The warm-up's connections are taken off by counting from where the measurement begins.
        let before = std::cell::Cell::new(0);
        let measured = run_paced_with(&mut node.worker, &on_handle.shared, now, &sender, || {
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
    let (cpu, before) = (cpu_ns(schedstat)?, counts());
    worker.run(&clock);
    let (cpu, after) = (cpu_ns(schedstat)? - cpu, counts());
    let drops: Vec<_> = DropReason::ALL
        .iter()
        .map(|&reason| (reason.name(), shared.stats.drops(reason)))
        .filter(|(_, count)| *count > 0)
        .collect();
    ensure!(drops.is_empty(), "packets were dropped: {drops:?}");
    Ok(Measured {
        received: after.0 - before.0,
        sent: after.1 - before.1,
        total: after.0,
        cpu_ns: cpu,
        ..Measured::default()
    })
}

/// The other side: says when to stop, and changes the tables meanwhile.
fn pace(args: &Args, mut handle: Handle, started: &Receiver<()>) -> Result<()> {
    let gone = "the worker did not start";
    let shared = Arc::clone(&handle.shared);
    let received = || shared.stats.received.packets.get();
    started.recv().context(gone)?;
    let begin = Instant::now();
    // Lives: until the first have expired.
    let warm_up = Duration::from_millis(if args.life { 1500 } else { 300 });
    while received() < 2 * u64::from(args.flows)
        || (args.packets.is_none() && begin.elapsed() < warm_up)
    {
        thread::sleep(Duration::from_millis(10));
    }
    shared.stop.store(true, Ordering::Relaxed);
    started.recv().context(gone)?;
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
    shared.stop.store(true, Ordering::Relaxed);
    Ok(())
}

/// The swap callback, in place of the node.
fn run_swap(mut queue: DpdkQueue, args: &Args) -> Result<Measured> {
    let mut burst = Burst::new();
    let mut pass = |until: &mut dyn FnMut(u64) -> bool| {
        let (mut received, mut sent) = (0, 0);
        while !until(received) {
            for _ in 0..256 {
                let (more, out) = swap::turn(&mut queue, &mut burst);
                received += more;
                sent += out;
            }
        }
        (received, sent)
    };
    let warm = Instant::now();
    pass(&mut |received| {
        received > 2 * u64::from(args.flows) && warm.elapsed() > Duration::from_millis(300)
    });
    let schedstat = Path::new("/proc/thread-self/schedstat");
    let before = cpu_ns(schedstat)?;
    let (start, time) = (Instant::now(), Duration::from_secs(args.seconds));
    let (received, sent) = pass(&mut |received| match args.packets {
        Some(packets) => received >= packets,
        None => start.elapsed() >= time,
    });
    Ok(Measured { received, sent, cpu_ns: cpu_ns(schedstat)? - before, ..Measured::default() })
}

/// CPU time of a thread, from its schedstat: the first field, in nanoseconds.
fn cpu_ns(schedstat: &Path) -> Result<u64> {
    let text = std::fs::read_to_string(schedstat)
        .with_context(|| format!("reading {}", schedstat.display()))?;
    let first = text.split_whitespace().next().context("schedstat is empty")?;
    Ok(first.parse()?)
}

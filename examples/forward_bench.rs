//! How many packets one worker forwards per second of CPU time, in process and without a NIC.
//!
//! Source and sink are DPDK's pcap driver: `infinite_rx=1` replays a capture this program writes,
//! and with no output file what is sent is freed. One pinned thread receives, forwards and sends.
//! Packets are counted against the CPU time of that thread (`schedstat`), so other load on the
//! machine hardly matters. `--reference` measures `dpdk-testpmd --forward-mode=5tswap` on the same
//! capture in the same way; only the ratio of the two means something beyond this machine.
//!
//! Needs free hugepages: 240 MiB, and 2.5 GiB for a million flows
//! (`echo 1400 > /proc/sys/vm/nr_hugepages`).
//!
//! ```text
//! cargo run --release --example forward_bench -- --flows 1000 --seconds 5
//! cargo run --release --example forward_bench -- --flows 1000 --seconds 5 --reference
//! ```
//! Prints one line of JSON.

#[path = "forward_bench/capture.rs"]
mod capture;
#[path = "forward_bench/reference.rs"]
mod reference;

use anyhow::{Context, Result, ensure};
use capture::{Family, Proto};
use clap::Parser;
use dunlin::config::model::Device;
use dunlin::packet::Frame;
use dunlin::port::dpdk::{
    DpdkPort, DpdkQueue, Eal, EalConfig, Mbuf, Mempool, PoolConfig, PortConfig, pin_current_thread,
};
use dunlin::port::{Burst, Queue};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

#[derive(Debug, Clone, Parser)]
#[command(about = "Packets forwarded per second of CPU time, from memory to memory")]
struct Args {
    /// Flows in the capture: each one packet with a source of its own.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=4_000_000))]
    flows: u32,
    /// How long to measure, after a warm-up of at least one pass over all flows.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    #[arg(long, value_enum, default_value_t = Family::V4)]
    family: Family,
    #[arg(long, value_enum, default_value_t = Proto::Udp)]
    proto: Proto,
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
    cpu_ns: u64,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let dir = std::env::temp_dir().join(format!("dunlin-bench-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    let path = dir.join("flows.pcap");
    let outcome = capture::write(&path, args.flows, args.family, args.proto).and_then(|()| {
        if args.reference { reference::measure(&args, &path) } else { measure(&args, &path) }
    });
    std::fs::remove_dir_all(&dir)?;
    let measured = outcome?;
    ensure!(measured.cpu_ns > 0 && measured.received > 0, "nothing was forwarded");
    let ns_per_packet = measured.cpu_ns as f64 / measured.received as f64;
    println!(
        "{}",
        serde_json::json!({
            "what": if args.reference { "testpmd-5tswap" } else { "dunlin" },
            "flows": args.flows,
            "hugepages": !args.no_hugepages,
            "family": format!("{:?}", args.family).to_lowercase(),
            "proto": format!("{:?}", args.proto).to_lowercase(),
            "mpps_per_cpu_second": 1000.0 / ns_per_packet,
            "ns_per_packet": ns_per_packet,
            "ipackets": measured.received,
            "opackets": measured.sent,
            "cpu_seconds": measured.cpu_ns as f64 / 1e9,
        })
    );
    Ok(())
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
    let args = args.clone();
    thread::spawn(move || {
        pin_current_thread(args.core)?;
        let _registered = eal.register_worker_thread()?;
        run(queue, args.flows, Duration::from_secs(args.seconds))
    })
    .join()
    .map_err(|_| anyhow::anyhow!("the worker panicked"))?
}

/// The loop of a worker, reduced to what is measured.
fn run(mut queue: DpdkQueue, flows: u32, time: Duration) -> Result<Measured> {
    let mut burst: Burst<Mbuf> = Burst::new();
    let mut count = Measured::default();
    let mut pass = |until: &mut dyn FnMut(&Measured) -> bool| {
        let mut count = Measured::default();
        while !until(&count) {
            for _ in 0..256 {
                count.received += queue.rx_burst(&mut burst) as u64;
                for frame in &mut burst {
                    swap(frame.data_mut());
                }
                count.sent += queue.tx_burst(&mut burst) as u64;
                Mbuf::free_burst(&mut burst);
            }
        }
        count
    };
    let warm = Instant::now();
    pass(&mut |count| {
        count.received > 2 * u64::from(flows) && warm.elapsed() > Duration::from_millis(300)
    });
    let before = cpu_ns(Path::new("/proc/thread-self/schedstat"))?;
    let start = Instant::now();
    let counted = pass(&mut |_| start.elapsed() >= time);
    count.cpu_ns = cpu_ns(Path::new("/proc/thread-self/schedstat"))? - before;
    (count.received, count.sent) = (counted.received, counted.sent);
    Ok(count)
}

/// CPU time of a thread, from its schedstat: the first field, in nanoseconds.
fn cpu_ns(schedstat: &Path) -> Result<u64> {
    let text = std::fs::read_to_string(schedstat)
        .with_context(|| format!("reading {}", schedstat.display()))?;
    let first = text.split_whitespace().next().context("schedstat is empty")?;
    Ok(first.parse()?)
}

/// What testpmd's `5tswap` does: swap MAC addresses, IP addresses and ports.
#[inline(always)]
fn swap(frame: &mut [u8]) {
    let (at, len) = match frame.get(12..14) {
        Some([0x08, 0x00]) => (26, 4),
        Some([0x86, 0xdd]) => (22, 16),
        _ => return,
    };
    let ports = at + 2 * len;
    if frame.len() < ports + 4 {
        return;
    }
    swap_halves::<6>(&mut frame[..12]);
    if len == 4 {
        swap_halves::<4>(&mut frame[26..34]);
    } else {
        swap_halves::<16>(&mut frame[22..54]);
    }
    swap_halves::<2>(&mut frame[ports..ports + 4]);
}

#[inline(always)]
fn swap_halves<const N: usize>(bytes: &mut [u8]) {
    let Some((first, second)) = bytes.split_first_chunk_mut::<N>() else {
        return;
    };
    if let Some(second) = second.first_chunk_mut::<N>() {
        std::mem::swap(first, second);
    }
}

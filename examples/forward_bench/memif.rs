//! Both directions, through memif between two processes: this one plays clients and backends, the
//! other forwards: the node's worker, or `dpdk-testpmd --forward-mode=5tswap`.
//!
//! As many frames as [`WINDOW`] are under way. What arrives for a backend is turned around, as the
//! backend would; what arrives for a client is answered by the next flow's request. testpmd turns
//! every frame around by itself, so with it each is answered at once. Frames that the forwarder
//! received per second of its CPU time count; at the end, every frame must be back.

use crate::capture::{self, PORT_MAC};
use crate::mirror::swap;
use crate::node::{BACKEND_PORT, Handle};
use crate::reference::{Testpmd, worker_of};
use crate::{Args, Measured, cpu_ns, drops};
use anyhow::{Context, Result, ensure};
use dunlin::config::model::Device;
use dunlin::forward::Now;
use dunlin::forward::tables::Timeouts;
use dunlin::packet::Frame;
use dunlin::port::dpdk::{
    DpdkPort, DpdkQueue, Eal, EalConfig, Mbuf, Mempool, PoolConfig, PortConfig, TscClock,
    pin_current_thread,
};
use dunlin::port::{Burst, Queue};
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Frames under way.
const WINDOW: usize = 512;
/// How long a link may take to come up, and the last frames to come back.
const PATIENCE: Duration = Duration::from_secs(10);
const WARM_UP: Duration = Duration::from_millis(500);

/// The forwarder, in a process of its own.
enum Forwarder {
    Node(Child),
    Testpmd(Testpmd),
}

impl Forwarder {
    fn start(args: &Args, socket: &str) -> Result<Self> {
        if args.reference {
            let device = server(socket);
            let mut testpmd = Testpmd::start(args, &device, &["--single-file-segments"])?;
            // It listens once it answers.
            testpmd.counters()?;
            return Ok(Self::Testpmd(testpmd));
        }
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["--serve", socket]);
        command.args(["--core", &args.core.to_string()]);
        command.args(["--main-core", &args.main_core.to_string()]);
        command.args(["--flows", &args.flows.to_string()]);
        if args.no_hugepages {
            command.arg("--no-hugepages");
        }
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("the forwarder does not start")?;
        let mut output = BufReader::new(child.stdout.take().context("stdout")?);
        let mut line = String::new();
        let read = output.read_line(&mut line);
        let forwarder = Self::Node(child);
        ensure!(read.is_ok() && line.starts_with("ready"), "the forwarder said {line:?}");
        Ok(forwarder)
    }

    fn schedstat(&self) -> Result<PathBuf> {
        match self {
            Self::Node(child) => worker_of(child.id()),
            Self::Testpmd(testpmd) => testpmd.worker(),
        }
    }
}

impl Forwarder {
    /// Let it end by itself; a node that dropped packets says so.
    fn end(mut self) -> Result<()> {
        let Self::Node(child) = &mut self else { return Ok(()) };
        drop(child.stdin.take());
        let status = child.wait()?;
        ensure!(status.success(), "the forwarder: {status}");
        Ok(())
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        if let Self::Node(child) = self {
            child.kill().ok();
            child.wait().ok();
        }
    }
}

fn server(socket: &str) -> String {
    format!("net_memif0,role=server,id=0,socket={socket},socket-abstract=yes,rsize=11")
}

fn start_eal(args: &Args, role: &str) -> Result<(Eal, Mempool)> {
    let eal = Eal::init(&EalConfig {
        file_prefix: format!("dunlin-{role}-{}", std::process::id()),
        memory_mib: args.memory_mib(),
        hugepages: !args.no_hugepages,
        main_core: args.main_core,
        // What memif's zero copy asks for.
        extra: vec!["--single-file-segments".to_owned()],
        ..EalConfig::default()
    })?;
    let pool = Mempool::new(&eal, PoolConfig { mbufs: args.mbufs(), ..PoolConfig::default() })?;
    Ok((eal, pool))
}

/// The forwarding process. Runs until it is killed or its standard input ends.
pub fn serve(args: &Args, socket: &str) -> Result<()> {
    let (eal, pool) = start_eal(args, "serve")?;
    let config = PortConfig::new(Device::Vdev(server(socket)));
    let port = DpdkPort::open(&eal, &config, &[pool])?;
    let queue = port.queue(0)?;
    let handle = Handle::new(args.family, Timeouts::default())?;
    let (on_worker, core, max_flows) = (handle.clone(), args.core, args.max_flows);
    let clock = TscClock::new(&eal);
    let run = move || -> Result<()> {
        pin_current_thread(core)?;
        let _registered = eal.register_worker_thread()?;
        let engine = on_worker.engine(0, max_flows);
        on_worker.node(engine, queue)?.worker.run(|| Now(clock.now_ns()));
        Ok(())
    };
    let worker = std::thread::Builder::new().name("worker".to_owned()).spawn(run)?;
    println!("ready");
    std::io::stdin().read_to_end(&mut Vec::new())?;
    handle.shared[0].stop.store(true, Ordering::Relaxed);
    worker.join().map_err(|_| anyhow::anyhow!("the worker panicked"))??;
    let stats = &handle.shared[0].stats;
    ensure!(stats.dropped() == 0, "dropped: {:?}", drops(stats));
    Ok(())
}

pub fn measure(args: &Args) -> Result<Measured> {
    let socket = format!("dunlin-bench-{}", std::process::id());
    let forwarder = Forwarder::start(args, &socket)?;
    let (eal, pool) = start_eal(args, "memif")?;
    pin_current_thread(args.main_core)?;
    let _registered = eal.register_worker_thread()?;
    let client = format!(
        "net_memif1,role=client,id=0,socket={socket},socket-abstract=yes,rsize=11,zero-copy=yes"
    );
    let port =
        DpdkPort::open(&eal, &PortConfig::new(Device::Vdev(client)), std::slice::from_ref(&pool))?;
    let begin = Instant::now();
    while !port.link()?.up {
        ensure!(begin.elapsed() < PATIENCE, "the link does not come up");
        std::thread::sleep(Duration::from_millis(10));
    }
    let mut far_end = FarEnd::new(args, port.queue(0)?);
    far_end.begin(&pool)?;
    far_end.run(WARM_UP);
    let schedstat = forwarder.schedstat()?;
    let (cpu, before, begin) = (cpu_ns(&schedstat)?, far_end.returned, Instant::now());
    far_end.run(Duration::from_secs(args.seconds));
    let (cpu, wall) = (cpu_ns(&schedstat)? - cpu, begin.elapsed());
    let received = far_end.returned - before;
    let lost = far_end.end();
    forwarder.end()?;
    Ok(Measured {
        received,
        sent: received,
        total: far_end.returned,
        cpu_ns: cpu,
        wall_ns: wall.as_nanos() as u64,
        lost,
        ..Measured::default()
    })
}

/// Clients and backends.
struct FarEnd {
    queue: DpdkQueue,
    /// By flow.
    requests: Vec<Vec<u8>>,
    next: usize,
    arrived: Burst<Mbuf>,
    leaving: Burst<Mbuf>,
    /// Frames that came through the forwarder.
    returned: u64,
    under_way: u64,
}

impl FarEnd {
    fn new(args: &Args, queue: DpdkQueue) -> Self {
        let request = |flow| capture::frame(flow, args.family, args.proto, capture::SYN);
        Self {
            queue,
            requests: (0..args.flows).map(request).collect(),
            next: 0,
            arrived: Burst::new(),
            leaving: Burst::new(),
            returned: 0,
            under_way: 0,
        }
    }

    /// The first requests.
    fn begin(&mut self, pool: &Mempool) -> Result<()> {
        // A zero-copy client gives the other side its first buffers when it first receives.
        self.queue.rx_burst(&mut self.arrived);
        for _ in 0..WINDOW {
            self.leaving.push(pool.alloc_from(&self.requests[self.next])?);
            self.next = (self.next + 1) % self.requests.len();
            self.under_way += 1;
            while self.leaving.is_full() {
                self.turn();
            }
        }
        Ok(())
    }

    fn run(&mut self, time: Duration) {
        let begin = Instant::now();
        while begin.elapsed() < time {
            for _ in 0..64 {
                self.turn();
            }
        }
    }

    /// Take in, answer, send.
    fn turn(&mut self) {
        if self.leaving.is_empty() {
            self.queue.rx_burst(&mut self.arrived);
            self.returned += self.arrived.len() as u64;
            for mut frame in self.arrived.drain(..) {
                if !for_backend(frame.data_mut()) {
                    let request = &self.requests[self.next];
                    self.next = (self.next + 1) % self.requests.len();
                    if let Some(bytes) = frame.data_mut().get_mut(..request.len()) {
                        bytes.copy_from_slice(request);
                    }
                }
                self.leaving.push(frame);
            }
        }
        if !self.leaving.is_empty() {
            self.queue.tx_burst(&mut self.leaving);
        }
    }

    /// Take in what is under way, sending no more. Returns how many frames are missing.
    fn end(&mut self) -> u64 {
        let mut missing = self.under_way - self.leaving.len() as u64;
        let begin = Instant::now();
        while missing > 0 && begin.elapsed() < PATIENCE / 10 {
            self.queue.rx_burst(&mut self.arrived);
            missing = missing.saturating_sub(self.arrived.len() as u64);
            self.arrived.clear();
        }
        missing
    }
}

/// Whether this frame is for a backend; if so, it becomes the answer.
fn for_backend(frame: &mut [u8]) -> bool {
    // IPv4 or IPv6, no options.
    let l4 = if frame.get(12..14) == Some(&[0x86, 0xdd]) { 54 } else { 34 };
    if frame.get(l4 + 2..l4 + 4) != Some(&BACKEND_PORT.to_be_bytes()) {
        return false;
    }
    swap(frame);
    frame[..6].copy_from_slice(&PORT_MAC);
    true
}

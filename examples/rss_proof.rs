//! Proof, on a real NIC, that replies arrive at the worker that owns their flow.
//!
//! Opens one or more DPDK devices with several receive queues, chooses the way of steering as the
//! node does, and runs one of the node's workers per queue, all turned by one thread. Clients are
//! played in memory; what goes to the backends leaves by the device, to a gateway that must turn
//! it around: swap MAC addresses, IP addresses and ports, and send it back. For every connection it
//! is noted by which queue its request left and on which its answer arrived, and for every answer
//! whether the NIC computed the hash that we foresaw.
//!
//! In the lab the device is QEMU's virtio-net or igb, and the reflector holds the other end of its
//! TAP. `--steering software` is the control experiment: then packets are handed over.
//!
//! ```text
//! rss_proof 0000:00:04.0 --queues 4 --flows 4000
//! ```
//! Prints one line of JSON. Exit: 0 all right and nothing handed over; 1 something went wrong or
//! was lost; 2 a device does not open; 3 steered in software.

#[path = "rss_proof/node.rs"]
mod node;
#[path = "rss_proof/wire.rs"]
mod wire;

use anyhow::{Context, Result};
use clap::Parser;
use dunlin::config::model::Device;
use dunlin::forward::Now;
use dunlin::forward::steering::{Choice, Mode, PortOffer, RssFunction, Wish, choose};
use dunlin::port::dpdk::{
    DpdkPort, Eal, EalConfig, LipRules, Mempool, PoolConfig, PortConfig, PortInfo,
};
use node::Node;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use wire::{Observed, lock};

/// Connections in flight.
const WINDOW: usize = 64;
/// How long an answer may take before the request is sent again.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often a request is sent again.
const MOST_RESENT: u32 = 5;

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Steer {
    Auto,
    FlowRules,
    Rss,
    Software,
}

#[derive(Debug, Parser)]
#[command(about = "Proof that replies arrive at the worker that owns their flow")]
struct Args {
    /// PCI addresses, or DPDK virtual devices with arguments.
    #[arg(required = true)]
    devices: Vec<String>,
    /// Receive queues and workers.
    #[arg(long, default_value_t = 4)]
    queues: u16,
    /// Connections, over TCP and UDP, IPv4 and IPv6.
    #[arg(long, default_value_t = 4000)]
    flows: u32,
    #[arg(long, value_enum, default_value = "auto")]
    steering: Steer,
    /// Give up after so many seconds.
    #[arg(long, default_value_t = 60)]
    timeout: u64,
    /// Use ordinary memory.
    #[arg(long)]
    no_huge: bool,
    /// MiB.
    #[arg(long, default_value_t = 256)]
    memory: u32,
}

fn main() -> ExitCode {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let args = Args::parse();
    let opened = match Opened::open(&args) {
        Ok(opened) => opened,
        Err(error) => {
            eprintln!("rss_proof: {error:#}");
            return ExitCode::from(2);
        }
    };
    match opened.prove(&args) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("rss_proof: {error:#}");
            ExitCode::from(1)
        }
    }
}

/// The devices, and how they are steered.
struct Opened {
    pool: Mempool,
    ports: Vec<DpdkPort>,
    choice: Choice,
    /// By port: its hash, if it is known.
    functions: Vec<Option<RssFunction>>,
    _rules: Vec<LipRules>,
    _eal: Eal,
}

impl Opened {
    fn open(args: &Args) -> Result<Self> {
        let devices: Vec<Device> = args.devices.iter().map(|text| device(text)).collect();
        let pci = |device: &Device| match device {
            Device::Pci(address) => Some(address.clone()),
            Device::Mac(_) | Device::Vdev(_) => None,
        };
        let eal = Eal::init(&EalConfig {
            file_prefix: format!("rss-proof-{}", std::process::id()),
            memory_mib: args.memory,
            hugepages: !args.no_huge,
            pci_allow: devices.iter().filter_map(pci).collect(),
            ..EalConfig::default()
        })?;
        let pool = Mempool::new(&eal, PoolConfig { mbufs: 16_384, ..PoolConfig::default() })?;
        let open = |device: &Device| {
            let queues = args.queues;
            let config = PortConfig {
                queues,
                rx_desc: 256,
                tx_desc: 256,
                promiscuous: true,
                ..PortConfig::new(device.clone())
            };
            DpdkPort::open(&eal, &config, std::slice::from_ref(&pool))
                .with_context(|| format!("{device:?}"))
        };
        let ports: Vec<DpdkPort> = devices.iter().map(open).collect::<Result<_>>()?;
        let offers: Vec<PortOffer> = ports
            .iter()
            .zip(&args.devices)
            .map(|(port, name)| {
                let rules = LipRules::probe(port, node::lips(args.queues));
                port.info().offer(name, rules.map_err(|error| error.to_string()))
            })
            .collect();
        let wish = match args.steering {
            Steer::Auto => Wish::Auto,
            Steer::FlowRules => Wish::FlowRules,
            Steer::Rss => Wish::Rss,
            Steer::Software => Wish::Software,
        };
        let lips = usize::from(node::lips_per_family(args.queues));
        // The clients' card is no device here, but one that spreads as the first does: a request
        // belongs to the worker that it is put before.
        let clients = offers.first().cloned().context("no device")?;
        let all: Vec<PortOffer> = offers.iter().cloned().chain([clients]).collect();
        let mut choice = choose(wish, &all, args.queues, [lips, lips]);
        choice.ports.truncate(ports.len());
        let function = |offer: &PortOffer| {
            let rss = offer.rss.as_ref().ok()?;
            RssFunction::new(rss, offer.queues, args.queues).ok()
        };
        let functions = offers.iter().map(function).collect();
        let mut rules = Vec::new();
        for (port, steering) in ports.iter().zip(&choice.ports) {
            if steering.mode == Mode::FlowRules {
                for (lip, queue) in node::lips(args.queues) {
                    rules.push(LipRules::make(port, lip, queue)?);
                }
            }
        }
        Ok(Self { pool, ports, choice, functions, _rules: rules, _eal: eal })
    }

    fn prove(self, args: &Args) -> Result<ExitCode> {
        let (ports, queues) = (self.ports.len(), args.queues);
        let seen = Observed::new(args.flows, queues, self.functions.clone());
        let seen = Arc::new(Mutex::new(seen));
        let steering = self.choice.steering.clone();
        let mut node = Node::new(&self.ports, queues, args.flows, steering, &self.pool, &seen)?;
        wait_for_links(&self.ports, Duration::from_secs(10));
        let resent = converse(&mut node, &seen, args)?;
        let seen = lock(&seen);
        let (handed_over, dropped) = (node.handed_over(), node.dropped());
        let right = seen.right();
        let lost = seen.lost();
        let wrong = args.flows - right - lost;
        let modes: Vec<&str> = self.choice.ports.iter().map(|port| mode(port.mode)).collect();
        let infos: Vec<&PortInfo> = self.ports.iter().map(DpdkPort::info).collect();
        let report = serde_json::json!({
            "driver": infos.iter().map(|info| &info.driver).collect::<Vec<_>>(),
            "queues": infos.iter().map(|info| info.queues).max(),
            "ports": ports,
            "steering": modes,
            "reason": self.choice.ports.iter().map(|port| &port.reason).collect::<Vec<_>>(),
            "rss": infos.iter().map(|info| rss(info)).collect::<Vec<_>>(),
            "flows": args.flows,
            "right": right,
            "wrong": wrong,
            "lost": lost,
            "resent": resent,
            "handed_over": handed_over,
            "dropped": dropped,
            "by_queue": seen.by_queue,
            "hash_checked": seen.hash_checked,
            "hash_wrong": seen.hash_wrong,
        });
        println!("{report}");
        let steered = self.choice.ports.iter().all(|port| port.mode != Mode::Software);
        let every_queue = seen.by_queue.iter().all(|&count| count > 0);
        Ok(ExitCode::from(if lost > 0 {
            1
        } else if !steered {
            3
        } else {
            u8::from(wrong > 0 || handed_over > 0 || !every_queue)
        }))
    }
}

/// Take every connection through its first request and answer, a few at a time. Returns how many
/// requests were sent again.
fn converse(node: &mut Node, seen: &Mutex<Observed>, args: &Args) -> Result<u32> {
    let start = Instant::now();
    let deadline = start + Duration::from_secs(args.timeout);
    let mut waiting: Vec<(u32, Instant, u32)> = Vec::new();
    let (mut next, mut resent) = (0, 0);
    while (next < args.flows || !waiting.is_empty()) && Instant::now() < deadline {
        while next < args.flows && waiting.len() < WINDOW {
            node.request(next)?;
            waiting.push((next, Instant::now(), 0));
            next += 1;
        }
        // As the node's clock: from any point on, but not from zero.
        node.turn(Now(1_000_000_000 + start.elapsed().as_nanos() as u64));
        {
            let seen = lock(seen);
            waiting.retain(|&(flow, ..)| !seen.answered(flow));
        }
        for (flow, since, tries) in &mut waiting {
            if since.elapsed() > PATIENCE && *tries < MOST_RESENT {
                node.request(*flow)?;
                (*since, *tries) = (Instant::now(), *tries + 1);
                resent += 1;
            }
        }
        waiting.retain(|&(_, since, tries)| tries < MOST_RESENT || since.elapsed() <= PATIENCE);
    }
    Ok(resent)
}

fn wait_for_links(ports: &[DpdkPort], at_most: Duration) {
    let deadline = Instant::now() + at_most;
    let up = |port: &DpdkPort| port.link().is_ok_and(|link| link.up);
    while !ports.iter().all(up) && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// `0000:03:00.0` is on the PCI bus, anything else a virtual device.
fn device(text: &str) -> Device {
    let pci = text.contains(':') && text.chars().all(|c| c.is_ascii_hexdigit() || ".:".contains(c));
    if pci { Device::Pci(text.to_owned()) } else { Device::Vdev(text.to_owned()) }
}

fn rss(info: &PortInfo) -> serde_json::Value {
    let Some(rss) = &info.rss else {
        return serde_json::Value::Null;
    };
    let key: Vec<String> = rss.key.iter().map(|byte| format!("{byte:02x}")).collect();
    let hashed = rss.offer().map(|offer| format!("{:?}", offer.hashed));
    serde_json::json!({
        "key": key.concat(),
        "types": format!("{:#x}", rss.hash_types),
        "hashed": hashed.unwrap_or_else(|why| why),
        "reta": rss.reta.len(),
    })
}

const fn mode(mode: Mode) -> &'static str {
    match mode {
        Mode::Single => "single",
        Mode::FlowRules => "flow-rule",
        Mode::Rss => "rss",
        Mode::Software => "software",
    }
}

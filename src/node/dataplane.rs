//! The data plane of a node: DPDK's environment, the ports with their control interfaces, and the
//! worker threads. Opened before the control plane, stopped after it.

use super::buffers::{PoolShown, PortPool, pools};
use super::places::node_of_core;
use super::steering::{self, RulesShown};
use crate::appliance::devices;
use crate::appliance::host::Root;
use crate::config::model::{self, Config, ControlKind};
use crate::control::state::{MAX_BACKENDS, MAX_SERVICES};
use crate::forward::steering::{Mode, PortSteering};
use crate::forward::tables::{PortId, PortSpec, WorkerId};
use crate::forward::{Engine, EngineConfig, Now, SharingLimits, Steering, Tables, WorkerStats};
use crate::port::dpdk::{
    Attached, DpdkPort, DpdkQueue, Eal, EalConfig, Interrupts, NodeMemory, PortConfig, TscClock,
    WorkerThread, pin_current_thread,
};
use crate::worker::sharing::{self, TaskEnd, WorkerEnd};
use crate::worker::{
    Command, FlowMemory, Neighbour, Place, PortQueues, Published, Rings, Shared, Worker,
    WorkerParts,
};
use anyhow::{Context, Result};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use tokio::sync::Notify;

/// Questions that may wait at one worker.
const COMMAND_DEPTH: usize = 16;

/// A port and its control interface, open and started.
#[derive(Debug)]
pub struct OpenPort {
    pub config: model::Port,
    pub wire: DpdkPort,
    pub control: DpdkPort,
    pub control_kind: kni::control::Kind,
    /// Why that kind, for the operator.
    pub control_why: String,
    pub steering: PortSteering,
    pub rules: Arc<Mutex<RulesShown>>,
    /// Where both get their packet buffers from.
    pub buffers: PoolShown,
}

/// Ports are open, workers not yet running.
#[derive(Debug)]
pub struct Opened {
    eal: Eal,
    pub ports: Vec<OpenPort>,
    steering: Steering,
}

/// Everything runs.
#[derive(Debug)]
pub struct Dataplane {
    pub ports: Vec<OpenPort>,
    pub workers: Vec<Arc<Shared>>,
    pub commands: Vec<SyncSender<Command>>,
    pub published: Arc<Published>,
    pub clock: TscClock,
    /// One for each worker, if flows are shared; taken by whoever runs the exchange.
    pub sharing: Vec<TaskEnd>,
    /// Workers have something for the exchange.
    pub news: Arc<Notify>,
    threads: Vec<JoinHandle<()>>,
    _eal: Eal,
}

impl Opened {
    /// Start DPDK and open every port with its control interface.
    pub fn open(config: &Config) -> Result<Self> {
        let configured = devices::resolve(&Root::system(), &config.ports)?;
        let eal = Eal::init(&EalConfig {
            file_prefix: config.dataplane.file_prefix.clone(),
            memory_mib: config.dataplane.memory_mib,
            hugepages: config.dataplane.hugepages,
            pci_allow: configured
                .iter()
                .filter_map(|port| match &port.device {
                    model::Device::Pci(address) => Some(address.clone()),
                    model::Device::Mac(_) | model::Device::Vdev(_) => None,
                })
                .collect(),
            main_core: config.dataplane.workers.first().copied().unwrap_or(0),
            // It complains, as errors, when the kernel takes no flow rules. We see that by ourselves.
            extra: vec!["--log-level=pmd.net.tap:critical".to_owned()],
        })
        .context("DPDK does not start")?;
        let queues = config.dataplane.workers.len() as u16;
        let name = |port: &model::Port| format!("port {}", port.name);
        let wires: Vec<Attached> = configured
            .iter()
            .map(|port| {
                let poll = config.dataplane.poll;
                DpdkPort::attach(&eal, &wire_config(port, queues, poll)).with_context(|| name(port))
            })
            .collect::<Result<_>>()?;
        let pools = pools(&eal, config, &wires)?;
        let mut ports: Vec<OpenPort> = (0u16..)
            .zip(&configured)
            .zip(wires.into_iter().zip(pools))
            .map(|((index, port), (wire, pool))| {
                let poll = config.dataplane.poll;
                open_port(&eal, wire, pool, index, port, poll).with_context(|| name(port))
            })
            .collect::<Result<_>>()?;
        let choice = steering::probe(config, &ports);
        for (port, steering) in ports.iter_mut().zip(choice.ports) {
            port.steering = steering;
        }
        Ok(Self { eal, ports, steering: choice.steering })
    }

    /// The ports as the packet path needs them.
    pub fn specs(&self) -> Vec<PortSpec> {
        (0u16..)
            .zip(&self.ports)
            .map(|(index, port)| {
                let info = port.wire.info();
                PortSpec {
                    id: PortId(index),
                    mac: info.mac,
                    mtu: port.config.mtu,
                    up: port.wire.link().is_ok_and(|link| link.up),
                    tx_ipv4_checksum: info.caps.tx_ipv4_checksum,
                    tx_l4_checksum: info.caps.tx_l4_checksum,
                }
            })
            .collect()
    }

    /// Start one pinned thread per configured core.
    pub fn start(
        self,
        config: &Config,
        tables: Arc<Tables>,
        wanted_neighbours: &tokio::sync::mpsc::Sender<Neighbour>,
    ) -> Result<Dataplane> {
        let cores = &config.dataplane.workers;
        let clock = TscClock::new(&self.eal);
        let published = Arc::new(Published::new(tables));
        let seed = rand::random();
        let mut dataplane = Dataplane {
            ports: self.ports,
            workers: Vec::new(),
            commands: Vec::new(),
            published,
            clock,
            sharing: Vec::new(),
            news: Arc::new(Notify::new()),
            threads: Vec::new(),
            _eal: self.eal.clone(),
        };
        let meshes = Rings::mesh(cores.len() as u16);
        for ((id, &core), rings) in (0u16..).zip(cores).zip(meshes) {
            let stats = Arc::new(WorkerStats::new(MAX_SERVICES as usize, MAX_BACKENDS as usize));
            let shared = Arc::new(Shared::new(core, Arc::clone(&stats)));
            let (sender, commands) = sync_channel(COMMAND_DEPTH);
            let ports = dataplane.queues_of(WorkerId(id), cores.len() as u16)?;
            let engine = EngineConfig {
                worker: WorkerId(id),
                workers: cores.len() as u16,
                max_flows: config.dataplane.max_flows,
                seed,
                steering: self.steering.clone(),
            };
            let sharing = config.cluster.as_ref().map(|cluster| {
                let (worker_end, task_end) = sharing::rings(Arc::clone(&dataplane.news));
                dataplane.sharing.push(task_end);
                let limits = SharingLimits {
                    questions_per_second: cluster.questions_per_second,
                    max_adopted: cluster.max_adopted,
                };
                (worker_end, limits)
            });
            let eal = self.eal.clone();
            let parts = PartsOfThread {
                ports,
                rings,
                engine,
                stats,
                published: Arc::clone(&dataplane.published),
                shared: Arc::clone(&shared),
                commands,
                wanted_neighbours: wanted_neighbours.clone(),
                sharing,
                poll: config.dataplane.poll,
                max_sleep: config.dataplane.max_sleep,
                hugepages: config.dataplane.hugepages,
            };
            let thread = std::thread::Builder::new()
                .name(format!("worker-{id}"))
                .spawn(move || run_worker(&eal, clock, core, parts))
                .context("cannot start a worker thread")?;
            dataplane.workers.push(shared);
            dataplane.commands.push(sender);
            dataplane.threads.push(thread);
        }
        Ok(dataplane)
    }
}

impl Dataplane {
    /// Stop forwarding and close the ports. The control interfaces vanish with them.
    pub fn stop(self) {
        for worker in &self.workers {
            worker.stop.store(true, Ordering::Relaxed);
        }
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("a worker ended by a panic");
            }
        }
    }

    /// Queue `n` of a port is worker `n`'s. A port with fewer queues than workers is shared out:
    /// worker `n` transmits through the worker that has queue `n mod queues`. The control
    /// interfaces are spread over the workers.
    fn queues_of(&self, worker: WorkerId, workers: u16) -> Result<Vec<PortQueues<DpdkQueue>>> {
        (0u16..)
            .zip(&self.ports)
            .map(|(index, port)| {
                let queues = port.wire.info().queues.max(1);
                let own = worker.0 < queues;
                let control_owner = WorkerId(index % workers.max(1));
                Ok(PortQueues {
                    wire: own.then(|| port.wire.queue(worker.0)).transpose()?,
                    wire_deputy: WorkerId(worker.0 % queues),
                    control: (worker == control_owner)
                        .then(|| port.control.queue(0))
                        .transpose()?,
                    control_owner,
                })
            })
            .collect()
    }
}

/// What goes into a worker's thread. The worker itself is made there, so that its memory comes
/// from the NUMA node of its core.
struct PartsOfThread {
    ports: Vec<PortQueues<DpdkQueue>>,
    rings: Rings<<DpdkQueue as crate::port::Queue>::Frame>,
    engine: EngineConfig,
    stats: Arc<WorkerStats>,
    published: Arc<Published>,
    shared: Arc<Shared>,
    commands: std::sync::mpsc::Receiver<Command>,
    wanted_neighbours: tokio::sync::mpsc::Sender<Neighbour>,
    sharing: Option<(WorkerEnd, SharingLimits)>,
    poll: model::PollMode,
    max_sleep: std::time::Duration,
    /// DPDK's memory is hugepages.
    hugepages: bool,
}

fn run_worker(eal: &Eal, clock: TscClock, core: u16, parts: PartsOfThread) {
    if let Err(error) = pin_current_thread(core) {
        tracing::warn!(core, %error, "worker runs unpinned");
    }
    let registered = match eal.register_worker_thread() {
        Ok(registered) => Some(registered),
        Err(error) => {
            tracing::warn!(core, %error, "worker runs without its own buffer cache");
            None
        }
    };
    let id = parts.engine.worker;
    let hugepages = parts.hugepages;
    let (mut engine, place) =
        engine(eal, registered.as_ref(), core, hugepages, parts.engine, parts.stats);
    tracing::info!(worker = id.0, core, numa_node = place.node, flows = %place.flows, "worker runs");
    // Said once: there is nothing there before.
    let _ = parts.shared.place.set(place);
    let sharing = parts.sharing.map(|(end, limits)| {
        engine.share_flows(limits);
        end
    });
    let mut worker = Worker::new(WorkerParts {
        id,
        engine,
        ports: parts.ports,
        rings: parts.rings,
        published: parts.published,
        shared: parts.shared,
        commands: parts.commands,
        wanted_neighbours: parts.wanted_neighbours,
        sharing,
        poll: parts.poll,
        max_sleep: parts.max_sleep,
    });
    worker.run(|| Now(clock.now_ns()));
}

/// The worker's engine, its flows on hugepages of the thread's own NUMA node if there are some; and
/// where all that is.
fn engine(
    eal: &Eal,
    thread: Option<&WorkerThread>,
    core: u16,
    hugepages: bool,
    config: EngineConfig,
    stats: Arc<WorkerStats>,
) -> (Engine, Place) {
    let node = node_of_core(&Root::system(), core);
    let ordinary = |why: &str| FlowMemory::Ordinary { why: why.to_owned() };
    let (engine, node, flows) = match thread.filter(|_| hugepages) {
        None => {
            let why = if hugepages { "DPDK does not know the worker" } else { "hugepages = false" };
            (Engine::new(config, stats), node, ordinary(why))
        }
        Some(thread) => {
            let memory = NodeMemory::of_worker(eal, thread);
            let engine = Engine::new_in(&memory, config, stats);
            let node = memory.node().or(node);
            let flows = if engine.flows_are_lent() {
                FlowMemory::Hugepages { node: memory.lent_from() }
            } else {
                let of = node.map_or_else(String::new, |node| format!(" on NUMA node {node}"));
                ordinary(&format!("too few free hugepages{of}"))
            };
            (engine, node, flows)
        }
    };
    (engine, Place { node, flows })
}

fn open_port(
    eal: &Eal,
    wire: Attached,
    buffers: PortPool,
    index: u16,
    port: &model::Port,
    poll: model::PollMode,
) -> Result<OpenPort> {
    let wire = wire.start(&buffers.pool)?;
    let info = wire.info();
    tracing::info!(
        port = port.name,
        device = info.device,
        driver = info.driver,
        queues = info.queues,
        caps = ?info.caps,
        numa_node = info.socket,
        buffers = buffers.shown.mbufs,
        buffers_on = buffers.shown.node,
        why = buffers.shown.why,
        interrupts = ?info.interrupts,
        "port open"
    );
    let plan = kni::control::plan(&kni::control::Spec {
        index,
        name: port.name.clone(),
        mac: info.mac.0,
        mtu: port.mtu,
        requested: match port.control {
            ControlKind::Auto => kni::control::Requested::Auto,
            ControlKind::VhostNet => kni::control::Requested::VhostNet,
            ControlKind::Tap => kni::control::Requested::Tap,
        },
    })?;
    tracing::info!(port = port.name, kind = ?plan.kind, why = plan.why, "control interface");
    let control_config = PortConfig {
        mtu: port.mtu,
        // The kernel's frames have their checksums, and it verifies those that it gets.
        checksum_offload: false,
        interrupts: interrupts(poll),
        ..PortConfig::new(model::Device::Vdev(plan.vdev))
    };
    let control = DpdkPort::open(eal, &control_config, std::slice::from_ref(&buffers.pool))
        .context("the control interface does not open")?;
    Ok(OpenPort {
        config: port.clone(),
        wire,
        control,
        control_kind: plan.kind,
        control_why: plan.why,
        // Chosen when all ports are open.
        steering: PortSteering { mode: Mode::Software, reason: String::new() },
        rules: Arc::default(),
        buffers: buffers.shown,
    })
}

fn wire_config(port: &model::Port, queues: u16, poll: model::PollMode) -> PortConfig {
    PortConfig {
        queues,
        mtu: port.mtu,
        mac: port.mac,
        interrupts: interrupts(poll),
        ..PortConfig::new(port.device.clone())
    }
}

fn interrupts(poll: model::PollMode) -> Interrupts {
    match poll {
        model::PollMode::Adaptive => Interrupts::Tried,
        model::PollMode::Interrupt => Interrupts::Any,
        model::PollMode::Latency | model::PollMode::Throughput => Interrupts::No,
    }
}

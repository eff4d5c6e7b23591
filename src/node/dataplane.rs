//! The data plane of a node: DPDK's environment, the ports with their control interfaces, and the
//! worker threads. Opened before the control plane, stopped after it.

use super::steering::{self, RulesShown};
use crate::appliance::devices;
use crate::appliance::host::Root;
use crate::config::model::{self, Config, ControlKind};
use crate::control::state::{MAX_BACKENDS, MAX_SERVICES};
use crate::forward::steering::{Mode, PortSteering};
use crate::forward::tables::{PortId, PortSpec, WorkerId};
use crate::forward::{Engine, EngineConfig, Now, SharingLimits, Steering, Tables, WorkerStats};
use crate::port::dpdk::{
    DpdkPort, DpdkQueue, Eal, EalConfig, Mempool, NodeMemory, PoolConfig, PortConfig, TscClock,
    pin_current_thread,
};
use crate::worker::sharing::{self, TaskEnd, WorkerEnd};
use crate::worker::{
    Command, Neighbour, PortQueues, Published, Rings, Shared, Worker, WorkerParts,
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
        let pool_config = PoolConfig { mbufs: config.dataplane.mbufs, ..PoolConfig::default() };
        let pool = Mempool::new(&eal, pool_config).context("no memory for packet buffers")?;
        let queues = config.dataplane.workers.len() as u16;
        let mut ports: Vec<OpenPort> = (0u16..)
            .zip(&configured)
            .map(|(index, port)| {
                open_port(&eal, &pool, index, port, queues)
                    .with_context(|| format!("port {}", port.name))
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
    let mut engine = match &registered {
        Some(thread) if parts.hugepages => {
            let memory = NodeMemory::of_worker(eal, thread);
            Engine::new_in(&memory, parts.engine, parts.stats)
        }
        _ => Engine::new(parts.engine, parts.stats),
    };
    let flow_memory = match (engine.flows_are_lent(), parts.hugepages) {
        (true, _) => "hugepages of the worker's NUMA node",
        (false, false) => "ordinary memory",
        (false, true) => "ordinary memory: too few free hugepages (grep Huge /proc/meminfo)",
    };
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
    tracing::info!(worker = id.0, core, flow_memory, "worker runs");
    worker.run(|| Now(clock.now_ns()));
}

fn open_port(
    eal: &Eal,
    pool: &Mempool,
    index: u16,
    port: &model::Port,
    queues: u16,
) -> Result<OpenPort> {
    let wire_config =
        PortConfig { queues, mtu: port.mtu, mac: port.mac, ..PortConfig::new(port.device.clone()) };
    let pools = std::slice::from_ref(pool);
    let wire = DpdkPort::open(eal, &wire_config, pools)?;
    let info = wire.info();
    tracing::info!(
        port = port.name,
        device = info.device,
        driver = info.driver,
        queues = info.queues,
        caps = ?info.caps,
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
        ..PortConfig::new(model::Device::Vdev(plan.vdev))
    };
    let control = DpdkPort::open(eal, &control_config, pools)
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
    })
}

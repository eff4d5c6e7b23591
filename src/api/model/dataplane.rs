//! Workers, ports and drops.

use serde::{Deserialize, Serialize};

word_enum! {
    /// What a worker's flow table is made of.
    FlowMemoryKind {
        Hugepages => "hugepages",
        Ordinary => "ordinary",
    }
}

/// Where a worker's flow table lies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowMemoryInfo {
    pub kind: FlowMemoryKind,
    /// `None`: the kernel placed it, most likely on the worker's own.
    pub numa_node: Option<u32>,
    /// Why not hugepages; else empty.
    pub reason: String,
}

word_enum! {
    /// What a worker does when there is nothing to do.
    IdleKind {
        /// Looks again.
        Spin => "spin",
        /// Looks again after a while.
        Sleep => "sleep",
        /// The same, or as soon as a port has got a frame.
        Interrupt => "interrupt",
    }
}

/// One entry of `GET /v1/workers`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorkerInfo {
    pub id: u16,
    /// CPU core that it is pinned to.
    pub core: u16,
    /// NUMA node of that core; `None`: not known.
    #[serde(default)]
    pub numa_node: Option<u32>,
    /// `None`: the worker has not begun yet.
    #[serde(default)]
    pub flow_memory: Option<FlowMemoryInfo>,
    /// `None`: a node of an earlier version.
    #[serde(default)]
    pub idle: Option<IdleKind>,
    /// Why that: "as configured".
    #[serde(default)]
    pub idle_reason: String,
    /// What of this is slower than it could be; empty: nothing.
    #[serde(default)]
    pub hint: String,
    /// Since its last beat.
    pub beat_age_ms: u64,
    /// Has not beaten for longer than the configuration allows.
    pub stalled: bool,
    /// Epoch of the tables that it uses.
    pub epoch: u64,
    /// Share of loops that found packets, 0..=100, over about the last second.
    pub busy_percent: f64,
    pub flows: u64,
    pub max_flows: u64,
    /// Local ports (LIP × port × backend) in use and available: the limit on flows to a backend.
    pub local_ports_used: u64,
    pub local_ports_total: u64,
    pub rx_packets: u64,
    pub tx_packets: u64,
    /// To the kernel, through the control interfaces.
    pub kernel_packets: u64,
    /// Handed over to other workers.
    pub handover_packets: u64,
    /// Of these, replies that the NIC should have given to the right worker and did not.
    #[serde(default)]
    pub misdirected_packets: u64,
    /// Packets too big for their way out, answered by an ICMP error; they are among `tx_packets` too.
    #[serde(default)]
    pub too_big_answers: u64,
    /// Fragments translated; they are among `tx_packets` too.
    #[serde(default)]
    pub fragment_packets: u64,
    /// Datagrams in fragments that were forgotten early, because there were too many at a time.
    #[serde(default)]
    pub forgotten_datagrams: u64,
    pub dropped_packets: u64,
}

word_enum! {
    /// What mirrors a port in the kernel.
    ControlInterface {
        VhostNet => "vhost-net",
        Tap => "tap",
    }
}

/// The kernel network interface that mirrors a port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControlInfo {
    pub interface: String,
    pub kind: ControlInterface,
    /// Why this kind: "configured", "/dev/vhost-net is missing".
    pub reason: String,
    #[serde(default)]
    pub rx_interrupts: Option<InterruptsInfo>,
}

/// Receive interrupts: idle workers can wait for frames.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterruptsInfo {
    pub in_use: bool,
    /// Why not; else empty.
    pub reason: String,
}

word_enum! {
    /// How replies reach the worker that owns their flow.
    SteeringMode {
        /// One worker: nothing to steer.
        Single => "single",
        /// Flow rules in the NIC, local address → queue.
        FlowRule => "flow-rule",
        /// The local port is chosen so that the reply's RSS hash lands on the right queue.
        Rss => "rss",
        /// The worker that receives hands over.
        Software => "software",
    }
}

/// Steering in use on a port, and why that one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SteeringInfo {
    pub mode: SteeringMode,
    pub reason: String,
    /// Local addresses that have their flow rules in the NIC.
    #[serde(default)]
    pub flow_rules: u64,
    /// Local addresses whose rules the NIC refused: their replies are handed over.
    #[serde(default)]
    pub flow_rules_refused: u64,
}

/// The packet buffers that a port and its control interface receive into. Ports on one NUMA node
/// share them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuffersInfo {
    pub count: u32,
    /// `None`: wherever there was memory.
    pub numa_node: Option<u32>,
    /// Why there: "where the port is".
    pub reason: String,
}

/// One entry of `GET /v1/ports`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortInfo {
    pub name: String,
    /// PCI address, or DPDK virtual device and arguments.
    pub device: String,
    /// Driver as DPDK names it, e.g. `net_ice`.
    pub driver: String,
    /// `aa:bb:cc:dd:ee:ff`.
    pub mac: String,
    pub link_up: bool,
    /// Megabits per second; `None`: the driver does not know.
    pub speed_mbps: Option<u32>,
    /// Largest IP packet, bytes.
    pub mtu: u16,
    /// NUMA node that it is plugged into; `None`: it is on none.
    #[serde(default)]
    pub numa_node: Option<u32>,
    #[serde(default)]
    pub buffers: Option<BuffersInfo>,
    pub rx_queues: u16,
    pub tx_queues: u16,
    /// `None`: the port has none.
    pub control: Option<ControlInfo>,
    pub steering: SteeringInfo,
    #[serde(default)]
    pub rx_interrupts: Option<InterruptsInfo>,
    /// Offloads in use: `rx-ipv4-checksum`, `rss`, …
    pub caps: Vec<String>,
    pub stats: PortStats,
}

/// Counters as the driver keeps them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortStats {
    pub rx_packets: u64,
    pub tx_packets: u64,
    pub rx_bytes: u64,
    pub tx_bytes: u64,
    /// Bad frames.
    pub rx_errors: u64,
    pub tx_errors: u64,
    /// Dropped by the NIC: the workers did not keep up.
    pub rx_missed: u64,
    /// Dropped because no mbuf was free: the pool is too small.
    pub rx_nombuf: u64,
}

impl PortStats {
    /// Frames the port lost or broke, whatever the cause.
    pub const fn lost(self) -> u64 {
        self.rx_errors + self.tx_errors + self.rx_missed + self.rx_nombuf
    }
}

/// One entry of `GET /v1/drops`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DropInfo {
    /// Stable name of the reason.
    pub reason: String,
    /// One sentence.
    pub description: String,
    /// Packets, all workers.
    pub count: u64,
    /// Packets, by worker id.
    pub per_worker: Vec<u64>,
}

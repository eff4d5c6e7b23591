//! Arguments.

use crate::api::DEFAULT_SOCKET;
use crate::api::model::{AddressFilter, BackendSelector, FLOW_LIMIT, FLOW_LIMIT_MAX, FlowState};
use crate::appliance;
use clap::{Args, Parser, Subcommand};
use std::net::IpAddr;
use std::path::PathBuf;

/// Look at a Dunlin node and operate it.
#[derive(Debug, Parser)]
#[command(
    name = "dunlin",
    version,
    disable_help_subcommand = true,
    after_help = "Exit codes: 0 done (status: the node is healthy), 1 error, 2 wrong usage, \
                  3 status: the node is degraded or draining.\n\
                  Colour is used on a terminal unless NO_COLOR is set."
)]
pub struct Arguments {
    /// Socket of the node's API
    #[arg(
        long,
        global = true,
        help_heading = "Everywhere",
        value_name = "PATH",
        env = "DUNLIN_SOCKET",
        default_value = DEFAULT_SOCKET
    )]
    pub socket: PathBuf,

    /// Print the API's JSON instead of a table
    #[arg(long, global = true, help_heading = "Everywhere")]
    pub json: bool,

    /// Show again every SECONDS (2 if not given) until interrupted
    #[arg(
        short,
        long,
        global = true,
        help_heading = "Everywhere",
        value_name = "SECONDS",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "2",
        value_parser = clap::value_parser!(u64).range(1..=3600)
    )]
    pub watch: Option<u64>,

    #[command(subcommand)]
    pub command: Task,
}

/// Whom a command is for.
#[derive(Debug, Subcommand)]
pub enum Task {
    /// The node: asked through its API.
    #[command(flatten)]
    Node(Command),
    /// The machine around it: done here.
    #[command(flatten)]
    Machine(appliance::Command),
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// The node as a whole: health, workers, VIPs, BGP
    Status,
    /// Services: VIPs, healthy backends, connections, traffic
    Services,
    /// Backends: state and why, connections, traffic
    Backends {
        /// Only those of this service
        service: Option<String>,
    },
    /// Flows alive now
    Flows(FlowArguments),
    /// BGP sessions; with a neighbour, everything about it
    Bgp {
        /// Address, ADDRESS%INTERFACE, or the interface of an unnumbered neighbour
        neighbor: Option<String>,
    },
    /// BFD sessions; with a peer, everything about it
    Bfd { peer: Option<IpAddr> },
    /// OSPF interfaces, neighbours and database; with a neighbour, everything about it
    Ospf {
        /// Router id or address
        neighbor: Option<IpAddr>,
    },
    /// Other nodes, and the flows shared with them
    Cluster,
    /// Ports: link, control interface, steering, counters
    Ports,
    /// Workers: load, flows, local ports
    Workers,
    /// Dropped packets, by reason
    Drops {
        /// Also list the reasons that nothing was dropped for
        #[arg(short, long)]
        all: bool,
    },
    /// Each prefix: announced or not, why, and to whom
    Announce {
        /// Only this prefix, or the one of this address
        prefix: Option<String>,
    },
    /// The configuration that is running
    Config,
    /// Counters in Prometheus' text format
    Metrics,
    /// Take the node, a service or a backend out of service: routers move away before it withdraws
    Drain {
        #[command(flatten)]
        scope: ScopeArguments,
        /// Why, for whoever looks next
        #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
        reason: String,
    },
    /// Take it back into service
    Undrain {
        #[command(flatten)]
        scope: ScopeArguments,
    },
    /// Read the configuration file again and apply the difference
    Reload,
}

#[derive(Debug, Args)]
pub struct FlowArguments {
    /// Client: ADDRESS, PREFIX/LENGTH or ADDRESS:PORT
    #[arg(long, value_name = "ADDRESS")]
    pub client: Option<AddressFilter>,
    /// VIP, likewise
    #[arg(long, value_name = "ADDRESS")]
    pub vip: Option<AddressFilter>,
    /// Backend, likewise
    #[arg(long, value_name = "ADDRESS")]
    pub backend: Option<AddressFilter>,
    /// Service by name
    #[arg(long, value_name = "NAME")]
    pub service: Option<String>,
    /// tcp or udp
    #[arg(long, value_parser = ["tcp", "udp"])]
    pub protocol: Option<String>,
    /// syn, established, closing or udp
    #[arg(long)]
    pub state: Option<FlowState>,
    /// Most flows to list
    #[arg(
        long,
        value_name = "COUNT",
        default_value_t = FLOW_LIMIT as u64,
        value_parser = clap::value_parser!(u64).range(1..=FLOW_LIMIT_MAX as u64)
    )]
    pub limit: u64,
}

/// The whole node unless one of them is given.
#[derive(Debug, Args)]
#[group(multiple = false)]
pub struct ScopeArguments {
    /// Only this service
    #[arg(long, value_name = "NAME")]
    pub service: Option<String>,
    /// Only this backend, in every service: ADDRESS or ADDRESS:PORT
    #[arg(long, value_name = "ADDRESS")]
    pub backend: Option<BackendSelector>,
}

impl Command {
    /// Shows without changing anything, so it may be repeated.
    pub const fn is_question(&self) -> bool {
        !matches!(self, Self::Drain { .. } | Self::Undrain { .. } | Self::Reload)
    }
}

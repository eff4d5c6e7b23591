//! The kernel's view of the control interfaces: links, addresses, neighbours and routes.
//!
//! In: netlink dumps and events. Out: an immutable [`Snapshot`], published when something changed.
//! The other way round, the mirror has the kernel resolve and refresh neighbours, and installs
//! routes by difference. It decides nothing about forwarding, and never blocks its caller.
//!
//! One task owns all of it. It subscribes first and dumps then, so nothing falls in between. When
//! the kernel drops events (overrun) or one cannot be decoded, it dumps again. Routes are always
//! dumped, never patched from events; src/mirror/view.rs says why.

mod install;
mod neighbours;
mod routes;
mod task;
mod view;

pub use install::{InstalledNextHop, RouteSource};

use crate::error::Error;
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};

/// A neighbour: interface index and address.
pub type NeighbourKey = (u32, IpAddr);

/// What to mirror, and how eagerly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MirrorConfig {
    /// Names of the control interfaces. One that does not exist yet is picked up when it appears,
    /// and again under its new index when it is recreated.
    pub interfaces: Vec<String>,
    /// Least time between two snapshots: bursts of events come out as one.
    pub publish_interval: Duration,
    /// Least time between two requests to resolve the same neighbour.
    pub resolve_interval: Duration,
    /// A neighbour in use that has been stale for so long is probed again.
    pub stale_after: Duration,
    /// Receive buffer of the event socket, bytes.
    pub receive_buffer: usize,
}

impl MirrorConfig {
    /// The defaults for these interfaces.
    pub fn new(interfaces: Vec<String>) -> Self {
        Self {
            interfaces,
            publish_interval: Duration::from_millis(2),
            resolve_interval: Duration::from_millis(500),
            stale_after: Duration::from_secs(3),
            receive_buffer: 4 << 20,
        }
    }
}

/// What the kernel knows about the control interfaces, at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Snapshot {
    /// Increases with every snapshot. 0: nothing was read yet.
    pub generation: u64,
    /// By interface index. An interface that does not exist is not listed.
    pub links: BTreeMap<u32, Link>,
    /// Sorted. Without those that failed, or await, duplicate address detection.
    pub addresses: Vec<(u32, IpNet)>,
    /// Those a frame can be sent to. A change of `state` alone is not worth a new snapshot, so
    /// `state` is as of the last change of anything else.
    pub neighbours: BTreeMap<NeighbourKey, Neighbour>,
    /// The best route of each prefix of the main table, sorted by prefix. See [`Route`].
    pub routes: Vec<Route>,
}

/// A control interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    pub name: String,
    pub mac: [u8; 6],
    /// Largest IP packet, bytes.
    pub mtu: u32,
    /// Administratively.
    pub up: bool,
    pub carrier: bool,
}

/// A neighbour that can be sent to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Neighbour {
    pub mac: [u8; 6],
    pub state: NeighbourState,
}

/// The usable states of a neighbour (RFC 4861 §7.3.2; the kernel uses them for ARP as well).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NeighbourState {
    Reachable,
    Stale,
    Delay,
    Probe,
    Permanent,
    NoArp,
}

/// The best route of a prefix that leaves by a mirrored interface, or that says the prefix is
/// unreachable.
///
/// Best is the lowest metric, as in the kernel, but only among these routes: a default route by a
/// management interface does not hide ours, since the packet path can only send by a port. Next
/// hops by other interfaces, or by an interface that is down or has no carrier, are left out; a
/// route that has no next hop left is too, so that a worse route takes over (the kernel does the
/// same with `ignore_routes_with_linkdown`, which [`crate::control`] sets). Left out altogether are
/// routes the packet path has no notion of: by source address or TOS, tunnelled (`encap`), and those
/// to link-local or multicast prefixes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    pub prefix: IpNet,
    /// `RT_TABLE_MAIN`, 254.
    pub table: u32,
    /// `RTPROT_*`.
    pub protocol: u8,
    pub metric: u32,
    /// `RT_SCOPE_*`.
    pub scope: u8,
    pub kind: RouteKind,
    /// Sorted. Empty unless `kind` is [`RouteKind::Unicast`] or [`RouteKind::Local`].
    pub next_hops: Vec<NextHop>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RouteKind {
    Unicast,
    /// To this host.
    Local,
    /// Drop silently.
    Blackhole,
    /// Also `throw`, which in the last table consulted means the same.
    Unreachable,
    Prohibit,
    /// The route names a next-hop object and the kernel does not list what is in it
    /// (`net.ipv4.nexthop_compat_mode` is 0): we cannot follow it.
    Unresolved,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NextHop {
    /// The gateway, of either family (RFC 8950). `None`: the destination is on link.
    pub via: Option<IpAddr>,
    pub ifindex: u32,
    /// Relative share, 1 to 256.
    pub weight: u16,
}

/// What the mirror counted since it was spawned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Netlink messages that arrived as events.
    pub events: u64,
    /// Messages and attributes that could not be decoded.
    pub malformed: u64,
    /// Complete dumps, the first included.
    pub resyncs: u64,
    /// Of these, because the kernel dropped events or one could not be decoded.
    pub overruns: u64,
    pub published: u64,
    /// Requests to the kernel to resolve or refresh a neighbour.
    pub resolved: u64,
    /// Requests to resolve that the rate limit or a full queue refused.
    pub resolve_refused: u64,
    /// Routes of the main table that the packet path has no notion of, at the last dump.
    pub routes_skipped: u64,
    /// Routes that name a next-hop object we cannot see into, at the last dump.
    pub routes_unresolved: u64,
    /// Our routes that the kernel refused, at the last attempt.
    pub install_failed: u64,
}

/// Starts the mirror.
#[derive(Debug)]
pub struct Mirror;

impl Mirror {
    /// Start mirroring, in the network namespace of this thread. Must be called in a tokio runtime.
    /// The first snapshot follows as soon as the kernel was read; until then the receiver holds the
    /// empty one of generation 0. Routes that an earlier process left behind are removed.
    pub fn spawn(
        config: MirrorConfig,
    ) -> Result<(MirrorHandle, watch::Receiver<Arc<Snapshot>>), Error> {
        let shared = Arc::new(Shared::default());
        let (commands, command_queue) = mpsc::channel(COMMANDS);
        let (routes, wanted_routes) = watch::channel(BTreeMap::new());
        let (fresh, wanted_fresh) = watch::channel(BTreeSet::new());
        let (snapshots, receiver) = watch::channel(Arc::new(Snapshot::default()));
        let inputs =
            task::Inputs { commands: command_queue, routes: wanted_routes, fresh: wanted_fresh };
        let task = task::Task::new(config, inputs, snapshots, Arc::clone(&shared))?;
        tokio::spawn(task.run());
        Ok((MirrorHandle { commands, routes, fresh, shared }, receiver))
    }
}

/// Requests to resolve that may wait for the task.
const COMMANDS: usize = 1024;
/// Neighbours that [`MirrorHandle::keep_fresh`] accepts.
const MOST_FRESH: usize = 16 * 1024;

type WantedRoutes = BTreeMap<(RouteSource, IpNet), Vec<InstalledNextHop>>;

#[derive(Debug)]
enum Command {
    Resolve(NeighbourKey),
    Shutdown(oneshot::Sender<()>),
}

/// Talks to the mirror. Cheap to clone. When the last one is dropped the mirror removes its routes
/// and ends, as after [`MirrorHandle::shutdown`].
#[derive(Debug, Clone)]
pub struct MirrorHandle {
    commands: mpsc::Sender<Command>,
    routes: watch::Sender<WantedRoutes>,
    fresh: watch::Sender<BTreeSet<NeighbourKey>>,
    shared: Arc<Shared>,
}

impl MirrorHandle {
    /// Have the kernel resolve a neighbour now. Never blocks; asking often is fine, since requests
    /// are limited per neighbour and in total. The answer is the neighbour in a later snapshot.
    pub fn resolve(&self, ifindex: u32, address: IpAddr) {
        if self.commands.try_send(Command::Resolve((ifindex, address))).is_err() {
            self.shared.resolve_refused.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The neighbours in use, replacing the last set. The kernel does not see the packet path's
    /// packets, so it would let these go stale; they are probed instead, and the missing ones
    /// resolved again about once a second. At most 16 384; the rest of a larger set is ignored.
    pub fn keep_fresh(&self, neighbours: BTreeSet<NeighbourKey>) {
        let neighbours: BTreeSet<_> = neighbours.into_iter().take(MOST_FRESH).collect();
        self.fresh.send_if_modified(|current| {
            let changed = *current != neighbours;
            *current = neighbours;
            changed
        });
    }

    /// All the routes that `source` wants in the kernel's main table, replacing its last set. The
    /// mirror installs the difference, and again what the kernel lost (it drops the routes of an
    /// interface that goes down) once that is possible. A prefix without next hops is not
    /// installed. Refused routes are logged, counted and tried again.
    pub fn install_routes(
        &self,
        source: RouteSource,
        routes: BTreeMap<IpNet, Vec<InstalledNextHop>>,
    ) {
        self.routes.send_if_modified(|wanted| {
            let mut next: WantedRoutes = routes
                .into_iter()
                .filter(|(_, next_hops)| !next_hops.is_empty())
                .map(|(prefix, next_hops)| ((source, prefix.trunc()), next_hops))
                .collect();
            next.extend(
                wanted.iter().filter(|((s, _), _)| *s != source).map(|(k, v)| (*k, v.clone())),
            );
            let changed = *wanted != next;
            *wanted = next;
            changed
        });
    }

    /// Remove all our routes and stop. Returns when that is done.
    pub async fn shutdown(&self) -> Result<(), Error> {
        let (done, wait) = oneshot::channel();
        self.commands.send(Command::Shutdown(done)).await.map_err(|_| Error::Stopped)?;
        wait.await.map_err(|_| Error::Stopped)
    }

    pub fn counters(&self) -> Counters {
        self.shared.read()
    }
}

/// Counters shared with the task; see [`Counters`].
#[derive(Debug, Default)]
struct Shared {
    events: AtomicU64,
    malformed: AtomicU64,
    resyncs: AtomicU64,
    overruns: AtomicU64,
    published: AtomicU64,
    resolved: AtomicU64,
    resolve_refused: AtomicU64,
    routes_skipped: AtomicU64,
    routes_unresolved: AtomicU64,
    install_failed: AtomicU64,
}

impl Shared {
    fn read(&self) -> Counters {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counters {
            events: get(&self.events),
            malformed: get(&self.malformed),
            resyncs: get(&self.resyncs),
            overruns: get(&self.overruns),
            published: get(&self.published),
            resolved: get(&self.resolved),
            resolve_refused: get(&self.resolve_refused),
            routes_skipped: get(&self.routes_skipped),
            routes_unresolved: get(&self.routes_unresolved),
            install_failed: get(&self.install_failed),
        }
    }
}

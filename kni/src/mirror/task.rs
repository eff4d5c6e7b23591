//! The task that owns the mirror: sockets, deadlines, and the order of work.
//!
//! Every wake-up takes in what arrived and then does what is due. Nothing that is due can be put
//! off by more arriving: deadlines, once set, are not moved.

mod reconcile;

use super::install::Attempts;
use super::neighbours::{self, Limiter};
use super::routes::{self, Selection};
use super::view::{Effect, View};
use super::{Command, MirrorConfig, NeighbourKey, Shared, Snapshot, WantedRoutes};
use crate::error::Error;
use crate::netlink::{Events, NLM_F_CREATE, Netlink};
use crate::wire::Message;
use rtnetlink::packet_route::RouteNetlinkMessage as Request;
use rtnetlink::packet_route::address::AddressMessage;
use rtnetlink::packet_route::link::LinkMessage;
use rtnetlink::packet_route::neighbour::NeighbourMessage;
use rtnetlink::packet_route::route::RouteMessage;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};
use tracing::{debug, warn};

// linux/rtnetlink.h, RTNLGRP_*: link, neigh, ipv4 ifaddr and route, ipv6 ifaddr and route, nexthop.
const GROUPS: [u32; 7] = [1, 3, 5, 7, 9, 11, 32];

/// After a failed dump, or before opening a broken event socket again.
const RETRY: Duration = Duration::from_secs(1);
/// How often the neighbours in use are looked at.
const FRESH_INTERVAL: Duration = Duration::from_secs(1);
/// Dumps of routes take at most one part in this many of the task's time.
const ROUTES_SHARE: u32 = 10;
/// Neighbours whose last request is remembered. More than `keep_fresh` accepts, so that it cannot
/// starve `resolve`.
const LIMITED: usize = 32 * 1024;

/// What the handles send.
#[derive(Debug)]
pub(super) struct Inputs {
    pub commands: mpsc::Receiver<Command>,
    pub routes: watch::Receiver<WantedRoutes>,
    pub fresh: watch::Receiver<BTreeSet<NeighbourKey>>,
}

pub(super) struct Task {
    config: MirrorConfig,
    netlink: Netlink,
    events: Events,
    /// The event socket failed: open another one then.
    reopen_at: Option<Instant>,
    inputs: Inputs,
    snapshots: watch::Sender<Arc<Snapshot>>,
    shared: Arc<Shared>,
    view: View,
    /// A complete dump has succeeded at least once.
    synced: bool,
    limiter: Limiter,
    attempts: Attempts,
    due: Due,
    last_publish: Option<Instant>,
    /// The next dump of routes may not be before this.
    routes_not_before: Instant,
}

/// When each kind of work is due. `None`: not at all.
#[derive(Debug, Default)]
struct Due {
    resync: Option<Instant>,
    routes: Option<Instant>,
    reconcile: Option<Instant>,
    fresh: Option<Instant>,
    publish: Option<Instant>,
}

impl Due {
    /// Until the first complete dump only that dump counts: nothing else can be done before.
    fn next(&self, synced: bool) -> Option<Instant> {
        if !synced {
            return self.resync;
        }
        [self.resync, self.routes, self.reconcile, self.fresh, self.publish]
            .into_iter()
            .flatten()
            .min()
    }
}

/// Bring a deadline forward, never back.
fn by(slot: &mut Option<Instant>, at: Instant) {
    *slot = Some(slot.map_or(at, |current| current.min(at)));
}

/// Take a deadline that has come.
fn take(slot: &mut Option<Instant>, now: Instant) -> bool {
    slot.take_if(|at| *at <= now).is_some()
}

enum Arrived {
    Events(std::io::Result<crate::netlink::Batch>),
    Command(Option<Command>),
    Routes,
    Fresh,
    Time,
}

impl Task {
    pub(super) fn new(
        config: MirrorConfig,
        inputs: Inputs,
        snapshots: watch::Sender<Arc<Snapshot>>,
        shared: Arc<Shared>,
    ) -> Result<Self, Error> {
        let now = Instant::now();
        Ok(Self {
            events: Events::open(&GROUPS, config.receive_buffer)?,
            netlink: Netlink::open()?,
            reopen_at: None,
            inputs,
            snapshots,
            shared,
            view: View::new(config.interfaces.iter().cloned()),
            synced: false,
            limiter: Limiter::new(config.resolve_interval, LIMITED),
            attempts: Attempts::default(),
            due: Due { resync: Some(now), ..Due::default() },
            last_publish: None,
            routes_not_before: now,
            config,
        })
    }

    pub(super) async fn run(mut self) {
        loop {
            let wake = [self.due.next(self.synced), self.reopen_at].into_iter().flatten().min();
            match self.arrival(wake).await {
                Arrived::Events(batch) => self.take_events(batch),
                Arrived::Command(Some(Command::Resolve(key))) => self.resolve(key).await,
                Arrived::Command(Some(Command::Shutdown(done))) => {
                    return self.finish(Some(done)).await;
                }
                Arrived::Command(None) => return self.finish(None).await,
                Arrived::Routes => by(&mut self.due.reconcile, Instant::now()),
                Arrived::Fresh => by(&mut self.due.fresh, Instant::now()),
                Arrived::Time => {}
            }
            self.work().await;
        }
    }

    async fn arrival(&mut self, wake: Option<Instant>) -> Arrived {
        let sleep = async {
            match wake {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            batch = self.events.next(), if self.reopen_at.is_none() => Arrived::Events(batch),
            command = self.inputs.commands.recv() => Arrived::Command(command),
            Ok(()) = self.inputs.routes.changed() => Arrived::Routes,
            Ok(()) = self.inputs.fresh.changed() => Arrived::Fresh,
            () = sleep => Arrived::Time,
        }
    }

    fn take_events(&mut self, batch: std::io::Result<crate::netlink::Batch>) {
        let now = Instant::now();
        let batch = match batch {
            Ok(batch) => batch,
            Err(error) => {
                warn!(%error, "netlink event socket failed; opening another");
                self.reopen_at = Some(now + RETRY);
                return;
            }
        };
        self.shared.events.fetch_add(batch.messages.len() as u64, Ordering::Relaxed);
        if batch.lost {
            self.lost(now);
        }
        let effect = batch
            .messages
            .into_iter()
            .fold(Effect::default(), |effect, message| effect.and(self.view.apply(message, now)));
        self.follow(effect, now);
    }

    /// The kernel dropped events, or some could not be decoded: what we hold may be wrong.
    fn lost(&mut self, now: Instant) {
        self.shared.overruns.fetch_add(1, Ordering::Relaxed);
        by(&mut self.due.resync, now);
    }

    fn follow(&mut self, effect: Effect, now: Instant) {
        if effect.changed {
            self.publish_soon(now);
        }
        if effect.resync {
            by(&mut self.due.resync, now);
        }
        if effect.routes {
            by(&mut self.due.routes, now.max(self.routes_not_before));
        }
    }

    fn publish_soon(&mut self, now: Instant) {
        let earliest = self.last_publish.map_or(now, |last| last + self.config.publish_interval);
        by(&mut self.due.publish, now.max(earliest));
    }

    async fn work(&mut self) {
        let now = Instant::now();
        if take(&mut self.reopen_at, now) {
            self.reopen(now);
        }
        if take(&mut self.due.resync, now) {
            self.resync().await;
        } else if self.synced && take(&mut self.due.routes, now) {
            self.read_routes().await;
        }
        let now = Instant::now();
        if self.synced && take(&mut self.due.reconcile, now) {
            self.reconcile().await;
        }
        if self.synced && take(&mut self.due.fresh, now) {
            self.freshen(now).await;
        }
        if self.synced && take(&mut self.due.publish, now) {
            self.publish(now);
        }
        let malformed = self.netlink.malformed + self.events.malformed;
        self.shared.malformed.store(malformed, Ordering::Relaxed);
    }

    fn reopen(&mut self, now: Instant) {
        match Events::open(&GROUPS, self.config.receive_buffer) {
            Ok(mut events) => {
                events.malformed = self.events.malformed;
                self.events = events;
                self.lost(now);
            }
            Err(error) => {
                warn!(%error, "cannot open a netlink event socket");
                self.reopen_at = Some(now + RETRY);
            }
        }
    }

    /// Read everything from the kernel. Events that arrived before are applied to it again later,
    /// in order, which ends in the same state.
    async fn resync(&mut self) {
        match self.dump_all().await {
            Ok(dump) => {
                let now = Instant::now();
                self.shared.resyncs.fetch_add(1, Ordering::Relaxed);
                let changed = self.view.replace(dump, now);
                self.due.routes = None;
                by(&mut self.due.reconcile, now);
                by(&mut self.due.fresh, now);
                if changed || !self.synced {
                    self.publish_soon(now);
                }
                self.synced = true;
            }
            Err(error) => {
                warn!(%error, "cannot read the kernel's tables; trying again");
                by(&mut self.due.resync, Instant::now() + RETRY);
            }
        }
    }

    async fn dump_all(&mut self) -> Result<Vec<Message>, Error> {
        let netlink = &mut self.netlink;
        let mut all = netlink.dump("list links", Request::GetLink(LinkMessage::default())).await?;
        let addresses = Request::GetAddress(AddressMessage::default());
        all.extend(netlink.dump("list addresses", addresses).await?);
        let neighbours = Request::GetNeighbour(NeighbourMessage::default());
        all.extend(netlink.dump("list neighbours", neighbours).await?);
        all.extend(self.dump_routes().await?);
        Ok(all)
    }

    async fn dump_routes(&mut self) -> Result<Vec<Message>, Error> {
        let start = Instant::now();
        let dump =
            self.netlink.dump("list routes", Request::GetRoute(RouteMessage::default())).await?;
        let end = Instant::now();
        let pause = (end - start) * (ROUTES_SHARE - 1);
        self.routes_not_before = end + pause.max(self.config.publish_interval);
        Ok(dump)
    }

    async fn read_routes(&mut self) {
        match self.dump_routes().await {
            Ok(dump) => {
                let now = Instant::now();
                if self.view.replace_routes(dump) {
                    self.publish_soon(now);
                }
                by(&mut self.due.reconcile, now);
            }
            Err(error) => {
                warn!(%error, "cannot read the kernel's routes; trying again");
                by(&mut self.due.routes, Instant::now() + RETRY);
            }
        }
    }

    fn publish(&mut self, now: Instant) {
        let Selection { routes, skipped, unresolved } =
            routes::select(&self.view.routes, &self.view.links);
        self.shared.routes_skipped.store(skipped, Ordering::Relaxed);
        if self.shared.routes_unresolved.swap(unresolved, Ordering::Relaxed) == 0 && unresolved > 0
        {
            warn!(
                routes = unresolved,
                "routes name next-hop objects whose content the kernel does not list; set \
                 net.ipv4.nexthop_compat_mode=1"
            );
        }
        let previous = self.snapshots.borrow().clone();
        let mut next = Snapshot {
            generation: previous.generation,
            links: self.view.links.clone(),
            addresses: self.view.addresses.iter().copied().collect(),
            neighbours: self.view.neighbours.iter().map(|(k, e)| (*k, e.neighbour)).collect(),
            routes,
        };
        if previous.generation > 0 && next == *previous {
            return;
        }
        next.generation += 1;
        self.last_publish = Some(now);
        self.shared.published.fetch_add(1, Ordering::Relaxed);
        self.snapshots.send_replace(Arc::new(next));
    }

    async fn resolve(&mut self, key: NeighbourKey) {
        if !neighbours::wants_resolving(&self.view, key) {
            return;
        }
        if self.limiter.allow(key, Instant::now()) {
            self.use_neighbour(key).await;
        } else {
            self.shared.resolve_refused.fetch_add(1, Ordering::Relaxed);
        }
    }

    async fn freshen(&mut self, now: Instant) {
        let in_use = self.inputs.fresh.borrow_and_update().clone();
        let due =
            neighbours::due(&self.view, &in_use, self.config.stale_after, &mut self.limiter, now);
        for key in due {
            self.use_neighbour(key).await;
        }
        if !in_use.is_empty() {
            by(&mut self.due.fresh, now + FRESH_INTERVAL);
        }
    }

    async fn use_neighbour(&mut self, key: NeighbourKey) {
        count(&self.shared.resolved);
        let request = Request::NewNeighbour(neighbours::use_message(key));
        if let Err(error) = self.netlink.request("resolve a neighbour", request, NLM_F_CREATE).await
        {
            debug!(interface = key.0, address = %key.1, %error, "neighbour not resolved");
        }
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
